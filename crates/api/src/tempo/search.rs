//! Search by TraceQL or by tags, as JSON; the message is shared with the streamed form.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use trilith_ingest::otlp_traces::out::{any_value_json, any_value_to_proto};
use trilith_model::trace::AnyValue;
use trilith_model::{TenantId, task};
use trilith_query::{QueryContext, QueryStats};
use trilith_traceql::{SearchOptions, SpanSet, TagQuery, TraceSearchResult};

use super::Tempo;
use super::trace::seconds_range;
use crate::common::{Failure, json};
use crate::float::push_string;
use crate::params::Params;
use crate::times;

const LIMIT_DEFAULT: usize = 20;
const LIMIT_MAX: usize = 262_144;
const SPANS_DEFAULT: usize = 3;
const SPANS_MAX: usize = 100;
const QUERY_BYTES_MAX: usize = 128 << 10;

/// What to look for.
pub enum Wanted {
    TraceQl(String),
    Tags(TagQuery),
}

/// Traces found and what the search cost.
pub struct Found {
    pub traces: Vec<TraceSearchResult>,
    pub bytes: u64,
    pub spans: u64,
    pub blocks: u64,
}

pub async fn search(State(tempo): State<Tempo>, request: Request<Body>) -> Result<Response, Failure> {
    let tenant = tempo.shared.tenant(request.headers())?;
    let params = Params::from_query(request.uri().query());
    let (wanted, options) = parameters(&tempo, &params)?;
    let found = find(&tempo, &tenant, &wanted, options).await?;
    let body = task::compute(move || body(&found)).await?;
    Ok(json(StatusCode::OK, "application/json", body))
}

/// Runs a search under the tenant's limits.
pub async fn find(tempo: &Tempo, tenant: &TenantId, wanted: &Wanted, options: SearchOptions) -> Result<Found, Failure> {
    let (ctx, _cancel) = tempo.shared.query(tenant, Duration::ZERO);
    let work = async {
        match wanted {
            Wanted::TraceQl(text) => {
                let query = trilith_traceql::parse(text).map_err(|e| e.context("invalid TraceQL query"))?;
                trilith_traceql::search(&ctx, &*tempo.source, &query, options).await
            }
            Wanted::Tags(tags) => trilith_traceql::search_tags(&ctx, &*tempo.source, tags, options).await,
        }
    };
    let traces = match ctx.remaining() {
        None => work.await?,
        Some(left) => match tokio::time::timeout(left, work).await {
            Ok(done) => done?,
            Err(_) => return Err(ctx.timed_out().into()),
        },
    };
    Ok(found(&ctx, traces))
}

fn found(ctx: &QueryContext, traces: Vec<TraceSearchResult>) -> Found {
    let s = &ctx.stats;
    Found {
        traces,
        bytes: QueryStats::get(&s.bytes_read),
        spans: QueryStats::get(&s.spans_scanned),
        blocks: QueryStats::get(&s.blocks_read),
    }
}

fn number(params: &Params, name: &str, default: usize) -> Result<usize, Failure> {
    params.get(name).map_or(Ok(default), |text| {
        text.parse().map_err(|_| {
            Failure::bad(format!(
                "invalid {name}: strconv.Atoi: parsing {text:?}: invalid syntax"
            ))
        })
    })
}

/// Checks what the two forms of a search have in common.
pub fn options(limit: usize, spans: usize, (start_ns, end_ns): (u64, u64)) -> Result<SearchOptions, Failure> {
    if limit == 0 {
        return Err(Failure::bad("invalid limit: must be a positive number"));
    }
    if limit > LIMIT_MAX {
        return Err(Failure::bad(format!(
            "limit {limit} exceeds the maximum of {LIMIT_MAX}"
        )));
    }
    if spans > SPANS_MAX {
        return Err(Failure::bad(format!(
            "spans per span set exceeds {SPANS_MAX}. received {spans}"
        )));
    }
    // 0 asks for as many as may be had.
    let spans_per_spanset = if spans == 0 { SPANS_MAX } else { spans };
    Ok(SearchOptions {
        start_ns,
        end_ns,
        limit,
        spans_per_spanset,
    })
}

