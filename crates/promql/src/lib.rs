//! PromQL: parse, check, evaluate over a [`SeriesSource`].
//!
//! ```text
//!  text ─ parse ─ tree ─ lower ─ Expr ─ leaf + element ops + sink ─ blocks (rows × steps) ─ finish ─ QueryValue
//!                                         │
//!                                         └ SeriesSource::select → batch → tile → element ops → collect or group
//! ```
//!
//! An expression is evaluated over a grid of steps; an instant query has one step. Selectors stream batches; every
//! batch becomes a tile (its series × all steps) on the compute threads and is aggregated at once, so memory is a
//! few tiles plus the result. Window bounds and extrapolation are computed once per timestamp vector, output
//! groups once per series, matches between vectors once per query.
//!
//! Every query is bounded: text size, nesting and operators by the parser, series, samples, memory and time by
//! the [`QueryContext`]. The number of steps a user may ask for is the API's matter.

mod aggregate;
mod ast;
mod bucketless;
mod calls;
mod deep;
mod element;
mod eval;
mod functions;
mod invariant;
mod lower;
mod matrix;
mod names;
mod notes;
mod operators;
mod result;
mod select;
mod selectors;
mod subquery;
mod tile;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use trilith_model::{Error, Result};
use trilith_query::vector::Grid;
use trilith_query::{QueryContext, SeriesSource};

pub use ast::ValueType;
pub use eval::{EvalOptions, Features};
pub use lower::parse_selector;
pub use result::{MatrixSeries, QueryOutput, QueryValue, VectorElement};
pub use selectors::selectors;

use ast::{Aggregation, Expr, ExprKind};
use eval::Evaluator;
use functions::Function;
use lower::{Times, plan};
use notes::Notes;

/// Evaluates a query at one time.
///
/// # Errors
/// `Invalid` and `Unsupported` as [`parse`]; `Execution` when the query cannot be evaluated or exceeds a limit;
/// `Timeout`, `Cancelled`; whatever the source reports.
pub async fn instant(
    ctx: &QueryContext,
    source: Arc<dyn SeriesSource>,
    query: &str,
    time_ms: i64,
    options: &EvalOptions,
) -> Result<QueryOutput> {
    let grid = Grid::instant(time_ms);
    let times = Times {
        start_ms: time_ms,
        end_ms: time_ms,
        step_ms: 0,
    };
    let expr = plan(query, &options.features, times)?;
    let evaluator = evaluator(ctx, source, query, options, grid, time_ms);
    let value = if expr.value_type() == ValueType::Matrix {
        matrix::instant(&evaluator, &expr, grid).await?
    } else {
        result::instant(evaluator.eval(&expr, grid).await?, time_ms, is_ordered(&expr))?
    };
    Ok(output(value, &evaluator))
}

/// Evaluates a query at `start, start + step, … ≤ end`; always a matrix.
///
/// # Errors
/// As [`instant`], and `Invalid` for a step that is not positive, an end before the start, or a query that is
/// neither a scalar nor an instant vector.
pub async fn range(
    ctx: &QueryContext,
    source: Arc<dyn SeriesSource>,
    query: &str,
    start_ms: i64,
    end_ms: i64,
    step_ms: i64,
    options: &EvalOptions,
) -> Result<QueryOutput> {
    let grid = Grid::range(start_ms, end_ms, step_ms)?;
    let times = Times {
        start_ms,
        end_ms,
        step_ms,
    };
    let expr = plan(query, &options.features, times)?;
    if !matches!(expr.value_type(), ValueType::Scalar | ValueType::Vector) {
        return Err(Error::invalid(format!(
            "invalid expression type \"{}\" for range query, must be Scalar or instant Vector",
            expr.value_type().as_str()
        )));
    }
    let evaluator = evaluator(ctx, source, query, options, grid, end_ms);
    let value = result::range(evaluator.eval(&expr, grid).await?, grid)?;
    Ok(output(value, &evaluator))
}

fn evaluator(
    ctx: &QueryContext,
    source: Arc<dyn SeriesSource>,
    text: &str,
    options: &EvalOptions,
    query: Grid,
    query_end_ms: i64,
) -> Evaluator {
    let (notes, series) = (Notes::of(text), Arc::new(AtomicU64::new(0)));
    Evaluator {
        ctx: ctx.clone(),
        source,
        options: *options,
        query,
        query_end_ms,
        notes,
        series,
    }
}

fn output(value: QueryValue, evaluator: &Evaluator) -> QueryOutput {
    let (warnings, infos) = evaluator.notes.take();
    QueryOutput { value, warnings, infos }
}

/// Whether the elements have an order of their own: made by the outermost function, but for what works element by element.
fn is_ordered(mut expr: &Expr) -> bool {
    loop {
        expr = match &expr.kind {
            ExprKind::Paren(inner) | ExprKind::Neg(inner) => inner,
            ExprKind::Binary(b) if b.lhs.value_type() == ValueType::Scalar => &b.rhs,
            ExprKind::Binary(b) if b.rhs.value_type() == ValueType::Scalar => &b.lhs,
            ExprKind::Aggregate(a) => return matches!(a.op, Aggregation::TopK | Aggregation::BottomK),
            ExprKind::Call { function, args } => match (function, args.as_slice()) {
                (Function::Sort { .. } | Function::SortByLabel { .. }, _) => return true,
                (
                    Function::Map(..)
                    | Function::Clamp
                    | Function::ClampMax
                    | Function::ClampMin
                    | Function::Round
                    | Function::LabelReplace
                    | Function::LabelJoin,
                    [vector, ..],
                ) => vector,
                _ => return false,
            },
            _ => return false,
        }
    }
}

/// Parses and checks a query without evaluating it.
///
/// # Errors
/// `Invalid`, with the position: `line:column: parse error: …`.
pub fn parse(query: &str, features: &Features) -> Result<trilith_promql_syntax::Expr> {
    lower::parse_with(query, features)
}

/// A query as text of lines no longer than need be: `/format_query`.
///
/// # Errors
/// As [`parse`], and `Invalid` when the text would be too long.
pub fn format_query(query: &str, features: &Features) -> Result<String> {
    trilith_promql_syntax::pretty(&parse(query, features)?).map_err(|e| Error::invalid(e.to_string()))
}

/// The syntax tree of a query as a JSON object: `/parse_query`.
///
/// # Errors
/// As [`parse`].
pub fn parse_query(query: &str, features: &Features) -> Result<String> {
    Ok(trilith_promql_syntax::to_json(&parse(query, features)?))
}

/// Entry for fuzzing: parses and plans any bytes; must neither panic nor run away.
pub fn fuzz_parse(bytes: &[u8]) {
    let times = Times {
        start_ms: 0,
        end_ms: 3_600_000,
        step_ms: 15_000,
    };
    if let Ok(query) = std::str::from_utf8(bytes) {
        let _ = plan(query, &Features::default(), times);
    }
}
