use proptest::prelude::*;

use super::*;
use crate::arb;

fn check(all: &[Arc<FloatHistogram>]) -> usize {
    let (mut bytes, mut run) = (Vec::new(), Run::default());
    for h in all {
        run.put(&mut bytes, h);
    }
    let (mut r, mut run) = (Reader::new(&bytes), Run::default());
    for h in all {
        arb::assert_same(&run.take(&mut r, h.sum).unwrap(), h);
    }
    r.finish().unwrap();
    bytes.len()
}

/// `n` buckets from bucket `first` on.
fn of(first: i32, counts: &[f64]) -> FloatHistogram {
    FloatHistogram {
        count: counts.iter().sum(),
        positive: Buckets {
            spans: vec![Span {
                offset: first,
                length: counts.len() as u32,
            }],
            counts: counts.to_vec(),
        },
        ..FloatHistogram::default()
    }
}

#[test]
fn neighbours_cost_a_byte_per_bucket() {
    let all: Vec<_> = (0..50)
        .map(|i| Arc::new(of(-10, &(0..20).map(|b| f64::from(b * 1000 + i)).collect::<Vec<_>>())))
        .collect();
    let first = check(&all[..1]);
    assert_eq!(
        check(&all),
        first + 49 * (1 + 1 + 20 + 1),
        "flags, zero count, buckets, count"
    );
}

#[test]
fn a_new_bucket_keeps_the_others_cheap() {
    let before = Arc::new(of(0, &[1000.0; 30]));
    let mut counts = vec![1001.0; 30];
    counts.insert(0, 1.0);
    let after = Arc::new(of(-1, &counts));
    let one = check(std::slice::from_ref(&before));
    // Schema, threshold and two lists of spans are 13 bytes.
    assert_eq!(check(&[before, after]), one + 1 + 13 + 1 + 31 + 1);
}

#[test]
fn what_is_refused() {
    assert_eq!(refusal(&of(0, &[1.0, 2.0])), None);
    assert_eq!(refusal(&FloatHistogram::default()), None);
    let mut h = of(0, &[1.0, 2.0]);
    h.positive.counts.pop();
    assert!(refusal(&h).is_some(), "spans name more buckets than there are");
    let mut h = of(0, &[]);
    h.positive.spans = vec![
        Span {
            offset: 0,
            length: u32::MAX
        };
        3
    ];
    assert!(refusal(&h).is_some(), "too many buckets");
    let mut h = of(0, &[]);
    h.negative.spans = vec![
        Span {
            offset: i32::MAX,
            length: 0
        };
        EMPTY_SPANS_MAX + 1
    ];
    assert!(refusal(&h).is_some(), "too many empty spans");
    let mut h = of(0, &[1.0]);
    h.custom_bounds = Some(vec![0.0; BUCKETS_MAX + 1].into());
    assert!(refusal(&h).is_some(), "too many bounds");
    check(&[Arc::new(of(i32::MIN, &vec![1.0; BUCKETS_MAX]))]);
}

#[test]
fn repetitions_compare_by_bits_and_without_the_hint() {
    let mut a = of(0, &[1.0]);
    a.sum = f64::NAN;
    let mut b = a.clone();
    assert!(same(&a, &b));
    b.reset_hint = ResetHint::Reset;
    assert!(same(&a, &b));
    b.zero_count = -0.0;
    assert!(!same(&a, &b));
}

#[test]
fn damaged_runs_are_refused() {
    let mut bytes = Vec::new();
    let mut run = Run::default();
    run.put(&mut bytes, &Arc::new(of(0, &[1.0, 5.0])));
    for cut in 0..bytes.len() {
        assert!(Run::default().take(&mut Reader::new(&bytes[..cut]), 0.0).is_err());
    }
    for flags in [SAME_LAYOUT, SAME_BOUNDS, 64, 128] {
        let mut b = bytes.clone();
        b[0] = flags;
        assert!(Run::default().take(&mut Reader::new(&b), 0.0).is_err(), "flags {flags}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn round_trip(all in arb::histograms()) {
        check(&all);
    }

    #[test]
    fn hostile(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let (mut r, mut run) = (Reader::new(&bytes), Run::default());
        while !r.is_empty() && run.take(&mut r, 1.0).is_ok() {}
    }

    #[test]
    fn damaged(all in arb::histograms(), at in any::<usize>(), mask in 1u8..) {
        let (mut bytes, mut run) = (Vec::new(), Run::default());
        all.iter().for_each(|h| run.put(&mut bytes, h));
        let at = at % bytes.len();
        bytes[at] ^= mask;
        let (mut r, mut run) = (Reader::new(&bytes), Run::default());
        while !r.is_empty() && run.take(&mut r, 1.0).is_ok() {}
    }
}
