//! The metrics store of one node: the shard, the log, the limits; sink of pushes, source of queries.

mod append;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio_util::sync::CancellationToken;
use trilith_block::{Head as _, Shard};
use trilith_index::IndexStats;
use trilith_model::{
    Appended, Clock, ErrorKind, Labels, LimitsProvider, MetricBatch, MetricMetadata, MetricSink, Result, Signal,
    TenantId, TimeRange, task,
};
use trilith_query::{LabelRequest, QueryContext, ResultStream, SeriesBatch, SeriesRequest, SeriesSource};
use trilith_wal::{Lsn, Record, Wal};

use crate::engine::MetricsEngine;
use crate::format::metadata::MetadataSet;
use crate::query::batch::Selection;
use crate::query::plan::plan;
use crate::query::{ReaderCache, ReaderWeight, Sources, labels, skip_damaged};
use crate::writer::FACT_METADATA;
use crate::{reader, wal_record};

/// Runs of one selection decoded at a time.
const RUNS_AHEAD: usize = 2;

/// Settings of the store; those of heads and blocks are the shard's.
#[derive(Clone, Debug)]
pub struct Options {
    /// Memory for the indexes of open blocks, bytes.
    pub reader_cache_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options { reader_cache_bytes: 64 << 20 }
    }
}

/// Counters of the store since the start, and sizes now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Samples that became durable and visible, exact repetitions of the newest ones included.
    pub samples_accepted: u64,
    pub samples_rejected: u64,
    /// Log records that could not be decoded at the start and were left out.
    pub records_damaged: u64,
    /// Series in the active head, over all tenants.
    pub active_series: u64,
    /// Samples and approximate bytes in all heads.
    pub head_items: u64,
    pub head_bytes: u64,
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
    accepted: AtomicU64,
    rejected: AtomicU64,
    damaged: AtomicU64,
}

impl MetricsStore {
    /// A store over an opened shard. Replay comes next ([`MetricsStore::replay`]), then pushes and [`MetricsStore::run`].
    pub fn new(
        shard: Shard<MetricsEngine>,
        wal: Wal,
        limits: Arc<dyn LimitsProvider>,
        clock: Arc<dyn Clock>,
        options: Options,
    ) -> Self {
        let readers = Arc::new(ReaderCache::with_weighter(10_000, options.reader_cache_bytes, ReaderWeight));
        MetricsStore {
            inner: Arc::new(Inner {
                shard,
                wal,
                limits,
                clock,
                readers,
                accepted: AtomicU64::new(0),
                rejected: AtomicU64::new(0),
                damaged: AtomicU64::new(0),
            }),
        }
    }

    /// The shard below, for its statistics, its blocks and `maybe_flush_during_replay`.
    pub fn shard(&self) -> &Shard<MetricsEngine> {
        &self.inner.shard
    }

    /// Applies a record read back from the log, in LSN order, before the first push. A record that is in a committed
    /// block already is skipped. A damaged one is reported, counted and skipped: the samples are lost either way, and
    /// the others are not.
    ///
    /// # Errors
    /// `Unsupported` when the record was written by a newer version.
    pub fn replay(&self, record: &Record) -> Result<()> {
        let Some(ticket) = self.inner.shard.replay(record.lsn.0) else { return Ok(()) };
        match wal_record::decode(&record.payload) {
            Ok(batch) => {
                ticket.head().apply(&record.tenant, &batch, None);
                Ok(())
            }
            Err(e) if e.kind == ErrorKind::Corrupt => {
                tracing::error!(lsn = record.lsn.0, tenant = %record.tenant, error = %e, "log record is damaged and left out");
                self.inner.damaged.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(e) => Err(e.context(format!("log record {}", record.lsn.0))),
        }
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

    /// Tells the log what it need not keep.
    fn release(&self) {
        self.inner.wal.release(Signal::Metrics, Lsn(self.inner.shard.wal_upto()));
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

    pub fn stats(&self) -> Stats {
        let view = self.inner.shard.view();
        let active = view.heads.last();
        Stats {
            samples_accepted: self.inner.accepted.load(Ordering::Relaxed),
            samples_rejected: self.inner.rejected.load(Ordering::Relaxed),
            records_damaged: self.inner.damaged.load(Ordering::Relaxed),
            active_series: active
                .map_or(0, |h| h.tenants().iter().map(|(_, t)| u64::from(t.series_count())).sum()),
            head_items: view.heads.iter().map(|h| h.items()).sum(),
            head_bytes: view.heads.iter().map(|h| h.bytes()).sum(),
        }
    }

    /// Cardinality of a tenant's active head, and the range of its samples (`EMPTY` without any): what
    /// `/api/v1/status/tsdb` tells. CPU work in proportion to the label pairs.
    ///
    /// # Errors
    /// None in practice; postings of heads are never damaged.
    pub fn head_stats(&self, tenant: &TenantId) -> Result<(IndexStats, TimeRange)> {
        let mut stats = IndexStats::default();
        let view = self.inner.shard.view();
        let Some(head) = view.heads.last().and_then(|h| h.tenant(tenant)) else {
            return Ok((stats, TimeRange::EMPTY));
        };
        head.with_index(|i| stats.add(&i.postings, 1))?;
        Ok((stats, head.time()))
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
            let plan = task::compute(move || plan(&planner, sources, &request.matchers, range)).await??;
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
        self.with_sources(ctx, request, move |ctx, sources, request| labels::values(ctx, sources, &name, request)).await
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
