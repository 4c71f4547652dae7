//! Blocks with broken bytes: noticed, reported, left out, never spread.

use std::sync::Arc;

use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::{ObjectStoreExt as _, PutPayload, path::Path};
use trilith_block::Engine as _;
use trilith_model::{ErrorKind, Limits};
use trilith_object::{Store, StoreOptions};
use trilith_query::{ColumnRef, Intrinsic, SpanRequest, SpanSource as _};
use trilith_testkit::spans::{collect, service_batch, span, trace_id};

use super::{ctx, open};
use crate::TracesEngine;
use crate::writer::{INDEX, RESOURCES, SCOPES, SPANS};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_flipped_byte_is_noticed() {
    let dir = tempfile::tempdir().expect("temp dir");
    let backend = Arc::new(InMemory::new());
    let store = Store::new(backend.clone(), StoreOptions::default()).without_cache();
    let node = open(dir.path(), &store, Limits::default()).await;
    let spans = (0..200).map(|t| span(t, 1, 0, "a", t, 1)).collect();
    node.push(service_batch("svc", spans)).await;
    node.traces.flush().await.expect("flush");
    node.push(service_batch("svc", vec![span(1000, 1, 0, "in the head", 1, 1)]))
        .await;
    let block = node.traces.shard().blocks()[0].clone();
    TracesEngine.verify(&block).await.expect("whole before");

    for file in [SPANS, RESOURCES, SCOPES, INDEX] {
        let path = Path::from(block.path(file));
        let whole = backend.get(&path).await.expect("there").bytes().await.expect("there");
        for i in 0..24 {
            let mut broken = whole.to_vec();
            let at = i * (whole.len() - 1) / 23;
            broken[at] ^= 0x10;
            backend
                .put(&path, PutPayload::from_bytes(Bytes::from(broken)))
                .await
                .expect("put");
            // The footer cache of containers knows the block by its id; a block handle of another id does not.
            let mut fresh = block.clone();
            let mut meta = block.meta.as_ref().clone();
            meta.id = ulid::Ulid::from_parts(1 + i as u64, 0);
            fresh.meta = Arc::new(meta);
            let error = TracesEngine.verify(&fresh).await.expect_err("noticed");
            assert_eq!(error.kind, ErrorKind::Corrupt, "{file} byte {at}: {error}");
            let scratch = tempfile::tempdir().expect("temp dir");
            let merged = TracesEngine
                .merge(trilith_block::Merge {
                    inputs: vec![fresh.clone(), fresh],
                    level: 1,
                    scratch: scratch.path().to_owned(),
                    keep_from: None,
                })
                .await;
            if let Ok(drafts) = merged {
                // Only what a merge does not read can be broken then: filter, trace index, gaps.
                assert_eq!((file, drafts[0].items), (INDEX, 200));
            }
        }
        backend.put(&path, PutPayload::from_bytes(whole)).await.expect("put");
    }

    // A query goes on without the block and says so.
    backend
        .delete(&Path::from(block.path(RESOURCES)))
        .await
        .expect("delete");
    let ctx = ctx();
    let got = node
        .traces
        .trace(&ctx, trace_id(1000), 0, u64::MAX)
        .await
        .expect("answers");
    assert_eq!(got.map(|t| t.span_count()), Some(1));
    let request = SpanRequest {
        predicates: Vec::new(),
        all: true,
        start_ns: 0,
        end_ns: u64::MAX,
        columns: vec![ColumnRef::Intrinsic(Intrinsic::Name)],
        whole_traces: true,
    };
    let rows: usize = collect(&*node.traces, &ctx, request)
        .await
        .iter()
        .map(|b| b.num_rows())
        .sum();
    assert_eq!(rows, 1);
    assert!(
        ctx.warnings().iter().any(|w| w.contains("cannot be read")),
        "{:?}",
        ctx.warnings()
    );
}
