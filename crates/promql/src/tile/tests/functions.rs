//! Functions one by one.

use RangeFunction as F;

use super::*;

const MIXED: &str = "encountered a mix of histograms and floats for metric name \"m\"";
const IGNORED: &str = "ignored histograms in a range containing both floats and histograms for metric name \"m\"";
const NOT_A_COUNTER: &str = "this native histogram metric is not a counter: \"m\"";
const NOT_A_GAUGE: &str = "this native histogram metric is not a gauge: \"m\"";
const SCHEMAS: &str =
    "vector contains a mix of histograms with exponential and custom buckets schemas for metric name \"m\"";
const OVERLAP: &str = "sample has start time that overlaps with previous sample timestamp for metric \"m\"";
const RATE_NAME: &str = "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"m\"";
const RATE: F = F::Rate(RateKind::Rate);
const INCREASE: F = F::Rate(RateKind::Increase);
const DELTA: F = F::Rate(RateKind::Delta);

#[track_caller]
fn check(function: F, points: &[Point], at: f64, width: f64, want: Option<SampleValue>, notes: &[&str]) {
    check_with(function, &[], points, at, width, Edges::Plain, want, notes);
}

#[track_caller]
fn check_with(
    function: F,
    params: &[f64],
    points: &[Point],
    at: f64,
    width: f64,
    edges: Edges,
    want: Option<SampleValue>,
    notes: &[&str],
) {
    let (got, said) = run(function, params, points, at, width, edges);
    let said: Vec<&str> = said.iter().map(String::as_str).filter(|n| *n != RATE_NAME).collect();
    assert_eq!(said, notes, "{function:?}");
    assert!(same(&got, &want), "{function:?}: {got:?} instead of {want:?}");
}

/// Histograms by their buckets and hints; floats by a relative 1e-12.
pub(super) fn same(a: &Option<SampleValue>, b: &Option<SampleValue>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(SampleValue::Float(a)), Some(SampleValue::Float(b))) => close(*a, *b),
        (Some(SampleValue::Histogram(a)), Some(SampleValue::Histogram(b))) => same_histogram(a, b),
        _ => false,
    }
}

pub(super) fn close(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-12 * a.abs().max(b.abs()).max(1e-3)
}

fn same_histogram(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    let compact = |h: &FloatHistogram| {
        let mut h = h.clone();
        h.compact();
        h
    };
    let (a, b) = (compact(a), compact(b));
    let side = |a: &Buckets, b: &Buckets| {
        a.iter().len() == b.iter().len() && a.iter().zip(b.iter()).all(|(a, b)| a.0 == b.0 && close(a.1, b.1))
    };
    a.schema == b.schema
        && a.reset_hint == b.reset_hint
        && a.custom_bounds == b.custom_bounds
        && close(a.count, b.count)
        && close(a.sum, b.sum)
        && close(a.zero_count, b.zero_count)
        && side(&a.positive, &b.positive)
        && side(&a.negative, &b.negative)
}

fn gauge(counts: &[f64]) -> SampleValue {
    h(hinted(ResetHint::Gauge, histogram(counts)))
}

#[test]
fn instant_selectors_of_both_kinds() {
    let points = every_minute([f(1.0), h(histogram(&[2.0])), f(STALE), h(histogram(&[4.0]))]);
    let at = [0, 90_000, 120_000, 200_000, 480_000];
    let plain = frame(&at, LOOKBACK, Edges::Plain);
    let (cells, _) = run_cell(&points, &Cell::Newest, &plain);
    let want = [
        Some(f(1.0)),
        Some(h(histogram(&[2.0]))),
        None,
        Some(h(histogram(&[4.0]))),
        None,
    ];
    assert_eq!(cells, want);
    let (cells, _) = run_cell(&points, &Cell::NewestTime, &plain);
    assert_eq!(cells, [Some(f(0.0)), Some(f(60.0)), None, Some(f(180.0)), None]);
    let started: Vec<Point> = points.iter().map(|p| (p.0, p.1.clone(), p.0 - 1500)).collect();
    let (cells, _) = run_cell(&started, &Cell::NewestStart, &plain);
    assert_eq!(cells, [Some(f(-1.5)), Some(f(58.5)), None, Some(f(178.5)), None]);
    let (cells, _) = run_cell(&points, &Cell::NewestStart, &plain);
    assert_eq!(cells[1], Some(f(0.0)));
}

