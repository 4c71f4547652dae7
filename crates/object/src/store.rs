//! The store's operations.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::{join_all, try_join_all};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    GetOptions, GetResult, GetResultPayload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
};
use trilith_model::rng::Rng;
use trilith_model::{Clock, Error, ErrorKind, Result, SystemClock};

use crate::StoreOptions;
use crate::cache::{Key, RangeCache};
use crate::error::{Failure, is_undecided_conflict, status};
use crate::ranges;
use crate::retry::{Job, Retry};
use crate::single_flight::SingleFlight;
use crate::stats::{Operation, Stats, add};

/// `get` refuses larger objects; they are read by range.
const WHOLE_OBJECT_BYTES_MAX: u64 = 512 << 20;
/// Before a range of more than this is read, the object's size is checked, because the range may stem from damaged
/// bytes and its pieces take memory at once.
const UNCHECKED_RANGE_BYTES_MAX: u64 = 64 << 20;

/// What became of a conditional create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    Created,
    /// The object was there before. After a lost answer it may be our own: compare the content.
    Exists,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Below the store's prefix.
    pub path: String,
    pub size: u64,
    /// By the store's clock, ms since the epoch.
    pub modified_ms: i64,
}

/// Cheap to clone; all clones share connections, cache and limits. Paths are relative to the store's prefix and use `/`;
/// an object must not have the name of another one's folder, which a local store cannot hold.
///
/// Every operation may be dropped at any time. A dropped or failed write has an unknown outcome: the backend may
/// apply it later still. Errors are `Unavailable` when a later try may succeed (network, overload, full disk, denied
/// access), and carry operation and path.
#[derive(Clone)]
pub struct Store {
    pub(crate) core: Arc<Core>,
    cached: bool,
}

pub(crate) struct Core {
    pub inner: Arc<dyn ObjectStore>,
    pub options: StoreOptions,
    pub retry: Retry,
    pub place: Place,
    cache: RangeCache,
    flights: Arc<SingleFlight>,
}

/// Where the backend is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    /// For people: the URL without credentials.
    pub url: String,
    /// In front of every path.
    pub prefix: Path,
    /// Of a local store: must stay there, else a lost mount would look like an empty store.
    pub root: Option<PathBuf>,
    /// Lists come in ascending order, so that a broken one goes on where it broke.
    pub lists_in_order: bool,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.core.place.url)
    }
}

impl Store {
    /// Wraps any backend, with the machine's clock and randomness. The disk tier of the cache needs [`Store::open`].
    pub fn new(inner: Arc<dyn ObjectStore>, options: StoreOptions) -> Self {
        Self::new_with(inner, options, Arc::new(SystemClock), Arc::new(Rng::from_os()))
    }

    /// As `new`, with injected time and randomness.
    pub fn new_with(inner: Arc<dyn ObjectStore>, options: StoreOptions, clock: Arc<dyn Clock>, rng: Arc<Rng>) -> Self {
        let place = Place {
            url: inner.to_string(),
            ..Place::default()
        };
        let cache = RangeCache::memory(options.cache_memory_bytes);
        Self::assemble(inner, options, clock, rng, place, cache)
    }

    /// An empty store in memory, for tests.
    pub fn memory() -> Self {
        Store::new(Arc::new(object_store::memory::InMemory::new()), StoreOptions::default())
    }

    pub(crate) fn assemble(
        inner: Arc<dyn ObjectStore>,
        options: StoreOptions,
        clock: Arc<dyn Clock>,
        rng: Arc<Rng>,
        place: Place,
        cache: RangeCache,
    ) -> Self {
        let options = options.clamped();
        let retry = Retry::new(&options, clock, rng);
        let core = Core {
            inner,
            options,
            retry,
            place,
            cache,
            flights: Arc::default(),
        };
        Store {
            core: Arc::new(core),
            cached: true,
        }
    }

    /// A clone whose reads go past the cache and leave it alone: for merges, which read everything once, and for
    /// another look after a checksum failed.
    pub fn without_cache(&self) -> Store {
        Store {
            core: Arc::clone(&self.core),
            cached: false,
        }
    }

