//! Deleted series: masked at once, dropped by merges, never those that come later.

use proptest::prelude::*;
use trilith_model::{Exemplar, MatchOp, MetricAdmin as _};
use trilith_query::{ExemplarRequest, LabelRequest};

use super::*;

const HOUR: i64 = 3_600_000;

fn named(name: &str) -> Vec<Vec<Matcher>> {
    vec![vec![Matcher::eq("__name__", name)]]
}

async fn push(store: &MetricsStore, series: &[(&str, &[(i64, f64)])]) {
    let answer = store.append(&anonymous(), batch(series)).await.unwrap();
    assert_eq!(answer.rejections, []);
}

async fn delete(store: &MetricsStore, name: &str, min: i64, max: i64) {
    let range = TimeRange::new(min, max);
    store.delete_series(&anonymous(), &named(name), range).await.unwrap();
}

fn names(dump: &[(String, i64, f64)]) -> Vec<(&str, i64)> {
    dump.iter().map(|(n, t, _)| (n.as_str(), *t - T0)).collect()
}

fn tombstones(store: &MetricsStore) -> usize {
    store.shard().blocks().iter().map(|b| b.tombstones.len()).sum()
}

#[tokio::test]
async fn deletes_hold_in_every_place() {
    let world = World::new();
    let store = world.open().await;
    push(&store, &[("a", &[(T0, 1.0), (T0 + 10, 2.0)]), ("b", &[(T0, 3.0)])]).await;
    store.flush().await.unwrap();
    // In the head at the time of the delete.
    push(&store, &[("a", &[(T0 + 20, 4.0)]), ("c", &[(T0 + 20, 5.0)])]).await;
    delete(&store, "a", T0 + 10, T0 + 20).await;
    assert_eq!(names(&dump(&store).await), [("a", 0), ("b", 0), ("c", 20)]);
    // Later samples of deleted times and series stay, in the head and in blocks.
    push(&store, &[("a", &[(T0 + 15, 6.0), (T0 + 20, 7.0)])]).await;
    let want = [("a", 0), ("a", 15), ("a", 20), ("b", 0), ("c", 20)];
    assert_eq!(names(&dump(&store).await), want);
    store.flush().await.unwrap();
    assert_eq!(names(&dump(&store).await), want);
    assert_eq!(tombstones(&store), 2);

    drop(store);
    let store = world.open().await;
    assert_eq!(names(&dump(&store).await), want, "after a restart");
    assert_eq!(tombstones(&store), 2);

    // The merge takes two masked blocks and a younger one that is not.
    world.clock.advance(Duration::from_secs(30 * 86_400));
    assert_eq!(store.compact().await.unwrap(), 1);
    let blocks = store.shard().blocks();
    assert_eq!((blocks.len(), tombstones(&store), blocks[0].meta.items), (1, 0, 5));
    let after = dump(&store).await;
    assert_eq!(names(&after), want, "merged");
    assert!(after.contains(&("a".into(), T0 + 20, 7.0)));
    verify_all(&store).await;
}

#[tokio::test]
async fn labels_and_exemplars_vanish_with_their_series() {
    let world = World::new();
    let store = world.open().await;
    let mut b = MetricBatch::default();
    for (name, job) in [("a", "x"), ("b", "y")] {
        b.samples.push(Sample { ts_ms: T0, value: 1.0 });
        b.exemplars.push(Exemplar {
            labels: Labels::from_pairs([("trace_id", name)]),
            value: 1.0,
            ts_ms: T0,
        });
        b.finish_series(Labels::from_pairs([("__name__", name), ("job", job), (name, "1")]).as_ref());
    }
    store.append(&anonymous(), b).await.unwrap();
    delete(&store, "a", T0 - 5, T0).await;
    let all = LabelRequest {
        matcher_sets: vec![],
        start: i64::MIN,
        end: i64::MAX,
        limit: 0,
    };
    let with = LabelRequest {
        matcher_sets: vec![vec![Matcher::new(MatchOp::Re, "job", ".+").unwrap()]],
        ..all.clone()
    };
    for cleaned in [false, true] {
        if cleaned {
            store.clean_tombstones(&anonymous()).await.unwrap();
            assert_eq!((tombstones(&store), store.shard().blocks()[0].meta.items), (0, 1));
        }
        for request in [&all, &with] {
            let ctx = context();
            assert_eq!(
                store.label_names(&ctx, request.clone()).await.unwrap(),
                ["__name__", "b", "job"]
            );
            assert_eq!(store.label_values(&ctx, "job", request.clone()).await.unwrap(), ["y"]);
            assert_eq!(store.series(&ctx, request.clone()).await.unwrap().len(), 1);
        }
        let request = ExemplarRequest {
            matcher_sets: vec![vec![Matcher::new(MatchOp::Re, "job", ".+").unwrap()]],
            start_ms: i64::MIN,
            end_ms: i64::MAX,
        };
        let found = store.exemplars(&context(), request).await.unwrap();
        assert_eq!(found.len(), 1, "cleaned {cleaned}");
        assert_eq!(found[0].labels.get("__name__"), Some("b"));
    }
}

