//! The store: admission, log, head on the way in; one view of heads and blocks on the way out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use trilith_block::{HeadStats, Shard, ShardStats};
use trilith_model::{
    Appended, Clock, Error, ErrorKind, Labels, Limits, LimitsProvider, LogBatch, LogSink, Rejection, Result, Signal,
    TenantId, task,
};
use trilith_query::{EntryBatch, EntryRequest, EntrySource, LabelRequest, QueryContext, ResultStream};
use trilith_wal::{Lsn, Record, Wal};

use crate::block::reader::BlockCache;
use crate::engine::LogsEngine;
use crate::format::wal;
use crate::{labels, select};

/// Pushes with fewer bytes of lines are encoded and applied where they are: handing them to another thread costs more
/// than the work.
const INLINE_BYTES: usize = 32 << 10;

/// Settings of the engine beside those of its shard.
#[derive(Clone, Debug)]
pub struct LogsOptions {
    /// Decoded directories and stream indexes of blocks, of all queries together.
    pub block_cache_bytes: u64,
}

impl Default for LogsOptions {
    fn default() -> Self {
        LogsOptions {
            block_cache_bytes: 64 << 20,
        }
    }
}

/// Counts since the process started, except where a field says otherwise.
#[derive(Clone, Debug, Default)]
pub struct LogsStats {
    /// Entries acknowledged, and the bytes of their lines.
    pub entries: u64,
    pub line_bytes: u64,
    pub rejected_entries: u64,
    pub replayed_records: u64,
    /// Records of the log that did not decode and were left out.
    pub corrupt_records: u64,
    /// Now, in the heads, over all tenants.
    pub streams: u64,
    pub head: HeadStats,
    pub shard: ShardStats,
}

#[derive(Default)]
struct Counters {
    entries: AtomicU64,
    line_bytes: AtomicU64,
    rejected_entries: AtomicU64,
    replayed_records: AtomicU64,
    corrupt_records: AtomicU64,
}

/// Logs of all tenants on this node.
pub struct LogsStore {
    shard: Shard<LogsEngine>,
    wal: Wal,
    clock: Arc<dyn Clock>,
    limits: Arc<dyn LimitsProvider>,
    cache: Arc<BlockCache>,
    counters: Arc<Counters>,
}

impl LogsStore {
    /// Puts the store together. The caller has opened `shard` with [`LogsEngine`] and the writer id of `wal`, and gives
    /// the log's records to [`LogsStore::replay`] before the first append.
    pub fn new(
        shard: Shard<LogsEngine>,
        wal: Wal,
        clock: Arc<dyn Clock>,
        limits: Arc<dyn LimitsProvider>,
        options: LogsOptions,
    ) -> Arc<Self> {
        Arc::new(LogsStore {
            shard,
            wal,
            clock,
            limits,
            cache: Arc::new(BlockCache::new(options.block_cache_bytes)),
            counters: Arc::default(),
        })
    }

    /// For status pages, administration and tests.
    pub fn shard(&self) -> &Shard<LogsEngine> {
        &self.shard
    }

    /// Puts a record of the log back into the head, unless a block holds it. Records come in the order of LSNs.
    ///
    /// A record that does not decode although the log's checksum holds is reported, counted and left out.
    ///
    /// # Errors
    /// `Unsupported` for a record of a later version of this program; those of a cut, which replay waits for when the
    /// head is full.
    pub async fn replay(&self, record: Record) -> Result<()> {
        let Some(ticket) = self.shard.replay(record.lsn.0) else {
            return Ok(());
        };
        let (lsn, tenant) = (record.lsn.0, record.tenant.clone());
        let applied = task::background(move || {
            let batch = wal::decode(&record.payload)?;
            let full = ticket.head().apply(&record.tenant, lsn, &batch);
            ticket.head().pack(&full);
            Ok(())
        });
        match applied.await? {
            Ok(()) => {
                self.counters.replayed_records.fetch_add(1, Ordering::Relaxed);
            }
            Err(e)
                if matches!(
                    &e,
                    Error {
                        kind: ErrorKind::Corrupt,
                        ..
                    }
                ) =>
            {
                self.counters.corrupt_records.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%tenant, lsn, error = %e, "a log record does not decode and is left out");
            }
            Err(e) => return Err(e.context(format_args!("record {lsn}"))),
        }
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
        self.wal.release(Signal::Logs, Lsn(self.shard.wal_upto()));
    }

    pub fn stats(&self) -> LogsStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let c = &self.counters;
        LogsStats {
            entries: get(&c.entries),
            line_bytes: get(&c.line_bytes),
            rejected_entries: get(&c.rejected_entries),
            replayed_records: get(&c.replayed_records),
            corrupt_records: get(&c.corrupt_records),
            streams: self.shard.view().heads.iter().map(|h| h.stream_count()).sum(),
            head: self.shard.head_stats(),
            shard: self.shard.stats(),
        }
    }

    /// Takes out of the batch what the limits refuse.
    fn admit(&self, tenant: &TenantId, batch: &mut LogBatch, limits: &Limits) -> Vec<Rejection> {
        let mut refused = Refused::default();
        let now = self.clock.now_ns();
        let ns = |d: std::time::Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
        let oldest = match limits.max_sample_age {
            age if age.is_zero() => i64::MIN,
            age => now.saturating_sub(ns(age)),
        };
        let newest = match limits.max_sample_future {
            ahead if ahead.is_zero() => i64::MAX,
            ahead => now.saturating_add(ns(ahead)),
        };
        for stream in &mut batch.streams {
            let labels = &stream.labels;
            stream.entries.retain(|entry| {
                if entry.ts_ns < oldest {
                    refused.add(ErrorKind::Invalid, "greater_than_max_sample_age", 1, || {
                        format!(
                            "entry for stream '{labels}' has timestamp too old: {}, oldest acceptable timestamp is: {}",
                            rfc3339(entry.ts_ns),
                            rfc3339(oldest)
                        )
                    });
                } else if entry.ts_ns > newest {
                    refused.add(ErrorKind::Invalid, "too_far_in_future", 1, || {
                        format!(
                            "entry for stream '{labels}' has timestamp too new: {}",
                            rfc3339(entry.ts_ns)
                        )
                    });
                }
                (oldest..=newest).contains(&entry.ts_ns)
            });
        }
        batch.streams.retain(|s| !s.entries.is_empty());
        if let Some(head) = self.shard.view().heads.last() {
            let mut admitted = head.admit(tenant, batch, limits.active_streams_max).into_iter();
            batch.streams.retain(|s| {
                let admitted = admitted.next().unwrap_or(true);
                if !admitted {
                    refused.add(ErrorKind::LimitExceeded, "stream_limit", s.entries.len() as u64, || {
                        format!(
                            "maximum active stream limit exceeded when trying to create stream {}, reduce the number of \
                             active streams (reduce labels or reduce label values), or contact your Loki administrator \
                             to see if the limit can be increased, user: '{tenant}'",
                            s.labels
                        )
                    });
                }
                admitted
            });
        }
        refused.0
    }
}

