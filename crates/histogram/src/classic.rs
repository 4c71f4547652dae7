//! Classic buckets as a histogram with custom buckets.

use std::sync::Arc;

use crate::{Buckets, CUSTOM_SCHEMA, FloatHistogram, HistogramError, ResetHint};

/// Collects the cumulative buckets of a classic histogram, in any order.
#[derive(Clone, Debug, Default)]
pub struct ClassicBuckets {
    /// Upper bound and cumulative count, ascending.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
}

impl ClassicBuckets {
    /// Adds a bucket. A bound that is there already is ignored.
    ///
    /// # Errors
    /// For a bound NaN, a negative count, or one that contradicts its neighbours.
    pub fn bucket(&mut self, le: f64, count: f64) -> Result<(), HistogramError> {
        if le.is_nan() {
            return Err(HistogramError::ClassicNanBound);
        }
        if count < 0.0 {
            return Err(HistogramError::ClassicNegativeBucket { le, count });
        }
        let at = self.buckets.partition_point(|(bound, _)| *bound < le);
        let (before, after) = (
            at.checked_sub(1).and_then(|i| self.buckets.get(i)),
            self.buckets.get(at),
        );
        if after.is_some_and(|(bound, _)| *bound == le) {
            return Ok(());
        }
        let contradiction = |before: f64, after: f64| Err(HistogramError::ClassicNotCumulative { before, after });
        match (before, after) {
            (Some((_, before)), _) if count < *before => contradiction(*before, count),
            (_, Some((_, after))) if count > *after => contradiction(count, *after),
            _ => {
                self.buckets.insert(at, (le, count));
                Ok(())
            }
        }
    }

    /// # Errors
    /// For a negative count.
    pub fn count(&mut self, count: f64) -> Result<(), HistogramError> {
        if count < 0.0 {
            return Err(HistogramError::ClassicNegativeCount(count));
        }
        self.count = Some(count);
        Ok(())
    }

    pub fn sum(&mut self, sum: f64) {
        self.sum = sum;
    }

    /// The histogram. Without a count that of the last bucket stands for it; without a last bucket of `+Inf` one is
    /// added with the count.
    ///
    /// # Errors
    /// When the count is not that of the last bucket.
    pub fn finish(mut self) -> Result<FloatHistogram, HistogramError> {
        let last = self.buckets.last().copied();
        let count = self.count.or(last.map(|(_, n)| n)).unwrap_or(0.0);
        if last.is_none_or(|(bound, _)| bound != f64::INFINITY) {
            self.buckets.push((f64::INFINITY, count));
        }
        let (le, bucket) = self.buckets[self.buckets.len() - 1];
        if count != bucket {
            return Err(HistogramError::ClassicCountMismatch { count, le, bucket });
        }
        let mut below = 0.0;
        let counts = self.buckets.iter().map(|(_, n)| n - std::mem::replace(&mut below, *n));
        let mut positive = Buckets::run(0, counts.collect());
        positive.compact();
        let bounds: Vec<f64> = self.buckets[..self.buckets.len() - 1]
            .iter()
            .map(|(le, _)| *le)
            .collect();
        Ok(FloatHistogram {
            reset_hint: ResetHint::Unknown,
            schema: CUSTOM_SCHEMA,
            count,
            sum: self.sum,
            positive,
            custom_bounds: (!bounds.is_empty()).then(|| Arc::from(bounds)),
            ..FloatHistogram::default()
        })
    }
}
