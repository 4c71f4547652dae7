//! The directory of a block: where its pages are and which rows they hold, so that a query decides what to read
//! without reading it.
//!
//! Columns of varints, one after the other (the section is compressed as a whole):
//!
//! | version u8 = 1 | pages uvarint |
//! | per page: keys, metadata, lines: (stored length uvarint, raw length uvarint, crc32c u32) × 3 |
//! | per page: runs uvarint ≥ 1 |
//! | per run: stream ordinal uvarint (Δ − 1 against the run before in the page) |
//! | per run: rows uvarint ≥ 1 | per run: Δts_min varint (wrapping, against the run before) |
//! | per run: ts_max − ts_min uvarint | per run: line bytes uvarint |
//!
//! Pages follow each other without gaps in the pages section, pieces in the order keys, metadata, lines; so offsets
//! are sums. Pages are in time order of their partitions, and within a partition in stream order.
//! Format: docs/formats/logs-block.md.

use std::ops::Range;

use trilith_codec::{Reader, put_uvarint, put_varint};
use trilith_model::{Error, Result, TimeRange};

use crate::format::corrupt;
use crate::page::Run;

const VERSION: u8 = 1;

/// One stored piece of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PieceMeta {
    pub len: u32,
    pub raw_len: u32,
    pub crc32c: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageMeta {
    /// In the pages section.
    pub offset: u64,
    pub keys: PieceMeta,
    pub meta: PieceMeta,
    pub lines: PieceMeta,
    /// Into `Directory::runs`.
    pub runs: Range<u32>,
}