#[tokio::test]
async fn only_blocks_with_hits_are_masked() {
    let world = World::new();
    let store = world.open().await;
    push(&store, &[("a", &[(T0, 1.0)])]).await;
    store.flush().await.unwrap();
    push(&store, &[("b", &[(T0 + 1, 1.0)])]).await;
    store.flush().await.unwrap();
    delete(&store, "b", i64::MIN, i64::MAX).await;
    delete(&store, "a", T0 + 1, T0 + 1).await;
    delete(&store, "none", i64::MIN, i64::MAX).await;
    assert_eq!(tombstones(&store), 1);
    assert_eq!(names(&dump(&store).await), [("a", 0)]);
    // A block of which nothing is left is gone.
    store.clean_tombstones(&anonymous()).await.unwrap();
    assert_eq!((store.shard().blocks().len(), tombstones(&store)), (1, 0));
    // Other tenants are not concerned.
    let other = TenantId::new("other").unwrap();
    store.delete_series(&other, &named("a"), TimeRange::ALL).await.unwrap();
    assert_eq!(names(&dump(&store).await), [("a", 0)]);
}

#[tokio::test]
async fn a_snapshot_is_a_store_of_its_own() {
    let world = World::new();
    let store = world.open().await;
    push(&store, &[("a", &[(T0, 1.0)]), ("b", &[(T0, 2.0)])]).await;
    delete(&store, "b", T0, T0).await;
    push(&store, &[("c", &[(T0, 3.0)])]).await;
    let part = store.snapshot(&anonymous(), true).await.unwrap();
    let whole = store.snapshot(&anonymous(), false).await.unwrap();
    assert_ne!(part, whole);
    let (time, random) = whole.split_once('-').unwrap();
    assert_eq!((time.len(), random.len()), (16, 16));
    assert!(time.ends_with('Z') && random.bytes().all(|b| b.is_ascii_hexdigit()));
    // What comes later is not in it.
    push(&store, &[("d", &[(T0, 4.0)])]).await;
    store.flush().await.unwrap();
    store.clean_tombstones(&anonymous()).await.unwrap();
    for (name, want) in [(part, vec![("a", 0)]), (whole, vec![("a", 0), ("c", 0)])] {
        let restored = World::new();
        let folder = format!("snapshots/anonymous/{name}");
        for object in world.store.list(&folder).await.unwrap() {
            let bytes = world.store.get(&object.path).await.unwrap().unwrap();
            let path = object.path.strip_prefix(&format!("{folder}/")).unwrap();
            restored.store.upload(path, bytes).await.unwrap();
        }
        let copy = restored.open().await;
        assert_eq!(names(&dump(&copy).await), want);
        verify_all(&copy).await;
        push(&copy, &[("e", &[(T0, 5.0)])]).await;
        drop(copy);
        let copy = restored.open().await;
        assert_eq!(
            dump(&copy).await.len(),
            want.len() + 1,
            "records written after the restore are replayed"
        );
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push(u8, i64, f64),
    Delete(u8, i64, i64),
    Flush,
    Compact,
    Clean,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let time = || 0..8i64;
    prop_oneof![
        6 => (0..3u8, time(), 0..100u8).prop_map(|(n, t, v)| Step::Push(n, t, f64::from(v))),
        3 => (0..4u8, time(), time()).prop_map(|(n, a, b)| Step::Delete(n, a.min(b), a.max(b))),
        2 => Just(Step::Flush),
        1 => Just(Step::Compact),
        1 => Just(Step::Clean),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Any order of pushes, deletes, cuts, merges and restarts shows what a map shows.
    #[test]
    fn deletes_and_pushes_in_any_order(steps in proptest::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let mut store = world.open().await;
            let mut model = std::collections::BTreeMap::new();
            let name = |n: u8| ["a", "b", "c"][n as usize].to_owned();
            for (i, step) in steps.iter().enumerate() {
                match *step {
                    Step::Push(n, t, v) => {
                        let b = batch(&[(&name(n), &[(T0 + t * HOUR, v)])]);
                        // A repeated newest sample with another value is refused.
                        let answer = store.append(&anonymous(), b).await.unwrap();
                        if answer.rejections.is_empty() {
                            model.insert((name(n), T0 + t * HOUR), v);
                        }
                    }
                    Step::Delete(n, min, max) => {
                        let range = TimeRange::new(T0 + min * HOUR, T0 + max * HOUR);
                        let selectors = match n {
                            3 => vec![vec![Matcher::new(MatchOp::Re, "__name__", "a|b").unwrap()]],
                            n => named(&name(n)),
                        };
                        store.delete_series(&anonymous(), &selectors, range).await.unwrap();
                        let hit = |of: &str| if n == 3 { of != "c" } else { of == name(n) };
                        model.retain(|(of, t), _| !(hit(of) && range.contains(*t)));
                    }
                    Step::Flush => store.flush().await.unwrap(),
                    Step::Compact => drop(store.compact().await.unwrap()),
                    Step::Clean => {
                        store.clean_tombstones(&anonymous()).await.unwrap();
                        assert_eq!(tombstones(&store), 0);
                    }
                    Step::Restart => {
                        drop(store);
                        store = world.open().await;
                    }
                }
                let want: Vec<_> = model.iter().map(|((n, t), v)| (n.clone(), *t, *v)).collect();
                assert_eq!(dump(&store).await, want, "after step {i} of {steps:?}");
                let series: std::collections::BTreeSet<_> = model.keys().map(|(n, _)| n.clone()).collect();
                let request = LabelRequest { matcher_sets: vec![], start: i64::MIN, end: i64::MAX, limit: 0 };
                let values = store.label_values(&context(), "__name__", request).await.unwrap();
                assert!(series.iter().all(|s| values.contains(s)), "after step {i}: {values:?} lacks some of {series:?}");
            }
            verify_all(&store).await;
        });
    }
}
