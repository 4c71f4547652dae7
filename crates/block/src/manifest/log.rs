//! The manifest in the object store: load, follow, commit, snapshot, tidy up.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use trilith_model::{Clock, Error, ErrorKind, Result, Signal, task};
use trilith_object::{PutOutcome, Store};
use ulid::Ulid;

use super::delta::{Change, Delta};
use super::state::State;
use crate::crash;

/// Deltas after which a snapshot is due.
const SNAPSHOT_EVERY: u64 = 256;
/// Newest snapshots that stay, with all deltas after the oldest of them, in case one cannot be read.
const SNAPSHOTS_KEPT: usize = 3;
/// Superseded objects of the manifest stay this long for readers that are behind.
const SUPERSEDED_GRACE: Duration = Duration::from_secs(24 * 3600);
/// Requests under way while the log is read at the start.
const LOAD_CONCURRENCY: usize = 16;

/// Why a change was not committed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// These blocks were removed or masked meanwhile. The state is up to date; plan again.
    #[error("blocks {missing:?} were removed or masked meanwhile")]
    Conflict { missing: Vec<Ulid> },
    /// A newer life of this writer has begun; this one must stop.
    #[error("writer {writer} was taken over with epoch {epoch}")]
    Fenced { writer: String, epoch: u64 },
    /// The store failed. Whether the change was committed is unknown: commit the same change again.
    #[error(transparent)]
    Store(#[from] Error),
}

impl From<CommitError> for Error {
    fn from(e: CommitError) -> Error {
        let message = e.to_string();
        match e {
            CommitError::Conflict { .. } => Error::unavailable(message),
            CommitError::Fenced { .. } => Error::new(ErrorKind::Fenced, message),
            CommitError::Store(e) => e,
        }
    }
}

/// A shard's manifest as far as it is known here.
pub struct Manifest {
    store: Store,
    state: State,
    /// Number of the newest snapshot known; 0 when there is none.
    snapshot: u64,
    /// Deleted blocks that the next delta will report.
    purged: BTreeSet<Ulid>,
}

/// `<signal>-0`.
pub(crate) fn shard_name(signal: Signal) -> String {
    format!("{signal}-0")
}

impl Manifest {
    /// Reads the newest snapshot and the deltas after it. Reads only; for writing, see [`Manifest::commit`].
    ///
    /// # Errors
    /// `Corrupt` with the name of the object that is damaged or missing; those of the store.
    pub async fn load(store: Store, signal: Signal) -> Result<Manifest> {
        let shard = shard_name(signal);
        let snapshots = numbers(&store, &folder(&shard, "snap")).await?;
        let deltas = numbers(&store, &folder(&shard, "log")).await?;
        let mut damaged = Vec::new();
        let mut state = State::new(&shard);
        for &n in snapshots.iter().rev() {
            match read_snapshot(&store, &shard, n).await {
                Ok(Some(found)) => {
                    state = found;
                    break;
                }
                // Tidied away since it was listed.
                Ok(None) => {}
                Err(e) if e.kind == ErrorKind::Corrupt => {
                    tracing::error!(error = %e, "manifest snapshot is damaged, falling back to an older one");
                    damaged.push(e.message);
                }
                Err(e) => return Err(e),
            }
        }
        let mut manifest = Manifest {
            store,
            snapshot: state.n,
            state,
            purged: BTreeSet::new(),
        };
        // What the listing has shown must be there; only what comes after it may be absent.
        let listed = deltas.last().copied().unwrap_or(0);
        let newest = listed.max(snapshots.last().copied().unwrap_or(0));
        manifest
            .follow_listed(manifest.state.n + 1..=newest)
            .await
            .map_err(|e| match damaged.is_empty() {
                true => e,
                false => e.context(format!("after damaged snapshots ({})", damaged.join("; "))),
            })?;
        manifest.catch_up().await?;
        Ok(manifest)
    }

