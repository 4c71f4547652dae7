//! Quantiles of values and of classic histogram buckets.

/// The φ-quantile of values in any order, by linear interpolation between the closest ranks. NaN counts as the
/// smallest value. `-Inf` for φ < 0, `+Inf` for φ > 1, NaN for φ NaN or without values. Reorders `values`.
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
    // NaN first, whatever its sign.
    let order = |a: &f64, b: &f64| {
        let equal = std::cmp::Ordering::Equal;
        b.is_nan()
            .cmp(&a.is_nan())
            .then_with(|| a.partial_cmp(b).unwrap_or(equal))
    };
    let rank = phi * (values.len() as f64 - 1.0);
    let weight = rank - rank.floor();
    let lower = (rank.floor().max(0.0) as usize).min(values.len() - 1);
    let (_, low, above) = values.select_nth_unstable_by(lower, order);
    // The next one in order is the least of those above; at the end there is none.
    let high = above.iter().copied().min_by(order).unwrap_or(*low);
    *low * (1.0 - weight) + high * weight
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

/// A quantile, and what had to be done to the buckets first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BucketQuantile {
    pub value: f64,
    pub repair: Option<Repair>,
}

/// Buckets whose count lay below that of the bucket before by more than noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Repair {
    pub min_bound: f64,
    pub max_bound: f64,
    /// The largest difference.
    pub max_diff: f64,
}

/// The φ-quantile by linear interpolation inside a bucket. `buckets` come in any order and are sorted,
/// buckets of equal bounds merged and decreasing counts raised.
///
/// NaN without a `+Inf` bucket, with fewer than two buckets or without observations; `-Inf` for φ < 0,
/// `+Inf` for φ > 1. Semantics: Prometheus `promql/quantile.go`.
pub fn bucket_quantile(phi: f64, buckets: &mut Vec<Bucket>) -> BucketQuantile {
    let plain = |value| BucketQuantile { value, repair: None };
    if phi.is_nan() {
        return plain(f64::NAN);
    }
    if phi < 0.0 {
        return plain(f64::NEG_INFINITY);
    }
    if phi > 1.0 {
        return plain(f64::INFINITY);
    }
    if !coalesce(buckets) {
        return plain(f64::NAN);
    }
    let repair = make_monotonic(buckets);
    let last = buckets.len() - 1;
    let total = buckets[last].count;
    if buckets.len() < 2 || total == 0.0 {
        return BucketQuantile {
            value: f64::NAN,
            repair,
        };
    }
    let mut rank = phi * total;
    let at = first_reaching(&buckets[..last], rank);
    let value = if at == last {
        buckets[last - 1].upper_bound
    } else if at == 0 && buckets[0].upper_bound <= 0.0 {
        buckets[0].upper_bound
    } else {
        let (mut low, mut count) = (0.0, buckets[at].count);
        if at > 0 {
            low = buckets[at - 1].upper_bound;
            count -= buckets[at - 1].count;
            rank -= buckets[at - 1].count;
        }
        low + (buckets[at].upper_bound - low) * (rank / count)
    };
    BucketQuantile { value, repair }
}

/// The fraction of observations between two values, by linear interpolation inside buckets. `buckets` as for
/// [`bucket_quantile`].
///
/// NaN without a `+Inf` bucket, without observations or for a bound NaN; 0 for bounds that do not ascend.
pub fn bucket_fraction(lower: f64, upper: f64, buckets: &mut Vec<Bucket>) -> f64 {
    if !coalesce(buckets) {
        return f64::NAN;
    }
    let total = buckets[buckets.len() - 1].count;
    if total == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    // All observations are positive unless a bound says otherwise.
    let mut low = if buckets[0].upper_bound > 0.0 {
        0.0
    } else {
        f64::NEG_INFINITY
    };
    let mut below = 0.0;
    let mut ranks = [(lower, None), (upper, None)];
    for b in buckets.iter() {
        for (bound, rank) in ranks.iter_mut().filter(|(_, rank)| rank.is_none()) {
            if low >= *bound {
                *rank = Some(below);
            } else if b.upper_bound > *bound {
                *rank = Some(if low == f64::NEG_INFINITY {
                    b.count
                } else {
                    below + (b.count - below) * (*bound - low) / (b.upper_bound - low)
                });
            }
        }
        low = b.upper_bound;
        below = b.count;
    }
    let [lower, upper] = ranks.map(|(_, rank)| rank.filter(|r| *r <= total).unwrap_or(total));
    (upper - lower) / total
}

