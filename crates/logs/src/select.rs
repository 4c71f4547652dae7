//! Queries: the rows of heads and blocks, merged into the order of the request.
//!
//! ```text
//! heads ──────────────────────────► chunks ┐
//! blocks, not opened ► directories ► pages ┴► scan (range, filters) ► merger ► batches
//! ```
//!
//! Nothing is read before the merger asks for it, so a query with a limit, or one whose stream is dropped, costs what it
//! delivers. Blocks are opened and pages fetched in waves that double while the query goes on.
//!
//! A query that wants neither lines nor metadata and has no filters reads the keys of pages only. Lines are then needed
//! just where the same stream has rows in two places at overlapping times, to tell duplicates from different lines.
//!
//! What a query holds is booked in its memory budget until the last slice of it is dropped. Corrupt blocks and pages
//! are skipped with a warning.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use hashbrown::HashMap;
use trilith_block::{BlockHandle, View};
use trilith_index::LabelIndex as _;
use trilith_model::{Error, ErrorKind, Labels, Matcher, Result, TimeRange, task};
use trilith_query::{Entry, EntryBatch, EntryRequest, QueryContext, QueryStats, ResultStream, WantedFields};

use crate::block::reader::{BlockCache, OpenBlock, StoredPage};
use crate::engine::LogsEngine;
use crate::filter::Filters;
use crate::head::chunk::Chunk;
use crate::order::{Load, Merger, RowRef, Step};
use crate::page::{BookedLines, Run};
use crate::scan::{Scanned, scan, wanted_runs};

/// Entries of a full batch.
const BATCH_ENTRIES: usize = 4096;

/// A batch goes out early when it has this many entries and more would take a read: the caller may have enough.
const BATCH_ENTRIES_EARLY: usize = 256;

/// Loads of the first and of the largest wave.
const WAVE_MIN: usize = 2;
const WAVE_MAX: usize = 16;

/// Blocks opened at the same time.
const OPEN_PARALLEL: usize = 16;

/// Pages decoded at the same time by one query.
const DECODE_PARALLEL: usize = 2;

/// Where rows come from.
enum Source {
    Head {
        chunks: Vec<Arc<Chunk>>,
        selected: Arc<[(u32, u32)]>,
    },
    Closed(BlockHandle),
    Open {
        block: Arc<OpenBlock>,
        selected: Arc<[(u32, u32)]>,
    },
    /// Corrupt, or without a selected stream.
    Nothing,
}

/// What of a block a query needs.
pub(crate) struct BlockPlan {
    /// Selected streams with rows in range: ordinal (ascending), labels, time of its rows in the block.
    pub streams: Vec<(u32, Labels, TimeRange)>,
    /// Pages with such rows and the time of these rows, cut to the range.
    pages: Vec<(u32, TimeRange)>,
}

impl BlockPlan {
    /// CPU work.
    ///
    /// # Errors
    /// `Corrupt`, and those of `check`.
    pub fn new(
        block: &OpenBlock,
        matchers: &[Matcher],
        time: TimeRange,
        check: &dyn Fn() -> Result<()>,
    ) -> Result<BlockPlan> {
        let matching = trilith_index::select(&block.index, matchers, check)?;
        let mut times = vec![TimeRange::EMPTY; block.index.series_count() as usize];
        let mut pages = Vec::new();
        if !matching.is_empty() {
            for page in 0..block.directory.pages.len() {
                let mut page_time = TimeRange::EMPTY;
                for run in block.directory.runs_of(page) {
                    let run_time = TimeRange::new(run.ts_min, run.ts_max);
                    if time.overlaps(run_time) && matching.contains(run.stream) {
                        page_time = page_time.union(run_time);
                        let stream = &mut times[run.stream as usize];
                        *stream = stream.union(run_time);
                    }
                }
                if !page_time.is_empty() {
                    pages.push((page as u32, intersection(page_time, time)));
                }
            }
        }
        let mut streams = Vec::new();
        for (ordinal, time) in times.iter().enumerate().filter(|(_, t)| !t.is_empty()) {
            if ordinal % 1024 == 0 {
                check()?;
            }
            streams.push((ordinal as u32, block.index.labels(ordinal as u32)?, *time));
        }
        Ok(BlockPlan { streams, pages })
    }
}

