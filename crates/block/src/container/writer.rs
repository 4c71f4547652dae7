//! Writes a container, into memory or into a file for spooling.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use trilith_codec::{Crc32c, crc32c, crc32c_append, put_uvarint};
use trilith_model::{Error, ErrorKind, Result};

use super::{
    Compression, HEADER_BYTES, HEADER_MAGIC, SECTION_RAW_BYTES_MAX, Section, TRAILER_BYTES, TRAILER_MAGIC, VERSION,
};
use crate::engine::{BlockFile, FileBody};
use crate::packing;

enum Sink {
    Memory(Vec<u8>),
    File { path: PathBuf, file: BufWriter<File> },
}

/// Appends sections; [`ContainerWriter::finish`] writes the footer. A writer that is dropped before leaves no valid
/// container behind.
pub struct ContainerWriter {
    sink: Sink,
    at: u64,
    sections: Vec<Section>,
    open: Option<OpenSection>,
    hot_from: Option<u64>,
}

struct OpenSection {
    kind: u16,
    ordinal: u32,
    start: u64,
    crc: Crc32c,
}

impl ContainerWriter {
    pub fn in_memory() -> Self {
        let mut out = Vec::with_capacity(4096);
        out.extend_from_slice(&header());
        Self::starting(Sink::Memory(out))
    }

