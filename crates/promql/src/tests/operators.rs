//! Operators, aggregations and functions on vectors with floats and histograms; names that go at once or later.

use std::sync::Arc;

use trilith_histogram::{Buckets, FloatHistogram, ResetHint};
use trilith_model::SampleValue;

use super::*;

fn histogram(count: f64, custom: bool) -> SampleValue {
    let mut h = FloatHistogram {
        count,
        sum: 2.0 * count,
        positive: Buckets::run(1, vec![count]),
        ..FloatHistogram::default()
    };
    if custom {
        h.schema = trilith_histogram::CUSTOM_SCHEMA;
        h.custom_bounds = Some(vec![1.0, 2.0].into());
    }
    SampleValue::Histogram(Arc::new(h))
}

/// `m` has floats (a=1, a=2), exponential (a=3) and custom (a=4) histograms, `n` floats; every 10 s for 1 minute.
fn data() -> Arc<MemorySeries> {
    let store = MemorySeries::new();
    let t = TenantId::anonymous();
    for (name, a, value) in [
        ("m", "1", SampleValue::Float(1.0)),
        ("m", "2", SampleValue::Float(2.0)),
        ("m", "3", histogram(3.0, false)),
        ("m", "4", histogram(4.0, true)),
        ("n", "1", SampleValue::Float(10.0)),
        ("n", "3", SampleValue::Float(2.0)),
        ("n", "5", SampleValue::Float(50.0)),
    ] {
        let l = labels(&[("__name__", name), ("__type__", "gauge"), ("a", a)]);
        store.push_values(&t, l, (0..7i64).map(|i| (i * 10_000, value.clone(), 0)));
    }
    store
}

/// Elements as `{labels} value`, histograms as `{labels} h<count>`, then the annotations.
fn shown(out: &QueryOutput) -> Vec<String> {
    let QueryValue::Vector(elements) = &out.value else {
        panic!("not a vector: {:?}", out.value);
    };
    let elements = elements.iter().map(|e| {
        let value = match &e.value {
            SampleValue::Float(v) => notes::format_f(*v),
            SampleValue::Histogram(h) => format!("h{}", notes::format_f(h.count)),
        };
        format!("{} {value}", e.labels)
    });
    elements.chain(out.warnings.clone()).chain(out.infos.clone()).collect()
}

#[track_caller]
fn at(query: &str, want: &[&str]) {
    let out = run_instant(&data(), query, 60_000).unwrap_or_else(|e| panic!("{query}: {e}"));
    assert_eq!(shown(&out), want, "{query}");
}

fn immediately(query: &str) -> Result<Vec<String>> {
    let mut options = EvalOptions::default();
    options.features.delayed_name_removal = false;
    let source: Arc<dyn SeriesSource> = data();
    let out = runtime().block_on(instant(&context(), source, query, 60_000, &options))?;
    Ok(shown(&out))
}

