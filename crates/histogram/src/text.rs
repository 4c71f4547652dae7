//! Histograms and numbers as Go prints them.

use std::fmt::{Display, Formatter, Result};

use crate::{Bucket, FloatHistogram};

/// Go's `%g` and `%v`: the shortest digits, in exponent form below 1e-4 and from 1e6 on. Infinities have a sign.
pub fn format_g(v: f64) -> String {
    if v.is_nan() {
        return "NaN".to_owned();
    }
    if v.is_infinite() {
        return if v > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let s = format!("{v:e}");
    let (mantissa, exponent) = s.split_once('e').unwrap_or((&s, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if v == 0.0 || (-4..EXPONENT_FORM_FROM).contains(&exponent) {
        return format!("{v}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

/// From this power of ten on, `%g` without a precision uses the exponent form.
const EXPONENT_FORM_FROM: i32 = 6;

/// `{count:…, sum:…, (l,u]:n, …}` with the populated buckets, ascending.
impl Display for FloatHistogram {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{{count:{}, sum:{}", format_g(self.count), format_g(self.sum))?;
        let negative = self.negative.iter().rev().map(|(i, n)| self.negative_bucket(i, n));
        let zero = (!self.uses_custom_buckets()).then(|| self.zero_bucket());
        let positive = self.positive.iter().map(|(i, n)| self.positive_bucket(i, n));
        for bucket in negative.chain(zero).chain(positive).filter(|b| b.count != 0.0) {
            write!(f, ", {bucket}")?;
        }
        f.write_str("}")
    }
}

impl Display for Bucket {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let open = if self.lower_inclusive { '[' } else { '(' };
        let close = if self.upper_inclusive { ']' } else { ')' };
        let (lower, upper) = (format_g(self.lower), format_g(self.upper));
        write!(f, "{open}{lower},{upper}{close}:{}", format_g(self.count))
    }
}