fn intersection(a: TimeRange, b: TimeRange) -> TimeRange {
    TimeRange::new(a.min.max(b.min), a.max.min(b.max))
}

/// One running selection.
struct Selection {
    ctx: QueryContext,
    matchers: Arc<[Matcher]>,
    time: TimeRange,
    filters: Arc<Filters>,
    fields: WantedFields,
    /// Keys suffice, except where duplicates are possible.
    keys_only: bool,
    /// Entries that may still go out.
    left: usize,
    sent: u64,
    wave: usize,
    view: Option<Arc<View<LogsEngine>>>,
    cache: Arc<BlockCache>,
    /// `None` only while it is away in the compute pool.
    merger: Option<Merger>,
    sources: Vec<Source>,
    /// Per source, with `keys_only`: streams (ascending ids) and the time of their rows in it.
    spans: Vec<Vec<(u32, TimeRange)>>,
    rows: Vec<RowRef>,
}

/// See [`trilith_query::EntrySource::select`].
pub(crate) fn select(
    view: Arc<View<LogsEngine>>,
    cache: Arc<BlockCache>,
    ctx: &QueryContext,
    request: EntryRequest,
) -> ResultStream<EntryBatch> {
    if request.start_ns >= request.end_ns || request.limit == Some(0) {
        return stream::empty().boxed();
    }
    let fields = request.fields;
    let selection = Selection {
        ctx: ctx.clone(),
        matchers: request.matchers.into(),
        time: TimeRange::new(request.start_ns, request.end_ns - 1),
        keys_only: !fields.line && !fields.metadata && request.filters.is_empty(),
        filters: Arc::new(Filters::new(&request.filters)),
        fields,
        left: request.limit.unwrap_or(usize::MAX),
        sent: 0,
        wave: WAVE_MIN,
        view: Some(view),
        cache,
        merger: Some(Merger::new(request.direction)),
        sources: Vec::new(),
        spans: Vec::new(),
        rows: Vec::new(),
    };
    stream::try_unfold(
        selection,
        |mut s| async move { Ok(s.next().await?.map(|batch| (batch, s))) },
    )
    .boxed()
}

impl Selection {
    async fn next(&mut self) -> Result<Option<EntryBatch>> {
        if let Some(view) = self.view.take() {
            self.start(&view).await?;
        }
        loop {
            self.ctx.check()?;
            if self.left == 0 {
                return Ok(None);
            }
            let (step, batch) = self.step().await?;
            if batch.is_some() {
                return Ok(batch);
            }
            match step {
                Step::Rows => {}
                Step::Load => self.load().await?,
                Step::Done => return Ok(None),
            }
        }
    }

    /// Runs the merger until a batch is ready or a load is due.
    async fn step(&mut self) -> Result<(Step, Option<EntryBatch>)> {
        let mut merger = self.take_merger()?;
        let mut rows = std::mem::take(&mut self.rows);
        let (fields, left) = (self.fields, self.left);
        let work = move || {
            let step = merger.step(&mut rows, BATCH_ENTRIES.min(left));
            rows.truncate(left);
            let due = rows.len() >= BATCH_ENTRIES_EARLY.min(left) || step != Step::Load;
            let batch = (due && !rows.is_empty()).then(|| {
                let batch = batch(&merger, &rows, fields);
                rows.clear();
                batch
            });
            (merger, rows, step, batch)
        };
        let (merger, rows, step, batch) = task::compute(work).await?;
        (self.merger, self.rows) = (Some(merger), rows);
        if let Some(batch) = &batch {
            self.left -= batch.entries.len();
            self.sent += batch.entries.len() as u64;
            QueryStats::add(&self.ctx.stats.entries_returned, batch.entries.len() as u64);
            let max = self.ctx.limits.query_entries_max;
            if max != 0 && self.sent > max {
                return Err(Error::new(
                    ErrorKind::Execution,
                    format!(
                        "query selects more than {max} entries (limits.query-entries); narrow the selector or the range"
                    ),
                ));
            }
        }
        Ok((step, batch))
    }

    fn take_merger(&mut self) -> Result<Merger> {
        self.merger
            .take()
            .ok_or_else(|| Error::internal("a failed selection was polled again"))
    }

    fn merger(&mut self) -> Result<&mut Merger> {
        self.merger
            .as_mut()
            .ok_or_else(|| Error::internal("a failed selection was polled again"))
    }

