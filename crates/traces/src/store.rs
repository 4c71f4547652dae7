//! The store: admission, log, head on the way in; one view of heads and blocks on the way out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use trilith_block::{HeadStats, Shard, ShardStats};
use trilith_model::{
    Appended, Error, ErrorKind, Limits, LimitsProvider, Rejection, Result, Signal, TenantId, TraceBatch, TraceId,
    TraceSink, task,
};
use trilith_query::{AttributeScope, ColumnRef, QueryContext, ResultStream, SpanRequest, SpanSource};
use trilith_wal::{Lsn, Record, Wal};

use crate::batch::{Batch, from_payload, to_payload};
use crate::engine::TracesEngine;
use crate::head::{TenantHead, model_span_bytes};
use crate::reader::ReaderCache;
use crate::select;

/// Pushes of fewer spans are encoded and applied where they are: handing them to another thread costs more than the work.
const INLINE_SPANS: usize = 64;

/// Settings of the engine beside those of its shard.
#[derive(Clone, Debug)]
pub struct TracesOptions {
    /// Open blocks (indexes, filters, footers, resources), of all queries together.
    pub block_cache_bytes: u64,
}

impl Default for TracesOptions {
    fn default() -> Self {
        TracesOptions {
            block_cache_bytes: 128 << 20,
        }
    }
}

/// Counts since the process started, except where a field says otherwise.
#[derive(Clone, Debug, Default)]
pub struct TracesStats {
    /// Spans acknowledged.
    pub spans: u64,
    pub rejected_live_traces: u64,
    pub rejected_trace_too_large: u64,
    pub replayed_records: u64,
    /// Records of the log that did not decode and were left out.
    pub corrupt_records: u64,
    /// Now, in the heads, over all tenants; a trace in two heads counts twice.
    pub live_traces: u64,
    pub head: HeadStats,
    pub shard: ShardStats,
}

#[derive(Default)]
struct Counters {
    spans: AtomicU64,
    rejected_live_traces: AtomicU64,
    rejected_trace_too_large: AtomicU64,
    replayed_records: AtomicU64,
    corrupt_records: AtomicU64,
}

/// Traces of all tenants on this node.
pub struct TracesStore {
    shard: Shard<TracesEngine>,
    wal: Wal,
    limits: Arc<dyn LimitsProvider>,
    cache: Arc<ReaderCache>,
    counters: Arc<Counters>,
}

impl TracesStore {
    /// Puts the store together. The caller has opened `shard` with [`TracesEngine`] and the writer id of `wal`, and gives
    /// the log's records to [`TracesStore::replay`] before the first append.
    pub fn new(
        shard: Shard<TracesEngine>,
        wal: Wal,
        limits: Arc<dyn LimitsProvider>,
        options: TracesOptions,
    ) -> Arc<Self> {
        Arc::new(TracesStore {
            shard,
            wal,
            limits,
            cache: Arc::new(ReaderCache::new(options.block_cache_bytes)),
            counters: Arc::default(),
        })
    }

    /// For status pages, administration and tests.
    pub fn shard(&self) -> &Shard<TracesEngine> {
        &self.shard
    }

