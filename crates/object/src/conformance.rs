//! What every backend must do, as functions that panic where one does not: the contract of [`Store`] in a form that
//! runs. The tests of this crate run it on memory, a local folder and an S3 server; a new backend joins by one call.
//!
//! Each function works below a folder of its own and leaves nothing behind that another one minds.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use trilith_model::{ErrorKind, Result};

use crate::{Operation, PutOutcome, Store};

/// Faults of the next requests, for suites that need a network to fail. Each strikes `times` requests of its kind.
pub trait Faults {
    /// Refused with 503, not applied. Any operation.
    fn refuse(&self, times: u32);
    /// Conditional creates are applied, their answers lost.
    fn lose_create_replies(&self, times: u32);
    /// Reads wait longer than the store's time limit for one try.
    fn slow_reads(&self, delay: Duration, times: u32);
    /// Bodies of reads end half way.
    fn truncate_reads(&self, times: u32);
    fn clear(&self);
}

/// Everything that needs no faults.
///
/// # Panics
/// At the first broken promise.
pub async fn contract(store: &Store) {
    store.probe().await.expect("the backend passes the check at start");
    create_if_absent(store).await;
    create_race(store).await;
    whole_and_ranged_reads(store).await;
    absence(store).await;
    listing(store).await;
    list_pages(store).await;
    uploads(store).await;
}

/// Everything under faults. The store's options must allow some ten tries and a time limit of one try that is clearly
/// below `slow`.
///
/// # Panics
/// At the first broken promise.
pub async fn under_faults(store: &Store, faults: &dyn Faults, slow: Duration) {
    storm(store, faults).await;
    lost_answers(store, faults).await;
    slow_reads(store, faults, slow).await;
    truncated_bodies(store, faults).await;
    hopeless(store, faults).await;
}

/// Bytes that differ at every offset modulo a prime, so that shifted ranges are noticed.
pub fn pattern(len: usize) -> Bytes {
    (0..len).map(|i| (i % 251) as u8).collect()
}

async fn create_if_absent(store: &Store) {
    let path = "conformance/create/one";
    assert_eq!(store.put_if_absent(path, "first".into()).await, created());
    assert_eq!(
        store
            .put_if_absent(path, "second".into())
            .await
            .map(Some)
            .expect("answers"),
        Some(PutOutcome::Exists)
    );
    assert_eq!(read(store, path).await.as_deref(), Some(&b"first"[..]));
    assert_eq!(store.put_if_absent_verified(path, "first".into()).await, created());
    let verified = store
        .put_if_absent_verified(path, "second".into())
        .await
        .expect("answers");
    assert_eq!(verified, PutOutcome::Exists);
    store.delete(path).await.expect("deletes");
    assert_eq!(
        store.put_if_absent(path, "third".into()).await,
        created(),
        "the name is free again"
    );
    store.delete(path).await.expect("deletes");
}

async fn create_race(store: &Store) {
    const RACERS: usize = 24;
    for round in 0..5 {
        let path = format!("conformance/race/{round}");
        let racers = (0..RACERS).map(|i| {
            let (store, path) = (store.clone(), path.clone());
            // Own tasks, so that they run on several threads.
            trilith_model::task::spawn("racer", async move {
                let body = Bytes::from(format!("racer {i}"));
                (store.put_if_absent(&path, body.clone()).await, body)
            })
        });
        let mut winner = None;
        for racer in join_all(racers).await {
            let (outcome, body) = racer.expect("a racer does not panic");
            if outcome.expect("a racer gets an answer") == PutOutcome::Created {
                assert!(winner.replace(body).is_none(), "round {round} has two winners");
            }
        }
        let winner = winner.expect("one racer wins");
        assert_eq!(read(store, &path).await, Some(winner), "the winner's bytes are stored");
        store.delete(&path).await.expect("deletes");
    }
}