    /// Takes the heads' part of the answer and lists the blocks.
    async fn start(&mut self, view: &Arc<View<LogsEngine>>) -> Result<()> {
        self.ctx.check()?;
        let parts = {
            let (view, ctx, matchers, time) = (view.clone(), self.ctx.clone(), self.matchers.clone(), self.time);
            task::compute(move || {
                let tenants = view.heads.iter().filter_map(|h| h.tenant(&ctx.tenant));
                tenants
                    .map(|t| t.select(&matchers, time, &|| ctx.check()))
                    .collect::<Result<Vec<_>>>()
            })
            .await??
        };
        for part in parts.into_iter().flatten() {
            let time = self.time;
            let merger = self.merger()?;
            let source = merger.add_source(false);
            let (ordinals, labels): (Vec<u32>, Vec<Labels>) = part.streams.into_iter().unzip();
            let ids = merger.add_streams(labels);
            for (no, chunk) in part.chunks.iter().enumerate() {
                let time = intersection(chunk.time, time);
                merger.add_load(
                    Load {
                        source,
                        page: Some(no as u32),
                    },
                    time.min,
                    time.max,
                );
            }
            let selected: Arc<[(u32, u32)]> = ordinals.into_iter().zip(ids).collect();
            self.spans.push(if self.keys_only {
                head_spans(&part.chunks, &selected, self.time)
            } else {
                Vec::new()
            });
            self.sources.push(Source::Head {
                chunks: part.chunks,
                selected,
            });
        }
        let tenant = self.ctx.tenant.clone();
        for handle in view.blocks_of(&tenant, self.time) {
            let time = intersection(TimeRange::new(handle.meta.time_min, handle.meta.time_max), self.time);
            let merger = self.merger()?;
            let source = merger.add_source(true);
            merger.add_load(Load { source, page: None }, time.min, time.max);
            self.spans.push(Vec::new());
            self.sources.push(Source::Closed(handle.clone()));
        }
        if self.keys_only {
            // Which pages need their lines shows when all blocks are open. Head chunks that were due go back.
            let loads = self.merger()?.take_loads(usize::MAX);
            let (blocks, chunks): (Vec<Load>, Vec<Load>) = loads.into_iter().partition(|l| l.page.is_none());
            for load in chunks {
                if let Source::Head { chunks, .. } = &self.sources[load.source as usize] {
                    let time = intersection(chunks[load.page.unwrap_or_default() as usize].time, self.time);
                    self.merger()?.add_load(load, time.min, time.max);
                }
            }
            self.open(blocks).await?;
        }
        Ok(())
    }

    async fn load(&mut self) -> Result<()> {
        let wave = self.wave.min(self.left);
        let loads = self.merger()?.take_loads(wave);
        let (blocks, pages): (Vec<Load>, Vec<Load>) = loads.into_iter().partition(|l| l.page.is_none());
        // Opening is no reason to believe that much will be read.
        if !pages.is_empty() {
            self.wave = (self.wave * 2).min(WAVE_MAX);
        }
        self.open(blocks).await?;
        self.read(pages).await
    }

    /// Opens blocks and lists their pages.
    async fn open(&mut self, loads: Vec<Load>) -> Result<()> {
        let mut opening = stream::iter(loads.into_iter().map(|load| {
            let handle = match &self.sources[load.source as usize] {
                Source::Closed(handle) => Some(handle.clone()),
                _ => None,
            };
            let (cache, ctx) = (self.cache.clone(), self.ctx.clone());
            let (matchers, time) = (self.matchers.clone(), self.time);
            async move {
                let handle = handle.ok_or_else(|| Error::internal("a block is opened once"))?;
                let opened = async {
                    let block = cache.open(&handle).await?;
                    let plan = {
                        let (block, ctx) = (block.clone(), ctx.clone());
                        task::compute(move || BlockPlan::new(&block, &matchers, time, &|| ctx.check())).await??
                    };
                    QueryStats::add(&ctx.stats.blocks_read, 1);
                    Ok((block, plan))
                };
                Ok::<_, Error>((load.source, skip_corrupt(&ctx, &handle, opened.await)?))
            }
        }))
        .buffered(OPEN_PARALLEL);
        let mut opened = Vec::new();
        while let Some(one) = opening.next().await {
            self.ctx.check()?;
            opened.push(one?);
        }
        drop(opening);
        for (source, opened) in opened {
            let Some((block, plan)) = opened else {
                self.sources[source as usize] = Source::Nothing;
                continue;
            };
            let merger = self.merger()?;
            let ids = merger.add_streams(plan.streams.iter().map(|(_, labels, _)| labels.clone()));
            for (page, time) in plan.pages {
                merger.add_load(
                    Load {
                        source,
                        page: Some(page),
                    },
                    time.min,
                    time.max,
                );
            }
            if self.keys_only {
                let mut spans: Vec<(u32, TimeRange)> =
                    ids.iter().zip(&plan.streams).map(|(&id, s)| (id, s.2)).collect();
                spans.sort_unstable_by_key(|s| s.0);
                self.spans[source as usize] = spans;
            }
            let selected = plan.streams.iter().map(|s| s.0).zip(ids).collect();
            self.sources[source as usize] = Source::Open { block, selected };
        }
        Ok(())
    }