#[test]
fn counting_takes_both_kinds() {
    let points = every_minute([f(1.0), h(histogram(&[2.0])), f(STALE), f(3.0), h(histogram(&[4.0]))]);
    check(F::Count, &points, 4.0, 5.0, Some(f(4.0)), &[]);
    check(F::Present, &points, 1.0, 1.0, Some(f(1.0)), &[]);
    check(F::Present, &points, 2.0, 1.0, None, &[]);
    check(F::First, &points, 4.0, 4.0, Some(h(histogram(&[2.0]))), &[]);
    check(F::First, &points, 4.0, 5.0, Some(f(1.0)), &[]);
    check(F::Last, &points, 4.0, 5.0, Some(h(histogram(&[4.0]))), &[]);
    check(F::Last, &points, 3.0, 5.0, Some(f(3.0)), &[]);
    check(F::TsOfFirst, &points, 4.0, 4.0, Some(f(60.0)), &[]);
    check(F::TsOfLast, &points, 4.0, 4.0, Some(f(240.0)), &[]);
    check(F::TsOfLast, &points, 3.5, 4.0, Some(f(180.0)), &[]);
}

#[test]
fn floats_are_taken_out_of_a_mix() {
    let points = every_minute([f(3.0), f(1.0), h(histogram(&[2.0])), f(1.0), f(5.0)]);
    for (function, params, want) in [
        (F::Min, &[][..], 1.0),
        (F::Max, &[], 5.0),
        (F::TsOfMin, &[], 180.0),
        (F::TsOfMax, &[], 240.0),
        (F::Quantile, &[0.5], 2.0),
        (F::Stdvar, &[], 2.75),
        (F::Stddev, &[], 2.75f64.sqrt()),
        (F::Mad, &[], 1.0),
    ] {
        check_with(
            function,
            params,
            &points,
            4.0,
            5.0,
            Edges::Plain,
            Some(f(want)),
            &[IGNORED],
        );
        // Only histograms: nothing, and nothing to say.
        check_with(function, params, &points, 2.0, 1.0, Edges::Plain, None, &[]);
    }
    let line = every_minute([f(1.0), f(3.0), h(histogram(&[2.0])), f(7.0)]);
    check(F::Deriv, &line, 3.0, 4.0, Some(f(2.0 / 60.0)), &[IGNORED]);
    check_with(
        F::PredictLinear,
        &[60.0],
        &line,
        3.0,
        4.0,
        Edges::Plain,
        Some(f(9.0)),
        &[IGNORED],
    );
    check_with(
        F::DoubleExponentialSmoothing,
        &[0.5, 0.5],
        &line,
        1.0,
        4.0,
        Edges::Plain,
        Some(f(3.0)),
        &[],
    );
    for (function, params) in [
        (F::Deriv, &[][..]),
        (F::PredictLinear, &[60.0]),
        (F::DoubleExponentialSmoothing, &[0.5, 0.5]),
    ] {
        // One float and histograms: too few, but said.
        check_with(function, params, &line, 2.0, 2.0, Edges::Plain, None, &[IGNORED]);
        check_with(function, params, &line, 0.0, 2.0, Edges::Plain, None, &[]);
        check_with(function, params, &line, 2.0, 1.0, Edges::Plain, None, &[]);
    }
}

#[test]
fn smoothing_factors_lie_between_zero_and_one() {
    let refused = |params: [f64; 2], points: &[Point]| {
        let remarks = Remarks {
            notes: Notes::of(""),
            at: Span::default(),
            types: false,
        };
        let cell = window(F::DoubleExponentialSmoothing, &params, 1);
        let e = evaluate(
            &context(0),
            &one(points),
            &cell,
            &frame(&[60_000], 120_000, Edges::Plain),
            &remarks,
        );
        e.err().map(|e| (e.kind, e.message))
    };
    let points = every_minute([f(1.0), f(2.0)]);
    let wrong = |text: &str| Some((ErrorKind::Execution, text.to_owned()));
    assert_eq!(
        refused([1.0, 0.5], &points),
        wrong("invalid smoothing factor. Expected: 0 < sf < 1, got: 1.000000")
    );
    assert_eq!(
        refused([0.5, f64::NEG_INFINITY], &points),
        wrong("invalid trend factor. Expected: 0 < tf < 1, got: -Inf")
    );
    assert_eq!(refused([0.5, f64::NAN], &points), None);
    // Without samples nothing is computed.
    assert_eq!(refused([1.0, 0.5], &[(600_000, f(1.0), 0)]), None);
}

