use std::path::Path;
use std::time::Duration;

use futures::StreamExt as _;
use proptest::prelude::*;
use trilith_block::ShardOptions;
use trilith_model::rng::Rng;
use trilith_model::{MatchOp, Matcher, StaticLimits};
use trilith_object::Store;
use trilith_query::{Direction, LineFilter, LineFilterOp, WantedFields};
use trilith_testkit::SimClock;
use trilith_testkit::waist::{context, entries as suite};

use super::*;
use crate::testing::{Got, Model, arb_batch, batch};

const NOW: i64 = 1_700_000_000_000_000_000;

fn tenant() -> TenantId {
    TenantId::new("t").expect("valid")
}

/// A store with a log in `dir` and blocks in `objects`; opening it again is a restart.
async fn open(dir: &Path, objects: &Store, limits: Limits) -> Arc<LogsStore> {
    let clock: Arc<dyn Clock> = SimClock::new(NOW);
    let wal_dir = dir.join("wal");
    let writer = Wal::writer_id_of(&wal_dir).expect("a writer id");
    let options = ShardOptions::defaults(Signal::Logs, dir.join("scratch"));
    let rng = Arc::new(Rng::seeded(7));
    let shard = Shard::open(
        Arc::new(LogsEngine),
        objects.clone(),
        clock.clone(),
        rng,
        writer,
        options,
    )
    .await
    .expect("the shard opens");
    let upto = Lsn(shard.wal_upto());
    let (wal, mut replay) = Wal::open(trilith_wal::Options::new(wal_dir), upto, clock.clone()).expect("the log opens");
    replay.after(Signal::Logs, upto);
    let store = LogsStore::new(
        shard,
        wal,
        clock,
        Arc::new(StaticLimits(Arc::new(limits))),
        LogsOptions::default(),
    );
    for segment in replay.segments() {
        for record in segment {
            store
                .replay(record.expect("the log reads"))
                .await
                .expect("the record replays");
        }
    }
    store
}

fn unlimited() -> Limits {
    Limits {
        max_sample_age: Duration::ZERO,
        max_sample_future: Duration::ZERO,
        ..Limits::default()
    }
}

fn request(start_ns: i64, end_ns: i64, direction: Direction) -> EntryRequest {
    EntryRequest {
        matchers: Vec::new(),
        start_ns,
        end_ns,
        direction,
        limit: None,
        filters: Vec::new(),
        fields: WantedFields::ALL,
    }
}

async fn collect(store: &LogsStore, request: EntryRequest) -> Vec<Got> {
    let ctx = context(&tenant());
    let got = suite::collect(store, &ctx, request).await;
    assert!(ctx.warnings().is_empty(), "{:?}", ctx.warnings());
    got.into_iter()
        .map(|g| {
            assert_eq!(g.line_len as usize, g.line.len());
            Got {
                stream: g.stream,
                ts_ns: g.ts_ns,
                line: g.line,
                metadata: g.metadata,
            }
        })
        .collect()
}

#[derive(Clone, Debug)]
enum Op {
    Push(LogBatch),
    Flush,
    Compact,
    Restart,
}

fn arb_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => arb_batch().prop_map(Op::Push),
        2 => Just(Op::Flush),
        1 => Just(Op::Compact),
        1 => Just(Op::Restart),
    ]
}

#[derive(Clone, Debug)]
struct Ask {
    selector: usize,
    range: (i64, i64),
    direction: Direction,
    limit: Option<usize>,
    filters: Vec<LineFilter>,
}

fn arb_ask() -> impl Strategy<Value = Ask> {
    let bound = || {
        prop_oneof![
            Just(i64::MIN),
            Just(i64::MAX),
            0i64..7,
            (0i64..4).prop_map(|d| d * 86_400_000_000_000)
        ]
    };
    let filter = (0..4usize, "[abx]{0,2}").prop_map(|(op, needle)| {
        let op = [
            LineFilterOp::Contains,
            LineFilterOp::NotContains,
            LineFilterOp::Matches,
            LineFilterOp::NotMatches,
        ][op];
        LineFilter::new(op, vec![needle.as_str().into()]).expect("letters are an expression")
    });
    let direction = prop_oneof![Just(Direction::Forward), Just(Direction::Backward)];
    let limit = prop::option::of(1..8usize);
    (
        0..4usize,
        (bound(), bound()),
        direction,
        limit,
        prop::collection::vec(filter, 0..2),
    )
        .prop_map(|(selector, (a, b), direction, limit, filters)| Ask {
            selector,
            range: (a.min(b), a.max(b)),
            direction,
            limit,
            filters,
        })
}

