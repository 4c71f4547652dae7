//! Functions that need whole vectors.

mod histogram;
mod info;
pub(crate) mod labels;
mod le;
mod order;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use trilith_model::{Error, Labels, MatchOp, Matcher, Result, task};
use trilith_promql_syntax::Text;
use trilith_query::vector::{ABSENT, AggregateOp, Block, Grid, is_absent};

use crate::ast::{Expr, ExprKind, Span};
use crate::element::ElementOp;
use crate::eval::{Evaluator, check_edges};
use crate::functions::{Function, RangeFunction};

impl Evaluator {
    /// A call whose result is made at once rather than tile by tile.
    /// `at`: the whole call.
    pub(crate) fn call<'a>(
        &'a self,
        function: Function,
        args: &'a [Expr],
        at: Span,
        grid: Grid,
    ) -> BoxFuture<'a, Result<Block>> {
        async move {
            match (function, args) {
                (Function::Vector, [s]) => {
                    let values = self.scalar(s, grid).await?;
                    self.single(values, Labels::empty())
                }
                (Function::Calendar(_, f), []) => {
                    let mut block = self.single(grid.times().map(|t| t as f64 / 1000.0).collect(), Labels::empty())?;
                    ElementOp::Calendar(f).apply(&self.ctx, &self.notes, &mut block)?;
                    Ok(block)
                }
                (Function::Absent, [v]) => {
                    let labels = match &v.unwrapped().kind {
                        ExprKind::Selector(s) => absent_labels(&s.matchers),
                        _ => Labels::empty(),
                    };
                    let present = self.group(AggregateOp::Group, None, v, grid).await?;
                    self.inverted(&present, labels, grid)
                }
                (Function::AbsentOverTime, [m]) => {
                    let labels = match &m.unwrapped().kind {
                        ExprKind::Range { selector, .. } => {
                            check_edges("absent_over_time", selector.edges)?;
                            absent_labels(&selector.matchers)
                        }
                        _ => Labels::empty(),
                    };
                    let present = Expr {
                        span: m.span,
                        kind: ExprKind::Call {
                            function: Function::OverTime(RangeFunction::Present),
                            args: vec![m.clone()],
                        },
                    };
                    let present = self.group(AggregateOp::Group, None, &present, grid).await?;
                    self.inverted(&present, labels, grid)
                }
                (Function::Sort { descending }, [v]) => {
                    let mut block = self.vector(v, grid).await?;
                    // Also where the order is of no use, histograms are left out.
                    block.drop_histograms();
                    block.drop_empty_rows();
                    if self.can_sort(at, grid) {
                        order::by_value(&mut block, descending);
                    }
                    Ok(block)
                }
                (Function::SortByLabel { descending }, [v, labels @ ..]) => {
                    let mut block = self.vector(v, grid).await?;
                    if self.can_sort(at, grid) {
                        order::by_labels(&mut block, &literals(labels)?, descending);
                    }
                    Ok(block)
                }
                (Function::Info, args) => self.info(args, at, grid).await,
                (Function::LabelReplace, [v, rest @ ..]) => {
                    let block = self.vector(v, grid).await?;
                    let strings = literals(rest)?;
                    let ctx = self.ctx.clone();
                    task::compute_sized(block.values.len(), move || labels::replace(&ctx, block, &strings)).await?
                }
                (Function::LabelJoin, [v, rest @ ..]) => {
                    let block = self.vector(v, grid).await?;
                    let strings = literals(rest)?;
                    let ctx = self.ctx.clone();
                    task::compute_sized(block.values.len(), move || labels::join(&ctx, block, &strings)).await?
                }
                (Function::HistogramQuantile, [phi, v]) => {
                    let phi = self.quantile_argument(phi, grid).await?;
                    self.histogram_quantiles(v, None, vec![phi], grid).await
                }
                (Function::HistogramQuantiles, [v, label, phis @ ..]) => {
                    let label = literals(std::slice::from_ref(label))?.remove(0).to_str().into_owned();
                    let mut values = Vec::with_capacity(phis.len());
                    for phi in phis {
                        values.push(self.quantile_argument(phi, grid).await?);
                    }
                    self.histogram_quantiles(v, Some(label), values, grid).await
                }
                (Function::HistogramFraction, [lower, upper, v]) => {
                    let lower = self.scalar(lower, grid).await?;
                    let upper = self.scalar(upper, grid).await?;
                    self.histogram_fraction(v, lower, upper, grid).await
                }
                _ => Err(Error::internal("a call does not fit its signature")),
            }
        }
        .boxed()
    }

    /// Whether the order of an answer counts: not over a range.
    fn can_sort(&self, at: Span, grid: Grid) -> bool {
        let over_range = grid.steps > 1 || (grid == self.query && self.query_end_ms > grid.start);
        if over_range {
            self.notes.warn(
                at,
                "sort is ineffective for range queries since results are always ordered by labels",
            );
        }
        !over_range
    }

    /// 1 where the single row of `present` has no value.
    fn inverted(&self, present: &Block, labels: Labels, grid: Grid) -> Result<Block> {
        let mut values = vec![1.0; grid.steps];
        if !present.rows.is_empty() {
            for (v, p) in values.iter_mut().zip(present.row(0)) {
                if !is_absent(*p) {
                    *v = ABSENT;
                }
            }
        }
        self.single(values, labels)
    }
}

fn literals(args: &[Expr]) -> Result<Vec<Text>> {
    args.iter()
        .map(|a| match &a.unwrapped().kind {
            ExprKind::String(s) => Ok(s.clone()),
            _ => Err(Error::internal("a string argument is a literal")),
        })
        .collect()
}

/// What is known of a series that does not exist: the first label matched for equality counts unless another matcher of
/// the label follows.
fn absent_labels(matchers: &[Matcher]) -> Labels {
    let mut known: Vec<(&str, &str)> = Vec::new();
    let mut equal: Vec<&str> = Vec::new();
    for m in matchers.iter().filter(|m| &*m.name != "__name__") {
        known.retain(|(name, _)| *name != &*m.name);
        if m.op == MatchOp::Eq && !equal.contains(&&*m.name) {
            known.push((&m.name, &m.value));
            equal.push(&m.name);
        }
    }
    Labels::from_pairs(known)
}
