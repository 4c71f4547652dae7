//! Where the pages of a block are: small, read when the block is opened.
//!
//! Both directories are `| count uvarint | entries |`. Offsets are within the data section and coded as the gap from
//! the end of the entry before.
//!
//! Value page: `| gap | len | raw_len | crc u32 | first ordinal (Δ from the last of the page before) | last - first |
//! samples | min ms varint | max - min |`.
//! Time page: `| gap | len | raw_len | crc u32 | vectors |`; vectors are numbered on from page to page.

use std::ops::Range;

use bytes::Bytes;
use trilith_codec::{Reader, crc32c, put_uvarint, put_varint};
use trilith_model::{Error, Result, TimeRange};

use super::{PAGE_RAW_BYTES_MAX, bad, decompress};

/// A compressed part of the data section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) len: u32,
    pub(crate) raw_len: u32,
    /// Of the stored bytes.
    pub(crate) crc: u32,
}

impl Extent {
    pub(crate) fn range(&self) -> Range<u64> {
        self.offset..self.offset + u64::from(self.len)
    }

    /// Checks and decompresses the stored bytes.
    ///
    /// # Errors
    /// `Corrupt`.
    pub(crate) fn open(&self, stored: &Bytes) -> Result<Vec<u8>> {
        if stored.len() != self.len as usize || crc32c(stored) != self.crc {
            return Err(Error::corrupt(format!(
                "page at {} does not match its checksum",
                self.offset
            )));
        }
        decompress(stored, self.raw_len as usize)
    }

    fn encode(&self, out: &mut Vec<u8>, end: &mut u64) {
        put_uvarint(out, self.offset - *end);
        put_uvarint(out, u64::from(self.len));
        put_uvarint(out, u64::from(self.raw_len));
        out.extend_from_slice(&self.crc.to_le_bytes());
        *end = self.offset + u64::from(self.len);
    }

    /// `end` is the end of the extent before; the extent must end at or before `max`.
    fn decode(r: &mut Reader<'_>, end: &mut u64, max: u64) -> Result<Self> {
        let bad = bad("page directory");
        let gap = r.uvarint_max(max).map_err(&bad)?;
        let len = r.uvarint_u32().map_err(&bad)?;
        // Bounded by the raw maximum, a u32.
        let raw_len = r.uvarint_max(PAGE_RAW_BYTES_MAX as u64).map_err(&bad)? as u32;
        let crc = r.u32().map_err(&bad)?;
        let offset = end.saturating_add(gap);
        let stop = offset.saturating_add(u64::from(len));
        if stop > max {
            return Err(Error::corrupt(format!(
                "page at {offset} leaves the data section of {max} bytes"
            )));
        }
        *end = stop;
        Ok(Extent {
            offset,
            len,
            raw_len,
            crc,
        })
    }
}

/// Neighbouring series × the block's time range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageEntry {
    pub(crate) extent: Extent,
    /// Both inclusive. A series with very many samples continues on the next page.
    pub(crate) first_ordinal: u32,
    pub(crate) last_ordinal: u32,
    pub(crate) samples: u64,
    pub(crate) time: TimeRange,
}

pub(crate) fn encode_pages(pages: &[PageEntry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(pages.len() * 24);
    put_uvarint(&mut out, pages.len() as u64);
    let (mut end, mut last) = (0, 0);
    for p in pages {
        p.extent.encode(&mut out, &mut end);
        put_uvarint(&mut out, u64::from(p.first_ordinal - last));
        put_uvarint(&mut out, u64::from(p.last_ordinal - p.first_ordinal));
        put_uvarint(&mut out, p.samples);
        put_varint(&mut out, p.time.min);
        put_uvarint(&mut out, p.time.max.wrapping_sub(p.time.min) as u64);
        last = p.last_ordinal;
    }
    out
}

/// `data_len` is the length of the data section, `series` the number of series of the index.
///
/// # Errors
/// `Corrupt` unless the pages cover exactly the series in order and lie within the data section.
pub(crate) fn decode_pages(bytes: &[u8], data_len: u64, series: u32) -> Result<Vec<PageEntry>> {
    let bad = bad("page directory");
    let mut r = Reader::new(bytes);
    let count = r.count(12).map_err(&bad)?;
    let mut pages = Vec::with_capacity(count);
    let (mut end, mut last) = (0, 0u32);
    for i in 0..count {
        let extent = Extent::decode(&mut r, &mut end, data_len)?;
        let gap = r.uvarint_u32().map_err(&bad)?;
        let width = r.uvarint_u32().map_err(&bad)?;
        // The first page begins with series 0, the next one with the same series or the one after.
        if gap > u32::from(i > 0) {
            return Err(Error::corrupt("page directory leaves series out"));
        }
        let first_ordinal = last + gap.min(u32::from(i > 0));
        let last_ordinal = first_ordinal
            .checked_add(width)
            .filter(|&o| o < series)
            .ok_or_else(|| Error::corrupt("page directory names series that do not exist"))?;
        let samples = r.uvarint().map_err(&bad)?;
        let min = r.varint().map_err(&bad)?;
        let max = min.wrapping_add(r.uvarint().map_err(&bad)? as i64);
        if max < min {
            return Err(Error::corrupt("page ends before it begins"));
        }
        pages.push(PageEntry {
            extent,
            first_ordinal,
            last_ordinal,
            samples,
            time: TimeRange::new(min, max),
        });
        last = last_ordinal;
    }
    r.finish().map_err(&bad)?;
    let covered = pages.last().map_or(0, |p| u64::from(p.last_ordinal) + 1);
    if covered != u64::from(series) {
        return Err(Error::corrupt(format!("pages cover {covered} of {series} series")));
    }
    Ok(pages)
}

/// A page of timestamp vectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TimesEntry {
    pub(crate) extent: Extent,
    pub(crate) first_vector: u32,
}

