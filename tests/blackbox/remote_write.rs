//! Remote write 2.0 and native histograms, from outside.

use prost::Message as _;
use serde_json::json;
use trilith_proto::prometheus::{self, v2};

use crate::harness::{Server, now_ns, snappy};

const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

/// Status, the three counts, body.
async fn post(server: &Server, content_type: &str, encoding: &str, body: Vec<u8>) -> (u16, Option<[u64; 3]>, String) {
    let request = server.http.post(server.url("metrics", "/api/v1/write"));
    let request = request
        .header("Content-Type", content_type)
        .header("Content-Encoding", encoding);
    let response = request.body(body).send().await.expect("an answer");
    let count = |what: &str| {
        let value = response
            .headers()
            .get(format!("x-prometheus-remote-write-{what}-written"))?;
        value.to_str().ok()?.parse().ok()
    };
    let counts = ["samples", "histograms", "exemplars"].map(count);
    let counts = match counts {
        [Some(s), Some(h), Some(e)] => Some([s, h, e]),
        [None, None, None] => None,
        other => panic!("all three or none: {other:?}"),
    };
    (
        response.status().as_u16(),
        counts,
        response.text().await.expect("a body"),
    )
}

struct Request {
    symbols: Vec<String>,
    timeseries: Vec<v2::TimeSeries>,
}

impl Request {
    fn new() -> Self {
        Request {
            symbols: vec![String::new()],
            timeseries: Vec::new(),
        }
    }

    fn symbol(&mut self, text: &str) -> u32 {
        let known = self.symbols.iter().position(|s| s == text);
        known.unwrap_or_else(|| {
            self.symbols.push(text.into());
            self.symbols.len() - 1
        }) as u32
    }

    fn series(&mut self, labels: &[(&str, &str)]) -> &mut v2::TimeSeries {
        let labels_refs = labels
            .iter()
            .flat_map(|(n, v)| [self.symbol(n), self.symbol(v)])
            .collect();
        self.timeseries.push(v2::TimeSeries {
            labels_refs,
            ..Default::default()
        });
        self.timeseries.last_mut().expect("just pushed")
    }

    fn body(self) -> Vec<u8> {
        let Request { symbols, timeseries } = self;
        snappy(&v2::Request { symbols, timeseries }.encode_to_vec())
    }
}

fn sample(timestamp: i64, value: f64) -> v2::Sample {
    v2::Sample {
        value,
        timestamp,
        start_timestamp: 0,
    }
}

