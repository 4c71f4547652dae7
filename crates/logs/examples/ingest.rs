//! Measures a store on one machine: lines per CPU second through log, head, cut and merge; peak memory; stored bytes;
//! and the time of the common queries.
//!
//! ```text
//! cargo run --release -p trilith-logs --example ingest -- <megabytes> [folder of *.log files]
//! ```
//!
//! Without a folder the lines are made: logfmt of about 230 bytes with random ids, 100 streams.
#![allow(clippy::print_stdout, reason = "a tool whose output is its result")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use trilith_block::{Shard, ShardOptions};
use trilith_logs::{LogsEngine, LogsOptions, LogsStore};
use trilith_model::rng::Rng;
use trilith_model::{
    Clock, Labels, Limits, LogBatch, LogEntry, LogSink as _, LogStream, Matcher, Result, Signal, StaticLimits,
    SystemClock, TenantId,
};
use trilith_object::{Store, StoreOptions};
use trilith_query::{Direction, EntryRequest, EntrySource as _, LineFilter, LineFilterOp, QueryContext, WantedFields};
use trilith_wal::{Lsn, Wal};

/// As the server has it: memory is measured here.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const STREAMS: u64 = 100;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let bytes = args.next().and_then(|a| a.parse::<u64>().ok()).unwrap_or(200) << 20;
    let corpus = args.next().map(PathBuf::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| trilith_model::Error::internal(e.to_string()))?;
    runtime.block_on(run(bytes, corpus))
}

