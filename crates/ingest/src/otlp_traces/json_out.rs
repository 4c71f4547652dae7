//! A trace in Tempo's JSON: proto3 JSON, not OTLP JSON.
//!
//! Ids and bytes are base64, 64-bit integers are strings, enums are names, NaN and infinities are strings, and fields
//! with default values are left out. `resource`, `scope` and `value` are always present, because readers reach
//! through them. Written straight into a buffer: a trace of a hundred thousand spans builds no tree.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use trilith_model::TraceBatch;
use trilith_model::trace::{AnyValue, Event, KeyValue, Link, ResourceSpans, ScopeSpans, Span};

use super::out::TraceAnswer;

/// The JSON body of `/api/traces/{id}`: `{"batches":[…]}`.
pub fn trace_to_json_v1(batch: &TraceBatch) -> Vec<u8> {
    let mut out = Vec::new();
    object(&mut out, |o| o.list("batches", &batch.resource_spans, resource_spans));
    out
}

/// The JSON body of `/api/v2/traces/{id}`: `{"trace":{"resourceSpans":[…]},"metrics":{…}}`; for an empty batch
/// `{"trace":{},…}`, which is how v2 says "not found".
pub fn trace_to_json_v2(batch: &TraceBatch, answer: &TraceAnswer) -> Vec<u8> {
    let mut out = Vec::new();
    object(&mut out, |o| {
        o.object("trace", |o| {
            o.list("resourceSpans", &batch.resource_spans, resource_spans)
        });
        o.object("metrics", |o| o.long("inspectedBytes", answer.inspected_bytes));
        if let Some(message) = &answer.partial {
            o.text("status", "PARTIAL");
            o.text("message", message);
        }
    });
    out
}

/// Appends a list of attributes: `[{"key":"a","value":{"stringValue":"b"}}]`.
pub fn key_values_json(list: &[KeyValue], out: &mut Vec<u8>) {
    array(out, list, key_value);
}

/// Appends a value: `{"intValue":"5"}`. A set value is printed even when it is the default of its type.
pub fn any_value_json(value: &AnyValue, out: &mut Vec<u8>) {
    object(out, |o| match value {
        AnyValue::Empty => {}
        AnyValue::String(s) => string(o.key("stringValue"), s),
        AnyValue::Bool(b) => o
            .key("boolValue")
            .extend_from_slice(if *b { b"true" } else { b"false" }),
        AnyValue::Int(n) => quoted(o.key("intValue"), &n.to_string()),
        AnyValue::Double(x) => double(o.key("doubleValue"), *x),
        AnyValue::Bytes(b) => quoted(o.key("bytesValue"), &BASE64.encode(b)),
        AnyValue::Array(values) => o.object("arrayValue", |o| {
            o.list("values", values, any_value_json);
        }),
        AnyValue::KvList(values) => o.object("kvlistValue", |o| o.list("values", values, key_value)),
    });
}

fn key_value(kv: &KeyValue, out: &mut Vec<u8>) {
    object(out, |o| {
        o.text("key", &kv.key);
        any_value_json(&kv.value, o.key("value"));
    });
}

fn resource_spans(r: &ResourceSpans, out: &mut Vec<u8>) {
    object(out, |o| {
        o.object("resource", |o| {
            o.list("attributes", &r.resource.attributes, key_value);
            o.int("droppedAttributesCount", r.resource.dropped_attributes_count);
        });
        o.list("scopeSpans", &r.scope_spans, scope_spans);
        o.text("schemaUrl", &r.resource.schema_url);
    });
}

fn scope_spans(s: &ScopeSpans, out: &mut Vec<u8>) {
    object(out, |o| {
        o.object("scope", |o| {
            o.text("name", &s.scope.name);
            o.text("version", &s.scope.version);
            o.list("attributes", &s.scope.attributes, key_value);
            o.int("droppedAttributesCount", s.scope.dropped_attributes_count);
        });
        o.list("spans", &s.spans, span);
        o.text("schemaUrl", &s.scope.schema_url);
    });
}

