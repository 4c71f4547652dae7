use trilith_model::MetricType;

use super::*;

fn nhcb() -> OtlpMetrics {
    OtlpMetrics {
        histograms_to_nhcb: true,
        ..OtlpMetrics::default()
    }
}

#[test]
fn gauges_and_sums() {
    let point = |v: Value| {
        json!({"timeUnixNano": at(5), "startTimeUnixNano": at(-1000), "attributes": [attribute("a", "b")],
        "asInt": v, "exemplars": [{"timeUnixNano": at(4), "asInt": "7", "traceId": "0102030405060708090a0b0c0d0e0f10",
            "spanId": "a1a2a3a4a5a6a7a8", "filteredAttributes": [attribute("user.id", "u")]}]})
    };
    let request = json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [
        {"name": "g", "gauge": {"dataPoints": [point(json!("-3"))]}},
        {"name": "c", "unit": "s", "description": "Time.", "sum": {"aggregationTemporality": 2, "isMonotonic": true, "dataPoints": [point(json!("9007199254740993"))]}},
        {"name": "u", "sum": {"aggregationTemporality": 2, "dataPoints": [point(json!(1))]}}]}]}]});
    let exemplar = r#"#{span_id="a1a2a3a4a5a6a7a8", trace_id="0102030405060708090a0b0c0d0e0f10", user.id="u"} 7@4"#;
    assert_eq!(
        translate(&request),
        [
            r#"{__name__="g", a="b"} -3@5<-1000"#.to_owned(),
            format!(r#"{{__name__="c_seconds_total", a="b"}} 9007199254740992@5<-1000 {exemplar}"#),
            format!(r#"{{__name__="u", a="b"}} 1@5<-1000 {exemplar}"#),
        ]
    );
    let limits = Limits::default();
    let export = Export::read(request.to_string().into(), &JSON, &limits).expect("readable");
    let batch = run(&export, &limits, &totals().0).batch;
    let kinds: Vec<_> = batch
        .metadata
        .iter()
        .map(|m| (&*m.family, m.kind, &*m.help, &*m.unit))
        .collect();
    assert_eq!(
        kinds,
        [
            ("c_seconds_total", MetricType::Counter, "Time.", "seconds"),
            ("g", MetricType::Gauge, "", ""),
            ("u", MetricType::Gauge, "", ""),
        ]
    );
}

#[test]
fn a_series_of_a_request_is_one_entry() {
    let point = |t: i64, v: i64| json!({"timeUnixNano": at(t), "asInt": v, "attributes": [attribute("a", &(t % 2).to_string())]});
    let points: Vec<Value> = (0..4).map(|t| point(t, 10 + t)).collect();
    let request = metric(&json!({"name": "g", "gauge": {"dataPoints": points}}));
    assert_eq!(
        translate(&request),
        [
            r#"{__name__="g", a="0"} 10@0 12@2"#,
            r#"{__name__="g", a="1"} 11@1 13@3"#
        ]
    );
}

#[test]
fn stale_points_of_every_type() {
    let stale = json!([{"timeUnixNano": at(0), "flags": 1, "count": 5, "sum": 1, "bucketCounts": [2, 3], "explicitBounds": [1],
        "quantileValues": [{"quantile": 0.5}], "zeroCount": 1}]);
    let request = json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [
        {"name": "g", "gauge": {"dataPoints": stale}},
        {"name": "s", "sum": {"dataPoints": stale, "aggregationTemporality": 2}},
        {"name": "h", "histogram": {"dataPoints": stale, "aggregationTemporality": 2}},
        {"name": "e", "exponentialHistogram": {"dataPoints": stale, "aggregationTemporality": 2}},
        {"name": "q", "summary": {"dataPoints": stale}}]}]}]});
    let lines = translate(&request);
    assert_eq!(lines.len(), 10);
    assert!(lines.iter().all(|l| l.ends_with(" stale@0")), "{lines:#?}");
    let (lines, _) = translate_with(&request, nhcb());
    assert_eq!(lines[2], r#"{__name__="h"} stale@0"#);
}

