//! Search: the newest traces with a span that matches.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use futures::StreamExt as _;
use trilith_model::trace::AnyValue;
use trilith_model::{Error, Result, SpanId, TraceId, task};
use trilith_query::spans::REMAINING_START_MAX;
use trilith_query::{AttributeScope, ColumnRef, Intrinsic, QueryContext, SpanRequest, SpanSource};

use crate::ast::{Expr, Field, Literal, Query};
use crate::eval::{Columns, fields, predicates};
use crate::parse::display_key;

/// What is shown as the root's service while no span without a parent has come.
pub const NO_ROOT: &str = "<root span not yet received>";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchOptions {
    /// Traces whose own range meets `[start_ns, end_ns)`; 0 and `u64::MAX` mean unbounded.
    pub start_ns: u64,
    pub end_ns: u64,
    /// Most traces of the answer.
    pub limit: usize,
    /// Most spans of a span set; 0 means all.
    pub spans_per_spanset: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TraceSearchResult {
    pub trace_id: TraceId,
    /// [`NO_ROOT`] when there is no root.
    pub root_service_name: String,
    /// Empty when there is no root.
    pub root_trace_name: String,
    pub start_time_unix_nano: u64,
    /// Rounded down.
    pub duration_ms: u64,
    /// One for a TraceQL search, none for a search by tags.
    pub span_sets: Vec<SpanSet>,
    pub service_stats: BTreeMap<String, ServiceStats>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpanSet {
    /// Matching spans, counted before the cut to `spans_per_spanset`.
    pub matched: u32,
    /// By start, then id.
    pub spans: Vec<SpanResult>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SpanResult {
    pub span_id: SpanId,
    pub name: String,
    pub start_time_unix_nano: u64,
    pub duration_nanos: u64,
    /// What the query mentions or selects, by name without scope; in order of appearance.
    pub attributes: Vec<(String, AnyValue)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceStats {
    pub span_count: u32,
    pub error_count: u32,
}

const TRACE_ID: Field = Field::Intrinsic(Intrinsic::TraceId);
const SPAN_ID: Field = Field::Intrinsic(Intrinsic::SpanId);
const NAME: Field = Field::Intrinsic(Intrinsic::Name);
const START: Field = Field::Intrinsic(Intrinsic::Start);
const DURATION: Field = Field::Intrinsic(Intrinsic::Duration);
const STATUS: Field = Field::Intrinsic(Intrinsic::Status);
const TRACE_START: Field = Field::Intrinsic(Intrinsic::TraceStart);
const TRACE_DURATION: Field = Field::Intrinsic(Intrinsic::TraceDuration);
const ROOT_SERVICE: Field = Field::Intrinsic(Intrinsic::RootServiceName);
const ROOT_NAME: Field = Field::Intrinsic(Intrinsic::RootName);

fn always() -> Vec<Field> {
    let service = Field::Attribute(AttributeScope::Resource, "service.name".to_owned());
    vec![
        TRACE_ID,
        SPAN_ID,
        NAME,
        START,
        DURATION,
        STATUS,
        TRACE_START,
        TRACE_DURATION,
        ROOT_SERVICE,
        ROOT_NAME,
        service,
    ]
}

/// Evaluates a query: the `limit` newest matching traces (by start, then by id), newest first. Exact and
/// deterministic: all spans known of a trace count, wherever they are stored.
///
/// # Errors
/// Those of the source and of the context (`Cancelled`, `Timeout`, `Execution` for the memory budget).
pub async fn search(
    ctx: &QueryContext,
    source: &dyn SpanSource,
    query: &Query,
    options: SearchOptions,
) -> Result<Vec<TraceSearchResult>> {
    if let Expr::Literal(Literal::Bool(false)) = query.filter {
        return Ok(Vec::new());
    }
    let mut mentioned = Vec::new();
    fields(&query.filter, &mut mentioned);
    mentioned.extend(&query.select);
    let mut shown: Vec<Field> = Vec::new();
    for f in mentioned {
        if !shown.contains(f) {
            shown.push(f.clone());
        }
    }
    let (predicates, all) = predicates(&query.filter);
    let filter = std::sync::Arc::new((query.filter.clone(), shown));
    let wanted = filter.1.clone();
    run(ctx, source, predicates, all, wanted, options, move |columns, rows| {
        let (filter, shown) = &*filter;
        let mut set = SpanSet::default();
        for row in rows {
            if !columns.matches(filter, row) {
                continue;
            }
            set.matched += 1;
            if options.spans_per_spanset == 0 || set.spans.len() < options.spans_per_spanset {
                set.spans.push(span_result(columns, shown, row));
            }
        }
        (set.matched > 0).then(|| vec![set])
    })
    .await
}

/// The frame of all searches: `test` gets the rows of one trace and gives its span sets, or `None` when it does not match.
pub async fn run(
    ctx: &QueryContext,
    source: &dyn SpanSource,
    predicates: Vec<trilith_query::Predicate>,
    all: bool,
    fields: Vec<Field>,
    options: SearchOptions,
    test: impl Fn(&Columns<'_>, std::ops::Range<usize>) -> Option<Vec<SpanSet>> + Clone + Send + 'static,
) -> Result<Vec<TraceSearchResult>> {
    let mut wanted = always();
    wanted.extend(fields);
    let mut seen = hashbrown::HashSet::new();
    wanted.retain(|f| seen.insert(f.clone()));
    let columns: Vec<ColumnRef> = wanted.iter().map(Field::column).collect();
    let request = SpanRequest {
        predicates,
        all,
        start_ns: options.start_ns,
        end_ns: options.end_ns,
        columns,
        whole_traces: true,
    };
    let mut best: Vec<TraceSearchResult> = Vec::new();
    let mut batches = source.select(ctx, request);
    let wanted = std::sync::Arc::new(wanted);
    while let Some(batch) = batches.next().await {
        ctx.check()?;
        let batch = batch?;
        let remaining = batch
            .schema_ref()
            .metadata()
            .get(REMAINING_START_MAX)
            .and_then(|t| t.parse::<u64>().ok());
        let (wanted, test) = (wanted.clone(), test.clone());
        let found = task::compute(move || traces_of(&batch, &wanted, &test)).await??;
        best.extend(found);
        best.sort_by_key(|t| (std::cmp::Reverse(t.start_time_unix_nano), t.trace_id));
        best.truncate(options.limit);
        // Nothing that is still to come is newer than the oldest one kept.
        let full = best.len() == options.limit;
        if full
            && best
                .last()
                .is_none_or(|l| remaining.is_some_and(|r| l.start_time_unix_nano > r))
        {
            break;
        }
    }
    Ok(best)
}

fn traces_of(
    batch: &RecordBatch,
    wanted: &[Field],
    test: &impl Fn(&Columns<'_>, std::ops::Range<usize>) -> Option<Vec<SpanSet>>,
) -> Result<Vec<TraceSearchResult>> {
    let columns = Columns::new(batch, wanted)?;
    let service = Field::Attribute(AttributeScope::Resource, "service.name".to_owned());
    let mut out = Vec::new();
    let mut start = 0;
    while start < batch.num_rows() {
        let id = columns.id(&TRACE_ID, start);
        let end = (start + 1..batch.num_rows())
            .find(|i| columns.id(&TRACE_ID, *i) != id)
            .unwrap_or(batch.num_rows());
        if let Some(span_sets) = test(&columns, start..end) {
            let mut service_stats: BTreeMap<String, ServiceStats> = BTreeMap::new();
            for row in start..end {
                let stats = service_stats
                    .entry(columns.text(&service, row).unwrap_or("").to_owned())
                    .or_default();
                stats.span_count += 1;
                stats.error_count += u32::from(columns.i32(&STATUS, row) == 2);
            }
            let trace_id = id
                .try_into()
                .map_err(|_| Error::internal("a trace id that has not 16 bytes"))?;
            out.push(TraceSearchResult {
                trace_id: TraceId(trace_id),
                root_service_name: columns.text(&ROOT_SERVICE, start).unwrap_or(NO_ROOT).to_owned(),
                root_trace_name: columns.text(&ROOT_NAME, start).unwrap_or("").to_owned(),
                start_time_unix_nano: columns.u64(&TRACE_START, start),
                duration_ms: columns.u64(&TRACE_DURATION, start) / 1_000_000,
                span_sets,
                service_stats,
            });
        }
        start = end;
    }
    Ok(out)
}

fn span_result(columns: &Columns<'_>, shown: &[Field], row: usize) -> SpanResult {
    let mut attributes: Vec<(String, AnyValue)> = Vec::new();
    for field in shown {
        if let Some(key) = display_key(field)
            && let Some(value) = columns.shown(field, row)
            && !attributes.iter().any(|a| a.0 == key)
        {
            attributes.push((key.to_owned(), value));
        }
    }
    SpanResult {
        span_id: SpanId(columns.id(&SPAN_ID, row).try_into().unwrap_or_default()),
        name: columns.text(&NAME, row).unwrap_or("").to_owned(),
        start_time_unix_nano: columns.u64(&START, row),
        duration_nanos: columns.u64(&DURATION, row),
        attributes,
    }
}
