//! Not a test of correctness: prints what a span costs. `cargo test --release -p trilith-traces -- --ignored --nocapture`.

use std::time::Instant;

use trilith_block::Engine as _;
use trilith_model::trace::{Event, Span, Status, TraceBatch};
use trilith_model::{Limits, SpanId, TraceId};
use trilith_object::Store;
use trilith_testkit::spans::{kv, service_batch};

use super::open;

fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (n ^ (n >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// Like an instrumented shop: 20 services, some 10 attributes per span, events now and then.
fn push(n: u64) -> TraceBatch {
    const SPANS: u64 = 500;
    let service = n % 20;
    let spans = (0..SPANS).map(|i| {
        let r = mix(n * SPANS + i);
        let trace = (n / 20) * 50 + i % 50;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&mix(trace).to_be_bytes());
        id[8..].copy_from_slice(&mix(trace + 1).to_be_bytes());
        let start = 1_700_000_000_000_000_000 + trace * 20_000_000 + r % 10_000_000;
        Span {
            trace_id: TraceId(id),
            span_id: SpanId(r.to_be_bytes()),
            parent_span_id: SpanId(mix(trace * 31 + i % 7).to_be_bytes()),
            name: format!("GET /api/v{}/items", r % 12),
            kind: 2 + (r % 2) as i32,
            start_ns: start,
            end_ns: start + r % 50_000_000,
            flags: 0x101,
            attributes: vec![
                kv("http.request.method", ["GET", "POST", "PUT"][(r % 3) as usize]),
                kv("http.response.status_code", [200i64, 404, 500][(r / 7 % 3) as usize]),
                kv("url.path", format!("/api/v{}/items/{}", r % 12, r % 5000).as_str()),
                kv(
                    "server.address",
                    format!("svc-{}.shop.svc.cluster.local", r % 20).as_str(),
                ),
                kv("server.port", 8080i64),
                kv("network.protocol.version", "1.1"),
                kv(
                    "user_agent.original",
                    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36",
                ),
                kv("client.address", format!("10.0.{}.{}", r % 4, r / 4 % 250).as_str()),
                kv("thread.id", (r % 64) as i64),
                kv("app.user.id", format!("{:08x}", r % 100_000).as_str()),
            ],
            events: r
                .is_multiple_of(20)
                .then(|| Event {
                    time_ns: start + 5,
                    name: "exception".into(),
                    attributes: vec![
                        kv("exception.type", "java.io.IOException"),
                        kv("exception.message", "broken pipe"),
                    ],
                    ..Event::default()
                })
                .into_iter()
                .collect(),
            status: Some(Status {
                code: if r.is_multiple_of(20) { 2 } else { 0 },
                message: String::new(),
            }),
            ..Span::default()
        }
    });
    let mut batch = service_batch(&format!("service-{service}"), spans.collect());
    for i in 0..12 {
        batch.resource_spans[0]
            .resource
            .attributes
            .push(kv(&format!("k8s.label.{i}"), format!("value-{service}-{i}").as_str()));
    }
    batch
}

/// CPU seconds of this process.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn rss_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap_or("0 0");
    line.split_whitespace()
        .nth(1)
        .and_then(|n| n.parse::<u64>().ok())
        .unwrap_or(0)
        / 1024
}

#[ignore = "measures; run with --release"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn costs_of_a_span() {
    let pushes: u64 = std::env::var("PUSHES").ok().and_then(|n| n.parse().ok()).unwrap_or(400);
    let dir = tempfile::tempdir().expect("temp dir");
    let node = open(dir.path(), &Store::memory(), Limits::default()).await;
    let (mut making, mut appending) = (0.0, 0.0);
    let start = Instant::now();
    for n in 0..pushes {
        let t = cpu();
        let batch = push(n);
        making += cpu() - t;
        let t = cpu();
        node.push(batch).await;
        appending += cpu() - t;
        if n + 1 == pushes / 2 {
            println!(
                "head: {} bytes, {} spans",
                node.traces.stats().head.active_bytes,
                n * 500
            );
            let t = cpu();
            node.traces.flush().await.expect("flush");
            println!("cut: {:.2} µs per span", (cpu() - t) * 1e6 / ((n + 1) * 500) as f64);
        }
    }
    let spans = (pushes * 500) as f64;
    println!(
        "made {spans} spans ({making:.2} s), append: {:.2} µs CPU per span, {:?}",
        appending * 1e6 / spans,
        start.elapsed()
    );
    println!("RSS {} MB", rss_mb());
    node.traces.flush().await.expect("flush");
    let blocks = node.traces.shard().blocks();
    let bytes: u64 = blocks.iter().map(|b| b.meta.bytes()).sum();
    println!("{} blocks, {:.1} bytes per span", blocks.len(), bytes as f64 / spans);
    for f in &blocks[0].meta.files {
        println!("  {}: {}", f.name, f.size);
    }
    let t = cpu();
    let scratch = tempfile::tempdir().expect("temp dir");
    let job = trilith_block::Merge {
        inputs: blocks.to_vec(),
        level: 1,
        scratch: scratch.path().to_owned(),
        keep_from: None,
    };
    let drafts = crate::TracesEngine.merge(job).await.expect("merge");
    println!("merge: {:.2} µs CPU per span", (cpu() - t) * 1e6 / spans);
    if let trilith_block::FileBody::Spooled(path) = &drafts[0].files[0].body {
        let len = std::fs::metadata(path).map_or(0, |m| m.len());
        println!("merged spans.parquet: {:.1} bytes per span", len as f64 / spans);
        if let Some(to) = std::env::var_os("KEEP") {
            std::fs::copy(path, to).expect("copied");
        }
    }
    println!("RSS {} MB", rss_mb());
}
