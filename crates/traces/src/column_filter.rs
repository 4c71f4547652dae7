//! Tests predicates on columns, so that a search decodes only traces of interest.
//!
//! Resource and scope conditions are tested once per distinct resource or scope; names and numbers on their columns;
//! attributes on the flattened attribute column. What cannot be told from the columns counts as fulfilled.

use arrow::array::{Array, RecordBatch};
use trilith_model::re2::AnchoredRegex;
use trilith_model::{Error, Result};
use trilith_query::span_rows::{Number, RowFilter, SpanRow, number_matches, str_matches, value_matches};
use trilith_query::{AttributeScope, ColumnRef, Intrinsic, Predicate, PredicateOp};

use crate::decode::{self, AttributeColumn, SpanColumns};
use crate::reader::BlockReader;
use crate::schema::Column;

/// A filter made ready for one block.
pub struct ColumnFilter {
    /// Per predicate.
    tests: Vec<Test>,
    filter: std::sync::Arc<RowFilter>,
}

enum Test {
    /// Whether spans under resource n fulfil it.
    Resource(Vec<bool>),
    Scope(Vec<bool>),
    Name,
    StatusMessage,
    Kind,
    Status,
    Start,
    Duration,
    SpanId,
    /// The span's own attributes, or the resource where the table is filled.
    Attribute {
        resource: Vec<bool>,
    },
    /// Left to the language.
    Unknown,
}

impl ColumnFilter {
    pub fn new(filter: std::sync::Arc<RowFilter>, block: &BlockReader) -> Self {
        let tests = filter.predicates().map(|(p, _)| test_of(p, block)).collect();
        ColumnFilter { tests, filter }
    }

    /// Whether nothing can be told from columns, so that every row may match.
    pub fn is_blind(&self) -> bool {
        let unknown = |t: &Test| matches!(t, Test::Unknown);
        if self.tests.is_empty() {
            // No condition at all, which reads as "everything" with `any` too.
            true
        } else if self.filter.needs_all() {
            self.tests.iter().all(unknown)
        } else {
            self.tests.iter().any(unknown)
        }
    }

    /// Whether no row can match, which resources and scopes may tell without reading a row.
    pub fn is_hopeless(&self) -> bool {
        let none = |t: &Test| matches!(t, Test::Resource(table) | Test::Scope(table) if !table.contains(&true));
        self.filter.needs_all() && self.tests.iter().any(none)
    }

    /// The columns that `matches` reads.
    pub fn columns(&self) -> Vec<Column> {
        let mut out = Vec::new();
        for test in &self.tests {
            match test {
                Test::Resource(_) => out.push(Column::ResourceId),
                Test::Scope(_) => out.push(Column::ScopeId),
                Test::Name => out.push(Column::Name),
                Test::StatusMessage => out.push(Column::StatusMessage),
                Test::Kind => out.push(Column::Kind),
                Test::Status => out.push(Column::StatusCode),
                Test::Start => out.push(Column::Start),
                Test::Duration => out.push(Column::Duration),
                Test::SpanId => out.push(Column::SpanId),
                Test::Attribute { .. } => out.extend([Column::Attributes, Column::ResourceId]),
                Test::Unknown => {}
            }
        }
        out.sort_unstable();
        out.dedup();
        out
    }

    /// Per row whether it may match.
    pub fn matches(&self, batch: &RecordBatch) -> Result<Vec<bool>> {
        let all = self.filter.needs_all();
        let mut out = vec![all; batch.num_rows()];
        for ((p, regex), test) in self.filter.predicates().zip(&self.tests) {
            let hits = run(test, p, regex, &SpanColumns::new(batch), batch.num_rows())?;
            for (o, hit) in out.iter_mut().zip(hits) {
                if all {
                    *o &= hit;
                } else {
                    *o |= hit;
                }
            }
        }
        Ok(out)
    }
}

