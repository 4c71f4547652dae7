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
use crate::format::exemplars::ExemplarSet;
use crate::format::page::Page;
use crate::format::times::TimesPage;
use crate::format::{bad, metadata};
use crate::samples::Samples;
use crate::writer::{
    FILE, SECTION_DATA, SECTION_EXEMPLARS, SECTION_INDEX, SECTION_METADATA, SECTION_PAGES, SECTION_TIMES,
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
        let [pages, times, index] =
            <[Bytes; 3]>::try_from(parts).map_err(|_| Error::internal("three sections were read"))?;
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

    /// A range that holds all samples of a series: the times of the pages that it stands on, which it shares with
    /// neighbours.
    pub(crate) fn span_of(&self, ordinal: u32) -> TimeRange {
        let from = self.pages.partition_point(|p| p.last_ordinal < ordinal);
        let on = self.pages[from..].iter().take_while(|p| p.first_ordinal <= ordinal);
        on.fold(TimeRange::EMPTY, |span, p| span.union(p.time))
    }

    /// Stored bytes of value pages, in one round.
    pub(crate) async fn fetch_pages(&self, pages: &[usize]) -> Result<Vec<Bytes>> {
        let ranges: Vec<Range<u64>> = pages.iter().map(|&i| self.pages[i].extent.range()).collect();
        self.container.read_ranges(SECTION_DATA, 0, &ranges).await
    }

    /// CPU work: checks and opens a value page.
    pub(crate) fn open_page(&self, i: usize, stored: &Bytes) -> Result<Page> {
        let p = &self.pages[i];
        Page::open(p.extent.open(stored)?, p.first_ordinal, p.last_ordinal, self.vectors)
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
        let ranges: Vec<Range<u64>> = pages.iter().map(|&i| self.times[i].extent.range()).collect();
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

/// The exemplars of a block, none when it has none. Does not open the rest of it. `book` is told the bytes that decoding
/// takes, before it begins; what it gives lives as long as the caller wants.
///
/// # Errors
/// As `BlockReader::open`; those of `book`.
pub(crate) async fn read_exemplars<R>(
    block: &BlockHandle,
    book: impl FnOnce(usize) -> Result<R>,
) -> Result<(ExemplarSet, Option<R>)> {
    let container = Container::open(block, FILE).await?;
    let Some(section) = container.section(SECTION_EXEMPLARS, 0) else {
        return Ok((ExemplarSet::default(), None));
    };
    // An exemplar of 60 bytes takes some 150 in memory.
    let booked = book((section.raw_len as usize).saturating_mul(4))?;
    let bytes = container.read(SECTION_EXEMPLARS, 0).await?;
    let set = task::compute(move || ExemplarSet::decode(&bytes)).await??;
    Ok((set, Some(booked)))
}

/// Opens a block of untrusted bytes and reads everything in it; for fuzzing.
pub(crate) fn fuzz(bytes: &[u8]) {
    use futures::FutureExt as _;
    let Ok(container) = Container::from_bytes(Bytes::copy_from_slice(bytes)) else {
        return;
    };
    // Everything is in memory, so the reads are ready at once.
    let read = |kind| container.read(kind, 0).now_or_never().and_then(Result::ok);
    let parts: Option<Vec<Bytes>> = [SECTION_PAGES, SECTION_TIMES, SECTION_INDEX]
        .into_iter()
        .map(read)
        .collect();
    let Some(parts) = parts else { return };
    let Ok(reader) = BlockReader::parse(container.clone(), parts) else {
        return;
    };
    for o in 0..reader.index.series_count().min(1000) {
        let _ = reader.index.labels(o);
    }
    if let Some(bytes) = read(SECTION_EXEMPLARS) {
        let _ = ExemplarSet::decode(&bytes);
    }
    if let Some(bytes) = read(SECTION_METADATA) {
        let _ = metadata::decode(&mut Reader::new(&bytes));
    }
    let fetch = |range| {
        container
            .read_range(SECTION_DATA, 0, range)
            .now_or_never()
            .and_then(Result::ok)
    };
    for i in 0..reader.page_count().min(1000) {
        let Some(stored) = fetch(reader.pages[i].extent.range()) else {
            continue;
        };
        let Ok(page) = reader.open_page(i, &stored) else {
            continue;
        };
        for slot in page.slots() {
            let (p, at) = reader.locate_vector(slot.vector);
            let Some(stored) = fetch(reader.times[p].extent.range()) else {
                continue;
            };
            let vector = reader.open_times(p, &stored).and_then(|t| t.vector(at));
            if let Ok(times) = vector {
                let _ = page.read(slot, &times, &mut Samples::default());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{AnySample, SamplesRef};
    use crate::writer::{BlockWriter, Extras};
    use trilith_block::FileBody;
    use trilith_histogram::{FloatHistogram, Span};
    use trilith_model::{Labels, SampleValue, TenantId};

    fn histogram_at(ts_ms: i64) -> AnySample {
        let mut h = FloatHistogram {
            count: 3.0,
            sum: 4.5,
            ..FloatHistogram::default()
        };
        h.positive.spans.push(Span { offset: -1, length: 2 });
        h.positive.counts = vec![1.0, 2.0];
        AnySample {
            ts_ms,
            start_ms: 1,
            value: SampleValue::Histogram(Arc::new(h)),
        }
    }

    fn block() -> Vec<u8> {
        let mut w = BlockWriter::in_memory().unwrap();
        for i in 0..3 {
            let labels = Labels::from_pairs([("__name__", "m"), ("i", ["0", "1", "2"][i])]);
            let floats = SamplesRef::floats_only(&[1, 2, 10], &[1.0, 2.0, 3.0]);
            let mut samples = Samples::default();
            samples.extend(floats);
            if i > 0 {
                samples.push(histogram_at(20));
            }
            w.add(labels.as_ref(), samples.as_ref()).unwrap();
        }
        let mut draft = w
            .finish(TenantId::anonymous(), &Extras::default(), TimeRange::EMPTY)
            .unwrap();
        match draft.files.remove(0).body {
            FileBody::Memory(b) => b.to_vec(),
            FileBody::Spooled(_) => unreachable!("written in memory"),
        }
    }

    #[test]
    fn every_damaged_byte_is_survived() {
        let good = block();
        fuzz(&good);
        for at in 0..good.len() {
            for mask in [1u8, 0x80, 0xff] {
                let mut bytes = good.clone();
                bytes[at] ^= mask;
                fuzz(&bytes);
            }
            fuzz(&good[..at]);
        }
    }

    #[test]
    fn series_must_come_in_order() {
        let mut w = BlockWriter::in_memory().unwrap();
        let labels = Labels::from_pairs([("__name__", "m")]);
        w.add(labels.as_ref(), SamplesRef::floats_only(&[1], &[1.0])).unwrap();
        assert!(w.add(labels.as_ref(), SamplesRef::floats_only(&[2], &[1.0])).is_err());
    }
}
