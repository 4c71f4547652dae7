//! One entry per decoder for fuzzing: any bytes in, nothing out, no panic. Every entry checks what it decoded against
//! the invariants of its batch.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use trilith_histogram::{CUSTOM_SCHEMA, SCHEMA_MAX, SCHEMA_MIN};
use trilith_model::{
    Clock, DeltaTemporality, FloatHistogram, LabelsBuilder, LabelsRef, Limits, LogBatch, MetricBatch, OtlpMetrics,
    Promotion, STALE_NAN_BITS, TenantId, TranslationStrategy,
};
use trilith_proto::otlp::collector::metrics::v1::ExportMetricsServiceRequest;

use crate::body::{self, Encoding};
use crate::otlp_metrics::{DeltaTotals, Export};
use crate::remote_write::Version;
use crate::{Decoded, PushHeaders};

/// Small, so that bombs show as errors and not as slow runs.
fn limits() -> Limits {
    Limits {
        request_bytes_max: 1 << 20,
        ..Limits::default()
    }
}

fn headers(content_type: &'static str) -> PushHeaders<'static> {
    PushHeaders {
        content_type: Some(content_type),
        content_encoding: None,
    }
}

/// Every decompressor.
pub fn body(data: &[u8]) {
    for encoding in [
        Encoding::Identity,
        Encoding::Gzip,
        Encoding::Deflate,
        Encoding::Zstd,
        Encoding::SnappyBlock,
    ] {
        if let Ok(out) = body::decode(Bytes::copy_from_slice(data), encoding, 1 << 20) {
            assert!(out.len() <= 1 << 20, "{encoding:?} passed its limit");
        }
    }
}

/// A remote-write 1.0 message, already decompressed.
pub fn remote_write(data: &[u8]) {
    check_metrics(data, Version::V1);
}

/// A remote-write 2.0 message, already decompressed.
pub fn remote_write_v2(data: &[u8]) {
    check_metrics(data, Version::V2);
}

fn check_metrics(data: &[u8], version: Version) {
    let Ok(write) = crate::remote_write::decode_message(version, data, &limits()) else {
        return;
    };
    let batch = &write.batch;
    assert!(batch.starts.is_empty() || batch.starts.len() == batch.samples.len());
    let (mut samples, mut histograms, mut exemplars) = (0, 0, 0);
    for series in batch.views() {
        (samples, histograms) = (samples + series.samples.len(), histograms + series.histograms.len());
        exemplars += series.exemplars.len();
        let any = series.samples.len() + series.histograms.len();
        let enough = any > 0 || version == Version::V1 && !series.exemplars.is_empty();
        assert!(enough, "a series with nothing in it");
        LabelsRef::from_packed(series.labels.as_packed()).expect("labels in the batch are packed");
        assert!(
            series.labels.get("__name__").is_some_and(|n| !n.is_empty()),
            "a series without name"
        );
        series.histograms.iter().for_each(|h| check_histogram(&h.histogram));
        for exemplar in series.exemplars {
            LabelsRef::from_packed(exemplar.labels.as_packed()).expect("labels of exemplars are packed");
            let text = exemplar
                .labels
                .iter()
                .map(|l| l.name.chars().count() + l.value.chars().count());
            assert!(text.sum::<usize>() <= 128, "an exemplar above the limit");
        }
    }
    assert_eq!(
        (samples, histograms, exemplars),
        (batch.samples.len(), batch.histograms.len(), batch.exemplars.len()),
        "every item belongs to a series"
    );
    let markers = batch.samples.iter().filter(|s| s.value.to_bits() == STALE_NAN_BITS);
    assert!(write.histogram_markers <= markers.count() as u64);
}

/// What the arithmetic on histograms may rely on.
fn check_histogram(h: &FloatHistogram) {
    let custom = h.schema == CUSTOM_SCHEMA;
    assert!(
        custom || (SCHEMA_MIN..=SCHEMA_MAX).contains(&h.schema),
        "schema {}",
        h.schema
    );
    assert_eq!(h.custom_bounds.is_some(), custom);
    assert_ne!(h.sum.to_bits(), STALE_NAN_BITS, "a marker is a sample");
    let mut last_index = i64::MIN;
    for side in [&h.positive, &h.negative] {
        let buckets: u64 = side.spans.iter().map(|s| u64::from(s.length)).sum();
        assert_eq!(buckets, side.counts.len() as u64);
        assert!(!side.counts.iter().any(|c| *c < 0.0), "a negative population");
        let mut next = 0i64;
        for (i, span) in side.spans.iter().enumerate() {
            assert!(i == 0 || span.offset >= 0, "spans go forward");
            next += i64::from(span.offset) + i64::from(span.length);
            assert!(i32::try_from(next).is_ok(), "an index beyond 32 bits");
        }
        last_index = last_index.max(next);
    }
    if let Some(bounds) = &h.custom_bounds {
        assert!(bounds.iter().all(|b| b.is_finite()) && bounds.is_sorted_by(|a, b| a < b));
        assert!(last_index <= bounds.len() as i64 + 1, "a bucket beyond the bounds");
        assert!(h.negative.spans.is_empty() && h.zero_count == 0.0 && h.zero_threshold == 0.0);
    }
}

/// A Loki push message, already decompressed.
pub fn loki_protobuf(data: &[u8]) {
    check_logs(crate::loki::decode_protobuf(data, &limits()));
}

/// Both JSON forms of a Loki push.
pub fn loki_json(data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    check_logs(crate::decode_loki_push(
        body.clone(),
        &headers("application/json"),
        &limits(),
    ));
    check_logs(crate::decode_loki_push_legacy(
        body,
        &headers("application/json"),
        &limits(),
    ));
}

fn check_logs(decoded: trilith_model::Result<Decoded<LogBatch>>) {
    let Ok(decoded) = decoded else { return };
    for stream in &decoded.batch.streams {
        assert!(
            !stream.entries.is_empty() && !stream.labels.is_empty(),
            "an empty stream"
        );
        LabelsRef::from_packed(stream.labels.as_packed()).expect("stream labels are packed");
        for entry in &stream.entries {
            assert!(
                entry.line.len() as u64 <= limits().line_bytes_max,
                "a line above the limit"
            );
            LabelsRef::from_packed(entry.metadata.as_packed()).expect("metadata are packed");
        }
    }
}

/// Label text of a stream.
pub fn loki_labels(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = crate::loki::parse_labels(text, &mut LabelsBuilder::new());
    }
}

