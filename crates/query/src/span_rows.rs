//! Spans as rows: what a source uses to join fragments, to test predicates and to fill batches.
//!
//! A [`TraceRows`] is one trace with every span beside its shared resource and scope. Sources decode what they keep into
//! this form, join and dedupe it here and hand it out as record batches or as OTLP, so that every source gives the
//! same answer for the same spans.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, FixedSizeBinaryBuilder, Int32Builder, RecordBatch, RecordBatchOptions, StringBuilder, UInt64Builder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use trilith_model::re2::AnchoredRegex;
use trilith_model::trace::{
    AnyValue, Event, KeyValue, Link, Resource, ResourceSpans, Scope, ScopeSpans, Span, TraceBatch, TraceId,
};
use trilith_model::{Error, Result};

use crate::attribute_text::{float_text, many_text, value_text};
use crate::spans::{AttributeScope, ColumnRef, Intrinsic, Operand, Predicate, PredicateOp};

/// One span with what it was sent under.
#[derive(Clone, Debug)]
pub struct SpanRow {
    pub resource: Arc<Resource>,
    pub scope: Arc<Scope>,
    pub span: Span,
}

/// The spans known of one trace.
#[derive(Clone, Debug)]
pub struct TraceRows {
    pub id: TraceId,
    pub spans: Vec<SpanRow>,
}

/// What is the same for all spans of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceSummary {
    /// Earliest start.
    pub start_ns: u64,
    /// Latest end (or start, where a span ends before it starts).
    pub end_ns: u64,
    /// `service.name` (empty when absent) and name of the root span: the last one without a parent, in the order
    /// of [`TraceRows::join`].
    pub root: Option<(String, String)>,
}

impl TraceSummary {
    pub fn duration_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }

    /// Whether the trace's own range meets `[start_ns, end_ns)`; `0` and `u64::MAX` mean unbounded.
    pub fn overlaps(&self, start_ns: u64, end_ns: u64) -> bool {
        self.end_ns >= start_ns && (end_ns == u64::MAX || self.start_ns < end_ns)
    }
}

/// The string value of `service.name`, empty when there is none.
pub fn service_name(resource: &Resource) -> &str {
    match find(&resource.attributes, "service.name") {
        Some(AnyValue::String(s)) => s,
        _ => "",
    }
}

fn find<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a AnyValue> {
    attributes.iter().find(|a| a.key == key).map(|a| &a.value)
}

impl TraceRows {
    /// Splits a batch into traces, in order of first appearance.
    pub fn split(batch: TraceBatch) -> Vec<TraceRows> {
        let mut out: Vec<TraceRows> = Vec::new();
        let mut at = std::collections::HashMap::new();
        for ResourceSpans { resource, scope_spans } in batch.resource_spans {
            let resource = Arc::new(resource);
            for ScopeSpans { scope, spans } in scope_spans {
                let scope = Arc::new(scope);
                for span in spans {
                    let i = *at.entry(span.trace_id).or_insert_with(|| {
                        out.push(TraceRows {
                            id: span.trace_id,
                            spans: Vec::new(),
                        });
                        out.len() - 1
                    });
                    out[i].spans.push(SpanRow {
                        resource: resource.clone(),
                        scope: scope.clone(),
                        span,
                    });
                }
            }
        }
        out
    }

    /// Sorts by start and span id and keeps exact duplicates (content, resource and scope) once. Spans of one
    /// id with different content all stay.
    pub fn join(&mut self) {
        self.spans.sort_by_key(|r| (r.span.start_ns, r.span.span_id));
        let mut kept = 0;
        for i in 0..self.spans.len() {
            let row = &self.spans[i];
            let twin = self.spans[..kept]
                .iter()
                .rev()
                .take_while(|o| o.span.start_ns == row.span.start_ns && o.span.span_id == row.span.span_id)
                .any(|o| same_row(o, row));
            if !twin {
                self.spans.swap(kept, i);
                kept += 1;
            }
        }
        self.spans.truncate(kept);
    }