fn test_of(p: &Predicate, block: &BlockReader) -> Test {
    let one = |p: &Predicate| RowFilter::new(std::slice::from_ref(p), true).ok();
    let default = || SpanRow {
        resource: Default::default(),
        scope: Default::default(),
        span: Default::default(),
    };
    let per_resource = |p: &Predicate| -> Vec<bool> {
        let filter = one(p);
        let test = |r: &std::sync::Arc<trilith_model::trace::Resource>| {
            filter.as_ref().is_none_or(|f| {
                f.matches(&SpanRow {
                    resource: r.clone(),
                    ..default()
                })
            })
        };
        block.resources.iter().map(test).collect()
    };
    let per_scope = |p: &Predicate| -> Vec<bool> {
        let filter = one(p);
        let test = |s: &std::sync::Arc<trilith_model::trace::Scope>| {
            filter.as_ref().is_none_or(|f| {
                f.matches(&SpanRow {
                    scope: s.clone(),
                    ..default()
                })
            })
        };
        block.scopes.iter().map(test).collect()
    };
    let scoped = |scope, key: &str| Predicate {
        column: ColumnRef::Attribute(scope, key.to_owned()),
        ..p.clone()
    };
    match &p.column {
        ColumnRef::Intrinsic(i) => match i {
            Intrinsic::Name => Test::Name,
            Intrinsic::StatusMessage => Test::StatusMessage,
            Intrinsic::Kind => Test::Kind,
            Intrinsic::Status => Test::Status,
            Intrinsic::Start => Test::Start,
            Intrinsic::Duration => Test::Duration,
            Intrinsic::SpanId => Test::SpanId,
            Intrinsic::InstrumentationName | Intrinsic::InstrumentationVersion => Test::Scope(per_scope(p)),
            _ => Test::Unknown,
        },
        ColumnRef::Attribute(scope, key) => match scope {
            AttributeScope::Resource => Test::Resource(per_resource(p)),
            AttributeScope::Instrumentation => Test::Scope(per_scope(p)),
            AttributeScope::Span => Test::Attribute { resource: Vec::new() },
            AttributeScope::Any => Test::Attribute {
                resource: per_resource(&scoped(AttributeScope::Resource, key)),
            },
            AttributeScope::Event | AttributeScope::Link => Test::Unknown,
        },
    }
}

fn run(
    test: &Test,
    p: &Predicate,
    regex: Option<&AnchoredRegex>,
    c: &SpanColumns<'_>,
    rows: usize,
) -> Result<Vec<bool>> {
    let out_of_range = || Error::corrupt("resource or scope id out of range");
    let by_id = |column: Column, table: &[bool]| -> Result<Vec<bool>> {
        let ids = decode::u32s(c.require(column)?, column.name())?;
        ids.values()
            .iter()
            .map(|id| table.get(*id as usize).copied().ok_or_else(out_of_range))
            .collect()
    };
    let texts = |column: Column| -> Result<Vec<bool>> {
        let a = decode::strings(c.require(column)?, column.name())?;
        Ok((0..rows)
            .map(|i| str_matches(p, regex, if a.is_valid(i) { a.value(i) } else { "" }))
            .collect())
    };
    let i32s = |column: Column| -> Result<Vec<bool>> {
        let a = decode::i32s(c.require(column)?, column.name())?;
        let n = |i| {
            if a.is_valid(i) { i64::from(a.value(i)) } else { 0 }
        };
        Ok((0..rows).map(|i| number_matches(p, Number::Int(n(i)))).collect())
    };
    let u64s = |column: Column| -> Result<Vec<bool>> {
        let a = decode::u64s(c.require(column)?, column.name())?;
        Ok((0..rows).map(|i| number_matches(p, Number::Uint(a.value(i)))).collect())
    };
    match test {
        Test::Resource(table) => by_id(Column::ResourceId, table),
        Test::Scope(table) => by_id(Column::ScopeId, table),
        Test::Name => texts(Column::Name),
        Test::StatusMessage => texts(Column::StatusMessage),
        Test::Kind => i32s(Column::Kind),
        Test::Status => i32s(Column::StatusCode),
        Test::Start => u64s(Column::Start),
        Test::Duration => u64s(Column::Duration),
        Test::SpanId => {
            let a = decode::fixed(c.require(Column::SpanId)?, "span_id")?;
            let trilith_query::Operand::Bytes(wanted) = &p.operand else {
                return Ok(vec![true; rows]);
            };
            Ok((0..rows)
                .map(|i| p.op != PredicateOp::Eq || a.value(i) == wanted.as_slice())
                .collect())
        }
        Test::Attribute { resource } => {
            let mut out = vec![false; rows];
            span_attributes(p, regex, c, &mut out)?;
            if !resource.is_empty() {
                for (o, hit) in out.iter_mut().zip(by_id(Column::ResourceId, resource)?) {
                    *o |= hit;
                }
            }
            Ok(out)
        }
        Test::Unknown => Ok(vec![true; rows]),
    }
}

fn span_attributes(p: &Predicate, regex: Option<&AnchoredRegex>, c: &SpanColumns<'_>, out: &mut [bool]) -> Result<()> {
    let ColumnRef::Attribute(_, key) = &p.column else {
        return Ok(());
    };
    let a = AttributeColumn::new(c.require(Column::Attributes)?)?;
    for (row, out) in out.iter_mut().enumerate() {
        for i in a.items.range(row) {
            if a.key.value(i) != key {
                continue;
            }
            *out |= if p.op == PredicateOp::Exists {
                true
            } else if a.string.is_valid(i) {
                str_matches(p, regex, a.string.value(i))
            } else if a.int.is_valid(i) {
                number_matches(p, Number::Int(a.int.value(i)))
            } else {
                value_matches(p, regex, &a.value(i)?)
            };
        }
    }
    Ok(())
}