async fn whole_and_ranged_reads(store: &Store) {
    let path = "conformance/read/object";
    let body = pattern(700_000);
    store.upload(path, body.clone()).await.expect("uploads");
    assert_eq!(read(store, path).await, Some(body.clone()));
    for store in [store.clone(), store.without_cache(), store.clone()] {
        for range in [0..1, 0..700_000, 699_999..700_000, 5..5, 123..456_789] {
            let got = store.get_range(path, range.clone()).await.expect("reads");
            assert_eq!(got, body.slice(range.start as usize..range.end as usize), "{range:?}");
        }
        // Out of order, overlapping, equal, empty, adjacent, far apart.
        let ranges = [600_000..600_100, 0..10, 5..20, 0..10, 7..7, 20..30, 690_000..700_000];
        let got = store.get_ranges(path, &ranges).await.expect("reads");
        assert_eq!(got.len(), ranges.len());
        for (got, r) in got.iter().zip(&ranges) {
            assert_eq!(*got, body.slice(r.start as usize..r.end as usize), "{r:?}");
        }
    }
    assert!(store.get_ranges(path, &[]).await.expect("nothing is fine").is_empty());
    #[allow(clippy::reversed_empty_ranges)]
    let reversed = store.get_range(path, 2..1).await.expect_err("is refused");
    assert_eq!(reversed.kind, ErrorKind::Invalid);
    for behind in [
        699_999..700_001,
        700_000..700_001,
        800_000..800_010,
        0..1 << 40,
        u64::MAX - 1..u64::MAX,
    ] {
        let e = store.get_range(path, behind.clone()).await.expect_err("is shorter");
        assert_eq!(e.kind, ErrorKind::Corrupt, "{behind:?}: {e}");
        assert!(e.message.contains(path) && e.message.contains("700000"), "{e}");
    }
    let info = store.head(path).await.expect("answers").expect("is there");
    assert_eq!((info.path.as_str(), info.size), (path, 700_000));
    assert!(info.modified_ms > 0);
    store.delete(path).await.expect("deletes");
}

async fn absence(store: &Store) {
    let path = "conformance/absent/object";
    assert_eq!(read(store, path).await, None);
    assert_eq!(store.head(path).await.expect("answers"), None);
    let e = store.get_range(path, 0..1).await.expect_err("is absent");
    assert_eq!(e.kind, ErrorKind::NotFound, "{e}");
    store.delete(path).await.expect("deleting nothing is fine");
    assert!(store.list("conformance/absent").await.expect("lists").is_empty());
    for bad in ["", "/x", "x/", "a//b", "a/../b", "."] {
        let e = store.get(bad).await.expect_err(bad);
        assert_eq!(e.kind, ErrorKind::Invalid, "{bad:?}: {e}");
    }
    let empty = "conformance/empty";
    store.upload(empty, Bytes::new()).await.expect("uploads nothing");
    assert_eq!(read(store, empty).await, Some(Bytes::new()));
    store.delete(empty).await.expect("deletes");
}

async fn listing(store: &Store) {
    let folder = "conformance/list";
    // A folder is a folder: `ab` is not below `a`. Names that other tenants and block layouts use.
    let names = ["a/1", "a/b/c/2", "a/b/3", "ab/4", "(t)!*'.x/5", "a=b/6", "z"];
    for name in names {
        store
            .upload(&format!("{folder}/{name}"), Bytes::from(name))
            .await
            .expect("uploads");
    }
    let list = async |below: &str| -> BTreeSet<String> {
        let all = store.list(below).await.expect("lists");
        for o in &all {
            assert_eq!(o.size as usize + folder.len() + 1, o.path.len(), "{o:?}");
            assert!(o.modified_ms > 0);
        }
        let count = all.len();
        let set: BTreeSet<String> = all.into_iter().map(|o| o.path[folder.len() + 1..].to_owned()).collect();
        assert_eq!(set.len(), count, "nothing is listed twice");
        set
    };
    let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(list(folder).await, set(&names));
    assert_eq!(list("conformance/list/").await, set(&names));
    assert_eq!(list("conformance/list/a").await, set(&["a/1", "a/b/c/2", "a/b/3"]));
    assert_eq!(list("conformance/list/a/b").await, set(&["a/b/c/2", "a/b/3"]));
    assert!(store.list("").await.expect("lists everything").len() >= names.len());
    for name in names {
        store.delete(&format!("{folder}/{name}")).await.expect("deletes");
    }
    assert!(list(folder).await.is_empty());
}