/// Sorts buckets by their bounds and adds up those of the same. False when the last one is not `+Inf`.
fn coalesce(buckets: &mut Vec<Bucket>) -> bool {
    buckets.sort_by(|a, b| a.upper_bound.total_cmp(&b.upper_bound));
    buckets.dedup_by(|b, kept| {
        let same = b.upper_bound == kept.upper_bound;
        if same {
            kept.count += b.count;
        }
        same
    });
    buckets.last().is_some_and(|b| b.upper_bound == f64::INFINITY)
}

/// The first bucket whose count reaches the rank, the length if there is none. Counts ascend but for NaN among them,
/// where the result is that of this very search.
fn first_reaching(buckets: &[Bucket], rank: f64) -> usize {
    let (mut from, mut to) = (0, buckets.len());
    while from < to {
        let middle = (from + to) / 2;
        if buckets[middle].count >= rank {
            to = middle;
        } else {
            from = middle + 1;
        }
    }
    from
}

/// Raises counts that lie below their predecessor. Differences in the range of noise are levelled silently.
fn make_monotonic(buckets: &mut [Bucket]) -> Option<Repair> {
    let mut repair: Option<Repair> = None;
    let mut accepted = buckets.first()?.count;
    for b in &mut buckets[1..] {
        if b.count == accepted {
            continue;
        }
        let scale = (b.count.abs() + accepted.abs()).min(f64::MAX);
        let diff = accepted - b.count;
        if diff.abs() / scale < MONOTONIC_TOLERANCE {
            b.count = accepted;
        } else if b.count < accepted {
            b.count = accepted;
            let r = repair.get_or_insert(Repair {
                min_bound: f64::INFINITY,
                max_bound: f64::NEG_INFINITY,
                max_diff: 0.0,
            });
            r.min_bound = r.min_bound.min(b.upper_bound);
            r.max_bound = r.max_bound.max(b.upper_bound);
            r.max_diff = r.max_diff.max(diff);
        } else {
            accepted = b.count;
        }
    }
    repair
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

    #[test]
    fn selection_agrees_with_sorting() {
        let mut state = 7u64;
        for n in 1..200usize {
            let mut vs: Vec<f64> = (0..n % 37 + 1)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    let v = (state >> 40) % 11;
                    if v == 0 { f64::NAN } else { v as f64 }
                })
                .collect();
            let phi = (n % 8) as f64 / 7.0;
            let mut sorted = vs.clone();
            sorted.sort_by(|a, b| b.is_nan().cmp(&a.is_nan()).then(a.total_cmp(b)));
            let rank = phi * (sorted.len() as f64 - 1.0);
            let at = |i: f64| sorted[(i as usize).min(sorted.len() - 1)];
            let want = at(rank.floor()) * (1.0 - rank.fract()) + at(rank.floor() + 1.0) * rank.fract();
            let got = quantile(phi, &mut vs);
            assert!(
                got == want || (got.is_nan() && want.is_nan()),
                "{phi} {sorted:?}: {got}, not {want}"
            );
        }
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
        assert_eq!(broken.value, 1.0);
        assert_eq!(
            broken.repair,
            Some(Repair {
                min_bound: 2.0,
                max_bound: 2.0,
                max_diff: 1.0
            })
        );
        let broken = q(0.5, &[(1.0, 4.0), (2.0, 3.0), (4.0, 5.0), (8.0, 1.0), (inf, 8.0)]);
        let repair = broken.repair.unwrap();
        assert_eq!((repair.min_bound, repair.max_bound, repair.max_diff), (2.0, 8.0, 4.0));
        assert_eq!(q(0.5, &[(1.0, 4.0), (2.0, 4.0 - 1e-13), (inf, 8.0)]).repair, None);
        assert_eq!(q(0.5, &[(1.0, 4.0), (2.0, 5.0), (inf, f64::NAN)]).value, 2.0);
    }

    #[test]
    fn bucket_fractions() {
        let inf = f64::INFINITY;
        let f = |low, high, b: &[(f64, f64)]| bucket_fraction(low, high, &mut buckets(b));
        let b = [(1.0, 2.0), (2.0, 6.0), (inf, 8.0)];
        assert_eq!(f(0.0, 1.5, &b), 0.5);
        assert_eq!(f(-inf, inf, &b), 1.0);
        assert_eq!(f(1.0, 2.0, &b), 0.5);
        assert_eq!(f(0.5, 100.0, &b), (6.0 - 1.0) / 8.0);
        assert_eq!(f(2.0, 1.0, &b), 0.0);
        assert_eq!(f(-inf, -2.0, &[(-1.0, 2.0), (inf, 8.0)]), 0.25);
        assert!(f(f64::NAN, 1.0, &b).is_nan() && f(0.0, 1.0, &b[..2]).is_nan());
        assert!(f(0.0, 1.0, &[(inf, 0.0)]).is_nan());
    }
}
