//! Requests are written as JSON here; `translate` runs them through both encodings and compares.

mod delta;
mod labels;
mod names;
mod types;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prost::Message as _;
use serde_json::{Value, json};
use trilith_model::{Clock, MetricBatch, OtlpMetrics, Rejection, TenantId};
use trilith_proto::otlp::collector::metrics::v1::ExportMetricsServiceRequest;

use super::*;

const JSON: PushHeaders<'static> = PushHeaders {
    content_type: Some("application/json"),
    content_encoding: None,
};
const PROTO: PushHeaders<'static> = PushHeaders {
    content_type: Some("application/x-protobuf"),
    content_encoding: None,
};

/// 2023-11-14T22:13:20Z
const T: i64 = 1_700_000_000_000;

/// Milliseconds after [`T`] as OTLP JSON has them.
fn at(ms: i64) -> String {
    ((T + ms) * 1_000_000).to_string()
}

#[derive(Default)]
struct TestClock(AtomicU64);

impl TestClock {
    fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now_ns(&self) -> i64 {
        T * 1_000_000
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
}

fn totals() -> (DeltaTotals, Arc<TestClock>) {
    let clock = Arc::new(TestClock::default());
    (DeltaTotals::new(clock.clone()), clock)
}

fn limits(settings: OtlpMetrics) -> Limits {
    Limits {
        otlp: Arc::new(settings),
        ..Limits::default()
    }
}

fn run(export: &Export, limits: &Limits, totals: &DeltaTotals) -> Decoded<MetricBatch> {
    let decoded = export.translate(&TenantId::anonymous(), limits, totals);
    decoded.expect("the message is well formed")
}

/// What became of a request: samples, histograms, exemplars as text, and what was refused.
fn translate_with(request: &Value, settings: OtlpMetrics) -> (Vec<String>, Vec<Rejection>) {
    let limits = limits(settings);
    let json = Export::read(request.to_string().into(), &JSON, &limits).expect("readable JSON");
    let first = run(&json, &limits, &totals().0);
    // Written by another encoder, with packed fields.
    let message = ExportMetricsServiceRequest::decode(json.message.clone()).expect("the message");
    let proto = Export::read(message.encode_to_vec().into(), &PROTO, &limits).expect("readable protobuf");
    assert_eq!((proto.points, proto.has_deltas), (json.points, json.has_deltas));
    let second = run(&proto, &limits, &totals().0);
    assert_eq!(dump(&first.batch), dump(&second.batch));
    assert_eq!(first.rejections, second.rejections);
    (dump(&first.batch), first.rejections)
}

fn translate(request: &Value) -> Vec<String> {
    let (lines, rejections) = translate_with(request, OtlpMetrics::default());
    assert_eq!(rejections, []);
    lines
}

/// Times are given relative to [`T`].
fn dump(batch: &MetricBatch) -> Vec<String> {
    let mut out = Vec::new();
    for series in batch.views() {
        let checked = trilith_model::LabelsRef::from_packed(series.labels.as_packed());
        let mut line = checked.expect("packed and ascending").to_string();
        for (i, sample) in series.samples.iter().enumerate() {
            let value = match sample.value.to_bits() {
                trilith_model::STALE_NAN_BITS => "stale".into(),
                _ => sample.value.to_string(),
            };
            line += &format!(" {value}@{}", sample.ts_ms - T);
            if let Some(start) = series.starts.get(i).filter(|s| **s != 0) {
                line += &format!("<{}", start - T);
            }
        }
        for h in series.histograms {
            line += &format!(" {}@{}", show(&h.histogram), h.ts_ms - T);
            if h.start_ms != 0 {
                line += &format!("<{}", h.start_ms - T);
            }
        }
        for e in series.exemplars {
            line += &format!(" #{} {}@{}", e.labels, e.value, e.ts_ms - T);
        }
        out.push(line);
    }
    out
}

fn show(h: &trilith_histogram::FloatHistogram) -> String {
    let side = |b: &trilith_histogram::Buckets| {
        let spans: Vec<String> = b.spans.iter().map(|s| format!("{}+{}", s.offset, s.length)).collect();
        format!("{} {:?}", spans.join(","), b.counts)
    };
    let mut out = format!("[s{} n{} Σ{}", h.schema, h.count, h.sum);
    if h.custom_bounds.is_none() {
        out += &format!(" z{:e}:{}", h.zero_threshold, h.zero_count);
    }
    if !h.positive.counts.is_empty() {
        out += &format!(" +{}", side(&h.positive));
    }
    if !h.negative.counts.is_empty() {
        out += &format!(" -{}", side(&h.negative));
    }
    if let Some(bounds) = &h.custom_bounds {
        out += &format!(" ≤{bounds:?}");
    }
    out + "]"
}

fn attribute(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

/// A request with one metric of one resource without attributes.
fn metric(metric: &Value) -> Value {
    json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]})
}

