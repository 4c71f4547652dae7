//! PromQL text: lexer, parser, checker and printers, with the positions of everything.
//!
//! ```text
//!  text ─ lexer ─ parse ─ Expr ─ check ─┬─ (lowered to a plan and evaluated, elsewhere)
//!         tokens          spans   types ├─ Display, pretty: text again
//!                                       └─ to_json: a tree view
//! ```
//!
//! What is accepted, what a message says and where it points is Prometheus 3.14's. Only the first error is reported.
//! Syntax that upstream keeps behind flags is on by default and has a switch each ([`SyntaxFeatures`]).
//!
//! Texts are bounded in size and trees in depth, long chains of operators excepted: those are walked, printed and
//! dropped in loops. Durations are evaluated where the step and the range of the query are known, not here.

mod ast;
mod check;
mod error;
mod functions;
mod json;
mod lexer;
mod literal;
mod parse;
mod pretty;
mod print;
mod text;
mod token;

#[cfg(test)]
mod tests;

pub use ast::{
    Aggregate, At, Binary, Call, Cardinality, DurationExpr, DurationOp, DurationOperator, Edges, Expr, ExprKind,
    LabelMatcher, Length, Number, Offset, RangeSelector, Selector, Span, Subquery, TimeShift, Unary, ValueType,
    VectorMatching,
};
pub use error::{ParseError, position};
pub use functions::{FUNCTIONS, Signature};
pub use json::to_json;
pub use parse::{parse, parse_selector};
pub use pretty::{TooLong, pretty};
pub use text::{Text, format_f, format_g};
pub use token::{Aggregator, Keyword, Operator};

/// Syntax that upstream keeps behind flags; off means that it is refused with upstream's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyntaxFeatures {
    /// Experimental functions and aggregations.
    pub experimental_functions: bool,
    /// Arithmetic in ranges, steps and offsets.
    pub duration_expressions: bool,
    /// `anchored` and `smoothed`.
    pub extended_ranges: bool,
    /// `fill`, `fill_left`, `fill_right`
    pub fill: bool,
}

impl Default for SyntaxFeatures {
    fn default() -> Self {
        SyntaxFeatures {
            experimental_functions: true,
            duration_expressions: true,
            extended_ranges: true,
            fill: true,
        }
    }
}