#[test]
fn wrong_quantiles_are_told_where_they_are_used() {
    let text = "quantile value should be between 0 and 1, got 2";
    let points = every_minute([f(1.0)]);
    check_with(
        F::Quantile,
        &[2.0],
        &points,
        0.0,
        1.0,
        Edges::Plain,
        Some(f(f64::INFINITY)),
        &[text],
    );
    check_with(F::Quantile, &[2.0], &points, 9.0, 1.0, Edges::Plain, None, &[]);
    let points = every_minute([h(histogram(&[1.0]))]);
    check_with(F::Quantile, &[2.0], &points, 0.0, 1.0, Edges::Plain, None, &[]);
}

#[test]
fn sums_and_means_of_histograms() {
    let points = every_minute([h(histogram(&[1.0, 2.0])), h(histogram(&[3.0, 0.0, 2.0])), f(1.0)]);
    check(F::Sum, &points, 1.0, 2.0, Some(h(histogram(&[4.0, 2.0, 2.0]))), &[]);
    check(F::Avg, &points, 1.0, 2.0, Some(h(histogram(&[2.0, 1.0, 1.0]))), &[]);
    check(F::Sum, &points, 2.0, 2.0, None, &[MIXED]);
    check(F::Avg, &points, 2.0, 2.0, None, &[MIXED]);
    let points = every_minute([
        h(hinted(ResetHint::Reset, custom(&[1.0, 2.0], &[1.0, 2.0, 3.0]))),
        h(hinted(ResetHint::NotReset, custom(&[2.0], &[1.0, 1.0]))),
        h(histogram(&[1.0])),
    ]);
    let sum = FloatHistogram {
        sum: 9.0,
        ..custom(&[2.0], &[4.0, 4.0])
    };
    let notes = [
        "conflicting counter resets during histogram aggregation",
        "mismatched custom buckets were reconciled during aggregation",
    ];
    check(F::Sum, &points, 1.0, 2.0, Some(h(sum)), &notes);
    check(F::Avg, &points, 2.0, 3.0, None, &[SCHEMAS]);
}

#[test]
fn rates_of_histograms() {
    let counter: Vec<SampleValue> = (0..6)
        .map(|i| h(histogram(&[f64::from(i), 2.0 * f64::from(i)])))
        .collect();
    let points = every_minute(counter);
    // Four intervals of five minutes, and one by extrapolation.
    check(INCREASE, &points, 5.0, 5.0, Some(gauge(&[5.0, 10.0])), &[]);
    check(RATE, &points, 5.0, 5.0, Some(gauge(&[5.0 / 300.0, 10.0 / 300.0])), &[]);
    check(DELTA, &points, 5.0, 5.0, Some(gauge(&[5.0, 10.0])), &[NOT_A_GAUGE]);
    check(INCREASE, &points, 0.0, 5.0, None, &[]);
    // The zero point bounds what is added on the left: of six minutes one, not half of one.
    check(INCREASE, &points, 5.0, 5.5, Some(gauge(&[5.0, 10.0])), &[]);
    // A reset between the second and the third.
    let reset = every_minute([&[4.0][..], &[6.0], &[1.0], &[3.0]].map(|c| h(histogram(c))));
    check(INCREASE, &reset, 3.0, 4.0, Some(gauge(&[5.0 * 4.0 / 3.0])), &[]);
    // A reset right after the first: its layout does not count.
    let away = every_minute([h(custom(&[1.0], &[9.0])), h(histogram(&[1.0])), h(histogram(&[3.0]))]);
    check(INCREASE, &away, 2.0, 3.0, Some(gauge(&[3.0 * 3.0 / 2.0])), &[]);
    check(DELTA, &away, 2.0, 3.0, None, &[SCHEMAS]);
    let mut mixed = points.clone();
    mixed[2].1 = f(1.0);
    check(RATE, &mixed, 5.0, 6.0, None, &[MIXED]);
    let gauges = every_minute([gauge(&[1.0]), h(histogram(&[2.0])), gauge(&[4.0])]);
    check(INCREASE, &gauges, 2.0, 3.0, Some(gauge(&[4.0])), &[NOT_A_COUNTER]);
    check(DELTA, &gauges, 2.0, 3.0, Some(gauge(&[4.5])), &[]);
}

