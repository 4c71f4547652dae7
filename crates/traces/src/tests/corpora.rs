//! Real traces, when they are there.

use std::collections::BTreeSet;

use trilith_model::trace::TraceBatch;
use trilith_model::{Limits, TraceId};
use trilith_object::Store;
use trilith_testkit::corpora::{corpus, otlp_json};

use super::{exact, open};

fn files(folder: &std::path::Path, out: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder)
        .expect("readable")
        .map(|e| e.expect("readable").path())
    {
        if entry.is_dir() {
            files(&entry, out);
        } else if entry.extension().is_some_and(|e| e == "json" || e == "jsonl") {
            out.push(entry);
        }
    }
}

fn load() -> Option<Vec<TraceBatch>> {
    let mut paths = Vec::new();
    for folder in [
        "traces/otlp",
        "traces/agpl/tempo-servicegraph",
        "traces/agpl/tempo-block-vparquet5",
    ] {
        files(&corpus(folder)?, &mut paths);
    }
    paths.sort();
    let mut out = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("readable");
        let one = serde_json::from_str::<serde_json::Value>(&text);
        let docs = match one {
            Ok(doc) => vec![doc],
            Err(_) => text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect(),
        };
        out.extend(
            docs.iter()
                .filter(|d| d.get("resourceSpans").is_some())
                .map(otlp_json)
                .filter(|b| b.span_count() > 0),
        );
    }
    Some(out)
}

/// Pushed, cut, merged, read back: every span bit by bit; and the size on disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_traces_come_back() {
    let Some(batches) = load() else { return };
    let dir = tempfile::tempdir().expect("temp dir");
    let node = open(dir.path(), &Store::memory(), Limits::default()).await;
    for (i, batch) in batches.iter().enumerate() {
        node.push(batch.clone()).await;
        if i % 40 == 39 {
            node.traces.flush().await.expect("flush");
        }
    }
    node.traces.flush().await.expect("flush");
    node.verify().await;
    let ids: BTreeSet<TraceId> = batches
        .iter()
        .flat_map(|b| &b.resource_spans)
        .flat_map(|r| &r.scope_spans)
        .flat_map(|s| s.spans.iter().map(|s| s.trace_id))
        .collect();
    assert!(ids.len() > 200, "{} traces", ids.len());
    for id in &ids {
        assert_eq!(exact(&node.trace(*id).await, *id), exact(&batches, *id), "trace {id}");
    }
}
