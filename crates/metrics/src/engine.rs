//! What the block layer asks of the metrics engine: an empty head, a cut, a merge, a check.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use trilith_block::{BlockDraft, BlockHandle, Engine, Merge};
use trilith_index::LabelIndex as _;
use trilith_model::{Error, Result, Signal, TenantId, TimeRange, task};

use crate::chunk::TimesMemo;
use crate::head::{MetricsHead, TenantHead};
use crate::reader::BlockReader;
use crate::samples::Samples;
use crate::writer::{BlockWriter, Extras};
use crate::{merge, order, reader};

const HOUR_MS: i64 = 3_600_000;

/// Lengths of the aligned windows that a cut splits into, the smallest that gives few enough blocks. The first
/// three are the levels of compaction.
const WINDOWS_MS: [i64; 6] = [
    2 * HOUR_MS,
    12 * HOUR_MS,
    192 * HOUR_MS,
    1_536 * HOUR_MS,
    12_288 * HOUR_MS,
    i64::MAX,
];

/// Most blocks of one tenant from one cut: a push of years of history must not become thousands of blocks.
const BLOCKS_PER_CUT_MAX: usize = 32;

/// Stateless; the state is in heads and blocks.
#[derive(Debug, Default, Clone, Copy)]
pub struct MetricsEngine;

#[async_trait]
impl Engine for MetricsEngine {
    type Head = MetricsHead;

    fn signal(&self) -> Signal {
        Signal::Metrics
    }

    fn new_head(&self) -> MetricsHead {
        MetricsHead::default()
    }

    fn cut(&self, head: &MetricsHead) -> Result<Vec<BlockDraft>> {
        let mut drafts = Vec::new();
        for (tenant, part) in head.tenants() {
            drafts.extend(cut_tenant(&tenant, &part)?);
        }
        Ok(drafts)
    }

    async fn merge(&self, job: Merge) -> Result<Vec<BlockDraft>> {
        merge::merge(job).await
    }

    async fn verify(&self, block: &BlockHandle) -> Result<()> {
        verify(block)
            .await
            .map_err(|e| e.context(format!("block {}", block.meta.id)))
    }
}

fn cut_tenant(tenant: &TenantId, head: &TenantHead) -> Result<Vec<BlockDraft>> {
    let mut metadata = head.metadata(None);
    let mut exemplars = Vec::new();
    head.with_exemplars(|all| all.for_each(|series, e| exemplars.push((series.clone(), e.clone()))));
    if head.time().is_empty() && metadata.is_empty() && exemplars.is_empty() {
        return Ok(Vec::new());
    }
    let window = window_of(head);
    let mut writers: BTreeMap<i64, (BlockWriter, Extras)> = BTreeMap::new();
    let (mut samples, mut memo) = (Samples::default(), TimesMemo::default());
    for (labels, r) in head.sorted() {
        samples.clear();
        head.read(r, TimeRange::ALL, &mut memo, &mut samples);
        let times = &samples.times;
        let mut from = 0;
        while let Some(&first) = times.get(from) {
            let id = first.div_euclid(window);
            let to = from + times[from..].partition_point(|t| t.div_euclid(window) == id);
            let (writer, _) = match writers.entry(id) {
                Entry::Occupied(w) => w.into_mut(),
                Entry::Vacant(v) => v.insert((BlockWriter::in_memory()?, Extras::default())),
            };
            writer.add(labels.as_ref(), samples.slice(from..to))?;
            from = to;
        }
    }
    // Without samples what is left makes a block of its own, as old as the last push.
    let newest = match writers.last_key_value() {
        Some((id, _)) => *id,
        None => {
            writers.insert(0, (BlockWriter::in_memory()?, Extras::default()));
            0
        }
    };
    for (series, e) in exemplars {
        let id = Some(e.ts_ms.div_euclid(window)).filter(|id| writers.contains_key(id));
        if let Some((_, extras)) = writers.get_mut(&id.unwrap_or(newest)) {
            extras.exemplars.insert(&series, &e);
        }
    }
    // The newest block carries what the head knows about metric families.
    if let Some((_, extras)) = writers.get_mut(&newest) {
        extras.metadata.append(&mut metadata);
    }
    writers
        .into_values()
        .map(|(w, extras)| w.finish(tenant.clone(), &extras, head.last_push()))
        .collect()
}

