//! Attribute values as label values: plain scalars as they are, lists and maps as JSON.
//!
//! The text is the one of the collector's `pcommon.Value.AsString`: numbers in JavaScript's form, map keys sorted, `<`,
//! `>` and `&` not escaped.

use std::borrow::Cow;
use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use trilith_model::{Error, Result};

use crate::otlp_traces::VALUE_DEPTH_MAX;
use crate::wire::Fields;

/// The text of an `AnyValue` message; empty for the empty value.
///
/// # Errors
/// `Invalid` for bytes that are no `AnyValue`, text that is not UTF-8, or too deep nesting.
pub fn text<'a>(fields: Fields<'a>) -> Result<Cow<'a, str>> {
    Ok(match Value::read(fields)? {
        Value::Empty => Cow::Borrowed(""),
        Value::Text(t) => Cow::Borrowed(t),
        Value::Bool(true) => Cow::Borrowed("true"),
        Value::Bool(false) => Cow::Borrowed("false"),
        Value::Int(n) => Cow::Owned(n.to_string()),
        Value::Double(x) if x.is_finite() => Cow::Owned(number(x)),
        Value::Double(x) => Cow::Owned(format!("json: unsupported value: {}", non_finite(x))),
        Value::Bytes(b) => Cow::Owned(BASE64.encode(b)),
        value => {
            let mut out = String::new();
            // A list with an infinite number in it has no JSON; upstream's encoder then gives nothing.
            if write_json(&mut out, value, 0)? {
                Cow::Owned(out)
            } else {
                Cow::Borrowed("")
            }
        }
    })
}

#[derive(Clone, Copy)]
enum Value<'a> {
    Empty,
    Text(&'a str),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(&'a [u8]),
    /// `ArrayValue`
    List(Fields<'a>),
    /// `KeyValueList`
    Map(Fields<'a>),
}

impl<'a> Value<'a> {
    fn read(mut fields: Fields<'a>) -> Result<Self> {
        let mut out = Value::Empty;
        while let Some(field) = fields.next()? {
            out = match field.number {
                1 => Value::Text(field.text("AnyValue.StringValue")?),
                2 => Value::Bool(field.varint("BoolValue")? != 0),
                3 => Value::Int(field.varint("IntValue")? as i64),
                4 => Value::Double(f64::from_bits(field.fixed64("DoubleValue")?)),
                5 => Value::List(field.message("ArrayValue", "ArrayValue")?),
                6 => Value::Map(field.message("KvlistValue", "KeyValueList")?),
                7 => Value::Bytes(field.bytes("BytesValue")?),
                _ => continue,
            };
        }
        Ok(out)
    }
}

/// A `KeyValue` message: the key and the message of its value, if there is one.
///
/// # Errors
/// `Invalid` for bytes that are no `KeyValue`.
pub fn key_value<'a>(mut fields: Fields<'a>) -> Result<(&'a str, Option<Fields<'a>>)> {
    let (mut key, mut value) = ("", None);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => key = field.text("KeyValue.Key")?,
            2 => value = Some(field.message("Value", "AnyValue")?),
            _ => {}
        }
    }
    Ok((key, value))
}

/// False when the value has no JSON form.
fn write_json(out: &mut String, value: Value<'_>, depth: usize) -> Result<bool> {
    match value {
        Value::Empty => out.push_str("null"),
        Value::Text(t) => quote(out, t),
        Value::Bool(b) => out.push_str(if b { "true" } else { "false" }),
        Value::Int(n) => {
            let _ = write!(out, "{n}");
        }
        Value::Double(x) if x.is_finite() => out.push_str(&number(x)),
        Value::Double(_) => return Ok(false),
        Value::Bytes(b) => {
            out.push('"');
            BASE64.encode_string(b, out);
            out.push('"');
        }
        Value::List(mut fields) => {
            let depth = deeper(depth)?;
            out.push('[');
            let mut first = true;
            while let Some(field) = fields.next()? {
                if field.number != 1 {
                    continue;
                }
                if !std::mem::take(&mut first) {
                    out.push(',');
                }
                let inner = Value::read(field.message("Values", "AnyValue")?)?;
                if !write_json(out, inner, depth)? {
                    return Ok(false);
                }
            }
            out.push(']');
        }
        Value::Map(mut fields) => {
            let depth = deeper(depth)?;
            // At most one entry per two bytes of the body; sixteen times that is the whole cost.
            let mut entries = std::collections::BTreeMap::new();
            while let Some(field) = fields.next()? {
                if field.number == 1 {
                    let (key, value) = key_value(field.message("Values", "KeyValue")?)?;
                    entries.insert(key, value);
                }
            }
            out.push('{');
            for (i, (key, value)) in entries.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                quote(out, key);
                out.push(':');
                let inner = value.map_or(Ok(Value::Empty), Value::read)?;
                if !write_json(out, inner, depth)? {
                    return Ok(false);
                }
            }
            out.push('}');
        }
    }
    Ok(true)
}

fn deeper(depth: usize) -> Result<usize> {
    if depth < VALUE_DEPTH_MAX {
        return Ok(depth + 1);
    }
    Err(Error::invalid(format!(
        "attribute values are nested deeper than {VALUE_DEPTH_MAX} levels"
    )))
}

fn non_finite(x: f64) -> &'static str {
    if x.is_nan() {
        "NaN"
    } else if x > 0.0 {
        "+Inf"
    } else {
        "-Inf"
    }
}

/// The shortest digits, with an exponent below 10⁻⁶ and from 10²¹ on.
fn number(x: f64) -> String {
    let size = x.abs();
    if size == 0.0 || (1e-6..1e21).contains(&size) {
        return format!("{x}");
    }
    let text = format!("{x:e}");
    // Rust writes 1e21, JavaScript 1e+21.
    match text.split_once('e') {
        Some((digits, exponent)) if !exponent.starts_with('-') => format!("{digits}e+{exponent}"),
        _ => text,
    }
}

/// A Go `float64` in the form `'f'` with the fewest digits, as label values of bounds and quantiles have it.
pub fn plain_number(x: f64) -> String {
    if x.is_finite() {
        format!("{x}")
    } else {
        non_finite(x).to_owned()
    }
}

fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || matches!(c, '\u{2028}' | '\u{2029}') => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
