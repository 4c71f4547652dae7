//! The life of a signal's data on one node: heads, cut, commit, view.
//!
//! A record belongs to the head that was active when its LSN was handed out. A cut swaps the active head under the
//! same lock that hands out LSNs, so "everything up to LSN n" and "everything in the frozen heads" are the same
//! set; the manifest delta that adds the blocks carries n. Queries read one [`View`]: the commit replaces it in
//! one step, so a record is seen in a head or in a block, never both, never neither.
//!
//! ```text
//! begin ──► active head ──freeze──► frozen head ──encode, upload──► delta n ──► view without the head, with blocks
//!             ▲ tickets                  ▲ waits for its tickets                 └► committed(upto) ► WAL release
//! ```
//!
//! Whoever publishes a manifest state, cut or merge, drops every frozen head that the state's `wal_upto` covers in the
//! same step. So a commit whose answer was lost, and that a merge then finds in the log, is never shown twice.
//!
//! Failure: while the store is down the frozen head stays and is served, records gather in the active one, and beyond
//! `head_total_bytes_max` [`Shard::begin`] refuses with `Unavailable`. Crash: what no delta covers is in the WAL and
//! comes back through [`Shard::replay`].
//!
//! Locks, in this order: `pipeline`, `compaction` (async, one cut and one round of merges at a time), `manifest`
//! (async, held across the commit), `live` (held for moments; the hot path).

mod cut;
mod delete;
mod run;
mod snapshot;
mod stats;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Notify, watch};
use trilith_model::rng::Rng;
use trilith_model::{Clock, Error, ErrorKind, Result, Signal, TenantId, TimeRange};
use trilith_object::Store;
use ulid::Ulid;

use crate::compact::PlannerOptions;
use crate::compact::planner::Now;
use crate::engine::{BlockHandle, Engine, Head as _};
use crate::gc::Observed;
use crate::manifest::{Change, CommitError, Manifest, State};
use crate::meta::BlockMeta;
use crate::path::{IdSource, block_folder, parse_block_object};
use crate::upload::InFlight;

pub(crate) use run::Backoff;
pub use stats::{HeadStats, ShardStats};

#[derive(Clone, Debug)]
pub struct ShardOptions {
    /// Cut when the active head is larger.
    pub head_bytes_max: u64,
    /// Cut when the oldest record of the active head has waited longer.
    pub head_age_max: Duration,
    /// Frozen and active heads together: above it, `begin` refuses with `Unavailable`.
    pub head_total_bytes_max: u64,
    /// Age of data, by record time, after which blocks go; zero keeps for ever.
    pub retention: Duration,
    /// How long a removed block's objects stay for running queries.
    pub delete_grace: Duration,
    /// Age of an object below `blocks/` that no manifest knows before it is deleted.
    pub orphan_age: Duration,
    /// Lengths of the merge levels' windows, ascending; empty turns merging off.
    pub compaction_windows: Vec<Duration>,
    /// Blocks of one tenant in one window that make a merge worth it before the window has closed.
    pub compaction_fan_in_min: usize,
    pub compaction_fan_in_max: usize,
    /// Largest sum of the sizes of a merge's inputs.
    pub block_bytes_max: u64,
    /// Two blocks of a closed window are merged when no new one has come for so long.
    pub compaction_settle: Duration,
    /// Merges at once.
    pub compaction_jobs_max: usize,
    /// Between two looks for merges, expired blocks and garbage.
    pub maintenance_interval: Duration,
    /// Between two searches for orphans, which list all blocks.
    pub orphan_interval: Duration,
    /// For files that merges spool; shards may share it.
    pub scratch: std::path::PathBuf,
}

impl ShardOptions {
    /// The defaults of a signal.
    pub fn defaults(signal: Signal, scratch: impl Into<std::path::PathBuf>) -> Self {
        const HOUR: Duration = Duration::from_secs(3600);
        let first = match signal {
            Signal::Metrics => 2 * HOUR,
            Signal::Logs | Signal::Traces => HOUR,
        };
        ShardOptions {
            head_bytes_max: 128 << 20,
            head_age_max: Duration::from_secs(15 * 60),
            head_total_bytes_max: 512 << 20,
            retention: Duration::ZERO,
            delete_grace: HOUR,
            orphan_age: 24 * HOUR,
            compaction_windows: vec![first, 12 * HOUR, 8 * 24 * HOUR],
            compaction_fan_in_min: 8,
            compaction_fan_in_max: 16,
            block_bytes_max: 512 << 20,
            compaction_settle: Duration::from_secs(30 * 60),
            compaction_jobs_max: 1,
            maintenance_interval: Duration::from_secs(60),
            orphan_interval: 6 * HOUR,
            scratch: scratch.into(),
        }
    }