/// More than a page of 1000 keys.
async fn list_pages(store: &Store) {
    const OBJECTS: usize = 1_100;
    let folder = "conformance/pages";
    let name = |i: usize| format!("{folder}/{:02}/{i:05}", i % 7);
    let all: BTreeSet<String> = (0..OBJECTS).map(name).collect();
    join_all(all.iter().map(|n| store.upload(n, Bytes::from_static(b"x"))))
        .await
        .into_iter()
        .for_each(|r| r.expect("uploads"));
    let listed = store.list(folder).await.expect("lists");
    assert_eq!(listed.len(), OBJECTS);
    assert_eq!(listed.into_iter().map(|o| o.path).collect::<BTreeSet<_>>(), all);
    let (after, rest) = all
        .iter()
        .rev()
        .take(11)
        .fold((None, BTreeSet::new()), |(last, mut rest), n| {
            if let Some(n) = last {
                rest.insert(n);
            }
            (Some(n), rest)
        });
    let after = after.expect("eleven names");
    let listed = store.list_after(folder, after).await.expect("lists");
    assert_eq!(listed.iter().map(|o| &o.path).collect::<BTreeSet<_>>(), rest);
    join_all(all.iter().map(|n| store.delete(n)))
        .await
        .into_iter()
        .for_each(|r| r.expect("deletes"));
    assert!(store.list(folder).await.expect("lists").is_empty());
}

/// Below and above the part size, from memory and from a file.
async fn uploads(store: &Store) {
    let part = usize::try_from(store.core.options.part_bytes).expect("a part fits into memory");
    let file = std::env::temp_dir().join(format!("trilith-conformance-{:032x}", store.core.retry.nonce()));
    for len in [1, part, part + 1, 2 * part, 3 * part + 17] {
        let body = pattern(len);
        let path = format!("conformance/upload/{len}");
        store.upload(&path, body.clone()).await.expect("uploads");
        assert!(
            read(store, &path).await.is_some_and(|got| got == body),
            "{len} bytes from memory"
        );
        store.delete(&path).await.expect("deletes");
        std::fs::write(&file, &body).expect("a temporary file");
        store.upload_file(&path, &file).await.expect("uploads");
        assert!(
            read(store, &path).await.is_some_and(|got| got == body),
            "{len} bytes from a file"
        );
        // A repetition, as after a crash between upload and commit.
        store.upload_file(&path, &file).await.expect("uploads again");
        assert_eq!(
            store.head(&path).await.expect("answers").map(|o| o.size),
            Some(len as u64)
        );
        store.delete(&path).await.expect("deletes");
    }
    std::fs::remove_file(&file).expect("the temporary file");
    let e = store
        .upload_file("conformance/upload/none", &file)
        .await
        .expect_err("the file is gone");
    assert_eq!(e.kind, ErrorKind::Internal);
}

async fn storm(store: &Store, faults: &dyn Faults) {
    let path = "conformance/storm";
    let large = pattern(usize::try_from(store.core.options.part_bytes).expect("a part fits into memory") * 3);
    for times in [1, 3] {
        faults.refuse(times);
        store.upload(path, pattern(1000)).await.expect("survives the storm");
        faults.refuse(times);
        assert_eq!(read(store, path).await, Some(pattern(1000)));
        faults.refuse(times);
        assert_eq!(
            store.without_cache().get_range(path, 5..9).await.expect("survives"),
            pattern(9).slice(5..)
        );
        faults.refuse(times);
        assert_eq!(store.list("conformance").await.expect("survives").len(), 1);
        faults.refuse(times);
        store.delete(path).await.expect("survives");
        faults.refuse(times);
        assert_eq!(store.put_if_absent("conformance/storm-c", "x".into()).await, created());
        store.delete("conformance/storm-c").await.expect("deletes");
        faults.refuse(times);
        store
            .upload(path, large.clone())
            .await
            .expect("a multipart upload survives");
        assert!(read(store, path).await.is_some_and(|got| got == large));
        store.delete(path).await.expect("deletes");
    }
    let stats = store.stats().snapshot();
    assert!(stats.operation(Operation::Upload).retries > 0, "{stats:?}");
    faults.clear();
}

