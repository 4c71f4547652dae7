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
    let decoded = crate::decode_otlp_traces(
        Bytes::copy_from_slice(data),
        &headers(content_type),
        &limits(),
    );
    let Ok(decoded) = decoded else { return };
    let proto = crate::otlp_traces::out::trace_to_protobuf(decoded.batch.clone());
    let generous = Limits {
        request_bytes_max: 0,
        ..Limits::default()
    };
    let again =
        crate::decode_otlp_traces(proto.into(), &headers("application/x-protobuf"), &generous)
            .expect("what was written can be read");
    // Debug text, because NaN differs from itself.
    assert_eq!(format!("{:?}", again.batch), format!("{:?}", decoded.batch));
    let json = crate::otlp_traces::out::trace_to_json_v1(&decoded.batch);
    serde_json::from_slice::<serde::de::IgnoredAny>(&json).expect("the answer is JSON");
}
