//! The metrics store of one node: the shard, the log, the limits; sink of pushes, source of queries.

mod append;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio_util::sync::CancellationToken;
use trilith_block::{HeadStats, Shard, ShardStats};
use trilith_model::{
    Appended, Clock, Error, ErrorKind, Labels, LimitsProvider, MetricBatch, MetricMetadata, MetricSink, Result, Signal,
    TenantId, TimeRange, task,
};
use trilith_query::{
    ExemplarRequest, LabelRequest, QueryContext, ResultStream, SeriesBatch, SeriesExemplars, SeriesRequest,
    SeriesSource,
};
use trilith_wal::{Lsn, Record, Wal};

use crate::engine::MetricsEngine;
use crate::format::metadata::MetadataSet;
use crate::head::MetricsHead;
use crate::query::batch::Selection;
use crate::query::cardinality::{Cardinality, cardinality};
use crate::query::plan::plan;
use crate::query::{ReaderCache, ReaderWeight, Sources, exemplars, labels, skip_damaged};
use crate::writer::FACT_METADATA;
use crate::{reader, wal_record};

/// Runs of one selection decoded at a time.
const RUNS_AHEAD: usize = 2;

/// Settings of the store; those of heads and blocks are the shard's.
#[derive(Clone, Debug)]
pub struct MetricsOptions {
    /// Memory for the indexes of open blocks, of all queries together.
    pub reader_cache_bytes: u64,
}

impl Default for MetricsOptions {
    fn default() -> Self {
        MetricsOptions {
            reader_cache_bytes: 64 << 20,
        }
    }
}

/// Counts since the process started, except where a field says otherwise.
#[derive(Clone, Debug, Default)]
pub struct MetricsStats {
    /// Samples acknowledged, exact repetitions of the newest ones included.
    pub samples: u64,
    pub rejected_samples: u64,
    pub replayed_records: u64,
    /// Records of the log that did not decode and were left out.
    pub corrupt_records: u64,
    /// Now, in the active head, over all tenants.
    pub active_series: u64,
    pub head: HeadStats,
    pub shard: ShardStats,
}

/// Cheap to clone; all clones are one store.
#[derive(Clone)]
pub struct MetricsStore {
    inner: Arc<Inner>,
}

struct Inner {
    shard: Shard<MetricsEngine>,
    wal: Wal,
    limits: Arc<dyn LimitsProvider>,
    clock: Arc<dyn Clock>,
    readers: Arc<ReaderCache>,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    samples: AtomicU64,
    rejected: AtomicU64,
    replayed: AtomicU64,
    corrupt: AtomicU64,
}

impl MetricsStore {
    /// Puts the store together. The caller has opened `shard` with [`MetricsEngine`] and the writer id of `wal`, and
    /// gives the log's records to [`MetricsStore::replay`] before the first append.
    pub fn new(
        shard: Shard<MetricsEngine>,
        wal: Wal,
        clock: Arc<dyn Clock>,
        limits: Arc<dyn LimitsProvider>,
        options: MetricsOptions,
    ) -> Self {
        let readers = Arc::new(ReaderCache::with_weighter(
            10_000,
            options.reader_cache_bytes,
            ReaderWeight,
        ));
        MetricsStore {
            inner: Arc::new(Inner {
                shard,
                wal,
                limits,
                clock,
                readers,
                counters: Counters::default(),
            }),
        }
    }

    /// For status pages, administration and tests.
    pub fn shard(&self) -> &Shard<MetricsEngine> {
        &self.inner.shard
    }

