//! Runs the shared LogQL corpus as far as the language is there: cases that need more are refused with
//! `Unsupported` and counted, never answered wrongly.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use trilith_logql::{MetricResult, Query, parse, query_metric};
use trilith_model::{ErrorKind, Labels, Limits, LogEntry, SystemClock, TenantId};
use trilith_query::QueryContext;
use trilith_query::vector::Grid;
use trilith_testkit::MemoryEntries;

/// Known differences: cases whose answer is the reference's quirk or that hinge on its lexer.
const PARSE_KNOWN: &[&str] = &[];
const METRIC_KNOWN: &[&str] = &[
    // Four series tie for the second place; which one wins is not defined.
    "metric-0226",
];

fn corpus(file: &str) -> Option<Vec<Value>> {
    let root = std::env::var_os("TRILITH_CORPORA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpora")),
        PathBuf::from,
    );
    let text = std::fs::read_to_string(root.join("logql").join(file)).ok()?;
    Some(
        text.lines()
            .map(|l| serde_json::from_str(l).expect("the corpus is JSON lines"))
            .collect(),
    )
}

fn text<'a>(v: &'a Value, key: &str) -> &'a str {
    v[key].as_str().unwrap_or("")
}

#[test]
fn syntax() {
    let Some(cases) = corpus("parse.jsonl") else {
        eprintln!("skipped: no corpus");
        return;
    };
    let (mut agree, mut unsupported, mut wrong) = (0, 0, Vec::new());
    for c in &cases {
        let valid = c["valid"].as_bool().unwrap_or(false);
        match parse(text(c, "query")) {
            Err(e) if e.kind == ErrorKind::Unsupported => unsupported += 1,
            got => {
                let right = match &got {
                    Ok(Query::Log(_)) => valid && text(c, "type") == "log",
                    Ok(Query::Metric(_)) => valid && text(c, "type") == "metric",
                    Err(_) => !valid,
                };
                if right || PARSE_KNOWN.contains(&text(c, "id")) {
                    agree += 1;
                } else {
                    wrong.push(format!(
                        "{} {:?}: {:?}",
                        text(c, "id"),
                        text(c, "query"),
                        got.err().map(|e| e.message)
                    ));
                }
            }
        }
    }
    eprintln!("{agree} agree, {unsupported} unsupported");
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

fn ns(v: &Value) -> i64 {
    v.as_str()
        .and_then(|s| s.parse().ok())
        .or_else(|| v.as_i64())
        .unwrap_or(0)
}

fn labels(v: &Value) -> Labels {
    let map = v.as_object().into_iter().flatten();
    Labels::from_pairs(map.map(|(k, v)| (k.clone(), v.as_str().unwrap_or("").to_owned())))
}

fn number(s: &str) -> f64 {
    match s {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        s => s.parse().unwrap_or(f64::NAN),
    }
}

fn close(a: f64, b: f64) -> bool {
    (a.is_nan() && b.is_nan()) || a == b || (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

#[tokio::test]
async fn metric_queries() {
    let (Some(cases), Some(datasets)) = (corpus("metric.jsonl"), corpus("datasets.jsonl")) else {
        eprintln!("skipped: no corpus");
        return;
    };
    let tenant = TenantId::anonymous();
    let (mut agree, mut unsupported, mut wrong) = (0, 0, Vec::new());
    for c in &cases {
        let query = match parse(text(c, "query")) {
            Ok(Query::Metric(m)) => m,
            Ok(Query::Log(_)) => panic!("{}: a log query", text(c, "id")),
            Err(e) if e.kind == ErrorKind::Unsupported => {
                unsupported += 1;
                continue;
            }
            Err(e) => {
                if c["error_contains"].is_null() {
                    wrong.push(format!("{} {}: {}", text(c, "id"), text(c, "query"), e.message));
                }
                continue;
            }
        };
        let store = MemoryEntries::new();
        let data = datasets
            .iter()
            .find(|d| d["dataset"] == c["dataset"])
            .expect("the data set exists");
        for s in data["streams"].as_array().into_iter().flatten() {
            let entries = s["entries"].as_array().into_iter().flatten().map(|e| LogEntry {
                ts_ns: ns(&e["ts"]),
                line: text(e, "line").to_owned().into(),
                metadata: labels(&e["metadata"]),
            });
            store.push(&tenant, labels(&s["labels"]), entries);
        }
        let clock = Arc::new(SystemClock);
        let ctx = QueryContext::new(tenant.clone(), Arc::new(Limits::default()), clock, Duration::ZERO);
        let instant = text(c, "kind") == "instant";
        let grid = if instant {
            Grid::instant(ns(&c["time"]))
        } else {
            let step = c["step_s"].as_f64().unwrap_or(1.0);
            Grid::range(ns(&c["start"]), ns(&c["end"]), (step * 1e9) as i64).expect("the corpus has good ranges")
        };
        let got = query_metric(&ctx, &*store, &query, grid, instant).await;
        let problem = match (&got, c["error_contains"].as_str()) {
            (Err(e), Some(want)) => (!e.message.contains(want)).then(|| e.message.clone()),
            (Err(e), None) => Some(e.message.clone()),
            (Ok(_), Some(want)) => Some(format!("must fail with {want}")),
            (Ok(got), None) => compare(got, c),
        };
        match problem {
            Some(_) if METRIC_KNOWN.contains(&text(c, "id")) => {}
            Some(p) => wrong.push(format!("{} {}: {p}", text(c, "id"), text(c, "query"))),
            None => agree += 1,
        }
    }
    eprintln!("{agree} agree, {unsupported} unsupported");
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

fn compare(got: &MetricResult, case: &Value) -> Option<String> {
    let want = &case["result"];
    let series = match got {
        MetricResult::Scalar(_, v) => {
            let w = number(want[1].as_str().unwrap_or(""));
            return (!close(*v, w)).then(|| format!("{v} is not {w}"));
        }
        MetricResult::Series(s) => s,
    };
    let mut rest: Vec<(Labels, Vec<(f64, f64)>)> = want
        .as_array()
        .into_iter()
        .flatten()
        .map(|s| {
            let points = match s["values"].as_array() {
                Some(p) => p.clone(),
                None => vec![s["value"].clone()],
            };
            let points = points
                .iter()
                .map(|p| (p[0].as_f64().unwrap_or(f64::NAN), number(p[1].as_str().unwrap_or(""))))
                .collect();
            (labels(&s["metric"]), points)
        })
        .collect();
    for s in series {
        let same = |(l, p): &(Labels, Vec<(f64, f64)>)| {
            *l == s.labels
                && p.len() == s.points.len()
                && p.iter()
                    .zip(&s.points)
                    .all(|(w, g)| close(w.0, g.0 as f64 / 1e9) && close(w.1, g.1))
        };
        match rest.iter().position(same) {
            Some(i) => drop(rest.remove(i)),
            None => {
                return Some(format!("unexpected {} {:?}; expected {rest:?}", s.labels, s.points));
            }
        }
    }
    (!rest.is_empty()).then(|| format!("missing {rest:?}"))
}
