use std::sync::Arc;
use std::time::Duration;

use trilith_model::{Limits, LogEntry, SystemClock, TenantId};
use trilith_testkit::entries::{MemoryEntries, entry};

use super::*;
use crate::ast::Query;
use crate::parse;

const S: i64 = 1_000_000_000;

fn store() -> Arc<MemoryEntries> {
    let store = MemoryEntries::new();
    let t = TenantId::anonymous();
    // One line per second, every fourth an error, 10 bytes each.
    let lines = (1..=60).map(|i| entry(i * S, format!("{:5} {i:04}", if i % 4 == 0 { "error" } else { "info" })));
    store.push(&t, Labels::from_pairs([("app", "x"), ("pod", "1")]), lines);
    let lines = (1..=30).map(|i| entry(i * 2 * S, "other line"));
    store.push(&t, Labels::from_pairs([("app", "x"), ("pod", "2")]), lines);
    store
}

fn context() -> QueryContext {
    QueryContext::new(
        TenantId::anonymous(),
        Arc::new(Limits::default()),
        Arc::new(SystemClock),
        Duration::ZERO,
    )
}

async fn run(source: &dyn EntrySource, query: &str, grid: Grid, instant: bool) -> Result<MetricResult> {
    let Query::Metric(expr) = parse(query)? else {
        panic!("{query} is a log query")
    };
    query_metric(&context(), source, &expr, grid, instant).await
}

/// Labels and values at one time.
async fn instant(query: &str, at: i64) -> Vec<(String, f64)> {
    match run(&*store(), query, Grid::instant(at), true).await.expect(query) {
        MetricResult::Scalar(_, v) => vec![("scalar".into(), v)],
        MetricResult::Series(s) => s.into_iter().map(|s| (s.labels.to_string(), s.points[0].1)).collect(),
    }
}

fn one(labels: &str, v: f64) -> Vec<(String, f64)> {
    vec![(labels.to_owned(), v)]
}

