//! The parts of a metrics block. Format: docs/formats/metrics-block.md.

pub(crate) mod directory;
pub(crate) mod exemplars;
pub(crate) mod histogram;
pub(crate) mod metadata;
pub(crate) mod page;
pub(crate) mod rich;
pub(crate) mod times;
pub(crate) mod values;

use std::cell::RefCell;

use trilith_codec::DecodeError;
use trilith_model::{Error, Result};
use zstd::bulk::{Compressor, Decompressor};

/// Samples of one slot; a longer series has several slots. Bounds what one slot decodes to.
pub(crate) const SLOT_SAMPLES_MAX: usize = 1 << 16;

/// Decompressed size above which a page is taken for damage: more than the writer ever makes.
pub(crate) const PAGE_RAW_BYTES_MAX: usize = 4 << 20;

/// Level 3 costs about 5 ns per byte more than 1 and saves some 5 %; the bytes are written once and kept for weeks.
const ZSTD_LEVEL: i32 = 3;

pub(crate) fn compress(raw: &[u8]) -> Result<Vec<u8>> {
    compress_at(raw, ZSTD_LEVEL)
}

/// With the thread's own compressor: making one costs more than a page.
pub(crate) fn compress_at(raw: &[u8], level: i32) -> Result<Vec<u8>> {
    thread_local! {
        static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    }
    let error = |e: std::io::Error| Error::internal(format!("zstd: {e}"));
    COMPRESSOR.with_borrow_mut(|slot| {
        let compressor = match slot {
            Some(c) => c,
            None => slot.insert(Compressor::new(level).map_err(error)?),
        };
        compressor.set_compression_level(level).map_err(error)?;
        compressor.compress(raw).map_err(error)
    })
}

/// # Errors
/// `Corrupt` unless the bytes decompress to exactly `raw_len`, which is at most [`PAGE_RAW_BYTES_MAX`].
pub(crate) fn decompress(bytes: &[u8], raw_len: usize) -> Result<Vec<u8>> {
    if raw_len > PAGE_RAW_BYTES_MAX {
        return Err(Error::corrupt(format!(
            "page claims {raw_len} bytes, more than {PAGE_RAW_BYTES_MAX}"
        )));
    }
    thread_local! {
        static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    }
    let raw = DECOMPRESSOR.with_borrow_mut(|slot| {
        let decompressor = match slot {
            Some(d) => d,
            None => slot.insert(Decompressor::new()?),
        };
        decompressor.decompress(bytes, raw_len)
    });
    let raw = raw.map_err(|e| Error::corrupt(format!("zstd: {e}")))?;
    if raw.len() != raw_len {
        return Err(Error::corrupt(format!(
            "part decompresses to {} bytes instead of {raw_len}",
            raw.len()
        )));
    }
    Ok(raw)
}

pub(crate) fn bad(what: &'static str) -> impl Fn(DecodeError) -> Error {
    move |e| Error::corrupt(format!("{what}: {e}"))
}