/// An OTLP trace export in protobuf, and back: what was accepted survives a round trip.
pub fn otlp_traces_protobuf(data: &[u8]) {
    otlp(data, "application/x-protobuf");
}

/// An OTLP trace export in JSON, and through protobuf back.
pub fn otlp_traces_json(data: &[u8]) {
    otlp(data, "application/json");
}

fn otlp(data: &[u8], content_type: &'static str) {
    let decoded = crate::decode_otlp_traces(Bytes::copy_from_slice(data), &headers(content_type), &limits());
    let Ok(decoded) = decoded else { return };
    let proto = crate::otlp_traces::out::trace_to_protobuf(decoded.batch.clone());
    let generous = Limits {
        request_bytes_max: 0,
        ..Limits::default()
    };
    let again = crate::decode_otlp_traces(proto.into(), &headers("application/x-protobuf"), &generous)
        .expect("what was written can be read");
    // Debug text, because NaN differs from itself.
    assert_eq!(format!("{:?}", again.batch), format!("{:?}", decoded.batch));
    let json = crate::otlp_traces::out::trace_to_json_v1(&decoded.batch);
    serde_json::from_slice::<serde::de::IgnoredAny>(&json).expect("the answer is JSON");
}

/// An OTLP metrics export in protobuf, under three kinds of settings.
pub fn otlp_metrics_protobuf(data: &[u8]) {
    otlp_metrics(data, "application/x-protobuf");
}

/// An OTLP metrics export in JSON: what it becomes is protobuf that others can read.
pub fn otlp_metrics_json(data: &[u8]) {
    otlp_metrics(data, "application/json");
}

/// Stands still; totals of fuzzing never expire.
struct NoClock;

impl Clock for NoClock {
    fn now_ns(&self) -> i64 {
        0
    }

    fn monotonic(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }
}

