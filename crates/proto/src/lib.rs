//! Generated code of the wire messages that Trilith speaks, and nothing else.
//!
//! The sources are the small files under `proto/` in the workspace root, written for this project and
//! wire-compatible with upstream; `build.rs` compiles them without `protoc`. OTLP comes from the
//! `opentelemetry-proto` crate and is re-exported under [`otlp`]. Only `ingest` and `api` (and tests) may
//! depend on this crate: everything below speaks `trilith_model`.
//!
//! Decoding these messages from hostile bytes neither panics nor recurses deeper than prost's limit of 100,
//! but it allocates up to some thirty times the input for pathological messages. The ingest path therefore walks
//! the bytes of remote write, Loki pushes and OTLP itself and uses the messages here only where a framework
//! decodes first (gRPC), for answers, and in tests.

/// Prometheus remote write 1.0 and remote read.
pub mod prometheus {
    #![allow(missing_docs, clippy::all)]
    include!(concat!(env!("OUT_DIR"), "/prometheus.rs"));

    /// Remote write 2.0.
    pub mod v2 {
        include!(concat!(env!("OUT_DIR"), "/io.prometheus.write.v2.rs"));
    }
}

/// Loki's push request.
pub mod logproto {
    #![allow(missing_docs, clippy::all)]
    include!(concat!(env!("OUT_DIR"), "/logproto.rs"));
}

/// Tempo's query messages; `streaming_querier_server` and `streaming_querier_client` are the gRPC service.
pub mod tempopb {
    #![allow(missing_docs, clippy::all)]
    include!(concat!(env!("OUT_DIR"), "/tempopb.rs"));
}

/// `google.rpc.Status` and `RetryInfo`: the error body of OTLP over HTTP.
pub mod rpc {
    #![allow(missing_docs, clippy::all)]
    include!(concat!(env!("OUT_DIR"), "/google.rpc.rs"));
}

/// OpenTelemetry's messages and collector services (client and server stubs).
pub mod otlp {
    pub use opentelemetry_proto::tonic::{collector, common, logs, metrics, resource, trace};
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    /// Field numbers are the contract; a renumbering would still compile.
    #[test]
    fn field_numbers_are_those_of_upstream() {
        let write = prometheus::WriteRequest {
            timeseries: vec![prometheus::TimeSeries {
                labels: vec![prometheus::Label {
                    name: "a".into(),
                    value: "b".into(),
                }],
                samples: vec![prometheus::Sample {
                    value: 1.0,
                    timestamp: 5,
                }],
                ..Default::default()
            }],
            metadata: vec![prometheus::MetricMetadata {
                r#type: 2,
                help: "h".into(),
                ..Default::default()
            }],
        };
        let want =
            b"\x0a\x15\x0a\x06\x0a\x01a\x12\x01b\x12\x0b\x09\0\0\0\0\0\0\xf0\x3f\x10\x05\x1a\x05\x08\x02\x22\x01h";
        assert_eq!(write.encode_to_vec(), want);

        let push = logproto::PushRequest {
            streams: vec![logproto::Stream {
                labels: "{}".into(),
                entries: vec![logproto::Entry {
                    timestamp: Some(prost_types::Timestamp { seconds: 1, nanos: 2 }),
                    line: "x".into(),
                    structured_metadata: vec![logproto::LabelPair {
                        name: "n".into(),
                        value: "v".into(),
                    }],
                    parsed: vec![],
                }],
                hash: 0,
            }],
            format: String::new(),
        };
        let want = b"\x0a\x17\x0a\x02{}\x12\x11\x0a\x04\x08\x01\x10\x02\x12\x01x\x1a\x06\x0a\x01n\x12\x01v";
        assert_eq!(push.encode_to_vec(), want);

        let search = tempopb::SearchRequest {
            query: "{}".into(),
            spans_per_span_set: 3,
            limit: 1,
            ..Default::default()
        };
        assert_eq!(search.encode_to_vec(), b"\x20\x01\x42\x02{}\x48\x03");
        let range = tempopb::QueryRangeRequest {
            instant: Some(true),
            exemplars: 1,
            ..Default::default()
        };
        assert_eq!(range.encode_to_vec(), b"\x80\x01\x01\x90\x01\x01".as_slice());
    }

    /// `tempopb.Trace` and OTLP's `TracesData` are one format.
    #[test]
    fn a_tempo_trace_is_otlp_traces_data() {
        let spans = otlp::trace::v1::ResourceSpans {
            schema_url: "s".into(),
            ..Default::default()
        };
        let trace = tempopb::Trace {
            resource_spans: vec![spans.clone()],
        };
        let data = otlp::trace::v1::TracesData::decode(trace.encode_to_vec().as_slice());
        assert_eq!(data.map(|d| d.resource_spans), Ok(vec![spans]));
    }
}
