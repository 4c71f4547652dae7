//! Operations against a naive reference: buckets in a map.

use std::collections::BTreeMap;

use super::*;

/// A small generator; the same numbers on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }

    /// Buckets in spans, some of them without buckets or without a gap.
    fn side(&mut self, low: i32) -> Buckets {
        let mut side = Buckets::default();
        for i in 0..self.below(4) {
            let offset = if i == 0 {
                low + self.below(20) as i32
            } else {
                self.below(4) as i32
            };
            let length = self.below(5) as u32;
            side.spans.push(Span { offset, length });
            for _ in 0..length {
                side.counts.push(self.below(5) as f64);
            }
        }
        side
    }

    fn exponential(&mut self) -> FloatHistogram {
        let (positive, negative) = (self.side(-6), self.side(-6));
        let h = FloatHistogram {
            schema: self.below(4) as i32 - 1,
            zero_threshold: [0.0, 1e-3, 0.5, 1.0][self.below(4) as usize],
            zero_count: self.below(4) as f64,
            positive,
            negative,
            ..FloatHistogram::default()
        };
        self.filled(h)
    }

    fn custom(&mut self) -> FloatHistogram {
        let bounds: Vec<f64> = (-2..8).filter(|_| self.below(3) > 0).map(f64::from).collect();
        let counts = (0..=bounds.len()).map(|_| self.below(5) as f64).collect();
        self.filled(FloatHistogram {
            schema: CUSTOM_SCHEMA,
            positive: Buckets::run(0, counts),
            custom_bounds: Some(bounds.into()),
            ..FloatHistogram::default()
        })
    }

    fn filled(&mut self, mut h: FloatHistogram) -> FloatHistogram {
        // Producers count in the zero bucket what lies in it.
        let inside = h.buckets_inside(h.zero_threshold);
        for (side, n) in [(&mut h.positive, inside.0), (&mut h.negative, inside.1)] {
            side.counts[..n].fill(0.0);
        }
        h.count = h.zero_count + h.positive.counts.iter().chain(&h.negative.counts).sum::<f64>();
        h.sum = self.below(100) as f64;
        h.reset_hint = ResetHint::from_u8(self.below(4) as u8).unwrap();
        assert_eq!(h.validate_integer(), Ok(()));
        h
    }
}

/// Bounds and population of every populated bucket, keyed by the bits of the bounds.
fn listed(h: &FloatHistogram) -> Vec<(f64, f64, f64)> {
    h.buckets()
        .filter(|b| b.count != 0.0)
        .map(|b| (b.lower, b.upper, b.count))
        .collect()
}

/// Observations at or below the upper bound of any bucket; no bucket of `coarse` may cut one of `fine`.
fn assert_coarser(coarse: &FloatHistogram, fine: &[&FloatHistogram]) {
    for b in coarse.buckets() {
        let inside: f64 = fine
            .iter()
            .flat_map(|h| h.buckets())
            .filter(|f| f.lower >= b.lower && f.upper <= b.upper)
            .map(|f| f.count)
            .sum();
        assert_eq!(inside, b.count, "{b} of {coarse} in {fine:?}");
    }
}

/// A reference sum for equal schemas and thresholds.
fn naive_sum(a: &FloatHistogram, b: &FloatHistogram, sign: f64) -> Vec<(f64, f64, f64)> {
    let mut map: BTreeMap<(i8, i32), f64> = BTreeMap::new();
    for (h, sign) in [(a, 1.0), (b, sign)] {
        for (side, at) in [(&h.positive, 1), (&h.negative, -1)] {
            for (index, n) in side.iter() {
                *map.entry((at, index)).or_default() += sign * n;
            }
        }
        *map.entry((0, 0)).or_default() += sign * h.zero_count;
    }
    let mut out: Vec<_> = map
        .into_iter()
        .filter(|(_, n)| *n != 0.0)
        .map(|((side, index), n)| {
            let (low, high) = (a.upper_bound(i64::from(index) - 1), a.upper_bound(index.into()));
            match side {
                1 => (low.max(a.zero_threshold), high, n),
                0 => (-a.zero_threshold, a.zero_threshold, n),
                _ => (-high, -low.max(a.zero_threshold), n),
            }
        })
        .collect();
    out.sort_by(|a, b| (a.0 + a.1).total_cmp(&(b.0 + b.1)));
    out
}