    /// Whether two spans have the same id, so that `join` must see everything of them.
    pub fn has_repeated_ids(&self) -> bool {
        let mut ids: Vec<_> = self.spans.iter().map(|r| r.span.span_id).collect();
        ids.sort_unstable();
        ids.windows(2).any(|w| w[0] == w[1])
    }

    pub fn summary(&self) -> TraceSummary {
        let mut out = TraceSummary {
            start_ns: u64::MAX,
            end_ns: 0,
            root: None,
        };
        let mut root: Option<&SpanRow> = None;
        for row in &self.spans {
            out.start_ns = out.start_ns.min(row.span.start_ns);
            out.end_ns = out.end_ns.max(row.span.end_ns).max(row.span.start_ns);
            if row.span.parent_span_id.is_zero() {
                root = Some(row);
            }
        }
        out.root = root.map(|r| (service_name(&r.resource).to_owned(), r.span.name.clone()));
        out
    }

    /// OTLP grouping: spans under equal resources and scopes together, each group where its first span stands.
    pub fn into_batch(self) -> TraceBatch {
        let mut out = TraceBatch::default();
        for row in self.spans {
            let r = out
                .resource_spans
                .iter()
                .position(|g| same_resource(&g.resource, &row.resource))
                .unwrap_or_else(|| {
                    out.resource_spans.push(ResourceSpans {
                        resource: Resource::clone(&row.resource),
                        scope_spans: Vec::new(),
                    });
                    out.resource_spans.len() - 1
                });
            let scopes = &mut out.resource_spans[r].scope_spans;
            let s = scopes
                .iter()
                .position(|g| same_scope(&g.scope, &row.scope))
                .unwrap_or_else(|| {
                    scopes.push(ScopeSpans {
                        scope: Scope::clone(&row.scope),
                        spans: Vec::new(),
                    });
                    scopes.len() - 1
                });
            scopes[s].spans.push(row.span);
        }
        out
    }
}

// Equality of content, floats by their bits: `PartialEq` would make a span with a NaN differ from itself, and a span with
// -0.0 equal to one with 0.0.

fn same_row(a: &SpanRow, b: &SpanRow) -> bool {
    same_span(&a.span, &b.span)
        && (Arc::ptr_eq(&a.resource, &b.resource) || same_resource(&a.resource, &b.resource))
        && (Arc::ptr_eq(&a.scope, &b.scope) || same_scope(&a.scope, &b.scope))
}

pub fn same_resource(a: &Resource, b: &Resource) -> bool {
    a.present == b.present
        && a.dropped_attributes_count == b.dropped_attributes_count
        && a.schema_url == b.schema_url
        && same_attributes(&a.attributes, &b.attributes)
}

pub fn same_scope(a: &Scope, b: &Scope) -> bool {
    a.present == b.present
        && a.name == b.name
        && a.version == b.version
        && a.dropped_attributes_count == b.dropped_attributes_count
        && a.schema_url == b.schema_url
        && same_attributes(&a.attributes, &b.attributes)
}

pub fn same_span(a: &Span, b: &Span) -> bool {
    // Destructured so that a new field cannot be forgotten here.
    let Span {
        trace_id,
        span_id,
        parent_span_id,
        trace_state,
        flags,
        name,
        kind,
        start_ns,
        end_ns,
        attributes,
        dropped_attributes_count,
        events,
        dropped_events_count,
        links,
        dropped_links_count,
        status,
    } = a;
    *trace_id == b.trace_id
        && *span_id == b.span_id
        && *parent_span_id == b.parent_span_id
        && *start_ns == b.start_ns
        && *end_ns == b.end_ns
        && *kind == b.kind
        && *name == b.name
        && *status == b.status
        && *trace_state == b.trace_state
        && *flags == b.flags
        && *dropped_attributes_count == b.dropped_attributes_count
        && *dropped_events_count == b.dropped_events_count
        && *dropped_links_count == b.dropped_links_count
        && same_attributes(attributes, &b.attributes)
        && same_all(events, &b.events, same_event)
        && same_all(links, &b.links, same_link)
}

