//! Functions of the values of one window. Every slice is non-empty and free of staleness markers.

use super::quantile::quantile;
use super::sum::{KahanSum, Mean, Variance};

pub fn sum(vs: &[f64]) -> f64 {
    if let Some(s) = finite_sum(vs) {
        return s.value();
    }
    let mut s = KahanSum::default();
    vs.iter().for_each(|v| s.add(*v));
    s.value()
}

pub fn avg(vs: &[f64]) -> f64 {
    if let Some(s) = finite_sum(vs) {
        let n = vs.len() as f64;
        return s.sum / n + s.compensation / n;
    }
    let mut m = Mean::default();
    vs.iter().for_each(|v| m.add(*v));
    m.value()
}

/// The compensated sum without a look at infinities at every step; `None` when it met any, or NaN.
fn finite_sum(vs: &[f64]) -> Option<KahanSum> {
    let (mut sum, mut compensation) = (0.0f64, 0.0f64);
    for v in vs {
        let t = sum + v;
        let (large, small) = if sum.abs() >= v.abs() { (sum, *v) } else { (*v, sum) };
        compensation += (large - t) + small;
        sum = t;
    }
    // What is not finite never becomes so again.
    sum.is_finite().then_some(KahanSum { sum, compensation })
}

/// NaN only when all values are NaN; the first of equal values.
pub fn min(vs: &[f64]) -> f64 {
    extreme(vs, f64::INFINITY, |v, best| v < best)
}

/// NaN only when all values are NaN; the first of equal values.
pub fn max(vs: &[f64]) -> f64 {
    extreme(vs, f64::NEG_INFINITY, |v, best| v > best)
}

/// `worst`: what every number but itself goes before.
#[inline]
fn extreme(vs: &[f64], worst: f64, goes_before: impl Fn(f64, f64) -> bool + Copy) -> f64 {
    let better = |best: f64, v: f64| if goes_before(v, best) { v } else { best };
    // Several at a time, as one depends on the one before.
    const LANES: usize = 8;
    let mut lanes = [worst; LANES];
    let chunks = vs.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane = better(*lane, *v);
        }
    }
    let best = lanes.iter().chain(rest).fold(worst, |best, v| better(best, *v));
    if best != worst && best != 0.0 {
        return best;
    }
    // Nothing but NaN and the worst, or zeros, of which the first one's sign counts.
    vs[1..].iter().fold(vs[0], |best, v| {
        if goes_before(*v, best) || best.is_nan() {
            *v
        } else {
            best
        }
    })
}

/// Where the smallest value stands, the last place of equal ones; NaN counts only when all values are NaN.
pub fn index_of_min(vs: &[f64]) -> usize {
    index_of(vs, |v, best| v <= best)
}

/// Where the largest value stands, the last place of equal ones; NaN counts only when all values are NaN.
pub fn index_of_max(vs: &[f64]) -> usize {
    index_of(vs, |v, best| v >= best)
}

fn index_of(vs: &[f64], replaces: impl Fn(f64, f64) -> bool) -> usize {
    let mut best = 0;
    for (i, v) in vs.iter().enumerate().skip(1) {
        if vs[best].is_nan() || replaces(*v, vs[best]) {
            best = i;
        }
    }
    best
}

/// Median absolute deviation; NaN when a value is NaN. `scratch` is overwritten.
pub fn median_absolute_deviation(vs: &[f64], scratch: &mut Vec<f64>) -> f64 {
    if vs.iter().any(|v| v.is_nan()) {
        return f64::NAN;
    }
    scratch.clear();
    scratch.extend_from_slice(vs);
    let median = quantile(0.5, scratch);
    scratch.iter_mut().for_each(|v| *v = (*v - median).abs());
    quantile(0.5, scratch)
}

/// The last smoothed value of Holt's linear method: `smoothing` weighs new values against the level, `trend` new
/// slopes against the trend. `None` for fewer than two values.
pub fn double_exponential_smoothing(vs: &[f64], smoothing: f64, trend: f64) -> Option<f64> {
    let [first, second, ..] = vs else {
        return None;
    };
    let (mut before, mut level, mut slope) = (0.0, *first, second - first);
    for (i, v) in vs.iter().enumerate().skip(1) {
        if i > 1 {
            slope = trend * (level - before) + (1.0 - trend) * slope;
        }
        let next = smoothing * v + (1.0 - smoothing) * (level + slope);
        (before, level) = (level, next);
    }
    Some(level)
}

pub fn stdvar(vs: &[f64]) -> f64 {
    let mut s = Variance::default();
    vs.iter().for_each(|v| s.add(*v));
    s.value()
}

/// Neighbours that differ; NaN beside NaN is no change.
pub fn changes(vs: &[f64]) -> f64 {
    vs.windows(2)
        .filter(|w| w[0] != w[1] && !(w[0].is_nan() && w[1].is_nan()))
        .count() as f64
}

/// The places of values that differ from the one before, as [`changes`] counts them.
pub fn change_places(vs: &[f64]) -> Vec<u32> {
    let neighbours = vs.windows(2).zip(1u32..);
    let differ = neighbours.filter(|(w, _)| w[0] != w[1] && !(w[0].is_nan() && w[1].is_nan()));
    differ.map(|(_, at)| at).collect()
}

/// Neighbours that decrease.
pub fn resets(vs: &[f64]) -> f64 {
    vs.windows(2).filter(|w| w[1] < w[0]).count() as f64
}

