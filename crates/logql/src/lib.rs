//! LogQL over the `query` waist: text → tokens → checked tree → entries or vectors.
//!
//! | module | what it does |
//! |---|---|
//! | [`lexer`] | tokens with line and column |
//! | [`ast`] | the checked tree |
//! | [`parser`] | recursive descent with precedence climbing; every semantic check of the language happens here |
//! | [`log`] | log queries: entries in order, as many as wanted |
//! | `pipeline` | what the stages make of an entry's labels |
//! | [`metric`] | metric queries: windows accumulated while entries stream by, nothing kept but the accumulators |
//!
//! Present: stream selectors, the line filters `|=` `!=` `|~` `!~` with `or`, `count_over_time`, `rate`,
//! `bytes_over_time`, `bytes_rate`, `absent_over_time` with offset, `drop`, `keep` and text label filters, vector aggregations, binary operations with matching, `vector()`, number
//! literals. Everything else of the language is recognised and refused with an `Unsupported` error that names it.
//!
//! Times are nanoseconds; a window at time T is `(T − range, T]`.

pub mod ast;
pub mod lexer;
pub mod log;
pub mod metric;
pub mod parser;
mod pipeline;

pub use ast::{LogQuery, MetricExpr, Query};
pub use log::{LogLine, query_log};
pub use metric::{MetricResult, MetricSeries, query_metric};
pub use parser::{parse, parse_selector};

/// Entry point for fuzzing: parses any bytes.
pub fn fuzz_parse(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = parse(text);
        let _ = parse_selector(text);
    }
}