fn same_event(a: &Event, b: &Event) -> bool {
    a.time_ns == b.time_ns
        && a.name == b.name
        && a.dropped_attributes_count == b.dropped_attributes_count
        && same_attributes(&a.attributes, &b.attributes)
}

fn same_link(a: &Link, b: &Link) -> bool {
    a.trace_id == b.trace_id
        && a.span_id == b.span_id
        && a.trace_state == b.trace_state
        && a.flags == b.flags
        && a.dropped_attributes_count == b.dropped_attributes_count
        && same_attributes(&a.attributes, &b.attributes)
}

fn same_attributes(a: &[KeyValue], b: &[KeyValue]) -> bool {
    same_all(a, b, |a, b| a.key == b.key && same_value(&a.value, &b.value))
}

fn same_value(a: &AnyValue, b: &AnyValue) -> bool {
    match (a, b) {
        (AnyValue::Double(a), AnyValue::Double(b)) => a.to_bits() == b.to_bits(),
        (AnyValue::Array(a), AnyValue::Array(b)) => same_all(a, b, same_value),
        (AnyValue::KvList(a), AnyValue::KvList(b)) => same_attributes(a, b),
        _ => a == b,
    }
}

fn same_all<T>(a: &[T], b: &[T], same: impl Fn(&T, &T) -> bool) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
}

/// Predicates of a request, compiled.
#[derive(Debug)]
pub struct RowFilter {
    predicates: Vec<(Predicate, Option<AnchoredRegex>)>,
    all: bool,
}

impl RowFilter {
    /// # Errors
    /// `Invalid` when a regex does not compile.
    pub fn new(predicates: &[Predicate], all: bool) -> Result<Self> {
        let predicates = predicates
            .iter()
            .map(|p| {
                let regex = match (&p.operand, p.op) {
                    (Operand::String(s), PredicateOp::Re | PredicateOp::NotRe) => Some(AnchoredRegex::new(s)?),
                    _ => None,
                };
                Ok((p.clone(), regex))
            })
            .collect::<Result<_>>()?;
        Ok(RowFilter { predicates, all })
    }

    /// Whether a span can be of interest. Conditions on the trace as a whole count as fulfilled.
    pub fn matches(&self, row: &SpanRow) -> bool {
        let mut tests = self.predicates.iter().map(|(p, re)| may_match(p, re.as_ref(), row));
        if self.all {
            tests.all(|t| t)
        } else {
            self.predicates.is_empty() || tests.any(|t| t)
        }
    }

    pub fn is_empty(&self) -> bool {
        self.predicates.is_empty()
    }

    /// The predicates, for sources that can test columns without building rows.
    pub fn predicates(&self) -> impl Iterator<Item = (&Predicate, Option<&AnchoredRegex>)> {
        self.predicates.iter().map(|(p, re)| (p, re.as_ref()))
    }

    /// Whether all predicates must hold, or one suffices.
    pub fn needs_all(&self) -> bool {
        self.all
    }
}

