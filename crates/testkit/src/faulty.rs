//! A store that fails the way networks and overloaded servers do, deterministically.
//!
//! Two sources of faults: rates from a seed, and a script. A rated fault is a function of the seed, the operation, its
//! path and how often this operation was asked for on this path, and of nothing else: neither the scheduling of tasks
//! nor other paths move it, so a failing seed fails again. Scripted faults strike the next matching operations.
//! A crash point fails everything from the n-th operation on, as a process or a network that died there would see it.
//!
//! Delays are tokio sleeps: with paused time they cost nothing.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// What an operation is to the faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Conditional create.
    Create,
    /// Unconditional put.
    Put,
    /// Start, part, completion and abortion of a multipart upload.
    Multipart,
    /// Whole, ranged and head reads.
    Get,
    List,
    Delete,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// 503: not applied, told at once.
    Error503,
    /// Applied, then the answer is lost: the caller sees an error.
    LostReply,
    /// The caller waits before the operation begins.
    Delay(Duration),
    /// Reads: the announced length is whole, the body ends half way. No effect elsewhere.
    Truncate,
    /// Lists: objects made since the last list that was not stale are missing. No effect elsewhere.
    StaleList,
}

/// Chances per operation, each in `[0, 1]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FaultRates {
    pub error_503: f64,
    pub lost_reply: f64,
    pub truncate: f64,
    pub stale_list: f64,
    pub delay: f64,
    /// Longest delay; uniform from 0.
    pub delay_max: Duration,
}

/// Which operations a scripted fault strikes; empty means all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Strike {
    pub op: Option<Op>,
    pub path_contains: Option<String>,
    /// How many; `u32::MAX` never ends.
    pub times: u32,
}

/// From this operation (counted from 0) on nothing is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashPoint {
    pub at: u64,
    /// The operation at the crash point itself is applied, and only its answer lost.
    pub applied: bool,
}

/// Wraps any store. Clones share everything.
#[derive(Clone, Debug)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    seed: u64,
    rates: FaultRates,
    script: Vec<(Fault, Strike)>,
    crash: Option<CrashPoint>,
    operations: u64,
    occurrences: HashMap<(Op, String), u64>,
    struck: u64,
    /// By prefix: what the last list that was not stale gave.
    lists: BTreeMap<String, Vec<ObjectMeta>>,
}

/// What happens to one operation.
#[derive(Debug, Default)]
struct Fate {
    delay: Duration,
    refuse: bool,
    lose: bool,
    truncate: bool,
    stale: bool,
}

impl FaultyStore {
    /// No faults until some are asked for.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        FaultyStore {
            inner,
            state: Arc::default(),
        }
    }

    /// Faults at random from a seed.
    pub fn seeded(inner: Arc<dyn ObjectStore>, seed: u64, rates: FaultRates) -> Self {
        let store = Self::new(inner);
        store.set_rates(seed, rates);
        store
    }

    pub fn set_rates(&self, seed: u64, rates: FaultRates) {
        let mut state = self.state.lock();
        state.seed = seed;
        state.rates = rates;
    }

    /// Strikes the next matching operations. Of several waiting faults the oldest that matches strikes first.
    pub fn inject(&self, fault: Fault, strike: Strike) {
        self.state.lock().script.push((fault, strike));
    }

    /// Dies at an operation. `None` brings the store back to life, as a restart would.
    pub fn crash(&self, at: Option<CrashPoint>) {
        self.state.lock().crash = at;
    }

    /// No more faults of any kind.
    pub fn heal(&self) {
        let mut state = self.state.lock();
        state.rates = FaultRates::default();
        state.script.clear();
        state.crash = None;
    }

    /// Operations so far: run a scenario once to learn its length, then once per crash point.
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Operations that a fault other than a delay struck.
    pub fn struck(&self) -> u64 {
        self.state.lock().struck
    }

    fn fate(&self, op: Op, path: &str) -> Fate {
        self.state.lock().fate(op, path)
    }

    /// Runs an operation under its fate.
    async fn run<T>(&self, op: Op, path: &str, apply: impl Future<Output = Result<T>>) -> Result<(T, Fate)> {
        let fate = self.fate(op, path);
        if !fate.delay.is_zero() {
            tokio::time::sleep(fate.delay).await;
        }
        if fate.refuse {
            return Err(injected(path, "503 refused"));
        }
        let result = apply.await;
        if fate.lose {
            return Err(injected(path, "the reply was lost"));
        }
        Ok((result?, fate))
    }
}

