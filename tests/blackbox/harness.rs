//! Starts, stops and kills servers, and speaks to them.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use prost::Message as _;
use serde_json::Value;
use tempfile::TempDir;
use trilith_proto::otlp::collector::trace::v1::ExportTraceServiceRequest;
use trilith_proto::otlp::common::v1::{AnyValue, KeyValue, any_value};
use trilith_proto::otlp::resource::v1::Resource;
use trilith_proto::otlp::trace::v1::{ResourceSpans, ScopeSpans, Span};
use trilith_proto::{logproto, prometheus};

/// Longest start, replay included; generous, because test machines are busy.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

pub const PROTOBUF: &str = "application/x-protobuf";

/// How to start a server. Everything that tests never want to meet by chance is off.
#[derive(Clone, Debug)]
pub struct Options {
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub data_dir: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        let args = ["--self-observe", "false", "--log.level", "warn"]
            .map(str::to_owned)
            .to_vec();
        Options {
            args,
            env: Vec::new(),
            data_dir: None,
        }
    }
}

impl Options {
    pub fn arg(mut self, name: &str, value: &str) -> Self {
        self.args.extend([name.to_owned(), value.to_owned()]);
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn data_dir(mut self, path: &Path) -> Self {
        self.data_dir = Some(path.to_owned());
        self
    }
}

pub struct Server {
    options: Options,
    /// Kept when the directory is ours.
    dir: Option<TempDir>,
    data_dir: PathBuf,
    child: Option<Child>,
    addresses: HashMap<String, String>,
    pub http: reqwest::Client,
    /// Sent with every request made through this handle.
    pub tenant: Option<String>,
}

/// The binary of this build, or the one that `TRILITH_BIN` names (a release build, for long runs).
pub fn binary() -> PathBuf {
    std::env::var_os("TRILITH_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_trilith")), PathBuf::from)
}

