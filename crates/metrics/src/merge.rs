//! Merges blocks of one tenant into one, series by series, in label order.
//!
//! Each input is a feed of pages: a round fetches the next pages of the feeds that ran dry, then merges as far as all
//! feeds reach. Memory: a few pages and timestamp pages per input, one series with all its samples, the output's
//! index; large outputs are spooled. What the tombstones of an input mask is dropped; then, of equal timestamps, the
//! sample of the newest input stays.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use hashbrown::HashMap;
use trilith_block::{BlockDraft, BlockHandle, Merge};
use trilith_index::LabelIndex as _;
use trilith_model::{Error, LabelsRef, Result, TenantId, TimeRange, task};

use crate::format::exemplars::ExemplarSet;
use crate::format::metadata::MetadataSet;
use crate::format::page::Page;
use crate::format::times::TimesPage;
use crate::order;
use crate::reader::{self, BlockReader};
use crate::samples::Samples;
use crate::tombstones::{Mask, is_dead};
use crate::writer::{BlockWriter, Extras};

/// Pages fetched at a time per input: some 500 KiB stored.
const PAGES_PER_FETCH: usize = 16;
/// Open timestamp pages kept per input, some 64 KiB each.
const TIMES_PAGES_MAX: usize = 48;
/// Decoded timestamps kept per input.
const VECTOR_TIMES_MAX: usize = 256 << 10;
/// Inputs larger than this in sum are spooled.
const IN_MEMORY_BYTES_MAX: u64 = 32 << 20;

/// Exemplars of a merged block, the newest ones. Tenants with a higher limit keep more until the first merge.
const EXEMPLARS_MAX: usize = 100_000;

/// Manifest fact: id of the newest block as cut from a head that this one contains.
const FACT_NEWEST: &str = "newest";

/// What orders blocks by the age of their writes.
pub(crate) fn age_key(block: &BlockHandle) -> String {
    block
        .meta
        .facts
        .get(FACT_NEWEST)
        .cloned()
        .unwrap_or_else(|| block.meta.id.to_string())
}

pub(crate) async fn merge(job: Merge) -> Result<Vec<BlockDraft>> {
    let mut inputs = job.inputs;
    inputs.sort_by_cached_key(age_key);
    let Some(newest) = inputs.last() else {
        return Ok(Vec::new());
    };
    let newest = age_key(newest);
    let tenant = TenantId::new(&inputs[0].meta.tenant)?;
    let mut metadata = MetadataSet::default();
    let mut exemplars = ExemplarSet::default();
    let mut feeds = Vec::with_capacity(inputs.len());
    for block in &inputs {
        let named = |e: Error| e.context(format!("block {}", block.meta.id));
        for m in reader::read_metadata(block).await.map_err(named)? {
            metadata.insert(&m);
        }
        let mask = Mask::of(block, TimeRange::ALL).map_err(named)?;
        let (all, _) = reader::read_exemplars(block, |_| Ok(())).await.map_err(named)?;
        for (series, of) in all.iter() {
            let dead = mask.as_ref().map_or_else(Vec::new, |m| m.dead(series.as_ref()));
            let alive = of.iter().filter(|e| !is_dead(&dead, e.ts_ms));
            alive.for_each(|e| exemplars.insert(series, e));
        }
        if exemplars.len() > 2 * EXEMPLARS_MAX {
            exemplars.trim(EXEMPLARS_MAX, job.keep_from);
        }
        feeds.push(Feed::new(
            BlockReader::open(block).await.map_err(named)?,
            block.meta.id.to_string(),
            mask,
        ));
    }
    let bytes: u64 = inputs.iter().map(|b| b.meta.bytes()).sum();
    let writer = if bytes > IN_MEMORY_BYTES_MAX {
        let path = job.scratch.join("merged");
        task::background(move || BlockWriter::spooled(&path)).await??
    } else {
        BlockWriter::in_memory()?
    };

    let mut merger = Merger {
        feeds,
        writer,
        keep_from: job.keep_from,
        samples: Samples::default(),
        slot: Samples::default(),
    };
    loop {
        for feed in merger.feeds.iter_mut().filter(|f| !f.is_ready()) {
            feed.fill()
                .await
                .map_err(|e| e.context(format!("block {}", feed.name)))?;
        }
        let (back, more) = task::background(move || {
            let more = merger.advance();
            (merger, more)
        })
        .await?;
        merger = back;
        if !more? {
            break;
        }
    }
    let writer = merger.writer;
    exemplars.trim(EXEMPLARS_MAX, job.keep_from);
    let extras = Extras {
        metadata: metadata.entries(None),
        exemplars,
    };
    if writer.is_empty() && extras.is_empty() {
        return Ok(Vec::new());
    }
    let time = inputs.iter().fold(TimeRange::EMPTY, |time, b| {
        time.union(TimeRange::new(b.meta.time_min, b.meta.time_max))
    });
    let mut draft = task::background(move || writer.finish(tenant, &extras, time)).await??;
    draft.facts.insert(FACT_NEWEST.to_owned(), newest);
    Ok(vec![draft])
}

struct Merger {
    /// Oldest first.
    feeds: Vec<Feed>,
    writer: BlockWriter,
    keep_from: Option<i64>,
    samples: Samples,
    /// Of one input with a mask.
    slot: Samples,
}