    /// Puts a record of the log back into the head, unless a block holds it. Records come in the order of LSNs.
    ///
    /// A record that does not decode although the log's checksum holds is reported, counted and left out.
    ///
    /// # Errors
    /// Those of a cut, which replay waits for when the head is full.
    pub async fn replay(&self, record: Record) -> Result<()> {
        let Some(ticket) = self.shard.replay(record.lsn.0) else {
            return Ok(());
        };
        let (lsn, tenant) = (record.lsn.0, record.tenant.clone());
        let applied =
            task::background(move || ticket.head().apply(&record.tenant, from_payload(&record.payload)?)).await?;
        let counter = match applied {
            Ok(()) => &self.counters.replayed_records,
            Err(e) if e.kind == ErrorKind::Corrupt => {
                tracing::error!(%tenant, lsn, error = %e, "a log record does not decode and is left out");
                &self.counters.corrupt_records
            }
            Err(e) => return Err(e.context(format_args!("record {lsn}"))),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.shard.maybe_flush_during_replay().await
    }

    /// Writes everything that was appended before the call to committed blocks.
    ///
    /// # Errors
    /// `Unavailable` when the object store is; the data stays in head and log then.
    pub async fn flush(&self) -> Result<()> {
        self.shard.flush().await?;
        self.release();
        Ok(())
    }

    /// Merges until nothing is left to merge. Returns the number of merges.
    ///
    /// # Errors
    /// Those of the object store.
    pub async fn compact(&self) -> Result<u64> {
        self.shard.compact_now().await
    }

    /// Cuts, merges, expires, and lets go of the log, until cancelled. Does not flush at the end.
    pub async fn run(&self, cancel: CancellationToken) {
        let releasing = async {
            let mut committed = self.shard.committed();
            loop {
                committed.mark_unchanged();
                self.release();
                if committed.changed().await.is_err() {
                    break;
                }
            }
        };
        tokio::join!(self.shard.run(cancel.clone()), cancel.run_until_cancelled(releasing));
    }

    fn release(&self) {
        self.wal.release(Signal::Traces, Lsn(self.shard.wal_upto()));
    }

    pub fn stats(&self) -> TracesStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let c = &self.counters;
        let heads = self.shard.view();
        TracesStats {
            spans: get(&c.spans),
            rejected_live_traces: get(&c.rejected_live_traces),
            rejected_trace_too_large: get(&c.rejected_trace_too_large),
            replayed_records: get(&c.replayed_records),
            corrupt_records: get(&c.corrupt_records),
            live_traces: heads
                .heads
                .iter()
                .flat_map(|h| h.tenants())
                .map(|(_, h)| h.trace_count())
                .sum(),
            head: self.shard.head_stats(),
            shard: self.shard.stats(),
        }
    }

    /// Takes out of the batch the spans that the limits refuse.
    ///
    /// Pushes that come at the same time do not see each other, so a limit may be exceeded by what is under way.
    fn admit(&self, tenant: &TenantId, batch: &mut TraceBatch, limits: &Limits) -> Vec<Rejection> {
        if limits.live_traces_max == 0 && limits.trace_bytes_max == 0 {
            return Vec::new();
        }
        let heads: Vec<Arc<TenantHead>> = self
            .shard
            .view()
            .heads
            .iter()
            .filter_map(|h| h.tenant(tenant))
            .collect();
        // A trace in two heads counts twice for a moment.
        let live: u64 = heads.iter().map(|h| h.trace_count()).sum();
        let mut admission = Admission {
            tenant,
            limits,
            heads,
            live,
            bytes: hashbrown::HashMap::default(),
            live_refused: None,
            size_refused: None,
        };
        for rs in &mut batch.resource_spans {
            for ss in &mut rs.scope_spans {
                ss.spans
                    .retain(|span| admission.takes(span.trace_id, model_span_bytes(span)));
            }
            rs.scope_spans.retain(|ss| !ss.spans.is_empty());
        }
        batch.resource_spans.retain(|rs| !rs.scope_spans.is_empty());
        let c = &self.counters;
        let count = |r: &Option<Rejection>| r.as_ref().map_or(0, |r| r.count);
        c.rejected_live_traces
            .fetch_add(count(&admission.live_refused), Ordering::Relaxed);
        c.rejected_trace_too_large
            .fetch_add(count(&admission.size_refused), Ordering::Relaxed);
        [admission.live_refused, admission.size_refused]
            .into_iter()
            .flatten()
            .collect()
    }
}

struct Admission<'a> {
    tenant: &'a TenantId,
    limits: &'a Limits,
    heads: Vec<Arc<TenantHead>>,
    /// Traces in the heads and the new ones of this push.
    live: u64,
    /// Per trace of this push: its bytes so far, `None` when it is refused as a new trace.
    bytes: hashbrown::HashMap<TraceId, Option<u64>, foldhash::fast::RandomState>,
    live_refused: Option<Rejection>,
    size_refused: Option<Rejection>,
}

