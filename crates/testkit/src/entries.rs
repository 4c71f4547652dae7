//! A logs store in memory: the reference for the waist's contract, and the source of language tests.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use parking_lot::RwLock;
use trilith_model::{Appended, Labels, LogBatch, LogEntry, LogSink, LogStream, Result, TenantId};
use trilith_query::{
    Direction, Entry, EntryBatch, EntryRequest, EntrySource, LabelRequest, QueryContext, QueryStats, ResultStream,
};

use crate::series::{all_match, any_set_matches, cut};

/// Entries per batch; small, so that tests see several batches.
const BATCH_ENTRIES: usize = 100;

/// Streams by tenant. An entry with the time, line and metadata of one already there is dropped.
#[derive(Debug, Default)]
pub struct MemoryEntries {
    /// Entries in arrival order.
    tenants: RwLock<HashMap<TenantId, BTreeMap<Labels, Vec<LogEntry>>>>,
}

/// A batch of streams given as (labels, entries).
pub fn log_batch(streams: impl IntoIterator<Item = (Labels, Vec<LogEntry>)>) -> LogBatch {
    LogBatch {
        streams: streams
            .into_iter()
            .map(|(labels, entries)| LogStream { labels, entries })
            .collect(),
    }
}

/// An entry without structured metadata.
pub fn entry(ts_ns: i64, line: impl Into<Bytes>) -> LogEntry {
    LogEntry {
        ts_ns,
        line: line.into(),
        metadata: Labels::empty(),
    }
}

impl MemoryEntries {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Adds entries to one stream.
    pub fn push(&self, tenant: &TenantId, labels: Labels, entries: impl IntoIterator<Item = LogEntry>) {
        let mut tenants = self.tenants.write();
        let stream = tenants.entry(tenant.clone()).or_default().entry(labels).or_default();
        for e in entries {
            if !stream.contains(&e) {
                stream.push(e);
            }
        }
    }

    fn matching(&self, ctx: &QueryContext, request: &LabelRequest) -> Vec<Labels> {
        let tenants = self.tenants.read();
        let Some(streams) = tenants.get(&ctx.tenant) else {
            return Vec::new();
        };
        streams
            .iter()
            .filter(|(l, _)| any_set_matches(&request.matcher_sets, l))
            .filter(|(_, es)| es.iter().any(|e| request.start <= e.ts_ns && e.ts_ns <= request.end))
            .map(|(l, _)| l.clone())
            .collect()
    }
}

#[async_trait]
impl LogSink for MemoryEntries {
    async fn append(&self, tenant: &TenantId, batch: LogBatch) -> Result<Appended> {
        let accepted = batch.entry_count() as u64;
        for s in batch.streams {
            self.push(tenant, s.labels, s.entries);
        }
        Ok(Appended {
            accepted,
            rejections: Vec::new(),
            ..Appended::default()
        })
    }
}

#[async_trait]
impl EntrySource for MemoryEntries {
    fn select(&self, ctx: &QueryContext, request: EntryRequest) -> ResultStream<EntryBatch> {
        let mut streams: Vec<Labels> = Vec::new();
        let mut entries: Vec<Entry> = Vec::new();
        if let Some(tenant) = self.tenants.read().get(&ctx.tenant) {
            for (labels, stored) in tenant.iter().filter(|(l, _)| all_match(&request.matchers, l)) {
                let stream = streams.len() as u32;
                streams.push(labels.clone());
                for e in stored {
                    if request.start_ns <= e.ts_ns
                        && e.ts_ns < request.end_ns
                        && request.filters.iter().all(|f| f.matches(&e.line))
                    {
                        entries.push(Entry {
                            stream,
                            ts_ns: e.ts_ns,
                            line: if request.fields.line {
                                e.line.clone()
                            } else {
                                Bytes::new()
                            },
                            line_len: e.line.len() as u32,
                            metadata: if request.fields.metadata {
                                e.metadata.clone()
                            } else {
                                Labels::empty()
                            },
                        });
                    }
                }
            }
        }
        // Stable: entries come by stream in label order and by arrival within.
        entries.sort_by_key(|e| e.ts_ns);
        if request.direction == Direction::Backward {
            entries.reverse();
        }
        entries.truncate(request.limit.unwrap_or(usize::MAX));

        let ctx = ctx.clone();
        let runs: Vec<Vec<Entry>> = entries.chunks(BATCH_ENTRIES).map(<[Entry]>::to_vec).collect();
        futures::stream::iter(runs)
            .map(move |entries| {
                ctx.check()?;
                QueryStats::add(&ctx.stats.entries_scanned, entries.len() as u64);
                Ok(EntryBatch {
                    streams: streams.clone(),
                    entries,
                })
            })
            .boxed()
    }

    async fn streams(&self, ctx: &QueryContext, request: LabelRequest) -> Result<Vec<Labels>> {
        Ok(cut(self.matching(ctx, &request), request.limit))
    }

    async fn label_names(&self, ctx: &QueryContext, request: LabelRequest) -> Result<Vec<String>> {
        let names: BTreeSet<String> = self
            .matching(ctx, &request)
            .iter()
            .flat_map(|l| l.iter().map(|l| l.name.to_owned()))
            .collect();
        Ok(cut(names.into_iter().collect(), request.limit))
    }

    async fn label_values(&self, ctx: &QueryContext, name: &str, request: LabelRequest) -> Result<Vec<String>> {
        let values: BTreeSet<String> = self
            .matching(ctx, &request)
            .iter()
            .filter_map(|l| l.get(name).map(str::to_owned))
            .collect();
        Ok(cut(values.into_iter().collect(), request.limit))
    }
}
