//! A chunk: up to 1 MiB of recent lines of one tenant, of any streams.
//!
//! The open chunk takes rows in the order of arrival. When it is full it is sealed: sorted into the form that block
//! pages have, so that readers know one form only, and soon after its lines are compressed.
//!
//! Chunks belong to a tenant and not to a stream, so that a hundred thousand streams with a line each cost no more than
//! one stream with a hundred thousand lines.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use trilith_model::{Error, LogEntry, Result, TimeRange};
use trilith_query::Reservation;

use crate::format::page::{MetaDict, PAGE_ROWS_MAX};
use crate::page::{BookedLines, Keys, Run};
use crate::pool::{self, Stock};

/// Large enough that lz4 works well and that a chunk outweighs its header, small enough that a query of one stream
/// decompresses it in half a millisecond.
pub(crate) const CHUNK_LINE_BYTES: usize = 1 << 20;

/// Where chunks are compressed to, before a copy of the right size is kept.
static PACKED: Stock<Vec<u8>> = Stock::new();

/// Sealed rows: sorted by (stream, time, LSN, arrival), one run per stream, streams ascending.
pub(crate) struct Chunk {
    pub keys: Arc<Keys>,
    pub runs: Vec<Run>,
    pub time: TimeRange,
    pub raw_len: usize,
    lines: Mutex<Lines>,
}

#[derive(Clone)]
enum Lines {
    Raw(Bytes),
    Lz4(Bytes),
}

impl Chunk {
    /// The lines, decompressed; `booked` pays for that. Lines that are not packed are the head's own memory.
    ///
    /// # Errors
    /// `Internal` when memory was damaged; the bytes never left the process.
    pub fn lines(&self, booked: Option<Reservation>) -> Result<Bytes> {
        let lines = self.lines.lock().clone();
        match lines {
            Lines::Raw(raw) => Ok(raw),
            Lines::Lz4(packed) => {
                let mut raw = pool::take(self.raw_len);
                raw.resize(self.raw_len, 0);
                match lz4_flex::block::decompress_into(&packed, &mut raw) {
                    Ok(n) if n == self.raw_len => Ok(BookedLines::share(raw, booked)),
                    _ => Err(Error::internal("a head chunk does not decompress")),
                }
            }
        }
    }

    /// Whether reading the lines allocates.
    pub fn is_packed(&self) -> bool {
        matches!(*self.lines.lock(), Lines::Lz4(_))
    }

    /// Compresses the lines if that is worth it. Returns the bytes freed.
    pub fn pack(&self) -> usize {
        let Lines::Raw(raw) = self.lines.lock().clone() else {
            return 0;
        };
        let bound = lz4_flex::block::get_maximum_output_size(raw.len());
        let mut buffer = PACKED.take().unwrap_or_default();
        if buffer.len() < bound {
            buffer.resize(bound, 0);
        }
        let len = lz4_flex::block::compress_into(&raw, &mut buffer).unwrap_or(usize::MAX);
        // Readers pay for the decompression; incompressible lines stay as they are.
        let packed = (len < raw.len() / 8 * 7).then(|| Bytes::copy_from_slice(&buffer[..len]));
        if buffer.len() <= 2 * CHUNK_LINE_BYTES {
            PACKED.give(buffer);
        }
        let Some(packed) = packed else { return 0 };
        let freed = raw.len() - packed.len();
        *self.lines.lock() = Lines::Lz4(packed);
        freed
    }

    pub fn heap_bytes(&self) -> usize {
        let lines = match &*self.lines.lock() {
            Lines::Raw(b) | Lines::Lz4(b) => b.len(),
        };
        lines + self.keys.heap_bytes() + self.runs.capacity() * size_of::<Run>() + 128
    }
}

/// Rows in the order of arrival.
#[derive(Default)]
pub(crate) struct OpenChunk {
    stream: Vec<u32>,
    keys: Keys,
    dict: MetaDict,
    lines: Vec<u8>,
}

