//! TraceQL over any [`trilith_query::SpanSource`]: text → tokens → tree → type check → conditions for the source →
//! matching rows of column batches → search results.
//!
//! ```text
//! parse(text) ─► Query ─► predicates (pruning) ─► SpanSource::select ─► batches ─► filter per row ─► newest traces
//! ```
//!
//! Supported: one spanset filter `{ … }` with `&& || !`, parentheses, comparisons of intrinsics, attributes and literals,
//! `nil`, then `| select(…)` and `with(…)`; the search by tags. Everything else of TraceQL (combined and structural
//! spansets, pipelines, arithmetic, metrics) is recognised and refused with kind `Unsupported` and the name of the
//! construct; what is not TraceQL is refused with kind `Invalid`, line and column.
//!
//! Invariants: results do not depend on where spans are stored or in which batches they come; the answer is
//! the newest traces by start, ties by trace id. No input makes the parser panic, recurse without bound or take more than
//! linear time.

pub mod ast;
mod eval;
mod lexer;
mod parse;
mod search;
mod tags;

#[cfg(test)]
mod tests;

pub use ast::Query;
pub use eval::go_duration;
pub use lexer::parse_duration;
pub use parse::{parse, parse_identifier};
pub use search::{NO_ROOT, SearchOptions, ServiceStats, SpanResult, SpanSet, TraceSearchResult, search};
pub use tags::{TagQuery, search_tags};

/// Entry point for fuzzing: any text is parsed or refused.
pub fn fuzz_parse(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = parse(text);
        let _ = parse_identifier(text);
        let _ = TagQuery::new(text, 0, 0);
    }
}
