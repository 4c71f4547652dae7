//! Writes one metrics block: series in order in, one container file out. Format: docs/formats/metrics-block.md.

use std::path::Path;

use hashbrown::HashMap;
use trilith_block::container::{Compression, ContainerWriter};
use trilith_block::{BlockDraft, BlockFile};
use trilith_codec::crc32c;
use trilith_index::IndexBuilder;
use trilith_model::{Error, Labels, LabelsRef, MetricMetadata, Result, TenantId, TimeRange};

use crate::format::directory::{Extent, PageEntry, TimesEntry, encode_pages, encode_times};
use crate::format::exemplars::ExemplarSet;
use crate::format::page::PageBuilder;
use crate::format::{compress, metadata, rich, times};
use crate::order;
use crate::samples::SamplesRef;

pub(crate) const FILE: &str = "metrics";

pub(crate) const SECTION_DATA: u16 = 1;
pub(crate) const SECTION_PAGES: u16 = 2;
pub(crate) const SECTION_TIMES: u16 = 3;
pub(crate) const SECTION_INDEX: u16 = 4;
pub(crate) const SECTION_METADATA: u16 = 5;
pub(crate) const SECTION_EXEMPLARS: u16 = 6;

/// Encoded bytes after which a page of timestamp vectors ends.
const TIMES_PAGE_BYTES: usize = 64 << 10;

/// An index of up to this many bytes is fetched together with the footer; it compresses about fourfold.
const HOT_INDEX_BYTES_MAX: usize = 1 << 20;

/// Manifest fact: number of metadata families entries, so that a query for metadata skips blocks without.
pub(crate) const FACT_METADATA: &str = "metadata";

/// Manifest fact: first and last time of the exemplars, ms.
pub(crate) const FACT_EXEMPLARS: &str = "exemplars";

/// The range that [`FACT_EXEMPLARS`] tells; everything when it cannot be read.
pub(crate) fn exemplar_time(fact: &str) -> TimeRange {
    let range = fact
        .split_once(' ')
        .and_then(|(min, max)| Some((min.parse().ok()?, max.parse().ok()?)));
    range.map_or(TimeRange::ALL, |(min, max)| TimeRange::new(min, max))
}

/// What a block holds besides samples.
#[derive(Debug, Default)]
pub(crate) struct Extras {
    pub(crate) metadata: Vec<MetricMetadata>,
    pub(crate) exemplars: ExemplarSet,
}

impl Extras {
    pub(crate) fn is_empty(&self) -> bool {
        self.metadata.is_empty() && self.exemplars.is_empty()
    }
}

/// Level of the index and the directories.
const ZSTD_LEVEL: i32 = 3;

pub(crate) struct BlockWriter {
    out: ContainerWriter,
    index: IndexBuilder,
    last: Labels,
    page: PageBuilder,
    page_first: u32,
    page_last: u32,
    page_samples: u64,
    page_time: TimeRange,
    pages: Vec<PageEntry>,
    times: TimesWriter,
    items: u64,
    time: TimeRange,
}

/// The distinct timestamp vectors so far.
#[derive(Default)]
struct TimesWriter {
    /// Content hash of 128 bits to vector number; no second look, a collision is less likely than a broken disk.
    known: HashMap<u128, u32, foldhash::fast::RandomState>,
    first_vector: u32,
    lengths: Vec<usize>,
    vectors: Vec<u8>,
    pages: Vec<TimesEntry>,
}

impl BlockWriter {
    pub(crate) fn in_memory() -> Result<Self> {
        Self::starting(ContainerWriter::in_memory())
    }

