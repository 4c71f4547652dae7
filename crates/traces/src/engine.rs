//! The engine as the block layer sees it: head, cut, merge, verify.

use async_trait::async_trait;
use hashbrown::HashMap;
use trilith_block::{BlockDraft, BlockHandle, Engine, Merge};
use trilith_model::{Result, Signal, TenantId};

use crate::contexts::Contexts;
use crate::head::{TenantHead, TracesHead};
use crate::rows::SpanRows;
use crate::writer::BlockWriter;
use crate::{merge, verify};

#[derive(Debug, Default)]
pub struct TracesEngine;

#[async_trait]
impl Engine for TracesEngine {
    type Head = TracesHead;

    fn signal(&self) -> Signal {
        Signal::Traces
    }

    fn new_head(&self) -> TracesHead {
        TracesHead::default()
    }

    fn cut(&self, head: &TracesHead) -> Result<Vec<BlockDraft>> {
        head.tenants()
            .into_iter()
            .map(|(tenant, head)| cut_tenant(tenant, &head))
            .collect()
    }

    async fn merge(&self, job: Merge) -> Result<Vec<BlockDraft>> {
        merge::merge(job).await
    }

    async fn verify(&self, block: &BlockHandle) -> Result<()> {
        verify::verify(block).await
    }
}

fn cut_tenant(tenant: TenantId, head: &TenantHead) -> Result<BlockDraft> {
    let mut contexts = Contexts::default();
    // (batch, index within it) → id in the block
    let mut resource_ids: HashMap<(u32, u32), u32, foldhash::fast::RandomState> = HashMap::default();
    let mut scope_ids: HashMap<(u32, u32), u32, foldhash::fast::RandomState> = HashMap::default();
    let mut rows = SpanRows::default();
    let mut writer = BlockWriter::new(0, None)?;
    head.for_each_sorted(|b, batch, span| {
        let resource = match resource_ids.get(&(b, span.resource)) {
            Some(id) => *id,
            None => {
                let id = contexts.resource(batch.resource(span.resource)?.to_model()?)?;
                resource_ids.insert((b, span.resource), id);
                id
            }
        };
        let scope = match scope_ids.get(&(b, span.scope)) {
            Some(id) => *id,
            None => {
                let id = contexts.scope(batch.scope(span.scope)?.to_model()?)?;
                scope_ids.insert((b, span.scope), id);
                id
            }
        };
        rows.push(span, resource, scope, contexts.service(resource))?;
        if rows.is_full() {
            writer.write(&rows.finish()?)?;
        }
        Ok(())
    })?;
    if !rows.is_empty() {
        writer.write(&rows.finish()?)?;
    }
    // A frozen head does not change any more.
    let facts = head.with_facts(Clone::clone);
    writer.finish(tenant, &contexts, &facts)
}
