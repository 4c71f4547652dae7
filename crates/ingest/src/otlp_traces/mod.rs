//! OTLP traces: `ExportTraceServiceRequest` in protobuf (walked straight into the model) and JSON (read leniently),
//! and the message that a gRPC framework has decoded already. All three give the same batch for the same spans.
//!
//! Everything of the trace model is kept: attribute order, duplicate keys, flags, schema URLs, dropped counts, times as
//! sent. Attribute values are not cut: Tempo cuts them at 2048 bytes, here the request limit bounds them
//! (`docs/adr/0080-otlp-trace-ids.md`).
//!
//! One span with a bad id refuses the whole request, as in Tempo.

pub(crate) mod json;
mod json_out;
pub mod out;
mod proto;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use trilith_model::trace::{
    AnyValue, Event, KeyValue, Link, Resource, ResourceSpans, Scope, ScopeSpans, Span, SpanId, Status, TraceId,
};
use trilith_model::{Error, Limits, Result, TraceBatch};
use trilith_proto::otlp::collector::trace::v1::ExportTraceServiceRequest;
use trilith_proto::otlp::{common::v1 as pc, trace::v1 as pt};

use crate::body::{self, Encoding};
use crate::status::Format;
use crate::{Decoded, PushHeaders, content_encoding};

/// Arrays and maps inside an attribute value may be nested this deep. The answer of such a trace stays below
/// the hundred levels that protobuf libraries read by default.
pub const VALUE_DEPTH_MAX: usize = 30;

/// Decodes the body of `POST /v1/traces`. Encodings: none, `gzip`, `zstd`, `deflate`, `zlib`.
///
/// # Errors
/// `Unsupported` (415) for another content type, `Invalid` (400) for an unknown encoding, unreadable bytes or a bad
/// id, `TooLarge` (413) above `limits.request_bytes_max`. Nothing of such a request may be stored.
pub fn decode_otlp_traces(body: Bytes, headers: &PushHeaders<'_>, limits: &Limits) -> Result<Decoded<TraceBatch>> {
    let format = Format::of(headers)?;
    let encoding = match content_encoding(headers).as_str() {
        "" => Encoding::Identity,
        "gzip" => Encoding::Gzip,
        "zstd" => Encoding::Zstd,
        "deflate" | "zlib" => Encoding::Deflate,
        other => {
            return Err(Error::invalid(format!("unsupported Content-Encoding: {other}")));
        }
    };
    let raw = body::decode(body, encoding, limits.request_bytes_max)?;
    let batch = match format {
        Format::Protobuf => proto::decode(&raw)?,
        Format::Json => json::decode(&raw)?,
    };
    Ok(decoded(batch, raw.len() as u64))
}

/// Checks and converts a request that came over gRPC. `bytes` is its encoded size, for the rate limit
/// (`prost::Message::encoded_len`).
///
/// # Errors
/// `Invalid` (InvalidArgument) for a bad id or values that are nested too deep.
pub fn from_request(request: ExportTraceServiceRequest, bytes: u64) -> Result<Decoded<TraceBatch>> {
    let mut batch = TraceBatch::default();
    batch.resource_spans.reserve_exact(request.resource_spans.len());
    for r in request.resource_spans {
        batch.resource_spans.push(resource_spans(r)?);
    }
    Ok(decoded(batch, bytes))
}

fn decoded(batch: TraceBatch, bytes: u64) -> Decoded<TraceBatch> {
    Decoded {
        batch,
        rejections: Vec::new(),
        bytes,
        exemplars_dropped: 0,
    }
}

fn resource_spans(r: pt::ResourceSpans) -> Result<ResourceSpans> {
    let present = r.resource.is_some();
    let resource = r.resource.unwrap_or_default();
    Ok(ResourceSpans {
        resource: Resource {
            attributes: attributes(resource.attributes)?,
            dropped_attributes_count: resource.dropped_attributes_count,
            schema_url: r.schema_url,
            present,
        },
        scope_spans: collect(r.scope_spans, scope_spans)?,
    })
}

fn scope_spans(s: pt::ScopeSpans) -> Result<ScopeSpans> {
    let present = s.scope.is_some();
    let scope = s.scope.unwrap_or_default();
    Ok(ScopeSpans {
        scope: Scope {
            name: scope.name,
            version: scope.version,
            attributes: attributes(scope.attributes)?,
            dropped_attributes_count: scope.dropped_attributes_count,
            schema_url: s.schema_url,
            present,
        },
        spans: collect(s.spans, span)?,
    })
}

fn span(s: pt::Span) -> Result<Span> {
    let (trace_id, span_id, parent_span_id) = span_ids(&s.trace_id, &s.span_id, &s.parent_span_id, &s.name)?;
    Ok(Span {
        trace_id,
        span_id,
        parent_span_id,
        trace_state: s.trace_state,
        flags: s.flags,
        name: s.name,
        kind: s.kind,
        start_ns: s.start_time_unix_nano,
        end_ns: s.end_time_unix_nano,
        attributes: attributes(s.attributes)?,
        dropped_attributes_count: s.dropped_attributes_count,
        events: collect(s.events, event)?,
        dropped_events_count: s.dropped_events_count,
        links: collect(s.links, link)?,
        dropped_links_count: s.dropped_links_count,
        status: s.status.map(|s| Status {
            code: s.code,
            message: s.message,
        }),
    })
}

