//! Which attributes and which values occur: collected while spans come in, stored with every block, merged with the blocks.
//!
//! They answer tag names and tag values without reading spans, and tell that a block cannot match. Bounded: a column whose
//! values outgrow its share keeps only the fact that it is there, and is then scanned when its values are asked for;
//! names beyond their share make the whole block answer "maybe".

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};
use trilith_codec::{Reader, put_str, put_uvarint, put_varint};
use trilith_model::re2::AnchoredRegex;
use trilith_model::trace::AnyValue;
use trilith_model::{Error, Result};
use trilith_query::attribute_text::float_text;
use trilith_query::span_rows::{RowFilter, str_matches, value_matches};
use trilith_query::{AttributeScope, ColumnRef, Intrinsic, Predicate};

use crate::anyvalue;
use crate::batch::{AttributesRef, Batch, SpanRef, ValueRef};

/// Distinct values kept per column. A service has tens of operations and codes; more is an id.
const VALUES_MAX: usize = 1000;
/// Bytes of them per column.
const VALUE_BYTES_MAX: usize = 32 << 10;
/// Columns; more are someone's ids in attribute names.
const COLUMNS_MAX: usize = 10_000;
/// Bytes of all values and names.
const BYTES_MAX: usize = 8 << 20;

const VERSION: u8 = 1;

/// Groups of columns; the number is part of the format.
const GROUPS: [Group; 6] = [
    Group::Attributes(AttributeScope::Span),
    Group::Attributes(AttributeScope::Resource),
    Group::Attributes(AttributeScope::Event),
    Group::Attributes(AttributeScope::Link),
    Group::Attributes(AttributeScope::Instrumentation),
    Group::Intrinsics,
];
const INTRINSICS: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    Attributes(AttributeScope),
    /// Keys are the column names of the intrinsics below.
    Intrinsics,
}

/// Intrinsics whose values are collected.
const LISTED: [Intrinsic; 5] = [
    Intrinsic::Name,
    Intrinsic::StatusMessage,
    Intrinsic::EventNames,
    Intrinsic::InstrumentationName,
    Intrinsic::InstrumentationVersion,
];

fn intrinsic_key(i: Intrinsic) -> String {
    ColumnRef::Intrinsic(i).column_name()
}

type Columns = HashMap<String, Values, foldhash::fast::RandomState>;

#[derive(Clone, Debug, Default)]
pub struct Facts {
    columns: [Columns; 6],
    count: usize,
    bytes: usize,
    /// Some names were left out.
    overflow: bool,
}

/// Distinct values of a column. Once incomplete it stays so and holds none.
#[derive(Clone, Debug, Default)]
struct Values {
    strings: HashSet<Box<str>, foldhash::fast::RandomState>,
    ints: HashSet<i64, foldhash::fast::RandomState>,
    floats: HashSet<u64, foldhash::fast::RandomState>,
    /// Bit 0 false, bit 1 true.
    bools: u8,
    bytes: usize,
    incomplete: bool,
    /// Values that are no scalars were seen: empty, bytes, lists.
    opaque: bool,
}

impl Values {
    fn len(&self) -> usize {
        self.strings.len() + self.ints.len() + self.floats.len()
    }

    fn add(&mut self, value: ValueRef<'_>) -> Result<()> {
        if self.incomplete {
            return Ok(());
        }
        match value {
            ValueRef::String(s) => {
                if !self.strings.contains(s) {
                    self.bytes += s.len();
                    self.strings.insert(s.into());
                }
            }
            ValueRef::Int(i) => {
                self.bytes += usize::from(self.ints.insert(i)) * 8;
            }
            ValueRef::Double(f) => {
                self.bytes += usize::from(self.floats.insert(f.to_bits())) * 8;
            }
            ValueRef::Bool(b) => self.bools |= 1 << u8::from(b),
            ValueRef::Empty => self.opaque = true,
            ValueRef::Other(bytes) => self.add_model(&anyvalue::decode(bytes)?)?,
        }
        if self.len() > VALUES_MAX || self.bytes > VALUE_BYTES_MAX {
            *self = Values {
                incomplete: true,
                ..Values::default()
            };
        }
        Ok(())
    }

