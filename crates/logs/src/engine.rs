//! Cut, merge and verification: heads and blocks in, blocks out, through the one order of entries.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use trilith_block::{BlockDraft, BlockHandle, Engine, Merge};
use trilith_model::{Error, Result, Signal, TenantId, TimeRange, task};
use trilith_query::Direction;

use crate::block::reader::OpenBlock;
use crate::block::writer::BlockWriter;
use crate::filter::Filters;
use crate::head::chunk::Chunk;
use crate::head::{HeadPart, LogsHead};
use crate::order::{Load, Merger, RowRef, Step};
use crate::page::{BookedLines, Run};
use crate::scan::scan;

/// zstd levels of pages by the level of the block. Cuts must keep up with ingest, and the first merge's output lives
/// for hours only. On log lines full of ids levels 2 to 5 are larger than level 1 or equal (made logfmt, 315 MB, stored:
/// level 1 54.8 MB, 3 57.9, 5 54.6, 6 52.3, 7 51.8, 9 49.9; CPU of the merge: 1.1 s, 1.3, 2.6, 3.3, 3.6, 4.1).
const ZSTD_LEVELS: [i32; 3] = [1, 1, 6];

/// Blocks do not cross borders of this width, so that retention drops whole blocks and a query of a day opens the
/// blocks of that day.
const WINDOW_NS: i64 = 24 * 3600 * 1_000_000_000;

/// Windows are doubled until a cut or merge makes at most this many blocks: a backfill of years must not leave a
/// thousand blocks per cut.
const WINDOWS_MAX: usize = 32;

/// A merge writes into a file when its inputs are larger than this in sum.
const MERGE_MEMORY_BYTES: u64 = 8 << 20;

/// Rows between two looks at the cancellation and two hand-overs between merger and writer.
const STEP_ROWS: usize = 8192;

/// Pages that a merge fetches together.
const MERGE_FETCH: usize = 8;

/// The logs signal, as the block layer sees it.
#[derive(Debug, Default)]
pub struct LogsEngine;

fn zstd_level(block_level: u8) -> i32 {
    ZSTD_LEVELS[usize::from(block_level).min(ZSTD_LEVELS.len() - 1)]
}

/// Splits time into windows.
#[derive(Clone, Copy, Debug)]
struct Windows {
    width: i64,
}

impl Windows {
    /// The narrowest windows of which the given stretches of time touch at most `WINDOWS_MAX`.
    fn for_times(times: impl Iterator<Item = TimeRange> + Clone) -> Self {
        let mut width = WINDOW_NS;
        loop {
            let windows = Windows { width };
            let mut touched = std::collections::BTreeSet::new();
            let few = times.clone().all(|t| {
                let (first, last) = (windows.of(t.min), windows.of(t.max));
                // A wide stretch need not be walked to know that it touches too many.
                if last - first < WINDOWS_MAX as i64 {
                    touched.extend(first..=last);
                }
                last - first < WINDOWS_MAX as i64 && touched.len() <= WINDOWS_MAX
            });
            if few {
                return windows;
            }
            // Ends: at 2^14 days there are fewer than 32 windows between the ends of 64 bits of nanoseconds.
            width *= 2;
        }
    }

    fn of(self, ts: i64) -> i64 {
        ts.div_euclid(self.width)
    }
}

/// The blocks of one tenant as they are written, one window after the other.
struct Drafts {
    tenant: TenantId,
    windows: Windows,
    zstd_level: i32,
    spool: Option<PathBuf>,
    writer: Option<(i64, BlockWriter)>,
    done: Vec<BlockDraft>,
}

impl Drafts {
    fn push(&mut self, row: RowRef, merger: &Merger) -> Result<()> {
        let window = self.windows.of(row.ts());
        if self.writer.as_ref().is_some_and(|(w, _)| *w != window) {
            self.close(merger)?;
        }
        let writer = match &mut self.writer {
            Some((_, writer)) => writer,
            slot => {
                let path = self
                    .spool
                    .as_ref()
                    .map(|dir| dir.join(format!("{}.logs", self.done.len())));
                &mut slot
                    .insert((window, BlockWriter::new(path.as_deref(), self.zstd_level)?))
                    .1
            }
        };
        writer.push(row, &merger.streams)
    }

    fn close(&mut self, merger: &Merger) -> Result<()> {
        if let Some((_, writer)) = self.writer.take() {
            self.done.extend(writer.finish(&self.tenant, &merger.streams)?);
        }
        Ok(())
    }
}

#[async_trait]
impl Engine for LogsEngine {
    type Head = LogsHead;

    fn signal(&self) -> Signal {
        Signal::Logs
    }

