//! What is refused, and what is said about it.

use super::*;
use trilith_model::{Appended, STALE_NAN_BITS};

async fn push(store: &MetricsStore, series: &[(&str, &[(i64, f64)])]) -> Appended {
    store.append(&anonymous(), batch(series)).await.unwrap()
}

fn reasons(a: &Appended) -> Vec<(&str, ErrorKind, u64)> {
    a.rejections.iter().map(|r| (r.reason, r.kind, r.count)).collect()
}

#[tokio::test]
async fn repetitions_of_the_newest_sample() {
    let world = World::new();
    let store = world.open().await;
    push(&store, &[("m", &[(T0, 1.0)])]).await;
    let again = push(&store, &[("m", &[(T0, 1.0)])]).await;
    assert_eq!((again.accepted, reasons(&again)), (1, vec![]), "a retry is no error");
    let other = push(
        &store,
        &[
            ("m", &[(T0, 2.0), (T0 + 1, 3.0)]),
            ("n", &[(T0, 1.0), (T0, 1.0), (T0, 2.0)]),
        ],
    )
    .await;
    assert_eq!(other.accepted, 3);
    assert_eq!(reasons(&other), [("new_value_for_timestamp", ErrorKind::Invalid, 2)]);
    assert!(
        other.rejections[0].message.contains("duplicate sample for timestamp"),
        "{}",
        other.rejections[0].message
    );
    assert!(other.rejections[0].message.contains("__name__=\"m\""));
    let want = [
        ("m".to_owned(), T0, 1.0),
        ("m".to_owned(), T0 + 1, 3.0),
        ("n".to_owned(), T0, 1.0),
    ];
    assert_eq!(dump(&store).await, want);
    drop(store);
    assert_eq!(dump(&world.open().await).await, want);
}

#[tokio::test]
async fn equal_bits_are_equal_values() {
    let world = World::new();
    let store = world.open().await;
    let stale = f64::from_bits(STALE_NAN_BITS);
    push(&store, &[("m", &[(T0, stale)])]).await;
    assert_eq!(push(&store, &[("m", &[(T0, stale)])]).await.accepted, 1);
    assert_eq!(push(&store, &[("m", &[(T0, f64::NAN)])]).await.accepted, 0);
}

#[tokio::test]
async fn of_late_values_the_last_one_written_stays() {
    let world = World::new();
    let store = world.open().await;
    push(&store, &[("m", &[(T0, 1.0), (T0 + 10, 1.0)])]).await;
    push(&store, &[("m", &[(T0, 2.0)])]).await;
    assert_eq!(dump(&store).await[0].2, 2.0, "within a head");
    store.flush().await.unwrap();
    assert_eq!(dump(&store).await[0].2, 2.0);
    push(&store, &[("m", &[(T0, 3.0)])]).await;
    assert_eq!(dump(&store).await[0].2, 3.0, "head over block");
    store.flush().await.unwrap();
    assert_eq!(dump(&store).await[0].2, 3.0, "newer block over older");
    world.clock.advance(Duration::from_secs(30 * 86_400));
    store.compact().await.unwrap();
    assert_eq!(store.shard().blocks().len(), 1);
    assert_eq!(
        dump(&store).await,
        [("m".to_owned(), T0, 3.0), ("m".to_owned(), T0 + 10, 1.0)]
    );
    push(&store, &[("m", &[(T0, 4.0)])]).await;
    store.flush().await.unwrap();
    assert_eq!(dump(&store).await[0].2, 4.0, "newer block over merged one");
    verify_all(&store).await;
}

