//! Version, settings, state of the process and of its store.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use trilith_model::{MatchOp, Matcher};

use super::envelope::{ApiError, respond_value};
use super::labels::params;
use super::query::with_deadline;
use super::system::{OwnFamily, OwnKind, OwnPoint, OwnValue};
use super::{Features, Prom};
use crate::common;

/// The level of Prometheus' API that is answered; Grafana switches features by it.
const PROMETHEUS_LEVEL: &str = "3.14.0";

fn build() -> Value {
    json!({
        "version": PROMETHEUS_LEVEL,
        "revision": env!("CARGO_PKG_VERSION"),
        "branch": "",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
        "application": "Trilith",
    })
}

pub async fn buildinfo() -> Response {
    respond_value(&build())
}

/// The same outside of the API, without an envelope.
pub async fn version() -> Response {
    let body = format!("{}\n", build());
    common::json(StatusCode::OK, "application/json", body.into_bytes())
}

/// RFC 3339; years outside of 0001..=9999 become the epoch.
fn rfc3339(ms: i64) -> String {
    Timestamp::from_millisecond(ms)
        .unwrap_or(Timestamp::UNIX_EPOCH)
        .to_string()
}

pub async fn runtimeinfo(State(prom): State<Prom>) -> Response {
    let info = prom.system.runtime();
    respond_value(&json!({
        "startTime": rfc3339(info.start_ms),
        "CWD": info.working_dir,
        "hostname": info.hostname,
        "serverTime": rfc3339(prom.shared.clock.now_ms()),
        "reloadConfigSuccess": info.reload_ok,
        "lastConfigTime": rfc3339(info.config_ms),
        "corruptionCount": info.corruptions,
        "goroutineCount": info.tasks,
        "GOMAXPROCS": info.cores,
        // No such limits here; Go's values for that.
        "GOMEMLIMIT": i64::MAX,
        "GOGC": "",
        "GODEBUG": "",
        "storageRetention": retention(info.retention),
    }))
}

/// Prometheus' form of a duration: the largest units first, zero ones left out.
fn retention(d: Duration) -> String {
    if d.is_zero() {
        return "0s".into();
    }
    let mut ms = d.as_millis();
    let mut out = String::new();
    // Weeks and years only when nothing else is needed.
    for (unit, size, exact) in [
        ("y", 31_536_000_000, true),
        ("w", 604_800_000, true),
        ("d", 86_400_000, false),
        ("h", 3_600_000, false),
        ("m", 60_000, false),
        ("s", 1000, false),
        ("ms", 1, false),
    ] {
        if exact && !ms.is_multiple_of(size) {
            continue;
        }
        if ms >= size {
            out.push_str(&format!("{}{unit}", ms / size));
            ms %= size;
        }
    }
    out
}

pub async fn flags(State(prom): State<Prom>) -> Response {
    let flags: Map<String, Value> = prom.system.flags().into_iter().map(|(k, v)| (k, v.into())).collect();
    respond_value(&flags.into())
}

pub async fn config(State(prom): State<Prom>) -> Response {
    respond_value(&json!({ "yaml": prom.system.config_yaml() }))
}

pub async fn walreplay(State(prom): State<Prom>) -> Response {
    let w = prom.system.wal_replay();
    respond_value(&json!({ "min": w.min, "max": w.max, "current": w.current }))
}

pub async fn tsdb(State(prom): State<Prom>, request: Request<Body>) -> Result<Response, ApiError> {
    const LIMIT_MAX: usize = 10_000;
    let tenant = prom.shared.tenant(request.headers())?;
    let params = params(request).await?;
    let limit = match params.get("limit") {
        None => 10,
        Some(text) => match text.parse::<usize>() {
            Ok(n) if n > LIMIT_MAX => return Err(ApiError::bad_data(format!("limit must not exceed {LIMIT_MAX}"))),
            Ok(n) if n > 0 => n,
            _ => return Err(ApiError::bad_data("limit must be a positive number")),
        },
    };
    let (ctx, _cancel) = prom.shared.query(&tenant, Duration::ZERO);
    // It walks the whole index.
    let _slot = prom.lookups.enter(&ctx, 0).await?;
    let c = with_deadline(&ctx, prom.system.cardinality(&ctx, limit)).await?;
    let list = |items: &[(String, u64)]| -> Value {
        items
            .iter()
            .map(|(name, value)| json!({ "name": name, "value": value }))
            .collect()
    };
    Ok(respond_value(&json!({
        "headStats": {
            "numSeries": c.series,
            "numLabelPairs": c.label_pairs,
            "chunkCount": c.chunks,
            "minTime": c.min_ms,
            "maxTime": c.max_ms,
        },
        "seriesCountByMetricName": list(&c.series_by_metric),
        "labelValueCountByLabelName": list(&c.values_by_label),
        "memoryInBytesByLabelName": list(&c.bytes_by_label),
        "seriesCountByLabelValuePair": list(&c.series_by_pair),
    })))
}

pub async fn blocks(State(prom): State<Prom>, request: Request<Body>) -> Result<Response, ApiError> {
    let tenant = prom.shared.tenant(request.headers())?;
    let blocks: Vec<Value> = prom
        .system
        .blocks(&tenant)
        .into_iter()
        .map(|b| {
            json!({
                "ulid": b.id,
                "minTime": b.min_ms,
                "maxTime": b.max_ms,
                "stats": { "numSamples": b.samples, "numSeries": b.series, "numBytes": b.bytes },
                "compaction": { "level": b.level, "sources": b.sources },
                "version": 1,
            })
        })
        .collect();
    Ok(respond_value(&json!({ "blocks": blocks })))
}

