//! Heads and blocks behind one face: which traces may match, which traces are there, their spans.

use std::collections::VecDeque;
use std::sync::Arc;

use trilith_block::{BlockHandle, View};
use trilith_model::{Error, ErrorKind, Result, TenantId, TimeRange, TraceId, task};
use trilith_query::QueryContext;
use trilith_query::span_rows::{RowFilter, TraceRows};

use crate::column_filter::ColumnFilter;
use crate::engine::TracesEngine;
use crate::head::TenantHead;
use crate::reader::{BlockReader, ReaderCache};
use crate::schema::Column;
use crate::trace_index::Entry;
use crate::writer::clamp;

/// Ids of a head that are tested under one lock.
const HEAD_STEP: usize = 512;

/// One place where spans of the tenant are.
#[derive(Clone)]
pub struct Source {
    place: Place,
    /// Earliest start and latest end of its spans.
    pub start_ns: u64,
    pub end_ns: u64,
}

#[derive(Clone)]
enum Place {
    Head(Arc<TenantHead>),
    Block(BlockHandle),
}

/// The range of a request in the unit of block times.
fn block_range(start_ns: u64, end_ns: u64) -> TimeRange {
    TimeRange::new(
        clamp(start_ns),
        if end_ns == u64::MAX {
            i64::MAX
        } else {
            clamp(end_ns.saturating_sub(1))
        },
    )
}

impl Source {
    /// Heads and blocks of a tenant that meet `[start_ns, end_ns)`, newest end first.
    pub fn of(view: &View<TracesEngine>, tenant: &TenantId, start_ns: u64, end_ns: u64) -> Vec<Source> {
        let range = block_range(start_ns, end_ns);
        let mut out = Vec::new();
        for head in &view.heads {
            if let Some(head) = head.tenant(tenant)
                && let Some((start, end)) = head.time()
                && range.overlaps(TimeRange::new(clamp(start), clamp(end)))
            {
                out.push(Source {
                    place: Place::Head(head),
                    start_ns: start,
                    end_ns: end,
                });
            }
        }
        for block in view.blocks_of(tenant, range) {
            // The last block time stands for everything after it.
            let up = |t: i64| {
                if t == i64::MAX {
                    u64::MAX
                } else {
                    u64::try_from(t).unwrap_or(0)
                }
            };
            out.push(Source {
                start_ns: up(block.meta.time_min),
                end_ns: up(block.meta.time_max),
                place: Place::Block(block.clone()),
            });
        }
        out.sort_by_key(|s| std::cmp::Reverse(s.end_ns));
        out
    }

    pub fn head(&self) -> Option<&Arc<TenantHead>> {
        match &self.place {
            Place::Head(h) => Some(h),
            Place::Block(_) => None,
        }
    }

    /// The open block; `None` for a head, and for a block that cannot be read, which is reported in the context.
    pub async fn block(&self, ctx: &QueryContext, cache: &ReaderCache) -> Result<Option<Arc<BlockReader>>> {
        match &self.place {
            Place::Head(_) => Ok(None),
            Place::Block(handle) => skip_damaged(ctx, handle, cache.get(handle).await),
        }
    }

    /// Spans of those of the traces (sorted) that are here.
    pub async fn rows(
        &self,
        ctx: &QueryContext,
        cache: &ReaderCache,
        ids: &Arc<Vec<TraceId>>,
        columns: &[Column],
    ) -> Result<Vec<TraceRows>> {
        ctx.check()?;
        match &self.place {
            Place::Head(head) => {
                let (head, ids) = (head.clone(), ids.clone());
                if ids.len() == 1 && !head.contains(ids[0]) {
                    return Ok(Vec::new());
                }
                task::compute(move || head.rows(&ids)).await?
            }
            Place::Block(handle) => {
                let read = async {
                    let block = cache.get(handle).await?;
                    let entries = block.lookup(ids).await?;
                    block.rows(&entries, columns, Some(ctx.stats.clone())).await
                };
                Ok(skip_damaged(ctx, handle, read.await)?.unwrap_or_default())
            }
        }
    }
}