impl PageMeta {
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.keys.len) + u64::from(self.meta.len) + u64::from(self.lines.len)
    }

    /// Where the pieces are, in the pages section.
    pub fn ranges(&self) -> [Range<u64>; 3] {
        let keys = self.offset + u64::from(self.keys.len);
        let meta = keys + u64::from(self.meta.len);
        [self.offset..keys, keys..meta, meta..self.end()]
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Directory {
    pub pages: Vec<PageMeta>,
    /// Runs of all pages, page by page; `Run::stream` is the ordinal in the block's stream index.
    pub runs: Vec<Run>,
    /// Parallel to `runs`.
    pub line_bytes: Vec<u64>,
}

impl Directory {
    pub fn runs_of(&self, page: usize) -> &[Run] {
        let r = &self.pages[page].runs;
        &self.runs[r.start as usize..r.end as usize]
    }

    /// Bytes of the pages section.
    pub fn pages_bytes(&self) -> u64 {
        self.pages.last().map_or(0, PageMeta::end)
    }

    pub fn rows(&self) -> u64 {
        self.runs.iter().map(|r| u64::from(r.rows)).sum()
    }

    pub fn time(&self) -> TimeRange {
        self.runs
            .iter()
            .fold(TimeRange::EMPTY, |t, r| t.union(TimeRange::new(r.ts_min, r.ts_max)))
    }

    pub fn heap_bytes(&self) -> usize {
        self.pages.capacity() * size_of::<PageMeta>() + self.runs.capacity() * (size_of::<Run>() + 8)
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_uvarint(&mut out, self.pages.len() as u64);
        for page in &self.pages {
            for piece in [page.keys, page.meta, page.lines] {
                put_uvarint(&mut out, u64::from(piece.len));
                put_uvarint(&mut out, u64::from(piece.raw_len));
                out.extend_from_slice(&piece.crc32c.to_le_bytes());
            }
        }
        for page in &self.pages {
            put_uvarint(&mut out, u64::from(page.runs.end - page.runs.start));
        }
        for page in 0..self.pages.len() {
            let mut next = 0u32;
            for run in self.runs_of(page) {
                put_uvarint(&mut out, u64::from(run.stream - next));
                next = run.stream + 1;
            }
        }
        for run in &self.runs {
            put_uvarint(&mut out, u64::from(run.rows));
        }
        let mut last = 0i64;
        for run in &self.runs {
            put_varint(&mut out, run.ts_min.wrapping_sub(last));
            last = run.ts_min;
        }
        for run in &self.runs {
            put_uvarint(&mut out, run.ts_max.wrapping_sub(run.ts_min) as u64);
        }
        for &bytes in &self.line_bytes {
            put_uvarint(&mut out, bytes);
        }
        out
    }

    /// `streams` is the number of streams in the block's index.
    ///
    /// # Errors
    /// `Corrupt` when the bytes contradict themselves or name a stream that is not there.
    pub fn decode(bytes: &[u8], streams: u32) -> Result<Directory> {
        let bad = corrupt("block directory");
        let wrong = |what: &str| Error::corrupt(format!("block directory: {what}"));
        let mut r = Reader::new(bytes);
        let version = r.u8().map_err(&bad)?;
        if version != VERSION {
            return Err(wrong(&format!("version {version} is not known (newest is {VERSION})")));
        }
        let n = r.count(18).map_err(&bad)?;
        let mut pages = Vec::with_capacity(n);
        let mut offset = 0u64;
        for _ in 0..n {
            let mut piece = || -> Result<PieceMeta> {
                Ok(PieceMeta {
                    len: r.uvarint_u32().map_err(&bad)?,
                    raw_len: r.uvarint_u32().map_err(&bad)?,
                    crc32c: r.u32().map_err(&bad)?,
                })
            };
            let page = PageMeta {
                offset,
                keys: piece()?,
                meta: piece()?,
                lines: piece()?,
                runs: 0..0,
            };
            offset = page.end();
            pages.push(page);
        }
        let mut total = 0u32;
        for page in &mut pages {
            // Five columns follow, of a byte each at least.
            let count = r.count(5).map_err(&bad)?;
            let end = u32::try_from(count).ok().and_then(|c| total.checked_add(c));
            let end = end
                .filter(|&e| e > total)
                .ok_or_else(|| wrong("run counts cannot be"))?;
            page.runs = total..end;
            total = end;
        }
        if total as usize > r.remaining() / 5 {
            return Err(wrong("more runs than bytes"));
        }
        let mut runs = Vec::with_capacity(total as usize);
        for page in &pages {
            let mut next = 0u64;
            for _ in page.runs.clone() {
                let stream = next + u64::from(r.uvarint_u32().map_err(&bad)?);
                if stream >= u64::from(streams) {
                    return Err(wrong("a run names a stream that does not exist"));
                }
                next = stream + 1;
                // Below `streams`, a u32.
                runs.push(Run {
                    stream: stream as u32,
                    first: 0,
                    rows: 0,
                    ts_min: 0,
                    ts_max: 0,
                });
            }
        }
        for page in &pages {
            let mut first = 0u32;
            for run in &mut runs[page.runs.start as usize..page.runs.end as usize] {
                run.first = first;
                run.rows = r.uvarint_u32().map_err(&bad)?;
                first = first
                    .checked_add(run.rows)
                    .ok_or_else(|| wrong("too many rows in a page"))?;
                if run.rows == 0 {
                    return Err(wrong("an empty run"));
                }
            }
        }
        let mut last = 0i64;
        for run in &mut runs {
            run.ts_min = last.wrapping_add(r.varint().map_err(&bad)?);
            last = run.ts_min;
        }
        for run in &mut runs {
            let span = r.uvarint().map_err(&bad)?;
            run.ts_max = run
                .ts_min
                .checked_add_unsigned(span)
                .ok_or_else(|| wrong("time overflows"))?;
        }
        let mut line_bytes = Vec::with_capacity(runs.len());
        for _ in 0..runs.len() {
            line_bytes.push(r.uvarint().map_err(&bad)?);
        }
        r.finish().map_err(&bad)?;
        Ok(Directory {
            pages,
            runs,
            line_bytes,
        })
    }
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