fn may_match(p: &Predicate, regex: Option<&AnchoredRegex>, row: &SpanRow) -> bool {
    let span = &row.span;
    match &p.column {
        ColumnRef::Intrinsic(i) => match i {
            Intrinsic::TraceId => bytes_match(p, &span.trace_id.0),
            Intrinsic::SpanId => bytes_match(p, &span.span_id.0),
            Intrinsic::ParentSpanId => bytes_match(p, &span.parent_span_id.0),
            Intrinsic::Name => str_matches(p, regex, &span.name),
            Intrinsic::StatusMessage => str_matches(p, regex, status_message(span)),
            Intrinsic::Kind => number_matches(p, Number::Int(i64::from(span.kind))),
            Intrinsic::Status => number_matches(p, Number::Int(i64::from(status_code(span)))),
            Intrinsic::Start => number_matches(p, Number::Uint(span.start_ns)),
            Intrinsic::Duration => number_matches(p, Number::Uint(span.duration_ns())),
            Intrinsic::InstrumentationName => str_matches(p, regex, &row.scope.name),
            Intrinsic::InstrumentationVersion => str_matches(p, regex, &row.scope.version),
            Intrinsic::EventNames => span.events.iter().any(|e| str_matches(p, regex, &e.name)),
            Intrinsic::RootServiceName | Intrinsic::RootName | Intrinsic::TraceStart | Intrinsic::TraceDuration => true,
        },
        ColumnRef::Attribute(scope, key) => match scope {
            AttributeScope::Any => [&span.attributes, &row.resource.attributes]
                .into_iter()
                .any(|a| any_value_matches(p, regex, a, key)),
            AttributeScope::Span => any_value_matches(p, regex, &span.attributes, key),
            AttributeScope::Resource => {
                any_value_matches(p, regex, &row.resource.attributes, key)
                    // A missing service name counts as "".
                    || (key == "service.name"
                        && find(&row.resource.attributes, key).is_none()
                        && str_matches(p, regex, ""))
            }
            AttributeScope::Instrumentation => any_value_matches(p, regex, &row.scope.attributes, key),
            AttributeScope::Event => span
                .events
                .iter()
                .any(|e| any_value_matches(p, regex, &e.attributes, key)),
            AttributeScope::Link => span
                .links
                .iter()
                .any(|l| any_value_matches(p, regex, &l.attributes, key)),
        },
    }
}

fn any_value_matches(p: &Predicate, regex: Option<&AnchoredRegex>, attributes: &[KeyValue], key: &str) -> bool {
    attributes
        .iter()
        .any(|a| a.key == key && value_matches(p, regex, &a.value))
}

/// Whether a value may fulfil the predicate. Arrays count as matching when one element does, which is more than a
/// language may accept for the negative operators, never less.
pub fn value_matches(p: &Predicate, regex: Option<&AnchoredRegex>, value: &AnyValue) -> bool {
    if p.op == PredicateOp::Exists {
        return true;
    }
    match value {
        AnyValue::String(s) => str_matches(p, regex, s),
        AnyValue::Int(i) => number_matches(p, Number::Int(*i)),
        AnyValue::Double(f) => number_matches(p, Number::Float(*f)),
        AnyValue::Bool(b) => match (&p.operand, p.op) {
            (Operand::Bool(o), PredicateOp::Eq) => b == o,
            (Operand::Bool(o), PredicateOp::Ne) => b != o,
            _ => false,
        },
        AnyValue::Array(values) => {
            values.iter().any(|v| value_matches(p, regex, v))
                || (values.is_empty() && matches!(p.op, PredicateOp::Ne | PredicateOp::NotRe))
        }
        AnyValue::Empty | AnyValue::Bytes(_) | AnyValue::KvList(_) => false,
    }
}

/// As [`value_matches`] for text.
pub fn str_matches(p: &Predicate, regex: Option<&AnchoredRegex>, s: &str) -> bool {
    let Operand::String(o) = &p.operand else {
        return p.op == PredicateOp::Exists;
    };
    match p.op {
        PredicateOp::Re => regex.is_none_or(|r| r.is_match(s)),
        PredicateOp::NotRe => regex.is_none_or(|r| !r.is_match(s)),
        op => ordering_matches(op, Some(s.cmp(o))),
    }
}

fn bytes_match(p: &Predicate, bytes: &[u8]) -> bool {
    match &p.operand {
        Operand::Bytes(o) => ordering_matches(p.op, Some(bytes.cmp(o.as_slice()))),
        // Ids compared as text are the language's business.
        _ => true,
    }
}

/// A number of a column.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    Int(i64),
    Uint(u64),
    Float(f64),
}