fn selector(i: usize) -> Vec<Matcher> {
    match i {
        0 => Vec::new(),
        1 => vec![Matcher::eq("app", "x")],
        2 => vec![
            Matcher::new(MatchOp::Re, "app", "x|y").expect("valid"),
            Matcher::eq("i", ""),
        ],
        _ => vec![Matcher::ne("app", "x")],
    }
}

async fn check_queries(store: &LogsStore, model: &Model, asks: &[Ask]) {
    for ask in asks {
        let matchers = selector(ask.selector);
        let keep = |l: &Labels| matchers.iter().all(|m| m.matches(l.get(&m.name).unwrap_or("")));
        let (start, end) = ask.range;
        let want = match end.checked_sub(1) {
            Some(last) if start <= last => {
                let limit = ask.limit.unwrap_or(usize::MAX);
                model.select(keep, start, last, &ask.filters, ask.direction, limit)
            }
            _ => Vec::new(),
        };
        let r = EntryRequest {
            matchers: matchers.clone(),
            limit: ask.limit,
            filters: ask.filters.clone(),
            ..request(start, end, ask.direction)
        };
        assert_eq!(collect(store, r.clone()).await, want, "{ask:?}");

        // Counting needs no lines and finds the same.
        let count = EntryRequest {
            fields: WantedFields::COUNT,
            ..r
        };
        let mut stream = store.select(&context(&tenant()), count);
        let mut times = Vec::new();
        while let Some(batch) = stream.next().await {
            let batch = batch.expect("selects");
            times.extend(
                batch
                    .entries
                    .iter()
                    .map(|e| (e.ts_ns, batch.streams[e.stream as usize].clone())),
            );
        }
        assert_eq!(
            times,
            want.iter().map(|g| (g.ts_ns, g.stream.clone())).collect::<Vec<_>>(),
            "count of {ask:?}"
        );
    }
    let all = LabelRequest {
        matcher_sets: Vec::new(),
        start: i64::MIN,
        end: i64::MAX,
        limit: 0,
    };
    let ctx = context(&tenant());
    let mut want: Vec<Labels> = model
        .select(|_| true, i64::MIN, i64::MAX, &[], Direction::Forward, usize::MAX)
        .into_iter()
        .map(|g| g.stream)
        .collect();
    want.sort();
    want.dedup();
    assert_eq!(store.streams(&ctx, all.clone()).await.expect("streams"), want);
    let mut values: Vec<&str> = want.iter().filter_map(|l| l.get("app")).collect();
    values.sort_unstable();
    values.dedup();
    assert_eq!(store.label_values(&ctx, "app", all).await.expect("values"), values);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Wherever entries are, in whatever order they came: the answers are those of a sorted list.
    #[test]
    fn answers_like_the_model(
        ops in prop::collection::vec(arb_op(), 1..12),
        asks in prop::collection::vec(arb_ask(), 1..6),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let dir = tempfile::tempdir().expect("a folder");
            let objects = Store::memory();
            let mut store = open(dir.path(), &objects, unlimited()).await;
            let mut model = Model::default();
            for op in &ops {
                match op {
                    Op::Push(batch) => {
                        let done = store.append(&tenant(), batch.clone()).await.expect("appends");
                        assert_eq!(done, Appended { accepted: batch.entry_count() as u64, ..Appended::default() });
                        model.push(batch);
                    }
                    Op::Flush => store.flush().await.expect("flushes"),
                    Op::Compact => drop(store.compact().await.expect("compacts")),
                    Op::Restart => {
                        drop(store);
                        store = open(dir.path(), &objects, unlimited()).await;
                    }
                }
            }
            check_queries(&store, &model, &asks).await;
            for block in store.shard().blocks().iter() {
                trilith_block::Engine::verify(&LogsEngine, block).await.expect("the block verifies");
            }
            store.flush().await.expect("flushes");
            store.compact().await.expect("compacts");
            check_queries(&store, &model, &asks).await;
            let stored: u64 = store.shard().blocks().iter().map(|b| b.meta.items).sum();
            assert!(stored >= model.len() as u64, "blocks may repeat each other only until they are merged");
        });
    }
}

