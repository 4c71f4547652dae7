//! Sums and means of many histograms.

use crate::arithmetic::{Errors, IncompatibleSchemas, Merged};
use crate::{Buckets, FloatHistogram, ResetHint};

/// Which hints were seen among the terms.
#[derive(Clone, Copy, Debug, Default)]
struct Hints {
    reset: bool,
    not_reset: bool,
}

impl Hints {
    fn see(&mut self, h: &FloatHistogram) {
        self.reset |= h.reset_hint == ResetHint::Reset;
        self.not_reset |= h.reset_hint == ResetHint::NotReset;
    }
}

/// A compensated sum (Kahan, Neumaier): the result does not depend on the order of the terms but for the last bits.
#[derive(Clone, Debug)]
pub struct HistogramSum {
    sum: FloatHistogram,
    errors: Errors,
    hints: Hints,
    bounds_reconciled: bool,
}

impl HistogramSum {
    pub fn new(first: &FloatHistogram) -> Self {
        let mut hints = Hints::default();
        hints.see(first);
        HistogramSum {
            sum: first.clone(),
            errors: Errors::default(),
            hints,
            bounds_reconciled: false,
        }
    }

    /// # Errors
    /// When only one side has custom buckets; the sum is of no use then.
    pub fn add(&mut self, h: &FloatHistogram) -> Result<Merged, IncompatibleSchemas> {
        self.hints.see(h);
        let merged = self.sum.merge(h, false, Some(&mut self.errors))?;
        self.bounds_reconciled |= merged.bounds_reconciled;
        Ok(merged)
    }

    /// Whether some terms followed a counter reset while others did not.
    pub fn reset_conflict(&self) -> bool {
        self.hints.reset && self.hints.not_reset
    }

    /// Whether custom bounds differed among the terms.
    pub fn bounds_reconciled(&self) -> bool {
        self.bounds_reconciled
    }

    /// The sum, compact.
    pub fn finish(mut self) -> FloatHistogram {
        self.sum.add_errors(&self.errors);
        self.sum.compact();
        self.sum
    }

    fn scale(&mut self, f: impl Fn(&mut FloatHistogram), g: impl Fn(f64) -> f64) {
        f(&mut self.sum);
        let e = &mut self.errors;
        for part in [&mut e.zero_count, &mut e.count, &mut e.sum] {
            *part = g(*part);
        }
        for part in e.positive.iter_mut().chain(&mut e.negative) {
            *part = g(*part);
        }
    }

    fn mul(&mut self, factor: f64) {
        self.scale(|h| h.mul(factor), |e| e * factor);
    }

    fn div(&mut self, divisor: f64) {
        self.scale(|h| h.div(divisor), |e| e / divisor);
    }
}

impl FloatHistogram {
    fn add_errors(&mut self, e: &Errors) {
        self.zero_count += e.zero_count;
        self.count += e.count;
        self.sum += e.sum;
        for (side, errors) in [(&mut self.positive, &e.positive), (&mut self.negative, &e.negative)] {
            let Buckets { counts, .. } = side;
            counts.iter_mut().zip(errors).for_each(|(n, error)| *n += error);
        }
    }
}

/// A compensated mean. It is the sum divided by the number of terms as long as the sum does not overflow, and is
/// updated term by term from then on.
#[derive(Clone, Debug)]
pub struct HistogramMean {
    sum: HistogramSum,
    terms: f64,
    /// `sum` is the mean already.
    incremental: bool,
}

impl HistogramMean {
    pub fn new(first: &FloatHistogram) -> Self {
        HistogramMean {
            sum: HistogramSum::new(first),
            terms: 1.0,
            incremental: false,
        }
    }

    /// # Errors
    /// When only one side has custom buckets; the mean is of no use then.
    pub fn add(&mut self, h: &FloatHistogram) -> Result<(), IncompatibleSchemas> {
        self.terms += 1.0;
        if !self.incremental {
            if !self.may_overflow(h) {
                self.sum.add(h)?;
                return Ok(());
            }
            let mut next = self.sum.clone();
            next.add(h)?;
            if !next.sum.has_overflow() {
                self.sum = next;
                return Ok(());
            }
            self.sum.bounds_reconciled |= next.bounds_reconciled;
            self.incremental = true;
            self.sum.div(self.terms - 1.0);
        }
        let mut share = h.clone();
        share.div(self.terms);
        self.sum.mul((self.terms - 1.0) / self.terms);
        self.sum.add(&share)?;
        Ok(())
    }

    /// See [`HistogramSum::reset_conflict`].
    pub fn reset_conflict(&self) -> bool {
        self.sum.reset_conflict()
    }

    /// See [`HistogramSum::bounds_reconciled`].
    pub fn bounds_reconciled(&self) -> bool {
        self.sum.bounds_reconciled
    }

    /// The mean, compact.
    pub fn finish(mut self) -> FloatHistogram {
        if !self.incremental {
            self.sum.div(self.terms);
        }
        self.sum.finish()
    }

    /// A cheap test that spares most sums a copy: no bucket can overflow while the counts are far from it.
    fn may_overflow(&self, h: &FloatHistogram) -> bool {
        const FAR: f64 = 1e300;
        let far = |h: &FloatHistogram| {
            h.sum.abs() < FAR
                && h.count.abs() < FAR
                && h.zero_count.abs() < FAR
                && h.positive
                    .counts
                    .iter()
                    .chain(&h.negative.counts)
                    .all(|n| n.abs() < FAR)
        };
        // Each of the largest parts may be made of as many buckets as there are.
        !(far(&self.sum.sum) && far(h))
    }
}
