//! A traces store in memory, builders of spans, and a strategy that makes every kind of span OTLP can say.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};
use parking_lot::RwLock;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use trilith_model::trace::{
    AnyValue, Event, KeyValue, Link, Resource, ResourceSpans, Scope, ScopeSpans, Span, SpanId, Status, TraceBatch,
    TraceId,
};
use trilith_model::{Appended, Result, TenantId, TraceSink};
use trilith_query::span_rows::{RowFilter, TraceRows, build_batch, listed_values};
use trilith_query::{AttributeScope, ColumnRef, Intrinsic, QueryContext, ResultStream, SpanRequest, SpanSource};

/// Traces per batch; small, so that tests see several batches.
const BATCH_TRACES: usize = 3;

/// Traces by tenant, in the simplest way that can be right.
#[derive(Default)]
pub struct MemorySpans {
    tenants: RwLock<HashMap<TenantId, BTreeMap<TraceId, TraceRows>>>,
}

impl MemorySpans {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn push(&self, tenant: &TenantId, batch: TraceBatch) {
        let mut tenants = self.tenants.write();
        let traces = tenants.entry(tenant.clone()).or_default();
        for t in TraceRows::split(batch) {
            let trace = traces.entry(t.id).or_insert_with(|| TraceRows {
                id: t.id,
                spans: Vec::new(),
            });
            trace.spans.extend(t.spans);
            trace.join();
        }
    }

    fn traces(&self, ctx: &QueryContext, start_ns: u64, end_ns: u64) -> Vec<TraceRows> {
        let tenants = self.tenants.read();
        let all = tenants.get(&ctx.tenant).into_iter().flat_map(|t| t.values());
        all.filter(|t| t.summary().overlaps(start_ns, end_ns))
            .cloned()
            .collect()
    }
}

#[async_trait]
impl TraceSink for MemorySpans {
    async fn append(&self, tenant: &TenantId, batch: TraceBatch) -> Result<Appended> {
        let accepted = batch.span_count() as u64;
        self.push(tenant, batch);
        Ok(Appended {
            accepted,
            rejections: Vec::new(),
            ..Appended::default()
        })
    }
}

#[async_trait]
impl SpanSource for MemorySpans {
    fn select(&self, ctx: &QueryContext, request: SpanRequest) -> ResultStream<RecordBatch> {
        let filter = match RowFilter::new(&request.predicates, request.all) {
            Ok(f) => f,
            Err(e) => return futures::stream::once(std::future::ready(Err(e))).boxed(),
        };
        let mut traces = self.traces(ctx, request.start_ns, request.end_ns);
        traces.retain(|t| t.spans.iter().any(|r| filter.matches(r)));
        let rows = (!request.whole_traces).then_some(&filter);
        let batches: Vec<_> = traces
            .chunks(BATCH_TRACES)
            .map(|c| ctx.check().and_then(|()| build_batch(c, &request.columns, rows)))
            .collect();
        futures::stream::iter(batches).boxed()
    }

    async fn trace(&self, ctx: &QueryContext, id: TraceId, start_ns: u64, end_ns: u64) -> Result<Option<TraceBatch>> {
        let found = self.traces(ctx, start_ns, end_ns).into_iter().find(|t| t.id == id);
        Ok(found.map(TraceRows::into_batch))
    }

    async fn attribute_names(
        &self,
        ctx: &QueryContext,
        scope: Option<AttributeScope>,
        start_ns: u64,
        end_ns: u64,
    ) -> Result<Vec<(AttributeScope, String)>> {
        let mut out = BTreeSet::new();
        let mut add = |is, attributes: &[KeyValue]| {
            if scope.is_none_or(|s| s == is || s == AttributeScope::Any) {
                out.extend(attributes.iter().map(|a| (is, a.key.clone())));
            }
        };
        for row in self.traces(ctx, start_ns, end_ns).iter().flat_map(|t| &t.spans) {
            add(AttributeScope::Span, &row.span.attributes);
            add(AttributeScope::Resource, &row.resource.attributes);
            add(AttributeScope::Instrumentation, &row.scope.attributes);
            row.span
                .events
                .iter()
                .for_each(|e| add(AttributeScope::Event, &e.attributes));
            row.span
                .links
                .iter()
                .for_each(|l| add(AttributeScope::Link, &l.attributes));
        }
        Ok(out.into_iter().collect())
    }

