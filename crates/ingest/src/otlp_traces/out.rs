//! A stored trace on its way out: OTLP protobuf (`tempopb.Trace` is the same bytes as `TracesData`) here, Tempo's
//! JSON in `json_out`.

use prost::Message;
use trilith_model::TraceBatch;
use trilith_model::trace::{AnyValue, KeyValue, Resource, ResourceSpans, Scope, ScopeSpans, Span};
use trilith_proto::otlp::{common::v1 as pc, resource::v1 as pr, trace::v1 as pt};
use trilith_proto::tempopb;

pub use super::json_out::{any_value_json, key_values_json, trace_to_json_v1, trace_to_json_v2};

/// The message for `TraceByIDResponse.trace`; moves all text, copies ids.
pub fn trace_to_proto(batch: TraceBatch) -> tempopb::Trace {
    tempopb::Trace {
        resource_spans: batch.resource_spans.into_iter().map(resource_spans).collect(),
    }
}

/// The body of `/api/traces/{id}` for `Accept: application/protobuf`.
pub fn trace_to_protobuf(batch: TraceBatch) -> Vec<u8> {
    trace_to_proto(batch).encode_to_vec()
}

/// What stands beside the trace in the v2 answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceAnswer {
    pub inspected_bytes: u64,
    /// The trace is not whole, and why: `Trace exceeds maximum size of N bytes, a partial trace is returned`.
    pub partial: Option<String>,
}

/// The body of `/api/v2/traces/{id}` for `Accept: application/protobuf`.
pub fn trace_to_protobuf_v2(batch: TraceBatch, answer: &TraceAnswer) -> Vec<u8> {
    let status = match answer.partial {
        Some(_) => tempopb::PartialStatus::Partial,
        None => tempopb::PartialStatus::Complete,
    };
    tempopb::TraceByIdResponse {
        trace: Some(trace_to_proto(batch)),
        metrics: Some(tempopb::TraceByIdMetrics {
            inspected_bytes: answer.inspected_bytes,
        }),
        status: status.into(),
        message: answer.partial.clone().unwrap_or_default(),
    }
    .encode_to_vec()
}

/// An attribute as a message, for search and metrics answers.
pub fn key_value_to_proto(kv: KeyValue) -> pc::KeyValue {
    pc::KeyValue {
        key: kv.key,
        value: Some(any_value_to_proto(kv.value)),
        ..Default::default()
    }
}

/// A value as a message; `Empty` is a message without a set field.
pub fn any_value_to_proto(value: AnyValue) -> pc::AnyValue {
    use pc::any_value::Value;
    let value = match value {
        AnyValue::Empty => None,
        AnyValue::String(s) => Some(Value::StringValue(s)),
        AnyValue::Bool(b) => Some(Value::BoolValue(b)),
        AnyValue::Int(n) => Some(Value::IntValue(n)),
        AnyValue::Double(x) => Some(Value::DoubleValue(x)),
        AnyValue::Bytes(b) => Some(Value::BytesValue(b)),
        AnyValue::Array(values) => Some(Value::ArrayValue(pc::ArrayValue {
            values: values.into_iter().map(any_value_to_proto).collect(),
        })),
        AnyValue::KvList(values) => Some(Value::KvlistValue(pc::KeyValueList {
            values: attributes(values),
        })),
    };
    pc::AnyValue { value }
}

fn attributes(list: Vec<KeyValue>) -> Vec<pc::KeyValue> {
    list.into_iter().map(key_value_to_proto).collect()
}

fn resource_spans(r: ResourceSpans) -> pt::ResourceSpans {
    let Resource {
        attributes: list,
        dropped_attributes_count,
        schema_url,
        present,
    } = r.resource;
    pt::ResourceSpans {
        resource: present.then(|| pr::Resource {
            attributes: attributes(list),
            dropped_attributes_count,
            ..Default::default()
        }),
        scope_spans: r.scope_spans.into_iter().map(scope_spans).collect(),
        schema_url,
    }
}

fn scope_spans(s: ScopeSpans) -> pt::ScopeSpans {
    let Scope {
        name,
        version,
        attributes: list,
        dropped_attributes_count,
        schema_url,
        present,
    } = s.scope;
    pt::ScopeSpans {
        scope: present.then(|| pc::InstrumentationScope {
            name,
            version,
            attributes: attributes(list),
            dropped_attributes_count,
        }),
        spans: s.spans.into_iter().map(span).collect(),
        schema_url,
    }
}

fn span(s: Span) -> pt::Span {
    pt::Span {
        trace_id: s.trace_id.0.to_vec(),
        span_id: s.span_id.0.to_vec(),
        trace_state: s.trace_state,
        parent_span_id: id_or_nothing(&s.parent_span_id.0),
        flags: s.flags,
        name: s.name,
        kind: s.kind,
        start_time_unix_nano: s.start_ns,
        end_time_unix_nano: s.end_ns,
        attributes: attributes(s.attributes),
        dropped_attributes_count: s.dropped_attributes_count,
        events: s
            .events
            .into_iter()
            .map(|e| pt::span::Event {
                time_unix_nano: e.time_ns,
                name: e.name,
                attributes: attributes(e.attributes),
                dropped_attributes_count: e.dropped_attributes_count,
            })
            .collect(),
        dropped_events_count: s.dropped_events_count,
        links: s
            .links
            .into_iter()
            .map(|l| pt::span::Link {
                trace_id: id_or_nothing(&l.trace_id.0),
                span_id: id_or_nothing(&l.span_id.0),
                trace_state: l.trace_state,
                attributes: attributes(l.attributes),
                dropped_attributes_count: l.dropped_attributes_count,
                flags: l.flags,
            })
            .collect(),
        dropped_links_count: s.dropped_links_count,
        status: s.status.map(|s| pt::Status {
            message: s.message,
            code: s.code,
        }),
    }
}

/// A zero id means none, and none is no bytes.
fn id_or_nothing(id: &[u8]) -> Vec<u8> {
    if id.iter().all(|b| *b == 0) {
        Vec::new()
    } else {
        id.to_vec()
    }
}
