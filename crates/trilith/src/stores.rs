//! The three stores over one object store and one log: opening, replay, background loops, own metrics, closing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use trilith_block::{Engine, HeadStats, Shard, ShardOptions, ShardStats};
use trilith_logs::{LogsEngine, LogsOptions, LogsStore};
use trilith_metrics::{MetricsEngine, MetricsOptions, MetricsStore};
use trilith_model::rng::Rng;
use trilith_model::{Clock, LimitsProvider, MetricType, Result, Signal, task};
use trilith_object::{DiskCacheOptions, Operation, Store, StoreOptions};
use trilith_traces::{TracesEngine, TracesOptions, TracesStore};
use trilith_wal::{Lsn, Record, Replay, Wal};

use crate::config::Config;
use crate::datadir::DataDir;
use crate::telemetry::exposition::Exposition;

/// Records read ahead of the heads during replay, per signal; bounds its memory together with their size.
const REPLAY_AHEAD: usize = 64;

/// Everything that holds data.
pub struct Stores {
    pub metrics: Arc<MetricsStore>,
    pub logs: Arc<LogsStore>,
    pub traces: Arc<TracesStore>,
    object: Store,
    wal: Wal,
}

/// The store of blocks that a configuration names; used by the server and by `trilith blocks`.
///
/// # Errors
/// The URL is wrong or the folder cannot be made; one line that names the setting.
pub async fn open_object_store(
    config: &Config,
    cache_disk: Option<DiskCacheOptions>,
    clock: Arc<dyn Clock>,
    rng: Arc<Rng>,
) -> anyhow::Result<Store> {
    let url = if config.storage_url.is_empty() {
        config.data_dir.join("blocks").display().to_string()
    } else {
        config.storage_url.clone()
    };
    let options = StoreOptions {
        cache_memory_bytes: config.cache_memory_bytes,
        cache_disk,
        ..StoreOptions::default()
    };
    Store::open(&url, options, clock, rng)
        .await
        .with_context(|| format!("cannot open the storage {url} (storage.url)"))
}

struct Opening<'a> {
    config: &'a Config,
    store: Store,
    clock: Arc<dyn Clock>,
    rng: Arc<Rng>,
    writer_id: String,
    scratch: std::path::PathBuf,
}

impl Opening<'_> {
    async fn shard<E: Engine>(&self, engine: E, head_bytes: u64, retention: Duration) -> anyhow::Result<Shard<E>> {
        let signal = engine.signal();
        let mut options = ShardOptions::defaults(signal, &self.scratch);
        options.head_bytes_max = head_bytes;
        // A cut takes a while, during which a second head fills; beyond four the store is too slow or down.
        options.head_total_bytes_max = head_bytes.saturating_mul(4).max(64 << 20);
        options.head_age_max = self.config.head_age;
        options.retention = retention;
        options.delete_grace = self.config.delete_grace;
        options.maintenance_interval = self.config.compaction_interval;
        Shard::open(
            Arc::new(engine),
            self.store.clone(),
            self.clock.clone(),
            self.rng.clone(),
            self.writer_id.clone(),
            options,
        )
        .await
        .with_context(|| format!("cannot load the manifest of {signal}"))
    }
}

impl Stores {
    /// Opens everything and replays the log.
    ///
    /// # Errors
    /// What keeps the server from starting, in one line.
    pub async fn open(
        config: &Config,
        data_dir: &DataDir,
        clock: Arc<dyn Clock>,
        rng: Arc<Rng>,
        limits: Arc<dyn LimitsProvider>,
    ) -> anyhow::Result<Stores> {
        let cache_disk = match config.cache_disk_bytes {
            0 => None,
            bytes => Some(DiskCacheOptions {
                path: data_dir.folder("cache")?,
                bytes,
            }),
        };
        let store = open_object_store(config, cache_disk, clock.clone(), rng.clone()).await?;
        store
            .probe()
            .await
            .context("the storage cannot be used (storage.url)")?;

        let wal_options = trilith_wal::Options {
            segment_bytes: config.wal_segment_bytes,
            ..trilith_wal::Options::new(data_dir.folder("wal")?)
        };
        let (wal, mut replay) =
            Wal::open(wal_options, Lsn(0), clock.clone()).context("cannot open the write-ahead log")?;
        let opening = Opening {
            config,
            store: store.clone(),
            clock: clock.clone(),
            rng,
            writer_id: wal.writer_id().to_owned(),
            scratch: data_dir.folder("scratch")?,
        };
        let metrics = opening
            .shard(MetricsEngine, config.head_bytes.metrics, config.retention.metrics)
            .await?;
        let logs = opening
            .shard(LogsEngine, config.head_bytes.logs, config.retention.logs)
            .await?;
        let traces = opening
            .shard(TracesEngine, config.head_bytes.traces, config.retention.traces)
            .await?;
        let positions = [
            (Signal::Metrics, metrics.wal_upto()),
            (Signal::Logs, logs.wal_upto()),
            (Signal::Traces, traces.wal_upto()),
        ];
        for (signal, upto) in positions {
            replay.after(signal, Lsn(upto));
        }
        let stores = Stores {
            metrics: Arc::new(MetricsStore::new(
                metrics,
                wal.clone(),
                clock.clone(),
                limits.clone(),
                MetricsOptions::default(),
            )),
            logs: LogsStore::new(logs, wal.clone(), clock, limits.clone(), LogsOptions::default()),
            traces: TracesStore::new(traces, wal.clone(), limits, TracesOptions::default()),
            object: store,
            wal,
        };
        stores.replay(replay).await?;
        for (signal, upto) in positions {
            // After the replay, because it deletes segments; before the first append, because it also raises the next
            // LSN, should the log have been lost but not the bucket.
            stores.wal.release(signal, Lsn(upto));
        }
        Ok(stores)
    }

