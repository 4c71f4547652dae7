//! Filters on column batches: which rows match, and what a row's fields print as.
//!
//! Rules that surprise (contract §4.2): a comparison with a missing attribute is false, `!=` included; so is one of different
//! types; integers, floats and durations compare across; an array matches a positive comparison with any element and a
//! negative one with all; several events match with any of them.

use std::cmp::Ordering;
use std::fmt::Write as _;

use arrow::array::{Array, AsArray, FixedSizeBinaryArray, Int32Array, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{Int32Type, UInt64Type};
use hashbrown::HashMap;
use trilith_model::trace::AnyValue;
use trilith_model::{Error, Result};
use trilith_query::attribute_text::{Element, Scalar, parse_array};
use trilith_query::{AttributeScope, Intrinsic, Operand, Predicate, PredicateOp};

use crate::ast::{Expr, Field, Literal, Op};

pub const KINDS: [&str; 6] = ["unspecified", "internal", "server", "client", "producer", "consumer"];
pub const STATUSES: [&str; 3] = ["unset", "ok", "error"];

/// A field's value on one row.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Missing,
    String(String),
    Int(i64),
    /// Times and durations, which do not fit an `i64`.
    Uint(u64),
    Float(f64),
    Bool(bool),
    Status(i32),
    Kind(i32),
    Array(Vec<Element>),
    /// Of several events or links.
    Many(Vec<Element>),
    /// Bytes, key-value lists, empty values: nothing compares with them, but they are there.
    Opaque,
}