#[tokio::test]
async fn windows_are_open_at_their_start() {
    let q = r#"count_over_time({pod="1"}[10s])"#;
    assert_eq!(instant(q, 20 * S).await, one(r#"{app="x", pod="1"}"#, 10.0));
    assert_eq!(instant(q, 20 * S - 1).await, one(r#"{app="x", pod="1"}"#, 10.0));
    assert_eq!(instant(q, 5 * S).await, one(r#"{app="x", pod="1"}"#, 5.0));
    assert_eq!(instant(q, 69 * S).await, one(r#"{app="x", pod="1"}"#, 1.0));
    assert_eq!(instant(q, 70 * S).await, []);
    assert_eq!(
        instant(r#"count_over_time({pod="1"}[10s] offset 10s)"#, 30 * S).await,
        one(r#"{app="x", pod="1"}"#, 10.0)
    );
    assert_eq!(instant(r#"count_over_time({pod="1"}[0s])"#, 20 * S).await, []);
}

#[tokio::test]
async fn range_functions_and_filters() {
    let at = 60 * S;
    assert_eq!(
        instant(r#"rate({pod="1"} |= "error" [40s])"#, at).await,
        one(r#"{app="x", pod="1"}"#, 0.25)
    );
    assert_eq!(
        instant(r#"bytes_over_time({pod="2"}[10s])"#, at).await,
        one(r#"{app="x", pod="2"}"#, 50.0)
    );
    assert_eq!(instant(r#"sum(bytes_rate({app="x"}[10s]))"#, at).await, one("{}", 15.0));
    assert_eq!(
        instant(r#"sum by (app) (count_over_time({app="x"} !~ "^info" [1m]))"#, at).await,
        one(r#"{app="x"}"#, 45.0)
    );
    assert_eq!(
        instant(r#"count(count_over_time({app="x"}[1m]))"#, at).await,
        one("{}", 2.0)
    );
    assert_eq!(
        instant(r#"topk(1, count_over_time({app="x"}[1m]))"#, at).await,
        one(r#"{app="x", pod="1"}"#, 60.0)
    );
    let sorted = instant(r#"sort(count_over_time({app="x"}[1m]))"#, at).await;
    assert_eq!(sorted.iter().map(|s| s.1).collect::<Vec<_>>(), [30.0, 60.0]);
}

#[tokio::test]
async fn arithmetic_and_matching() {
    let at = 60 * S;
    assert_eq!(instant("1+1", at).await, one("scalar", 2.0));
    assert_eq!(instant("vector(1)+vector(1)", at).await, one("{}", 2.0));
    assert_eq!(
        instant(r#"sum(count_over_time({app="x"}[1m])) / 9"#, at).await,
        one("{}", 10.0)
    );
    let q = r#"count_over_time({app="x"}[1m]) / on (app) group_left sum by (app) (count_over_time({app="x"}[1m]))"#;
    let got: Vec<f64> = instant(q, at).await.into_iter().map(|s| s.1).collect();
    assert_eq!(got, [60.0 / 90.0, 30.0 / 90.0]);
    assert_eq!(instant(r#"count_over_time({app="x"}[1m]) > 50"#, at).await.len(), 1);
    assert_eq!(
        instant(r#"sum(count_over_time({app="none"}[1m])) or vector(0)"#, at).await,
        one("{}", 0.0)
    );
    let q = r#"sum by (app) (rate({app="x"}[1m])) / on (app) rate({app="x"}[1m])"#;
    let e = run(&*store(), q, Grid::instant(at), true).await.unwrap_err();
    assert!(e.message.contains("many-to-many matching not allowed"), "{e}");
}

#[tokio::test]
async fn metadata_is_part_of_ungrouped_series() {
    let store = MemoryEntries::new();
    let with = |ts, v: &str| LogEntry {
        metadata: Labels::from_pairs([("app", v), ("trace", v)]),
        ..entry(ts, "x")
    };
    store.push(
        &TenantId::anonymous(),
        Labels::from_pairs([("app", "x")]),
        [entry(S, "x"), with(2 * S, "1"), with(3 * S, "2")],
    );
    let count = |q: &'static str| {
        let store = store.clone();
        async move {
            match run(&*store, q, Grid::instant(10 * S), true).await.expect(q) {
                MetricResult::Series(s) => s.iter().map(|s| s.labels.to_string()).collect::<Vec<_>>(),
                MetricResult::Scalar(..) => panic!("a vector"),
            }
        }
    };
    assert_eq!(
        count(r#"count_over_time({app="x"}[1m])"#).await,
        [
            r#"{app="x"}"#,
            r#"{app="x", app_extracted="1", trace="1"}"#,
            r#"{app="x", app_extracted="2", trace="2"}"#
        ]
    );
    assert_eq!(count(r#"sum(count_over_time({app="x"}[1m]))"#).await, ["{}"]);
    assert_eq!(
        count(r#"sum by (trace) (count_over_time({app="x"}[1m]))"#).await.len(),
        3
    );
}

/// Against counting every window by hand, on steps smaller and larger than the range.
#[tokio::test]
async fn range_queries_equal_instant_ones() {
    let store = store();
    for (step, range) in [(S, "10s"), (7 * S, "3s"), (3 * S / 2, "5s"), (13, "1s")] {
        let grid = Grid::range(5 * S, 5 * S + step * 40, step).expect("valid");
        let q = format!(r#"sum by (pod) (bytes_over_time({{app="x"}}[{range}]))"#);
        let MetricResult::Series(all) = run(&*store, &q, grid, false).await.expect("valid") else {
            panic!("a matrix")
        };
        for t in grid.times() {
            let at: Vec<(String, f64)> = all
                .iter()
                .filter_map(|s| s.points.iter().find(|p| p.0 == t).map(|p| (s.labels.to_string(), p.1)))
                .collect();
            assert_eq!(at, instant(&q, t).await, "step {step}, range {range}, t {t}");
        }
    }
}

#[tokio::test]
async fn the_memory_budget_holds() {
    let limits = Limits {
        query_memory_bytes: 10_000,
        ..Limits::default()
    };
    let ctx = QueryContext::new(
        TenantId::anonymous(),
        Arc::new(limits),
        Arc::new(SystemClock),
        Duration::ZERO,
    );
    let Ok(Query::Metric(expr)) = parse(r#"rate({app="x"}[1s])"#) else {
        panic!("valid")
    };
    let grid = Grid::range(0, 100 * S, S / 10).expect("valid");
    let e = query_metric(&ctx, &*store(), &expr, grid, false).await.unwrap_err();
    assert!(e.message.contains("limits.query-memory"), "{e}");
}

fn tagged() -> Arc<MemoryEntries> {
    let store = MemoryEntries::new();
    let t = TenantId::anonymous();
    let lines = (1..=12).map(|i| LogEntry {
        metadata: Labels::from_pairs([("level", if i % 3 == 0 { "error" } else { "info" }), ("app", "hidden")]),
        ..entry(i * S, format!("line {i}"))
    });
    store.push(&t, Labels::from_pairs([("app", "x")]), lines);
    store
}

async fn tagged_instant(query: &str) -> Vec<(String, f64)> {
    match run(&*tagged(), query, Grid::instant(12 * S), true).await.expect(query) {
        MetricResult::Scalar(_, v) => vec![("scalar".into(), v)],
        MetricResult::Series(s) => s.into_iter().map(|s| (s.labels.to_string(), s.points[0].1)).collect(),
    }
}

#[tokio::test]
async fn stages_work_on_stream_labels_and_metadata() {
    let q = r#"sum by (level) (count_over_time({app="x"} | drop __error__ [1m]))"#;
    assert_eq!(
        tagged_instant(q).await,
        [
            (r#"{level="error"}"#.to_owned(), 4.0),
            (r#"{level="info"}"#.to_owned(), 8.0)
        ]
    );
    let q = r#"count_over_time({app="x"} | level="error" [1m])"#;
    assert_eq!(
        tagged_instant(q).await,
        one(r#"{app="x", app_extracted="hidden", level="error"}"#, 4.0)
    );
    let q = r#"sum(count_over_time({app="x"} | level!="error", app_extracted=~"hid.*" [1m]))"#;
    assert_eq!(tagged_instant(q).await, one("{}", 8.0));
    let q = r#"count_over_time({app="x"} | drop level, app_extracted="other" | keep app [1m])"#;
    assert_eq!(tagged_instant(q).await, one(r#"{app="x"}"#, 12.0));
    let q = r#"count_over_time({app="x"} | nothing="" and (level="error" or level="none") [1m])"#;
    assert_eq!(tagged_instant(q).await[0].1, 4.0);
}

#[tokio::test]
async fn absence() {
    let q = r#"absent_over_time({app="none", a=~"b", c="1", c!="2"}[5s])"#;
    assert_eq!(tagged_instant(q).await, one(r#"{app="none"}"#, 1.0));
    assert_eq!(tagged_instant(r#"absent_over_time({app="x"}[5s])"#).await, []);
    let grid = Grid::range(0, 20 * S, 10 * S).unwrap();
    let MetricResult::Series(s) = run(&*tagged(), r#"absent_over_time({app="x"}[5s])"#, grid, false)
        .await
        .unwrap()
    else {
        panic!("a range has series")
    };
    assert_eq!(s[0].points, [(0, 1.0), (20 * S, 1.0)]);
}

#[tokio::test]
async fn long_chains_do_not_overflow_the_stack() {
    let sum = vec!["vector(1)"; 490].join("+");
    assert_eq!(instant(&sum, 0).await, one("{}", 490.0));
    let nested = format!("{}vector(1){}", "sum(".repeat(45), ")".repeat(45));
    assert_eq!(instant(&nested, 0).await, one("{}", 1.0));
    let right = format!("{}vector(1){}", "vector(1)+(".repeat(45), ")".repeat(45));
    assert_eq!(instant(&right, 0).await, one("{}", 46.0));
}
