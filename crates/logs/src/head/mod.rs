//! The head: recent entries of all tenants, not yet in blocks.
//!
//! Per tenant: a table of streams with an index for matchers, one open chunk and the sealed ones. Everything that
//! a push does under the tenant's lock is copying; sealing sorts at most 1 MiB, and compression runs after the lock
//! is given back.
//!
//! Records may be applied in another order than they were logged: rows carry their LSN, and readers sort by it.
//!
//! Lock order: the tenant map, then one tenant's state. Neither is held across an await.

pub(crate) mod chunk;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use trilith_index::{Bitmap, MemIndex};
use trilith_model::{Labels, LogBatch, Matcher, Result, TenantId, TimeRange};

use chunk::{Chunk, OpenChunk};

/// Entries and streams of one generation.
#[derive(Default)]
pub struct LogsHead {
    tenants: RwLock<HashMap<TenantId, Arc<TenantHead>, foldhash::fast::RandomState>>,
    /// Heap bytes of all tenants.
    heap: AtomicU64,
    /// Line bytes before compression.
    raw: AtomicU64,
    entries: AtomicU64,
}

#[derive(Default)]
pub(crate) struct TenantHead {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ids: HashMap<Labels, u32, foldhash::fast::RandomState>,
    streams: Vec<Stream>,
    index: MemIndex,
    open: OpenChunk,
    sealed: Vec<Arc<Chunk>>,
}

struct Stream {
    labels: Labels,
    /// Empty until the first entry is applied: a stream is registered when it is admitted.
    time: TimeRange,
}

impl State {
    fn stream(&mut self, labels: &Labels) -> u32 {
        if let Some(&id) = self.ids.get(labels) {
            return id;
        }
        let id = self.streams.len() as u32;
        self.index.add(id, labels.as_ref());
        self.ids.insert(labels.clone(), id);
        self.streams.push(Stream {
            labels: labels.clone(),
            time: TimeRange::EMPTY,
        });
        id
    }

    fn heap_bytes(&self) -> usize {
        // Labels are shared with the id table; 96 for both entries and the share of the maps.
        self.open.heap_bytes() + self.index.bytes()
    }
}

/// What a query takes from one tenant of a head.
pub(crate) struct HeadPart {
    /// Selected streams: ordinal (ascending), labels.
    pub streams: Vec<(u32, Labels)>,
    /// In the order they were filled; only those that overlap the range and hold a selected stream.
    pub chunks: Vec<Arc<Chunk>>,
}

impl LogsHead {
    pub(crate) fn tenant(&self, tenant: &TenantId) -> Option<Arc<TenantHead>> {
        self.tenants.read().get(tenant).cloned()
    }

    fn tenant_or_new(&self, tenant: &TenantId) -> Arc<TenantHead> {
        if let Some(t) = self.tenant(tenant) {
            return t;
        }
        self.tenants.write().entry(tenant.clone()).or_default().clone()
    }

    /// All tenants, in the order of their names.
    pub(crate) fn all(&self) -> Vec<(TenantId, Arc<TenantHead>)> {
        let mut out: Vec<_> = self
            .tenants
            .read()
            .iter()
            .map(|(t, h)| (t.clone(), h.clone()))
            .collect();
        out.sort_by(|a, b| a.0.cmp(&b.0));
        out
    }

    /// Registers the streams of a batch as far as the tenant may have that many; `max` zero means any number.
    /// Returns, in the order of the streams, which of them are in.
    pub(crate) fn admit(&self, tenant: &TenantId, batch: &LogBatch, max: u64) -> Vec<bool> {
        let head = self.tenant_or_new(tenant);
        let mut state = head.state.lock();
        let before = state.heap_bytes() + state.streams.len() * STREAM_BYTES;
        let admitted = batch
            .streams
            .iter()
            .map(|s| {
                let full = max != 0 && state.streams.len() as u64 >= max && !state.ids.contains_key(&s.labels);
                if !full && !s.entries.is_empty() {
                    state.stream(&s.labels);
                }
                !full
            })
            .collect();
        let after = state.heap_bytes() + state.streams.len() * STREAM_BYTES;
        self.heap.fetch_add((after - before) as u64, Ordering::Relaxed);
        admitted
    }

