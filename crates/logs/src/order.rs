//! The one order of entries, and the merge that produces it.
//!
//! Entries are ordered by (time, labels of the stream, arrival), arrival being the LSN of their record and their place
//! in it. That order does not depend on where an entry is stored, and backward is exactly its reverse. Queries,
//! cuts and merges all read through [`Merger`].
//!
//! The merger is a state machine without I/O. It holds *loads*, which stand for rows not yet read (a page, or a block
//! not yet opened) with the first time they may contain, and *cursors* over the rows of loaded pages. As long as the
//! first cursor is before every load, rows come out; otherwise it asks for the loads that are next. So a query for
//! the last 100 lines reads the newest pages only, and memory holds the pages that overlap in time at one moment.
//!
//! Exact duplicates (stream, time, line, metadata) collapse to the first arrival. They are always neighbours up to
//! other entries of the same stream and time, so one such group is looked at at a time.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::ops::Range;
use std::sync::Arc;

use hashbrown::{HashMap, HashTable};
use trilith_model::Labels;
use trilith_query::Direction;

use crate::page::Page;

/// The streams of one merge. Ids are handed out in order of appearance; ranks follow the labels.
#[derive(Default)]
pub(crate) struct Streams {
    ids: HashMap<Labels, u32, foldhash::fast::RandomState>,
    pub labels: Vec<Labels>,
    pub ranks: Vec<u32>,
}

impl Streams {
    /// Ids of label sets, in their order.
    pub fn add(&mut self, labels: impl IntoIterator<Item = Labels>) -> Vec<u32> {
        let mut out = Vec::new();
        for l in labels {
            let next = self.labels.len() as u32;
            let id = *self.ids.entry(l).or_insert_with_key(|l| {
                self.labels.push(l.clone());
                next
            });
            out.push(id);
        }
        if self.ranks.len() != self.labels.len() {
            let mut order: Vec<u32> = (0..self.labels.len() as u32).collect();
            order.sort_unstable_by(|&a, &b| self.labels[a as usize].cmp(&self.labels[b as usize]));
            self.ranks.resize(order.len(), 0);
            for (rank, id) in order.into_iter().enumerate() {
                self.ranks[id as usize] = rank as u32;
            }
        }
        out
    }
}

/// Rows not yet read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Load {
    /// Ordinal of the head or block in the merge.
    pub source: u32,
    /// Chunk or page; `None` stands for the source as a whole, not yet opened.
    pub page: Option<u32>,
}

/// An entry where it lies.
#[derive(Clone)]
pub(crate) struct RowRef {
    pub page: Arc<Page>,
    pub row: u32,
    /// Id in [`Streams`].
    pub stream: u32,
    pub source: u32,
}

impl RowRef {
    pub fn ts(&self) -> i64 {
        self.page.keys.ts[self.row as usize]
    }

    pub fn lsn(&self) -> u64 {
        self.page.keys.lsn[self.row as usize]
    }

    pub fn line(&self) -> &[u8] {
        self.page.line(self.row as usize)
    }

    pub fn line_len(&self) -> u32 {
        self.page.keys.line_len(self.row as usize)
    }

    pub fn metadata(&self) -> Option<&Labels> {
        self.page.keys.metadata(self.row as usize)
    }

    /// Equal content; time and stream are the caller's business. Rows whose lines were left out equal nothing.
    fn same(&self, other: &RowRef) -> bool {
        self.page.lines.is_some()
            && other.page.lines.is_some()
            && self.line() == other.line()
            && self.metadata() == other.metadata()
    }
}

/// Rows of one stream in one page: a range of `Page::selected` if there is such a list, else of the rows themselves.
#[derive(Clone, Debug)]
pub(crate) struct CursorRows {
    pub stream: u32,
    pub rows: Range<u32>,
}

struct Cursor {
    page: Arc<Page>,
    source: u32,
    /// (source, page): the order of rows that one record left in several pages.
    seq: u64,
    rows: CursorRows,
}