    /// Whether rows of the runs may have duplicates in another source than their own block.
    fn may_repeat(&self, source: u32, runs: &[(Run, u32)]) -> bool {
        let repeats = |spans: &Vec<(u32, TimeRange)>, (run, id): &(Run, u32)| {
            spans
                .binary_search_by_key(id, |s| s.0)
                .is_ok_and(|at| spans[at].1.overlaps(TimeRange::new(run.ts_min, run.ts_max)))
        };
        let mut others = self.spans.iter().enumerate().filter(|(i, _)| *i != source as usize);
        others.any(|(_, spans)| runs.iter().any(|run| repeats(spans, run)))
    }

    /// Reads, decodes and scans pages and chunks.
    async fn read(&mut self, loads: Vec<Load>) -> Result<()> {
        let mut jobs = Vec::with_capacity(loads.len());
        for load in loads {
            let no = load.page.unwrap_or_default();
            let job = match &self.sources[load.source as usize] {
                Source::Head { chunks, selected } => {
                    let chunk = chunks[no as usize].clone();
                    Job::Chunk(wanted_runs(&chunk.runs, selected, self.time), chunk)
                }
                Source::Open { block, selected, .. } => {
                    let runs = wanted_runs(block.directory.runs_of(no as usize), selected, self.time);
                    let lines = !self.keys_only || self.may_repeat(load.source, &runs);
                    Job::Page(runs, block.clone(), lines)
                }
                Source::Closed(_) | Source::Nothing => continue,
            };
            jobs.push((load, job));
        }
        let scanned: Vec<(Load, Option<Scanned>)> = {
            let reading = jobs.into_iter().map(|(load, job)| {
                let ctx = self.ctx.clone();
                async move {
                    let input = match job {
                        Job::Chunk(runs, chunk) => Input::Chunk(runs, chunk),
                        Job::Page(runs, block, lines) => {
                            let stored = block.fetch(load.page.unwrap_or_default(), lines).await;
                            if let Ok(stored) = &stored {
                                QueryStats::add(&ctx.stats.bytes_read, stored.stored_bytes() as u64);
                            }
                            Input::Page(runs, stored)
                        }
                    };
                    (load, input)
                }
            });
            let decoding = stream::iter(reading).buffered(WAVE_MAX).map(|(load, input)| {
                let (ctx, filters, time) = (self.ctx.clone(), self.filters.clone(), self.time);
                let from = match &self.sources[load.source as usize] {
                    Source::Open { block, .. } => block.name.clone(),
                    _ => "head".into(),
                };
                async move {
                    let scanned = {
                        let ctx = ctx.clone();
                        task::compute(move || input.scan(&ctx, time, &filters)).await?
                    };
                    match scanned {
                        Err(e) if e.kind == ErrorKind::Corrupt => {
                            warn_corrupt(&ctx, &from, &e);
                            Ok((load, None))
                        }
                        other => Ok::<_, Error>((load, Some(other?))),
                    }
                }
            });
            let mut decoding = decoding.buffered(DECODE_PARALLEL);
            let mut out = Vec::new();
            while let Some(one) = decoding.next().await {
                self.ctx.check()?;
                out.push(one?);
            }
            out
        };
        for (load, scanned) in scanned {
            let Some(Scanned { page, rows, scanned }) = scanned else {
                continue;
            };
            QueryStats::add(&self.ctx.stats.entries_scanned, scanned);
            self.merger()?
                .add_page(load.source, load.page.unwrap_or_default(), &page, rows);
        }
        Ok(())
    }
}