/// Every place where data may live.
#[derive(Clone, Copy, Debug)]
enum Where {
    Head,
    Blocks,
    Mixed,
    Merged,
    Replayed,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_to_the_waist() {
    for place in [Where::Head, Where::Blocks, Where::Mixed, Where::Merged, Where::Replayed] {
        // Folders live as long as the test: stores are dropped by the suite at any time.
        let dirs = parking_lot::Mutex::new(Vec::new());
        suite::run(|data| {
            let dir = tempfile::tempdir().expect("a folder");
            let path = dir.path().to_owned();
            dirs.lock().push(dir);
            async move {
                let objects = Store::memory();
                let limits = || Limits {
                    max_sample_future: Duration::ZERO,
                    ..Limits::default()
                };
                let mut store = open(&path, &objects, limits()).await;
                for (tenant, batch) in data {
                    store.append(&tenant, batch).await.expect("appends");
                    if matches!(place, Where::Mixed | Where::Merged) {
                        store.flush().await.expect("flushes");
                    }
                }
                match place {
                    Where::Head | Where::Mixed => {}
                    Where::Blocks => store.flush().await.expect("flushes"),
                    Where::Merged => drop(store.compact().await.expect("compacts")),
                    Where::Replayed => {
                        drop(store);
                        store = open(&path, &objects, limits()).await;
                    }
                }
                store as Arc<dyn EntrySource>
            }
        })
        .await;
    }
}

fn simple(entries: &[(i64, &str)]) -> LogBatch {
    let none = Labels::empty();
    let rows: Vec<_> = entries.iter().map(|(ts, line)| (*ts, *line, &none)).collect();
    batch(&[(&[("app", "x")], &rows)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_refuse_with_the_upstream_words() {
    let dir = tempfile::tempdir().expect("a folder");
    let limits = Limits {
        max_sample_age: Duration::from_secs(3600),
        max_sample_future: Duration::from_secs(600),
        active_streams_max: 2,
        ..Limits::default()
    };
    let store = open(dir.path(), &Store::memory(), limits).await;
    let hour = 3_600_000_000_000;
    let done = store
        .append(
            &tenant(),
            simple(&[
                (NOW, "now"),
                (NOW - hour - 1, "old"),
                (NOW - hour, "just"),
                (NOW + hour, "new"),
                (0, "older"),
            ]),
        )
        .await
        .expect("appends");
    assert_eq!(done.accepted, 2);
    assert_eq!(done.rejections.len(), 2);
    let old = &done.rejections[0];
    assert_eq!(
        (old.kind, old.reason, old.count),
        (ErrorKind::Invalid, "greater_than_max_sample_age", 2)
    );
    assert_eq!(
        old.message,
        "entry for stream '{app=\"x\"}' has timestamp too old: 2023-11-14T21:13:19Z, oldest acceptable timestamp is: 2023-11-14T21:13:20Z"
    );
    assert_eq!(
        done.rejections[1].message,
        "entry for stream '{app=\"x\"}' has timestamp too new: 2023-11-14T23:13:20Z"
    );

    let none = Labels::empty();
    let more = batch(&[
        (&[("app", "x")], &[(NOW, "known", &none)]),
        (&[("app", "y")], &[(NOW, "second", &none)]),
        (&[("app", "z")], &[(NOW, "third", &none), (NOW, "fourth", &none)]),
    ]);
    let done = store.append(&tenant(), more).await.expect("appends");
    assert_eq!(done.accepted, 2);
    let full = &done.rejections[0];
    assert_eq!(
        (full.kind, full.reason, full.count),
        (ErrorKind::LimitExceeded, "stream_limit", 2)
    );
    assert!(
        full.message
            .starts_with("maximum active stream limit exceeded when trying to create stream {app=\"z\"}, reduce")
    );
    assert!(full.message.ends_with("user: 't'"));
    let got = collect(&store, request(0, i64::MAX, Direction::Forward)).await;
    assert_eq!(
        got.iter().map(|g| &g.line[..]).collect::<Vec<_>>(),
        [&b"just"[..], b"now", b"known", b"second"]
    );

    // Another tenant has streams of its own, and a cut makes room.
    let other = TenantId::new("other").expect("valid");
    assert!(
        store
            .append(&other, simple(&[(NOW, "x")]))
            .await
            .expect("appends")
            .rejections
            .is_empty()
    );
    store.flush().await.expect("flushes");
    let third = batch(&[(&[("app", "z")], &[(NOW, "third", &none)])]);
    assert!(
        store
            .append(&tenant(), third)
            .await
            .expect("appends")
            .rejections
            .is_empty()
    );
    let stats = store.stats();
    assert_eq!((stats.entries, stats.rejected_entries, stats.streams), (6, 5, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_request_leaves_log_and_head_equal() {
    let dir = tempfile::tempdir().expect("a folder");
    let objects = Store::memory();
    let store = open(dir.path(), &objects, unlimited()).await;
    for i in 0..50 {
        let tenant = tenant();
        let append = store.append(&tenant, simple(&[(i, "line")]));
        // Polled once and dropped: the record may be on its way.
        let _ = tokio::time::timeout(Duration::ZERO, append).await;
    }
    store
        .append(&tenant(), simple(&[(100, "last")]))
        .await
        .expect("appends");
    // Tickets out: a cut waits for what is on its way.
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    let before = loop {
        let got = collect(&store, request(0, 1000, Direction::Forward)).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        if collect(&store, request(0, 1000, Direction::Forward)).await == got || std::time::Instant::now() > deadline {
            break got;
        }
    };
    drop(store);
    let store = open(dir.path(), &objects, unlimited()).await;
    assert_eq!(collect(&store, request(0, 1000, Direction::Forward)).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupt_block_is_skipped_with_a_warning() {
    let dir = tempfile::tempdir().expect("a folder");
    let objects = Store::memory();
    let store = open(dir.path(), &objects, unlimited()).await;
    store
        .append(&tenant(), simple(&[(1, "in the first block")]))
        .await
        .expect("appends");
    store.flush().await.expect("flushes");
    store
        .append(&tenant(), simple(&[(2, "in the second")]))
        .await
        .expect("appends");
    store.flush().await.expect("flushes");
    let block = store.shard().blocks()[0].clone();
    let path = block.path(crate::block::FILE);
    let mut bytes = objects.get(&path).await.expect("reads").expect("is there").to_vec();
    // In the pages, behind the container's header.
    bytes[20] ^= 0xff;
    objects.delete(&path).await.expect("deletes");
    objects.upload(&path, bytes.into()).await.expect("uploads");
    drop(store);
    let store = open(dir.path(), &objects, unlimited()).await;
    let ctx = context(&tenant());
    let got = suite::collect(&*store, &ctx, request(0, 10, Direction::Forward)).await;
    assert_eq!(got.len(), 1);
    assert_eq!(ctx.warnings().len(), 1);
    assert!(ctx.warnings()[0].contains("is corrupt"));
    let e = trilith_block::Engine::verify(&LogsEngine, &store.shard().blocks()[0])
        .await
        .expect_err("damaged");
    assert_eq!(e.kind, ErrorKind::Corrupt);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn query_limits_hold() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path(), &Store::memory(), unlimited()).await;
    let big = "x".repeat(1000);
    let rows: Vec<(i64, &str)> = (0..3000).map(|i| (i, big.as_str())).collect();
    for part in rows.chunks(100) {
        store.append(&tenant(), simple(part)).await.expect("appends");
    }
    for place in ["head", "blocks"] {
        let mut ctx = context(&tenant());
        ctx.limits = Arc::new(Limits {
            query_entries_max: 100,
            ..Limits::default()
        });
        let all: Vec<_> = store.select(&ctx, request(0, 5000, Direction::Forward)).collect().await;
        let e = all.last().expect("an end").as_ref().expect_err("too many");
        assert!(e.message.contains("limits.query-entries"), "{place}: {e}");
        let few = EntryRequest {
            limit: Some(100),
            ..request(0, 5000, Direction::Backward)
        };
        assert_eq!(suite::collect(&*store, &ctx, few).await.len(), 100);

        let limits = Arc::new(Limits {
            query_memory_bytes: 100_000,
            ..Limits::default()
        });
        let ctx = QueryContext::new(tenant(), limits, SimClock::new(NOW), Duration::ZERO);
        if place == "blocks" {
            let all: Vec<_> = store.select(&ctx, request(0, 5000, Direction::Forward)).collect().await;
            let e = all.last().expect("an end").as_ref().expect_err("too large");
            assert!(e.message.contains("limits.query-memory"), "{e}");
        }
        // Memory comes back when the answer is dropped.
        assert!(ctx.memory.reserve(99_000).is_ok());
        store.flush().await.expect("flushes");
    }
}

/// The last 100 lines of a large block cost a page or two, not the block.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_reads_the_newest_pages_only() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path(), &Store::memory(), unlimited()).await;
    let mut rng = 1u64;
    for part in 0..20i64 {
        let lines: Vec<String> = (0..1000)
            .map(|_| {
                rng = rng.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                format!("{rng:x}").repeat(16)
            })
            .collect();
        let rows: Vec<(i64, &str)> = lines
            .iter()
            .enumerate()
            .map(|(i, l)| (part * 1000 + i as i64, l.as_str()))
            .collect();
        store.append(&tenant(), simple(&rows)).await.expect("appends");
    }
    store.flush().await.expect("flushes");
    let ctx = context(&tenant());
    let r = EntryRequest {
        limit: Some(100),
        ..request(0, i64::MAX, Direction::Backward)
    };
    let got = suite::collect(&*store, &ctx, r).await;
    assert_eq!((got.len(), got[0].ts_ns), (100, 19_999));
    let read = trilith_query::QueryStats::get(&ctx.stats.bytes_decoded);
    assert!(read < 2 << 20, "{read} bytes decoded");
}

fn random_lines(seed: u64, count: usize, words: usize) -> Vec<String> {
    let mut state = seed;
    let mut word = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        format!("{:016x}", state.wrapping_mul(state | 1))
    };
    (0..count).map(|_| (0..words).map(|_| word()).collect()).collect()
}

/// Inputs above the limit for memory: the output goes through the scratch folder, old entries go away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_merge_spools_and_forgets_what_is_too_old() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path(), &Store::memory(), unlimited()).await;
    for part in 0..2i64 {
        let lines = random_lines(part as u64 + 1, 10_000, 64);
        let rows: Vec<(i64, &str)> = lines
            .iter()
            .enumerate()
            .map(|(i, l)| (i as i64 * 2 + part, l.as_str()))
            .collect();
        store.append(&tenant(), simple(&rows)).await.expect("appends");
        store.flush().await.expect("flushes");
    }
    let blocks = store.shard().blocks();
    let inputs = blocks.to_vec();
    assert!(inputs.iter().map(|b| b.meta.bytes()).sum::<u64>() > 8 << 20);
    let scratch = dir.path().join("merge");
    std::fs::create_dir(&scratch).expect("a folder");
    let job = trilith_block::Merge {
        inputs,
        level: 1,
        scratch,
        keep_from: Some(5_001),
    };
    let drafts = trilith_block::Engine::merge(&LogsEngine, job).await.expect("merges");
    assert_eq!(drafts.len(), 1);
    assert_eq!(
        (drafts[0].items, drafts[0].time),
        (14_999, trilith_model::TimeRange::new(5_001, 19_999))
    );
    assert!(matches!(drafts[0].files[0].body, trilith_block::FileBody::Spooled(_)));

    assert_eq!(store.compact().await.expect("compacts"), 1);
    let blocks = store.shard().blocks();
    assert_eq!((blocks.len(), blocks[0].meta.items), (1, 20_000));
    trilith_block::Engine::verify(&LogsEngine, &blocks[0])
        .await
        .expect("the block verifies");
    let got = collect(&store, request(0, 100_000, Direction::Backward)).await;
    assert_eq!(got.len(), 20_000);
    assert!(got.iter().rev().enumerate().all(|(i, g)| g.ts_ns == i as i64));
}

/// Every line of the loghub samples comes back byte for byte, from a fifth of its size.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_lines_are_exact_and_small() {
    let folder = std::env::var_os("TRILITH_CORPORA")
        .map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpora"),
            Into::into,
        )
        .join("loghub");
    let Ok(files) = std::fs::read_dir(&folder) else {
        eprintln!("skipped: {} is not there", folder.display());
        return;
    };
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path(), &Store::memory(), unlimited()).await;
    let (mut raw, mut model) = (0, Vec::new());
    let mut files: Vec<_> = files.map(|f| f.expect("a file").path()).collect();
    files.sort();
    for file in files.iter().filter(|f| f.extension().is_some_and(|e| e == "log")) {
        let text = Bytes::from(std::fs::read(file).expect("reads"));
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let labels = Labels::from_pairs([("app", name.as_str())]);
        let entries: Vec<trilith_model::LogEntry> = text
            .split(|b| *b == b'\n')
            .enumerate()
            .map(|(i, line)| trilith_model::LogEntry {
                ts_ns: NOW + i as i64 * 1_000_000,
                line: text.slice_ref(line),
                metadata: Labels::empty(),
            })
            .collect();
        raw += text.len() as u64;
        model.extend(entries.iter().map(|e| (e.ts_ns, labels.clone(), e.line.clone())));
        let stream = trilith_model::LogStream { labels, entries };
        store
            .append(&tenant(), LogBatch { streams: vec![stream] })
            .await
            .expect("appends");
    }
    model.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    store.flush().await.expect("flushes");
    let got = collect(&store, request(0, i64::MAX, Direction::Forward)).await;
    assert_eq!(got.len(), model.len());
    for (g, (ts, labels, line)) in got.iter().zip(&model) {
        assert_eq!((g.ts_ns, &g.stream, &g.line[..]), (*ts, labels, &line[..]));
    }
    let stored: u64 = store.shard().blocks().iter().map(|b| b.meta.bytes()).sum();
    assert!(stored * 100 < raw * 22, "{stored} bytes stored of {raw}");
}
