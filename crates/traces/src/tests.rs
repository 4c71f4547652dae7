//! The whole way: push, log, head, cut, block, merge, restart, query.

mod corpora;
mod damage;
mod lifecycle;
mod limits;
mod throughput;

use std::path::Path;
use std::sync::Arc;

use trilith_block::{Shard, ShardOptions};
use trilith_model::rng::Rng;
use trilith_model::trace::{Span, TraceBatch, TraceId};
use trilith_model::{Limits, Signal, StaticLimits, TenantId, TraceSink as _};
use trilith_object::Store;
use trilith_query::{QueryContext, SpanSource as _};
use trilith_testkit::SimClock;
use trilith_wal::{Lsn, Options, Wal};

use crate::{TracesEngine, TracesOptions, TracesStore};

/// A node: opened, and opened again, on the same folder and store.
pub struct Node {
    pub traces: Arc<TracesStore>,
    pub wal: Wal,
}

pub async fn open(dir: &Path, store: &Store, limits: Limits) -> Node {
    let clock = SimClock::new(1_700_000_000_000_000_000);
    let wal_dir = dir.join("wal");
    std::fs::create_dir_all(&wal_dir).expect("temp dir");
    let writer = Wal::writer_id_of(&wal_dir).expect("writer id");
    let options = ShardOptions {
        compaction_fan_in_min: 2,
        ..ShardOptions::defaults(Signal::Traces, dir.join("scratch"))
    };
    let rng = Arc::new(Rng::seeded(7));
    let shard = Shard::open(
        Arc::new(TracesEngine),
        store.clone(),
        clock.clone(),
        rng,
        writer,
        options,
    )
    .await
    .expect("shard opens");
    let (wal, replay) = Wal::open(Options::new(wal_dir), Lsn(shard.wal_upto()), clock).expect("log opens");
    let traces = TracesStore::new(
        shard,
        wal.clone(),
        Arc::new(StaticLimits(Arc::new(limits))),
        TracesOptions::default(),
    );
    let mut records = Vec::new();
    replay
        .run(|r| {
            records.push(r);
            Ok(())
        })
        .expect("replay");
    for r in records {
        traces.replay(r).await.expect("replay");
    }
    Node { traces, wal }
}

impl Node {
    pub async fn close(self) {
        self.wal.close().await.expect("log closes");
    }

    pub async fn push(&self, batch: TraceBatch) {
        let n = batch.span_count() as u64;
        let done = self.traces.append(&tenant(), batch).await.expect("append");
        assert_eq!(done.accepted, n);
        assert!(done.rejections.is_empty());
    }

    pub async fn trace(&self, id: TraceId) -> Option<TraceBatch> {
        self.traces.trace(&ctx(), id, 0, u64::MAX).await.expect("lookup")
    }

    /// Every block is whole.
    pub async fn verify(&self) {
        use trilith_block::Engine as _;
        for block in self.traces.shard().blocks().iter() {
            TracesEngine.verify(block).await.expect("block verifies");
        }
    }
}

pub fn tenant() -> TenantId {
    TenantId::new("t").expect("valid")
}

pub fn ctx() -> QueryContext {
    trilith_testkit::waist::context(&tenant())
}

/// Spans of a trace in a comparable form that sees the bits of floats; exact duplicates once.
pub fn exact<'a>(batches: impl IntoIterator<Item = &'a TraceBatch>, id: TraceId) -> Vec<Vec<u8>> {
    let mut out = std::collections::BTreeSet::new();
    for batch in batches {
        for rs in &batch.resource_spans {
            for ss in &rs.scope_spans {
                for span in ss.spans.iter().filter(|s| s.trace_id == id) {
                    out.insert(one(rs.resource.clone(), ss.scope.clone(), span.clone()));
                }
            }
        }
    }
    out.into_iter().collect()
}

fn one(resource: trilith_model::trace::Resource, scope: trilith_model::trace::Scope, span: Span) -> Vec<u8> {
    use trilith_model::trace::{ResourceSpans, ScopeSpans};
    let batch = TraceBatch {
        resource_spans: vec![ResourceSpans {
            resource,
            scope_spans: vec![ScopeSpans {
                scope,
                spans: vec![span],
            }],
        }],
    };
    crate::batch::Batch::encode(&batch)
        .expect("encodes")
        .as_bytes()
        .to_vec()
}