fn histogram(point: &Value) -> Value {
    metric(&json!({"name": "h", "unit": "s", "histogram": {"aggregationTemporality": 2, "dataPoints": [point]}}))
}

#[test]
fn histograms_become_classic_series() {
    let exemplar = |v: f64| json!({"timeUnixNano": at(0), "asDouble": v});
    let request = histogram(
        &json!({"timeUnixNano": at(0), "startTimeUnixNano": at(-9), "count": "10", "sum": 12.5,
        "bucketCounts": ["1", "2", "3", "4"], "explicitBounds": [0.005, 1, 2.5],
        "exemplars": [exemplar(9.0), exemplar(1.0), exemplar(0.001)],
        "attributes": [attribute("le", "own"), attribute("a", "b"), attribute("Z", "c")]}),
    );
    assert_eq!(
        translate(&request),
        [
            r#"{Z="c", __name__="h_seconds_sum", a="b", le="own"} 12.5@0<-9"#,
            r#"{Z="c", __name__="h_seconds_count", a="b", le="own"} 10@0<-9"#,
            r#"{Z="c", __name__="h_seconds_bucket", a="b", le="0.005"} 1@0<-9 #{} 0.001@0"#,
            r#"{Z="c", __name__="h_seconds_bucket", a="b", le="1"} 3@0<-9 #{} 1@0"#,
            r#"{Z="c", __name__="h_seconds_bucket", a="b", le="2.5"} 6@0<-9"#,
            r#"{Z="c", __name__="h_seconds_bucket", a="b", le="+Inf"} 10@0<-9 #{} 9@0"#,
        ]
    );
    // No sum, no buckets.
    assert_eq!(
        translate(&histogram(&json!({"timeUnixNano": at(0), "count": 3}))),
        [
            r#"{__name__="h_seconds_count"} 3@0"#,
            r#"{__name__="h_seconds_bucket", le="+Inf"} 3@0"#
        ]
    );
    // A last bound of infinity is the overflow bucket.
    let infinite =
        json!({"timeUnixNano": at(0), "count": 3, "bucketCounts": [1, 2, 0], "explicitBounds": [1e21, "Infinity"]});
    assert_eq!(
        translate(&histogram(&infinite))[1..],
        [
            r#"{__name__="h_seconds_bucket", le="1000000000000000000000"} 1@0"#,
            r#"{__name__="h_seconds_bucket", le="+Inf"} 3@0"#
        ]
    );
    let (lines, _) = translate_with(&histogram(&infinite), nhcb());
    assert_eq!(
        lines,
        [r#"{__name__="h_seconds"} [s-53 n3 Σ0 +0+2 [1.0, 2.0] ≤[1e21]]@0"#]
    );
}

#[test]
fn histograms_become_native_ones_with_custom_buckets() {
    let request = histogram(
        &json!({"timeUnixNano": at(0), "startTimeUnixNano": at(-9), "count": "10", "sum": 12.5,
        "bucketCounts": ["0", "2", "0", "0", "0", "0", "8"], "explicitBounds": [-1, 0, 1, 2, 3, 4],
        "exemplars": [{"asDouble": 3}], "attributes": [attribute("le", "own")]}),
    );
    let (lines, rejections) = translate_with(&request, nhcb());
    assert_eq!(rejections, []);
    assert_eq!(
        lines,
        [
            r#"{__name__="h_seconds", le="own"} [s-53 n10 Σ12.5 +1+1,4+1 [2.0, 8.0] ≤[-1.0, 0.0, 1.0, 2.0, 3.0, 4.0]]@0<-9 #{} 3@0"#
        ]
    );
}

#[test]
fn senseless_histograms_are_refused() {
    for (bad, classic) in [
        (
            json!({"count": 1, "bucketCounts": [1, 0, 0], "explicitBounds": [2, 1]}),
            true,
        ),
        (
            json!({"count": 1, "bucketCounts": [1, 0, 0], "explicitBounds": [1, 1]}),
            true,
        ),
        (
            json!({"count": 1, "bucketCounts": [1, 0], "explicitBounds": ["NaN"]}),
            true,
        ),
        (
            json!({"count": 1, "bucketCounts": [1, 0, 0], "explicitBounds": ["-Infinity", 1]}),
            true,
        ),
        (
            json!({"count": 9, "bucketCounts": [1, 0], "explicitBounds": [1]}),
            false,
        ),
        (
            json!({"count": 1, "bucketCounts": [0, 0, 1], "explicitBounds": [1]}),
            false,
        ),
    ] {
        let mut bad = bad;
        bad["timeUnixNano"] = at(0).into();
        let (lines, rejections) = translate_with(&histogram(&bad), nhcb());
        assert_eq!(
            (lines.len(), reasons(&rejections)),
            (0, vec![("histogram_invalid", 1)]),
            "{bad}"
        );
        let (_, rejections) = translate_with(&histogram(&bad), OtlpMetrics::default());
        assert_eq!(rejections.is_empty(), !classic, "{bad}");
    }
}

fn exponential(point: &Value) -> Value {
    let mut point = point.clone();
    point["timeUnixNano"] = at(0).into();
    metric(&json!({"name": "e", "exponentialHistogram": {"aggregationTemporality": 2, "dataPoints": [point]}}))
}

#[test]
fn exponential_histograms_become_native_ones() {
    let line = |point: Value| {
        let lines = translate(&exponential(&point));
        assert_eq!(lines.len(), 1);
        lines[0]
            .strip_prefix(r#"{__name__="e"} "#)
            .expect("the name")
            .to_owned()
    };
    assert_eq!(
        line(
            json!({"count": 12, "sum": -2.5, "scale": 1, "zeroCount": 2, "zeroThreshold": 0.5,
            "positive": {"offset": -3, "bucketCounts": [1, 0, 0, 0, 0, 2, 3]}, "negative": {"offset": 4, "bucketCounts": [4]},
            "exemplars": [{"asInt": 1}]})
        ),
        "[s1 n12 Σ-2.5 z5e-1:2 +-2+1,4+2 [1.0, 2.0, 3.0] -5+1 [4.0]]@0 #{} 1@0"
    );
    assert_eq!(line(json!({"count": 0})), "[s0 n0 Σ0 z1e-128:0]@0");
    // Finer scales fold neighbours: 2^(1/512) has every bucket twice.
    assert_eq!(
        line(json!({"count": 10, "scale": 9, "positive": {"offset": -1, "bucketCounts": [1, 2, 3, 4]}})),
        "[s8 n10 Σ0 z1e-128:0 +0+3 [1.0, 5.0, 4.0]]@0"
    );
    assert_eq!(
        line(
            json!({"count": 3, "scale": 20, "positive": {"offset": 4096, "bucketCounts": [1, 1]}, "negative": {"offset": -1, "bucketCounts": [1]}})
        ),
        "[s8 n3 Σ0 z1e-128:0 +2+1 [2.0] -0+1 [1.0]]@0"
    );
    assert_eq!(
        line(
            json!({"count": 2, "scale": 2147483647, "positive": {"offset": 2147483647, "bucketCounts": [1]}, "negative": {"offset": -2147483648, "bucketCounts": [1]}})
        ),
        "[s8 n2 Σ0 z1e-128:0 +1+1 [1.0] -0+1 [1.0]]@0"
    );
}

#[test]
fn exponential_histograms_that_cannot_be_kept() {
    let refused = |point: Value| {
        let (lines, rejections) = translate_with(&exponential(&point), OtlpMetrics::default());
        assert_eq!((lines.len(), rejections.len()), (0, 1), "{point}");
        rejections[0].message.clone()
    };
    assert!(
        refused(json!({"count": 0, "scale": -5}))
            .starts_with("cannot convert exponential to native histogram. Scale must be >= -4, was -5")
    );
    refused(json!({"count": 5, "positive": {"bucketCounts": [1]}}));
    refused(json!({"count": 1, "positive": {"offset": 2147483647, "bucketCounts": [1]}}));
    let many: Vec<u64> = vec![1; (1 << 16) + 1];
    refused(json!({"count": many.len(), "positive": {"bucketCounts": many}}));
}

#[test]
fn summaries() {
    let request = metric(
        &json!({"name": "q", "unit": "s", "summary": {"dataPoints": [{"timeUnixNano": at(0),
        "startTimeUnixNano": at(-1), "count": 4, "sum": 2.5, "attributes": [attribute("quantile", "own"), attribute("z", "1")],
        "quantileValues": [{"quantile": 0, "value": 0.1}, {"quantile": 0.99, "value": "NaN"}, {"quantile": 1, "value": 3}]}]}}),
    );
    assert_eq!(
        translate(&request),
        [
            r#"{__name__="q_seconds_sum", quantile="own", z="1"} 2.5@0<-1"#,
            r#"{__name__="q_seconds_count", quantile="own", z="1"} 4@0<-1"#,
            r#"{__name__="q_seconds", quantile="0", z="1"} 0.1@0<-1"#,
            r#"{__name__="q_seconds", quantile="0.99", z="1"} NaN@0<-1"#,
            r#"{__name__="q_seconds", quantile="1", z="1"} 3@0<-1"#,
        ]
    );
}

#[test]
fn exemplars_too_long_lose_their_attributes() {
    let request = |attributes: Value, trace: &str| {
        metric(
            &json!({"name": "c", "sum": {"aggregationTemporality": 2, "isMonotonic": true,
        "dataPoints": [{"timeUnixNano": at(0), "asInt": 1, "exemplars": [{"asInt": 1, "traceId": trace, "filteredAttributes": attributes}]}]}}),
        )
    };
    let zero = "0".repeat(32);
    let line = |attributes: Value, trace: &str| translate(&request(attributes, trace)).remove(0);
    let fits = "x".repeat(127);
    assert_eq!(
        line(json!([attribute("a", &fits)]), &zero),
        format!(r#"{{__name__="c_total"}} 1@0 #{{a="{fits}"}} 1@0"#)
    );
    let trace = "1".repeat(32);
    assert_eq!(
        line(json!([attribute("a", "1"), attribute("b", &fits)]), &trace),
        format!(r#"{{__name__="c_total"}} 1@0 #{{trace_id="{trace}"}} 1@0"#)
    );
    // Neither an id of the wrong length nor a value that is not there make an exemplar.
    let limits = Limits::default();
    let mut bad = request(json!([]), "0102");
    let exemplars =
        &mut bad["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]["sum"]["dataPoints"][0]["exemplars"];
    exemplars.as_array_mut().expect("a list").push(json!({}));
    let export = Export::read(bad.to_string().into(), &JSON, &limits).expect("readable");
    let decoded = run(&export, &limits, &totals().0);
    assert_eq!((decoded.batch.exemplars.len(), decoded.exemplars_dropped), (0, 2));
}

/// Two bytes on the wire must not become a row each.
#[test]
fn a_request_that_expands_is_refused() {
    let quantiles = vec![json!({}); 60_000];
    let point = json!({"timeUnixNano": at(0), "quantileValues": quantiles});
    let request = |points: usize| {
        let metric = metric(&json!({"name": "q", "summary": {"dataPoints": vec![point.clone(); points]}}));
        let json = json::to_protobuf(metric.to_string().as_bytes()).expect("readable");
        // Without the padding of the lengths.
        let message = ExportMetricsServiceRequest::decode(&*json).expect("a message");
        Export::from_message(message.encode_to_vec().into(), &Limits::default()).expect("readable")
    };
    let limits = Limits::default();
    let translate = |points| request(points).translate(&TenantId::anonymous(), &limits, &totals().0);
    assert_eq!(translate(5).unwrap_err().kind, ErrorKind::TooLarge);
    let many =
        json!({"name": "g", "gauge": {"dataPoints": [{"timeUnixNano": at(0), "attributes": vec![json!({}); 5000]}]}});
    let (_, rejections) = translate_with(&metric(&many), OtlpMetrics::default());
    assert_eq!(reasons(&rejections), [("too_many_items", 1)]);
}
