//! Recent samples of all tenants, in memory: one generation, from a cut to the next.
//!
//! A tenant's index (label sets, postings) stands behind one lock that only a new series takes for writing; samples
//! stand in `SHARDS` locks of many series each, so that queries and pushes rarely meet.
//!
//! Lock order: `tenants`, then a tenant's `index`, then one shard. No two shards at a time. `exemplars` and `metadata` are
//! taken alone.
//!
//! Invariant: a ref that is in the index has its slot in its shard, because both are made under the index' lock.

pub(crate) mod exemplars;
pub(crate) mod pool;
mod rich;
pub(crate) mod series;

use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use hashbrown::{HashMap, HashTable};
use parking_lot::{Mutex, RwLock};
use trilith_index::MemIndex;
use trilith_model::{
    BatchSeriesView, Labels, LabelsRef, Limits, MetricBatch, MetricMetadata, SampleValue, TenantId, TimeRange,
};

use crate::chunk::TimesMemo;
use crate::format::metadata::MetadataSet;
use crate::order;
use crate::samples::{AnySample, Samples};
use exemplars::Exemplars;
use pool::Pool;
use series::Series;

const SHARDS: u32 = 64;

/// Struct, label set, hash table entry and slack of one series, besides its text and samples.
const SERIES_BYTES: usize = std::mem::size_of::<Series>() + 120;

/// Number of a series within one tenant of one head, dense from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HeadSeriesRef(pub(crate) u32);

impl HeadSeriesRef {
    fn shard(self) -> usize {
        (self.0 % SHARDS) as usize
    }

    fn slot(self) -> usize {
        (self.0 / SHARDS) as usize
    }
}

/// One generation of all tenants.
#[derive(Default)]
pub struct MetricsHead {
    tenants: RwLock<HashMap<TenantId, Arc<TenantHead>>>,
    bytes: AtomicU64,
    items: AtomicU64,
}

/// One tenant's part of a head.
pub struct TenantHead {
    index: RwLock<TenantIndex>,
    shards: Vec<Mutex<Shard>>,
    min_ms: AtomicI64,
    max_ms: AtomicI64,
    items: AtomicU64,
    metadata: Mutex<MetadataSet>,
    exemplars: Mutex<Exemplars>,
    /// Series that admitted batches may still create.
    reserved: AtomicU64,
    /// The clock at the last push, ms.
    pushed_ms: AtomicI64,
    hasher: foldhash::fast::RandomState,
    /// See [`TenantHead::ranks`].
    ranks: Mutex<Option<Arc<[u32]>>>,
}

/// Every 64th series, and the memory of their samples.
#[derive(Default)]
struct Shard {
    series: Vec<Series>,
    pool: Pool,
}

/// Label sets by ref and back, and the postings.
#[derive(Default)]
pub(crate) struct TenantIndex {
    /// (hash of the packed labels, ref): the hash saves the look at the labels and the rehash on growth.
    table: HashTable<(u64, u32)>,
    labels: Vec<Labels>,
    pub(crate) postings: MemIndex,
}

impl TenantIndex {
    fn find(&self, hash: u64, labels: LabelsRef<'_>) -> Option<HeadSeriesRef> {
        self.table
            .find(hash, |&(h, r)| {
                h == hash && self.labels[r as usize].as_packed() == labels.as_packed()
            })
            .map(|&(_, r)| HeadSeriesRef(r))
    }

    pub(crate) fn labels(&self, r: HeadSeriesRef) -> &Labels {
        &self.labels[r.0 as usize]
    }

    pub(crate) fn len(&self) -> u32 {
        self.labels.len() as u32
    }
}

impl trilith_block::Head for MetricsHead {
    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn items(&self) -> u64 {
        self.items.load(Ordering::Relaxed)
    }
}

impl MetricsHead {
    pub(crate) fn tenant(&self, tenant: &TenantId) -> Option<Arc<TenantHead>> {
        self.tenants.read().get(tenant).cloned()
    }

    pub(crate) fn tenant_or_new(&self, tenant: &TenantId) -> Arc<TenantHead> {
        if let Some(t) = self.tenant(tenant) {
            return t;
        }
        let mut tenants = self.tenants.write();
        let made = tenants.entry(tenant.clone()).or_insert_with(|| {
            self.bytes.fetch_add(u64::from(SHARDS) * 32 + 1024, Ordering::Relaxed);
            Arc::default()
        });
        made.clone()
    }