enum Column<'a> {
    Text(&'a StringArray),
    Typed {
        text: &'a StringArray,
        kind: &'a StringArray,
    },
    Ids(&'a FixedSizeBinaryArray),
    I32(&'a Int32Array),
    U64(&'a UInt64Array),
}

/// The fields of a query in one batch.
pub struct Columns<'a> {
    columns: HashMap<&'a Field, Column<'a>>,
}

fn missing(name: &str) -> Error {
    Error::internal(format!("column {name} is missing or of another type"))
}

impl<'a> Columns<'a> {
    /// # Errors
    /// `Internal` when the batch has not the columns that were asked for.
    pub fn new(batch: &'a RecordBatch, fields: impl IntoIterator<Item = &'a Field>) -> Result<Self> {
        let mut columns = HashMap::new();
        for field in fields {
            let name = field.column().column_name();
            let get = |name: &str| batch.column_by_name(name).ok_or_else(|| missing(name));
            let array = get(&name)?;
            let column = match field {
                Field::Attribute(..) => {
                    let kind = get(&format!("{name}#type"))?;
                    array
                        .as_string_opt()
                        .zip(kind.as_string_opt())
                        .map(|(text, kind)| Column::Typed { text, kind })
                }
                Field::Intrinsic(i) => match i {
                    Intrinsic::TraceId | Intrinsic::SpanId | Intrinsic::ParentSpanId => {
                        array.as_fixed_size_binary_opt().map(Column::Ids)
                    }
                    Intrinsic::Kind | Intrinsic::Status => array.as_primitive_opt::<Int32Type>().map(Column::I32),
                    Intrinsic::Start | Intrinsic::Duration | Intrinsic::TraceStart | Intrinsic::TraceDuration => {
                        array.as_primitive_opt::<UInt64Type>().map(Column::U64)
                    }
                    _ => array.as_string_opt().map(Column::Text),
                },
            };
            columns.insert(field, column.ok_or_else(|| missing(&name))?);
        }
        Ok(Columns { columns })
    }

    fn value(&self, field: &Field, row: usize) -> Value {
        match (self.columns.get(field), field) {
            (Some(Column::Typed { text, kind }), _) if text.is_valid(row) => typed(text.value(row), kind.value(row)),
            (Some(Column::Text(a)), Field::Intrinsic(Intrinsic::EventNames)) if a.is_valid(row) => {
                parse_array(a.value(row)).map_or(Value::Opaque, Value::Many)
            }
            (Some(Column::Text(a)), _) if a.is_valid(row) => Value::String(a.value(row).to_owned()),
            // Without a root the root's name and service are empty.
            (Some(Column::Text(_)), Field::Intrinsic(Intrinsic::RootName | Intrinsic::RootServiceName)) => {
                Value::String(String::new())
            }
            (Some(Column::Ids(a)), field) => {
                let hex = hex(a.value(row));
                if *field == Field::Intrinsic(Intrinsic::TraceId) {
                    Value::String(hex.trim_start_matches('0').to_owned())
                } else {
                    Value::String(hex)
                }
            }
            (Some(Column::I32(a)), Field::Intrinsic(Intrinsic::Kind)) => Value::Kind(a.value(row)),
            (Some(Column::I32(a)), _) => Value::Status(a.value(row)),
            (Some(Column::U64(a)), _) => Value::Uint(a.value(row)),
            _ => Value::Missing,
        }
    }

    /// Whether the filter keeps the row.
    pub fn matches(&self, filter: &Expr, row: usize) -> bool {
        match filter {
            Expr::Literal(Literal::Bool(b)) => *b,
            Expr::Literal(_) => false,
            Expr::Field(f) => self.value(f, row) == Value::Bool(true),
            Expr::Not(inner) => match &**inner {
                // `!x` of what is missing or no bool is false, not the opposite of false.
                Expr::Field(f) => self.value(f, row) == Value::Bool(false),
                inner => !self.matches(inner, row),
            },
            Expr::Binary(Op::And, l, r) => self.matches(l, row) && self.matches(r, row),
            Expr::Binary(Op::Or, l, r) => self.matches(l, row) || self.matches(r, row),
            Expr::Binary(op, l, r) => self.compare(op, l, r, row),
        }
    }

    fn compare(&self, op: &Op, left: &Expr, right: &Expr, row: usize) -> bool {
        let nil = |e: &Expr| matches!(e, Expr::Literal(Literal::Nil));
        match (nil(left), nil(right)) {
            (true, true) => return false,
            (true, false) | (false, true) => {
                let other = self.operand(if nil(left) { right } else { left }, row);
                return (other == Value::Missing) == matches!(op, Op::Eq);
            }
            (false, false) => {}
        }
        let (mut l, mut r) = (self.operand(left, row), self.operand(right, row));
        // Ids are compared in the form they are printed in.
        normalise_id(left, &mut r);
        normalise_id(right, &mut l);
        compare_values(op, &l, &r)
    }

    fn operand(&self, e: &Expr, row: usize) -> Value {
        match e {
            Expr::Literal(l) => match l {
                Literal::String(s) => Value::String(s.clone()),
                Literal::Int(i) | Literal::Duration(i) => Value::Int(*i),
                Literal::Float(f) => Value::Float(*f),
                Literal::Bool(b) => Value::Bool(*b),
                Literal::Status(s) => Value::Status(*s),
                Literal::Kind(k) => Value::Kind(*k),
                Literal::Nil => Value::Missing,
            },
            Expr::Field(f) => self.value(f, row),
            other => Value::Bool(self.matches(other, row)),
        }
    }

    /// What a search result shows of the field; `None` when it is missing.
    pub fn shown(&self, field: &Field, row: usize) -> Option<AnyValue> {
        Some(match self.value(field, row) {
            Value::Missing => return None,
            Value::String(s) => AnyValue::String(s),
            Value::Int(i) => AnyValue::Int(i),
            Value::Uint(n) => AnyValue::String(go_duration(n)),
            Value::Float(f) => AnyValue::Double(f),
            Value::Bool(b) => AnyValue::Bool(b),
            Value::Status(s) => AnyValue::String(word(&STATUSES, s)),
            Value::Kind(k) => AnyValue::String(word(&KINDS, k)),
            Value::Array(elements) | Value::Many(elements) => {
                AnyValue::Array(elements.into_iter().map(shown).collect())
            }
            Value::Opaque => match self.columns.get(field) {
                Some(Column::Typed { text, .. }) => AnyValue::String(text.value(row).to_owned()),
                _ => return None,
            },
        })
    }

    /// Id bytes of an id column.
    pub fn id(&self, field: &Field, row: usize) -> &'a [u8] {
        match self.columns.get(field) {
            Some(Column::Ids(a)) => a.value(row),
            _ => &[],
        }
    }

    pub fn u64(&self, field: &Field, row: usize) -> u64 {
        match self.columns.get(field) {
            Some(Column::U64(a)) => a.value(row),
            _ => 0,
        }
    }

    pub fn i32(&self, field: &Field, row: usize) -> i32 {
        match self.columns.get(field) {
            Some(Column::I32(a)) => a.value(row),
            _ => 0,
        }
    }

    /// Text of a Utf8 or attribute column; `None` when null or, for an attribute, empty of scalars.
    pub fn text(&self, field: &Field, row: usize) -> Option<&'a str> {
        match self.columns.get(field) {
            Some(Column::Text(a) | Column::Typed { text: a, .. }) if a.is_valid(row) => Some(a.value(row)),
            _ => None,
        }
    }
}