#[test]
fn sums_equal_a_naive_reference() {
    let mut random = Random(7);
    for _ in 0..3000 {
        let (mut a, mut b) = (random.exponential(), random.exponential());
        (a.schema, a.zero_threshold) = (0, 0.0);
        (b.schema, b.zero_threshold) = (0, 0.0);
        let mut sum = a.clone();
        sum.add(&b).unwrap();
        assert_eq!(listed(&sum), naive_sum(&a, &b, 1.0));
        sum.compact();
        assert!(
            sum.positive
                .counts
                .iter()
                .chain(&sum.negative.counts)
                .all(|n| *n != 0.0)
        );
        assert!(sum.positive.spans.iter().skip(1).all(|s| s.offset > 0 && s.length > 0));
        assert_eq!(listed(&sum), naive_sum(&a, &b, 1.0));
    }
}

#[test]
fn every_sum_holds_all_observations_and_can_be_taken_apart() {
    let mut random = Random(11);
    for round in 0..4000 {
        let make = if round % 2 == 0 {
            Random::exponential
        } else {
            Random::custom
        };
        let (a, b, c) = (make(&mut random), make(&mut random), make(&mut random));
        let mut sum = a.clone();
        let merged = sum.add(&b).unwrap();
        assert_eq!(merged.bounds_reconciled, a.custom_bounds() != b.custom_bounds());
        sum.compact();
        assert_eq!(sum.validate_integer(), Ok(()), "{a:?} + {b:?} = {sum:?}");
        assert_coarser(&sum, &[&a, &b]);

        // Whatever the order and the grouping, the same comes out.
        let mut other_way = b.clone();
        other_way.add(&a).unwrap();
        other_way.compact();
        assert_eq!(listed(&sum), listed(&other_way));
        let mut left = sum.clone();
        left.add(&c).unwrap();
        left.compact();
        let mut right = b.clone();
        right.add(&c).unwrap();
        let mut grouped = a.clone();
        grouped.add(&right).unwrap();
        grouped.compact();
        // But the zero bucket depends on what was merged into coarse buckets before it was widened.
        if a.zero_threshold == b.zero_threshold && b.zero_threshold == c.zero_threshold {
            assert_eq!(listed(&left), listed(&grouped), "{a:?} {b:?} {c:?}");
        }

        // Taking b away leaves a, in the layout of the sum.
        let mut rest = sum.clone();
        rest.sub(&b).unwrap();
        rest.compact();
        assert_eq!((rest.count, rest.sum), (a.count, a.sum));
        assert_coarser(&rest, &[&a]);

        // So do many terms at once.
        let mut total = HistogramSum::new(&a);
        total.add(&b).unwrap();
        total.add(&c).unwrap();
        assert_eq!(listed(&total.finish()), listed(&left));
        let mut mean = HistogramMean::new(&a);
        mean.add(&b).unwrap();
        mean.add(&c).unwrap();
        let (mut mean, mut third) = (mean.finish(), left.clone());
        third.div(3.0);
        mean.mul(3.0);
        third.mul(3.0);
        assert_eq!(listed(&mean).len(), listed(&third).len());
        for (m, t) in listed(&mean).iter().zip(listed(&third)) {
            assert!((m.2 - t.2).abs() < 1e-12 && (m.0, m.1) == (t.0, t.1));
        }
    }
}

#[test]
fn exponential_and_custom_do_not_mix() {
    let mut random = Random(3);
    let (mut a, b) = (random.exponential(), random.custom());
    let before = a.clone();
    assert_eq!(a.add(&b), Err(IncompatibleSchemas));
    assert_eq!(a, before);
    assert!(HistogramSum::new(&b).add(&a).is_err() && HistogramMean::new(&b).add(&a).is_err());
    assert!(a.detect_reset(&b) || a.reset_hint == ResetHint::NotReset);
}

