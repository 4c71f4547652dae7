//! Opens and reads a container. Nothing in the bytes is trusted.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use trilith_codec::{DecodeError, Reader, crc32c, crc32c_append};
use trilith_model::{Error, ErrorKind, Result};
use trilith_object::Store;
use ulid::Ulid;

use super::{HEADER_BYTES, SECTION_RAW_BYTES_MAX, Section, TRAILER_BYTES, TRAILER_MAGIC, VERSION};
use crate::engine::BlockHandle;

/// Fewest bytes of a section's entry in the footer.
const ENTRY_BYTES_MIN: usize = 10;
/// Read from the end of a file whose footer range is not recorded.
const TAIL_GUESS_BYTES: u64 = 64 << 10;
/// Of all footers and hot sections in the process, unless set otherwise.
const FOOTER_CACHE_BYTES: u64 = 128 << 20;

/// A parsed footer with the bytes that came with it.
#[derive(Debug)]
struct Footer {
    size: u64,
    /// Sorted by (kind, ordinal).
    sections: Vec<Section>,
    /// The end of the file from `tail_from` on: hot sections, footer, trailer.
    tail: Bytes,
    tail_from: u64,
}

/// An open file. Cheap to clone.
#[derive(Clone)]
pub struct Container {
    source: Source,
    footer: Arc<Footer>,
}

#[derive(Clone)]
enum Source {
    Object {
        store: Store,
        path: Arc<str>,
    },
    /// The tail is the whole file.
    Memory,
}

/// Checksum and size stand in the key so that a footer is never taken for that of another file.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    block: Ulid,
    file: Arc<str>,
    size: u64,
    crc32c: u32,
}

#[derive(Clone)]
struct FooterWeight;

impl Weighter<Key, Arc<Footer>> for FooterWeight {
    fn weight(&self, key: &Key, footer: &Arc<Footer>) -> u64 {
        let sections = footer.sections.len() * size_of::<Section>();
        (footer.tail.len() + sections + key.file.len() + 256) as u64
    }
}

fn cache() -> &'static Cache<Key, Arc<Footer>, FooterWeight> {
    static CACHE: OnceLock<Cache<Key, Arc<Footer>, FooterWeight>> = OnceLock::new();
    CACHE.get_or_init(|| Cache::with_weighter(10_000, FOOTER_CACHE_BYTES, FooterWeight))
}

/// Ceiling of the memory for open footers in this process.
pub fn set_footer_cache_bytes(bytes: u64) {
    cache().set_capacity(bytes);
}

