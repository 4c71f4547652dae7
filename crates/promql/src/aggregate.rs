//! Aggregations: parameters, limits and remarks.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use trilith_model::{Error, Result, task};
use trilith_promql_syntax::Text;
use trilith_query::SelectHints;
use trilith_query::series::Grouping;
use trilith_query::vector::rank::{count_values, group_quantile, limit_k, select_k};
use trilith_query::vector::{Accumulator, AggregateOp, Block, Element, Grid, Remark, Remarks, Top, TopOrder};

use crate::ast::{Aggregate, Aggregation, Expr, ExprKind, Span};
use crate::calls::labels::label_name;
use crate::element::{ElementOp, larger, smaller};
use crate::eval::{Evaluator, Sink, execution};
use crate::notes::{Notes, format_f, format_g};

impl Evaluator {
    /// An aggregation with a parameter. `at`: the whole of it.
    pub(crate) fn aggregate<'a>(&'a self, a: &'a Aggregate, at: Span, grid: Grid) -> BoxFuture<'a, Result<Block>> {
        async move {
            let (ctx, grouping) = (self.ctx.clone(), a.grouping.clone());
            let of = a.expr.unwrapped().span;
            let param = a.param.as_ref().map(Expr::unwrapped);
            let param = param.ok_or_else(|| Error::internal("an aggregation lacks its parameter"))?;
            if a.op == Aggregation::CountValues {
                let ExprKind::String(label) = &param.kind else {
                    return Err(Error::internal("the parameter of count_values is a literal"));
                };
                let Some(name) = label_name(label) else {
                    return Err(execution(format!("invalid label name {label}")));
                };
                let label = name.to_owned();
                let block = self.vector(&a.expr, grid).await?;
                return task::compute_sized(block.values.len(), move || {
                    count_values(&ctx, &block, grouping, &label, value_text)
                })
                .await?;
            }
            let values = self.scalar(param, grid).await?;
            let range = ParamRange::of(&values);
            let ungrouped = a.grouping.as_ref().is_none_or(|g| g.by && g.labels.is_empty());
            match a.op {
                Aggregation::TopK | Aggregation::BottomK => {
                    let largest = a.op == Aggregation::TopK;
                    let k = range.counts(&values)?;
                    let order = if largest { TopOrder::Largest } else { TopOrder::Smallest };
                    let (block, ignored) = if ungrouped {
                        self.first(&a.expr, k, order, grid).await?
                    } else {
                        let block = self.vector(&a.expr, grid).await?;
                        task::compute_sized(block.values.len(), move || select_k(&ctx, block, grouping, &k, largest))
                            .await??
                    };
                    if ignored {
                        self.ignored(at, if largest { "topk" } else { "bottomk" });
                    }
                    Ok(block)
                }
                Aggregation::LimitK => {
                    let k = range.counts(&values)?;
                    if ungrouped {
                        return Ok(self.first(&a.expr, k, TopOrder::Labels, grid).await?.0);
                    }
                    let block = self.vector(&a.expr, grid).await?;
                    task::compute_sized(block.values.len(), move || limit_k(&ctx, block, grouping, &k)).await?
                }
                Aggregation::Quantile => {
                    let nan = range.has_nan.then_some(f64::NAN);
                    let high = Some(range.max).filter(|v| *v > 1.0);
                    let low = Some(range.min).filter(|v| *v < 0.0);
                    for v in [nan, high, low].into_iter().flatten() {
                        self.notes.warn(
                            param.span,
                            format_args!("quantile value should be between 0 and 1, got {}", format_g(v)),
                        );
                    }
                    let block = self.vector(&a.expr, grid).await?;
                    let quantiles = task::compute(move || group_quantile(&ctx, &block, grouping, &values));
                    let (block, ignored) = quantiles.await??;
                    if ignored {
                        self.ignored(of, "quantile");
                    }
                    Ok(block)
                }
                Aggregation::Simple(_) | Aggregation::CountValues | Aggregation::LimitRatio => {
                    Err(Error::internal("an aggregation without a number as parameter"))
                }
            }
        }
        .boxed()
    }

    /// `limit_ratio`, which looks at one series at a time.
    pub(crate) fn ratio_op<'a>(&'a self, a: &'a Aggregate, grid: Grid) -> BoxFuture<'a, Result<ElementOp>> {
        async move {
            let param = a.param.as_ref().map(Expr::unwrapped);
            let param = param.ok_or_else(|| Error::internal("an aggregation lacks its parameter"))?;
            let values = self.scalar(param, grid).await?;
            let range = ParamRange::of(&values);
            if range.has_nan {
                return Err(execution("Ratio value is NaN"));
            }
            for (beyond, limit) in [(range.max, 1.0), (range.min, -1.0)] {
                if beyond.abs() > 1.0 && (beyond > 0.0) == (limit > 0.0) {
                    let got = format_g(beyond);
                    self.notes.warn(
                        param.span,
                        format_args!("ratio value should be between -1 and 1, got {got}, capping to {limit}"),
                    );
                }
            }
            Ok(ElementOp::Ratio {
                ratios: values.iter().map(|r| r.clamp(-1.0, 1.0)).collect(),
            })
        }
        .boxed()
    }

