//! The checked tree. Everything in it can be evaluated; what cannot is refused by the parser.

use trilith_model::Matcher;
use trilith_query::LineFilter;
use trilith_query::series::Grouping;
use trilith_query::vector::{AggregateOp, BinaryOp, Matching, SetOp};

#[derive(Clone, Debug)]
pub enum Query {
    Log(LogQuery),
    Metric(MetricExpr),
}

/// A selector and its stages.
#[derive(Clone, Debug)]
pub struct LogQuery {
    /// At least one does not match the empty string.
    pub matchers: Vec<Matcher>,
    /// Every line filter of the query: no stage changes the line, so they may all run first, in the store.
    pub filters: Vec<LineFilter>,
    /// What happens to labels, in order.
    pub stages: Vec<Stage>,
}

#[derive(Clone, Debug)]
pub enum Stage {
    Filter(LabelFilter),
    /// Removes these labels.
    Drop(Vec<LabelItem>),
    /// Removes all but these labels.
    Keep(Vec<LabelItem>),
}

#[derive(Clone, Debug)]
pub enum LabelFilter {
    Matcher(Matcher),
    And(Box<LabelFilter>, Box<LabelFilter>),
    Or(Box<LabelFilter>, Box<LabelFilter>),
}

/// A label, or a label with a certain value.
#[derive(Clone, Debug)]
pub enum LabelItem {
    Name(String),
    Matcher(Matcher),
}

#[derive(Clone, Debug)]
pub enum MetricExpr {
    Number(f64),
    /// `vector(n)`: one series without labels.
    Vector(f64),
    Range(RangeAggregation),
    Aggregate {
        op: AggregateOp,
        grouping: Option<Grouping>,
        argument: Box<MetricExpr>,
    },
    /// `topk` and `bottomk`.
    Rank {
        largest: bool,
        k: usize,
        grouping: Option<Grouping>,
        argument: Box<MetricExpr>,
    },
    /// `sort` and `sort_desc`: order of instant results.
    Sort {
        descending: bool,
        argument: Box<MetricExpr>,
    },
    Binary {
        op: BinaryOp,
        return_bool: bool,
        matching: Matching,
        left: Box<MetricExpr>,
        right: Box<MetricExpr>,
    },
    Set {
        op: SetOp,
        matching: Matching,
        left: Box<MetricExpr>,
        right: Box<MetricExpr>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeOp {
    CountOverTime,
    Rate,
    BytesOverTime,
    BytesRate,
    /// 1 where no entry is.
    Absent,
}

#[derive(Clone, Debug)]
pub struct RangeAggregation {
    pub op: RangeOp,
    pub log: LogQuery,
    pub range_ns: i64,
    /// Positive: into the past.
    pub offset_ns: i64,
}
