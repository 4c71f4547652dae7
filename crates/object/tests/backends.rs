//! The conformance suite on every backend that a test can start, and what only a real server can show.

use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use trilith_model::rng::Rng;
use trilith_model::{ErrorKind, SystemClock};
use trilith_object::conformance::{self, Faults};
use trilith_object::{DiskCacheOptions, Operation, PutOutcome, Store, StoreOptions};
use trilith_s3server::{ALWAYS, Fault, Filter, Method, S3Server};
use trilith_testkit::faulty::{self, FaultyStore, Op, Strike};

const SLOW: Duration = Duration::from_millis(1500);

/// Short pauses and limits, so that a test that fails a hundred times takes seconds.
fn options() -> StoreOptions {
    StoreOptions {
        attempts_max: 10,
        backoff_min: Duration::from_millis(1),
        backoff_max: Duration::from_millis(10),
        request_timeout: Duration::from_millis(700),
        timeout_per_mib: Duration::from_secs(1),
        part_bytes: 1 << 20,
        request_bytes_max: 256 << 10,
        coalesce_gap_bytes: 1 << 10,
        fsync: false,
        ..StoreOptions::default()
    }
}

struct ScriptedFaults(FaultyStore);

impl ScriptedFaults {
    fn add(&self, fault: faulty::Fault, op: Option<Op>, times: u32) {
        self.0.inject(
            fault,
            Strike {
                op,
                path_contains: None,
                times,
            },
        );
    }
}

impl Faults for ScriptedFaults {
    fn refuse(&self, times: u32) {
        self.add(faulty::Fault::Error503, None, times);
    }
    fn lose_create_replies(&self, times: u32) {
        self.add(faulty::Fault::LostReply, Some(Op::Create), times);
    }
    fn slow_reads(&self, delay: Duration, times: u32) {
        self.add(faulty::Fault::Delay(delay), Some(Op::Get), times);
    }
    fn truncate_reads(&self, times: u32) {
        self.add(faulty::Fault::Truncate, Some(Op::Get), times);
    }
    fn clear(&self) {
        self.0.heal();
    }
}

struct HttpFaults<'a>(&'a S3Server);

impl Faults for HttpFaults<'_> {
    fn refuse(&self, times: u32) {
        self.0.inject(Fault::Error503 { times });
    }
    fn lose_create_replies(&self, times: u32) {
        self.0
            .inject_for(Filter::method(Method::PUT), Fault::DropReplyAfterApply { times });
    }
    fn slow_reads(&self, delay: Duration, times: u32) {
        self.0
            .inject_for(Filter::method(Method::GET), Fault::Delay { delay, times });
    }
    fn truncate_reads(&self, times: u32) {
        self.0
            .inject_for(Filter::method(Method::GET), Fault::TruncateBody { times });
    }
    fn clear(&self) {
        self.0.clear_faults();
    }
}

