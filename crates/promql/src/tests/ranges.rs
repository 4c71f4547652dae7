//! Range vectors from query to answer: both kinds of samples, subqueries, pinned expressions, limits.

use trilith_histogram::{Buckets, ResetHint};
use trilith_model::{FloatHistogram, SampleValue};

use super::*;

fn histogram(n: f64) -> FloatHistogram {
    FloatHistogram {
        count: n,
        sum: n,
        positive: Buckets::run(1, vec![n]),
        ..FloatHistogram::default()
    }
}

/// `h` counts up by one a minute, with a hint that says nothing was reset; `mix` is floats, then histograms; `f` floats.
/// Ten minutes of them.
fn data() -> Arc<MemorySeries> {
    let store = MemorySeries::new();
    let tenant = TenantId::anonymous();
    let h = |i: i64| {
        SampleValue::Histogram(Arc::new(FloatHistogram {
            reset_hint: ResetHint::NotReset,
            ..histogram(i as f64)
        }))
    };
    let minutes = || 0..=10i64;
    let name = |n| labels(&[("__name__", n), ("a", "1")]);
    store.push_values(&tenant, name("h"), minutes().map(|i| (i * 60_000, h(i), 0)));
    let mix = |i: i64| if i < 5 { SampleValue::Float(i as f64) } else { h(i) };
    store.push_values(&tenant, name("mix"), minutes().map(|i| (i * 60_000, mix(i), 0)));
    store.push(&tenant, name("f"), minutes().map(|i| (i * 60_000, i as f64)));
    store
}

fn series(value: QueryValue) -> MatrixSeries {
    match value {
        QueryValue::Matrix(mut m) => {
            assert_eq!(m.len(), 1, "one series");
            m.remove(0)
        }
        other => panic!("a matrix, not {other:?}"),
    }
}

fn counts(s: &MatrixSeries) -> Vec<(i64, f64)> {
    s.histograms.iter().map(|(t, h)| (*t / 60_000, h.count)).collect()
}

#[test]
fn raw_samples_of_both_kinds() {
    let out = run_instant(&data(), "mix[4m]", 390_000).unwrap();
    let s = series(out.value);
    assert_eq!(s.labels.get("__name__"), Some("mix"));
    assert_eq!(s.points, [(180_000, 3.0), (240_000, 4.0)]);
    assert_eq!(counts(&s), [(5, 5.0), (6, 6.0)]);
    assert_eq!(s.histograms[0].1.reset_hint, ResetHint::NotReset);
    // Every two minutes, as the inner expression leaves them; neighbours are others, so resets are unknown.
    let s = series(run_instant(&data(), "h[5m:2m]", 600_000).unwrap().value);
    assert_eq!(counts(&s), [(6, 6.0), (8, 8.0), (10, 10.0)]);
    assert_eq!(s.histograms[0].1.reset_hint, ResetHint::Unknown);
    let s = series(run_instant(&data(), "(-f)[3m:1m]", 600_000).unwrap().value);
    assert_eq!((s.labels.get("__name__"), s.points.len()), (None, 3));
}

#[test]
fn subqueries_of_histograms() {
    let one = |query: &str, at: i64| match run_instant(&data(), query, at).unwrap().value {
        QueryValue::Vector(v) if v.len() == 1 => v[0].value.clone(),
        other => panic!("{query}: {other:?}"),
    };
    let SampleValue::Histogram(rate) = one("increase(h[5m:1m])", 600_000) else {
        panic!("a histogram");
    };
    assert_eq!((rate.count, rate.reset_hint), (5.0, ResetHint::Gauge));
    assert_eq!(one("count_over_time(mix[20m:1m])", 600_000), SampleValue::Float(11.0));
    assert_eq!(one("changes(mix[20m:30s])", 600_000), SampleValue::Float(10.0));
    // The note stands at the beginning, as upstream's does.
    let out = run_instant(&data(), "  sum_over_time(mix[20m:1m])", 600_000).unwrap();
    let text = "encountered a mix of histograms and floats for metric name \"mix\"";
    assert_eq!(out.warnings, [format!("PromQL warning: {text} (1:1)")]);
    assert_eq!(out.value, QueryValue::Vector(Vec::new()));
}