#[test]
fn coarsest_schema_counts() {
    let fine = |n: f64| FloatHistogram {
        schema: 1,
        ..histogram(&[n, n, n, n])
    };
    // Index 0 of schema 0 holds −1 and 0 of schema 1; 1 holds 1 and 2; 2 holds 3.
    let coarse = |n: f64| FloatHistogram {
        sum: 6.0 * n,
        ..histogram(&[n, 2.0 * n, n])
    };
    let points = every_minute([h(fine(1.0)), h(coarse(2.0)), h(coarse(3.0))]);
    let (got, _) = run(INCREASE, &[], &points, 2.0, 2.5, Edges::Plain);
    let Some(SampleValue::Histogram(got)) = got else {
        panic!("a histogram");
    };
    assert_eq!(got.schema, 0);
    let buckets: Vec<(i32, f64)> = got.positive.iter().collect();
    // Times the extrapolation: two minutes of samples, 30 s to the start.
    assert_eq!(buckets, [(0, 2.5), (1, 5.0), (2, 2.5)]);
}

#[test]
fn last_two_samples() {
    let points = every_minute([
        f(1.0),
        f(4.0),
        f(2.0),
        h(histogram(&[1.0])),
        h(histogram(&[4.0])),
        f(1.0),
    ]);
    check(F::Irate, &points, 1.0, 2.0, Some(f(3.0 / 60.0)), &[]);
    check(F::Irate, &points, 2.0, 3.0, Some(f(2.0 / 60.0)), &[]);
    check(F::Idelta, &points, 2.0, 3.0, Some(f(-2.0)), &[]);
    check(F::Irate, &points, 3.0, 3.0, None, &[MIXED]);
    check(F::Idelta, &points, 5.0, 3.0, None, &[MIXED]);
    check(F::Irate, &points, 4.0, 5.0, Some(gauge(&[3.0 / 60.0])), &[]);
    check(F::Idelta, &points, 4.0, 5.0, Some(gauge(&[3.0])), &[NOT_A_GAUGE]);
    check(F::Irate, &points, 3.0, 1.0, None, &[]);
    let gauges = every_minute([gauge(&[4.0]), gauge(&[1.0])]);
    check(F::Idelta, &gauges, 1.0, 2.0, Some(gauge(&[-3.0])), &[]);
    check(
        F::Irate,
        &gauges,
        1.0,
        2.0,
        Some(gauge(&[1.0 / 60.0])),
        &[NOT_A_COUNTER],
    );
    let kinds = every_minute([h(histogram(&[1.0])), h(custom(&[1.0], &[2.0]))]);
    check(F::Idelta, &kinds, 1.0, 2.0, None, &[NOT_A_GAUGE, SCHEMAS]);
}

#[test]
fn walks_over_both_kinds() {
    let points = every_minute([
        f(3.0),
        f(3.0),
        f(1.0),
        h(histogram(&[1.0])),
        h(hinted(ResetHint::NotReset, histogram(&[1.0]))),
        h(hinted(ResetHint::Reset, histogram(&[2.0]))),
        f(f64::NAN),
        f(f64::NAN),
    ]);
    check(F::Changes, &points, 7.0, 8.0, Some(f(4.0)), &[]);
    check(F::Resets, &points, 7.0, 8.0, Some(f(4.0)), &[]);
    // Anchored: the sample before the start counts, whatever its kind, and no older one.
    let anchored = |function, at: f64, width: f64, want: Option<f64>| {
        check_with(function, &[], &points, at, width, Edges::Anchored, want.map(f), &[]);
    };
    anchored(F::Changes, 2.0, 1.0, Some(1.0));
    anchored(F::Changes, 3.0, 1.0, Some(1.0));
    anchored(F::Changes, 6.0, 1.5, Some(2.0));
    anchored(F::Resets, 1.0, 1.0, Some(0.0));
    anchored(F::Resets, 4.0, 2.0, Some(1.0));
    anchored(F::Resets, 9.0, 1.0, None);
    anchored(F::Resets, 0.5, 1.0, Some(0.0));
}