pub(crate) fn encode_times(pages: &[TimesEntry], vectors: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(pages.len() * 16);
    put_uvarint(&mut out, pages.len() as u64);
    let mut end = 0;
    for (i, p) in pages.iter().enumerate() {
        p.extent.encode(&mut out, &mut end);
        let next = pages.get(i + 1).map_or(vectors, |n| n.first_vector);
        put_uvarint(&mut out, u64::from(next - p.first_vector));
    }
    out
}

/// The entries and the number of all vectors.
///
/// # Errors
/// `Corrupt` unless the pages lie within the data section of `data_len` bytes.
pub(crate) fn decode_times(bytes: &[u8], data_len: u64) -> Result<(Vec<TimesEntry>, u32)> {
    let bad = bad("times directory");
    let mut r = Reader::new(bytes);
    let count = r.count(8).map_err(&bad)?;
    let mut pages = Vec::with_capacity(count);
    let (mut end, mut vectors) = (0, 0u32);
    for _ in 0..count {
        let extent = Extent::decode(&mut r, &mut end, data_len)?;
        pages.push(TimesEntry {
            extent,
            first_vector: vectors,
        });
        let n = r.uvarint_u32().map_err(&bad)?;
        vectors = vectors
            .checked_add(n)
            .filter(|_| n > 0)
            .ok_or_else(|| Error::corrupt("times directory: number of vectors"))?;
    }
    r.finish().map_err(&bad)?;
    Ok((pages, vectors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn extent(offset: u64, len: u32) -> Extent {
        Extent {
            offset,
            len,
            raw_len: len * 2,
            crc: len ^ 0xdead_beef,
        }
    }

    #[test]
    fn round_trip() {
        let pages = vec![
            PageEntry {
                extent: extent(10, 5),
                first_ordinal: 0,
                last_ordinal: 3,
                samples: 7,
                time: TimeRange::new(i64::MIN, i64::MAX),
            },
            PageEntry {
                extent: extent(15, 6),
                first_ordinal: 3,
                last_ordinal: 3,
                samples: 1,
                time: TimeRange::new(-1, -1),
            },
            PageEntry {
                extent: extent(40, 1),
                first_ordinal: 4,
                last_ordinal: 9,
                samples: 9,
                time: TimeRange::new(0, 5),
            },
        ];
        let bytes = encode_pages(&pages);
        assert_eq!(decode_pages(&bytes, 41, 10).unwrap(), pages);
        assert!(decode_pages(&bytes, 40, 10).is_err(), "outside of the data");
        assert!(decode_pages(&bytes, 41, 11).is_err(), "a series without a page");
        assert!(decode_pages(&bytes, 41, 9).is_err(), "a page without a series");

        let times = vec![
            TimesEntry {
                extent: extent(0, 10),
                first_vector: 0,
            },
            TimesEntry {
                extent: extent(30, 2),
                first_vector: 4,
            },
        ];
        let bytes = encode_times(&times, 9);
        assert_eq!(decode_times(&bytes, 32).unwrap(), (times, 9));
        assert!(decode_times(&bytes, 31).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn hostile(bytes in proptest::collection::vec(any::<u8>(), 0..200), series in 0u32..20) {
            let _ = decode_pages(&bytes, 1000, series);
            let _ = decode_times(&bytes, 1000);
        }
    }
}