async fn lost_answers(store: &Store, faults: &dyn Faults) {
    let path = "conformance/lost";
    faults.lose_create_replies(1);
    let outcome = store
        .put_if_absent(path, "nonce 1".into())
        .await
        .expect("the second try gets an answer");
    assert_eq!(
        outcome,
        PutOutcome::Exists,
        "our own object, which only its content tells"
    );
    assert_eq!(read(store, path).await.as_deref(), Some(&b"nonce 1"[..]));
    store.delete(path).await.expect("deletes");

    faults.lose_create_replies(2);
    assert_eq!(store.put_if_absent_verified(path, "nonce 2".into()).await, created());
    faults.lose_create_replies(1);
    let rival = store
        .put_if_absent_verified(path, "nonce 3".into())
        .await
        .expect("answers");
    assert_eq!(rival, PutOutcome::Exists);
    assert_eq!(
        read(store, path).await.as_deref(),
        Some(&b"nonce 2"[..]),
        "nothing was overwritten"
    );
    store.delete(path).await.expect("deletes");
    faults.clear();
}

async fn slow_reads(store: &Store, faults: &dyn Faults, slow: Duration) {
    let path = "conformance/slow";
    store.upload(path, pattern(100)).await.expect("uploads");
    let before = store.stats().snapshot();
    faults.slow_reads(slow, 1);
    assert_eq!(
        store.get_range(path, 0..50).await.expect("the second try is fast"),
        pattern(50)
    );
    faults.slow_reads(slow, 1);
    assert_eq!(read(store, path).await, Some(pattern(100)));
    let after = store.stats().snapshot();
    for op in [Operation::Read, Operation::Get] {
        assert!(
            after.operation(op).retries > before.operation(op).retries,
            "{op:?} was tried again"
        );
        assert_eq!(after.operation(op).errors, before.operation(op).errors);
    }
    store.delete(path).await.expect("deletes");
    faults.clear();
}

async fn truncated_bodies(store: &Store, faults: &dyn Faults) {
    let path = "conformance/truncated";
    let body = pattern(300_000);
    store.upload(path, body.clone()).await.expect("uploads");
    faults.truncate_reads(2);
    assert_eq!(read(store, path).await, Some(body.clone()));
    faults.truncate_reads(2);
    assert_eq!(
        store.get_range(path, 10..200_000).await.expect("reads"),
        body.slice(10..200_000)
    );
    faults.truncate_reads(u32::MAX);
    let e = store.get_range(path, 7..200_000).await.expect_err("is never whole");
    assert_eq!(e.kind, ErrorKind::Unavailable, "{e}");
    faults.clear();
    assert_eq!(
        store.get_range(path, 7..200_000).await.expect("reads"),
        body.slice(7..200_000),
        "nothing was cached"
    );
    store.delete(path).await.expect("deletes");
}

/// A store that is down is reported as such, in bounded time, and nothing was done.
async fn hopeless(store: &Store, faults: &dyn Faults) {
    let path = "conformance/hopeless";
    faults.refuse(u32::MAX);
    let errors = [
        store.put_if_absent(path, "x".into()).await.map(drop),
        store.upload(path, "x".into()).await,
        store.get(path).await.map(drop),
        store.get_range(path, 0..1).await.map(drop),
        store.list("conformance").await.map(drop),
        store.delete(path).await,
    ];
    faults.clear();
    for result in errors {
        let e = result.expect_err("the store is down");
        assert_eq!(e.kind, ErrorKind::Unavailable, "{e}");
        assert!(
            e.retry_after.is_some() && e.message.contains("conformance") && !e.message.contains('\n'),
            "{e}"
        );
    }
    assert_eq!(read(store, path).await, None);
}

async fn read(store: &Store, path: &str) -> Option<Bytes> {
    store.get(path).await.unwrap_or_else(|e| panic!("get {path}: {e}"))
}

fn created() -> Created {
    Created
}

/// Compares with `Ok(PutOutcome::Created)`; the error type has no equality.
#[derive(Debug)]
struct Created;

impl PartialEq<Created> for Result<PutOutcome> {
    fn eq(&self, _: &Created) -> bool {
        matches!(self, Ok(PutOutcome::Created))
    }
}
