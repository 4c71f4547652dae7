//! One entry per decoder for fuzzing: any bytes in, nothing out, no panic. Every entry checks what it decoded against
//! the invariants of its batch.

use bytes::Bytes;
use trilith_model::{LabelsBuilder, LabelsRef, Limits, LogBatch};

use crate::body::{self, Encoding};
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

/// A remote-write message, already decompressed.
pub fn remote_write(data: &[u8]) {
    if let Ok(decoded) = crate::remote_write::decode_message(data, &limits()) {
        for (labels, samples) in decoded.batch.series() {
            assert!(!samples.is_empty(), "a series without samples");
            LabelsRef::from_packed(labels.as_packed()).expect("labels in the batch are packed");
            assert!(
                labels.get("__name__").is_some_and(|n| !n.is_empty()),
                "a series without name"
            );
        }
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

/// Valid inputs to mutate from, per target.
pub mod seeds {
    use std::io::Write;

    use prost::Message;
    use trilith_proto::{logproto, prometheus as prom};

    const PUSH_JSON: &str = r#"{"streams":[{"stream":{"app":"x","n":5},"values":[["1","lé\n",{"k":"v"}],["-2"]]}]}"#;
    const PUSH_JSON_OLDER: &str =
        r#"{"streams":[{"labels":"{a=\"b\"}","entries":[{"ts":"2020-01-01T00:00:00.5Z","line":"x"}]}]}"#;
    const TRACE_JSON: &str = r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"x"}}]},
        "scopeSpans":[{"scope":{"name":"lib"},"spans":[{"traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"a1a2a3a4a5a6a7a8",
        "kind":"SPAN_KIND_SERVER","startTimeUnixNano":"5","endTimeUnixNano":7,"status":{"code":2},"events":[{"timeUnixNano":"6"}],
        "links":[{"traceId":"AQIDBAUGBwgJCgsMDQ4PEA==","spanId":""}],"attributes":[{"key":"d","value":{"doubleValue":"NaN"}},
        {"key":"l","value":{"arrayValue":{"values":[{"intValue":"1"},{"kvlistValue":{"values":[{"key":"k"}]}}]}}}]}]}]}]}"#;

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
            exemplars: vec![prom::Exemplar::default()],
            histograms: vec![prom::Histogram::default()],
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
        for seed in seeds::remote_write() {
            assert_eq!(
                crate::remote_write::decode_message(&seed, &limits)
                    .unwrap()
                    .batch
                    .series_count(),
                2
            );
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
        for label in seeds::loki_labels() {
            let text = String::from_utf8(label).unwrap();
            crate::loki::parse_labels(&text, &mut super::LabelsBuilder::new()).unwrap();
        }
    }
}
