//! Reads the samples of a run of planned series and assembles them into one batch.
//!
//! Per block: the value pages of the wanted series in one round of coalesced reads, then the timestamp pages they
//! name. Most series of a run have the same parts on the same timestamp vectors, so the joined vector is worked out once
//! per combination and only values are decoded per series. Series with histograms, start timestamps or deleted samples, those in
//! heads, and those whose parts overlap go the longer way through a list of samples.

use std::collections::BTreeSet;
use std::hash::BuildHasher as _;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use hashbrown::{HashMap, HashTable};
use parking_lot::Mutex;
use smallvec::SmallVec;
use trilith_histogram::FloatHistogram;
use trilith_model::{Error, ErrorKind, Result, SampleValue, TimeRange, task};
use trilith_query::{BatchColumn, QueryContext, QueryStats, Reservation, SeriesBatch, ValueColumn};

use super::plan::{Plan, PlannedRun, PlannedSeries};
use super::{FAN_OUT, skip_damaged};
use crate::chunk::TimesMemo;
use crate::format::page::Page;
use crate::format::times::TimesPage;
use crate::head::HeadSeriesRef;
use crate::samples::{Samples, histogram_bytes};

/// Open timestamp pages that a query keeps from run to run.
const TIMES_PAGES_KEPT: usize = 128;

/// A selection under way.
pub(crate) struct Selection {
    pub(crate) ctx: QueryContext,
    pub(crate) plan: Arc<Plan>,
    /// By (source, page). Series of later runs mostly use the same vectors.
    times: Mutex<HashMap<(u32, usize), Arc<HeldTimes>>>,
}

struct HeldTimes {
    page: TimesPage,
    _memory: Reservation,
}

/// The opened parts of one block that a run needs.
struct BlockPart {
    source: u32,
    /// By first ordinal, ascending.
    pages: Vec<Page>,
    times: HashMap<usize, Arc<HeldTimes>>,
}

impl Selection {
    pub(crate) fn new(ctx: QueryContext, plan: Arc<Plan>) -> Arc<Self> {
        Arc::new(Selection {
            ctx,
            plan,
            times: Mutex::default(),
        })
    }

    /// The batch of a run; it may be empty. The reservation covers it until the consumer has it.
    pub(crate) async fn batch(self: Arc<Self>, run: PlannedRun) -> Result<(SeriesBatch, Reservation)> {
        self.ctx.check()?;
        let PlannedRun { series: run, samples } = run;
        let parts: Vec<(Option<BlockPart>, Reservation)> = futures::stream::iter(self.wanted(&run))
            .map(|(source, ordinals)| self.clone().read_block(source, ordinals))
            .buffered(FAN_OUT)
            .try_collect()
            .await?;
        let mut memory = self.ctx.memory.reserve(0)?;
        let this = self.clone();
        task::compute_sized(samples as usize, move || {
            // The pages' reservations end with the pages.
            let (parts, _held): (Vec<Option<BlockPart>>, Vec<Reservation>) = parts.into_iter().unzip();
            let parts: Vec<BlockPart> = parts.into_iter().flatten().collect();
            let batch = this.assemble(run, samples as usize, &parts, &mut memory)?;
            Ok((batch, memory))
        })
        .await?
    }

    /// The blocks of a run with the ascending ordinals wanted of each.
    fn wanted(&self, run: &Range<usize>) -> Vec<(u32, Vec<u32>)> {
        let blocks = self.plan.sources.blocks.len();
        let mut wanted: Vec<Vec<u32>> = vec![Vec::new(); blocks];
        for s in &self.plan.series[run.clone()] {
            for &(source, ordinal) in &s.parts {
                if let Some(list) = wanted.get_mut(source as usize) {
                    list.push(ordinal);
                }
            }
        }
        (0u32..)
            .zip(wanted)
            .filter(|(_, o)| !o.is_empty())
            .map(|(n, mut o)| {
                // Planned series are in the order of blocks already, unless a block is damaged.
                o.sort_unstable();
                (n, o)
            })
            .collect()
    }

