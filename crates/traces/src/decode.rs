//! Arrow columns into spans: the read side of a block's Parquet files. Columns that were not read leave their
//! fields at the default.

use std::sync::Arc;

use arrow::array::{
    Array, AsArray, BinaryArray, BooleanArray, FixedSizeBinaryArray, Float64Array, Int64Array, ListArray, RecordBatch,
    StringArray, StructArray, UInt32Array, UInt64Array,
};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type, UInt32Type, UInt64Type};
use trilith_model::trace::{AnyValue, Event, KeyValue, Link, Resource, Scope, Span, SpanId, Status, TraceId};
use trilith_model::{Error, Result};
use trilith_query::span_rows::SpanRow;

use crate::anyvalue;
use crate::schema::Column;

pub fn bad_parquet(e: parquet::errors::ParquetError) -> Error {
    Error::corrupt(format!("parquet: {e}"))
}

fn missing(name: &str) -> Error {
    Error::corrupt(format!("column {name} is missing or of another type"))
}

macro_rules! typed {
    ($fn:ident, $t:ty, $get:expr) => {
        pub fn $fn<'a>(array: &'a dyn Array, name: &str) -> Result<&'a $t> {
            let get: fn(&'a dyn Array) -> Option<&'a $t> = $get;
            get(array).ok_or_else(|| missing(name))
        }
    };
}
typed!(u32s, UInt32Array, |a| a.as_primitive_opt::<UInt32Type>());
typed!(u64s, UInt64Array, |a| a.as_primitive_opt::<UInt64Type>());
typed!(i32s, arrow::array::Int32Array, |a| a.as_primitive_opt::<Int32Type>());
typed!(i64s, Int64Array, |a| a.as_primitive_opt::<Int64Type>());
typed!(f64s, Float64Array, |a| a.as_primitive_opt::<Float64Type>());
typed!(bools, BooleanArray, |a| a.as_boolean_opt());
typed!(strings, StringArray, |a| a.as_string_opt::<i32>());
typed!(binaries, BinaryArray, |a| a.as_binary_opt::<i32>());
typed!(fixed, FixedSizeBinaryArray, |a| a.as_fixed_size_binary_opt());
typed!(lists, ListArray, |a| a.as_list_opt::<i32>());
typed!(structs, StructArray, |a| a.as_struct_opt());

fn child<'a>(s: &'a StructArray, name: &str) -> Result<&'a dyn Array> {
    s.column_by_name(name)
        .map(|c| c.as_ref() as &dyn Array)
        .ok_or_else(|| missing(name))
}

/// A list column of structs with all its children.
pub struct Items<'a> {
    pub list: &'a ListArray,
    pub items: &'a StructArray,
}

impl<'a> Items<'a> {
    pub fn new(array: &'a dyn Array, name: &str) -> Result<Self> {
        let list = lists(array, name)?;
        Ok(Items {
            list,
            items: structs(list.values().as_ref(), name)?,
        })
    }

    pub fn range(&self, row: usize) -> std::ops::Range<usize> {
        // Arrow checks offsets when it builds the array: ascending and within the values.
        let offsets = self.list.value_offsets();
        offsets[row] as usize..offsets[row + 1] as usize
    }
}

/// An attribute list column.
pub struct AttributeColumn<'a> {
    pub items: Items<'a>,
    pub key: &'a StringArray,
    pub string: &'a StringArray,
    pub int: &'a Int64Array,
    pub double: &'a Float64Array,
    pub bool: &'a BooleanArray,
    pub other: &'a BinaryArray,
}

impl<'a> AttributeColumn<'a> {
    pub fn new(array: &'a dyn Array) -> Result<Self> {
        let items = Items::new(array, "attributes")?;
        let s = items.items;
        Ok(AttributeColumn {
            key: strings(child(s, "key")?, "key")?,
            string: strings(child(s, "string")?, "string")?,
            int: i64s(child(s, "int")?, "int")?,
            double: f64s(child(s, "double")?, "double")?,
            bool: bools(child(s, "bool")?, "bool")?,
            other: binaries(child(s, "other")?, "other")?,
            items,
        })
    }

    pub fn value(&self, i: usize) -> Result<AnyValue> {
        Ok(if self.string.is_valid(i) {
            AnyValue::String(self.string.value(i).to_owned())
        } else if self.int.is_valid(i) {
            AnyValue::Int(self.int.value(i))
        } else if self.bool.is_valid(i) {
            AnyValue::Bool(self.bool.value(i))
        } else if self.double.is_valid(i) {
            AnyValue::Double(self.double.value(i))
        } else if self.other.is_valid(i) {
            anyvalue::decode(self.other.value(i))?
        } else {
            AnyValue::Empty
        })
    }

