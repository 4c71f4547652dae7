use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use prost::Message as _;
use trilith_histogram::{Buckets, CUSTOM_SCHEMA, FloatHistogram};
use trilith_model::{Labels, SampleValue, TenantId};

use super::proto::MetricFamily;
use super::*;
use crate::prom::tests::{Api, NOW_MS};

const PROTOBUF: &str =
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,text/plain;q=0.3";

fn api() -> Api {
    let api = Api::new();
    let tenant = TenantId::anonymous();
    let float = |pairs: &[(&str, &str)], ago_ms: i64, v: f64| {
        api.store.push(
            &tenant,
            Labels::from_pairs(pairs.iter().copied()),
            [(NOW_MS - ago_ms, v)],
        );
    };
    float(&[("__name__", "b"), ("x", "q\"\n")], 10, 2.0);
    float(&[("__name__", "b"), ("instance", "i")], 0, f64::INFINITY);
    float(&[("__name__", "a")], 299_000, 1e-9);
    float(&[("__name__", "old")], 301_000, 1.0);
    float(&[("__name__", "gone")], 10, f64::from_bits(STALE_BITS));
    float(&[("__name__", "a.b"), ("c.d", "e")], 0, 3.0);
    float(&[("nameless", "1")], 0, 3.0);
    let native = FloatHistogram {
        count: 3.0,
        sum: 1.5,
        positive: Buckets::run(0, vec![1.0, 2.0]),
        ..FloatHistogram::default()
    };
    let custom = FloatHistogram {
        schema: CUSTOM_SCHEMA,
        count: 6.0,
        sum: 9.0,
        positive: Buckets::run(0, vec![1.0, 2.0, 3.0]),
        custom_bounds: Some([0.5, 1.0].as_slice().into()),
        ..FloatHistogram::default()
    };
    for (name, h) in [("native", native), ("nhcb", custom)] {
        let value = SampleValue::Histogram(Arc::new(h));
        api.store
            .push_values(&tenant, Labels::from_pairs([("__name__", name)]), [(NOW_MS, value, 0)]);
    }
    api
}

async fn get(api: &Api, path: &str, accept: &str) -> (String, Vec<u8>) {
    let request = Request::get(path)
        .header("accept", accept)
        .body(Body::empty())
        .expect("valid");
    let answer = api.send(request).await;
    assert_eq!(answer.status, 200);
    (
        answer.headers["content-type"].to_str().expect("text").to_owned(),
        answer.body,
    )
}

const ALL: &str = "/federate?match[]=%7B__name__%3D~%22.%2B%22%7D&match[]=b&match[]=%7Bnameless%3D%221%22%7D";

#[tokio::test]
async fn text() {
    let (kind, body) = get(&api(), ALL, "*/*").await;
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores");
    let want = r#"# TYPE a untyped
a{instance=""} 1e-09 701000
# TYPE a_b untyped
a_b{c_d="e",instance=""} 3 1000000
# TYPE b untyped
b{instance="i"} +Inf 1000000
b{x="q\"\n",instance=""} 2 999990
# TYPE nhcb histogram
nhcb_bucket{instance="",le="0.5"} 1 1000000
nhcb_bucket{instance="",le="1"} 3 1000000
nhcb_bucket{instance="",le="+Inf"} 6 1000000
nhcb_sum{instance=""} 9 1000000
nhcb_count{instance=""} 6 1000000
"#;
    assert_eq!(String::from_utf8_lossy(&body), want);
    let (_, body) = get(
        &api(),
        "/federate?match[]=%7B%22a.b%22%7D",
        "text/plain;version=1.0.0;escaping=allow-utf-8",
    )
    .await;
    let want = "# TYPE \"a.b\" untyped\n{\"a.b\",\"c.d\"=\"e\",instance=\"\"} 3 1000000\n";
    assert_eq!(String::from_utf8_lossy(&body), want);
}

#[tokio::test]
async fn names_as_the_reader_asks() {
    for (scheme, name, label) in [
        ("underscores", "a_b", "c_d"),
        ("dots", "a_dot_b", "c_dot_d"),
        ("values", "U__a_2e_b", "U__c_2e_d"),
    ] {
        let path = "/federate?match[]=%7B%22a.b%22%7D";
        let accept = format!("text/plain;version=1.0.0;escaping={scheme}");
        let (kind, body) = get(&api(), path, &accept).await;
        assert_eq!(
            kind,
            format!("text/plain; version=1.0.0; charset=utf-8; escaping={scheme}")
        );
        let want = format!("# TYPE {name} untyped\n{name}{{{label}=\"e\",instance=\"\"}} 3 1000000\n");
        assert_eq!(String::from_utf8_lossy(&body), want);
        let (kind, body) = get(
            &api(),
            path,
            &PROTOBUF.replace("delimited", &format!("delimited;escaping={scheme}")),
        )
        .await;
        assert!(kind.ends_with(&format!("escaping={scheme}")), "{kind}");
        let family = MetricFamily::decode_length_delimited(body.as_slice()).expect("a family");
        assert_eq!(family.name.as_deref(), Some(name));
    }
}

#[tokio::test]
async fn protobuf() {
    let (kind, body) = get(&api(), ALL, PROTOBUF).await;
    assert!(
        kind.starts_with(
            "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
        )
    );
    let mut rest = body.as_slice();
    let mut families = Vec::new();
    while !rest.is_empty() {
        families.push(MetricFamily::decode_length_delimited(&mut rest).expect("a family"));
    }
    let names: Vec<_> = families
        .iter()
        .map(|f| (f.name.as_deref().unwrap_or(""), f.kind.unwrap_or(0), f.metric.len()))
        .collect();
    assert_eq!(
        names,
        [
            ("a", 3, 1),
            ("a_b", 3, 1),
            ("b", 3, 2),
            ("native", 4, 1),
            ("nhcb", 4, 1)
        ]
    );
    let native = families[3].metric[0].histogram.as_ref().expect("a histogram");
    assert_eq!(
        (native.sample_count_float, native.schema, native.positive_count.len()),
        (Some(3.0), Some(0), 2)
    );
    let nhcb = families[4].metric[0].histogram.as_ref().expect("a histogram");
    assert_eq!(
        (nhcb.schema, nhcb.bucket.len(), nhcb.bucket[1].cumulative_count_float),
        (None, 3, Some(3.0))
    );
}

#[tokio::test]
async fn nothing_asked_and_nonsense() {
    let api = api();
    let (_, body) = get(&api, "/federate", "*/*").await;
    assert!(body.is_empty());
    assert_eq!(api.get("/federate?match[]=sum(").await.status, 400);
}