/// As [`value_matches`] for numbers: integers compare exactly with integers, as floats with floats.
pub fn number_matches(p: &Predicate, n: Number) -> bool {
    let ordering = match (n, &p.operand) {
        (Number::Int(a), Operand::Int(b)) => Some(a.cmp(b)),
        (Number::Uint(a), Operand::Int(b)) => Some(i128::from(a).cmp(&i128::from(*b))),
        (Number::Float(a), Operand::Int(b)) => a.partial_cmp(&(*b as f64)),
        (Number::Int(a), Operand::Float(b)) => (a as f64).partial_cmp(b),
        (Number::Uint(a), Operand::Float(b)) => (a as f64).partial_cmp(b),
        (Number::Float(a), Operand::Float(b)) => a.partial_cmp(b),
        _ => return p.op == PredicateOp::Exists,
    };
    ordering_matches(p.op, ordering)
}

fn ordering_matches(op: PredicateOp, ordering: Option<Ordering>) -> bool {
    match op {
        PredicateOp::Eq => ordering == Some(Ordering::Equal),
        PredicateOp::Ne => ordering != Some(Ordering::Equal),
        PredicateOp::Lt => ordering == Some(Ordering::Less),
        PredicateOp::Le => ordering.is_some_and(Ordering::is_le),
        PredicateOp::Gt => ordering == Some(Ordering::Greater),
        PredicateOp::Ge => ordering.is_some_and(Ordering::is_ge),
        PredicateOp::Re | PredicateOp::NotRe => false,
        PredicateOp::Exists => true,
    }
}

fn status_code(span: &Span) -> i32 {
    span.status.as_ref().map_or(0, |s| s.code)
}

fn status_message(span: &Span) -> &str {
    span.status.as_ref().map_or("", |s| &s.message)
}

/// The attribute a column stands for, as (type, text); `None` when absent.
pub fn attribute_cell(row: &SpanRow, scope: AttributeScope, key: &str) -> Option<(&'static str, String)> {
    let one = |v: &AnyValue| {
        let (kind, text) = value_text(v);
        (kind, text.into_owned())
    };
    let several = |mut values: Vec<&AnyValue>| match values.len() {
        0 => None,
        1 => values.pop().map(one),
        _ => Some(("many", many_text(values))),
    };
    let span = &row.span;
    match scope {
        AttributeScope::Span => find(&span.attributes, key).map(one),
        AttributeScope::Resource => find(&row.resource.attributes, key)
            .map(one)
            .or_else(|| (key == "service.name").then(|| ("string", String::new()))),
        AttributeScope::Instrumentation => find(&row.scope.attributes, key).map(one),
        AttributeScope::Event => several(span.events.iter().filter_map(|e| find(&e.attributes, key)).collect()),
        AttributeScope::Link => several(span.links.iter().filter_map(|l| find(&l.attributes, key)).collect()),
        AttributeScope::Any => find(&span.attributes, key)
            .or_else(|| find(&row.resource.attributes, key))
            .map(one),
    }
}

/// The schema of a batch with these columns.
pub fn batch_schema(columns: &[ColumnRef]) -> SchemaRef {
    let mut fields = Vec::new();
    for column in columns {
        let name = column.column_name();
        match column {
            ColumnRef::Intrinsic(i) => fields.push(match i {
                Intrinsic::TraceId => Field::new(name, DataType::FixedSizeBinary(16), false),
                Intrinsic::SpanId | Intrinsic::ParentSpanId => Field::new(name, DataType::FixedSizeBinary(8), false),
                Intrinsic::Kind | Intrinsic::Status => Field::new(name, DataType::Int32, false),
                Intrinsic::Start | Intrinsic::Duration | Intrinsic::TraceStart | Intrinsic::TraceDuration => {
                    Field::new(name, DataType::UInt64, false)
                }
                Intrinsic::Name
                | Intrinsic::StatusMessage
                | Intrinsic::InstrumentationName
                | Intrinsic::InstrumentationVersion => Field::new(name, DataType::Utf8, false),
                Intrinsic::RootServiceName | Intrinsic::RootName | Intrinsic::EventNames => {
                    Field::new(name, DataType::Utf8, true)
                }
            }),
            ColumnRef::Attribute(..) => {
                fields.push(Field::new(&name, DataType::Utf8, true));
                fields.push(Field::new(format!("{name}#type"), DataType::Utf8, true));
            }
        }
    }
    Arc::new(Schema::new(fields))
}