/// Slope per second and value at `at` of the regression line through (ms, value); `None` for fewer than two.
pub fn linear_regression(ts_ms: &[i64], vs: &[f64], at_ms: i64) -> Option<(f64, f64)> {
    if vs.len() < 2 {
        return None;
    }
    if vs.iter().all(|v| *v == vs[0]) {
        return Some(if vs[0].is_infinite() {
            (f64::NAN, f64::NAN)
        } else {
            (0.0, vs[0])
        });
    }
    let (mut sx, mut sy, mut sxy, mut sxx) = (
        KahanSum::default(),
        KahanSum::default(),
        KahanSum::default(),
        KahanSum::default(),
    );
    for (t, v) in ts_ms.iter().zip(vs) {
        let x = t.saturating_sub(at_ms) as f64 / 1000.0;
        sx.add(x);
        sy.add(*v);
        sxy.add(x * v);
        sxx.add(x * x);
    }
    let n = vs.len() as f64;
    let (sx, sy, sxy, sxx) = (sx.value(), sy.value(), sxy.value(), sxx.value());
    let cov_xy = sxy - sx * sy / n;
    let var_x = sxx - sx * sx / n;
    let slope = cov_xy / var_x;
    Some((slope, sy / n - slope * sx / n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_rules() {
        let nan = f64::NAN;
        assert_eq!((min(&[nan, 2.0, 1.0]), max(&[nan, 2.0, 1.0])), (1.0, 2.0));
        assert_eq!((min(&[1.0, nan]), max(&[1.0, nan])), (1.0, 1.0));
        assert!(min(&[nan, nan]).is_nan() && max(&[nan]).is_nan());
        assert_eq!(changes(&[1.0, nan, nan, 1.0, 1.0]), 2.0);
        assert_eq!(change_places(&[1.0, nan, nan, 1.0, 1.0]), [1, 3]);
        assert_eq!(resets(&[3.0, 1.0, 2.0, 1.0]), 2.0);
    }

    #[test]
    fn fast_ways_agree_with_slow_ones() {
        let (inf, nan) = (f64::INFINITY, f64::NAN);
        let pool = [
            0.0,
            -0.0,
            1.0,
            -1.5,
            1e100,
            -1e100,
            f64::MAX,
            -f64::MAX,
            inf,
            -inf,
            nan,
            3.0,
        ];
        let mut state = 1u64;
        for n in 1..400usize {
            let vs: Vec<f64> = (0..n % 23 + 1)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    // Sometimes plain numbers only.
                    pool[(state >> 33) as usize % if n % 3 == 0 { 6 } else { pool.len() }]
                })
                .collect();
            let fold = |goes: fn(f64, f64) -> bool| {
                let mut best = vs[0];
                for v in &vs[1..] {
                    if goes(*v, best) || best.is_nan() {
                        best = *v;
                    }
                }
                best
            };
            let mut s = KahanSum::default();
            let mut m = Mean::default();
            for v in &vs {
                s.add(*v);
                m.add(*v);
            }
            let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
            assert!(same(max(&vs), fold(|v, best| v > best)), "{vs:?}");
            assert!(same(min(&vs), fold(|v, best| v < best)), "{vs:?}");
            assert!(same(sum(&vs), s.value()), "{vs:?}");
            assert!(same(avg(&vs), m.value()), "{vs:?}");
        }
    }

    #[test]
    fn places_of_extremes() {
        let nan = f64::NAN;
        assert_eq!(
            (index_of_min(&[1.0, 0.0, 0.0, 2.0]), index_of_max(&[2.0, 2.0, 1.0])),
            (2, 1)
        );
        assert_eq!((index_of_min(&[nan, 3.0, nan]), index_of_max(&[nan, 3.0, nan])), (1, 1));
        assert_eq!((index_of_min(&[nan, nan]), index_of_max(&[5.0])), (1, 0));
    }

    #[test]
    fn deviations() {
        let mut scratch = Vec::new();
        let mut mad = |vs: &[f64]| median_absolute_deviation(vs, &mut scratch);
        assert_eq!(mad(&[4.0, 6.0, 2.0, 1.0, 999.0, 1.0, 2.0]), 1.0);
        assert_eq!(mad(&[7.0]), 0.0);
        assert!(mad(&[1.0, f64::NAN, 2.0]).is_nan());
        // Infinity minus infinity.
        assert!(mad(&[f64::INFINITY]).is_nan());
    }

    #[test]
    fn smoothing() {
        let linear: Vec<f64> = (0..50).map(|i| f64::from(i) * 10.0).collect();
        let got = double_exponential_smoothing(&linear, 0.01, 0.1).unwrap();
        assert!((got - 490.0).abs() < 1e-9, "{got}");
        assert_eq!(double_exponential_smoothing(&[1.0, 3.0], 0.5, 0.5), Some(3.0));
        // Level 3, slope 0.5·2 + 0.5·2; the third value pulls 4 against 5.
        assert_eq!(double_exponential_smoothing(&[1.0, 3.0, 4.0], 0.5, 0.5), Some(4.5));
        assert_eq!(double_exponential_smoothing(&[1.0], 0.5, 0.5), None);
    }

    #[test]
    fn regression() {
        let ts = [0, 1000, 2000];
        assert_eq!(linear_regression(&ts, &[1.0, 3.0, 5.0], 0), Some((2.0, 1.0)));
        assert_eq!(
            linear_regression(&ts, &[1.0, 3.0, 5.0], 4000).map(|(_, v)| v),
            Some(9.0)
        );
        assert_eq!(linear_regression(&ts, &[7.0, 7.0, 7.0], 0), Some((0.0, 7.0)));
        assert_eq!(linear_regression(&ts[..1], &[7.0], 0), None);
    }
}
