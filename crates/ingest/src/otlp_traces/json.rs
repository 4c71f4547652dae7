//! OTLP JSON, read as leniently as its senders write it.
//!
//! Accepted besides the plain form: enum names and numbers in strings, 64-bit integers as strings or numbers,
//! `"NaN"` and `"Infinity"`, `null` for anything, snake_case keys, ids in hex of either case or in base64 (Tempo's own
//! answers), `batches` for `resourceSpans`, unknown keys. The types here mirror the messages; nothing else sees them.
//!
//! Lists charge a budget: `{}` is two bytes and becomes a struct of hundreds. serde gives a derived type no place for
//! state, so the budget of the body that is read on this thread stands in a thread-local for the time of the call.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use trilith_model::trace::{AnyValue, Event, KeyValue, Link, Resource, ResourceSpans, Scope, ScopeSpans, Span, Status};
use trilith_model::{Error, Result, TraceBatch};

use super::{collect, link_ids, span_ids};
use crate::body::Budget;

thread_local! {
    static BUDGET: RefCell<Option<Budget>> = const { RefCell::new(None) };
    /// The error behind serde's error, with its own kind.
    static FAILED: RefCell<Option<Error>> = const { RefCell::new(None) };
}

pub(super) fn decode(raw: &[u8]) -> Result<TraceBatch> {
    BUDGET.with_borrow_mut(|b| *b = Some(Budget::for_body(raw.len())));
    FAILED.with_borrow_mut(|e| *e = None);
    let read = serde_json::from_slice::<Object<JRequest>>(raw);
    BUDGET.with_borrow_mut(|b| *b = None);
    if let Some(e) = FAILED.with_borrow_mut(Option::take) {
        return Err(e);
    }
    let Object(request) = read.map_err(|e| Error::invalid(format!("invalid OTLP JSON: {e}")))?;
    Ok(TraceBatch {
        resource_spans: collect(request.resource_spans, resource_spans)?,
    })
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct JRequest {
    #[serde(alias = "resource_spans", alias = "batches", deserialize_with = "list")]
    resource_spans: Vec<JResourceSpans>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct JResourceSpans {
    resource: Option<Object<JResource>>,
    #[serde(alias = "scope_spans", deserialize_with = "list")]
    scope_spans: Vec<JScopeSpans>,
    #[serde(alias = "schema_url", deserialize_with = "text")]
    schema_url: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct JResource {
    #[serde(deserialize_with = "list")]
    attributes: Vec<JKeyValue>,
    #[serde(alias = "dropped_attributes_count", deserialize_with = "number")]
    dropped_attributes_count: u32,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct JScopeSpans {
    scope: Option<Object<JScope>>,
    #[serde(deserialize_with = "list")]
    spans: Vec<JSpan>,
    #[serde(alias = "schema_url", deserialize_with = "text")]
    schema_url: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct JScope {
    #[serde(deserialize_with = "text")]
    name: String,
    #[serde(deserialize_with = "text")]
    version: String,
    #[serde(deserialize_with = "list")]
    attributes: Vec<JKeyValue>,
    #[serde(alias = "dropped_attributes_count", deserialize_with = "number")]
    dropped_attributes_count: u32,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct JSpan {
    #[serde(alias = "trace_id")]
    trace_id: Id,
    #[serde(alias = "span_id")]
    span_id: Id,
    #[serde(alias = "trace_state", deserialize_with = "text")]
    trace_state: String,
    #[serde(alias = "parent_span_id")]
    parent_span_id: Id,
    #[serde(deserialize_with = "number")]
    flags: u32,
    #[serde(deserialize_with = "text")]
    name: String,
    #[serde(deserialize_with = "span_kind")]
    kind: i32,
    #[serde(alias = "start_time_unix_nano", deserialize_with = "number")]
    start_time_unix_nano: u64,
    #[serde(alias = "end_time_unix_nano", deserialize_with = "number")]
    end_time_unix_nano: u64,
    #[serde(deserialize_with = "list")]
    attributes: Vec<JKeyValue>,
    #[serde(alias = "dropped_attributes_count", deserialize_with = "number")]
    dropped_attributes_count: u32,
    #[serde(deserialize_with = "list")]
    events: Vec<JEvent>,
    #[serde(alias = "dropped_events_count", deserialize_with = "number")]
    dropped_events_count: u32,
    #[serde(deserialize_with = "list")]
    links: Vec<JLink>,
    #[serde(alias = "dropped_links_count", deserialize_with = "number")]
    dropped_links_count: u32,
    status: Option<Object<JStatus>>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct JEvent {
    #[serde(alias = "time_unix_nano", deserialize_with = "number")]
    time_unix_nano: u64,
    #[serde(deserialize_with = "text")]
    name: String,
    #[serde(deserialize_with = "list")]
    attributes: Vec<JKeyValue>,
    #[serde(alias = "dropped_attributes_count", deserialize_with = "number")]
    dropped_attributes_count: u32,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct JLink {
    #[serde(alias = "trace_id")]
    trace_id: Id,
    #[serde(alias = "span_id")]
    span_id: Id,
    #[serde(alias = "trace_state", deserialize_with = "text")]
    trace_state: String,
    #[serde(deserialize_with = "list")]
    attributes: Vec<JKeyValue>,
    #[serde(alias = "dropped_attributes_count", deserialize_with = "number")]
    dropped_attributes_count: u32,
    #[serde(deserialize_with = "number")]
    flags: u32,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct JStatus {
    #[serde(deserialize_with = "text")]
    message: String,
    #[serde(deserialize_with = "status_code")]
    code: i32,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct JKeyValue {
    #[serde(deserialize_with = "text")]
    key: String,
    value: JAnyValue,
}

/// The model's value itself; an object without a known key is the empty value.
struct JAnyValue(AnyValue);

impl Default for JAnyValue {
    fn default() -> Self {
        JAnyValue(AnyValue::Empty)
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
#[serde(bound = "T: Default + Deserialize<'de>")]
struct JValues<T> {
    #[serde(deserialize_with = "list")]
    values: Vec<T>,
}

impl<'de> Deserialize<'de> for JAnyValue {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = JAnyValue;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an attribute value: an object such as {\"stringValue\":\"…\"}")
            }
            fn visit_unit<E>(self) -> std::result::Result<JAnyValue, E> {
                Ok(JAnyValue::default())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<JAnyValue, A::Error> {
                let mut out = AnyValue::Empty;
                while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                    let value = match &*key {
                        "stringValue" | "string_value" => map.next_value::<Option<String>>()?.map(AnyValue::String),
                        "boolValue" | "bool_value" => map.next_value::<Option<bool>>()?.map(AnyValue::Bool),
                        "intValue" | "int_value" => {
                            map.next_value::<Option<Number<i64>>>()?.map(|n| AnyValue::Int(n.0))
                        }
                        "doubleValue" | "double_value" => {
                            map.next_value::<Option<Double>>()?.map(|x| AnyValue::Double(x.0))
                        }
                        "bytesValue" | "bytes_value" => {
                            map.next_value::<Option<Base64>>()?.map(|b| AnyValue::Bytes(b.0))
                        }
                        "arrayValue" | "array_value" => map
                            .next_value::<Option<Object<JValues<JAnyValue>>>>()?
                            .map(|Object(a)| AnyValue::Array(a.values.into_iter().map(|v| v.0).collect())),
                        "kvlistValue" | "kvlist_value" => map
                            .next_value::<Option<Object<JValues<JKeyValue>>>>()?
                            .map(|Object(l)| AnyValue::KvList(l.values.into_iter().map(key_value).collect())),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            None
                        }
                    };
                    if let Some(value) = value {
                        out = value;
                    }
                }
                Ok(JAnyValue(out))
            }
        }
        d.deserialize_any(V)
    }
}

/// A message. serde's derived types would also read one from a list, field by field; protobuf JSON has no such form.
/// `null` is the empty message.
#[derive(Default)]
struct Object<T>(T);

impl<'de, T: Deserialize<'de> + Default> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct V<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de> + Default> Visitor<'de> for V<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_unit<E>(self) -> std::result::Result<Object<T>, E> {
                Ok(Object::default())
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        d.deserialize_any(V(PhantomData))
    }
}

// ---- into the model ----

fn resource_spans(r: JResourceSpans) -> Result<ResourceSpans> {
    let present = r.resource.is_some();
    let Object(resource) = r.resource.unwrap_or_default();
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

fn scope_spans(s: JScopeSpans) -> Result<ScopeSpans> {
    let present = s.scope.is_some();
    let Object(scope) = s.scope.unwrap_or_default();
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

fn span(s: JSpan) -> Result<Span> {
    let (trace_id, span_id, parent_span_id) = span_ids(&s.trace_id.0, &s.span_id.0, &s.parent_span_id.0, &s.name)?;
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
        status: s.status.map(|Object(s)| Status {
            code: s.code,
            message: s.message,
        }),
    })
}

fn event(e: JEvent) -> Result<Event> {
    Ok(Event {
        time_ns: e.time_unix_nano,
        name: e.name,
        attributes: attributes(e.attributes)?,
        dropped_attributes_count: e.dropped_attributes_count,
    })
}

fn link(l: JLink) -> Result<Link> {
    let (trace_id, span_id) = link_ids(&l.trace_id.0, &l.span_id.0)?;
    Ok(Link {
        trace_id,
        span_id,
        trace_state: l.trace_state,
        attributes: attributes(l.attributes)?,
        dropped_attributes_count: l.dropped_attributes_count,
        flags: l.flags,
    })
}

fn key_value(kv: JKeyValue) -> KeyValue {
    KeyValue {
        key: kv.key,
        value: kv.value.0,
    }
}

/// The depth of values is checked here; serde_json's own limit of 128 levels kept the recursion above it short.
fn attributes(list: Vec<JKeyValue>) -> Result<Vec<KeyValue>> {
    collect(list, |kv| {
        super::check_depth(&kv.value.0, 0)?;
        Ok(key_value(kv))
    })
}

// ---- lenient scalars ----

/// A list that may be `null` and charges the budget for every item.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> std::result::Result<Vec<T>, D::Error> {
    struct V<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de> + Default> Visitor<'de> for V<T> {
        type Value = Vec<T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }
        fn visit_unit<E>(self) -> std::result::Result<Vec<T>, E> {
            Ok(Vec::new())
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Vec<T>, A::Error> {
            let mut out = Vec::new();
            while let Some(Object(item)) = seq.next_element()? {
                let charged = BUDGET.with_borrow_mut(|b| b.as_mut().map_or(Ok(()), Budget::charge::<T>));
                if let Err(e) = charged {
                    let error = A::Error::custom(&e.message);
                    FAILED.with_borrow_mut(|f| *f = Some(e));
                    return Err(error);
                }
                out.push(item);
            }
            Ok(out)
        }
    }
    d.deserialize_any(V(PhantomData))
}

fn text<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<String, D::Error> {
    Ok(Option::<String>::deserialize(d)?.unwrap_or_default())
}

fn number<'de, D: Deserializer<'de>, N: Whole>(d: D) -> std::result::Result<N, D::Error> {
    Ok(Option::<Number<N>>::deserialize(d)?.map_or(N::ZERO, |n| n.0))
}

fn span_kind<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<i32, D::Error> {
    enum_number(
        d,
        "SPAN_KIND_",
        &["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"],
    )
}

fn status_code<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<i32, D::Error> {
    enum_number(d, "STATUS_CODE_", &["UNSET", "OK", "ERROR"])
}

pub(crate) fn enum_number<'de, D: Deserializer<'de>>(
    d: D,
    prefix: &str,
    names: &[&str],
) -> std::result::Result<i32, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum NameOrNumber {
        Number(i32),
        Name(String),
        Null(()),
    }
    let name = match NameOrNumber::deserialize(d)? {
        NameOrNumber::Number(n) => return Ok(n),
        NameOrNumber::Null(()) => return Ok(0),
        NameOrNumber::Name(name) => name,
    };
    let short = name.strip_prefix(prefix).unwrap_or_default();
    if let Some(i) = names.iter().position(|n| *n == short) {
        return Ok(i as i32);
    }
    name.parse()
        .map_err(|_| D::Error::custom(format!("unknown name {:?}", crate::rejections::quoted(&name))))
}

/// Integers as numbers or strings; numbers with an exponent or a zero fraction are integers in proto3 JSON.
pub(crate) struct Number<N>(pub N);

pub(crate) trait Whole: Copy + std::str::FromStr + TryFrom<i128> {
    const ZERO: Self;
}
impl Whole for i32 {
    const ZERO: i32 = 0;
}
impl Whole for u32 {
    const ZERO: u32 = 0;
}
impl Whole for u64 {
    const ZERO: u64 = 0;
}
impl Whole for i64 {
    const ZERO: i64 = 0;
}

impl<'de, N: Whole> Deserialize<'de> for Number<N> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct V<N>(PhantomData<N>);
        impl<N: Whole> V<N> {
            fn fit<E: serde::de::Error>(n: i128) -> std::result::Result<Number<N>, E> {
                let fitted = N::try_from(n).map(Number);
                fitted.map_err(|_| E::custom(format!("number {n} is out of range")))
            }
        }
        impl<N: Whole> Visitor<'_> for V<N> {
            type Value = Number<N>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer or a string with an integer")
            }
            fn visit_u64<E: serde::de::Error>(self, n: u64) -> std::result::Result<Number<N>, E> {
                Self::fit(n.into())
            }
            fn visit_i64<E: serde::de::Error>(self, n: i64) -> std::result::Result<Number<N>, E> {
                Self::fit(n.into())
            }
            fn visit_f64<E: serde::de::Error>(self, x: f64) -> std::result::Result<Number<N>, E> {
                if x.fract() == 0.0 && x.abs() < 1e20 {
                    return Self::fit(x as i128);
                }
                Err(E::custom(format!("number {x} is not an integer in range")))
            }
            fn visit_str<E: serde::de::Error>(self, s: &str) -> std::result::Result<Number<N>, E> {
                if s.is_empty() {
                    return Ok(Number(N::ZERO));
                }
                let parsed = s.parse().map(Number);
                parsed.map_err(|_| E::custom(format!("{:?} is not an integer in range", crate::rejections::quoted(s))))
            }
        }
        d.deserialize_any(V(PhantomData))
    }
}

