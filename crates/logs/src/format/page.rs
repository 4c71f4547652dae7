//! A page: the rows of some neighbouring streams, as three pieces that are read separately.
//!
//! keys, one zstd frame:
//! | unit u8 | Δts/10^unit uvarint × (rows − runs) | Δlsn varint × rows | line length uvarint × rows |
//!
//! metadata, one zstd frame, absent when no row has any:
//! | n uvarint | (packed label set as bytes) × n | code uvarint × rows |
//!
//! lines, one zstd frame: the lines one after the other, without separators.
//!
//! The first time of a run stands in the directory, with the lengths and checksums of the pieces
//! (`format/directory.rs`). Format: docs/formats/logs-block.md.

use hashbrown::HashMap;
use trilith_codec::{Reader, put_bytes, put_uvarint, put_varint};
use trilith_model::{Error, Labels, LabelsRef, Result};

use crate::format::{Compressor, corrupt, unzstd};
use crate::page::{Keys, Run};

/// A page is closed when its lines reach this many bytes. Large enough for zstd to find its matches (its window
/// at level 1 is 512 KiB), small enough that the last 100 lines of a stream cost a millisecond.
pub const PAGE_LINE_BYTES: usize = 512 << 10;

/// A page is closed when it has this many rows, which bounds the keys of very short lines.
pub const PAGE_ROWS_MAX: usize = 64 << 10;

/// Units of time differences, as powers of ten of a nanosecond: ns, µs, ms, s.
const UNIT_MAX: u8 = 9;

/// The three pieces of an encoded page.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    pub keys: Vec<u8>,
    pub keys_raw: usize,
    pub meta: Vec<u8>,
    pub meta_raw: usize,
    pub lines: Vec<u8>,
    pub lines_raw: usize,
}

/// Encodes a page. `runs` cover the rows of `keys` in order; `lines` is as long as the last end says.
pub(crate) fn encode(compressor: &mut Compressor, runs: &[Run], keys: &Keys, lines: &[u8]) -> Result<Pieces> {
    let raw_keys = encode_keys(runs, keys);
    let mut pieces = Pieces {
        keys: compressor.compress(&raw_keys)?.to_vec(),
        keys_raw: raw_keys.len(),
        lines: compressor.compress(lines)?.to_vec(),
        lines_raw: lines.len(),
        ..Pieces::default()
    };
    if keys.meta.iter().any(|&code| code != 0) {
        let raw = encode_meta(keys);
        pieces.meta = compressor.compress(&raw)?.to_vec();
        pieces.meta_raw = raw.len();
    }
    Ok(pieces)
}

fn encode_keys(runs: &[Run], keys: &Keys) -> Vec<u8> {
    let unit = time_unit(runs, keys);
    let scale = 10u64.pow(u32::from(unit));
    let mut out = Vec::with_capacity(1 + keys.rows() * 7);
    out.push(unit);
    for run in runs {
        for pair in keys.ts[run.range()].windows(2) {
            // Ascending, so the difference fits 64 unsigned bits even from one end of time to the other.
            put_uvarint(&mut out, pair[1].wrapping_sub(pair[0]) as u64 / scale);
        }
    }
    let mut last = 0u64;
    for &lsn in &keys.lsn {
        put_varint(&mut out, lsn.wrapping_sub(last) as i64);
        last = lsn;
    }
    let mut start = 0;
    for &end in &keys.ends {
        put_uvarint(&mut out, u64::from(end - start));
        start = end;
    }
    out
}

/// The largest unit that divides every difference: senders whose clocks have millisecond steps save three bytes
/// per row.
fn time_unit(runs: &[Run], keys: &Keys) -> u8 {
    let mut unit = UNIT_MAX;
    for run in runs {
        for pair in keys.ts[run.range()].windows(2) {
            let delta = pair[1].wrapping_sub(pair[0]) as u64;
            while !delta.is_multiple_of(10u64.pow(u32::from(unit))) {
                unit -= 3;
            }
        }
        if unit == 0 {
            break;
        }
    }
    unit
}

fn encode_meta(keys: &Keys) -> Vec<u8> {
    let mut out = Vec::with_capacity(keys.rows() + 64);
    put_uvarint(&mut out, keys.dict.len() as u64);
    for labels in &keys.dict {
        put_bytes(&mut out, labels.as_packed());
    }
    for &code in &keys.meta {
        put_uvarint(&mut out, u64::from(code));
    }
    out
}

