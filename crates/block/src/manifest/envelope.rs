//! What deltas and snapshots are wrapped in: magic, version, checksum, zstd.
//!
//! ```text
//! | magic "TRLM" | version u16 | kind u8 | 0 u8 | raw_len u64 | zstd frame … | crc32c u32 |
//! ```
//! The checksum covers everything before it.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use trilith_codec::{DecodeError, Reader, crc32c};
use trilith_model::{Error, Result};

use crate::packing;

const MAGIC: &[u8; 4] = b"TRLM";
/// The newest version; see [`version_of`].
pub(super) const VERSION: u16 = 2;
const HEADER_BYTES: usize = 16;
const CRC_BYTES: usize = 4;

/// Uncompressed JSON above which an object is refused: a few hundred bytes per block make this millions of blocks.
const RAW_BYTES_MAX: u64 = 1 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Delta = 1,
    Snapshot = 2,
}

/// Objects with tombstones have version 2: a build that does not know them would show what is deleted, so it must
/// not start. All others stay readable for it.
pub(super) fn version_of(has_tombstones: bool) -> u16 {
    if has_tombstones { VERSION } else { 1 }
}

pub(super) fn encode<T: Serialize>(kind: Kind, version: u16, body: &T) -> Result<Bytes> {
    let raw = serde_json::to_vec(body).map_err(|e| Error::internal(format!("manifest object does not encode: {e}")))?;
    let packed = packing::pack(&raw, packing::LEVEL)
        .map_err(|e| Error::internal(format!("manifest object does not compress: {e}")))?;
    let mut out = Vec::with_capacity(HEADER_BYTES + packed.len() + CRC_BYTES);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&version.to_le_bytes());
    out.extend_from_slice(&[kind as u8, 0]);
    out.extend_from_slice(&(raw.len() as u64).to_le_bytes());
    out.extend_from_slice(&packed);
    out.extend_from_slice(&crc32c(&out).to_le_bytes());
    Ok(Bytes::from(out))
}

/// # Errors
/// `Corrupt`, `Unsupported` for a newer version. The caller adds the object's name.
pub(super) fn decode<T: DeserializeOwned>(kind: Kind, bytes: &[u8]) -> Result<T> {
    let Some((checked, crc)) = bytes.split_last_chunk::<CRC_BYTES>() else {
        return Err(Error::corrupt(format!("{} bytes are too few", bytes.len())));
    };
    let mut r = Reader::new(checked);
    let (version, found_kind, raw_len) = (|| {
        r.magic(MAGIC)?;
        let version = r.u16()?;
        let kind = r.u8()?;
        r.skip(1)?;
        Ok::<_, DecodeError>((version, kind, r.u64()?))
    })()
    .map_err(|e| Error::corrupt(e.to_string()))?;
    let (stored, computed) = (u32::from_le_bytes(*crc), crc32c(checked));
    if stored != computed {
        return Err(Error::corrupt(format!(
            "checksum {stored:08x} expected, got {computed:08x}"
        )));
    }
    // After the checksum, so that a damaged version is told as damage.
    if !(1..=VERSION).contains(&version) {
        return Err(Error::unsupported(format!(
            "manifest version {version}; this build reads 1 to {VERSION}"
        )));
    }
    if found_kind != kind as u8 {
        return Err(Error::corrupt(format!(
            "object of kind {found_kind} where {} is expected",
            kind as u8
        )));
    }
    if raw_len > RAW_BYTES_MAX {
        return Err(Error::corrupt(format!("{raw_len} bytes exceed {RAW_BYTES_MAX}")));
    }
    let raw = packing::unpack(r.rest(), raw_len).map_err(Error::corrupt)?;
    serde_json::from_slice(&raw).map_err(|e| Error::corrupt(format!("body: {e}")))
}