    /// Reads the log on a thread of its own and applies each signal's records on its own task, in their order.
    async fn replay(&self, replay: Replay) -> anyhow::Result<()> {
        let bytes = replay.bytes();
        let (metrics_tx, mut metrics_rx) = mpsc::channel::<Record>(REPLAY_AHEAD);
        let (logs_tx, mut logs_rx) = mpsc::channel::<Record>(REPLAY_AHEAD);
        let (traces_tx, mut traces_rx) = mpsc::channel::<Record>(REPLAY_AHEAD);
        let (done_tx, done) = oneshot::channel();
        // Not in the background pool: the stores apply their records there, and the reader waits for them.
        task::thread("replay", move || {
            let report = replay.run(|record| {
                let tx = match record.signal {
                    Signal::Metrics => &metrics_tx,
                    Signal::Logs => &logs_tx,
                    Signal::Traces => &traces_tx,
                };
                // The receiver is gone only when its signal failed; its error is the one to show.
                tx.blocking_send(record)
                    .map_err(|_| trilith_model::Error::internal("replay was given up"))
            });
            drop((metrics_tx, logs_tx, traces_tx));
            // Nobody waits when the start was broken off.
            let _ = done_tx.send(report);
        })
        .context("cannot start the replay")?;
        let metrics = async {
            while let Some(record) = metrics_rx.recv().await {
                self.metrics.replay(record).await?;
            }
            Ok::<(), trilith_model::Error>(())
        };
        let logs = async {
            while let Some(record) = logs_rx.recv().await {
                self.logs.replay(record).await?;
            }
            Ok::<(), trilith_model::Error>(())
        };
        let traces = async {
            while let Some(record) = traces_rx.recv().await {
                self.traces.replay(record).await?;
            }
            Ok::<(), trilith_model::Error>(())
        };
        let (m, l, t) = tokio::join!(metrics, logs, traces);
        m.context("cannot replay the log's metrics")?;
        l.context("cannot replay the log's log entries")?;
        t.context("cannot replay the log's traces")?;
        let report = done
            .await
            .context("the replay ended early")?
            .context("cannot read the write-ahead log")?;
        if report.records > 0 || !report.is_clean() {
            tracing::info!(
                records = report.records,
                bytes,
                segments = report.segments,
                "log replayed"
            );
        }
        if !report.is_clean() {
            tracing::error!(
                corruptions = report.corruptions,
                missing = ?report.missing,
                unreadable = ?report.unreadable_segments,
                "the write-ahead log is damaged; what could be read was kept"
            );
        }
        Ok(())
    }

    /// Where blocks live, for the log.
    pub fn url(&self) -> &str {
        self.object.url()
    }

    /// Cutting, merging, retention and garbage collection, until `stop`.
    pub fn spawn_background(&self, tracker: &TaskTracker, stop: &CancellationToken) {
        let (metrics, logs, traces) = (self.metrics.clone(), self.logs.clone(), self.traces.clone());
        let stops = [stop.clone(), stop.clone(), stop.clone()];
        let [a, b, c] = stops;
        tracker.spawn(async move { metrics.run(a).await });
        tracker.spawn(async move { logs.run(b).await });
        tracker.spawn(async move { traces.run(c).await });
    }

    /// Everything acknowledged so far goes into committed blocks.
    ///
    /// # Errors
    /// Those of the object store.
    pub async fn flush(&self, signal: Signal) -> Result<()> {
        match signal {
            Signal::Metrics => self.metrics.flush().await?,
            Signal::Logs => self.logs.flush().await?,
            Signal::Traces => self.traces.flush().await?,
        }
        // Closes the open segment, so that what was flushed does not stay on disk behind newer records.
        self.wal.rotate();
        Ok(())
    }