    /// `None` for a damaged block.
    async fn read_block(self: Arc<Self>, source: u32, ordinals: Vec<u32>) -> Result<(Option<BlockPart>, Reservation)> {
        let mut memory = self.ctx.memory.reserve(0)?;
        match self.try_read_block(source, &ordinals, &mut memory).await {
            Ok(part) => Ok((Some(part), memory)),
            Err(e) => {
                skip_damaged(&self.ctx, &self.plan.sources.blocks[source as usize].handle, e)?;
                Ok((None, memory))
            }
        }
    }

    async fn try_read_block(
        self: &Arc<Self>,
        source: u32,
        ordinals: &[u32],
        memory: &mut Reservation,
    ) -> Result<BlockPart> {
        let ctx = &self.ctx;
        ctx.check()?;
        let reader = &self.plan.sources.blocks[source as usize].reader;
        let wanted = reader.pages_of(ordinals, self.plan.range);
        // Stored bytes, raw bytes, and about as much again for the slots' directory.
        memory.grow(wanted.iter().map(|&i| reader.page(i).extent.raw_len as usize * 2).sum())?;
        let stored = reader.fetch_pages(&wanted).await?;
        self.count_bytes(&stored);
        let (this, ordinals) = (self.clone(), ordinals.to_vec());
        let items = raw_items(wanted.iter().map(|&i| reader.page(i).extent.raw_len));
        let (pages, needed) =
            task::compute_sized(items, move || this.open_pages(source, &wanted, &stored, &ordinals)).await??;

        let mut times = HashMap::new();
        let mut missing = Vec::new();
        {
            let kept = self.times.lock();
            for i in needed {
                match kept.get(&(source, i)) {
                    Some(t) => drop(times.insert(i, t.clone())),
                    None => missing.push(i),
                }
            }
        }
        ctx.check()?;
        let stored = reader.fetch_times(&missing).await?;
        self.count_bytes(&stored);
        let this = self.clone();
        let items = raw_items(missing.iter().map(|&i| reader.times_entry(i).extent.raw_len));
        let opened = task::compute_sized(items, move || this.open_times(source, &missing, &stored)).await??;
        times.extend(opened);
        Ok(BlockPart { source, pages, times })
    }

    fn count_bytes(&self, stored: &[Bytes]) {
        QueryStats::add(&self.ctx.stats.bytes_read, stored.iter().map(|b| b.len() as u64).sum());
    }

    /// The pages, and the timestamp pages that the wanted series need.
    fn open_pages(
        &self,
        source: u32,
        wanted: &[usize],
        stored: &[Bytes],
        ordinals: &[u32],
    ) -> Result<(Vec<Page>, BTreeSet<usize>)> {
        let reader = &self.plan.sources.blocks[source as usize].reader;
        let mut pages = Vec::with_capacity(wanted.len());
        let mut needed = BTreeSet::new();
        for (&i, stored) in wanted.iter().zip(stored) {
            self.ctx.check()?;
            let page = reader.open_page(i, stored)?;
            QueryStats::add(&self.ctx.stats.bytes_decoded, page.raw_bytes() as u64);
            let entry = reader.page(i);
            let from = ordinals.partition_point(|&o| o < entry.first_ordinal);
            let to = ordinals.partition_point(|&o| o <= entry.last_ordinal);
            for &o in &ordinals[from..to] {
                needed.extend(page.slots_of(o).iter().map(|s| reader.locate_vector(s.vector).0));
            }
            pages.push(page);
        }
        Ok((pages, needed))
    }

    fn open_times(&self, source: u32, missing: &[usize], stored: &[Bytes]) -> Result<Vec<(usize, Arc<HeldTimes>)>> {
        let reader = &self.plan.sources.blocks[source as usize].reader;
        let mut opened = Vec::with_capacity(missing.len());
        for (&i, stored) in missing.iter().zip(stored) {
            self.ctx.check()?;
            let raw_len = reader.times_entry(i).extent.raw_len;
            let memory = self.ctx.memory.reserve(raw_len as usize * 2)?;
            QueryStats::add(&self.ctx.stats.bytes_decoded, u64::from(raw_len));
            opened.push((
                i,
                Arc::new(HeldTimes {
                    page: reader.open_times(i, stored)?,
                    _memory: memory,
                }),
            ));
        }
        let mut kept = self.times.lock();
        if kept.len() + opened.len() > TIMES_PAGES_KEPT {
            kept.clear();
        }
        kept.extend(
            opened
                .iter()
                .take(TIMES_PAGES_KEPT)
                .map(|(i, t)| ((source, *i), t.clone())),
        );
        Ok(opened)
    }