    /// Applies a record read back from the log, in LSN order, before the first push. A record that is in a committed
    /// block already is skipped. A damaged one is reported, counted and skipped: its samples are lost either way, and
    /// the others are not. Cuts, and waits for the cut, when the head is full.
    ///
    /// # Errors
    /// `Unsupported` when the record was written by a later version; those of a cut.
    pub async fn replay(&self, record: Record) -> Result<()> {
        let Some(ticket) = self.inner.shard.replay(record.lsn.0) else {
            return Ok(());
        };
        let (lsn, tenant) = (record.lsn.0, record.tenant.clone());
        let now = self.inner.clock.now_ms();
        let applied = task::background(move || {
            let batch = wal_record::decode(&record.payload)?;
            ticket.head().apply(&record.tenant, &batch, None, now);
            Ok(())
        });
        let counters = &self.inner.counters;
        match applied.await? {
            Ok(()) => {
                counters.replayed.fetch_add(1, Ordering::Relaxed);
            }
            Err(Error {
                kind: ErrorKind::Corrupt,
                message,
                ..
            }) => {
                tracing::error!(lsn, %tenant, error = message, "a log record does not decode and is left out");
                counters.corrupt.fetch_add(1, Ordering::Relaxed);
            }
            Err(e) => return Err(e.context(format_args!("log record {lsn}"))),
        }
        self.inner.shard.maybe_flush_during_replay().await
    }

    /// Puts everything acknowledged so far into committed blocks.
    ///
    /// # Errors
    /// Those of the object store.
    pub async fn flush(&self) -> Result<()> {
        self.inner.shard.flush().await?;
        self.release();
        Ok(())
    }

    /// Merges until nothing is left to merge. Returns the number of merges.
    ///
    /// # Errors
    /// Those of the object store.
    pub async fn compact(&self) -> Result<u64> {
        self.inner.shard.compact_now().await
    }

    /// `20251120T101500Z-0123456789abcdef`.
    pub(crate) fn snapshot_name(&self) -> String {
        let now = self.inner.clock.now_ms();
        let time = jiff::Timestamp::from_millisecond(now).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        format!("{}-{:016x}", time.strftime("%Y%m%dT%H%M%SZ"), self.inner.shard.random())
    }

    /// Tells the log what it need not keep.
    fn release(&self) {
        self.inner
            .wal
            .release(Signal::Metrics, Lsn(self.inner.shard.wal_upto()));
    }

    /// Cuts, merges and cleans up until `cancel`; then returns without a last cut (the log has everything).
    pub async fn run(&self, cancel: CancellationToken) {
        let mut committed = self.inner.shard.committed();
        let releases = async {
            self.release();
            while committed.changed().await.is_ok() {
                self.release();
            }
        };
        tokio::select! {
            () = self.inner.shard.run(cancel.clone()) => {}
            () = releases => {}
        }
    }

    pub fn stats(&self) -> MetricsStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let c = &self.inner.counters;
        let view = self.inner.shard.view();
        let series = |h: &Arc<MetricsHead>| h.tenants().iter().map(|(_, t)| u64::from(t.series_count())).sum();
        MetricsStats {
            samples: get(&c.samples),
            rejected_samples: get(&c.rejected),
            replayed_records: get(&c.replayed),
            corrupt_records: get(&c.corrupt),
            active_series: view.heads.last().map_or(0, series),
            head: self.inner.shard.head_stats(),
            shard: self.inner.shard.stats(),
        }
    }

    /// Cardinality of the tenant's data in heads and blocks that overlap `range`, and the times of those (`EMPTY`
    /// without any); lists have at most `top` entries.
    ///
    /// # Errors
    /// Memory budget, cancellation, those of the object store.
    pub async fn cardinality(
        &self,
        ctx: &QueryContext,
        range: TimeRange,
        top: usize,
    ) -> Result<(Cardinality, TimeRange)> {
        let sources = self.sources(ctx, range).await?;
        let mut times = TimeRange::EMPTY;
        for head in &sources.heads {
            times = times.union(head.time());
        }
        for block in &sources.blocks {
            let meta = &block.handle.meta;
            times = times.union(TimeRange::new(meta.time_min, meta.time_max));
        }
        let ctx = ctx.clone();
        let counted = task::compute(move || cardinality(&ctx, &sources, top)).await??;
        Ok((counted, times))
    }

    async fn sources(&self, ctx: &QueryContext, range: TimeRange) -> Result<Sources> {
        Sources::open(ctx, &self.inner.shard.view(), range, &self.inner.readers).await
    }

    /// Runs `f` over the sources of a label request, off the I/O threads.
    async fn with_sources<R: Send + 'static>(
        &self,
        ctx: &QueryContext,
        request: LabelRequest,
        f: impl FnOnce(&QueryContext, &Sources, &LabelRequest) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let sources = self.sources(ctx, TimeRange::new(request.start, request.end)).await?;
        let ctx = ctx.clone();
        task::compute(move || f(&ctx, &sources, &request)).await?
    }
}