    /// Puts a logged record into the head. Returns the chunks that became full, for [`LogsHead::pack`].
    pub(crate) fn apply(&self, tenant: &TenantId, lsn: u64, batch: &LogBatch) -> Vec<Arc<Chunk>> {
        let head = self.tenant_or_new(tenant);
        let mut full = Vec::new();
        let mut state = head.state.lock();
        let state = &mut *state;
        let before = state.heap_bytes() + state.streams.len() * STREAM_BYTES;
        let (mut raw, mut entries, mut sealed_bytes) = (0u64, 0u64, 0usize);
        for stream in batch.streams.iter().filter(|s| !s.entries.is_empty()) {
            let id = state.stream(&stream.labels);
            let mut time = state.streams[id as usize].time;
            for entry in &stream.entries {
                if state.open.is_full_for(entry)
                    && let Some(chunk) = state.open.seal(|_, _| true)
                {
                    let chunk = Arc::new(chunk);
                    sealed_bytes += chunk.heap_bytes();
                    state.open.clear();
                    state.sealed.push(chunk.clone());
                    full.push(chunk);
                }
                state.open.push(id, lsn, entry);
                time.extend(entry.ts_ns);
                raw += entry.line.len() as u64;
                entries += 1;
            }
            state.streams[id as usize].time = time;
        }
        let after = state.heap_bytes() + state.streams.len() * STREAM_BYTES + sealed_bytes;
        if after >= before {
            self.heap.fetch_add((after - before) as u64, Ordering::Relaxed);
        } else {
            self.heap.fetch_sub((before - after) as u64, Ordering::Relaxed);
        }
        self.raw.fetch_add(raw, Ordering::Relaxed);
        self.entries.fetch_add(entries, Ordering::Relaxed);
        full
    }

    /// Compresses full chunks. CPU work.
    pub(crate) fn pack(&self, chunks: &[Arc<Chunk>]) {
        let freed: usize = chunks.iter().map(|c| c.pack()).sum();
        self.heap.fetch_sub(freed as u64, Ordering::Relaxed);
    }

    /// Streams over all tenants.
    pub(crate) fn stream_count(&self) -> u64 {
        self.all()
            .iter()
            .map(|(_, h)| h.state.lock().streams.len() as u64)
            .sum()
    }
}

/// Beside the index: the stream's record, its entry in the id table and the allocation of its labels.
const STREAM_BYTES: usize = 192;

impl trilith_block::Head for LogsHead {
    /// A quarter of the raw lines at least: a cut of rows in random time order decompresses all of them, and this bounds
    /// what that takes however well they compress.
    fn bytes(&self) -> u64 {
        self.heap
            .load(Ordering::Relaxed)
            .max(self.raw.load(Ordering::Relaxed) / 4)
    }

    fn items(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }
}

impl TenantHead {
    /// What of the tenant a query needs. Copies the open chunk's part, shares the rest.
    ///
    /// # Errors
    /// Those of `check`.
    pub fn select(
        &self,
        matchers: &[Matcher],
        time: TimeRange,
        check: &dyn Fn() -> Result<()>,
    ) -> Result<Option<HeadPart>> {
        let state = self.state.lock();
        let selected = state.selected(matchers, time, check)?;
        if selected.is_empty() {
            return Ok(None);
        }
        let holds = |c: &Chunk| {
            c.time.overlaps(time)
                && c.runs
                    .iter()
                    .any(|r| time.overlaps(TimeRange::new(r.ts_min, r.ts_max)) && selected.contains(r.stream))
        };
        let mut chunks: Vec<Arc<Chunk>> = state.sealed.iter().filter(|c| holds(c)).cloned().collect();
        chunks.extend(
            state
                .open
                .seal(|s, ts| time.contains(ts) && selected.contains(s))
                .map(Arc::new),
        );
        let streams = selected
            .iter()
            .map(|o| (o, state.streams[o as usize].labels.clone()))
            .collect();
        Ok(Some(HeadPart { streams, chunks }))
    }

    /// Everything, for a cut. The head takes no more records then.
    pub fn freeze(&self) -> HeadPart {
        let state = self.state.lock();
        let mut chunks = state.sealed.clone();
        chunks.extend(state.open.seal(|_, _| true).map(Arc::new));
        let streams = state
            .streams
            .iter()
            .enumerate()
            .map(|(o, s)| (o as u32, s.labels.clone()))
            .collect();
        HeadPart { streams, chunks }
    }

    /// Calls `f` with the stream index and the ordinals of the selected streams whose first and last time overlap the
    /// range. The tenant's lock is held meanwhile.
    ///
    /// # Errors
    /// Those of `check` and `f`.
    pub fn with_selected<R>(
        &self,
        matchers: &[Matcher],
        time: TimeRange,
        check: &dyn Fn() -> Result<()>,
        f: impl FnOnce(&MemIndex, &Bitmap, &dyn Fn(u32) -> Labels) -> Result<R>,
    ) -> Result<R> {
        let state = self.state.lock();
        let selected = state.selected(matchers, time, check)?;
        f(&state.index, &selected, &|o| state.streams[o as usize].labels.clone())
    }
}

impl State {
    fn selected(&self, matchers: &[Matcher], time: TimeRange, check: &dyn Fn() -> Result<()>) -> Result<Bitmap> {
        let all = trilith_index::select(&self.index, matchers, check)?;
        let ordinals: Vec<u32> = all
            .iter()
            .filter(|&o| {
                let of = self.streams[o as usize].time;
                !of.is_empty() && of.overlaps(time)
            })
            .collect();
        Ok(Bitmap::of(&ordinals))
    }
}
