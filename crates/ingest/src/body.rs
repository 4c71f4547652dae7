//! Request bodies: decompression under a ceiling.
//!
//! The ceiling counts decompressed bytes. Snappy blocks announce their size, so it is checked before anything is
//! allocated; gzip, deflate and zstd are decoded piece by piece and stopped at the first byte too many. A bomb
//! therefore costs at most the ceiling.

use std::io::Read;

use bytes::Bytes;
use trilith_model::{Error, ErrorKind, Result};

/// Applies whatever the settings say ("0 means no limit" included): batches address their bytes with 32 bits.
pub const BODY_BYTES_CEILING: u64 = 1 << 30;

/// A snappy element of 3 bytes yields at most 64, so a header that promises more than this lies.
const SNAPPY_RATIO_MAX: u64 = 22;

/// Window a zstd frame may ask for: 2^24 bytes. The format guarantees 8 MiB to be readable.
const ZSTD_WINDOW_LOG_MAX: u32 = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Identity,
    Gzip,
    /// Raw deflate as Go's `compress/flate`, or wrapped in zlib as RFC 9110 has it.
    Deflate,
    Zstd,
    /// One snappy block, not the framed stream.
    SnappyBlock,
}

/// The limit in force for `request_bytes_max`.
pub fn bytes_max(request_bytes_max: u64) -> u64 {
    match request_bytes_max {
        0 => BODY_BYTES_CEILING,
        n => n.min(BODY_BYTES_CEILING),
    }
}

/// Decodes a body.
///
/// # Errors
/// `TooLarge` when more than `request_bytes_max` bytes (0: [`BODY_BYTES_CEILING`]) come out, `Invalid` when the
/// body is not what `encoding` says.
pub fn decode(body: Bytes, encoding: Encoding, request_bytes_max: u64) -> Result<Bytes> {
    let max = bytes_max(request_bytes_max);
    match encoding {
        Encoding::Identity if body.len() as u64 > max => Err(too_large(max)),
        Encoding::Identity => Ok(body),
        Encoding::Gzip => read("gzip", flate2::bufread::MultiGzDecoder::new(&*body), max),
        Encoding::Deflate => deflate(&body, max),
        Encoding::Zstd => {
            let invalid = |e: std::io::Error| Error::invalid(format!("zstd: {e}"));
            let mut decoder = zstd::stream::read::Decoder::with_buffer(&*body).map_err(invalid)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(invalid)?;
            read("zstd", decoder, max)
        }
        Encoding::SnappyBlock => snappy_block(&body, max),
    }
}

fn too_large(max: u64) -> Error {
    Error::new(
        ErrorKind::TooLarge,
        format!("request body too large: more than {max} bytes after decompression (limits.request-size)"),
    )
}

fn snappy_block(body: &[u8], max: u64) -> Result<Bytes> {
    let corrupt = |_| Error::invalid("snappy: corrupt input");
    let len = snap::raw::decompress_len(body).map_err(corrupt)? as u64;
    if len > max {
        return Err(too_large(max));
    }
    if len > (body.len() as u64).saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(Error::invalid("snappy: corrupt input"));
    }
    if body.is_empty() {
        return Err(Error::invalid("snappy: corrupt input"));
    }
    snap::raw::Decoder::new()
        .decompress_vec(body)
        .map(Bytes::from)
        .map_err(corrupt)
}

/// A zlib header and a raw deflate stream can be told apart by the header's check bits; a raw stream that
/// happens to satisfy them is still read, as the second try.
fn deflate(body: &[u8], max: u64) -> Result<Bytes> {
    if let [a, b, ..] = body
        && a & 0x0f == 8
        && (u16::from(*a) << 8 | u16::from(*b)) % 31 == 0
    {
        match read("deflate", flate2::bufread::ZlibDecoder::new(body), max) {
            Err(e) if e.kind == ErrorKind::Invalid => {}
            done => return done,
        }
    }
    read("deflate", flate2::bufread::DeflateDecoder::new(body), max)
}

fn read(name: &str, from: impl Read, max: u64) -> Result<Bytes> {
    let mut out = Vec::new();
    // One byte more than allowed tells "exactly full" from "too large".
    from.take(max + 1)
        .read_to_end(&mut out)
        .map_err(|e| Error::invalid(format!("{name}: invalid body: {e}")))?;
    if out.len() as u64 > max {
        return Err(too_large(max));
    }
    Ok(out.into())
}

/// How much memory decoded items may take, so that a body of millions of empty messages is refused before it
/// becomes gigabytes of structs. Real data stays far below: an attribute of ten bytes on the wire is 56 in memory.
#[derive(Debug)]
pub(crate) struct Budget {
    left: usize,
}

/// Decoded bytes allowed per body byte.
const EXPANSION_MAX: usize = 12;
/// Allowed on top, so that small odd requests pass.
const EXPANSION_FREE_BYTES: usize = 1 << 20;

