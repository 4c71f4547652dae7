//! Equality and counter resets.

use std::iter::Peekable;

use crate::arithmetic::{Errors, common_bounds};
use crate::cells::coarser_index;
use crate::{BucketIter, Buckets, FloatHistogram, ResetHint};

impl FloatHistogram {
    /// Whether both hold the same data: bits of counts and sum, thresholds, bounds, and the same buckets whether
    /// populated or not. Hints play no role.
    pub fn same(&self, other: &Self) -> bool {
        let bits = |a: f64, b: f64| a.to_bits() == b.to_bits();
        let same_side =
            |a: &Buckets, b: &Buckets| a.same_layout(b) && a.counts.iter().zip(&b.counts).all(|(a, b)| bits(*a, *b));
        self.schema == other.schema
            && bits(self.count, other.count)
            && bits(self.sum, other.sum)
            && bits(self.zero_count, other.zero_count)
            && self.zero_threshold == other.zero_threshold
            && (!self.uses_custom_buckets() || self.custom_bounds() == other.custom_bounds())
            && same_side(&self.positive, &other.positive)
            && same_side(&self.negative, &other.negative)
    }

    /// Whether a counter was reset between a histogram and this later one: by the hint if it says so, else because
    /// something that can only grow has become less.
    pub fn detect_reset(&self, previous: &Self) -> bool {
        match self.reset_hint {
            ResetHint::Reset => return true,
            ResetHint::NotReset => return false,
            // A gauge in a function for counters is treated as one.
            ResetHint::Unknown | ResetHint::Gauge => {}
        }
        if self.count < previous.count {
            return true;
        }
        if self.uses_custom_buckets() {
            if !previous.uses_custom_buckets() {
                return true;
            }
            if self.custom_bounds() != previous.custom_bounds() {
                return self.lost_within_common_bounds(previous);
            }
        }
        // Custom buckets before count as the finest schema's opposite: any schema is finer.
        if self.schema > previous.schema || self.zero_threshold < previous.zero_threshold {
            return true;
        }
        let zero = previous.zero_count_within(self.zero_threshold, &Errors::default());
        if zero.threshold != self.zero_threshold || self.zero_count < zero.count {
            return true;
        }
        let levels = previous.schema.abs_diff(self.schema);
        let inside = self.buckets_inside(self.zero_threshold);
        let lost = |now: &Buckets, skip: usize, before: &Buckets, absorbed: usize| {
            let now = now.iter().skip(skip);
            lost(now, coarsened(before.iter(), absorbed, levels))
        };
        let absorbed = if zero.positive + zero.negative > 0 {
            (zero.positive, zero.negative)
        } else {
            previous.buckets_inside(self.zero_threshold)
        };
        lost(&self.positive, inside.0, &previous.positive, absorbed.0)
            || lost(&self.negative, inside.1, &previous.negative, absorbed.1)
    }

    fn lost_within_common_bounds(&self, previous: &Self) -> bool {
        let mut now = Rollup::of(self);
        let mut before = Rollup::of(previous);
        let bounds = common_bounds(self.custom_bounds(), previous.custom_bounds());
        bounds
            .chain([f64::INFINITY])
            .any(|bound| now.up_to(bound) < before.up_to(bound))
    }
}

/// Whether a bucket holds less than before. Both ascend.
fn lost(now: impl Iterator<Item = (i32, f64)>, before: impl Iterator<Item = (i32, f64)>) -> bool {
    let mut now = now.peekable();
    for (index, count) in before {
        while now.next_if(|(i, _)| *i < index).is_some() {}
        let lost = match now.peek() {
            Some((i, n)) if *i == index => *n < count,
            _ => count != 0.0,
        };
        if lost {
            return true;
        }
    }
    false
}

/// Buckets but the first `skip`, merged into those of a schema coarser by `levels`.
fn coarsened(buckets: BucketIter<'_>, skip: usize, levels: u32) -> impl Iterator<Item = (i32, f64)> {
    let mut buckets = buckets.skip(skip).peekable();
    std::iter::from_fn(move || {
        let (index, mut count) = buckets.next()?;
        if levels == 0 {
            return Some((index, count));
        }
        let index = coarser_index(index, levels);
        while let Some((_, more)) = buckets.next_if(|(i, _)| coarser_index(*i, levels) == index) {
            count += more;
        }
        Some((index, count))
    })
}

/// Populations of custom buckets summed up between bounds.
struct Rollup<'a> {
    bounds: &'a [f64],
    buckets: Peekable<BucketIter<'a>>,
}

impl<'a> Rollup<'a> {
    fn of(h: &'a FloatHistogram) -> Self {
        Rollup {
            bounds: h.custom_bounds(),
            buckets: h.positive.iter().peekable(),
        }
    }

    /// Of the buckets after the last ones up to this bound.
    fn up_to(&mut self, bound: f64) -> f64 {
        let upper = |index: i32| {
            let at = usize::try_from(index).ok().and_then(|i| self.bounds.get(i));
            at.copied().unwrap_or(f64::INFINITY)
        };
        let mut sum = 0.0;
        while let Some((_, count)) = self.buckets.next_if(|(index, _)| upper(*index) <= bound) {
            sum += count;
        }
        sum
    }
}
