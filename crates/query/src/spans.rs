//! Spans: predicates per column go down, Arrow batches of whole traces or of matching rows come up.
//!
//! One row per span. A batch has the columns asked for, under the names of [`ColumnRef::column_name`], in Arrow types
//! given there; absent attributes are null. Rows of one trace are contiguous within one batch, and a trace
//! (after joining all its fragments) appears in one batch only.

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use trilith_model::{Result, TraceBatch, TraceId};

use crate::{QueryContext, ResultStream};

/// Where TraceQL looks for an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AttributeScope {
    /// `.name`: span first, then resource.
    Any,
    Span,
    Resource,
    Event,
    Link,
    Instrumentation,
}

/// Properties that every span has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Intrinsic {
    /// FixedSizeBinary(16)
    TraceId,
    /// FixedSizeBinary(8)
    SpanId,
    /// FixedSizeBinary(8), all zero for a root
    ParentSpanId,
    /// Utf8
    Name,
    /// Int32, OTLP numbering
    Kind,
    /// Int32: 0 unset, 1 ok, 2 error
    Status,
    /// Utf8
    StatusMessage,
    /// UInt64, ns since the epoch
    Start,
    /// UInt64, ns
    Duration,
    /// Utf8, `service.name` of the resource of the trace's root span; null without root
    RootServiceName,
    /// Utf8, name of the trace's root span; null without root
    RootName,
    /// UInt64, earliest start of the trace's spans
    TraceStart,
    /// UInt64, latest end minus earliest start of the trace's spans, ns
    TraceDuration,
    /// Utf8, name of the span's instrumentation scope
    InstrumentationName,
    /// Utf8
    InstrumentationVersion,
    /// Utf8, the names of all events as a JSON array (`many` of [`crate::attribute_text`]); null without events
    EventNames,
}

/// A column that can be asked for or tested.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ColumnRef {
    Intrinsic(Intrinsic),
    /// Comes as Utf8 with a second column `<name>#type`, both as [`crate::attribute_text`] says. A resource without
    /// `service.name` has the value `""` there.
    Attribute(AttributeScope, String),
}

impl ColumnRef {
    /// The column's name in a batch: `trace_id`, `name`, `span.http.method`, `resource.service.name`, `.foo`.
    pub fn column_name(&self) -> String {
        match self {
            ColumnRef::Intrinsic(i) => match i {
                Intrinsic::TraceId => "trace_id",
                Intrinsic::SpanId => "span_id",
                Intrinsic::ParentSpanId => "parent_span_id",
                Intrinsic::Name => "name",
                Intrinsic::Kind => "kind",
                Intrinsic::Status => "status",
                Intrinsic::StatusMessage => "status_message",
                Intrinsic::Start => "start_ns",
                Intrinsic::Duration => "duration_ns",
                Intrinsic::RootServiceName => "root_service_name",
                Intrinsic::RootName => "root_name",
                Intrinsic::TraceStart => "trace_start_ns",
                Intrinsic::TraceDuration => "trace_duration_ns",
                Intrinsic::InstrumentationName => "instrumentation_name",
                Intrinsic::InstrumentationVersion => "instrumentation_version",
                Intrinsic::EventNames => "event_names",
            }
            .to_owned(),
            ColumnRef::Attribute(scope, key) => {
                let scope = match scope {
                    AttributeScope::Any => "",
                    AttributeScope::Span => "span",
                    AttributeScope::Resource => "resource",
                    AttributeScope::Event => "event",
                    AttributeScope::Link => "link",
                    AttributeScope::Instrumentation => "instrumentation",
                };
                format!("{scope}.{key}")
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    String(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    /// Trace and span ids.
    Bytes(Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PredicateOp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// Anchored RE2.
    Re,
    NotRe,
    Exists,
}

/// A condition on one column of one span. Numbers compare across int and float; different types never match,
/// not even with `Ne`; an absent attribute matches nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Predicate {
    pub column: ColumnRef,
    pub op: PredicateOp,
    /// Ignored for `Exists`.
    pub operand: Operand,
}

/// Which spans.
#[derive(Clone, Debug)]
pub struct SpanRequest {
    /// A hint for pruning: a source may return too much, never too little.
    pub predicates: Vec<Predicate>,
    /// Whether a span of interest satisfies all predicates (true) or at least one of them (false).
    pub all: bool,
    /// Traces whose own range, earliest start to latest end, meets `[start_ns, end_ns)`; `0` and `u64::MAX` mean
    /// unbounded.
    pub start_ns: u64,
    pub end_ns: u64,
    pub columns: Vec<ColumnRef>,
    /// True: every span of every trace that may have a matching span. False: only rows that may match.
    pub whole_traces: bool,
}

/// Key of a batch's schema metadata, see [`SpanSource::select`].
pub const REMAINING_START_MAX: &str = "trilith.remaining_start_max_ns";

/// A traces store, as TraceQL sees it.
#[async_trait]
pub trait SpanSource: Send + Sync + 'static {
    /// Newest data first; traces in a batch in no particular order. A batch whose schema metadata has
    /// [`REMAINING_START_MAX`] (decimal ns) promises that no later batch has a trace that starts after it, so that a
    /// search for the newest traces may stop.
    fn select(&self, ctx: &QueryContext, request: SpanRequest) -> ResultStream<RecordBatch>;

    /// All spans of one trace, exactly as received, joined from wherever they are; exact duplicates once.
    /// `None` when unknown. Does not scan: the lookup is by index.
    async fn trace(&self, ctx: &QueryContext, id: TraceId, start_ns: u64, end_ns: u64) -> Result<Option<TraceBatch>>;

    /// Attribute names seen in the range by scope, sorted, distinct; intrinsics excluded.
    async fn attribute_names(
        &self,
        ctx: &QueryContext,
        scope: Option<AttributeScope>,
        start_ns: u64,
        end_ns: u64,
    ) -> Result<Vec<(AttributeScope, String)>>;

    /// Distinct values of a column as (type, text), sorted; at most `limit` (0: all). Types `string`, `int`, `float`, `bool`;
    /// elements of arrays one by one; `keyword` for kind and status. Other intrinsics that are no text have none.
    async fn attribute_values(
        &self,
        ctx: &QueryContext,
        column: &ColumnRef,
        start_ns: u64,
        end_ns: u64,
        limit: usize,
    ) -> Result<Vec<(String, String)>>;
}
