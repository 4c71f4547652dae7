//! Carries out what the planner says.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::{StreamExt as _, TryStreamExt as _};
use trilith_model::{Error, ErrorKind, Result, Signal, TimeRange};
use ulid::Ulid;

use super::planner::{self, Job};
use crate::crash;
use crate::engine::{BlockDraft, BlockHandle, Engine, Merge};
use crate::manifest::{Change, CommitError};
use crate::meta::BlockMeta;
use crate::shard::{Inner, Shard};
use crate::upload::Prepared;

/// Rounds of planning in one call; each round lifts what it merges by a level, so this is never reached unless blocks
/// come faster than they are merged.
const ROUNDS_MAX: usize = 64;

impl<E: Engine> Shard<E> {
    /// Merges until the planner has nothing to do, treating every window as closed. For `POST /-/compact` and tests;
    /// flush before to include recent data. Returns the number of merges committed.
    ///
    /// # Errors
    /// Those of the store. Damaged blocks are no error here: they are set aside and reported.
    pub async fn compact_now(&self) -> Result<u64> {
        self.compact(true).await
    }

    /// Merges what is due.
    pub(crate) async fn compact(&self, force: bool) -> Result<u64> {
        let inner = &*self.inner;
        let _one_at_a_time = inner.compaction.lock().await;
        let mut merged = 0;
        for _ in 0..ROUNDS_MAX {
            let jobs = {
                let skip = inner.quarantined.lock().clone();
                let options = inner.planner_options();
                let manifest = inner.manifest.lock().await;
                let blocks = manifest.state().blocks.values();
                planner::plan(blocks, inner.now(), &options, &skip, force).jobs
            };
            if jobs.is_empty() {
                return Ok(merged);
            }
            let mut runs = Vec::with_capacity(jobs.len());
            for job in &jobs {
                runs.push(inner.run_job(job));
            }
            let mut runs = futures::stream::iter(runs).buffer_unordered(inner.options.compaction_jobs_max.max(1));
            while let Some(done) = runs.try_next().await? {
                merged += u64::from(done);
            }
        }
        Ok(merged)
    }

    /// Takes blocks that are older than the retention out of the manifest. Returns how many.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn expire(&self) -> Result<u64> {
        let inner = &*self.inner;
        let _one_at_a_time = inner.compaction.lock().await;
        let drop = {
            let options = inner.planner_options();
            let manifest = inner.manifest.lock().await;
            let blocks = manifest.state().blocks.values();
            planner::plan(blocks, inner.now(), &options, &HashSet::new(), false).drop
        };
        if drop.is_empty() {
            return Ok(0);
        }
        let count = drop.len() as u64;
        let change = Change {
            remove: drop,
            ..inner.change()
        };
        match inner.commit(&change, "expire-committed").await {
            Ok(()) => {
                inner.counters.expired_blocks.fetch_add(count, Ordering::Relaxed);
                tracing::info!(signal = %inner.signal, blocks = count, "blocks older than the retention removed");
                Ok(count)
            }
            // The next round plans with what the other writer left.
            Err(CommitError::Conflict { .. }) => Ok(0),
            Err(e) => Err(e.into()),
        }
    }
}

impl<E: Engine> Inner<E> {
    /// For reading a block once, which must not push what queries use out of the cache.
    fn once(&self, meta: &Arc<BlockMeta>) -> BlockHandle {
        BlockHandle {
            store: self.store.without_cache(),
            ..self.handle(meta)
        }
    }

    /// True when the merge was committed; false when it was given up for good reason.
    pub(crate) async fn run_job(&self, job: &Job) -> Result<bool> {
        let scratch = Scratch::create(&self.options.scratch, self.signal, self.ids.next()).await?;
        match self.merge(job, &scratch).await {
            Ok(done) => Ok(done),
            Err(e) => {
                self.counters.merge_failures.fetch_add(1, Ordering::Relaxed);
                match e.kind {
                    ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Cancelled | ErrorKind::Fenced => Err(e),
                    _ => {
                        self.quarantine(job, &e).await?;
                        Ok(false)
                    }
                }
            }
        }
    }

    async fn merge(&self, job: &Job, scratch: &Scratch) -> Result<bool> {
        let started = self.clock.monotonic();
        let keep_from = planner::keep_from(self.now(), &self.planner_options());
        let masks = self.manifest.lock().await.state().masks();
        let inputs: Vec<BlockHandle> = job
            .inputs
            .iter()
            .map(|meta| BlockHandle {
                tombstones: masks.get(&meta.id).cloned().unwrap_or_default(),
                ..self.once(meta)
            })
            .collect();
        let applied: BTreeSet<Ulid> = inputs.iter().flat_map(|b| b.tombstones.iter()).map(|t| t.id).collect();
        let merge = Merge {
            inputs,
            level: job.level,
            scratch: scratch.path.clone(),
            keep_from,
        };
        let drafts = self.engine.merge(merge).await?;
        check(job, &drafts, keep_from, !applied.is_empty())?;
        let created_ms = self.clock.now_ms();
        let mut blocks = Prepared::new(drafts, self.signal, job.level, created_ms, &self.in_flight, &self.ids).await?;
        blocks
            .upload(&self.store, self.clock.monotonic(), "merge-uploading")
            .await?;
        crash::point("merge-uploaded");
        let change = Change {
            add: blocks.metas.iter().map(Arc::clone).collect(),
            remove: job.inputs.iter().map(|meta| meta.id).collect(),
            applied,
            ..self.change()
        };
        if !self.commit_merge(&change, &blocks).await? {
            return Ok(false);
        }
        let input_bytes = job.inputs.iter().map(|m| m.bytes()).sum();
        let counters = &self.counters;
        counters.merges.fetch_add(1, Ordering::Relaxed);
        counters.merge_input_bytes.fetch_add(input_bytes, Ordering::Relaxed);
        counters.merge_output_bytes.fetch_add(blocks.bytes(), Ordering::Relaxed);
        tracing::info!(
            signal = %self.signal,
            tenant = job.tenant,
            level = job.level,
            inputs = job.inputs.len(),
            outputs = blocks.metas.len(),
            input_bytes,
            output_bytes = blocks.bytes(),
            took = ?self.clock.monotonic().saturating_sub(started),
            "blocks merged"
        );
        Ok(true)
    }