/// Refusals by reason; the first one of each gives the message.
#[derive(Default)]
struct Refused(Vec<Rejection>);

impl Refused {
    fn add(&mut self, kind: ErrorKind, reason: &'static str, count: u64, message: impl FnOnce() -> String) {
        match self.0.iter_mut().find(|r| r.reason == reason) {
            Some(r) => r.count += count,
            None => self.0.push(Rejection {
                kind,
                reason,
                message: message(),
                count,
            }),
        }
    }
}

/// Whole seconds, as upstream prints times in messages.
fn rfc3339(ts_ns: i64) -> String {
    jiff::Timestamp::from_second(ts_ns.div_euclid(1_000_000_000)).map_or_else(
        |_| format!("{ts_ns} ns"),
        |t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    )
}

#[async_trait]
impl LogSink for LogsStore {
    async fn append(&self, tenant: &TenantId, mut batch: LogBatch) -> Result<Appended> {
        let limits = self.limits.limits(tenant);
        let rejections = self.admit(tenant, &mut batch, &limits);
        let rejected = rejections.iter().map(|r| r.count).sum();
        let accepted = batch.entry_count() as u64;
        if accepted > 0 {
            let bytes: usize = batch
                .streams
                .iter()
                .flat_map(|s| &s.entries)
                .map(|e| e.line.len())
                .sum();
            let small = bytes < INLINE_BYTES;
            let (batch, payload) = if small {
                let payload = wal::encode(&batch)?;
                (batch, payload)
            } else {
                let encode = move || wal::encode(&batch).map(|payload| (batch, payload));
                task::compute(encode).await??
            };
            // A task of its own: from the log into the head also when the client has gone.
            let logged = log_and_apply(
                self.shard.clone(),
                self.wal.clone(),
                tenant.clone(),
                batch,
                payload,
                small,
            );
            task::spawn("logs-append", logged)
                .await
                .map_err(|e| Error::internal(format!("an append failed: {e}")))??;
            self.counters.line_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        self.counters.entries.fetch_add(accepted, Ordering::Relaxed);
        self.counters.rejected_entries.fetch_add(rejected, Ordering::Relaxed);
        Ok(Appended {
            accepted,
            rejections,
            ..Appended::default()
        })
    }
}

async fn log_and_apply(
    shard: Shard<LogsEngine>,
    wal: Wal,
    tenant: TenantId,
    batch: LogBatch,
    payload: Bytes,
    small: bool,
) -> Result<()> {
    let (ticket, (lsn, pending)) = shard.begin(|| {
        let (lsn, pending) = wal.append(Signal::Logs, &tenant, payload)?;
        Ok((lsn.0, (lsn.0, pending)))
    })?;
    pending.durable().await?;
    if small {
        let full = ticket.head().apply(&tenant, lsn, &batch);
        if !full.is_empty() {
            task::compute(move || ticket.head().pack(&full)).await?;
        }
        return Ok(());
    }
    let apply = move || {
        let full = ticket.head().apply(&tenant, lsn, &batch);
        ticket.head().pack(&full);
    };
    task::compute(apply).await
}

#[async_trait]
impl EntrySource for LogsStore {
    fn select(&self, ctx: &QueryContext, request: EntryRequest) -> ResultStream<EntryBatch> {
        select::select(self.shard.view(), self.cache.clone(), ctx, request)
    }

    async fn streams(&self, ctx: &QueryContext, request: LabelRequest) -> Result<Vec<Labels>> {
        labels::streams(self.shard.view(), &self.cache, ctx, request).await
    }

    async fn label_names(&self, ctx: &QueryContext, request: LabelRequest) -> Result<Vec<String>> {
        labels::names(self.shard.view(), &self.cache, ctx, request).await
    }

    async fn label_values(&self, ctx: &QueryContext, name: &str, request: LabelRequest) -> Result<Vec<String>> {
        labels::values(self.shard.view(), &self.cache, ctx, name, request).await
    }
}

#[cfg(test)]
mod tests;
