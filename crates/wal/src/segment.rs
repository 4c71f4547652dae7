//! The head of a segment: who it is, what came before it, and where its failed predecessor ends.
//!
//! ```text
//! | magic 8 | version u32 | 0 u32 | key u64 | first lsn u64 | previous lsn u64 | cut segment u64 | cut offset u64 | 0 u32 | crc u32 |
//! ```
//!
//! Stored twice in a row, so that a flipped bit in the one place that everything depends on costs nothing.

use crate::frame::{FrameKey, u32_at, u64_at};

pub(crate) const MAGIC: [u8; 8] = *b"TRILOWAL";
pub(crate) const VERSION: u32 = 1;

const COPY_BYTES: usize = 64;

/// Both copies; the first frame starts here.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 2 * COPY_BYTES;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub key: FrameKey,
    /// Every LSN of the segment is at least this; also the file's name.
    pub first_lsn: u64,
    /// The last durable LSN before this segment, 0 when there was none. A gap to it tells that a segment is missing.
    pub previous_lsn: u64,
    /// The segment that a failed write or sync ended, and how many of its bytes count.
    pub cut: Option<Cut>,
}

/// Bytes of a segment from `offset` on belong to records that were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub first_lsn: u64,
    pub offset: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// Neither copy passes its checksum.
    Damaged,
    /// Written by a later version of the program.
    Version(u32),
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut copy = [0; COPY_BYTES];
        copy[0..8].copy_from_slice(&MAGIC);
        copy[8..12].copy_from_slice(&VERSION.to_le_bytes());
        copy[16..24].copy_from_slice(&self.key.0.to_le_bytes());
        copy[24..32].copy_from_slice(&self.first_lsn.to_le_bytes());
        copy[32..40].copy_from_slice(&self.previous_lsn.to_le_bytes());
        let cut = self.cut.unwrap_or(Cut {
            first_lsn: 0,
            offset: 0,
        });
        copy[40..48].copy_from_slice(&cut.first_lsn.to_le_bytes());
        copy[48..56].copy_from_slice(&cut.offset.to_le_bytes());
        let crc = crc32c::crc32c(&copy[..60]);
        copy[60..64].copy_from_slice(&crc.to_le_bytes());
        let mut out = [0; SEGMENT_HEADER_BYTES];
        out[..COPY_BYTES].copy_from_slice(&copy);
        out[COPY_BYTES..].copy_from_slice(&copy);
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<SegmentHeader, HeaderError> {
        let mut newer = None;
        for copy in bytes.chunks_exact(COPY_BYTES).take(2) {
            if copy[..8] != MAGIC || crc32c::crc32c(&copy[..60]) != u32_at(copy, 60) {
                continue;
            }
            let version = u32_at(copy, 8);
            if version != VERSION {
                newer = Some(version);
                continue;
            }
            let (first_lsn, previous_lsn) = (u64_at(copy, 24), u64_at(copy, 32));
            if first_lsn > LSN_MAX || previous_lsn >= first_lsn {
                continue;
            }
            let cut_segment = u64_at(copy, 40);
            return Ok(SegmentHeader {
                key: FrameKey(u64_at(copy, 16)),
                first_lsn,
                previous_lsn,
                cut: (cut_segment != 0).then(|| Cut {
                    first_lsn: cut_segment,
                    offset: u64_at(copy, 48),
                }),
            });
        }
        Err(newer.map_or(HeaderError::Damaged, HeaderError::Version))
    }
}

/// `<first-lsn:020>.wal`: names sort by age.
pub(crate) fn segment_name(first_lsn: u64) -> String {
    format!("{first_lsn:020}.wal")
}

/// No log counts this far; larger numbers in file names and positions are mistakes, and must not use up the LSNs.
pub(crate) const LSN_MAX: u64 = u64::MAX / 2;

/// The first LSN, `None` for anything that is not exactly a segment's name.
pub(crate) fn parse_segment_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    let first_lsn: u64 = digits.parse().ok()?;
    ((1..=LSN_MAX).contains(&first_lsn) && segment_name(first_lsn) == name).then_some(first_lsn)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            key: FrameKey(7),
            first_lsn: 100,
            previous_lsn: 99,
            cut: Some(Cut {
                first_lsn: 50,
                offset: 4711,
            }),
        }
    }

    #[test]
    fn round_trip() {
        assert_eq!(SegmentHeader::decode(&header().encode()), Ok(header()));
        let plain = SegmentHeader { cut: None, ..header() };
        assert_eq!(SegmentHeader::decode(&plain.encode()), Ok(plain));
    }

    #[test]
    fn any_flipped_bit_costs_nothing() {
        let good = header().encode();
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&bad), Ok(header()), "bit {bit}");
        }
    }

    #[test]
    fn a_later_version_is_told_apart_from_damage() {
        let mut bytes = header().encode();
        for start in [0, COPY_BYTES] {
            bytes[start + 8] = 9;
            let crc = crc32c::crc32c(&bytes[start..start + 60]);
            bytes[start + 60..start + 64].copy_from_slice(&crc.to_le_bytes());
        }
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::Version(9)));
        assert_eq!(
            SegmentHeader::decode(&[0; SEGMENT_HEADER_BYTES]),
            Err(HeaderError::Damaged)
        );
        assert_eq!(
            SegmentHeader::decode(&header().encode()[..40]),
            Err(HeaderError::Damaged)
        );
    }

    #[test]
    fn names_round_trip_and_nothing_else_is_one() {
        assert_eq!(parse_segment_name(&segment_name(42)), Some(42));
        assert_eq!(parse_segment_name(&segment_name(LSN_MAX)), Some(LSN_MAX));
        assert_eq!(parse_segment_name(&segment_name(u64::MAX)), None);
        for name in [
            "42.wal",
            "00000000000000000000.wal",
            "x.wal",
            "0000000000000000004x.wal",
            "writer",
            "",
            ".wal",
        ] {
            assert_eq!(parse_segment_name(name), None, "{name}");
        }
    }
}