    /// Reads deltas that must exist, many at a time, and applies them in order.
    async fn follow_listed(&mut self, range: RangeInclusive<u64>) -> Result<()> {
        let (store, shard) = (self.store.clone(), self.state.shard.clone());
        let mut deltas = futures::stream::iter(range)
            .map(|n| {
                let (store, shard) = (&store, &shard);
                async move {
                    read_delta(store, shard, n).await?.ok_or_else(|| {
                        Error::corrupt(format!(
                            "manifest delta {} is missing while later objects exist",
                            delta_path(shard, n)
                        ))
                    })
                }
            })
            .buffered(LOAD_CONCURRENCY);
        while let Some(delta) = deltas.try_next().await? {
            self.apply(&delta)?;
        }
        Ok(())
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// Applies the deltas that others have committed. True when there were any.
    ///
    /// # Errors
    /// `Corrupt` with the name of the delta; those of the store. The state is that of the last good delta then.
    pub async fn catch_up(&mut self) -> Result<bool> {
        let before = self.state.n;
        while let Some(delta) = read_delta(&self.store, &self.state.shard, self.state.n + 1).await? {
            self.apply(&delta)?;
        }
        Ok(self.state.n != before)
    }

    /// For a writer that has not looked for long: deltas that it would follow may be tidied away, and a delta put
    /// under such a name would be lost. Loads anew when the newest snapshot is ahead.
    ///
    /// # Errors
    /// Those of `load`.
    pub async fn refresh(&mut self, signal: Signal) -> Result<()> {
        let snapshots = numbers(&self.store, &folder(&self.state.shard, "snap")).await?;
        if snapshots.last().is_some_and(|&newest| newest > self.state.n) {
            let purged = std::mem::take(&mut self.purged);
            *self = Manifest::load(self.store.clone(), signal).await?;
            self.purged = purged;
        }
        Ok(())
    }

    /// Commits a change: afterwards it is part of the state, here and for everybody.
    ///
    /// Cancel safe: dropped in the middle, the change may or may not be committed; committing it again finds out.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn commit(&mut self, change: &Change) -> Result<(), CommitError> {
        while !self.attempt(change).await? {}
        Ok(())
    }

    /// One number's worth of [`Manifest::commit`]: false when another writer's delta took it, which is applied then.
    pub(crate) async fn attempt(&mut self, change: &Change) -> Result<bool, CommitError> {
        if self.state.has(change) {
            return Ok(true);
        }
        let writer = self.state.writer(&change.writer);
        if writer.epoch > change.epoch {
            return Err(CommitError::Fenced {
                writer: change.writer.clone(),
                epoch: writer.epoch,
            });
        }
        let missing = self.state.missing(change);
        if !missing.is_empty() {
            return Err(CommitError::Conflict { missing });
        }
        let n = self.state.n + 1;
        let purged = self.purged.iter().copied().collect();
        let delta = Delta::new(change, &self.state.shard, n, purged);
        let path = delta_path(&self.state.shard, n);
        match self.store.put_if_absent(&path, delta.encode()?).await? {
            PutOutcome::Created => {
                crash::point("manifest-put");
                self.apply(&delta)?;
                Ok(true)
            }
            PutOutcome::Exists => {
                let Some(winner) = read_delta(&self.store, &self.state.shard, n).await? else {
                    return Err(Error::unavailable(format!("{path} exists and cannot be read yet")).into());
                };
                self.apply(&winner)?;
                let won = winner.nonce == change.nonce;
                if !won {
                    tracing::debug!(n, winner = winner.writer, "lost the race for a delta");
                }
                Ok(won)
            }
        }
    }

    fn apply(&mut self, delta: &Delta) -> Result<()> {
        self.state
            .apply(delta)
            .map_err(|e| e.context(format!("manifest delta {}", delta_path(&self.state.shard, delta.n))))?;
        for id in &delta.purged {
            self.purged.remove(id);
        }
        Ok(())
    }

    /// Tells that the objects of removed blocks are deleted; the next delta passes it on.
    pub fn purged(&mut self, ids: impl IntoIterator<Item = Ulid>) {
        let removed = &self.state.removed;
        self.purged
            .extend(ids.into_iter().filter(|id| removed.contains_key(id)));
    }

    /// Removed blocks whose objects may still be there.
    pub fn garbage(&self) -> impl Iterator<Item = (Ulid, &super::Removed)> {
        self.state
            .removed
            .iter()
            .filter(|(id, _)| !self.purged.contains(id))
            .map(|(id, removed)| (*id, removed))
    }

