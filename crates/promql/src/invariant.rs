//! What is the same at every step: expressions whose selectors are all pinned with `@`. They are evaluated at the
//! first step and repeated.

use std::sync::Arc;

use trilith_model::Result;
use trilith_query::SampleCounts;
use trilith_query::vector::{Block, Grid, is_absent};

use crate::ast::{Expr, ExprKind, Selector};
use crate::eval::{Evaluator, too_many_samples};
use crate::functions::{Function, RangeFunction};

/// Whether an expression has the same value at every step.
pub(crate) fn is_step_invariant(expr: &Expr) -> bool {
    // Chains lean to the left; a loop keeps the depth of the recursion.
    let mut e = expr;
    loop {
        let (rest, next) = match &e.kind {
            ExprKind::Number(_) | ExprKind::String(_) => return true,
            ExprKind::Selector(s) | ExprKind::Range { selector: s, .. } => return is_pinned(s),
            ExprKind::Subquery(s) => return s.shift.at.is_some(),
            ExprKind::Neg(inner) | ExprKind::Plus(inner) | ExprKind::Paren(inner) => (None, inner.as_ref()),
            // As upstream, the parameter is not looked at: one that changes keeps its first value.
            ExprKind::Aggregate(a) => (None, &a.expr),
            ExprKind::Binary(b) => (Some(&b.rhs), &b.lhs),
            ExprKind::Set(s) => (Some(&s.rhs), &s.lhs),
            ExprKind::Call { function, args } => {
                return match function {
                    Function::Timestamp => {
                        matches!(args.first().map(|a| &a.unwrapped().kind), Some(ExprKind::Selector(s)) if is_pinned(s))
                    }
                    Function::Time | Function::Calendar(..) | Function::OverTime(RangeFunction::PredictLinear) => false,
                    _ => args.iter().all(is_step_invariant),
                };
            }
        };
        if rest.is_some_and(|e| !is_step_invariant(e)) {
            return false;
        }
        e = next;
    }
}

fn is_pinned(selector: &Selector) -> bool {
    selector.shift.at.is_some()
}

impl Evaluator {
    /// Evaluates at the first step and repeats what comes out at all others.
    ///
    /// # Errors
    /// As [`Evaluator::vector`]; the budget for the repetitions.
    pub(crate) async fn at_first_step(&self, expr: &Expr, grid: Grid) -> Result<Block> {
        let first = Grid { steps: 1, ..grid };
        let mut evaluator = self.clone();
        evaluator.ctx.samples = self.ctx.samples.is_some().then(|| Arc::new(SampleCounts::new(1)));
        let once = evaluator.vector(expr, first).await?;
        if let (Some(counts), Some(of_first)) = (&self.ctx.samples, evaluator.ctx.samples) {
            counts.held(of_first.peak());
            let (total, read) = of_first.steps().next().unwrap_or_default();
            for step in 0..grid.steps {
                counts.add(step, total, if step == 0 { read } else { 0 });
            }
        }
        let mut out = Block::absent(&self.ctx, once.rows.clone(), grid.steps)?;
        for i in 0..once.rows.len() {
            self.ctx.check()?;
            out.row_mut(i).fill(once.row(i)[0]);
            let histogram = once.rows[i].histograms.as_ref().and_then(|h| h[0].clone());
            out.rows[i].histograms = None;
            if histogram.is_some() {
                out.charge(&self.ctx, grid.steps * size_of_val(&histogram))?;
                out.rows[i].histograms = Some(vec![histogram; grid.steps]);
            }
        }
        Ok(out)
    }

    /// Refuses blocks that weigh more samples than a query may hold; a histogram counts by its size.
    pub(crate) fn check_weight(&self, block: &Block) -> Result<()> {
        let limit = self.ctx.limits.query_samples_max;
        let histograms = block
            .rows
            .iter()
            .filter_map(|r| r.histograms.as_ref())
            .flatten()
            .flatten();
        let mut held: u64 = histograms.map(|h| h.sample_cost() as u64).sum();
        if held > 0 || block.values.len() as u64 > limit {
            held += block.values.iter().filter(|v| !is_absent(**v)).count() as u64;
        }
        if limit != 0 && held > limit {
            return Err(too_many_samples());
        }
        Ok(())
    }
}
