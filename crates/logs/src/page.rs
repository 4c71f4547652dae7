//! Rows in memory: the form that head chunks and decoded block pages share, so that queries, cuts and merges
//! read both through one path.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use trilith_model::Labels;
use trilith_query::Reservation;

use crate::pool;

/// The small columns of some rows. Rows are grouped by stream (see [`Run`]) and sorted by (time, LSN, arrival)
/// within a stream.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    pub ts: Vec<i64>,
    pub lsn: Vec<u64>,
    /// End of each line in the line bytes; a line starts where the one before ends.
    pub ends: Vec<u32>,
    /// Per row: 0 for no metadata, else one more than an index into `dict`. Empty when no row has any, or when
    /// metadata was not asked for.
    pub meta: Vec<u32>,
    pub dict: Vec<Labels>,
}

impl Keys {
    pub fn rows(&self) -> usize {
        self.ts.len()
    }

    pub fn line_range(&self, row: usize) -> Range<usize> {
        let start = if row == 0 { 0 } else { self.ends[row - 1] as usize };
        start..self.ends[row] as usize
    }

    pub fn line_len(&self, row: usize) -> u32 {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        self.ends[row] - start
    }

    pub fn metadata(&self, row: usize) -> Option<&Labels> {
        match self.meta.get(row) {
            None | Some(0) => None,
            Some(&code) => Some(&self.dict[code as usize - 1]),
        }
    }

    /// No rows; the buffers stay.
    pub fn clear(&mut self) {
        self.ts.clear();
        self.lsn.clear();
        self.ends.clear();
        self.meta.clear();
        self.dict.clear();
    }

    /// Heap bytes, approximately; a dictionary entry counts with its header.
    pub fn heap_bytes(&self) -> usize {
        let dict: usize = self.dict.iter().map(|l| l.as_packed().len() + 32).sum();
        self.ts.capacity() * 8 + self.lsn.capacity() * 8 + self.ends.capacity() * 4 + self.meta.capacity() * 4 + dict
    }
}

/// Neighbouring rows of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Ordinal of the stream in its head or block.
    pub stream: u32,
    /// First row in the chunk or page.
    pub first: u32,
    pub rows: u32,
    /// Inclusive.
    pub ts_min: i64,
    pub ts_max: i64,
}

impl Run {
    pub fn range(&self) -> Range<usize> {
        self.first as usize..self.first as usize + self.rows as usize
    }
}

/// Rows ready to be merged. Lines are absent when only keys were asked for.
#[derive(Debug)]
pub(crate) struct Page {
    pub keys: Arc<Keys>,
    pub lines: Option<Bytes>,
    /// Rows that passed time range and filters, ascending; `None` when a cursor names its rows directly.
    pub selected: Option<Vec<u32>>,
    /// Pays for the keys; the lines carry their own.
    pub _booked: Option<Reservation>,
}

impl Page {
    /// Without lines the answer is the empty line.
    pub fn line(&self, row: usize) -> &[u8] {
        match &self.lines {
            Some(lines) => &lines[self.keys.line_range(row)],
            None => &[],
        }
    }

    /// As `line`, sharing the page's memory.
    pub fn line_bytes(&self, row: usize) -> Bytes {
        match &self.lines {
            Some(lines) => lines.slice(self.keys.line_range(row)),
            None => Bytes::new(),
        }
    }
}

/// Line bytes with the reservation that pays for them: given back together, when the last slice goes.
pub(crate) struct BookedLines {
    bytes: Vec<u8>,
    _booked: Option<Reservation>,
}

impl BookedLines {
    /// `bytes` best come from the pool, to which they go.
    pub fn share(bytes: Vec<u8>, booked: Option<Reservation>) -> Bytes {
        Bytes::from_owner(BookedLines { bytes, _booked: booked })
    }
}

impl AsRef<[u8]> for BookedLines {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for BookedLines {
    fn drop(&mut self) {
        pool::give(std::mem::take(&mut self.bytes));
    }
}
