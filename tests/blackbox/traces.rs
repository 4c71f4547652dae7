//! Traces end to end: OTLP in over HTTP and gRPC, by id and by search out.

use prost::Message as _;
use trilith_proto::otlp::collector::trace::v1::trace_service_client::TraceServiceClient;
use trilith_proto::otlp::trace::v1::TracesData;
use trilith_proto::tempopb;

use crate::harness::{Server, attribute, export_request, now_ns, span};

const S: i64 = 1_000_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn by_id_over_every_transport_and_encoding() {
    let server = Server::start().await;
    let t = now_ns() - 60 * S;
    let request = |id: u128| {
        let mut root = span(id, 1, "root", t, 5_000_000);
        root.attributes.push(attribute("k", "v"));
        let mut child = span(id, 2, "child", t + 1000, 1000);
        child.parent_span_id = 1u64.to_be_bytes().to_vec();
        export_request("shop", vec![root, child])
    };
    let (status, _) = server.export(&request(1)).await.expect("an answer");
    assert_eq!(status, 200);

    let mut grpc = TraceServiceClient::connect(format!("http://{}", server.address("otlp-grpc")))
        .await
        .expect("connects");
    grpc.export(request(2)).await.expect("taken");

    let json = serde_json::json!({"resourceSpans": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]},
        "scopeSpans": [{"spans": [
            {"traceId": format!("{:032x}", 3), "spanId": "0000000000000001", "name": "root", "kind": 2,
             "startTimeUnixNano": t.to_string(), "endTimeUnixNano": (t + 5_000_000).to_string()},
            {"traceId": format!("{:032x}", 3), "spanId": "0000000000000002", "parentSpanId": "0000000000000001", "name": "child",
             "startTimeUnixNano": t.to_string(), "endTimeUnixNano": (t + 1).to_string()}]}]}]});
    let (status, body) = server
        .post(
            "otlp-http",
            "/v1/traces",
            &[("Content-Type", "application/json")],
            json.to_string().into_bytes(),
        )
        .await
        .expect("an answer");
    assert_eq!(status, 200, "{body}");

    for flushed in [false, true] {
        if flushed {
            server.flush().await;
        }
        for id in 1..=3u128 {
            let mut names: Vec<String> = server.trace_spans(id).await.into_iter().map(|(_, n)| n).collect();
            names.sort();
            assert_eq!(names, ["child", "root"], "trace {id}, flushed {flushed}");
        }
        let fetch = |path: String| {
            let request = server
                .http
                .get(server.url("traces", &path))
                .header("Accept", "application/protobuf");
            async move {
                let response = request.send().await.expect("an answer");
                assert_eq!(response.status(), 200, "{path}");
                response.bytes().await.expect("a body")
            }
        };
        let v1 = TracesData::decode(fetch(format!("/api/traces/{:x}", 1)).await).expect("OTLP");
        assert_eq!(v1.resource_spans[0].scope_spans[0].spans.len(), 2);
        assert_eq!(
            v1.resource_spans[0].scope_spans[0].spans[0].attributes,
            [attribute("k", "v")]
        );
        let v2 =
            tempopb::TraceByIdResponse::decode(fetch(format!("/api/v2/traces/{:032x}", 1)).await).expect("Tempo's");
        assert_eq!(v2.trace.map(|t| t.resource_spans.len()), Some(1));
    }

    let (status, body) = server.get("traces", "/api/traces/ffff", &[]).await;
    assert_eq!((status, body.as_str()), (404, ""));
    let v = server.json("traces", "/api/v2/traces/ffff", &[]).await;
    assert_eq!(v["trace"], serde_json::json!({}));
    assert_eq!(server.get("traces", "/api/traces/xyz", &[]).await.0, 400);
    assert_eq!(server.get("traces", "/api/echo", &[]).await, (200, "echo".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn search_by_tags_and_by_traceql() {
    let server = Server::start().await;
    let t = now_ns() - 60 * S;
    for i in 0..20u64 {
        let service = if i % 2 == 0 { "even" } else { "odd" };
        let mut root = span(
            0x100 + u128::from(i),
            1,
            "GET /",
            t + i as i64 * S / 10,
            1_000_000 * (i + 1),
        );
        root.attributes.push(attribute("n", &i.to_string()));
        let (status, _) = server
            .export(&export_request(service, vec![root]))
            .await
            .expect("an answer");
        assert_eq!(status, 200);
    }
    let (start, end) = ((t / S - 10).to_string(), (t / S + 60).to_string());
    for flushed in [false, true] {
        if flushed {
            server.flush().await;
        }
        let find = |params: Vec<(&'static str, &'static str)>| {
            let (server, start, end) = (&server, start.clone(), end.clone());
            async move {
                let mut params = params;
                params.extend([("limit", "100")]);
                let mut all: Vec<(&str, &str)> = params;
                all.extend([("start", &*start), ("end", &*end)]);
                let v = server.json("traces", "/api/search", &all).await;
                let traces = v["traces"].as_array().cloned().unwrap_or_default();
                traces
                    .iter()
                    .map(|t| t["traceID"].as_str().unwrap_or_default().to_owned())
                    .collect::<Vec<_>>()
            }
        };
        assert_eq!(
            find(vec![("tags", "service.name=even")]).await.len(),
            10,
            "flushed {flushed}"
        );
        assert_eq!(find(vec![("tags", "n=13")]).await, ["10d"]);
        assert_eq!(
            find(vec![("q", "{ resource.service.name = \"odd\" && span.n = \"7\" }")]).await,
            ["107"]
        );
        assert_eq!(
            find(vec![("q", "{ duration > 18ms }")]).await,
            ["113", "112"],
            "newest first"
        );
        assert_eq!(find(vec![("q", "{ name = \"none\" }")]).await.len(), 0);
        assert_eq!(
            find(vec![("tags", "service.name=odd"), ("minDuration", "19ms")]).await,
            ["113"]
        );
    }
    let (status, body) = server.get("traces", "/api/search", &[("q", "{ name = ")]).await;
    assert_eq!(status, 400);
    assert!(body.contains("parse error at line 1, col"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_search_on_the_http_port() {
    let server = Server::start().await;
    let t = now_ns() - 60 * S;
    assert_eq!(
        server
            .export(&export_request("s", vec![span(9, 1, "x", t, 5)]))
            .await
            .expect("an answer")
            .0,
        200
    );
    let endpoint = format!("http://{}", server.address("traces"));
    let mut client = tempopb::streaming_querier_client::StreamingQuerierClient::connect(endpoint)
        .await
        .expect("connects");
    let request = tempopb::SearchRequest {
        query: "{}".into(),
        limit: 1,
        start: (t / S - 900) as u32,
        end: (t / S + 900) as u32,
        ..Default::default()
    };
    let mut stream = client.search(request).await.expect("a stream").into_inner();
    let mut found = Vec::new();
    while let Some(message) = stream.message().await.expect("no error") {
        assert!(message.metrics.is_some());
        found.extend(message.traces.into_iter().map(|t| t.trace_id));
    }
    assert_eq!(found, ["9"]);
}