impl State {
    fn fate(&mut self, op: Op, path: &str) -> Fate {
        let n = self.operations;
        self.operations += 1;
        let mut fate = Fate::default();
        if let Some(crash) = self.crash.filter(|c| n >= c.at) {
            self.struck += 1;
            fate.lose = crash.applied && n == crash.at;
            fate.refuse = !fate.lose;
            return fate;
        }
        let scripted = self.script.iter_mut().position(|(_, s)| {
            s.times > 0
                && s.op.is_none_or(|o| o == op)
                && s.path_contains.as_ref().is_none_or(|p| path.contains(p.as_str()))
        });
        if let Some(at) = scripted {
            let (fault, strike) = &mut self.script[at];
            let fault = fault.clone();
            if strike.times != u32::MAX {
                strike.times -= 1;
                if strike.times == 0 {
                    self.script.remove(at);
                }
            }
            fate.add(fault, op);
        } else {
            self.roll(op, path, &mut fate);
        }
        if fate.refuse || fate.lose || fate.truncate || fate.stale {
            self.struck += 1;
        }
        fate
    }

    fn roll(&mut self, op: Op, path: &str, fate: &mut Fate) {
        if self.rates == FaultRates::default() {
            return;
        }
        let nth = self.occurrences.entry((op, path.to_owned())).or_insert(0);
        let mut rng = ChaCha8Rng::seed_from_u64(seed_of(self.seed, op, path, *nth));
        *nth += 1;
        let r = &self.rates;
        // Every chance is drawn, so that changing one rate leaves the other faults where they were.
        let draws: [f64; 6] = std::array::from_fn(|_| rng.random::<f64>());
        if draws[0] < r.delay {
            fate.add(Fault::Delay(r.delay_max.mul_f64(draws[1])), op);
        }
        let chances = [
            (draws[2] < r.error_503, Fault::Error503),
            (draws[3] < r.lost_reply, Fault::LostReply),
            (draws[4] < r.truncate, Fault::Truncate),
            (draws[5] < r.stale_list, Fault::StaleList),
        ];
        for (strikes, fault) in chances {
            if strikes {
                fate.add(fault, op);
            }
        }
    }
}

impl Fate {
    fn add(&mut self, fault: Fault, op: Op) {
        match fault {
            Fault::Error503 => self.refuse = true,
            Fault::LostReply => self.lose = true,
            Fault::Delay(d) => self.delay = d,
            Fault::Truncate => self.truncate = op == Op::Get,
            Fault::StaleList => self.stale = op == Op::List,
        }
    }
}