impl OpenChunk {
    pub fn is_empty(&self) -> bool {
        self.stream.is_empty()
    }

    pub fn heap_bytes(&self) -> usize {
        self.lines.capacity() + self.stream.capacity() * 4 + self.keys.heap_bytes() + self.dict.bytes
    }

    /// Empties the chunk after it was sealed; buffers of the usual size stay.
    pub fn clear(&mut self) {
        if self.lines.capacity() > 2 * CHUNK_LINE_BYTES {
            self.lines = Vec::new();
        }
        self.lines.clear();
        self.stream.clear();
        self.keys.clear();
        self.dict = MetaDict::default();
    }

    /// Whether the entry belongs into the next chunk.
    pub fn is_full_for(&self, entry: &LogEntry) -> bool {
        !self.is_empty()
            && (self.lines.len() + entry.line.len() > CHUNK_LINE_BYTES || self.stream.len() >= PAGE_ROWS_MAX)
    }

    /// A line of 4 GiB or more never gets here: requests are smaller.
    pub fn push(&mut self, stream: u32, lsn: u64, entry: &LogEntry) {
        self.lines.extend_from_slice(&entry.line);
        self.stream.push(stream);
        self.keys.ts.push(entry.ts_ns);
        self.keys.lsn.push(lsn);
        self.keys
            .ends
            .push(u32::try_from(self.lines.len()).expect("a chunk is closed long before 4 GiB"));
        let code = self.dict.code(&entry.metadata);
        if code != 0 || !self.keys.meta.is_empty() {
            // Rows before the first with metadata had none.
            self.keys.meta.resize(self.stream.len() - 1, 0);
            self.keys.meta.push(code);
        }
    }

    /// Sorted copy of the rows that `keep` (stream, time) holds for; `None` when there are none.
    pub fn seal(&self, keep: impl Fn(u32, i64) -> bool) -> Option<Chunk> {
        let mut order: Vec<u32> = (0..self.stream.len() as u32)
            .filter(|&i| keep(self.stream[i as usize], self.keys.ts[i as usize]))
            .collect();
        if order.is_empty() {
            return None;
        }
        // Stable, so rows of one record keep their order; fast on the usual case of sorted stretches.
        order.sort_by_key(|&i| {
            let i = i as usize;
            (self.stream[i], self.keys.ts[i], self.keys.lsn[i])
        });
        let n = order.len();
        let bytes: usize = order.iter().map(|&i| self.keys.line_len(i as usize) as usize).sum();
        let mut lines = pool::take(bytes);
        let mut keys = Keys {
            ts: Vec::with_capacity(n),
            lsn: Vec::with_capacity(n),
            ends: Vec::with_capacity(n),
            ..Keys::default()
        };
        let mut runs: Vec<Run> = Vec::new();
        let mut time = TimeRange::EMPTY;
        for (row, &i) in order.iter().enumerate() {
            let i = i as usize;
            let ts = self.keys.ts[i];
            lines.extend_from_slice(&self.lines[self.keys.line_range(i)]);
            keys.ts.push(ts);
            keys.lsn.push(self.keys.lsn[i]);
            keys.ends.push(lines.len() as u32);
            time.extend(ts);
            match runs.last_mut() {
                Some(run) if run.stream == self.stream[i] => {
                    run.rows += 1;
                    run.ts_max = ts;
                }
                _ => runs.push(Run {
                    stream: self.stream[i],
                    first: row as u32,
                    rows: 1,
                    ts_min: ts,
                    ts_max: ts,
                }),
            }
        }
        if !self.keys.meta.is_empty() {
            keys.meta = order.iter().map(|&i| self.keys.meta[i as usize]).collect();
            keys.dict = self.dict.dict.clone();
        }
        runs.shrink_to_fit();
        Some(Chunk {
            keys: Arc::new(keys),
            runs,
            time,
            raw_len: bytes,
            lines: Mutex::new(Lines::Raw(BookedLines::share(lines, None))),
        })
    }
}