    /// Blocking file I/O from here on; for background work.
    ///
    /// # Errors
    /// The file exists or cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create_new(path).map_err(|e| io_error(path, &e))?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        file.write_all(&header()).map_err(|e| io_error(path, &e))?;
        Ok(Self::starting(Sink::File {
            path: path.to_owned(),
            file,
        }))
    }

    fn starting(sink: Sink) -> Self {
        ContainerWriter {
            sink,
            at: HEADER_BYTES,
            sections: Vec::new(),
            open: None,
            hot_from: None,
        }
    }

    /// Bytes of the file so far.
    pub fn len(&self) -> u64 {
        self.at
    }

    /// Whether no section was written yet.
    pub fn is_empty(&self) -> bool {
        self.at == HEADER_BYTES
    }

    /// Sections from here to the end are fetched together with the footer; keep them small (≤ 256 KiB in sum).
    pub fn start_hot(&mut self) {
        self.hot_from = Some(self.at);
    }

    /// A whole section.
    ///
    /// # Errors
    /// `Internal` when (kind, ordinal) was written before or the section is too large; `Unavailable` when the disk is
    /// full.
    pub fn section(&mut self, kind: u16, ordinal: u32, bytes: &[u8], compression: Compression) -> Result<()> {
        self.check_new(kind, ordinal)?;
        let raw_len = bytes.len() as u64;
        if raw_len > SECTION_RAW_BYTES_MAX {
            return Err(Error::internal(format!(
                "section {kind}.{ordinal} of {raw_len} bytes exceeds {SECTION_RAW_BYTES_MAX}"
            )));
        }
        let packed = match compression {
            Compression::None => None,
            Compression::Zstd(level) => Some(
                packing::pack(bytes, level).map_err(|e| Error::internal(format!("section {kind}.{ordinal}: {e}")))?,
            ),
        };
        // Stored plain when compression does not pay: the reader saves the work, and range reads become possible.
        let packed = packed.filter(|p| p.len() < bytes.len());
        let stored = packed.as_deref().unwrap_or(bytes);
        let start = self.at;
        self.put(stored)?;
        self.sections.push(Section {
            kind,
            ordinal,
            compressed: packed.is_some(),
            range: start..self.at,
            raw_len,
            crc32c: crc32c(stored),
        });
        Ok(())
    }

    /// Begins a section that is written in pieces with [`Self::append`], stored as given.
    ///
    /// # Errors
    /// `Internal` when (kind, ordinal) was written before.
    pub fn section_start(&mut self, kind: u16, ordinal: u32) -> Result<()> {
        self.check_new(kind, ordinal)?;
        self.open = Some(OpenSection {
            kind,
            ordinal,
            start: self.at,
            crc: Crc32c::new(),
        });
        Ok(())
    }

    /// Appends to the section begun last and returns the offset, within the section, of the first byte appended.
    ///
    /// # Errors
    /// `Internal` when no section is open; `Unavailable` when the disk is full.
    pub fn append(&mut self, bytes: &[u8]) -> Result<u64> {
        let at = self.at;
        let Some(open) = &mut self.open else {
            return Err(Error::internal("append without an open section"));
        };
        open.crc.update(bytes);
        let offset = at - open.start;
        self.put(bytes)?;
        Ok(offset)
    }

    /// Ends the section begun last.
    ///
    /// # Errors
    /// `Internal` when no section is open.
    pub fn section_end(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else {
            return Err(Error::internal("end without an open section"));
        };
        self.sections.push(Section {
            kind: open.kind,
            ordinal: open.ordinal,
            compressed: false,
            range: open.start..self.at,
            raw_len: self.at - open.start,
            crc32c: open.crc.value(),
        });
        Ok(())
    }

    /// Writes footer and trailer. A spooled file is flushed to the operating system, not synced: it is uploaded and
    /// thrown away.
    ///
    /// # Errors
    /// `Internal` when a section is open; `Unavailable` when the disk is full.
    pub fn finish(mut self, name: &str) -> Result<BlockFile> {
        if let Some(open) = &self.open {
            return Err(Error::internal(format!(
                "section {}.{} was not ended",
                open.kind, open.ordinal
            )));
        }
        let footer_start = self.at;
        self.sections.sort_by_key(|s| (s.kind, s.ordinal));
        let footer = encode_footer(&self.sections);
        let footer_len = u32::try_from(footer.len()).map_err(|_| Error::internal("the footer exceeds 4 GiB"))?;
        let mut trailer = Vec::with_capacity(TRAILER_BYTES as usize);
        trailer.extend_from_slice(&footer_len.to_le_bytes());
        let file_len = footer_start + footer.len() as u64 + TRAILER_BYTES;
        trailer.extend_from_slice(&file_len.to_le_bytes());
        trailer.extend_from_slice(&VERSION.to_le_bytes());
        trailer.extend_from_slice(&[0, 0]);
        let crc = crc32c_append(crc32c(&footer), &trailer);
        trailer.extend_from_slice(&crc.to_le_bytes());
        trailer.extend_from_slice(TRAILER_MAGIC);
        self.put(&footer)?;
        self.put(&trailer)?;
        let body = match self.sink {
            Sink::Memory(bytes) => FileBody::Memory(Bytes::from(bytes)),
            Sink::File { path, mut file } => {
                file.flush().map_err(|e| io_error(&path, &e))?;
                FileBody::Spooled(path)
            }
        };
        Ok(BlockFile {
            name: name.to_owned(),
            body,
            footer: Some(self.hot_from.unwrap_or(footer_start)..self.at),
        })
    }

    fn check_new(&self, kind: u16, ordinal: u32) -> Result<()> {
        if self.open.is_some() {
            return Err(Error::internal("the section before was not ended"));
        }
        // Containers hold tens of sections; sections in bulk belong into one section with a directory.
        if self.sections.iter().any(|s| s.kind == kind && s.ordinal == ordinal) {
            return Err(Error::internal(format!("section {kind}.{ordinal} was written before")));
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.sink {
            Sink::Memory(out) => out.extend_from_slice(bytes),
            Sink::File { path, file } => file.write_all(bytes).map_err(|e| io_error(path, &e))?,
        }
        self.at += bytes.len() as u64;
        Ok(())
    }
}

fn header() -> [u8; HEADER_BYTES as usize] {
    let mut header = [0u8; HEADER_BYTES as usize];
    header[..4].copy_from_slice(HEADER_MAGIC);
    header[4..6].copy_from_slice(&VERSION.to_le_bytes());
    header
}

fn encode_footer(sections: &[Section]) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + sections.len() * 24);
    put_uvarint(&mut out, sections.len() as u64);
    for s in sections {
        put_uvarint(&mut out, u64::from(s.kind));
        put_uvarint(&mut out, u64::from(s.ordinal));
        out.push(u8::from(s.compressed));
        put_uvarint(&mut out, s.range.start);
        put_uvarint(&mut out, s.stored_len());
        put_uvarint(&mut out, s.raw_len);
        out.extend_from_slice(&s.crc32c.to_le_bytes());
    }
    out
}

/// A full disk passes; everything else about a scratch file is our own trouble.
fn io_error(path: &Path, error: &std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, format!("{}: {error}", path.display()))
}
