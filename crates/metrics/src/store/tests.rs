//! The store over a real log in a folder and an object store in memory.

mod deletes;
mod histograms;
mod limits;
mod model;

use std::sync::Arc;
use std::time::Duration;

use trilith_block::{Engine as _, Shard, ShardOptions};
use trilith_model::rng::Rng;
use trilith_model::{
    Labels, Limits, Matcher, MetricBatch, MetricMetadata, MetricSink as _, MetricType, Sample, StaticLimits, TenantId,
};
use trilith_object::Store;
use trilith_query::{QueryContext, SeriesRequest, SeriesSource};
use trilith_testkit::SimClock;
use trilith_testkit::waist;

use super::*;

const T0: i64 = 1_700_000_000_000;

/// Everything that outlives a process.
pub(super) struct World {
    dir: tempfile::TempDir,
    store: Store,
    clock: Arc<SimClock>,
    limits: Limits,
}

impl World {
    pub(super) fn new() -> Self {
        World {
            dir: tempfile::tempdir().unwrap(),
            store: Store::memory(),
            clock: SimClock::new(T0 * 1_000_000),
            limits: Limits {
                max_sample_future: Duration::ZERO,
                ..Limits::default()
            },
        }
    }

    /// Starts a process: opens, replays.
    pub(super) async fn open(&self) -> MetricsStore {
        let mut options = ShardOptions::defaults(Signal::Metrics, self.dir.path().join("scratch"));
        options.compaction_fan_in_min = 2;
        options.compaction_settle = Duration::ZERO;
        let wal_dir = self.dir.path().join("wal");
        let shard = Shard::open(
            Arc::new(MetricsEngine),
            self.store.clone(),
            self.clock.clone(),
            Arc::new(Rng::seeded(7)),
            Wal::writer_id_of(&wal_dir).unwrap(),
            options,
        )
        .await
        .unwrap();
        let upto = Lsn(shard.wal_upto());
        let (wal, mut replay) = Wal::open(trilith_wal::Options::new(&wal_dir), upto, self.clock.clone()).unwrap();
        let limits = Arc::new(StaticLimits(Arc::new(self.limits.clone())));
        let store = MetricsStore::new(shard, wal, self.clock.clone(), limits, MetricsOptions::default());
        replay.after(Signal::Metrics, upto);
        let mut records = Vec::new();
        replay
            .run(|r| {
                records.push(r);
                Ok(())
            })
            .unwrap();
        for r in records {
            store.replay(r).await.unwrap();
        }
        store
    }
}

pub(super) fn anonymous() -> TenantId {
    TenantId::anonymous()
}

pub(super) fn context() -> QueryContext {
    waist::context(&anonymous())
}

pub(super) fn everything(matchers: Vec<Matcher>) -> SeriesRequest {
    SeriesRequest {
        matchers,
        start_ms: i64::MIN,
        end_ms: i64::MAX,
        hints: Default::default(),
    }
}

pub(super) fn batch(series: &[(&str, &[(i64, f64)])]) -> MetricBatch {
    let mut b = MetricBatch::default();
    for (name, samples) in series {
        b.samples
            .extend(samples.iter().map(|&(ts_ms, value)| Sample { ts_ms, value }));
        b.finish_series(Labels::from_pairs([("__name__", *name)]).as_ref());
    }
    b
}

/// Every sample of the tenant as (metric name, ms, value).
pub(super) async fn dump(store: &MetricsStore) -> Vec<(String, i64, f64)> {
    let all = waist::series::collect(store, &context(), everything(vec![])).await;
    all.iter()
        .flat_map(|(l, s)| {
            s.iter()
                .map(|(t, v)| (l.get("__name__").unwrap_or("").to_owned(), *t, f64::from_bits(*v)))
        })
        .collect()
}