fn word(words: &[&str], n: i32) -> String {
    usize::try_from(n)
        .ok()
        .and_then(|n| words.get(n))
        .map_or_else(|| n.to_string(), |w| (*w).to_owned())
}

fn shown(e: Element) -> AnyValue {
    match e {
        Element::Scalar(Scalar::String(s)) => AnyValue::String(s),
        Element::Scalar(Scalar::Int(i)) => AnyValue::Int(i),
        Element::Scalar(Scalar::Float(f)) => AnyValue::Double(f),
        Element::Scalar(Scalar::Bool(b)) => AnyValue::Bool(b),
        Element::Array(elements) => AnyValue::Array(elements.into_iter().map(shown).collect()),
        Element::Opaque => AnyValue::Empty,
    }
}

/// An attribute cell. Arrays that are not of one scalar type cannot be compared.
fn typed(text: &str, kind: &str) -> Value {
    let number = |v: Option<Value>| v.unwrap_or(Value::Opaque);
    match kind {
        "string" => Value::String(text.to_owned()),
        "int" => number(text.parse().ok().map(Value::Int)),
        "float" => number(text.parse().ok().map(Value::Float)),
        "bool" => Value::Bool(text == "true"),
        "array" => match parse_array(text) {
            Some(elements) if homogeneous(&elements) => Value::Array(elements),
            _ => Value::Opaque,
        },
        "many" => parse_array(text).map_or(Value::Opaque, Value::Many),
        _ => Value::Opaque,
    }
}

fn homogeneous(elements: &[Element]) -> bool {
    let scalars = elements.iter().all(|e| matches!(e, Element::Scalar(_)));
    let kind = |e: &Element| match e {
        Element::Scalar(s) => Some(std::mem::discriminant(s)),
        _ => None,
    };
    scalars && elements.windows(2).all(|w| kind(&w[0]) == kind(&w[1]))
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    bytes.iter().for_each(|b| {
        let _ = write!(out, "{b:02x}");
    });
    out
}

/// A literal beside an id field takes the field's form: span ids padded with zeros, trace ids without leading ones.
fn normalise_id(beside: &Expr, value: &mut Value) {
    let (Expr::Field(Field::Intrinsic(i)), Value::String(s)) = (beside, value) else {
        return;
    };
    match i {
        Intrinsic::SpanId | Intrinsic::ParentSpanId => *s = format!("{s:0>16}"),
        Intrinsic::TraceId => *s = s.trim_start_matches('0').to_owned(),
        _ => {}
    }
}

fn compare_values(op: &Op, l: &Value, r: &Value) -> bool {
    let negative = matches!(op, Op::Ne | Op::NotRe(_));
    match (l, r) {
        (Value::Many(elements), r) => elements
            .iter()
            .any(|e| element(e).is_some_and(|e| compare_values(op, &e, r))),
        (l, Value::Many(elements)) => elements
            .iter()
            .any(|e| element(e).is_some_and(|e| compare_values(op, l, &e))),
        // Array against array is no comparison.
        (Value::Array(_), Value::Array(_)) => false,
        (Value::Array(elements), r) => {
            let hit = |e: &Element| element(e).is_some_and(|e| compare_values(op, &e, r));
            if *r == Value::Missing {
                false
            } else if negative {
                elements.iter().all(hit)
            } else {
                elements.iter().any(hit)
            }
        }
        (l, Value::Array(_)) => compare_values(&op.flipped(), r, l),
        _ => compare_scalars(op, l, r),
    }
}

