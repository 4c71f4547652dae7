//! Histograms, start timestamps and exemplars, wherever they are.

use trilith_histogram::{FloatHistogram, Span};
use trilith_model::{Appended, Exemplar, HistogramSample, STALE_NAN_BITS, SampleValue};
use trilith_query::{ColumnValues, SeriesExemplars};

use super::*;
use crate::arb;

/// A histogram of three buckets, distinct by `n`.
fn histogram(n: u32) -> Arc<FloatHistogram> {
    let mut h = FloatHistogram {
        schema: 3,
        zero_threshold: 1e-128,
        zero_count: 1.0,
        sum: f64::from(n) * 0.1,
        ..FloatHistogram::default()
    };
    h.positive.spans = vec![Span { offset: -2, length: 2 }, Span { offset: 3, length: 1 }];
    h.positive.counts = vec![f64::from(n), 2.0, f64::from(n * 3)];
    h.count = 3.0 + f64::from(n * 4);
    Arc::new(h)
}

/// (series, ms, start, a float or the number of a histogram)
type Push<'a> = (&'a str, i64, i64, Result<f64, u32>);

fn mixed(samples: &[Push<'_>]) -> MetricBatch {
    let mut b = MetricBatch::default();
    for &(name, ts_ms, start_ms, value) in samples {
        match value {
            Ok(value) => b.push_started(Sample { ts_ms, value }, start_ms),
            Err(n) => b.histograms.push(HistogramSample {
                ts_ms,
                start_ms,
                histogram: histogram(n),
            }),
        }
        b.finish_series(Labels::from_pairs([("__name__", name)]).as_ref());
    }
    b
}

async fn push(store: &MetricsStore, samples: &[Push<'_>]) -> Appended {
    store.append(&anonymous(), mixed(samples)).await.unwrap()
}

/// Every sample by series name, as [`arb::plain`] puts them.
async fn dump_any(store: &MetricsStore) -> Vec<(String, arb::Plain)> {
    let mut out = Vec::new();
    let batches: Vec<SeriesBatch> = store
        .select(&context(), everything(vec![]))
        .try_collect()
        .await
        .unwrap();
    for b in &batches {
        for c in &b.columns {
            let starts = b.starts_of(c);
            for (i, &ts_ms) in b.times_of(c).iter().enumerate() {
                let value = match b.values_of(c) {
                    ColumnValues::Float(v) => SampleValue::Float(v[i]),
                    ColumnValues::Mixed(v) => v[i].clone(),
                };
                let start_ms = starts.get(i).copied().unwrap_or(0);
                let plain = arb::plain(&crate::samples::AnySample { ts_ms, start_ms, value });
                out.push((c.labels.get("__name__").unwrap_or("").to_owned(), plain));
            }
        }
    }
    out.sort();
    out
}

fn wanted(samples: &[Push<'_>]) -> Vec<(String, arb::Plain)> {
    let mut out: Vec<_> = samples
        .iter()
        .map(|&(name, ts_ms, start_ms, value)| {
            let value = match value {
                Ok(v) => SampleValue::Float(v),
                Err(n) => SampleValue::Histogram(histogram(n)),
            };
            let plain = arb::plain(&crate::samples::AnySample { ts_ms, start_ms, value });
            (name.to_owned(), plain)
        })
        .collect();
    out.sort();
    out
}

#[tokio::test]
async fn a_mixed_series_from_push_to_merge() {
    let world = World::new();
    let mut store = world.open().await;
    let stale = f64::from_bits(STALE_NAN_BITS);
    let samples: &[Push<'_>] = &[
        ("f", T0, 0, Ok(1.0)),
        ("f", T0 + 10, 0, Ok(2.0)),
        ("h", T0, 0, Err(1)),
        ("h", T0 + 10, 0, Err(2)),
        ("m", T0, 0, Ok(5.0)),
        ("m", T0 + 10, T0 - 7, Err(3)),
        ("m", T0 + 20, T0 - 7, Err(4)),
        ("m", T0 + 30, 0, Ok(stale)),
        ("m", T0 + 40, T0 + 35, Ok(1.0)),
        ("s", T0, T0 - 5, Ok(1.0)),
        ("s", T0 + 10, T0 - 5, Ok(3.0)),
    ];
    let answer = push(&store, samples).await;
    assert_eq!(
        (answer.accepted, answer.histograms, answer.rejections.len()),
        (11, 4, 0)
    );
    let want = wanted(samples);
    assert_eq!(dump_any(&store).await, want, "in the head");
    drop(store);
    store = world.open().await;
    assert_eq!(dump_any(&store).await, want, "after a restart");
    store.flush().await.unwrap();
    assert_eq!(dump_any(&store).await, want, "in a block");
    verify_all(&store).await;

    let more: &[Push<'_>] = &[
        ("h", T0 + 10, 0, Ok(7.0)),
        ("h", T0 + 15, 0, Err(9)),
        ("m", T0, 0, Err(8)),
        ("m", T0 + 50, 0, Ok(1.0)),
    ];
    assert_eq!(push(&store, more).await.accepted, 4);
    let mut all: Vec<Push<'_>> = samples.to_vec();
    all.retain(|s| !more.iter().any(|m| (m.0, m.1) == (s.0, s.1)));
    all.extend(more);
    assert_eq!(dump_any(&store).await, wanted(&all), "head over block");
    store.flush().await.unwrap();
    assert_eq!(dump_any(&store).await, wanted(&all), "newer block over older");
    world.clock.advance(Duration::from_secs(30 * 86_400));
    assert!(store.compact().await.unwrap() > 0);
    assert_eq!(dump_any(&store).await, wanted(&all), "in a merged block");
    verify_all(&store).await;
}

#[tokio::test]
async fn repetitions_and_conflicts() {
    let world = World::new();
    let store = world.open().await;
    push(&store, &[("h", T0, 0, Err(1)), ("f", T0, 0, Ok(1.0))]).await;
    let again = push(&store, &[("h", T0, 0, Err(1)), ("f", T0, 5, Ok(1.0))]).await;
    assert_eq!((again.accepted, again.histograms, again.rejections.len()), (2, 1, 0));
    for conflict in [
        ("h", T0, 0, Err(2)),
        ("h", T0, 0, Ok(1.0)),
        ("f", T0, 0, Err(1)),
        ("f", T0, 0, Ok(2.0)),
    ] {
        let answer = push(&store, &[conflict, (conflict.0, T0 - 1, 0, Err(3))]).await;
        assert_eq!((answer.accepted, answer.rejections.len()), (1, 1), "{conflict:?}");
        assert_eq!(answer.rejections[0].reason, "new_value_for_timestamp");
    }
    let mut odd = mixed(&[("x", T0, 0, Err(1)), ("x", T0 + 1, 0, Err(2))]);
    let mut h = FloatHistogram::clone(&odd.histograms[0].histogram);
    h.positive.counts.pop();
    odd.histograms[0].histogram = Arc::new(h);
    let answer = store.append(&anonymous(), odd).await.unwrap();
    assert_eq!((answer.accepted, answer.histograms), (1, 1));
    assert_eq!(answer.rejections[0].reason, "invalid_native_histogram");
    assert_eq!(store.stats().samples, 2 + 2 + 4 + 1);
}

#[tokio::test]
async fn limits_and_memory_count_histograms() {
    let mut world = World::new();
    world.limits.active_series_max = 1;
    world.limits.max_sample_age = Duration::from_secs(60);
    let store = world.open().await;
    let answer = push(&store, &[("a", T0, 0, Err(1)), ("b", T0, 0, Err(1))]).await;
    assert_eq!((answer.accepted, answer.histograms), (1, 1));
    assert_eq!(answer.rejections[0].reason, "per_user_series_limit");
    let answer = push(&store, &[("a", T0 - 60_001, 0, Err(1))]).await;
    assert_eq!((answer.accepted, answer.rejections[0].reason), (0, "sample_too_old"));

    let many: Vec<Push<'_>> = (0..1000).map(|i| ("a", T0 + 1 + i, 0, Err(i as u32))).collect();
    assert_eq!(push(&store, &many).await.accepted, 1000);
    for flushed in [false, true] {
        if flushed {
            store.flush().await.unwrap();
        }
        let limits = Limits {
            query_memory_bytes: 150_000,
            ..Limits::default()
        };
        let ctx = QueryContext::new(anonymous(), Arc::new(limits), world.clock.clone(), Duration::ZERO);
        let got: Result<Vec<SeriesBatch>> = store.select(&ctx, everything(vec![])).try_collect().await;
        let error = got.unwrap_err();
        assert!(error.message.contains("limits.query-memory"), "{}", error.message);
    }
}

fn exemplar(ts_ms: i64, trace: &str) -> Exemplar {
    Exemplar {
        labels: Labels::from_pairs([("trace_id", trace)]),
        value: 0.5,
        ts_ms,
    }
}

fn with_exemplars(name: &str, sample: Option<i64>, exemplars: &[Exemplar]) -> MetricBatch {
    let mut b = MetricBatch::default();
    b.samples.extend(sample.map(|ts_ms| Sample { ts_ms, value: 1.0 }));
    b.exemplars.extend_from_slice(exemplars);
    b.finish_series(Labels::from_pairs([("__name__", name)]).as_ref());
    b
}

async fn exemplars(store: &MetricsStore, matcher: Matcher, start_ms: i64, end_ms: i64) -> Vec<SeriesExemplars> {
    let request = ExemplarRequest {
        matcher_sets: vec![vec![matcher]],
        start_ms,
        end_ms,
    };
    store.exemplars(&context(), request).await.unwrap()
}

#[tokio::test]
async fn exemplars_from_push_to_merge() {
    let world = World::new();
    let mut store = world.open().await;
    let (a, b, c) = (exemplar(T0, "a"), exemplar(T0 + 5, "b"), exemplar(T0 + 9, "c"));
    let late = exemplar(T0 - 1, "late");
    let answer = store
        .append(
            &anonymous(),
            with_exemplars("m", Some(T0), &[a.clone(), b.clone(), b.clone(), late.clone()]),
        )
        .await
        .unwrap();
    assert_eq!((answer.accepted, answer.exemplars, answer.rejections.len()), (1, 3, 0));
    // In an entry of its own, as upstream sends them.
    let alone = with_exemplars("n", None, std::slice::from_ref(&a));
    assert_eq!(store.append(&anonymous(), alone).await.unwrap().exemplars, 1);
    let m = || Matcher::eq("__name__", "m");
    let of = |name: &str, e: &[&Exemplar]| SeriesExemplars {
        labels: Labels::from_pairs([("__name__", name)]),
        exemplars: e.iter().map(|&e| e.clone()).collect(),
    };
    for place in ["head", "restart", "block"] {
        if place == "restart" {
            drop(store);
            store = world.open().await;
        }
        if place == "block" {
            store.flush().await.unwrap();
        }
        let all = exemplars(
            &store,
            Matcher::new(trilith_model::MatchOp::Re, "__name__", ".*").unwrap(),
            0,
            i64::MAX,
        );
        assert_eq!(all.await, [of("m", &[&a, &b]), of("n", &[&a])], "{place}");
        assert_eq!(
            exemplars(&store, m(), T0 + 1, T0 + 5).await,
            [of("m", &[&b])],
            "{place}"
        );
        assert!(exemplars(&store, m(), T0 + 1, T0 + 4).await.is_empty(), "{place}");
    }
    // A head knows nothing of those in blocks, an answer has each once.
    store
        .append(&anonymous(), with_exemplars("m", Some(T0 + 9), &[b.clone(), c.clone()]))
        .await
        .unwrap();
    assert_eq!(exemplars(&store, m(), 0, i64::MAX).await, [of("m", &[&a, &b, &c])]);
    store.flush().await.unwrap();
    world.clock.advance(Duration::from_secs(30 * 86_400));
    assert!(store.compact().await.unwrap() > 0);
    assert_eq!(
        exemplars(&store, m(), 0, i64::MAX).await,
        [of("m", &[&a, &b, &c])],
        "merged"
    );
    verify_all(&store).await;
}

#[tokio::test]
async fn exemplars_are_limited() {
    let mut world = World::new();
    world.limits.exemplars_max = 2;
    let store = world.open().await;
    let all: Vec<Exemplar> = (0..5).map(|i| exemplar(T0 + i, "t")).collect();
    store
        .append(&anonymous(), with_exemplars("m", Some(T0), &all))
        .await
        .unwrap();
    let got = exemplars(&store, Matcher::eq("__name__", "m"), 0, i64::MAX).await;
    assert_eq!(got[0].exemplars, all[3..]);
    drop(store);
    world.limits.exemplars_max = 0;
    let store = world.open().await;
    let answer = store
        .append(&anonymous(), with_exemplars("x", Some(T0), &all))
        .await
        .unwrap();
    assert_eq!((answer.accepted, answer.exemplars), (1, 0));
    assert!(
        exemplars(&store, Matcher::eq("__name__", "x"), 0, i64::MAX)
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn what_comes_without_samples_survives_a_cut() {
    let world = World::new();
    let store = world.open().await;
    let mut b = with_exemplars("m", None, &[exemplar(T0, "a")]);
    b.metadata = vec![entry("m", "help")];
    store.append(&anonymous(), b).await.unwrap();
    for _ in 0..2 {
        store.flush().await.unwrap();
        verify_all(&store).await;
        assert_eq!(store.metadata(&context(), None).await.unwrap(), [entry("m", "help")]);
        assert_eq!(
            exemplars(&store, Matcher::eq("__name__", "m"), 0, i64::MAX).await.len(),
            1
        );
        assert!(dump(&store).await.is_empty());
        let mut b = MetricBatch::default();
        b.metadata = vec![entry("n", "more")];
        store.append(&TenantId::new("other").unwrap(), b.clone()).await.unwrap();
    }
    let mut b = MetricBatch::default();
    b.metadata = vec![entry("n", "more")];
    store.append(&anonymous(), b).await.unwrap();
    store.flush().await.unwrap();
    world.clock.advance(Duration::from_secs(30 * 86_400));
    assert!(store.compact().await.unwrap() > 0);
    verify_all(&store).await;
    let want = [entry("m", "help"), entry("n", "more")];
    assert_eq!(store.metadata(&context(), None).await.unwrap(), want, "merged");
    assert_eq!(
        exemplars(&store, Matcher::eq("__name__", "m"), 0, i64::MAX).await.len(),
        1
    );
}

/// Latencies of a service: 24 to 40 buckets, 50 observations from sample to sample.
fn latencies(series: usize, samples: usize) -> Vec<Vec<Arc<FloatHistogram>>> {
    let mut state = 88_172_645_463_325_252u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut one = |k: usize| {
        let buckets = 24 + k % 17;
        let mut h = FloatHistogram {
            schema: 3,
            ..FloatHistogram::default()
        };
        h.positive.spans = vec![Span {
            offset: -40,
            length: buckets as u32,
        }];
        h.positive.counts = vec![0.0; buckets];
        let mut next = |_| {
            for _ in 0..50 {
                let dice = (0..4).map(|_| random() % buckets as u64).sum::<u64>() / 4;
                h.positive.counts[dice as usize] += 1.0;
                h.count += 1.0;
                h.sum += dice as f64 * 0.01 + (random() >> 11) as f64 / (1u64 << 53) as f64;
            }
            Arc::new(h.clone())
        };
        (0..samples).map(&mut next).collect()
    };
    (0..series).map(&mut one).collect()
}

#[tokio::test]
async fn a_histogram_takes_less_than_a_byte_per_bucket() {
    // More series give the figure of a large head, in which memory that is not yet used does not show.
    let series = std::env::var("TRILITH_HISTOGRAMS").ok().and_then(|n| n.parse().ok());
    let (series, samples) = (series.unwrap_or(20), 480);
    let data = latencies(series, samples);
    let buckets: usize = data.iter().flatten().map(|h| h.positive.counts.len()).sum();
    let world = World::new();
    let store = world.open().await;
    for (i, ts_ms) in (0..samples).map(|i| (i, T0 + i as i64 * 15_000)) {
        let mut b = MetricBatch::default();
        for (k, all) in data.iter().enumerate() {
            b.histograms.push(HistogramSample {
                ts_ms,
                start_ms: T0 - 1,
                histogram: all[i].clone(),
            });
            b.finish_series(Labels::from_pairs([("__name__", "h".to_owned()), ("i", k.to_string())]).as_ref());
        }
        store.append(&anonymous(), b).await.unwrap();
    }
    let all = (series * samples) as f64;
    let per_sample = buckets as f64 / all;
    let head = store.shard().head_stats().active_bytes as f64 / all;
    store.flush().await.unwrap();
    let block = store.shard().blocks().iter().map(|b| b.meta.bytes()).sum::<u64>() as f64 / all;
    eprintln!("{per_sample:.1} buckets per histogram: {head:.1} bytes in a head, {block:.1} in a block");
    assert!(head < per_sample * 5.0, "{head} bytes per sample in a head");
    assert!(block < per_sample, "{block} bytes per sample in a block");
}
