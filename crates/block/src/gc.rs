//! Deletes objects that no manifest refers to.
//!
//! Two kinds of garbage. *Removed* blocks left the manifest by a merge or by retention; their objects stay for
//! `delete_grace`, for queries that hold an older view. *Orphans* were uploaded by somebody who died or lost before
//! the delta; the manifest never knew them, so they are found by listing, and only their age tells them from uploads
//! under way.
//!
//! Nothing is deleted that the current manifest refers to: it is read to its end first. A writer gives its own uploads
//! up at half the age at which others may take them for orphans, so an upload that is deleted is never committed.
//! Deletes are repeated after a crash, which is harmless.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::time::Duration;

use trilith_model::Result;
use ulid::Ulid;

use crate::crash;
use crate::engine::Engine;
use crate::manifest::Removed;
use crate::path::{BLOCKS, block_folder, parse_block_object};
use crate::shard::Shard;

/// When this process learnt that a block was removed, by the monotonic clock. `None` for blocks that were removed
/// before it started: no query of this process can hold them, and for those of others the wall clock must do.
#[derive(Default)]
pub(crate) struct Observed(HashMap<Ulid, Option<Duration>>);

impl Observed {
    pub(crate) fn at_start(removed: &BTreeMap<Ulid, Removed>) -> Self {
        Observed(removed.keys().map(|id| (*id, None)).collect())
    }

    pub(crate) fn update(&mut self, removed: &BTreeMap<Ulid, Removed>, now: Duration) {
        self.0.retain(|id, _| removed.contains_key(id));
        for id in removed.keys() {
            self.0.entry(*id).or_insert(Some(now));
        }
    }

    fn since(&self, id: Ulid) -> Option<Duration> {
        self.0.get(&id).copied().flatten()
    }
}

impl<E: Engine> Shard<E> {
    /// Deletes the objects of removed blocks whose grace has passed. Returns the number of blocks.
    ///
    /// # Errors
    /// Those of the store; what is left is tried again next time.
    pub async fn collect_garbage(&self) -> Result<u64> {
        let inner = &*self.inner;
        let grace = inner.options.delete_grace;
        let grace_ms = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
        let now_ms = inner.clock.now_ms();
        let due: Vec<(Ulid, Removed)> = {
            let manifest = inner.manifest.lock().await;
            let observed = inner.observed.lock();
            let now = inner.clock.monotonic();
            manifest
                .garbage()
                .filter(|(id, removed)| match observed.since(*id) {
                    Some(at) => now.saturating_sub(at) >= grace,
                    None => now_ms.saturating_sub(removed.removed_ms) >= grace_ms,
                })
                .map(|(id, removed)| (id, removed.clone()))
                .collect()
        };
        let mut deleted = 0;
        for (id, removed) in due {
            let folder = block_folder(inner.signal, &removed.tenant, id);
            for file in &removed.files {
                inner.store.delete(&format!("{folder}/{file}")).await?;
                crash::point("gc-deleting");
            }
            inner.manifest.lock().await.purged([id]);
            inner.counters.deleted_blocks.fetch_add(1, Ordering::Relaxed);
            deleted += 1;
        }
        Ok(deleted)
    }

    /// Finds and deletes objects of this signal below `blocks/` that are older than `orphan_age` and not in the manifest.
    /// Returns the number of objects.
    ///
    /// # Errors
    /// Those of the store; what is left is found again next time.
    pub async fn collect_orphans(&self) -> Result<u64> {
        let inner = &*self.inner;
        let age_ms = i64::try_from(inner.options.orphan_age.as_millis()).unwrap_or(i64::MAX);
        let mut deleted = 0;
        // Prefix by prefix, so that the listing of a large store is never in memory as a whole.
        for hash in 0..=u8::MAX {
            let before_ms = inner.clock.now_ms().saturating_sub(age_ms);
            let listed = inner.store.list(&format!("{BLOCKS}/{hash:02x}")).await?;
            let old: Vec<(Ulid, String)> = listed
                .into_iter()
                .filter(|object| object.modified_ms <= before_ms)
                .filter_map(|object| {
                    let (signal, _, id, _) = parse_block_object(&object.path)?;
                    (signal == inner.signal).then_some((id, object.path))
                })
                .collect();
            let unknown: Vec<(Ulid, String)> = {
                let manifest = inner.manifest.lock().await;
                let state = manifest.state();
                let suspects = old.into_iter().filter(|(id, _)| !state.knows(*id));
                suspects.collect()
            };
            if unknown.is_empty() {
                continue;
            }
            // Another writer may have committed them since.
            inner.catch_up().await?;
            for (id, path) in unknown {
                // Asked for each anew: what is in flight here may be committed in between, or known by now.
                let known = inner.manifest.lock().await.state().knows(id);
                if !inner.in_flight.contains(id) && !known {
                    inner.store.delete(&path).await?;
                    inner.counters.orphans_deleted.fetch_add(1, Ordering::Relaxed);
                    deleted += 1;
                }
            }
        }
        if deleted > 0 {
            tracing::info!(signal = %inner.signal, objects = deleted, "orphans of interrupted uploads deleted");
        }
        Ok(deleted)
    }
}