    fn new_head(&self) -> LogsHead {
        LogsHead::default()
    }

    fn cut(&self, head: &LogsHead) -> Result<Vec<BlockDraft>> {
        let mut out = Vec::new();
        for (tenant, tenant_head) in head.all() {
            out.extend(cut_tenant(&tenant, tenant_head.freeze())?);
        }
        Ok(out)
    }

    async fn merge(&self, job: Merge) -> Result<Vec<BlockDraft>> {
        merge(job).await
    }

    async fn verify(&self, block: &BlockHandle) -> Result<()> {
        let open = Arc::new(OpenBlock::open_once(block).await?);
        verify(
            &open,
            block.meta.items,
            TimeRange::new(block.meta.time_min, block.meta.time_max),
        )
        .await
    }
}

/// All runs of a head chunk or page that has no filter applied, by query ids.
fn all_runs(runs: &[Run], ids: &[u32]) -> Vec<(Run, u32)> {
    runs.iter().map(|r| (*r, ids[r.stream as usize])).collect()
}

fn cut_tenant(tenant: &TenantId, part: HeadPart) -> Result<Vec<BlockDraft>> {
    if part.chunks.is_empty() {
        return Ok(Vec::new());
    }
    let mut merger = Merger::new(Direction::Forward);
    let source = merger.add_source(false);
    let ids = merger.add_streams(part.streams.into_iter().map(|(_, labels)| labels));
    for (no, chunk) in part.chunks.iter().enumerate() {
        merger.add_load(
            Load {
                source,
                page: Some(no as u32),
            },
            chunk.time.min,
            chunk.time.max,
        );
    }
    let mut drafts = Drafts {
        tenant: tenant.clone(),
        windows: Windows::for_times(part.chunks.iter().flat_map(|c| chunk_times(c))),
        zstd_level: zstd_level(0),
        spool: None,
        writer: None,
        done: Vec::new(),
    };
    let filters = Filters::new(&[]);
    let mut rows = Vec::new();
    loop {
        let step = merger.step(&mut rows, STEP_ROWS);
        for row in rows.drain(..) {
            drafts.push(row, &merger)?;
        }
        match step {
            Step::Rows => {}
            Step::Load => {
                for load in merger.take_loads(1) {
                    let no = load.page.unwrap_or_default();
                    let chunk = &part.chunks[no as usize];
                    let runs = all_runs(&chunk.runs, &ids);
                    let lines = Some(chunk.lines(None)?);
                    let got = scan(chunk.keys.clone(), lines, None, &runs, TimeRange::ALL, &filters, None)?;
                    merger.add_page(source, no, &got.page, got.rows);
                }
            }
            Step::Done => {
                drafts.close(&merger)?;
                return Ok(drafts.done);
            }
        }
    }
}

/// The times of a chunk's rows, as stretches that lie within a window each.
fn chunk_times(chunk: &Chunk) -> impl Iterator<Item = TimeRange> + Clone + '_ {
    let smallest = Windows { width: WINDOW_NS };
    chunk.runs.iter().flat_map(move |run| {
        // Nearly every run is one stretch, and then its rows need not be looked at.
        let one = smallest.of(run.ts_min) == smallest.of(run.ts_max);
        chunk.keys.ts[run.range()]
            .chunk_by(move |&a, &b| one || smallest.of(a) == smallest.of(b))
            .filter_map(|stretch| Some(TimeRange::new(*stretch.first()?, *stretch.last()?)))
    })
}

