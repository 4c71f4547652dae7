//! Opens and reads one metrics block.
//!
//! Opening fetches directories and index: one GET, or two when the index is large. Samples take two rounds: the value
//! pages of the wanted series, and the timestamp pages that those name. Every page carries its own checksum.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use trilith_block::BlockHandle;
use trilith_block::container::Container;
use trilith_codec::Reader;
use trilith_index::{BlockIndex, LabelIndex as _};
use trilith_model::{Error, MetricMetadata, Result, TimeRange, task};

use crate::format::directory::{PageEntry, TimesEntry, decode_pages, decode_times};
use crate::format::page::Page;
use crate::format::times::TimesPage;
use crate::format::{bad, metadata};
use crate::writer::{
    FILE, SECTION_DATA, SECTION_INDEX, SECTION_METADATA, SECTION_PAGES, SECTION_TIMES,
};

/// An open block; shared by queries.
pub(crate) struct BlockReader {
    container: Container,
    pub(crate) index: BlockIndex,
    pages: Vec<PageEntry>,
    times: Vec<TimesEntry>,
    vectors: u32,
}

impl BlockReader {
    /// # Errors
    /// `Corrupt` when the block does not check out, `NotFound` when it is gone; those of the store.
    pub(crate) async fn open(block: &BlockHandle) -> Result<Arc<Self>> {
        Self::of(Container::open(block, FILE).await?).await
    }

    pub(crate) async fn of(container: Container) -> Result<Arc<Self>> {
        let parts = container
            .read_many(&[(SECTION_PAGES, 0), (SECTION_TIMES, 0), (SECTION_INDEX, 0)])
            .await?;
        task::compute(move || Self::parse(container, parts))
            .await?
            .map(Arc::new)
    }

    fn parse(container: Container, parts: Vec<Bytes>) -> Result<Self> {
        let [pages, times, index] = <[Bytes; 3]>::try_from(parts)
            .map_err(|_| Error::internal("three sections were read"))?;
        let data_len = container
            .section(SECTION_DATA, 0)
            .ok_or_else(|| Error::corrupt("block without data section"))?
            .stored_len();
        let index = BlockIndex::open(index)?;
        let pages = decode_pages(&pages, data_len, index.series_count())?;
        let (times, vectors) = decode_times(&times, data_len)?;
        Ok(BlockReader {
            container,
            index,
            pages,
            times,
            vectors,
        })
    }

    /// Approximate heap bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.index.byte_len()
            + self.pages.len() * std::mem::size_of::<PageEntry>()
            + self.times.len() * std::mem::size_of::<TimesEntry>()
            + 256
    }

    pub(crate) fn page(&self, i: usize) -> &PageEntry {
        &self.pages[i]
    }

    pub(crate) fn times_entry(&self, i: usize) -> &TimesEntry {
        &self.times[i]
    }

    pub(crate) fn page_count(&self) -> usize {
        self.pages.len()
    }

    /// The pages that may hold samples of any of the ascending `ordinals` in the range, ascending.
    pub(crate) fn pages_of(&self, ordinals: &[u32], range: TimeRange) -> Vec<usize> {
        let mut out: Vec<usize> = Vec::new();
        for &o in ordinals {
            let from = match out.last() {
                Some(&last) if self.pages[last].last_ordinal > o => continue,
                _ => self.pages.partition_point(|p| p.last_ordinal < o),
            };
            for (i, p) in self.pages.iter().enumerate().skip(from) {
                if p.first_ordinal > o {
                    break;
                }
                if p.time.overlaps(range) && out.last().is_none_or(|&l| l < i) {
                    out.push(i);
                }
            }
        }
        out
    }

    /// Stored bytes of value pages, in one round.
    pub(crate) async fn fetch_pages(&self, pages: &[usize]) -> Result<Vec<Bytes>> {
        let ranges: Vec<Range<u64>> = pages
            .iter()
            .map(|&i| self.pages[i].extent.range())
            .collect();
        self.container.read_ranges(SECTION_DATA, 0, &ranges).await
    }

    /// CPU work: checks and opens a value page.
    pub(crate) fn open_page(&self, i: usize, stored: &Bytes) -> Result<Page> {
        let p = &self.pages[i];
        Page::open(
            p.extent.open(stored)?,
            p.first_ordinal,
            p.last_ordinal,
            self.vectors,
        )
    }

    /// The time page of a vector and its position there.
    pub(crate) fn locate_vector(&self, vector: u32) -> (usize, usize) {
        let i = self
            .times
            .partition_point(|t| t.first_vector <= vector)
            .saturating_sub(1);
        (i, (vector - self.times[i].first_vector) as usize)
    }

    pub(crate) async fn fetch_times(&self, pages: &[usize]) -> Result<Vec<Bytes>> {
        let ranges: Vec<Range<u64>> = pages
            .iter()
            .map(|&i| self.times[i].extent.range())
            .collect();
        self.container.read_ranges(SECTION_DATA, 0, &ranges).await
    }

    /// CPU work: checks and opens a page of timestamp vectors.
    pub(crate) fn open_times(&self, i: usize, stored: &Bytes) -> Result<TimesPage> {
        TimesPage::open(self.times[i].extent.open(stored)?)
    }

    /// Reads every section and compares its checksum.
    pub(crate) async fn verify_sections(&self) -> Result<()> {
        self.container.verify().await
    }
}

/// The metadata of a block, empty when it has none. Does not open the rest of it.
///
/// # Errors
/// As `BlockReader::open`.
pub(crate) async fn read_metadata(block: &BlockHandle) -> Result<Vec<MetricMetadata>> {
    let container = Container::open(block, FILE).await?;
    if container.section(SECTION_METADATA, 0).is_none() {
        return Ok(Vec::new());
    }
    let bytes = container.read(SECTION_METADATA, 0).await?;
    let mut r = Reader::new(&bytes);
    let entries = metadata::decode(&mut r)?;
    r.finish().map_err(bad("metadata"))?;
    Ok(entries)
}