/// A started process without waiting for readiness; for tests of the start itself.
pub fn command(options: &Options, data_dir: &Path) -> Command {
    let mut command = Command::new(binary());
    command.arg("--data-dir").arg(data_dir);
    for listener in ["metrics", "logs", "traces", "otlp-grpc", "otlp-http"] {
        let flag = format!("--listen.{listener}");
        if !options.args.contains(&flag) {
            command.args([&flag, "0"]);
        }
    }
    command.args(&options.args).envs(options.env.iter().cloned());
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Runs a process that is expected to end by itself; gives status, stdout and stderr.
pub fn run(mut command: Command) -> (ExitStatus, String, String) {
    let mut child = command
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let deadline = Instant::now() + READY_TIMEOUT;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("the process did not end by itself");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let mut out = String::new();
    let mut err = String::new();
    child
        .stdout
        .take()
        .expect("piped")
        .read_to_string(&mut out)
        .expect("text");
    child
        .stderr
        .take()
        .expect("piped")
        .read_to_string(&mut err)
        .expect("text");
    (status, out, err)
}

impl Server {
    pub async fn start() -> Server {
        Self::start_with(Options::default()).await
    }

    pub async fn start_with(options: Options) -> Server {
        // The only TLS provider in the tree; the client refuses to be built without one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (dir, data_dir) = match &options.data_dir {
            Some(d) => (None, d.clone()),
            None => {
                let dir = tempfile::tempdir().expect("a temporary directory");
                let path = dir.path().join("data");
                (Some(dir), path)
            }
        };
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(60))
            .build()
            .expect("a plain client can be built");
        let mut server = Server {
            options,
            dir,
            data_dir,
            child: None,
            addresses: HashMap::new(),
            http,
            tenant: None,
        };
        server.spawn().await;
        server
    }

    /// Starts the process again on the same data; addresses change.
    pub async fn spawn(&mut self) {
        assert!(self.try_spawn().await, "the process ended before it was ready");
    }

    /// As `spawn`; false when the process ended before it was ready.
    pub async fn try_spawn(&mut self) -> bool {
        assert!(self.child.is_none(), "stop or kill the old process first");
        let mut child = command(&self.options, &self.data_dir)
            .spawn()
            .expect("the binary starts");
        let stdout = child.stdout.take().expect("piped");
        let (tx, rx) = mpsc::channel();
        // Reads to the end, so that the pipe never fills.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = tx.send(line);
            }
        });
        let line = tokio::task::spawn_blocking(move || rx.recv_timeout(READY_TIMEOUT))
            .await
            .expect("not cancelled");
        self.child = Some(child);
        let line = match line {
            Ok(line) => line,
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                self.kill();
                return false;
            }
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("not ready within {READY_TIMEOUT:?}"),
        };
        let rest = line
            .strip_prefix("trilith ready: ")
            .unwrap_or_else(|| panic!("not the ready line: {line:?}"));
        self.addresses = rest
            .split_whitespace()
            .filter_map(|p| p.split_once('='))
            .map(|(n, a)| (n.to_owned(), a.to_owned()))
            .collect();
        true
    }

    /// Addresses by listener: `metrics`, `logs`, `traces`, `otlp-grpc`, `otlp-http`.
    pub fn url(&self, listener: &str, path: &str) -> String {
        format!("http://{}{path}", self.address(listener))
    }

    pub fn address(&self, listener: &str) -> &str {
        self.addresses
            .get(listener)
            .unwrap_or_else(|| panic!("no listener {listener} in {:?}", self.addresses))
    }

    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    pub fn set_env(&mut self, name: &str, value: Option<&str>) {
        self.options.env.retain(|(n, _)| n != name);
        if let Some(v) = value {
            self.options.env.push((name.to_owned(), v.to_owned()));
        }
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: plain system call on the id of a child that has not been waited for.
        unsafe { libc::kill(self.pid() as libc::pid_t, signal) };
    }

    /// SIGTERM; asserts exit 0 within the promised ten seconds.
    pub async fn stop(&mut self) {
        self.signal(libc::SIGTERM);
        let status = self
            .wait(Duration::from_secs(10))
            .await
            .expect("ends within 10 s of SIGTERM");
        assert!(status.success(), "exit status after SIGTERM: {status}");
    }

    pub async fn wait(&mut self, timeout: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            let child = self.child.as_mut().expect("running");
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                self.child = None;
                return Some(status);
            }
            if Instant::now() > deadline {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|c| c.try_wait().expect("a child can be waited for").is_none())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub async fn restart(&mut self) {
        self.stop().await;
        self.spawn().await;
    }

    fn with_tenant(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.tenant {
            Some(t) => request.header("X-Scope-OrgID", t),
            None => request,
        }
    }

    pub async fn get(&self, listener: &str, path: &str, query: &[(&str, &str)]) -> (u16, String) {
        let url = reqwest::Url::parse_with_params(&self.url(listener, path), query).expect("a valid URL");
        let response = self.with_tenant(self.http.get(url)).send().await.expect("an answer");
        (response.status().as_u16(), response.text().await.expect("a body"))
    }

    /// GET that must answer 200 with JSON.
    pub async fn json(&self, listener: &str, path: &str, query: &[(&str, &str)]) -> Value {
        let (status, body) = self.get(listener, path, query).await;
        assert_eq!(status, 200, "{path} {query:?}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|e| panic!("{path}: {e}: {body}"))
    }

    pub async fn post(
        &self,
        listener: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<(u16, String), reqwest::Error> {
        let mut request = self.with_tenant(self.http.post(self.url(listener, path)).body(body));
        for (n, v) in headers {
            request = request.header(*n, *v);
        }
        let response = request.send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    pub async fn flush(&self) {
        for listener in ["metrics", "logs", "traces"] {
            let (status, body) = self.post(listener, "/-/flush", &[], vec![]).await.expect("an answer");
            assert_eq!(status, 204, "flush of {listener}: {body}");
        }
    }

    pub async fn compact(&self) {
        for listener in ["metrics", "logs", "traces"] {
            let (status, body) = self.post(listener, "/-/compact", &[], vec![]).await.expect("an answer");
            assert_eq!(status, 204, "compaction of {listener}: {body}");
        }
    }

    /// Remote write 1.0.
    pub async fn write(&self, request: &prometheus::WriteRequest) -> Result<(u16, String), reqwest::Error> {
        let body = snappy(&request.encode_to_vec());
        let headers = [
            ("Content-Type", PROTOBUF),
            ("Content-Encoding", "snappy"),
            ("X-Prometheus-Remote-Write-Version", "0.1.0"),
        ];
        self.post("metrics", "/api/v1/write", &headers, body).await
    }

    /// Loki push, protobuf.
    pub async fn push(&self, request: &logproto::PushRequest) -> Result<(u16, String), reqwest::Error> {
        let body = snappy(&request.encode_to_vec());
        self.post("logs", "/loki/api/v1/push", &[("Content-Type", PROTOBUF)], body)
            .await
    }

    /// OTLP over HTTP, protobuf.
    pub async fn export(&self, request: &ExportTraceServiceRequest) -> Result<(u16, String), reqwest::Error> {
        self.post(
            "otlp-http",
            "/v1/traces",
            &[("Content-Type", PROTOBUF)],
            request.encode_to_vec(),
        )
        .await
    }

    /// Values of an instant or matrix PromQL answer: series labels to points.
    pub async fn promql(&self, query: &str, time: f64) -> Vec<(Value, Vec<(f64, f64)>)> {
        let time = time.to_string();
        let v = self
            .json("metrics", "/api/v1/query", &[("query", query), ("time", &time)])
            .await;
        series_of(&v)
    }

    pub async fn promql_range(&self, query: &str, start: f64, end: f64, step: f64) -> Vec<(Value, Vec<(f64, f64)>)> {
        let [start, end, step] = [start, end, step].map(|x| x.to_string());
        let params = [("query", query), ("start", &*start), ("end", &*end), ("step", &*step)];
        series_of(&self.json("metrics", "/api/v1/query_range", &params).await)
    }

    /// Log lines of a selector, paged forward; (ns, line) in order.
    pub async fn all_lines(&self, query: &str, start_ns: i64, end_ns: i64) -> Vec<(i64, String)> {
        let mut out: Vec<(i64, String)> = Vec::new();
        let mut from = start_ns;
        loop {
            let (start, end) = (from.to_string(), end_ns.to_string());
            let params = [
                ("query", query),
                ("start", &*start),
                ("end", &*end),
                ("limit", "5000"),
                ("direction", "forward"),
            ];
            let v = self.json("logs", "/loki/api/v1/query_range", &params).await;
            let mut page = lines_of(&v);
            page.sort();
            let n = page.len();
            let last = page.last().map(|(t, _)| *t);
            // The last time may be cut off in the middle: keep what is complete and ask again from there.
            if n == 5000 {
                let last = last.expect("a full page");
                assert!(page[0].0 < last, "more than a page of entries at one time");
                page.retain(|(t, _)| *t < last);
                from = last;
                out.append(&mut page);
            } else {
                out.append(&mut page);
                return out;
            }
        }
    }

    /// All spans of a trace by the v2 endpoint: (span id, name).
    pub async fn trace_spans(&self, id: u128) -> Vec<(String, String)> {
        let v = self.json("traces", &format!("/api/v2/traces/{id:032x}"), &[]).await;
        let spans = v["trace"]["resourceSpans"].as_array().into_iter().flatten();
        spans
            .flat_map(|r| r["scopeSpans"].as_array().into_iter().flatten())
            .flat_map(|s| s["spans"].as_array().into_iter().flatten())
            .map(|s| (text(&s["spanId"]), text(&s["name"])))
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        drop(self.dir.take());
    }
}

fn text(v: &Value) -> String {
    v.as_str().unwrap_or_default().to_owned()
}

pub fn series_of(v: &Value) -> Vec<(Value, Vec<(f64, f64)>)> {
    let point = |p: &Value| {
        let value = p[1].as_str().expect("a value is a string").replace("+Inf", "inf");
        (
            p[0].as_f64().expect("a time is a number"),
            value.parse::<f64>().expect("a value is a float"),
        )
    };
    let data = &v["data"];
    match data["resultType"].as_str() {
        Some("scalar") => vec![(Value::Null, vec![point(&data["result"])])],
        _ => data["result"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|s| {
                let points = match s.get("values") {
                    Some(vs) => vs.as_array().expect("a list").iter().map(point).collect(),
                    None => vec![point(&s["value"])],
                };
                (s["metric"].clone(), points)
            })
            .collect(),
    }
}

pub fn lines_of(v: &Value) -> Vec<(i64, String)> {
    let streams = v["data"]["result"].as_array().expect("a list of streams").iter();
    streams
        .flat_map(|s| s["values"].as_array().expect("a list of entries"))
        .map(|e| {
            (
                e[0].as_str().and_then(|t| t.parse().ok()).expect("ns as text"),
                text(&e[1]),
            )
        })
        .collect()
}

pub fn snappy(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).expect("fits into memory")
}

pub fn now_ns() -> i64 {
    let d = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    d.as_nanos() as i64
}

pub fn now_s() -> f64 {
    (now_ns() / 1_000_000_000) as f64
}

/// One series of a write request; samples as (ms, value).
pub fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> prometheus::TimeSeries {
    let mut labels: Vec<prometheus::Label> = labels
        .iter()
        .map(|(n, v)| prometheus::Label {
            name: (*n).into(),
            value: (*v).into(),
        })
        .collect();
    labels.sort_by(|a, b| a.name.cmp(&b.name));
    prometheus::TimeSeries {
        labels,
        samples: samples
            .iter()
            .map(|(t, v)| prometheus::Sample {
                value: *v,
                timestamp: *t,
            })
            .collect(),
        ..Default::default()
    }
}

pub fn write_request(timeseries: Vec<prometheus::TimeSeries>) -> prometheus::WriteRequest {
    prometheus::WriteRequest {
        timeseries,
        metadata: vec![],
    }
}

/// One stream of a push request.
pub fn stream(labels: &str, entries: &[(i64, &str)]) -> logproto::Stream {
    logproto::Stream {
        labels: labels.to_owned(),
        entries: entries
            .iter()
            .map(|(ns, line)| logproto::Entry {
                timestamp: Some(prost_types::Timestamp {
                    seconds: ns.div_euclid(1_000_000_000),
                    nanos: ns.rem_euclid(1_000_000_000) as i32,
                }),
                line: line.as_bytes().to_vec().into(),
                ..Default::default()
            })
            .collect(),
        hash: 0,
    }
}

pub fn push_request(streams: Vec<logproto::Stream>) -> logproto::PushRequest {
    logproto::PushRequest {
        streams,
        format: String::new(),
    }
}

/// One span without parent.
pub fn span(trace: u128, id: u64, name: &str, start_ns: i64, duration_ns: u64) -> Span {
    Span {
        trace_id: trace.to_be_bytes().to_vec(),
        span_id: id.to_be_bytes().to_vec(),
        name: name.to_owned(),
        kind: 2,
        start_time_unix_nano: start_ns as u64,
        end_time_unix_nano: start_ns as u64 + duration_ns,
        ..Default::default()
    }
}

pub fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(any_value::Value::StringValue(value.to_owned())),
        }),
        ..Default::default()
    }
}

pub fn export_request(service: &str, spans: Vec<Span>) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![attribute("service.name", service)],
                ..Default::default()
            }),
            scope_spans: vec![ScopeSpans {
                spans,
                ..Default::default()
            }],
            ..Default::default()
        }],
    }
}
