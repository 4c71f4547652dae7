//! Operations on single elements, applied to a tile before it is collected or aggregated.

use std::sync::Arc;

use trilith_histogram::FloatHistogram;
use trilith_model::{Result, SampleValue};
use trilith_query::QueryContext;
use trilith_query::vector::matching::NAME_LABELS;
use trilith_query::vector::mixed;
use trilith_query::vector::ops::with_scalars;
use trilith_query::vector::rank::limit_ratio;
use trilith_query::vector::{ABSENT, BinaryOp, Block, Element, Remarks, is_absent};

use crate::ast::Span;
use crate::functions::Civil;
use crate::notes::Notes;
use crate::operators::operator_remarks;

/// Scalars stand for all steps, one each.
#[derive(Clone, Debug)]
pub(crate) enum ElementOp {
    Map(fn(f64) -> f64),
    Calendar(fn(Civil) -> f64),
    /// Of native histograms; floats are left out.
    Histogram(fn(&FloatHistogram) -> f64),
    Neg,
    Scalar {
        op: BinaryOp,
        scalars: Arc<[f64]>,
        scalar_left: bool,
        return_bool: bool,
        /// The whole operation.
        at: Span,
    },
    Clamp {
        min: Option<Arc<[f64]>>,
        max: Option<Arc<[f64]>>,
    },
    Round {
        to: Arc<[f64]>,
    },
    /// A part of the label space per step, see `limit_ratio`; ratios within [-1, 1].
    Ratio {
        ratios: Arc<[f64]>,
    },
    /// Every value becomes its evaluation time in seconds.
    Timestamp {
        seconds: Arc<[f64]>,
    },
}

impl ElementOp {
    /// Whether the result is another quantity, so that it has no name.
    pub(crate) fn drops_name(&self) -> bool {
        match self {
            ElementOp::Scalar { op, return_bool, .. } => *return_bool || op.drops_name(),
            ElementOp::Ratio { .. } => false,
            _ => true,
        }
    }

    /// Whether the result depends on the labels, so that a source may leave out none of them.
    pub(crate) fn needs_labels(&self) -> bool {
        matches!(self, ElementOp::Ratio { .. })
    }

    /// # Errors
    /// `Execution` when new histograms exceed the memory budget.
    pub(crate) fn apply(&self, ctx: &QueryContext, notes: &Notes, tile: &mut Block) -> Result<()> {
        if let ElementOp::Ratio { ratios } = self {
            return limit_ratio(ctx, tile, ratios);
        }
        if self.drops_name() {
            for row in &mut tile.rows {
                row.drop_name = true;
            }
        }
        for i in 0..tile.rows.len() {
            if let ElementOp::Histogram(f) = self {
                let histograms = tile.rows[i].histograms.take();
                for (step, cell) in tile.row_mut(i).iter_mut().enumerate() {
                    let histogram = histograms.as_ref().and_then(|h| h[step].as_deref());
                    *cell = histogram.map_or(ABSENT, f);
                }
            } else if tile.rows[i].histograms.is_some() {
                self.apply_mixed(ctx, notes, tile, i)?;
            } else {
                self.apply_floats(notes, tile.row_mut(i));
            }
        }
        Ok(())
    }

    fn apply_floats(&self, notes: &Notes, row: &mut [f64]) {
        match self {
            ElementOp::Map(f) => each(row, |_, v| f(v)),
            ElementOp::Histogram(_) | ElementOp::Ratio { .. } => {}
            ElementOp::Calendar(f) => each(row, |_, v| Civil::from_seconds(v).map_or(f64::NAN, f)),
            ElementOp::Neg => each(row, |_, v| -v),
            ElementOp::Scalar { op, at, .. } if op.is_trim() => {
                // Histograms only.
                let mut remarks = Remarks::new();
                each(row, |_, v| {
                    if let Err(remark) = mixed::element(*op, Element::Float(v), Element::Float(v)) {
                        remarks.insert(remark);
                    }
                    ABSENT
                });
                operator_remarks(notes, *at, *op, remarks);
            }
            ElementOp::Scalar {
                op,
                scalars,
                scalar_left,
                return_bool,
                ..
            } => {
                with_scalars(row, scalars, *op, *scalar_left, *return_bool);
            }
            ElementOp::Clamp { min, max } => each(row, |i, v| {
                let min = min.as_ref().map_or(f64::NEG_INFINITY, |m| m[i]);
                let max = max.as_ref().map_or(f64::INFINITY, |m| m[i]);
                if max < min {
                    ABSENT
                } else {
                    larger(min, smaller(max, v))
                }
            }),
            ElementOp::Round { to } => each(row, |i, v| {
                // Inverted once, as multiplying is more exact for the usual 0.1 and 0.01.
                let inverse = 1.0 / to[i];
                (v * inverse + 0.5).floor() / inverse
            }),
            ElementOp::Timestamp { seconds } => each(row, |i, _| seconds[i]),
        }
    }

