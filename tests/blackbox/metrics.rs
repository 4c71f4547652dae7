//! Metrics end to end: remote write in, PromQL out.

use crate::harness::{Server, now_ns, series, write_request};

/// A counter that grows by one per second on two instances, and a gauge.
async fn seeded(server: &Server) -> i64 {
    let end_s = now_ns() / 1_000_000_000 / 60 * 60;
    let times: Vec<i64> = (0..=40).map(|i| (end_s - 600 + i * 15) * 1000).collect();
    let counter: Vec<(i64, f64)> = times.iter().map(|t| (*t, (*t / 1000 - end_s + 600) as f64)).collect();
    let gauge: Vec<(i64, f64)> = times.iter().map(|t| (*t, 0.5)).collect();
    let request = write_request(vec![
        series(
            &[("__name__", "requests_total"), ("instance", "a"), ("job", "web")],
            &counter,
        ),
        series(
            &[("__name__", "requests_total"), ("instance", "b"), ("job", "web")],
            &counter,
        ),
        series(&[("__name__", "load"), ("instance", "a")], &gauge),
    ]);
    let (status, body) = server.write(&request).await.expect("an answer");
    assert_eq!((status, body.as_str()), (204, ""));
    end_s
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_write_then_queries() {
    let server = Server::start().await;
    let end = seeded(&server).await as f64;

    for flushed in [false, true] {
        if flushed {
            server.flush().await;
        }
        let got = server.promql("sum by (job) (rate(requests_total[5m]))", end).await;
        assert_eq!(got.len(), 1, "flushed {flushed}");
        assert_eq!(got[0].0, serde_json::json!({"job": "web"}));
        // Extrapolation rounds.
        assert!(
            got[0].1[0].0 == end && (got[0].1[0].1 - 2.0).abs() < 1e-9,
            "{:?}",
            got[0].1
        );

        let got = server.promql("load{instance=~\"a|x\"} * 4", end).await;
        assert_eq!(got[0].1, [(end, 2.0)]);
        let got = server
            .promql_range("requests_total{instance=\"b\"}", end - 30.0, end, 15.0)
            .await;
        assert_eq!(got[0].1, [(end - 30.0, 570.0), (end - 15.0, 585.0), (end, 600.0)]);
        assert_eq!(server.promql("1+1", 4.0).await[0].1, [(4.0, 2.0)]);

        let names = server.json("metrics", "/api/v1/label/__name__/values", &[]).await;
        assert_eq!(names["data"], serde_json::json!(["load", "requests_total"]));
        let labels = server.json("metrics", "/api/v1/labels", &[("match[]", "load")]).await;
        assert_eq!(labels["data"], serde_json::json!(["__name__", "instance"]));
        let found = server
            .json(
                "metrics",
                "/api/v1/series",
                &[("match[]", "requests_total{instance=\"a\"}")],
            )
            .await;
        assert_eq!(
            found["data"],
            serde_json::json!([{"__name__": "requests_total", "instance": "a", "job": "web"}])
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn form_posts_and_errors_look_like_prometheus() {
    let server = Server::start().await;
    seeded(&server).await;
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let (status, body) = server
        .post("metrics", "/api/v1/query?time=4", &form, b"query=1%2B1".to_vec())
        .await
        .expect("an answer");
    assert_eq!(status, 200);
    assert_eq!(
        body,
        r#"{"status":"success","data":{"resultType":"scalar","result":[4,"2"]}}"#
    );

    let cases = [
        ("/api/v1/query", vec![], 400, "bad_data"),
        ("/api/v1/query", vec![("query", "sum(")], 400, "bad_data"),
        ("/api/v1/query", vec![("query", "up"), ("time", "x")], 400, "bad_data"),
        (
            "/api/v1/query_range",
            vec![("query", "up"), ("start", "2"), ("end", "1"), ("step", "1")],
            400,
            "bad_data",
        ),
        (
            "/api/v1/query_range",
            vec![("query", "up"), ("start", "0"), ("end", "1"), ("step", "0")],
            400,
            "bad_data",
        ),
        (
            "/api/v1/query_range",
            vec![("query", "up"), ("start", "0"), ("end", "11001"), ("step", "1")],
            400,
            "bad_data",
        ),
        (
            "/api/v1/query_range",
            vec![("query", "up[5m]"), ("start", "0"), ("end", "1"), ("step", "1")],
            400,
            "bad_data",
        ),
        ("/api/v1/series", vec![], 400, "bad_data"),
    ];
    for (path, params, want, kind) in cases {
        let (status, body) = server.get("metrics", path, &params).await;
        assert_eq!(status, want, "{path} {params:?}: {body}");
        let v: serde_json::Value = serde_json::from_str(&body).expect("an envelope");
        assert_eq!(
            (v["status"].as_str(), v["errorType"].as_str()),
            (Some("error"), Some(kind)),
            "{path} {params:?}"
        );
        assert!(v.get("data").is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_is_kept() {
    let mut server = Server::start().await;
    let mut request = write_request(vec![series(&[("__name__", "m_total")], &[(now_ns() / 1_000_000, 1.0)])]);
    request.metadata.push(trilith_proto::prometheus::MetricMetadata {
        r#type: 1,
        metric_family_name: "m_total".into(),
        help: "Counts.".into(),
        unit: String::new(),
    });
    assert_eq!(server.write(&request).await.expect("an answer").0, 204);
    let want = serde_json::json!({"m_total": [{"type": "counter", "help": "Counts.", "unit": ""}]});
    assert_eq!(server.json("metrics", "/api/v1/metadata", &[]).await["data"], want);
    server.restart().await;
    assert_eq!(
        server.json("metrics", "/api/v1/metadata", &[]).await["data"],
        want,
        "after a restart"
    );
    server.flush().await;
    server.restart().await;
    assert_eq!(
        server.json("metrics", "/api/v1/metadata", &[]).await["data"],
        want,
        "from a block"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn special_values_come_back_bit_exact() {
    let server = Server::start().await;
    let t = now_ns() / 1_000_000_000;
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    let values = [f64::INFINITY, f64::NEG_INFINITY, 5e-324, f64::MAX, f64::NAN, stale];
    let samples: Vec<(i64, f64)> = values
        .iter()
        .enumerate()
        .map(|(i, v)| ((t - 100 + i as i64) * 1000, *v))
        .collect();
    let request = write_request(vec![series(&[("__name__", "odd")], &samples)]);
    assert_eq!(server.write(&request).await.expect("an answer").0, 204);
    for flushed in [false, true] {
        if flushed {
            server.flush().await;
        }
        let v = server
            .json(
                "metrics",
                "/api/v1/query",
                &[("query", "odd[5m]"), ("time", &t.to_string())],
            )
            .await;
        let got: Vec<&str> = v["data"]["result"][0]["values"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|p| p[1].as_str())
            .collect();
        assert_eq!(
            got,
            ["+Inf", "-Inf", "5e-324", "1.7976931348623157e+308", "NaN"],
            "the marker ends the series and is not shown"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn own_metrics_page_is_valid() {
    let server = Server::start().await;
    seeded(&server).await;
    let (status, page) = server.get("metrics", "/metrics", &[]).await;
    assert_eq!(status, 200);
    assert!(page.contains("# TYPE trilith_wal_records_total counter"), "{page}");
    let documented = include_str!("../../docs/own-metrics.md");
    for family in page
        .lines()
        .filter_map(|l| l.strip_prefix("# TYPE "))
        .filter_map(|l| l.split(' ').next())
    {
        assert!(
            documented.contains(&format!("| `{family}` |")),
            "docs/own-metrics.md does not have {family}"
        );
    }
    let found = std::process::Command::new("promtool").arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped the linter: promtool is not installed");
        return;
    }
    let mut lint = std::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("promtool starts");
    std::io::Write::write_all(&mut lint.stdin.take().expect("piped"), page.as_bytes()).expect("promtool reads");
    let out = lint.wait_with_output().expect("promtool ends");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(
        out.stderr.is_empty() && out.stdout.is_empty(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn gzip_is_offered_and_nothing_else() {
    let server = Server::start().await;
    let url = server.url("metrics", "/api/v1/status/buildinfo");
    let answer = server
        .http
        .get(&url)
        .header("Accept-Encoding", "zstd, br")
        .send()
        .await
        .expect("an answer");
    assert!(answer.headers().get("content-encoding").is_none());
    let v: serde_json::Value = answer.json().await.expect("JSON");
    assert!(
        v["data"]["version"]
            .as_str()
            .is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit()))
    );
}