/// A damaged or vanished block costs its spans and a warning, not the answer.
pub fn skip_damaged<T>(ctx: &QueryContext, handle: &BlockHandle, result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(v) => Ok(Some(v)),
        Err(e) if matches!(e.kind, ErrorKind::Corrupt | ErrorKind::NotFound) => {
            tracing::error!(block = %handle.meta.id, tenant = %handle.meta.tenant, error = %e, "a block cannot be read and is left out");
            ctx.warn(format!(
                "block {} cannot be read and is left out of the answer",
                handle.meta.id
            ));
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// Walks the traces of one source that may have a span of interest, in groups.
pub enum Candidates {
    Head {
        head: Arc<TenantHead>,
        ids: VecDeque<TraceId>,
    },
    Block {
        block: Arc<BlockReader>,
        filter: ColumnFilter,
        page: Option<usize>,
        ready: VecDeque<Entry>,
    },
    Done,
}

/// Bounds of a group: what is decoded and joined at a time.
const GROUP_TRACES: usize = 2048;
const GROUP_ROWS: u64 = 16 << 10;

impl Candidates {
    pub async fn new(
        source: &Source,
        ctx: &QueryContext,
        cache: &ReaderCache,
        filter: &Arc<RowFilter>,
    ) -> Result<Candidates> {
        if let Some(head) = source.head() {
            if !head.with_facts(|facts| facts.may_match(filter)) {
                return Ok(Candidates::Done);
            }
            let h = head.clone();
            let ids = task::compute(move || h.ids()).await?;
            return Ok(Candidates::Head {
                head: head.clone(),
                ids: ids.into(),
            });
        }
        let Some(block) = source.block(ctx, cache).await? else {
            return Ok(Candidates::Done);
        };
        if !block.facts.may_match(filter) {
            return Ok(Candidates::Done);
        }
        let filter = ColumnFilter::new(filter.clone(), &block);
        if filter.is_hopeless() {
            return Ok(Candidates::Done);
        }
        Ok(Candidates::Block {
            block,
            filter,
            page: Some(0),
            ready: VecDeque::new(),
        })
    }

    /// The next group, sorted by id; empty at the end. A block that turns out to be damaged ends early, with a warning.
    pub async fn next(&mut self, ctx: &QueryContext, filter: &Arc<RowFilter>) -> Result<Vec<TraceId>> {
        ctx.check()?;
        match self {
            Candidates::Done => Ok(Vec::new()),
            Candidates::Head { head, ids } => {
                while !ids.is_empty() {
                    let step: Vec<TraceId> = ids.drain(..ids.len().min(HEAD_STEP)).collect();
                    let (head, filter) = (head.clone(), filter.clone());
                    let hits = task::compute(move || head.matching(&step, &filter)).await??;
                    if !hits.is_empty() {
                        return Ok(hits);
                    }
                    ctx.check()?;
                }
                Ok(Vec::new())
            }
            Candidates::Block {
                block,
                filter,
                page,
                ready,
            } => {
                while ready.is_empty() {
                    let Some(first) = *page else {
                        return Ok(Vec::new());
                    };
                    let found = block_candidates(block, filter, first, ctx).await;
                    let Some((more, next)) = skip_damaged(ctx, &block.handle, found)? else {
                        *self = Candidates::Done;
                        return Ok(Vec::new());
                    };
                    ready.extend(more);
                    *page = next;
                    ctx.check()?;
                }
                let mut out = Vec::new();
                let mut rows = 0;
                while let Some(e) = ready.front()
                    && out.len() < GROUP_TRACES
                    && (out.is_empty() || rows + (e.rows.end - e.rows.start) <= GROUP_ROWS)
                {
                    rows += e.rows.end - e.rows.start;
                    out.push(e.id);
                    ready.pop_front();
                }
                Ok(out)
            }
        }
    }
}

/// Traces on some index pages that may match, and the next page.
async fn block_candidates(
    block: &Arc<BlockReader>,
    filter: &ColumnFilter,
    first_page: usize,
    ctx: &QueryContext,
) -> Result<(Vec<Entry>, Option<usize>)> {
    let (entries, next) = block.entries(first_page).await?;
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
        return Ok((entries, next));
    };
    if filter.is_blind() {
        return Ok((entries, next));
    }
    let rows = first.rows.start..last.rows.end;
    let mut hits: Vec<bool> = Vec::new();
    let mut scan = block.scan(
        Some(std::slice::from_ref(&rows)),
        &filter.columns(),
        Some(ctx.stats.clone()),
    )?;
    while let Some(batch) = scan.next().await? {
        hits.extend(filter.matches(&batch)?);
        ctx.check()?;
    }
    if hits.len() as u64 != rows.end - rows.start {
        return Err(Error::corrupt(format!(
            "{} rows where the index says {rows:?}",
            hits.len()
        )));
    }
    let base = rows.start;
    let hit = |e: &Entry| hits[(e.rows.start - base) as usize..(e.rows.end - base) as usize].contains(&true);
    Ok((entries.into_iter().filter(hit).collect(), next))
}