    /// Whether enough deltas have come since the last snapshot.
    pub fn snapshot_due(&self) -> bool {
        self.state.n >= self.snapshot + SNAPSHOT_EVERY
    }

    /// Tells that a snapshot of this number exists.
    pub fn snapshot_written(&mut self, n: u64) {
        self.snapshot = self.snapshot.max(n);
    }
}

/// Writes a snapshot, reads it back, and deletes what it makes superfluous, keeping a few older snapshots.
///
/// # Errors
/// `Corrupt` when what was read back is not what was written; those of the store. The log is complete without it.
pub async fn write_snapshot(store: &Store, state: State, clock: &dyn Clock) -> Result<()> {
    let (shard, n) = (state.shard.clone(), state.n);
    let bytes = task::background(move || state.encode()).await??;
    // Somebody else's snapshot of the same number has the same content.
    store.put_if_absent(&snapshot_path(&shard, n), bytes).await?;
    crash::point("snapshot-put");
    if read_snapshot(store, &shard, n).await?.is_none() {
        return Err(Error::corrupt(format!(
            "{} vanished after it was written",
            snapshot_path(&shard, n)
        )));
    }
    tidy(store, &shard, clock).await
}

/// Deletes deltas and snapshots that no start needs, oldest first.
async fn tidy(store: &Store, shard: &str, clock: &dyn Clock) -> Result<()> {
    let mut snapshots = store.list(&folder(shard, "snap")).await?;
    snapshots.sort_by(|a, b| a.path.cmp(&b.path));
    let Some(kept) = snapshots.len().checked_sub(SNAPSHOTS_KEPT) else {
        return Ok(());
    };
    let Some(oldest_kept) = snapshots.get(kept).and_then(|o| number_of(&o.path)) else {
        return Ok(());
    };
    let grace_ms = i64::try_from(SUPERSEDED_GRACE.as_millis()).unwrap_or(i64::MAX);
    let before_ms = clock.now_ms().saturating_sub(grace_ms);
    let mut deltas = store.list(&folder(shard, "log")).await?;
    deltas.sort_by(|a, b| a.path.cmp(&b.path));
    let superseded = deltas
        .iter()
        .filter(|o| number_of(&o.path).is_some_and(|n| n <= oldest_kept))
        .chain(&snapshots[..kept])
        .filter(|o| o.modified_ms < before_ms);
    for object in superseded {
        store.delete(&object.path).await?;
    }
    Ok(())
}

async fn read_delta(store: &Store, shard: &str, n: u64) -> Result<Option<Delta>> {
    let path = delta_path(shard, n);
    let Some(bytes) = store.get(&path).await? else {
        return Ok(None);
    };
    match Delta::decode(&bytes, shard, n) {
        Ok(delta) => Ok(Some(delta)),
        Err(e) => Err(e.context(format!("manifest delta {path}"))),
    }
}

async fn read_snapshot(store: &Store, shard: &str, n: u64) -> Result<Option<State>> {
    let path = snapshot_path(shard, n);
    let Some(bytes) = store.get(&path).await? else {
        return Ok(None);
    };
    let owned = shard.to_owned();
    // Large: a hundred thousand blocks take a good part of a second.
    task::background(move || State::decode(&bytes, &owned, n))
        .await?
        .map(Some)
        .map_err(|e| e.context(format!("manifest snapshot {path}")))
}

/// Ascending numbers of the objects in a folder; foreign names are ignored.
async fn numbers(store: &Store, folder: &str) -> Result<Vec<u64>> {
    let objects = store.list(folder).await?;
    let mut numbers: Vec<u64> = objects.iter().filter_map(|o| number_of(&o.path)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn number_of(path: &str) -> Option<u64> {
    let name = path.rsplit('/').next()?;
    if name.len() != 20 || !name.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // Far below the end, so that counting on from a forged name cannot overflow.
    name.parse().ok().filter(|n| *n < 1 << 62)
}

fn folder(shard: &str, what: &str) -> String {
    format!("meta/{shard}/{what}")
}

pub(super) fn delta_path(shard: &str, n: u64) -> String {
    format!("meta/{shard}/log/{n:020}")
}

pub(crate) fn snapshot_path(shard: &str, n: u64) -> String {
    format!("meta/{shard}/snap/{n:020}")
}