async fn merge(job: Merge) -> Result<Vec<BlockDraft>> {
    let Some(first) = job.inputs.first() else {
        return Ok(Vec::new());
    };
    let tenant = TenantId::new(&first.meta.tenant)?;
    let keep = TimeRange::new(job.keep_from.unwrap_or(i64::MIN), i64::MAX);
    let bytes: u64 = job.inputs.iter().map(|b| b.meta.bytes()).sum();
    let times: Vec<TimeRange> = job
        .inputs
        .iter()
        .map(|b| TimeRange::new(b.meta.time_min.max(keep.min), b.meta.time_max))
        .filter(|t| !t.is_empty())
        .collect();

    let mut merger = Merger::new(Direction::Forward);
    let mut blocks = Vec::with_capacity(job.inputs.len());
    for handle in &job.inputs {
        let open = OpenBlock::open_once(handle)
            .await
            .map_err(|e| e.context(format_args!("block {}", handle.meta.id)))?;
        let labels = task::background({
            let index = open.index.clone();
            move || {
                (0..trilith_index::LabelIndex::series_count(&index))
                    .map(|o| index.labels(o))
                    .collect::<Result<Vec<_>>>()
            }
        })
        .await??;
        let source = merger.add_source(true);
        let ids = merger.add_streams(labels);
        for (no, page) in open.directory.pages.iter().enumerate() {
            let runs = &open.directory.runs[page.runs.start as usize..page.runs.end as usize];
            let time = runs
                .iter()
                .fold(TimeRange::EMPTY, |t, r| t.union(TimeRange::new(r.ts_min, r.ts_max)));
            if time.overlaps(keep) {
                merger.add_load(
                    Load {
                        source,
                        page: Some(no as u32),
                    },
                    time.min.max(keep.min),
                    time.max,
                );
            }
        }
        blocks.push((open, ids));
    }
    let mut drafts = Drafts {
        tenant,
        windows: Windows::for_times(times.iter().copied()),
        zstd_level: zstd_level(job.level),
        spool: (bytes > MERGE_MEMORY_BYTES).then(|| job.scratch.clone()),
        writer: None,
        done: Vec::new(),
    };
    loop {
        // Merger and writer travel into the background pool and back.
        let (m, d, step) = task::background(move || -> Result<_> {
            let mut rows = Vec::new();
            let mut step = Step::Rows;
            while step == Step::Rows {
                step = merger.step(&mut rows, STEP_ROWS);
                for row in rows.drain(..) {
                    drafts.push(row, &merger)?;
                }
            }
            if step == Step::Done {
                drafts.close(&merger)?;
            }
            Ok((merger, drafts, step))
        })
        .await??;
        (merger, drafts) = (m, d);
        if step == Step::Done {
            return Ok(drafts.done);
        }
        let loads = merger.take_loads(MERGE_FETCH);
        let fetched = futures::future::try_join_all(loads.iter().map(|load| async {
            let (open, ids) = &blocks[load.source as usize];
            let page = load.page.unwrap_or_default();
            let stored = open.fetch(page, true).await?;
            Ok::<_, Error>((*load, all_runs(open.directory.runs_of(page as usize), ids), stored))
        }))
        .await?;
        let scanned = task::background(move || {
            let filters = Filters::new(&[]);
            let scan_one = |(load, runs, stored): (Load, Vec<(Run, u32)>, crate::block::reader::StoredPage)| {
                let (keys, lines) = stored.decode()?;
                let lines = lines.map(|bytes| BookedLines::share(bytes, None));
                Ok((load, scan(Arc::new(keys), lines, None, &runs, keep, &filters, None)?))
            };
            fetched.into_iter().map(scan_one).collect::<Result<Vec<_>>>()
        })
        .await??;
        for (load, got) in scanned {
            merger.add_page(load.source, load.page.unwrap_or_default(), &got.page, got.rows);
        }
    }
}

/// Decodes everything and checks what checksums cannot see: counts, order, label sets, times.
pub(crate) async fn verify(open: &Arc<OpenBlock>, items: u64, time: TimeRange) -> Result<()> {
    let directory = &open.directory;
    if directory.rows() != items {
        return Err(Error::corrupt(format!(
            "the manifest counts {items} entries, the directory {}",
            directory.rows()
        )));
    }
    if directory.time() != time {
        return Err(Error::corrupt(
            "the manifest and the directory disagree on the time range",
        ));
    }
    let index = open.index.clone();
    task::background(move || {
        let mut last = None;
        for ordinal in 0..trilith_index::LabelIndex::series_count(&index) {
            let labels = index.labels(ordinal)?;
            if last.as_ref().is_some_and(|l| *l >= labels) {
                return Err(Error::corrupt("streams are not in label order"));
            }
            last = Some(labels);
        }
        Ok(())
    })
    .await??;
    for page in 0..directory.pages.len() as u32 {
        let stored = open.fetch(page, true).await?;
        let open = open.clone();
        task::background(move || {
            let (keys, lines) = stored.decode()?;
            if lines.is_none() {
                return Err(Error::internal("lines were asked for"));
            }
            let meta = &open.directory.pages[page as usize];
            let first = meta.runs.start as usize;
            for (i, run) in open.directory.runs_of(page as usize).iter().enumerate() {
                let bytes: u64 = run.range().map(|row| u64::from(keys.line_len(row))).sum();
                if bytes != open.directory.line_bytes[first + i] {
                    return Err(Error::corrupt(format!(
                        "page {page}: a run has other line bytes than noted"
                    )));
                }
                let order = |row: usize| (keys.ts[row], keys.lsn[row]);
                if !run.range().is_sorted_by_key(order) {
                    return Err(Error::corrupt(format!("page {page}: rows are not in order")));
                }
            }
            Ok(())
        })
        .await??;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
