//! Figures for metrics and status pages.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Shard;
use crate::engine::{Engine, Head as _};
use crate::upload::Prepared;

/// The heads at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadStats {
    pub active_bytes: u64,
    pub active_items: u64,
    /// 0 or 1.
    pub frozen_heads: u64,
    pub frozen_bytes: u64,
    pub frozen_items: u64,
    /// How long the oldest record of the active head has waited.
    pub active_age: Duration,
}

/// Counts since the process started, except where a field says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardStats {
    pub cuts: u64,
    pub cut_failures: u64,
    pub cut_blocks: u64,
    pub cut_bytes: u64,
    pub merges: u64,
    pub merge_input_bytes: u64,
    pub merge_output_bytes: u64,
    pub merge_conflicts: u64,
    pub merge_failures: u64,
    /// Blocks dropped because of their age.
    pub expired_blocks: u64,
    /// Removed blocks whose objects were deleted.
    pub deleted_blocks: u64,
    pub orphans_deleted: u64,
    /// Appends refused because the heads were full.
    pub refused: u64,
    /// Now: blocks that take part in no merge because they are damaged.
    pub quarantined_blocks: u64,
    /// Now.
    pub blocks: u64,
    /// Now.
    pub block_bytes: u64,
    pub wal_upto: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    cuts: AtomicU64,
    cut_failures: AtomicU64,
    cut_blocks: AtomicU64,
    cut_bytes: AtomicU64,
    pub(crate) merges: AtomicU64,
    pub(crate) merge_input_bytes: AtomicU64,
    pub(crate) merge_output_bytes: AtomicU64,
    pub(crate) merge_conflicts: AtomicU64,
    pub(crate) merge_failures: AtomicU64,
    pub(crate) expired_blocks: AtomicU64,
    pub(crate) deleted_blocks: AtomicU64,
    pub(crate) orphans_deleted: AtomicU64,
    pub(crate) refused: AtomicU64,
}

impl Counters {
    pub(super) fn cut(&self, blocks: &Prepared) {
        self.cuts.fetch_add(1, Ordering::Relaxed);
        self.cut_blocks.fetch_add(blocks.metas.len() as u64, Ordering::Relaxed);
        self.cut_bytes.fetch_add(blocks.bytes(), Ordering::Relaxed);
    }

    pub(super) fn cut_failed(&self) {
        self.cut_failures.fetch_add(1, Ordering::Relaxed);
    }
}

impl<E: Engine> Shard<E> {
    pub fn head_stats(&self) -> HeadStats {
        let live = self.inner.live.lock();
        let frozen = live.frozen.as_ref().map(|f| &f.slot.head);
        let now = self.inner.clock.monotonic();
        HeadStats {
            active_bytes: live.active.head.bytes(),
            active_items: live.active.head.items(),
            frozen_heads: u64::from(frozen.is_some()),
            frozen_bytes: frozen.map_or(0, |h| h.bytes()),
            frozen_items: frozen.map_or(0, |h| h.items()),
            active_age: live.first_at.map_or(Duration::ZERO, |at| now.saturating_sub(at)),
        }
    }

    pub fn stats(&self) -> ShardStats {
        let c = &self.inner.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let blocks = self.blocks();
        ShardStats {
            cuts: get(&c.cuts),
            cut_failures: get(&c.cut_failures),
            cut_blocks: get(&c.cut_blocks),
            cut_bytes: get(&c.cut_bytes),
            merges: get(&c.merges),
            merge_input_bytes: get(&c.merge_input_bytes),
            merge_output_bytes: get(&c.merge_output_bytes),
            merge_conflicts: get(&c.merge_conflicts),
            merge_failures: get(&c.merge_failures),
            expired_blocks: get(&c.expired_blocks),
            deleted_blocks: get(&c.deleted_blocks),
            orphans_deleted: get(&c.orphans_deleted),
            refused: get(&c.refused),
            quarantined_blocks: self.inner.quarantined.lock().len() as u64,
            blocks: blocks.len() as u64,
            block_bytes: blocks.iter().map(|b| b.meta.bytes()).sum(),
            wal_upto: self.wal_upto(),
        }
    }
}