    /// Sorted by id.
    pub(crate) fn tenants(&self) -> Vec<(TenantId, Arc<TenantHead>)> {
        let mut all: Vec<_> = self
            .tenants
            .read()
            .iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// Adds a batch; every sample is taken. `refs` are those that [`TenantHead::find_all`] of this very head gave for
    /// the batch, if it was asked.
    pub(crate) fn apply(
        &self,
        tenant: &TenantId,
        batch: &MetricBatch,
        refs: Option<&[Option<HeadSeriesRef>]>,
        now_ms: i64,
    ) {
        let head = self.tenant_or_new(tenant);
        head.pushed_ms.fetch_max(now_ms, Ordering::Relaxed);
        let bytes = head.append(batch, refs);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // Metadata and exemplars count, too: a head that has nothing else must not be thrown away.
        let items = batch.sample_count() + batch.metadata.len() + batch.exemplars.len();
        self.items.fetch_add(items as u64, Ordering::Relaxed);
    }
}

impl Default for TenantHead {
    fn default() -> Self {
        TenantHead {
            index: RwLock::default(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            min_ms: AtomicI64::new(i64::MAX),
            max_ms: AtomicI64::new(i64::MIN),
            items: AtomicU64::new(0),
            metadata: Mutex::default(),
            exemplars: Mutex::new(Exemplars::new(Limits::default().exemplars_max as usize)),
            reserved: AtomicU64::new(0),
            pushed_ms: AtomicI64::new(0),
            hasher: foldhash::fast::RandomState::default(),
            ranks: Mutex::default(),
        }
    }
}

impl TenantHead {
    pub(crate) fn series_count(&self) -> u32 {
        self.index.read().len()
    }

    /// Series that exist or that admitted batches may create.
    pub(crate) fn active_series(&self) -> u64 {
        u64::from(self.series_count()) + self.reserved.load(Ordering::Relaxed)
    }

    /// Books the creation of `n` series until the guard is dropped.
    pub(crate) fn reserve(self: &Arc<Self>, n: u64) -> SeriesReservation {
        self.reserved.fetch_add(n, Ordering::Relaxed);
        SeriesReservation { head: self.clone(), n }
    }

    /// The range of all samples, `EMPTY` without any.
    pub(crate) fn time(&self) -> TimeRange {
        TimeRange::new(self.min_ms.load(Ordering::Relaxed), self.max_ms.load(Ordering::Relaxed))
    }

    /// The instant of the last push by the clock.
    pub(crate) fn last_push(&self) -> TimeRange {
        let at = self.pushed_ms.load(Ordering::Relaxed);
        TimeRange::new(at, at)
    }

    /// Samples, repetitions included.
    pub(crate) fn items(&self) -> u64 {
        self.items.load(Ordering::Relaxed)
    }

    /// The refs of the series of a batch that exist.
    pub(crate) fn find_all(&self, batch: &MetricBatch) -> Vec<Option<HeadSeriesRef>> {
        let index = self.index.read();
        batch
            .series()
            .map(|(labels, _)| index.find(self.hash(labels), labels))
            .collect()
    }

    fn hash(&self, labels: LabelsRef<'_>) -> u64 {
        self.hasher.hash_one(labels.as_packed())
    }

    pub(crate) fn last(&self, r: HeadSeriesRef) -> Option<(i64, SampleValue)> {
        self.shards[r.shard()].lock().series[r.slot()].last()
    }

    /// Runs `f` on the exemplars; pushes with exemplars wait meanwhile.
    pub(crate) fn with_exemplars<R>(&self, f: impl FnOnce(&mut Exemplars) -> R) -> R {
        f(&mut self.exemplars.lock())
    }

    pub(crate) fn knows_metadata(&self, m: &MetricMetadata) -> bool {
        self.metadata.lock().contains(m)
    }

    pub(crate) fn metadata(&self, family: Option<&str>) -> Vec<MetricMetadata> {
        self.metadata.lock().entries(family)
    }

    /// Runs `f` on the index; pushes of new series wait meanwhile.
    pub(crate) fn with_index<R>(&self, f: impl FnOnce(&TenantIndex) -> R) -> R {
        f(&self.index.read())
    }