impl Admission<'_> {
    fn takes(&mut self, id: TraceId, span_bytes: u64) -> bool {
        let (limits, live, heads) = (self.limits, &mut self.live, &self.heads);
        let known = self.bytes.entry(id).or_insert_with(|| {
            let found: Vec<_> = heads.iter().map(|h| h.live(id)).collect();
            if found.iter().any(|l| l.known) {
                return Some(found.iter().map(|l| l.bytes).sum());
            }
            if limits.live_traces_max > 0 && *live >= limits.live_traces_max {
                return None;
            }
            *live += 1;
            Some(0)
        });
        let tenant = self.tenant;
        let Some(bytes) = known else {
            let max = limits.live_traces_max;
            let rejection = self.live_refused.get_or_insert_with(|| Rejection {
                kind: ErrorKind::LimitExceeded,
                reason: "live_traces_exceeded",
                message: format!(
                    "LIVE_TRACES_EXCEEDED: max live traces exceeded for tenant {tenant}: per-user traces limit \
                     (local: {max} global: 0 actual local: {live}) exceeded, first for trace {id} \
                     (limits.live-traces)"
                ),
                count: 0,
            });
            rejection.count += 1;
            return false;
        };
        let max = limits.trace_bytes_max;
        if max > 0 && bytes.saturating_add(span_bytes) > max {
            let rejection = self.size_refused.get_or_insert_with(|| Rejection {
                kind: ErrorKind::TooLarge,
                reason: "trace_too_large",
                message: format!(
                    "TRACE_TOO_LARGE: max size of trace ({max}) exceeded while adding {span_bytes} bytes to trace \
                     {id} for tenant {tenant} (limits.trace-size)"
                ),
                count: 0,
            });
            rejection.count += 1;
            return false;
        }
        *bytes += span_bytes;
        true
    }
}

/// Runs small work here and large work in the compute pool.
async fn run<R: Send + 'static>(spans: usize, f: impl FnOnce() -> R + Send + 'static) -> Result<R> {
    if spans < INLINE_SPANS {
        Ok(f())
    } else {
        task::compute(f).await
    }
}

#[async_trait]
impl TraceSink for TracesStore {
    async fn append(&self, tenant: &TenantId, mut batch: TraceBatch) -> Result<Appended> {
        let limits = self.limits.limits(tenant);
        let rejections = self.admit(tenant, &mut batch, &limits);
        let spans = batch.span_count();
        if spans == 0 {
            return Ok(Appended {
                accepted: 0,
                rejections,
                ..Appended::default()
            });
        }
        let (encoded, payload) = run(spans, move || {
            let encoded = Batch::encode(&batch)?;
            let payload = to_payload(&encoded);
            Ok::<_, Error>((encoded, payload))
        })
        .await??;
        let (shard, wal, tenant) = (self.shard.clone(), self.wal.clone(), tenant.clone());
        // In a task of its own: once the record is in the log it must reach the head, also when the client goes away.
        let logged = task::spawn("append traces", async move {
            let (ticket, pending) = shard.begin(|| {
                let (lsn, pending) = wal.append(Signal::Traces, &tenant, payload)?;
                Ok((lsn.0, pending))
            })?;
            pending.durable().await?;
            run(spans, move || ticket.head().apply(&tenant, encoded)).await?
        });
        logged
            .await
            .map_err(|e| Error::internal(format!("appending traces: {e}")))??;
        self.counters.spans.fetch_add(spans as u64, Ordering::Relaxed);
        Ok(Appended {
            accepted: spans as u64,
            rejections,
            ..Appended::default()
        })
    }
}

#[async_trait]
impl SpanSource for TracesStore {
    fn select(&self, ctx: &QueryContext, request: SpanRequest) -> ResultStream<RecordBatch> {
        select::select(&self.shard.view(), self.cache.clone(), ctx, request)
    }

    async fn trace(&self, ctx: &QueryContext, id: TraceId, start_ns: u64, end_ns: u64) -> Result<Option<TraceBatch>> {
        select::trace(&self.shard.view(), &self.cache, ctx, id, start_ns, end_ns).await
    }

    async fn attribute_names(
        &self,
        ctx: &QueryContext,
        scope: Option<AttributeScope>,
        start_ns: u64,
        end_ns: u64,
    ) -> Result<Vec<(AttributeScope, String)>> {
        select::attribute_names(&self.shard.view(), &self.cache, ctx, scope, start_ns, end_ns).await
    }

    async fn attribute_values(
        &self,
        ctx: &QueryContext,
        column: &ColumnRef,
        start_ns: u64,
        end_ns: u64,
        limit: usize,
    ) -> Result<Vec<(String, String)>> {
        select::attribute_values(&self.shard.view(), &self.cache, ctx, column, start_ns, end_ns, limit).await
    }
}
