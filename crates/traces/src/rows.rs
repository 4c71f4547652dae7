//! Spans into Arrow columns: the write side of a block's Parquet files.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, FixedSizeBinaryBuilder, Float64Builder, Int32Builder, Int64Builder,
    ListArray, RecordBatch, StringBuilder, StructArray, UInt32Builder, UInt64Builder,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::Fields;
use trilith_model::trace::{AnyValue, KeyValue, Resource, Scope};
use trilith_model::{Error, Result};

use crate::anyvalue;
use crate::batch::{AttributesRef, SpanRef, ValueRef};
use crate::head::span_bytes;
use crate::schema;

const BATCH_ROWS: usize = 8192;
const BATCH_BYTES: u64 = 32 << 20;

fn arrow_error(e: arrow::error::ArrowError) -> Error {
    Error::internal(format!("span columns: {e}"))
}

/// List offsets; the caller keeps batches far below 2^31 items.
struct Offsets(Vec<i32>);

impl Default for Offsets {
    fn default() -> Self {
        Offsets(vec![0])
    }
}

impl Offsets {
    fn push(&mut self, items: usize) -> Result<()> {
        let items = i32::try_from(items).map_err(|_| Error::internal("too many items in one batch of columns"))?;
        self.0.push(items);
        Ok(())
    }

    fn list(&mut self, fields: Fields, columns: Vec<ArrayRef>) -> Result<ArrayRef> {
        let offsets = OffsetBuffer::new(ScalarBuffer::from(std::mem::take(&mut self.0)));
        self.0.push(0);
        let items = StructArray::try_new(fields.clone(), columns, None).map_err(arrow_error)?;
        let list = ListArray::try_new(schema::list_field(fields), offsets, Arc::new(items), None);
        Ok(Arc::new(list.map_err(arrow_error)?))
    }
}

#[derive(Default)]
struct Attributes {
    offsets: Offsets,
    count: usize,
    key: StringBuilder,
    string: StringBuilder,
    int: Int64Builder,
    double: Float64Builder,
    bool: BooleanBuilder,
    other: BinaryBuilder,
}

impl Attributes {
    fn value(&mut self, key: &str, value: ValueRef<'_>) {
        self.count += 1;
        self.key.append_value(key);
        let (mut string, mut int, mut double, mut bool, mut other) = (None, None, None, None, None);
        match value {
            ValueRef::Empty => {}
            ValueRef::String(v) => string = Some(v),
            ValueRef::Int(v) => int = Some(v),
            ValueRef::Double(v) => double = Some(v),
            ValueRef::Bool(v) => bool = Some(v),
            ValueRef::Other(v) => other = Some(v),
        }
        self.string.append_option(string);
        self.int.append_option(int);
        self.double.append_option(double);
        self.bool.append_option(bool);
        self.other.append_option(other);
    }

    fn push(&mut self, attributes: &AttributesRef<'_>) -> Result<()> {
        for pair in attributes.iter() {
            let (key, value) = pair?;
            self.value(key, value);
        }
        self.offsets.push(self.count)
    }

    fn push_model(&mut self, attributes: &[KeyValue]) -> Result<()> {
        let mut bytes = Vec::new();
        for KeyValue { key, value } in attributes {
            let value = match value {
                AnyValue::Empty => ValueRef::Empty,
                AnyValue::String(s) => ValueRef::String(s),
                AnyValue::Bool(b) => ValueRef::Bool(*b),
                AnyValue::Int(i) => ValueRef::Int(*i),
                AnyValue::Double(f) => ValueRef::Double(*f),
                AnyValue::Bytes(_) | AnyValue::Array(_) | AnyValue::KvList(_) => {
                    bytes.clear();
                    anyvalue::encode(&mut bytes, value)?;
                    ValueRef::Other(&bytes)
                }
            };
            self.value(key, value);
        }
        self.offsets.push(self.count)
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        self.count = 0;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.key.finish()),
            Arc::new(self.string.finish()),
            Arc::new(self.int.finish()),
            Arc::new(self.double.finish()),
            Arc::new(self.bool.finish()),
            Arc::new(self.other.finish()),
        ];
        self.offsets.list(schema::attribute_fields(), columns)
    }
}