fn parameters(tempo: &Tempo, params: &Params) -> Result<(Wanted, SearchOptions), Failure> {
    let range = match params.get("since") {
        None => seconds_range(params)?,
        Some(text) => {
            let since = times::duration_ms(text)
                .filter(|ms| *ms > 0)
                .and_then(|ms| u64::try_from(ms).ok())
                .ok_or_else(|| Failure::bad(format!("invalid since: not a valid duration string: {text:?}")))?;
            let now = u64::try_from(tempo.shared.clock.now_ns()).unwrap_or(0);
            (
                now.saturating_sub(since.saturating_mul(1_000_000)),
                now.saturating_add(1),
            )
        }
    };
    let options = options(
        number(params, "limit", LIMIT_DEFAULT)?,
        number(params, "spss", SPANS_DEFAULT)?,
        range,
    )?;
    if let Some(q) = params.get("q") {
        if params.get("tags").is_some() {
            return Err(Failure::bad(
                "invalid request: can't specify tags and q in the same query",
            ));
        }
        if q.len() > QUERY_BYTES_MAX {
            return Err(Failure::bad(format!("query is longer than {QUERY_BYTES_MAX} bytes")));
        }
        return Ok((Wanted::TraceQl(q.to_owned()), options));
    }
    let duration = |name: &str| -> Result<u64, Failure> {
        params.get(name).map_or(Ok(0), |text| {
            times::go_duration_ns(text)
                .and_then(|ns| u64::try_from(ns).ok())
                .ok_or_else(|| Failure::bad(format!("invalid {name}: time: invalid duration {text:?}")))
        })
    };
    let tags = match params.get("tags") {
        Some(tags) => tags.to_owned(),
        None if params.has("start") || params.has("end") => String::new(),
        // The oldest form: every parameter that is none of ours is a tag.
        None => {
            const OURS: [&str; 7] = ["limit", "spss", "minDuration", "maxDuration", "since", "q", "tags"];
            let pairs = params.iter().filter(|(n, _)| !OURS.contains(n));
            pairs.map(|(n, v)| format!("{n}={v:?}")).collect::<Vec<_>>().join(" ")
        }
    };
    let tags = TagQuery::new(&tags, duration("minDuration")?, duration("maxDuration")?)?;
    Ok((Wanted::Tags(tags), options))
}

/// Hex without leading zeros, as Tempo prints it here.
pub fn short_id(t: &TraceSearchResult) -> String {
    let hex = t.trace_id.to_string();
    hex.trim_start_matches('0').to_owned()
}

/// The gRPC message of an answer.
pub fn message(found: &Found) -> trilith_proto::tempopb::SearchResponse {
    use trilith_proto::tempopb as pb;
    let attribute = |(key, value): &(String, AnyValue)| trilith_proto::otlp::common::v1::KeyValue {
        key: key.clone(),
        value: Some(any_value_to_proto(value.clone())),
        ..Default::default()
    };
    let set = |s: &SpanSet| pb::SpanSet {
        spans: s
            .spans
            .iter()
            .map(|s| pb::Span {
                span_id: s.span_id.to_string(),
                name: s.name.clone(),
                start_time_unix_nano: s.start_time_unix_nano,
                duration_nanos: s.duration_nanos,
                attributes: s.attributes.iter().map(attribute).collect(),
            })
            .collect(),
        matched: s.matched,
        ..Default::default()
    };
    pb::SearchResponse {
        traces: found
            .traces
            .iter()
            .map(|t| pb::TraceSearchMetadata {
                trace_id: short_id(t),
                root_service_name: t.root_service_name.clone(),
                root_trace_name: t.root_trace_name.clone(),
                start_time_unix_nano: t.start_time_unix_nano,
                duration_ms: u32::try_from(t.duration_ms).unwrap_or(u32::MAX),
                span_set: t.span_sets.first().map(set),
                span_sets: t.span_sets.iter().map(set).collect(),
                service_stats: t
                    .service_stats
                    .iter()
                    .map(|(name, s)| {
                        (
                            name.clone(),
                            pb::ServiceStats {
                                span_count: s.span_count,
                                error_count: s.error_count,
                            },
                        )
                    })
                    .collect(),
            })
            .collect(),
        metrics: Some(pb::SearchMetrics {
            inspected_traces: 0,
            inspected_bytes: found.bytes,
            inspected_spans: found.spans,
            total_blocks: u32::try_from(found.blocks).unwrap_or(u32::MAX),
            total_jobs: 1,
            completed_jobs: 1,
            ..Default::default()
        }),
    }
}

/// An object under construction: fields with default values are left out, as proto3 JSON wants it.
struct Fields<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Fields<'a> {
    fn new(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Fields { out, first: true }
    }

    fn key(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        push_string(self.out, name, false);
        self.out.push(b':');
        self.out
    }

    fn text(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            push_string(self.key(name), value, false);
        }
    }

    /// 64-bit numbers are strings.
    fn long(&mut self, name: &str, value: u64) {
        if value != 0 {
            let out = self.key(name);
            out.extend_from_slice(format!("\"{value}\"").as_bytes());
        }
    }

    fn int(&mut self, name: &str, value: u64) {
        if value != 0 {
            let out = self.key(name);
            out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        }
    }

    fn list<T>(&mut self, name: &str, items: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
        let out = self.key(name);
        out.push(b'[');
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            write(out, item);
        }
        out.push(b']');
    }

    fn end(self) {
        self.out.push(b'}');
    }
}

