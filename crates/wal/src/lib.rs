//! The write-ahead log: one stream of records for all tenants and signals.
//!
//! ```text
//! append ──► open group ──► commit thread: write all, one fdatasync ──► Pending resolves
//!              (LSN here)        │
//!                                ▼
//!            00000000000000000001.wal  00000000000000004711.wal …  ──► replay after a start
//!                                ▲
//! release(signal, upto) ─────────┘  segments with nothing newer of any signal are deleted
//! ```
//!
//! `append` puts a record into the open group and returns its LSN at once; one thread writes and syncs whole
//! groups, so many requests share one `fdatasync`, and an idle log does nothing. A record is durable when its
//! [`Pending`] resolves to `Ok`. Format: docs/formats/wal.md.
//!
//! The log does not know what a record means: payloads are the engines' own, versioned by them.
//!
//! Invariants
//! - LSNs rise in the order of `append` and are not used twice, not even those of refused records. (A record that was
//!   in memory only at a crash left no trace; its number may be used after the restart.)
//! - Records become durable in that order. What resolved to `Ok` is replayed exactly once, after any crash.
//! - What was refused is not replayed. The one exception is a disk that fails the write, the taking back of it and
//!   every later write until the process ends; then a record that reached the disk may come back.
//! - Appended but not acknowledged records of a crash are replayed or not.
//!
//! Failure: when the disk refuses (full, read-only, broken), everyone who waits gets `Unavailable`, further appends are
//! refused at once, and one append per second is let through to find out whether the disk is back.
//!
//! Damage: every frame header and every body has its own checksum. A damaged body costs that record, a damaged frame
//! header what lies up to the next valid one, a lost file its records; all are reported and none stops a start.

mod commit;
mod error;
mod frame;
pub mod fuzzing;
mod log;
mod replay;
mod scan;
mod segment;
mod stats;
pub mod store;
mod survey;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;
use trilith_model::rng::Rng;
use trilith_model::{Clock, Error, Result, Signal, TenantId, task};

use crate::commit::Committer;
use crate::error::fatal;
use crate::log::{Health, Outcome, Shared, State};
use crate::store::{DirStore, SegmentStore};
use crate::table::{Closed, SignalLsns};

pub use frame::RECORD_BYTES_MAX;
pub use replay::{Replay, ReplayReport, SegmentReplay};
pub use stats::{LogState, Stats};

/// Log sequence number: 1 for the first record of a writer, then rising by one per record; refused records and starts
/// leave gaps. Never reused within a process, nor while anything of its record may be stored or committed.
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

impl Options {
    /// The defaults: segments of 64 MiB, a backlog of 256 MiB (two of the largest requests and some).
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Options {
            dir: dir.into(),
            segment_bytes: 64 << 20,
            backlog_bytes_max: 256 << 20,
        }
    }
}

/// One record as replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub lsn: Lsn,
    pub signal: Signal,
    pub tenant: TenantId,
    pub payload: Bytes,
}

/// Cheap to clone; all clones are one log. When the last one is dropped the log writes what is open and stops.
#[derive(Clone)]
pub struct Wal(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    writer_id: String,
    stopped: watch::Receiver<bool>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// Resolves when the record is durable, or to `Unavailable` when it was not written (nothing of it remains then).
/// Dropping it changes nothing for the record.
#[derive(Debug)]
pub struct Pending(watch::Receiver<Outcome>);

impl Pending {
    /// Cancel safe: the record's way does not depend on who waits.
    ///
    /// # Errors
    /// `Unavailable`: the record is not in the log; the message says why.
    pub async fn durable(mut self) -> Result<()> {
        match self.0.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Ok(())),
            Err(_) => Err(Error::unavailable(
                "the write-ahead log stopped before the record was written",
            )),
        }
    }
}

impl Wal {
    /// Opens the log of a local directory, which is made when missing, and starts its thread.
    ///
    /// Every LSN handed out is above `first_lsn_at_least` and above everything in the directory; give it the highest
    /// committed position, so that a lost log does not start again below it. A later `release` raises it too.
    ///
    /// # Errors
    /// `Unavailable` when the directory is in use or cannot be read or prepared; `Unsupported` for segments of a later
    /// version; `Corrupt` for a damaged writer id. Damaged segments are no error: see [`Replay::report`].
    pub fn open(options: Options, first_lsn_at_least: Lsn, clock: Arc<dyn Clock>) -> Result<(Wal, Replay)> {
        let store = DirStore::open(&options.dir).map_err(|e| fatal("cannot open the write-ahead log", &e))?;
        Self::open_on(Arc::new(store), options, first_lsn_at_least, clock, Rng::from_os())
    }