async fn run(bytes: u64, corpus: Option<PathBuf>) -> Result<()> {
    let dir = std::env::temp_dir().join(format!("trilith-logs-ingest-{}", std::process::id()));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let rng = Arc::new(Rng::seeded(1));
    let url = format!("file://{}", dir.join("objects").display());
    let objects = Store::open(&url, StoreOptions::default(), clock.clone(), rng.clone()).await?;
    let wal_dir = dir.join("wal");
    let writer = Wal::writer_id_of(&wal_dir)?;
    let mut options = ShardOptions::defaults(Signal::Logs, dir.join("scratch"));
    // The server's default.
    options.head_bytes_max = 64 << 20;
    let shard = Shard::open(Arc::new(LogsEngine), objects, clock.clone(), rng, writer, options).await?;
    let (wal, _) = Wal::open(trilith_wal::Options::new(wal_dir), Lsn(shard.wal_upto()), clock.clone())?;
    let limits = Limits {
        max_sample_future: Duration::ZERO,
        ..Limits::default()
    };
    let store = LogsStore::new(
        shard,
        wal,
        clock,
        Arc::new(StaticLimits(Arc::new(limits))),
        LogsOptions::default(),
    );
    let cancel = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn({
        let (store, cancel) = (store.clone(), cancel.clone());
        async move { store.run(cancel).await }
    });

    let mut lines = Lines::new(corpus);
    let tenant = TenantId::anonymous();
    let (mut sent, mut entries, mut ts) = (0u64, 0u64, 1_700_000_000_000_000_000i64);
    let (mut made_cpu, start, cpu) = (0.0, Instant::now(), cpu_seconds());
    let mut in_flight = futures::stream::FuturesUnordered::new();
    while sent < bytes {
        let before = thread_cpu_seconds();
        let batch = lines.batch(&mut ts);
        entries += batch.entry_count() as u64;
        sent += batch
            .streams
            .iter()
            .flat_map(|s| &s.entries)
            .map(|e| e.line.len() as u64)
            .sum::<u64>();
        made_cpu += thread_cpu_seconds() - before;
        let (store, tenant) = (store.clone(), tenant.clone());
        in_flight.push(async move {
            while store.append(&tenant, batch.clone()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        if in_flight.len() >= 4 {
            in_flight.next().await;
        }
    }
    while in_flight.next().await.is_some() {}
    let ingested = start.elapsed();
    println!(
        "ingest: {ingested:?} wall, {:.2} CPU s so far, peak memory {} MB",
        cpu_seconds() - cpu - made_cpu,
        peak_memory_kib() / 1024
    );
    store.flush().await?;
    println!(
        "flush:  {:.2} CPU s so far, {} bytes stored of {sent}, peak memory {} MB",
        cpu_seconds() - cpu - made_cpu,
        stored(&store),
        peak_memory_kib() / 1024
    );
    let merges = store.compact().await?;
    let used = cpu_seconds() - cpu - made_cpu;
    println!(
        "merge:  {used:.2} CPU s so far, {merges} merges, {} bytes stored",
        stored(&store)
    );
    println!(
        "{entries} lines, {:.1} MB: {:.0} lines and {:.1} MB per CPU s; ratio {:.4}; peak memory {} MB",
        sent as f64 / 1e6,
        entries as f64 / used,
        sent as f64 / 1e6 / used,
        stored(&store) as f64 / sent as f64,
        peak_memory_kib() / 1024
    );
    let stats = store.stats();
    println!("{} cuts, {} blocks", stats.shard.cuts, stats.shard.blocks);
    cancel.cancel();
    let _ = running.await;
    queries(&store, &tenant).await?;
    drop(store);
    std::fs::remove_dir_all(&dir).map_err(|e| trilith_model::Error::internal(e.to_string()))
}

fn stored(store: &LogsStore) -> u64 {
    store.stats().shard.block_bytes
}

async fn queries(store: &LogsStore, tenant: &TenantId) -> Result<()> {
    let filter = |needle: &str| LineFilter::new(LineFilterOp::Contains, vec![needle.into()]).map(|f| vec![f]);
    let all = EntryRequest {
        matchers: vec![],
        start_ns: 0,
        end_ns: i64::MAX,
        direction: Direction::Backward,
        limit: None,
        filters: vec![],
        fields: WantedFields::ALL,
    };
    let one = vec![Matcher::eq("pod", "pod-7")];
    let asks = [
        (
            "last 100 of all",
            EntryRequest {
                limit: Some(100),
                ..all.clone()
            },
        ),
        (
            "last 100 of one stream",
            EntryRequest {
                limit: Some(100),
                matchers: one.clone(),
                ..all.clone()
            },
        ),
        (
            "count all",
            EntryRequest {
                fields: WantedFields::COUNT,
                direction: Direction::Forward,
                ..all.clone()
            },
        ),
        (
            "count one stream",
            EntryRequest {
                fields: WantedFields::COUNT,
                matchers: one.clone(),
                ..all.clone()
            },
        ),
        (
            "absent needle",
            EntryRequest {
                filters: filter("no such needle")?,
                limit: Some(100),
                ..all.clone()
            },
        ),
        (
            "count of a word",
            EntryRequest {
                filters: filter("level=error")?,
                fields: WantedFields::COUNT,
                ..all.clone()
            },
        ),
        ("all lines", all.clone()),
    ];
    for (name, request) in asks {
        let ctx = QueryContext::new(
            tenant.clone(),
            Arc::new(Limits::default()),
            Arc::new(SystemClock),
            Duration::ZERO,
        );
        let (start, cpu) = (Instant::now(), cpu_seconds());
        let mut stream = store.select(&ctx, request);
        let mut entries = 0;
        while let Some(batch) = stream.next().await {
            entries += batch?.entries.len();
        }
        println!(
            "{name}: {entries} entries, {:?} wall, {:.2} CPU s, peak {} KiB",
            start.elapsed(),
            cpu_seconds() - cpu,
            ctx.memory.peak_bytes() / 1024
        );
    }
    Ok(())
}

/// Makes batches of about 1 MB.
struct Lines {
    corpus: Vec<bytes::Bytes>,
    at: usize,
    state: u64,
}

impl Lines {
    fn new(folder: Option<PathBuf>) -> Self {
        let mut corpus = Vec::new();
        for file in folder
            .iter()
            .flat_map(|f| std::fs::read_dir(f).into_iter().flatten())
            .flatten()
        {
            if file.path().extension().is_some_and(|e| e == "log") {
                let text = bytes::Bytes::from(std::fs::read(file.path()).unwrap_or_default());
                corpus.extend(text.split(|b| *b == b'\n').map(|l| text.slice_ref(l)));
            }
        }
        Lines {
            corpus,
            at: 0,
            state: 42,
        }
    }

    fn random(&mut self) -> u64 {
        self.state = self
            .state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        self.state >> 11
    }

    fn batch(&mut self, ts: &mut i64) -> LogBatch {
        let mut streams = Vec::new();
        for _ in 0..10 {
            let pod = self.random() % STREAMS;
            let labels = Labels::from_pairs([
                ("app", format!("app-{}", pod % 10)),
                ("namespace", "shop".to_owned()),
                ("pod", format!("pod-{pod}")),
            ]);
            let mut text = Vec::new();
            let mut ends = Vec::new();
            for _ in 0..400 {
                if self.corpus.is_empty() {
                    self.line(&mut text, *ts);
                } else {
                    text.extend_from_slice(&self.corpus[self.at]);
                    self.at = (self.at + 1) % self.corpus.len();
                }
                ends.push(text.len());
            }
            let text = bytes::Bytes::from(text);
            let mut start = 0;
            let mut entries = Vec::with_capacity(ends.len());
            for end in ends {
                *ts += 1_000 + (self.random() % 100_000) as i64;
                entries.push(LogEntry {
                    ts_ns: *ts,
                    line: text.slice(start..end),
                    metadata: Labels::empty(),
                });
                start = end;
            }
            streams.push(LogStream { labels, entries });
        }
        LogBatch { streams }
    }

    fn line(&mut self, out: &mut Vec<u8>, ts: i64) {
        use std::io::Write as _;
        let r = [self.random(), self.random(), self.random()];
        let level = ["info", "info", "info", "debug", "warn", "error"][(r[0] % 6) as usize];
        let path = [
            "/api/v1/cart",
            "/api/v1/checkout",
            "/healthz",
            "/api/v1/products/list",
            "/login",
        ][(r[1] % 5) as usize];
        let _ = write!(
            out,
            "ts={ts} level={level} caller=http/server.go:{} msg=\"request completed\" method=GET path={path} status={} \
             duration_ms={} bytes={} user_id=u{} trace_id={:016x} remote=10.{}.{}.{}:{} agent=\"Mozilla/5.0\"",
            100 + r[0] % 40,
            [200, 200, 200, 204, 404, 500][(r[2] % 6) as usize],
            r[1] % 3000,
            r[2] % 100_000,
            r[0] % 5000,
            r[2].wrapping_mul(0x9E37_79B9_7F4A_7C15),
            r[0] % 256,
            r[1] % 256,
            r[2] % 256,
            1024 + r[1] % 60_000,
        );
    }
}

fn stat(path: &str) -> Option<f64> {
    let text = std::fs::read_to_string(path).ok()?;
    // Fields after the name in parentheses; 12th and 13th are user and system time in ticks of 10 ms.
    let fields: Vec<&str> = text.rsplit(')').next()?.split_whitespace().collect();
    Some((fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?) / 100.0)
}

fn cpu_seconds() -> f64 {
    stat("/proc/self/stat").unwrap_or_default()
}

fn thread_cpu_seconds() -> f64 {
    // Nanoseconds on the CPU; ticks are too coarse for one batch.
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace()
        .next()
        .and_then(|n| n.parse::<f64>().ok())
        .unwrap_or_default()
        / 1e9
}

fn peak_memory_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with("VmHWM"));
    line.and_then(|l| l.split_whitespace().nth(1))
        .and_then(|n| n.parse().ok())
        .unwrap_or_default()
}
