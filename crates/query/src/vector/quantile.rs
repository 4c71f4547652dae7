//! Quantiles of values and of classic histogram buckets.

/// The φ-quantile of values in any order, by linear interpolation between the closest ranks. NaN counts as the
/// smallest value. `-Inf` for φ < 0, `+Inf` for φ > 1, NaN for φ NaN or without values. Sorts `values`.
pub fn quantile(phi: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || phi.is_nan() {
        return f64::NAN;
    }
    if phi < 0.0 {
        return f64::NEG_INFINITY;
    }
    if phi > 1.0 {
        return f64::INFINITY;
    }
    values.sort_unstable_by(|a, b| {
        // NaN first, whatever its sign.
        b.is_nan()
            .cmp(&a.is_nan())
            .then_with(|| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal))
    });
    let n = values.len() as f64;
    let rank = phi * (n - 1.0);
    let lower = rank.floor().max(0.0);
    let upper = (lower + 1.0).min(n - 1.0);
    let weight = rank - rank.floor();
    values[lower as usize] * (1.0 - weight) + values[upper as usize] * weight
}

/// A cumulative bucket of a classic histogram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    pub upper_bound: f64,
    /// Observations at or below the bound.
    pub count: f64,
}

/// Differences of neighbouring counts below this fraction are rounding noise.
const MONOTONIC_TOLERANCE: f64 = 1e-12;

/// A quantile and whether the buckets had to be repaired first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BucketQuantile {
    pub value: f64,
    pub repaired: bool,
}

/// The φ-quantile by linear interpolation inside a bucket. `buckets` come in any order and are sorted,
/// buckets of equal bounds merged and decreasing counts raised.
///
/// NaN without a `+Inf` bucket, with fewer than two buckets or without observations; `-Inf` for φ < 0,
/// `+Inf` for φ > 1. Semantics: Prometheus `promql/quantile.go`.
pub fn bucket_quantile(phi: f64, buckets: &mut Vec<Bucket>) -> BucketQuantile {
    let plain = |value| BucketQuantile { value, repaired: false };
    if phi.is_nan() {
        return plain(f64::NAN);
    }
    if phi < 0.0 {
        return plain(f64::NEG_INFINITY);
    }
    if phi > 1.0 {
        return plain(f64::INFINITY);
    }
    buckets.sort_by(|a, b| a.upper_bound.total_cmp(&b.upper_bound));
    if buckets.last().is_none_or(|b| b.upper_bound != f64::INFINITY) {
        return plain(f64::NAN);
    }
    buckets.dedup_by(|b, kept| {
        let same = b.upper_bound == kept.upper_bound;
        if same {
            kept.count += b.count;
        }
        same
    });
    let repaired = make_monotonic(buckets);
    if buckets.len() < 2 {
        return BucketQuantile {
            value: f64::NAN,
            repaired,
        };
    }
    let total = buckets[buckets.len() - 1].count;
    if total == 0.0 || total.is_nan() {
        return BucketQuantile {
            value: f64::NAN,
            repaired,
        };
    }
    let rank = phi * total;
    let last = buckets.len() - 1;
    let at = buckets[..last].iter().position(|b| b.count >= rank).unwrap_or(last);
    let value = if at == last {
        buckets[last - 1].upper_bound
    } else if at == 0 && buckets[0].upper_bound <= 0.0 {
        buckets[0].upper_bound
    } else {
        let (low, below) = if at == 0 {
            (0.0, 0.0)
        } else {
            (buckets[at - 1].upper_bound, buckets[at - 1].count)
        };
        let high = buckets[at].upper_bound;
        low + (high - low) * ((rank - below) / (buckets[at].count - below))
    };
    BucketQuantile { value, repaired }
}

/// Raises counts that lie below their predecessor. True when one lay more than noise below.
fn make_monotonic(buckets: &mut [Bucket]) -> bool {
    let mut repaired = false;
    let Some(first) = buckets.first() else {
        return false;
    };
    let mut accepted = first.count;
    for b in &mut buckets[1..] {
        if b.count == accepted {
            continue;
        }
        let scale = (b.count.abs() + accepted.abs()).min(f64::MAX);
        if (b.count - accepted).abs() / scale < MONOTONIC_TOLERANCE {
            b.count = accepted;
        } else if b.count < accepted {
            b.count = accepted;
            repaired = true;
        } else {
            accepted = b.count;
        }
    }
    repaired
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpolates_between_ranks() {
        assert_eq!(quantile(0.5, &mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(quantile(0.25, &mut [1.0, 2.0]), 1.25);
        assert_eq!(quantile(1.0, &mut [1.0, 2.0]), 2.0);
        assert_eq!(quantile(-0.1, &mut [1.0]), f64::NEG_INFINITY);
        assert_eq!(quantile(1.1, &mut [1.0]), f64::INFINITY);
        assert!(quantile(0.5, &mut []).is_nan());
        assert!(quantile(f64::NAN, &mut [1.0]).is_nan());
        assert_eq!(quantile(1.0, &mut [f64::NAN, 1.0]), 1.0);
        assert!(quantile(0.0, &mut [1.0, f64::NAN]).is_nan());
    }

    fn buckets(b: &[(f64, f64)]) -> Vec<Bucket> {
        b.iter()
            .map(|&(upper_bound, count)| Bucket { upper_bound, count })
            .collect()
    }

    #[test]
    fn bucket_quantiles() {
        let inf = f64::INFINITY;
        let q = |phi, b: &[(f64, f64)]| bucket_quantile(phi, &mut buckets(b));
        assert_eq!(q(0.5, &[(1.0, 2.0), (2.0, 6.0), (inf, 8.0)]).value, 1.5);
        assert_eq!(q(0.1, &[(1.0, 2.0), (2.0, 6.0), (inf, 8.0)]).value, 0.4);
        assert_eq!(q(1.0, &[(1.0, 2.0), (2.0, 6.0), (inf, 8.0)]).value, 2.0);
        assert_eq!(q(0.1, &[(-1.0, 2.0), (inf, 8.0)]).value, -1.0);
        assert_eq!(q(0.5, &[(inf, 8.0), (2.0, 3.0), (2.0, 3.0), (1.0, 2.0)]).value, 1.5);
        assert!(q(0.5, &[(1.0, 2.0), (2.0, 6.0)]).value.is_nan());
        assert!(q(0.5, &[(inf, 2.0)]).value.is_nan());
        assert!(q(0.5, &[(1.0, 0.0), (inf, 0.0)]).value.is_nan());
        let broken = q(0.5, &[(1.0, 4.0), (2.0, 3.0), (inf, 8.0)]);
        assert_eq!(
            broken,
            BucketQuantile {
                value: 1.0,
                repaired: true
            }
        );
        assert!(!q(0.5, &[(1.0, 4.0), (2.0, 4.0 - 1e-13), (inf, 8.0)]).repaired);
    }
}