/// Fills a batch from joined traces. With a filter, only rows that it lets through.
///
/// # Errors
/// `Internal` when a column would be too large for Arrow.
pub fn build_batch(traces: &[TraceRows], columns: &[ColumnRef], filter: Option<&RowFilter>) -> Result<RecordBatch> {
    let traces: Vec<(TraceSummary, Vec<&SpanRow>)> = traces
        .iter()
        .map(|t| {
            (
                t.summary(),
                t.spans.iter().filter(|r| filter.is_none_or(|f| f.matches(r))).collect(),
            )
        })
        .collect();
    let rows = || traces.iter().flat_map(|(s, rows)| rows.iter().map(move |r| (s, *r)));
    let count = rows().count();
    let mut arrays: Vec<ArrayRef> = Vec::new();
    for column in columns {
        match column {
            ColumnRef::Intrinsic(i) => arrays.push(intrinsic_array(*i, rows(), count)?),
            ColumnRef::Attribute(scope, key) => {
                let (mut texts, mut kinds) = (StringBuilder::new(), StringBuilder::new());
                for (_, row) in rows() {
                    match attribute_cell(row, *scope, key) {
                        Some((kind, text)) => {
                            texts.append_value(text);
                            kinds.append_value(kind);
                        }
                        None => {
                            texts.append_null();
                            kinds.append_null();
                        }
                    }
                }
                arrays.push(Arc::new(texts.finish()));
                arrays.push(Arc::new(kinds.finish()));
            }
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    RecordBatch::try_new_with_options(batch_schema(columns), arrays, &options)
        .map_err(|e| Error::internal(format!("span batch: {e}")))
}

fn intrinsic_array<'a>(
    intrinsic: Intrinsic,
    rows: impl Iterator<Item = (&'a TraceSummary, &'a SpanRow)>,
    count: usize,
) -> Result<ArrayRef> {
    fn ids<'a>(ids: impl Iterator<Item = &'a [u8]>, count: usize, width: i32) -> Result<ArrayRef> {
        let mut b = FixedSizeBinaryBuilder::with_capacity(count, width);
        for id in ids {
            b.append_value(id)
                .map_err(|e| Error::internal(format!("span batch: {e}")))?;
        }
        Ok(Arc::new(b.finish()))
    }
    fn texts<S: AsRef<str>>(values: impl Iterator<Item = Option<S>>) -> ArrayRef {
        let mut b = StringBuilder::new();
        values.for_each(|v| b.append_option(v));
        Arc::new(b.finish())
    }
    fn u64s(values: impl Iterator<Item = u64>, count: usize) -> ArrayRef {
        let mut b = UInt64Builder::with_capacity(count);
        values.for_each(|v| b.append_value(v));
        Arc::new(b.finish())
    }
    fn i32s(values: impl Iterator<Item = i32>, count: usize) -> ArrayRef {
        let mut b = Int32Builder::with_capacity(count);
        values.for_each(|v| b.append_value(v));
        Arc::new(b.finish())
    }
    Ok(match intrinsic {
        Intrinsic::TraceId => ids(rows.map(|(_, r)| &r.span.trace_id.0[..]), count, 16)?,
        Intrinsic::SpanId => ids(rows.map(|(_, r)| &r.span.span_id.0[..]), count, 8)?,
        Intrinsic::ParentSpanId => ids(rows.map(|(_, r)| &r.span.parent_span_id.0[..]), count, 8)?,
        Intrinsic::Name => texts(rows.map(|(_, r)| Some(&r.span.name))),
        Intrinsic::StatusMessage => texts(rows.map(|(_, r)| Some(status_message(&r.span)))),
        Intrinsic::InstrumentationName => texts(rows.map(|(_, r)| Some(&r.scope.name))),
        Intrinsic::InstrumentationVersion => texts(rows.map(|(_, r)| Some(&r.scope.version))),
        Intrinsic::EventNames => texts(rows.map(|(_, r)| {
            let names: Vec<_> = r.span.events.iter().map(|e| AnyValue::String(e.name.clone())).collect();
            (!names.is_empty()).then(|| many_text(&names))
        })),
        Intrinsic::Kind => i32s(rows.map(|(_, r)| r.span.kind), count),
        Intrinsic::Status => i32s(rows.map(|(_, r)| status_code(&r.span)), count),
        Intrinsic::Start => u64s(rows.map(|(_, r)| r.span.start_ns), count),
        Intrinsic::Duration => u64s(rows.map(|(_, r)| r.span.duration_ns()), count),
        Intrinsic::TraceStart => u64s(rows.map(|(s, _)| s.start_ns), count),
        Intrinsic::TraceDuration => u64s(rows.map(|(s, _)| s.duration_ns()), count),
        Intrinsic::RootServiceName => texts(rows.map(|(s, _)| s.root.as_ref().map(|r| &r.0))),
        Intrinsic::RootName => texts(rows.map(|(s, _)| s.root.as_ref().map(|r| &r.1))),
    })
}