fn otlp_metrics(data: &[u8], content_type: &'static str) {
    let export = Export::read(Bytes::copy_from_slice(data), &headers(content_type), &limits());
    let Ok(export) = export else { return };
    if content_type == "application/json" {
        let message = ExportMetricsServiceRequest::decode(export.message.clone());
        message.expect("what was written can be read");
    }
    let native = OtlpMetrics {
        histograms_to_nhcb: true,
        promotion: Promotion::AllBut(Vec::new()),
        promote_scope_metadata: true,
        type_and_unit_labels: true,
        preserve_multiple_underscores: false,
        delta_bytes_max: 2000,
        ..OtlpMetrics::default()
    };
    let as_sent = OtlpMetrics {
        strategy: TranslationStrategy::NoUtf8EscapingWithSuffixes,
        delta: DeltaTemporality::Store,
        ..OtlpMetrics::default()
    };
    for settings in [OtlpMetrics::default(), native, as_sent] {
        let limits = Limits {
            otlp: Arc::new(settings),
            ..limits()
        };
        let totals = DeltaTotals::new(Arc::new(NoClock));
        // The second time every delta point is a retry or late.
        for _ in 0..2 {
            if let Ok(decoded) = export.translate(&TenantId::anonymous(), &limits, &totals) {
                check_otlp_metrics(&decoded.batch);
            }
        }
    }
}

fn check_otlp_metrics(batch: &MetricBatch) {
    let mut seen = std::collections::HashSet::new();
    for series in batch.views() {
        assert!(
            !series.samples.is_empty() || !series.histograms.is_empty(),
            "a series without samples"
        );
        LabelsRef::from_packed(series.labels.as_packed()).expect("labels in the batch are packed");
        assert!(
            series.labels.get("__name__").is_some_and(|n| !n.is_empty()),
            "a series without name"
        );
        assert!(seen.insert(series.labels.as_packed().to_vec()), "a series twice");
        for h in series.histograms {
            h.histogram.validate().expect("histograms in the batch are valid");
        }
    }
}

/// Valid inputs to mutate from, per target.
pub mod seeds {
    use std::io::Write;

    use prost::Message;
    use trilith_proto::prometheus::v2;
    use trilith_proto::{logproto, prometheus as prom};

