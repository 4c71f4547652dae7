//! Attribute values that are neither text, number nor bool (arrays, key-value lists, byte strings), as the bytes of an OTLP
//! `AnyValue` protobuf message.
//!
//! The same bytes stand in the log, in the head and in the `other` column of a block, so nothing is converted on the way
//! and anybody with the OTLP definitions can read them.

use trilith_codec::{Reader, put_uvarint};
use trilith_model::trace::{AnyValue, KeyValue};
use trilith_model::{Error, Result};

/// Deepest nesting that is stored. OTLP receivers refuse deeper messages than this themselves.
pub const DEPTH_MAX: usize = 128;

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LEN: u64 = 2;
const FIXED32: u64 = 5;

/// Appends the message.
///
/// # Errors
/// `Invalid` when the value is nested deeper than [`DEPTH_MAX`].
pub fn encode(out: &mut Vec<u8>, value: &AnyValue) -> Result<()> {
    put_value(out, value, 0)
}

fn put_value(out: &mut Vec<u8>, value: &AnyValue, depth: usize) -> Result<()> {
    if depth > DEPTH_MAX {
        return Err(Error::invalid(format!(
            "attribute value is nested deeper than {DEPTH_MAX} levels"
        )));
    }
    match value {
        AnyValue::Empty => {}
        AnyValue::String(s) => put_len(out, 1, s.as_bytes()),
        AnyValue::Bool(b) => out.extend_from_slice(&[2 << 3, u8::from(*b)]),
        AnyValue::Int(i) => {
            out.push(3 << 3);
            put_uvarint(out, *i as u64);
        }
        AnyValue::Double(f) => {
            out.push(4 << 3 | FIXED64 as u8);
            out.extend_from_slice(&f.to_bits().to_le_bytes());
        }
        AnyValue::Array(values) => {
            let mut list = Vec::new();
            for v in values {
                let mut item = Vec::new();
                put_value(&mut item, v, depth + 1)?;
                put_len(&mut list, 1, &item);
            }
            put_len(out, 5, &list);
        }
        AnyValue::KvList(pairs) => {
            let mut list = Vec::new();
            for KeyValue { key, value } in pairs {
                let (mut item, mut inner) = (Vec::new(), Vec::new());
                put_len(&mut item, 1, key.as_bytes());
                put_value(&mut inner, value, depth + 1)?;
                put_len(&mut item, 2, &inner);
                put_len(&mut list, 1, &item);
            }
            put_len(out, 6, &list);
        }
        AnyValue::Bytes(b) => put_len(out, 7, b),
    }
    Ok(())
}

fn put_len(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | LEN as u8);
    put_uvarint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads a message; unknown fields are skipped, of several values the last counts.
///
/// # Errors
/// `Corrupt` for anything that is no `AnyValue` or nested too deep.
pub fn decode(bytes: &[u8]) -> Result<AnyValue> {
    get_value(bytes, 0)
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn corrupt(e: impl std::fmt::Display) -> Error {
    Error::corrupt(format!("attribute value: {e}"))
}

fn field<'a>(r: &mut Reader<'a>) -> Result<(u64, Field<'a>)> {
    let tag = r.uvarint().map_err(corrupt)?;
    let value = match tag & 7 {
        VARINT => Field::Number(r.uvarint().map_err(corrupt)?),
        FIXED64 => Field::Number(r.u64().map_err(corrupt)?),
        LEN => Field::Bytes(r.bytes().map_err(corrupt)?),
        FIXED32 => Field::Number(u64::from(r.u32().map_err(corrupt)?)),
        wire => return Err(corrupt(format!("wire type {wire}"))),
    };
    // The wire type stays in the key, so that a known field with a wrong one counts as unknown.
    Ok((tag, value))
}

fn get_value(bytes: &[u8], depth: usize) -> Result<AnyValue> {
    if depth > DEPTH_MAX {
        return Err(corrupt("nested too deep"));
    }
    let mut out = AnyValue::Empty;
    let mut r = Reader::new(bytes);
    while !r.is_empty() {
        let (tag, value) = field(&mut r)?;
        match (tag, value) {
            (0x0a, Field::Bytes(b)) => out = AnyValue::String(text(b)?),
            (0x10, Field::Number(n)) => out = AnyValue::Bool(n != 0),
            (0x18, Field::Number(n)) => out = AnyValue::Int(n as i64),
            (0x21, Field::Number(n)) => out = AnyValue::Double(f64::from_bits(n)),
            (0x2a, Field::Bytes(b)) => {
                let mut values = Vec::new();
                let mut list = Reader::new(b);
                while !list.is_empty() {
                    if let (0x0a, Field::Bytes(item)) = field(&mut list)? {
                        values.push(get_value(item, depth + 1)?);
                    }
                }
                out = AnyValue::Array(values);
            }
            (0x32, Field::Bytes(b)) => {
                let mut pairs = Vec::new();
                let mut list = Reader::new(b);
                while !list.is_empty() {
                    if let (0x0a, Field::Bytes(item)) = field(&mut list)? {
                        pairs.push(get_pair(item, depth)?);
                    }
                }
                out = AnyValue::KvList(pairs);
            }
            (0x3a, Field::Bytes(b)) => out = AnyValue::Bytes(b.to_vec()),
            _ => {}
        }
    }
    Ok(out)
}

fn get_pair(bytes: &[u8], depth: usize) -> Result<KeyValue> {
    let mut out = KeyValue {
        key: String::new(),
        value: AnyValue::Empty,
    };
    let mut r = Reader::new(bytes);
    while !r.is_empty() {
        match field(&mut r)? {
            (0x0a, Field::Bytes(b)) => out.key = text(b)?,
            (0x12, Field::Bytes(b)) => out.value = get_value(b, depth + 1)?,
            _ => {}
        }
    }
    Ok(out)
}

fn text(bytes: &[u8]) -> Result<String> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(corrupt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_with_type_and_order() {
        let value = AnyValue::Array(vec![
            AnyValue::Empty,
            AnyValue::String(String::new()),
            AnyValue::Bool(false),
            AnyValue::Int(-1),
            AnyValue::Double(-0.0),
            AnyValue::Bytes(vec![]),
            AnyValue::Array(vec![]),
            AnyValue::KvList(vec![
                KeyValue {
                    key: "b".into(),
                    value: AnyValue::Int(i64::MAX),
                },
                KeyValue {
                    key: "a".into(),
                    value: AnyValue::Empty,
                },
                KeyValue {
                    key: "b".into(),
                    value: AnyValue::KvList(vec![]),
                },
            ]),
        ]);
        let mut bytes = Vec::new();
        encode(&mut bytes, &value).expect("not deep");
        assert_eq!(
            format!("{:?}", decode(&bytes).expect("own bytes")),
            format!("{value:?}")
        );
    }

    #[test]
    fn too_deep_values_are_refused_both_ways() {
        let mut value = AnyValue::Int(1);
        let mut bytes = vec![0x18, 1];
        for _ in 0..=DEPTH_MAX {
            value = AnyValue::Array(vec![value]);
            let mut list = Vec::new();
            put_len(&mut list, 1, &bytes);
            bytes.clear();
            put_len(&mut bytes, 5, &list);
        }
        assert!(encode(&mut Vec::new(), &value).is_err());
        assert!(decode(&bytes).is_err());
    }
}
