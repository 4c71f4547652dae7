//! Sums, differences and scaling.

use std::sync::Arc;

use crate::cells::{Cell, add_compensated, cells, coarsen, into_buckets, merge};
use crate::{Buckets, FloatHistogram, ResetHint};

/// What happened in an addition or subtraction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// One histogram followed a counter reset and the other did not.
    pub reset_conflict: bool,
    /// The custom bounds differed; the common ones are left.
    pub bounds_reconciled: bool,
}

/// Histograms with exponential and with custom buckets have no sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IncompatibleSchemas;

impl std::error::Error for IncompatibleSchemas {}

impl std::fmt::Display for IncompatibleSchemas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cannot apply this operation on histograms with a mix of exponential and custom bucket schemas")
    }
}

/// What rounding took from the parts of a sum; the counts are parallel to those of the sum.
#[derive(Clone, Debug, Default)]
pub(crate) struct Errors {
    pub zero_count: f64,
    pub count: f64,
    pub sum: f64,
    pub positive: Vec<f64>,
    pub negative: Vec<f64>,
}

impl FloatHistogram {
    /// Adds another histogram: the coarser schema, the wider zero bucket and the common custom bounds of both remain.
    /// The result can have empty buckets; see [`compact`](Self::compact).
    ///
    /// # Errors
    /// When only one has custom buckets; nothing is changed then.
    pub fn add(&mut self, other: &Self) -> Result<Merged, IncompatibleSchemas> {
        self.merge(other, false, None)
    }

    /// As [`add`](Self::add), the other way. Counts can become negative; whoever shows the difference as a result
    /// of its own marks it as a gauge.
    ///
    /// # Errors
    /// When only one has custom buckets; nothing is changed then.
    pub fn sub(&mut self, other: &Self) -> Result<Merged, IncompatibleSchemas> {
        self.merge(other, true, None)
    }

    /// Multiplies all counts and the sum; a negative factor makes a gauge.
    pub fn mul(&mut self, factor: f64) {
        self.each_population(|n| *n *= factor);
        if factor < 0.0 {
            self.reset_hint = ResetHint::Gauge;
        }
    }

    /// Divides all counts and the sum; a negative divisor makes a gauge. Division by zero removes all buckets but
    /// the zero bucket.
    pub fn div(&mut self, divisor: f64) {
        if divisor == 0.0 {
            self.positive = Buckets::default();
            self.negative = Buckets::default();
        }
        self.each_population(|n| *n /= divisor);
        if divisor < 0.0 {
            self.reset_hint = ResetHint::Gauge;
        }
    }

    /// Removes empty buckets and joins adjacent spans.
    pub fn compact(&mut self) {
        self.positive.compact();
        self.negative.compact();
    }

    /// Whether any part is infinite.
    pub(crate) fn has_overflow(&self) -> bool {
        let parts = [self.zero_count, self.count, self.sum];
        let mut all = parts.iter().chain(&self.positive.counts).chain(&self.negative.counts);
        all.any(|n| n.is_infinite())
    }

    fn each_population(&mut self, f: impl Fn(&mut f64)) {
        f(&mut self.zero_count);
        f(&mut self.count);
        f(&mut self.sum);
        self.positive.counts.iter_mut().for_each(&f);
        self.negative.counts.iter_mut().for_each(&f);
    }

    /// The hint of a sum. True when the hints contradict each other.
    fn merge_hint(&mut self, other: ResetHint) -> bool {
        use ResetHint as H;
        let (hint, conflict) = match (self.reset_hint, other) {
            (a, b) if a == b => (a, false),
            (H::Gauge, _) | (_, H::Gauge) => (H::Gauge, false),
            (H::Unknown, _) | (_, H::Unknown) => (H::Unknown, false),
            _ => (H::Unknown, true),
        };
        self.reset_hint = hint;
        conflict
    }