fn event(e: pt::span::Event) -> Result<Event> {
    Ok(Event {
        time_ns: e.time_unix_nano,
        name: e.name,
        attributes: attributes(e.attributes)?,
        dropped_attributes_count: e.dropped_attributes_count,
    })
}

fn link(l: pt::span::Link) -> Result<Link> {
    let (trace_id, span_id) = link_ids(&l.trace_id, &l.span_id)?;
    Ok(Link {
        trace_id,
        span_id,
        trace_state: l.trace_state,
        attributes: attributes(l.attributes)?,
        dropped_attributes_count: l.dropped_attributes_count,
        flags: l.flags,
    })
}

fn attributes(list: Vec<pc::KeyValue>) -> Result<Vec<KeyValue>> {
    collect(list, |kv| key_value(kv, 0))
}

fn key_value(kv: pc::KeyValue, depth: usize) -> Result<KeyValue> {
    Ok(KeyValue {
        key: kv.key,
        value: any_value(kv.value.unwrap_or_default(), depth)?,
    })
}

fn any_value(value: pc::AnyValue, depth: usize) -> Result<AnyValue> {
    use pc::any_value::Value;
    Ok(match value.value {
        Some(Value::StringValue(s)) => AnyValue::String(s),
        Some(Value::BoolValue(b)) => AnyValue::Bool(b),
        Some(Value::IntValue(n)) => AnyValue::Int(n),
        Some(Value::DoubleValue(x)) => AnyValue::Double(x),
        Some(Value::BytesValue(b)) => AnyValue::Bytes(b),
        Some(Value::ArrayValue(a)) => {
            let depth = deeper(depth)?;
            AnyValue::Array(collect(a.values, |v| any_value(v, depth))?)
        }
        Some(Value::KvlistValue(l)) => {
            let depth = deeper(depth)?;
            AnyValue::KvList(collect(l.values, |kv| key_value(kv, depth))?)
        }
        // Indexes into a string table exist in profiles only.
        Some(Value::StringValueStrindex(_)) | None => AnyValue::Empty,
    })
}

fn collect<A, B>(list: Vec<A>, f: impl FnMut(A) -> Result<B>) -> Result<Vec<B>> {
    list.into_iter().map(f).collect()
}

/// # Errors
/// `Invalid` beyond [`VALUE_DEPTH_MAX`].
fn deeper(depth: usize) -> Result<usize> {
    if depth < VALUE_DEPTH_MAX {
        return Ok(depth + 1);
    }
    Err(Error::invalid(format!(
        "attribute values are nested deeper than {VALUE_DEPTH_MAX} levels"
    )))
}

/// # Errors
/// `Invalid` with Tempo's texts. An all-zero trace id, which Tempo lets through and OTLP forbids, is refused.
fn span_ids(trace: &[u8], span: &[u8], parent: &[u8], name: &str) -> Result<(TraceId, SpanId, SpanId)> {
    let bits = |id: &[u8]| id.len() * 8;
    let at = || format!("span '{}'", crate::rejections::quoted(name));
    let trace_id = match <[u8; 16]>::try_from(trace) {
        Ok(id) if id != [0; 16] => TraceId(id),
        Ok(_) => {
            let text = "trace ids must be 128 bit and not all zero, received 128 bits";
            return Err(Error::invalid(format!("{text}: {}", at())));
        }
        Err(_) => {
            let text = format!("trace ids must be 128 bit, received {} bits", bits(trace));
            return Err(Error::invalid(format!("{text}: {}", at())));
        }
    };
    let span_id = match <[u8; 8]>::try_from(span) {
        Ok(id) if id != [0; 8] => SpanId(id),
        _ => {
            let text = format!("span ids must be 64 bit and not all zero, received {} bits", bits(span));
            return Err(Error::invalid(format!("{text}: {}", at())));
        }
    };
    let Some(parent_id) = optional(parent) else {
        let text = format!("parent span ids must be 64 bit, received {} bits", bits(parent));
        return Err(Error::invalid(format!("{text}: {}", at())));
    };
    Ok((trace_id, span_id, SpanId(parent_id)))
}

/// Ids of a link: absent ones are zero.
///
/// # Errors
/// `Invalid` for a wrong length, which upstream's decoder refuses as well.
fn link_ids(trace: &[u8], span: &[u8]) -> Result<(TraceId, SpanId)> {
    match (optional(trace), optional(span)) {
        (Some(t), Some(s)) => Ok((TraceId(t), SpanId(s))),
        (None, _) => Err(Error::invalid(format!(
            "trace ids of links must be 128 bit, received {} bits",
            trace.len() * 8
        ))),
        (_, None) => Err(Error::invalid(format!(
            "span ids of links must be 64 bit, received {} bits",
            span.len() * 8
        ))),
    }
}

fn optional<const N: usize>(id: &[u8]) -> Option<[u8; N]> {
    if id.is_empty() {
        return Some([0; N]);
    }
    id.try_into().ok()
}

/// Checks a value that was read by a recursion with a limit of its own.
fn check_depth(value: &AnyValue, depth: usize) -> Result<()> {
    match value {
        AnyValue::Array(values) => {
            let depth = deeper(depth)?;
            values.iter().try_for_each(|v| check_depth(v, depth))
        }
        AnyValue::KvList(values) => {
            let depth = deeper(depth)?;
            values.iter().try_for_each(|kv| check_depth(&kv.value, depth))
        }
        _ => Ok(()),
    }
}