/// Values that one span contributes to the list of a column's values, as (type, text): array elements and the values
/// of several events one by one.
pub fn listed_values(row: &SpanRow, column: &ColumnRef, out: &mut impl FnMut(&'static str, String)) {
    fn list(value: &AnyValue, out: &mut impl FnMut(&'static str, String)) {
        match value {
            AnyValue::Array(values) => values.iter().for_each(|v| match v {
                AnyValue::Array(_) => {}
                v => list(v, out),
            }),
            AnyValue::String(s) => out("string", s.clone()),
            AnyValue::Int(i) => out("int", i.to_string()),
            AnyValue::Double(f) => out("float", float_text(*f)),
            AnyValue::Bool(b) => out("bool", b.to_string()),
            AnyValue::Empty | AnyValue::Bytes(_) | AnyValue::KvList(_) => {}
        }
    }
    let span = &row.span;
    match column {
        ColumnRef::Intrinsic(i) => match i {
            Intrinsic::Name => out("string", span.name.clone()),
            Intrinsic::StatusMessage => out("string", status_message(span).to_owned()),
            Intrinsic::InstrumentationName => out("string", row.scope.name.clone()),
            Intrinsic::InstrumentationVersion => out("string", row.scope.version.clone()),
            Intrinsic::EventNames => span.events.iter().for_each(|e| out("string", e.name.clone())),
            _ => {}
        },
        ColumnRef::Attribute(scope, key) => {
            let any = *scope == AttributeScope::Any;
            let mut visit = |is: AttributeScope, attributes: &[KeyValue]| {
                let unscoped = any && matches!(is, AttributeScope::Span | AttributeScope::Resource);
                if unscoped || *scope == is {
                    attributes
                        .iter()
                        .filter(|a| a.key == *key)
                        .for_each(|a| list(&a.value, out));
                }
            };
            visit(AttributeScope::Span, &span.attributes);
            visit(AttributeScope::Resource, &row.resource.attributes);
            visit(AttributeScope::Instrumentation, &row.scope.attributes);
            span.events
                .iter()
                .for_each(|e| visit(AttributeScope::Event, &e.attributes));
            span.links
                .iter()
                .for_each(|l| visit(AttributeScope::Link, &l.attributes));
        }
    }
}
