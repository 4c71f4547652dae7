//! Random pushes, cuts, merges and restarts: the store answers like a map.

use std::collections::BTreeMap;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::*;

type Model = BTreeMap<Labels, BTreeMap<i64, u64>>;

fn labels(i: u32) -> Labels {
    Labels::from_pairs([
        ("__name__", format!("m{}", i % 3)),
        ("instance", format!("h{}", i % 7)),
        ("i", i.to_string()),
    ])
}

/// A push, applied to the model when it is accepted.
async fn push(store: &MetricsStore, model: &mut Model, rng: &mut ChaCha8Rng) {
    let mut batch = MetricBatch::default();
    let base = T0 + rng.random_range(-20i64..20) * 600_000;
    let kind = rng.random_range(0..4);
    let mut taken: Vec<(Labels, i64, u64)> = Vec::new();
    for _ in 0..rng.random_range(1..40) {
        let l = labels(rng.random_range(0..60));
        for k in 0..rng.random_range(1..20) {
            let ts_ms = match kind {
                0 => base + k * 15_000,
                1 => base + rng.random_range(0..4) * 1000,
                _ => base + rng.random_range(-100_000_000..100_000_000),
            };
            // A value that depends on series and time only: then no push is refused, and no order matters.
            let value = match (ts_ms / 7 + l.len() as i64) % 5 {
                0 => f64::from_bits(trilith_model::STALE_NAN_BITS),
                1 => ts_ms as f64 / 1000.0,
                2 => 1.0 / (ts_ms % 1000) as f64,
                _ => (ts_ms % 10) as f64,
            };
            taken.push((l.clone(), ts_ms, value.to_bits()));
            batch.samples.push(Sample { ts_ms, value });
        }
        batch.finish_series(l.as_ref());
    }
    let n = batch.samples.len() as u64;
    let answer = store.append(&anonymous(), batch).await.unwrap();
    assert_eq!((answer.accepted, answer.rejections.len()), (n, 0));
    for (l, t, v) in taken {
        model.entry(l).or_default().insert(t, v);
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
            let got = waist::series::collect(store, &ctx, request).await;
            assert!(ctx.warnings().is_empty(), "{:?}", ctx.warnings());
            let mut want = BTreeMap::new();
            for (l, samples) in model {
                let run: Vec<(i64, u64)> = samples.range(start_ms..=end_ms).map(|(t, v)| (*t, *v)).collect();
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
