//! The log on a disk that does what the test says, driven step by step or by its thread.

mod damage;
mod failure;
mod release;
mod simulation;
mod threads;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use trilith_model::rng::Rng;
use trilith_model::{Clock, Result, Signal, TenantId};

use crate::commit::Committer;
use crate::log::{Outcome, Shared};
use crate::store::MemoryStore;
use crate::{Lsn, Options, Prepared, Record, Replay, prepare};

#[derive(Default)]
struct TestClock(AtomicU64);

impl TestClock {
    fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now_ns(&self) -> i64 {
        0
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// A log without a thread: nothing happens between two calls.
struct Bench {
    store: MemoryStore,
    clock: Arc<TestClock>,
    shared: Arc<Shared>,
    committer: Committer,
    replay: Replay,
    writer_id: String,
}

type Waiting = watch::Receiver<Outcome>;

fn options(segment_bytes: u64) -> Options {
    Options {
        segment_bytes,
        backlog_bytes_max: 64 << 10,
        ..Options::new("")
    }
}

fn tenant() -> TenantId {
    TenantId::new("team-a").expect("valid")
}

impl Bench {
    fn open(store: &MemoryStore, segment_bytes: u64) -> Bench {
        Self::try_open(store, segment_bytes, Lsn(0)).expect("opens")
    }

    fn try_open(store: &MemoryStore, segment_bytes: u64, floor: Lsn) -> Result<Bench> {
        let clock = Arc::new(TestClock::default());
        let seed = store.syncs() + 7;
        let Prepared {
            shared,
            writer_id,
            committer,
            replay,
        } = prepare(
            Arc::new(store.clone()),
            &options(segment_bytes),
            floor,
            clock.clone(),
            Rng::seeded(seed),
        )?;
        Ok(Bench {
            store: store.clone(),
            clock,
            shared,
            committer,
            replay,
            writer_id,
        })
    }

    fn append(&self, signal: Signal, payload: &[u8]) -> Result<(u64, Waiting)> {
        self.shared.append(signal, &tenant(), Bytes::copy_from_slice(payload))
    }

    /// One record in a group of its own.
    fn put(&mut self, signal: Signal, payload: &[u8]) -> u64 {
        let (lsn, waiting) = self.append(signal, payload).expect("accepted");
        self.committer.step();
        assert_eq!(
            decided(&waiting).map(|r| r.is_ok()),
            Some(true),
            "record {lsn} is durable"
        );
        lsn
    }

    fn segments(&self) -> Vec<String> {
        segments(&self.store)
    }
}

fn segments(store: &MemoryStore) -> Vec<String> {
    use crate::store::SegmentStore;
    store
        .list()
        .expect("lists")
        .into_iter()
        .map(|f| f.name)
        .filter(|n| n.ends_with(".wal"))
        .collect()
}

fn decided(waiting: &Waiting) -> Outcome {
    waiting.borrow().clone()
}

fn replay_all(replay: &Replay) -> Vec<(u64, Signal, Vec<u8>)> {
    let mut records = Vec::new();
    replay
        .run(
            |Record {
                 lsn,
                 signal,
                 tenant: t,
                 payload,
             }| {
                assert_eq!(t, tenant());
                records.push((lsn.0, signal, payload.to_vec()));
                Ok(())
            },
        )
        .expect("memory can be read");
    records
}

fn lsns(replay: &Replay) -> Vec<u64> {
    replay_all(replay).into_iter().map(|(lsn, ..)| lsn).collect()
}

#[test]
fn what_was_appended_is_replayed() {
    let store = MemoryStore::new(1);
    let mut log = Bench::open(&store, 1 << 20);
    assert_eq!(log.shared.last_lsn(), 0);
    let mut expected = Vec::new();
    for (i, size) in [0, 1, 100, 5000, 300 << 10, 20].into_iter().enumerate() {
        let signal = Signal::ALL[i % 3];
        let payload = vec![i as u8; size];
        let lsn = log.put(signal, &payload);
        assert_eq!(lsn, i as u64 + 1);
        expected.push((lsn, signal, payload));
    }
    let id = log.writer_id.clone();
    let log = Bench::open(&store, 1 << 20);
    assert_eq!(replay_all(&log.replay), expected);
    let report = log.replay.report();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(
        (report.records, report.skipped, report.segments, report.torn_bytes),
        (6, 0, 1, 0)
    );
    assert_eq!(log.writer_id, id);
}

#[test]
fn a_record_larger_than_a_chunk_is_replayed() {
    let store = MemoryStore::new(1);
    let mut log = Bench::open(&store, 1 << 20);
    let payload: Vec<u8> = (0..3u32 << 20).map(|i| (i % 251) as u8).collect();
    log.put(Signal::Traces, &payload);
    log.put(Signal::Logs, b"after");
    let records = replay_all(&Bench::open(&store, 1 << 20).replay);
    assert_eq!(records.len(), 2);
    assert!(records[0].2 == payload);
}

#[test]
fn positions_leave_out_what_blocks_hold() {
    let store = MemoryStore::new(1);
    let mut log = Bench::open(&store, 100);
    for i in 0..12u8 {
        log.put(Signal::ALL[usize::from(i) % 3], &[i]);
    }
    let mut log = Bench::open(&store, 100);
    log.replay.after(Signal::Metrics, Lsn(7));
    log.replay.after(Signal::Logs, Lsn(12));
    // Metrics are 1, 4, 7, 10; logs 2, 5, 8, 11; traces the rest.
    assert_eq!(lsns(&log.replay), [3, 6, 9, 10, 12]);
    assert_eq!(log.replay.report().skipped, 7);
}

#[test]
fn segments_rotate_by_size_and_replay_in_parallel_pieces() {
    let store = MemoryStore::new(1);
    let mut log = Bench::open(&store, 400);
    for i in 0..20u8 {
        log.put(Signal::Logs, &[i; 50]);
    }
    assert!(log.segments().len() > 3, "{:?}", log.segments());
    let log = Bench::open(&store, 400);
    let pieces = log.replay.segments();
    let mut all: Vec<u64> = Vec::new();
    // In any order.
    for piece in pieces.into_iter().rev() {
        let mut lsns: Vec<u64> = piece.map(|r| r.expect("reads").lsn.0).collect();
        lsns.extend(all);
        all = lsns;
    }
    assert_eq!(all, (1..=20).collect::<Vec<_>>());
    assert!(log.replay.report().is_clean());
}

#[test]
fn lsns_continue_above_the_log_and_above_the_floor() {
    let store = MemoryStore::new(1);
    let mut log = Bench::open(&store, 1 << 20);
    assert_eq!(log.put(Signal::Logs, b"a"), 1);
    assert_eq!(log.put(Signal::Logs, b"b"), 2);
    let mut log = Bench::open(&store, 1 << 20);
    assert_eq!(log.put(Signal::Logs, b"c"), 3);
    let mut log = Bench::try_open(&store, 1 << 20, Lsn(10)).expect("opens");
    assert_eq!(log.put(Signal::Logs, b"d"), 11);
    let log = Bench::open(&store, 1 << 20);
    assert_eq!(lsns(&log.replay), [1, 2, 3, 11]);
    assert!(
        log.replay.report().is_clean(),
        "a floor is not a gap: {:?}",
        log.replay.report()
    );
}

#[test]
fn an_oversized_record_is_refused_and_uses_no_lsn() {
    let store = MemoryStore::new(1);
    let mut log = Bench::open(&store, 1 << 20);
    let huge = Bytes::from(vec![0; crate::RECORD_BYTES_MAX + 1]);
    let error = log
        .shared
        .append(Signal::Logs, &tenant(), huge)
        .map(|_| ())
        .expect_err("refused");
    assert_eq!(error.kind, trilith_model::ErrorKind::TooLarge);
    assert_eq!(log.put(Signal::Logs, b"a"), 1);
}

#[test]
fn the_backlog_has_a_ceiling_but_a_single_record_always_passes() {
    let store = MemoryStore::new(1);
    let mut log = Bench::open(&store, 1 << 20);
    let (_, first) = log.append(Signal::Logs, &[0; 100 << 10]).expect("alone it passes");
    let error = log
        .append(Signal::Logs, b"x")
        .map(|_| ())
        .expect_err("the backlog is full");
    assert_eq!(error.kind, trilith_model::ErrorKind::Unavailable);
    assert!(error.message.contains("limited to 65536"), "{error}");
    log.committer.step();
    assert!(decided(&first).is_some_and(|r| r.is_ok()));
    assert_eq!(log.put(Signal::Logs, b"x"), 2);
    assert_eq!(log.shared.stats().refused, 1);
}

#[test]
fn a_group_shares_one_sync() {
    let store = MemoryStore::new(1);
    let mut log = Bench::open(&store, 1 << 20);
    let before = store.syncs();
    let waiting: Vec<_> = (0..100)
        .map(|_| log.append(Signal::Logs, b"x").expect("accepted").1)
        .collect();
    log.committer.step();
    assert!(waiting.iter().all(|w| decided(w).is_some_and(|r| r.is_ok())));
    // One for the new segment, one for the group.
    assert_eq!(store.syncs() - before, 2);
    assert_eq!(log.shared.stats().records, 100);
    assert_eq!(log.shared.stats().backlog_bytes, 0);
}

#[test]
fn a_damaged_writer_id_is_not_taken_for_another_writer() {
    let store = MemoryStore::new(1);
    let id = Bench::open(&store, 1 << 20).writer_id;
    assert_eq!(id.len(), 32);
    for at in 0..id.len() {
        let mut bad = id.clone().into_bytes();
        bad[at] ^= 1;
        store.put("writer", bad);
        assert!(Bench::try_open(&store, 1 << 20, Lsn(0)).is_err(), "byte {at}");
    }
    store.put("writer", Vec::new());
    assert!(Bench::try_open(&store, 1 << 20, Lsn(0)).is_err());
}
