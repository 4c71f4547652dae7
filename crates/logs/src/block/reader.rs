//! Reads blocks: opens them through a cache, finds pages without reading them, fetches and decodes pages.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use trilith_block::BlockHandle;
use trilith_block::container::Container;
use trilith_codec::crc32c;
use trilith_index::{BlockIndex, LabelIndex as _};
use trilith_model::{Error, Result};

use super::{DIRECTORY, FILE, PAGES, STREAMS};
use crate::format::directory::{Directory, PageMeta, PieceMeta};
use crate::format::page;
use crate::page::{Keys, Run};

/// A block whose directory and stream index are decoded.
pub(crate) struct OpenBlock {
    /// The block's id, for messages.
    pub name: Arc<str>,
    container: Container,
    pub directory: Directory,
    pub index: BlockIndex,
}

impl OpenBlock {
    /// Opens and decodes for queries.
    ///
    /// # Errors
    /// `Corrupt`, and those of the store.
    pub async fn open(handle: &BlockHandle) -> Result<Self> {
        let container = Container::open(handle, FILE).await?;
        Self::from_container(container, &handle.meta.id.to_string()).await
    }

    /// As `open`, for reading the block once from one end to the other: its pages do not push out of the cache what
    /// queries read again and again.
    ///
    /// # Errors
    /// As `open`.
    pub async fn open_once(handle: &BlockHandle) -> Result<Self> {
        let mut handle = handle.clone();
        handle.store = handle.store.without_cache();
        Self::open(&handle).await
    }

    /// # Errors
    /// `Corrupt`, and those of the store.
    pub async fn from_container(container: Container, name: &str) -> Result<Self> {
        let mut sections = container.read_many(&[(STREAMS, 0), (DIRECTORY, 0)]).await?.into_iter();
        let (Some(streams), Some(directory)) = (sections.next(), sections.next()) else {
            return Err(Error::internal("the container answers as many sections as asked"));
        };
        let index = BlockIndex::open(streams)?;
        let directory = Directory::decode(&directory, index.series_count())?;
        let pages = container.section(PAGES, 0).map_or(0, |s| s.stored_len());
        if directory.pages_bytes() != pages {
            return Err(Error::corrupt(format!(
                "block directory: pages take {} bytes, the section has {pages}",
                directory.pages_bytes()
            )));
        }
        Ok(OpenBlock {
            name: name.into(),
            container,
            directory,
            index,
        })
    }

    pub fn heap_bytes(&self) -> usize {
        self.directory.heap_bytes() + self.index.byte_len() + 256
    }

    /// The stored pieces of a page; without `lines` only the keys.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn fetch(&self, page: u32, lines: bool) -> Result<StoredPage> {
        let meta = &self.directory.pages[page as usize];
        let ranges = meta.ranges();
        let wanted: &[Range<u64>] = if lines { &ranges } else { &ranges[..1] };
        let mut pieces = self.container.read_ranges(PAGES, 0, wanted).await?.into_iter();
        let keys = pieces.next().unwrap_or_default();
        let rest = if lines {
            Some((pieces.next().unwrap_or_default(), pieces.next().unwrap_or_default()))
        } else {
            None
        };
        Ok(StoredPage {
            meta: meta.clone(),
            runs: self.directory.runs_of(page as usize).to_vec(),
            keys,
            rest,
        })
    }
}

/// Fetched, not yet checked.
pub(crate) struct StoredPage {
    meta: PageMeta,
    runs: Vec<Run>,
    keys: Bytes,
    /// Metadata and lines.
    rest: Option<(Bytes, Bytes)>,
}

impl StoredPage {
    pub fn stored_bytes(&self) -> usize {
        self.keys.len() + self.rest.as_ref().map_or(0, |(m, l)| m.len() + l.len())
    }

    /// Memory that decoding takes: the columns of the keys, the metadata twice (text and decoded).
    pub fn decoded_bytes(&self) -> (usize, usize) {
        let rows: usize = self.runs.iter().map(|r| r.rows as usize).sum();
        let rest = self.rest.is_some();
        let meta = if rest { self.meta.meta.raw_len as usize * 2 } else { 0 };
        (
            rows * 24 + meta,
            if rest { self.meta.lines.raw_len as usize } else { 0 },
        )
    }

    /// Checks and decodes. CPU work.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn decode(&self) -> Result<(Keys, Option<Vec<u8>>)> {
        check(&self.keys, &self.meta.keys, "keys")?;
        let lines_raw = self.meta.lines.raw_len as usize;
        let mut keys = page::decode_keys(&self.keys, self.meta.keys.raw_len as usize, &self.runs, lines_raw)?;
        let Some((meta, lines)) = &self.rest else {
            return Ok((keys, None));
        };
        check(meta, &self.meta.meta, "metadata")?;
        check(lines, &self.meta.lines, "lines")?;
        if !meta.is_empty() {
            page::decode_meta(meta, self.meta.meta.raw_len as usize, &mut keys)?;
        }
        let lines = page::decode_lines(lines, lines_raw)?;
        Ok((keys, Some(lines)))
    }
}

fn check(piece: &[u8], meta: &PieceMeta, what: &str) -> Result<()> {
    let got = crc32c(piece);
    if piece.len() != meta.len as usize || got != meta.crc32c {
        return Err(Error::corrupt(format!(
            "page {what}: checksum {:08x} expected, got {got:08x}",
            meta.crc32c
        )));
    }
    Ok(())
}

/// Decoded directories and indexes of the blocks that queries use.
pub(crate) struct BlockCache(Cache<String, Arc<OpenBlock>, Weight>);

#[derive(Clone)]
struct Weight;

impl Weighter<String, Arc<OpenBlock>> for Weight {
    fn weight(&self, key: &String, block: &Arc<OpenBlock>) -> u64 {
        (key.len() + block.heap_bytes()) as u64
    }
}

impl BlockCache {
    pub fn new(bytes_max: u64) -> Self {
        BlockCache(Cache::with_weighter(1000, bytes_max, Weight))
    }

    /// # Errors
    /// Those of [`OpenBlock::open`]; failures are not cached.
    pub async fn open(&self, handle: &BlockHandle) -> Result<Arc<OpenBlock>> {
        // The folder ends in the block's ULID; blocks never change.
        self.0
            .get_or_insert_async(&*handle.folder, async {
                let id = &handle.meta.id;
                OpenBlock::open(handle)
                    .await
                    .map(Arc::new)
                    .map_err(|e| e.context(format_args!("block {id}")))
            })
            .await
    }
}