impl Budget {
    pub fn for_body(bytes: usize) -> Self {
        Budget {
            left: bytes.saturating_mul(EXPANSION_MAX) + EXPANSION_FREE_BYTES,
        }
    }

    /// Charges one item of type `T`, its heap parts excluded.
    ///
    /// # Errors
    /// `TooLarge` when the request expands beyond the budget.
    #[inline]
    pub fn charge<T>(&mut self) -> Result<()> {
        self.charge_bytes(size_of::<T>())
    }

    /// As [`Budget::charge`].
    #[inline]
    pub fn charge_bytes(&mut self, bytes: usize) -> Result<()> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(Error::new(
                ErrorKind::TooLarge,
                format!("request body too large: it expands to more than {EXPANSION_MAX} times its size in memory"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut w = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        w.write_all(data).unwrap();
        w.finish().unwrap()
    }

    fn raw_deflate(data: &[u8]) -> Vec<u8> {
        let mut w = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        w.write_all(data).unwrap();
        w.finish().unwrap()
    }

    fn zlib(data: &[u8]) -> Vec<u8> {
        let mut w = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        w.write_all(data).unwrap();
        w.finish().unwrap()
    }

    fn zstd_(data: &[u8]) -> Vec<u8> {
        zstd::encode_all(data, 1).unwrap()
    }

    fn snappy(data: &[u8]) -> Vec<u8> {
        snap::raw::Encoder::new().compress_vec(data).unwrap()
    }

    fn all(data: &[u8]) -> [(Encoding, Vec<u8>); 6] {
        [
            (Encoding::Identity, data.to_vec()),
            (Encoding::Gzip, gzip(data)),
            (Encoding::Deflate, raw_deflate(data)),
            (Encoding::Deflate, zlib(data)),
            (Encoding::Zstd, zstd_(data)),
            (Encoding::SnappyBlock, snappy(data)),
        ]
    }

    #[test]
    fn the_limit_is_on_decompressed_bytes_and_inclusive() {
        let data = vec![7u8; 100_000];
        for (encoding, body) in all(&data) {
            let body = Bytes::from(body);
            let exact = decode(body.clone(), encoding, 100_000);
            assert_eq!(exact.unwrap().as_ref(), data, "{encoding:?}");
            let over = decode(body, encoding, 99_999).unwrap_err();
            assert_eq!(over.kind, ErrorKind::TooLarge, "{encoding:?}");
            assert!(over.message.starts_with("request body too large: "));
        }
    }

    #[test]
    fn bombs_stop_at_the_limit() {
        let zeros = vec![0u8; 64 << 20];
        for bomb in [gzip(&zeros), zstd_(&zeros), raw_deflate(&zeros)] {
            assert!(bomb.len() < 1 << 20);
        }
        for (encoding, bomb) in [(Encoding::Gzip, gzip(&zeros)), (Encoding::Zstd, zstd_(&zeros))] {
            let e = decode(bomb.into(), encoding, 1 << 20).unwrap_err();
            assert_eq!(e.kind, ErrorKind::TooLarge);
        }
        // 10 members of 64 MiB each
        let many = gzip(&zeros).repeat(10);
        let e = decode(many.into(), Encoding::Gzip, 100 << 20).unwrap_err();
        assert_eq!(e.kind, ErrorKind::TooLarge);
    }

    #[test]
    fn a_snappy_header_is_not_trusted() {
        // announces 4 GiB - 1, 100 MiB and 1 KiB with nothing behind
        for header in [&b"\xff\xff\xff\xff\x0f"[..], b"\x80\x80\x80\x32", b"\x80\x08", b""] {
            let e = decode(Bytes::copy_from_slice(header), Encoding::SnappyBlock, 0).unwrap_err();
            assert!(matches!(e.kind, ErrorKind::Invalid | ErrorKind::TooLarge), "{e:?}");
        }
        let framed = b"\xff\x06\0\0sNaPpY".to_vec();
        let e = decode(framed.into(), Encoding::SnappyBlock, 0).unwrap_err();
        assert_eq!(e.message, "snappy: corrupt input");
    }

    #[test]
    fn truncated_bodies_are_invalid() {
        for (encoding, body) in all(b"some bytes that are compressed").into_iter().skip(1) {
            let cut = Bytes::copy_from_slice(&body[..body.len() - 3]);
            let e = decode(cut, encoding, 0).unwrap_err();
            assert_eq!(e.kind, ErrorKind::Invalid, "{encoding:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn round_trips(data in proptest::collection::vec(any::<u8>(), 0..2000)) {
            for (encoding, body) in all(&data) {
                let out = decode(body.into(), encoding, 0).unwrap();
                prop_assert_eq!(out.as_ref(), data.as_slice());
            }
        }

        #[test]
        fn garbage_never_panics(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            for encoding in [Encoding::Gzip, Encoding::Deflate, Encoding::Zstd, Encoding::SnappyBlock] {
                let _ = decode(Bytes::copy_from_slice(&data), encoding, 1 << 16);
            }
        }
    }
}