    fn row(&self, row: usize) -> Result<Vec<KeyValue>> {
        self.items
            .range(row)
            .map(|i| {
                Ok(KeyValue {
                    key: self.key.value(i).to_owned(),
                    value: self.value(i)?,
                })
            })
            .collect()
    }
}

struct EventColumn<'a> {
    items: Items<'a>,
    time: &'a UInt64Array,
    name: &'a StringArray,
    dropped: &'a UInt32Array,
    attributes: AttributeColumn<'a>,
}

impl<'a> EventColumn<'a> {
    fn new(array: &'a dyn Array) -> Result<Self> {
        let items = Items::new(array, "events")?;
        let s = items.items;
        Ok(EventColumn {
            time: u64s(child(s, "time_ns")?, "time_ns")?,
            name: strings(child(s, "name")?, "name")?,
            dropped: u32s(child(s, "dropped_attributes_count")?, "dropped_attributes_count")?,
            attributes: AttributeColumn::new(child(s, "attributes")?)?,
            items,
        })
    }

    fn row(&self, row: usize) -> Result<Vec<Event>> {
        self.items
            .range(row)
            .map(|i| {
                Ok(Event {
                    time_ns: self.time.value(i),
                    name: self.name.value(i).to_owned(),
                    attributes: self.attributes.row(i)?,
                    dropped_attributes_count: self.dropped.value(i),
                })
            })
            .collect()
    }
}

struct LinkColumn<'a> {
    items: Items<'a>,
    trace_id: &'a FixedSizeBinaryArray,
    span_id: &'a FixedSizeBinaryArray,
    trace_state: &'a StringArray,
    flags: &'a UInt32Array,
    dropped: &'a UInt32Array,
    attributes: AttributeColumn<'a>,
}

impl<'a> LinkColumn<'a> {
    fn new(array: &'a dyn Array) -> Result<Self> {
        let items = Items::new(array, "links")?;
        let s = items.items;
        Ok(LinkColumn {
            trace_id: fixed(child(s, "trace_id")?, "trace_id")?,
            span_id: fixed(child(s, "span_id")?, "span_id")?,
            trace_state: strings(child(s, "trace_state")?, "trace_state")?,
            flags: u32s(child(s, "flags")?, "flags")?,
            dropped: u32s(child(s, "dropped_attributes_count")?, "dropped_attributes_count")?,
            attributes: AttributeColumn::new(child(s, "attributes")?)?,
            items,
        })
    }

    fn row(&self, row: usize) -> Result<Vec<Link>> {
        self.items
            .range(row)
            .map(|i| {
                Ok(Link {
                    trace_id: TraceId(id(self.trace_id.value(i))?),
                    span_id: SpanId(id(self.span_id.value(i))?),
                    trace_state: self.trace_state.value(i).to_owned(),
                    attributes: self.attributes.row(i)?,
                    dropped_attributes_count: self.dropped.value(i),
                    flags: self.flags.value(i),
                })
            })
            .collect()
    }
}

pub fn id<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes
        .try_into()
        .map_err(|_| Error::corrupt(format!("an id has {} bytes instead of {N}", bytes.len())))
}

/// A batch of `spans.parquet`, of whatever columns were read.
pub struct SpanColumns<'a> {
    batch: &'a RecordBatch,
}

impl<'a> SpanColumns<'a> {
    pub fn new(batch: &'a RecordBatch) -> Self {
        SpanColumns { batch }
    }

    pub fn get(&self, column: Column) -> Option<&'a dyn Array> {
        self.batch
            .column_by_name(column.name())
            .map(|c| c.as_ref() as &dyn Array)
    }

    pub fn require(&self, column: Column) -> Result<&'a dyn Array> {
        self.get(column).ok_or_else(|| missing(column.name()))
    }

    pub fn map<T>(&self, column: Column, f: impl Fn(&'a dyn Array, &str) -> Result<T>) -> Result<Option<T>> {
        self.get(column).map(|a| f(a, column.name())).transpose()
    }
}

