//! Vector mathematics shared by the languages: what PromQL, LogQL metrics and TraceQL metrics do alike.
//!
//! A [`Block`] holds an instant vector at every step of a query: one row per series, one column per step, `f64`
//! cells, row-major. A cell without a value is [`ABSENT`]; a native histogram stands beside the cells and leaves its cell
//! absent, so that what knows floats only passes it over. Engines' samples become blocks through window bounds
//! that are computed once per timestamp vector ([`window`], [`rate`], [`over_time`]); blocks are aggregated
//! ([`accumulate`], [`rank`], [`top`]), joined ([`join`], [`matching`]) and mapped ([`ops`], [`mixed`]). Nothing here knows
//! a language's syntax or its error texts.

pub mod accumulate;
pub mod block;
pub mod group;
pub mod join;
pub mod matching;
pub mod mixed;
pub mod ops;
pub mod over_time;
pub mod quantile;
pub mod rank;
pub mod rate;
pub mod remark;
pub mod sum;
pub mod top;
pub mod window;

pub use accumulate::{Accumulator, AggregateOp};
pub use block::{ABSENT, Block, Element, Grid, Row, is_absent};
pub use group::Grouper;
pub use join::Join;
pub use matching::{Cardinality, MatchError, Matching, NameRemoval, SetOp};
pub use ops::BinaryOp;
pub use remark::{Kind, Remark, Remarks};
pub use sum::KahanSum;
pub use top::{Top, TopOrder};

#[cfg(test)]
pub(crate) fn test_context() -> crate::QueryContext {
    use std::sync::Arc;
    let limits = Arc::new(trilith_model::Limits::default());
    let clock = Arc::new(trilith_model::SystemClock);
    crate::QueryContext::new(
        trilith_model::TenantId::anonymous(),
        limits,
        clock,
        std::time::Duration::ZERO,
    )
}