#[test]
fn start_timestamps_reset_counters() {
    // Counting anew since 30 s before each sample.
    let anew: Vec<Point> = (0..4).map(|i| (i * 60_000, f(5.0), i * 60_000 - 30_000)).collect();
    // The first sample in the window counts from its start on: 5 + 3·5 over 210 s, up to the window's end.
    check(INCREASE, &anew, 3.0, 4.0, Some(f(20.0)), &[]);
    check(INCREASE, &anew, 3.25, 4.5, Some(f(20.0 * 225.0 / 210.0)), &[]);
    check(F::Resets, &anew, 3.0, 4.0, Some(f(3.0)), &[]);
    check(F::Irate, &anew, 3.0, 4.0, Some(f(5.0 / 60.0)), &[]);
    // These do not look at starts.
    check(F::Idelta, &anew, 3.0, 4.0, Some(f(0.0)), &[]);
    check(DELTA, &anew, 3.0, 4.0, Some(f(0.0)), &[]);
    // One sample is enough, without extrapolation to the right.
    check(INCREASE, &anew[1..2], 1.5, 2.0, Some(f(5.0)), &[]);
    check(RATE, &anew[1..2], 1.5, 2.0, Some(f(5.0 / 120.0)), &[]);
    check(INCREASE, &[(60_000, f(5.0), 0)], 1.5, 2.0, None, &[]);
    // The start of the window is outside.
    check(INCREASE, &anew[1..2], 1.5, 1.0, None, &[]);
    let histograms: Vec<Point> = anew.iter().map(|p| (p.0, h(histogram(&[5.0])), p.2)).collect();
    check(INCREASE, &histograms, 3.0, 4.0, Some(gauge(&[20.0])), &[]);
    check(F::Resets, &histograms, 3.0, 4.0, Some(f(3.0)), &[]);
    check(F::Irate, &histograms, 3.0, 4.0, Some(gauge(&[5.0 / 60.0])), &[]);
    check(INCREASE, &histograms[1..2], 1.5, 2.0, Some(h(histogram(&[5.0]))), &[]);
    // A start inside what the sample before covers.
    let overlapping: Vec<Point> = (1..4).map(|i| (i * 60_000, f(i as f64), i * 60_000 - 90_000)).collect();
    check(
        INCREASE,
        &overlapping,
        3.0,
        2.5,
        Some(f(2.0 * 150.0 / 120.0)),
        &[OVERLAP],
    );
    let (_, notes) = run_cell(
        &overlapping,
        &window(RATE, &[], 2),
        &frame(&[180_000, 181_000], 150_000, Edges::Plain),
    );
    assert!(notes.contains(&format!("{OVERLAP} (2 occurrences)")), "{notes:?}");
}

#[test]
fn edges_of_float_windows() {
    let points: Vec<Point> = (0..9)
        .map(|i| (i * 15_000, f([1., 2., 3., 4., 5., 9., 10., 11., 12.][i as usize]), 0))
        .collect();
    for (at, anchored, smoothed) in [
        (5.0, 0.0, 1.0 / 3.0),
        (20.0, 1.0, 4.0 / 3.0),
        (110.0, 7.0, 7.0),
        // The left edge 65 s lies a third of the way from 5 to 9, the last value is carried to the right one.
        (125.0, 7.0, 12.0 - (5.0 + 4.0 / 3.0)),
    ] {
        let minutes = at / 60.0;
        check_with(
            INCREASE,
            &[],
            &points,
            minutes,
            1.0,
            Edges::Anchored,
            Some(f(anchored)),
            &[],
        );
        check_with(
            INCREASE,
            &[],
            &points,
            minutes,
            1.0,
            Edges::Smoothed,
            Some(f(smoothed)),
            &[],
        );
        check_with(
            RATE,
            &[],
            &points,
            minutes,
            1.0,
            Edges::Smoothed,
            Some(f(smoothed / 60.0)),
            &[],
        );
        check_with(
            DELTA,
            &[],
            &points,
            minutes,
            1.0,
            Edges::Anchored,
            Some(f(anchored)),
            &[],
        );
    }
    // A reset between the neighbours of an edge: the counter rises from zero there, a gauge falls.
    let reset = every_minute([f(9.0), f(8.0), f(5.0), f(4.0)]);
    check_with(INCREASE, &[], &reset, 2.25, 2.0, Edges::Smoothed, Some(f(12.0)), &[]);
    check_with(
        DELTA,
        &[],
        &reset,
        2.25,
        2.0,
        Edges::Smoothed,
        Some(f(4.75 - 8.75)),
        &[],
    );
    // Only before or only after the window, or too far away.
    check_with(RATE, &[], &points, 10.0, 1.0, Edges::Anchored, None, &[]);
    check_with(RATE, &[], &points, 4.0, 1.0, Edges::Smoothed, None, &[]);
    check_with(RATE, &[], &points, -2.0, 1.0, Edges::Smoothed, None, &[]);
    let mixed = every_minute([f(1.0), h(histogram(&[1.0]))]);
    check_with(RATE, &[], &mixed, 1.0, 1.0, Edges::Anchored, None, &[MIXED]);
}

