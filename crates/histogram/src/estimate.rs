//! What a histogram says about its observations: quantiles, fractions, spread.

use crate::cells::add_compensated;
use crate::{Bucket, FloatHistogram};

/// What observations of NaN did to a quantile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NanEffect {
    None,
    /// They count as the largest observations.
    Skewed,
    /// The quantile falls among them.
    Result,
}

impl FloatHistogram {
    /// The φ-quantile: interpolated exponentially in the buckets of exponential schemas, linearly in the zero bucket
    /// and in custom buckets.
    ///
    /// −∞ for φ < 0, +∞ for φ > 1, NaN without observations or for φ NaN.
    pub fn quantile(&self, phi: f64) -> (f64, NanEffect) {
        if phi < 0.0 {
            return (f64::NEG_INFINITY, NanEffect::None);
        }
        if phi > 1.0 {
            return (f64::INFINITY, NanEffect::None);
        }
        if self.count == 0.0 || phi.is_nan() {
            return (f64::NAN, NanEffect::None);
        }
        // From the nearer end. NaN observations are part of the count but of no bucket, so the upper end is unknown
        // with them.
        let maybe_nan = self.sum.is_nan();
        let ascending = maybe_nan || phi < 0.5;
        let (mut up, mut down) = (self.buckets(), self.buckets().rev());
        let mut next = || if ascending { up.next() } else { down.next() };
        let mut rank = if ascending { phi } else { 1.0 - phi } * self.count;
        let (mut bucket, mut count) = (Bucket::default(), 0.0);
        while let Some(b) = next() {
            bucket = b;
            if b.count == 0.0 {
                continue;
            }
            count += b.count;
            if count >= rank {
                break;
            }
        }
        if self.uses_custom_buckets() {
            if bucket.lower == f64::NEG_INFINITY {
                if bucket.upper <= 0.0 {
                    return (bucket.upper, NanEffect::None);
                }
                bucket.lower = 0.0;
            } else if bucket.upper == f64::INFINITY {
                return (bucket.lower, NanEffect::None);
            }
        } else if bucket.lower < 0.0 && bucket.upper > 0.0 {
            self.clip_zero_bucket(&mut bucket);
        }
        // Rounding can sum the buckets to more than the count.
        count = count.min(self.count);
        if count < rank {
            return if maybe_nan {
                (f64::NAN, NanEffect::Result)
            } else {
                (bucket.upper, NanEffect::None)
            };
        }
        if ascending {
            rank -= count - bucket.count;
        } else {
            rank = count - rank;
        }
        let mut effect = NanEffect::None;
        if maybe_nan {
            while let Some(b) = next() {
                count += b.count;
            }
            if count < self.count {
                effect = NanEffect::Skewed;
            }
        }
        let fraction = rank / bucket.count;
        (self.interpolate(&bucket, fraction), effect)
    }

    fn interpolate(&self, bucket: &Bucket, fraction: f64) -> f64 {
        let Bucket { lower, upper, .. } = *bucket;
        if self.uses_custom_buckets() || (lower <= 0.0 && upper >= 0.0) {
            return lower + (upper - lower) * fraction;
        }
        let (log_lower, log_upper) = (lower.abs().log2(), upper.abs().log2());
        if lower > 0.0 {
            (log_lower + (log_upper - log_lower) * fraction).exp2()
        } else {
            -(log_upper + (log_lower - log_upper) * (1.0 - fraction)).exp2()
        }
    }

    /// A zero bucket next to buckets of one sign only holds nothing of the other.
    fn clip_zero_bucket(&self, bucket: &mut Bucket) {
        match (self.negative.counts.is_empty(), self.positive.counts.is_empty()) {
            (true, false) => bucket.lower = 0.0,
            (false, true) => bucket.upper = 0.0,
            _ => {}
        }
    }

    /// The fraction of observations between two values, interpolated as in [`quantile`](Self::quantile), and whether
    /// observations of NaN are missing in it.
    ///
    /// NaN without observations or for a bound NaN, 0 for bounds that do not ascend.
    pub fn fraction(&self, lower: f64, upper: f64) -> (f64, bool) {
        if self.count == 0.0 || lower.is_nan() || upper.is_nan() {
            return (f64::NAN, false);
        }
        if lower >= upper {
            return (0.0, false);
        }
        let (mut rank, mut total) = (0.0, 0.0);
        let (mut lower_rank, mut upper_rank) = (None, None);
        let mut buckets = self.buckets();
        for mut bucket in buckets.by_ref() {
            total += bucket.count;
            let zero = bucket.lower <= 0.0 && bucket.upper >= 0.0;
            if zero {
                self.clip_zero_bucket(&mut bucket);
            }
            for (bound, at) in [(lower, &mut lower_rank), (upper, &mut upper_rank)] {
                if at.is_some() {
                    continue;
                }
                if bucket.lower >= bound {
                    *at = Some(rank);
                } else if bucket.upper > bound {
                    let linear = self.uses_custom_buckets() || zero;
                    *at = Some(if linear && bucket.lower == f64::NEG_INFINITY {
                        bucket.count
                    } else {
                        rank + bucket.count * bucket.fraction_below(bound, linear)
                    });
                }
            }
            if lower_rank.is_some() && upper_rank.is_some() {
                break;
            }
            rank += bucket.count;
        }
        let mut nan_missing = false;
        if self.sum.is_nan() {
            total += buckets.map(|b| b.count).sum::<f64>();
            nan_missing = total < self.count;
        } else {
            total = self.count;
        }
        let within = |rank: Option<f64>| rank.filter(|r| *r <= total).unwrap_or(total);
        ((within(upper_rank) - within(lower_rank)) / self.count, nan_missing)
    }

    /// The mean, NaN without observations.
    pub fn mean(&self) -> f64 {
        self.sum / self.count
    }

    /// The variance around [`mean`](Self::mean) when every observation stands at the middle of its bucket: the
    /// geometric mean of the bounds, 0 in the zero bucket, the arithmetic mean in custom buckets.
    pub fn variance(&self) -> f64 {
        let mean = self.mean();
        let (mut variance, mut error) = (0.0, 0.0);
        for b in self.buckets().filter(|b| b.count != 0.0) {
            let at = if self.uses_custom_buckets() {
                (b.upper + b.lower) / 2.0
            } else if b.lower <= 0.0 && b.upper >= 0.0 {
                0.0
            } else {
                (b.upper * b.lower).sqrt().copysign(b.upper)
            };
            let delta = at - mean;
            add_compensated(&mut variance, &mut error, b.count * delta * delta);
        }
        (variance + error) / self.count
    }
}