    fn planner(&self, signal: Signal) -> PlannerOptions {
        PlannerOptions {
            windows: self.compaction_windows.iter().map(|w| in_unit(signal, *w)).collect(),
            fan_in_min: self.compaction_fan_in_min,
            fan_in_max: self.compaction_fan_in_max,
            block_bytes_max: self.block_bytes_max,
            settle_ms: i64::try_from(self.compaction_settle.as_millis()).unwrap_or(i64::MAX),
            retention: (!self.retention.is_zero()).then(|| in_unit(signal, self.retention)),
        }
    }
}

/// A store without a manifest must not have blocks either: every writer commits a delta before its first upload. Going
/// on would hide the blocks, and garbage collection would take them for orphans.
async fn refuse_lost_manifest(store: &Store, signal: Signal) -> Result<()> {
    let objects = store.list("blocks").await?;
    let of_signal = |path: &str| parse_block_object(path).is_some_and(|(s, ..)| s == signal);
    match objects.iter().find(|o| of_signal(&o.path)) {
        None => Ok(()),
        Some(o) => Err(Error::corrupt(format!(
            "the store has no manifest of {signal}, but blocks ({}, …); restore its meta/ folder, or move blocks/ away",
            o.path
        ))),
    }
}

/// A duration in the unit of the signal's record times; saturates.
fn in_unit(signal: Signal, duration: Duration) -> i64 {
    let count = match signal {
        Signal::Metrics => duration.as_millis(),
        Signal::Logs | Signal::Traces => duration.as_nanos(),
    };
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// One consistent picture for a query. Holding it keeps its heads alive; the objects of its blocks stay for
/// `delete_grace` after they were replaced.
pub struct View<E: Engine> {
    /// Oldest first; the last one is active.
    pub heads: Vec<Arc<E::Head>>,
    /// Sorted by tenant, then start, then id. Shared, because a cut must not copy it under the lock of `begin`.
    pub blocks: Arc<Vec<BlockHandle>>,
}

impl<E: Engine> View<E> {
    /// Blocks of a tenant that may hold records of the range, by start.
    pub fn blocks_of<'a>(
        &'a self,
        tenant: &'a TenantId,
        range: TimeRange,
    ) -> impl Iterator<Item = &'a BlockHandle> + 'a {
        let first = self
            .blocks
            .partition_point(|b| b.meta.tenant.as_str() < tenant.as_str());
        self.blocks[first..]
            .iter()
            // By start: nothing after the range's end can overlap it.
            .take_while(move |b| b.meta.tenant == tenant.as_str() && b.meta.time_min <= range.max)
            .filter(move |b| range.min <= b.meta.time_max)
    }
}

/// A head and the records on their way into it.
pub(crate) struct Slot<E: Engine> {
    head: Arc<E::Head>,
    tickets: AtomicU64,
    drained: Notify,
}

impl<E: Engine> Slot<E> {
    fn new(engine: &E) -> Arc<Self> {
        Arc::new(Slot {
            head: Arc::new(engine.new_head()),
            tickets: AtomicU64::new(0),
            drained: Notify::new(),
        })
    }

    /// Waits until all tickets are back. Only for a frozen slot, which gets no new ones.
    async fn drain(&self) {
        // A permit left over from the slot's active time costs one more turn.
        while self.tickets.load(Ordering::Acquire) != 0 {
            self.drained.notified().await;
        }
    }
}

/// Keeps a head from being cut while a record is on its way from the log into it.
pub struct AppendTicket<E: Engine> {
    slot: Arc<Slot<E>>,
}

impl<E: Engine> AppendTicket<E> {
    pub fn head(&self) -> &Arc<E::Head> {
        &self.slot.head
    }
}