/// Streams of a head's part and the time of their rows, by stream.
fn head_spans(chunks: &[Arc<Chunk>], selected: &[(u32, u32)], time: TimeRange) -> Vec<(u32, TimeRange)> {
    let mut spans: HashMap<u32, TimeRange, foldhash::fast::RandomState> = HashMap::default();
    for chunk in chunks {
        for (run, id) in wanted_runs(&chunk.runs, selected, time) {
            let span = spans.entry(id).or_insert(TimeRange::EMPTY);
            *span = span.union(TimeRange::new(run.ts_min, run.ts_max));
        }
    }
    let mut spans: Vec<_> = spans.into_iter().collect();
    spans.sort_unstable_by_key(|s| s.0);
    spans
}

enum Job {
    Chunk(Vec<(Run, u32)>, Arc<Chunk>),
    Page(Vec<(Run, u32)>, Arc<OpenBlock>, bool),
}

enum Input {
    Chunk(Vec<(Run, u32)>, Arc<Chunk>),
    Page(Vec<(Run, u32)>, Result<StoredPage>),
}

impl Input {
    fn scan(self, ctx: &QueryContext, time: TimeRange, filters: &Filters) -> Result<Scanned> {
        ctx.check()?;
        let memory = Some(&ctx.memory);
        match self {
            Input::Chunk(runs, chunk) => {
                let booked = chunk
                    .is_packed()
                    .then(|| ctx.memory.reserve(chunk.raw_len))
                    .transpose()?;
                let lines = chunk.lines(booked)?;
                QueryStats::add(&ctx.stats.bytes_decoded, lines.len() as u64);
                scan(chunk.keys.clone(), Some(lines), None, &runs, time, filters, memory)
            }
            Input::Page(runs, stored) => {
                let stored = stored?;
                let (keys_bytes, line_bytes) = stored.decoded_bytes();
                let booked = ctx.memory.reserve(keys_bytes)?;
                let lines_booked = ctx.memory.reserve(line_bytes)?;
                let (keys, lines) = stored.decode()?;
                QueryStats::add(&ctx.stats.bytes_decoded, (keys_bytes + line_bytes) as u64);
                let lines = lines.map(|bytes| BookedLines::share(bytes, Some(lines_booked)));
                scan(Arc::new(keys), lines, Some(booked), &runs, time, filters, memory)
            }
        }
    }
}

fn batch(merger: &Merger, rows: &[RowRef], fields: WantedFields) -> EntryBatch {
    let mut out = EntryBatch {
        streams: Vec::new(),
        entries: Vec::with_capacity(rows.len()),
    };
    let mut local: HashMap<u32, u32, foldhash::fast::RandomState> = HashMap::default();
    let mut last = None;
    let empty = Labels::empty();
    for row in rows {
        let stream = match last {
            Some((id, stream)) if id == row.stream => stream,
            _ => *local.entry(row.stream).or_insert_with(|| {
                out.streams.push(merger.streams.labels[row.stream as usize].clone());
                out.streams.len() as u32 - 1
            }),
        };
        last = Some((row.stream, stream));
        out.entries.push(Entry {
            stream,
            ts_ns: row.ts(),
            line: if fields.line {
                row.page.line_bytes(row.row as usize)
            } else {
                Bytes::new()
            },
            line_len: row.line_len(),
            metadata: match row.metadata() {
                Some(m) if fields.metadata => m.clone(),
                _ => empty.clone(),
            },
        });
    }
    out
}

/// `None` and a warning for a corrupt block.
pub(crate) fn skip_corrupt<T>(ctx: &QueryContext, handle: &BlockHandle, result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(e) if e.kind == ErrorKind::Corrupt => {
            warn_corrupt(ctx, &handle.meta.id.to_string(), &e);
            Ok(None)
        }
        other => other.map(Some),
    }
}

fn warn_corrupt(ctx: &QueryContext, block: &str, error: &Error) {
    tracing::error!(tenant = %ctx.tenant, block, %error, "corrupt logs block, parts of it are left out of an answer");
    ctx.warn(format!(
        "block {block} is corrupt, the answer lacks some of its entries: {error}"
    ));
}