    /// As [`Series::read`].
    pub(crate) fn read(&self, r: HeadSeriesRef, range: TimeRange, memo: &mut TimesMemo, out: &mut Samples) {
        let shard = self.shards[r.shard()].lock();
        shard.series[r.slot()].read(&shard.pool, range, memo, out);
    }

    /// The place of each ref in the order of series inside a block, as far as it is known; younger series have none.
    /// Worked out anew, when many of the series are wanted, once an eighth of them has none.
    pub(crate) fn ranks(&self, index: &TenantIndex, wanted: u64) -> Option<Arc<[u32]>> {
        let known = self.ranks.lock().clone();
        let have = known.as_ref().map_or(0, |r| r.len());
        let all = index.labels.len();
        if wanted < all as u64 / 8 || have + have / 8 >= all && have > 0 {
            return known;
        }
        let mut order: Vec<u32> = (0..all as u32).collect();
        order.sort_unstable_by(|a, b| {
            order::compare(index.labels[*a as usize].as_ref(), index.labels[*b as usize].as_ref())
        });
        let mut ranks = vec![0u32; all];
        for (rank, r) in (0u32..).zip(order) {
            ranks[r as usize] = rank;
        }
        let ranks: Arc<[u32]> = ranks.into();
        *self.ranks.lock() = Some(ranks.clone());
        Some(ranks)
    }

    /// As [`Series::read_newest`].
    pub(crate) fn read_newest(&self, r: HeadSeriesRef, range: TimeRange, out: &mut Samples) -> bool {
        self.shards[r.shard()].lock().series[r.slot()].read_newest(range, out)
    }

    /// All refs, in the order of series inside a block, with their label sets.
    pub(crate) fn sorted(&self) -> Vec<(Labels, HeadSeriesRef)> {
        let mut all: Vec<(Labels, HeadSeriesRef)> =
            self.with_index(|i| i.labels.iter().cloned().zip((0..).map(HeadSeriesRef)).collect());
        all.sort_unstable_by(|a, b| order::compare(a.0.as_ref(), b.0.as_ref()));
        all
    }

    /// Calls `f` with time ranges that together hold every sample, until it returns false.
    pub(crate) fn for_each_range(&self, mut f: impl FnMut(TimeRange) -> bool) {
        let mut go_on = true;
        for shard in &self.shards {
            let shard = shard.lock();
            for series in &shard.series {
                series.for_each_range(&shard.pool, |r| go_on = go_on && f(r));
                if !go_on {
                    return;
                }
            }
        }
    }

    /// Returns the bytes that the head grew by.
    fn append(&self, batch: &MetricBatch, refs: Option<&[Option<HeadSeriesRef>]>) -> u64 {
        let found;
        let refs = match refs {
            Some(r) => r,
            None => {
                found = self.find_all(batch);
                &found
            }
        };
        debug_assert_eq!(refs.len(), batch.series_count());
        let mut grown = 0usize;
        let mut time = TimeRange::EMPTY;
        for (view, r) in batch.views().zip(refs) {
            if view.samples.is_empty() && view.histograms.is_empty() {
                continue;
            }
            let r = r.unwrap_or_else(|| self.find_or_create(view.labels, &mut grown));
            let shard = &mut *self.shards[r.shard()].lock();
            let before = shard.pool.bytes();
            let series = &mut shard.series[r.slot()];
            if view.starts.is_empty() && view.histograms.is_empty() {
                for &s in view.samples {
                    series.append(&mut shard.pool, s);
                }
            } else {
                for s in samples_of(&view) {
                    series.append_any(&mut shard.pool, s);
                }
            }
            grown += shard.pool.bytes() - before;
            for t in view.samples.iter().map(|s| s.ts_ms) {
                time.extend(t);
            }
            for t in view.histograms.iter().map(|h| h.ts_ms) {
                time.extend(t);
            }
        }
        self.items.fetch_add(batch.sample_count() as u64, Ordering::Relaxed);
        if !time.is_empty() {
            self.min_ms.fetch_min(time.min, Ordering::Relaxed);
            self.max_ms.fetch_max(time.max, Ordering::Relaxed);
        }
        if !batch.exemplars.is_empty() {
            let mut exemplars = self.exemplars.lock();
            for view in batch.views() {
                grown += view
                    .exemplars
                    .iter()
                    .map(|e| exemplars.insert(view.labels, e))
                    .sum::<usize>();
            }
        }
        if !batch.metadata.is_empty() {
            let mut metadata = self.metadata.lock();
            grown += batch.metadata.iter().map(|m| metadata.insert(m)).sum::<usize>();
        }
        grown as u64
    }