impl<E: Engine> Drop for AppendTicket<E> {
    fn drop(&mut self) {
        if self.slot.tickets.fetch_sub(1, Ordering::Release) == 1 {
            self.slot.drained.notify_one();
        }
    }
}

/// What `begin` and the cut share.
struct Live<E: Engine> {
    active: Arc<Slot<E>>,
    /// Last LSN bound to the active head; 0 while it has none.
    last_lsn: u64,
    /// When the active head got its first record, by the monotonic clock.
    first_at: Option<Duration>,
    /// At most one: the next freeze waits until this one is committed.
    frozen: Option<Frozen<E>>,
    blocks: Arc<Vec<BlockHandle>>,
}

struct Frozen<E: Engine> {
    slot: Arc<Slot<E>>,
    last_lsn: u64,
}

impl<E: Engine> Clone for Frozen<E> {
    fn clone(&self) -> Self {
        Frozen {
            slot: self.slot.clone(),
            last_lsn: self.last_lsn,
        }
    }
}

pub(crate) struct Inner<E: Engine> {
    pub(crate) engine: Arc<E>,
    pub(crate) signal: Signal,
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Arc<Rng>,
    pub(crate) writer: String,
    pub(crate) epoch: u64,
    pub(crate) options: ShardOptions,
    pub(crate) ids: IdSource,
    pub(crate) in_flight: InFlight,
    pub(crate) counters: stats::Counters,
    pub(crate) compaction: AsyncMutex<()>,
    pub(crate) manifest: AsyncMutex<Manifest>,
    /// Blocks that a merge found damaged: served as they are, merged never again by this process.
    pub(crate) quarantined: Mutex<HashSet<Ulid>>,
    pub(crate) observed: Mutex<Observed>,
    pipeline: AsyncMutex<cut::Pipeline>,
    live: Mutex<Live<E>>,
    view: ArcSwap<View<E>>,
    committed: watch::Sender<u64>,
    /// Wakes the cut loop: first record of a head, or a head that is full.
    wake: Notify,
    /// Wakes maintenance: there are new blocks.
    pub(crate) cut_done: Notify,
    fenced: AtomicBool,
    /// By the wall clock, when the manifest was last known to be current.
    manifest_seen_ms: Mutex<i64>,
}

/// Cheap to clone; all clones are one shard.
pub struct Shard<E: Engine> {
    pub(crate) inner: Arc<Inner<E>>,
}

impl<E: Engine> Clone for Shard<E> {
    fn clone(&self) -> Self {
        Shard {
            inner: self.inner.clone(),
        }
    }
}

/// Without a look at the log for so long, a writer loads anew when the log has moved on past a snapshot.
const MANIFEST_STALE_MS: i64 = 3_600_000;

impl<E: Engine> Shard<E> {
    /// Loads the manifest and commits the fence of this writer's new life: from here on nothing that a former life of
    /// `writer_id` has under way can be committed. Replay from [`Shard::wal_upto`] comes next, then appends.
    ///
    /// # Errors
    /// `Corrupt` with the name of the object when the manifest is damaged; those of the store.
    pub async fn open(
        engine: Arc<E>,
        store: Store,
        clock: Arc<dyn Clock>,
        rng: Arc<Rng>,
        writer_id: String,
        options: ShardOptions,
    ) -> Result<Shard<E>> {
        let signal = engine.signal();
        let mut manifest = Manifest::load(store.clone(), signal).await?;
        if manifest.state().n == 0 {
            refuse_lost_manifest(&store, signal).await?;
        }
        let epoch = open_epoch(&mut manifest, &writer_id, &rng, clock.now_ms()).await?;
        crate::compact::driver::clear_scratch(&options.scratch, signal).await;
        let state = manifest.state();
        let newest = state
            .blocks
            .last_key_value()
            .map(|(id, _)| *id)
            .max(state.removed.last_key_value().map(|(id, _)| *id))
            .unwrap_or_default();
        let upto = state.writer(&writer_id).wal_upto;
        let live = Live {
            active: Slot::new(&*engine),
            last_lsn: 0,
            first_at: None,
            frozen: None,
            blocks: Arc::new(handles(&[], state, signal, &store)),
        };
        let view = ArcSwap::from(live.view());
        let inner = Inner {
            signal,
            ids: IdSource::new(clock.clone(), rng.clone(), newest),
            in_flight: InFlight::default(),
            counters: stats::Counters::default(),
            compaction: AsyncMutex::new(()),
            quarantined: Mutex::default(),
            observed: Mutex::new(Observed::at_start(&state.removed)),
            pipeline: AsyncMutex::default(),
            live: Mutex::new(live),
            view,
            committed: watch::Sender::new(upto),
            wake: Notify::new(),
            cut_done: Notify::new(),
            fenced: AtomicBool::new(false),
            manifest_seen_ms: Mutex::new(clock.now_ms()),
            manifest: AsyncMutex::new(manifest),
            engine,
            store,
            clock,
            rng,
            writer: writer_id,
            epoch,
            options,
        };
        Ok(Shard { inner: Arc::new(inner) })
    }