fn gauge_of(attributes: &[Value]) -> Value {
    json!({"name": "g", "gauge": {"dataPoints": [{"timeUnixNano": at(0), "asInt": "1", "attributes": attributes}]}})
}

fn reasons(rejections: &[Rejection]) -> Vec<(&'static str, u64)> {
    rejections.iter().map(|r| (r.reason, r.count)).collect()
}

#[test]
fn headers_and_encodings() {
    let limits = Limits::default();
    let body = metric(&gauge_of(&[])).to_string();
    let read = |body: &[u8], content_type, content_encoding| {
        let headers = PushHeaders {
            content_type,
            content_encoding,
        };
        Export::read(Bytes::copy_from_slice(body), &headers, &limits)
    };
    let json = Some("application/json; charset=utf-8");
    assert_eq!(read(body.as_bytes(), json, None).expect("plain").points, 1);
    let zstd = zstd::encode_all(body.as_bytes(), 1).expect("compressed");
    let export = read(&zstd, json, Some("zstd")).expect("zstd");
    assert_eq!((export.points, export.bytes), (1, body.len() as u64));
    let e = read(body.as_bytes(), json, Some("br")).unwrap_err();
    assert_eq!(e.kind, ErrorKind::Invalid);
    assert!(e.message.starts_with("unsupported compression: br."), "{e}");
    let e = read(body.as_bytes(), Some("text/plain"), None).unwrap_err();
    assert_eq!(e.kind, ErrorKind::Unsupported);
    for bad in [
        "{",
        "[]",
        r#"{"resourceMetrics": 1}"#,
        r#"{"resourceMetrics": [1]}"#,
        "",
    ] {
        let e = read(bad.as_bytes(), json, None).unwrap_err();
        assert_eq!(e.kind, ErrorKind::Invalid, "{bad}");
    }
    let small = Limits {
        request_bytes_max: 10,
        ..Limits::default()
    };
    let e = Export::read(body.into(), &JSON, &small).unwrap_err();
    assert_eq!(e.kind, ErrorKind::TooLarge);
    let e = Export::from_message(Bytes::from_static(&[0; 11]), &small).unwrap_err();
    assert_eq!(e.kind, ErrorKind::TooLarge);
    assert_eq!(Export::from_message(Bytes::new(), &limits).expect("empty").points, 0);
}

