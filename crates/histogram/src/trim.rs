//! The operators `</` and `>/`: cutting observations off at a value.

use crate::{Bucket, Buckets, FloatHistogram};

/// Which observations remain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trim {
    /// Those up to the value: `</`.
    Below,
    /// Those from the value on: `>/`.
    Above,
}

/// What remains of a bucket, and where the observations stand for the new sum.
struct Kept {
    count: f64,
    middle: f64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Positive,
    Negative,
}

impl FloatHistogram {
    /// Removes observations beyond a value. A bucket that contains the value is split by interpolation, unbounded
    /// buckets are kept or removed whole. When anything was removed, count and sum are estimated anew from the
    /// buckets.
    pub fn trim(&mut self, at: f64, trim: Trim) {
        let mut total = Totals::default();
        let mut positive = std::mem::take(&mut self.positive);
        let has_positive = self.trim_side(&mut positive, Side::Positive, at, trim, &mut total);
        self.positive = positive;
        let mut negative = std::mem::take(&mut self.negative);
        let has_negative = self.trim_side(&mut negative, Side::Negative, at, trim, &mut total);
        self.negative = negative;
        if self.zero_count > 0.0 {
            let mut bucket = self.zero_bucket();
            match (has_negative, has_positive) {
                (true, false) => bucket.upper = 0.0,
                (false, true) => bucket.lower = 0.0,
                _ => {}
            }
            let kept = trim_zero_bucket(&bucket, at, trim);
            total.add(&kept, &mut self.zero_count);
        }
        if total.changed {
            self.count = total.count;
            self.sum = total.sum;
            self.compact();
        }
    }

    /// Returns whether the side has a populated bucket.
    fn trim_side(&self, buckets: &mut Buckets, side: Side, at: f64, trim: Trim, total: &mut Totals) -> bool {
        let layout = std::mem::take(&mut buckets.counts);
        let view = Buckets {
            spans: std::mem::take(&mut buckets.spans),
            counts: layout,
        };
        let mut counts = view.counts.clone();
        let mut populated = false;
        for (count, (index, n)) in counts.iter_mut().zip(view.iter()).filter(|(_, (_, n))| *n != 0.0) {
            populated = true;
            let bucket = match side {
                Side::Positive => self.positive_bucket(index, n),
                Side::Negative => self.negative_bucket(index, n),
            };
            total.add(&self.trim_bucket(&bucket, side, at, trim), count);
        }
        *buckets = Buckets {
            spans: view.spans,
            counts,
        };
        populated
    }

    fn trim_bucket(&self, b: &Bucket, side: Side, at: f64, trim: Trim) -> Kept {
        let linear = self.uses_custom_buckets();
        let (whole, part) = match trim {
            Trim::Below => (b.upper <= at, b.lower < at),
            Trim::Above => (b.lower >= at, b.upper > at),
        };
        if whole {
            return Kept {
                count: b.count,
                middle: middle(b.lower, b.upper, side, linear),
            };
        }
        if !part {
            return Kept {
                count: 0.0,
                middle: 0.0,
            };
        }
        if b.lower == f64::NEG_INFINITY || b.upper == f64::INFINITY {
            return trim_unbounded(b, at, trim);
        }
        let below = b.count * b.fraction_below(at, linear);
        match trim {
            Trim::Below => Kept {
                count: below,
                middle: middle(b.lower, at, side, linear),
            },
            Trim::Above => Kept {
                count: b.count - below,
                middle: middle(at, b.upper, side, linear),
            },
        }
    }
}

#[derive(Default)]
struct Totals {
    count: f64,
    sum: f64,
    changed: bool,
}

impl Totals {
    fn add(&mut self, kept: &Kept, count: &mut f64) {
        self.count += kept.count;
        self.sum += kept.middle * kept.count;
        if *count != kept.count {
            *count = kept.count;
            self.changed = true;
        }
    }
}

/// A bucket with an infinite bound, cut somewhere inside.
fn trim_unbounded(b: &Bucket, at: f64, trim: Trim) -> Kept {
    let finite_or_zero = |v: f64| if v.is_infinite() { 0.0 } else { v };
    let gone = |middle| Kept {
        count: 0.0,
        middle: finite_or_zero(middle),
    };
    let whole = |middle| Kept { count: b.count, middle };
    if b.lower == f64::NEG_INFINITY {
        // The first custom bucket is taken to begin at 0 when it ends above.
        let from_zero = b.upper > 0.0 && b.upper.is_finite();
        return match trim {
            Trim::Below if at > 0.0 && from_zero => Kept {
                count: b.count * at / b.upper,
                middle: at / 2.0,
            },
            Trim::Below if b.upper <= 0.0 => whole(at),
            Trim::Above if at >= 0.0 && from_zero => Kept {
                count: b.count * (1.0 - at / b.upper),
                middle: (at + b.upper) / 2.0,
            },
            _ => gone(b.upper),
        };
    }
    match trim {
        Trim::Above if at >= b.lower => whole(at),
        _ => gone(b.lower),
    }
}

fn trim_zero_bucket(b: &Bucket, at: f64, trim: Trim) -> Kept {
    let whole = Kept {
        count: b.count,
        middle: (b.lower + b.upper) / 2.0,
    };
    let gone = Kept {
        count: 0.0,
        middle: 0.0,
    };
    let width = b.upper - b.lower;
    match trim {
        Trim::Below if at <= b.lower => gone,
        Trim::Below if at >= b.upper => whole,
        Trim::Below => Kept {
            count: b.count * ((at - b.lower) / width),
            middle: (b.lower + at) / 2.0,
        },
        Trim::Above if at <= b.lower => whole,
        Trim::Above if at >= b.upper => gone,
        Trim::Above => Kept {
            count: b.count * ((b.upper - at) / width),
            middle: (at + b.upper) / 2.0,
        },
    }
}

/// Where the observations between two values stand.
fn middle(lower: f64, upper: f64, side: Side, linear: bool) -> f64 {
    match (lower.is_infinite(), upper.is_infinite()) {
        (true, true) => 0.0,
        (true, false) if upper > 0.0 => upper / 2.0,
        (true, false) => upper,
        (false, true) => lower,
        (false, false) if linear => (lower + upper) / 2.0,
        (false, false) => {
            let geometric = (lower * upper).abs().sqrt();
            if side == Side::Positive { geometric } else { -geometric }
        }
    }
}
