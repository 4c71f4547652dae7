//! Compensated sums.

/// Kahan–Neumaier sum: exact to the last place or two even when large terms cancel.
#[derive(Clone, Copy, Debug, Default)]
pub struct KahanSum {
    pub sum: f64,
    pub compensation: f64,
}

impl KahanSum {
    #[inline]
    pub fn add(&mut self, v: f64) {
        let t = self.sum + v;
        if t.is_infinite() {
            // The compensation of an infinite sum is NaN; without it the sum stays infinite.
            self.compensation = 0.0;
        } else if self.sum.abs() >= v.abs() {
            self.compensation += (self.sum - t) + v;
        } else {
            self.compensation += (v - t) + self.sum;
        }
        self.sum = t;
    }

    #[inline]
    pub fn value(&self) -> f64 {
        self.sum + self.compensation
    }
}

/// Mean by compensated sum; once the sum would overflow, incrementally.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mean {
    /// The sum, or the mean when `incremental`.
    state: KahanSum,
    count: f64,
    incremental: bool,
}

impl Mean {
    pub fn add(&mut self, v: f64) {
        self.count += 1.0;
        if !self.incremental {
            let mut next = self.state;
            next.add(v);
            if self.count == 1.0 || !next.sum.is_infinite() || self.state.sum.is_infinite() {
                self.state = next;
                return;
            }
            let before = self.count - 1.0;
            self.state = KahanSum {
                sum: self.state.sum / before,
                compensation: self.state.compensation / before,
            };
            self.incremental = true;
        }
        if self.state.sum.is_infinite() {
            if v.is_infinite() && (self.state.sum > 0.0) == (v > 0.0) {
                return; // The mean already is this infinity.
            }
            if !v.is_infinite() && !v.is_nan() {
                return; // No finite value moves an infinite mean.
            }
        }
        let q = (self.count - 1.0) / self.count;
        let mut next = KahanSum {
            sum: q * self.state.sum,
            compensation: q * self.state.compensation,
        };
        next.add(v / self.count);
        self.state = next;
    }

    /// NaN without values.
    pub fn value(&self) -> f64 {
        if self.incremental {
            self.state.value()
        } else {
            self.state.sum / self.count + self.state.compensation / self.count
        }
    }
}

/// Population variance by Welford's method with compensation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Variance {
    count: f64,
    mean: KahanSum,
    squares: KahanSum,
    not_finite: bool,
}

impl Variance {
    pub fn add(&mut self, v: f64) {
        self.not_finite |= !v.is_finite();
        self.count += 1.0;
        let delta = v - self.mean.value();
        self.mean.add(delta / self.count);
        self.squares.add(delta * (v - self.mean.value()));
    }

    /// NaN when a value was not finite.
    pub fn value(&self) -> f64 {
        if self.not_finite {
            f64::NAN
        } else {
            self.squares.value() / self.count
        }
    }
}

/// Population variance by Welford's method, as aggregations over series compute it: without compensation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Welford {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Welford {
    #[inline]
    pub fn add(&mut self, v: f64) {
        self.count += 1.0;
        if self.count == 1.0 {
            self.mean = v;
            self.squares = if v.is_finite() { 0.0 } else { f64::NAN };
            return;
        }
        let delta = v - self.mean;
        self.mean += delta / self.count;
        self.squares += delta * (v - self.mean);
    }

    /// NaN when a value was not finite.
    pub fn value(&self) -> f64 {
        self.squares / self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(vs: &[f64]) -> f64 {
        let mut s = KahanSum::default();
        vs.iter().for_each(|v| s.add(*v));
        s.value()
    }

    fn mean(vs: &[f64]) -> f64 {
        let mut s = Mean::default();
        vs.iter().for_each(|v| s.add(*v));
        s.value()
    }

    #[test]
    fn cancellation_is_compensated() {
        assert_eq!(sum(&[1.0, 1e100, 1.0, -1e100]), 2.0);
        assert_eq!(sum(&[0.1; 10]), 1.0);
        assert_eq!(sum(&[f64::INFINITY, 1.0]), f64::INFINITY);
        assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
        assert!(sum(&[f64::NAN, 1.0]).is_nan());
    }

    #[test]
    fn means_do_not_overflow() {
        assert_eq!(mean(&[1.0, 2.0, 3.0]), 2.0);
        assert_eq!(mean(&[f64::MAX, f64::MAX]), f64::MAX);
        assert_eq!(mean(&[f64::MAX, f64::MAX, f64::INFINITY]), f64::INFINITY);
        assert_eq!(mean(&[f64::INFINITY, 1.0, f64::INFINITY]), f64::INFINITY);
        assert!(mean(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
        assert!(mean(&[f64::NAN, 1.0]).is_nan());
        assert_eq!(mean(&[1.0, 1e100, 1.0, -1e100]), 0.5);
    }

    #[test]
    fn variance_is_of_the_population() {
        let mut v = Variance::default();
        [1.0, 2.0, 3.0, 4.0].iter().for_each(|x| v.add(*x));
        assert_eq!(v.value(), 1.25);
        v.add(f64::INFINITY);
        assert!(v.value().is_nan());
        for first in [true, false] {
            let mut v = Welford::default();
            if !first {
                [1.0, 2.0, 3.0, 4.0].iter().for_each(|x| v.add(*x));
                assert_eq!(v.value(), 1.25);
            }
            v.add(f64::NEG_INFINITY);
            v.add(1.0);
            assert!(v.value().is_nan());
        }
    }
}
