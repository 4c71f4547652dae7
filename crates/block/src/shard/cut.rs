//! Freeze, encode, upload, commit.

use std::sync::Arc;

use trilith_model::{Error, ErrorKind, Result, task};

use super::{Frozen, Inner, Shard, Slot};
use crate::crash;
use crate::engine::{Engine, Head as _};
use crate::manifest::Change;
use crate::upload::Prepared;

/// How far the frozen head has come; kept through errors and cancelled calls, so that a retry goes on from there.
#[derive(Default)]
pub(super) struct Pipeline {
    work: Option<Work>,
}

struct Work {
    last_lsn: u64,
    blocks: Prepared,
    /// The same for every attempt: its nonce tells our own delta from another's.
    change: Change,
}

impl<E: Engine> Shard<E> {
    /// Freezes the active head, encodes, uploads, commits. Returns when everything that was applied before the call is
    /// in committed blocks. Tries once: after an error the frozen head stays as it is, served and first in line for the
    /// next call or for the running loop.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// `Unavailable` when the store is, `Fenced`, those of the engine's `cut`.
    pub async fn flush(&self) -> Result<()> {
        let inner = &*self.inner;
        let mut pipeline = inner.pipeline.lock().await;
        inner.finish_frozen(&mut pipeline).await?;
        if inner.freeze() {
            inner.finish_frozen(&mut pipeline).await?;
        }
        Ok(())
    }

    /// `flush` until it succeeds or fails for another reason than the store.
    pub(super) async fn flush_persistently(&self) -> Result<()> {
        let mut backoff = super::run::Backoff::default();
        loop {
            match self.flush().await {
                Err(e) if matches!(e.kind, ErrorKind::Unavailable | ErrorKind::Timeout) => {
                    let wait = backoff.next(&self.inner.rng);
                    tracing::warn!(signal = %self.inner.signal, error = %e, ?wait, "cut failed, trying again");
                    tokio::time::sleep(wait).await;
                }
                result => return result,
            }
        }
    }
}

impl<E: Engine> Inner<E> {
    /// Puts an empty head in the active one's place. False when the active head has no records or one is frozen.
    fn freeze(&self) -> bool {
        let fresh = Slot::new(&*self.engine);
        let mut live = self.live.lock();
        if live.last_lsn == 0 || live.frozen.is_some() {
            return false;
        }
        let slot = std::mem::replace(&mut live.active, fresh);
        let last_lsn = std::mem::take(&mut live.last_lsn);
        live.first_at = None;
        live.frozen = Some(Frozen { slot, last_lsn });
        // Before the lock is given back: whatever is applied to the new head must be seen by the next query.
        self.view.store(live.view());
        true
    }

    fn frozen(&self) -> Option<Frozen<E>> {
        self.live.lock().frozen.clone()
    }

    /// Brings the frozen head, if there is one, into committed blocks.
    async fn finish_frozen(&self, pipeline: &mut Pipeline) -> Result<()> {
        let Some(frozen) = self.frozen() else {
            // An earlier attempt was committed after all, and a merge or a catch-up has seen it.
            pipeline.work = None;
            return Ok(());
        };
        if self.is_fenced() {
            return Err(self.fenced_error());
        }
        frozen.slot.drain().await;
        if frozen.slot.head.items() == 0 {
            // Appends that failed, or records that are all refused: nothing to keep, so nothing to commit.
            self.discard_frozen(frozen.last_lsn);
            return Ok(());
        }
        let result = self.commit_frozen(&frozen, pipeline).await;
        match &result {
            Ok(()) => {
                if let Some(work) = pipeline.work.take() {
                    work.blocks.discard_spooled().await;
                    self.counters.cut(&work.blocks);
                }
                self.cut_done.notify_one();
            }
            Err(_) => self.counters.cut_failed(),
        }
        result
    }

    async fn commit_frozen(&self, frozen: &Frozen<E>, pipeline: &mut Pipeline) -> Result<()> {
        if pipeline
            .work
            .as_ref()
            .is_some_and(|w| w.last_lsn != frozen.last_lsn || self.outlived(&w.blocks))
        {
            pipeline.work = None;
        }
        let work = match &mut pipeline.work {
            Some(work) => work,
            None => pipeline.work.insert(self.encode(frozen).await?),
        };
        work.blocks
            .upload(&self.store, self.clock.monotonic(), "cut-uploading")
            .await?;
        crash::point("cut-uploaded");
        self.commit(&work.change, "cut-committed").await?;
        Ok(())
    }

    async fn encode(&self, frozen: &Frozen<E>) -> Result<Work> {
        let started = self.clock.monotonic();
        let (engine, head) = (self.engine.clone(), frozen.slot.head.clone());
        let drafts = task::background(move || engine.cut(&head))
            .await?
            .map_err(|e: Error| e.context(format!("cut of {}", self.signal)))?;
        let blocks = Prepared::new(drafts, self.signal, 0, self.clock.now_ms(), &self.in_flight, &self.ids).await?;
        tracing::debug!(
            signal = %self.signal,
            blocks = blocks.metas.len(),
            bytes = blocks.bytes(),
            items = frozen.slot.head.items(),
            upto = frozen.last_lsn,
            took = ?self.clock.monotonic().saturating_sub(started),
            "head encoded"
        );
        crash::point("cut-encoded");
        let change = Change {
            wal_upto: Some(frozen.last_lsn),
            add: blocks.metas.iter().map(Arc::clone).collect(),
            ..self.change()
        };
        Ok(Work {
            last_lsn: frozen.last_lsn,
            blocks,
            change,
        })
    }

    /// Whether uploads are so old that another process could take them for orphans. They are given up then, long
    /// before anybody deletes them.
    pub(crate) fn outlived(&self, blocks: &Prepared) -> bool {
        blocks
            .upload_started
            .is_some_and(|started| self.clock.monotonic().saturating_sub(started) > self.options.orphan_age / 2)
    }

    fn discard_frozen(&self, last_lsn: u64) {
        {
            let mut live = self.live.lock();
            live.frozen = None;
            self.view.store(live.view());
        }
        self.raise_committed(last_lsn);
    }
}
