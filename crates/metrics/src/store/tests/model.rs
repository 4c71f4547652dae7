//! Random pushes, cuts, merges and restarts: the store answers like a map.

use std::collections::BTreeMap;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use trilith_histogram::{FloatHistogram, Span};
use trilith_model::{HistogramSample, SampleValue};
use trilith_testkit::waist::series::{Exact, collect_exact, exact};

use super::*;

/// By series and ms: start ms and the value, bit by bit.
type Model = BTreeMap<Labels, BTreeMap<i64, (i64, Vec<u64>)>>;

fn labels(i: u32) -> Labels {
    Labels::from_pairs([
        ("__name__", format!("m{}", i % 3)),
        ("instance", format!("h{}", i % 7)),
        ("i", i.to_string()),
    ])
}

/// A value that depends on series and time only: then no push is refused, and no order matters.
fn value(series: u32, ts_ms: i64) -> SampleValue {
    let float = match (ts_ms / 7 + i64::from(series)) % 5 {
        0 => f64::from_bits(trilith_model::STALE_NAN_BITS),
        1 => ts_ms as f64 / 1000.0,
        2 => 1.0 / (ts_ms % 1000) as f64,
        _ => (ts_ms % 10) as f64,
    };
    // A third of the series has histograms, half of those floats between them.
    if !series.is_multiple_of(3) || (series.is_multiple_of(2) && ts_ms % 11 < 5) {
        return SampleValue::Float(float);
    }
    let width = 1 + (ts_ms / 1_000_000) as u32 % 4;
    let mut h = FloatHistogram {
        schema: (series % 9) as i32 - 4,
        sum: float,
        zero_count: (ts_ms % 3) as f64,
        ..FloatHistogram::default()
    };
    h.positive.spans = vec![
        Span {
            offset: -1,
            length: width,
        },
        Span { offset: 2, length: 1 },
    ];
    h.positive.counts = (0..=width).map(|b| (ts_ms % 1000) as f64 * f64::from(b)).collect();
    if ts_ms % 13 == 0 {
        h.positive.counts[0] = float;
    }
    h.count = h.positive.counts.iter().sum();
    SampleValue::Histogram(Arc::new(h))
}

/// Some series have start timestamps, at some times.
fn start(series: u32, ts_ms: i64) -> i64 {
    if series % 4 == 1 && ts_ms % 17 < 12 {
        ts_ms / 100_000 * 100_000
    } else {
        0
    }
}

/// A push, applied to the model when it is accepted.
async fn push(store: &MetricsStore, model: &mut Model, rng: &mut ChaCha8Rng) {
    let mut batch = MetricBatch::default();
    let base = T0 + rng.random_range(-20i64..20) * 600_000;
    let kind = rng.random_range(0..4);
    let mut taken: Vec<(Labels, i64, i64, Vec<u64>)> = Vec::new();
    for _ in 0..rng.random_range(1..40) {
        let series = rng.random_range(0..60);
        let l = labels(series);
        for k in 0..rng.random_range(1..20) {
            let ts_ms = match kind {
                0 => base + k * 15_000,
                1 => base + rng.random_range(0..4) * 1000,
                _ => base + rng.random_range(-100_000_000..100_000_000),
            };
            let (start_ms, value) = (start(series, ts_ms), value(series, ts_ms));
            taken.push((l.clone(), ts_ms, start_ms, exact(&value)));
            match value {
                SampleValue::Float(value) => batch.push_started(Sample { ts_ms, value }, start_ms),
                SampleValue::Histogram(histogram) => batch.histograms.push(HistogramSample {
                    ts_ms,
                    start_ms,
                    histogram,
                }),
            }
        }
        batch.finish_series(l.as_ref());
    }
    let n = batch.sample_count() as u64;
    let answer = store.append(&anonymous(), batch).await.unwrap();
    assert_eq!((answer.accepted, answer.rejections.len()), (n, 0));
    for (l, t, start, v) in taken {
        model.entry(l).or_default().insert(t, (start, v));
    }
}

async fn compare(store: &MetricsStore, model: &Model, rng: &mut ChaCha8Rng) {
    let (a, b) = (
        rng.random_range(-100_000_000i64..100_000_000),
        rng.random_range(-100_000_000i64..100_000_000),
    );
    for (start_ms, end_ms) in [(i64::MIN, i64::MAX), (T0 + a.min(b), T0 + a.max(b)), (T0, T0 + 300_000)] {
        let name = format!("m{}", rng.random_range(0..4));
        for matchers in [vec![], vec![Matcher::eq("__name__", name.as_str())]] {
            let request = SeriesRequest {
                matchers: matchers.clone(),
                start_ms,
                end_ms,
                hints: Default::default(),
            };
            let ctx = context();
            let got = collect_exact(store, &ctx, request).await;
            assert!(ctx.warnings().is_empty(), "{:?}", ctx.warnings());
            let mut want = BTreeMap::new();
            for (l, samples) in model {
                let range = samples.range(start_ms..=end_ms);
                let run: Vec<Exact> = range.map(|(t, (start, v))| (*t, *start, v.clone())).collect();
                if !run.is_empty() && matchers.iter().all(|m| m.matches(l.get(&m.name).unwrap_or(""))) {
                    want.insert(l.clone(), run);
                }
            }
            for (l, w) in &want {
                let g = got.get(l).cloned().unwrap_or_default();
                let missing: Vec<_> = w.iter().filter(|s| !g.contains(s)).collect();
                let extra: Vec<_> = g.iter().filter(|s| !w.contains(s)).collect();
                assert!(
                    missing.is_empty() && extra.is_empty(),
                    "{l}: missing {missing:?}, extra {extra:?}"
                );
            }
            assert_eq!(got.len(), want.len());
        }
    }
    let all = store.series(&context(), all_labels()).await.unwrap();
    assert!(all.iter().eq(model.keys()));
}

async fn run(seed: u64, steps: usize) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let world = World::new();
    let mut store = world.open().await;
    let mut model = Model::new();
    for _ in 0..steps {
        match rng.random_range(0..10) {
            0..6 => push(&store, &mut model, &mut rng).await,
            6 => store.flush().await.unwrap(),
            7 => {
                world.clock.advance(Duration::from_secs(3600));
                store.compact().await.unwrap();
            }
            8 => {
                drop(store);
                store = world.open().await;
            }
            _ => compare(&store, &model, &mut rng).await,
        }
    }
    store.flush().await.unwrap();
    world.clock.advance(Duration::from_secs(60 * 86_400));
    store.compact().await.unwrap();
    verify_all(&store).await;
    compare(&store, &model, &mut rng).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_like_a_map() {
    let seeds = std::env::var("TRILITH_SEEDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(6);
    for seed in 0..seeds {
        eprintln!("seed {seed}");
        run(seed, 40).await;
    }
}