#[test]
fn floats_only() {
    for f in [
        "abs(m)",
        "clamp(m, -9, 9)",
        "clamp_min(m, 0)",
        "round(m)",
        "m + on() group_left() vector(0) < 3",
    ] {
        let out = run_instant(&data(), &format!("({f}) + 0"), 60_000).unwrap();
        assert_eq!(shown(&out)[..2], [r#"{a="1"} 1"#, r#"{a="2"} 2"#], "{f}");
    }
    at("clamp(m, 5, 1)", &[]);
    at("clamp(n{a='1'}, 0, NaN)", &[r#"{a="1"} NaN"#]);
    at("year(m{a=~'1|3'})", &[r#"{a="1"} 1970"#]);
    at("vector(scalar(m{a=~'1|3|4'}))", &["{} 1"]);
    at("vector(scalar(m))", &["{} NaN"]);
    at(
        "sort(m)",
        &[
            r#"{__name__="m", __type__="gauge", a="1"} 1"#,
            r#"{__name__="m", __type__="gauge", a="2"} 2"#,
        ],
    );
    at("absent(m{a='3'})", &[]);
    at("timestamp(-m{a=~'1|3'})", &[r#"{a="1"} 60"#, r#"{a="3"} 60"#]);
}

#[test]
fn histograms_with_numbers() {
    at("-m{a=~'1|3'}", &[r#"{a="1"} -1"#, r#"{a="3"} h-3"#]);
    at("2 * m{a='3'}", &[r#"{a="3"} h6"#]);
    at("m{a='3'} / 2", &[r#"{a="3"} h1.5"#]);
    at(
        "  m{a=~'1|3'} + 1",
        &[
            r#"{a="1"} 2"#,
            r#"PromQL info: incompatible sample types encountered for binary operator "+": histogram + float (1:3)"#,
        ],
    );
    at(
        "2 / m{a=~'1|3'}",
        &[
            r#"{a="1"} 2"#,
            r#"PromQL info: incompatible sample types encountered for binary operator "/": float / histogram (1:1)"#,
        ],
    );
    at(
        "m{a=~'1|3'} > bool 0",
        &[
            r#"{a="1"} 1"#,
            r#"PromQL info: incompatible sample types encountered for binary operator ">": histogram > float (1:1)"#,
        ],
    );
    at(
        "m{a=~'1|3'} </ 1",
        &[
            r#"{__name__="m", __type__="gauge", a="3"} h0"#,
            r#"PromQL info: incompatible sample types encountered for binary operator "</": float </ float (1:1)"#,
        ],
    );
}

#[test]
fn histograms_in_joins() {
    at(
        "m + m",
        &[r#"{a="1"} 2"#, r#"{a="2"} 4"#, r#"{a="3"} h6"#, r#"{a="4"} h8"#],
    );
    at(
        "m == on (a) n",
        &[r#"PromQL info: incompatible sample types encountered for binary operator "==": histogram == float (1:1)"#],
    );
    at("m{a='3'} != bool m", &[r#"{a="3"} 0"#]);
    at("m * on (a) n", &[r#"{a="1"} 10"#, r#"{a="3"} h6"#]);
    at(
        "m{a='3'} + on () m{a='4'}",
        &["PromQL warning: incompatible bucket layout encountered for binary operator + (1:1)"],
    );
    at(
        "m and on (a) n",
        &[
            r#"{__name__="m", __type__="gauge", a="1"} 1"#,
            r#"{__name__="m", __type__="gauge", a="3"} h3"#,
        ],
    );
    at(
        "m unless on (a) n",
        &[
            r#"{__name__="m", __type__="gauge", a="2"} 2"#,
            r#"{__name__="m", __type__="gauge", a="4"} h4"#,
        ],
    );
    at("count(n or on (a) m)", &["{} 5"]);
    // The partner that does not fit leaves the match open for the fill value.
    at(
        "m{a='3'} + on (a) fill(0) n",
        &[
            r#"{a="1"} 10"#,
            r#"{a="3"} 2"#,
            r#"{a="5"} 50"#,
            r#"PromQL info: incompatible sample types encountered for binary operator "+": histogram + float (1:1)"#,
        ],
    );
}

#[test]
fn conflicting_hints() {
    let store = MemorySeries::new();
    let t = TenantId::anonymous();
    for (a, hint) in [("1", ResetHint::Reset), ("2", ResetHint::NotReset)] {
        let h = FloatHistogram {
            reset_hint: hint,
            count: 1.0,
            positive: Buckets::run(0, vec![1.0]),
            ..FloatHistogram::default()
        };
        let l = labels(&[("__name__", "r"), ("a", a)]);
        store.push_values(&t, l, [(0, SampleValue::Histogram(Arc::new(h)), 0)]);
    }
    let run = |q: &str| shown(&run_instant(&store, q, 0).unwrap());
    assert_eq!(
        run("sum(r)"),
        [
            "{} h2",
            "PromQL warning: conflicting counter resets during histogram aggregation (1:5)"
        ]
    );
    assert_eq!(
        run("r{a='1'} - on () r{a='2'}"),
        ["PromQL warning: conflicting counter resets during histogram subtraction (1:1)"]
    );
}

#[test]
fn aggregations_of_both_kinds() {
    at("count(m)", &["{} 4"]);
    at("group(m{a='3'})", &["{} 1"]);
    at("sum(m{a='3'})", &["{} h3"]);
    at("avg(m{a=~'1|2'})", &["{} 1.5"]);
    at(
        "sum(m{a=~'1|3'})",
        &["PromQL warning: encountered a mix of histograms and floats for aggregation (1:5)"],
    );
    at(
        "sum(m{a=~'3|4'})",
        &[
            "PromQL warning: vector contains a mix of histograms with exponential and custom buckets schemas for metric \
             name \"m\" (1:5)",
        ],
    );
    at(
        "max((m))",
        &["{} 2", "PromQL info: ignored histogram in max aggregation (1:6)"],
    );
    at(
        "stddev(m{a='3'})",
        &["PromQL info: ignored histogram in stddev aggregation (1:8)"],
    );
    at(
        "quantile(0.5, m)",
        &[
            "{} 1.5",
            "PromQL info: ignored histogram in quantile aggregation (1:15)",
        ],
    );
    at(
        " topk(1, m)",
        &[
            r#"{__name__="m", __type__="gauge", a="2"} 2"#,
            "PromQL info: ignored histogram in topk aggregation (1:2)",
        ],
    );
    at(
        "count_values('v', m{a=~'1|2|3'} * 0 + on (a) group_left () m)",
        &[r#"{v="1"} 1"#, r#"{v="2"} 1"#, r#"{v="{count:3, sum:6, (1,2]:3}"} 1"#],
    );
    at("count_values without (a, v) ('v', n)", &[r#"{__type__="gauge"} 3"#]);
    at(
        "count_values by (a) ('a', n)",
        &[r#"{a="10"} 1"#, r#"{a="2"} 1"#, r#"{a="50"} 1"#],
    );
}

#[test]
fn parts_of_a_vector() {
    let (first, third) = (
        r#"{__name__="m", __type__="gauge", a="1"} 1"#,
        r#"{__name__="m", __type__="gauge", a="3"} h3"#,
    );
    at("limitk(1, m)", &[first]);
    at("limitk(9, m{a=~'1|3'})", &[first, third]);
    at("limitk(0, m)", &[]);
    at("limitk by (a) (1, m{a=~'1|3'})", &[first, third]);
    at("count(limit_ratio(1, m))", &["{} 4"]);
    at("limit_ratio(0, m)", &[]);
    for ratio in ["0.1", "0.5", "0.9"] {
        at(
            &format!("count(limit_ratio({ratio}, m) or limit_ratio({ratio} - 1, m))"),
            &["{} 4"],
        );
        at(&format!("limit_ratio({ratio}, m) and limit_ratio({ratio} - 1, m)"), &[]);
    }
    at(
        "count(limit_ratio(1.5, m))",
        &[
            "{} 4",
            "PromQL warning: ratio value should be between -1 and 1, got 1.5, capping to 1 (1:19)",
        ],
    );
    let e = error_of(run_instant(&data(), "limit_ratio(NaN, m)", 0));
    assert_eq!(e.message, "Ratio value is NaN");
    let e = error_of(run_instant(&data(), "limitk(NaN, m)", 0));
    assert_eq!(e.message, "Parameter value is NaN");
}

#[test]
fn orders() {
    let store = MemorySeries::new();
    let t = TenantId::anonymous();
    for (a, v) in [("n10", 1.0), ("n2", 3.0), ("n1", 2.0)] {
        store.push(&t, labels(&[("a", a)]), [(0, v)]);
    }
    let run = |q: &str| -> Vec<String> {
        let out = run_instant(&store, q, 0).unwrap();
        assert!(out.warnings.is_empty());
        shown(&out)
            .iter()
            .map(|l| l.split('"').nth(1).unwrap().to_owned())
            .collect()
    };
    assert_eq!(run("sort_by_label({a!=''}, 'a')"), ["n1", "n2", "n10"]);
    assert_eq!(run("sort_by_label_desc({a!=''}, 'b', 'a')"), ["n10", "n2", "n1"]);
    assert_eq!(run("sort_desc({a!=''})"), ["n2", "n1", "n10"]);
    assert_eq!(run("2 * sort({a!=''}) > 0"), ["n10", "n1", "n2"]);
    let out = run_range(&store, "sort_by_label({a!=''}, 'a')", 0, 10, 10).unwrap();
    assert_eq!(
        out.warnings,
        ["PromQL warning: sort is ineffective for range queries since results are always ordered by labels (1:1)"]
    );
}

#[test]
fn what_is_known_of_the_absent() {
    at("absent(q{b='1', c='2', c='3', d=~'x'})", &[r#"{b="1"} 1"#]);
    at("absent(q{d=~'x', d='y'})", &[r#"{d="y"} 1"#]);
    at("absent(q{d='y', d=~'y'})", &["{} 1"]);
    at("absent(sum(q{b='1'}))", &["{} 1"]);
}

#[test]
fn names_go_later() {
    // Equal labels are told apart by their names until the end.
    at("count(abs({__name__=~'m|n'}))", &["{} 5"]);
    at(
        "label_replace(abs({__name__=~'m|n', a='1'}), 'was', '$1', '__name__', '(.*)')",
        &[r#"{a="1", was="m"} 1"#, r#"{a="1", was="n"} 10"#],
    );
    // A filter keeps what is to happen to the name.
    at("abs(n{a='1'}) > m", &[r#"{a="1"} 10"#]);
    at("n{a='1'} > m", &[r#"{__name__="n", __type__="gauge", a="1"} 10"#]);
    at("n{a='1'} > on (a) m", &[r#"{a="1"} 10"#]);
    let e = error_of(run_instant(&data(), "abs({__name__=~'m|n'})", 60_000));
    assert_eq!(e.message, "vector cannot contain metrics with the same labelset");
    // Over a range, a series that keeps its name and one that loses it are two.
    let out = run_range(&data(), "abs(n{a='1'}) > 20 or n{a='1'}", 0, 20_000, 10_000).unwrap();
    assert_eq!(
        show(&out.value),
        [r#"{__name__="n", __type__="gauge", a="1"} 10@0 10@10000 10@20000"#]
    );
}

#[test]
fn names_go_at_once() {
    let error = |q: &str| immediately(q).expect_err(q).message;
    let same = "vector cannot contain metrics with the same labelset";
    for query in [
        "count(abs({__name__=~'m|n'}))",
        "abs({__name__=~'m|n'})",
        "count(-{__name__=~'m|n'})",
        "sum(last_over_time({__name__=~'m|n'}[1m]) * 1)",
        "count(sum_over_time({__name__=~'m|n'}[1m]))",
        "count(sum_over_time({__name__=~'m|n'}[1m:10s]))",
        "count({__name__=~'m|n'} == bool 1)",
    ] {
        assert_eq!(error(query), same, "{query}");
    }
    assert_eq!(error("abs({__name__=~'m|n'}) + 0"), same);
    assert_eq!(error("limit_ratio(1, -{__name__=~'m|n'})"), same);
    let ok = |q: &str| immediately(q).unwrap_or_else(|e| panic!("{q}: {e}"));
    assert_eq!(ok("count({__name__=~'m|n'})"), ["{} 7"]);
    assert_eq!(ok("count(abs(n))"), ["{} 3"]);
    assert_eq!(ok("abs(n{a='1'})"), [r#"{a="1"} 10"#]);
    assert_eq!(ok("sum by (__name__) (abs(n{a='1'}))"), ["{} 10"]);
    assert_eq!(
        ok("label_replace(abs(n{a='1'}), 'was', '$1', '__name__', '(.*)')"),
        [r#"{a="1"} 10"#]
    );
    assert_eq!(ok("n{a='1'} > bool m"), [r#"{a="1"} 1"#]);
    assert_eq!(ok("n{a='1'} > m"), [r#"{__name__="n", __type__="gauge", a="1"} 10"#]);
    assert_eq!(
        ok("abs(n{a='1'}) or n{a='5'}"),
        [r#"{__name__="n", __type__="gauge", a="5"} 50"#, r#"{a="1"} 10"#]
    );
}
