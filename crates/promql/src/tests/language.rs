use super::*;

/// Counters `c`, gauges `g`, a histogram `h`, a series that goes stale; scraped every 10 s for 10 minutes.
fn data() -> Arc<MemorySeries> {
    let store = MemorySeries::new();
    let t = TenantId::anonymous();
    let steps = 0..61i64;
    for (job, inst, slope) in [("api", "0", 10.0), ("api", "1", 20.0), ("web", "0", 30.0)] {
        let l = labels(&[("__name__", "c_total"), ("job", job), ("instance", inst)]);
        store.push(&t, l, steps.clone().map(|i| (i * 10_000, i as f64 * slope)));
        let l = labels(&[("__name__", "g"), ("job", job), ("instance", inst)]);
        store.push(&t, l, steps.clone().map(|i| (i * 10_000, slope + (i % 3) as f64)));
    }
    for (le, n) in [("0.1", 1.0), ("1", 5.0), ("+Inf", 10.0)] {
        let l = labels(&[("__name__", "h_bucket"), ("le", le)]);
        store.push(&t, l, steps.clone().map(|i| (i * 10_000, n * i as f64)));
    }
    let l = labels(&[("__name__", "gone")]);
    store.push(&t, l, [(0, 1.0), (10_000, 2.0), (20_000, STALE), (400_000, 7.0)]);
    store
}

#[track_caller]
fn at(time_ms: i64, query: &str, want: &[&str]) {
    let out = run_instant(&data(), query, time_ms).unwrap_or_else(|e| panic!("{query}: {e}"));
    assert_eq!(show(&out.value), want, "{query}");
}

#[track_caller]
fn refused(query: &str, kind: ErrorKind, message: &str) {
    let e = error_of(run_instant(&data(), query, 600_000));
    assert_eq!((e.kind, e.message.as_str()), (kind, message), "{query}");
}

#[test]
fn literals_and_scalars() {
    at(0, "1+1", &["2"]);
    at(0, "-2^2", &["-4"]);
    at(0, "2^3^2", &["512"]);
    at(0, "-7 % 3", &["-1"]);
    at(0, "1/0", &["+Inf"]);
    at(0, "1 > bool 2", &["0"]);
    at(0, "\"a\\tb\"", &["a\tb"]);
    at(5_500, "time()", &["5.5"]);
    at(0, "pi() > bool 3", &["1"]);
    at(0, "vector(3)", &["{} 3"]);
    at(0, "scalar(vector(3)) * 2", &["6"]);
    at(0, "scalar(g)", &["NaN"]);
}