impl Cursor {
    fn row(&self, backward: bool) -> Option<u32> {
        let r = &self.rows.rows;
        let i = if r.is_empty() {
            return None;
        } else if backward {
            r.end - 1
        } else {
            r.start
        };
        Some(self.page.selected.as_ref().map_or(i, |s| s[i as usize]))
    }

    fn advance(&mut self, backward: bool) {
        if backward {
            self.rows.rows.end -= 1;
        } else {
            self.rows.rows.start += 1;
        }
    }
}

/// Ascending in both directions: for backward every part is complemented, which reverses its order.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    ts: i64,
    rank: u32,
    lsn: u64,
    seq: u64,
    slot: u32,
}

impl Ord for Key {
    fn cmp(&self, o: &Self) -> Ordering {
        (self.ts, self.rank, self.lsn, self.seq).cmp(&(o.ts, o.rank, o.lsn, o.seq))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// As many rows as asked for, or some more.
    Rows,
    /// [`Merger::take_loads`] must be served before it goes on; rows may have come out before.
    Load,
    /// All rows are out.
    Done,
}

pub(crate) struct Merger {
    backward: bool,
    pub streams: Streams,
    /// Per source: whether it is free of duplicates in itself.
    clean: Vec<bool>,
    loads: BinaryHeap<Reverse<(i64, Load)>>,
    cursors: BinaryHeap<Reverse<Key>>,
    slots: Vec<Option<Cursor>>,
    free: Vec<u32>,
    /// Rows of one stream and time, not yet checked for duplicates.
    group: Vec<RowRef>,
    hasher: foldhash::fast::RandomState,
}

impl Merger {
    pub fn new(direction: Direction) -> Self {
        Merger {
            backward: direction == Direction::Backward,
            streams: Streams::default(),
            clean: Vec::new(),
            loads: BinaryHeap::new(),
            cursors: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            group: Vec::new(),
            hasher: foldhash::fast::RandomState::default(),
        }
    }

    /// `clean`: no two rows of the source are duplicates of each other. Returns the source's ordinal.
    pub fn add_source(&mut self, clean: bool) -> u32 {
        self.clean.push(clean);
        self.clean.len() as u32 - 1
    }

    /// `time`: closed interval that the rows lie in.
    pub fn add_load(&mut self, load: Load, ts_min: i64, ts_max: i64) {
        let ts = if self.backward { !ts_max } else { ts_min };
        self.loads.push(Reverse((ts, load)));
    }

    /// Ids for label sets. Call it before the rows come; ranks of earlier cursors are put right.
    pub fn add_streams(&mut self, labels: impl IntoIterator<Item = Labels>) -> Vec<u32> {
        let before = self.streams.labels.len();
        let ids = self.streams.add(labels);
        if self.streams.labels.len() != before && !self.cursors.is_empty() {
            let keys = std::mem::take(&mut self.cursors).into_vec();
            let rerank = |mut k: Reverse<Key>| {
                let stream = self.slots[k.0.slot as usize].as_ref().map_or(0, |c| c.rows.stream);
                k.0.rank = self.rank(stream);
                k
            };
            self.cursors = keys.into_iter().map(rerank).collect();
        }
        ids
    }

    fn rank(&self, stream: u32) -> u32 {
        let rank = self.streams.ranks[stream as usize];
        if self.backward { !rank } else { rank }
    }

    fn key(&self, cursor: &Cursor, slot: u32) -> Option<Key> {
        let row = cursor.row(self.backward)? as usize;
        let (ts, lsn, seq) = (cursor.page.keys.ts[row], cursor.page.keys.lsn[row], cursor.seq);
        let rank = self.rank(cursor.rows.stream);
        Some(if self.backward {
            Key {
                ts: !ts,
                rank,
                lsn: !lsn,
                seq: !seq,
                slot,
            }
        } else {
            Key {
                ts,
                rank,
                lsn,
                seq,
                slot,
            }
        })
    }