    /// Commits until the outcome is known: an unknown one would leave work behind that may or may not count. False on a
    /// conflict; the outputs are orphans then.
    async fn commit_merge(&self, change: &Change, blocks: &Prepared) -> Result<bool> {
        let mut backoff = crate::shard::Backoff::default();
        loop {
            match self.commit(change, "merge-committed").await {
                Ok(()) => return Ok(true),
                Err(CommitError::Conflict { missing }) => {
                    self.counters.merge_conflicts.fetch_add(1, Ordering::Relaxed);
                    tracing::info!(signal = %self.signal, ?missing, "merge given up, its inputs are gone or masked anew");
                    return Ok(false);
                }
                Err(CommitError::Store(e))
                    if matches!(e.kind, ErrorKind::Unavailable | ErrorKind::Timeout) && !self.outlived(blocks) =>
                {
                    let wait = backoff.next(&self.rng);
                    tracing::warn!(signal = %self.signal, error = %e, ?wait, "merge could not be committed, trying again");
                    tokio::time::sleep(wait).await;
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Finds the damaged inputs of a failed merge and sets them aside, so that damage is reported, served as it is,
    /// and never copied. When each input reads well alone, all are set aside: merging them fails again.
    async fn quarantine(&self, job: &Job, error: &Error) -> Result<()> {
        let mut damaged = Vec::new();
        for meta in &job.inputs {
            match self.engine.verify(&self.once(meta)).await {
                Ok(()) => {}
                Err(e)
                    if matches!(
                        e.kind,
                        ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Cancelled
                    ) =>
                {
                    return Err(e);
                }
                Err(e) => {
                    tracing::error!(
                        signal = %self.signal, tenant = job.tenant, block = %meta.id, error = %e,
                        "block is damaged; it is served as far as it can be read and never merged"
                    );
                    damaged.push(meta.id);
                }
            }
        }
        if damaged.is_empty() {
            damaged.extend(job.inputs.iter().map(|meta| meta.id));
            tracing::error!(
                signal = %self.signal, tenant = job.tenant, blocks = ?damaged, error = %error,
                "blocks cannot be merged although each of them reads well; they stay as they are"
            );
        }
        self.quarantined.lock().extend(damaged);
        Ok(())
    }
}

/// What a merge must never do, whatever the engine.
fn check(job: &Job, outputs: &[BlockDraft], keep_from: Option<i64>, masked: bool) -> Result<()> {
    let wrong = |why: String| {
        Err(Error::internal(format!(
            "merge of {} blocks of {}: {why}",
            job.inputs.len(),
            job.tenant
        )))
    };
    let items_in: u64 = job.inputs.iter().map(|m| m.items).sum();
    let items_out: u64 = outputs.iter().map(|d| d.items).sum();
    if items_out > items_in {
        return wrong(format!("{items_in} items became {items_out}"));
    }
    let range = job.inputs.iter().fold(TimeRange::EMPTY, |range, m| {
        range.union(TimeRange::new(m.time_min, m.time_max))
    });
    // With retention, everything may have expired; with tombstones, be deleted.
    let may_vanish = masked || keep_from.is_some_and(|from| range.min < from);
    if items_in > 0 && items_out == 0 && !may_vanish {
        return wrong(format!("all {items_in} items are gone"));
    }
    for draft in outputs {
        if draft.tenant.as_str() != job.tenant {
            return wrong(format!("output of tenant {}", draft.tenant));
        }
        if draft.time.min < range.min || draft.time.max > range.max {
            return wrong(format!("output {:?} leaves {range:?}", draft.time));
        }
    }
    Ok(())
}

/// A folder for one merge, removed when dropped.
struct Scratch {
    path: PathBuf,
}

fn scratch_prefix(signal: Signal) -> String {
    format!("merge-{signal}-")
}

impl Scratch {
    async fn create(parent: &Path, signal: Signal, id: Ulid) -> Result<Scratch> {
        let path = parent.join(format!("{}{id}", scratch_prefix(signal)));
        tokio::fs::create_dir_all(&path)
            .await
            .map_err(|e| Error::unavailable(format!("scratch folder {}: {e}", path.display())))?;
        Ok(Scratch { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A handful of files; what remains is removed at the next start.
        if let Err(e) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), error = %e, "scratch folder could not be removed");
        }
    }
}

/// Removes what a crashed process left in the scratch folder. Best effort.
pub(crate) async fn clear_scratch(parent: &Path, signal: Signal) {
    let Ok(mut entries) = tokio::fs::read_dir(parent).await else {
        return;
    };
    let prefix = scratch_prefix(signal);
    while let Ok(Some(entry)) = entries.next_entry().await {
        if entry.file_name().to_string_lossy().starts_with(&prefix)
            && let Err(e) = tokio::fs::remove_dir_all(entry.path()).await
        {
            tracing::warn!(path = %entry.path().display(), error = %e, "old scratch folder could not be removed");
        }
    }
}