/// Verifies every committed block.
pub(super) async fn verify_all(store: &MetricsStore) {
    for block in store.shard().blocks().iter() {
        MetricsEngine.verify(block).await.unwrap();
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Head,
    Blocks,
    CutBetween,
    Merged,
    Restarted,
}

async fn conformance(place: Place) {
    let worlds = parking_lot::Mutex::new(Vec::new());
    waist::series::run(|data| {
        let world = World::new();
        let worlds = &worlds;
        async move {
            let mut store = world.open().await;
            for (tenant, batch) in data {
                store.append(&tenant, batch).await.unwrap();
                if matches!(place, Place::CutBetween | Place::Merged) {
                    store.flush().await.unwrap();
                }
            }
            match place {
                Place::Blocks => store.flush().await.unwrap(),
                Place::Merged => {
                    world.clock.advance(Duration::from_secs(30 * 86_400));
                    store.compact().await.unwrap();
                    verify_all(&store).await;
                }
                Place::Restarted => {
                    drop(store);
                    store = world.open().await;
                }
                Place::Head | Place::CutBetween => {}
            }
            // The folder lives as long as the store.
            worlds.lock().push(world);
            Arc::new(store) as Arc<dyn SeriesSource>
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_waist_in_the_head() {
    conformance(Place::Head).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_waist_in_blocks() {
    conformance(Place::Blocks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_waist_cut_between_pushes() {
    conformance(Place::CutBetween).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_waist_in_merged_blocks() {
    conformance(Place::Merged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_waist_after_a_restart() {
    conformance(Place::Restarted).await;
}

fn entry(family: &str, help: &str) -> MetricMetadata {
    MetricMetadata {
        family: family.into(),
        kind: MetricType::Counter,
        help: help.into(),
        unit: String::new(),
    }
}

#[tokio::test]
async fn metadata_survives_restart_cut_and_merge() {
    let world = World::new();
    let store = world.open().await;
    let mut b = batch(&[("m", &[(T0, 1.0)])]);
    b.metadata = vec![entry("m", "first"), entry("n", "other")];
    store.append(&anonymous(), b).await.unwrap();
    let want = vec![entry("m", "first"), entry("n", "other")];
    assert_eq!(store.metadata(&context(), None).await.unwrap(), want);

    drop(store);
    let store = world.open().await;
    assert_eq!(store.metadata(&context(), None).await.unwrap(), want, "from the log");

    store.flush().await.unwrap();
    drop(store);
    let store = world.open().await;
    assert_eq!(store.metadata(&context(), None).await.unwrap(), want, "from a block");

    let mut b = batch(&[("m", &[(T0 + 1, 1.0)])]);
    b.metadata = vec![entry("m", "second"), entry("n", "other")];
    store.append(&anonymous(), b).await.unwrap();
    store.flush().await.unwrap();
    world.clock.advance(Duration::from_secs(30 * 86_400));
    assert!(store.compact().await.unwrap() > 0);
    assert_eq!(store.shard().blocks().len(), 1);
    assert_eq!(
        store.metadata(&context(), Some("m")).await.unwrap(),
        [entry("m", "first"), entry("m", "second")],
        "from a merged block"
    );
}

#[tokio::test]
async fn a_push_of_years_makes_few_blocks() {
    let world = World::new();
    let store = world.open().await;
    let samples: Vec<(i64, f64)> = (0..4000).map(|i| (T0 + i * 86_400_000 / 4, i as f64)).collect();
    store.append(&anonymous(), batch(&[("m", &samples)])).await.unwrap();
    store.flush().await.unwrap();
    let blocks = store.shard().blocks().len();
    assert!((2..=32).contains(&blocks), "{blocks} blocks");
    verify_all(&store).await;
    let got: Vec<(i64, f64)> = dump(&store).await.into_iter().map(|(_, t, v)| (t, v)).collect();
    assert_eq!(got, samples);
}

#[tokio::test]
async fn a_very_long_series_takes_several_slots() {
    let world = World::new();
    let store = world.open().await;
    let samples: Vec<(i64, f64)> = (0..150_000).map(|i| (T0 + i * 10, (i % 1000) as f64)).collect();
    for part in samples.chunks(50_000) {
        store
            .append(&anonymous(), batch(&[("a", part), ("b", &[(T0, 1.0)]), ("c", part)]))
            .await
            .unwrap();
    }
    store.flush().await.unwrap();
    verify_all(&store).await;
    let got = dump(&store).await;
    assert_eq!(got.len(), 300_001);
    assert!(
        got.iter()
            .filter(|(n, ..)| n == "c")
            .map(|(_, t, v)| (*t, *v))
            .eq(samples.iter().copied())
    );
}

#[tokio::test]
async fn a_damaged_block_is_left_out_with_a_warning() {
    let world = World::new();
    let store = world.open().await;
    store
        .append(&anonymous(), batch(&[("gone", &[(T0, 1.0)])]))
        .await
        .unwrap();
    store.flush().await.unwrap();
    let block = store.shard().blocks()[0].clone();
    store
        .append(&anonymous(), batch(&[("kept", &[(T0, 2.0)])]))
        .await
        .unwrap();
    store.flush().await.unwrap();

    // Another object under the same name: right length, wrong bytes.
    let path = block.path(&block.meta.files[0].name);
    let size = block.meta.files[0].size as usize;
    world.store.delete(&path).await.unwrap();
    world
        .store
        .upload(&path, bytes::Bytes::from(vec![0x55; size]))
        .await
        .unwrap();
    drop(store);
    let store = world.open().await;
    let ctx = context();
    let got = waist::series::collect(&store, &ctx, everything(vec![])).await;
    assert_eq!(got.len(), 1);
    assert!(
        ctx.warnings().iter().any(|w| w.contains(&block.meta.id.to_string())),
        "{:?}",
        ctx.warnings()
    );
    assert_eq!(
        store.label_values(&context(), "__name__", all_labels()).await.unwrap(),
        ["kept"]
    );
    assert!(store.metadata(&context(), None).await.unwrap().is_empty());
    assert!(MetricsEngine.verify(&block).await.is_err());
}

fn all_labels() -> LabelRequest {
    LabelRequest {
        matcher_sets: vec![],
        start: i64::MIN,
        end: i64::MAX,
        limit: 0,
    }
}

#[tokio::test]
async fn a_dropped_push_is_whole_or_absent() {
    let world = World::new();
    let store = world.open().await;
    for i in 0..20 {
        let store = store.clone();
        let push = tokio::spawn(async move { store.append(&anonymous(), batch(&[("m", &[(T0 + i, 1.0)])])).await });
        tokio::task::yield_now().await;
        push.abort();
        let _ = push.await;
    }
    // What the log has and what the head has must be the same, however the pushes ended.
    store
        .append(&anonymous(), batch(&[("end", &[(T0, 1.0)])]))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let before = dump(&store).await;
    drop(store);
    assert_eq!(dump(&world.open().await).await, before);
}

#[tokio::test]
async fn released_segments_leave_the_log() {
    let world = World::new();
    let store = world.open().await;
    store.append(&anonymous(), batch(&[("m", &[(T0, 1.0)])])).await.unwrap();
    store.flush().await.unwrap();
    drop(store);
    let store = world.open().await;
    assert_eq!(store.stats().replayed_records, 0, "the block has it");
    assert_eq!(dump(&store).await, [("m".to_owned(), T0, 1.0)]);
}
