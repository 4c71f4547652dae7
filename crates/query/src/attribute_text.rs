//! Attribute values as text with a type beside it: the form in which [`crate::ColumnRef::Attribute`] columns carry
//! them, in which languages test them and APIs list them.
//!
//! | type | text |
//! |---|---|
//! | `string` | the string itself |
//! | `int` | decimal |
//! | `float` | shortest text that reads back to the same number; `NaN`, `+Inf`, `-Inf` |
//! | `bool` | `true`, `false` |
//! | `array` | JSON array (below) |
//! | `kvlist` | JSON object; of equal keys all are printed |
//! | `bytes` | standard base64 |
//! | `nil` | empty: an attribute that is there without a value |
//! | `many` | JSON array of the values that several events or links have under one name; an array value is one element |
//!
//! In JSON a float always has a point or an exponent, so it is told from an integer; not-a-number and the infinities are
//! bare words `NaN`, `+Inf`, `-Inf`; bytes are `{"bytes":"<base64>"}`.

use std::borrow::Cow;
use std::fmt::Write as _;

use trilith_model::trace::{AnyValue, KeyValue};

/// A value that a language can compare.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    String(String),
    Int(i64),
    Float(f64),
    Bool(bool),
}

/// What stands in an `array` or `many` text.
#[derive(Clone, Debug, PartialEq)]
pub enum Element {
    Scalar(Scalar),
    Array(Vec<Element>),
    /// `null`, objects: nothing a query can look into.
    Opaque,
}

/// Deepest nesting that [`parse_array`] follows.
const DEPTH_MAX: usize = 128;

/// The type column and the text column of a value.
pub fn value_text(value: &AnyValue) -> (&'static str, Cow<'_, str>) {
    match value {
        AnyValue::Empty => ("nil", Cow::Borrowed("")),
        AnyValue::String(s) => ("string", Cow::Borrowed(s)),
        AnyValue::Bool(b) => ("bool", Cow::Borrowed(if *b { "true" } else { "false" })),
        AnyValue::Int(i) => ("int", Cow::Owned(i.to_string())),
        AnyValue::Double(f) => ("float", Cow::Owned(float_text(*f))),
        AnyValue::Bytes(b) => ("bytes", Cow::Owned(base64(b))),
        AnyValue::Array(_) => ("array", Cow::Owned(json(value))),
        AnyValue::KvList(_) => ("kvlist", Cow::Owned(json(value))),
    }
}

/// Shortest text that reads back to the same number, in Go's `%g` form.
pub fn float_text(f: f64) -> String {
    if f.is_nan() {
        return "NaN".to_owned();
    }
    if f.is_infinite() {
        return if f > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let magnitude = f.abs();
    if magnitude != 0.0 && !(1e-4..1e21).contains(&magnitude) {
        let text = format!("{f:e}");
        // Go prints the exponent with a sign and at least two digits.
        if let Some((mantissa, exponent)) = text.split_once('e') {
            let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |d| ('-', d));
            return format!("{mantissa}e{sign}{digits:0>2}");
        }
        return text;
    }
    format!("{f}")
}

fn json(value: &AnyValue) -> String {
    let mut out = String::new();
    put_json(&mut out, value);
    out
}

/// Joins values of several events or links into the `many` form.
pub fn many_text<'a>(values: impl IntoIterator<Item = &'a AnyValue>) -> String {
    let mut out = String::from("[");
    for (i, v) in values.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        put_json(&mut out, v);
    }
    out.push(']');
    out
}

fn put_json(out: &mut String, value: &AnyValue) {
    match value {
        AnyValue::Empty => out.push_str("null"),
        AnyValue::String(s) => put_json_string(out, s),
        AnyValue::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        AnyValue::Int(i) => {
            let _ = write!(out, "{i}");
        }
        AnyValue::Double(f) => {
            let text = float_text(*f);
            out.push_str(&text);
            if f.is_finite() && !text.contains(['.', 'e']) {
                out.push_str(".0");
            }
        }
        AnyValue::Bytes(b) => {
            out.push_str("{\"bytes\":\"");
            out.push_str(&base64(b));
            out.push_str("\"}");
        }
        AnyValue::Array(values) => {
            out.push('[');
            for (i, v) in values.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                put_json(out, v);
            }
            out.push(']');
        }
        AnyValue::KvList(pairs) => {
            out.push('{');
            for (i, KeyValue { key, value }) in pairs.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                put_json_string(out, key);
                out.push(':');
                put_json(out, value);
            }
            out.push('}');
        }
    }
}