#[test]
fn resolution_is_reduced_in_one_step_or_many() {
    let mut random = Random(5);
    for _ in 0..2000 {
        let mut h = random.exponential();
        h.schema = 3;
        let at_once = h.at_schema(-2).unwrap();
        let mut stepwise = h.clone();
        for schema in (-2..3).rev() {
            stepwise.reduce_resolution(schema).unwrap();
        }
        assert!(at_once.same(&stepwise));
        h.zero_threshold = 0.0;
        let mut coarse = at_once.clone();
        coarse.zero_threshold = 0.0;
        assert_coarser(&coarse, &[&h]);
    }
    let mut h = random.exponential();
    assert!(h.reduce_resolution(9).is_err() && h.reduce_resolution(-5).is_err());
    assert!(random.custom().reduce_resolution(0).is_err());
    h.schema = 20;
    h.positive = Buckets::run(4097, vec![1.0, 2.0]);
    h.adopt_schema().unwrap();
    assert_eq!((h.schema, &h.positive), (8, &Buckets::run(2, vec![3.0])));
    h.schema = 53;
    assert!(h.adopt_schema().is_err());
}

#[test]
fn growth_is_no_reset_and_loss_is_one() {
    let mut random = Random(13);
    for round in 0..4000 {
        let make = if round % 2 == 0 {
            Random::exponential
        } else {
            Random::custom
        };
        let (mut a, mut b) = (make(&mut random), make(&mut random));
        a.reset_hint = ResetHint::Unknown;
        b.reset_hint = ResetHint::Unknown;
        let mut later = a.clone();
        later.add(&b).unwrap();
        assert!(!later.detect_reset(&a), "{later} after {a}");
        if b.count > 0.0 {
            assert!(a.detect_reset(&later));
        }
        // A bucket less, the count more.
        let mut less = later.clone();
        let Some(n) = less.positive.counts.iter_mut().find(|n| **n > 0.0) else {
            continue;
        };
        *n -= 1.0;
        less.count += 5.0;
        assert!(less.detect_reset(&later));
        less.reset_hint = ResetHint::NotReset;
        assert!(!less.detect_reset(&later));
        later.reset_hint = ResetHint::Reset;
        assert!(later.detect_reset(&a));
    }
}

#[test]
fn resets_by_layout() {
    let h = FloatHistogram {
        schema: 1,
        zero_threshold: 0.5,
        positive: Buckets::run(0, vec![1.0, 2.0]),
        count: 3.0,
        ..FloatHistogram::default()
    };
    let with = |f: fn(&mut FloatHistogram)| {
        let mut other = h.clone();
        f(&mut other);
        other.detect_reset(&h)
    };
    assert!(!with(|_| {}));
    assert!(with(|h| h.schema = 2), "finer");
    assert!(with(|h| h.zero_threshold = 0.25), "narrower zero bucket");
    assert!(with(|h| h.zero_threshold = 0.8), "a populated bucket would be cut");
    assert!(!with(|h| {
        h.zero_threshold = 1.0;
        h.zero_count = 1.0;
        h.positive = Buckets::run(1, vec![2.0]);
    }));
    assert!(!with(|h| h.sum = -1.0), "the sum may fall");
    assert!(
        with(|h| h.positive = Buckets::run(1, vec![2.0])),
        "a populated bucket is gone"
    );
}

#[test]
fn hints_of_sums() {
    use ResetHint::*;
    for (a, b, want, conflict) in [
        (Unknown, Unknown, Unknown, false),
        (Reset, Reset, Reset, false),
        (Reset, NotReset, Unknown, true),
        (NotReset, Reset, Unknown, true),
        (NotReset, Unknown, Unknown, false),
        (Gauge, Reset, Gauge, false),
        (NotReset, Gauge, Gauge, false),
    ] {
        let h = |reset_hint| FloatHistogram {
            reset_hint,
            ..FloatHistogram::default()
        };
        let mut sum = h(a);
        let merged = sum.add(&h(b)).unwrap();
        assert_eq!((sum.reset_hint, merged.reset_conflict), (want, conflict), "{a:?} {b:?}");
        let mut total = HistogramSum::new(&h(a));
        total.add(&h(b)).unwrap();
        assert_eq!(total.reset_conflict(), conflict);
    }
    let mut h = FloatHistogram::default();
    h.mul(-1.0);
    assert_eq!(h.reset_hint, Gauge);
}