    /// Records of this writer up to and including this LSN are in committed blocks: replay starts after it.
    pub fn wal_upto(&self) -> u64 {
        *self.inner.committed.borrow()
    }

    /// The value of [`Shard::wal_upto`] as it grows; the receiver of the WAL's `release`.
    pub fn committed(&self) -> watch::Receiver<u64> {
        self.inner.committed.subscribe()
    }

    /// Calls `log`, which hands out the LSN by appending to the WAL and returns it, and binds the record to the active
    /// head. The caller then waits for durability, applies the record to `ticket.head()` and drops the ticket; when
    /// the append fails it drops the ticket without applying. LSNs count from 1 and ascend from call to call.
    ///
    /// `log` runs under the shard's lock and must not block.
    ///
    /// # Errors
    /// `Unavailable` while the heads exceed `head_total_bytes_max` because blocks cannot be committed; `Fenced` when
    /// another process has taken over the writer id; those of `log`.
    pub fn begin<R>(&self, log: impl FnOnce() -> Result<(u64, R)>) -> Result<(AppendTicket<E>, R)> {
        let inner = &*self.inner;
        if inner.fenced.load(Ordering::Relaxed) {
            return Err(inner.fenced_error());
        }
        let mut live = inner.live.lock();
        let active = live.active.head.bytes();
        let frozen = live.frozen.as_ref().map_or(0, |f| f.slot.head.bytes());
        if active.saturating_add(frozen) > inner.options.head_total_bytes_max {
            drop(live);
            inner.wake.notify_one();
            inner.counters.refused.fetch_add(1, Ordering::Relaxed);
            let (signal, ceiling) = (inner.signal, inner.options.head_total_bytes_max);
            return Err(Error::unavailable(format!(
                "recent {signal} exceed {ceiling} bytes because blocks cannot be written fast enough; \
                 try again later (the ceiling follows head.{signal}-size)"
            )));
        }
        let (lsn, logged) = log()?;
        let wake = live.bind(lsn, || inner.clock.monotonic())
            || (active > inner.options.head_bytes_max && live.frozen.is_none());
        let slot = live.active.clone();
        drop(live);
        if wake {
            inner.wake.notify_one();
        }
        Ok((AppendTicket { slot }, logged))
    }

    /// As `begin`, for a record read back from the WAL. `None` when a committed block holds it already: the caller
    /// skips it. LSNs come in ascending order, before the first `begin`.
    pub fn replay(&self, lsn: u64) -> Option<AppendTicket<E>> {
        if lsn <= self.wal_upto() {
            return None;
        }
        let mut live = self.inner.live.lock();
        live.bind(lsn, || self.inner.clock.monotonic());
        Some(AppendTicket {
            slot: live.active.clone(),
        })
    }

    /// Between two replayed records: cuts when the active head is full, and waits for the store as long as it takes, so
    /// that a replay never holds more than `head_bytes_max`. The caller drops its tickets before.
    ///
    /// # Errors
    /// All but `Unavailable` and `Timeout`, which are tried again.
    pub async fn maybe_flush_during_replay(&self) -> Result<()> {
        let full = {
            let live = self.inner.live.lock();
            live.active.head.bytes() > self.inner.options.head_bytes_max
        };
        if !full {
            return Ok(());
        }
        self.flush_persistently().await
    }

    /// Reads what other writers have committed and shows it.
    ///
    /// # Errors
    /// `Corrupt` with the name of a damaged delta; those of the store.
    pub async fn refresh(&self) -> Result<()> {
        self.inner.catch_up().await
    }

