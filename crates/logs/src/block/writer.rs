//! Writes a block from rows in the order of entries, in bounded memory.
//!
//! Rows are collected into a *partition*, a slice of time with up to 32 MiB of lines. A full partition is grouped by
//! stream and cut into pages. So the lines of a stream lie together, which compression and selective queries like,
//! and a query over all streams needs the pages of one partition at a time, not of the whole block.

use std::path::Path;

use trilith_block::container::{Compression, ContainerWriter};
use trilith_block::{BlockDraft, BlockFile};
use trilith_codec::crc32c;
use trilith_index::IndexBuilder;
use trilith_model::{Error, Result, TenantId, TimeRange};

use super::{DIRECTORY, FILE, PAGES, STREAMS};
use crate::format::Compressor;
use crate::format::directory::{Directory, PageMeta, PieceMeta};
use crate::format::page::{self, MetaDict, PAGE_LINE_BYTES, PAGE_ROWS_MAX};
use crate::order::{RowRef, Streams};
use crate::page::{Keys, Run};

/// Lines of one partition. Bounds what a query over all streams holds of a block, and what a cut or merge holds.
const PARTITION_LINE_BYTES: u64 = 32 << 20;

/// Rows of one partition; bounds the bookkeeping when lines are very short.
const PARTITION_ROWS_MAX: usize = 1 << 20;

/// Hot sections are read with the footer; larger ones cost a request of their own. Before compression.
const HOT_RAW_BYTES: usize = 512 << 10;

/// zstd level of directory and index.
const INDEX_LEVEL: i32 = 3;

pub(crate) struct BlockWriter {
    out: ContainerWriter,
    compressor: Compressor,
    partition: Vec<RowRef>,
    partition_bytes: u64,
    /// Runs carry the ids of the merge until `finish` numbers the streams of the block.
    directory: Directory,
    time: TimeRange,
    rows: u64,
    line_bytes: u64,
    offset: u64,
}

