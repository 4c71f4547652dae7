//! The syntax tree: what was written, in the order it was written, with the bytes it came from.
//!
//! Chains of left-associative operators make trees as deep as they are long. Whatever walks a tree follows left
//! operands in a loop and recurses into the rest, whose depth the parser bounds; dropping a tree does so too.

use trilith_model::Matcher;

use crate::functions::Signature;
use crate::text::Text;
use crate::token::{Aggregator, Operator};

pub(crate) const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// Bytes of the query text; `start` inclusive, `end` exclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

/// What an expression evaluates to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    Scalar,
    String,
    /// Instant vector.
    Vector,
    /// Range vector.
    Matrix,
}

impl ValueType {
    /// The name in most messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            ValueType::Vector => "instant vector",
            ValueType::Matrix => "range vector",
            _ => self.short(),
        }
    }

    /// The name in the JSON tree.
    pub const fn short(self) -> &'static str {
        match self {
            ValueType::Scalar => "scalar",
            ValueType::String => "string",
            ValueType::Vector => "vector",
            ValueType::Matrix => "matrix",
        }
    }
}

pub struct Expr {
    pub kind: ExprKind,
    /// Where messages point.
    pub span: Span,
}

pub enum ExprKind {
    Number(Number),
    String(Text),
    Selector(Box<Selector>),
    Range(Box<RangeSelector>),
    Subquery(Box<Subquery>),
    Call(Box<Call>),
    Aggregate(Box<Aggregate>),
    Binary(Box<Binary>),
    Unary(Box<Unary>),
    Paren(Box<Expr>),
}

#[derive(Clone, Copy, Debug)]
pub struct Number {
    /// In seconds when it was written as a duration. Signs before a number are part of it.
    pub value: f64,
    pub is_duration: bool,
}

/// `name{matchers} modifiers`
pub struct Selector {
    /// The name before the braces.
    pub name: Option<String>,
    /// Those in braces as written; a quoted name is an equality matcher of `__name__`.
    pub matchers: Vec<LabelMatcher>,
    pub shift: TimeShift,
    pub edges: Edges,
    /// Without what follows a range.
    pub span: Span,
}

#[derive(Clone, Debug)]
pub struct LabelMatcher {
    pub name: Text,
    pub value: Text,
    /// The same, ready to use; bytes that are not UTF-8 are U+FFFD here.
    pub matcher: Matcher,
}

/// How the edges of a selector's window are treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Edges {
    #[default]
    Plain,
    Anchored,
    Smoothed,
}

/// `@` and `offset`.
#[derive(Clone, Debug, Default)]
pub struct TimeShift {
    pub at: Option<At>,
    pub offset: Offset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// ms since the epoch
    Time(i64),
    /// Of the whole query.
    Start,
    End,
}

/// Positive goes to the past.
#[derive(Clone, Debug)]
pub enum Offset {
    /// In ns; 0 is the same as none.
    Fixed(i64),
    Computed(DurationOp),
}

impl Default for Offset {
    fn default() -> Self {
        Offset::Fixed(0)
    }
}

/// A range or a step.
#[derive(Clone, Debug)]
pub enum Length {
    /// In ns, more than 0 unless rounding made it 0.
    Fixed(i64),
    Computed(DurationOp),
}

/// `selector[range]`
pub struct RangeSelector {
    /// Carries the modifiers that follow the range.
    pub selector: Selector,
    pub range: Length,
}

pub struct Subquery {
    pub expr: Expr,
    pub range: Length,
    /// `None`: the default resolution.
    pub step: Option<Length>,
    pub shift: TimeShift,
}

/// An operand in a duration expression.
#[derive(Clone, Debug)]
pub enum DurationExpr {
    Number(Number, Span),
    Op(DurationOp),
}

