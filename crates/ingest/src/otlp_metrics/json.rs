//! OTLP JSON rewritten as protobuf, driven by a table of the messages.
//!
//! As lenient as for traces: enum names and numbers in strings, 64-bit integers as strings or numbers, `"NaN"` and
//! `"Infinity"`, `null` for anything, snake_case keys, ids in hex or base64, unknown keys. What comes out is at most a few
//! times as long as what went in, and nothing else is allocated.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use trilith_codec::{put_bytes, put_uvarint, zigzag};
use trilith_model::{Error, Result};

use crate::otlp_traces::json::{Base64, Double, Id, Number, enum_number};

/// A message: its fields by JSON name.
struct Message(&'static [Field]);

struct Field {
    number: u32,
    /// camelCase; the snake_case form is read as well.
    name: &'static str,
    kind: Kind,
    repeated: bool,
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Bytes,
    Id,
    Bool,
    /// Varint of an unsigned or signed number.
    Unsigned,
    Signed,
    ZigZag,
    Fixed64,
    SignedFixed64,
    Double,
    Temporality,
    Message(&'static Message),
}

const fn one(number: u32, name: &'static str, kind: Kind) -> Field {
    Field {
        number,
        name,
        kind,
        repeated: false,
    }
}

const fn many(number: u32, name: &'static str, kind: Kind) -> Field {
    Field {
        number,
        name,
        kind,
        repeated: true,
    }
}

static REQUEST: Message = Message(&[many(1, "resourceMetrics", Kind::Message(&RESOURCE_METRICS))]);
static RESOURCE_METRICS: Message = Message(&[
    one(1, "resource", Kind::Message(&RESOURCE)),
    many(2, "scopeMetrics", Kind::Message(&SCOPE_METRICS)),
    one(3, "schemaUrl", Kind::Text),
]);
static RESOURCE: Message = Message(&[many(1, "attributes", Kind::Message(&KEY_VALUE))]);
static SCOPE_METRICS: Message = Message(&[
    one(1, "scope", Kind::Message(&SCOPE)),
    many(2, "metrics", Kind::Message(&METRIC)),
    one(3, "schemaUrl", Kind::Text),
]);
static SCOPE: Message = Message(&[
    one(1, "name", Kind::Text),
    one(2, "version", Kind::Text),
    many(3, "attributes", Kind::Message(&KEY_VALUE)),
]);
static METRIC: Message = Message(&[
    one(1, "name", Kind::Text),
    one(2, "description", Kind::Text),
    one(3, "unit", Kind::Text),
    one(5, "gauge", Kind::Message(&GAUGE)),
    one(7, "sum", Kind::Message(&SUM)),
    one(9, "histogram", Kind::Message(&HISTOGRAM)),
    one(10, "exponentialHistogram", Kind::Message(&EXPONENTIAL)),
    one(11, "summary", Kind::Message(&SUMMARY)),
]);
static GAUGE: Message = Message(&[many(1, "dataPoints", Kind::Message(&NUMBER_POINT))]);
static SUM: Message = Message(&[
    many(1, "dataPoints", Kind::Message(&NUMBER_POINT)),
    one(2, "aggregationTemporality", Kind::Temporality),
    one(3, "isMonotonic", Kind::Bool),
]);
static HISTOGRAM: Message = Message(&[
    many(1, "dataPoints", Kind::Message(&HISTOGRAM_POINT)),
    one(2, "aggregationTemporality", Kind::Temporality),
]);
static EXPONENTIAL: Message = Message(&[
    many(1, "dataPoints", Kind::Message(&EXPONENTIAL_POINT)),
    one(2, "aggregationTemporality", Kind::Temporality),
]);
static SUMMARY: Message = Message(&[many(1, "dataPoints", Kind::Message(&SUMMARY_POINT))]);
static NUMBER_POINT: Message = Message(&[
    one(2, "startTimeUnixNano", Kind::Fixed64),
    one(3, "timeUnixNano", Kind::Fixed64),
    one(4, "asDouble", Kind::Double),
    many(5, "exemplars", Kind::Message(&EXEMPLAR)),
    one(6, "asInt", Kind::SignedFixed64),
    many(7, "attributes", Kind::Message(&KEY_VALUE)),
    one(8, "flags", Kind::Unsigned),
]);
static HISTOGRAM_POINT: Message = Message(&[
    one(2, "startTimeUnixNano", Kind::Fixed64),
    one(3, "timeUnixNano", Kind::Fixed64),
    one(4, "count", Kind::Fixed64),
    one(5, "sum", Kind::Double),
    many(6, "bucketCounts", Kind::Fixed64),
    many(7, "explicitBounds", Kind::Double),
    many(8, "exemplars", Kind::Message(&EXEMPLAR)),
    many(9, "attributes", Kind::Message(&KEY_VALUE)),
    one(10, "flags", Kind::Unsigned),
]);
static EXPONENTIAL_POINT: Message = Message(&[
    many(1, "attributes", Kind::Message(&KEY_VALUE)),
    one(2, "startTimeUnixNano", Kind::Fixed64),
    one(3, "timeUnixNano", Kind::Fixed64),
    one(4, "count", Kind::Fixed64),
    one(5, "sum", Kind::Double),
    one(6, "scale", Kind::ZigZag),
    one(7, "zeroCount", Kind::Fixed64),
    one(8, "positive", Kind::Message(&BUCKETS)),
    one(9, "negative", Kind::Message(&BUCKETS)),
    one(10, "flags", Kind::Unsigned),
    many(11, "exemplars", Kind::Message(&EXEMPLAR)),
    one(14, "zeroThreshold", Kind::Double),
]);
static BUCKETS: Message = Message(&[one(1, "offset", Kind::ZigZag), many(2, "bucketCounts", Kind::Unsigned)]);
static SUMMARY_POINT: Message = Message(&[
    one(2, "startTimeUnixNano", Kind::Fixed64),
    one(3, "timeUnixNano", Kind::Fixed64),
    one(4, "count", Kind::Fixed64),
    one(5, "sum", Kind::Double),
    many(6, "quantileValues", Kind::Message(&QUANTILE)),
    many(7, "attributes", Kind::Message(&KEY_VALUE)),
    one(8, "flags", Kind::Unsigned),
]);
static QUANTILE: Message = Message(&[one(1, "quantile", Kind::Double), one(2, "value", Kind::Double)]);
static EXEMPLAR: Message = Message(&[
    one(2, "timeUnixNano", Kind::Fixed64),
    one(3, "asDouble", Kind::Double),
    one(4, "spanId", Kind::Id),
    one(5, "traceId", Kind::Id),
    one(6, "asInt", Kind::SignedFixed64),
    many(7, "filteredAttributes", Kind::Message(&KEY_VALUE)),
]);
static KEY_VALUE: Message = Message(&[one(1, "key", Kind::Text), one(2, "value", Kind::Message(&ANY_VALUE))]);
static ANY_VALUE: Message = Message(&[
    one(1, "stringValue", Kind::Text),
    one(2, "boolValue", Kind::Bool),
    one(3, "intValue", Kind::Signed),
    one(4, "doubleValue", Kind::Double),
    one(5, "arrayValue", Kind::Message(&ARRAY_VALUE)),
    one(6, "kvlistValue", Kind::Message(&KEY_VALUE_LIST)),
    one(7, "bytesValue", Kind::Bytes),
]);
static ARRAY_VALUE: Message = Message(&[many(1, "values", Kind::Message(&ANY_VALUE))]);
static KEY_VALUE_LIST: Message = Message(&[many(1, "values", Kind::Message(&KEY_VALUE))]);

/// An `ExportMetricsServiceRequest` in JSON as the same in protobuf.
///
/// # Errors
/// `Invalid` for text that is not the JSON of such a message.
pub fn to_protobuf(raw: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(raw.len() / 2);
    let mut text = serde_json::Deserializer::from_slice(raw);
    let seed = Body {
        message: &REQUEST,
        out: &mut out,
    };
    let read = seed.deserialize(&mut text).and_then(|_| text.end());
    read.map_err(|e| Error::invalid(format!("invalid OTLP JSON: {e}")))?;
    Ok(out)
}

/// Whether `key` is the camelCase name or its snake_case form.
fn is_name(key: &str, name: &str) -> bool {
    if key == name {
        return true;
    }
    let mut key = key.bytes();
    for c in name.bytes() {
        if c.is_ascii_uppercase() && key.next() != Some(b'_') {
            return false;
        }
        if key.next() != Some(c.to_ascii_lowercase()) {
            return false;
        }
    }
    key.next().is_none()
}

const LENGTH: u32 = 2;

fn put_tag(out: &mut Vec<u8>, number: u32, wire_type: u32) {
    put_uvarint(out, u64::from(number << 3 | wire_type));
}

/// The fields of a message; false for `null`.
struct Body<'o> {
    message: &'static Message,
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Body<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> std::result::Result<bool, D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Body<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> std::result::Result<bool, E> {
        Ok(false)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<bool, A::Error> {
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match self.message.0.iter().find(|f| is_name(&key, f.name)) {
                Some(field) if field.repeated => map.next_value_seed(List { field, out: self.out })?,
                Some(field) => map.next_value_seed(Item { field, out: self.out })?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(true)
    }
}

/// A repeated field.
struct List<'o> {
    field: &'static Field,
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> std::result::Result<(), D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_unit<E>(self) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<(), A::Error> {
        let field = self.field;
        while seq.next_element_seed(Item { field, out: self.out })?.is_some() {}
        Ok(())
    }
}

/// A value with its tag. `null` is no value, but in a list of messages an empty one.
struct Item<'o> {
    field: &'static Field,
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Item<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> std::result::Result<(), D::Error> {
        let (out, number) = (self.out, self.field.number);
        let varint = |out: &mut Vec<u8>, n: u64| {
            put_tag(out, number, 0);
            put_uvarint(out, n);
        };
        let fixed = |out: &mut Vec<u8>, n: u64| {
            put_tag(out, number, 1);
            out.extend_from_slice(&n.to_le_bytes());
        };
        let bytes = |out: &mut Vec<u8>, b: &[u8]| {
            put_tag(out, number, LENGTH);
            put_bytes(out, b);
        };
        match self.field.kind {
            Kind::Text => {
                if let Some(text) = Option::<std::borrow::Cow<'de, str>>::deserialize(d)? {
                    bytes(out, text.as_bytes());
                }
            }
            Kind::Bytes => {
                if let Some(Base64(b)) = Option::deserialize(d)? {
                    bytes(out, &b);
                }
            }
            Kind::Id => bytes(out, &Id::deserialize(d)?.0),
            Kind::Bool => {
                if let Some(b) = Option::<bool>::deserialize(d)? {
                    varint(out, b.into());
                }
            }
            Kind::Unsigned => {
                if let Some(Number::<u64>(n)) = Option::deserialize(d)? {
                    varint(out, n);
                }
            }
            Kind::Signed => {
                if let Some(Number::<i64>(n)) = Option::deserialize(d)? {
                    varint(out, n as u64);
                }
            }
            Kind::ZigZag => {
                if let Some(Number::<i32>(n)) = Option::deserialize(d)? {
                    varint(out, zigzag(n.into()));
                }
            }
            Kind::Fixed64 => {
                if let Some(Number::<u64>(n)) = Option::deserialize(d)? {
                    fixed(out, n);
                }
            }
            Kind::SignedFixed64 => {
                if let Some(Number::<i64>(n)) = Option::deserialize(d)? {
                    fixed(out, n as u64);
                }
            }
            Kind::Double => {
                if let Some(Double(x)) = Option::deserialize(d)? {
                    fixed(out, x.to_bits());
                }
            }
            Kind::Temporality => {
                let n = enum_number(d, "AGGREGATION_TEMPORALITY_", &["UNSPECIFIED", "DELTA", "CUMULATIVE"])?;
                varint(out, n as u64);
            }
            Kind::Message(message) => {
                let mark = out.len();
                put_tag(out, number, LENGTH);
                // The length is not known yet: five bytes hold any, with leading zeros, and nothing has to be moved.
                let at = out.len();
                out.extend_from_slice(&[0; 5]);
                let present = Body { message, out }.deserialize(d)?;
                let len = out.len() - at - 5;
                if !present && !self.field.repeated {
                    out.truncate(mark);
                    return Ok(());
                }
                for i in 0..5 {
                    let more = if i < 4 { 0x80 } else { 0 };
                    out[at + i] = ((len >> (7 * i)) & 0x7f) as u8 | more;
                }
            }
        }
        Ok(())
    }
}
