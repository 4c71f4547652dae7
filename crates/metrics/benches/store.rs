//! Ingest, cut, merge and select of generated data, through log and store, with CPU time, memory and bytes per sample.
//!
//! `cargo bench -p trilith-metrics` takes 20,000 series × 480 samples; `SERIES` and `SAMPLES` change that, and
//! `HISTOGRAMS` makes so many series of a hundred native histograms of 24 to 40 buckets, 50 observations a sample.
//! The series: one target has 200; counters, gauges with few decimals, constants, and one in 20 a full double;
//! timestamps of a target jitter by a few ms.

#![allow(clippy::print_stdout)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use trilith_block::{Shard, ShardOptions};
use trilith_histogram::{FloatHistogram, Span};
use trilith_metrics::{MetricsEngine, MetricsOptions, MetricsStore};
use trilith_model::rng::Rng;
use trilith_model::{
    HistogramSample, Labels, Limits, Matcher, MetricBatch, MetricSink as _, Sample, Signal, StaticLimits, SystemClock,
    TenantId,
};
use trilith_object::Store;
use trilith_query::{QueryContext, SeriesRequest, SeriesSource as _};
use trilith_wal::{Lsn, Wal};

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const T0: i64 = 1_700_000_000_000;
const PER_TARGET: usize = 200;
const TARGETS_PER_PUSH: usize = 10;

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// User and system time of the process.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = after
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|f| f.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 10)
}

fn peak_rss_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap_or_default();
    line.split_whitespace()
        .nth(1)
        .and_then(|kb| kb.parse::<u64>().ok())
        .unwrap_or(0)
        / 1024
}

struct Series {
    labels: Labels,
    value: f64,
    kind: usize,
    /// Of the series that are histograms.
    histogram: Option<Arc<FloatHistogram>>,
}

/// Observations of a sample of a histogram.
const OBSERVATIONS: usize = 50;

fn histogram(buckets: u32) -> Arc<FloatHistogram> {
    let mut h = FloatHistogram {
        schema: 3,
        zero_threshold: 2.938_735_877_055_719e-39,
        ..FloatHistogram::default()
    };
    h.positive.spans = vec![Span {
        offset: -40,
        length: buckets,
    }];
    h.positive.counts = vec![0.0; buckets as usize];
    Arc::new(h)
}

struct Generator {
    series: Vec<Series>,
    state: u64,
}

impl Generator {
    fn new(n: usize, histograms: usize) -> Self {
        let series = (0..n)
            .map(|i| {
                let (target, k) = (i / PER_TARGET, i % PER_TARGET);
                let labels = Labels::from_pairs([
                    ("__name__", format!("namespace_subsystem_metric_{k}_total")),
                    (
                        "instance",
                        format!("10.{}.{}.{}:9100", target >> 16, (target >> 8) & 255, target & 255),
                    ),
                    ("job", format!("job-{}", target % 10)),
                    ("cluster", "production-eu-central".to_owned()),
                    (
                        "pod",
                        format!("service-{}-7f8d9c5b4-{:05x}", target % 50, target * 7919),
                    ),
                    ("mode", ["idle", "user", "system", "iowait"][k % 4].to_owned()),
                ]);
                Series {
                    labels,
                    value: (i % 1000) as f64,
                    kind: i % 20,
                    histogram: (i % 100 < histograms).then(|| histogram(24 + (i % 17) as u32)),
                }
            })
            .collect();
        Generator {
            series,
            state: 88_172_645_463_325_252,
        }
    }