/// An operation in a duration expression. Its depth is bounded.
#[derive(Clone, Debug)]
pub struct DurationOp {
    pub op: DurationOperator,
    /// `None` for signs, `step()` and `range()`.
    pub lhs: Option<Box<DurationExpr>>,
    /// `None` for `step()` and `range()`.
    pub rhs: Option<Box<DurationExpr>>,
    /// In parentheses. A single number in parentheses is one behind a plus sign.
    pub wrapped: bool,
    pub span: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurationOperator {
    /// With one operand, a sign.
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Step,
    Range,
    MinOf,
    MaxOf,
}

impl DurationOperator {
    pub const fn as_str(self) -> &'static str {
        match self {
            DurationOperator::Add => "+",
            DurationOperator::Sub => "-",
            DurationOperator::Mul => "*",
            DurationOperator::Div => "/",
            DurationOperator::Mod => "%",
            DurationOperator::Pow => "^",
            DurationOperator::Step => "step",
            DurationOperator::Range => "range",
            DurationOperator::MinOf => "min_of",
            DurationOperator::MaxOf => "max_of",
        }
    }
}

pub struct Call {
    pub function: &'static Signature,
    pub args: Vec<Expr>,
}

pub struct Aggregate {
    pub op: Aggregator,
    pub grouping: Vec<Text>,
    pub without: bool,
    /// Present exactly when the aggregation has one.
    pub param: Option<Expr>,
    pub expr: Expr,
}

pub struct Binary {
    pub op: Operator,
    pub return_bool: bool,
    /// As written; without a meaning unless both sides are vectors, see [`Binary::matching`].
    pub(crate) written_matching: VectorMatching,
    /// Scalar or vector.
    pub value_type: ValueType,
    pub lhs: Expr,
    pub rhs: Expr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cardinality {
    OneToOne,
    /// `group_left`
    ManyToOne,
    /// `group_right`
    OneToMany,
    /// Set operators.
    ManyToMany,
}

impl Cardinality {
    pub const fn as_str(self) -> &'static str {
        match self {
            Cardinality::OneToOne => "one-to-one",
            Cardinality::ManyToOne => "many-to-one",
            Cardinality::OneToMany => "one-to-many",
            Cardinality::ManyToMany => "many-to-many",
        }
    }
}

#[derive(Clone, Debug)]
pub struct VectorMatching {
    pub cardinality: Cardinality,
    /// `labels` are the only ones to match, rather than the ones to leave out.
    pub on: bool,
    pub labels: Vec<Text>,
    /// The labels of `group_left` or `group_right`.
    pub include: Vec<Text>,
    pub fill_left: Option<f64>,
    pub fill_right: Option<f64>,
}

pub struct Unary {
    pub negative: bool,
    pub expr: Expr,
}

impl Expr {
    pub fn value_type(&self) -> ValueType {
        let mut e = self;
        loop {
            e = match &e.kind {
                ExprKind::Number(_) => return ValueType::Scalar,
                ExprKind::String(_) => return ValueType::String,
                ExprKind::Selector(_) | ExprKind::Aggregate(_) => return ValueType::Vector,
                ExprKind::Range(_) | ExprKind::Subquery(_) => return ValueType::Matrix,
                ExprKind::Call(c) => return c.function.returns,
                ExprKind::Binary(b) => return b.value_type,
                ExprKind::Unary(u) => &u.expr,
                ExprKind::Paren(inner) => inner,
            };
        }
    }

    /// The operators along the left edge, outermost first, and the operand at its end.
    pub fn left_edge(&self) -> (Vec<(&Binary, Span)>, &Expr) {
        let (mut links, mut e) = (Vec::new(), self);
        while let ExprKind::Binary(b) = &e.kind {
            links.push((&**b, e.span));
            e = &b.lhs;
        }
        (links, e)
    }

    /// The expression inside any parentheses.
    pub fn unwrapped(&self) -> &Expr {
        let mut e = self;
        while let ExprKind::Paren(inner) = &e.kind {
            e = inner;
        }
        e
    }

    fn leaf() -> Expr {
        let number = Number {
            value: 0.0,
            is_duration: false,
        };
        Expr {
            kind: ExprKind::Number(number),
            span: Span::default(),
        }
    }
}

impl Binary {
    /// How elements find their partners; `None` unless both sides are vectors.
    pub fn matching(&self) -> Option<&VectorMatching> {
        let both = self.lhs.value_type() == ValueType::Vector && self.rhs.value_type() == ValueType::Vector;
        both.then_some(&self.written_matching)
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        let mut lhs = std::mem::replace(&mut self.lhs, Expr::leaf());
        while let ExprKind::Binary(b) = &mut lhs.kind {
            let next = std::mem::replace(&mut b.lhs, Expr::leaf());
            lhs = next;
        }
    }
}