    /// For people: where the data is.
    pub fn url(&self) -> &str {
        &self.core.place.url
    }

    /// Local stores can do without some of the care that a network needs.
    pub fn is_local(&self) -> bool {
        self.core.place.root.is_some()
    }

    pub fn stats(&self) -> &Stats {
        &self.core.retry.stats
    }

    /// Writes the disk tier out. Call before the runtime ends; a crash loses warmth only.
    pub async fn close(&self) {
        self.core.cache.close().await;
    }

    /// Creates an object that must not exist yet. One request, at most a few MiB.
    ///
    /// `Exists` may mean our own object: an earlier try whose answer was lost. Whoever needs to know puts a nonce
    /// into the bytes and compares, or calls [`Store::put_if_absent_verified`].
    ///
    /// # Errors
    /// After any error the object may exist or come to exist: read it before going on under the same name.
    pub async fn put_if_absent(&self, path: &str, bytes: Bytes) -> Result<PutOutcome> {
        let location = self.location(path)?;
        let job = Job::new(Operation::Create, path, bytes.len() as u64);
        let outcome = self
            .core
            .retry
            .run(job, || async {
                let opts = PutOptions::from(PutMode::Create);
                match self.core.inner.put_opts(&location, bytes.clone().into(), opts).await {
                    Ok(_) => Ok(PutOutcome::Created),
                    // S3 says so while a rival is under way that may yet fail. Only asking again tells.
                    Err(e) if is_undecided_conflict(&e) => Err(e.into()),
                    Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                        Ok(PutOutcome::Exists)
                    }
                    Err(e) => Err(e.into()),
                }
            })
            .await?;
        if outcome == PutOutcome::Created {
            add(&self.stats().bytes_written, job.bytes);
        }
        Ok(outcome)
    }

    /// As `put_if_absent`, but an existing object with the same bytes counts as created. The bytes must contain a
    /// nonce of this writer, otherwise two writers of equal bytes both believe that they won.
    pub async fn put_if_absent_verified(&self, path: &str, bytes: Bytes) -> Result<PutOutcome> {
        if self.put_if_absent(path, bytes.clone()).await? == PutOutcome::Created {
            return Ok(PutOutcome::Created);
        }
        match self.get(path).await? {
            Some(stored) if stored == bytes => Ok(PutOutcome::Created),
            _ => Ok(PutOutcome::Exists),
        }
    }

    /// A whole object, `None` when absent. Not cached. For small objects.
    ///
    /// # Errors
    /// `TooLarge` above 512 MiB.
    pub async fn get(&self, path: &str) -> Result<Option<Bytes>> {
        let location = self.location(path)?;
        // The size is not known before the answer; the limit for the body follows from the answer's head.
        let job = Job::stepwise(Operation::Get, path);
        let result = self
            .core
            .retry
            .run(job, || async {
                let answer = self
                    .in_time(0, self.core.inner.get_opts(&location, GetOptions::default()))
                    .await?;
                let size = answer.meta.size;
                if size > WHOLE_OBJECT_BYTES_MAX {
                    let detail = format!("{size} bytes are too many to be read whole");
                    return Err(Failure::permanent(ErrorKind::TooLarge, detail));
                }
                self.in_time(size, body(answer, size)).await
            })
            .await;
        match result {
            Ok(bytes) => {
                add(&self.stats().bytes_read, bytes.len() as u64);
                Ok(Some(bytes))
            }
            Err(e) if e.kind == ErrorKind::NotFound => self.root_is_there().await.map(|()| None),
            Err(e) => Err(e),
        }
    }

    /// Size and time of an object, `None` when absent.
    pub async fn head(&self, path: &str) -> Result<Option<ObjectInfo>> {
        let location = self.location(path)?;
        let job = Job::new(Operation::Head, path, 0);
        let result = self
            .core
            .retry
            .run(job, || async { Ok(self.core.inner.head(&location).await?) })
            .await;
        match result {
            Ok(meta) => Ok(Some(ObjectInfo {
                path: path.to_owned(),
                ..self.info(&meta)
            })),
            Err(e) if e.kind == ErrorKind::NotFound => self.root_is_there().await.map(|()| None),
            Err(e) => Err(e),
        }
    }

    /// A range of an immutable object, from the cache where possible. `NotFound` when absent, `Corrupt` when shorter.
    pub async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes> {
        let mut all = self.get_ranges(path, std::slice::from_ref(&range)).await?;
        Ok(all.pop().expect("one range in, one body out"))
    }

    /// Several ranges in one go: neighbours are read together, distinct ones in parallel. Same order as asked.
    ///
    /// A body may share memory with the bodies of its neighbours: copy what is kept for long.
    ///
    /// # Errors
    /// As `get_range`; `Invalid` for a range that ends before it starts.
    pub async fn get_ranges(&self, path: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let location = self.location(path)?;
        if let Some(r) = ranges.iter().find(|r| r.start > r.end) {
            return Err(Error::invalid(format!(
                "object store: read {path:?}: range {r:?} is reversed"
            )));
        }
        let shared_path: Arc<str> = path.into();
        let keys: Vec<Key> = ranges.iter().map(|r| self.key(&shared_path, r)).collect();
        let mut bodies = self.cached(&keys).await;

        let missing: Vec<usize> = (0..keys.len()).filter(|&i| bodies[i].is_none()).collect();
        if !missing.is_empty() {
            let wanted: Vec<Range<u64>> = missing.iter().map(|&i| ranges[i].clone()).collect();
            self.check_size(path, &wanted).await?;
            let (gap, max) = (
                self.core.options.coalesce_gap_bytes,
                self.core.options.request_bytes_max,
            );
            let requests = ranges::plan(&wanted, gap, max);
            add(
                &self.stats().ranges_merged,
                wanted.len().saturating_sub(requests.len()) as u64,
            );
            let reads = requests.iter().map(|r| self.read(&location, &shared_path, r.clone()));
            let answers = try_join_all(reads).await?;
            for i in missing {
                let mut body = ranges::assemble(&ranges[i], &requests, &answers);
                if self.cached && self.core.cache.admits(body.len() as u64) {
                    // A slice would keep the whole answer in memory, unseen by the cache's limit.
                    if !answers
                        .iter()
                        .any(|a| a.len() == body.len() && a.as_ptr() == body.as_ptr())
                    {
                        body = Bytes::copy_from_slice(&body);
                    }
                    self.core.cache.insert(keys[i].clone(), body.clone());
                }
                bodies[i] = Some(body);
            }
        }
        Ok(bodies.into_iter().map(|b| b.expect("hit or read above")).collect())
    }

    /// Drops a range from the cache, for a reader whose checksum failed: the next read asks the backend.
    pub fn forget(&self, path: &str, range: Range<u64>) {
        self.core.cache.remove(&self.key(&path.into(), &range));
    }

    /// All objects below a folder, in no particular order. `""` is the whole store.
    pub async fn list(&self, folder: &str) -> Result<Vec<ObjectInfo>> {
        self.list_from(folder, None).await
    }

    /// As `list`, only paths that sort (bytewise) after `after`, which is a path of the store and need not exist. Remote
    /// stores skip what lies before without listing it.
    pub async fn list_after(&self, folder: &str, after: &str) -> Result<Vec<ObjectInfo>> {
        let after = self.location(after)?;
        self.list_from(folder, Some(after)).await
    }

    async fn list_from(&self, folder: &str, after: Option<Path>) -> Result<Vec<ObjectInfo>> {
        let folder_path = self.folder(folder)?;
        let found = parking_lot::Mutex::new(Vec::new());
        let job = Job::stepwise(Operation::List, folder);
        self.core
            .retry
            .run(job, || async {
                let offset = {
                    let mut found = found.lock();
                    if !self.core.place.lists_in_order {
                        found.clear();
                    }
                    found
                        .last()
                        .map(|m: &ObjectMeta| m.location.clone())
                        .or_else(|| after.clone())
                };
                let mut pages = match &offset {
                    Some(offset) => self.core.inner.list_with_offset(Some(&folder_path), offset),
                    None => self.core.inner.list(Some(&folder_path)),
                };
                while let Some(meta) = self.in_time(0, pages.try_next()).await? {
                    found.lock().push(meta);
                }
                Ok(())
            })
            .await
            .or_else(|e| if e.kind == ErrorKind::NotFound { Ok(()) } else { Err(e) })?;
        let found = found.into_inner();
        if found.is_empty() {
            self.root_is_there().await?;
        }
        Ok(found.iter().map(|m| self.info(m)).collect())
    }

    /// Deleting what is not there is fine.
    pub async fn delete(&self, path: &str) -> Result<()> {
        let location = self.location(path)?;
        let job = Job::new(Operation::Delete, path, 0);
        let result = self
            .core
            .retry
            .run(job, || async { Ok(self.core.inner.delete(&location).await?) })
            .await;
        match result {
            Err(e) if e.kind != ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Where an object of the store is in the backend.
    pub(crate) fn location(&self, path: &str) -> Result<Path> {
        let invalid = |e: &dyn std::fmt::Display| Error::invalid(format!("object path {path:?}: {e}"));
        if path.is_empty() || path.starts_with('/') || path.ends_with('/') {
            return Err(invalid(&"must be relative and name an object"));
        }
        self.folder(path)
    }

    fn folder(&self, path: &str) -> Result<Path> {
        let below = Path::parse(path).map_err(|e| Error::invalid(format!("object path {path:?}: {e}")))?;
        let prefix = &self.core.place.prefix;
        if prefix.as_ref().is_empty() {
            return Ok(below);
        }
        Ok(prefix.parts().chain(below.parts()).collect())
    }

    fn info(&self, meta: &ObjectMeta) -> ObjectInfo {
        let full = meta.location.as_ref();
        let prefix = self.core.place.prefix.as_ref();
        let path = full.strip_prefix(prefix).unwrap_or(full).trim_start_matches('/');
        ObjectInfo {
            path: path.to_owned(),
            size: meta.size,
            modified_ms: meta.last_modified.timestamp_millis(),
        }
    }

    fn key(&self, path: &Arc<str>, range: &Range<u64>) -> Key {
        Key {
            store: self.core.place.id(),
            path: Arc::clone(path),
            start: range.start,
            end: range.end,
        }
    }

    async fn cached(&self, keys: &[Key]) -> Vec<Option<Bytes>> {
        let lookup = |key| async move {
            if key_is_empty(key) {
                return Some(Bytes::new());
            }
            if !self.cached {
                return None;
            }
            let hit = self.core.cache.get(key).await;
            let stats = self.stats();
            match &hit {
                Some(bytes) => {
                    add(&stats.cache_hits, 1);
                    add(&stats.cache_hit_bytes, bytes.len() as u64);
                }
                None => add(&stats.cache_misses, 1),
            }
            hit
        };
        join_all(keys.iter().map(lookup)).await
    }

    /// One request, shared with whoever asks for the same at the same time.
    async fn read(&self, location: &Path, path: &Arc<str>, range: Range<u64>) -> Result<Bytes> {
        let read = || {
            let (store, location, path, range) = (self.clone(), location.clone(), Arc::clone(path), range.clone());
            async move { store.read_alone(&location, &path, range).await }
        };
        if !self.cached {
            return read().await;
        }
        let (read, joined) = self.core.flights.join(self.key(path, &range), read);
        if joined {
            add(&self.stats().reads_shared, 1);
        }
        read.await
    }

    async fn read_alone(&self, location: &Path, path: &str, range: Range<u64>) -> Result<Bytes> {
        let len = range.end - range.start;
        let job = Job::new(Operation::Read, path, len);
        let bytes = self
            .core
            .retry
            .run(job, || async {
                let options = GetOptions::new().with_range(Some(range.clone()));
                let answer = match self.core.inner.get_opts(location, options).await {
                    Ok(answer) => answer,
                    Err(e) => return Err(self.why_no_range(location, &range, e).await),
                };
                if answer.meta.size < range.end {
                    return Err(too_short(answer.meta.size, &range));
                }
                body(answer, len).await
            })
            .await?;
        add(&self.stats().bytes_read, len);
        Ok(bytes)
    }

    /// A range behind the end is an error with many faces; the object's size tells.
    async fn why_no_range(&self, location: &Path, range: &Range<u64>, error: object_store::Error) -> Failure {
        let behind_the_end = status(&error) == Some(416);
        let failure = Failure::from(error);
        if failure.kind == ErrorKind::NotFound || (failure.retry && !behind_the_end) {
            return failure;
        }
        match self.core.inner.head(location).await {
            Ok(meta) if meta.size < range.end => too_short(meta.size, range),
            _ => failure,
        }
    }

    async fn check_size(&self, path: &str, wanted: &[Range<u64>]) -> Result<()> {
        let Some(longest) = wanted.iter().max_by_key(|r| r.end - r.start) else {
            return Ok(());
        };
        if longest.end - longest.start <= UNCHECKED_RANGE_BYTES_MAX {
            return Ok(());
        }
        match self.head(path).await? {
            Some(info) if info.size >= longest.end => Ok(()),
            Some(info) => Err(too_short(info.size, longest).into_error("read", path)),
            None => Err(Failure::permanent(ErrorKind::NotFound, "no such object").into_error("read", path)),
        }
    }

    /// A limit on one step of an operation, tighter than the one of the whole try.
    async fn in_time<T>(
        &self,
        bytes: u64,
        step: impl Future<Output = Result<T, impl Into<Failure>>>,
    ) -> Result<T, Failure> {
        let limit: Duration = self.core.retry.request_timeout(bytes);
        match tokio::time::timeout(limit, step).await {
            Ok(result) => result.map_err(Into::into),
            Err(_) => Err(Failure::retry(format!("no answer within {limit:?}"))),
        }
    }

    async fn root_is_there(&self) -> Result<()> {
        match &self.core.place.root {
            Some(root) if !tokio::fs::try_exists(root).await.unwrap_or(false) => Err(Error::unavailable(format!(
                "object store: the folder {} is gone",
                root.display()
            ))),
            _ => Ok(()),
        }
    }
}

impl Place {
    /// Tells the entries of different stores apart in a disk cache.
    fn id(&self) -> u64 {
        // FNV-1a: stable across versions, short, and collisions of a handful of URLs are no concern.
        self.url.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
        })
    }
}