    fn add_model(&mut self, value: &AnyValue) -> Result<()> {
        match value {
            AnyValue::String(s) => self.add(ValueRef::String(s)),
            AnyValue::Bool(b) => self.add(ValueRef::Bool(*b)),
            AnyValue::Int(i) => self.add(ValueRef::Int(*i)),
            AnyValue::Double(f) => self.add(ValueRef::Double(*f)),
            AnyValue::Array(values) => {
                // Nothing to list, but there; an empty array even fulfils negative conditions.
                self.opaque |= values.is_empty() || values.iter().any(|v| matches!(v, AnyValue::Array(_)));
                values
                    .iter()
                    .filter(|v| !matches!(v, AnyValue::Array(_)))
                    .try_for_each(|v| self.add_model(v))
            }
            AnyValue::Empty | AnyValue::Bytes(_) | AnyValue::KvList(_) => {
                self.opaque = true;
                Ok(())
            }
        }
    }

    fn merge(&mut self, other: &Values) -> Result<()> {
        if other.incomplete {
            *self = Values {
                incomplete: true,
                ..Values::default()
            };
            return Ok(());
        }
        other.strings.iter().try_for_each(|s| self.add(ValueRef::String(s)))?;
        other.ints.iter().try_for_each(|i| self.add(ValueRef::Int(*i)))?;
        other
            .floats
            .iter()
            .try_for_each(|f| self.add(ValueRef::Double(f64::from_bits(*f))))?;
        if !self.incomplete {
            self.bools |= other.bools;
            self.opaque |= other.opaque;
        }
        Ok(())
    }

    fn may_match(&self, p: &Predicate, regex: Option<&AnchoredRegex>) -> bool {
        self.incomplete
            || self.opaque
            || self.strings.iter().any(|s| str_matches(p, regex, s))
            || self.ints.iter().any(|i| value_matches(p, regex, &AnyValue::Int(*i)))
            || self
                .floats
                .iter()
                .any(|f| value_matches(p, regex, &AnyValue::Double(f64::from_bits(*f))))
            || (self.bools & 1 != 0 && value_matches(p, regex, &AnyValue::Bool(false)))
            || (self.bools & 2 != 0 && value_matches(p, regex, &AnyValue::Bool(true)))
    }

    fn list(&self, out: &mut impl FnMut(&'static str, String)) {
        self.strings.iter().for_each(|s| out("string", s.to_string()));
        self.ints.iter().for_each(|i| out("int", i.to_string()));
        self.floats
            .iter()
            .for_each(|f| out("float", float_text(f64::from_bits(*f))));
        if self.bools & 1 != 0 {
            out("bool", "false".to_owned());
        }
        if self.bools & 2 != 0 {
            out("bool", "true".to_owned());
        }
    }
}

impl Facts {
    /// Approximate heap bytes.
    pub fn bytes(&self) -> usize {
        self.bytes + self.count * 200
    }

    fn column(&mut self, group: usize, key: &str) -> Option<&mut Values> {
        // Two look-ups instead of the entry API: the key is allocated for new columns only.
        if !self.columns[group].contains_key(key) {
            if self.count >= COLUMNS_MAX || self.bytes + key.len() > BYTES_MAX {
                self.overflow = true;
                return None;
            }
            self.count += 1;
            self.bytes += key.len();
            self.columns[group].insert(key.to_owned(), Values::default());
        }
        self.columns[group].get_mut(key)
    }

    fn add(&mut self, group: usize, key: &str, value: ValueRef<'_>) -> Result<()> {
        let full = self.bytes > BYTES_MAX;
        let Some(values) = self.column(group, key) else {
            return Ok(());
        };
        let before = values.bytes;
        if full {
            *values = Values {
                incomplete: true,
                ..Values::default()
            };
        } else {
            values.add(value)?;
        }
        let after = values.bytes;
        self.bytes = self.bytes + after - before;
        Ok(())
    }

