//! Selectors whose histograms are looked at for count and sum only.
//!
//! Under `histogram_count`, `histogram_sum` and `histogram_avg` buckets are of no use, so samples are stripped of them as
//! they are read, which makes arithmetic on them cheap. Without buckets resets can no longer be seen, hence they are
//! found beforehand and kept in the hints. Upstream does the same, and it shows: only hints found this way can
//! contradict each other in a sum.

use crate::ast::{Expr, ExprKind};
use crate::functions::Function;

/// What is known from the expressions around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// Nobody said anything: whole histograms.
    Whole,
    CountAndSum,
    /// Somebody needs buckets, whatever others say.
    Buckets,
}

/// Marks the selectors of a query.
pub(crate) fn mark(expr: &mut Expr) {
    walk(expr, Wanted::Whole);
}

fn walk(expr: &mut Expr, mut wanted: Wanted) {
    // Chains lean to the left; a loop keeps the depth of the recursion.
    let mut e = expr;
    loop {
        e = match &mut e.kind {
            ExprKind::Number(_) | ExprKind::String(_) => return,
            ExprKind::Selector(selector) | ExprKind::Range { selector, .. } => {
                selector.buckets = wanted != Wanted::CountAndSum;
                return;
            }
            ExprKind::Subquery(s) => {
                // Resets between its samples are found by buckets.
                wanted = Wanted::Buckets;
                &mut s.expr
            }
            ExprKind::Call { function, args } => {
                wanted = match function {
                    Function::HistogramQuantile | Function::HistogramQuantiles | Function::HistogramFraction => {
                        Wanted::Buckets
                    }
                    Function::Histogram("histogram_count" | "histogram_sum" | "histogram_avg", _)
                        if wanted != Wanted::Buckets =>
                    {
                        Wanted::CountAndSum
                    }
                    _ => wanted,
                };
                args.iter_mut().for_each(|arg| walk(arg, wanted));
                return;
            }
            ExprKind::Aggregate(a) => {
                if let Some(param) = &mut a.param {
                    walk(param, wanted);
                }
                &mut a.expr
            }
            ExprKind::Binary(b) => {
                let b = b.as_mut();
                if b.op.is_trim() {
                    wanted = Wanted::Buckets;
                }
                walk(&mut b.rhs, wanted);
                &mut b.lhs
            }
            ExprKind::Set(s) => {
                let s = s.as_mut();
                walk(&mut s.rhs, wanted);
                &mut s.lhs
            }
            ExprKind::Neg(inner) | ExprKind::Plus(inner) | ExprKind::Paren(inner) => inner.as_mut(),
        };
    }
}