/// Decodes the keys piece, without metadata. `runs` and `lines_raw` are the directory's.
///
/// # Errors
/// `Corrupt` when the piece contradicts itself or the directory.
pub(crate) fn decode_keys(piece: &[u8], raw_len: usize, runs: &[Run], lines_raw: usize) -> Result<Keys> {
    let raw = unzstd(piece, raw_len)?;
    let rows: u64 = runs.iter().map(|r| u64::from(r.rows)).sum();
    // At least one byte for the LSN and one for the length.
    if rows > raw.len() as u64 / 2 {
        return Err(Error::corrupt(format!(
            "page of {} bytes cannot have {rows} rows",
            raw.len()
        )));
    }
    let rows = rows as usize;
    let bad = corrupt("page keys");
    let mut r = Reader::new(&raw);
    let unit = r.u8().map_err(&bad)?;
    if unit > UNIT_MAX || unit % 3 != 0 {
        return Err(Error::corrupt(format!("page keys: unknown time unit {unit}")));
    }
    let scale = 10u64.pow(u32::from(unit));
    let mut keys = Keys {
        ts: Vec::with_capacity(rows),
        lsn: Vec::with_capacity(rows),
        ends: Vec::with_capacity(rows),
        ..Keys::default()
    };
    for run in runs {
        if run.first as usize != keys.ts.len() || run.rows == 0 {
            return Err(Error::corrupt("page keys: runs do not cover the rows"));
        }
        let mut ts = run.ts_min;
        keys.ts.push(ts);
        for _ in 1..run.rows {
            let delta = r.uvarint().map_err(&bad)?.checked_mul(scale);
            let next = delta.and_then(|d| ts.checked_add_unsigned(d));
            ts = next.ok_or_else(|| Error::corrupt("page keys: time overflows"))?;
            keys.ts.push(ts);
        }
        if ts != run.ts_max {
            return Err(Error::corrupt("page keys: times end elsewhere than the directory says"));
        }
    }
    let mut lsn = 0u64;
    for _ in 0..rows {
        lsn = lsn.wrapping_add(r.varint().map_err(&bad)? as u64);
        keys.lsn.push(lsn);
    }
    let mut end = 0u64;
    for _ in 0..rows {
        end += u64::from(r.uvarint_u32().map_err(&bad)?);
        keys.ends
            .push(u32::try_from(end).map_err(|_| Error::corrupt("page keys: lines are too long"))?);
    }
    if end != lines_raw as u64 {
        return Err(Error::corrupt("page keys: line lengths do not add up"));
    }
    r.finish().map_err(&bad)?;
    Ok(keys)
}

/// Adds the metadata piece to decoded keys.
///
/// # Errors
/// `Corrupt` when the piece contradicts itself or the keys.
pub(crate) fn decode_meta(piece: &[u8], raw_len: usize, keys: &mut Keys) -> Result<()> {
    let raw = unzstd(piece, raw_len)?;
    let bad = corrupt("page metadata");
    let mut r = Reader::new(&raw);
    let n = r.count(1).map_err(&bad)?;
    let mut dict = Vec::with_capacity(n.min(keys.rows()));
    for _ in 0..n {
        dict.push(LabelsRef::from_packed(r.bytes().map_err(&bad)?)?.to_owned());
    }
    let mut meta = Vec::with_capacity(keys.rows());
    for _ in 0..keys.rows() {
        // Bounded by the count of the dictionary, which is bounded by the bytes of the piece.
        meta.push(r.uvarint_max((n as u64).min(u64::from(u32::MAX))).map_err(&bad)? as u32);
    }
    r.finish().map_err(&bad)?;
    keys.meta = meta;
    keys.dict = dict;
    Ok(())
}

/// Decompresses the lines piece.
///
/// # Errors
/// `Corrupt`.
pub(crate) fn decode_lines(piece: &[u8], raw_len: usize) -> Result<Vec<u8>> {
    unzstd(piece, raw_len)
}

/// Numbers metadata sets in order of first use; code 0 is the empty set.
#[derive(Default)]
pub(crate) struct MetaDict {
    codes: HashMap<Labels, u32, foldhash::fast::RandomState>,
    pub dict: Vec<Labels>,
    pub bytes: usize,
    /// The last set and its code: neighbours often share it.
    last: Option<(Labels, u32)>,
}

impl MetaDict {
    pub fn code(&mut self, metadata: &Labels) -> u32 {
        if metadata.is_empty() {
            return 0;
        }
        if let Some((labels, code)) = &self.last
            && labels == metadata
        {
            return *code;
        }
        let code = match self.codes.get(metadata) {
            Some(&code) => code,
            None => {
                self.dict.push(metadata.clone());
                self.bytes += metadata.as_packed().len() + 64;
                let code = self.dict.len() as u32;
                self.codes.insert(metadata.clone(), code);
                code
            }
        };
        self.last = Some((metadata.clone(), code));
        code
    }
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