#[test]
fn json_is_read_leniently() {
    let request = json!({
        "unknown": {"a": [1]},
        "resource_metrics": [null, {"scope_metrics": [{"scope": null, "metrics": [
            {"name": "a", "sum": {"aggregation_temporality": "AGGREGATION_TEMPORALITY_CUMULATIVE", "is_monotonic": true,
                "data_points": [{"time_unix_nano": T * 1_000_000, "as_int": 5, "start_time_unix_nano": null}]}},
            {"name": "b", "gauge": {"dataPoints": [
                {"timeUnixNano": at(0), "asDouble": "NaN"}, {"timeUnixNano": at(1), "asDouble": "-Infinity"},
                {"timeUnixNano": at(2), "asDouble": "1.5"}, {"timeUnixNano": at(3), "asDouble": 1e300}]}},
        ]}]}],
    });
    assert_eq!(
        translate(&request),
        [
            r#"{__name__="a_total"} 5@0"#,
            &format!(r#"{{__name__="b"}} NaN@0 -inf@1 1.5@2 {}@3"#, 1e300)
        ]
    );
}

/// Every field of the messages by its JSON name, checked with another decoder.
#[test]
fn json_names_every_field() {
    let exemplar = json!({"timeUnixNano": "1", "asDouble": 2.5, "spanId": "a1a2a3a4a5a6a7a8",
        "traceId": "0102030405060708090A0B0C0D0E0F10", "filteredAttributes": [attribute("k", "v")]});
    let values = json!([
        attribute("s", "é"), {"key": "b", "value": {"boolValue": true}}, {"key": "i", "value": {"intValue": "-7"}},
        {"key": "d", "value": {"doubleValue": 0.5}}, {"key": "x", "value": {"bytesValue": "AAEC"}},
        {"key": "l", "value": {"arrayValue": {"values": [{"intValue": 1}, {}]}}},
        {"key": "m", "value": {"kvlistValue": {"values": [attribute("a", "b")]}}}]);
    let number = json!({"startTimeUnixNano": "3", "timeUnixNano": "4", "asInt": "-5", "exemplars": [exemplar],
        "attributes": values, "flags": 1});
    let request = json!({"resourceMetrics": [{"resource": {"attributes": [attribute("r", "1")]}, "schemaUrl": "u", "scopeMetrics": [
        {"scope": {"name": "n", "version": "v", "attributes": [attribute("s", "2")]}, "schemaUrl": "w", "metrics": [
            {"name": "g", "description": "d", "unit": "By", "gauge": {"dataPoints": [number]}},
            {"sum": {"aggregationTemporality": 2, "isMonotonic": true, "dataPoints": [number]}},
            {"histogram": {"aggregationTemporality": 1, "dataPoints": [{"startTimeUnixNano": "1", "timeUnixNano": "2",
                "count": "3", "sum": -4.5, "bucketCounts": ["1", 2], "explicitBounds": [0.5], "exemplars": [exemplar],
                "attributes": values, "flags": "1", "min": 1, "max": 2}]}},
            {"exponentialHistogram": {"aggregationTemporality": "AGGREGATION_TEMPORALITY_DELTA", "dataPoints": [{
                "startTimeUnixNano": "1", "timeUnixNano": "2", "count": "3", "sum": 4, "scale": -2, "zeroCount": "5",
                "positive": {"offset": -6, "bucketCounts": ["7", "18446744073709551615"]}, "negative": {"offset": 8,
                "bucketCounts": [9]}, "flags": 1, "exemplars": [exemplar], "zeroThreshold": 0.25, "attributes": values}]}},
            {"summary": {"dataPoints": [{"startTimeUnixNano": "1", "timeUnixNano": "2", "count": "3", "sum": 4.5,
                "quantileValues": [{"quantile": 0.5, "value": 6}], "attributes": values, "flags": 1}]}}]}]}]});
    let bytes = json::to_protobuf(request.to_string().as_bytes()).expect("readable");
    let message = ExportMetricsServiceRequest::decode(&*bytes).expect("a message");
    let text = format!("{message:?}");
    let hash = |needle: &str| assert!(text.contains(needle), "{needle} is not in {text}");
    let r = &message.resource_metrics[0];
    assert_eq!((&*r.schema_url, &*r.scope_metrics[0].schema_url), ("u", "w"));
    let scope = r.scope_metrics[0].scope.as_ref().expect("a scope");
    assert_eq!((&*scope.name, &*scope.version, scope.attributes.len()), ("n", "v", 1));
    let metrics = &r.scope_metrics[0].metrics;
    assert_eq!(
        (&*metrics[0].name, &*metrics[0].description, &*metrics[0].unit),
        ("g", "d", "By")
    );
    hash("start_time_unix_nano: 3, time_unix_nano: 4");
    hash("AsInt(-5)");
    hash("AsDouble(2.5)");
    hash(
        "span_id: [161, 162, 163, 164, 165, 166, 167, 168], trace_id: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]",
    );
    hash("aggregation_temporality: Cumulative, is_monotonic: true");
    hash("count: 3, sum: Some(-4.5), bucket_counts: [1, 2], explicit_bounds: [0.5]");
    hash("scale: -2, zero_count: 5, positive: Some(Buckets { offset: -6, bucket_counts: [7, 18446744073709551615] })");
    hash("negative: Some(Buckets { offset: 8, bucket_counts: [9] }), flags: 1");
    hash("zero_threshold: 0.25");
    hash("quantile_values: [ValueAtQuantile { quantile: 0.5, value: 6.0 }]");
    for value in [
        "StringValue(\"é\")",
        "BoolValue(true)",
        "IntValue(-7)",
        "DoubleValue(0.5)",
        "BytesValue([0, 1, 2])",
    ] {
        hash(value);
    }
    hash("ArrayValue { values: [AnyValue { value: Some(IntValue(1)) }, AnyValue { value: None }] }");
}

/// Written by another JSON writer.
#[test]
fn json_of_other_writers() {
    let request = json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [
        {"name": "a", "unit": "s", "sum": {"aggregationTemporality": 1, "isMonotonic": true, "dataPoints": [{
            "startTimeUnixNano": "3", "timeUnixNano": "18446744073709551615", "asInt": "-5", "attributes": [attribute("k", "v")],
            "exemplars": [{"timeUnixNano": "1", "asDouble": 2.5, "traceId": "0102030405060708090a0b0c0d0e0f10"}]}]}},
        {"name": "b", "exponentialHistogram": {"aggregationTemporality": 2, "dataPoints": [{"timeUnixNano": "2", "count": "3",
            "scale": -1, "positive": {"offset": -6, "bucketCounts": ["3"]}}]}},
        {"name": "c", "summary": {"dataPoints": [{"timeUnixNano": "2", "quantileValues": [{"quantile": 0.5, "value": 6}]}]}}]}]}]});
    let read = |text: &[u8]| {
        let bytes = json::to_protobuf(text).expect("readable");
        ExportMetricsServiceRequest::decode(&*bytes).expect("a message")
    };
    let message = read(request.to_string().as_bytes());
    assert_eq!(read(&serde_json::to_vec(&message).expect("serialisable")), message);
}