    /// The first `k` elements of all per step. True when histograms were passed over.
    fn first<'a>(
        &'a self,
        expr: &'a Expr,
        k: Vec<usize>,
        order: TopOrder,
        grid: Grid,
    ) -> BoxFuture<'a, Result<(Block, bool)>> {
        async move {
            let sink = Sink::Top(Top::new(&self.ctx, k, order)?);
            let Sink::Top(top) = self.pipeline(expr, grid, sink, SelectHints::default()).await? else {
                return Err(Error::internal("the sink changed its kind"));
            };
            let ctx = self.ctx.clone();
            task::compute(move || top.finish(&ctx)).await?
        }
        .boxed()
    }

    /// A one-pass aggregation of `expr`.
    pub(crate) fn group<'a>(
        &'a self,
        op: AggregateOp,
        grouping: Option<Grouping>,
        expr: &'a Expr,
        grid: Grid,
    ) -> BoxFuture<'a, Result<Block>> {
        async move {
            let hints = SelectHints {
                func: aggregate_name(op).to_owned(),
                grouping: grouping.clone(),
                ..SelectHints::default()
            };
            let sink = Sink::Group(Accumulator::new(&self.ctx, op, grouping, grid.steps));
            match self.pipeline(expr, grid, sink, hints).await? {
                Sink::Group(acc) => {
                    let (block, remarks) = acc.finish(&self.ctx)?;
                    group_remarks(&self.notes, expr.unwrapped().span, aggregate_name(op), remarks);
                    Ok(block)
                }
                _ => Err(Error::internal("the sink changed its kind")),
            }
        }
        .boxed()
    }

    fn ignored(&self, at: Span, aggregation: &str) {
        self.notes
            .info(at, format_args!("ignored histogram in {aggregation} aggregation"));
    }
}

/// Words the remarks of an aggregation. `of`: what is aggregated.
fn group_remarks(notes: &Notes, of: Span, aggregation: &str, remarks: Remarks) {
    for remark in remarks {
        match remark {
            Remark::HistogramIgnored => {
                notes.info(of, format_args!("ignored histogram in {aggregation} aggregation"));
            }
            Remark::MixedGroup => notes.warn(of, "encountered a mix of histograms and floats for aggregation"),
            Remark::MixedSchemas { metric } => notes.warn(
                of,
                format_args!(
                    "vector contains a mix of histograms with exponential and custom buckets schemas for metric name \
                     {}",
                    Text::from(metric.as_str())
                ),
            ),
            Remark::ConflictingResets => notes.warn(of, "conflicting counter resets during histogram aggregation"),
            Remark::BoundsReconciled => {
                notes.info(of, "mismatched custom buckets were reconciled during aggregation");
            }
            Remark::IncompatibleTypes { .. } | Remark::IncompatibleBuckets => {}
        }
    }
}

/// The extremes of a parameter over all steps, by Go's rules: one NaN makes both NaN unless there are infinities.
#[derive(Debug)]
struct ParamRange {
    min: f64,
    max: f64,
    has_nan: bool,
}

impl ParamRange {
    fn of(values: &[f64]) -> Self {
        ParamRange {
            min: values.iter().copied().fold(f64::INFINITY, smaller),
            max: values.iter().copied().fold(f64::NEG_INFINITY, larger),
            has_nan: values.iter().any(|v| v.is_nan()),
        }
    }

    /// The numbers of elements that `values` ask for. Nothing is refused when nothing is asked for at any step.
    fn counts(&self, values: &[f64]) -> Result<Vec<usize>> {
        /// Largest f64 below 2⁶³; from there on a number is out of range.
        const TOO_LARGE: f64 = 9_223_372_036_854_774_784.0;
        if self.max < 1.0 {
            return Ok(vec![0; values.len()]);
        }
        if self.has_nan {
            return Err(execution("Parameter value is NaN"));
        }
        if self.min <= -9_223_372_036_854_775_808.0 {
            return Err(execution(format!(
                "Scalar value {} underflows int64",
                format_g(self.min)
            )));
        }
        if self.max >= TOO_LARGE {
            return Err(execution(format!(
                "Scalar value {} overflows int64",
                format_g(self.max)
            )));
        }
        let count = |k: &f64| usize::try_from(*k as i64).unwrap_or(0);
        Ok(values.iter().map(count).collect())
    }
}

fn value_text(value: Element<'_>) -> String {
    match value {
        Element::Float(v) => format_f(v),
        Element::Histogram(h) => h.to_string(),
    }
}

fn aggregate_name(op: AggregateOp) -> &'static str {
    match op {
        AggregateOp::Sum => "sum",
        AggregateOp::Avg => "avg",
        AggregateOp::Min => "min",
        AggregateOp::Max => "max",
        AggregateOp::Count => "count",
        AggregateOp::Group => "group",
        AggregateOp::Stddev => "stddev",
        AggregateOp::Stdvar => "stdvar",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_elements() {
        let counts = |values: &[f64]| ParamRange::of(values).counts(values).map_err(|e| e.to_string());
        assert_eq!(counts(&[2.9, 0.5, -3.0]), Ok(vec![2, 0, 0]));
        assert_eq!(counts(&[0.9, -1.0]), Ok(vec![0, 0]));
        assert_eq!(
            counts(&[f64::NEG_INFINITY]),
            Ok(vec![0]),
            "nothing is asked for, so nothing is checked"
        );
        assert!(counts(&[f64::NAN]).is_err_and(|e| e.contains("Parameter value is NaN")));
        assert!(counts(&[1.0, f64::NAN]).is_err());
        assert!(counts(&[1.0, f64::NEG_INFINITY]).is_err_and(|e| e.contains("Scalar value -Inf underflows int64")));
        assert!(counts(&[1e30]).is_err_and(|e| e.contains("Scalar value 1e+30 overflows int64")));
    }
}