#[test]
fn compensation_keeps_small_terms() {
    let h = |n: f64| FloatHistogram {
        count: n,
        sum: n,
        zero_count: n,
        positive: Buckets::run(1, vec![n]),
        ..FloatHistogram::default()
    };
    let mut sum = HistogramSum::new(&h(1.0));
    for n in [1e100, 1.0, -1e100] {
        sum.add(&h(n)).unwrap();
    }
    let sum = sum.finish();
    assert_eq!((sum.count, sum.sum, sum.zero_count), (2.0, 2.0, 2.0));
    assert_eq!(sum.positive.counts, [2.0]);
    // The sum overflows, the mean does not.
    let mut mean = HistogramMean::new(&h(f64::MAX));
    mean.add(&h(f64::MAX)).unwrap();
    mean.add(&h(f64::MAX)).unwrap();
    assert!((mean.finish().sum / f64::MAX - 1.0).abs() < 1e-15);
}

#[test]
fn scaling() {
    let h = FloatHistogram {
        zero_count: 1.0,
        count: 6.0,
        sum: 3.0,
        positive: Buckets::run(1, vec![2.0]),
        negative: Buckets::run(0, vec![3.0]),
        ..FloatHistogram::default()
    };
    let mut half = h.clone();
    half.div(2.0);
    assert_eq!(
        half.to_string(),
        "{count:3, sum:1.5, [-1,-0.5):1.5, [-0,0]:0.5, (1,2]:1}"
    );
    half.mul(2.0);
    assert!(half.same(&h));
    let mut by_zero = h.clone();
    by_zero.div(0.0);
    assert_eq!(
        (by_zero.count, by_zero.sum, by_zero.zero_count),
        (f64::INFINITY, f64::INFINITY, f64::INFINITY)
    );
    assert!(by_zero.positive.counts.is_empty() && by_zero.negative.spans.is_empty());
}

#[test]
fn buckets_ascend_and_know_their_ends() {
    let h = FloatHistogram {
        zero_threshold: 0.75,
        zero_count: 4.0,
        positive: Buckets {
            spans: vec![Span { offset: 0, length: 1 }, Span { offset: 1, length: 1 }],
            counts: vec![1.0, 2.0],
        },
        negative: Buckets::run(0, vec![3.0, 5.0]),
        ..FloatHistogram::default()
    };
    let rules: Vec<_> = h.buckets().map(|b| (b.rule(), b.lower, b.upper, b.count)).collect();
    assert_eq!(
        rules,
        [
            (1, -2.0, -1.0, 5.0),
            (1, -1.0, -0.75, 3.0),
            (3, -0.75, 0.75, 4.0),
            (0, 0.75, 1.0, 1.0),
            (0, 2.0, 4.0, 2.0)
        ]
    );
    let custom = FloatHistogram {
        schema: CUSTOM_SCHEMA,
        positive: Buckets::run(0, vec![1.0, 2.0, 3.0]),
        custom_bounds: Some([5.0, 10.0].into()),
        count: 6.0,
        sum: 1e6,
        ..FloatHistogram::default()
    };
    assert_eq!(
        custom.to_string(),
        "{count:6, sum:1e+06, [-Inf,5]:1, (5,10]:2, (10,+Inf]:3}"
    );
}

