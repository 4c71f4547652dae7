//! The block container: one file of typed sections with a footer.
//!
//! ```text
//! | header 8 | section | section | … | hot section … | footer | trailer 24 |
//!                                    └──────── recorded in FileMeta ──────┘
//! ```
//!
//! The writer appends sections in any order and marks with [`ContainerWriter::start_hot`] where those begin that every
//! reader needs (dictionaries, directories); they come with the footer in the one GET that opens the file. Each
//! section carries a CRC-32C of its stored bytes, checked when the section is read whole. Engines that read parts of a
//! section keep checksums of their own inside it.
//!
//! What a kind means is the engine's business; kinds are numbered per engine and never reused.
//! Invariants: (kind, ordinal) is unique in a file; every section lies between header and footer; a parsed footer
//! never points outside the file. Format: docs/formats/block-container.md.

mod reader;
mod writer;

pub use reader::{Container, set_footer_cache_bytes};
pub use writer::ContainerWriter;

use std::ops::Range;

use bytes::Bytes;
use trilith_codec::crc32c;
use trilith_model::{Error, Result};

use crate::packing;

pub(crate) const HEADER_MAGIC: &[u8; 4] = b"TRLC";
pub(crate) const TRAILER_MAGIC: &[u8; 4] = b"TRLF";
pub(crate) const VERSION: u16 = 1;
pub(crate) const HEADER_BYTES: u64 = 8;
pub(crate) const TRAILER_BYTES: u64 = 24;

/// Uncompressed size above which a section is refused: no engine writes sections of this size, a forged one must
/// not fill the memory.
pub const SECTION_RAW_BYTES_MAX: u64 = 1 << 30;

/// How a section is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As given; parts can be read by range.
    None,
    /// One zstd frame of the given level; read whole. Stored as `None` when that is not larger.
    Zstd(i32),
}

/// Where a section is and how it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    pub kind: u16,
    /// Tells sections of one kind apart.
    pub ordinal: u32,
    pub compressed: bool,
    /// Bytes in the file.
    pub range: Range<u64>,
    /// Length after decompression.
    pub raw_len: u64,
    /// CRC-32C of the stored bytes.
    pub crc32c: u32,
}

impl Section {
    pub fn stored_len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Checks stored bytes against the checksum and decompresses them. CPU work in proportion to the section.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn decode(&self, stored: Bytes) -> Result<Bytes> {
        let corrupt = |why: String| {
            Error::corrupt(format!(
                "section {}.{} at {}: {why}",
                self.kind, self.ordinal, self.range.start
            ))
        };
        if stored.len() as u64 != self.stored_len() {
            return Err(corrupt(format!(
                "{} bytes expected, got {}",
                self.stored_len(),
                stored.len()
            )));
        }
        let crc = crc32c(&stored);
        if crc != self.crc32c {
            return Err(corrupt(format!("checksum {:08x} expected, got {crc:08x}", self.crc32c)));
        }
        if !self.compressed {
            return Ok(stored);
        }
        packing::unpack(&stored, self.raw_len).map(Bytes::from).map_err(corrupt)
    }
}

#[cfg(test)]
mod tests;
