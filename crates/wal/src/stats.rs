//! Counters since the start, for `/metrics` and tests.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub records: AtomicU64,
    pub bytes: AtomicU64,
    pub groups: AtomicU64,
    pub syncs: AtomicU64,
    pub failures: AtomicU64,
    pub refused: AtomicU64,
    pub corruptions: AtomicU64,
}

/// Counters are statistics: no other memory depends on them.
pub(crate) fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

pub(crate) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogState {
    Ready,
    /// The last write failed; every second one append is let through to try again.
    Failing,
    Closed,
}

/// One reading. Counters never go back within a process; the rest are current values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    pub state: LogState,
    /// Durable records.
    pub records: u64,
    /// Frame bytes of durable records.
    pub bytes: u64,
    /// Groups written.
    pub groups: u64,
    /// Successful syncs of groups; records per sync is the gain of group commit.
    pub syncs: u64,
    /// Groups that failed.
    pub failures: u64,
    /// Appends refused without being tried.
    pub refused: u64,
    /// Damaged places met at start and in replay.
    pub corruptions: u64,
    /// Appended, not yet durable.
    pub backlog_bytes: u64,
    pub segments: u64,
    pub segment_bytes: u64,
}
