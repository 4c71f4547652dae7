//! Histogram functions where steps and kinds of histograms differ; what is the same at every step is in the scripts.

use trilith_histogram::{Buckets, FloatHistogram};
use trilith_model::SampleValue;

use super::*;

fn push(store: &MemorySeries, of: &[(&str, &str)], samples: &[(i64, f64)]) {
    store.push(&TenantId::anonymous(), labels(of), samples.iter().copied());
}

/// Buckets `h_bucket{job=…, le=…}` at every full minute.
fn classic(store: &MemorySeries, job: &str, buckets: &[(&str, &[f64])]) {
    for (le, counts) in buckets {
        let samples: Vec<_> = counts
            .iter()
            .enumerate()
            .map(|(i, n)| (i as i64 * 60_000, *n))
            .collect();
        push(store, &[("__name__", "h_bucket"), ("job", job), ("le", le)], &samples);
    }
}

/// (1,2] and (2,4], so much each.
fn native(counts: [f64; 2]) -> SampleValue {
    SampleValue::Histogram(Arc::new(FloatHistogram {
        count: counts[0] + counts[1],
        sum: 1.5 * counts[0] + 3.0 * counts[1],
        positive: Buckets::run(1, counts.to_vec()),
        ..FloatHistogram::default()
    }))
}

#[test]
fn repairs_are_told_once_for_all_samples() {
    let store = MemorySeries::new();
    classic(
        &store,
        "a",
        &[("1", &[4.0, 4.0]), ("2", &[3.0, 4.0]), ("+Inf", &[8.0, 8.0])],
    );
    classic(
        &store,
        "b",
        &[("1", &[4.0, 40.0]), ("5", &[4.0, 9.0]), ("+Inf", &[8.0, 50.0])],
    );
    let out = run_range(&store, "histogram_quantile(0.5, h_bucket)", 0, 60_000, 60_000).unwrap();
    assert_eq!(
        out.infos,
        [
            "PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see \
          https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile) for metric name \
          \"h_bucket\", from buckets 2 to 5, with a max diff of 31, over 2 samples from 1970-01-01T00:00:00Z to \
          1970-01-01T00:01:00Z (1:25)"
        ]
    );
    // Several quantiles of the same buckets are one sample; without a valid quantile nobody looks.
    let out = run_instant(
        &store,
        "histogram_quantiles(h_bucket{job=\"b\"}, \"q\", 2, 0.5, 0.9)",
        60_000,
    )
    .unwrap();
    assert!(out.infos[0].contains("over 1 samples"), "{:?}", out.infos);
    let out = run_instant(&store, "histogram_quantiles(h_bucket, \"q\", 2, -1)", 60_000).unwrap();
    assert_eq!((out.infos.len(), out.warnings.len()), (0, 2));
}

#[test]
fn kinds_of_histograms_conflict_step_by_step() {
    let store = MemorySeries::new();
    let buckets = [
        ("1", &[1.0, 1.0, STALE][..]),
        ("2", &[2.0, 2.0, STALE]),
        ("+Inf", &[4.0, 4.0, STALE]),
    ];
    classic(&store, "a", &buckets);
    let of = labels(&[("__name__", "h_bucket"), ("job", "a")]);
    let samples = [(60_000, native([1.0, 1.0]), 0), (120_000, native([1.0, 1.0]), 0)];
    store.push_values(&TenantId::anonymous(), of, samples);
    for query in [
        "histogram_quantile(0.5, h_bucket)",
        "histogram_fraction(-Inf, 2, h_bucket)",
    ] {
        let out = run_range(&store, query, 0, 120_000, 60_000).unwrap();
        let value = if query.contains("quantile") { "2" } else { "0.5" };
        assert_eq!(
            show(&out.value),
            [format!("{{job=\"a\"}} {value}@0 {value}@120000")],
            "{query}"
        );
        assert_eq!(out.warnings.len(), 1);
        assert!(out.warnings[0].contains("vector contains a mix of classic and native histograms"));
    }
}

#[test]
fn each_step_has_its_quantile() {
    let store = MemorySeries::new();
    classic(&store, "a", &[("1", &[1.0; 3]), ("2", &[2.0; 3]), ("+Inf", &[2.0; 3])]);
    push(
        &store,
        &[("__name__", "phi")],
        &[(0, 0.5), (60_000, 1.0), (120_000, 0.5)],
    );
    let query = "histogram_quantiles(h_bucket, \"q\", scalar(phi), 0)";
    let out = run_range(&store, query, 0, 120_000, 60_000).unwrap();
    assert_eq!(
        show(&out.value),
        [
            "{job=\"a\", q=\"0.0\"} 0@0 0@60000 0@120000",
            "{job=\"a\", q=\"0.5\"} 1@0 1@120000",
            "{job=\"a\", q=\"1.0\"} 2@60000"
        ]
    );
    let twice = error_of(run_range(
        &store,
        "histogram_quantiles(h_bucket, \"q\", 0.5, scalar(phi))",
        0,
        0,
        1,
    ));
    assert_eq!(twice.message, "vector cannot contain metrics with the same labelset");
    let unlabelled = error_of(run_instant(&store, "histogram_quantiles(h_bucket, \"\", 0.5)", 0));
    assert_eq!(unlabelled.kind, ErrorKind::Execution);
}

#[test]
fn bounds_are_numbers() {
    let store = MemorySeries::new();
    let buckets = [
        ("1", &[1.0][..]),
        ("1.0", &[1.0]),
        ("0x1p1", &[4.0]),
        ("+inf", &[4.0]),
        ("many", &[9.0]),
    ];
    classic(&store, "a", &buckets);
    let out = run_instant(&store, "histogram_quantile(0.75, h_bucket)", 0).unwrap();
    assert_eq!(show(&out.value), ["{job=\"a\"} 1.5"]);
    assert_eq!(
        out.warnings,
        [
            "PromQL warning: bucket label \"le\" is missing or has a malformed value of \"many\" for metric name \
          \"h_bucket\" (1:26)"
        ]
    );
}

#[test]
fn functions_of_native_histograms_pass_floats_over() {
    let store = MemorySeries::new();
    let of = labels(&[("__name__", "n"), ("i", "1")]);
    let samples = [(0, native([2.0, 2.0]), 0), (60_000, SampleValue::Float(7.0), 0)];
    store.push_values(&TenantId::anonymous(), of, samples);
    push(&store, &[("__name__", "n"), ("i", "2")], &[(0, 1.0)]);
    for (query, value) in [
        ("histogram_count(n)", "4"),
        ("histogram_sum(n)", "9"),
        ("histogram_avg(n)", "2.25"),
        ("sum(histogram_count(n))", "4"),
        ("histogram_quantile(1, n)", "4"),
        ("histogram_fraction(2, 4, n)", "0.5"),
    ] {
        let out = run_range(&store, query, 0, 60_000, 60_000).unwrap();
        let of = if query.starts_with("sum") { "{}" } else { "{i=\"1\"}" };
        assert_eq!(show(&out.value), [format!("{of} {value}@0")], "{query}");
    }
}
