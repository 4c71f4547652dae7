//! Random samples for tests.

use std::sync::Arc;

use proptest::prelude::*;
use trilith_histogram::{Buckets, FloatHistogram, ResetHint, Span};
use trilith_model::{STALE_NAN_BITS, SampleValue};

use crate::format::histogram;
use crate::samples::{AnySample, Samples};

fn count() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => (0u32..1000).prop_map(f64::from),
        1 => any::<u64>().prop_map(f64::from_bits),
        1 => Just(9_007_199_254_740_992.0),
        1 => Just(-0.0),
    ]
}

fn buckets() -> impl Strategy<Value = Buckets> {
    let spans = proptest::collection::vec((-3i32..4, 0u32..4), 0..4);
    (spans, proptest::collection::vec(count(), 12), any::<bool>()).prop_map(|(spans, mut counts, whole)| {
        let spans: Vec<Span> = spans
            .into_iter()
            .map(|(offset, length)| Span { offset, length })
            .collect();
        counts.truncate(spans.iter().map(|s| s.length as usize).sum());
        if whole {
            counts.iter_mut().for_each(|c| *c = c.abs().min(1e6).trunc() + 0.0);
        }
        Buckets { spans, counts }
    })
}

pub(crate) fn histogram() -> impl Strategy<Value = Arc<FloatHistogram>> {
    let head = (
        0u8..4,
        prop_oneof![4 => -4i32..9, 1 => Just(-53), 1 => any::<i32>()],
        any::<bool>(),
    );
    let bounds = proptest::option::of(proptest::collection::vec(any::<i16>().prop_map(f64::from), 0..4));
    let rest = (count(), count(), any::<u64>().prop_map(f64::from_bits), bounds);
    (head, rest, buckets(), buckets()).prop_map(|((hint, schema, sided), (zero, n, sum, bounds), p, negative)| {
        Arc::new(FloatHistogram {
            reset_hint: ResetHint::from_u8(hint).unwrap(),
            schema,
            zero_threshold: f64::from(hint) / 8.0,
            zero_count: zero,
            count: n,
            sum,
            positive: p,
            negative: if sided { negative } else { Buckets::default() },
            custom_bounds: bounds.map(Into::into),
        })
    })
}

/// Two histograms that mostly differ in their counts only, as those of one series do.
pub(crate) fn histograms() -> impl Strategy<Value = Vec<Arc<FloatHistogram>>> {
    let change = (proptest::option::weighted(0.3, histogram()), 0u32..50);
    (histogram(), proptest::collection::vec(change, 0..20)).prop_map(|(first, changes)| {
        let mut out = vec![first];
        for (other, more) in changes {
            let mut h = match other {
                Some(o) => FloatHistogram::clone(&o),
                None => FloatHistogram::clone(out.last().expect("it has one")),
            };
            let all = h.positive.counts.iter_mut().chain(&mut h.negative.counts);
            all.for_each(|c| *c += f64::from(more));
            h.sum += 0.25;
            out.push(Arc::new(h));
        }
        out
    })
}

fn value() -> impl Strategy<Value = SampleValue> {
    prop_oneof![
        2 => histogram().prop_map(SampleValue::Histogram),
        1 => (0u32..9).prop_map(|v| SampleValue::Float(f64::from(v))),
        1 => Just(SampleValue::Float(f64::from_bits(STALE_NAN_BITS))),
    ]
}

/// In any order, often at equal times.
pub(crate) fn any_samples(n: usize) -> impl Strategy<Value = Vec<AnySample>> {
    let start = prop_oneof![3 => Just(0i64), 1 => Just(5i64), 1 => any::<i64>()];
    let one = (0i64..200, start, value()).prop_map(|(ts_ms, start_ms, value)| AnySample { ts_ms, start_ms, value });
    proptest::collection::vec(one, 0..n)
}

pub(crate) fn ascending(mut samples: Vec<AnySample>) -> Samples {
    samples.sort_by_key(|s| s.ts_ms);
    samples.dedup_by_key(|s| s.ts_ms);
    let mut out = Samples::default();
    samples.into_iter().for_each(|s| out.push(s));
    out
}

/// A form that compares by bits.
pub(crate) type Plain = (i64, i64, Result<u64, String>);

pub(crate) fn plain(s: &AnySample) -> Plain {
    let value = match &s.value {
        SampleValue::Float(v) => Ok(v.to_bits()),
        SampleValue::Histogram(h) => Err(bits(h)),
    };
    (s.ts_ms, s.start_ms, value)
}

fn bits(h: &FloatHistogram) -> String {
    let side = |b: &Buckets| {
        (
            b.spans.clone(),
            b.counts.iter().map(|c| c.to_bits()).collect::<Vec<_>>(),
        )
    };
    let bounds = h
        .custom_bounds
        .as_deref()
        .map(|b| b.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
    let head = [h.zero_threshold, h.zero_count, h.count, h.sum].map(f64::to_bits);
    format!(
        "{:?}",
        (
            h.reset_hint,
            h.schema,
            head,
            side(&h.positive),
            side(&h.negative),
            bounds
        )
    )
}

pub(crate) fn assert_same(a: &FloatHistogram, b: &FloatHistogram) {
    assert_eq!(bits(a), bits(b));
    assert!(histogram::same(a, b));
}