/// The smallest window length with at most [`BLOCKS_PER_CUT_MAX`] windows that hold samples.
fn window_of(head: &TenantHead) -> i64 {
    for window in WINDOWS_MS {
        let mut ids = BTreeSet::new();
        let mut few = true;
        head.for_each_range(|r| {
            let (min, max) = (r.min.div_euclid(window), r.max.div_euclid(window));
            // A sparse chunk may span more windows than it has samples; counting them all errs on the side of fewer
            // blocks.
            few = i128::from(max) - i128::from(min) < BLOCKS_PER_CUT_MAX as i128;
            if few {
                ids.extend(min..=max);
                few = ids.len() <= BLOCKS_PER_CUT_MAX;
            }
            few
        });
        if few {
            return window;
        }
    }
    i64::MAX
}

async fn verify(block: &BlockHandle) -> Result<()> {
    let reader = BlockReader::open(block).await?;
    reader.verify_sections().await?;
    reader::read_metadata(block).await?;
    reader::read_exemplars(block, |_| Ok(())).await?;
    let (mut items, mut time) = (0u64, TimeRange::EMPTY);
    for i in 0..reader.page_count() {
        let stored = reader.fetch_pages(&[i]).await?.remove(0);
        let page = {
            let reader = reader.clone();
            task::background(move || reader.open_page(i, &stored)).await??
        };
        let needed: BTreeSet<usize> = page.slots().iter().map(|s| reader.locate_vector(s.vector).0).collect();
        let needed: Vec<usize> = needed.into_iter().collect();
        let stored = reader.fetch_times(&needed).await?;
        let reader = reader.clone();
        let (n, t) = task::background(move || {
            let mut vectors = BTreeMap::new();
            for (i, stored) in needed.iter().zip(&stored) {
                vectors.insert(*i, reader.open_times(*i, stored)?);
            }
            let (mut n, mut t) = (0u64, TimeRange::EMPTY);
            let mut last: Option<(u32, i64)> = None;
            for slot in page.slots() {
                let (p, at) = reader.locate_vector(slot.vector);
                let times = vectors[&p].vector(at)?;
                page.read(slot, &times, &mut Samples::default())?;
                let range = TimeRange::new(times[0], times[times.len() - 1]);
                if last.is_some_and(|(o, max)| o == slot.ordinal && max >= range.min) {
                    return Err(Error::corrupt(format!("runs of series {} overlap", slot.ordinal)));
                }
                last = Some((slot.ordinal, range.max));
                n += times.len() as u64;
                t = t.union(range);
            }
            let entry = reader.page(i);
            if entry.samples != n || entry.time != t {
                return Err(Error::corrupt(format!("page {i} differs from its directory entry")));
            }
            Ok((n, t))
        })
        .await??;
        items += n;
        time = time.union(t);
    }
    let meta = &block.meta;
    // A block of metadata or exemplars alone has the time of the push.
    let in_time = items == 0 || (time.min, time.max) == (meta.time_min, meta.time_max);
    if items != meta.items || !in_time {
        return Err(Error::corrupt(format!(
            "{items} samples in {}..={}, the manifest says {} in {}..={}",
            time.min, time.max, meta.items, meta.time_min, meta.time_max
        )));
    }
    let series = reader.index.series_count();
    if u64::from(series) != meta.groups {
        return Err(Error::corrupt(format!(
            "{series} series, the manifest says {}",
            meta.groups
        )));
    }
    task::background(move || verify_index(&reader)).await?
}

/// Every label pair's postings against the label sets.
fn verify_index(reader: &BlockReader) -> Result<()> {
    let index = &reader.index;
    let mut pairs = 0u64;
    for o in 0..index.series_count() {
        let labels = index.labels(o)?;
        if o > 0 && order::compare(index.labels(o - 1)?.as_ref(), labels.as_ref()).is_ge() {
            return Err(Error::corrupt(format!("series {o} is out of order")));
        }
        for l in labels.iter() {
            pairs += 1;
            let found = index
                .postings(l.name, l.value)
                .map(|p| p.intersects(&trilith_index::Bitmap::of(&[o])));
            if !matches!(found, Some(Ok(true))) {
                return Err(Error::corrupt(format!(
                    "series {o} is missing in the postings of {}",
                    l.name
                )));
            }
        }
    }
    let mut posted = 0u64;
    index.for_each_name(&mut |name, _| {
        index.for_each_value(name, "", &mut |_, p| {
            posted += p.len()?;
            Ok(std::ops::ControlFlow::Continue(()))
        })?;
        Ok(std::ops::ControlFlow::Continue(()))
    })?;
    if pairs != posted {
        return Err(Error::corrupt(format!("{posted} postings for {pairs} labels")));
    }
    Ok(())
}