#[async_trait]
impl MetricSink for MetricsStore {
    async fn append(&self, tenant: &TenantId, batch: MetricBatch) -> Result<Appended> {
        self.append_batch(tenant, batch).await
    }
}

#[async_trait]
impl SeriesSource for MetricsStore {
    fn select(&self, ctx: &QueryContext, request: SeriesRequest) -> ResultStream<SeriesBatch> {
        let (ctx, store) = (ctx.clone(), self.clone());
        // The view is taken now: what was acknowledged before the call is in the answer.
        let view = self.inner.shard.view();
        let batches = async move {
            let range = TimeRange::new(request.start_ms, request.end_ms);
            let sources = Sources::open(&ctx, &view, range, &store.inner.readers).await?;
            let planner = ctx.clone();
            let plan =
                task::compute(move || plan(&planner, sources, &request.matchers, range, request.hints.newest_only))
                    .await??;
            let plan = Arc::new(plan);
            let runs = plan.runs();
            let selection = Selection::new(ctx, plan);
            let batches = futures::stream::iter(runs)
                .map(move |run| selection.clone().batch(run))
                .buffered(RUNS_AHEAD)
                // The consumer books what it keeps.
                .map_ok(|(batch, _memory)| batch)
                .try_filter(|b| std::future::ready(!b.columns.is_empty()));
            Ok::<_, trilith_model::Error>(batches)
        };
        futures::stream::once(batches).try_flatten().boxed()
    }

    async fn series(&self, ctx: &QueryContext, request: LabelRequest) -> Result<Vec<Labels>> {
        self.with_sources(ctx, request, labels::series).await
    }

    async fn label_names(&self, ctx: &QueryContext, request: LabelRequest) -> Result<Vec<String>> {
        self.with_sources(ctx, request, labels::names).await
    }

    async fn label_values(&self, ctx: &QueryContext, name: &str, request: LabelRequest) -> Result<Vec<String>> {
        let name = name.to_owned();
        self.with_sources(ctx, request, move |ctx, sources, request| {
            labels::values(ctx, sources, &name, request)
        })
        .await
    }

    async fn exemplars(&self, ctx: &QueryContext, request: ExemplarRequest) -> Result<Vec<SeriesExemplars>> {
        exemplars::exemplars(ctx, &self.inner.shard.view(), request).await
    }

    async fn metadata(&self, ctx: &QueryContext, family: Option<&str>) -> Result<Vec<MetricMetadata>> {
        ctx.check()?;
        let view = self.inner.shard.view();
        let mut set = MetadataSet::default();
        let blocks: Vec<_> = view
            .blocks_of(&ctx.tenant, TimeRange::ALL)
            .filter(|b| b.meta.facts.contains_key(FACT_METADATA))
            .cloned()
            .collect();
        let mut read = futures::stream::iter(blocks)
            .map(|block| async move {
                let entries = reader::read_metadata(&block).await;
                (block, entries)
            })
            .buffered(8);
        while let Some((block, entries)) = read.next().await {
            ctx.check()?;
            match entries {
                Ok(entries) => {
                    for m in entries.iter().filter(|m| family.is_none_or(|f| f == m.family)) {
                        set.insert(m);
                    }
                }
                Err(e) => skip_damaged(ctx, &block, e)?,
            }
        }
        for head in view.heads.iter().filter_map(|h| h.tenant(&ctx.tenant)) {
            for m in head.metadata(family) {
                set.insert(&m);
            }
        }
        Ok(set.entries(family))
    }
}

#[cfg(test)]
mod tests;
