//! Trace by id, versions 1 and 2.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use trilith_ingest::otlp_traces::out::{
    TraceAnswer, trace_to_json_v1, trace_to_json_v2, trace_to_protobuf, trace_to_protobuf_v2,
};
use trilith_model::{TraceBatch, TraceId, task};
use trilith_query::QueryStats;

use super::Tempo;
use crate::common::{Failure, json};
use crate::params::Params;

const PROTOBUF: &str = "application/protobuf";

/// Hex digits of a trace id: 1 to 32 in either case, left-padded with zeros.
pub fn parse_id(text: &str) -> Result<TraceId, String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("trace IDs can only contain hex characters".into());
    }
    // Leading zeros beyond 32 digits are still zeros, but upstream refuses by length.
    if text.len() > 32 {
        return Err("trace IDs can't be larger than 128 bits".into());
    }
    u128::from_str_radix(text, 16)
        .map(|n| TraceId(n.to_be_bytes()))
        .map_err(|_| "trace IDs can only contain hex characters".into())
}

/// `start` and `end` in whole seconds, to ns; 0 and the largest number when absent.
pub fn seconds_range(params: &Params) -> Result<(u64, u64), Failure> {
    let time = |name: &str| -> Result<Option<u64>, Failure> {
        params
            .get(name)
            .map(|t| {
                t.parse::<u32>()
                    .map_err(|_| Failure::bad(format!("invalid {name}: {t:?} is not a unix time in seconds")))
            })
            .transpose()
            .map(|t| t.map(|s| u64::from(s) * 1_000_000_000))
    };
    let (start, end) = (time("start")?, time("end")?);
    // Zero means "not given" to Grafana.
    let (start, end) = (start.unwrap_or(0), end.filter(|e| *e > 0).unwrap_or(u64::MAX));
    if end <= start {
        return Err(Failure::bad("http parameter start must be before end"));
    }
    Ok((start, end))
}

fn wants_protobuf(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .any(|v| v.to_str().is_ok_and(|v| v.contains(PROTOBUF)))
}

async fn find(tempo: &Tempo, id: &str, request: Request<Body>) -> Result<(Option<TraceBatch>, u64, bool), Failure> {
    let tenant = tempo.shared.tenant(request.headers())?;
    let id = parse_id(id).map_err(Failure::bad)?;
    let protobuf = wants_protobuf(request.headers());
    let (start, end) = seconds_range(&Params::from_query(request.uri().query()))?;
    let (ctx, _cancel) = tempo.shared.query(&tenant, Duration::ZERO);
    let trace = tempo.source.trace(&ctx, id, start, end).await?;
    Ok((trace, QueryStats::get(&ctx.stats.bytes_read), protobuf))
}

pub async fn v1(
    State(tempo): State<Tempo>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Result<Response, Failure> {
    let (trace, _, protobuf) = find(&tempo, &id, request).await?;
    let Some(trace) = trace else {
        return Ok(StatusCode::NOT_FOUND.into_response());
    };
    let (kind, body) = task::compute(move || {
        let trace = sorted(trace);
        if protobuf {
            (PROTOBUF, trace_to_protobuf(trace))
        } else {
            ("application/json", trace_to_json_v1(&trace))
        }
    })
    .await?;
    Ok(json(StatusCode::OK, kind, body))
}

/// Not found is an empty trace here: a 404 would make Grafana take the server for one without version 2.
pub async fn v2(
    State(tempo): State<Tempo>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Result<Response, Failure> {
    let (trace, inspected_bytes, protobuf) = find(&tempo, &id, request).await?;
    let answer = TraceAnswer {
        inspected_bytes,
        partial: None,
    };
    let (kind, body) = task::compute(move || {
        let trace = sorted(trace.unwrap_or_default());
        if protobuf {
            (PROTOBUF, trace_to_protobuf_v2(trace, &answer))
        } else {
            ("application/json", trace_to_json_v2(&trace, &answer))
        }
    })
    .await?;
    Ok(json(StatusCode::OK, kind, body))
}

/// Spans by start within a scope, scopes and resources by their first span's start.
fn sorted(mut trace: TraceBatch) -> TraceBatch {
    for r in &mut trace.resource_spans {
        for s in &mut r.scope_spans {
            s.spans.sort_by_key(|s| (s.start_ns, s.span_id));
        }
        r.scope_spans
            .sort_by_key(|s| s.spans.first().map_or(u64::MAX, |s| s.start_ns));
    }
    let first = |r: &trilith_model::trace::ResourceSpans| {
        r.scope_spans
            .first()
            .and_then(|s| s.spans.first())
            .map_or(u64::MAX, |s| s.start_ns)
    };
    trace.resource_spans.sort_by_key(first);
    trace
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        assert_eq!(parse_id("aB").map(|t| t.to_string()), Ok(format!("{:032x}", 0xab)));
        assert_eq!(parse_id("1").map(|t| t.0[15]), Ok(1));
        for bad in ["", "xyz", "+1", "-1", &"0".repeat(33)] {
            assert!(parse_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges() {
        let p = |q| seconds_range(&Params::from_query(Some(q)));
        assert_eq!(p("").ok(), Some((0, u64::MAX)));
        assert_eq!(p("start=1&end=2").ok(), Some((1_000_000_000, 2_000_000_000)));
        assert_eq!(p("start=0&end=0").ok(), Some((0, u64::MAX)));
        assert!(p("start=2&end=1").is_err() && p("start=x").is_err() && p("end=99999999999").is_err());
    }
}
