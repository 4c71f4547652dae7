use axum::body::Body;
use axum::http::Request;
use prost::Message as _;
use trilith_model::{Labels, TenantId};

use super::*;
use crate::prom::Options;
use crate::prom::tests::{Answer, Api, NOW_MS};

fn query(name: &str, start: i64, end: i64) -> pb::Query {
    pb::Query {
        start_timestamp_ms: start,
        end_timestamp_ms: end,
        matchers: vec![pb::LabelMatcher {
            r#type: pb::label_matcher::Type::Re.into(),
            name: "__name__".into(),
            value: name.into(),
        }],
        hints: None,
    }
}

async fn post(api: &Api, queries: Vec<pb::Query>, types: &[i32]) -> Answer {
    let request = pb::ReadRequest {
        queries,
        accepted_response_types: types.to_vec(),
    };
    let body = snap::raw::Encoder::new()
        .compress_vec(&request.encode_to_vec())
        .expect("small");
    api.send(Request::post("/api/v1/read").body(Body::from(body)).expect("valid"))
        .await
}

fn mixed(api: &Api) {
    let h = FloatHistogram {
        count: 2.0,
        sum: 3.0,
        positive: Buckets::run(1, vec![2.0]),
        ..FloatHistogram::default()
    };
    api.store.push_values(
        &TenantId::anonymous(),
        Labels::from_pairs([("__name__", "mixed")]),
        [
            (NOW_MS - 1, SampleValue::Float(1.0), 0),
            (NOW_MS, SampleValue::Histogram(std::sync::Arc::new(h)), 0),
        ],
    );
}

#[tokio::test]
async fn samples_in_the_order_of_the_queries() {
    let api = Api::new().up();
    mixed(&api);
    let answer = post(
        &api,
        vec![query("none", 0, 10), query("up|mixed", NOW_MS - 60_000, NOW_MS)],
        &[],
    )
    .await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "application/x-protobuf");
    assert_eq!(answer.headers["content-encoding"], "snappy");
    let bytes = snap::raw::Decoder::new()
        .decompress_vec(&answer.body)
        .expect("a snappy block");
    let response = pb::ReadResponse::decode(bytes.as_slice()).expect("a message");
    assert_eq!(response.results.len(), 2);
    assert!(response.results[0].timeseries.is_empty());
    let series = &response.results[1].timeseries;
    assert_eq!(series.len(), 3);
    assert_eq!((series[0].samples.len(), series[0].histograms.len()), (1, 1));
    assert_eq!(
        series[0].histograms[0].count,
        Some(pb::histogram::Count::CountFloat(2.0))
    );
    assert_eq!(series[1].labels[1].value, "a");
    let times: Vec<i64> = series[1].samples.iter().map(|s| s.timestamp).collect();
    assert_eq!(times, [NOW_MS - 60_000, NOW_MS]);
}

#[tokio::test]
async fn streamed_chunks() {
    let api = Api::with(Options {
        read_frame_bytes: 1,
        ..Options::default()
    });
    let labels = Labels::from_pairs([("__name__", "long")]);
    api.store
        .push(&TenantId::anonymous(), labels, (0..250).map(|i| (i * 1000, i as f64)));
    mixed(&api);
    let answer = post(&api, vec![query("long|mixed", 0, NOW_MS)], &[7, 1, 0]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.headers["content-type"],
        "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse"
    );
    let mut rest = answer.body.as_slice();
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let len = prost::encoding::decode_varint(&mut rest).expect("a length") as usize;
        let (crc, payload) = (&rest[..4], &rest[4..4 + len]);
        assert_eq!(crc, crc32c(payload).to_be_bytes());
        frames.push(pb::ChunkedReadResponse::decode(payload).expect("a message"));
        rest = &rest[4 + len..];
    }
    let got: Vec<(&str, i64, i64, i32)> = frames
        .iter()
        .map(|f| {
            let s = &f.chunked_series[0];
            let c = &s.chunks[0];
            (s.labels[0].value.as_str(), c.min_time_ms, c.max_time_ms, c.r#type)
        })
        .collect();
    assert_eq!(
        got,
        [
            ("long", 0, 119_000, 1),
            ("long", 120_000, 239_000, 1),
            ("long", 240_000, 249_000, 1),
            ("mixed", NOW_MS - 1, NOW_MS - 1, 1),
            ("mixed", NOW_MS, NOW_MS, 3),
        ]
    );
}

#[tokio::test]
async fn refusals() {
    let api = Api::with(Options {
        read_samples_max: 5,
        ..Options::default()
    })
    .up();
    let answer = post(&api, vec![query("up", 0, NOW_MS)], &[0]).await;
    assert_eq!(
        (answer.status.as_u16(), answer.body.as_slice()),
        (400, b"exceeded sample limit (5)".as_slice())
    );
    assert_eq!(post(&api, vec![query("up", 0, NOW_MS)], &[7]).await.status, 400);
    assert_eq!(post(&api, vec![query("(", 0, NOW_MS)], &[]).await.status, 400);
    for body in [&b"nonsense"[..], b"", &[0xff; 20]] {
        let request = Request::post("/api/v1/read").body(Body::from(body)).expect("valid");
        assert_eq!(api.send(request).await.status, 400);
    }
}