fn body(found: &Found) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + found.traces.len() * 512);
    let mut o = Fields::new(&mut out);
    o.list("traces", &found.traces, push_trace);
    let mut m = Fields::new(o.key("metrics"));
    m.long("inspectedBytes", found.bytes);
    m.int("totalBlocks", found.blocks);
    m.int("completedJobs", 1);
    m.int("totalJobs", 1);
    m.long("inspectedSpans", found.spans);
    m.end();
    o.end();
    out
}

fn push_trace(out: &mut Vec<u8>, t: &TraceSearchResult) {
    let mut o = Fields::new(out);
    o.text("traceID", &short_id(t));
    o.text("rootServiceName", &t.root_service_name);
    o.text("rootTraceName", &t.root_trace_name);
    o.long("startTimeUnixNano", t.start_time_unix_nano);
    o.int("durationMs", t.duration_ms.min(u64::from(u32::MAX)));
    if let Some(first) = t.span_sets.first() {
        push_set(o.key("spanSet"), first);
        o.list("spanSets", &t.span_sets, push_set);
    }
    if !t.service_stats.is_empty() {
        let mut stats = Fields::new(o.key("serviceStats"));
        for (name, s) in &t.service_stats {
            let mut one = Fields::new(stats.key(name));
            one.int("spanCount", u64::from(s.span_count));
            one.int("errorCount", u64::from(s.error_count));
            one.end();
        }
        stats.end();
    }
    o.end();
}

fn push_set(out: &mut Vec<u8>, set: &SpanSet) {
    let mut o = Fields::new(out);
    o.list("spans", &set.spans, |out, s| {
        let mut o = Fields::new(out);
        o.text("spanID", &s.span_id.to_string());
        o.text("name", &s.name);
        o.long("startTimeUnixNano", s.start_time_unix_nano);
        o.long("durationNanos", s.duration_nanos);
        if !s.attributes.is_empty() {
            o.list("attributes", &s.attributes, |out, (key, value)| {
                let mut o = Fields::new(out);
                o.text("key", key);
                any_value_json(value, o.key("value"));
                o.end();
            });
        }
        o.end();
    });
    o.int("matched", u64::from(set.matched));
    o.end();
}

#[cfg(test)]
mod tests {
    use trilith_model::{SpanId, TraceId};
    use trilith_traceql::{ServiceStats, SpanResult};

    use super::*;

    #[test]
    fn the_json_form() {
        let trace = TraceSearchResult {
            trace_id: TraceId(0x1f2u128.to_be_bytes()),
            root_service_name: "shop".into(),
            root_trace_name: "GET /".into(),
            start_time_unix_nano: 5,
            duration_ms: 0,
            span_sets: vec![SpanSet {
                matched: 2,
                spans: vec![SpanResult {
                    span_id: SpanId(7u64.to_be_bytes()),
                    name: "x".into(),
                    start_time_unix_nano: 6,
                    duration_nanos: 0,
                    attributes: vec![("n".into(), AnyValue::Int(0))],
                }],
            }],
            service_stats: [(
                "shop".to_owned(),
                ServiceStats {
                    span_count: 3,
                    error_count: 0,
                },
            )]
            .into(),
        };
        let found = Found {
            traces: vec![trace],
            bytes: 9,
            spans: 0,
            blocks: 0,
        };
        let set = r#"{"spans":[{"spanID":"0000000000000007","name":"x","startTimeUnixNano":"6","attributes":[{"key":"n","value":{"intValue":"0"}}]}],"matched":2}"#;
        let want = format!(
            r#"{{"traces":[{{"traceID":"1f2","rootServiceName":"shop","rootTraceName":"GET /","startTimeUnixNano":"5","spanSet":{set},"spanSets":[{set}],"serviceStats":{{"shop":{{"spanCount":3}}}}}}],"metrics":{{"inspectedBytes":"9","completedJobs":1,"totalJobs":1}}}}"#
        );
        assert_eq!(String::from_utf8(body(&found)).expect("text"), want);
        assert_eq!(message(&found).traces[0].trace_id, "1f2");
    }

    #[test]
    fn bounds() {
        assert!(
            options(0, 3, (0, 1)).is_err() && options(300_000, 3, (0, 1)).is_err() && options(1, 101, (0, 1)).is_err()
        );
        assert_eq!(options(1, 0, (0, 1)).map(|o| o.spans_per_spanset).ok(), Some(100));
    }
}