fn element(e: &Element) -> Option<Value> {
    Some(match e {
        Element::Scalar(Scalar::String(s)) => Value::String(s.clone()),
        Element::Scalar(Scalar::Int(i)) => Value::Int(*i),
        Element::Scalar(Scalar::Float(f)) => Value::Float(*f),
        Element::Scalar(Scalar::Bool(b)) => Value::Bool(*b),
        // An event's array attribute.
        Element::Array(elements) if homogeneous(elements) => Value::Array(elements.clone()),
        Element::Array(_) | Element::Opaque => return None,
    })
}

fn compare_scalars(op: &Op, l: &Value, r: &Value) -> bool {
    let ordering = match (l, r) {
        (Value::String(l), Value::String(r)) => match op {
            Op::Re(regex) => return regex.is_match(l),
            Op::NotRe(regex) => return !regex.is_match(l),
            _ => Some(l.cmp(r)),
        },
        (Value::Bool(l), Value::Bool(r)) if matches!(op, Op::Eq | Op::Ne) => Some(l.cmp(r)),
        (Value::Status(l), Value::Status(r)) | (Value::Kind(l), Value::Kind(r)) => match op {
            Op::Eq | Op::Ne => Some(l.cmp(r)),
            _ => return false,
        },
        (l, r) => match (exact(l), exact(r)) {
            (Some(l), Some(r)) => Some(l.cmp(&r)),
            _ => match (float(l), float(r)) {
                (Some(l), Some(r)) => l.partial_cmp(&r),
                _ => return false,
            },
        },
    };
    match op {
        Op::Eq => ordering == Some(Ordering::Equal),
        Op::Ne => ordering != Some(Ordering::Equal),
        Op::Lt => ordering == Some(Ordering::Less),
        Op::Le => ordering.is_some_and(Ordering::is_le),
        Op::Gt => ordering == Some(Ordering::Greater),
        Op::Ge => ordering.is_some_and(Ordering::is_ge),
        Op::Re(_) | Op::NotRe(_) | Op::And | Op::Or => false,
    }
}

fn exact(v: &Value) -> Option<i128> {
    match v {
        Value::Int(i) => Some(i128::from(*i)),
        Value::Uint(n) => Some(i128::from(*n)),
        _ => None,
    }
}

fn float(v: &Value) -> Option<f64> {
    match v {
        Value::Int(i) => Some(*i as f64),
        Value::Uint(n) => Some(*n as f64),
        Value::Float(f) => Some(*f),
        _ => None,
    }
}

/// A duration as Go prints it: `1.5s`, `2m0s`, `100ms`.
pub fn go_duration(ns: u64) -> String {
    fn fraction(whole: u64, rest: u64, digits: usize) -> String {
        let text = format!("{whole}.{rest:0digits$}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
    match ns {
        0 => "0s".to_owned(),
        1..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(ns / 1_000, ns % 1_000, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(ns / 1_000_000, ns % 1_000_000, 6)),
        _ => {
            let seconds = ns / 1_000_000_000;
            let rest = fraction(seconds % 60, ns % 1_000_000_000, 9);
            match (seconds / 3600, seconds / 60 % 60) {
                (0, 0) => format!("{rest}s"),
                (0, m) => format!("{m}m{rest}s"),
                (h, m) => format!("{h}h{m}m{rest}s"),
            }
        }
    }
}

/// Fields that the filter reads, in order of appearance, once each.
pub fn fields<'a>(e: &'a Expr, out: &mut Vec<&'a Field>) {
    match e {
        Expr::Literal(_) => {}
        Expr::Field(f) => {
            if !out.contains(&f) {
                out.push(f);
            }
        }
        Expr::Not(inner) => fields(inner, out),
        Expr::Binary(_, l, r) => {
            fields(l, out);
            fields(r, out);
        }
    }
}

/// Conditions for the source to prune by, and whether all of them must hold. They may let too much through, never too
/// little.
pub fn predicates(filter: &Expr) -> (Vec<Predicate>, bool) {
    fn chain<'a>(e: &'a Expr, and: bool, out: &mut Vec<&'a Expr>) {
        match e {
            Expr::Binary(Op::And, l, r) if and => {
                chain(l, and, out);
                chain(r, and, out);
            }
            Expr::Binary(Op::Or, l, r) if !and => {
                chain(l, and, out);
                chain(r, and, out);
            }
            e => out.push(e),
        }
    }
    let mut parts = Vec::new();
    if let Expr::Binary(Op::Or, ..) = filter {
        chain(filter, false, &mut parts);
        // One part that says nothing makes every span one of interest.
        let all: Option<Vec<Predicate>> = parts.into_iter().map(predicate).collect();
        return (all.unwrap_or_default(), false);
    }
    chain(filter, true, &mut parts);
    (parts.into_iter().filter_map(predicate).collect(), true)
}