    /// A row with histograms. What works on floats only leaves nothing of them.
    fn apply_mixed(&self, ctx: &QueryContext, notes: &Notes, tile: &mut Block, i: usize) -> Result<()> {
        let histograms = tile.rows[i].histograms.take();
        self.apply_floats(notes, tile.row_mut(i));
        let mut remarks = Remarks::new();
        for (step, h) in histograms.into_iter().flatten().enumerate() {
            let Some(h) = h else { continue };
            match self {
                ElementOp::Neg => {
                    let mut negated = (*h).clone();
                    negated.mul(-1.0);
                    tile.put_histogram(ctx, i, step, Arc::new(negated))?;
                }
                ElementOp::Timestamp { seconds } => tile.row_mut(i)[step] = seconds[step],
                ElementOp::Scalar {
                    op,
                    scalars,
                    scalar_left,
                    return_bool,
                    ..
                } => {
                    let (h, s) = (Element::Histogram(&h), Element::Float(scalars[step]));
                    let (l, r) = if *scalar_left { (s, h) } else { (h, s) };
                    match mixed::element(*op, l, r) {
                        Err(remark) => {
                            remarks.insert(remark);
                        }
                        Ok(outcome) if *return_bool => tile.row_mut(i)[step] = f64::from(u8::from(outcome.holds)),
                        Ok(outcome) => match outcome.value {
                            SampleValue::Float(v) => tile.row_mut(i)[step] = v,
                            SampleValue::Histogram(h) => tile.put_histogram(ctx, i, step, h)?,
                        },
                    }
                }
                ElementOp::Ratio { .. }
                | ElementOp::Map(_)
                | ElementOp::Histogram(_)
                | ElementOp::Calendar(_)
                | ElementOp::Clamp { .. }
                | ElementOp::Round { .. } => {}
            }
        }
        if let ElementOp::Scalar { op, at, .. } = self {
            operator_remarks(notes, *at, *op, remarks);
        }
        Ok(())
    }
}

fn each(row: &mut [f64], mut f: impl FnMut(usize, f64) -> f64) {
    for (i, v) in row.iter_mut().enumerate() {
        if !is_absent(*v) {
            *v = f(i, *v);
        }
    }
}

/// Go's `math.Max`: NaN if either is, unless one is +Inf.
pub(crate) fn larger(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == 0.0 && b == 0.0 {
        if a.is_sign_negative() { b } else { a }
    } else if a > b {
        a
    } else {
        b
    }
}

/// Go's `math.Min`: NaN if either is, unless one is -Inf.
pub(crate) fn smaller(a: f64, b: f64) -> f64 {
    -larger(-a, -b)
}

/// Removes the metric name from rows marked for it.
pub(crate) fn drop_names(block: &mut Block) {
    for row in &mut block.rows {
        if row.drop_name {
            row.labels = row.labels.without(|n| NAME_LABELS.contains(&n));
            row.drop_name = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_follow_go() {
        let (inf, nan) = (f64::INFINITY, f64::NAN);
        assert_eq!((larger(1.0, 2.0), smaller(1.0, 2.0)), (2.0, 1.0));
        assert_eq!((larger(inf, nan), smaller(nan, -inf)), (inf, -inf));
        assert!(larger(-inf, nan).is_nan() && smaller(inf, nan).is_nan());
        assert!(larger(-0.0, 0.0).is_sign_positive() && smaller(0.0, -0.0).is_sign_negative());
    }
}
