//! The Prometheus API of the real program: settings, status pages, lifecycle, remote read, federation, load.

use std::time::Duration;

use prost::Message as _;
use serde_json::json;
use trilith_proto::prometheus;

use crate::harness::{Options, Server, now_ns, series, write_request};

/// `up` of two jobs, every 15 s of the last ten minutes. Returns the last time, s.
async fn seeded(server: &Server) -> i64 {
    let end_s = now_ns() / 1_000_000_000 / 15 * 15;
    let samples: Vec<(i64, f64)> = (0..40).map(|i| ((end_s - i * 15) * 1000, 1.0)).rev().collect();
    let request = write_request(vec![
        series(&[("__name__", "up"), ("job", "a")], &samples),
        series(&[("__name__", "up"), ("job", "b")], &samples),
    ]);
    assert_eq!(server.write(&request).await.expect("an answer").0, 204);
    end_s
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_and_status() {
    let options = Options::default()
        .arg("--query.lookback-delta", "1m")
        .arg("--promql.fill-modifiers", "false")
        .arg("--web.cors.origin", "https://a");
    let server = Server::start_with(options).await;
    let end = seeded(&server).await;
    let flags = server.json("metrics", "/api/v1/status/flags", &[]).await;
    assert_eq!(flags["data"]["query.lookback-delta"], "1m");
    assert_eq!(flags["data"]["query.timeout"], "2m");
    let yaml = server.json("metrics", "/api/v1/status/config", &[]).await;
    assert!(
        yaml["data"]["yaml"]
            .as_str()
            .is_some_and(|y| y.contains("query.lookback-delta: \"1m\"\n"))
    );
    let features = server.json("metrics", "/api/v1/features", &[]).await;
    assert_eq!(
        (
            &features["data"]["promql"]["fill"],
            &features["data"]["promql"]["anchored"]
        ),
        (&json!(false), &json!(true))
    );

    // The lookback is a minute.
    let count = |at: i64| {
        let server = &server;
        async move { server.promql("count(up)", at as f64).await.len() }
    };
    assert_eq!((count(end + 59).await, count(end + 61).await), (1, 0));
    let (status, _) = server
        .get("metrics", "/api/v1/query", &[("query", "up + fill(1) up")])
        .await;
    assert_eq!(status, 400);

    for flushed in [false, true] {
        if flushed {
            server.flush().await;
        }
        let tsdb = server.json("metrics", "/api/v1/status/tsdb", &[]).await;
        assert_eq!(tsdb["data"]["headStats"]["numSeries"], 2, "flushed {flushed}");
        assert_eq!(tsdb["data"]["headStats"]["maxTime"], end * 1000);
        assert_eq!(
            tsdb["data"]["seriesCountByMetricName"],
            json!([{"name": "up", "value": 2}])
        );
        assert_eq!(
            tsdb["data"]["labelValueCountByLabelName"][0],
            json!({"name": "job", "value": 2})
        );
        let blocks = server.json("metrics", "/api/v1/status/tsdb/blocks", &[]).await;
        assert_eq!(
            blocks["data"]["blocks"].as_array().is_some_and(|b| b.is_empty()),
            !flushed
        );
    }
    let runtime = server.json("metrics", "/api/v1/status/runtimeinfo", &[]).await;
    assert_eq!(runtime["data"]["storageRetention"], "15d");
    assert!(runtime["data"]["GOMAXPROCS"].as_u64().is_some_and(|n| n > 0));
    let name = [("metric_name_pattern", "trilith_build_info")];
    let own = server.json("metrics", "/api/v1/status/self_metrics", &name).await;
    assert_eq!(own["data"][0]["metric"][0]["gauge"]["value"], 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn lifecycle_needs_its_setting() {
    let server = Server::start().await;
    for path in ["/-/reload", "/-/quit"] {
        let answer = server
            .http
            .post(server.url("metrics", path))
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.status(), 403, "{path}");
    }
    let mut server = Server::start_with(Options::default().arg("--web.enable-lifecycle", "true")).await;
    let post = |path: &'static str| server.http.post(server.url("metrics", path)).send();
    assert_eq!(post("/-/reload").await.expect("an answer").status(), 200);
    let answer = post("/-/quit").await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let status = server.wait(Duration::from_secs(10)).await.expect("it ends");
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_read_and_federation() {
    let server = Server::start().await;
    let end = seeded(&server).await;
    let request = prometheus::ReadRequest {
        queries: vec![prometheus::Query {
            start_timestamp_ms: (end - 60) * 1000,
            end_timestamp_ms: end * 1000,
            matchers: vec![prometheus::LabelMatcher {
                r#type: 0,
                name: "job".into(),
                value: "b".into(),
            }],
            hints: None,
        }],
        accepted_response_types: vec![],
    };
    let body = snap::raw::Encoder::new()
        .compress_vec(&request.encode_to_vec())
        .expect("small");
    for flushed in [false, true] {
        if flushed {
            server.flush().await;
        }
        let answer = server
            .http
            .post(server.url("metrics", "/api/v1/read"))
            .body(body.clone())
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.status(), 200);
        let bytes = answer.bytes().await.expect("a body");
        let bytes = snap::raw::Decoder::new().decompress_vec(&bytes).expect("snappy");
        let response = prometheus::ReadResponse::decode(bytes.as_slice()).expect("a message");
        let found = &response.results[0].timeseries;
        assert_eq!((found.len(), found[0].samples.len()), (1, 5));
        let (status, page) = server.get("metrics", "/federate", &[("match[]", "up")]).await;
        assert_eq!(status, 200);
        let want = format!(
            "# TYPE up untyped\nup{{job=\"a\",instance=\"\"}} 1 {t}\nup{{job=\"b\",instance=\"\"}} 1 {t}\n",
            t = end * 1000
        );
        assert_eq!(page, want);
    }
}

/// Far more queries than slots: all are answered, with a result or with upstream's refusal.
#[tokio::test(flavor = "multi_thread")]
async fn many_queries_at_once() {
    let options = Options::default().arg("--query.max-concurrency", "2");
    let server = Server::start_with(options).await;
    let end = seeded(&server).await;
    let path = format!(
        "/api/v1/query_range?query=sum(rate(up[5m]))&start={}&end={end}&step=1&timeout=20s",
        end - 600
    );
    let url = server.url("metrics", &path);
    let answers = (0..200).map(|_| server.http.get(&url).send());
    let mut codes = std::collections::BTreeMap::new();
    for answer in futures_join(answers).await {
        *codes.entry(answer.expect("an answer").status().as_u16()).or_insert(0) += 1;
    }
    assert_eq!(codes.values().sum::<i32>(), 200);
    assert!(codes.keys().all(|c| matches!(c, 200 | 503)), "{codes:?}");
    assert!(codes.get(&200).is_some_and(|n| *n > 0), "{codes:?}");
}

async fn futures_join<F>(all: impl Iterator<Item = F>) -> Vec<F::Output>
where
    F: std::future::Future + Send + 'static,
    F::Output: Send + 'static,
{
    let tasks: Vec<_> = all.map(tokio::spawn).collect();
    let mut out = Vec::new();
    for task in tasks {
        out.push(task.await.expect("no panic"));
    }
    out
}
