use proptest::prelude::*;

use super::*;
use crate::arb::{any_samples, ascending, histogram, plain};

fn check(samples: &Samples) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut bytes, samples.as_ref());
    assert_eq!(
        is_rich(&bytes),
        samples.as_ref().has_starts() || !samples.histograms.is_empty()
    );
    // Behind what is there already.
    let mut out = Samples::default();
    out.push_float(-1, 7.0);
    decode(&bytes, &samples.times, &mut out).unwrap();
    let got: Vec<_> = out.as_ref().iter().skip(1).map(|s| plain(&s)).collect();
    let want: Vec<_> = samples.as_ref().iter().map(|s| plain(&s)).collect();
    assert_eq!(got, want);
    for cut in 0..bytes.len() {
        let mut out = Samples::default();
        out.push_float(-1, 7.0);
        assert!(decode(&bytes[..cut], &samples.times, &mut out).is_err());
        assert_eq!((out.len(), out.floats.len(), out.histograms.len()), (1, 1, 0));
    }
    bytes
}

#[test]
fn floats_alone_are_as_ever() {
    let mut s = Samples::default();
    for i in 0..10 {
        s.push_float(i, i as f64);
    }
    let bytes = check(&s);
    let mut plain = Vec::new();
    values::encode(&mut plain, &s.floats);
    assert_eq!(bytes, plain);
}

#[test]
fn a_constant_start_costs_little() {
    let (mut s, mut floats) = (Samples::default(), Samples::default());
    for i in 0..500 {
        floats.push_float(i, (i % 7) as f64);
        s.push(AnySample {
            ts_ms: i,
            start_ms: 1_700_000_000_000,
            value: SampleValue::Float((i % 7) as f64),
        });
    }
    assert!(check(&s).len() < check(&floats).len() + 14);
}

#[test]
fn slots_end_where_histograms_get_many() {
    let mut h = trilith_histogram::FloatHistogram::default();
    h.positive.spans = vec![trilith_histogram::Span {
        offset: 0,
        length: 10_000,
    }];
    h.positive.counts = vec![1.0; 10_000];
    let h = std::sync::Arc::new(h);
    let mut s = Samples::default();
    for ts_ms in 0..20 {
        let value = SampleValue::Histogram(h.clone());
        s.push(AnySample {
            ts_ms,
            start_ms: 0,
            value,
        });
    }
    let mut rest = s.as_ref();
    let mut lens = Vec::new();
    while !rest.is_empty() {
        let n = slot_len(rest);
        lens.push(n);
        rest = rest.slice(n..rest.len());
    }
    assert_eq!(lens, [6, 6, 6, 2]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn round_trip(samples in any_samples(40)) {
        let samples = ascending(samples);
        if !samples.is_empty() {
            check(&samples);
        }
    }

    #[test]
    fn histograms_alone(all in proptest::collection::vec(histogram(), 1..10), start in 0i64..2) {
        let of = |(i, h)| AnySample { ts_ms: i, start_ms: start * i, value: SampleValue::Histogram(h) };
        check(&ascending((0i64..).zip(all).map(of).collect()));
    }

    #[test]
    fn hostile(bytes in proptest::collection::vec(any::<u8>(), 0..200), encoding in 3u8..7, n in 1usize..50) {
        let mut payload = vec![encoding];
        payload.extend(bytes);
        let times: Vec<i64> = (0..n as i64).collect();
        let _ = decode(&payload, &times, &mut Samples::default());
    }

    #[test]
    fn damaged(samples in any_samples(40), at in any::<usize>(), mask in 1u8..) {
        let samples = ascending(samples);
        if !samples.is_empty() {
            let mut bytes = Vec::new();
            encode(&mut bytes, samples.as_ref());
            let at = at % bytes.len();
            bytes[at] ^= mask;
            let _ = decode(&bytes, &samples.times, &mut Samples::default());
        }
    }
}