fn key_is_empty(key: &Key) -> bool {
    key.start == key.end
}

fn too_short(size: u64, range: &Range<u64>) -> Failure {
    let detail = format!(
        "the object has {size} bytes, the range is {}..{}",
        range.start, range.end
    );
    Failure::permanent(ErrorKind::Corrupt, detail)
}

/// Takes the body, which must have exactly `len` bytes: a shorter one was cut on the way and is asked for again.
async fn body(answer: GetResult, len: u64) -> Result<Bytes, Failure> {
    let cut = |got: usize| Failure::retry(format!("the answer has {got} of {len} bytes"));
    if !matches!(answer.payload, GetResultPayload::Stream(_)) {
        let bytes = answer.bytes().await?;
        return if bytes.len() as u64 == len {
            Ok(bytes)
        } else {
            Err(cut(bytes.len()))
        };
    }
    let mut stream = answer.into_stream();
    let first = stream.next().await.transpose()?.unwrap_or_default();
    if first.len() as u64 == len {
        return Ok(first);
    }
    // Bounded: callers checked the length against the object's size or a constant.
    let mut out = BytesMut::with_capacity(len as usize);
    let mut next = Some(first);
    while let Some(chunk) = next {
        if (out.len() + chunk.len()) as u64 > len {
            return Err(cut(out.len() + chunk.len()));
        }
        out.extend_from_slice(&chunk);
        next = stream.try_next().await?;
    }
    if out.len() as u64 == len {
        Ok(out.freeze())
    } else {
        Err(cut(out.len()))
    }
}