    const PUSH_JSON: &str = r#"{"streams":[{"stream":{"app":"x","n":5},"values":[["1","lé\n",{"k":"v"}],["-2"]]}]}"#;
    const PUSH_JSON_OLDER: &str =
        r#"{"streams":[{"labels":"{a=\"b\"}","entries":[{"ts":"2020-01-01T00:00:00.5Z","line":"x"}]}]}"#;
    const TRACE_JSON: &str = r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"x"}}]},
        "scopeSpans":[{"scope":{"name":"lib"},"spans":[{"traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"a1a2a3a4a5a6a7a8",
        "kind":"SPAN_KIND_SERVER","startTimeUnixNano":"5","endTimeUnixNano":7,"status":{"code":2},"events":[{"timeUnixNano":"6"}],
        "links":[{"traceId":"AQIDBAUGBwgJCgsMDQ4PEA==","spanId":""}],"attributes":[{"key":"d","value":{"doubleValue":"NaN"}},
        {"key":"l","value":{"arrayValue":{"values":[{"intValue":"1"},{"kvlistValue":{"values":[{"key":"k"}]}}]}}}]}]}]}]}"#;

    const METRICS_JSON: &str = r#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"x"}},
        {"key":"l","value":{"arrayValue":{"values":[{"intValue":"1"},{"kvlistValue":{"values":[{"key":"k"}]}}]}}}]},"schemaUrl":"u",
        "scopeMetrics":[{"scope":{"name":"lib","attributes":[{"key":"a.b","value":{"doubleValue":0.5}}]},"metrics":[
        {"name":"g.x","unit":"1","gauge":{"dataPoints":[{"timeUnixNano":"5000000","asInt":"3","flags":1}]}},
        {"name":"s","unit":"By/s","sum":{"aggregationTemporality":1,"isMonotonic":true,"dataPoints":[{"startTimeUnixNano":"1000000",
        "timeUnixNano":"6000000","asDouble":2.5,"exemplars":[{"asInt":1,"traceId":"0102030405060708090a0b0c0d0e0f10"}],
        "attributes":[{"key":"a.b","value":{"boolValue":true}},{"key":"a_b","value":{"bytesValue":"AA=="}}]}]}},
        {"name":"h","histogram":{"aggregationTemporality":1,"dataPoints":[{"timeUnixNano":"7000000","count":"3","sum":1,
        "bucketCounts":["1","2"],"explicitBounds":[0.5]}]}},
        {"name":"e","exponentialHistogram":{"aggregationTemporality":"AGGREGATION_TEMPORALITY_DELTA","dataPoints":[{"timeUnixNano":"8000000",
        "count":"9","scale":9,"zeroCount":"1","zeroThreshold":0.25,"positive":{"offset":-3,"bucketCounts":["1","0","3"]},
        "negative":{"offset":5,"bucketCounts":["4"]}}]}},
        {"name":"q","summary":{"dataPoints":[{"timeUnixNano":"9000000","count":"1","sum":2,"quantileValues":[{"quantile":0.5,"value":3}]}]}}
        ]}]}]}"#;

    pub fn otlp_metrics_json() -> Vec<Vec<u8>> {
        vec![METRICS_JSON.into()]
    }

    pub fn otlp_metrics_protobuf() -> Vec<Vec<u8>> {
        let headers = super::headers("application/json");
        let export = super::Export::read(METRICS_JSON.into(), &headers, &super::limits());
        export.into_iter().map(|e| e.message.to_vec()).collect()
    }

    pub fn body() -> Vec<Vec<u8>> {
        let data = PUSH_JSON.as_bytes().repeat(20);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut out = Vec::new();
        if gzip.write_all(&data).is_ok() {
            out.extend(gzip.finish());
        }
        if deflate.write_all(&data).is_ok() {
            out.extend(deflate.finish());
        }
        out.extend(zstd::encode_all(data.as_slice(), 1));
        out.extend(snap::raw::Encoder::new().compress_vec(&data));
        out
    }

    /// Integer populations in two spans of the positive side.
    fn histogram(schema: i32, deltas: [i64; 4], bounds: &[f64]) -> prom::Histogram {
        let custom = !bounds.is_empty();
        let absolute = deltas.iter().scan(0, |last, d| {
            *last += d;
            Some(*last)
        });
        let zero = if custom { 0 } else { 2 };
        prom::Histogram {
            count: Some(prom::histogram::Count::CountInt(absolute.sum::<i64>() as u64 + zero)),
            sum: 18.5,
            schema,
            zero_threshold: if custom { 0.0 } else { 1e-128 },
            zero_count: Some(prom::histogram::ZeroCount::ZeroCountInt(zero)),
            positive_spans: vec![
                prom::BucketSpan { offset: 0, length: 2 },
                prom::BucketSpan { offset: 1, length: 2 },
            ],
            positive_deltas: deltas.to_vec(),
            reset_hint: 2,
            timestamp: 1_700_000_000_000,
            custom_values: bounds.to_vec(),
            ..Default::default()
        }
    }

    pub fn remote_write_v2() -> Vec<Vec<u8>> {
        let float = v2::Histogram {
            count: Some(v2::histogram::Count::CountFloat(3.5)),
            sum: -1.0,
            schema: 9,
            negative_spans: vec![v2::BucketSpan { offset: -3, length: 2 }],
            negative_counts: vec![1.5, 2.0],
            timestamp: 7,
            start_timestamp: 1,
            ..Default::default()
        };
        let marker = v2::Histogram {
            count: Some(v2::histogram::Count::CountInt(0)),
            sum: f64::from_bits(trilith_model::STALE_NAN_BITS),
            timestamp: 8,
            ..Default::default()
        };
        let exemplar = v2::Exemplar {
            labels_refs: vec![5, 6],
            value: 1.0,
            timestamp: 5,
        };
        let sample = |timestamp| v2::Sample {
            value: 2.0,
            timestamp,
            start_timestamp: 3,
        };
        let series = |samples, histograms| v2::TimeSeries {
            labels_refs: vec![1, 2, 3, 4],
            samples,
            histograms,
            exemplars: vec![exemplar.clone()],
            metadata: Some(v2::Metadata {
                r#type: 3,
                help_ref: 4,
                unit_ref: 6,
            }),
        };
        let symbols = ["", "__name__", "up", "job", "é", "trace_id", "x"];
        let request = v2::Request {
            symbols: symbols.map(str::to_owned).to_vec(),
            timeseries: vec![
                series(vec![sample(4), sample(5)], vec![]),
                series(vec![], vec![float, marker]),
            ],
        };
        vec![request.encode_to_vec()]
    }

    pub fn remote_write() -> Vec<Vec<u8>> {
        let label = |name: &str, value: &str| prom::Label {
            name: name.into(),
            value: value.into(),
        };
        let series = |labels| prom::TimeSeries {
            labels,
            samples: vec![
                prom::Sample {
                    value: 1.5,
                    timestamp: 1_700_000_000_000,
                },
                prom::Sample {
                    value: f64::NAN,
                    timestamp: -1,
                },
            ],
            exemplars: vec![prom::Exemplar {
                labels: vec![label("trace_id", "x")],
                value: 1.0,
                timestamp: 5,
            }],
            histograms: vec![
                histogram(3, [2, -1, 0, 4], &[]),
                histogram(11, [1, 1, -2, 3], &[]),
                histogram(-53, [2, -1, 0, 4], &[0.5, 1.0, 2.0, 5.0]),
            ],
        };
        let request = prom::WriteRequest {
            timeseries: vec![
                series(vec![label("__name__", "up"), label("job", "é")]),
                series(vec![label("z", "1"), label("__name__", "up"), label("e", "")]),
            ],
            metadata: vec![prom::MetricMetadata {
                r#type: 1,
                metric_family_name: "up".into(),
                help: "h".into(),
                unit: "s".into(),
            }],
        };
        vec![request.encode_to_vec()]
    }

    pub fn loki_protobuf() -> Vec<Vec<u8>> {
        let entry = |seconds, line: &'static str| logproto::Entry {
            timestamp: Some(prost_types::Timestamp { seconds, nanos: 5 }),
            line: line.into(),
            structured_metadata: vec![logproto::LabelPair {
                name: "1.k".into(),
                value: "v".into(),
            }],
            parsed: vec![],
        };
        let request = logproto::PushRequest {
            streams: vec![logproto::Stream {
                labels: r#"{app="x", b="\u00e9"}"#.into(),
                entries: vec![entry(1, "line"), entry(253_402_300_799, "")],
                hash: 1,
            }],
            format: "x".into(),
        };
        vec![request.encode_to_vec()]
    }

    pub fn loki_json() -> Vec<Vec<u8>> {
        vec![PUSH_JSON.into(), PUSH_JSON_OLDER.into()]
    }

    pub fn loki_labels() -> Vec<Vec<u8>> {
        vec![
            br#"{a="b", c='d\x41', e=`f`,}"#.to_vec(),
            br#"up{le="\U0001F600\101"}"#.to_vec(),
        ]
    }

    pub fn otlp_traces_json() -> Vec<Vec<u8>> {
        vec![TRACE_JSON.into()]
    }

    pub fn otlp_traces_protobuf() -> Vec<Vec<u8>> {
        let headers = super::headers("application/json");
        let decoded = crate::decode_otlp_traces(TRACE_JSON.into(), &headers, &super::limits());
        let batch = decoded.map(|d| d.batch).into_iter();
        batch.map(crate::otlp_traces::out::trace_to_protobuf).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::seeds;

    /// A seed that is refused at its first byte would start the search at nothing.
    #[test]
    fn seeds_are_valid() {
        let limits = super::limits();
        assert_eq!(seeds::body().len(), 4);
        let decode = crate::remote_write::decode_message;
        for (version, seeds) in [
            (super::Version::V1, seeds::remote_write()),
            (super::Version::V2, seeds::remote_write_v2()),
        ] {
            for seed in seeds {
                let write = decode(version, &seed, &limits).unwrap();
                assert_eq!(write.rejections, []);
                assert_eq!((write.batch.series_count(), write.exemplars_dropped), (2, 0));
                assert!(!write.batch.histograms.is_empty() && write.batch.exemplars.len() == 2);
            }
        }
        for seed in seeds::loki_protobuf() {
            assert_eq!(
                crate::loki::decode_protobuf(&seed, &limits)
                    .unwrap()
                    .batch
                    .entry_count(),
                1
            );
        }
        let json = super::headers("application/json");
        let [v1, older] = seeds::loki_json().try_into().unwrap();
        assert_eq!(
            crate::decode_loki_push(v1.into(), &json, &limits)
                .unwrap()
                .batch
                .entry_count(),
            2
        );
        let older = crate::decode_loki_push_legacy(older.into(), &json, &limits);
        assert_eq!(older.unwrap().batch.entry_count(), 1);
        assert_eq!(seeds::otlp_traces_protobuf().len(), 1);
        for seed in seeds::otlp_metrics_protobuf() {
            let export = super::Export::from_message(seed.into(), &limits).unwrap();
            let totals = super::DeltaTotals::new(super::Arc::new(super::NoClock));
            let decoded = export
                .translate(&super::TenantId::anonymous(), &limits, &totals)
                .unwrap();
            assert_eq!(
                (export.points, decoded.rejections.len(), decoded.batch.series_count()),
                (5, 0, 11)
            );
        }
        for label in seeds::loki_labels() {
            let text = String::from_utf8(label).unwrap();
            crate::loki::parse_labels(&text, &mut super::LabelsBuilder::new()).unwrap();
        }
    }
}