    /// Writes to a new file of the scratch folder.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn spooled(path: &Path) -> Result<Self> {
        Self::starting(ContainerWriter::create(path)?)
    }

    fn starting(mut out: ContainerWriter) -> Result<Self> {
        out.section_start(SECTION_DATA, 0)?;
        Ok(BlockWriter {
            out,
            index: IndexBuilder::new(),
            last: Labels::empty(),
            page: PageBuilder::default(),
            page_first: 0,
            page_last: 0,
            page_samples: 0,
            page_time: TimeRange::EMPTY,
            pages: Vec::new(),
            times: TimesWriter::default(),
            items: 0,
            time: TimeRange::EMPTY,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// Adds the next series in the order of [`order::compare`], with all its samples, ascending. Nothing happens
    /// when there are none.
    ///
    /// # Errors
    /// `Internal` when the order is broken; those of the scratch file; `TooLarge`.
    pub(crate) fn add(&mut self, labels: LabelsRef<'_>, samples: SamplesRef<'_>) -> Result<()> {
        if samples.is_empty() {
            return Ok(());
        }
        if !self.index.is_empty() && order::compare(self.last.as_ref(), labels).is_ge() {
            return Err(Error::internal(format!("series {labels} is out of order in its block")));
        }
        self.last = labels.to_owned();
        let ordinal = self.index.add(labels)?;
        let mut rest = samples;
        while !rest.is_empty() {
            let n = rich::slot_len(rest);
            let slot = rest.slice(0..n);
            rest = rest.slice(n..rest.len());
            let times = slot.times;
            if self.page.is_full() {
                self.end_page()?;
            }
            if self.page.is_empty() {
                self.page_first = ordinal;
            }
            let vector = self.times.number(times, &mut self.out)?;
            self.page.push(ordinal, vector, slot);
            self.page_last = ordinal;
            self.page_samples += times.len() as u64;
            self.page_time = self.page_time.union(TimeRange::new(times[0], times[times.len() - 1]));
        }
        self.items += samples.len() as u64;
        Ok(())
    }

    fn end_page(&mut self) -> Result<()> {
        let extent = append(&mut self.out, &self.page.finish())?;
        self.pages.push(PageEntry {
            extent,
            first_ordinal: self.page_first,
            last_ordinal: self.page_last,
            samples: self.page_samples,
            time: self.page_time,
        });
        self.time = self.time.union(self.page_time);
        self.page_time = TimeRange::EMPTY;
        self.page_samples = 0;
        Ok(())
    }

    /// `time` is that of a block without samples.
    ///
    /// # Errors
    /// As `add`.
    pub(crate) fn finish(mut self, tenant: TenantId, extras: &Extras, time: TimeRange) -> Result<BlockDraft> {
        let Extras {
            metadata: entries,
            exemplars,
        } = extras;
        if !self.page.is_empty() {
            self.end_page()?;
        }
        self.times.end_page(&mut self.out)?;
        self.out.section_end()?;
        let vectors = self.times.first_vector;
        let pages = encode_pages(&self.pages);
        let times = encode_times(&self.times.pages, vectors);
        let groups = u64::from(self.index.len());
        let index = self.index.finish()?;
        let zstd = Compression::Zstd(ZSTD_LEVEL);
        if index.len() > HOT_INDEX_BYTES_MAX {
            self.out.section(SECTION_INDEX, 0, &index, zstd)?;
        }
        let mut facts = std::collections::BTreeMap::new();
        if !entries.is_empty() {
            let mut bytes = Vec::new();
            metadata::encode(&mut bytes, entries.iter());
            self.out.section(SECTION_METADATA, 0, &bytes, zstd)?;
            facts.insert(FACT_METADATA.to_owned(), entries.len().to_string());
        }
        if !exemplars.is_empty() {
            self.out.section(SECTION_EXEMPLARS, 0, &exemplars.encode(), zstd)?;
            let TimeRange { min, max } = exemplars.time();
            facts.insert(FACT_EXEMPLARS.to_owned(), format!("{min} {max}"));
        }
        self.out.start_hot();
        self.out.section(SECTION_PAGES, 0, &pages, zstd)?;
        self.out.section(SECTION_TIMES, 0, &times, zstd)?;
        if index.len() <= HOT_INDEX_BYTES_MAX {
            self.out.section(SECTION_INDEX, 0, &index, zstd)?;
        }
        let file: BlockFile = self.out.finish(FILE)?;
        Ok(BlockDraft {
            tenant,
            time: if self.items == 0 { time } else { self.time },
            items: self.items,
            groups,
            files: vec![file],
            facts,
        })
    }
}

impl TimesWriter {
    /// The number of a vector, written now if it is new.
    fn number(&mut self, times: &[i64], out: &mut ContainerWriter) -> Result<u32> {
        let hash = content_hash(times);
        if let Some(&n) = self.known.get(&hash) {
            return Ok(n);
        }
        if self.vectors.len() >= TIMES_PAGE_BYTES {
            self.end_page(out)?;
        }
        let n = self
            .first_vector
            .checked_add(self.lengths.len() as u32)
            .ok_or_else(|| Error::internal("more than 2^32 timestamp vectors in a block"))?;
        let from = self.vectors.len();
        times::encode_vector(&mut self.vectors, times);
        self.lengths.push(self.vectors.len() - from);
        self.known.insert(hash, n);
        Ok(n)
    }

    fn end_page(&mut self, out: &mut ContainerWriter) -> Result<()> {
        if self.lengths.is_empty() {
            return Ok(());
        }
        let extent = append(out, &times::encode_page(&self.lengths, &self.vectors))?;
        self.pages.push(TimesEntry {
            extent,
            first_vector: self.first_vector,
        });
        self.first_vector += self.lengths.len() as u32;
        self.lengths.clear();
        self.vectors.clear();
        Ok(())
    }
}

fn content_hash(times: &[i64]) -> u128 {
    let mut h = xxhash_rust::xxh3::Xxh3Default::new();
    let mut buffer = [0u8; 512];
    for chunk in times.chunks(64) {
        for (to, t) in buffer.chunks_exact_mut(8).zip(chunk) {
            to.copy_from_slice(&t.to_le_bytes());
        }
        h.update(&buffer[..chunk.len() * 8]);
    }
    h.digest128()
}

fn append(out: &mut ContainerWriter, raw: &[u8]) -> Result<Extent> {
    let packed = compress(raw)?;
    let too_large = |_| Error::internal("a page of a block exceeds 4 GiB");
    let offset = out.append(&packed)?;
    Ok(Extent {
        offset,
        len: u32::try_from(packed.len()).map_err(too_large)?,
        raw_len: u32::try_from(raw.len()).map_err(too_large)?,
        crc: crc32c(&packed),
    })
}