fn put_json_string(out: &mut String, s: &str) {
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let n = u32::from(chunk[0]) << 16
            | u32::from(chunk.get(1).copied().unwrap_or(0)) << 8
            | u32::from(chunk.get(2).copied().unwrap_or(0));
        for i in 0..4 {
            if i <= chunk.len() {
                out.push(char::from(ALPHABET[(n >> (18 - 6 * i)) as usize & 63]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

/// Reads an `array` or `many` text. `None` when it is not one.
pub fn parse_array(text: &str) -> Option<Vec<Element>> {
    let mut p = Parser { text, pos: 0 };
    match p.value(0)? {
        Element::Array(elements) if p.pos == text.len() => Some(elements),
        _ => None,
    }
}

struct Parser<'a> {
    text: &'a str,
    pos: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.pos).copied()
    }

    fn eat(&mut self, c: u8) -> bool {
        let hit = self.peek() == Some(c);
        self.pos += usize::from(hit);
        hit
    }

    fn value(&mut self, depth: usize) -> Option<Element> {
        if depth > DEPTH_MAX {
            return None;
        }
        match self.peek()? {
            b'"' => self.string().map(|s| Element::Scalar(Scalar::String(s))),
            b'[' => {
                self.pos += 1;
                let mut out = Vec::new();
                if self.eat(b']') {
                    return Some(Element::Array(out));
                }
                loop {
                    out.push(self.value(depth + 1)?);
                    if self.eat(b']') {
                        return Some(Element::Array(out));
                    }
                    if !self.eat(b',') {
                        return None;
                    }
                }
            }
            b'{' => {
                self.pos += 1;
                if self.eat(b'}') {
                    return Some(Element::Opaque);
                }
                loop {
                    self.string()?;
                    if !self.eat(b':') {
                        return None;
                    }
                    self.value(depth + 1)?;
                    if self.eat(b'}') {
                        return Some(Element::Opaque);
                    }
                    if !self.eat(b',') {
                        return None;
                    }
                }
            }
            _ => {
                let rest = &self.text[self.pos..];
                let word = &rest[..rest.find([',', ']', '}']).unwrap_or(rest.len())];
                self.pos += word.len();
                Some(match word {
                    "null" => Element::Opaque,
                    "true" => Element::Scalar(Scalar::Bool(true)),
                    "false" => Element::Scalar(Scalar::Bool(false)),
                    _ => match word.parse::<i64>() {
                        Ok(i) => Element::Scalar(Scalar::Int(i)),
                        Err(_) => Element::Scalar(Scalar::Float(word.parse().ok()?)),
                    },
                })
            }
        }
    }

    fn string(&mut self) -> Option<String> {
        if !self.eat(b'"') {
            return None;
        }
        let mut out = String::new();
        let mut chars = self.text[self.pos..].char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.pos += at + 1;
                    return Some(out);
                }
                '\\' => match chars.next()?.1 {
                    'n' => out.push('\n'),
                    'r' => out.push('\r'),
                    't' => out.push('\t'),
                    'u' => {
                        let mut code = 0;
                        for _ in 0..4 {
                            code = code * 16 + chars.next()?.1.to_digit(16)?;
                        }
                        out.push(char::from_u32(code)?);
                    }
                    c => out.push(c),
                },
                c => out.push(c),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_read_back_and_look_like_go() {
        for (f, text) in [
            (5.0, "5"),
            (-0.0, "-0"),
            (0.25, "0.25"),
            (1e21, "1e+21"),
            (5e-324, "5e-324"),
            (1e-7, "1e-07"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
            (f64::INFINITY, "+Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(float_text(f), text);
            assert_eq!(text.parse::<f64>().expect("reads back").to_bits(), f.to_bits());
        }
    }

    #[test]
    fn arrays_read_back_with_their_types() {
        let value = AnyValue::Array(vec![
            AnyValue::String("a\"b,]\u{1}\n".into()),
            AnyValue::Int(i64::MIN),
            AnyValue::Double(2.0),
            AnyValue::Double(f64::INFINITY),
            AnyValue::Bool(true),
            AnyValue::Empty,
            AnyValue::Array(vec![]),
            AnyValue::KvList(vec![KeyValue {
                key: "k}".into(),
                value: AnyValue::Bytes(vec![0, 1, 2, 3]),
            }]),
        ]);
        let (kind, text) = value_text(&value);
        assert_eq!(kind, "array");
        assert_eq!(
            parse_array(&text).expect("an array"),
            vec![
                Element::Scalar(Scalar::String("a\"b,]\u{1}\n".into())),
                Element::Scalar(Scalar::Int(i64::MIN)),
                Element::Scalar(Scalar::Float(2.0)),
                Element::Scalar(Scalar::Float(f64::INFINITY)),
                Element::Scalar(Scalar::Bool(true)),
                Element::Opaque,
                Element::Array(vec![]),
                Element::Opaque,
            ]
        );
    }

    #[test]
    fn what_is_no_array_is_refused() {
        for text in [
            "",
            "[",
            "[1",
            "[1,",
            "[\"a]",
            "{}",
            "1",
            "[1]x",
            "[x]",
            "[\"\\u12\"]",
            "[{\"a\"}]",
        ] {
            assert_eq!(parse_array(text), None, "{text:?}");
        }
        assert_eq!(parse_array(&"[".repeat(100_000)), None);
    }

    #[test]
    fn bytes_are_standard_base64() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"\xff\xfe", "//4="),
        ] {
            assert_eq!(base64(bytes), text);
        }
    }
}
