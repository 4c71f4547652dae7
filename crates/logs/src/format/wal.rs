//! The payload of a WAL record: the accepted part of one push, replayable on its own.
//!
//! | version u8 = 1 | raw length uvarint | one zstd frame |
//!
//! The frame holds, column by column, so that similar bytes stand together:
//!
//! | streams uvarint | (packed labels as bytes, entries uvarint ≥ 1) × streams |
//! | sets uvarint | (packed metadata as bytes) × sets |
//! | (Δts varint, line length uvarint, metadata code uvarint) × entries | line bytes … |
//!
//! Δts is against the entry before (the first against 0, wrapping), in the order in which the entries were pushed.
//! Metadata code 0 is none, n is the n-th set. Format: docs/formats/logs-wal.md.

use bytes::Bytes;
use trilith_codec::{Reader, put_bytes, put_uvarint, put_varint};
use trilith_model::{Error, Labels, LabelsRef, LogBatch, LogEntry, LogStream, Result};

use crate::format::page::MetaDict;
use crate::format::{Compressor, corrupt, unzstd};
use crate::pool::Stock;

const VERSION: u8 = 1;

/// Level 1 halves the log compared with lz4 at the same CPU on log lines, and the disk is the scarcer.
const LEVEL: i32 = 1;

/// A buffer that a larger batch needed is freed.
const KEPT_BYTES: usize = 4 << 20;

/// Compressors with a buffer for what they compress.
static ENCODERS: Stock<(Compressor, Vec<u8>)> = Stock::new();

/// Encodes a batch; streams without entries are left out.
///
/// # Errors
/// `Internal` when zstd cannot get memory.
pub(crate) fn encode(batch: &LogBatch) -> Result<Bytes> {
    let (mut compressor, mut raw) = match ENCODERS.take() {
        Some(encoder) => encoder,
        None => (Compressor::new(LEVEL)?, Vec::new()),
    };
    raw.clear();
    put_batch(batch, &mut raw);
    let packed = compressor.compress(&raw)?;
    let mut out = Vec::with_capacity(packed.len() + 11);
    out.push(VERSION);
    put_uvarint(&mut out, raw.len() as u64);
    out.extend_from_slice(packed);
    if raw.capacity() <= KEPT_BYTES {
        ENCODERS.give((compressor, raw));
    }
    Ok(out.into())
}

fn put_batch(batch: &LogBatch, raw: &mut Vec<u8>) {
    let lines: usize = batch
        .streams
        .iter()
        .flat_map(|s| &s.entries)
        .map(|e| e.line.len())
        .sum();
    raw.reserve(lines + batch.entry_count() * 10 + 256);
    let streams = || batch.streams.iter().filter(|s| !s.entries.is_empty());
    put_uvarint(raw, streams().count() as u64);
    let mut dict = MetaDict::default();
    let mut codes = Vec::with_capacity(batch.entry_count());
    for stream in streams() {
        put_bytes(raw, stream.labels.as_packed());
        put_uvarint(raw, stream.entries.len() as u64);
        codes.extend(stream.entries.iter().map(|e| dict.code(&e.metadata)));
    }
    put_uvarint(raw, dict.dict.len() as u64);
    for labels in &dict.dict {
        put_bytes(raw, labels.as_packed());
    }
    let mut last = 0i64;
    for (entry, code) in streams().flat_map(|s| &s.entries).zip(codes) {
        put_varint(raw, entry.ts_ns.wrapping_sub(last));
        last = entry.ts_ns;
        put_uvarint(raw, entry.line.len() as u64);
        put_uvarint(raw, u64::from(code));
    }
    for entry in streams().flat_map(|s| &s.entries) {
        raw.extend_from_slice(&entry.line);
    }
}

/// Decodes a payload; the lines share one buffer.
///
/// # Errors
/// `Corrupt`; `Unsupported` for a later version.
pub(crate) fn decode(payload: &[u8]) -> Result<LogBatch> {
    let bad = corrupt("log record");
    let mut r = Reader::new(payload);
    let version = r.u8().map_err(&bad)?;
    if version != VERSION {
        return Err(Error::unsupported(format!(
            "log record of version {version}; this program reads up to {VERSION}"
        )));
    }
    let raw_len = r.uvarint().map_err(&bad)?;
    let raw_len = usize::try_from(raw_len).map_err(|_| Error::corrupt("log record: absurd length"))?;
    let raw = Bytes::from(unzstd(r.rest(), raw_len)?);
    let mut r = Reader::new(&raw);

    let n = r.count(2).map_err(&bad)?;
    let mut streams = Vec::with_capacity(n);
    let mut entries = 0u64;
    for _ in 0..n {
        let labels = LabelsRef::from_packed(r.bytes().map_err(&bad)?)?.to_owned();
        let count = r.uvarint().map_err(&bad)?;
        entries = entries.saturating_add(count);
        // Three bytes at least for each entry, so a count that passes is backed by bytes.
        if count == 0 || entries > raw.len() as u64 / 3 {
            return Err(Error::corrupt(format!("log record: {count} entries cannot be")));
        }
        streams.push((labels, count as usize));
    }
    let n = r.count(1).map_err(&bad)?;
    let mut dict = Vec::with_capacity(n);
    for _ in 0..n {
        dict.push(LabelsRef::from_packed(r.bytes().map_err(&bad)?)?.to_owned());
    }
    let mut heads = Vec::with_capacity(entries as usize);
    let mut ts = 0i64;
    for _ in 0..entries {
        ts = ts.wrapping_add(r.varint().map_err(&bad)?);
        let len = r.uvarint_u32().map_err(&bad)?;
        let code = r.uvarint_max(dict.len() as u64).map_err(&bad)? as usize;
        heads.push((ts, len as usize, code));
    }
    let empty = Labels::empty();
    let mut batch = LogBatch {
        streams: Vec::with_capacity(streams.len()),
    };
    let mut heads = heads.into_iter();
    for (labels, count) in streams {
        let mut entries = Vec::with_capacity(count);
        for (ts_ns, len, code) in heads.by_ref().take(count) {
            let start = r.position();
            r.skip(len).map_err(&bad)?;
            let metadata = if code == 0 { &empty } else { &dict[code - 1] };
            entries.push(LogEntry {
                ts_ns,
                line: raw.slice(start..start + len),
                metadata: metadata.clone(),
            });
        }
        batch.streams.push(LogStream { labels, entries });
    }
    r.finish().map_err(&bad)?;
    Ok(batch)
}

#[cfg(test)]
#[path = "wal_tests.rs"]
mod tests;