#[tokio::test]
async fn ages() {
    let mut world = World::new();
    world.limits.max_sample_age = Duration::from_secs(60);
    world.limits.max_sample_future = Duration::from_secs(10);
    let store = world.open().await;
    let a = push(
        &store,
        &[(
            "m",
            &[
                (T0 - 60_001, 1.0),
                (T0 - 60_000, 2.0),
                (T0, 3.0),
                (T0 + 10_000, 4.0),
                (T0 + 10_001, 5.0),
            ],
        )],
    )
    .await;
    assert_eq!(a.accepted, 3);
    assert_eq!(
        reasons(&a),
        [
            ("sample_too_old", ErrorKind::Invalid, 1),
            ("too_far_in_future", ErrorKind::Invalid, 1)
        ]
    );
    assert!(a.rejections[0].message.contains("limits.max-sample-age"));
    assert!(a.rejections[1].message.contains("limits.max-sample-future"));
    assert_eq!(dump(&store).await.len(), 3);
    let none = push(&store, &[("x", &[(0, 1.0)])]).await;
    assert_eq!(none.accepted, 0);
    assert_eq!(
        store.label_values(&context(), "__name__", all_labels()).await.unwrap(),
        ["m"]
    );
    assert_eq!((store.stats().samples, store.stats().rejected_samples), (3, 3));
}

#[tokio::test]
async fn active_series() {
    let mut world = World::new();
    world.limits.active_series_max = 2;
    let store = world.open().await;
    let a = push(
        &store,
        &[
            ("a", &[(T0, 1.0)]),
            ("b", &[(T0, 1.0)]),
            ("c", &[(T0, 1.0), (T0 + 1, 1.0)]),
        ],
    )
    .await;
    assert_eq!(a.accepted, 2);
    assert_eq!(reasons(&a), [("per_user_series_limit", ErrorKind::LimitExceeded, 2)]);
    assert!(a.rejections[0].message.contains("limits.active-series"));
    // Series that exist go on.
    let a = push(&store, &[("c", &[(T0, 1.0)]), ("b", &[(T0 + 1, 1.0)])]).await;
    assert_eq!((a.accepted, a.rejections[0].count), (1, 2 - 1));
    // A cut empties the head.
    store.flush().await.unwrap();
    assert_eq!(push(&store, &[("c", &[(T0, 1.0)])]).await.accepted, 1);
    assert_eq!(store.stats().active_series, 1);
}

#[tokio::test]
async fn queries_are_bounded() {
    let world = World::new();
    let store = world.open().await;
    let samples: Vec<(i64, f64)> = (0..100).map(|i| (T0 + i, 1.0)).collect();
    push(&store, &[("a", &samples), ("b", &samples), ("c", &samples)]).await;
    for flushed in [false, true] {
        if flushed {
            store.flush().await.unwrap();
        }
        for (limits, setting) in [
            (
                Limits {
                    query_series_max: 2,
                    ..Limits::default()
                },
                "limits.query-series",
            ),
            (
                Limits {
                    query_memory_bytes: 1000,
                    ..Limits::default()
                },
                "limits.query-memory",
            ),
        ] {
            let ctx = QueryContext::new(anonymous(), Arc::new(limits), world.clock.clone(), Duration::ZERO);
            let result: Result<Vec<SeriesBatch>> = store.select(&ctx, everything(vec![])).try_collect().await;
            let error = result.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Execution);
            assert!(error.message.contains(setting), "{}", error.message);
        }
        let limits = Limits {
            query_series_max: 3,
            ..Limits::default()
        };
        let ctx = QueryContext::new(anonymous(), Arc::new(limits), world.clock.clone(), Duration::ZERO);
        let batches: Vec<SeriesBatch> = store.select(&ctx, everything(vec![])).try_collect().await.unwrap();
        assert_eq!(
            batches.iter().map(|b| b.times.len()).sum::<usize>(),
            1,
            "one vector for all"
        );
        let ctx = QueryContext::new(
            anonymous(),
            Arc::new(Limits {
                query_series_max: 2,
                ..Limits::default()
            }),
            world.clock.clone(),
            Duration::ZERO,
        );
        assert!(store.series(&ctx, all_labels()).await.is_err());
    }
}
