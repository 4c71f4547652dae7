//! The API over a store in memory.

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use trilith_ingest::RateLimiter;
use trilith_ingest::otlp_metrics::DeltaTotals;
use trilith_model::{Labels, MetricMetadata, MetricSink as _, MetricType, Result, StaticLimits, TenantId};
use trilith_testkit::{MemorySeries, SimClock};

use super::*;

/// The clock of all tests stands here.
pub(super) const NOW_MS: i64 = 1_000_000;

struct Facts;

#[async_trait]
impl System for Facts {
    fn flags(&self) -> Vec<(String, String)> {
        vec![("query.lookback-delta".into(), "5m".into())]
    }
    fn config_yaml(&self) -> String {
        "data-dir: x\n".into()
    }
    fn runtime(&self) -> RuntimeInfo {
        RuntimeInfo {
            retention: std::time::Duration::from_secs(15 * 86_400),
            ..RuntimeInfo::default()
        }
    }
    fn wal_replay(&self) -> WalReplay {
        WalReplay {
            min: 1,
            max: 3,
            current: 3,
        }
    }
    fn own_metrics(&self) -> Vec<OwnFamily> {
        ["a_total", "b"]
            .map(|name| OwnFamily {
                name: name.into(),
                ..OwnFamily::default()
            })
            .into()
    }
    async fn cardinality(&self, _: &trilith_query::QueryContext, top: usize) -> Result<Cardinality> {
        Ok(Cardinality {
            series: 2,
            series_by_metric: vec![("up".into(), 2); top.min(1)],
            ..Cardinality::default()
        })
    }
    fn blocks(&self, _: &TenantId) -> Vec<BlockInfo> {
        vec![BlockInfo::default()]
    }
}

pub(super) struct Api {
    router: Router,
    pub(super) store: Arc<MemorySeries>,
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The data of a success.
    pub(super) fn data(&self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        let mut doc = self.json();
        assert_eq!(doc["status"], "success");
        doc["data"].take()
    }

    /// (status, errorType, error)
    pub(super) fn error(&self) -> (u16, String, String) {
        let doc = self.json();
        assert!(doc.get("data").is_none() && doc["status"] == "error", "{doc}");
        let text = |k: &str| doc[k].as_str().expect("text").to_owned();
        (self.status.as_u16(), text("errorType"), text("error"))
    }
}

impl Api {
    pub(super) fn new() -> Api {
        Api::with(Options::default())
    }

    pub(super) fn with(options: Options) -> Api {
        let clock = SimClock::new(NOW_MS * 1_000_000);
        let store = MemorySeries::new();
        let shared = Shared {
            clock: clock.clone(),
            limits: Arc::new(StaticLimits::default()),
            memory: trilith_query::MemoryBudget::new(0),
            multi_tenancy: false,
            shutdown: CancellationToken::new(),
        };
        let rates = Arc::new(RateLimiter::new(clock.clone()));
        let otlp = MetricsReceiver {
            shared: shared.clone(),
            sink: store.clone(),
            rates: rates.clone(),
            totals: Arc::new(DeltaTotals::new(clock)),
        };
        let prom = Prom::new(
            shared,
            store.clone(),
            store.clone(),
            rates,
            otlp,
            options,
            Arc::new(Facts),
        );
        Api {
            router: router(prom),
            store,
        }
    }

    pub(super) fn up(self) -> Api {
        for (job, value) in [("a", 1.0), ("b", 0.0)] {
            let labels = Labels::from_pairs([("__name__", "up"), ("job", job)]);
            let times = (0..=10).map(|i| (NOW_MS - 600_000 + i * 60_000, value));
            self.store.push(&TenantId::anonymous(), labels, times);
        }
        self
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.expect("a whole body").to_bytes().into(),
        }
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).expect("valid")).await
    }

    pub(super) async fn form(&self, path: &str, form: &str) -> Answer {
        let request = Request::post(path)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(form.to_owned()))
            .expect("valid");
        self.send(request).await
    }
}