    /// Adds or subtracts. With `errors`, those of `self`, what rounding takes is kept there.
    pub(crate) fn merge(
        &mut self,
        other: &Self,
        negative: bool,
        errors: Option<&mut Errors>,
    ) -> Result<Merged, IncompatibleSchemas> {
        if self.uses_custom_buckets() != other.uses_custom_buckets() {
            return Err(IncompatibleSchemas);
        }
        let mut merged = Merged {
            reset_conflict: self.merge_hint(other.reset_hint),
            bounds_reconciled: false,
        };
        let sign = if negative { -1.0 } else { 1.0 };
        let mut unkept = Errors::default();
        let kept = errors.is_some();
        let e = errors.unwrap_or(&mut unkept);
        if !self.uses_custom_buckets() {
            let (zero_count, zero_error) = self.reconcile_zero_buckets(other, e);
            add_compensated(&mut self.zero_count, &mut e.zero_count, sign * zero_count);
            if kept && zero_error != 0.0 {
                add_compensated(&mut self.zero_count, &mut e.zero_count, sign * zero_error);
            }
        }
        add_compensated(&mut self.count, &mut e.count, sign * other.count);
        add_compensated(&mut self.sum, &mut e.sum, sign * other.sum);

        if self.uses_custom_buckets() {
            if self.custom_bounds() == other.custom_bounds() {
                merge_side(&mut self.positive, &other.positive, sign, &mut e.positive, kept, None);
            } else {
                merged.bounds_reconciled = true;
                self.merge_differing_bounds(other, sign, e, kept);
            }
            return Ok(merged);
        }
        let schema = self.schema.min(other.schema);
        let layout = Layout {
            coarsen_a: self.schema.abs_diff(schema),
            coarsen_b: other.schema.abs_diff(schema),
            skip_b: other.buckets_inside(self.zero_threshold),
        };
        self.schema = schema;
        let (positive, negative) = (layout.side(layout.skip_b.0), layout.side(layout.skip_b.1));
        merge_side(
            &mut self.positive,
            &other.positive,
            sign,
            &mut e.positive,
            kept,
            positive,
        );
        merge_side(
            &mut self.negative,
            &other.negative,
            sign,
            &mut e.negative,
            kept,
            negative,
        );
        Ok(merged)
    }

    /// How many positive and negative buckets lie wholly inside a zero bucket of this threshold.
    pub(crate) fn buckets_inside(&self, threshold: f64) -> (usize, usize) {
        if threshold <= 0.0 || threshold.is_nan() {
            return (0, 0);
        }
        let inside = |side: &Buckets| {
            side.iter()
                .take_while(|(index, _)| self.upper_bound(i64::from(*index)) <= threshold)
                .count()
        };
        (inside(&self.positive), inside(&self.negative))
    }

    /// Both onto the bounds that they have in common.
    fn merge_differing_bounds(&mut self, other: &Self, sign: f64, e: &mut Errors, kept: bool) {
        let common: Vec<f64> = common_bounds(self.custom_bounds(), other.custom_bounds()).collect();
        // One cell per populated bucket suffices: what maps to the same bucket is adjacent.
        let a = mapped(cells(&self.positive, &e.positive), self.custom_bounds(), &common);
        let mut b = cells(&other.positive, &[]);
        b.iter_mut().for_each(|c| c.count *= sign);
        let b = mapped(b, other.custom_bounds(), &common);
        let mut out = merge(a, b);
        out.retain(|c| c.count != 0.0 || c.error != 0.0);
        let (buckets, errors) = into_buckets(&out);
        self.positive = buckets;
        if kept {
            e.positive = errors;
        }
        self.custom_bounds = (!common.is_empty()).then(|| Arc::from(common));
    }

    /// Widens the zero buckets of both to one that cuts no populated bucket of either; only `self` is changed.
    /// Returns the zero count that `other` would have, and its rounding error.
    fn reconcile_zero_buckets(&mut self, other: &Self, e: &mut Errors) -> (f64, f64) {
        let mut theirs = other.zero_count_within(other.zero_threshold, &Errors::default());
        // Thresholds only grow, to bounds of populated buckets, so this ends; NaN is in no relation.
        loop {
            if self.zero_threshold > theirs.threshold {
                theirs = other.zero_count_within(self.zero_threshold, &Errors::default());
            }
            if theirs.threshold > self.zero_threshold {
                let ours = self.zero_count_within(theirs.threshold, e);
                self.zero_count = ours.count;
                self.zero_threshold = ours.threshold;
                e.zero_count = ours.error;
                drop_first(&mut self.positive, &mut e.positive, ours.positive);
                drop_first(&mut self.negative, &mut e.negative, ours.negative);
            } else {
                return (theirs.count, theirs.error);
            }
        }
    }

    /// The zero bucket for a threshold that is not smaller. One inside a populated bucket moves to that bucket's
    /// far end.
    pub(crate) fn zero_count_within(&self, threshold: f64, e: &Errors) -> ZeroBucket {
        let mut zero = ZeroBucket {
            threshold,
            count: self.zero_count,
            error: e.zero_count,
            positive: 0,
            negative: 0,
        };
        if threshold == self.zero_threshold || threshold.is_nan() {
            return zero;
        }
        loop {
            let before = zero.threshold;
            zero.count = self.zero_count;
            zero.error = e.zero_count;
            zero.positive = self.absorb(&self.positive, &e.positive, &mut zero);
            zero.negative = self.absorb(&self.negative, &e.negative, &mut zero);
            // Positive buckets that the negative ones have drawn into the zero bucket are counted anew.
            if zero.threshold == before {
                return zero;
            }
        }
    }