    fn add_attributes(&mut self, group: usize, attributes: &AttributesRef<'_>) -> Result<()> {
        for pair in attributes.iter() {
            let (key, value) = pair?;
            self.add(group, key, value)?;
        }
        Ok(())
    }

    /// Adds everything that a push says.
    pub fn add_batch(&mut self, batch: &Batch) -> Result<()> {
        for i in 0..batch.resource_count() {
            let resource = batch.resource(i)?;
            self.add_attributes(1, &resource.attributes)?;
            if resource.attributes.get("service.name")?.is_none() {
                // A missing service name counts as "".
                self.add(1, "service.name", ValueRef::String(""))?;
            }
        }
        for i in 0..batch.scope_count() {
            let scope = batch.scope(i)?;
            self.add_attributes(4, &scope.attributes)?;
            self.add(INTRINSICS, "instrumentation_name", ValueRef::String(scope.name))?;
            self.add(INTRINSICS, "instrumentation_version", ValueRef::String(scope.version))?;
        }
        (0..batch.span_count()).try_for_each(|i| self.add_span(&batch.span(i)?))
    }

    fn add_span(&mut self, span: &SpanRef<'_>) -> Result<()> {
        self.add(INTRINSICS, "name", ValueRef::String(span.name))?;
        if let Some((_, message)) = span.status {
            self.add(INTRINSICS, "status_message", ValueRef::String(message))?;
        }
        self.add_attributes(0, &span.attributes)?;
        for event in span.events() {
            let event = event?;
            self.add(INTRINSICS, "event_names", ValueRef::String(event.name))?;
            self.add_attributes(2, &event.attributes)?;
        }
        span.links()
            .try_for_each(|link| self.add_attributes(3, &link?.attributes))
    }

    pub fn merge(&mut self, other: &Facts) -> Result<()> {
        self.overflow |= other.overflow;
        for (group, columns) in other.columns.iter().enumerate() {
            for (key, theirs) in columns {
                let Some(ours) = self.column(group, key) else {
                    continue;
                };
                let before = ours.bytes;
                ours.merge(theirs)?;
                let after = ours.bytes;
                self.bytes = self.bytes + after - before;
            }
        }
        Ok(())
    }

    /// Whether a span of interest can be among those collected.
    pub fn may_match(&self, filter: &RowFilter) -> bool {
        if filter.is_empty() || self.overflow {
            return true;
        }
        let mut tests = filter.predicates().map(|(p, regex)| {
            let within = |groups: &[usize], key: &str| {
                groups
                    .iter()
                    .any(|g| self.columns[*g].get(key).is_some_and(|v| v.may_match(p, regex)))
            };
            match &p.column {
                ColumnRef::Attribute(AttributeScope::Any, key) => within(&[0, 1], key),
                ColumnRef::Attribute(scope, key) => within(&[group_of(*scope)], key),
                // Absent status messages are empty ones, which no one collected.
                ColumnRef::Intrinsic(Intrinsic::StatusMessage) => true,
                ColumnRef::Intrinsic(i) if LISTED.contains(i) => within(&[INTRINSICS], &intrinsic_key(*i)),
                ColumnRef::Intrinsic(_) => true,
            }
        });
        if filter.needs_all() {
            tests.all(|t| t)
        } else {
            tests.any(|t| t)
        }
    }

    /// Attribute names of a scope. `service.name` with the value `""` alone stands for resources without it.
    pub fn names(&self, scope: AttributeScope) -> impl Iterator<Item = &str> {
        let missing = move |key: &str, v: &Values| {
            scope == AttributeScope::Resource
                && key == "service.name"
                && !(v.incomplete || v.opaque)
                && v.bools == 0
                && v.len() == v.strings.len()
                && v.strings.iter().all(|s| s.is_empty())
        };
        self.columns[group_of(scope)]
            .iter()
            .filter(move |(k, v)| !missing(k, v))
            .map(|(k, _)| k.as_str())
    }