    fn find_or_create(&self, labels: LabelsRef<'_>, grown: &mut usize) -> HeadSeriesRef {
        let hash = self.hash(labels);
        let mut index = self.index.write();
        if let Some(r) = index.find(hash, labels) {
            return r;
        }
        let r = HeadSeriesRef(index.len());
        let before = index.postings.bytes();
        index.table.insert_unique(hash, (hash, r.0), |&(h, _)| h);
        index.labels.push(labels.to_owned());
        index.postings.add(r.0, labels);
        *grown += index.postings.bytes() - before + labels.as_packed().len() + SERIES_BYTES;
        let mut shard = self.shards[r.shard()].lock();
        debug_assert_eq!(
            shard.series.len(),
            r.slot(),
            "refs are dense, so the slots of a shard are"
        );
        shard.series.push(Series::default());
        r
    }
}

/// The samples of a series of a batch, floats first.
fn samples_of<'a>(view: &BatchSeriesView<'a>) -> impl Iterator<Item = AnySample> + use<'a> {
    let starts = view.starts.iter().copied().chain(std::iter::repeat(0));
    let floats = view.samples.iter().zip(starts).map(|(s, start_ms)| AnySample {
        ts_ms: s.ts_ms,
        start_ms,
        value: SampleValue::Float(s.value),
    });
    let histograms = view.histograms.iter().map(|h| AnySample {
        ts_ms: h.ts_ms,
        start_ms: h.start_ms,
        value: SampleValue::Histogram(h.histogram.clone()),
    });
    floats.chain(histograms)
}

/// See [`TenantHead::reserve`].
pub(crate) struct SeriesReservation {
    head: Arc<TenantHead>,
    n: u64,
}

impl Drop for SeriesReservation {
    fn drop(&mut self) {
        self.head.reserved.fetch_sub(self.n, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trilith_block::Head as _;
    use trilith_model::Sample;

    fn batch(n: usize, ts: i64) -> MetricBatch {
        let mut b = MetricBatch::default();
        for i in 0..n {
            b.samples.push(Sample {
                ts_ms: ts,
                value: i as f64,
            });
            b.finish_series(Labels::from_pairs([("__name__", "m"), ("i", &i.to_string())]).as_ref());
        }
        b
    }

    #[test]
    fn creates_each_series_once_and_counts_bytes() {
        let head = MetricsHead::default();
        let t = TenantId::anonymous();
        for ts in 0..500 {
            head.apply(&t, &batch(200, ts * 1000), None, 0);
        }
        let tenant = head.tenant(&t).unwrap();
        assert_eq!(tenant.series_count(), 200);
        assert_eq!(head.items(), 100_000);
        assert_eq!((tenant.time().min, tenant.time().max), (0, 499_000));
        let pools: usize = tenant.shards.iter().map(|s| s.lock().pool.bytes()).sum();
        let counted = head.bytes() as usize;
        assert!(
            counted > pools && counted < pools + 200 * 1000,
            "{counted} counted, {pools} in pools"
        );
        let refs = tenant.find_all(&batch(201, 0));
        assert_eq!(refs.iter().filter(|r| r.is_none()).count(), 1);
        let mut out = Samples::default();
        tenant.read(
            refs[7].unwrap(),
            TimeRange::new(1000, 3000),
            &mut TimesMemo::default(),
            &mut out,
        );
        assert_eq!((out.times, out.floats), (vec![1000, 2000, 3000], vec![7.0; 3]));
    }

    #[test]
    fn reservations_count_as_series() {
        let head = MetricsHead::default();
        let tenant = head.tenant_or_new(&TenantId::anonymous());
        let guard = tenant.reserve(5);
        assert_eq!(tenant.active_series(), 5);
        drop(guard);
        assert_eq!(tenant.active_series(), 0);
    }
}