    /// What a query sees. One load; keep it for the whole query.
    pub fn view(&self) -> Arc<View<E>> {
        self.inner.view.load_full()
    }

    pub fn engine(&self) -> &Arc<E> {
        &self.inner.engine
    }

    pub fn options(&self) -> &ShardOptions {
        &self.inner.options
    }

    /// From the shard's generator.
    pub fn random(&self) -> u64 {
        self.inner.rng.next_u64()
    }

    /// The committed blocks, as the view has them.
    pub fn blocks(&self) -> Arc<Vec<BlockHandle>> {
        self.view().blocks.clone()
    }
}

impl<E: Engine> Live<E> {
    /// Binds an LSN to the active head. True for the head's first one.
    fn bind(&mut self, lsn: u64, now: impl FnOnce() -> Duration) -> bool {
        self.last_lsn = self.last_lsn.max(lsn);
        self.active.tickets.fetch_add(1, Ordering::Relaxed);
        let first = self.first_at.is_none();
        if first {
            self.first_at = Some(now());
        }
        first
    }

    fn view(&self) -> Arc<View<E>> {
        let frozen = self.frozen.iter().map(|f| f.slot.head.clone());
        Arc::new(View {
            heads: frozen.chain([self.active.head.clone()]).collect(),
            blocks: self.blocks.clone(),
        })
    }
}

impl<E: Engine> Inner<E> {
    /// Shows a manifest state: its blocks, and no frozen head that it covers. The caller holds the manifest's lock, so
    /// states are shown in their order.
    pub(crate) fn publish(&self, state: &State) {
        let old = self.view.load().blocks.clone();
        let blocks = Arc::new(handles(&old, state, self.signal, &self.store));
        let own = state.writer(&self.writer);
        // After a takeover the number speaks of the other process's records, and this one is fenced anyway.
        let upto = (own.epoch == self.epoch).then_some(own.wal_upto);
        {
            let mut live = self.live.lock();
            live.blocks = blocks;
            if let (Some(upto), Some(frozen)) = (upto, &live.frozen)
                && frozen.last_lsn <= upto
            {
                live.frozen = None;
            }
            self.view.store(live.view());
        }
        if let Some(upto) = upto {
            self.raise_committed(upto);
        }
        let now = self.clock.monotonic();
        self.observed.lock().update(&state.removed, now);
    }

    fn raise_committed(&self, upto: u64) {
        self.committed.send_if_modified(|known| {
            let grows = upto > *known;
            *known = upto.max(*known);
            grows
        });
    }

    /// Commits and shows the result in one go.
    pub(crate) async fn commit(&self, change: &Change, committed: &'static str) -> Result<(), CommitError> {
        let mut manifest = self.manifest.lock().await;
        self.refresh_if_stale(&mut manifest).await?;
        let before = manifest.state().n;
        let result = manifest.commit(change).await;
        if result.is_ok() {
            crate::crash::point(committed);
        }
        // Also after an error: others' deltas may have been read, among them our own of a lost answer.
        if manifest.state().n != before {
            self.publish(manifest.state());
        }
        let snapshot = manifest.snapshot_due().then(|| manifest.state().clone());
        if let Some(state) = &snapshot {
            // Not tried again before the next one is due, should it fail.
            manifest.snapshot_written(state.n);
        }
        drop(manifest);
        if let Err(CommitError::Fenced { .. }) = &result {
            self.fenced.store(true, Ordering::Relaxed);
        }
        if let Some(state) = snapshot {
            let n = state.n;
            match crate::manifest::write_snapshot(&self.store, state, &*self.clock).await {
                Ok(()) => tracing::info!(signal = %self.signal, n, "manifest snapshot written"),
                Err(e) => {
                    tracing::warn!(signal = %self.signal, n, error = %e, "manifest snapshot failed");
                }
            }
        }
        result
    }

    /// See [`Manifest::refresh`].
    async fn refresh_if_stale(&self, manifest: &mut Manifest) -> Result<()> {
        let now_ms = self.clock.now_ms();
        let stale = now_ms.saturating_sub(*self.manifest_seen_ms.lock()) > MANIFEST_STALE_MS;
        if stale {
            let before = manifest.state().n;
            manifest.refresh(self.signal).await?;
            if manifest.state().n != before {
                self.publish(manifest.state());
            }
        }
        *self.manifest_seen_ms.lock() = now_ms;
        Ok(())
    }