#[test]
fn spans_never_lead_past_the_counts() {
    let hostile = Buckets {
        spans: vec![
            Span {
                offset: i32::MIN,
                length: 1,
            },
            Span { offset: -7, length: 0 },
            Span {
                offset: i32::MAX,
                length: 2,
            },
            Span {
                offset: i32::MAX,
                length: u32::MAX,
            },
            Span {
                offset: i32::MAX,
                length: u32::MAX,
            },
        ],
        counts: vec![1.0; 9],
    };
    let forward: Vec<_> = hostile.iter().collect();
    assert_eq!(forward.len(), hostile.iter().len());
    assert_eq!(forward[0].0, i32::MIN);
    assert!(forward.windows(2).all(|w| w[0].0 < w[1].0));
    let mut backward: Vec<_> = hostile.iter().rev().collect();
    backward.reverse();
    assert_eq!(forward, backward);
    let mut builder = BucketsBuilder::default();
    for (index, n) in [(i32::MIN, 1.0), (i32::MAX, 2.0), (i32::MAX, 1.0)] {
        builder.push(index, n);
    }
    let wide = builder.finish();
    assert_eq!(wide.iter().collect::<Vec<_>>(), [(i32::MIN, 1.0), (i32::MAX, 3.0)]);
}

#[test]
fn quantiles_and_fractions() {
    let h = FloatHistogram {
        zero_threshold: 0.001,
        positive: Buckets::run(1, vec![1.0, 2.0, 1.0]),
        count: 4.0,
        sum: 10.0,
        ..FloatHistogram::default()
    };
    let q = |phi| h.quantile(phi).0;
    assert_eq!((q(0.0), q(0.25), q(1.0)), (1.0, 2.0, 8.0));
    assert!((q(0.5) - 8f64.sqrt()).abs() < 1e-12);
    assert_eq!((q(-0.1), q(1.1)), (f64::NEG_INFINITY, f64::INFINITY));
    assert!(q(f64::NAN).is_nan() && FloatHistogram::default().quantile(0.5).0.is_nan());
    assert_eq!(h.fraction(1.0, 2.0), (0.25, false));
    assert!((h.fraction(f64::NEG_INFINITY, q(0.6)).0 - 0.6).abs() < 1e-12);
    assert_eq!(h.fraction(2.0, 1.0), (0.0, false));
    let mut nan = h.clone();
    (nan.sum, nan.count) = (f64::NAN, 8.0);
    assert_eq!(nan.quantile(0.25), (8f64.sqrt(), NanEffect::Skewed));
    assert_eq!(nan.quantile(0.9).1, NanEffect::Result);
    assert_eq!(nan.fraction(f64::NEG_INFINITY, f64::INFINITY), (0.5, true));

    let mut random = Random(17);
    for round in 0..2000 {
        let h = if round % 2 == 0 {
            random.exponential()
        } else {
            random.custom()
        };
        let mut last = f64::NEG_INFINITY;
        for i in 0..=10 {
            let q = h.quantile(f64::from(i) / 10.0).0;
            assert!(
                h.count == 0.0 && q.is_nan() || q >= last - 1e-9,
                "{h} at {i}: {q} after {last}"
            );
            last = q;
        }
    }
}

#[test]
fn spread() {
    let h = FloatHistogram {
        positive: Buckets::run(1, vec![1.0]),
        negative: Buckets::run(1, vec![1.0]),
        zero_count: 2.0,
        count: 4.0,
        ..FloatHistogram::default()
    };
    assert!((h.variance() - 1.0).abs() < 1e-15);
    assert_eq!(h.mean(), 0.0);
}

