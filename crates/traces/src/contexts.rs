//! The distinct resources and scopes of a block, numbered in order of first use.

use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use hashbrown::HashMap;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use trilith_codec::{put_str, put_uvarint};
use trilith_model::trace::{KeyValue, Resource, Scope};
use trilith_model::{Error, Result};
use trilith_query::span_rows::service_name;

use crate::decode;
use crate::rows::ContextRows;
use crate::{anyvalue, schema, writer};

/// Deduplicates by content, floats by their bits.
#[derive(Default)]
pub struct Contexts {
    pub resources: Vec<Arc<Resource>>,
    pub scopes: Vec<Arc<Scope>>,
    resource_ids: HashMap<Vec<u8>, u32, foldhash::fast::RandomState>,
    scope_ids: HashMap<Vec<u8>, u32, foldhash::fast::RandomState>,
}

impl Contexts {
    pub fn resource(&mut self, resource: Resource) -> Result<u32> {
        let mut key = vec![u8::from(resource.present)];
        put_str(&mut key, &resource.schema_url);
        put_uvarint(&mut key, u64::from(resource.dropped_attributes_count));
        put_attributes(&mut key, &resource.attributes)?;
        let next = next_id(self.resources.len())?;
        Ok(*self.resource_ids.entry(key).or_insert_with(|| {
            self.resources.push(Arc::new(resource));
            next
        }))
    }

    pub fn scope(&mut self, scope: Scope) -> Result<u32> {
        let mut key = vec![u8::from(scope.present)];
        put_str(&mut key, &scope.name);
        put_str(&mut key, &scope.version);
        put_str(&mut key, &scope.schema_url);
        put_uvarint(&mut key, u64::from(scope.dropped_attributes_count));
        put_attributes(&mut key, &scope.attributes)?;
        let next = next_id(self.scopes.len())?;
        Ok(*self.scope_ids.entry(key).or_insert_with(|| {
            self.scopes.push(Arc::new(scope));
            next
        }))
    }

    /// For the `service_name` column, which is there for people: `None` when there is no name or an empty one.
    pub fn service(&self, resource: u32) -> Option<&str> {
        let name = service_name(self.resources.get(resource as usize)?);
        (!name.is_empty()).then_some(name)
    }

    /// `resources.parquet` and `scopes.parquet`.
    pub fn to_parquet(&self) -> Result<(Bytes, Bytes)> {
        let mut rows = ContextRows::default();
        for (id, r) in (0..).zip(&self.resources) {
            rows.resource(id, r)?;
        }
        let resources = to_parquet(&rows.finish()?)?;
        let mut rows = ContextRows::default();
        for (id, s) in (0..).zip(&self.scopes) {
            rows.scope(id, s)?;
        }
        Ok((resources, to_parquet(&rows.finish()?)?))
    }
}

fn next_id(len: usize) -> Result<u32> {
    u32::try_from(len).map_err(|_| Error::internal("more than 2^32 resources or scopes in one block"))
}

fn put_attributes(key: &mut Vec<u8>, attributes: &[KeyValue]) -> Result<()> {
    let mut value = Vec::new();
    for a in attributes {
        put_str(key, &a.key);
        value.clear();
        anyvalue::encode(&mut value, &a.value)?;
        trilith_codec::put_bytes(key, &value);
    }
    Ok(())
}

fn to_parquet(rows: &RecordBatch) -> Result<Bytes> {
    let mut out = Vec::new();
    let mut w = ArrowWriter::try_new(&mut out, schema::contexts(), Some(writer::context_properties()))
        .map_err(writer::failed)?;
    w.write(rows).map_err(writer::failed)?;
    w.close().map_err(writer::failed)?;
    Ok(out.into())
}

/// Rows of `resources.parquet` or `scopes.parquet`, whose ids must be 0, 1, 2, ….
fn read_rows(bytes: Bytes) -> Result<Vec<Scope>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(decode::bad_parquet)?;
    let reader = reader.with_batch_size(4096).build().map_err(decode::bad_parquet)?;
    let mut out = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|e| Error::corrupt(format!("resources or scopes: {e}")))?;
        decode::contexts(&batch, &mut out)?;
    }
    Ok(out)
}

/// # Errors
/// `Corrupt`.
pub fn read_scopes(bytes: Bytes) -> Result<Vec<Arc<Scope>>> {
    Ok(read_rows(bytes)?.into_iter().map(Arc::new).collect())
}

/// # Errors
/// `Corrupt`.
pub fn read_resources(bytes: Bytes) -> Result<Vec<Arc<Resource>>> {
    let rows = read_rows(bytes)?.into_iter().map(|s| {
        Arc::new(Resource {
            attributes: s.attributes,
            dropped_attributes_count: s.dropped_attributes_count,
            schema_url: s.schema_url,
            present: s.present,
        })
    });
    Ok(rows.collect())
}