    /// See [`Shard::refresh`].
    pub(crate) async fn catch_up(&self) -> Result<()> {
        let mut manifest = self.manifest.lock().await;
        let before = manifest.state().n;
        let result = manifest.catch_up().await;
        if manifest.state().n != before {
            self.publish(manifest.state());
        }
        result.map(|_| ())
    }

    pub(crate) fn change(&self) -> Change {
        Change {
            nonce: self.rng.next_u128(),
            writer: self.writer.clone(),
            epoch: self.epoch,
            wal_upto: None,
            add: Vec::new(),
            remove: Vec::new(),
            tombstones: Vec::new(),
            applied: BTreeSet::new(),
            time_ms: self.clock.now_ms(),
        }
    }

    pub(crate) fn now(&self) -> Now {
        let time = match self.signal {
            Signal::Metrics => self.clock.now_ms(),
            Signal::Logs | Signal::Traces => self.clock.now_ns(),
        };
        Now {
            time,
            ms: self.clock.now_ms(),
        }
    }

    pub(crate) fn planner_options(&self) -> PlannerOptions {
        self.options.planner(self.signal)
    }

    pub(crate) fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::Relaxed)
    }

    fn fenced_error(&self) -> Error {
        Error::new(
            ErrorKind::Fenced,
            format!(
                "another process has taken over writer {} of {}",
                self.writer, self.signal
            ),
        )
    }

    pub(crate) fn handle(&self, meta: &Arc<BlockMeta>) -> BlockHandle {
        handle(meta, self.signal, &self.store, Arc::default())
    }
}

/// Takes the next epoch of the writer and makes it known.
async fn open_epoch(manifest: &mut Manifest, writer: &str, rng: &Rng, now_ms: i64) -> Result<u64> {
    // Each lost turn is another process that commits at the same time; the epoch is taken anew after each, so that no
    // two lives share one.
    for _ in 0..64 {
        let epoch = manifest.state().writer(writer).epoch + 1;
        let fence = Change {
            nonce: rng.next_u128(),
            writer: writer.to_owned(),
            epoch,
            wal_upto: None,
            add: Vec::new(),
            remove: Vec::new(),
            tombstones: Vec::new(),
            applied: BTreeSet::new(),
            time_ms: now_ms,
        };
        match manifest.attempt(&fence).await {
            Ok(true) => return Ok(epoch),
            Ok(false) => {}
            Err(e) => return Err(Error::from(e).context("opening the manifest for writing")),
        }
    }
    Err(Error::unavailable(format!(
        "opening the manifest for writing as {writer}: others commit without pause"
    )))
}

fn handle(
    meta: &Arc<BlockMeta>,
    signal: Signal,
    store: &Store,
    tombstones: Arc<[Arc<crate::manifest::Tombstone>]>,
) -> BlockHandle {
    BlockHandle {
        meta: meta.clone(),
        store: store.clone(),
        folder: block_folder(signal, &meta.tenant, meta.id).into(),
        tombstones,
    }
}

/// Handles for all blocks of a state, those of `old` as they are.
fn handles(old: &[BlockHandle], state: &State, signal: Signal, store: &Store) -> Vec<BlockHandle> {
    let masks = state.masks();
    let mask = |id: &Ulid| masks.get(id).cloned().unwrap_or_default();
    let known: HashSet<Ulid> = old.iter().map(|b| b.meta.id).collect();
    let kept = old.iter().filter(|b| state.blocks.contains_key(&b.meta.id)).map(|b| {
        let mut b = b.clone();
        if !b.tombstones.is_empty() || masks.contains_key(&b.meta.id) {
            b.tombstones = mask(&b.meta.id);
        }
        b
    });
    let fresh = state
        .blocks
        .values()
        .filter(|meta| !known.contains(&meta.id))
        .map(|meta| handle(meta, signal, store, mask(&meta.id)));
    let mut all: Vec<BlockHandle> = kept.chain(fresh).collect();
    all.sort_by(|a, b| {
        let (a, b) = (&a.meta, &b.meta);
        (&a.tenant, a.time_min, a.id).cmp(&(&b.tenant, b.time_min, b.id))
    });
    all
}

#[cfg(test)]
mod tests;
