//! The columns of a block's Parquet files. Names and types are a public format: docs/formats/traces-block.md.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};

/// Top-level columns of `spans.parquet`, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(usize)]
pub enum Column {
    TraceId,
    SpanId,
    ParentSpanId,
    TraceState,
    Flags,
    Name,
    Kind,
    Start,
    Duration,
    /// Only where the span ends before it starts, so that the duration does not tell.
    End,
    StatusCode,
    StatusMessage,
    ServiceName,
    ResourceId,
    ScopeId,
    Attributes,
    DroppedAttributes,
    Events,
    DroppedEvents,
    Links,
    DroppedLinks,
}

impl Column {
    pub const ALL: [Column; 21] = [
        Column::TraceId,
        Column::SpanId,
        Column::ParentSpanId,
        Column::TraceState,
        Column::Flags,
        Column::Name,
        Column::Kind,
        Column::Start,
        Column::Duration,
        Column::End,
        Column::StatusCode,
        Column::StatusMessage,
        Column::ServiceName,
        Column::ResourceId,
        Column::ScopeId,
        Column::Attributes,
        Column::DroppedAttributes,
        Column::Events,
        Column::DroppedEvents,
        Column::Links,
        Column::DroppedLinks,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Column::TraceId => "trace_id",
            Column::SpanId => "span_id",
            Column::ParentSpanId => "parent_span_id",
            Column::TraceState => "trace_state",
            Column::Flags => "flags",
            Column::Name => "name",
            Column::Kind => "kind",
            Column::Start => "start_ns",
            Column::Duration => "duration_ns",
            Column::End => "end_ns",
            Column::StatusCode => "status_code",
            Column::StatusMessage => "status_message",
            Column::ServiceName => "service_name",
            Column::ResourceId => "resource_id",
            Column::ScopeId => "scope_id",
            Column::Attributes => "attributes",
            Column::DroppedAttributes => "dropped_attributes_count",
            Column::Events => "events",
            Column::DroppedEvents => "dropped_events_count",
            Column::Links => "links",
            Column::DroppedLinks => "dropped_links_count",
        }
    }
}

fn field(name: &str, kind: DataType, nullable: bool) -> Field {
    Field::new(name, kind, nullable)
}

/// One attribute. At most one of the typed columns is set; none for an empty value.
pub fn attribute_fields() -> Fields {
    static FIELDS: LazyLock<Fields> = LazyLock::new(|| {
        Fields::from(vec![
            field("key", DataType::Utf8, false),
            field("string", DataType::Utf8, true),
            field("int", DataType::Int64, true),
            field("double", DataType::Float64, true),
            field("bool", DataType::Boolean, true),
            field("other", DataType::Binary, true),
        ])
    });
    FIELDS.clone()
}

pub fn list_field(fields: Fields) -> Arc<Field> {
    Arc::new(field("element", DataType::Struct(fields), false))
}

fn list(name: &str, fields: Fields) -> Field {
    field(name, DataType::List(list_field(fields)), false)
}

pub fn event_fields() -> Fields {
    static FIELDS: LazyLock<Fields> = LazyLock::new(|| {
        Fields::from(vec![
            field("time_ns", DataType::UInt64, false),
            field("name", DataType::Utf8, false),
            field("dropped_attributes_count", DataType::UInt32, false),
            list("attributes", attribute_fields()),
        ])
    });
    FIELDS.clone()
}

pub fn link_fields() -> Fields {
    static FIELDS: LazyLock<Fields> = LazyLock::new(|| {
        Fields::from(vec![
            field("trace_id", DataType::FixedSizeBinary(16), false),
            field("span_id", DataType::FixedSizeBinary(8), false),
            field("trace_state", DataType::Utf8, false),
            field("flags", DataType::UInt32, false),
            field("dropped_attributes_count", DataType::UInt32, false),
            list("attributes", attribute_fields()),
        ])
    });
    FIELDS.clone()
}

/// `spans.parquet`: a row per span, sorted by trace id, within a trace by start and span id.
pub fn spans() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let fields: Vec<Field> = Column::ALL
            .into_iter()
            .map(|c| match c {
                Column::TraceId => field(c.name(), DataType::FixedSizeBinary(16), false),
                Column::SpanId => field(c.name(), DataType::FixedSizeBinary(8), false),
                Column::ParentSpanId => field(c.name(), DataType::FixedSizeBinary(8), true),
                Column::TraceState | Column::Name => field(c.name(), DataType::Utf8, false),
                Column::StatusMessage | Column::ServiceName => field(c.name(), DataType::Utf8, true),
                Column::Kind => field(c.name(), DataType::Int32, false),
                Column::StatusCode => field(c.name(), DataType::Int32, true),
                Column::Start | Column::Duration => field(c.name(), DataType::UInt64, false),
                Column::End => field(c.name(), DataType::UInt64, true),
                Column::Flags
                | Column::ResourceId
                | Column::ScopeId
                | Column::DroppedAttributes
                | Column::DroppedEvents
                | Column::DroppedLinks => field(c.name(), DataType::UInt32, false),
                Column::Attributes => list(c.name(), attribute_fields()),
                Column::Events => list(c.name(), event_fields()),
                Column::Links => list(c.name(), link_fields()),
            })
            .collect();
        Arc::new(Schema::new(fields))
    });
    SCHEMA.clone()
}

/// `resources.parquet` and `scopes.parquet`: row n is what `resource_id` (`scope_id`) n means. Resources leave name and
/// version empty.
pub fn contexts() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            field("id", DataType::UInt32, false),
            field("present", DataType::Boolean, false),
            field("name", DataType::Utf8, false),
            field("version", DataType::Utf8, false),
            field("schema_url", DataType::Utf8, false),
            field("dropped_attributes_count", DataType::UInt32, false),
            list("attributes", attribute_fields()),
        ]))
    });
    SCHEMA.clone()
}
