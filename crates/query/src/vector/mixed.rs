//! Binary operators between elements that may be histograms.

use std::sync::Arc;

use trilith_histogram::{FloatHistogram, Merged, ResetHint, Trim};
use trilith_model::SampleValue;

use super::block::Element;
use super::ops::BinaryOp;
use super::remark::{Kind, Remark};

/// What an operator makes of two elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// For a comparison the left element.
    pub value: SampleValue,
    /// Whether the comparison holds; true for all other operators.
    pub holds: bool,
    pub remark: Option<Remark>,
}

impl Outcome {
    fn of(value: SampleValue) -> Self {
        Outcome {
            value,
            holds: true,
            remark: None,
        }
    }

    fn histogram(h: FloatHistogram) -> Self {
        Outcome::of(SampleValue::Histogram(Arc::new(h)))
    }
}

/// Applies an operator.
///
/// # Errors
/// Why there is no result.
pub fn element(op: BinaryOp, l: Element<'_>, r: Element<'_>) -> Result<Outcome, Remark> {
    match (l, r) {
        (Element::Float(_), Element::Float(_)) if op.is_trim() => Err(incompatible(l, r)),
        (Element::Float(a), Element::Float(b)) => Ok(if op.is_comparison() {
            Outcome {
                value: SampleValue::Float(a),
                holds: op.scalar(a, b) == 1.0,
                remark: None,
            }
        } else {
            Outcome::of(SampleValue::Float(op.scalar(a, b)))
        }),
        (Element::Histogram(a), Element::Float(b)) => with_number(op, a, b).ok_or_else(|| incompatible(l, r)),
        (Element::Float(a), Element::Histogram(b)) if op == BinaryOp::Mul => {
            with_number(op, b, a).ok_or_else(|| incompatible(l, r))
        }
        (Element::Histogram(a), Element::Histogram(b)) => {
            histograms(op, a, b).unwrap_or_else(|| Err(incompatible(l, r)))
        }
        (Element::Float(_), Element::Histogram(_)) => Err(incompatible(l, r)),
    }
}

fn with_number(op: BinaryOp, h: &FloatHistogram, n: f64) -> Option<Outcome> {
    let mut out = h.clone();
    match op {
        BinaryOp::Mul => out.mul(n),
        BinaryOp::Div | BinaryOp::DivOrNan => out.div(n),
        BinaryOp::TrimUpper | BinaryOp::TrimLower => {
            let trim = if op == BinaryOp::TrimUpper {
                Trim::Below
            } else {
                Trim::Above
            };
            out.trim(n, trim);
            return Some(Outcome::histogram(out));
        }
        _ => return None,
    }
    out.compact();
    Some(Outcome::histogram(out))
}

/// `None` where the operator does not work between histograms.
fn histograms(op: BinaryOp, a: &Arc<FloatHistogram>, b: &FloatHistogram) -> Option<Result<Outcome, Remark>> {
    let compared = |holds| {
        Some(Ok(Outcome {
            value: SampleValue::Histogram(a.clone()),
            holds,
            remark: None,
        }))
    };
    let mut out = match op {
        BinaryOp::Eq => return compared(a.same(b)),
        BinaryOp::Ne => return compared(!a.same(b)),
        BinaryOp::Add | BinaryOp::Sub => FloatHistogram::clone(a),
        _ => return None,
    };
    let merged = if op == BinaryOp::Add { out.add(b) } else { out.sub(b) };
    let Ok(Merged {
        reset_conflict,
        bounds_reconciled,
    }) = merged
    else {
        return Some(Err(Remark::IncompatibleBuckets));
    };
    if reset_conflict {
        return Some(Err(Remark::ConflictingResets));
    }
    if op == BinaryOp::Sub {
        out.reset_hint = ResetHint::Gauge;
    }
    out.compact();
    Some(Ok(Outcome {
        remark: bounds_reconciled.then_some(Remark::BoundsReconciled),
        ..Outcome::histogram(out)
    }))
}

fn incompatible(l: Element<'_>, r: Element<'_>) -> Remark {
    let kind = |e| match e {
        Element::Float(_) => Kind::Float,
        Element::Histogram(_) => Kind::Histogram,
    };
    Remark::IncompatibleTypes {
        left: kind(l),
        right: kind(r),
    }
}
