//! OTLP metrics end to end: in over every transport and encoding, out by PromQL.

use std::io::Write as _;

use prost::Message as _;
use serde_json::{Value, json};
use trilith_proto::otlp::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use trilith_proto::otlp::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use trilith_proto::otlp::metrics::v1::{
    AggregationTemporality, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum, exponential_histogram_data_point::Buckets, metric::Data, number_data_point,
};
use trilith_proto::otlp::resource::v1::Resource;

use crate::harness::{Options, PROTOBUF, Server, attribute, now_ns};

const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];
const S: i64 = 1_000_000_000;

fn request(service: &str, metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource {
                attributes: vec![attribute("service.name", service), attribute("host.name", "h1")],
                ..Resource::default()
            }),
            scope_metrics: vec![ScopeMetrics {
                metrics,
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    }
}

fn metric(name: &str, unit: &str, data: Data) -> Metric {
    Metric {
        name: name.into(),
        unit: unit.into(),
        description: "Help.".into(),
        data: Some(data),
        ..Metric::default()
    }
}

fn point(t: i64, value: i64) -> NumberDataPoint {
    NumberDataPoint {
        start_time_unix_nano: (t - 10 * S) as u64,
        time_unix_nano: t as u64,
        value: Some(number_data_point::Value::AsInt(value)),
        attributes: vec![attribute("http.route", "/a")],
        ..NumberDataPoint::default()
    }
}

/// A counter, a gauge and a native histogram at one time.
fn sample_request(service: &str, t: i64) -> ExportMetricsServiceRequest {
    let counter = Sum {
        data_points: vec![point(t, 7)],
        aggregation_temporality: AggregationTemporality::Cumulative.into(),
        is_monotonic: true,
    };
    let native = ExponentialHistogram {
        data_points: vec![ExponentialHistogramDataPoint {
            time_unix_nano: t as u64,
            count: 6,
            sum: Some(12.5),
            positive: Some(Buckets {
                offset: 0,
                bucket_counts: vec![1, 2, 3],
            }),
            ..ExponentialHistogramDataPoint::default()
        }],
        aggregation_temporality: AggregationTemporality::Cumulative.into(),
    };
    let gauge = Gauge {
        data_points: vec![point(t, -3)],
    };
    request(
        service,
        vec![
            metric("http.requests", "1", Data::Sum(counter)),
            metric("mem.used", "By", Data::Gauge(gauge)),
            metric("latency", "s", Data::ExponentialHistogram(native)),
        ],
    )
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(data).expect("in memory");
    out.finish().expect("in memory")
}