fn span(s: &Span, out: &mut Vec<u8>) {
    object(out, |o| {
        o.id("traceId", &s.trace_id.0);
        o.id("spanId", &s.span_id.0);
        o.text("traceState", &s.trace_state);
        o.id("parentSpanId", &s.parent_span_id.0);
        o.int("flags", s.flags);
        o.text("name", &s.name);
        o.name("kind", s.kind, &KINDS);
        o.long("startTimeUnixNano", s.start_ns);
        o.long("endTimeUnixNano", s.end_ns);
        o.list("attributes", &s.attributes, key_value);
        o.int("droppedAttributesCount", s.dropped_attributes_count);
        o.list("events", &s.events, event);
        o.int("droppedEventsCount", s.dropped_events_count);
        o.list("links", &s.links, link);
        o.int("droppedLinksCount", s.dropped_links_count);
        if let Some(status) = &s.status {
            o.object("status", |o| {
                o.text("message", &status.message);
                o.name("code", status.code, &CODES);
            });
        }
    });
}

fn event(e: &Event, out: &mut Vec<u8>) {
    object(out, |o| {
        o.long("timeUnixNano", e.time_ns);
        o.text("name", &e.name);
        o.list("attributes", &e.attributes, key_value);
        o.int("droppedAttributesCount", e.dropped_attributes_count);
    });
}

fn link(l: &Link, out: &mut Vec<u8>) {
    object(out, |o| {
        o.id("traceId", &l.trace_id.0);
        o.id("spanId", &l.span_id.0);
        o.text("traceState", &l.trace_state);
        o.list("attributes", &l.attributes, key_value);
        o.int("droppedAttributesCount", l.dropped_attributes_count);
        o.int("flags", l.flags);
    });
}

const KINDS: [&str; 6] = [
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];
const CODES: [&str; 3] = ["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];

// ---- the writer ----

struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

fn object(out: &mut Vec<u8>, fields: impl FnOnce(&mut Object<'_>)) {
    out.push(b'{');
    fields(&mut Object { out, empty: true });
    out.push(b'}');
}

fn array<T>(out: &mut Vec<u8>, list: &[T], mut item: impl FnMut(&T, &mut Vec<u8>)) {
    out.push(b'[');
    for (i, x) in list.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        item(x, out);
    }
    out.push(b']');
}

/// Every method but `key` and `object` leaves out default values.
impl Object<'_> {
    /// Writes the key; the caller writes the value.
    fn key(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        quoted(self.out, name);
        self.out.push(b':');
        self.out
    }

    fn object(&mut self, name: &str, fields: impl FnOnce(&mut Object<'_>)) {
        object(self.key(name), fields);
    }

    fn list<T>(&mut self, name: &str, list: &[T], item: impl FnMut(&T, &mut Vec<u8>)) {
        if !list.is_empty() {
            array(self.key(name), list, item);
        }
    }

    fn text(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            string(self.key(name), text);
        }
    }

    /// 64 bits: a string.
    fn long(&mut self, name: &str, n: u64) {
        if n != 0 {
            quoted(self.key(name), &n.to_string());
        }
    }

    /// 32 bits: a number.
    fn int(&mut self, name: &str, n: u32) {
        if n != 0 {
            self.key(name).extend_from_slice(n.to_string().as_bytes());
        }
    }

    fn id(&mut self, name: &str, id: &[u8]) {
        if id.iter().any(|b| *b != 0) {
            quoted(self.key(name), &BASE64.encode(id));
        }
    }

    /// An enum by name; numbers without a name stay numbers, as in proto3 JSON.
    fn name(&mut self, name: &str, n: i32, names: &[&str]) {
        let known = usize::try_from(n).ok().and_then(|i| names.get(i));
        match known {
            _ if n == 0 => {}
            Some(text) => quoted(self.key(name), text),
            None => self.key(name).extend_from_slice(n.to_string().as_bytes()),
        }
    }
}

/// Text that needs no escapes.
fn quoted(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

fn string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing a string to memory cannot fail");
}

fn double(out: &mut Vec<u8>, x: f64) {
    if x.is_nan() {
        quoted(out, "NaN");
    } else if x.is_infinite() {
        quoted(out, if x > 0.0 { "Infinity" } else { "-Infinity" });
    } else {
        serde_json::to_writer(out, &x).expect("writing a finite number to memory cannot fail");
    }
}
