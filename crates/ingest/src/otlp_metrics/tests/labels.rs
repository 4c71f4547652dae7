use trilith_model::{DeltaTemporality, Promotion, TranslationStrategy};

use super::*;

fn labels(request: &Value, settings: OtlpMetrics) -> Vec<String> {
    let (lines, rejections) = translate_with(request, settings);
    assert_eq!(rejections, []);
    lines
        .into_iter()
        .map(|l| l[..=l.rfind('}').expect("labels")].to_owned())
        .collect()
}

fn gauge(attributes: &[Value]) -> String {
    labels(&metric(&gauge_of(attributes)), OtlpMetrics::default()).remove(0)
}

#[test]
fn attributes_collide_and_are_joined_in_the_order_of_their_names() {
    let collide = gauge(&[
        attribute("a_b", "3"),
        attribute("a.b", "1"),
        attribute("a-b", "2"),
        attribute("z", ""),
    ]);
    assert_eq!(collide, r#"{__name__="g", a_b="2;1;3"}"#);
    // An empty value is no label, but leaves its mark behind one.
    assert_eq!(
        gauge(&[attribute("a.b", ""), attribute("a_b", "x")]),
        r#"{__name__="g", a_b="x"}"#
    );
    assert_eq!(
        gauge(&[attribute("a.b", "x"), attribute("a_b", "")]),
        r#"{__name__="g", a_b="x;"}"#
    );
    // The name of the series is not an attribute's to give.
    assert_eq!(
        gauge(&[
            attribute("__name__", "evil"),
            attribute("..name..", "evil"),
            attribute("Az", "1"),
            attribute("_a", "2")
        ]),
        r#"{Az="1", __name__="g", key_a="2"}"#
    );
}

#[test]
fn values_of_all_types_become_text() {
    let values = json!([
        {"key": "int", "value": {"intValue": "-9223372036854775808"}},
        {"key": "bool", "value": {"boolValue": true}},
        {"key": "d1", "value": {"doubleValue": 1.0}},
        {"key": "d2", "value": {"doubleValue": 1e21}},
        {"key": "d3", "value": {"doubleValue": 1.5e-7}},
        {"key": "d4", "value": {"doubleValue": 0.000001}},
        {"key": "d5", "value": {"doubleValue": "Infinity"}},
        {"key": "bytes", "value": {"bytesValue": "AAEC/w=="}},
        {"key": "empty", "value": {}},
        {"key": "list", "value": {"arrayValue": {"values": [{"stringValue": "a<b>&\"\u{1}\n\u{2028}é"}, {"intValue": 1}, {},
            {"doubleValue": 1e-9}, {"bytesValue": "AAE="}, {"arrayValue": {}}]}}},
        {"key": "map", "value": {"kvlistValue": {"values": [attribute("z", "1"), {"key": "a", "value": {"boolValue": false}},
            {"key": "n"}, attribute("z", "2")]}}},
        {"key": "broken", "value": {"arrayValue": {"values": [{"doubleValue": "NaN"}]}}},
    ]);
    let line = gauge(values.as_array().expect("a list"));
    let line = line.replace("\\\"", "'").replace("\\\\", "\\");
    for want in [
        r#"int="-9223372036854775808""#,
        r#"bool="true""#,
        r#"d1="1""#,
        r#"d2="1e+21""#,
        r#"d3="1.5e-7""#,
        r#"d4="0.000001""#,
        r#"d5="json: unsupported value: +Inf""#,
        r#"bytes="AAEC/w==""#,
        r#"list="['a<b>&\'\u0001\n\u2028é',1,null,1e-9,'AAE=',[]]""#,
        r#"map="{'a':false,'n':null,'z':'2'}""#,
    ] {
        assert!(line.contains(want), "{want} is not in {line}");
    }
    assert!(!line.contains("empty") && !line.contains("broken"), "{line}");
}

#[test]
fn deep_values_refuse_the_request() {
    let mut value = json!({"intValue": 1});
    for _ in 0..31 {
        value = json!({"arrayValue": {"values": [value]}});
    }
    let request = metric(&gauge_of(&[json!({"key": "deep", "value": value})]));
    let limits = Limits::default();
    // serde_json stops at 128 levels of its own.
    let export = Export::read(request.to_string().into(), &JSON, &limits).expect("readable");
    let e = export
        .translate(&TenantId::anonymous(), &limits, &totals().0)
        .unwrap_err();
    assert_eq!(e.kind, ErrorKind::Invalid);
}

fn resource(attributes: &[Value]) -> Value {
    json!({"resourceMetrics": [{"resource": {"attributes": attributes}, "scopeMetrics": [{
        "scope": {"name": "lib", "version": "1", "attributes": [attribute("k.x", "v")]}, "schemaUrl": "http://s",
        "metrics": [gauge_of(&[attribute("own", "1"), attribute("host.name", "point")])]}]}]})
}

fn service() -> Vec<Value> {
    vec![
        attribute("service.name", "shop"),
        attribute("service.namespace", "prod"),
        attribute("service.instance.id", "i-1"),
        attribute("host.name", "h"),
        attribute("cloud.region", "eu"),
    ]
}

#[test]
fn job_instance_and_target_info() {
    assert_eq!(
        labels(&resource(&service()), OtlpMetrics::default()),
        [
            r#"{__name__="g", host_name="point", instance="i-1", job="prod/shop", own="1"}"#,
            r#"{__name__="target_info", cloud_region="eu", host_name="h", instance="i-1", job="prod/shop"}"#,
        ]
    );
    let keep = OtlpMetrics {
        keep_identifying_attributes: true,
        namespace: "ns".into(),
        ..OtlpMetrics::default()
    };
    let lines = labels(&resource(&service()), keep);
    assert!(lines[0].contains(r#"__name__="ns_g""#), "{lines:?}");
    assert_eq!(
        lines[1],
        r#"{__name__="ns_target_info", cloud_region="eu", host_name="h", instance="i-1", job="prod/shop", service_instance_id="i-1", service_name="shop", service_namespace="prod"}"#
    );
    // Nothing to tell besides job and instance, or nothing to tell it of.
    assert_eq!(labels(&resource(&service()[..3]), OtlpMetrics::default()).len(), 1);
    assert_eq!(labels(&resource(&service()[3..]), OtlpMetrics::default()).len(), 1);
    let named = labels(&resource(&service()[..1]), OtlpMetrics::default());
    assert_eq!(named, [r#"{__name__="g", host_name="point", job="shop", own="1"}"#]);
}

#[test]
fn promoted_attributes_give_way_to_those_of_the_point() {
    let these = OtlpMetrics {
        promotion: Promotion::These(vec!["host.name".into(), "cloud.region".into(), "none".into()]),
        ..OtlpMetrics::default()
    };
    assert_eq!(
        labels(&resource(&service()), these)[0],
        r#"{__name__="g", cloud_region="eu", host_name="point", instance="i-1", job="prod/shop", own="1"}"#
    );
    let all = OtlpMetrics {
        promotion: Promotion::AllBut(vec!["cloud.region".into()]),
        promote_scope_metadata: true,
        ..OtlpMetrics::default()
    };
    assert_eq!(
        labels(&resource(&service()), all)[0],
        r#"{__name__="g", host_name="point", instance="i-1", job="prod/shop", otel_scope_k_x="v", otel_scope_name="lib", otel_scope_schema_url="http://s", otel_scope_version="1", own="1", service_instance_id="i-1", service_name="shop", service_namespace="prod"}"#
    );
}

#[test]
fn names_as_sent() {
    let utf8 = OtlpMetrics {
        strategy: TranslationStrategy::NoTranslation,
        ..OtlpMetrics::default()
    };
    assert_eq!(
        labels(&resource(&service()), utf8),
        [
            r#"{__name__="g", host.name="point", instance="i-1", job="prod/shop", own="1"}"#,
            r#"{__name__="target_info", cloud.region="eu", host.name="h", instance="i-1", job="prod/shop"}"#,
        ]
    );
}

#[test]
fn type_and_unit_labels() {
    let settings = OtlpMetrics {
        type_and_unit_labels: true,
        ..OtlpMetrics::default()
    };
    let request = metric(
        &json!({"name": "n", "unit": "By/s", "sum": {"aggregationTemporality": 2, "isMonotonic": true,
        "dataPoints": [{"timeUnixNano": at(0), "asInt": 1}]}}),
    );
    assert_eq!(
        labels(&request, settings),
        [r#"{__name__="n_bytes_per_second_total", __type__="counter", __unit__="bytes_per_second"}"#]
    );
}

#[test]
fn target_info_stands_wherever_a_query_looks() {
    let request = |times: &[i64]| {
        let points: Vec<Value> = times
            .iter()
            .map(|t| json!({"timeUnixNano": at(*t), "asInt": 1}))
            .collect();
        let r = json!({"resource": {"attributes": [attribute("service.name", "a"), attribute("x", "y")]},
            "scopeMetrics": [{"metrics": [{"name": "g", "gauge": {"dataPoints": points}}]}]});
        // Twice the same resource: its points are not repeated.
        json!({"resourceMetrics": [r, r]})
    };
    let info = |times: &[i64]| translate(&request(times)).pop().expect("target_info");
    assert_eq!(
        info(&[400_000, 0]),
        r#"{__name__="target_info", job="a", x="y"} 1@0 1@150000 1@300000 1@400000"#
    );
    assert_eq!(info(&[7]), r#"{__name__="target_info", job="a", x="y"} 1@7"#);
    // A point of another age does not make millions.
    let old = info(&[-T + 1, 0]);
    assert_eq!(old.matches('@').count(), 1001);
}

#[test]
fn limits_and_bad_names_refuse_single_points() {
    let long = "x".repeat(5000);
    let points = [
        json!({"timeUnixNano": at(0), "asInt": 1, "attributes": [attribute("a", &long)]}),
        json!({"timeUnixNano": at(0), "asInt": 1, "attributes": [attribute(&long, "a")]}),
        json!({"timeUnixNano": at(0), "asInt": 1, "attributes": [attribute("", "a")]}),
        json!({"timeUnixNano": at(0), "asInt": 1, "attributes": [attribute("...", "a")]}),
        json!({"timeUnixNano": at(0), "asInt": 1, "attributes": (0..200).map(|i| attribute(&format!("a{i}"), "x")).collect::<Vec<_>>()}),
        json!({"asInt": 1}),
        json!({"timeUnixNano": at(0), "asInt": 2}),
    ];
    let request = metric(&json!({"name": "g", "gauge": {"dataPoints": points}}));
    let (lines, rejections) = translate_with(&request, OtlpMetrics::default());
    assert_eq!(lines, [r#"{__name__="g"} 2@0"#]);
    assert_eq!(
        reasons(&rejections),
        [
            ("label_value_too_long", 1),
            ("label_name_too_long", 1),
            ("label_invalid", 1),
            ("label_invalid", 1),
            ("max_label_names_per_series", 1),
            ("missing_timestamp", 1),
        ]
    );
    assert!(
        rejections[3]
            .message
            .contains(r#"normalization for label name "..." resulted in invalid name "___""#)
    );
}

#[test]
fn a_resource_or_scope_that_cannot_be_translated_is_refused_whole() {
    let all = OtlpMetrics {
        promotion: Promotion::AllBut(Vec::new()),
        ..OtlpMetrics::default()
    };
    let (lines, rejections) = translate_with(&resource(&[attribute("...", "x")]), all);
    assert_eq!((lines.len(), reasons(&rejections)), (0, vec![("label_invalid", 1)]));
}

#[test]
fn metrics_without_a_usable_name_or_temporality() {
    let point = json!([{"timeUnixNano": at(0), "asInt": 1}, {"timeUnixNano": at(1), "asInt": 1}]);
    let request = json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [
        {"name": "", "gauge": {"dataPoints": point}},
        {"name": "s", "sum": {"dataPoints": point}},
        {"name": "d", "sum": {"dataPoints": point, "aggregationTemporality": 1}},
        {"name": "none"}, {"name": "no.points", "gauge": {}},
        {"name": "ok", "gauge": {"dataPoints": point}}]}]}]});
    let reject = OtlpMetrics {
        delta: DeltaTemporality::Reject,
        ..OtlpMetrics::default()
    };
    let (lines, rejections) = translate_with(&request, reject);
    assert_eq!(lines, [r#"{__name__="ok"} 1@0 1@1"#]);
    let texts: Vec<&str> = rejections.iter().map(|r| &*r.message).collect();
    assert_eq!(
        texts,
        [
            "normalization for metric \"\" resulted in empty name",
            "invalid temporality and type combination for metric \"s\"",
            "invalid temporality and type combination for metric \"d\"",
        ]
    );
    assert_eq!(rejections.iter().map(|r| r.count).sum::<u64>(), 6);
}
