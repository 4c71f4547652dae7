//! Files of other projects that tests read when they are there, and a reader of OTLP JSON traces for them.

use std::path::{Path, PathBuf};

use serde_json::Value;
use trilith_model::trace::{
    AnyValue, Event, KeyValue, Link, Resource, ResourceSpans, Scope, ScopeSpans, Span, SpanId, Status, TraceBatch,
    TraceId,
};

/// A file or folder of the corpora: below `TRILITH_CORPORA`, else beside the workspace. `None`, with a message, when
/// absent; the test is to be skipped then.
pub fn corpus(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("TRILITH_CORPORA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpora"),
        PathBuf::from,
    );
    let path = root.join(path);
    if path.exists() {
        return Some(path);
    }
    // Tests may print; this is the reason why one passed without doing anything.
    #[allow(clippy::print_stderr)]
    {
        eprintln!("skipped: {} is not there", path.display());
    }
    None
}

/// Lines of a JSONL file of the corpora.
///
/// # Panics
/// When a line is no JSON.
pub fn json_lines(path: &str) -> Option<Vec<Value>> {
    let text = std::fs::read_to_string(corpus(path)?).expect("corpus file is readable");
    Some(
        text.lines()
            .filter(|l| !l.trim().is_empty())
            .map(|l| serde_json::from_str(l).expect("JSON"))
            .collect(),
    )
}

/// `TracesData` in OTLP JSON (ids in hex, numbers as numbers or strings, enums as numbers or names).
///
/// # Panics
/// When an id or number is none.
pub fn otlp_json(data: &Value) -> TraceBatch {
    let groups = data.get("resourceSpans").or_else(|| data.get("batches"));
    TraceBatch {
        resource_spans: items(groups.unwrap_or(&Value::Null)).map(resource_spans).collect(),
    }
}

fn resource_spans(v: &Value) -> ResourceSpans {
    let r = &v["resource"];
    ResourceSpans {
        resource: Resource {
            attributes: attributes(&r["attributes"]),
            dropped_attributes_count: number(&r["droppedAttributesCount"]) as u32,
            schema_url: text(&v["schemaUrl"]),
            present: r.is_object(),
        },
        scope_spans: items(&v["scopeSpans"]).map(scope_spans).collect(),
    }
}

fn scope_spans(v: &Value) -> ScopeSpans {
    let s = &v["scope"];
    ScopeSpans {
        scope: Scope {
            name: text(&s["name"]),
            version: text(&s["version"]),
            attributes: attributes(&s["attributes"]),
            dropped_attributes_count: number(&s["droppedAttributesCount"]) as u32,
            schema_url: text(&v["schemaUrl"]),
            present: s.is_object(),
        },
        spans: items(&v["spans"]).map(span).collect(),
    }
}

fn span(v: &Value) -> Span {
    Span {
        trace_id: TraceId(id(&v["traceId"])),
        span_id: SpanId(id(&v["spanId"])),
        parent_span_id: SpanId(id(&v["parentSpanId"])),
        trace_state: text(&v["traceState"]),
        flags: number(&v["flags"]) as u32,
        name: text(&v["name"]),
        kind: enumerated(
            &v["kind"],
            "SPAN_KIND_",
            &["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"],
        ),
        start_ns: number(&v["startTimeUnixNano"]) as u64,
        end_ns: number(&v["endTimeUnixNano"]) as u64,
        attributes: attributes(&v["attributes"]),
        dropped_attributes_count: number(&v["droppedAttributesCount"]) as u32,
        events: items(&v["events"])
            .map(|e| Event {
                time_ns: number(&e["timeUnixNano"]) as u64,
                name: text(&e["name"]),
                attributes: attributes(&e["attributes"]),
                dropped_attributes_count: number(&e["droppedAttributesCount"]) as u32,
            })
            .collect(),
        dropped_events_count: number(&v["droppedEventsCount"]) as u32,
        links: items(&v["links"])
            .map(|l| Link {
                trace_id: TraceId(id(&l["traceId"])),
                span_id: SpanId(id(&l["spanId"])),
                trace_state: text(&l["traceState"]),
                attributes: attributes(&l["attributes"]),
                dropped_attributes_count: number(&l["droppedAttributesCount"]) as u32,
                flags: number(&l["flags"]) as u32,
            })
            .collect(),
        dropped_links_count: number(&v["droppedLinksCount"]) as u32,
        status: v.get("status").filter(|s| s.is_object()).map(|s| Status {
            code: enumerated(&s["code"], "STATUS_CODE_", &["UNSET", "OK", "ERROR"]),
            message: text(&s["message"]),
        }),
    }
}

fn items(v: &Value) -> impl Iterator<Item = &Value> {
    v.as_array().into_iter().flatten()
}

fn text(v: &Value) -> String {
    v.as_str().unwrap_or_default().to_owned()
}

fn number(v: &Value) -> i128 {
    match v {
        Value::Null => 0,
        Value::String(s) => s.parse().expect("a number"),
        v => v
            .as_i64()
            .map(i128::from)
            .or(v.as_u64().map(i128::from))
            .expect("an integer"),
    }
}

fn enumerated(v: &Value, prefix: &str, names: &[&str]) -> i32 {
    match v.as_str().and_then(|s| s.strip_prefix(prefix)) {
        Some(name) => names.iter().position(|n| *n == name).expect("a known name") as i32,
        None => number(v) as i32,
    }
}

/// Absent and empty ids are zero. Hex as OTLP has it, or base64 as Tempo answers.
fn id<const N: usize>(v: &Value) -> [u8; N] {
    let text = v.as_str().unwrap_or_default();
    if text.len() <= 2 * N && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        let text = format!("{text:0>width$}", width = N * 2);
        return std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hex"));
    }
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bits = 0u32;
    let mut bytes = Vec::new();
    for (i, c) in text.trim_end_matches('=').chars().enumerate() {
        bits = bits << 6 | ALPHABET.find(c).expect("an id in hex or base64") as u32;
        if i % 4 > 0 {
            bytes.push((bits >> (6 - 2 * (i % 4))) as u8);
        }
    }
    bytes.try_into().expect("an id of the right length")
}

fn attributes(v: &Value) -> Vec<KeyValue> {
    items(v)
        .map(|a| KeyValue {
            key: text(&a["key"]),
            value: any_value(&a["value"]),
        })
        .collect()
}

fn any_value(v: &Value) -> AnyValue {
    let Some((kind, v)) = v.as_object().and_then(|o| o.iter().next()) else {
        return AnyValue::Empty;
    };
    match kind.as_str() {
        "stringValue" => AnyValue::String(text(v)),
        "boolValue" => AnyValue::Bool(v.as_bool().expect("a bool")),
        "intValue" => AnyValue::Int(number(v) as i64),
        "doubleValue" => AnyValue::Double(v.as_f64().or_else(|| v.as_str()?.parse().ok()).expect("a double")),
        "arrayValue" => AnyValue::Array(items(&v["values"]).map(any_value).collect()),
        "kvlistValue" => AnyValue::KvList(attributes(&v["values"])),
        // Base64 as text keeps what the tests compare.
        "bytesValue" => AnyValue::Bytes(text(v).into_bytes()),
        other => panic!("value of kind {other}"),
    }
}
