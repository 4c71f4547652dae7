//! The log with its thread, on memory and on a real directory.

use super::*;
use crate::store::{DirStore, Faults};
use crate::{LogState, Wal};
use futures::executor::block_on;
use trilith_model::SystemClock;

fn open(store: &MemoryStore) -> (Wal, Replay) {
    let options = Options {
        backlog_bytes_max: 64 << 20,
        ..Options::new("")
    };
    Wal::open_on(
        Arc::new(store.clone()),
        options,
        Lsn(0),
        Arc::new(SystemClock),
        Rng::seeded(5),
    )
    .expect("opens")
}

#[test]
fn concurrent_appenders_share_syncs() {
    let store = MemoryStore::new(1);
    store.set_faults(Faults {
        sync_takes: Duration::from_millis(2),
        ..Faults::default()
    });
    let (wal, _) = open(&store);
    std::thread::scope(|scope| {
        for i in 0..16u8 {
            let wal = wal.clone();
            scope.spawn(move || {
                for _ in 0..50 {
                    let (_, pending) = wal
                        .append(Signal::Logs, &tenant(), vec![i; 100].into())
                        .expect("accepted");
                    block_on(pending.durable()).expect("durable");
                }
            });
        }
    });
    let stats = wal.stats();
    assert_eq!(stats.records, 800);
    assert!(stats.syncs * 4 < stats.records, "{stats:?}");
    assert_eq!(stats.state, LogState::Ready);
    block_on(wal.close()).expect("closes");
    assert_eq!(lsns(&open(&store).1), (1..=800).collect::<Vec<_>>());
}

#[test]
fn an_idle_log_does_nothing() {
    let store = MemoryStore::new(1);
    let (wal, _) = open(&store);
    let before = store.syncs();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(store.syncs(), before);
    assert_eq!(segments(&store), Vec::<String>::new());
    drop(wal);
}

#[test]
fn close_writes_what_is_open_and_refuses_the_rest() {
    let store = MemoryStore::new(1);
    store.set_faults(Faults {
        sync_takes: Duration::from_millis(20),
        ..Faults::default()
    });
    let (wal, _) = open(&store);
    let pending: Vec<_> = (0..10)
        .map(|_| wal.append(Signal::Logs, &tenant(), Bytes::new()).expect("accepted").1)
        .collect();
    block_on(wal.close()).expect("closes");
    for p in pending {
        block_on(p.durable()).expect("durable");
    }
    let error = wal
        .append(Signal::Logs, &tenant(), Bytes::new())
        .map(|_| ())
        .expect_err("refused");
    assert_eq!(error.message, "the server is stopping");
    assert_eq!(wal.stats().state, LogState::Closed);
    block_on(wal.close()).expect("again");
}

#[test]
fn dropping_a_pending_keeps_the_record_and_dropping_the_log_writes_it() {
    let store = MemoryStore::new(1);
    let (wal, _) = open(&store);
    drop(
        wal.append(Signal::Logs, &tenant(), Bytes::from_static(b"x"))
            .expect("accepted"),
    );
    drop(wal);
    store.crash();
    assert_eq!(lsns(&open(&store).1), [1]);
}

#[test]
fn closing_a_failing_log_says_why() {
    let store = MemoryStore::new(1);
    let (wal, _) = open(&store);
    store.set_faults(Faults {
        space_bytes: Some(0),
        ..Faults::default()
    });
    let (_, pending) = wal
        .append(Signal::Logs, &tenant(), Bytes::from_static(b"x"))
        .expect("accepted");
    let error = block_on(pending.durable()).expect_err("full");
    assert!(error.message.contains("full"));
    assert_eq!(block_on(wal.close()).expect_err("full").message, error.message);
}