    /// As `open`, on any store; `options.dir` is not used.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_on(
        store: Arc<dyn SegmentStore>,
        options: Options,
        first_lsn_at_least: Lsn,
        clock: Arc<dyn Clock>,
        rng: Rng,
    ) -> Result<(Wal, Replay)> {
        let Prepared {
            shared,
            writer_id,
            committer,
            replay,
        } = prepare(store, &options, first_lsn_at_least, clock, rng)?;
        let (stopped_sender, stopped) = watch::channel(false);
        let guard = StopGuard {
            shared: shared.clone(),
            stopped: stopped_sender,
        };
        let thread = task::thread("wal", move || {
            // Dropped last, also when the thread panics: nobody waits for ever.
            let _guard = guard;
            committer.run();
        })
        .map_err(|e| fatal("cannot start the thread of the write-ahead log", &e))?;
        let handle = Handle {
            shared,
            writer_id,
            stopped,
            thread: Mutex::new(Some(thread)),
        };
        Ok((Wal(Arc::new(handle)), replay))
    }

    /// Reads the writer id of a directory before it is opened, or makes one.
    ///
    /// # Errors
    /// As `open`.
    pub fn writer_id_of(dir: &Path) -> Result<String> {
        let store = DirStore::open(dir).map_err(|e| fatal("cannot open the write-ahead log", &e))?;
        survey::writer_id(&store, &Rng::from_os())
    }

    /// Puts a record into the open group. Never blocks on I/O. LSNs are handed out in the order of the calls.
    ///
    /// # Errors
    /// `Unavailable` while the disk refuses writes or the backlog is full; `TooLarge` above [`RECORD_BYTES_MAX`].
    pub fn append(&self, signal: Signal, tenant: &TenantId, payload: Bytes) -> Result<(Lsn, Pending)> {
        let (lsn, outcome) = self.0.shared.append(signal, tenant, payload)?;
        Ok((Lsn(lsn), Pending(outcome)))
    }

    /// The last LSN handed out, or the last one that a new record must be above.
    pub fn last_lsn(&self) -> Lsn {
        Lsn(self.0.shared.last_lsn())
    }

    /// To be called after the replay, which would miss what this deletes.
    ///
    /// Tells that records of `signal` up to and including `upto` are in committed blocks; segments that hold nothing
    /// newer of any signal are deleted, by the log's thread. Segments from before the start count once they were
    /// replayed.
    pub fn release(&self, signal: Signal, upto: Lsn) {
        self.0.shared.release(signal, upto.0);
    }

    /// Closes the open segment after the open group, so that it can be released although it is not full.
    pub fn rotate(&self) {
        self.0.shared.rotate();
    }

    /// Random id of this log, made once; positions in manifests belong to it.
    pub fn writer_id(&self) -> &str {
        &self.0.writer_id
    }

    pub fn stats(&self) -> Stats {
        self.0.shared.stats()
    }

    /// Refuses further appends, writes what is open and stops the thread. May be called more than once.
    ///
    /// # Errors
    /// Why the last records could not be written; their `Pending` say the same.
    pub async fn close(&self) -> Result<()> {
        self.0.shared.start_closing();
        // An error means that the sender is gone, thus the thread.
        let _ = self.0.stopped.clone().wait_for(|stopped| *stopped).await;
        match &self.0.shared.state.lock().health {
            Health::Ready => Ok(()),
            Health::Failing { error, .. } => Err(error.clone()),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.start_closing();
        if let Some(thread) = self.thread.lock().take() {
            // At most one group's write: afterwards the directory can be opened again.
            let _ = thread.join();
        }
    }
}

/// Ends the log when its thread ends, however it ends.
struct StopGuard {
    shared: Arc<Shared>,
    stopped: watch::Sender<bool>,
}

impl Drop for StopGuard {
    fn drop(&mut self) {
        let group = {
            let mut state = self.shared.state.lock();
            state.closing = true;
            state.take_group()
        };
        group.resolve(Err(Error::unavailable(
            "the write-ahead log stopped before the record was written",
        )));
        self.stopped.send_replace(true);
    }
}

/// A log without its thread; tests and fuzzing drive the committer themselves.
struct Prepared {
    shared: Arc<Shared>,
    writer_id: String,
    committer: Committer,
    replay: Replay,
}

fn prepare(
    store: Arc<dyn SegmentStore>,
    options: &Options,
    first_lsn_at_least: Lsn,
    clock: Arc<dyn Clock>,
    rng: Rng,
) -> Result<Prepared> {
    let writer_id = survey::writer_id(&*store, &rng)?;
    let found = survey::survey(&store)?;
    let segments: BTreeMap<u64, Closed> = found
        .segments
        .iter()
        .map(|s| {
            // What has no frame needs no replay to be known.
            let max = s.is_empty().then(SignalLsns::default);
            (
                s.header.first_lsn,
                Closed {
                    bytes: s.end,
                    max,
                    emptied: s.is_empty(),
                },
            )
        })
        .collect();
    let next_lsn = found.burned_lsn.max(first_lsn_at_least.0.min(segment::LSN_MAX)) + 1;
    let shared = Arc::new(Shared {
        state: Mutex::new(State::new(next_lsn, segments)),
        work: Condvar::new(),
        clock,
        counters: stats::Counters::default(),
        backlog_bytes_max: options.backlog_bytes_max,
    });
    stats::count(
        &shared.counters.corruptions,
        found.report.unreadable_segments.len() as u64,
    );
    let committer = Committer {
        shared: shared.clone(),
        store: store.clone(),
        rng,
        segment_bytes: options.segment_bytes,
        active: None,
        cut: found.cut,
        durable_lsn: found.last_lsn,
        buffer: Vec::new(),
    };
    let replay = Replay::new(store, shared.clone(), found.segments, found.report);
    Ok(Prepared {
        shared,
        writer_id,
        committer,
        replay,
    })
}
