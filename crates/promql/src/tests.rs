use std::sync::Arc;
use std::time::Duration;

use trilith_model::metric::STALE_NAN_BITS;
use trilith_model::{Error, ErrorKind, Labels, Limits, TenantId};
use trilith_query::{QueryContext, SeriesSource};
use trilith_testkit::{MemorySeries, SimClock};

use super::*;

mod histograms;
mod info;
mod language;
mod operators;
mod oracle;
mod ranges;
mod reference;

fn context() -> QueryContext {
    context_with(Limits::default())
}

fn context_with(limits: Limits) -> QueryContext {
    QueryContext::new(
        TenantId::anonymous(),
        Arc::new(limits),
        SimClock::new(0),
        Duration::ZERO,
    )
}

const STALE: f64 = f64::from_bits(STALE_NAN_BITS);

fn labels(text: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(text.iter().copied())
}

fn run_instant(source: &Arc<MemorySeries>, query: &str, time_ms: i64) -> Result<QueryOutput> {
    run_instant_in(&context(), source, query, time_ms)
}

fn run_instant_in(ctx: &QueryContext, source: &Arc<MemorySeries>, query: &str, time_ms: i64) -> Result<QueryOutput> {
    let source: Arc<dyn SeriesSource> = source.clone();
    runtime().block_on(instant(ctx, source, query, time_ms, &EvalOptions::default()))
}

fn run_range(source: &Arc<MemorySeries>, query: &str, start: i64, end: i64, step: i64) -> Result<QueryOutput> {
    let source: Arc<dyn SeriesSource> = source.clone();
    runtime().block_on(range(
        &context(),
        source,
        query,
        start,
        end,
        step,
        &EvalOptions::default(),
    ))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts")
}

/// One element per line, `{labels} value` or `{labels} value@ms value@ms`, in the order of the answer.
fn show(value: &QueryValue) -> Vec<String> {
    match value {
        QueryValue::Scalar { value, .. } => vec![notes::format_f(*value)],
        QueryValue::String { value, .. } => vec![value.clone()],
        QueryValue::Vector(v) => v
            .iter()
            .map(|e| format!("{} {}", e.labels, notes::format_f(e.float().expect("a float"))))
            .collect(),
        QueryValue::Matrix(m) => m
            .iter()
            .map(|s| {
                let points: Vec<String> = s
                    .points
                    .iter()
                    .map(|(t, v)| format!("{}@{t}", notes::format_f(*v)))
                    .collect();
                format!("{} {}", s.labels, points.join(" "))
            })
            .collect(),
    }
}

fn error_of(result: Result<QueryOutput>) -> Error {
    match result {
        Ok(out) => panic!("expected an error, got {:?}", out.value),
        Err(e) => e,
    }
}