    /// `expected`: about how many samples there will be; room for them is made at once, as growing costs copies.
    fn assemble(
        &self,
        run: Range<usize>,
        expected: usize,
        parts: &[BlockPart],
        memory: &mut Reservation,
    ) -> Result<SeriesBatch> {
        let mut a = Assembler {
            selection: self,
            parts,
            memory,
            batch: SeriesBatch {
                floats: Vec::with_capacity((expected + expected / 8).min(ROOM_SAMPLES_MAX)),
                ..SeriesBatch::default()
            },
            interned: HashTable::new(),
            joined: HashMap::default(),
            vectors: HashMap::default(),
            hasher: foldhash::fast::RandomState::default(),
            scratch: Vec::new(),
            slot: Samples::default(),
            samples: Samples::default(),
            memo: TimesMemo::default(),
        };
        for (i, s) in self.plan.series[run].iter().enumerate() {
            if i % 32 == 0 {
                self.ctx.check()?;
            }
            let before = (a.batch.floats.len(), a.batch.mixed.len(), a.batch.starts.len());
            if let Err(e) = a.add(s) {
                if e.kind != ErrorKind::Corrupt {
                    return Err(e);
                }
                // The checksums held and the content does not: a block that was written wrong.
                tracing::error!(series = %s.labels, error = %e, "series cannot be decoded and is left out");
                self.ctx
                    .warn(format!("series {} cannot be decoded and is left out: {e}", s.labels));
                a.batch.floats.truncate(before.0);
                a.batch.mixed.truncate(before.1);
                a.batch.starts.truncate(before.2);
            }
        }
        let mut batch = a.batch;
        batch.columns.sort_by_key(|c| c.times_idx);
        QueryStats::add(&self.ctx.stats.series, batch.columns.len() as u64);
        QueryStats::add(&self.ctx.stats.samples, batch.sample_count() as u64);
        Ok(batch)
    }
}

/// Samples for which room is made beforehand: a little more than what a run is planned for.
const ROOM_SAMPLES_MAX: usize = 300 << 10;

/// Decompression as work, in samples: as much as eight bytes each.
fn raw_items(raw_lens: impl Iterator<Item = u32>) -> usize {
    raw_lens.map(|n| n as usize / 8).sum()
}

/// A run of one series in one block.
struct Run<'a> {
    part: usize,
    page: &'a Page,
    slot: &'a crate::format::page::Slot,
}

/// The blocks and vectors that a series' samples stand on, in order.
type JoinKey = SmallVec<[(u32, u32); 4]>;

/// A vector cut to the query's range.
#[derive(Clone)]
struct CutVector {
    times: Arc<[i64]>,
    range: Range<usize>,
}

struct Assembler<'a> {
    selection: &'a Selection,
    parts: &'a [BlockPart],
    memory: &'a mut Reservation,
    batch: SeriesBatch,
    /// (hash, index) of `batch.times`.
    interned: HashTable<(u64, u32)>,
    /// Joined vectors by where they come from; `None` when the runs overlap and have to be merged, or hold nothing.
    joined: HashMap<JoinKey, Option<u32>, foldhash::fast::RandomState>,
    vectors: HashMap<(u32, u32), CutVector, foldhash::fast::RandomState>,
    hasher: foldhash::fast::RandomState,
    /// Reused from series to series.
    scratch: Vec<f64>,
    slot: Samples,
    samples: Samples,
    memo: TimesMemo,
}