pub async fn self_metrics(State(prom): State<Prom>, request: Request<Body>) -> Result<Response, ApiError> {
    let params = params(request).await?;
    let wanted = match params.get("metric_name_pattern") {
        None => None,
        Some(pattern) => Some(
            Matcher::new(MatchOp::Re, "", pattern)
                .map_err(|e| ApiError::bad_data(format!("invalid metric_name_pattern: {e}")))?,
        ),
    };
    let families: Value = prom
        .system
        .own_metrics()
        .iter()
        .filter(|f| wanted.as_ref().is_none_or(|w| w.matches(&f.name)))
        .map(family)
        .collect();
    Ok(respond_value(&families))
}

/// A metric family in the JSON form of the client data model.
fn family(f: &OwnFamily) -> Value {
    let kind = match f.kind {
        OwnKind::Counter => "COUNTER",
        OwnKind::Gauge => "GAUGE",
        OwnKind::Histogram => "HISTOGRAM",
    };
    let metrics: Vec<Value> = f.points.iter().map(|p| point(f.kind, p)).collect();
    json!({ "name": f.name, "help": f.help, "type": kind, "metric": metrics })
}

fn point(kind: OwnKind, p: &OwnPoint) -> Value {
    let mut out = Map::new();
    if !p.labels.is_empty() {
        let labels = p.labels.iter().map(|(n, v)| json!({ "name": n, "value": v }));
        out.insert("label".into(), labels.collect());
    }
    match &p.value {
        OwnValue::Number(v) => {
            let key = if kind == OwnKind::Counter { "counter" } else { "gauge" };
            out.insert(key.into(), json!({ "value": number(*v) }));
        }
        OwnValue::Histogram { sum, buckets } => {
            let count = buckets.last().map_or(0, |b| b.1);
            let buckets: Vec<Value> = buckets
                .iter()
                .filter(|(bound, _)| bound.is_finite())
                // 64-bit integers are strings in this form.
                .map(|(bound, n)| json!({ "cumulativeCount": n.to_string(), "upperBound": number(*bound) }))
                .collect();
            let histogram = json!({ "sampleCount": count.to_string(), "sampleSum": number(*sum), "bucket": buckets });
            out.insert("histogram".into(), histogram);
        }
    }
    out.into()
}

/// What JSON cannot say is a string in this form.
fn number(v: f64) -> Value {
    match serde_json::Number::from_f64(v) {
        Some(n) => n.into(),
        None if v.is_nan() => "NaN".into(),
        None if v > 0.0 => "Infinity".into(),
        None => "-Infinity".into(),
    }
}

pub async fn features(State(prom): State<Prom>) -> Response {
    respond_value(&features_of(&prom))
}

fn features_of(prom: &Prom) -> Value {
    let on = prom.options.eval.features;
    let Features {
        experimental_functions,
        duration_expressions,
        extended_selectors,
        fill_modifiers,
        delayed_name_removal,
        start_timestamps,
        type_and_unit_labels,
    } = on;
    let mut promql = Map::new();
    for name in [
        "at_modifier",
        "bool",
        "by",
        "group_left",
        "group_right",
        "ignoring",
        "negative_offset",
        "offset",
        "on",
        "per_query_lookback_delta",
        "per_step_stats",
        "subqueries",
        "without",
    ] {
        promql.insert(name.into(), true.into());
    }
    for (name, enabled) in [
        ("anchored", extended_selectors),
        ("smoothed", extended_selectors),
        ("fill", fill_modifiers),
        ("fill_left", fill_modifiers),
        ("fill_right", fill_modifiers),
        ("delayed_name_removal", delayed_name_removal),
        ("duration_expr", duration_expressions),
        ("experimental_functions", experimental_functions),
        ("use_start_timestamps", start_timestamps),
        ("type_and_unit_labels", type_and_unit_labels),
    ] {
        promql.insert(name.into(), enabled.into());
    }
    json!({
        "api": {
            "admin": prom.options.enable_admin,
            "lifecycle": prom.options.enable_lifecycle,
            "remote_write_receiver": true,
            "otlp_write_receiver": true,
            "search": true,
            "search_fuzz_alg_jarowinkler": true,
            "search_fuzz_alg_subsequence": true,
            "exclude_alerts": true,
            "label_values_match": true,
            "query_stats": true,
            "query_warnings": true,
            "time_range_labels": true,
            "time_range_series": true,
        },
        "prometheus": { "agent_mode": false, "server_mode": true },
        "promql": promql,
        "tsdb": { "exemplar_storage": true, "native_histograms": true },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_as_prometheus_prints_it() {
        for (s, want) in [
            (15 * 86_400, "15d"),
            (14 * 86_400, "2w"),
            (365 * 86_400, "1y"),
            (0, "0s"),
            (5400, "1h30m"),
        ] {
            assert_eq!(retention(Duration::from_secs(s)), want);
        }
    }

    #[test]
    fn own_families() {
        let f = OwnFamily {
            name: "x_seconds".into(),
            help: "h".into(),
            kind: OwnKind::Histogram,
            points: vec![OwnPoint {
                labels: vec![("a".into(), "b".into())],
                value: OwnValue::Histogram {
                    sum: 1.5,
                    buckets: vec![(1.0, 2), (f64::INFINITY, 3)],
                },
            }],
        };
        assert_eq!(
            family(&f),
            json!({"name": "x_seconds", "help": "h", "type": "HISTOGRAM", "metric": [{
                "label": [{"name": "a", "value": "b"}],
                "histogram": {"sampleCount": "3", "sampleSum": 1.5, "bucket": [{"cumulativeCount": "2", "upperBound": 1.0}]}
            }]})
        );
    }
}