#[test]
fn trimming() {
    let h = FloatHistogram {
        schema: CUSTOM_SCHEMA,
        positive: Buckets::run(0, vec![2.0, 4.0, 6.0]),
        custom_bounds: Some([5.0, 10.0].into()),
        count: 12.0,
        sum: 100.0,
        ..FloatHistogram::default()
    };
    let trimmed = |at, trim| {
        let mut h = h.clone();
        h.trim(at, trim);
        h.to_string()
    };
    assert_eq!(trimmed(f64::INFINITY, Trim::Below), h.to_string());
    assert_eq!(trimmed(f64::NEG_INFINITY, Trim::Above), h.to_string());
    assert_eq!(trimmed(7.5, Trim::Below), "{count:4, sum:17.5, [-Inf,5]:2, (5,10]:2}");
    assert_eq!(trimmed(2.5, Trim::Below), "{count:1, sum:1.25, [-Inf,5]:1}");
    assert_eq!(trimmed(20.0, Trim::Above), "{count:6, sum:120, (10,+Inf]:6}");
    assert_eq!(trimmed(7.5, Trim::Above), "{count:8, sum:77.5, (5,10]:2, (10,+Inf]:6}");
    // Both parts of a cut hold all observations, but for unbounded buckets.
    let mut random = Random(19);
    for _ in 0..2000 {
        let h = random.exponential();
        let at = random.below(600) as f64 / 100.0 - 3.0;
        let (mut below, mut above) = (h.clone(), h.clone());
        below.trim(at, Trim::Below);
        above.trim(at, Trim::Above);
        assert!(
            (below.count + above.count - h.count).abs() < 1e-9,
            "{h} at {at}: {below} {above}"
        );
    }
}

#[test]
fn validation() {
    let ok = FloatHistogram {
        positive: Buckets::run(0, vec![1.0]),
        count: 1.0,
        ..FloatHistogram::default()
    };
    let custom = FloatHistogram {
        schema: CUSTOM_SCHEMA,
        custom_bounds: Some([1.0, 2.0].into()),
        positive: Buckets::run(0, vec![1.0; 3]),
        count: 3.0,
        ..FloatHistogram::default()
    };
    let check = |h: &FloatHistogram, f: fn(&mut FloatHistogram), want: &str| {
        let mut h = h.clone();
        f(&mut h);
        let got = h
            .validate_integer()
            .map_or_else(|e| e.to_string(), |()| "ok".to_owned());
        assert!(got.contains(want), "{got}");
    };
    check(&ok, |_| {}, "ok");
    check(&custom, |_| {}, "ok");
    check(
        &ok,
        |h| h.schema = 9,
        "must be between -4 and 8 for exponential buckets, or -53 for custom buckets, got schema 9",
    );
    check(
        &ok,
        |h| h.positive.counts.clear(),
        "positive side: spans need 1 buckets, have 0 buckets: histogram spans",
    );
    check(
        &ok,
        |h| h.negative.counts.push(1.0),
        "negative side: spans need 0 buckets, have 1 buckets",
    );
    check(
        &ok,
        |h| h.positive.counts[0] = -1.0,
        "positive side: bucket number 1 has observation count of -1: ",
    );
    check(&ok, |h| h.zero_count = -1.0, "zero bucket has observation count of -1");
    check(&ok, |h| h.zero_threshold = f64::NAN, "zero threshold of NaN");
    check(
        &ok,
        |h| h.custom_bounds = Some([1.0].into()),
        "exponential schema must not have custom bounds",
    );
    check(
        &ok,
        |h| h.count = 2.0,
        "1 observations found in buckets, but the Count field is 2: histogram's observation count should equal",
    );
    check(&ok, |h| (h.count, h.sum) = (0.0, f64::NAN), "should be at least");
    check(&ok, |h| (h.count, h.sum) = (3.0, f64::NAN), "ok");
    check(
        &ok,
        |h| h.positive.spans.push(Span { offset: -1, length: 0 }),
        "span number 2 with offset -1",
    );
    check(
        &ok,
        |h| {
            h.positive.spans.push(Span {
                offset: i32::MAX,
                length: u32::MAX,
            })
        },
        "spans need 4294967296 buckets",
    );
    check(&ok, |h| h.positive.spans[0].offset = i32::MAX, "ok");
    check(
        &ok,
        |h| {
            h.positive.spans.extend(
                [Span {
                    offset: i32::MAX,
                    length: 0,
                }; 2],
            )
        },
        "bucket index of more than 32 bits",
    );
    check(
        &custom,
        |h| h.custom_bounds = None,
        "custom buckets: only 0 custom bounds defined which is insufficient to cover total span length of 3",
    );
    check(
        &custom,
        |h| h.custom_bounds = Some([2.0, 2.0].into()),
        "previous bound is 2.000000 and current is 2.000000",
    );
    check(
        &custom,
        |h| h.custom_bounds = Some([2.0, f64::INFINITY].into()),
        "last +Inf bound",
    );
    check(
        &custom,
        |h| h.custom_bounds = Some([f64::NAN].into()),
        "must not be NaN",
    );
    check(
        &custom,
        |h| h.positive.spans[0].offset = -1,
        "span number 1 with offset -1",
    );
    check(
        &custom,
        |h| h.zero_count = 1.0,
        "custom buckets: must have zero count of 0",
    );
    check(
        &custom,
        |h| h.negative.spans.push(Span { offset: 0, length: 0 }),
        "must not have negative spans",
    );
}

