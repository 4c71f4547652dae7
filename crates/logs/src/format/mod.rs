//! What the engine writes: the WAL payload and the structures of a block. One structure per file.

pub(crate) mod directory;
pub(crate) mod page;
pub(crate) mod wal;

use std::io::Read as _;

use trilith_codec::DecodeError;
use trilith_model::{Error, Result};

use crate::pool::{self, Stock};

/// Buffers up to this size are allocated at once when a length is read; larger ones grow with the bytes that
/// really come, so that a forged length costs nothing.
const TRUSTED_LEN: usize = 8 << 20;

/// A zstd context is 150 KiB and slow to build compared with a small page.
static DECOMPRESSORS: Stock<zstd::bulk::Decompressor<'static>> = Stock::new();

/// Decompresses a zstd frame that must hold exactly `raw_len` bytes.
///
/// # Errors
/// `Corrupt` for anything else. Allocates no more than the frame really holds, plus 8 MiB.
pub(crate) fn unzstd(bytes: &[u8], raw_len: usize) -> Result<Vec<u8>> {
    let corrupt = |what: &str| Error::corrupt(format!("compressed bytes {what}"));
    if raw_len <= TRUSTED_LEN {
        let mut out = pool::take(raw_len);
        let mut decompressor = match DECOMPRESSORS.take() {
            Some(d) => d,
            None => zstd::bulk::Decompressor::new().map_err(|e| Error::internal(format!("no zstd context: {e}")))?,
        };
        let done = decompressor.decompress_to_buffer(bytes, &mut out);
        DECOMPRESSORS.give(decompressor);
        done.map_err(|_| corrupt("do not decompress"))?;
        return if out.len() == raw_len {
            Ok(out)
        } else {
            Err(corrupt("have another length than noted"))
        };
    }
    let mut out = Vec::with_capacity(TRUSTED_LEN);
    let decoder = zstd::stream::read::Decoder::new(bytes).map_err(|_| corrupt("do not decompress"))?;
    decoder
        .take((raw_len as u64).saturating_add(1))
        .read_to_end(&mut out)
        .map_err(|_| corrupt("do not decompress"))?;
    if out.len() == raw_len {
        Ok(out)
    } else {
        Err(corrupt("have another length than noted"))
    }
}

/// Compresses into one frame. Context and output buffer are kept between calls: a context takes a megabyte, and the bound
/// of the output is as large as the input.
pub(crate) struct Compressor {
    zstd: zstd::bulk::Compressor<'static>,
    out: Vec<u8>,
}

impl Compressor {
    pub fn new(level: i32) -> Result<Self> {
        zstd::bulk::Compressor::new(level)
            .map(|zstd| Compressor { zstd, out: Vec::new() })
            .map_err(|e| Error::internal(format!("no zstd context: {e}")))
    }

    /// The frame, until the next call.
    pub fn compress(&mut self, raw: &[u8]) -> Result<&[u8]> {
        self.out.clear();
        self.out.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        self.zstd
            .compress_to_buffer(raw, &mut self.out)
            .map_err(|e| Error::internal(format!("zstd refused to compress: {e}")))?;
        Ok(&self.out)
    }
}

/// As `Corrupt`, with what was being read.
pub(crate) fn corrupt(what: &'static str) -> impl Fn(DecodeError) -> Error {
    move |e| Error::corrupt(format!("{what}: {e}"))
}
