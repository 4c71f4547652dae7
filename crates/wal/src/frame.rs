//! One record as bytes.
//!
//! ```text
//! | marker u32 | body length u32 | lsn u64 | signal u8 | tenant length u8 | 0 u16 | body crc u32 | header crc u32 |
//! | tenant | payload |
//! ```
//!
//! Little endian. The header has its own checksum, so that the length of a frame with a damaged body can be
//! trusted and only that record is lost. Both checksums start from the segment's random key: after a damaged
//! header the reader looks for the next valid one, and bytes that a client put into a payload cannot pose as it.

use trilith_model::{Signal, TenantId};

pub(crate) const FRAME_HEADER_BYTES: usize = 28;

/// Largest payload of one record. Above the largest request that is let in (100 MiB), below what a replay may
/// hold in memory for one record.
pub const RECORD_BYTES_MAX: usize = 128 << 20;

/// A tenant id is at most 150 bytes; the field has one byte.
pub(crate) const BODY_BYTES_MAX: usize = RECORD_BYTES_MAX + u8::MAX as usize;

/// Random number of a segment: the marker of its frames and the start of their checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameKey(pub u64);

impl FrameKey {
    pub fn marker(self) -> [u8; 4] {
        // The low half; the high half stays out of the file's frames.
        (self.0 as u32).to_le_bytes()
    }

    fn checksum(self, header: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.0.to_le_bytes()), header)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// Tenant and payload together.
    pub body_bytes: u32,
    pub lsn: u64,
    pub signal: Signal,
    pub tenant_bytes: u8,
    pub body_crc: u32,
}

impl FrameHeader {
    pub fn encode(&self, key: FrameKey) -> [u8; FRAME_HEADER_BYTES] {
        let mut out = [0; FRAME_HEADER_BYTES];
        out[0..4].copy_from_slice(&key.marker());
        out[4..8].copy_from_slice(&self.body_bytes.to_le_bytes());
        out[8..16].copy_from_slice(&self.lsn.to_le_bytes());
        out[16] = self.signal as u8;
        out[17] = self.tenant_bytes;
        out[20..24].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = key.checksum(&out[..24]);
        out[24..28].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// `None` when the bytes are not a header of this key, or one that no writer makes.
    pub fn decode(bytes: &[u8], key: FrameKey) -> Option<FrameHeader> {
        let bytes: &[u8; FRAME_HEADER_BYTES] = bytes.get(..FRAME_HEADER_BYTES)?.try_into().ok()?;
        if bytes[0..4] != key.marker() || key.checksum(&bytes[..24]) != u32_at(bytes, 24) {
            return None;
        }
        let header = FrameHeader {
            body_bytes: u32_at(bytes, 4),
            lsn: u64_at(bytes, 8),
            signal: Signal::from_u8(bytes[16])?,
            tenant_bytes: bytes[17],
            body_crc: u32_at(bytes, 20),
        };
        let fits = header.body_bytes as usize <= BODY_BYTES_MAX && header.body_bytes >= u32::from(header.tenant_bytes);
        fits.then_some(header)
    }

    pub fn frame_bytes(&self) -> u64 {
        FRAME_HEADER_BYTES as u64 + u64::from(self.body_bytes)
    }
}

/// Checksum of tenant and payload. Independent of the key, so that appenders compute it before they know the
/// segment.
pub(crate) fn body_checksum(tenant: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(tenant), payload)
}

/// Splits a body that passed its checksum. `None` when the tenant is not a valid id.
pub(crate) fn split_body(header: &FrameHeader, body: &[u8]) -> Option<(TenantId, usize)> {
    let tenant_bytes = usize::from(header.tenant_bytes);
    let tenant = std::str::from_utf8(body.get(..tenant_bytes)?).ok()?;
    Some((TenantId::new(tenant).ok()?, tenant_bytes))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> FrameHeader {
        FrameHeader {
            body_bytes: 9,
            lsn: 77,
            signal: Signal::Logs,
            tenant_bytes: 4,
            body_crc: 0xdead_beef,
        }
    }

    #[test]
    fn round_trip() {
        let key = FrameKey(0x0123_4567_89ab_cdef);
        assert_eq!(FrameHeader::decode(&header().encode(key), key), Some(header()));
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let key = FrameKey(42);
        let good = header().encode(key);
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::decode(&bad, key), None, "bit {bit}");
        }
    }

    #[test]
    fn another_segments_frame_is_not_ours() {
        // The same marker, another upper half.
        let bytes = header().encode(FrameKey(0x1_0000_002a));
        assert_eq!(FrameHeader::decode(&bytes, FrameKey(0x2_0000_002a)), None);
    }

    #[test]
    fn absurd_lengths_are_refused_even_with_a_right_checksum() {
        let key = FrameKey(1);
        let huge = FrameHeader {
            body_bytes: u32::MAX,
            ..header()
        };
        assert_eq!(FrameHeader::decode(&huge.encode(key), key), None);
        let short = FrameHeader {
            body_bytes: 3,
            ..header()
        };
        assert_eq!(FrameHeader::decode(&short.encode(key), key), None);
    }
}