/// Collects spans and gives them out as batches of [`schema::spans`].
pub struct SpanRows {
    rows: usize,
    /// Of texts, approximately.
    bytes: u64,
    trace_id: FixedSizeBinaryBuilder,
    span_id: FixedSizeBinaryBuilder,
    parent_span_id: FixedSizeBinaryBuilder,
    trace_state: StringBuilder,
    flags: UInt32Builder,
    name: StringBuilder,
    kind: Int32Builder,
    start: UInt64Builder,
    duration: UInt64Builder,
    end: UInt64Builder,
    status_code: Int32Builder,
    status_message: StringBuilder,
    service_name: StringBuilder,
    resource_id: UInt32Builder,
    scope_id: UInt32Builder,
    attributes: Attributes,
    dropped: [UInt32Builder; 3],
    event_offsets: Offsets,
    event_count: usize,
    event_time: UInt64Builder,
    event_name: StringBuilder,
    event_dropped: UInt32Builder,
    event_attributes: Attributes,
    link_offsets: Offsets,
    link_count: usize,
    link_trace_id: FixedSizeBinaryBuilder,
    link_span_id: FixedSizeBinaryBuilder,
    link_trace_state: StringBuilder,
    link_flags: UInt32Builder,
    link_dropped: UInt32Builder,
    link_attributes: Attributes,
}

impl Default for SpanRows {
    fn default() -> Self {
        SpanRows {
            rows: 0,
            bytes: 0,
            trace_id: FixedSizeBinaryBuilder::new(16),
            span_id: FixedSizeBinaryBuilder::new(8),
            parent_span_id: FixedSizeBinaryBuilder::new(8),
            trace_state: StringBuilder::new(),
            flags: UInt32Builder::new(),
            name: StringBuilder::new(),
            kind: Int32Builder::new(),
            start: UInt64Builder::new(),
            duration: UInt64Builder::new(),
            end: UInt64Builder::new(),
            status_code: Int32Builder::new(),
            status_message: StringBuilder::new(),
            service_name: StringBuilder::new(),
            resource_id: UInt32Builder::new(),
            scope_id: UInt32Builder::new(),
            attributes: Attributes::default(),
            dropped: Default::default(),
            event_offsets: Offsets::default(),
            event_count: 0,
            event_time: UInt64Builder::new(),
            event_name: StringBuilder::new(),
            event_dropped: UInt32Builder::new(),
            event_attributes: Attributes::default(),
            link_offsets: Offsets::default(),
            link_count: 0,
            link_trace_id: FixedSizeBinaryBuilder::new(16),
            link_span_id: FixedSizeBinaryBuilder::new(8),
            link_trace_state: StringBuilder::new(),
            link_flags: UInt32Builder::new(),
            link_dropped: UInt32Builder::new(),
            link_attributes: Attributes::default(),
        }
    }
}

