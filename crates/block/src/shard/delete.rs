//! Deletion: masked at once by a tombstone in the manifest, dropped for good by the next merge of the blocks concerned.
//!
//! A delete cuts the head first, so that everything older stands in blocks, and then commits a tombstone that names
//! these blocks. A merge of blocks that were masked after it began loses its race for the manifest and is planned anew:
//! otherwise it would bring the deleted records back under a new id. A crash before the tombstone's delta leaves
//! nothing deleted and nothing acknowledged.

use std::collections::BTreeSet;
use std::sync::Arc;

use trilith_model::{Error, ErrorKind, Result, TenantId, TimeRange};
use ulid::Ulid;

use super::Shard;
use crate::compact::planner::Job;
use crate::crash;
use crate::engine::Engine;
use crate::manifest::{Change, CommitError, Tombstone};
use crate::meta::BlockMeta;

/// Tombstones of one tenant at a time. Each one costs every query of a masked block a look.
const TOMBSTONES_MAX: usize = 1000;

/// Attempts against merges that take the blocks away; each lost one is a merge that was committed.
const ATTEMPTS_MAX: usize = 16;

impl<E: Engine> Shard<E> {
    /// Deletes records of a tenant, described by `what` in the engine's words, of all blocks that `concerns` names. What is
    /// applied before the call is deleted when it returns; what comes later never is. Returns how many blocks are
    /// masked.
    ///
    /// # Errors
    /// `Invalid` when the description is too long, `LimitExceeded` when the tenant has too many tombstones, those of a
    /// cut and of a commit. After `Unavailable` the outcome is unknown; deleting again is harmless.
    pub async fn delete(
        &self,
        tenant: &TenantId,
        range: TimeRange,
        what: &str,
        concerns: impl Fn(&BlockMeta) -> bool,
    ) -> Result<usize> {
        Tombstone::check_length(what)?;
        if range.is_empty() {
            return Ok(0);
        }
        self.flush().await?;
        let inner = &*self.inner;
        for _ in 0..ATTEMPTS_MAX {
            let blocks: BTreeSet<Ulid> = {
                let manifest = inner.manifest.lock().await;
                let state = manifest.state();
                let of_tenant = state.tombstones.values().filter(|t| t.tenant == tenant.as_str());
                if of_tenant.count() >= TOMBSTONES_MAX {
                    return Err(Error::new(
                        ErrorKind::LimitExceeded,
                        format!(
                            "{TOMBSTONES_MAX} deletions wait for their blocks to be merged; clean the tombstones first"
                        ),
                    ));
                }
                let blocks = state.blocks.values();
                let named = blocks.filter(|b| b.tenant == tenant.as_str() && concerns(b));
                named.map(|b| b.id).collect()
            };
            let count = blocks.len();
            if count == 0 {
                return Ok(0);
            }
            let tombstone = Tombstone {
                id: inner.ids.next(),
                tenant: tenant.as_str().to_owned(),
                time_min: range.min,
                time_max: range.max,
                created_ms: inner.clock.now_ms(),
                what: what.to_owned(),
                blocks,
            };
            let change = Change {
                tombstones: vec![Arc::new(tombstone)],
                ..inner.change()
            };
            match inner.commit(&change, "tombstone-committed").await {
                Ok(()) => return Ok(count),
                Err(CommitError::Conflict { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(Error::unavailable("blocks are being merged without pause; try again"))
    }

    /// Writes all masked blocks of a tenant anew without what is deleted, one by one. Returns how many were; damaged
    /// blocks stay masked.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn clean_tombstones(&self, tenant: &TenantId) -> Result<usize> {
        let inner = &*self.inner;
        let _one_at_a_time = inner.compaction.lock().await;
        let masked: Vec<Arc<BlockMeta>> = {
            let skip = inner.quarantined.lock().clone();
            let manifest = inner.manifest.lock().await;
            let state = manifest.state();
            let of_tenant = state.tombstones.values().filter(|t| t.tenant == tenant.as_str());
            let ids: BTreeSet<Ulid> = of_tenant.flat_map(|t| &t.blocks).copied().collect();
            let ids = ids.into_iter().filter(|id| !skip.contains(id));
            ids.filter_map(|id| state.blocks.get(&id).cloned()).collect()
        };
        let mut cleaned = 0;
        for meta in masked {
            let job = Job {
                tenant: meta.tenant.clone(),
                // It holds the same records: it has not climbed.
                level: meta.level,
                inputs: vec![meta],
            };
            cleaned += usize::from(inner.run_job(&job).await?);
            crash::point("tombstones-cleaning");
        }
        Ok(cleaned)
    }
}