fn predicate(e: &Expr) -> Option<Predicate> {
    match e {
        Expr::Field(f @ Field::Attribute(..)) => Some(Predicate {
            column: f.column(),
            op: PredicateOp::Eq,
            operand: Operand::Bool(true),
        }),
        Expr::Binary(op, l, r) => match (&**l, &**r) {
            (Expr::Field(f), Expr::Literal(l)) => field_predicate(f, op, l),
            (Expr::Literal(l), Expr::Field(f)) if !matches!(op, Op::Re(_) | Op::NotRe(_)) => {
                field_predicate(f, &op.flipped(), l)
            }
            _ => None,
        },
        _ => None,
    }
}

fn field_predicate(field: &Field, op: &Op, literal: &Literal) -> Option<Predicate> {
    let op = match op {
        Op::Eq => PredicateOp::Eq,
        Op::Ne => PredicateOp::Ne,
        Op::Lt => PredicateOp::Lt,
        Op::Le => PredicateOp::Le,
        Op::Gt => PredicateOp::Gt,
        Op::Ge => PredicateOp::Ge,
        Op::Re(_) => PredicateOp::Re,
        Op::NotRe(_) => PredicateOp::NotRe,
        Op::And | Op::Or => return None,
    };
    let column = field.column();
    let operand = match (field, literal) {
        (Field::Attribute(AttributeScope::Resource, name), Literal::Nil) if name == "service.name" => {
            return None;
        }
        (Field::Attribute(..), Literal::Nil) if op == PredicateOp::Ne => {
            return Some(Predicate {
                column,
                op: PredicateOp::Exists,
                operand: Operand::Bool(true),
            });
        }
        (_, Literal::Nil) => return None,
        (Field::Intrinsic(i @ (Intrinsic::SpanId | Intrinsic::TraceId)), Literal::String(s))
            if op == PredicateOp::Eq =>
        {
            Operand::Bytes(id_bytes(s, if *i == Intrinsic::SpanId { 8 } else { 16 })?)
        }
        (Field::Intrinsic(Intrinsic::SpanId | Intrinsic::TraceId | Intrinsic::ParentSpanId), _) => {
            return None;
        }
        (_, Literal::String(s)) => Operand::String(s.clone()),
        (_, Literal::Int(i) | Literal::Duration(i)) => Operand::Int(*i),
        (_, Literal::Float(f)) => Operand::Float(*f),
        (_, Literal::Bool(b)) => Operand::Bool(*b),
        // An attribute never equals a status or kind.
        (Field::Intrinsic(_), Literal::Status(n) | Literal::Kind(n)) => Operand::Int(i64::from(*n)),
        (Field::Attribute(..), Literal::Status(_) | Literal::Kind(_)) => return None,
    };
    Some(Predicate { column, op, operand })
}

/// Lower-case hex, padded on the left. `None` when no id can look like this.
fn id_bytes(text: &str, len: usize) -> Option<Vec<u8>> {
    if text.len() > len * 2 || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return None;
    }
    let padded = format!("{text:0>width$}", width = len * 2);
    (0..len)
        .map(|i| u8::from_str_radix(&padded[2 * i..2 * i + 2], 16).ok())
        .collect()
}