    /// # Errors
    /// Those of the object store.
    pub async fn compact(&self, signal: Signal) -> Result<()> {
        match signal {
            Signal::Metrics => self.metrics.compact().await.map(drop),
            Signal::Logs => self.logs.compact().await.map(drop),
            Signal::Traces => self.traces.compact().await.map(drop),
        }
    }

    /// Syncs and closes the log; the heads stay in it until the next start.
    pub async fn close(&self) {
        if let Err(e) = self.wal.close().await {
            tracing::error!(error = %e, "the write-ahead log was not closed cleanly");
        }
        self.object.close().await;
    }

    pub fn wal_stats(&self) -> trilith_wal::Stats {
        self.wal.stats()
    }

    pub fn collect(&self, out: &mut Exposition) {
        self.collect_wal(out);
        self.collect_shards(out);
        self.collect_engines(out);
        self.collect_object(out);
    }

    fn collect_wal(&self, out: &mut Exposition) {
        let s = self.wal.stats();
        out.counter(
            "trilith_wal_records_total",
            "Durable records of the write-ahead log.",
            s.records,
        );
        out.counter("trilith_wal_bytes_total", "Bytes of durable records.", s.bytes);
        out.counter(
            "trilith_wal_groups_total",
            "Groups of records written together.",
            s.groups,
        );
        out.counter(
            "trilith_wal_syncs_total",
            "Successful syncs; records per sync is the gain of group commit.",
            s.syncs,
        );
        out.counter(
            "trilith_wal_failures_total",
            "Groups that could not be made durable and were refused.",
            s.failures,
        );
        out.counter(
            "trilith_wal_refused_total",
            "Appends refused while the log could not be written.",
            s.refused,
        );
        out.counter(
            "trilith_wal_corruptions_total",
            "Damaged places met in the log at the start.",
            s.corruptions,
        );
        out.gauge(
            "trilith_wal_backlog_bytes",
            "Appended, not yet durable.",
            s.backlog_bytes as f64,
        );
        out.gauge("trilith_wal_segments", "Segment files.", s.segments as f64);
        out.gauge(
            "trilith_wal_segment_bytes",
            "Bytes of all segment files.",
            s.segment_bytes as f64,
        );
        let writable = s.state == trilith_wal::LogState::Ready;
        out.gauge(
            "trilith_wal_writable",
            "1 while the log takes records.",
            f64::from(u8::from(writable)),
        );
    }

    fn collect_shards(&self, out: &mut Exposition) {
        let all: [(Signal, HeadStats, ShardStats); 3] = [
            (
                Signal::Metrics,
                self.metrics.shard().head_stats(),
                self.metrics.shard().stats(),
            ),
            (Signal::Logs, self.logs.shard().head_stats(), self.logs.shard().stats()),
            (
                Signal::Traces,
                self.traces.shard().head_stats(),
                self.traces.shard().stats(),
            ),
        ];
        type Read = fn(&HeadStats, &ShardStats) -> u64;
        use MetricType::{Counter, Gauge};
        let rows: [(&'static str, MetricType, &'static str, Read); 18] = [
            (
                "trilith_head_bytes",
                Gauge,
                "Approximate memory of recent data, active and being cut.",
                |h, _| h.active_bytes + h.frozen_bytes,
            ),
            (
                "trilith_head_items",
                Gauge,
                "Samples, entries or spans not yet in blocks.",
                |h, _| h.active_items + h.frozen_items,
            ),
            ("trilith_blocks", Gauge, "Committed blocks.", |_, s| s.blocks),
            ("trilith_block_bytes", Gauge, "Bytes of committed blocks.", |_, s| {
                s.block_bytes
            }),
            (
                "trilith_blocks_quarantined",
                Gauge,
                "Damaged blocks that take part in no merge.",
                |_, s| s.quarantined_blocks,
            ),
            ("trilith_cuts_total", Counter, "Heads cut into blocks.", |_, s| s.cuts),
            (
                "trilith_cut_failures_total",
                Counter,
                "Cuts that failed and are tried again.",
                |_, s| s.cut_failures,
            ),
            ("trilith_cut_blocks_total", Counter, "Blocks made by cuts.", |_, s| {
                s.cut_blocks
            }),
            ("trilith_cut_bytes_total", Counter, "Bytes written by cuts.", |_, s| {
                s.cut_bytes
            }),
            ("trilith_merges_total", Counter, "Merges committed.", |_, s| s.merges),
            (
                "trilith_merge_input_bytes_total",
                Counter,
                "Bytes read by merges.",
                |_, s| s.merge_input_bytes,
            ),
            (
                "trilith_merge_output_bytes_total",
                Counter,
                "Bytes written by merges.",
                |_, s| s.merge_output_bytes,
            ),
            (
                "trilith_merge_failures_total",
                Counter,
                "Merges that failed.",
                |_, s| s.merge_failures,
            ),
            (
                "trilith_merge_conflicts_total",
                Counter,
                "Merges given up because an input was gone.",
                |_, s| s.merge_conflicts,
            ),
            (
                "trilith_expired_blocks_total",
                Counter,
                "Blocks dropped by retention.",
                |_, s| s.expired_blocks,
            ),
            (
                "trilith_deleted_blocks_total",
                Counter,
                "Replaced blocks whose objects were deleted.",
                |_, s| s.deleted_blocks,
            ),
            (
                "trilith_orphans_deleted_total",
                Counter,
                "Objects of crashed uploads deleted.",
                |_, s| s.orphans_deleted,
            ),
            (
                "trilith_head_refused_total",
                Counter,
                "Appends refused because the heads were full.",
                |_, s| s.refused,
            ),
        ];
        for (name, kind, help, read) in rows {
            let items = all
                .iter()
                .map(|(signal, h, s)| (vec![("signal", signal.as_str().to_owned())], read(h, s) as f64));
            out.labelled(name, kind, help, items);
        }
    }

