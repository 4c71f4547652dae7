//! `/federate`: the newest sample of every selected series, in an exposition format.
//!
//! Floats are untyped, because types are not known here. Native histograms are told in the protobuf format only, those
//! with custom buckets as classic ones in both. There are no external labels; `instance` is added empty where it is
//! missing, so that the scraper's own does not take its place.

mod escape;
mod proto;
mod text;

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::TryStreamExt as _;
use trilith_histogram::FloatHistogram;
use trilith_model::{Labels, Matcher, Result, SampleValue, task};
use trilith_query::{ColumnValues, QueryContext, SelectHints, SeriesRequest};

use self::escape::Escaping;
use super::Prom;
use super::labels::selector;
use crate::common::Failure;
use crate::params::Params;

/// The bits of the staleness marker.
const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;

/// A series with its newest sample.
struct Newest {
    labels: Labels,
    ts_ms: i64,
    value: SampleValue,
}

impl Newest {
    fn name(&self) -> &str {
        self.labels.get("__name__").unwrap_or("")
    }

    /// What decides whether the next series goes on with the same family.
    fn kind(&self) -> Kind {
        match &self.value {
            SampleValue::Float(_) => Kind::Untyped,
            SampleValue::Histogram(h) => match h.reset_hint {
                trilith_histogram::ResetHint::Gauge => Kind::GaugeHistogram,
                _ => Kind::Histogram,
            },
        }
    }

    /// Labels as they are told: without the name, with `instance`.
    fn told(&self) -> impl Iterator<Item = (&str, &str)> {
        let labels = self.labels.iter().filter(|l| l.name != "__name__");
        let instance = self.labels.get("instance").is_none().then_some(("instance", ""));
        labels.map(|l| (l.name, l.value)).chain(instance)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Untyped,
    Histogram,
    GaugeHistogram,
}

/// The classic form of a histogram with custom buckets: (upper bound, cumulative count), the last bound +Inf.
fn classic(h: &FloatHistogram) -> Vec<(f64, f64)> {
    let mut cumulative = 0.0;
    let mut buckets = h.buckets().peekable();
    let mut out: Vec<(f64, f64)> = h
        .custom_bounds()
        .iter()
        .map(|bound| {
            while let Some(b) = buckets.next_if(|b| b.upper <= *bound) {
                cumulative += b.count;
            }
            (*bound, cumulative)
        })
        .collect();
    out.push((f64::INFINITY, h.count));
    out
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// 1.0.0: names may be quoted; the older version is told otherwise.
    Text {
        v1: bool,
        escaping: Escaping,
    },
    Protobuf {
        escaping: Escaping,
    },
}

impl Format {
    /// The first media range of `Accept` that is known; text 0.0.4 otherwise.
    fn of(headers: &HeaderMap) -> Format {
        let accept = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok());
        let mut ranges: Vec<(f64, &str)> = accept
            .flat_map(|v| v.split(','))
            .map(|r| (quality(r), r.trim()))
            .filter(|(q, _)| *q > 0.0)
            .collect();
        ranges.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (_, range) in ranges {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or("");
            let has = |name: &str, value: &str| {
                range.split(';').any(|p| {
                    p.trim()
                        .split_once('=')
                        .is_some_and(|(n, v)| n.trim() == name && v.trim().trim_matches('"') == value)
                })
            };
            let asked = range.split(';').filter_map(|p| p.trim().split_once('='));
            let mut asked = asked.filter(|(n, _)| n.trim() == "escaping");
            let escaping = asked.find_map(|(_, v)| Escaping::of(v.trim().trim_matches('"')));
            let escaping = escaping.unwrap_or(Escaping::Underscores);
            match kind {
                "application/vnd.google.protobuf"
                    if has("proto", "io.prometheus.client.MetricFamily") && has("encoding", "delimited") =>
                {
                    return Format::Protobuf { escaping };
                }
                "text/plain" => {
                    // Quoted names need the newer version, whatever was asked.
                    let v1 = has("version", "1.0.0") || escaping == Escaping::AllowUtf8;
                    return Format::Text { v1, escaping };
                }
                _ => {}
            }
        }
        Format::Text {
            v1: false,
            escaping: Escaping::Underscores,
        }
    }

