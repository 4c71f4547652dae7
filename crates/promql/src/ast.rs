//! The expression tree that evaluation works on, independent of the parser that made it.

use trilith_model::Matcher;
use trilith_promql_syntax::Text;
use trilith_query::series::Grouping;
use trilith_query::vector::{AggregateOp, BinaryOp, Matching, SetOp};

use crate::functions::Function;

pub use trilith_promql_syntax::{At, Edges, Span, ValueType};

#[derive(Clone, Debug)]
pub struct Expr {
    pub kind: ExprKind,
    /// What annotations point at.
    pub span: Span,
}

#[derive(Clone, Debug)]
pub enum ExprKind {
    Number(f64),
    String(Text),
    Selector(Selector),
    /// `selector[range]`
    Range {
        selector: Selector,
        range_ms: i64,
    },
    Subquery(Box<Subquery>),
    Call {
        function: Function,
        args: Vec<Expr>,
    },
    Aggregate(Box<Aggregate>),
    Binary(Box<Binary>),
    Set(Box<Set>),
    Neg(Box<Expr>),
    /// A plus sign changes no value, but what stands behind it is no selector.
    Plus(Box<Expr>),
    Paren(Box<Expr>),
}

/// An instant selector; all matchers must hold, the one for the metric name included.
#[derive(Clone, Debug)]
pub struct Selector {
    pub matchers: Vec<Matcher>,
    pub shift: TimeShift,
    pub edges: Edges,
    /// Whether buckets of histograms are looked at; the evaluator finds out.
    pub buckets: bool,
}

/// `@` and `offset`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeShift {
    pub at: Option<At>,
    /// Positive goes to the past.
    pub offset_ms: i64,
}

#[derive(Clone, Debug)]
pub struct Subquery {
    pub expr: Expr,
    pub range_ms: i64,
    /// `None`: the default resolution.
    pub step_ms: Option<i64>,
    pub shift: TimeShift,
}

#[derive(Clone, Debug)]
pub struct Aggregate {
    pub op: Aggregation,
    pub grouping: Option<Grouping>,
    /// k, φ or the label of `count_values`.
    pub param: Option<Expr>,
    pub expr: Expr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregation {
    /// One pass, no parameter.
    Simple(AggregateOp),
    TopK,
    BottomK,
    Quantile,
    CountValues,
    LimitK,
    LimitRatio,
}

/// Arithmetic or comparison.
#[derive(Clone, Debug)]
pub struct Binary {
    /// Scalar or vector; kept, because finding it again would walk a whole chain of operators.
    pub value_type: ValueType,
    pub op: BinaryOp,
    pub return_bool: bool,
    pub matching: Matching,
    pub lhs: Expr,
    pub rhs: Expr,
}

#[derive(Clone, Debug)]
pub struct Set {
    pub op: SetOp,
    pub matching: Matching,
    pub lhs: Expr,
    pub rhs: Expr,
}

impl Expr {
    pub fn value_type(&self) -> ValueType {
        match &self.kind {
            ExprKind::Number(_) => ValueType::Scalar,
            ExprKind::String(_) => ValueType::String,
            ExprKind::Selector(_) | ExprKind::Aggregate(_) | ExprKind::Set(_) => ValueType::Vector,
            ExprKind::Range { .. } | ExprKind::Subquery(_) => ValueType::Matrix,
            ExprKind::Call { function, .. } => function.returns(),
            ExprKind::Binary(b) => b.value_type,
            ExprKind::Neg(e) | ExprKind::Plus(e) | ExprKind::Paren(e) => e.value_type(),
        }
    }

    /// The expression inside any parentheses.
    pub fn unwrapped(&self) -> &Expr {
        let mut e = self;
        while let ExprKind::Paren(inner) = &e.kind {
            e = inner;
        }
        e
    }
}