    fn collect_engines(&self, out: &mut Exposition) {
        let (m, l, t) = (self.metrics.stats(), self.logs.stats(), self.traces.stats());
        let signal = |s: Signal| ("signal", s.as_str().to_owned());
        out.labelled(
            "trilith_accepted_items_total",
            MetricType::Counter,
            "Samples, entries and spans acknowledged.",
            [
                (Signal::Metrics, m.samples),
                (Signal::Logs, l.entries),
                (Signal::Traces, t.spans),
            ]
            .map(|(s, n)| (vec![signal(s)], n as f64)),
        );
        out.labelled(
            "trilith_rejected_items_total",
            MetricType::Counter,
            "Samples, entries and spans refused by limits of the store.",
            [
                (Signal::Metrics, m.rejected_samples),
                (Signal::Logs, l.rejected_entries),
                (Signal::Traces, t.rejected_live_traces + t.rejected_trace_too_large),
            ]
            .map(|(s, n)| (vec![signal(s)], n as f64)),
        );
        out.labelled(
            "trilith_damaged_records_total",
            MetricType::Counter,
            "Log records that could not be decoded at the start and were left out.",
            [
                (Signal::Metrics, m.corrupt_records),
                (Signal::Logs, l.corrupt_records),
                (Signal::Traces, t.corrupt_records),
            ]
            .map(|(s, n)| (vec![signal(s)], n as f64)),
        );
        out.counter(
            "trilith_log_line_bytes_total",
            "Bytes of acknowledged log lines.",
            l.line_bytes,
        );
        out.gauge(
            "trilith_active_series",
            "Metric series in the active head.",
            m.active_series as f64,
        );
        out.gauge("trilith_active_streams", "Log streams in the heads.", l.streams as f64);
        out.gauge("trilith_live_traces", "Traces in the heads.", t.live_traces as f64);
    }

    fn collect_object(&self, out: &mut Exposition) {
        let s = self.object.stats().snapshot();
        let by_operation = |read: &dyn Fn(Operation) -> u64| {
            Operation::ALL
                .into_iter()
                .map(|o| (vec![("operation", o.as_str().to_owned())], read(o) as f64))
                .collect::<Vec<_>>()
        };
        out.labelled(
            "trilith_object_requests_total",
            MetricType::Counter,
            "Requests to the object store, retries included.",
            by_operation(&|o| s.operation(o).requests),
        );
        out.labelled(
            "trilith_object_retries_total",
            MetricType::Counter,
            "Requests that were tried again.",
            by_operation(&|o| s.operation(o).retries),
        );
        out.labelled(
            "trilith_object_errors_total",
            MetricType::Counter,
            "Operations that failed for good.",
            by_operation(&|o| s.operation(o).errors),
        );
        out.counter(
            "trilith_object_read_bytes_total",
            "Bytes read from the object store.",
            s.bytes_read,
        );
        out.counter(
            "trilith_object_written_bytes_total",
            "Bytes written to the object store.",
            s.bytes_written,
        );
        out.counter(
            "trilith_object_cache_hits_total",
            "Reads answered by the cache.",
            s.cache_hits,
        );
        out.counter(
            "trilith_object_cache_misses_total",
            "Reads that the cache did not have.",
            s.cache_misses,
        );
    }
}
