//! Operations on single elements, applied to a tile before it is collected or aggregated.

use std::sync::Arc;

use trilith_histogram::FloatHistogram;
use trilith_query::vector::matching::NAME_LABELS;
use trilith_query::vector::ops::with_scalars;
use trilith_query::vector::{ABSENT, BinaryOp, Block, is_absent};

use crate::functions::Civil;

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
    },
    Clamp {
        min: Option<Arc<[f64]>>,
        max: Option<Arc<[f64]>>,
    },
    Round {
        to: Arc<[f64]>,
    },
    /// Every value becomes its evaluation time in seconds.
    Timestamp {
        seconds: Arc<[f64]>,
    },
}

impl ElementOp {
    pub(crate) fn apply(&self, tile: &mut Block) {
        let keeps_name = matches!(self, ElementOp::Scalar { op, return_bool: false, .. } if op.is_comparison());
        if !keeps_name {
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
            } else {
                self.apply_row(tile.row_mut(i));
            }
        }
    }

    fn apply_row(&self, row: &mut [f64]) {
        match self {
            ElementOp::Map(f) => each(row, |_, v| f(v)),
            ElementOp::Histogram(_) => {}
            ElementOp::Calendar(f) => each(row, |_, v| Civil::from_seconds(v).map_or(f64::NAN, f)),
            ElementOp::Neg => each(row, |_, v| -v),
            ElementOp::Scalar {
                op,
                scalars,
                scalar_left,
                return_bool,
            } => {
                with_scalars(row, scalars, *op, *scalar_left, *return_bool);
            }
            ElementOp::Clamp { min, max } => each(row, |i, v| {
                let min = min.as_ref().map_or(f64::NEG_INFINITY, |m| m[i]);
                let max = max.as_ref().map_or(f64::INFINITY, |m| m[i]);
                if min > max {
                    ABSENT
                } else if min.is_nan() || max.is_nan() || v.is_nan() {
                    f64::NAN
                } else {
                    v.max(min).min(max)
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
}

fn each(row: &mut [f64], f: impl Fn(usize, f64) -> f64) {
    for (i, v) in row.iter_mut().enumerate() {
        if !is_absent(*v) {
            *v = f(i, *v);
        }
    }
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
