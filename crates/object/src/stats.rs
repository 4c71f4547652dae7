//! Counters of a store, for `/metrics` and for tests. All clones of a store count together.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    Create,
    Upload,
    /// One part of a multipart upload.
    Part,
    Get,
    /// One ranged read, after merging.
    Read,
    Head,
    List,
    Delete,
}

impl Operation {
    pub const ALL: [Operation; 8] = [
        Operation::Create,
        Operation::Upload,
        Operation::Part,
        Operation::Get,
        Operation::Read,
        Operation::Head,
        Operation::List,
        Operation::Delete,
    ];

    /// The value of the `operation` label.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "create",
            Operation::Upload => "upload",
            Operation::Part => "part",
            Operation::Get => "get",
            Operation::Read => "read",
            Operation::Head => "head",
            Operation::List => "list",
            Operation::Delete => "delete",
        }
    }
}

/// Live counters.
#[derive(Debug, Default)]
pub struct Stats {
    operations: [PerOperation; Operation::ALL.len()],
    pub(crate) bytes_read: AtomicU64,
    pub(crate) bytes_written: AtomicU64,
    pub(crate) cache_hits: AtomicU64,
    pub(crate) cache_misses: AtomicU64,
    pub(crate) cache_hit_bytes: AtomicU64,
    pub(crate) ranges_merged: AtomicU64,
    pub(crate) reads_shared: AtomicU64,
}

#[derive(Debug, Default)]
struct PerOperation {
    requests: AtomicU64,
    retries: AtomicU64,
    errors: AtomicU64,
    busy_us: AtomicU64,
}

/// The counters of one operation at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperationStats {
    /// Tries sent to the backend, the first and all others.
    pub requests: u64,
    /// Tries after the first.
    pub retries: u64,
    /// Operations that failed for the caller; absent objects and lost races are answers, not errors.
    pub errors: u64,
    /// Time of all tries together.
    pub busy: Duration,
}

/// All counters at one time; each is exact, together they are not one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatsSnapshot {
    operations: [OperationStats; Operation::ALL.len()],
    /// Bodies received from the backend.
    pub bytes_read: u64,
    /// Bodies sent to the backend and accepted.
    pub bytes_written: u64,
    /// Ranges answered by the cache, either tier.
    pub cache_hits: u64,
    pub cache_misses: u64,
    pub cache_hit_bytes: u64,
    /// Ranges that were read with the request of a neighbour.
    pub ranges_merged: u64,
    /// Reads that waited for an equal read under way instead of asking again.
    pub reads_shared: u64,
}

impl StatsSnapshot {
    pub fn operation(&self, operation: Operation) -> OperationStats {
        self.operations[operation as usize]
    }

    /// Tries of all operations.
    pub fn requests(&self) -> u64 {
        self.operations.iter().map(|o| o.requests).sum()
    }
}

impl Stats {
    pub fn snapshot(&self) -> StatsSnapshot {
        let mut operations = [OperationStats::default(); Operation::ALL.len()];
        for (out, o) in operations.iter_mut().zip(&self.operations) {
            *out = OperationStats {
                requests: o.requests.load(Relaxed),
                retries: o.retries.load(Relaxed),
                errors: o.errors.load(Relaxed),
                busy: Duration::from_micros(o.busy_us.load(Relaxed)),
            };
        }
        StatsSnapshot {
            operations,
            bytes_read: self.bytes_read.load(Relaxed),
            bytes_written: self.bytes_written.load(Relaxed),
            cache_hits: self.cache_hits.load(Relaxed),
            cache_misses: self.cache_misses.load(Relaxed),
            cache_hit_bytes: self.cache_hit_bytes.load(Relaxed),
            ranges_merged: self.ranges_merged.load(Relaxed),
            reads_shared: self.reads_shared.load(Relaxed),
        }
    }

    /// A try ended, whatever its result.
    pub(crate) fn tried(&self, operation: Operation, first: bool, took: Duration) {
        let o = &self.operations[operation as usize];
        o.requests.fetch_add(1, Relaxed);
        if !first {
            o.retries.fetch_add(1, Relaxed);
        }
        o.busy_us
            .fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(crate) fn failed(&self, operation: Operation) {
        self.operations[operation as usize].errors.fetch_add(1, Relaxed);
    }
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_index_their_own_slot() {
        let stats = Stats::default();
        for (i, op) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(op as usize, i, "{}", op.as_str());
            stats.tried(op, i % 2 == 0, Duration::from_micros(3));
        }
        let s = stats.snapshot();
        assert_eq!(s.requests(), 8);
        assert_eq!(s.operation(Operation::Upload).retries, 1);
        assert_eq!(s.operation(Operation::Create).retries, 0);
    }
}
