//! The write-ahead log: one stream of records for all tenants and signals.
//!
//! `append` puts a framed record into the open group and returns its LSN at once; one thread writes and
//! syncs whole groups, so many requests share one `fdatasync`, and an idle log does nothing. A record is durable
//! when its [`Pending`] resolves to `Ok`. Format: docs/formats/wal.md.
//!
//! The log does not know what a record means: payloads are the engines' own, versioned by them.

use std::path::PathBuf;

use bytes::Bytes;
use trilith_model::{Result, Signal, TenantId};

/// Log sequence number: 1 for the first record of a writer, then one more per record, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Lsn(pub u64);

/// Settings; see the configuration reference.
#[derive(Clone, Debug)]
pub struct Options {
    pub dir: PathBuf,
    /// A segment is closed when it is larger.
    pub segment_bytes: u64,
    /// Appended but not yet durable bytes above which `append` refuses with `Unavailable`.
    pub backlog_bytes_max: u64,
}

/// One record as replayed.
#[derive(Clone, Debug)]
pub struct Record {
    pub lsn: Lsn,
    pub signal: Signal,
    pub tenant: TenantId,
    pub payload: Bytes,
}

/// Cheap to clone; all clones are one log.
#[derive(Clone)]
pub struct Wal {}

/// Resolves when the record is durable, or to `Unavailable` when it was not written (nothing of it remains then).
pub struct Pending {}

impl Pending {
    pub async fn durable(self) -> Result<()> {
        unimplemented!()
    }
}

impl Wal {
    /// Puts a record into the open group. Never blocks on I/O. LSNs are handed out in the order of the calls.
    ///
    /// # Errors
    /// `Unavailable` while the disk refuses writes or the backlog is full.
    pub fn append(&self, _signal: Signal, _tenant: &TenantId, _payload: Bytes) -> Result<(Lsn, Pending)> {
        unimplemented!()
    }

    /// The last LSN handed out.
    pub fn last_lsn(&self) -> Lsn {
        unimplemented!()
    }

    /// Tells that records of `signal` up to and including `upto` are in committed blocks; segments that hold nothing
    /// newer of any signal are deleted.
    pub fn release(&self, _signal: Signal, _upto: Lsn) {
        unimplemented!()
    }
}
