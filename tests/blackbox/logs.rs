//! Logs end to end: pushes in every encoding, LogQL out.

use std::io::Write as _;

use serde_json::json;

use crate::harness::{Server, lines_of, now_ns, push_request, series_of, stream};

const S: i64 = 1_000_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn pushes_in_every_encoding_come_back_exact() {
    let server = Server::start().await;
    let base = now_ns() - 600 * S;
    let body = |enc: &str, i: i64| {
        json!({"streams": [{"stream": {"enc": enc}, "values": [
            [(base + i).to_string(), format!("plain {enc}")],
            [(base + i + 1).to_string(), "with \"quotes\" \\ <tag> \u{2028} é", {"trace_id": "t1"}],
        ]}]})
        .to_string()
        .into_bytes()
    };
    let gzip = |bytes: Vec<u8>| {
        let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        e.write_all(&bytes).expect("memory");
        e.finish().expect("memory")
    };
    let json_type = ("Content-Type", "application/json");
    let path = "/loki/api/v1/push";
    let got = server
        .post("logs", path, &[json_type], body("json", 0))
        .await
        .expect("an answer");
    assert_eq!(got, (204, String::new()));
    let headers = [json_type, ("Content-Encoding", "gzip")];
    assert_eq!(
        server
            .post("logs", path, &headers, gzip(body("gzip", 10)))
            .await
            .expect("an answer")
            .0,
        204
    );
    let pb = push_request(vec![stream(
        r#"{enc="pb"}"#,
        &[(base + 20, "plain pb"), (base + 21, "\u{0}\n\t")],
    )]);
    assert_eq!(server.push(&pb).await.expect("an answer").0, 204);

    for flushed in [false, true] {
        if flushed {
            server.flush().await;
        }
        for (enc, second) in [
            ("json", "with \"quotes\" \\ <tag> \u{2028} é"),
            ("gzip", "with \"quotes\" \\ <tag> \u{2028} é"),
            ("pb", "\u{0}\n\t"),
        ] {
            let query = format!("{{enc=\"{enc}\"}}");
            let lines: Vec<String> = server
                .all_lines(&query, base, base + S)
                .await
                .into_iter()
                .map(|(_, l)| l)
                .collect();
            assert_eq!(lines, [format!("plain {enc}"), second.to_owned()], "flushed {flushed}");
        }
    }
    let v = server
        .json("logs", "/loki/api/v1/labels", &[("start", &base.to_string())])
        .await;
    assert!(v["data"].as_array().expect("a list").contains(&json!("enc")));
    let v = server
        .json("logs", "/loki/api/v1/label/enc/values", &[("start", &base.to_string())])
        .await;
    assert_eq!(v["data"], json!(["gzip", "json", "pb"]));
    let v = server
        .json(
            "logs",
            "/loki/api/v1/series",
            &[("match[]", "{enc=\"pb\"}"), ("start", &base.to_string())],
        )
        .await;
    assert_eq!(v["data"].as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_counts_limit_and_direction() {
    let server = Server::start().await;
    let base = (now_ns() / S - 600) * S;
    let lines: Vec<(i64, String)> = (0..100)
        .map(|i| {
            (
                base + i * S,
                format!("level={} n={i}", if i % 4 == 0 { "error" } else { "info" }),
            )
        })
        .collect();
    let entries: Vec<(i64, &str)> = lines.iter().map(|(t, l)| (*t, l.as_str())).collect();
    let request = push_request(vec![stream(r#"{app="x"}"#, &entries)]);
    assert_eq!(server.push(&request).await.expect("an answer").0, 204);
    let (start, end) = (base.to_string(), (base + 100 * S).to_string());

    for flushed in [false, true] {
        if flushed {
            server.flush().await;
        }
        let range = |q: &'static str, direction: &'static str, limit: &'static str| {
            let params = [
                ("query", q),
                ("start", &*start),
                ("end", &*end),
                ("direction", direction),
                ("limit", limit),
            ];
            let params: Vec<(String, String)> =
                params.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            let server = &server;
            async move {
                let params: Vec<(&str, &str)> = params.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                lines_of(&server.json("logs", "/loki/api/v1/query_range", &params).await)
            }
        };
        let newest = range("{app=\"x\"}", "backward", "3").await;
        assert_eq!(
            newest.iter().map(|(t, _)| (t - base) / S).collect::<Vec<_>>(),
            [99, 98, 97]
        );
        let oldest = range("{app=\"x\"} |= \"error\"", "forward", "3").await;
        assert_eq!(
            oldest.iter().map(|(t, _)| (t - base) / S).collect::<Vec<_>>(),
            [0, 4, 8]
        );
        assert_eq!(
            range("{app=\"x\"} |~ \"n=9[0-4]$\" != \"error\"", "forward", "100")
                .await
                .len(),
            4
        );
        assert_eq!(range("{app=~\".+\"} !~ \"info\"", "forward", "100").await.len(), 25);

        let params = [
            (
                "query",
                "sum by (app) (count_over_time({app=\"x\"} |= \"error\" [100s]))",
            ),
            ("time", &*end),
        ];
        let v = server.json("logs", "/loki/api/v1/query", &params).await;
        let got = series_of(&v);
        assert_eq!(
            (&got[0].0, got[0].1[0].1),
            (&json!({"app": "x"}), 24.0),
            "the window is open at its start"
        );
        let params = [
            ("query", "rate({app=\"x\"}[10s])"),
            ("start", &*start),
            ("end", &*end),
            ("step", "10"),
        ];
        let v = server.json("logs", "/loki/api/v1/query_range", &params).await;
        assert_eq!(v["data"]["resultType"], "matrix");
        assert!(series_of(&v)[0].1.iter().any(|(_, x)| *x == 1.0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_are_kept_once_and_equal_times_in_order() {
    let server = Server::start().await;
    let t = now_ns() - 60 * S;
    let request = push_request(vec![stream(r#"{app="d"}"#, &[(t, "b"), (t, "a"), (t, "c"), (t, "a")])]);
    for _ in 0..2 {
        // The second push is a client's retry after a lost answer.
        assert_eq!(server.push(&request).await.expect("an answer").0, 204);
    }
    for flushed in [false, true] {
        if flushed {
            server.flush().await;
            assert_eq!(server.push(&request).await.expect("an answer").0, 204);
        }
        for (direction, want) in [("forward", ["b", "a", "c"]), ("backward", ["c", "a", "b"])] {
            let (start, end) = (t.to_string(), (t + 1).to_string());
            let params = [
                ("query", "{app=\"d\"}"),
                ("start", &*start),
                ("end", &*end),
                ("direction", direction),
            ];
            let v = server.json("logs", "/loki/api/v1/query_range", &params).await;
            let got: Vec<String> = lines_of(&v).into_iter().map(|(_, l)| l).collect();
            assert_eq!(got, want, "flushed {flushed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grafana_health_check_and_errors() {
    let server = Server::start().await;
    let params = [
        ("query", "vector(1)+vector(1)"),
        ("time", "4000000000"),
        ("direction", "backward"),
    ];
    let v = server.json("logs", "/loki/api/v1/query", &params).await;
    assert_eq!(v["data"]["resultType"], "vector");
    assert_eq!(v["data"]["result"][0]["value"][1], "2");
    let cases = [
        (
            "/loki/api/v1/query_range",
            vec![("query", "{app=")],
            "parse error at line 1, col",
        ),
        ("/loki/api/v1/query_range", vec![("query", "{}")], "at least one"),
        (
            "/loki/api/v1/query_range",
            vec![("query", "{a=\"b\"}"), ("limit", "0")],
            "limit must be a positive value",
        ),
        (
            "/loki/api/v1/query_range",
            vec![("query", "{a=\"b\"}"), ("start", "x")],
            "could not parse 'start' parameter",
        ),
        (
            "/loki/api/v1/query_range",
            vec![("query", "{a=\"b\"}"), ("direction", "up")],
            "invalid direction 'up'",
        ),
        (
            "/loki/api/v1/query_range",
            vec![("query", "{a=\"b\"}"), ("limit", "5001")],
            "max entries limit per query exceeded",
        ),
        (
            "/loki/api/v1/query",
            vec![("query", "{a=\"b\"}")],
            "log queries are not supported as an instant query type",
        ),
    ];
    for (path, params, want) in cases {
        let (status, body) = server.get("logs", path, &params).await;
        assert_eq!(status, 400, "{params:?}: {body}");
        assert!(body.contains(want), "{params:?}: {body}");
    }
}
