//! Functions that need whole vectors.

mod histogram;
mod le;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use trilith_model::re2::AnchoredRegex;
use trilith_model::{Error, Labels, MatchOp, Matcher, Result, task};
use trilith_query::QueryContext;
use trilith_query::vector::rank::{ascending, descending};
use trilith_query::vector::{ABSENT, AggregateOp, Block, Grid, is_absent};

use crate::ast::{Expr, ExprKind};
use crate::element::ElementOp;
use crate::eval::{Evaluator, execution};
use crate::functions::{Function, RangeFunction};

impl Evaluator {
    /// A call whose result is made at once rather than tile by tile.
    pub(crate) fn call<'a>(&'a self, function: Function, args: &'a [Expr], grid: Grid) -> BoxFuture<'a, Result<Block>> {
        async move {
            match (function, args) {
                (Function::Vector, [s]) => {
                    let values = self.scalar(s, grid).await?;
                    self.single(values, Labels::empty())
                }
                (Function::Calendar(_, f), []) => {
                    let mut block = self.single(grid.times().map(|t| t as f64 / 1000.0).collect(), Labels::empty())?;
                    ElementOp::Calendar(f).apply(&mut block);
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
                        ExprKind::Range { selector, .. } => absent_labels(&selector.matchers),
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
                (Function::Sort { descending: down }, [v]) => {
                    let mut block = self.vector(v, grid).await?;
                    if self.query.step > 0 {
                        self.notes.warn(
                            v.span,
                            "sort is ineffective for range queries since results are always ordered by labels",
                        );
                        return Ok(block);
                    }
                    block.sort_by_labels();
                    let mut order: Vec<usize> = (0..block.rows.len()).collect();
                    let by = if down { descending } else { ascending };
                    order.sort_by(|a, b| by(block.row(*a)[0], block.row(*b)[0]));
                    block.reorder(&order);
                    Ok(block)
                }
                (Function::LabelReplace, [v, rest @ ..]) => {
                    let block = self.vector(v, grid).await?;
                    let strings = literals(rest)?;
                    let ctx = self.ctx.clone();
                    task::compute(move || label_replace(&ctx, block, &strings)).await?
                }
                (Function::LabelJoin, [v, rest @ ..]) => {
                    let block = self.vector(v, grid).await?;
                    let strings = literals(rest)?;
                    let ctx = self.ctx.clone();
                    task::compute(move || label_join(&ctx, block, &strings)).await?
                }
                (Function::HistogramQuantile, [phi, v]) => {
                    let phi = self.quantile_argument(phi, grid).await?;
                    self.histogram_quantiles(v, None, vec![phi], grid).await
                }
                (Function::HistogramQuantiles, [v, label, phis @ ..]) => {
                    let label = literals(std::slice::from_ref(label))?.remove(0);
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

fn literals(args: &[Expr]) -> Result<Vec<String>> {
    args.iter()
        .map(|a| match &a.unwrapped().kind {
            ExprKind::String(s) => Ok(s.clone()),
            _ => Err(Error::internal("a string argument is a literal")),
        })
        .collect()
}

/// What is known of a series that does not exist: labels with exactly one matcher, and that for equality.
fn absent_labels(matchers: &[Matcher]) -> Labels {
    let known = matchers.iter().filter(|m| {
        &*m.name != "__name__"
            && m.op == MatchOp::Eq
            && matchers.iter().filter(|other| other.name == m.name).count() == 1
    });
    Labels::from_pairs(known.map(|m| (&*m.name, &*m.value)))
}

/// Gives a row a label; setting the name keeps it.
/// Longest label value that a query may make. Nested calls can double a value at every level.
const LABEL_VALUE_BYTES_MAX: usize = 1 << 20;

fn too_long(function: &str) -> Error {
    execution(format!(
        "{function}() makes a label value of more than {LABEL_VALUE_BYTES_MAX} bytes"
    ))
}

/// Sets a label of a row, booked on the query's budget.
fn set_label(ctx: &QueryContext, block: &mut Block, i: usize, name: &str, value: &str) -> Result<()> {
    block.charge(ctx, value.len())?;
    let row = &mut block.rows[i];
    row.labels = row.labels.with(name, value);
    if name == "__name__" {
        row.drop_name = false;
    }
    Ok(())
}

/// Rows may have become equal; they are one series when they never have a value at the same step.
fn check_distinct(block: &mut Block) -> Result<()> {
    block
        .merge_equal_rows()
        .map_err(|_| execution("vector cannot contain metrics with the same labelset"))
}

/// `strings`: destination, replacement, source, regex.
fn label_replace(ctx: &QueryContext, mut block: Block, strings: &[String]) -> Result<Block> {
    let [dst, replacement, src, regex] = strings else {
        return Err(Error::internal("label_replace takes four strings"));
    };
    let regex = AnchoredRegex::new(regex)
        .map_err(|_| execution(format!("invalid regular expression in label_replace(): {regex}")))?;
    if dst.is_empty() {
        return Err(execution(format!(
            "invalid destination label name in label_replace(): {dst}"
        )));
    }
    let mut value = String::new();
    for i in 0..block.rows.len() {
        value.clear();
        let labels = block.rows[i].labels.clone();
        let source = labels.get(src).unwrap_or("");
        // Every two bytes of the replacement may stand for the whole source.
        if replacement.len().saturating_mul(source.len()) > 16 * LABEL_VALUE_BYTES_MAX {
            return Err(too_long("label_replace"));
        }
        if regex.expand(source, replacement, &mut value)? {
            if value.len() > LABEL_VALUE_BYTES_MAX {
                return Err(too_long("label_replace"));
            }
            set_label(ctx, &mut block, i, dst, &value)?;
        }
    }
    check_distinct(&mut block)?;
    Ok(block)
}

/// `strings`: destination, separator, sources.
fn label_join(ctx: &QueryContext, mut block: Block, strings: &[String]) -> Result<Block> {
    let [dst, separator, sources @ ..] = strings else {
        return Err(Error::internal("label_join takes at least two strings"));
    };
    if dst.is_empty() {
        return Err(execution(format!(
            "invalid destination label name in label_join(): {dst}"
        )));
    }
    if let Some(bad) = sources.iter().find(|s| s.is_empty()) {
        return Err(execution(format!("invalid source label name in label_join(): {bad}")));
    }
    for i in 0..block.rows.len() {
        let labels = block.rows[i].labels.clone();
        let parts: Vec<&str> = sources.iter().map(|s| labels.get(s).unwrap_or("")).collect();
        if parts.iter().map(|p| p.len() + separator.len()).sum::<usize>() > LABEL_VALUE_BYTES_MAX {
            return Err(too_long("label_join"));
        }
        set_label(ctx, &mut block, i, dst, &parts.join(separator))?;
    }
    check_distinct(&mut block)?;
    Ok(block)
}