#[test]
fn edges_of_histogram_windows() {
    let points: Vec<Point> = (0..8)
        .map(|i| (i * 15_000, h(histogram(&[(i + 1) as f64])), 0))
        .collect();
    let seconds = |s: f64| s / 60.0;
    check_with(
        INCREASE,
        &[],
        &points,
        seconds(50.0),
        1.0,
        Edges::Anchored,
        Some(gauge(&[3.0])),
        &[],
    );
    check_with(
        INCREASE,
        &[],
        &points,
        seconds(50.0),
        1.0,
        Edges::Smoothed,
        Some(gauge(&[10.0 / 3.0])),
        &[],
    );
    check_with(
        DELTA,
        &[],
        &points,
        seconds(50.0),
        1.0,
        Edges::Anchored,
        Some(gauge(&[3.0])),
        &[NOT_A_GAUGE],
    );
    check_with(
        RATE,
        &[],
        &points,
        seconds(50.0),
        1.0,
        Edges::Anchored,
        Some(gauge(&[0.05])),
        &[],
    );
    check_with(RATE, &[], &points, 9.0, 1.0, Edges::Anchored, None, &[]);
    // Both edges lie between the same two samples, which a reset separates.
    let two = vec![(0, h(histogram(&[10.0])), 0), (20_000, h(histogram(&[5.0])), 0)];
    let ten = seconds(10.0);
    check_with(
        INCREASE,
        &[],
        &two,
        seconds(15.0),
        ten,
        Edges::Smoothed,
        Some(gauge(&[2.5])),
        &[],
    );
    check_with(
        INCREASE,
        &[],
        &two,
        seconds(20.0),
        seconds(20.0),
        Edges::Anchored,
        Some(gauge(&[5.0])),
        &[],
    );
    let schemas = every_minute([h(histogram(&[1.0])), h(custom(&[1.0], &[1.0]))]);
    check_with(RATE, &[], &schemas, 1.0, 1.0, Edges::Anchored, None, &[SCHEMAS]);
}

#[test]
fn smoothed_instants() {
    let smoothed = |points: &[Point], at: &[i64]| run_cell(points, &Cell::Newest, &frame(at, 0, Edges::Smoothed));
    let points = vec![(0, f(1.0), 0), (10_000, f(3.0), 0), (20_000, f(STALE), 0)];
    let (cells, _) = smoothed(&points, &[-1, 0, 5_000, 15_000, 310_000]);
    assert_eq!(cells, [None, Some(f(1.0)), Some(f(2.0)), Some(f(3.0)), None]);
    let points = vec![
        (0, h(histogram(&[1.0])), 0),
        (10_000, h(histogram(&[3.0])), 0),
        (20_000, h(hinted(ResetHint::Reset, histogram(&[2.0]))), 0),
    ];
    let (cells, notes) = smoothed(&points, &[5_000, 10_000, 15_000, 25_000]);
    assert!(notes.is_empty());
    let want = [&[2.0], &[3.0], &[1.0], &[2.0]].map(|c| Some(h(histogram(c))));
    let bare = |v: &Option<SampleValue>| match v {
        Some(SampleValue::Histogram(x)) => Some(h(hinted(ResetHint::Unknown, FloatHistogram::clone(x)))),
        other => other.clone(),
    };
    assert!(cells.iter().zip(&want).all(|(a, b)| same(&bare(a), b)), "{cells:?}");
    assert!(matches!(&cells[3], Some(SampleValue::Histogram(x)) if x.reset_hint == ResetHint::Unknown));
    let (cells, notes) = smoothed(&[(0, f(1.0), 0), (10_000, h(histogram(&[1.0])), 0)], &[5_000]);
    assert_eq!((cells[0].clone(), notes), (None, vec![MIXED.to_owned()]));
}