    /// Hands out the values of a column. `false` when they are not all known and the spans must be read.
    pub fn values(&self, column: &ColumnRef, out: &mut impl FnMut(&'static str, String)) -> bool {
        let (groups, key) = match column {
            ColumnRef::Attribute(AttributeScope::Any, key) => (&[0, 1][..], key.clone()),
            ColumnRef::Attribute(scope, key) => (&[0, 1, 2, 3, 4][group_of(*scope)..=group_of(*scope)], key.clone()),
            ColumnRef::Intrinsic(i) if LISTED.contains(i) => (&[INTRINSICS][..], intrinsic_key(*i)),
            ColumnRef::Intrinsic(_) => return false,
        };
        let columns: Vec<&Values> = groups.iter().filter_map(|g| self.columns[*g].get(&key)).collect();
        if columns.iter().any(|v| v.incomplete) || (columns.len() < groups.len() && self.overflow) {
            return false;
        }
        columns.iter().for_each(|v| v.list(out));
        true
    }

    /// Deterministic: equal facts give equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![VERSION, u8::from(self.overflow)];
        for columns in &self.columns {
            put_uvarint(&mut out, columns.len() as u64);
            for (key, v) in columns.iter().collect::<BTreeMap<_, _>>() {
                put_str(&mut out, key);
                out.push(u8::from(v.incomplete) | u8::from(v.opaque) << 1 | v.bools << 2);
                let mut strings: Vec<_> = v.strings.iter().collect();
                strings.sort_unstable();
                put_uvarint(&mut out, strings.len() as u64);
                strings.iter().for_each(|s| put_str(&mut out, s));
                let mut ints: Vec<_> = v.ints.iter().copied().collect();
                ints.sort_unstable();
                put_uvarint(&mut out, ints.len() as u64);
                ints.iter().for_each(|i| put_varint(&mut out, *i));
                let mut floats: Vec<_> = v.floats.iter().copied().collect();
                floats.sort_unstable();
                put_uvarint(&mut out, floats.len() as u64);
                floats.iter().for_each(|f| out.extend_from_slice(&f.to_le_bytes()));
            }
        }
        out
    }

    /// # Errors
    /// `Corrupt`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Facts> {
        fn corrupt(e: impl std::fmt::Display) -> Error {
            Error::corrupt(format!("attribute facts: {e}"))
        }
        let mut r = Reader::new(bytes);
        let version = r.u8().map_err(corrupt)?;
        if version != VERSION {
            return Err(corrupt(format!("version {version} is not known")));
        }
        let mut facts = Facts {
            overflow: r.u8().map_err(corrupt)? != 0,
            ..Facts::default()
        };
        for group in 0..GROUPS.len() {
            for _ in 0..r.count(5).map_err(corrupt)? {
                let key = r.str().map_err(corrupt)?;
                let flags = r.u8().map_err(corrupt)?;
                let mut v = Values {
                    incomplete: flags & 1 != 0,
                    opaque: flags & 2 != 0,
                    bools: flags >> 2 & 3,
                    ..Values::default()
                };
                for _ in 0..r.count(1).map_err(corrupt)? {
                    let s = r.str().map_err(corrupt)?;
                    v.bytes += s.len();
                    v.strings.insert(s.into());
                }
                for _ in 0..r.count(1).map_err(corrupt)? {
                    v.bytes += 8;
                    v.ints.insert(r.varint().map_err(corrupt)?);
                }
                for _ in 0..r.count(8).map_err(corrupt)? {
                    v.bytes += 8;
                    v.floats.insert(r.u64().map_err(corrupt)?);
                }
                facts.count += 1;
                facts.bytes += key.len() + v.bytes;
                facts.columns[group].insert(key.to_owned(), v);
            }
        }
        r.finish().map_err(corrupt)?;
        Ok(facts)
    }
}

fn group_of(scope: AttributeScope) -> usize {
    GROUPS.iter().position(|g| *g == Group::Attributes(scope)).unwrap_or(0)
}