impl Container {
    /// Opens a file of a block: one GET, or none when the footer is cached.
    ///
    /// # Errors
    /// `NotFound` when the block has no such file or the object is gone; `Corrupt`; `Unsupported` for a newer format.
    pub async fn open(block: &BlockHandle, file: &str) -> Result<Container> {
        let Some(meta) = block.meta.file(file) else {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("block {} has no file {file}", block.meta.id),
            ));
        };
        let path: Arc<str> = block.path(file).into();
        let key = Key {
            block: block.meta.id,
            file: file.into(),
            size: meta.size,
            crc32c: meta.crc32c,
        };
        let footer = match cache().get(&key) {
            Some(footer) => footer,
            None => {
                let footer = Arc::new(
                    fetch_footer(&block.store, &path, meta.size, meta.footer.clone())
                        .await
                        .map_err(|e| e.context(&path))?,
                );
                cache().insert(key, footer.clone());
                footer
            }
        };
        let source = Source::Object {
            store: block.store.clone(),
            path,
        };
        Ok(Container { source, footer })
    }

    /// A file that is in memory as a whole, for instance one that was just made.
    ///
    /// # Errors
    /// `Corrupt`, `Unsupported`.
    pub fn from_bytes(bytes: Bytes) -> Result<Container> {
        let size = bytes.len() as u64;
        let footer = Arc::new(parse_footer(bytes, 0, size)?);
        Ok(Container {
            source: Source::Memory,
            footer,
        })
    }

    /// Sorted by (kind, ordinal).
    pub fn sections(&self) -> &[Section] {
        &self.footer.sections
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.footer.size
    }

    /// `None` when the file has no such section.
    pub fn section(&self, kind: u16, ordinal: u32) -> Option<&Section> {
        let at = self
            .footer
            .sections
            .binary_search_by_key(&(kind, ordinal), |s| (s.kind, s.ordinal))
            .ok()?;
        Some(&self.footer.sections[at])
    }

    fn expect_section(&self, kind: u16, ordinal: u32) -> Result<&Section> {
        self.section(kind, ordinal)
            .ok_or_else(|| self.named(Error::corrupt(format!("section {kind}.{ordinal} is missing"))))
    }

    /// A whole section: fetched, checked, decompressed.
    ///
    /// # Errors
    /// `Corrupt` when the section is missing or damaged; those of the store.
    pub async fn read(&self, kind: u16, ordinal: u32) -> Result<Bytes> {
        let section = self.expect_section(kind, ordinal)?;
        let stored = self.fetch(std::slice::from_ref(&section.range)).await?;
        let stored = stored.into_iter().next().unwrap_or_default();
        self.decode(section, stored).await
    }

    /// A checksum that fails may be the cache's fault: the backend is asked once more before the section counts as
    /// damaged.
    async fn decode(&self, section: &Section, stored: Bytes) -> Result<Bytes> {
        match (section.decode(stored), &self.source) {
            (Err(e), Source::Object { store, path }) if e.kind == ErrorKind::Corrupt => {
                tracing::warn!(%path, error = %e, "checksum failed, reading again past the cache");
                store.forget(path, section.range.clone());
                let fresh = store.without_cache().get_range(path, section.range.clone()).await?;
                section.decode(fresh).map_err(|e| self.named(e))
            }
            (result, _) => result.map_err(|e| self.named(e)),
        }
    }

    /// Several whole sections in one round; same order as asked.
    ///
    /// # Errors
    /// Those of `read`.
    pub async fn read_many(&self, wanted: &[(u16, u32)]) -> Result<Vec<Bytes>> {
        let sections = wanted
            .iter()
            .map(|&(kind, ordinal)| self.expect_section(kind, ordinal))
            .collect::<Result<Vec<_>>>()?;
        let ranges: Vec<_> = sections.iter().map(|s| s.range.clone()).collect();
        let stored = self.fetch(&ranges).await?;
        let mut out = Vec::with_capacity(sections.len());
        for (section, stored) in sections.into_iter().zip(stored) {
            out.push(self.decode(section, stored).await?);
        }
        Ok(out)
    }

    /// Parts of an uncompressed section, by offsets within it, in one round; same order as asked. Not checked against
    /// the section's checksum: the engine keeps its own for every part.
    ///
    /// # Errors
    /// `Corrupt` when the section is missing, compressed or shorter; those of the store.
    pub async fn read_ranges(&self, kind: u16, ordinal: u32, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let section = self.expect_section(kind, ordinal)?;
        if section.compressed {
            return Err(self.named(Error::corrupt(format!(
                "section {kind}.{ordinal} is compressed and has no ranges"
            ))));
        }
        let mut absolute = Vec::with_capacity(ranges.len());
        for range in ranges {
            if range.start > range.end || range.end > section.stored_len() {
                return Err(self.named(Error::corrupt(format!(
                    "range {}..{} leaves section {kind}.{ordinal} of {} bytes",
                    range.start,
                    range.end,
                    section.stored_len()
                ))));
            }
            // Within the section, which is within the file: no overflow.
            absolute.push(section.range.start + range.start..section.range.start + range.end);
        }
        self.fetch(&absolute).await
    }

    /// One part; see [`Self::read_ranges`].
    ///
    /// # Errors
    /// Those of `read_ranges`.
    pub async fn read_range(&self, kind: u16, ordinal: u32, range: Range<u64>) -> Result<Bytes> {
        let parts = self.read_ranges(kind, ordinal, &[range]).await?;
        Ok(parts.into_iter().next().unwrap_or_default())
    }

    /// Reads every section and checks it.
    ///
    /// # Errors
    /// `Corrupt` with the first section that does not check out; those of the store.
    pub async fn verify(&self) -> Result<()> {
        for section in &self.footer.sections {
            self.read(section.kind, section.ordinal).await?;
        }
        Ok(())
    }

    fn named(&self, error: Error) -> Error {
        match &self.source {
            Source::Object { path, .. } => error.context(path),
            Source::Memory => error,
        }
    }

    /// Ranges of the file, all of them inside it. Hot ones come from memory.
    async fn fetch(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let tail_from = self.footer.tail_from;
        let from_tail = |range: &Range<u64>| {
            // Inside the tail, whose length is a usize.
            let start = range.start.checked_sub(tail_from)? as usize;
            let end = (range.end - tail_from) as usize;
            (end <= self.footer.tail.len()).then(|| self.footer.tail.slice(start..end))
        };
        let mut out: Vec<Option<Bytes>> = ranges
            .iter()
            .map(|r| if r.is_empty() { Some(Bytes::new()) } else { from_tail(r) })
            .collect();
        let cold: Vec<Range<u64>> = ranges
            .iter()
            .zip(&out)
            .filter(|(_, found)| found.is_none())
            .map(|(r, _)| r.clone())
            .collect();
        if !cold.is_empty() {
            let Source::Object { store, path } = &self.source else {
                return Err(Error::corrupt("range outside the file"));
            };
            let mut fetched = store.get_ranges(path, &cold).await?.into_iter();
            for slot in out.iter_mut().filter(|slot| slot.is_none()) {
                *slot = fetched.next();
            }
        }
        out.into_iter()
            .zip(ranges)
            .map(|(bytes, range)| match bytes {
                Some(bytes) if bytes.len() as u64 == range.end - range.start => Ok(bytes),
                _ => Err(self.named(Error::corrupt(format!(
                    "the store returned fewer bytes than the range {}..{} holds",
                    range.start, range.end
                )))),
            })
            .collect()
    }
}