/// Decodes all rows.
///
/// # Errors
/// `Corrupt` when a column has another type than the format says or a row points past the resources or scopes.
pub fn spans(batch: &RecordBatch, resources: &[Arc<Resource>], scopes: &[Arc<Scope>]) -> Result<Vec<SpanRow>> {
    let c = SpanColumns::new(batch);
    let trace_id = c.map(Column::TraceId, fixed)?;
    let span_id = c.map(Column::SpanId, fixed)?;
    let parent_span_id = c.map(Column::ParentSpanId, fixed)?;
    let trace_state = c.map(Column::TraceState, strings)?;
    let flags = c.map(Column::Flags, u32s)?;
    let name = c.map(Column::Name, strings)?;
    let kind = c.map(Column::Kind, i32s)?;
    let start = c.map(Column::Start, u64s)?;
    let duration = c.map(Column::Duration, u64s)?;
    let end = c.map(Column::End, u64s)?;
    let status_code = c.map(Column::StatusCode, i32s)?;
    let status_message = c.map(Column::StatusMessage, strings)?;
    let resource_id = c.map(Column::ResourceId, u32s)?;
    let scope_id = c.map(Column::ScopeId, u32s)?;
    let attributes = c.map(Column::Attributes, |a, _| AttributeColumn::new(a))?;
    let dropped_attributes = c.map(Column::DroppedAttributes, u32s)?;
    let events = c.map(Column::Events, |a, _| EventColumn::new(a))?;
    let dropped_events = c.map(Column::DroppedEvents, u32s)?;
    let links = c.map(Column::Links, |a, _| LinkColumn::new(a))?;
    let dropped_links = c.map(Column::DroppedLinks, u32s)?;

    let no_resource = Arc::<Resource>::default();
    let no_scope = Arc::<Scope>::default();
    let text = |a: Option<&StringArray>, i| a.filter(|a| a.is_valid(i)).map_or("", |a| a.value(i)).to_owned();
    let count = |a: Option<&UInt32Array>, i| a.map_or(0, |a| a.value(i));
    let mut out = Vec::with_capacity(batch.num_rows());
    for i in 0..batch.num_rows() {
        let resource = match resource_id {
            Some(a) => resources
                .get(a.value(i) as usize)
                .ok_or_else(|| Error::corrupt("resource id out of range"))?,
            None => &no_resource,
        };
        let scope = match scope_id {
            Some(a) => scopes
                .get(a.value(i) as usize)
                .ok_or_else(|| Error::corrupt("scope id out of range"))?,
            None => &no_scope,
        };
        let start_ns = start.map_or(0, |a| a.value(i));
        let has_status = status_code.is_some_and(|a| a.is_valid(i)) || status_message.is_some_and(|a| a.is_valid(i));
        let span = Span {
            trace_id: TraceId(trace_id.map(|a| id(a.value(i))).transpose()?.unwrap_or_default()),
            span_id: SpanId(span_id.map(|a| id(a.value(i))).transpose()?.unwrap_or_default()),
            parent_span_id: SpanId(
                parent_span_id
                    .filter(|a| a.is_valid(i))
                    .map(|a| id(a.value(i)))
                    .transpose()?
                    .unwrap_or_default(),
            ),
            trace_state: text(trace_state, i),
            flags: count(flags, i),
            name: text(name, i),
            kind: kind.map_or(0, |a| a.value(i)),
            start_ns,
            end_ns: match end {
                Some(a) if a.is_valid(i) => a.value(i),
                _ => start_ns.saturating_add(duration.map_or(0, |a| a.value(i))),
            },
            attributes: attributes.as_ref().map(|a| a.row(i)).transpose()?.unwrap_or_default(),
            dropped_attributes_count: count(dropped_attributes, i),
            events: events.as_ref().map(|a| a.row(i)).transpose()?.unwrap_or_default(),
            dropped_events_count: count(dropped_events, i),
            links: links.as_ref().map(|a| a.row(i)).transpose()?.unwrap_or_default(),
            dropped_links_count: count(dropped_links, i),
            status: has_status.then(|| Status {
                code: status_code.filter(|a| a.is_valid(i)).map_or(0, |a| a.value(i)),
                message: text(status_message, i),
            }),
        };
        out.push(SpanRow {
            resource: resource.clone(),
            scope: scope.clone(),
            span,
        });
    }
    Ok(out)
}

/// Appends the rows of a resources or scopes file.
///
/// # Errors
/// `Corrupt`, also when the ids do not continue at `out.len()`.
pub fn contexts(batch: &RecordBatch, out: &mut Vec<Scope>) -> Result<()> {
    fn get<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a dyn Array> {
        batch
            .column_by_name(name)
            .map(|c| c.as_ref() as &dyn Array)
            .ok_or_else(|| missing(name))
    }
    let ids = u32s(get(batch, "id")?, "id")?;
    let present = bools(get(batch, "present")?, "present")?;
    let name = strings(get(batch, "name")?, "name")?;
    let version = strings(get(batch, "version")?, "version")?;
    let schema_url = strings(get(batch, "schema_url")?, "schema_url")?;
    let dropped = u32s(get(batch, "dropped_attributes_count")?, "dropped_attributes_count")?;
    let attributes = AttributeColumn::new(get(batch, "attributes")?)?;
    for i in 0..batch.num_rows() {
        if ids.value(i) as usize != out.len() {
            return Err(Error::corrupt(format!(
                "id {} where {} belongs",
                ids.value(i),
                out.len()
            )));
        }
        out.push(Scope {
            name: name.value(i).to_owned(),
            version: version.value(i).to_owned(),
            attributes: attributes.row(i)?,
            dropped_attributes_count: dropped.value(i),
            schema_url: schema_url.value(i).to_owned(),
            present: present.value(i),
        });
    }
    Ok(())
}