impl<'a> Assembler<'a> {
    fn add(&mut self, s: &PlannedSeries) -> Result<()> {
        let mut runs: SmallVec<[Run<'a>; 4]> = SmallVec::new();
        let mut in_heads = false;
        for &(source, ordinal) in &s.parts {
            let Ok(part) = self.parts.binary_search_by_key(&source, |p| p.source) else {
                in_heads |= source as usize >= self.selection.plan.sources.blocks.len();
                continue;
            };
            let pages = &self.parts[part].pages;
            let from = pages.partition_point(|p| p.slots().last().is_none_or(|l| l.ordinal < ordinal));
            for page in pages[from..]
                .iter()
                .take_while(|p| p.slots().first().is_some_and(|f| f.ordinal <= ordinal))
            {
                runs.extend(page.slots_of(ordinal).iter().map(|slot| Run { part, page, slot }));
            }
        }
        let rich = runs.iter().any(|r| r.page.is_rich(r.slot));
        let masked = runs.iter().any(|r| !self.dead(r).is_empty());
        if in_heads || rich || masked || !self.add_joined(s, &runs)? {
            self.add_merged(s, &runs)?;
        }
        Ok(())
    }

    /// The fast way: runs that follow each other in time. False when they do not.
    fn add_joined(&mut self, s: &PlannedSeries, runs: &[Run<'_>]) -> Result<bool> {
        let key: JoinKey = runs
            .iter()
            .map(|r| (self.parts[r.part].source, r.slot.vector))
            .collect();
        let times_idx = match self.joined.get(&key) {
            Some(known) => *known,
            None => {
                let mut times: Vec<i64> = Vec::new();
                for r in runs {
                    let v = self.vector(r)?;
                    times.extend_from_slice(&v.times[v.range]);
                }
                let ascending = times.is_sorted_by(|a, b| a < b);
                let idx = if ascending && !times.is_empty() {
                    Some(self.intern(&times)?)
                } else {
                    None
                };
                if ascending && idx.is_none() {
                    // Nothing in the range.
                    return Ok(true);
                }
                self.joined.insert(key, idx);
                idx
            }
        };
        let Some(times_idx) = times_idx else {
            return Ok(false);
        };
        let from = self.batch.floats.len();
        let n = self.batch.times[times_idx as usize].len();
        self.memory.grow(n * 8 + std::mem::size_of::<BatchColumn>())?;
        for r in runs {
            self.values(r)?;
        }
        debug_assert_eq!(self.batch.floats.len() - from, n);
        self.batch.columns.push(BatchColumn {
            labels: s.labels.clone(),
            times_idx,
            values: ValueColumn::Float(from..self.batch.floats.len()),
            starts: None,
        });
        Ok(true)
    }

    /// The general way: everything in one list, sorted, of equal times the one written last.
    fn add_merged(&mut self, s: &PlannedSeries, runs: &[Run<'_>]) -> Result<()> {
        let mut samples = std::mem::take(&mut self.samples);
        samples.clear();
        for r in runs {
            self.read(r, &mut samples)?;
        }
        let plan = &self.selection.plan;
        for &(source, ordinal) in &s.parts {
            if let Some(n) = (source as usize).checked_sub(plan.sources.blocks.len()) {
                let before = samples.histograms.len();
                let (head, r) = (&plan.sources.heads[n], HeadSeriesRef(ordinal));
                let alone = plan.newest_only && s.parts.len() == 1;
                if !(alone && head.read_newest(r, plan.range, &mut samples)) {
                    head.read(r, plan.range, &mut self.memo, &mut samples);
                }
                // Repeated samples may have shortened the list.
                self.book(samples.histograms.get(before..).unwrap_or_default())?;
            }
        }
        if !samples.is_sorted() {
            samples.sort_last_of_each();
        }
        if !samples.is_empty() {
            self.push_samples(s, &samples)?;
        }
        self.samples = samples;
        Ok(())
    }

    /// Adds a column of all of the samples, which ascend.
    fn push_samples(&mut self, s: &PlannedSeries, samples: &Samples) -> Result<()> {
        let (n, all) = (samples.len(), samples.as_ref());
        let mixed = all.histogram_count() > 0;
        let each = if mixed { size_of::<SampleValue>() } else { 8 } + if all.has_starts() { 8 } else { 0 };
        self.memory.grow(n * each + size_of::<BatchColumn>())?;
        let times_idx = self.intern(&samples.times)?;
        let values = if mixed {
            let from = self.batch.mixed.len();
            self.batch.mixed.extend(all.values());
            ValueColumn::Mixed(from..self.batch.mixed.len())
        } else {
            let from = self.batch.floats.len();
            self.batch.floats.extend_from_slice(&samples.floats);
            ValueColumn::Float(from..self.batch.floats.len())
        };
        let starts = all.has_starts().then(|| {
            let from = self.batch.starts.len();
            self.batch.starts.extend_from_slice(all.starts);
            from..self.batch.starts.len()
        });
        self.batch.columns.push(BatchColumn {
            labels: s.labels.clone(),
            times_idx,
            values,
            starts,
        });
        Ok(())
    }

    /// Books decoded histograms. Those that a later sample replaces stay booked: they are few.
    fn book(&mut self, histograms: &[(u32, Arc<FloatHistogram>)]) -> Result<()> {
        if histograms.is_empty() {
            return Ok(());
        }
        self.memory
            .grow(histograms.iter().map(|(_, h)| histogram_bytes(h)).sum())
    }

    /// When samples of a run's series are deleted in its block.
    fn dead(&self, r: &Run<'_>) -> &'a [TimeRange] {
        let dead = &self.selection.plan.dead;
        if dead.is_empty() {
            return &[];
        }
        let of = dead.get(&(self.parts[r.part].source, r.slot.ordinal));
        of.map_or(&[], Vec::as_slice)
    }

    /// Appends a run's samples of any kind within the range.
    fn read(&mut self, r: &Run<'_>, out: &mut Samples) -> Result<()> {
        let v = self.vector(r)?;
        if v.range.is_empty() {
            return Ok(());
        }
        let before = out.histograms.len();
        let dead = self.dead(r);
        if v.range.len() == v.times.len() && dead.is_empty() {
            r.page.read(r.slot, &v.times, out)?;
        } else {
            self.slot.clear();
            r.page.read(r.slot, &v.times, &mut self.slot)?;
            out.extend_outside(self.slot.slice(v.range), dead);
            self.slot.clear();
        }
        self.book(&out.histograms[before..])
    }

    /// Appends a run's values within the range to the batch.
    fn values(&mut self, r: &Run<'_>) -> Result<()> {
        let v = self.vector(r)?;
        if v.range.len() == v.times.len() {
            return r.page.values(r.slot, v.times.len(), &mut self.batch.floats);
        }
        if !v.range.is_empty() {
            self.scratch.clear();
            r.page.values(r.slot, v.times.len(), &mut self.scratch)?;
            self.batch.floats.extend_from_slice(&self.scratch[v.range]);
        }
        Ok(())
    }

    fn vector(&mut self, r: &Run<'_>) -> Result<CutVector> {
        let part = &self.parts[r.part];
        if let Some(v) = self.vectors.get(&(part.source, r.slot.vector)) {
            return Ok(v.clone());
        }
        let plan = &self.selection.plan;
        let (page, at) = plan.sources.blocks[part.source as usize]
            .reader
            .locate_vector(r.slot.vector);
        let page = part
            .times
            .get(&page)
            .ok_or_else(|| Error::internal("timestamp page was not fetched"))?;
        let times = page.page.vector(at)?;
        self.memory.grow(times.len() * 8 + 64)?;
        let TimeRange { min, max } = plan.range;
        let range = times.partition_point(|&t| t < min)..times.partition_point(|&t| t <= max);
        let v = CutVector { times, range };
        self.vectors.insert((part.source, r.slot.vector), v.clone());
        Ok(v)
    }

    /// The index of an equal vector in the batch, added now if there is none.
    fn intern(&mut self, times: &[i64]) -> Result<u32> {
        let hash = self.hasher.hash_one(times);
        let all = &self.batch.times;
        if let Some(&(_, i)) = self
            .interned
            .find(hash, |&(h, i)| h == hash && *all[i as usize] == *times)
        {
            return Ok(i);
        }
        self.memory.grow(times.len() * 8 + 64)?;
        let i = self.batch.times.len() as u32;
        self.batch.times.push(times.into());
        self.interned.insert_unique(hash, (hash, i), |&(h, _)| h);
        Ok(i)
    }
}