async fn instant(server: &Server, query: &str, t: i64) -> Value {
    let time = (t / S).to_string();
    let answer = server
        .json("metrics", "/api/v1/query", &[("query", query), ("time", &time)])
        .await;
    answer["data"]["result"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_transport_and_encoding() {
    let server = Server::start().await;
    let t = now_ns() / S * S - 60 * S;
    let protobuf = [("Content-Type", PROTOBUF)];
    let body = sample_request("http", t).encode_to_vec();
    let answer = server.post("otlp-http", "/v1/metrics", &protobuf, body).await;
    assert_eq!(answer.expect("an answer"), (200, String::new()));

    let zipped = [("Content-Type", PROTOBUF), ("Content-Encoding", "gzip")];
    let body = gzip(&sample_request("prom", t).encode_to_vec());
    let answer = server.post("metrics", "/api/v1/otlp/v1/metrics", &zipped, body).await;
    assert_eq!(answer.expect("an answer"), (200, String::new()));

    let mut grpc = MetricsServiceClient::connect(format!("http://{}", server.address("otlp-grpc")))
        .await
        .expect("connects")
        .send_compressed(tonic::codec::CompressionEncoding::Gzip);
    let answer = grpc
        .export(sample_request("grpc", t))
        .await
        .expect("taken")
        .into_inner();
    assert_eq!(answer, ExportMetricsServiceResponse::default());

    // The same as JSON.
    let point = json!({"timeUnixNano": t.to_string(), "asInt": "7", "attributes": [{"key": "http.route", "value": {"stringValue": "/a"}}]});
    let json = json!({"resourceMetrics": [{"resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "json"}},
        {"key": "host.name", "value": {"stringValue": "h1"}}]}, "scopeMetrics": [{"metrics": [
        {"name": "http.requests", "unit": "1", "sum": {"aggregationTemporality": 2, "isMonotonic": true, "dataPoints": [point]}},
        {"name": "mem.used", "unit": "By", "description": "Help.", "gauge": {"dataPoints": [{"timeUnixNano": t.to_string(), "asInt": -3,
            "attributes": [{"key": "http.route", "value": {"stringValue": "/a"}}]}]}},
        {"name": "latency", "unit": "s", "exponentialHistogram": {"aggregationTemporality": 2, "dataPoints": [{
            "timeUnixNano": t.to_string(), "count": 6, "sum": 12.5, "positive": {"bucketCounts": [1, 2, 3]}}]}}]}]}]});
    for (listener, path) in [("otlp-http", "/v1/metrics"), ("metrics", "/otlp/v1/metrics")] {
        let answer = server.post(listener, path, &JSON, json.to_string().into_bytes()).await;
        assert_eq!(answer.expect("an answer"), (200, "{}".to_owned()));
    }

    for flushed in [false, true] {
        if flushed {
            server.flush().await;
        }
        for job in ["http", "prom", "grpc", "json"] {
            let counter = instant(&server, &format!("http_requests_total{{job=\"{job}\"}}"), t).await;
            assert_eq!(
                counter[0]["metric"],
                json!({"__name__": "http_requests_total", "http_route": "/a", "job": job}),
                "flushed {flushed}"
            );
            assert_eq!(counter[0]["value"][1], "7");
            let gauge = instant(&server, &format!("mem_used_bytes{{job=\"{job}\"}}"), t).await;
            assert_eq!(gauge[0]["value"][1], "-3");
            let info = instant(&server, &format!("target_info{{job=\"{job}\"}}"), t).await;
            assert_eq!(
                info[0]["metric"],
                json!({"__name__": "target_info", "host_name": "h1", "job": job})
            );
            let native = instant(&server, &format!("latency_seconds{{job=\"{job}\"}}"), t).await;
            let histogram = &native[0]["histogram"][1];
            assert_eq!((&histogram["count"], &histogram["sum"]), (&json!("6"), &json!("12.5")));
            let count = instant(
                &server,
                &format!("histogram_count(latency_seconds{{job=\"{job}\"}})"),
                t,
            )
            .await;
            assert_eq!(count[0]["value"][1], "6");
            // OTLP's bucket 2 is (4, 8].
            let most = instant(
                &server,
                &format!("histogram_quantile(1, latency_seconds{{job=\"{job}\"}})"),
                t,
            )
            .await;
            assert_eq!(most[0]["value"][1], "8");
        }
    }
    let metadata = server.json("metrics", "/api/v1/metadata", &[]).await;
    assert_eq!(
        metadata["data"]["mem_used_bytes"],
        json!([{"type": "gauge", "help": "Help.", "unit": "bytes"}])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn deltas_run_up_and_a_restart_begins_anew() {
    let mut server = Server::start().await;
    let t = now_ns() / S * S - 600 * S;
    let send = |server: &Server, i: i64, value: i64| {
        let body = json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "jobs", "sum": {
            "aggregationTemporality": 1, "isMonotonic": true, "dataPoints": [{"asInt": value,
            "startTimeUnixNano": (t + (i - 1) * 60 * S).to_string(), "timeUnixNano": (t + i * 60 * S).to_string()}]}}]}]}]});
        let (url, client) = (server.url("metrics", "/api/v1/otlp/v1/metrics"), server.http.clone());
        async move {
            let request = client
                .post(url)
                .header("Content-Type", "application/json")
                .body(body.to_string());
            let response = request.send().await.expect("an answer");
            (response.status().as_u16(), response.text().await.expect("a body"))
        }
    };
    for (i, value) in [(1, 5), (2, 0), (3, 7)] {
        assert_eq!(send(&server, i, value).await, (200, "{}".to_owned()));
    }
    // A retry changes nothing; a late point is refused.
    assert_eq!(send(&server, 3, 7).await, (200, "{}".to_owned()));
    let (status, text) = send(&server, 2, 9).await;
    assert_eq!(status, 400, "{text}");
    assert!(text.starts_with("out of order: dropped sample from time="), "{text}");
    let value = async |server: &Server, i: i64| {
        let time = ((t + i * 60 * S) / S) as f64;
        server.promql("jobs_total", time).await[0].1[0].1
    };
    assert_eq!(value(&server, 3).await, 12.0);
    server.restart().await;
    assert_eq!(send(&server, 4, 2).await, (200, "{}".to_owned()));
    assert_eq!((value(&server, 3).await, value(&server, 4).await), (12.0, 2.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals() {
    let server = Server::start_with(Options::default().arg("--otlp.delta-temporality", "reject")).await;
    let t = now_ns();
    let metric = |temporality: i32, name: &str| json!({"name": name, "sum": {"aggregationTemporality": temporality, "dataPoints": [{"timeUnixNano": t.to_string(), "asInt": 1}]}});
    let body = |metrics: Value| {
        json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]})
            .to_string()
            .into_bytes()
    };
    let post = async |listener: &str, headers: &[(&str, &str)], body: Vec<u8>| {
        let path = if listener == "metrics" {
            "/api/v1/otlp/v1/metrics"
        } else {
            "/v1/metrics"
        };
        server.post(listener, path, headers, body).await.expect("an answer")
    };
    for listener in ["metrics", "otlp-http"] {
        // Some: 200, with the number of those that were not taken.
        let (status, text) = post(listener, &JSON, body(json!([metric(2, "good"), metric(1, "bad")]))).await;
        assert_eq!(status, 200, "{text}");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            answer,
            json!({"partialSuccess": {"rejectedDataPoints": "1",
                "errorMessage": "invalid temporality and type combination for metric \"bad\""}})
        );
        // All: 400.
        let (status, text) = post(listener, &JSON, body(json!([metric(1, "bad")]))).await;
        assert_eq!(status, 400, "{text}");
        assert!(text.contains("invalid temporality and type combination"), "{text}");
        let (status, _) = post(listener, &JSON, b"{".to_vec()).await;
        assert_eq!(status, 400);
        let (status, _) = post(listener, &[("Content-Type", PROTOBUF)], vec![0xff; 9]).await;
        assert_eq!(status, 400);
        let encoded = [("Content-Type", PROTOBUF), ("Content-Encoding", "br")];
        let (status, text) = post(listener, &encoded, vec![]).await;
        assert_eq!(status, 400);
        assert!(text.contains("unsupported compression: br."), "{text}");
    }
    let (status, text) = post("metrics", &[("Content-Type", "text/plain")], vec![]).await;
    assert_eq!(status, 400);
    assert_eq!(
        text,
        "unsupported content type: text/plain, supported: [application/json, application/x-protobuf]\n"
    );
    assert_eq!(
        post("otlp-http", &[("Content-Type", "text/plain")], vec![]).await.0,
        415
    );

    let mut grpc = MetricsServiceClient::connect(format!("http://{}", server.address("otlp-grpc")))
        .await
        .expect("connects");
    let delta = Sum {
        data_points: vec![point(t, 1)],
        aggregation_temporality: AggregationTemporality::Delta.into(),
        is_monotonic: true,
    };
    let gauge = Gauge {
        data_points: vec![point(t, 1)],
    };
    let both = request(
        "s",
        vec![
            metric_of("d", Data::Sum(delta.clone())),
            metric_of("g", Data::Gauge(gauge)),
        ],
    );
    let answer = grpc.export(both).await.expect("partly taken").into_inner();
    assert_eq!(answer.partial_success.expect("a count").rejected_data_points, 1);
    let status = grpc
        .export(request("s", vec![metric_of("d", Data::Sum(delta))]))
        .await
        .expect_err("nothing to store");
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
}

fn metric_of(name: &str, data: Data) -> Metric {
    metric(name, "", data)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_answers_with_a_retry_hint() {
    let limited = Options::default()
        .arg("--limits.ingest-rate", "1")
        .arg("--limits.ingest-burst", "10");
    let server = Server::start_with(limited).await;
    let body = sample_request("s", now_ns());
    for (listener, path) in [("metrics", "/api/v1/otlp/v1/metrics"), ("otlp-http", "/v1/metrics")] {
        let request = server
            .http
            .post(server.url(listener, path))
            .header("Content-Type", PROTOBUF);
        let response = request.body(body.encode_to_vec()).send().await.expect("an answer");
        assert_eq!(response.status(), 429);
        assert!(response.headers().contains_key("retry-after"));
    }
    let mut grpc = MetricsServiceClient::connect(format!("http://{}", server.address("otlp-grpc")))
        .await
        .expect("connects");
    let status = grpc.export(body).await.expect_err("limited");
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    assert!(!status.details().is_empty(), "the retry hint");
}