#[test]
fn a_directory_holds_a_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("deep/wal");
    let open = || {
        Wal::open(
            Options {
                segment_bytes: 1000,
                ..Options::new(&path)
            },
            Lsn(0),
            Arc::new(SystemClock),
        )
    };
    let id = Wal::writer_id_of(&path).expect("made");
    let (wal, replay) = open().expect("opens");
    assert_eq!(wal.writer_id(), id);
    let busy = open().map(|_| ()).expect_err("in use");
    assert!(busy.message.contains("in use"), "{busy}");
    for i in 0..30u8 {
        let (_, pending) = wal
            .append(Signal::Logs, &tenant(), vec![i; 100].into())
            .expect("accepted");
        block_on(pending.durable()).expect("durable");
    }
    block_on(wal.close()).expect("closes");
    drop((wal, replay));

    let (wal, mut replay) = open().expect("opens again");
    assert_eq!(wal.writer_id(), id);
    replay.after(Signal::Logs, Lsn(10));
    assert_eq!(lsns(&replay), (11..=30).collect::<Vec<_>>());
    assert!(replay.report().is_clean());
    let files = || std::fs::read_dir(&path).expect("lists").count();
    let before = files();
    wal.release(Signal::Logs, Lsn(30));
    block_on(wal.close()).expect("closes");
    assert!(
        files() < before && files() == 3,
        "lock, writer and one empty segment: {}",
        files()
    );
    drop((wal, replay));

    let (wal, replay) = open().expect("opens a third time");
    assert!(wal.last_lsn() >= Lsn(30));
    assert_eq!(lsns(&replay), [0; 0]);
}

#[test]
fn the_directory_store_keeps_its_contract() {
    use crate::store::SegmentStore;
    let dir = tempfile::tempdir().expect("a directory");
    let store = DirStore::open(dir.path()).expect("opens");
    let mut writer = store.create("a.wal", b"head").expect("creates");
    assert_eq!(
        store.create("a.wal", b"").map(|_| ()).expect_err("taken").kind(),
        std::io::ErrorKind::AlreadyExists
    );
    writer.write(b"0123456789").expect("writes");
    writer.sync().expect("syncs");
    writer.cut(9).expect("cuts");
    let mut reader = store.open("a.wal").expect("opens");
    assert_eq!(reader.bytes(), 9);
    let mut buf = [0; 8];
    assert_eq!(reader.read_at(4, &mut buf).expect("reads"), 5);
    assert_eq!(&buf[..5], b"01234");
    assert_eq!(reader.read_at(100, &mut buf).expect("reads"), 0);
    store.truncate("a.wal", 4).expect("truncates");
    assert_eq!(store.open("a.wal").expect("opens").bytes(), 4);
    store.delete("a.wal").expect("deletes");
    store.delete("a.wal").expect("is fine twice");
    assert_eq!(store.read_small("b").expect("reads"), None);
    store.write_small("b", b"text").expect("writes");
    assert_eq!(store.read_small("b").expect("reads").as_deref(), Some(&b"text"[..]));
}

#[test]
fn what_came_in_behind_a_failing_group_is_refused_with_it() {
    let store = MemoryStore::new(1);
    let (wal, _) = open(&store);
    block_on(
        wal.append(Signal::Logs, &tenant(), Bytes::new())
            .expect("accepted")
            .1
            .durable(),
    )
    .expect("durable");
    store.set_faults(Faults {
        failing_syncs: 1,
        sync_takes: Duration::from_millis(100),
        ..Faults::default()
    });
    let (_, first) = wal.append(Signal::Logs, &tenant(), Bytes::new()).expect("accepted");
    while wal.stats().backlog_bytes > 0 && wal.0.shared.state.lock().in_flight_bytes == 0 {
        std::thread::yield_now();
    }
    let (_, behind) = wal
        .append(Signal::Logs, &tenant(), Bytes::new())
        .expect("the failure is not known yet");
    block_on(first.durable()).expect_err("failed");
    block_on(behind.durable()).expect_err("not even tried");
    assert_eq!(wal.stats().failures, 1);
    assert_eq!(wal.stats().state, LogState::Failing);
}

/// A release starts a new segment while a record already waits with its LSN: the segment must not be named above it.
#[test]
fn a_record_that_meets_a_release_is_kept() {
    for round in 0..200u64 {
        let store = MemoryStore::new(round);
        let (wal, _) = open(&store);
        let put = || {
            let (lsn, pending) = wal
                .append(Signal::Metrics, &tenant(), vec![1; 50].into())
                .expect("accepted");
            block_on(pending.durable()).expect("durable");
            lsn
        };
        let first = put();
        wal.release(Signal::Metrics, first);
        let kept = [put().0, put().0];
        drop(wal);
        // Whether the released one is gone yet is a matter of timing.
        let found = lsns(&open(&store).1);
        assert!(found.ends_with(&kept), "round {round}: {found:?} instead of {kept:?}");
    }
}