impl SpanRows {
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Time to `finish`: enough rows to amortise a batch, or so many bytes that Arrow's 31-bit offsets come near.
    pub fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }

    /// `service` is the string value of the resource's `service.name`, if any.
    pub fn push(&mut self, span: &SpanRef<'_>, resource: u32, scope: u32, service: Option<&str>) -> Result<()> {
        self.rows += 1;
        self.bytes += span_bytes(span)?;
        self.trace_id.append_value(span.trace_id.0).map_err(arrow_error)?;
        self.span_id.append_value(span.span_id.0).map_err(arrow_error)?;
        if span.parent_span_id.is_zero() {
            self.parent_span_id.append_null();
        } else {
            self.parent_span_id
                .append_value(span.parent_span_id.0)
                .map_err(arrow_error)?;
        }
        self.trace_state.append_value(span.trace_state);
        self.flags.append_value(span.flags);
        self.name.append_value(span.name);
        self.kind.append_value(span.kind);
        self.start.append_value(span.start_ns);
        self.duration.append_value(span.end_ns.saturating_sub(span.start_ns));
        self.end
            .append_option((span.end_ns < span.start_ns).then_some(span.end_ns));
        self.status_code.append_option(span.status.map(|s| s.0));
        self.status_message.append_option(span.status.map(|s| s.1));
        self.service_name.append_option(service);
        self.resource_id.append_value(resource);
        self.scope_id.append_value(scope);
        self.attributes.push(&span.attributes)?;
        for (column, n) in self.dropped.iter_mut().zip(span.dropped) {
            column.append_value(n);
        }
        for event in span.events() {
            let event = event?;
            self.event_count += 1;
            self.event_time.append_value(event.time_ns);
            self.event_name.append_value(event.name);
            self.event_dropped.append_value(event.dropped);
            self.event_attributes.push(&event.attributes)?;
        }
        self.event_offsets.push(self.event_count)?;
        for link in span.links() {
            let link = link?;
            self.link_count += 1;
            self.link_trace_id.append_value(link.trace_id.0).map_err(arrow_error)?;
            self.link_span_id.append_value(link.span_id.0).map_err(arrow_error)?;
            self.link_trace_state.append_value(link.trace_state);
            self.link_flags.append_value(link.flags);
            self.link_dropped.append_value(link.dropped);
            self.link_attributes.push(&link.attributes)?;
        }
        self.link_offsets.push(self.link_count)
    }

    /// Gives out what was collected and starts anew.
    pub fn finish(&mut self) -> Result<RecordBatch> {
        self.rows = 0;
        self.bytes = 0;
        self.event_count = 0;
        self.link_count = 0;
        let events: Vec<ArrayRef> = vec![
            Arc::new(self.event_time.finish()),
            Arc::new(self.event_name.finish()),
            Arc::new(self.event_dropped.finish()),
            self.event_attributes.finish()?,
        ];
        let links: Vec<ArrayRef> = vec![
            Arc::new(self.link_trace_id.finish()),
            Arc::new(self.link_span_id.finish()),
            Arc::new(self.link_trace_state.finish()),
            Arc::new(self.link_flags.finish()),
            Arc::new(self.link_dropped.finish()),
            self.link_attributes.finish()?,
        ];
        let [dropped_attributes, dropped_events, dropped_links] = &mut self.dropped;
        // In the order of `schema::Column::ALL`.
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.trace_id.finish()),
            Arc::new(self.span_id.finish()),
            Arc::new(self.parent_span_id.finish()),
            Arc::new(self.trace_state.finish()),
            Arc::new(self.flags.finish()),
            Arc::new(self.name.finish()),
            Arc::new(self.kind.finish()),
            Arc::new(self.start.finish()),
            Arc::new(self.duration.finish()),
            Arc::new(self.end.finish()),
            Arc::new(self.status_code.finish()),
            Arc::new(self.status_message.finish()),
            Arc::new(self.service_name.finish()),
            Arc::new(self.resource_id.finish()),
            Arc::new(self.scope_id.finish()),
            self.attributes.finish()?,
            Arc::new(dropped_attributes.finish()),
            self.event_offsets.list(schema::event_fields(), events)?,
            Arc::new(dropped_events.finish()),
            self.link_offsets.list(schema::link_fields(), links)?,
            Arc::new(dropped_links.finish()),
        ];
        RecordBatch::try_new(schema::spans(), columns).map_err(arrow_error)
    }
}

/// Collects resources or scopes as a batch of [`schema::contexts`].
#[derive(Default)]
pub struct ContextRows {
    id: UInt32Builder,
    present: BooleanBuilder,
    name: StringBuilder,
    version: StringBuilder,
    schema_url: StringBuilder,
    dropped: UInt32Builder,
    attributes: Attributes,
}

impl ContextRows {
    pub fn resource(&mut self, id: u32, r: &Resource) -> Result<()> {
        self.push(
            id,
            r.present,
            "",
            "",
            &r.schema_url,
            r.dropped_attributes_count,
            &r.attributes,
        )
    }

    pub fn scope(&mut self, id: u32, s: &Scope) -> Result<()> {
        self.push(
            id,
            s.present,
            &s.name,
            &s.version,
            &s.schema_url,
            s.dropped_attributes_count,
            &s.attributes,
        )
    }

    fn push(
        &mut self,
        id: u32,
        present: bool,
        name: &str,
        version: &str,
        schema_url: &str,
        dropped: u32,
        attributes: &[KeyValue],
    ) -> Result<()> {
        self.id.append_value(id);
        self.present.append_value(present);
        self.name.append_value(name);
        self.version.append_value(version);
        self.schema_url.append_value(schema_url);
        self.dropped.append_value(dropped);
        self.attributes.push_model(attributes)
    }

    pub fn finish(mut self) -> Result<RecordBatch> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.id.finish()),
            Arc::new(self.present.finish()),
            Arc::new(self.name.finish()),
            Arc::new(self.version.finish()),
            Arc::new(self.schema_url.finish()),
            Arc::new(self.dropped.finish()),
            self.attributes.finish()?,
        ];
        RecordBatch::try_new(schema::contexts(), columns).map_err(arrow_error)
    }
}