async fn faulty_backend(inner: Arc<dyn ObjectStore>) {
    let faulty = FaultyStore::new(inner);
    let store = Store::new(Arc::new(faulty.clone()), options());
    conformance::under_faults(&store, &ScriptedFaults(faulty), SLOW).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory() {
    conformance::contract(&Store::new(Arc::new(InMemory::new()), options())).await;
    faulty_backend(Arc::new(InMemory::new())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn local_folder() {
    let dir = tempfile::tempdir().unwrap();
    let url = dir.path().join("data");
    let url = url.to_str().unwrap();
    let rng = Arc::new(Rng::seeded(1));
    let store = Store::open(url, options(), Arc::new(SystemClock), Arc::clone(&rng))
        .await
        .unwrap();
    conformance::contract(&store).await;
    assert_eq!(
        std::fs::read_dir(url).unwrap().count(),
        0,
        "no staging files and no empty folders stay"
    );
    let synced = Store::open(
        url,
        StoreOptions {
            fsync: true,
            ..options()
        },
        Arc::new(SystemClock),
        rng,
    )
    .await
    .unwrap();
    synced.probe().await.unwrap();
    faulty_backend(Arc::new(LocalFileSystem::new_with_prefix(dir.path()).unwrap())).await;
}

fn server() -> (tempfile::TempDir, S3Server) {
    let dir = tempfile::tempdir().unwrap();
    let server = S3Server::start(dir.path()).unwrap();
    server.create_bucket("bucket").unwrap();
    (dir, server)
}

async fn open_s3(server: &S3Server, url: &str, options: StoreOptions) -> Store {
    let options = StoreOptions {
        provider: server.env().into_iter().collect(),
        // The smallest that S3 takes.
        part_bytes: 5 << 20,
        ..options
    };
    Store::open(url, options, Arc::new(SystemClock), Arc::new(Rng::from_os()))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn s3() {
    let (dir, server) = server();
    let store = open_s3(&server, "s3://bucket/some/prefix", options()).await;
    conformance::contract(&store).await;
    conformance::under_faults(&store, &HttpFaults(&server), SLOW).await;
    store.upload("x/y", "z".into()).await.unwrap();
    assert_eq!(std::fs::read(dir.path().join("bucket/some/prefix/x/y")).unwrap(), b"z");
    let whole = open_s3(&server, "s3://bucket", options()).await;
    assert_eq!(whole.list("some").await.unwrap()[0].path, "some/prefix/x/y");
}

/// The environment belongs to the process, so a child has it set.
#[test]
fn s3_from_the_environment() {
    let (dir, server) = server();
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "s3_environment_child", "--ignored"])
        .envs(server.env())
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    assert_eq!(std::fs::read(dir.path().join("bucket/env/x")).unwrap(), b"y");
}

#[tokio::test]
#[ignore = "the child of s3_from_the_environment"]
async fn s3_environment_child() {
    let rng = Arc::new(Rng::from_os());
    let store = Store::open("s3://bucket/env", StoreOptions::default(), Arc::new(SystemClock), rng)
        .await
        .unwrap();
    assert!(
        store.url().contains("s3://bucket/env at http://127.0.0.1:"),
        "{}",
        store.url()
    );
    store.probe().await.unwrap();
    store.upload("x", "y".into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_conflicts_are_asked_again() {
    let (_dir, server) = server();
    let store = open_s3(&server, "s3://bucket", options()).await;
    server.inject_for(Filter::method(Method::PUT), Fault::Conflict409 { times: 3 });
    assert_eq!(store.put_if_absent("a", "1".into()).await.unwrap(), PutOutcome::Created);
    server.inject_for(Filter::method(Method::PUT), Fault::Conflict409 { times: ALWAYS });
    let e = store.put_if_absent("b", "1".into()).await.unwrap_err();
    assert_eq!(
        e.kind,
        ErrorKind::Unavailable,
        "neither created nor known to exist: {e}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_retries_do_not_multiply() {
    let (_dir, server) = server();
    let store = open_s3(&server, "s3://bucket", options()).await;
    server.inject(Fault::Error503 { times: ALWAYS });
    let before = server.requests();
    let e = store.get("x").await.unwrap_err();
    assert_eq!(server.requests() - before, 10, "one request per try");
    assert!(
        e.message.contains("10 tries") && e.message.contains("503 SlowDown"),
        "{e}"
    );
    let get = store.stats().snapshot().operation(Operation::Get);
    assert_eq!((get.requests, get.retries, get.errors), (10, 9, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_lists_go_on_where_they_broke() {
    let (dir, server) = server();
    let folder = dir.path().join("bucket/prefix/many");
    std::fs::create_dir_all(&folder).unwrap();
    for i in 0..2_500 {
        std::fs::write(folder.join(format!("{i:05}")), "x").unwrap();
    }
    let store = open_s3(&server, "s3://bucket/prefix", options()).await;
    // Page one comes, page two is refused twice; the third try asks for what follows page one.
    server.inject_for(Filter::path("continuation-token="), Fault::Error503 { times: 1 });
    server.inject_for(Filter::path("start-after="), Fault::Error503 { times: 1 });
    let before = server.requests();
    let mut names: Vec<String> = store.list("many").await.unwrap().into_iter().map(|o| o.path).collect();
    assert_eq!(server.requests() - before, 5, "three pages, two of them refused once");
    assert!(names.is_sorted());
    names.dedup();
    assert_eq!(names.len(), 2_500);
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_parts_are_repeated_alone() {
    let (_dir, server) = server();
    let store = open_s3(&server, "s3://bucket", options()).await;
    server.inject_for(
        Filter::method(Method::PUT).and_path("partNumber=2"),
        Fault::Error503 { times: 3 },
    );
    let body = conformance::pattern(18 << 20);
    store.upload("large", body.clone()).await.unwrap();
    assert!(store.get("large").await.unwrap().is_some_and(|got| got == body));
    let stats = store.stats().snapshot();
    assert_eq!(
        stats.operation(Operation::Upload).requests,
        1,
        "the upload as a whole was not begun again"
    );
    // A completion whose answer is lost is recognised by the object.
    server.inject_for(
        Filter::method(Method::POST).and_path("uploadId="),
        Fault::DropReplyAfterApply { times: 1 },
    );
    store.upload("other", body.clone()).await.unwrap();
    assert!(store.get("other").await.unwrap().is_some_and(|got| got == body));
    assert_eq!(store.stats().snapshot().operation(Operation::Upload).requests, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_what_is_wrong_at_start_is_one_readable_line() {
    let (_dir, server) = server();
    let check = async |store: Store, kind: ErrorKind, words: &[&str]| {
        let e = store.probe().await.unwrap_err();
        assert_eq!(e.kind, kind, "{e}");
        for word in words {
            assert!(e.message.contains(word) && !e.message.contains('\n'), "{word}: {e}");
        }
    };
    let few = StoreOptions {
        attempts_max: 2,
        ..options()
    };

    let store = open_s3(&server, "s3://missing/x", few.clone()).await;
    check(
        store.clone(),
        ErrorKind::Unavailable,
        &["s3://missing/x", "bucket does not exist"],
    )
    .await;
    let e = store.get("x").await.unwrap_err();
    assert_eq!(
        e.kind,
        ErrorKind::Unavailable,
        "a missing bucket is not an empty store: {e}"
    );
    assert!(store.list("").await.is_err() && store.head("x").await.is_ok());

    let store = open_s3(&server, "s3://bucket", few.clone()).await;
    server.inject(Fault::AccessDenied { times: ALWAYS });
    check(store.clone(), ErrorKind::Unavailable, &["access denied"]).await;
    server.clear_faults();

    server.inject(Fault::IgnoreConditions { times: ALWAYS });
    check(
        store.clone(),
        ErrorKind::Unsupported,
        &["If-None-Match", "created twice"],
    )
    .await;
    server.clear_faults();
    store.probe().await.unwrap();
    assert_eq!(store.list("").await.unwrap(), [], "probes leave nothing behind");

    drop(server);
    check(store, ErrorKind::Unavailable, &["s3://bucket", "gave up after 2 tries"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cached_ranges_ask_the_backend_once() {
    let (dir, server) = server();
    let disk = DiskCacheOptions {
        path: dir.path().join("cache"),
        bytes: 64 << 20,
    };
    let options = StoreOptions {
        cache_disk: Some(disk),
        ..options()
    };
    let store = open_s3(&server, "s3://bucket", options.clone()).await;
    let body = conformance::pattern(100_000);
    store.upload("a", body.clone()).await.unwrap();
    let ranges = [0..1000, 1500..2000, 50_000..50_001];
    let read = async |store: &Store| {
        let before = server.requests();
        let got = store.get_ranges("a", &ranges).await.unwrap();
        for (got, r) in got.iter().zip(&ranges) {
            assert_eq!(*got, body.slice(r.start as usize..r.end as usize));
        }
        server.requests() - before
    };
    assert_eq!(read(&store).await, 2, "two neighbours and one far away");
    assert_eq!(read(&store).await, 0);
    assert_eq!(read(&store.without_cache()).await, 2);
    let stats = store.stats().snapshot();
    assert_eq!((stats.cache_hits, stats.cache_misses, stats.ranges_merged), (3, 3, 2));
    store.forget("a", 0..1000);
    assert_eq!(read(&store).await, 1);
    store.close().await;

    let restarted = open_s3(&server, "s3://bucket", options.clone()).await;
    assert_eq!(read(&restarted).await, 0, "the disk tier is warm");
    restarted.close().await;

    server.create_bucket("other").unwrap();
    let other = open_s3(&server, "s3://other", options).await;
    let e = other.get_range("a", 0..1000).await.unwrap_err();
    assert_eq!(
        e.kind,
        ErrorKind::NotFound,
        "another bucket does not see the entries of the first"
    );
    other.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_reads_at_the_same_time_are_one() {
    let faulty = FaultyStore::new(Arc::new(InMemory::new()));
    let store = Store::new(Arc::new(faulty.clone()), options());
    store.upload("a", conformance::pattern(1000)).await.unwrap();
    let delay = faulty::Fault::Delay(Duration::from_millis(100));
    faulty.inject(
        delay,
        Strike {
            op: Some(Op::Get),
            path_contains: None,
            times: u32::MAX,
        },
    );
    let before = faulty.operations();
    let reads = (0..50).map(|_| store.get_range("a", 0..500));
    for got in futures::future::join_all(reads).await {
        assert_eq!(got.unwrap(), conformance::pattern(500));
    }
    assert_eq!(faulty.operations() - before, 1);
    assert_eq!(store.stats().snapshot().reads_shared, 49);
}

/// A seeded storm over many operations: no answer may be wrong, whatever fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_everything_gives_no_wrong_answer() {
    for seed in 0..20 {
        let rates = faulty::FaultRates {
            error_503: 0.2,
            lost_reply: 0.1,
            truncate: 0.2,
            delay: 0.3,
            delay_max: Duration::from_millis(3),
            ..Default::default()
        };
        let inner = Arc::new(InMemory::new());
        let faulty = FaultyStore::seeded(inner, seed, rates);
        let store = Store::new(
            Arc::new(faulty),
            StoreOptions {
                attempts_max: 30,
                ..options()
            },
        );
        let jobs = (0..40usize).map(|i| {
            let store = store.clone();
            async move {
                let path = format!("storm/{}", i % 10);
                let body = bytes::Bytes::from(format!("writer {i} {}", "x".repeat(2000)));
                let won = store.put_if_absent_verified(&path, body.clone()).await.unwrap() == PutOutcome::Created;
                let stored = store.get(&path).await.unwrap().unwrap();
                assert_eq!(won, stored == body, "seed {seed}, writer {i}");
                let range = store.get_range(&path, 3..1800).await.unwrap();
                assert_eq!(range, stored.slice(3..1800), "seed {seed}, writer {i}");
                won
            }
        });
        let winners = futures::future::join_all(jobs).await.into_iter().filter(|w| *w).count();
        assert_eq!(winners, 10, "seed {seed}");
        assert_eq!(store.list("storm").await.unwrap().len(), 10, "seed {seed}");
    }
}

/// `mount -t tmpfs -o size=8m tmpfs DIR; TRILITH_SMALL_DISK=DIR cargo test -p trilith-object -- --ignored a_full_disk`
#[tokio::test]
#[ignore = "needs a small disk in TRILITH_SMALL_DISK"]
async fn a_full_disk_refuses_and_recovers() {
    let dir = std::env::var("TRILITH_SMALL_DISK").expect("a folder on a disk of less than 16 MiB");
    let url = format!("{dir}/data");
    let rng = Arc::new(Rng::from_os());
    let store = Store::open(
        &url,
        StoreOptions {
            fsync: true,
            ..options()
        },
        Arc::new(SystemClock),
        rng,
    )
    .await
    .unwrap();
    let (small, large) = (conformance::pattern(900 << 10), conformance::pattern(16 << 20));
    let full = |e: trilith_model::Error| {
        assert_eq!(e.kind, ErrorKind::Unavailable, "{e}");
        assert!(
            e.message.contains("disk is full") && !e.message.contains("gave up"),
            "{e}"
        );
    };
    full(store.upload("large", large).await.unwrap_err());
    let mut stored = 0;
    loop {
        match store.put_if_absent(&format!("small/{stored}"), small.clone()).await {
            Ok(outcome) => assert_eq!(outcome, PutOutcome::Created),
            Err(e) => break full(e),
        }
        stored += 1;
        assert!(stored < 100, "the disk is not small");
    }
    assert!(stored > 0);
    let listed = store.list("").await.unwrap();
    assert_eq!(listed.len(), stored, "what was refused left nothing: {listed:?}");
    assert_eq!(
        std::fs::read_dir(format!("{url}/small")).unwrap().count(),
        stored,
        "no staging files either"
    );
    for object in listed {
        assert_eq!(store.get(&object.path).await.unwrap().as_ref(), Some(&small));
        store.delete(&object.path).await.unwrap();
    }
    store.probe().await.unwrap();
}
