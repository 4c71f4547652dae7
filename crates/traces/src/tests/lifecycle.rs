use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use trilith_block::Engine as _;
use trilith_model::trace::{SpanId, TraceBatch, TraceId};
use trilith_model::{Limits, TraceSink as _};
use trilith_object::Store;
use trilith_query::SpanSource;
use trilith_testkit::spans::{arb_trace_batch, kv, service_batch, span, trace_id};
use trilith_testkit::waist;

use super::{Node, exact, open, tenant};
use crate::TracesEngine;
use crate::batch::{Batch, from_payload, to_payload};

#[derive(Clone, Copy, Debug)]
enum Step {
    Push,
    Flush,
    Merge,
    Restart,
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("runtime")
}

async fn check_all(node: &Node, pushed: &[TraceBatch]) {
    let ids: BTreeSet<TraceId> = pushed
        .iter()
        .flat_map(|b| &b.resource_spans)
        .flat_map(|r| &r.scope_spans)
        .flat_map(|s| &s.spans)
        .map(|s| s.trace_id)
        .collect();
    for id in &ids {
        let got = node.trace(*id).await;
        assert_eq!(exact(&got, *id), exact(pushed, *id), "trace {id}");
        // Not only the set: every span once.
        let spans = got.map_or(0, |g| g.span_count());
        assert_eq!(spans, exact(pushed, *id).len(), "trace {id}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_batch_survives_encoding(batch in arb_trace_batch()) {
        let encoded = Batch::encode(&batch).expect("encodes");
        let back = from_payload(&to_payload(&encoded)).expect("decodes");
        prop_assert_eq!(back.as_bytes(), encoded.as_bytes());
        prop_assert_eq!(back.span_count() as usize, batch.span_count());
        let sent = batch.resource_spans.iter().flat_map(|r| r.scope_spans.iter().flat_map(move |s| s.spans.iter().map(move |span| (r, s, span))));
        for (i, (r, s, span)) in (0..).zip(sent) {
            let got = back.span(i).expect("decodes");
            prop_assert!(trilith_query::span_rows::same_span(&got.to_model().expect("decodes"), span));
            let resource = back.resource(got.resource).expect("decodes").to_model().expect("decodes");
            prop_assert!(trilith_query::span_rows::same_resource(&resource, &r.resource));
            let scope = back.scope(got.scope).expect("decodes").to_model().expect("decodes");
            prop_assert!(trilith_query::span_rows::same_scope(&scope, &s.scope));
        }
    }

    #[test]
    fn mutated_payloads_do_no_harm(batch in arb_trace_batch(), at in any::<prop::sample::Index>(), bit in 0..8u8, cut in any::<prop::sample::Index>()) {
        let encoded = Batch::encode(&batch).expect("encodes");
        for bytes in [to_payload(&encoded).to_vec(), encoded.as_bytes().to_vec()] {
            let mut broken = bytes.clone();
            broken[at.index(bytes.len())] ^= 1 << bit;
            crate::fuzzing::payload(&broken);
            crate::fuzzing::body(&broken);
            broken.truncate(cut.index(bytes.len()));
            crate::fuzzing::payload(&broken);
            crate::fuzzing::body(&broken);
        }
        crate::fuzzing::body(encoded.as_bytes());
    }

    #[test]
    fn any_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        crate::fuzzing::payload(&bytes);
        crate::fuzzing::body(&bytes);
        crate::fuzzing::index_sections(&bytes);
        crate::fuzzing::any_value(&bytes);
        crate::fuzzing::contexts_file(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever happens between pushes, every span is there, once and bit by bit.
    #[test]
    fn spans_survive_everything(
        batches in prop::collection::vec(arb_trace_batch(), 1..4),
        steps in prop::collection::vec(prop::sample::select(vec![Step::Push, Step::Push, Step::Flush, Step::Flush, Step::Merge, Step::Restart]), 1..10),
    ) {
        runtime().block_on(async {
            let dir = tempfile::tempdir().expect("temp dir");
            let store = Store::memory();
            let mut node = open(dir.path(), &store, Limits::default()).await;
            let mut pushed = Vec::new();
            for step in steps {
                match step {
                    Step::Push => {
                        // The same batches again and again: duplicates across heads and blocks.
                        let batch = batches[pushed.len() % batches.len()].clone();
                        node.push(batch.clone()).await;
                        pushed.push(batch);
                    }
                    Step::Flush => node.traces.flush().await.expect("flush"),
                    Step::Merge => merge_all(&node).await,
                    Step::Restart => {
                        node.close().await;
                        node = open(dir.path(), &store, Limits::default()).await;
                    }
                }
                check_all(&node, &pushed).await;
            }
            node.verify().await;
            node.close().await;
        });
    }
}

/// Merges all blocks with the engine itself and compares; then lets the planner do what it finds.
async fn merge_all(node: &Node) {
    let blocks = node.traces.shard().blocks();
    if blocks.len() > 1 {
        let scratch = tempfile::tempdir().expect("temp dir");
        let drafts = TracesEngine
            .merge(trilith_block::Merge {
                inputs: blocks.to_vec(),
                level: 1,
                scratch: scratch.path().to_owned(),
                keep_from: None,
            })
            .await
            .expect("merge");
        assert_eq!(drafts.len(), 1);
    }
    node.traces.compact().await.expect("compact");
}

async fn filled(data: waist::spans::Data, flush_each: bool, flush_at_end: bool, merge: bool) -> Arc<dyn SpanSource> {
    let dir = tempfile::tempdir().expect("temp dir");
    let node = open(dir.path(), &Store::memory(), Limits::default()).await;
    for (tenant, batch) in data {
        node.traces.append(&tenant, batch).await.expect("append");
        if flush_each {
            node.traces.flush().await.expect("flush");
        }
    }
    if flush_at_end {
        node.traces.flush().await.expect("flush");
    }
    if merge {
        node.traces.compact().await.expect("compact");
    }
    node.verify().await;
    // The folder must outlive the store; tests leave it to the system's temp cleaner when they panic.
    std::mem::forget(dir);
    node.traces
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_waist_holds_in_the_head() {
    waist::spans::run(|data| filled(data, false, false, false)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_waist_holds_in_one_block() {
    waist::spans::run(|data| filled(data, false, true, false)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_waist_holds_across_blocks() {
    waist::spans::run(|data| filled(data, true, true, false)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_waist_holds_after_a_merge() {
    waist::spans::run(|data| filled(data, true, true, true)).await;
}

/// Many traces: several index pages, row groups of several pages, groups of candidates; fragments everywhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_traces_in_blocks_and_heads() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = Store::memory();
    let node = open(dir.path(), &store, Limits::default()).await;
    let traces = 3000u64;
    for part in 0..3u64 {
        let spans = (0..traces)
            .map(|t| {
                let mut s = span(t, part + 1, part, &format!("op{}", t % 7), t * 1000 + part, 10);
                s.attributes = vec![kv("n", t as i64), kv("url", format!("/item/{t}").as_str())];
                s
            })
            .collect();
        node.push(service_batch("svc", spans)).await;
        if part < 2 {
            node.traces.flush().await.expect("flush");
        }
    }
    let search = async |node: &Node| {
        use trilith_query::{ColumnRef, Intrinsic, Operand, Predicate, PredicateOp, SpanRequest};
        let request = SpanRequest {
            predicates: vec![Predicate {
                column: ColumnRef::Attribute(trilith_query::AttributeScope::Span, "n".into()),
                op: PredicateOp::Lt,
                operand: Operand::Int(100),
            }],
            all: true,
            start_ns: 0,
            end_ns: u64::MAX,
            columns: vec![ColumnRef::Intrinsic(Intrinsic::TraceId)],
            whole_traces: true,
        };
        let batches = trilith_testkit::spans::collect(&*node.traces, &super::ctx(), request).await;
        batches.iter().map(|b| b.num_rows()).sum::<usize>()
    };
    for t in (0..traces).step_by(97) {
        assert_eq!(node.trace(trace_id(t)).await.map(|b| b.span_count()), Some(3));
    }
    assert_eq!(search(&node).await, 300);
    node.traces.flush().await.expect("flush");
    assert_eq!(node.traces.compact().await.expect("compact"), 1);
    assert_eq!(node.traces.shard().blocks().len(), 1);
    node.verify().await;
    for t in (0..traces).step_by(97) {
        assert_eq!(node.trace(trace_id(t)).await.map(|b| b.span_count()), Some(3));
    }
    assert_eq!(search(&node).await, 300);
    assert!(node.trace(trace_id(traces)).await.is_none());
    // More values than the facts keep: they come from the spans.
    let column = trilith_query::ColumnRef::Attribute(trilith_query::AttributeScope::Span, "url".into());
    let urls = node
        .traces
        .attribute_values(&super::ctx(), &column, 0, u64::MAX, 0)
        .await
        .expect("values");
    assert_eq!(urls.len() as u64, traces);
    let block = node.traces.shard().blocks()[0].meta.clone();
    let per_span = block.bytes() as f64 / block.items as f64;
    assert!(per_span < 105.0, "{per_span} bytes per span");
}

/// A merge drops what is older than the retention, and only that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_drops_expired_spans() {
    let dir = tempfile::tempdir().expect("temp dir");
    let node = open(dir.path(), &Store::memory(), Limits::default()).await;
    for part in 0..2 {
        node.push(service_batch(
            "svc",
            vec![
                span(1, 10 + part, 0, "old", 100, 5),
                span(1, 20 + part, 0, "new", 200, 5),
            ],
        ))
        .await;
        node.traces.flush().await.expect("flush");
    }
    let scratch = tempfile::tempdir().expect("temp dir");
    for (keep_from, items) in [(None, Some(4)), (Some(106), Some(2)), (Some(1000), None)] {
        let sub = scratch.path().join(format!("{keep_from:?}"));
        std::fs::create_dir(&sub).expect("temp dir");
        let drafts = TracesEngine
            .merge(trilith_block::Merge {
                inputs: node.traces.shard().blocks().to_vec(),
                level: 1,
                scratch: sub,
                keep_from,
            })
            .await
            .expect("merge");
        assert_eq!(drafts.first().map(|d| d.items), items);
    }
}

/// The client that goes away leaves its record either unlogged or applied.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_push_is_not_lost_between_log_and_head() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = Store::memory();
    let node = open(dir.path(), &store, Limits::default()).await;
    for t in 0..20 {
        let traces = node.traces.clone();
        let push = tokio::spawn(async move {
            let batch = service_batch("svc", vec![span(t, 1, 0, "a", 1, 1)]);
            traces.append(&tenant(), batch).await
        });
        tokio::task::yield_now().await;
        push.abort();
    }
    // What is in the log is in the head once everything settled: a flush waits for all tickets.
    node.traces.flush().await.expect("flush");
    let mut before = Vec::new();
    for t in 0..20 {
        before.push(node.trace(trace_id(t)).await.is_some());
    }
    node.close().await;
    let node = open(dir.path(), &store, Limits::default()).await;
    for t in 0..20 {
        assert_eq!(node.trace(trace_id(t)).await.is_some(), before[t as usize]);
    }
    node.close().await;
}

#[tokio::test]
async fn ids_with_all_bytes_are_told_apart() {
    let dir = tempfile::tempdir().expect("temp dir");
    let node = open(dir.path(), &Store::memory(), Limits::default()).await;
    let ids = [[0u8; 16], [0xff; 16], {
        let mut id = [0u8; 16];
        id[15] = 1;
        id
    }];
    for (n, id) in (1u8..).zip(ids) {
        let mut s = span(0, 1, 0, "x", 1, 1);
        s.trace_id = TraceId(id);
        s.span_id = SpanId([n; 8]);
        node.push(service_batch("svc", vec![s])).await;
    }
    for flushed in [false, true] {
        if flushed {
            node.traces.flush().await.expect("flush");
        }
        for (n, id) in (1u8..).zip(ids) {
            let got = node.trace(TraceId(id)).await.expect("is there");
            assert_eq!(got.resource_spans[0].scope_spans[0].spans[0].span_id, SpanId([n; 8]));
        }
    }
}
