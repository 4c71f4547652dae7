//! Bad input: upstream's status, a message that says where, nothing half-stored, and the process lives.

use prost::Message as _;
use serde_json::json;

use crate::harness::{
    Options, PROTOBUF, Server, export_request, now_ns, push_request, series, snappy, span, stream, write_request,
};

const S: i64 = 1_000_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn malformed_bodies_are_refused() {
    let server = Server::start().await;
    let rw = "/api/v1/write";
    let push = "/loki/api/v1/push";
    let snappy_bomb = {
        // A header that promises 4 GiB.
        let mut b = vec![0xff, 0xff, 0xff, 0xff, 0x0f];
        b.extend_from_slice(&[0; 64]);
        b
    };
    let gzip_bomb = {
        let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        let zeros = vec![0u8; 1 << 20];
        for _ in 0..300 {
            std::io::Write::write_all(&mut e, &zeros).expect("memory");
        }
        e.finish().expect("memory")
    };
    let pb = ("Content-Type", PROTOBUF);
    let js = ("Content-Type", "application/json");
    let gz = ("Content-Encoding", "gzip");
    let sn = ("Content-Encoding", "snappy");
    let cases: Vec<(&str, &str, Vec<(&str, &str)>, Vec<u8>, &[u16])> = vec![
        ("metrics", rw, vec![pb, sn], b"not snappy".to_vec(), &[400]),
        ("metrics", rw, vec![pb, sn], snappy(b"\xff\xff\xff\xff"), &[400]),
        ("metrics", rw, vec![pb, sn], snappy_bomb.clone(), &[400, 413]),
        ("metrics", rw, vec![("Content-Type", "text/plain"), sn], vec![], &[415]),
        ("metrics", rw, vec![pb, ("Content-Encoding", "zstd")], vec![], &[415]),
        ("logs", push, vec![pb], b"not snappy".to_vec(), &[400]),
        ("logs", push, vec![pb], snappy(b"\xff\xff\xff\xff"), &[400]),
        ("logs", push, vec![pb], snappy_bomb, &[400, 413]),
        ("logs", push, vec![js], b"{".to_vec(), &[400]),
        ("logs", push, vec![js], b"".to_vec(), &[400]),
        ("logs", push, vec![js], b"{}".to_vec(), &[422]),
        (
            "logs",
            push,
            vec![js, ("Content-Encoding", "br")],
            b"{}".to_vec(),
            &[400],
        ),
        ("logs", push, vec![js, gz], b"not gzip".to_vec(), &[400]),
        ("logs", push, vec![js, gz], gzip_bomb.clone(), &[400, 413]),
        (
            "otlp-http",
            "/v1/traces",
            vec![pb],
            b"\xff\xff\xff\xff".to_vec(),
            &[400],
        ),
        ("otlp-http", "/v1/traces", vec![js], b"[1".to_vec(), &[400]),
        (
            "otlp-http",
            "/v1/traces",
            vec![("Content-Type", "text/plain")],
            vec![],
            &[415],
        ),
        ("otlp-http", "/v1/traces", vec![pb, gz], gzip_bomb, &[400, 413]),
    ];
    for (listener, path, headers, body, want) in cases {
        let n = body.len();
        let (status, text) = server.post(listener, path, &headers, body).await.expect("an answer");
        assert!(
            want.contains(&status),
            "{listener} {headers:?} {n} bytes: {status} {text}"
        );
        assert!(!text.is_empty(), "{listener} {headers:?}: a message");
    }
    assert_eq!(server.json("metrics", "/api/v1/labels", &[]).await["data"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn extreme_times_and_values_do_no_harm() {
    let server = Server::start_with(Options::default().arg("--limits.max-sample-future", "0")).await;
    for t in [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX] {
        let write = write_request(vec![series(&[("__name__", "edge")], &[(t, f64::NAN)])]);
        let (status, body) = server.write(&write).await.expect("an answer");
        assert!(status == 204 || status == 400, "{t}: {status} {body}");
        let push = push_request(vec![stream(r#"{edge="1"}"#, &[(t, "x")])]);
        let (status, body) = server.push(&push).await.expect("an answer");
        assert!(status == 204 || status == 400, "{t}: {status} {body}");
        let mut s = span(0xed6e, t as u64 | 1, "edge", 0, 0);
        s.start_time_unix_nano = t as u64;
        s.end_time_unix_nano = u64::MAX;
        let (status, body) = server.export(&export_request("s", vec![s])).await.expect("an answer");
        assert!(status == 200 || status == 400, "{t}: {status} {body}");
    }
    server.flush().await;
    server.compact().await;
    assert_eq!(
        server.promql("edge[1h]", 0.5).await[0].1.len(),
        2,
        "-1 ms and 0 are inside, the window's far end is not"
    );
    assert_eq!(server.trace_spans(0xed6e).await.len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_labels_are_named_and_nothing_of_them_is_stored() {
    let server = Server::start().await;
    let t = now_ns() - 60 * S;
    let push = |labels: &str| {
        let request = push_request(vec![stream(labels, &[(t, "x")])]);
        let server = &server;
        async move { server.push(&request).await.expect("an answer") }
    };
    let (status, body) = push("{a-b=\"c\"}").await;
    assert_eq!(status, 400);
    assert!(body.contains("couldn't parse labels"), "{body}");
    let (status, body) = push("{a=\"1\", a=\"2\"}").await;
    assert_eq!(status, 400);
    assert!(body.contains("duplicate label name"), "{body}");
    let long = format!("{{a=\"{}\"}}", "x".repeat(5000));
    let (status, body) = push(&long).await;
    assert_eq!(status, 400);
    assert!(body.contains("label value too long"), "{body}");
    let line = "l".repeat((256 << 10) + 1);
    let request = push_request(vec![stream(r#"{a="b"}"#, &[(t, &line), (t + 1, "fits")])]);
    let (status, body) = server.push(&request).await.expect("an answer");
    assert_eq!(status, 400);
    assert!(
        body.contains("max entry size '262144' bytes exceeded for stream"),
        "{body}"
    );
    let kept: Vec<String> = server
        .all_lines("{a=\"b\"}", t - S, t + S)
        .await
        .into_iter()
        .map(|(_, l)| l)
        .collect();
    assert_eq!(kept, ["fits"], "valid entries of the same push are kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_answer_with_upstream_codes() {
    let options = Options::default()
        .arg("--limits.active-series", "10")
        .arg("--limits.active-streams", "10")
        .arg("--limits.live-traces", "10")
        .arg("--limits.request-size", "100KB");
    let server = Server::start_with(options).await;
    let t = now_ns() - 60 * S;
    let many: Vec<_> = (0..20)
        .map(|i| series(&[("__name__", "m"), ("i", &i.to_string())], &[(t / 1_000_000, 1.0)]))
        .collect();
    let (status, body) = server.write(&write_request(many)).await.expect("an answer");
    assert_eq!(status, 429, "{body}");
    assert!(body.contains("limits.active-series"), "{body}");
    let many: Vec<_> = (0..20)
        .map(|i| stream(&format!("{{i=\"{i}\"}}"), &[(t, "x")]))
        .collect();
    let response = server
        .http
        .post(server.url("logs", "/loki/api/v1/push"))
        .header("Content-Type", PROTOBUF)
        .body(snappy(&push_request(many).encode_to_vec()))
        .send()
        .await
        .expect("an answer");
    assert_eq!(response.status(), 429);
    assert!(response.headers().contains_key("retry-after"));
    assert!(
        response
            .text()
            .await
            .expect("a body")
            .contains("maximum active stream limit exceeded")
    );
    let many: Vec<_> = (0..20u64).map(|i| span(u128::from(i) + 1, 1, "x", t, 1)).collect();
    let (status, body) = server
        .export(&export_request("s", many.clone()))
        .await
        .expect("an answer");
    assert_eq!(status, 429, "{body}");
    let mut grpc = trilith_proto::otlp::collector::trace::v1::trace_service_client::TraceServiceClient::connect(
        format!("http://{}", server.address("otlp-grpc")),
    )
    .await
    .expect("connects");
    let refused = grpc
        .export(export_request("s", many))
        .await
        .expect_err("over the limit");
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    assert!(!refused.details().is_empty(), "RetryInfo");
    let large = "x".repeat(200_000);
    let request = push_request(vec![stream(r#"{i="0"}"#, &[(t, &large)])]);
    assert_eq!(server.push(&request).await.expect("an answer").0, 413);
}