    async fn attribute_values(
        &self,
        ctx: &QueryContext,
        column: &ColumnRef,
        start_ns: u64,
        end_ns: u64,
        limit: usize,
    ) -> Result<Vec<(String, String)>> {
        let mut out = BTreeSet::new();
        let words: &[&str] = match column {
            ColumnRef::Intrinsic(Intrinsic::Status) => &["error", "ok", "unset"],
            ColumnRef::Intrinsic(Intrinsic::Kind) => {
                &["client", "consumer", "internal", "producer", "server", "unspecified"]
            }
            _ => &[],
        };
        out.extend(words.iter().map(|w| ("keyword".to_owned(), (*w).to_owned())));
        for trace in self.traces(ctx, start_ns, end_ns) {
            if let Some((service, name)) = trace.summary().root {
                let root = match column {
                    ColumnRef::Intrinsic(Intrinsic::RootServiceName) => Some(service),
                    ColumnRef::Intrinsic(Intrinsic::RootName) => Some(name),
                    _ => None,
                };
                out.extend(root.map(|text| ("string".to_owned(), text)));
            }
            for row in &trace.spans {
                listed_values(row, column, &mut |kind, text| {
                    out.insert((kind.to_owned(), text));
                });
            }
        }
        Ok(out
            .into_iter()
            .take(if limit == 0 { usize::MAX } else { limit })
            .collect())
    }
}

pub fn trace_id(n: u64) -> TraceId {
    let mut id = [0xa5; 16];
    // Spread over the first bytes, so that sorted traces are not in order of `n`.
    id[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    id[8..].copy_from_slice(&n.to_be_bytes());
    TraceId(id)
}

pub fn span_id(n: u64) -> SpanId {
    SpanId(n.to_be_bytes())
}

pub fn kv(key: &str, value: impl Into<TestValue>) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: value.into().0,
    }
}

/// Lets [`kv`] take plain values.
pub struct TestValue(pub AnyValue);

impl From<&str> for TestValue {
    fn from(s: &str) -> Self {
        TestValue(AnyValue::String(s.to_owned()))
    }
}
impl From<i64> for TestValue {
    fn from(i: i64) -> Self {
        TestValue(AnyValue::Int(i))
    }
}
impl From<f64> for TestValue {
    fn from(f: f64) -> Self {
        TestValue(AnyValue::Double(f))
    }
}
impl From<bool> for TestValue {
    fn from(b: bool) -> Self {
        TestValue(AnyValue::Bool(b))
    }
}
impl From<AnyValue> for TestValue {
    fn from(v: AnyValue) -> Self {
        TestValue(v)
    }
}

/// A span of trace `trace` with id `id` (parent 0: a root), in ns.
pub fn span(trace: u64, id: u64, parent: u64, name: &str, start_ns: u64, duration_ns: u64) -> Span {
    Span {
        trace_id: trace_id(trace),
        span_id: span_id(id),
        parent_span_id: span_id(parent),
        name: name.to_owned(),
        start_ns,
        end_ns: start_ns + duration_ns,
        ..Span::default()
    }
}

/// Spans of one service under one scope.
pub fn service_batch(service: &str, spans: Vec<Span>) -> TraceBatch {
    TraceBatch {
        resource_spans: vec![ResourceSpans {
            resource: Resource {
                attributes: vec![kv("service.name", service)],
                present: true,
                ..Resource::default()
            },
            scope_spans: vec![ScopeSpans {
                scope: Scope {
                    name: "lib".into(),
                    version: "1".into(),
                    present: true,
                    ..Scope::default()
                },
                spans,
            }],
        }],
    }
}

/// Texts as they come in (empty, repeated, long, not ASCII).
fn arb_text() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => Just(String::new()),
        4 => "[ab]{1,2}",
        1 => "\\PC{0,8}",
        1 => Just("x".repeat(300)),
        1 => Just("\0\n\"\\".to_owned()),
    ]
}

pub fn arb_value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        Just(AnyValue::Empty),
        arb_text().prop_map(AnyValue::String),
        any::<bool>().prop_map(AnyValue::Bool),
        any::<i64>().prop_map(AnyValue::Int),
        (0i64..3).prop_map(AnyValue::Int),
        any::<u64>().prop_map(|bits| AnyValue::Double(f64::from_bits(bits))),
        prop_oneof![Just(-0.0), Just(f64::NAN), Just(f64::INFINITY), Just(5.0)].prop_map(AnyValue::Double),
        vec(any::<u8>(), 0..4).prop_map(AnyValue::Bytes),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(AnyValue::Array),
            vec((arb_text(), inner), 0..4)
                .prop_map(|l| AnyValue::KvList(l.into_iter().map(|(key, value)| KeyValue { key, value }).collect())),
        ]
    })
}

pub fn arb_attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    vec(
        (arb_text(), arb_value()).prop_map(|(key, value)| KeyValue { key, value }),
        0..4,
    )
}

fn arb_count() -> impl Strategy<Value = u32> {
    prop_oneof![4 => Just(0), 1 => any::<u32>()]
}

fn arb_time() -> impl Strategy<Value = u64> {
    let t0 = 1_700_000_000_000_000_000u64;
    prop_oneof![8 => t0..t0 + 5, 1 => Just(0u64), 1 => Just(u64::MAX), 1 => any::<u64>()]
}

