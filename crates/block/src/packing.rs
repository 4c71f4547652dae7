//! zstd with a ceiling on what comes out.

use std::io::Read as _;

/// Level for data that is written once and merged later; the ecosystem notes found no gain above it.
pub(crate) const LEVEL: i32 = 3;

pub(crate) fn pack(raw: &[u8], level: i32) -> std::io::Result<Vec<u8>> {
    zstd::bulk::compress(raw, level)
}

/// Decompresses to exactly `raw_len` bytes. Allocates as the bytes come, so a forged length costs nothing.
///
/// # Errors
/// A reason for people: the stream is broken, longer or shorter.
pub(crate) fn unpack(packed: &[u8], raw_len: u64) -> Result<Vec<u8>, String> {
    // A frame of n bytes rarely holds more than a few hundred times n; beyond it the vector grows as needed.
    let guess = raw_len.min((packed.len() as u64).saturating_mul(64));
    let mut raw = Vec::with_capacity(usize::try_from(guess).unwrap_or(0));
    let decoder = zstd::stream::read::Decoder::with_buffer(packed).map_err(|e| e.to_string())?;
    decoder
        .take(raw_len.saturating_add(1))
        .read_to_end(&mut raw)
        .map_err(|e| format!("zstd: {e}"))?;
    if raw.len() as u64 != raw_len {
        return Err(format!(
            "zstd: {raw_len} bytes expected, got {}{}",
            raw.len().min(raw_len as usize),
            if raw.len() as u64 > raw_len { " and more" } else { "" }
        ));
    }
    Ok(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_lies() {
        let raw = b"abcabcabcabcabcabc".repeat(100);
        let packed = pack(&raw, LEVEL).expect("compresses");
        assert_eq!(unpack(&packed, raw.len() as u64).as_deref(), Ok(raw.as_slice()));
        for wrong in [0, 1, raw.len() as u64 - 1, raw.len() as u64 + 1, u64::MAX] {
            assert!(unpack(&packed, wrong).is_err(), "{wrong}");
        }
        assert!(unpack(&packed[..packed.len() - 1], raw.len() as u64).is_err());
        assert!(unpack(b"no zstd", 7).is_err());
    }
}