#[test]
fn selectors_and_lookback() {
    at(
        600_000,
        "g{job='web'}",
        &[r#"{__name__="g", instance="0", job="web"} 30"#],
    );
    at(
        600_000,
        "g{job=~'a.*',instance!='0'}",
        &[r#"{__name__="g", instance="1", job="api"} 20"#],
    );
    at(
        600_000,
        "g{nothing='',job='web'}",
        &[r#"{__name__="g", instance="0", job="web"} 30"#],
    );
    // The newest sample within five minutes, the left end excluded.
    at(899_999, "count(g)", &["{} 3"]);
    at(900_000, "count(g)", &[]);
    // A staleness marker hides what lies before it.
    at(19_999, "gone", &[r#"{__name__="gone"} 2"#]);
    at(20_000, "gone", &[]);
    at(400_000, "gone", &[r#"{__name__="gone"} 7"#]);
    at(400_000, "gone offset 390s", &[r#"{__name__="gone"} 2"#]);
    at(0, "gone offset -400s", &[r#"{__name__="gone"} 7"#]);
    at(999_000, "gone @ 10", &[r#"{__name__="gone"} 2"#]);
    at(999_000, "gone @ 400 offset 390s", &[r#"{__name__="gone"} 2"#]);
    at(10_000, "gone @ end()", &[r#"{__name__="gone"} 2"#]);
    at(400_000, "timestamp(gone)", &["{} 400"]);
    at(405_000, "timestamp(gone)", &["{} 400"]);
    at(405_000, "timestamp(gone + 0)", &["{} 405"]);
}

#[test]
fn range_vectors_themselves() {
    at(20_000, "gone[20s]", &[r#"{__name__="gone"} 2@10000"#]);
    at(20_000, "gone[21s]", &[r#"{__name__="gone"} 1@0 2@10000"#]);
    at(30_000, "gone[20s:10s] offset 10s", &[r#"{__name__="gone"} 2@10000"#]);
}

#[test]
fn windows_are_open_to_the_left() {
    at(
        600_000,
        "count_over_time(g{job='web'}[1m])",
        &[r#"{instance="0", job="web"} 6"#],
    );
    at(
        600_001,
        "count_over_time(g{job='web'}[1m])",
        &[r#"{instance="0", job="web"} 6"#],
    );
    at(
        609_999,
        "count_over_time(g{job='web'}[1m])",
        &[r#"{instance="0", job="web"} 6"#],
    );
    at(30_000, "count_over_time(gone[1m])", &["{} 2"]);
    at(
        600_000,
        "rate(c_total{job='web'}[1m])",
        &[r#"{instance="0", job="web"} 3"#],
    );
    at(
        600_000,
        "increase(c_total{job='api',instance='1'}[5m])",
        &[r#"{instance="1", job="api"} 600"#],
    );
    at(
        600_000,
        "delta(g{job='web'}[20s])",
        &[r#"{instance="0", job="web"} -4"#],
    );
    at(
        600_000,
        "irate(c_total{job='web'}[1m])",
        &[r#"{instance="0", job="web"} 3"#],
    );
    at(
        600_000,
        "idelta(g{job='web'}[1m])",
        &[r#"{instance="0", job="web"} -2"#],
    );
    at(
        600_000,
        "deriv(c_total{job='web'}[1m])",
        &[r#"{instance="0", job="web"} 3"#],
    );
    at(
        600_000,
        "predict_linear(c_total{job='web'}[1m], 10)",
        &[r#"{instance="0", job="web"} 1830"#],
    );
    at(600_000, "rate(g{job='none'}[1m])", &[]);
    at(600_000, "rate(c_total{job='web'}[10s])", &[]);
}

#[test]
fn over_time_functions() {
    for (f, want) in [
        ("avg_over_time", "31"),
        ("min_over_time", "30"),
        ("max_over_time", "32"),
        ("sum_over_time", "93"),
        ("present_over_time", "1"),
        ("stdvar_over_time", "0.6666666666666666"),
        ("changes", "2"),
        ("resets", "1"),
    ] {
        at(
            600_000,
            &format!("{f}(g{{job='web'}}[30s])"),
            &[&format!(r#"{{instance="0", job="web"}} {want}"#)],
        );
    }
    at(
        600_000,
        "last_over_time(g{job='web'}[30s])",
        &[r#"{__name__="g", instance="0", job="web"} 30"#],
    );
    at(
        600_000,
        "first_over_time(g{job='web'}[30s])",
        &[r#"{__name__="g", instance="0", job="web"} 31"#],
    );
    at(
        600_000,
        "quantile_over_time(0.5, g{job='web'}[30s])",
        &[r#"{instance="0", job="web"} 31"#],
    );
    at(
        600_000,
        "max_over_time(rate(c_total{job='web'}[1m])[2m:30s])",
        &[r#"{instance="0", job="web"} 3"#],
    );
    at(
        600_000,
        "count_over_time(g{job='web'}[2m:])",
        &[r#"{instance="0", job="web"} 2"#],
    );
}

#[test]
fn aggregations() {
    at(600_000, "sum(g)", &["{} 60"]);
    at(600_000, "sum by (job) (g)", &[r#"{job="api"} 30"#, r#"{job="web"} 30"#]);
    at(
        600_000,
        "sum without (instance) (g)",
        &[r#"{job="api"} 30"#, r#"{job="web"} 30"#],
    );
    at(600_000, "sum by (nothing) (g)", &["{} 60"]);
    at(600_000, "sum by (__name__) (g)", &[r#"{__name__="g"} 60"#]);
    at(600_000, "avg(g)", &["{} 20"]);
    at(600_000, "min(g)", &["{} 10"]);
    at(600_000, "max(g)", &["{} 30"]);
    at(600_000, "count(g)", &["{} 3"]);
    at(600_000, "group(g)", &["{} 1"]);
    at(600_000, "stdvar by (job) (g{job='api'})", &[r#"{job="api"} 25"#]);
    at(600_000, "quantile(0.5, g)", &["{} 20"]);
    at(600_000, "count(nothing)", &[]);
    at(
        600_000,
        "sum(rate(c_total[1m])) by (job)",
        &[r#"{job="api"} 3"#, r#"{job="web"} 3"#],
    );
    at(600_000, "sum(rate(c_total[1m]) * 60)", &["{} 360"]);
    at(
        600_000,
        "topk(2, g)",
        &[
            r#"{__name__="g", instance="0", job="web"} 30"#,
            r#"{__name__="g", instance="1", job="api"} 20"#,
        ],
    );
    at(
        600_000,
        "bottomk(1, g)",
        &[r#"{__name__="g", instance="0", job="api"} 10"#],
    );
    at(600_000, "topk(0, g)", &[]);
    at(
        600_000,
        "topk by (job) (1, g)",
        &[
            r#"{__name__="g", instance="1", job="api"} 20"#,
            r#"{__name__="g", instance="0", job="web"} 30"#,
        ],
    );
    at(
        600_000,
        "count_values('v', g > bool 15)",
        &[r#"{v="0"} 1"#, r#"{v="1"} 2"#],
    );
    refused("topk(NaN, g)", ErrorKind::Execution, "Parameter value is NaN");
    refused(
        "topk(1e30, g)",
        ErrorKind::Execution,
        "Scalar value 1e+30 overflows int64",
    );
}

#[test]
fn binary_operators() {
    at(600_000, "g{job='web'} + 1", &[r#"{instance="0", job="web"} 31"#]);
    at(600_000, "1 - g{job='web'}", &[r#"{instance="0", job="web"} -29"#]);
    at(600_000, "-g{job='web'}", &[r#"{instance="0", job="web"} -30"#]);
    at(
        600_000,
        "g > 15 < 25",
        &[r#"{__name__="g", instance="1", job="api"} 20"#],
    );
    at(600_000, "25 < g", &[r#"{__name__="g", instance="0", job="web"} 30"#]);
    at(600_000, "25 < bool g{job='web'}", &[r#"{instance="0", job="web"} 1"#]);
    at(
        600_000,
        "g{job='web'} / c_total",
        &[r#"{instance="0", job="web"} 0.016666666666666666"#],
    );
    at(
        600_000,
        "g == g{job='web'}",
        &[r#"{__name__="g", instance="0", job="web"} 30"#],
    );
    at(
        600_000,
        "g{job='web'} == on(job) g{instance='0'}",
        &[r#"{job="web"} 30"#],
    );
    at(
        600_000,
        "g * on(job) group_left sum by (job) (g)",
        &[
            r#"{instance="0", job="api"} 300"#,
            r#"{instance="0", job="web"} 900"#,
            r#"{instance="1", job="api"} 600"#,
        ],
    );
    at(
        600_000,
        "sum by (job) (g{job='web'}) - on(job) group_right() g",
        &[r#"{instance="0", job="web"} 0"#],
    );
    at(
        600_000,
        "g and c_total{job='web'}",
        &[r#"{__name__="g", instance="0", job="web"} 30"#],
    );
    at(600_000, "count(g unless c_total{job='web'})", &["{} 2"]);
    at(
        600_000,
        "g{job='web'} or vector(0)",
        &["{} 0", r#"{__name__="g", instance="0", job="web"} 30"#],
    );
    at(600_000, "sum(nothing) or vector(0)", &["{} 0"]);
    refused(
        "sum by (job) (g) / on() g",
        ErrorKind::Execution,
        "found duplicate series for the match group {} on the right hand-side of the operation: \
         [{__name__=\"g\", instance=\"0\", job=\"api\"}, {__name__=\"g\", instance=\"0\", job=\"web\"}];\
         many-to-many matching not allowed: matching labels must be unique on one side",
    );
    refused(
        "g / on(job) sum by (job) (g)",
        ErrorKind::Execution,
        "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
    );
}

#[test]
fn functions() {
    at(600_000, "abs(-g{job='web'})", &[r#"{instance="0", job="web"} 30"#]);
    at(0, "ceil(vector(1.2)) + floor(vector(1.7))", &["{} 3"]);
    at(0, "round(vector(-2.5))", &["{} -2"]);
    at(0, "round(vector(1.26), 0.1)", &["{} 1.3"]);
    at(0, "clamp(vector(5), 1, 3)", &["{} 3"]);
    at(0, "clamp(vector(5), 3, 1)", &[]);
    at(0, "clamp(vector(NaN), 3, 1)", &[]);
    at(0, "clamp_min(vector(5), 7)", &["{} 7"]);
    at(0, "clamp_max(vector(5), 4)", &["{} 4"]);
    at(0, "sgn(vector(-3))", &["{} -1"]);
    at(
        0,
        "sqrt(vector(16)) + exp(vector(0)) + ln(vector(1)) + log2(vector(8)) + log10(vector(100))",
        &["{} 10"],
    );
    at(600_000, "absent(g)", &[]);
    at(600_000, "absent(nothing{a='1',b=~'x',c='1',c='2'})", &[r#"{a="1"} 1"#]);
    at(600_000, "absent(sum(nothing{a='1'}))", &["{} 1"]);
    at(600_000, "absent_over_time(nothing{a='1'}[5m])", &[r#"{a="1"} 1"#]);
    at(600_000, "absent_over_time(g[5m])", &[]);
    at(3_600_000, "hour() + minute()", &["{} 1"]);
    at(0, "year(vector(1700000000))", &["{} 2023"]);
    at(
        600_000,
        "label_replace(g{job='web'}, 'x', '$1-y', 'job', '(w).*')",
        &[r#"{__name__="g", instance="0", job="web", x="w-y"} 30"#],
    );
    at(
        600_000,
        "label_replace(g{job='web'}, 'job', '', 'job', '.*')",
        &[r#"{__name__="g", instance="0"} 30"#],
    );
    at(
        600_000,
        "label_replace(rate(c_total{job='web'}[1m]), '__name__', 'r', '', '')",
        &[r#"{__name__="r", instance="0", job="web"} 3"#],
    );
    at(
        600_000,
        "label_join(g{job='web'}, 'x', '/', 'job', 'instance', 'none')",
        &[r#"{__name__="g", instance="0", job="web", x="web/0/"} 30"#],
    );
    at(
        600_000,
        "sort_desc(g)",
        &[
            r#"{__name__="g", instance="0", job="web"} 30"#,
            r#"{__name__="g", instance="1", job="api"} 20"#,
            r#"{__name__="g", instance="0", job="api"} 10"#,
        ],
    );
    refused(
        "label_replace(g, 'instance', 'x', '', '') * 0 + label_replace(g, 'job', 'x', '', '')",
        ErrorKind::Execution,
        "vector cannot contain metrics with the same labelset",
    );
    refused(
        "label_replace(g, 'x', '', 'job', '(')",
        ErrorKind::Execution,
        "invalid regular expression in label_replace(): (",
    );
}

#[test]
fn classic_histograms() {
    at(600_000, "histogram_quantile(0.3, h_bucket)", &["{} 0.55"]);
    at(
        600_000,
        "histogram_quantile(0.5, sum by (le) (rate(h_bucket[5m])))",
        &["{} 1"],
    );
    at(600_000, "histogram_quantile(0.9, h_bucket)", &["{} 1"]);
    at(600_000, "histogram_quantile(0.9, h_bucket{le!='+Inf'})", &["{} NaN"]);
    let out = run_instant(&data(), "histogram_quantile(2, g)", 600_000).unwrap();
    assert_eq!(
        out.warnings,
        [
            "PromQL warning: bucket label \"le\" is missing or has a malformed value of \"\" for metric name \"g\" (1:23)",
            "PromQL warning: quantile value should be between 0 and 1, got 2 (1:20)"
        ]
    );
    let out = run_instant(&data(), "rate(g[5m])", 600_000).unwrap();
    assert_eq!(
        out.infos,
        ["PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"g\" (1:6)"]
    );
}

#[test]
fn names_are_dropped_at_the_end() {
    // Equal after the drop and present at the same step.
    refused(
        "rate({__name__=~'c_total|g'}[1m])",
        ErrorKind::Execution,
        "vector cannot contain metrics with the same labelset",
    );
    // A name that is to go still makes groups, which lose it as well.
    at(600_000, "sum by (__name__) (rate(c_total{job='web'}[1m]))", &["{} 3"]);
    at(
        600_000,
        "label_replace(sum by (__name__) (rate({__name__=~'c_total|g',job='web'}[1m])), 'n', '$1', '__name__', '(.*)')",
        &[r#"{n="c_total"} 3"#, r#"{n="g"} 1.26"#],
    );
    refused(
        "sum by (__name__) (rate({__name__=~'c_total|g'}[1m]))",
        ErrorKind::Execution,
        "vector cannot contain metrics with the same labelset",
    );
}

#[test]
fn ranges() {
    let show_range = |q: &str, start, end, step| show(&run_range(&data(), q, start, end, step).unwrap().value);
    assert_eq!(show_range("1", 0, 20, 10), ["{} 1@0 1@10 1@20"]);
    assert_eq!(show_range("time()", 0, 20_000, 10_000), ["{} 0@0 10@10000 20@20000"]);
    // Gaps are left out, not filled.
    assert_eq!(
        show_range("gone", 0, 400_000, 10_000),
        [r#"{__name__="gone"} 1@0 2@10000 7@400000"#]
    );
    assert_eq!(show_range("nothing", 0, 100, 10), [""; 0]);
    assert_eq!(
        show_range("gone @ start()", 10_000, 30_000, 10_000),
        [r#"{__name__="gone"} 2@10000 2@20000 2@30000"#]
    );
    assert_eq!(
        show_range("sum(g) + on() vector(1)", 0, 20_000, 20_000),
        ["{} 61@0 67@20000"]
    );
    // The same labels from both sides, one after the other.
    assert_eq!(
        show_range("(gone > 5) or (gone < 2)", 0, 400_000, 400_000),
        [r#"{__name__="gone"} 1@0 7@400000"#]
    );
    let out = run_range(&data(), "sort(g)", 0, 10, 10).unwrap();
    assert_eq!(out.warnings.len(), 1);
    let e = error_of(run_range(&data(), "g[5m]", 0, 10, 10));
    assert_eq!(
        e.message,
        "invalid expression type \"range vector\" for range query, must be Scalar or instant Vector"
    );
    assert_eq!(error_of(run_range(&data(), "g", 0, 10, 0)).kind, ErrorKind::Invalid);
    assert_eq!(error_of(run_range(&data(), "g", 10, 0, 1)).kind, ErrorKind::Invalid);
}

#[test]
fn instant_and_range_agree() {
    let store = data();
    for q in [
        "g",
        "rate(c_total[90s])",
        "topk(1, g)",
        "sum by (job) (g) / 3",
        "histogram_quantile(0.5, h_bucket)",
    ] {
        let QueryValue::Matrix(matrix) = run_range(&store, q, 95_000, 305_000, 35_000).unwrap().value else {
            panic!("a range query gives a matrix");
        };
        for step in 0..=6 {
            let t = 95_000 + step * 35_000;
            let QueryValue::Vector(vector) = run_instant(&store, q, t).unwrap().value else {
                panic!("an instant query of a vector gives a vector");
            };
            let mut want: Vec<(Labels, u64)> = vector
                .iter()
                .map(|e| (e.labels.clone(), e.float().expect("a float").to_bits()))
                .collect();
            want.sort();
            let got: Vec<(Labels, u64)> = matrix
                .iter()
                .filter_map(|s| Some((s.labels.clone(), s.points.iter().find(|p| p.0 == t)?.1.to_bits())))
                .collect();
            assert_eq!(got, want, "{q} at {t}");
        }
    }
}

#[test]
fn what_is_wrong_is_refused() {
    for (query, message) in [
        ("", "unknown position: parse error: no expression found in input"),
        (
            "g +\n {}",
            "2:2: parse error: vector selector must contain at least one non-empty matcher",
        ),
        (
            "sum(1)",
            "1:5: parse error: expected type instant vector in aggregation expression, got scalar",
        ),
        ("g[step()]", "2:8: duration must be greater than 0"),
        ("g offset (1 / (1 - 1))", "10:20: division by zero"),
    ] {
        refused(query, ErrorKind::Invalid, message);
    }
    for query in [
        "sum(",
        "g[0s]",
        "rate(g)",
        "g{a=~'('}",
        "foo bar",
        "histogram_quantile(g)",
    ] {
        assert_eq!(
            error_of(run_instant(&data(), query, 0)).kind,
            ErrorKind::Invalid,
            "{query}"
        );
    }
}

#[test]
fn queries_are_bounded() {
    let deep = format!("{}1{}", "(".repeat(5000), ")".repeat(5000));
    assert_eq!(error_of(run_instant(&data(), &deep, 0)).kind, ErrorKind::Invalid);
    let long = vec!["1"; 100_000].join("+");
    assert_eq!(error_of(run_instant(&data(), &long, 0)).kind, ErrorKind::Invalid);
    let chain = vec!["g"; 500].join(" or ");
    assert_eq!(show(&run_instant(&data(), &chain, 600_000).unwrap().value).len(), 3);
    let chain = vec!["1"; 500].join("+");
    assert_eq!(show(&run_instant(&data(), &chain, 0).unwrap().value), ["500"]);
    let nested = format!("{}g{}", "abs(".repeat(120), ")".repeat(120));
    assert_eq!(show(&run_instant(&data(), &nested, 600_000).unwrap().value).len(), 3);
    let nested = format!("{}g{}", "sum by (job) (".repeat(60), ")".repeat(60));
    assert_eq!(show(&run_instant(&data(), &nested, 600_000).unwrap().value).len(), 2);

    let series = context_with(Limits {
        query_series_max: 2,
        ..Limits::default()
    });
    let e = error_of(run_instant_in(&series, &data(), "sum(g)", 600_000));
    assert_eq!(
        (e.kind, e.message.contains("limits.query-series")),
        (ErrorKind::Execution, true)
    );
    let samples = context_with(Limits {
        query_samples_max: 2,
        ..Limits::default()
    });
    let e = error_of(run_instant_in(&samples, &data(), "g", 600_000));
    assert_eq!(
        e.message,
        "query processing would load too many samples into memory in query execution"
    );
    let memory = context_with(Limits {
        query_memory_bytes: 100,
        ..Limits::default()
    });
    let e = error_of(run_instant_in(&memory, &data(), "rate(c_total[5m])", 600_000));
    assert_eq!(
        (e.kind, e.message.contains("limits.query-memory")),
        (ErrorKind::Execution, true)
    );
    let cancelled = context();
    cancelled.cancel.cancel();
    assert_eq!(
        error_of(run_instant_in(&cancelled, &data(), "g", 0)).kind,
        ErrorKind::Cancelled
    );
    // Times at the ends of the clock.
    for q in [
        "g offset 100y",
        "rate(g[100y])",
        "g @ 9223372036854775",
        "count_over_time(g[1h:1s] offset -100y)",
    ] {
        for t in [i64::MIN, -1, i64::MAX] {
            let _ = run_instant(&data(), q, t);
        }
    }
}

#[test]
fn memory_is_given_back() {
    let ctx = context();
    run_instant_in(&ctx, &data(), "topk(1, rate(c_total[5m])) / on() sum(g)", 600_000).unwrap();
    assert!(ctx.memory.peak_bytes() > 0);
    let all = Limits::default().query_memory_bytes as usize;
    assert!(ctx.memory.reserve(all).is_ok(), "nothing is booked after the query");
}

/// The last step may lie before the end that was asked for.
#[test]
fn at_end_is_the_end_of_the_query() {
    let source = MemorySeries::new();
    source.push(
        &TenantId::anonymous(),
        labels(&[("__name__", "m")]),
        [(0, 1.0), (10_000, 2.0), (25_000, 3.0)],
    );
    let values = |end| match run_range(&source, "m @ end()", 0, end, 10_000).expect("valid").value {
        QueryValue::Matrix(m) => m[0].points.iter().map(|p| p.1).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(values(24_000), [2.0; 3]);
    assert_eq!(values(25_000), [3.0; 3]);
}

/// Nested calls double a value at every level; the process must outlive them.
#[test]
fn labels_cannot_grow_without_bound() {
    let double = |e: String| format!(r#"label_replace({e}, "z", "$1$1", "z", "(.*)")"#);
    let mut query = r#"label_replace(vector(1), "z", "0123456789", "", "")"#.to_owned();
    for _ in 0..40 {
        query = double(query);
    }
    let source = MemorySeries::new();
    let e = run_instant(&source, &query, 0).unwrap_err();
    assert_eq!(e.kind, ErrorKind::Execution, "{e}");
    let mut query = r#"label_replace(vector(1), "z", "0123456789", "", "")"#.to_owned();
    for _ in 0..40 {
        query = format!(r#"label_join({query}, "z", "-", "z", "z")"#);
    }
    let e = run_instant(&source, &query, 0).unwrap_err();
    assert!(e.message.contains("label value of more than"), "{e}");
}