    fn content_type(self) -> HeaderValue {
        let (format, escaping) = match self {
            Format::Text { v1: false, escaping } => ("text/plain; version=0.0.4; charset=utf-8", escaping),
            Format::Text { v1: true, escaping } => ("text/plain; version=1.0.0; charset=utf-8", escaping),
            Format::Protobuf { escaping } => (
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
                escaping,
            ),
        };
        HeaderValue::try_from(format!("{format}; escaping={}", escaping.as_str())).expect("both parts are plain ASCII")
    }
}

fn quality(range: &str) -> f64 {
    let q = range.split(';').find_map(|p| p.trim().strip_prefix("q="));
    q.and_then(|q| q.trim().parse().ok()).unwrap_or(1.0)
}

pub async fn federate(State(prom): State<Prom>, request: Request<Body>) -> Response {
    let format = Format::of(request.headers());
    match answer(&prom, request, format).await {
        Ok(body) => ([(header::CONTENT_TYPE, format.content_type())], body).into_response(),
        Err(failure) => failure.into_response(),
    }
}

async fn answer(prom: &Prom, request: Request<Body>, format: Format) -> std::result::Result<Vec<u8>, Failure> {
    let tenant = prom.shared.tenant(request.headers())?;
    let params = Params::read(request).await.map_err(Failure::bad)?;
    let sets = params.all("match[]").map(selector);
    let sets = sets.collect::<std::result::Result<Vec<_>, _>>().map_err(Failure::bad)?;
    let (ctx, _cancel) = prom.shared.query(&tenant, Duration::ZERO);
    let _slot = prom.lookups.enter(&ctx, params.bytes()).await?;
    let end_ms = ctx.clock.now_ms();
    let start_ms = end_ms.saturating_sub(prom.options.eval.lookback_ms);
    let work = newest(prom, &ctx, sets, start_ms, end_ms);
    let found = match ctx.remaining() {
        None => work.await,
        Some(left) => tokio::time::timeout(left, work)
            .await
            .unwrap_or_else(|_| Err(ctx.timed_out())),
    };
    let mut found = found.map_err(|e| Failure {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        message: e.message,
        retry_after: e.retry_after,
    })?;
    let body = task::compute(move || {
        found.sort_unstable_by(|a, b| a.name().cmp(b.name()).then_with(|| a.labels.cmp(&b.labels)));
        // A series that several selectors name.
        found.dedup_by(|a, b| a.labels == b.labels);
        // A series without a name has no place in a family.
        found.retain(|n| !n.name().is_empty());
        match format {
            Format::Text { escaping, .. } => text::write(&found, escaping),
            Format::Protobuf { escaping } => proto::write(&found, escaping),
        }
    })
    .await?;
    Ok(body)
}

async fn newest(
    prom: &Prom,
    ctx: &QueryContext,
    sets: Vec<Vec<Matcher>>,
    start_ms: i64,
    end_ms: i64,
) -> Result<Vec<Newest>> {
    let mut out = Vec::new();
    let mut memory = ctx.memory.reserve(0)?;
    for matchers in sets {
        let request = SeriesRequest {
            matchers,
            start_ms,
            end_ms,
            hints: SelectHints::default(),
        };
        let mut batches = prom.source.select(ctx, request);
        while let Some(batch) = batches.try_next().await? {
            ctx.check()?;
            for column in &batch.columns {
                let value = match batch.values_of(column) {
                    ColumnValues::Float(v) => v.last().map(|v| SampleValue::Float(*v)),
                    ColumnValues::Mixed(v) => v.last().cloned(),
                };
                let (Some(value), Some(ts_ms)) = (value, batch.times_of(column).last().copied()) else {
                    continue;
                };
                let stale = match &value {
                    SampleValue::Float(v) => v.to_bits() == STALE_BITS,
                    SampleValue::Histogram(h) => h.is_stale(),
                };
                if !stale {
                    memory.grow(column.labels.as_packed().len() * 3 + 96)?;
                    out.push(Newest {
                        labels: column.labels.clone(),
                        ts_ms,
                        value,
                    });
                }
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