fn histogram(timestamp: i64, count: u64) -> v2::Histogram {
    v2::Histogram {
        count: Some(v2::histogram::Count::CountInt(count)),
        sum: 5.0,
        positive_spans: vec![v2::BucketSpan { offset: 0, length: 2 }],
        positive_deltas: vec![1, 1],
        timestamp,
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_point_zero_is_stored_and_counted() {
    let server = Server::start().await;
    let now = now_ns() / 1_000_000_000;
    let ms = now * 1000;
    let body = || {
        let mut r = Request::new();
        let (trace, id) = (r.symbol("trace_id"), r.symbol("abc"));
        let help = r.symbol("Requests served.");
        let s = r.series(&[("__name__", "requests_total"), ("job", "x")]);
        s.samples = vec![sample(ms - 10_000, 1.0), sample(ms, 2.0)];
        s.exemplars = vec![v2::Exemplar {
            labels_refs: vec![trace, id],
            value: 0.5,
            timestamp: ms,
        }];
        s.metadata = Some(v2::Metadata {
            r#type: 1,
            help_ref: help,
            unit_ref: 0,
        });
        let h = r.series(&[("__name__", "latency"), ("job", "x")]);
        h.histograms = vec![histogram(ms, 3)];
        r.body()
    };
    // A repetition, as after a lost answer, gets the same one.
    for round in 0..2 {
        let answer = post(&server, V2, "snappy", body()).await;
        assert_eq!(answer, (204, Some([2, 1, 1]), String::new()), "round {round}");
    }
    for flushed in [false, true] {
        if flushed {
            server.flush().await;
        }
        assert_eq!(
            server.promql("requests_total", now as f64).await[0].1,
            [(now as f64, 2.0)]
        );
        let got = server.promql("histogram_count(latency)", now as f64).await;
        assert_eq!(got[0].1, [(now as f64, 3.0)]);
        let metadata = server.json("metrics", "/api/v1/metadata", &[]).await;
        assert_eq!(
            metadata["data"]["requests_total"],
            json!([{"type": "counter", "help": "Requests served.", "unit": ""}])
        );
        let (start, end) = ((now - 60).to_string(), (now + 1).to_string());
        let params = [("query", "requests_total"), ("start", &*start), ("end", &*end)];
        let exemplars = server.json("metrics", "/api/v1/query_exemplars", &params).await;
        assert_eq!(
            exemplars["data"][0]["exemplars"][0]["labels"],
            json!({"trace_id": "abc"})
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partial_writes_say_what_was_stored() {
    let server = Server::start().await;
    let now = now_ns() / 1_000_000_000;
    let ms = now * 1000;
    let mut r = Request::new();
    r.series(&[("job", "x")]).samples = vec![sample(ms, 1.0)];
    r.series(&[("__name__", "good")]).samples = vec![sample(ms, 1.0)];
    r.series(&[("__name__", "h")]).histograms = vec![histogram(ms - 1, 99), histogram(ms, 3)];
    r.series(&[("__name__", "empty")]);
    let (status, counts, body) = post(&server, V2, "snappy", r.body()).await;
    assert_eq!((status, counts), (400, Some([1, 1, 0])));
    assert_eq!(
        body,
        "invalid metric name or labels, got {job=\"x\"}\n\
         3 observations found in buckets, but the Count field is 99: histogram's observation count should equal the number of \
         observations found in the buckets (in absence of NaN) for series {__name__=\"h\"}\n\
         TimeSeries must contain at least one sample or histogram for series {__name__=\"empty\"}\n"
    );
    assert_eq!(server.promql("good", now as f64).await.len(), 1);
    // Another value at the same time is the store's to refuse.
    let mut r = Request::new();
    r.series(&[("__name__", "good")]).samples = vec![sample(ms, 2.0), sample(ms + 1, 3.0)];
    let (status, counts, body) = post(&server, V2, "snappy", r.body()).await;
    assert_eq!((status, counts), (400, Some([1, 0, 0])));
    assert!(body.starts_with("duplicate sample for timestamp"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_carry_the_counts_in_two_point_zero_only() {
    let server = Server::start().await;
    let zeros = Some([0, 0, 0]);
    let v1 = "application/x-protobuf";
    for (content_type, encoding, body, want) in [
        (V2, "gzip", vec![], (415, zeros)),
        (V2, "snappy", b"garbage".to_vec(), (400, zeros)),
        (V2, "snappy", snappy(b"\x2a\x7f"), (400, zeros)),
        (V2, "snappy", snappy(b"\x22\x01x"), (400, zeros)),
        (V2, "snappy", snappy(b""), (204, zeros)),
        (v1, "gzip", vec![], (415, None)),
        (v1, "snappy", b"garbage".to_vec(), (400, None)),
        (v1, "snappy", snappy(b""), (204, None)),
        ("application/x-protobuf;proto=x", "snappy", vec![], (415, None)),
        ("text/plain", "snappy", vec![], (415, None)),
    ] {
        let (status, counts, text) = post(&server, content_type, encoding, body).await;
        assert_eq!((status, counts), want, "{content_type} {encoding}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_point_zero_carries_histograms_and_exemplars() {
    let server = Server::start().await;
    let now = now_ns() / 1_000_000_000;
    let label = |name: &str, value: &str| prometheus::Label {
        name: name.into(),
        value: value.into(),
    };
    let histogram = prometheus::Histogram {
        count: Some(prometheus::histogram::Count::CountFloat(4.5)),
        sum: 9.0,
        schema: 3,
        positive_spans: vec![prometheus::BucketSpan { offset: -2, length: 1 }],
        positive_counts: vec![4.5],
        timestamp: now * 1000,
        ..Default::default()
    };
    // As Prometheus sends them: every item in an entry of its own.
    let entry = || prometheus::TimeSeries {
        labels: vec![label("__name__", "latency")],
        ..Default::default()
    };
    let mut exemplar = entry();
    exemplar.exemplars = vec![prometheus::Exemplar {
        labels: vec![label("trace_id", "t")],
        value: 1.0,
        timestamp: now * 1000,
    }];
    let mut sample = entry();
    sample.histograms = vec![histogram];
    let request = prometheus::WriteRequest {
        timeseries: vec![sample, exemplar],
        metadata: vec![],
    };
    let (status, body) = server.write(&request).await.expect("an answer");
    assert_eq!((status, body.as_str()), (204, ""));
    let got = server.promql("histogram_sum(latency)", now as f64).await;
    assert_eq!(got[0].1, [(now as f64, 9.0)]);
    let (start, end) = ((now - 60).to_string(), (now + 1).to_string());
    let params = [("query", "latency"), ("start", &*start), ("end", &*end)];
    let exemplars = server.json("metrics", "/api/v1/query_exemplars", &params).await;
    assert_eq!(exemplars["data"][0]["exemplars"][0]["value"], "1");
}