/// FNV-1a over everything that a rated fault depends on.
fn seed_of(seed: u64, op: Op, path: &str, nth: u64) -> u64 {
    let bytes = seed
        .to_le_bytes()
        .into_iter()
        .chain([op as u8])
        .chain(path.bytes())
        .chain(nth.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn injected(path: &str, what: &str) -> Error {
    Error::Generic {
        store: "FaultyStore",
        source: format!("injected: {what}: {path}").into(),
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let op = if opts.mode == PutMode::Overwrite {
            Op::Put
        } else {
            Op::Create
        };
        let (result, _) = self
            .run(op, location.as_ref(), self.inner.put_opts(location, payload, opts))
            .await?;
        Ok(result)
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let start = self.inner.put_multipart_opts(location, opts);
        let (inner, _) = self.run(Op::Multipart, location.as_ref(), start).await?;
        Ok(Box::new(FaultyUpload {
            inner,
            store: self.clone(),
            path: location.to_string(),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let head = options.head;
        let get = self.inner.get_opts(location, options);
        let (result, fate) = self.run(Op::Get, location.as_ref(), get).await?;
        if !fate.truncate || head {
            return Ok(result);
        }
        let (meta, range, attributes, extensions) = (
            result.meta.clone(),
            result.range.clone(),
            result.attributes.clone(),
            result.extensions.clone(),
        );
        let bytes = result.bytes().await?;
        let half = bytes.slice(..bytes.len() / 2);
        let payload = GetResultPayload::Stream(futures::stream::once(async { Ok(half) }).boxed());
        Ok(GetResult {
            payload,
            meta,
            range,
            attributes,
            extensions,
        })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let get = self.inner.get_ranges(location, ranges);
        let (mut bodies, fate) = self.run(Op::Get, location.as_ref(), get).await?;
        if fate.truncate {
            bodies.iter_mut().for_each(|b| b.truncate(b.len() / 2));
        }
        Ok(bodies)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .and_then(move |location| {
                let store = store.clone();
                async move {
                    let path = location.to_string();
                    let one = futures::stream::once(async { Ok(location) }).boxed();
                    let delete = store.inner.delete_stream(one).try_collect::<Vec<_>>();
                    let (mut deleted, _) = store.run(Op::Delete, &path, delete).await?;
                    deleted
                        .pop()
                        .ok_or_else(|| injected(&path, "the inner store deleted nothing"))
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.faulty_list(prefix.cloned(), None)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.faulty_list(prefix.cloned(), Some(offset.clone()))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let path = prefix.map_or_else(String::new, ToString::to_string);
        let (result, _) = self
            .run(Op::List, &path, self.inner.list_with_delimiter(prefix))
            .await?;
        Ok(result)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let copy = self.inner.copy_opts(from, to, options);
        let ((), _) = self.run(Op::Put, to.as_ref(), copy).await?;
        Ok(())
    }
}

impl FaultyStore {
    /// Lists whole, then applies the fate: an injected error comes in the middle, where real lists break.
    fn faulty_list(&self, prefix: Option<Path>, offset: Option<Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let store = self.clone();
        async move {
            let path = prefix.as_ref().map_or_else(String::new, ToString::to_string);
            let mut fate = store.fate(Op::List, &path);
            // Even a sleep of zero waits for the next tick of the timer.
            if !fate.delay.is_zero() {
                tokio::time::sleep(fate.delay).await;
            }
            let whole = store.inner.list(prefix.as_ref()).try_collect::<Vec<_>>().await;
            let mut whole = match whole {
                Ok(whole) => whole,
                Err(e) => return futures::stream::iter(vec![Err(e)]),
            };
            {
                let mut state = store.state.lock();
                if fate.stale {
                    let known = state.lists.get(&path).cloned().unwrap_or_default();
                    whole.retain(|m| known.iter().any(|k| k.location == m.location));
                } else if !fate.refuse && !fate.lose {
                    state.lists.insert(path.clone(), whole.clone());
                }
            }
            whole.retain(|m| offset.as_ref().is_none_or(|o| m.location > *o));
            let mut answer: Vec<Result<ObjectMeta>> = Vec::with_capacity(whole.len() + 1);
            fate.refuse |= fate.lose;
            if fate.refuse {
                whole.truncate(whole.len() / 2);
            }
            answer.extend(whole.into_iter().map(Ok));
            if fate.refuse {
                answer.push(Err(injected(&path, "503 in the middle of a list")));
            }
            futures::stream::iter(answer)
        }
        .flatten_stream()
        .boxed()
    }
}

#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    store: FaultyStore,
    path: String,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let part = self.inner.put_part(data);
        let (store, path) = (self.store.clone(), self.path.clone());
        Box::pin(async move {
            let ((), _) = store.run(Op::Multipart, &path, part).await?;
            Ok(())
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let (store, path) = (self.store.clone(), self.path.clone());
        let (result, _) = store.run(Op::Multipart, &path, self.inner.complete()).await?;
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        let (store, path) = (self.store.clone(), self.path.clone());
        let ((), _) = store.run(Op::Multipart, &path, self.inner.abort()).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt as _;
    use object_store::memory::InMemory;

    use super::*;

    fn store() -> FaultyStore {
        FaultyStore::new(Arc::new(InMemory::new()))
    }

    fn once(op: Op) -> Strike {
        Strike {
            op: Some(op),
            path_contains: None,
            times: 1,
        }
    }

    async fn create(store: &FaultyStore, path: &str) -> Result<PutResult> {
        store
            .put_opts(&path.into(), "body".into(), PutMode::Create.into())
            .await
    }

    #[tokio::test]
    async fn a_refusal_is_not_applied_and_a_lost_reply_is() {
        let s = store();
        s.inject(Fault::Error503, once(Op::Create));
        create(&s, "a").await.unwrap_err();
        create(&s, "a").await.unwrap();
        s.inject(Fault::LostReply, once(Op::Create));
        create(&s, "b").await.unwrap_err();
        let second = create(&s, "b").await.unwrap_err();
        assert!(matches!(second, Error::AlreadyExists { .. }), "{second}");
        assert_eq!(s.struck(), 2);
    }

    #[tokio::test]
    async fn a_truncated_read_announces_its_whole_length() {
        let s = store();
        create(&s, "a").await.unwrap();
        s.inject(Fault::Truncate, once(Op::Get));
        let answer = s.get(&"a".into()).await.unwrap();
        assert_eq!(answer.meta.size, 4);
        assert_eq!(answer.bytes().await.unwrap(), "bo");
    }

    #[tokio::test]
    async fn a_stale_list_lacks_what_is_new() {
        let s = store();
        create(&s, "d/a").await.unwrap();
        let list = || s.list(Some(&"d".into())).try_collect::<Vec<_>>();
        assert_eq!(list().await.unwrap().len(), 1);
        create(&s, "d/b").await.unwrap();
        s.inject(Fault::StaleList, once(Op::List));
        assert_eq!(list().await.unwrap().len(), 1);
        assert_eq!(list().await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_crash_point_ends_everything_until_the_restart() {
        for applied in [false, true] {
            let s = store();
            create(&s, "a").await.unwrap();
            s.crash(Some(CrashPoint { at: 1, applied }));
            create(&s, "b").await.unwrap_err();
            create(&s, "c").await.unwrap_err();
            s.get(&"a".into()).await.unwrap_err();
            s.crash(None);
            assert_eq!(s.get(&"b".into()).await.is_ok(), applied);
            s.get(&"c".into()).await.unwrap_err();
        }
    }

    /// The pattern of struck operations must not depend on the order in which paths are used.
    #[tokio::test]
    async fn a_seed_replays_whatever_the_order() {
        async fn pattern(seed: u64, order: &[&str]) -> BTreeMap<String, Vec<bool>> {
            let rates = FaultRates {
                error_503: 0.3,
                lost_reply: 0.2,
                ..FaultRates::default()
            };
            let s = FaultyStore::seeded(Arc::new(InMemory::new()), seed, rates);
            let mut seen: BTreeMap<String, Vec<bool>> = BTreeMap::new();
            for path in order {
                let ok = s.put(&(*path).into(), "x".into()).await.is_ok();
                seen.entry((*path).to_owned()).or_default().push(ok);
            }
            seen
        }
        let one: Vec<&str> = ["a", "b"].repeat(20);
        let mut other = one.clone();
        other.sort_unstable();
        assert_eq!(pattern(7, &one).await, pattern(7, &other).await);
        assert_ne!(pattern(7, &one).await, pattern(8, &one).await);
    }
}