impl Merger {
    /// Merges until a feed runs dry. False when all feeds are at their end.
    fn advance(&mut self) -> Result<bool> {
        loop {
            if self.feeds.iter().any(|f| !f.is_ready()) {
                return Ok(true);
            }
            let mut least: Option<usize> = None;
            for (i, f) in self.feeds.iter().enumerate().filter(|(_, f)| !f.is_done()) {
                if least.is_none_or(|l| order::compare(f.labels(), self.feeds[l].labels()).is_lt()) {
                    least = Some(i);
                }
            }
            let Some(least) = least else { return Ok(false) };
            let labels = self.feeds[least].labels().to_owned();
            self.samples.clear();
            for f in &mut self.feeds {
                if !f.is_done() && f.labels() == labels.as_ref() {
                    f.take_alive(&mut self.slot, &mut self.samples)
                        .map_err(|e| e.context(format!("block {}", f.name)))?;
                }
            }
            if !self.samples.is_sorted() {
                self.samples.sort_last_of_each();
            }
            if let Some(from) = self.keep_from {
                self.samples.retain_from(from);
            }
            self.writer.add(labels.as_ref(), self.samples.as_ref())?;
        }
    }
}

/// One input, read forward.
struct Feed {
    reader: Arc<BlockReader>,
    name: String,
    /// What of the input is deleted.
    mask: Option<Mask>,
    /// The series at the front.
    ordinal: u32,
    /// Its packed labels; empty at the end.
    packed: Vec<u8>,
    next_page: usize,
    /// Open pages from the front series on: (last ordinal, page).
    pages: VecDeque<(u32, Page)>,
    times: HashMap<usize, Arc<TimesPage>>,
    vectors: HashMap<u32, Arc<[i64]>>,
    vector_times: usize,
}

impl Feed {
    fn new(reader: Arc<BlockReader>, name: String, mask: Option<Mask>) -> Self {
        Feed {
            reader,
            name,
            mask,
            ordinal: 0,
            packed: Vec::new(),
            next_page: 0,
            pages: VecDeque::new(),
            times: HashMap::new(),
            vectors: HashMap::new(),
            vector_times: 0,
        }
    }

    fn is_done(&self) -> bool {
        self.ordinal >= self.reader.index.series_count()
    }

    /// Whether all samples of the front series are here.
    fn is_ready(&self) -> bool {
        self.is_done()
            || self.next_page > 0 && self.next_page == self.reader.page_count()
            || self.pages.back().is_some_and(|(last, _)| *last > self.ordinal)
    }

    fn labels(&self) -> LabelsRef<'_> {
        LabelsRef::from_packed_trusted(&self.packed)
    }

    /// Fetches the next pages and the timestamp pages they name.
    async fn fill(&mut self) -> Result<()> {
        let to = (self.next_page + PAGES_PER_FETCH).min(self.reader.page_count());
        let wanted: Vec<usize> = (self.next_page..to).collect();
        if wanted.is_empty() {
            return Err(Error::corrupt("the last page does not hold the last series"));
        }
        let stored = self.reader.fetch_pages(&wanted).await?;
        let reader = self.reader.clone();
        let opened: Vec<(u32, Page)> = task::background(move || {
            let open = |(&i, stored)| Ok((reader.page(i).last_ordinal, reader.open_page(i, stored)?));
            wanted.iter().zip(&stored).map(open).collect::<Result<_>>()
        })
        .await??;
        if self.next_page == 0 {
            self.load_labels()?;
        }
        self.next_page = to;
        self.pages.extend(opened);

        let needed: BTreeSet<usize> = self
            .pages
            .iter()
            .flat_map(|(_, p)| p.slots())
            .map(|s| self.reader.locate_vector(s.vector).0)
            .collect();
        if self.times.len() > TIMES_PAGES_MAX {
            self.times.retain(|i, _| needed.contains(i));
        }
        let missing: Vec<usize> = needed.into_iter().filter(|i| !self.times.contains_key(i)).collect();
        let stored = self.reader.fetch_times(&missing).await?;
        let reader = self.reader.clone();
        let opened: Vec<(usize, Arc<TimesPage>)> = task::background(move || {
            let open = |(&i, stored)| Ok((i, Arc::new(reader.open_times(i, stored)?)));
            missing.iter().zip(&stored).map(open).collect::<Result<_>>()
        })
        .await??;
        self.times.extend(opened);
        Ok(())
    }

    fn load_labels(&mut self) -> Result<()> {
        self.packed.clear();
        if !self.is_done() {
            self.reader.index.labels_into(self.ordinal, &mut self.packed)?;
        }
        Ok(())
    }

    /// As `take`, without what is deleted.
    fn take_alive(&mut self, slot: &mut Samples, out: &mut Samples) -> Result<()> {
        let dead = self.mask.as_ref().map_or_else(Vec::new, |m| m.dead(self.labels()));
        if dead.is_empty() {
            return self.take(out);
        }
        slot.clear();
        self.take(slot)?;
        out.extend_outside(slot.as_ref(), &dead);
        Ok(())
    }

    /// Appends the samples of the front series and goes to the next one.
    fn take(&mut self, out: &mut Samples) -> Result<()> {
        for i in 0..self.pages.len() {
            for slot in self.pages[i].1.slots_of(self.ordinal).to_vec() {
                let times = self.vector(slot.vector)?;
                self.pages[i].1.read(&slot, &times, out)?;
            }
        }
        self.ordinal += 1;
        while self.pages.front().is_some_and(|(last, _)| *last < self.ordinal) {
            self.pages.pop_front();
        }
        self.load_labels()
    }

    fn vector(&mut self, vector: u32) -> Result<Arc<[i64]>> {
        if let Some(v) = self.vectors.get(&vector) {
            return Ok(v.clone());
        }
        let (page, at) = self.reader.locate_vector(vector);
        let page = self
            .times
            .get(&page)
            .ok_or_else(|| Error::internal("timestamp page was not fetched"))?;
        let v = page.vector(at)?;
        if self.vector_times > VECTOR_TIMES_MAX {
            self.vectors.clear();
            self.vector_times = 0;
        }
        self.vector_times += v.len();
        self.vectors.insert(vector, v.clone());
        Ok(v)
    }
}