#[test]
fn raw_windows_with_edges() {
    let points: Vec<Point> = vec![(0, f(0.0), 0), (10, f(10.0), 0), (20, f(20.0), 0), (30, f(30.0), 0)];
    let samples = one(&points);
    let column = &samples.batch.columns[0];
    let split = Split::new(samples.batch.times_of(column), samples.batch.values_of(column), &[]);
    let raw = |start, end, edges| {
        let frame = frame(&[end], end - start, edges);
        let window = windows(&context(0), &split, &frame).unwrap().next().unwrap().unwrap();
        extended(window.floats, start, end, edges == Edges::Smoothed)
    };
    assert_eq!(
        raw(5, 25, Edges::Smoothed),
        [(5, 5.0), (10, 10.0), (20, 20.0), (25, 25.0)]
    );
    assert_eq!(
        raw(5, 25, Edges::Anchored),
        [(5, 0.0), (10, 10.0), (20, 20.0), (25, 20.0)]
    );
    assert_eq!(raw(10, 20, Edges::Anchored), [(10, 10.0), (20, 20.0)]);
    assert_eq!(raw(30, 40, Edges::Anchored), []);
    assert_eq!(raw(-20, -10, Edges::Smoothed), [(-20, 0.0), (-10, 0.0)]);
}

#[test]
fn windows_are_limited_not_series() {
    let remarks = Remarks {
        notes: Notes::of(""),
        at: Span::default(),
        types: false,
    };
    let too_many = |points: &[Point], width: i64| {
        let cell = window(F::Count, &[], 1);
        let out = evaluate(
            &context(20),
            &one(points),
            &cell,
            &frame(&[6_000_000], width, Edges::Plain),
            &remarks,
        );
        out.err().map(|e| (e.kind, e.message))
    };
    let text = "query processing would load too many samples into memory in query execution";
    let refused = Some((ErrorKind::Execution, text.to_owned()));
    let floats = every_minute((0..101).map(|i| f(f64::from(i))));
    assert_eq!(too_many(&floats, 20 * 60_000), None);
    assert_eq!(too_many(&floats, 21 * 60_000), refused);
    // A histogram weighs as many samples as it has 16-byte words: 200 of 16 bytes.
    let histograms = every_minute((0..101).map(|_| h(histogram(&[1.0]))));
    assert_eq!(too_many(&histograms, 60_000), None);
    assert_eq!(too_many(&histograms, 2 * 60_000), refused);
}

#[test]
fn counters_are_known_by_name_or_type() {
    let notes_of = |name: &str, kind: &str, types: bool| {
        let mut samples = one(&every_minute([f(1.0), f(2.0)]));
        samples.batch.columns[0].labels = Labels::from_pairs([("__name__", name), ("__type__", kind)]);
        let remarks = Remarks {
            notes: Notes::of(""),
            at: Span::default(),
            types,
        };
        let cell = window(RATE, &[], 1);
        evaluate(
            &context(0),
            &samples,
            &cell,
            &frame(&[60_000], 120_000, Edges::Plain),
            &remarks,
        )
        .unwrap();
        remarks.notes.take().1
    };
    for suffix in ["total", "sum", "count", "bucket"] {
        assert!(notes_of(&format!("m_{suffix}"), "", false).is_empty());
    }
    assert_eq!(notes_of("m", "counter", false).len(), 1);
    assert!(notes_of("", "", false).is_empty());
    assert!(notes_of("m", "counter", true).is_empty() && notes_of("m", "histogram", true).is_empty());
    assert_eq!(
        notes_of("m_total", "gauge", true),
        [
            "PromQL info: metric might not be a counter, __type__ label is not set to \"counter\" or \"histogram\", \
             got \"gauge\": \"m_total\" (1:1)"
        ]
    );
    // Histograms need no such name.
    let (_, notes) = run(
        RATE,
        &[],
        &every_minute([1.0, 2.0].map(|n| h(histogram(&[n])))),
        1.0,
        2.0,
        Edges::Plain,
    );
    assert!(notes.is_empty());
}