/// Read from its text: serde_json's own parser may be off by one unit in the last place.
pub(crate) struct Double(pub f64);

impl<'de> Deserialize<'de> for Double {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(d)?.get();
        // Rust's parser reads "NaN", "Infinity" and "-Infinity" as well; other spellings are for it to refuse.
        let text = raw.strip_prefix('"').and_then(|r| r.strip_suffix('"')).unwrap_or(raw);
        match text.parse::<f64>() {
            Ok(x) if x.is_finite() || text.ends_with("Infinity") || text == "NaN" => Ok(Double(x)),
            _ => Err(D::Error::custom(format!(
                "{} is not a number in range",
                crate::rejections::quoted(raw)
            ))),
        }
    }
}

pub(crate) struct Base64(pub Vec<u8>);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        // proto3 JSON allows the URL-safe alphabet, padded or not.
        let plain: String = text
            .trim_end_matches('=')
            .chars()
            .map(|c| match c {
                '-' => '+',
                '_' => '/',
                c => c,
            })
            .collect();
        let decoded = base64::engine::general_purpose::STANDARD_NO_PAD.decode(plain);
        decoded
            .map(Base64)
            .map_err(|e| D::Error::custom(format!("bytesValue is not base64: {e}")))
    }
}

/// An id of any length; its owner checks it.
#[derive(Default)]
pub(crate) struct Id(pub Vec<u8>);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        let Some(text) = Option::<std::borrow::Cow<'de, str>>::deserialize(d)? else {
            return Ok(Id::default());
        };
        // Base64 of 8 or 16 bytes ends with padding, hex never does.
        let decoded = if text.ends_with('=') {
            BASE64.decode(&*text).map_err(|e| e.to_string())
        } else {
            hex::decode(&*text).map_err(|e| e.to_string())
        };
        decoded.map(Id).map_err(|e| {
            let shown = crate::rejections::quoted(&text).into_owned();
            D::Error::custom(format!("id {shown:?} is not hexadecimal: {e}"))
        })
    }
}
