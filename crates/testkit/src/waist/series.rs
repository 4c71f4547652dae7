//! What every metrics store must do.

mod rich;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use futures::StreamExt as _;
use trilith_model::{ErrorKind, Labels, Matcher, MetricBatch, STALE_NAN_BITS, SampleValue, TenantId};
use trilith_query::{ColumnValues, LabelRequest, QueryContext, SelectHints, SeriesBatch, SeriesRequest, SeriesSource};

pub use rich::{Exact, collect_exact, exact};

use super::{LABEL_SETS, MATCHER_CASES, context, matcher, tenant};
use crate::series::metric_batch;

/// Batches to append in this order.
pub type Data = Vec<(TenantId, MetricBatch)>;

/// A base time far enough from the epoch for engines that cut blocks by hours.
const T0: i64 = 1_700_000_000_000;

/// Runs the whole suite.
///
/// # Panics
/// When the store breaks the contract.
pub async fn run<F, Fut>(make: F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn SeriesSource>>,
{
    matchers(&make).await;
    bounds(&make).await;
    values_are_bit_exact(&make).await;
    shared_times(&make).await;
    many_series_and_late_data(&make).await;
    tenants(&make).await;
    label_calls(&make).await;
    early_drop_and_cancellation(&make).await;
    rich::run(&make).await;
}

/// All samples of a selection, by labels. Checks the batch invariants on the way.
///
/// # Panics
/// When an answer breaks an invariant of `SeriesBatch`.
pub async fn collect(
    source: &dyn SeriesSource,
    ctx: &QueryContext,
    request: SeriesRequest,
) -> BTreeMap<Labels, Vec<(i64, u64)>> {
    let (start, end) = (request.start_ms, request.end_ms);
    let mut out = BTreeMap::new();
    let mut stream = source.select(ctx, request);
    while let Some(batch) = stream.next().await {
        let batch = batch.expect("selection succeeds");
        check_batch(&batch, start, end);
        for (labels, ts, values) in batch.float_columns() {
            let samples = ts.iter().copied().zip(values.iter().map(|v| v.to_bits())).collect();
            let twice = out.insert(labels.clone(), samples);
            assert!(twice.is_none(), "series {labels} came twice");
        }
    }
    out
}

fn check_batch(batch: &SeriesBatch, start: i64, end: i64) {
    for ts in &batch.times {
        assert!(!ts.is_empty(), "empty timestamp vector");
        assert!(
            ts.windows(2).all(|w| w[0] < w[1]),
            "timestamps do not ascend strictly: {ts:?}"
        );
        assert!(
            start <= ts[0] && ts[ts.len() - 1] <= end,
            "timestamps outside of {start}..={end}: {ts:?}"
        );
    }
    assert!(
        batch.columns.windows(2).all(|w| w[0].times_idx <= w[1].times_idx),
        "columns are not ordered by times_idx"
    );
    for c in &batch.columns {
        let len = match batch.values_of(c) {
            ColumnValues::Float(values) => values.len(),
            ColumnValues::Mixed(values) => {
                let histogram = values.iter().any(|v| matches!(v, SampleValue::Histogram(_)));
                assert!(histogram, "mixed column of {} without a histogram", c.labels);
                values.len()
            }
        };
        assert_eq!(batch.times_of(c).len(), len, "values of {}", c.labels);
        if c.starts.is_some() {
            assert_eq!(batch.starts_of(c).len(), len, "starts of {}", c.labels);
        }
    }
}

fn request(matchers: Vec<Matcher>, start_ms: i64, end_ms: i64) -> SeriesRequest {
    SeriesRequest {
        matchers,
        start_ms,
        end_ms,
        hints: SelectHints::default(),
    }
}

fn set(i: usize) -> Labels {
    Labels::from_pairs(LABEL_SETS[i].iter().copied())
}

fn named(name: &str, i: usize) -> Labels {
    Labels::from_pairs([("__name__", name.to_owned()), ("i", i.to_string())])
}

fn bits(samples: &[(i64, f64)]) -> Vec<(i64, u64)> {
    samples.iter().map(|(t, v)| (*t, v.to_bits())).collect()
}

fn all_sets() -> Data {
    let samples = [(T0, 1.0), (T0 + 15_000, 2.0)];
    vec![(
        tenant("t"),
        metric_batch((0..LABEL_SETS.len()).map(|i| (set(i), samples.as_slice()))),
    )]
}

async fn matchers<F, Fut>(make: &F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn SeriesSource>>,
{
    let source = make(all_sets()).await;
    let ctx = context(&tenant("t"));
    for (case, want) in MATCHER_CASES {
        let matchers: Vec<_> = case.iter().map(|(op, n, v)| matcher(*op, n, v)).collect();
        let got = collect(&*source, &ctx, request(matchers, T0, T0 + 60_000)).await;
        let got: Vec<&str> = got.keys().filter_map(|l| l.get("i")).collect();
        let mut got: Vec<usize> = got.iter().filter_map(|i| i.parse().ok()).collect();
        got.sort_unstable();
        assert_eq!(&got, want, "selector {case:?}");
    }
    // No matcher at all selects everything.
    assert_eq!(
        collect(&*source, &ctx, request(vec![], T0, T0 + 60_000)).await.len(),
        LABEL_SETS.len()
    );
}

async fn bounds<F, Fut>(make: &F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn SeriesSource>>,
{
    let samples: Vec<(i64, f64)> = (0..10).map(|i| (T0 + i * 1000, i as f64)).collect();
    let source = make(vec![(tenant("t"), metric_batch([(named("m", 0), samples.as_slice())]))]).await;
    let ctx = context(&tenant("t"));
    let count = async |start: i64, end: i64| {
        let got = collect(&*source, &ctx, request(vec![Matcher::eq("__name__", "m")], start, end)).await;
        got.get(&named("m", 0)).map_or(0, Vec::len)
    };
    assert_eq!(count(T0, T0 + 9000).await, 10, "both bounds are inclusive");
    assert_eq!(count(T0 + 1, T0 + 8999).await, 8, "one millisecond inside");
    assert_eq!(count(T0 + 3000, T0 + 3000).await, 1, "one instant");
    assert_eq!(count(T0 + 3001, T0 + 3999).await, 0, "between two samples");
    assert_eq!(count(T0 + 9001, i64::MAX).await, 0, "after the end");
    assert_eq!(count(i64::MIN, T0 - 1).await, 0, "before the start");
    assert_eq!(count(i64::MIN, i64::MAX).await, 10, "unbounded");
    assert_eq!(count(T0 + 5000, T0).await, 0, "end before start");
}

async fn values_are_bit_exact<F, Fut>(make: &F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn SeriesSource>>,
{
    let values = [
        0.0,
        -0.0,
        1.5,
        f64::MAX,
        f64::MIN_POSITIVE,
        5e-324,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        f64::from_bits(STALE_NAN_BITS),
        f64::from_bits(0x7ff8_0000_0000_0001),
        0.1 + 0.2,
        1e15 + 0.3,
    ];
    let samples: Vec<(i64, f64)> = values
        .iter()
        .enumerate()
        .map(|(i, v)| (T0 + i as i64 * 7919, *v))
        .collect();
    // Times before 1970 and around the epoch are times like others.
    let odd: Vec<(i64, f64)> = [-86_400_000, -1, 0, 1].iter().map(|t| (*t, *t as f64)).collect();
    let source = make(vec![
        (tenant("t"), metric_batch([(named("m", 0), samples.as_slice())])),
        (tenant("t"), metric_batch([(named("odd", 0), odd.as_slice())])),
    ])
    .await;
    let ctx = context(&tenant("t"));
    let got = collect(
        &*source,
        &ctx,
        request(vec![Matcher::eq("__name__", "m")], T0, T0 + 200_000),
    )
    .await;
    assert_eq!(got[&named("m", 0)], bits(&samples));
    let got = collect(
        &*source,
        &ctx,
        request(vec![Matcher::eq("__name__", "odd")], -100_000_000, 100),
    )
    .await;
    assert_eq!(got[&named("odd", 0)], bits(&odd));
}

async fn shared_times<F, Fut>(make: &F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn SeriesSource>>,
{
    // Twenty series scraped together, ten more at other times.
    let a: Vec<(i64, f64)> = (0..50).map(|i| (T0 + i * 15_000, i as f64)).collect();
    let b: Vec<(i64, f64)> = (0..50).map(|i| (T0 + 7 + i * 15_000, i as f64)).collect();
    let source = make(vec![
        (
            tenant("t"),
            metric_batch((0..20).map(|i| (named("m", i), a.as_slice()))),
        ),
        (
            tenant("t"),
            metric_batch((20..30).map(|i| (named("m", i), b.as_slice()))),
        ),
    ])
    .await;
    let ctx = context(&tenant("t"));
    let mut stream = source.select(&ctx, request(vec![Matcher::eq("__name__", "m")], T0, T0 + 900_000));
    let (mut columns, mut vectors) = (0, 0);
    while let Some(batch) = stream.next().await {
        let batch = batch.expect("selection succeeds");
        columns += batch.columns.len();
        vectors += batch.times.len();
        for (i, x) in batch.times.iter().enumerate() {
            assert!(
                batch.times[..i].iter().all(|y| x != y),
                "equal timestamp vectors stand in a batch twice"
            );
        }
    }
    assert_eq!(columns, 30);
    assert!(
        vectors < 30,
        "series scraped together share their timestamps ({vectors} vectors for 30 series)"
    );
}

async fn many_series_and_late_data<F, Fut>(make: &F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn SeriesSource>>,
{
    // Samples of one series come in several batches, with exact duplicates and out of order.
    let mut data = Vec::new();
    let full: Vec<(i64, f64)> = (0..120).map(|i| (T0 + i * 60_000, (i * i) as f64)).collect();
    for part in [&full[0..40], &full[60..100], &full[30..60], &full[100..120]] {
        data.push((tenant("t"), metric_batch((0..300).map(|i| (named("m", i), part)))));
    }
    let source = make(data).await;
    let ctx = context(&tenant("t"));
    let got = collect(
        &*source,
        &ctx,
        request(vec![Matcher::eq("__name__", "m")], T0, T0 + 120 * 60_000),
    )
    .await;
    assert_eq!(got.len(), 300);
    for (labels, samples) in &got {
        assert_eq!(samples, &bits(&full), "series {labels}");
    }
    let got = collect(
        &*source,
        &ctx,
        request(vec![Matcher::eq("i", "17")], T0 + 60_000, T0 + 50 * 60_000),
    )
    .await;
    assert_eq!(got[&named("m", 17)], bits(&full[1..=50]));
}

async fn tenants<F, Fut>(make: &F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn SeriesSource>>,
{
    let source = make(vec![
        (tenant("a"), metric_batch([(named("m", 0), [(T0, 1.0)].as_slice())])),
        (
            tenant("b"),
            metric_batch([
                (named("m", 0), [(T0, 2.0)].as_slice()),
                (named("only_b", 0), [(T0, 3.0)].as_slice()),
            ]),
        ),
    ])
    .await;
    for (id, value, series) in [("a", 1.0, 1), ("b", 2.0, 2)] {
        let ctx = context(&tenant(id));
        let got = collect(&*source, &ctx, request(vec![], T0, T0)).await;
        assert_eq!(got.len(), series, "tenant {id}");
        assert_eq!(got[&named("m", 0)], bits(&[(T0, value)]), "tenant {id}");
        let names = source
            .label_values(&ctx, "__name__", labels_request(vec![], 0))
            .await
            .expect("values");
        assert_eq!(names.len(), series, "tenant {id}");
    }
    let ctx = context(&tenant("c"));
    assert!(collect(&*source, &ctx, request(vec![], T0, T0)).await.is_empty());
    assert!(
        source
            .series(&ctx, labels_request(vec![], 0))
            .await
            .expect("series")
            .is_empty()
    );
    assert!(
        source
            .label_names(&ctx, labels_request(vec![], 0))
            .await
            .expect("names")
            .is_empty()
    );
}

fn labels_request(matcher_sets: Vec<Vec<Matcher>>, limit: usize) -> LabelRequest {
    LabelRequest {
        matcher_sets,
        start: T0 - 60_000,
        end: T0 + 60_000,
        limit,
    }
}

async fn label_calls<F, Fut>(make: &F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn SeriesSource>>,
{
    let source = make(all_sets()).await;
    let ctx = context(&tenant("t"));
    let names = source
        .label_names(&ctx, labels_request(vec![], 0))
        .await
        .expect("names");
    assert_eq!(names, ["__name__", "i", "job", "umlaut", "zone"]);
    let names = source
        .label_names(&ctx, labels_request(vec![], 2))
        .await
        .expect("names");
    assert_eq!(names, ["__name__", "i"], "a limit gives the first in order");
    let web = || vec![Matcher::eq("job", "web")];
    let names = source
        .label_names(&ctx, labels_request(vec![web()], 0))
        .await
        .expect("names");
    assert_eq!(names, ["__name__", "i", "job", "zone"]);

    let values = source
        .label_values(&ctx, "job", labels_request(vec![], 0))
        .await
        .expect("values");
    assert_eq!(values, ["api", "line\nfeed", "web"]);
    let values = source
        .label_values(&ctx, "job", labels_request(vec![], 1))
        .await
        .expect("values");
    assert_eq!(values, ["api"]);
    let values = source
        .label_values(&ctx, "absent", labels_request(vec![], 0))
        .await
        .expect("values");
    assert!(values.is_empty());
    let sets = vec![web(), vec![Matcher::eq("umlaut", "größe")]];
    let values = source
        .label_values(&ctx, "__name__", labels_request(sets.clone(), 0))
        .await
        .expect("values");
    assert_eq!(values, ["m", "o"], "matcher sets are alternatives");

    let mut want = vec![set(3), set(5)];
    want.sort();
    assert_eq!(
        source.series(&ctx, labels_request(sets, 0)).await.expect("series"),
        want
    );
    let mut want: Vec<Labels> = (0..LABEL_SETS.len()).map(set).collect();
    want.sort();
    assert_eq!(
        source.series(&ctx, labels_request(vec![], 0)).await.expect("series"),
        want
    );
    want.truncate(2);
    assert_eq!(
        source.series(&ctx, labels_request(vec![], 2)).await.expect("series"),
        want
    );

    let far = LabelRequest {
        matcher_sets: vec![],
        start: 0,
        end: 1000,
        limit: 0,
    };
    assert!(
        source.series(&ctx, far.clone()).await.expect("series").is_empty(),
        "nothing at the epoch"
    );
    assert!(source.label_names(&ctx, far).await.expect("names").is_empty());
}

async fn early_drop_and_cancellation<F, Fut>(make: &F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn SeriesSource>>,
{
    let samples: Vec<(i64, f64)> = (0..20).map(|i| (T0 + i * 1000, 1.0)).collect();
    let source = make(vec![(
        tenant("t"),
        metric_batch((0..500).map(|i| (named("m", i), samples.as_slice()))),
    )])
    .await;
    let ctx = context(&tenant("t"));
    let all = || request(vec![Matcher::eq("__name__", "m")], T0, T0 + 60_000);
    // Dropped before, after the first batch: the next query is complete.
    drop(source.select(&ctx, all()));
    let mut stream = source.select(&ctx, all());
    assert!(stream.next().await.is_some_and(|b| b.is_ok()));
    drop(stream);
    assert_eq!(collect(&*source, &ctx, all()).await.len(), 500);

    let cancelled = context(&tenant("t"));
    cancelled.cancel.cancel();
    let mut stream = source.select(&cancelled, all());
    let mut last = None;
    while let Some(batch) = stream.next().await {
        if let Err(e) = batch {
            last = Some(e.kind);
            break;
        }
    }
    assert_eq!(
        last,
        Some(ErrorKind::Cancelled),
        "a cancelled query ends with its error"
    );
}