#[test]
fn equality_is_of_data() {
    let h = FloatHistogram {
        sum: f64::NAN,
        positive: Buckets {
            spans: vec![Span { offset: 1, length: 2 }],
            counts: vec![1.0, 2.0],
        },
        ..FloatHistogram::default()
    };
    let mut other = h.clone();
    other.positive.spans = vec![
        Span { offset: 0, length: 0 },
        Span { offset: 1, length: 1 },
        Span { offset: 0, length: 1 },
    ];
    other.reset_hint = ResetHint::Gauge;
    assert!(h.same(&other) && other.same(&h));
    other.positive.spans[2].offset = 1;
    assert!(!h.same(&other));
    let mut stale = h.clone();
    stale.sum = f64::from_bits(STALE_BITS);
    assert!(!h.same(&stale) && stale.is_stale() && !h.is_stale());
    assert_eq!((h.size_bytes(), h.sample_cost()), (192, 12));
}

#[test]
fn classic_buckets_become_custom_ones() {
    let mut c = ClassicBuckets::default();
    for (le, n) in [(5.0, 3.0), (1.0, 1.0), (1.0, 99.0), (10.0, 3.0)] {
        c.bucket(le, n).unwrap();
    }
    assert!(c.bucket(2.0, 4.0).is_err() && c.bucket(6.0, 2.0).is_err());
    assert!(c.bucket(f64::NAN, 1.0).is_err() && c.bucket(1.5, -1.0).is_err() && c.count(-1.0).is_err());
    c.count(7.0).unwrap();
    c.sum(12.5);
    let h = c.clone().finish().unwrap();
    assert_eq!(h.to_string(), "{count:7, sum:12.5, [-Inf,1]:1, (1,5]:2, (10,+Inf]:4}");
    assert_eq!(h.validate_integer(), Ok(()));
    c.bucket(f64::INFINITY, 8.0).unwrap();
    assert!(c.finish().is_err());
    assert_eq!(
        ClassicBuckets::default().finish().unwrap().to_string(),
        "{count:0, sum:0}"
    );
}

#[test]
fn numbers_as_go_prints_them() {
    for (v, want) in [
        (0.0, "0"),
        (-0.0, "-0"),
        (2.0, "2"),
        (1.5, "1.5"),
        (100000.0, "100000"),
        (1e6, "1e+06"),
        (1234567.0, "1.234567e+06"),
        (1e-4, "0.0001"),
        (5e-5, "5e-05"),
        (1.5e300, "1.5e+300"),
        (f64::NEG_INFINITY, "-Inf"),
        (f64::INFINITY, "+Inf"),
        (f64::NAN, "NaN"),
    ] {
        assert_eq!(format_g(v), want);
    }
}

#[test]
fn no_input_breaks_an_operation() {
    let mut random = Random(23);
    for _ in 0..4000 {
        let special = random.below(4) * 8;
        let byte = |random: &mut Random| match random.below(40) {
            n if n < special => [0, 0xff, 0xf0, 0x7f][n as usize % 4],
            _ => random.next() as u8,
        };
        let bytes: Vec<u8> = (0..random.below(200)).map(|_| byte(&mut random)).collect();
        fuzzing::operations(&bytes);
    }
}