#[tokio::test]
async fn queries_merge_url_and_form() {
    let api = Api::new().up();
    let vector = api
        .form("/api/v1/query?time=1000", "query=up%7Bjob%3D%22a%22%7D")
        .await
        .data();
    assert_eq!(
        vector,
        json!({"resultType": "vector", "result": [{"metric": {"__name__": "up", "job": "a"}, "value": [1000, "1"]}]})
    );
    let now = api.get("/api/v1/query?query=1%2B1").await.data();
    assert_eq!(now, json!({"resultType": "scalar", "result": [1000, "2"]}));
    let matrix = api
        .form("/api/v1/query_range?start=880&end=1000", "query=up&step=1m")
        .await
        .data();
    assert_eq!(matrix["result"].as_array().map(Vec::len), Some(2));
    assert_eq!(
        matrix["result"][1]["values"],
        json!([[880, "0"], [940, "0"], [1000, "0"]])
    );
}

#[tokio::test]
async fn limit_lookback_and_stats() {
    let api = Api::new().up();
    let doc = api.get("/api/v1/query?query=up&limit=1").await.json();
    assert_eq!(doc["data"]["result"].as_array().map(Vec::len), Some(1));
    assert_eq!(doc["warnings"], json!(["results truncated due to limit"]));
    let doc = api.get("/api/v1/query?query=up&limit=2").await.json();
    assert!(doc.get("warnings").is_none());

    assert_eq!(
        api.get("/api/v1/query?query=up&time=1120").await.data()["result"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    let narrow = api
        .get("/api/v1/query?query=up&time=1120&lookback_delta=1m")
        .await
        .data();
    assert_eq!(narrow["result"], json!([]));

    let path = "/api/v1/query_range?query=up&start=940&end=1000&step=30";
    assert!(api.get(path).await.data().get("stats").is_none());
    let samples = api.get(&format!("{path}&stats=all")).await.data()["stats"]["samples"].take();
    assert_eq!(samples["totalQueryableSamples"], 6);
    assert_eq!(samples["samplesRead"], 6);
    assert_eq!(
        samples["totalQueryableSamplesPerStep"],
        json!([[940, 2], [970, 2], [1000, 2]])
    );
    let path = "/api/v1/query_range?query=sum_over_time(up[2m])&start=940&end=1000&step=60";
    let stats = api.get(&format!("{path}&stats=true")).await.data()["stats"].take();
    assert_eq!(stats["samples"]["totalQueryableSamples"], 8);
    assert_eq!(stats["samples"]["samplesRead"], 6);
    assert!(stats["samples"].get("samplesReadPerStep").is_none());
    assert_eq!(stats["timings"].as_object().map(serde_json::Map::len), Some(6));
    // What a subquery reads inside is not counted, what is read of its result is.
    let path = "/api/v1/query?query=max_over_time(up[2m:30s])&stats=true";
    assert_eq!(
        api.get(path).await.data()["stats"]["samples"]["totalQueryableSamples"],
        8
    );
    let doc = api.get("/api/v1/query?query=1&stats=yes").await.json();
    assert!(doc["warnings"][0].as_str().is_some_and(|w| w.contains("deprecated")));
}

#[tokio::test]
async fn parameter_errors() {
    let api = Api::new().up();
    for (path, code, kind, text) in [
        ("query?query=sum((", 400, "bad_data", "invalid parameter \"query\": "),
        (
            "query?query=up&time=x",
            400,
            "bad_data",
            "invalid parameter \"time\": invalid time value for 'time': cannot parse \"x\" to a valid timestamp",
        ),
        (
            "query?query=up&timeout=x",
            400,
            "bad_data",
            "invalid parameter \"timeout\": cannot parse \"x\" to a valid duration",
        ),
        (
            "query?query=up&limit=-1",
            400,
            "bad_data",
            "invalid parameter \"limit\": limit must be non-negative",
        ),
        (
            "query?query=up&lookback_delta=x",
            400,
            "bad_data",
            "error parsing lookback delta duration: cannot parse \"x\" to a valid duration",
        ),
        (
            "query_range?query=up&start=1&end=2",
            400,
            "bad_data",
            "invalid parameter \"step\": cannot parse \"\" to a valid duration",
        ),
        (
            "query_range?query=up&start=3&end=2&step=1",
            400,
            "bad_data",
            "invalid parameter \"end\": end timestamp must not be before start time",
        ),
        (
            "query_range?query=up&start=1&end=2&step=0",
            400,
            "bad_data",
            "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer",
        ),
        (
            "query_range?query=up&start=0&end=11001&step=1",
            400,
            "bad_data",
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
        ),
        (
            "query_range?query=up[1m]&start=1&end=2&step=1",
            400,
            "bad_data",
            "invalid parameter \"query\": invalid expression type \"range vector\" for range query, must be Scalar or instant Vector",
        ),
        (
            "query?query=label_replace(up,\"job\",\"x\",\"\",\"\")",
            422,
            "execution",
            "vector cannot contain metrics with the same labelset",
        ),
        ("series", 400, "bad_data", "no match[] parameter provided"),
        (
            "series?match[]=sum(",
            400,
            "bad_data",
            "invalid parameter \"match[]\": ",
        ),
        ("labels?match[]={x=~\".*\"}", 400, "bad_data", ""),
        (
            "labels?start=x",
            400,
            "bad_data",
            "invalid parameter \"start\": invalid time value for 'start': cannot parse \"x\" to a valid timestamp",
        ),
        (
            "label/%ff/values",
            400,
            "bad_data",
            "invalid label name: not valid UTF-8",
        ),
        ("label/U__/values", 400, "bad_data", "invalid label name: \"\""),
        (
            "query_exemplars?query=up&start=2&end=1",
            400,
            "bad_data",
            "end timestamp must not be before start timestamp",
        ),
        ("metadata?limit=x", 400, "bad_data", "limit must be a number"),
        (
            "rules?type=x",
            400,
            "bad_data",
            "invalid parameter \"type\": not supported value \"x\"",
        ),
        (
            "rules?group_next_token=x",
            400,
            "bad_data",
            "invalid parameter \"group_next_token\": group_limit needs to be present in order to paginate over the groups",
        ),
        (
            "rules?group_limit=0",
            400,
            "bad_data",
            "invalid parameter \"group_limit\": group_limit needs to be greater than 0",
        ),
        (
            "rules?exclude_alerts=x",
            400,
            "bad_data",
            "invalid parameter \"exclude_alerts\": error converting exclude_alerts: ",
        ),
        (
            "scrape_pools/config",
            400,
            "bad_data",
            "no scrapePool parameter provided",
        ),
        (
            "targets/relabel_steps?scrapePool=a",
            400,
            "bad_data",
            "no labels parameter provided",
        ),
        ("targets/metadata?limit=x", 400, "bad_data", "limit must be a number"),
        (
            "status/tsdb?limit=0",
            400,
            "bad_data",
            "limit must be a positive number",
        ),
        (
            "status/tsdb?limit=10001",
            400,
            "bad_data",
            "limit must not exceed 10000",
        ),
        (
            "status/self_metrics?metric_name_pattern=(",
            400,
            "bad_data",
            "invalid metric_name_pattern: ",
        ),
    ] {
        let escaped = path.replace('{', "%7B").replace('}', "%7D").replace('"', "%22");
        let (got_code, got_kind, got_text) = api.get(&format!("/api/v1/{escaped}")).await.error();
        assert_eq!((got_code, got_kind.as_str()), (code, kind), "{path}");
        assert!(got_text.starts_with(text), "{path}: {got_text}");
    }
}

#[tokio::test]
async fn labels_and_series() {
    let api = Api::new().up();
    let odd = Labels::from_pairs([("__name__", "up"), ("a.b", "é")]);
    api.store.push(&TenantId::anonymous(), odd, [(NOW_MS, 1.0)]);
    assert_eq!(
        api.get("/api/v1/labels").await.data(),
        json!(["__name__", "a.b", "job"])
    );
    for name in ["U__a_2e_b", "a.b", "a%2Eb"] {
        assert_eq!(
            api.get(&format!("/api/v1/label/{name}/values")).await.data(),
            json!(["é"])
        );
    }
    let path = "/api/v1/label/job/values?match%5B%5D=up&limit=1";
    for answer in [api.get(path).await, api.form(path, "").await] {
        assert_eq!(answer.json()["warnings"], json!(["results truncated due to limit"]));
        assert_eq!(answer.data(), json!(["a"]));
    }
    let series = api
        .form("/api/v1/series", "match[]=up{job=\"b\"}&match[]=none")
        .await
        .data();
    assert_eq!(series, json!([{"__name__": "up", "job": "b"}]));
    // An inverted range holds nothing; it is no error.
    assert_eq!(api.get("/api/v1/labels?start=2&end=1").await.data(), json!([]));
}

#[tokio::test]
async fn metadata_and_exemplars() {
    let api = Api::new().up();
    let entry = |family: &str, help: &str| MetricMetadata {
        family: family.into(),
        kind: MetricType::Counter,
        help: help.into(),
        unit: String::new(),
    };
    let mut batch = trilith_model::MetricBatch::default();
    batch.metadata = vec![entry("a", "1"), entry("a", "2"), entry("b", "3")];
    api.store
        .append(&TenantId::anonymous(), batch)
        .await
        .expect("memory takes all");
    let all = api.get("/api/v1/metadata").await.data();
    assert_eq!(all["b"], json!([{"type": "counter", "help": "3", "unit": ""}]));
    let cut = api.get("/api/v1/metadata?limit=1&limit_per_metric=1").await.data();
    assert_eq!(cut, json!({"a": [{"type": "counter", "help": "1", "unit": ""}]}));
    for query in ["up", "1%2B1"] {
        let path = format!("/api/v1/query_exemplars?query={query}&start=1735686000000&end=1735689600000");
        assert_eq!(api.get(&path).await.data(), json!([]));
    }
}

#[tokio::test]
async fn queries_as_text_and_tree() {
    let api = Api::new();
    for answer in [
        api.get("/api/v1/format_query?query=sum%28a%29by%28b%29").await,
        api.form("/api/v1/format_query", "query=sum(a)by(b)").await,
    ] {
        assert_eq!(answer.data(), "sum by (b) (a)");
    }
    let tree = api.form("/api/v1/parse_query", "query=a%2B1").await.data();
    assert_eq!((&tree["type"], &tree["op"]), (&json!("binaryExpr"), &json!("+")));
    for path in ["/api/v1/format_query?query=sum(", "/api/v1/parse_query"] {
        let (code, kind, text) = api.get(path).await.error();
        assert_eq!((code, kind.as_str()), (400, "bad_data"));
        assert!(text.starts_with("invalid parameter \"query\": "), "{text}");
    }
}

#[tokio::test]
async fn searches() {
    let api = Api::new();
    for name in ["http_requests_total", "http_errors_total", "up"] {
        let labels = Labels::from_pairs([("__name__", name), ("job", "web")]);
        api.store.push(&TenantId::anonymous(), labels, [(NOW_MS - 1000, 1.0)]);
    }
    let lines = |answer: Answer| -> Vec<Value> {
        assert_eq!(answer.status, 200);
        let text = String::from_utf8(answer.body).expect("text");
        text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect()
    };
    let got = lines(
        api.get("/api/v1/search/metric_names?search[]=errors&sort_by=score&include_score=true")
            .await,
    );
    assert_eq!(got[0]["results"][0]["name"], "http_errors_total");
    assert!(
        got[0]["results"][0]["score"]
            .as_f64()
            .is_some_and(|s| s > 0.5 && s < 1.0)
    );
    assert_eq!(got[1], json!({"status": "success", "has_more": false}));
    let got = lines(
        api.form(
            "/api/v1/search/metric_names",
            "limit=2&batch_size=1&sort_by=alpha&sort_dir=dsc",
        )
        .await,
    );
    assert_eq!(got.len(), 3);
    assert_eq!(
        (&got[0]["results"][0]["name"], &got[2]["has_more"]),
        (&json!("up"), &json!(true))
    );
    let got = lines(api.get("/api/v1/search/label_values?label=job&search[]=nothing").await);
    assert_eq!(
        got,
        [json!({"results": []}), json!({"status": "success", "has_more": false})]
    );
    let got = lines(api.get("/api/v1/search/label_names?search[]=jo").await);
    assert_eq!(got[0], json!({"results": [{"name": "job"}]}));
    for (query, text) in [
        ("label_values", "missing required parameter \"label\""),
        (
            "label_names?sort_by=x",
            "invalid sort_by \"x\" for label_names: must be \"alpha\" or \"score\"",
        ),
        ("label_names?sort_by=score", "sort_by=score requires search[] to be set"),
        (
            "label_names?fuzz_threshold=101",
            "invalid fuzz_threshold \"101\": must be 0-100",
        ),
        ("label_names?limit=0", "invalid limit \"0\": must be a positive integer"),
    ] {
        let (code, kind, got) = api.get(&format!("/api/v1/search/{query}")).await.error();
        assert_eq!((code, kind.as_str(), got.as_str()), (400, "bad_data", text));
    }
}

#[tokio::test]
async fn empty_lists_have_their_shapes() {
    let api = Api::new();
    for (path, data) in [
        (
            "targets",
            json!({"activeTargets": [], "droppedTargets": [], "droppedTargetCounts": {}}),
        ),
        ("targets/metadata", json!([])),
        ("scrape_pools", json!({"scrapePools": []})),
        (
            "alertmanagers",
            json!({"activeAlertmanagers": [], "droppedAlertmanagers": []}),
        ),
        ("rules?type=alert&rule_name[]=x&group_limit=3", json!({"groups": []})),
        ("alerts", json!({"alerts": []})),
        ("notifications", json!([])),
        ("status/config", json!({"yaml": "data-dir: x\n"})),
        ("status/flags", json!({"query.lookback-delta": "5m"})),
        ("status/walreplay", json!({"min": 1, "max": 3, "current": 3})),
    ] {
        assert_eq!(api.get(&format!("/api/v1/{path}")).await.data(), data, "{path}");
    }
    let tsdb = api.get("/api/v1/status/tsdb").await.data();
    assert_eq!(
        (&tsdb["headStats"]["numSeries"], &tsdb["seriesCountByMetricName"]),
        (&json!(2), &json!([{"name": "up", "value": 2}]))
    );
    assert_eq!(
        api.get("/api/v1/status/runtimeinfo").await.data()["storageRetention"],
        "15d"
    );
    let own = api
        .get("/api/v1/status/self_metrics?metric_name_pattern=a.*")
        .await
        .data();
    assert_eq!(own.as_array().map(Vec::len), Some(1));
    let features = api.get("/api/v1/features").await.data();
    assert!(
        features.as_object().expect("categories").values().all(|c| c
            .as_object()
            .expect("a category")
            .values()
            .all(Value::is_boolean))
    );
    let version = api.get("/version").await.json();
    assert_eq!(
        version["version"],
        api.get("/api/v1/status/buildinfo").await.data()["version"]
    );
}

#[tokio::test]
async fn the_edge() {
    let api = Api::new();
    let answer = api.get("/api/v1/nothing").await;
    assert_eq!(
        (answer.status.as_u16(), answer.body.as_slice()),
        (404, b"404 page not found\n".as_slice())
    );
    let answer = api.form("/api/v1/rules", "").await;
    assert_eq!(
        (answer.status.as_u16(), answer.body.as_slice()),
        (405, b"Method Not Allowed\n".as_slice())
    );
    for path in ["/api/v1/query", "/api/v1/write", "/api/v1/nothing/at/all"] {
        let request = Request::options(path)
            .header("origin", "https://x")
            .body(Body::empty())
            .expect("valid");
        let answer = api.send(request).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0), "{path}");
        let header = |n: &str| answer.headers.get(n).map(|v| v.to_str().expect("text").to_owned());
        assert_eq!(header("access-control-allow-origin").as_deref(), Some("*"));
        assert_eq!(
            header("access-control-allow-methods").as_deref(),
            Some("GET, POST, OPTIONS")
        );
        assert_eq!(header("vary").as_deref(), Some("Origin"));
    }
    let picky = Api::with(Options {
        cors_origin: Some(trilith_model::Matcher::new(trilith_model::MatchOp::Re, "", "https://(a|b)").expect("valid")),
        ..Options::default()
    });
    for (origin, allowed) in [("https://a", true), ("https://c", false)] {
        let request = Request::get("/api/v1/alerts")
            .header("origin", origin)
            .body(Body::empty())
            .expect("valid");
        let answer = picky.send(request).await;
        assert_eq!(answer.headers.get("access-control-allow-origin").is_some(), allowed);
    }
    let request = Request::get("/api/v1/query?query=1")
        .header("accept", "text/html")
        .body(Body::empty())
        .expect("valid");
    assert_eq!(api.send(request).await.error().0, 406);
}

#[tokio::test]
async fn a_query_that_finds_no_slot_times_out() {
    let api = Api::with(Options {
        queries_max: 1,
        ..Options::default()
    });
    let request = Request::get("/api/v1/notifications/live")
        .body(Body::empty())
        .expect("valid");
    let live = api.router.clone().oneshot(request).await.expect("infallible");
    assert_eq!(live.headers()["content-type"], "text/event-stream");
}
