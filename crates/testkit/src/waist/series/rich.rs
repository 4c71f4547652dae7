//! Native histograms, start timestamps, exemplars: what a store of them must do.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use futures::StreamExt as _;
use trilith_histogram::{Buckets, CUSTOM_SCHEMA, FloatHistogram, ResetHint, Span};
use trilith_model::{
    Exemplar, HistogramSample, Labels, MatchOp, Matcher, MetricBatch, STALE_NAN_BITS, Sample, SampleValue,
};
use trilith_query::{ColumnValues, ExemplarRequest, QueryContext, SeriesExemplars, SeriesRequest, SeriesSource};

use super::{Data, T0, check_batch, named, request};
use crate::waist::{context, matcher, tenant};

/// A sample as it compares: ms, start ms, and a value by all its bits.
pub type Exact = (i64, i64, Vec<u64>);

pub(super) async fn run<F, Fut>(make: &F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn SeriesSource>>,
{
    histograms_are_exact(make).await;
    mixed_series(make).await;
    start_timestamps(make).await;
    floats_beside_histograms(make).await;
    exemplars(make).await;
}

/// All samples of a selection of either kind, by labels. Checks the batch invariants on the way.
///
/// # Panics
/// When an answer breaks an invariant of `SeriesBatch`.
pub async fn collect_exact(
    source: &dyn SeriesSource,
    ctx: &QueryContext,
    request: SeriesRequest,
) -> BTreeMap<Labels, Vec<Exact>> {
    let (start, end) = (request.start_ms, request.end_ms);
    let mut out = BTreeMap::new();
    let mut stream = source.select(ctx, request);
    while let Some(batch) = stream.next().await {
        let batch = batch.expect("selection succeeds");
        check_batch(&batch, start, end);
        for c in &batch.columns {
            let starts = batch.starts_of(c);
            let samples = batch.times_of(c).iter().enumerate().map(|(i, &ts_ms)| {
                let value = match batch.values_of(c) {
                    ColumnValues::Float(v) => vec![v[i].to_bits()],
                    ColumnValues::Mixed(v) => exact(&v[i]),
                };
                (ts_ms, starts.get(i).copied().unwrap_or(0), value)
            });
            let twice = out.insert(c.labels.clone(), samples.collect::<Vec<Exact>>());
            assert!(twice.is_none(), "series {} came twice", c.labels);
        }
    }
    out
}

/// Everything about a value, bit by bit.
pub fn exact(value: &SampleValue) -> Vec<u64> {
    let h = match value {
        SampleValue::Float(v) => return vec![v.to_bits()],
        SampleValue::Histogram(h) => h,
    };
    let mut out = vec![h.reset_hint as u64, h.schema as u64];
    out.extend([h.zero_threshold, h.zero_count, h.count, h.sum].map(f64::to_bits));
    for side in [&h.positive, &h.negative] {
        out.push(side.spans.len() as u64);
        out.extend(side.spans.iter().flat_map(|s| [s.offset as u64, u64::from(s.length)]));
        out.push(side.counts.len() as u64);
        out.extend(side.counts.iter().map(|c| c.to_bits()));
    }
    match h.custom_bounds.as_deref() {
        None => out.push(u64::MAX),
        Some(bounds) => out.extend(bounds.iter().map(|b| b.to_bits())),
    }
    out
}

fn buckets(spans: &[(i32, u32)], counts: impl IntoIterator<Item = f64>) -> Buckets {
    Buckets {
        spans: spans.iter().map(|&(offset, length)| Span { offset, length }).collect(),
        counts: counts.into_iter().collect(),
    }
}

/// Sample `i` of a histogram that grows, gets buckets, and is reset at times.
fn growing(i: i64) -> SampleValue {
    let width = 4 + (i / 10) as u32 % 5;
    let age = (i % 37) as f64;
    let mut h = FloatHistogram {
        reset_hint: if i % 37 == 0 {
            ResetHint::Reset
        } else {
            ResetHint::NotReset
        },
        schema: 3,
        zero_threshold: 1e-128,
        zero_count: age,
        sum: 0.1 * age,
        positive: buckets(&[(-2, width), (2, 3)], (0..width + 3).map(|b| age * f64::from(b * b))),
        ..FloatHistogram::default()
    };
    h.count = h.zero_count + h.positive.counts.iter().sum::<f64>();
    SampleValue::Histogram(Arc::new(h))
}

fn small(n: f64) -> SampleValue {
    SampleValue::Histogram(Arc::new(FloatHistogram {
        count: n,
        sum: n / 3.0,
        positive: buckets(&[(0, 1)], [n]),
        ..FloatHistogram::default()
    }))
}

/// Histograms that are unlike each other.
fn odd_ones() -> Vec<SampleValue> {
    let bounds: Arc<[f64]> = vec![0.1, 1.0, 2.5].into();
    let custom = |counts: [f64; 4], bounds: &Arc<[f64]>| FloatHistogram {
        schema: CUSTOM_SCHEMA,
        count: counts.iter().sum(),
        sum: 7.0,
        positive: buckets(&[(0, 4)], counts),
        custom_bounds: Some(bounds.clone()),
        ..FloatHistogram::default()
    };
    let all = [
        FloatHistogram::default(),
        custom([1.0, 2.0, 3.0, 4.0], &bounds),
        custom([2.0, 2.0, 3.0, 5.0], &bounds),
        custom([2.0, 2.0, 3.0, 5.0], &vec![0.1, 1.0, 5.0].into()),
        FloatHistogram {
            reset_hint: ResetHint::Gauge,
            schema: 8,
            zero_threshold: 0.5,
            zero_count: 0.25,
            count: 1e300,
            sum: f64::NAN,
            positive: buckets(&[(i32::MIN, 1), (0, 0), (5, 2)], [0.1, 0.2 + 0.1, 1.0 / 3.0]),
            negative: buckets(&[(-7, 2)], [-1.5, -0.0]),
            custom_bounds: None,
        },
        FloatHistogram {
            schema: -4,
            count: 9_007_199_254_740_992.0,
            sum: f64::NEG_INFINITY,
            negative: buckets(&[(0, 2), (i32::MAX, 1)], [9_007_199_254_740_992.0, 0.0, 1.0]),
            ..FloatHistogram::default()
        },
        // An empty one, as clients mark it.
        FloatHistogram {
            positive: buckets(&[(0, 0)], []),
            ..FloatHistogram::default()
        },
    ];
    all.map(|h| SampleValue::Histogram(Arc::new(h))).into()
}

/// (ms, start ms, value)
type Given = (i64, i64, SampleValue);

fn given(samples: &[Given]) -> Vec<Exact> {
    samples.iter().map(|(t, s, v)| (*t, *s, exact(v))).collect()
}

fn push(batch: &mut MetricBatch, labels: &Labels, samples: &[Given]) {
    for (ts_ms, start_ms, value) in samples {
        let (ts_ms, start_ms) = (*ts_ms, *start_ms);
        match value {
            SampleValue::Float(value) => batch.push_started(Sample { ts_ms, value: *value }, start_ms),
            SampleValue::Histogram(h) => batch.histograms.push(HistogramSample {
                ts_ms,
                start_ms,
                histogram: h.clone(),
            }),
        }
    }
    batch.finish_series(labels.as_ref());
}

/// One batch per (first sample, end), each with all series.
fn parts(series: &[(Labels, Vec<Given>)], cuts: &[(usize, usize)]) -> Data {
    let batch_of = |&(from, to): &(usize, usize)| {
        let mut batch = MetricBatch::default();
        for (labels, samples) in series {
            push(
                &mut batch,
                labels,
                &samples[from.min(samples.len())..to.min(samples.len())],
            );
        }
        (tenant("t"), batch)
    };
    cuts.iter().map(batch_of).collect()
}

/// Everything, and a few ranges.
async fn check(source: &dyn SeriesSource, series: &[(Labels, Vec<Given>)]) {
    let ctx = context(&tenant("t"));
    for (from, to) in [
        (i64::MIN, i64::MAX),
        (T0 + 5, T0 + 75_000),
        (T0 + 30_000, T0 + 30_000),
        (T0 + 1, T0 + 2),
    ] {
        let got = collect_exact(source, &ctx, request(vec![], from, to)).await;
        let mut want = BTreeMap::new();
        for (labels, samples) in series {
            let samples: Vec<Given> = samples.iter().filter(|s| from <= s.0 && s.0 <= to).cloned().collect();
            if !samples.is_empty() {
                want.insert(labels.clone(), given(&samples));
            }
        }
        assert_eq!(got, want, "in {from}..={to}");
    }
}

async fn histograms_are_exact<F, Fut>(make: &F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn SeriesSource>>,
{
    let mut series: Vec<(Labels, Vec<Given>)> = (0..10)
        .map(|k| {
            let samples = (0..300).map(|i| (T0 + i * 15_000, 0, growing(i * (k + 1)))).collect();
            (named("h", k as usize), samples)
        })
        .collect();
    let odd = odd_ones().into_iter().enumerate();
    series.push((named("odd", 0), odd.map(|(i, v)| (T0 + i as i64 * 7, 0, v)).collect()));
    let source = make(parts(&series, &[(0, 2), (2, 150), (150, 151), (151, 300)])).await;
    check(&*source, &series).await;
    let source = make(parts(&series, &[(0, 100), (200, 300), (100, 200)])).await;
    check(&*source, &series).await;
}

async fn mixed_series<F, Fut>(make: &F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn SeriesSource>>,
{
    // Floats become histograms, with staleness markers and gaps, and come back; and the other way round.
    let stale = || SampleValue::Float(f64::from_bits(STALE_NAN_BITS));
    let of = |i: i64, k: i64| match (i / 20 + k) % 3 {
        0 => SampleValue::Float(i as f64),
        1 => growing(i),
        _ if i % 20 == 0 => stale(),
        _ if i % 2 == 0 => small(i as f64),
        _ => SampleValue::Float(0.5),
    };
    let series: Vec<(Labels, Vec<Given>)> = (0..3)
        .map(|k| {
            let samples = (0..200).map(|i| (T0 + i * 15_000, 0, of(i, k))).collect();
            (named("m", k as usize), samples)
        })
        .collect();
    let source = make(parts(&series, &[(0, 200)])).await;
    check(&*source, &series).await;
    let source = make(parts(&series, &[(0, 30), (30, 45), (90, 200), (45, 90)])).await;
    check(&*source, &series).await;
}

async fn start_timestamps<F, Fut>(make: &F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn SeriesSource>>,
{
    let float = |i: i64| SampleValue::Float((i * i) as f64);
    let at = |i: i64| T0 + i * 15_000;
    let all = |start: &dyn Fn(i64) -> i64, value: &dyn Fn(i64) -> SampleValue| -> Vec<Given> {
        (0..150).map(|i| (at(i), start(i), value(i))).collect()
    };
    let series = vec![
        (named("constant", 0), all(&|_| T0 - 60_000, &float)),
        (named("delta", 0), all(&|i| at(i - 1), &float)),
        (
            named("later", 0),
            all(&|i| if i < 70 { 0 } else { at(i / 40 * 40) }, &float),
        ),
        (
            named("sometimes", 0),
            all(&|i| if i % 7 == 3 { i64::MIN + i } else { 0 }, &float),
        ),
        (named("histogram", 0), all(&|i| at(i / 37 * 37) - 1, &growing)),
        (named("none", 0), all(&|_| 0, &float)),
    ];
    for cuts in [vec![(0, 150)], vec![(0, 10), (10, 80), (120, 150), (80, 120)]] {
        let source = make(parts(&series, &cuts)).await;
        check(&*source, &series).await;
        let ctx = context(&tenant("t"));
        let mut stream = source.select(&ctx, request(vec![Matcher::eq("__name__", "none")], T0, i64::MAX));
        while let Some(batch) = stream.next().await {
            let batch = batch.expect("selection succeeds");
            assert!(batch.starts.is_empty() && batch.columns.iter().all(|c| c.starts.is_none()));
        }
    }
}

async fn floats_beside_histograms<F, Fut>(make: &F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn SeriesSource>>,
{
    // One scrape has both: the vectors are shared, and each series comes in the form it needs.
    let series: Vec<(Labels, Vec<Given>)> = (0..40)
        .map(|k| {
            let value = |i: i64| {
                if k % 4 == 0 {
                    growing(i)
                } else {
                    SampleValue::Float(i as f64)
                }
            };
            (named("m", k), (0..50).map(|i| (T0 + i * 15_000, 0, value(i))).collect())
        })
        .collect();
    let source = make(parts(&series, &[(0, 50)])).await;
    check(&*source, &series).await;
    let ctx = context(&tenant("t"));
    let mut stream = source.select(&ctx, request(vec![], T0, i64::MAX));
    let (mut columns, mut vectors, mut floats) = (0, 0, 0);
    while let Some(batch) = stream.next().await {
        let batch = batch.expect("selection succeeds");
        columns += batch.columns.len();
        vectors += batch.times.len();
        floats += batch.float_columns().count();
    }
    assert_eq!((columns, floats), (40, 30));
    assert!(vectors < 40, "{vectors} vectors for 40 series of one scrape");
}

fn exemplar(ts_ms: i64, trace: &str) -> Exemplar {
    Exemplar {
        labels: Labels::from_pairs([("trace_id", trace)]),
        value: 0.25,
        ts_ms,
    }
}

async fn exemplars<F, Fut>(make: &F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn SeriesSource>>,
{
    let all: Vec<Exemplar> = (0..20).map(|i| exemplar(T0 + i * 1000, &format!("t{i}"))).collect();
    let mut data = Data::new();
    for (id, part) in [("t", 0..5), ("t", 3..12), ("t", 12..20), ("u", 0..1)] {
        let mut batch = MetricBatch::default();
        for k in 0..3 {
            let sample = (T0 + part.start as i64 * 1000, 0, SampleValue::Float(part.start as f64));
            push(&mut batch, &named("m", k), &[sample]);
            // In an entry of its own, which is how senders do it.
            batch.exemplars.extend_from_slice(&all[part.clone()]);
            batch.finish_series(named("m", k).as_ref());
        }
        data.push((tenant(id), batch));
    }
    let source = make(data).await;
    let ask = async |id: &str, matcher_sets: Vec<Vec<Matcher>>, start_ms: i64, end_ms: i64| {
        let request = ExemplarRequest {
            matcher_sets,
            start_ms,
            end_ms,
        };
        source
            .exemplars(&context(&tenant(id)), request)
            .await
            .expect("exemplars")
    };
    let of = |ks: &[usize], part: std::ops::Range<usize>| -> Vec<SeriesExemplars> {
        let one = |&k: &usize| SeriesExemplars {
            labels: named("m", k),
            exemplars: all[part.clone()].to_vec(),
        };
        ks.iter().map(one).collect()
    };
    let m = || vec![Matcher::eq("__name__", "m")];
    assert_eq!(ask("t", vec![m()], i64::MIN, i64::MAX).await, of(&[0, 1, 2], 0..20));
    assert_eq!(
        ask("t", vec![m()], T0 + 4000, T0 + 12_000).await,
        of(&[0, 1, 2], 4..13),
        "both bounds inclusive"
    );
    let one = vec![Matcher::eq("i", "1"), Matcher::eq("__name__", "m")];
    let two = vec![matcher(MatchOp::Re, "i", "2|3")];
    assert_eq!(
        ask("t", vec![one.clone(), two], T0, i64::MAX).await,
        of(&[1, 2], 0..20),
        "alternatives"
    );
    assert_eq!(ask("t", vec![one], T0 + 19_000, i64::MAX).await, of(&[1], 19..20));
    assert!(ask("t", vec![m()], T0 + 19_001, i64::MAX).await.is_empty());
    assert!(ask("t", vec![m()], T0 + 1000, T0).await.is_empty(), "end before start");
    assert!(
        ask("t", vec![], i64::MIN, i64::MAX).await.is_empty(),
        "no set selects nothing"
    );
    assert!(
        ask("t", vec![vec![Matcher::eq("__name__", "n")]], T0, i64::MAX)
            .await
            .is_empty()
    );
    assert_eq!(ask("u", vec![m()], T0, i64::MAX).await, of(&[0, 1, 2], 0..1));
    assert!(ask("v", vec![m()], T0, i64::MAX).await.is_empty());
}