pub fn arb_span() -> impl Strategy<Value = Span> {
    let event = (arb_time(), arb_text(), arb_attributes(), arb_count()).prop_map(
        |(time_ns, name, attributes, dropped_attributes_count)| Event {
            time_ns,
            name,
            attributes,
            dropped_attributes_count,
        },
    );
    let link = (
        any::<[u8; 16]>(),
        any::<[u8; 8]>(),
        arb_text(),
        arb_attributes(),
        arb_count(),
        arb_count(),
    )
        .prop_map(
            |(trace, span, trace_state, attributes, dropped_attributes_count, flags)| Link {
                trace_id: TraceId(trace),
                span_id: SpanId(span),
                trace_state,
                attributes,
                dropped_attributes_count,
                flags,
            },
        );
    let status = option::of((-1i32..4, arb_text()).prop_map(|(code, message)| Status { code, message }));
    let head = (0u64..5, 1u64..6, 0u64..4, arb_text(), arb_text(), -1i32..7);
    let times = (arb_time(), arb_time(), arb_count(), status);
    let lists = (
        arb_attributes(),
        vec(event, 0..3),
        vec(link, 0..2),
        arb_count(),
        arb_count(),
        arb_count(),
    );
    (head, times, lists).prop_map(
        |((trace, id, parent, name, trace_state, kind), (start_ns, end_ns, flags, status), lists)| {
            let (attributes, events, links, a, e, l) = lists;
            Span {
                trace_id: trace_id(trace),
                span_id: span_id(id),
                parent_span_id: span_id(parent),
                trace_state,
                flags,
                name,
                kind,
                start_ns,
                end_ns,
                attributes,
                dropped_attributes_count: a,
                events,
                dropped_events_count: e,
                links,
                dropped_links_count: l,
                status,
            }
        },
    )
}

/// Few traces and ids, so that fragments, repeated ids and (because spans are sometimes sent twice) duplicates are common.
pub fn arb_trace_batch() -> impl Strategy<Value = TraceBatch> {
    let resource = (
        arb_attributes(),
        arb_count(),
        arb_text(),
        any::<bool>(),
        option::of("[ab]{0,1}"),
    )
        .prop_map(
            |(mut attributes, dropped_attributes_count, schema_url, present, service)| {
                attributes.extend(service.map(|s| kv("service.name", s.as_str())));
                Resource {
                    attributes,
                    dropped_attributes_count,
                    schema_url,
                    present,
                }
            },
        );
    let scope = (
        arb_text(),
        arb_text(),
        arb_attributes(),
        arb_count(),
        arb_text(),
        any::<bool>(),
    )
        .prop_map(
            |(name, version, attributes, dropped_attributes_count, schema_url, present)| Scope {
                name,
                version,
                attributes,
                dropped_attributes_count,
                schema_url,
                present,
            },
        );
    let spans = (vec(arb_span(), 0..5), any::<bool>()).prop_map(|(mut spans, twice)| {
        if twice && let Some(first) = spans.first().cloned() {
            spans.push(first);
        }
        spans
    });
    let scopes = vec(
        (scope, spans).prop_map(|(scope, spans)| ScopeSpans { scope, spans }),
        0..3,
    );
    vec(
        (resource, scopes).prop_map(|(resource, scope_spans)| ResourceSpans { resource, scope_spans }),
        0..3,
    )
    .prop_map(|resource_spans| TraceBatch { resource_spans })
}

/// What a trace says, in a form that compares: a line per span with its resource and scope, sorted, NaN and -0.0 told
/// apart, exact duplicates once.
pub fn canonical(batches: impl IntoIterator<Item = TraceBatch>, id: TraceId) -> Vec<String> {
    let mut out = BTreeSet::new();
    for batch in batches {
        for rs in &batch.resource_spans {
            for ss in &rs.scope_spans {
                for span in ss.spans.iter().filter(|s| s.trace_id == id) {
                    // `{:?}` of floats keeps the sign of zero; the bits of a NaN are checked by the engines' own tests.
                    out.insert(format!("{:?} {:?} {span:?}", rs.resource, ss.scope));
                }
            }
        }
    }
    out.into_iter().collect()
}

/// Texts of a Utf8 column, null as `None`.
///
/// # Panics
/// When the batch has no such column.
pub fn texts(batch: &RecordBatch, column: &str) -> Vec<Option<String>> {
    let array = batch
        .column_by_name(column)
        .unwrap_or_else(|| panic!("no column {column}"));
    let array = array.as_string::<i32>();
    (0..array.len())
        .map(|i| array.is_valid(i).then(|| array.value(i).to_owned()))
        .collect()
}

/// All batches of a selection.
///
/// # Panics
/// When the selection fails.
pub async fn collect(source: &dyn SpanSource, ctx: &QueryContext, request: SpanRequest) -> Vec<RecordBatch> {
    source
        .select(ctx, request)
        .try_collect()
        .await
        .expect("selection succeeds")
}
