//! Functions of the values of one window. Every slice is non-empty and free of staleness markers.

use super::sum::{KahanSum, Mean, Variance};

pub fn sum(vs: &[f64]) -> f64 {
    let mut s = KahanSum::default();
    vs.iter().for_each(|v| s.add(*v));
    s.value()
}

pub fn avg(vs: &[f64]) -> f64 {
    let mut m = Mean::default();
    vs.iter().for_each(|v| m.add(*v));
    m.value()
}

/// NaN only when all values are NaN.
pub fn min(vs: &[f64]) -> f64 {
    vs[1..]
        .iter()
        .fold(vs[0], |a, v| if *v < a || a.is_nan() { *v } else { a })
}

/// NaN only when all values are NaN.
pub fn max(vs: &[f64]) -> f64 {
    vs[1..]
        .iter()
        .fold(vs[0], |a, v| if *v > a || a.is_nan() { *v } else { a })
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
        assert_eq!(resets(&[3.0, 1.0, 2.0, 1.0]), 2.0);
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