    /// Adds the buckets of a side that begin inside the zero bucket to it. Returns how many those are.
    fn absorb(&self, side: &Buckets, errors: &[f64], zero: &mut ZeroBucket) -> usize {
        let mut absorbed = 0;
        for (i, (index, count)) in side.iter().enumerate() {
            let index = i64::from(index);
            if self.upper_bound(index - 1) >= zero.threshold {
                break;
            }
            add_compensated(&mut zero.count, &mut zero.error, count);
            if let Some(error) = errors.get(i).filter(|e| **e != 0.0) {
                add_compensated(&mut zero.count, &mut zero.error, *error);
            }
            absorbed = i + 1;
            let upper = self.upper_bound(index);
            if upper > zero.threshold && count != 0.0 {
                zero.threshold = upper;
            }
        }
        absorbed
    }
}

/// What a zero bucket of another threshold holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ZeroBucket {
    pub threshold: f64,
    pub count: f64,
    pub error: f64,
    /// Buckets that went into it.
    pub positive: usize,
    pub negative: usize,
}

/// How two sides come to the same buckets.
struct Layout {
    /// Schemas to go down.
    coarsen_a: u32,
    coarsen_b: u32,
    /// Positive and negative buckets of b that are in the zero bucket already.
    skip_b: (usize, usize),
}

impl Layout {
    /// `None` when there is nothing to do.
    fn side(&self, skip_b: usize) -> Option<(u32, u32, usize)> {
        let plain = self.coarsen_a == 0 && self.coarsen_b == 0 && skip_b == 0;
        (!plain).then_some((self.coarsen_a, self.coarsen_b, skip_b))
    }
}

/// `layout`: schemas to go down for a and b, buckets of b to leave out.
fn merge_side(
    a: &mut Buckets,
    b: &Buckets,
    sign: f64,
    errors: &mut Vec<f64>,
    kept: bool,
    layout: Option<(u32, u32, usize)>,
) {
    if layout.is_none() && a.same_layout(b) && a.iter().len() == a.counts.len() {
        if kept {
            errors.resize(a.counts.len(), 0.0);
            for ((x, error), y) in a.counts.iter_mut().zip(errors).zip(&b.counts) {
                add_compensated(x, error, sign * y);
            }
        } else {
            a.counts.iter_mut().zip(&b.counts).for_each(|(x, y)| *x += sign * y);
        }
        return;
    }
    let (coarsen_a, coarsen_b, skip_b) = layout.unwrap_or_default();
    let prepare = |mut cells: Vec<Cell>, levels: u32| {
        coarsen(&mut cells, levels);
        if !kept {
            cells.iter_mut().for_each(|c| c.error = 0.0);
        }
        cells
    };
    let mut theirs = cells(b, &[]);
    theirs.drain(..skip_b.min(theirs.len()));
    theirs.iter_mut().for_each(|c| c.count *= sign);
    let ours = prepare(cells(a, errors), coarsen_a);
    let out = merge(ours, prepare(theirs, coarsen_b));
    let (buckets, new_errors) = into_buckets(&out);
    *a = buckets;
    if kept {
        *errors = new_errors;
    }
}

/// Removes the first `n` buckets.
fn drop_first(side: &mut Buckets, errors: &mut Vec<f64>, n: usize) {
    if n == 0 {
        return;
    }
    let mut rest = cells(side, errors);
    rest.drain(..n.min(rest.len()));
    let (buckets, rest) = into_buckets(&rest);
    *side = buckets;
    *errors = rest;
}

/// The bounds that both have; ascending.
pub(crate) fn common_bounds<'a>(a: &'a [f64], b: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
    let (mut i, mut j) = (0, 0);
    std::iter::from_fn(move || {
        while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
            if x == y {
                (i, j) = (i + 1, j + 1);
                return Some(*x);
            }
            if x < y {
                i += 1;
            } else {
                j += 1;
            }
        }
        None
    })
}

/// Custom buckets in terms of some of their bounds.
fn mapped(mut cells: Vec<Cell>, from: &[f64], to: &[f64]) -> Vec<Cell> {
    let mut target = 0;
    for cell in &mut cells {
        let bound = usize::try_from(cell.index).ok().and_then(|i| from.get(i));
        target = match bound {
            Some(bound) => target + to[target..].iter().take_while(|t| *t < bound).count(),
            None => to.len(),
        };
        cell.index = target as i32;
    }
    let mut out: Vec<Cell> = Vec::with_capacity(cells.len());
    for cell in cells {
        match out.last_mut() {
            Some(last) if last.index == cell.index => {
                add_compensated(&mut last.count, &mut last.error, cell.count);
                if cell.error != 0.0 {
                    add_compensated(&mut last.count, &mut last.error, cell.error);
                }
            }
            _ => out.push(cell),
        }
    }
    out
}