async fn fetch_footer(store: &Store, path: &str, size: u64, recorded: Option<Range<u64>>) -> Result<Footer> {
    if size < HEADER_BYTES + TRAILER_BYTES {
        return Err(Error::corrupt(format!("{size} bytes are too few for a container")));
    }
    let from = match recorded {
        Some(range) if range.end == size && range.start <= size - TRAILER_BYTES => range.start,
        Some(range) => {
            return Err(Error::corrupt(format!(
                "recorded footer {}..{} does not fit a file of {size} bytes",
                range.start, range.end
            )));
        }
        None => size.saturating_sub(TAIL_GUESS_BYTES),
    };
    let tail = store.get_range(path, from..size).await?;
    // The trailer tells how far back the footer goes; only a guess can be too short.
    let wanted = footer_start(&tail, size)?;
    if wanted >= from {
        return parse_footer(tail, from, size);
    }
    let tail = store.get_range(path, wanted..size).await?;
    parse_footer(tail, wanted, size)
}

/// Offset in the file of the footer, by the trailer at the end of `tail`.
fn footer_start(tail: &[u8], size: u64) -> Result<u64> {
    let Some(trailer) = tail.len().checked_sub(TRAILER_BYTES as usize) else {
        return Err(Error::corrupt("truncated trailer"));
    };
    let mut r = Reader::new(&tail[trailer..]);
    let (footer_len, file_len, version) = (|| {
        let lengths = (r.u32()?, r.u64()?, r.u16()?);
        r.skip(6)?;
        r.magic(TRAILER_MAGIC)?;
        Ok::<_, DecodeError>(lengths)
    })()
    .map_err(|e| Error::corrupt(format!("trailer: {e}")))?;
    if version != VERSION {
        return Err(Error::unsupported(format!(
            "container version {version}; this build reads {VERSION}"
        )));
    }
    if file_len != size {
        return Err(Error::corrupt(format!(
            "the trailer tells of {file_len} bytes, the file has {size}"
        )));
    }
    size.checked_sub(TRAILER_BYTES + u64::from(footer_len))
        .filter(|&start| start >= HEADER_BYTES)
        .ok_or_else(|| Error::corrupt(format!("footer of {footer_len} bytes in a file of {size}")))
}

/// `tail` is the file from `tail_from` to its end and holds at least footer and trailer.
fn parse_footer(tail: Bytes, tail_from: u64, size: u64) -> Result<Footer> {
    if tail.len() as u64 != size.saturating_sub(tail_from) {
        return Err(Error::corrupt("the store returned a part of the footer"));
    }
    let start = footer_start(&tail, size)?;
    let Some(footer_at) = start.checked_sub(tail_from) else {
        return Err(Error::corrupt("the footer begins before its recorded range"));
    };
    // Both are offsets into `tail`: footer_start has checked the trailer and its distance from the end.
    let trailer_at = tail.len() - TRAILER_BYTES as usize;
    let footer = &tail[footer_at as usize..trailer_at];
    let trailer = &tail[trailer_at..];
    let crc = crc32c_append(crc32c(footer), &trailer[..16]);
    let stored_crc = u32::from_le_bytes([trailer[16], trailer[17], trailer[18], trailer[19]]);
    if crc != stored_crc {
        return Err(Error::corrupt(format!(
            "footer checksum {stored_crc:08x} expected, got {crc:08x}"
        )));
    }
    let sections = parse_sections(footer, start).map_err(|e| Error::corrupt(format!("footer: {e}")))?;
    if !sections.is_sorted_by(|a, b| (a.kind, a.ordinal) < (b.kind, b.ordinal)) {
        return Err(Error::corrupt("footer: sections are not in order"));
    }
    Ok(Footer {
        size,
        sections,
        tail,
        tail_from,
    })
}

/// `end` is where sections end and the footer begins.
fn parse_sections(footer: &[u8], end: u64) -> Result<Vec<Section>, DecodeError> {
    let mut r = Reader::new(footer);
    let count = r.count(ENTRY_BYTES_MIN)?;
    let mut sections = Vec::with_capacity(count);
    for _ in 0..count {
        // The bounds make the casts exact.
        let kind = r.uvarint_max(u64::from(u16::MAX))? as u16;
        let ordinal = r.uvarint_u32()?;
        let compressed = r.uvarint_max(1)? == 1;
        let at = r.position();
        let start = r.uvarint_max(end)?;
        if start < HEADER_BYTES {
            return Err(DecodeError::TooLarge {
                at,
                got: start,
                max: end,
            });
        }
        let len = r.uvarint_max(end - start)?;
        let raw_len = if compressed {
            r.uvarint_max(SECTION_RAW_BYTES_MAX)?
        } else {
            // The same number again.
            let raw_len = r.uvarint_max(len)?;
            if raw_len != len {
                return Err(DecodeError::TooLarge {
                    at,
                    got: len,
                    max: raw_len,
                });
            }
            len
        };
        sections.push(Section {
            kind,
            ordinal,
            compressed,
            range: start..start + len,
            raw_len,
            crc32c: r.u32()?,
        });
    }
    r.finish()?;
    Ok(sections)
}