impl BlockWriter {
    /// Into memory, or into a new file. `level`: zstd level of the pages.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn new(spool: Option<&Path>, level: i32) -> Result<Self> {
        let mut out = match spool {
            None => ContainerWriter::in_memory(),
            Some(path) => ContainerWriter::create(path)?,
        };
        out.section_start(PAGES, 0)?;
        Ok(BlockWriter {
            out,
            compressor: Compressor::new(level)?,
            partition: Vec::new(),
            partition_bytes: 0,
            directory: Directory::default(),
            time: TimeRange::EMPTY,
            rows: 0,
            line_bytes: 0,
            offset: 0,
        })
    }

    /// Appends a row; rows come in the order of entries, without duplicates.
    ///
    /// # Errors
    /// `Unavailable` when the disk is full.
    pub fn push(&mut self, row: RowRef, streams: &Streams) -> Result<()> {
        let len = u64::from(row.line_len());
        if !self.partition.is_empty()
            && (self.partition_bytes + len > PARTITION_LINE_BYTES || self.partition.len() >= PARTITION_ROWS_MAX)
        {
            self.flush_partition(streams)?;
        }
        self.time.extend(row.ts());
        self.rows += 1;
        self.line_bytes += len;
        self.partition_bytes += len;
        self.partition.push(row);
        Ok(())
    }

    fn flush_partition(&mut self, streams: &Streams) -> Result<()> {
        let mut rows = std::mem::take(&mut self.partition);
        self.partition_bytes = 0;
        // Stable: within a stream the order stays.
        rows.sort_by_key(|r| streams.ranks[r.stream as usize]);
        let mut page = PageBuilder::default();
        for group in rows.chunk_by(|a, b| a.stream == b.stream) {
            let bytes: usize = group.iter().map(|r| r.line_len() as usize).sum();
            // A stream that fills a good part of a page begins its own, so that reading it reads little else.
            if bytes >= PAGE_LINE_BYTES / 2 && page.lines.len() >= PAGE_LINE_BYTES / 4 {
                self.flush_page(&mut page)?;
            }
            for row in group {
                if page.is_full_for(row.line_len() as usize) {
                    self.flush_page(&mut page)?;
                }
                page.push(row);
            }
        }
        self.flush_page(&mut page)
    }

    fn flush_page(&mut self, page: &mut PageBuilder) -> Result<()> {
        if page.runs.is_empty() {
            return Ok(());
        }
        page.keys.dict = std::mem::take(&mut page.dict).dict;
        let pieces = page::encode(&mut self.compressor, &page.runs, &page.keys, &page.lines)?;
        let mut append = |stored: &[u8], raw_len: usize| -> Result<PieceMeta> {
            self.out.append(stored)?;
            let len = |n: usize| u32::try_from(n).map_err(|_| Error::internal("a page exceeds 4 GiB"));
            Ok(PieceMeta {
                len: len(stored.len())?,
                raw_len: len(raw_len)?,
                crc32c: crc32c(stored),
            })
        };
        let first = self.directory.runs.len() as u32;
        let meta = PageMeta {
            offset: self.offset,
            keys: append(&pieces.keys, pieces.keys_raw)?,
            meta: append(&pieces.meta, pieces.meta_raw)?,
            lines: append(&pieces.lines, pieces.lines_raw)?,
            runs: first..first + page.runs.len() as u32,
        };
        self.offset = meta.end();
        self.directory.pages.push(meta);
        self.directory.runs.append(&mut page.runs);
        self.directory.line_bytes.append(&mut page.run_bytes);
        page.keys.clear();
        page.lines.clear();
        Ok(())
    }

    /// Ends the block; `None` when no row came.
    ///
    /// # Errors
    /// `Unavailable` when the disk is full; `Internal` when a part exceeds 4 GiB.
    pub fn finish(mut self, tenant: &TenantId, streams: &Streams) -> Result<Option<BlockDraft>> {
        self.flush_partition(streams)?;
        if self.rows == 0 {
            return Ok(None);
        }
        self.out.section_end()?;

        // The streams that are in the block, in label order, become its ordinals.
        let mut ids: Vec<u32> = self.directory.runs.iter().map(|r| r.stream).collect();
        ids.sort_unstable_by_key(|&id| streams.ranks[id as usize]);
        ids.dedup();
        let mut ordinals = vec![0u32; streams.labels.len()];
        let mut index = IndexBuilder::new();
        for &id in &ids {
            ordinals[id as usize] = index.add(streams.labels[id as usize].as_ref())?;
        }
        for run in &mut self.directory.runs {
            run.stream = ordinals[run.stream as usize];
        }
        let mut sections = [(DIRECTORY, self.directory.encode()), (STREAMS, index.finish()?)];
        sections.sort_by_key(|(_, bytes)| std::cmp::Reverse(bytes.len()));
        let mut hot = false;
        let mut left: usize = sections.iter().map(|(_, b)| b.len()).sum();
        for (kind, bytes) in &sections {
            if !hot && left <= HOT_RAW_BYTES {
                self.out.start_hot();
                hot = true;
            }
            left -= bytes.len();
            self.out.section(*kind, 0, bytes, Compression::Zstd(INDEX_LEVEL))?;
        }
        let file: BlockFile = self.out.finish(FILE)?;
        Ok(Some(BlockDraft {
            tenant: tenant.clone(),
            time: self.time,
            items: self.rows,
            groups: ids.len() as u64,
            files: vec![file],
            facts: [("line_bytes".to_owned(), self.line_bytes.to_string())].into(),
        }))
    }
}

#[derive(Default)]
struct PageBuilder {
    runs: Vec<Run>,
    run_bytes: Vec<u64>,
    keys: Keys,
    dict: MetaDict,
    lines: Vec<u8>,
}

impl PageBuilder {
    fn is_full_for(&self, line_len: usize) -> bool {
        !self.runs.is_empty() && (self.lines.len() + line_len > PAGE_LINE_BYTES || self.keys.rows() >= PAGE_ROWS_MAX)
    }

    fn push(&mut self, row: &RowRef) {
        let ts = row.ts();
        self.lines.extend_from_slice(row.line());
        match self.runs.last_mut() {
            Some(run) if run.stream == row.stream => {
                run.rows += 1;
                run.ts_max = ts;
            }
            _ => {
                let first = self.keys.rows() as u32;
                self.runs.push(Run {
                    stream: row.stream,
                    first,
                    rows: 1,
                    ts_min: ts,
                    ts_max: ts,
                });
                self.run_bytes.push(0);
            }
        }
        if let Some(bytes) = self.run_bytes.last_mut() {
            *bytes += u64::from(row.line_len());
        }
        self.keys.ts.push(ts);
        self.keys.lsn.push(row.lsn());
        self.keys
            .ends
            .push(u32::try_from(self.lines.len()).expect("a page is closed long before 4 GiB"));
        self.keys.meta.push(row.metadata().map_or(0, |m| self.dict.code(m)));
    }
}