    fn random(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    /// Latencies: the middle buckets get the most.
    fn observe(&mut self, mut h: FloatHistogram) -> FloatHistogram {
        let buckets = h.positive.counts.len() as u64;
        for _ in 0..OBSERVATIONS {
            let dice = (0..4).map(|_| self.random() % buckets).sum::<u64>() / 4;
            h.positive.counts[dice as usize] += 1.0;
            h.count += 1.0;
            h.sum += dice as f64 * 0.01 + (self.random() >> 11) as f64 / (1u64 << 53) as f64;
        }
        h
    }

    fn push(&mut self, at: usize, round: usize) -> MetricBatch {
        let mut batch = MetricBatch::default();
        let end = (at + PER_TARGET * TARGETS_PER_PUSH).min(self.series.len());
        let mut ts_ms = 0;
        for i in at..end {
            let r = self.random();
            if i % PER_TARGET == 0 {
                ts_ms = T0 + round as i64 * 15_000 + (i / PER_TARGET) as i64 % 15_000 + (r % 8) as i64;
            }
            if let Some(h) = self.series[i].histogram.take() {
                let h = Arc::new(self.observe(FloatHistogram::clone(&h)));
                self.series[i].histogram = Some(h.clone());
                batch.histograms.push(HistogramSample {
                    ts_ms,
                    start_ms: T0,
                    histogram: h,
                });
                batch.finish_series(self.series[i].labels.as_ref());
                continue;
            }
            let s = &mut self.series[i];
            match s.kind {
                0..8 => s.value += (r % 200) as f64,
                8..12 => s.value = (r % 100_000) as f64 / 1000.0,
                12..15 if r.is_multiple_of(20) => s.value = (r % 7) as f64,
                12..19 => {}
                _ => s.value = (r >> 11) as f64 / (1u64 << 53) as f64,
            }
            batch.samples.push(Sample { ts_ms, value: s.value });
            batch.finish_series(s.labels.as_ref());
        }
        batch
    }
}

#[tokio::main]
async fn main() {
    let (n, rounds) = (setting("SERIES", 20_000), setting("SAMPLES", 480));
    let dir = tempfile::tempdir().expect("a folder for the log");
    let clock = Arc::new(SystemClock);
    let wal_dir = dir.path().join("wal");
    let mut options = ShardOptions::defaults(Signal::Metrics, dir.path().join("scratch"));
    options.compaction_fan_in_min = 2;
    options.compaction_settle = Duration::ZERO;
    let shard = Shard::open(
        Arc::new(MetricsEngine),
        Store::memory(),
        clock.clone(),
        Arc::new(Rng::from_os()),
        Wal::writer_id_of(&wal_dir).expect("a folder"),
        options,
    )
    .await
    .expect("an empty store opens");
    let (wal, _) = Wal::open(trilith_wal::Options::new(&wal_dir), Lsn(0), clock.clone()).expect("an empty log opens");
    let limits = Arc::new(StaticLimits(Arc::new(Limits::default())));
    let store = MetricsStore::new(
        shard.clone(),
        wal.clone(),
        clock.clone(),
        limits,
        MetricsOptions::default(),
    );
    let cancel = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn({
        let (store, cancel) = (store.clone(), cancel.clone());
        async move { store.run(cancel).await }
    });

    let samples = (n * rounds) as f64;
    let mut generator = Generator::new(n, setting("HISTOGRAMS", 0));
    let tenant = TenantId::anonymous();
    let (cpu0, started, mut generating) = (cpu(), Instant::now(), Duration::ZERO);
    for round in 0..rounds {
        let mut pushes = Vec::new();
        for at in (0..n).step_by(PER_TARGET * TARGETS_PER_PUSH) {
            let t = Instant::now();
            let batch = generator.push(at, round);
            generating += t.elapsed();
            let (store, tenant) = (store.clone(), tenant.clone());
            pushes.push(tokio::spawn(async move {
                store.append(&tenant, batch).await.expect("push")
            }));
            if pushes.len() == 8 {
                futures::future::join_all(pushes.drain(..)).await;
            }
        }
        futures::future::join_all(pushes).await;
    }
    let ingest = cpu() - cpu0 - generating;
    println!(
        "ingest: {:.0} samples per CPU second ({:?} wall, generator {generating:?} not counted), peak {} MB",
        samples / ingest.as_secs_f64(),
        started.elapsed(),
        peak_rss_mb()
    );
    println!("  head {:?}", shard.head_stats());
    println!("  log {:?}", wal.stats());
    let t = cpu();
    store.flush().await.expect("flush");
    println!("flush: {:?} CPU, peak {} MB", cpu() - t, peak_rss_mb());
    let all = ingest + (cpu() - t);
    println!("all: {:.0} samples per CPU second", samples / all.as_secs_f64());
    let size = |store: &MetricsStore| store.shard().blocks().iter().map(|b| b.meta.bytes()).sum::<u64>() as f64;
    println!(
        "{} blocks, {:.3} bytes per sample",
        store.shard().blocks().len(),
        size(&store) / samples
    );
    let query = async |name: &str, matchers: Vec<Matcher>, start_ms: i64| {
        let ctx = QueryContext::new(
            tenant.clone(),
            Arc::new(Limits {
                query_samples_max: 0,
                query_memory_bytes: 0,
                ..Limits::default()
            }),
            clock.clone(),
            Duration::ZERO,
        );
        let (t, c) = (Instant::now(), cpu());
        let request = SeriesRequest {
            matchers,
            start_ms,
            end_ms: i64::MAX,
            hints: Default::default(),
        };
        let mut batches = store.select(&ctx, request);
        let (mut count, mut series, mut vectors) = (0, 0, 0);
        while let Some(b) = batches.try_next().await.expect("select") {
            count += b.sample_count();
            series += b.columns.len();
            vectors += b.times.len();
        }
        println!(
            "select {name}: {series} series, {count} samples, {vectors} vectors in {:?} ({:?} CPU), peak {} MB",
            t.elapsed(),
            cpu() - c,
            peak_rss_mb()
        );
    };
    let metric = || vec![Matcher::eq("__name__", "namespace_subsystem_metric_7_total")];
    query("one metric", metric(), 0).await;
    query("one metric, again", metric(), 0).await;
    query("everything", vec![], 0).await;
    query("everything, last 5 minutes", vec![], T0 + (rounds as i64 - 20) * 15_000).await;
    let (t, c) = (Instant::now(), cpu());
    let merges = store.compact().await.expect("merge");
    println!(
        "{merges} merges in {:?} ({:?} CPU), peak {} MB",
        t.elapsed(),
        cpu() - c,
        peak_rss_mb()
    );
    println!(
        "{} blocks, {:.3} bytes per sample",
        store.shard().blocks().len(),
        size(&store) / samples
    );
    query("everything, merged", vec![], 0).await;
    cancel.cancel();
    let _ = running.await;
}