    /// Adds the rows of a served load.
    pub fn add_page(&mut self, source: u32, page_no: u32, page: &Arc<Page>, rows: Vec<CursorRows>) {
        let seq = u64::from(source) << 32 | u64::from(page_no);
        for rows in rows {
            let cursor = Cursor {
                page: page.clone(),
                source,
                seq,
                rows,
            };
            let slot = self.free.pop().unwrap_or_else(|| {
                self.slots.push(None);
                self.slots.len() as u32 - 1
            });
            if let Some(key) = self.key(&cursor, slot) {
                self.cursors.push(Reverse(key));
                self.slots[slot as usize] = Some(cursor);
            } else {
                self.free.push(slot);
            }
        }
    }

    /// The loads that are next in order, at most `n`; they are the caller's from now on.
    pub fn take_loads(&mut self, n: usize) -> Vec<Load> {
        let mut out = Vec::new();
        while out.len() < n
            && let Some(Reverse((_, load))) = self.loads.pop()
        {
            out.push(load);
        }
        out
    }

    /// Appends rows to `out` until it holds `max`, a load is due, or all is done.
    pub fn step(&mut self, out: &mut Vec<RowRef>, max: usize) -> Step {
        while out.len() < max {
            let Some(&Reverse(key)) = self.cursors.peek() else {
                if !self.loads.is_empty() {
                    return Step::Load;
                }
                self.flush_group(out);
                return Step::Done;
            };
            // Equal times count: the load may hold a row of a stream that comes first.
            if self.loads.peek().is_some_and(|Reverse((ts, _))| *ts <= key.ts) {
                return Step::Load;
            }
            let row = self.take(key);
            if let Some(last) = self.group.last()
                && (last.stream != row.stream || last.ts() != row.ts())
            {
                self.flush_group(out);
            }
            self.group.push(row);
        }
        Step::Rows
    }

    /// Takes the first row of the first cursor.
    fn take(&mut self, key: Key) -> RowRef {
        let backward = self.backward;
        let slot = &mut self.slots[key.slot as usize];
        let cursor = slot.as_mut().expect("a key in the heap has its cursor");
        let row = RowRef {
            page: cursor.page.clone(),
            row: cursor.row(backward).expect("a cursor in the heap is not at its end"),
            stream: cursor.rows.stream,
            source: cursor.source,
        };
        cursor.advance(backward);
        let next = self.slots[key.slot as usize]
            .as_ref()
            .and_then(|c| self.key(c, key.slot));
        if let Some(mut top) = self.cursors.peek_mut() {
            match next {
                Some(next) => top.0 = next,
                None => {
                    PeekMut::pop(top);
                    self.slots[key.slot as usize] = None;
                    self.free.push(key.slot);
                }
            }
        }
        row
    }

    fn flush_group(&mut self, out: &mut Vec<RowRef>) {
        let one_clean_source = || {
            let source = self.group[0].source;
            self.clean[source as usize] && self.group.iter().all(|r| r.source == source)
        };
        if self.group.len() <= 1 || one_clean_source() {
            out.append(&mut self.group);
            return;
        }
        let mut seen: HashTable<u32> = HashTable::with_capacity(self.group.len());
        let mut keep = vec![false; self.group.len()];
        let mut visit = |i: usize| {
            let row = &self.group[i];
            let mut h = self.hasher.build_hasher();
            row.line().hash(&mut h);
            row.metadata().map(Labels::as_packed).hash(&mut h);
            let hash = h.finish();
            if seen.find(hash, |&j| self.group[j as usize].same(row)).is_none() {
                // Never asked to hash again: the capacity suffices for the group.
                seen.insert_unique(hash, i as u32, |_| hash);
                keep[i] = true;
            }
        };
        // The first arrival stays, whichever way the group came.
        if self.backward {
            (0..self.group.len()).rev().for_each(&mut visit);
        } else {
            (0..self.group.len()).for_each(&mut visit);
        }
        out.extend(
            self.group
                .drain(..)
                .zip(keep)
                .filter(|(_, keep)| *keep)
                .map(|(row, _)| row),
        );
    }
}
