//! Trace id to rows: sorted pages, a sparse top level in memory, one read per page.
//!
//! ```text
//! page  | n × trace id 16 | n × uvarint row count | CRC-32C u32 |
//! top   | uvarint pages | per page: first id 16, first row u64, offset u64, length u32, traces u32 |
//! ```
//!
//! Rows of a trace are contiguous and traces are sorted by id, so a trace's first row is its page's first row plus the row
//! counts before it. Format: docs/formats/traces-block.md.

use std::ops::Range;

use trilith_codec::{Reader, crc32c, put_uvarint};
use trilith_model::{Error, Result, TraceId};

const TRACES_PER_PAGE: usize = 512;
const TOP_ENTRY_BYTES: usize = 16 + 8 + 8 + 4 + 4;

fn corrupt(e: impl std::fmt::Display) -> Error {
    Error::corrupt(format!("trace index: {e}"))
}

/// Takes traces in ascending order of id.
#[derive(Default)]
pub struct IndexWriter {
    pages: Vec<u8>,
    top: Vec<u8>,
    page_count: u64,
    ids: Vec<TraceId>,
    row_counts: Vec<u8>,
    page_first_row: u64,
    rows: u64,
    pub traces: u64,
}

impl IndexWriter {
    pub fn push(&mut self, id: TraceId, rows: u64) {
        self.ids.push(id);
        put_uvarint(&mut self.row_counts, rows);
        self.rows += rows;
        self.traces += 1;
        if self.ids.len() == TRACES_PER_PAGE {
            self.end_page();
        }
    }

    fn end_page(&mut self) {
        let Some(first) = self.ids.first() else {
            return;
        };
        let start = self.pages.len();
        self.top.extend_from_slice(&first.0);
        self.top.extend_from_slice(&self.page_first_row.to_le_bytes());
        self.top.extend_from_slice(&(start as u64).to_le_bytes());
        self.ids.iter().for_each(|id| self.pages.extend_from_slice(&id.0));
        self.pages.append(&mut self.row_counts);
        let crc = crc32c(&self.pages[start..]);
        self.pages.extend_from_slice(&crc.to_le_bytes());
        // A page has at most 512 × 26 bytes.
        self.top
            .extend_from_slice(&((self.pages.len() - start) as u32).to_le_bytes());
        self.top.extend_from_slice(&(self.ids.len() as u32).to_le_bytes());
        self.page_count += 1;
        self.ids.clear();
        self.page_first_row = self.rows;
    }

    /// Pages and top.
    pub fn finish(mut self) -> (Vec<u8>, Vec<u8>) {
        self.end_page();
        let mut top = Vec::with_capacity(self.top.len() + 10);
        put_uvarint(&mut top, self.page_count);
        top.extend_from_slice(&self.top);
        (self.pages, top)
    }
}

#[derive(Clone, Debug)]
pub struct TopEntry {
    pub first: TraceId,
    first_row: u64,
    /// Within the pages.
    pub range: Range<u64>,
    traces: u32,
}

/// The sparse level: where each page begins.
#[derive(Clone, Debug)]
pub struct TopLevel {
    pub pages: Vec<TopEntry>,
}

/// A trace and its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: TraceId,
    pub rows: Range<u64>,
}

impl TopLevel {
    /// # Errors
    /// `Corrupt`, also when ids or rows do not ascend.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        let count = r.count(TOP_ENTRY_BYTES).map_err(corrupt)?;
        let mut pages: Vec<TopEntry> = Vec::with_capacity(count);
        for _ in 0..count {
            let first = TraceId(r.take(16).map_err(corrupt)?.try_into().expect("16 bytes were taken"));
            let first_row = r.u64().map_err(corrupt)?;
            let start = r.u64().map_err(corrupt)?;
            let len = r.u32().map_err(corrupt)?;
            let traces = r.u32().map_err(corrupt)?;
            let end = start
                .checked_add(u64::from(len))
                .ok_or_else(|| corrupt("offsets overflow"))?;
            if pages
                .last()
                .is_some_and(|p| p.first >= first || p.first_row >= first_row || p.range.end != start)
            {
                return Err(corrupt("pages are out of order"));
            }
            if traces == 0 || traces as usize > TRACES_PER_PAGE {
                return Err(corrupt(format!("a page of {traces} traces")));
            }
            pages.push(TopEntry {
                first,
                first_row,
                range: start..end,
                traces,
            });
        }
        r.finish().map_err(corrupt)?;
        Ok(TopLevel { pages })
    }

    /// The page that holds the id if any does.
    pub fn page_of(&self, id: TraceId) -> Option<usize> {
        self.pages.partition_point(|p| p.first <= id).checked_sub(1)
    }

    pub fn bytes(&self) -> usize {
        self.pages.len() * size_of::<TopEntry>()
    }
}

/// Decodes and checks a page.
///
/// # Errors
/// `Corrupt`.
pub fn read_page(entry: &TopEntry, bytes: &[u8]) -> Result<Vec<Entry>> {
    let Some((body, crc)) = bytes.split_last_chunk::<4>() else {
        return Err(corrupt("a page without checksum"));
    };
    if crc32c(body) != u32::from_le_bytes(*crc) {
        return Err(corrupt("a page's checksum does not match"));
    }
    let n = entry.traces as usize;
    let mut r = Reader::new(body);
    let ids = r.take(n.saturating_mul(16)).map_err(corrupt)?;
    let mut out: Vec<Entry> = Vec::with_capacity(n);
    let mut row = entry.first_row;
    for id in ids.chunks_exact(16) {
        let rows = r.uvarint().map_err(corrupt)?;
        let end = row.checked_add(rows).ok_or_else(|| corrupt("row numbers overflow"))?;
        let id = TraceId(id.try_into().expect("chunks of 16"));
        if rows == 0 || out.last().is_some_and(|e| e.id >= id) {
            return Err(corrupt("traces are out of order"));
        }
        out.push(Entry { id, rows: row..end });
        row = end;
    }
    r.finish().map_err(corrupt)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> TraceId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&n.to_be_bytes());
        TraceId(id)
    }

    #[test]
    fn every_trace_is_found_on_its_page() {
        for n in [0u64, 1, 511, 512, 513, 2000] {
            let mut w = IndexWriter::default();
            (0..n).for_each(|i| w.push(id(i * 3), i % 5 + 1));
            let (pages, top) = w.finish();
            let top = TopLevel::from_bytes(&top).expect("own bytes");
            let mut row = 0;
            for i in 0..n {
                let page = &top.pages[top.page_of(id(i * 3)).expect("a page")];
                let entries = read_page(page, &pages[page.range.start as usize..page.range.end as usize]).expect("ok");
                let entry = entries.iter().find(|e| e.id == id(i * 3)).expect("is there");
                assert_eq!(entry.rows, row..row + i % 5 + 1);
                assert!(!entries.iter().any(|e| e.id == id(i * 3 + 1)));
                row = entry.rows.end;
            }
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let mut w = IndexWriter::default();
        (0..10).for_each(|i| w.push(id(i), 1));
        let (pages, top) = w.finish();
        let top = TopLevel::from_bytes(&top).expect("own bytes");
        for bit in 0..pages.len() * 8 {
            let mut broken = pages.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(read_page(&top.pages[0], &broken).is_err());
        }
    }
}