#[test]
fn pinned_expressions_are_the_same_at_every_step() {
    for query in [
        "f @ 300",
        "h @ 300",
        "sum(rate(f[3m] @ 300))",
        "increase(h[3m] @ 300)",
        "-f @ 300 + on(a) f @ end() * 0",
        "topk(1, f @ 300)",
        "timestamp(f @ 301)",
        "sum_over_time((f * 2)[3m:1m] @ 300)",
        "scalar(f @ 300) + vector(1)",
        "absent(f @ 99999)",
    ] {
        let QueryValue::Vector(at) = run_instant(&data(), query, 600_000).unwrap().value else {
            panic!("a vector");
        };
        let QueryValue::Matrix(range) = run_range(&data(), query, 0, 600_000, 60_000).unwrap().value else {
            panic!("a matrix");
        };
        assert_eq!(range.len(), at.len(), "{query}");
        for (series, element) in range.iter().zip(&at) {
            assert_eq!(series.labels, element.labels, "{query}");
            match &element.value {
                SampleValue::Float(v) => {
                    assert_eq!(series.points.len(), 11, "{query}");
                    assert!(series.points.iter().all(|p| p.1 == *v), "{query}: {series:?}");
                }
                SampleValue::Histogram(h) => {
                    assert_eq!(series.histograms.len(), 11, "{query}");
                    assert!(series.histograms.iter().all(|p| p.1 == *h), "{query}: {series:?}");
                }
            }
        }
    }
    // These look at the evaluation time.
    for query in [
        "predict_linear(f[3m] @ 300, 0)",
        "timestamp(-f @ 300)",
        "time() + f @ 300",
    ] {
        let s = series(run_range(&data(), query, 0, 600_000, 60_000).unwrap().value);
        assert_ne!(s.points[0].1, s.points[10].1, "{query}");
    }
}

#[test]
fn limits_are_execution_errors() {
    let refused = |query: &str, samples_max: u64| {
        let limits = Limits {
            query_samples_max: samples_max,
            ..Limits::default()
        };
        run_instant_in(&context_with(limits), &data(), query, 600_000)
            .err()
            .map(|e| (e.kind, e.message))
    };
    let text = "query processing would load too many samples into memory in query execution";
    let too_many = Some((ErrorKind::Execution, text.to_owned()));
    assert_eq!(refused("f[5m]", 5), None);
    assert_eq!(refused("f[5m]", 4), too_many);
    // A histogram counts by its size.
    assert_eq!(refused("h[1m]", 50), None);
    assert_eq!(refused("h[1m]", 5), too_many);
    assert_eq!(refused("h", 5), too_many);
    assert_eq!(refused("count_over_time(h[1m])", 5), too_many);
    assert_eq!(refused("count_over_time(f[5m])", 5), None);
    assert_eq!(refused("count_over_time(f[5m])", 4), too_many);
    assert_eq!(refused("sum_over_time((f @ 300)[10s:1s])", 11), None);
    assert_eq!(refused("sum_over_time((f @ 300)[10s:1s])", 9), too_many);
    let steps = refused("count_over_time(f[100y:1ms])", 0);
    assert!(steps.is_some_and(|(kind, m)| kind == ErrorKind::Execution && m.contains("too many steps")));
}

#[test]
fn memory_of_raw_histograms_is_booked() {
    let run = |memory: u64| {
        let limits = Limits {
            query_memory_bytes: memory,
            ..Limits::default()
        };
        run_instant_in(&context_with(limits), &data(), "h[10m]", 600_000)
    };
    assert!(run(1 << 20).is_ok());
    assert!(run(500).is_err_and(|e| e.kind == ErrorKind::Execution));
}

#[test]
fn edges_are_for_some_functions() {
    let refused = |query: &str| run_instant(&data(), query, 600_000).err().map(|e| (e.kind, e.message));
    let text = "modifier can only be used with: ";
    let wrong = |message: String| Some((ErrorKind::Execution, message));
    let anchored = format!("anchored {text}changes, delta, increase, rate, resets - not with ");
    assert_eq!(
        refused("sum_over_time(f[3m] anchored)"),
        wrong(format!("{anchored}sum_over_time"))
    );
    assert_eq!(
        refused("absent_over_time(f[3m] anchored)"),
        wrong(format!("{anchored}absent_over_time"))
    );
    let smoothed = format!("smoothed {text}delta, increase, rate - not with changes");
    assert_eq!(refused("changes(f[3m] smoothed)"), wrong(smoothed));
    assert_eq!(refused("resets(f[3m] anchored)"), None);
    let s = series(run_instant(&data(), "f[90s] anchored", 600_000).unwrap().value);
    assert_eq!(s.points, [(510_000, 8.0), (540_000, 9.0), (600_000, 10.0)]);
    let kinds = "smoothed modifier is not supported with histograms".to_owned();
    assert_eq!(refused("h[90s] smoothed"), wrong(kinds));
}

#[test]
fn notes_point_at_the_range() {
    let text = "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"f\"";
    for (query, position) in [
        ("rate(f[3m])", "1:6"),
        ("sum(rate((f[3m])))", "1:11"),
        ("1 +\n increase(f[3m] offset 1m)", "2:11"),
        ("rate(f[3m:1m])", "1:1"),
    ] {
        let out = run_instant(&data(), query, 600_000).unwrap();
        assert_eq!(out.infos, [format!("PromQL info: {text} ({position})")], "{query}");
    }
    let out = run_instant(&data(), "quantile_over_time(1 + 1, mix[20m])", 600_000).unwrap();
    let warning = "PromQL warning: quantile value should be between 0 and 1, got 2 (1:20)";
    let info = "PromQL info: ignored histograms in a range containing both floats and histograms for metric name \
                \"mix\" (1:20)";
    assert_eq!(
        (out.warnings, out.infos),
        (vec![warning.to_owned()], vec![info.to_owned()])
    );
}
