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

/// Entry points for fuzzing: any bytes, which may be refused but do no harm.
pub mod fuzzing {
    use super::{SyntaxFeatures, parse, parse_selector, pretty, to_json};

    fn features(first: u8) -> SyntaxFeatures {
        SyntaxFeatures {
            experimental_functions: first & 1 == 0,
            duration_expressions: first & 2 == 0,
            extended_ranges: first & 4 == 0,
            fill: first & 8 == 0,
        }
    }

    /// Parses with the switches of the first byte.
    pub fn parser(bytes: &[u8]) {
        let Some((first, text)) = bytes.split_first() else {
            return;
        };
        let text = String::from_utf8_lossy(text);
        let _ = parse(&text, &features(*first));
        let _ = parse_selector(&text);
    }

    /// # Panics
    /// When the printed form of what was accepted is refused, or prints differently.
    pub fn round_trip(bytes: &[u8]) {
        let all = SyntaxFeatures::default();
        let Ok(first) = parse(&String::from_utf8_lossy(bytes), &all) else {
            return;
        };
        let _ = to_json(&first);
        let printed = first.to_string();
        let second = parse(&printed, &all).unwrap_or_else(|e| panic!("{printed:?} is refused: {e}"));
        assert_eq!(second.to_string(), printed, "the printed form prints as itself");
        if let Ok(lines) = pretty(&first) {
            let third = parse(&lines, &all).unwrap_or_else(|e| panic!("{lines:?} is refused: {e}"));
            assert_eq!(third.to_string(), printed, "lines mean what one line means");
        }
    }
}
