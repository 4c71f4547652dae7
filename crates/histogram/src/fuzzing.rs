//! Entry for fuzzing: every operation on two histograms made of any bytes, well formed or not.

use std::sync::Arc;

use crate::{
    Buckets, CUSTOM_SCHEMA, ClassicBuckets, FloatHistogram, HistogramMean, HistogramSum, ResetHint, Span, Trim,
};

/// Reads numbers off bytes; zeros at the end.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// Small numbers mostly, now and then any.
    fn int(&mut self) -> i32 {
        let b = self.byte();
        if b >= 250 {
            i32::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
        } else {
            i32::from(b % 32) - 8
        }
    }

    fn float(&mut self) -> f64 {
        let b = self.byte();
        if b >= 240 {
            f64::from_bits(u64::from_le_bytes(std::array::from_fn(|_| self.byte())))
        } else {
            f64::from(b % 64) / 4.0
        }
    }

    fn side(&mut self) -> Buckets {
        let spans = (0..self.byte() % 5).map(|_| Span {
            offset: self.int(),
            length: self.int().unsigned_abs(),
        });
        let spans = spans.collect();
        let counts = (0..self.byte() % 40).map(|_| self.float()).collect();
        Buckets { spans, counts }
    }

    fn histogram(&mut self) -> FloatHistogram {
        let schema = match self.byte() % 8 {
            0..=2 => CUSTOM_SCHEMA,
            3..=6 => self.int().rem_euclid(13) - 4,
            _ => self.int(),
        };
        let bounds: Vec<f64> = (0..self.byte() % 6).map(|_| self.float()).collect();
        FloatHistogram {
            reset_hint: ResetHint::from_u8(self.byte() % 4).unwrap_or_default(),
            schema,
            zero_threshold: self.float(),
            zero_count: self.float(),
            count: self.float(),
            sum: self.float(),
            positive: self.side(),
            negative: self.side(),
            custom_bounds: (schema == CUSTOM_SCHEMA).then(|| Arc::from(bounds)),
        }
    }
}

/// Must neither panic nor run long.
pub fn operations(bytes: &[u8]) {
    let mut reader = Reader(bytes);
    let (a, b) = (reader.histogram(), reader.histogram());
    let (x, y) = (reader.float(), reader.float());
    for h in [&a, &b] {
        let valid = h.validate().is_ok();
        if let Err(e) = h.validate_integer() {
            assert!(!e.to_string().is_empty());
        }
        let ascending: Vec<_> = h.buckets().collect();
        let mut descending: Vec<_> = h.buckets().rev().collect();
        descending.reverse();
        assert_eq!(format!("{ascending:?}"), format!("{descending:?}"));
        if valid {
            let both = h.positive.counts.len() + h.negative.counts.len();
            assert!(ascending.len() >= both, "a valid histogram shows all its buckets");
        }
        assert!(h.to_string().starts_with("{count:"));
        for phi in [x, y, 0.5] {
            h.quantile(phi);
        }
        h.fraction(x, y);
        h.variance();
        for schema in -4..=8 {
            if let Ok(reduced) = h.at_schema(schema) {
                assert!(!valid || reduced.validate().is_ok());
            }
        }
        let mut adopted = h.clone();
        if adopted.adopt_schema().is_ok() {
            adopted.compact();
        }
        for trim in [Trim::Below, Trim::Above] {
            let mut trimmed = h.clone();
            trimmed.trim(x, trim);
        }
        let mut scaled = h.clone();
        scaled.mul(x);
        scaled.div(y);
        scaled.compact();
    }
    a.detect_reset(&b);
    assert!(a.same(&a) || a.validate().is_err());
    let mut sum = a.clone();
    if sum.add(&b).is_ok() && a.validate().is_ok() && b.validate().is_ok() {
        assert!(sum.validate().is_ok());
        let _ = sum.sub(&b);
    }
    let (mut total, mut mean) = (HistogramSum::new(&a), HistogramMean::new(&a));
    for h in [&b, &a, &b] {
        if total.add(h).is_err() || mean.add(h).is_err() {
            break;
        }
    }
    total.finish();
    mean.finish();
    let mut classic = ClassicBuckets::default();
    for count in &a.positive.counts {
        let _ = classic.bucket(reader.float(), *count);
    }
    if let Ok(h) = classic.finish() {
        assert!(h.validate().is_ok());
    }
}
