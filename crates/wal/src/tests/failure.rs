//! Disks that are full, read-only or broken.

use super::*;
use crate::LogState;
use crate::store::Faults;
use trilith_model::ErrorKind;

fn refused(waiting: &Waiting) -> trilith_model::Error {
    let error = decided(waiting).expect("decided").expect_err("refused");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.retry_after.is_some());
    error
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_full_disk_at_every_byte_refuses_leaves_nothing_and_recovers() {
    // The log as it grows when all goes well, to know the sizes.
    let sizes = |store: &MemoryStore| {
        use crate::store::SegmentStore;
        store.list().expect("lists").iter().map(|f| f.bytes).sum::<u64>()
    };
    for extra in 0..600 {
        let store = MemoryStore::new(extra);
        let mut log = Bench::open(&store, 1 << 20);
        log.put(Signal::Logs, b"before");
        store.set_faults(Faults {
            space_bytes: Some(sizes(&store) + extra),
            ..Faults::default()
        });
        let (lsn, first) = log.append(Signal::Logs, &[1; 200]).expect("accepted");
        let (_, second) = log.append(Signal::Metrics, &[2; 200]).expect("accepted");
        log.committer.step();
        if decided(&first).is_some_and(|r| r.is_ok()) {
            assert!(extra > 400, "both fit");
            continue;
        }
        let error = refused(&first);
        assert!(
            error.message.starts_with("the disk of the data directory is full"),
            "{error}"
        );
        refused(&second);
        assert_eq!(log.shared.stats().state, LogState::Failing);
        // At once, without touching the disk.
        let again = log.append(Signal::Logs, b"x").map(|_| ()).expect_err("refused at once");
        assert_eq!(again.message, error.message);
        // Still full: the probe is refused, and so is everything for another second.
        log.clock.advance(SECOND);
        let (_, probe) = log.append(Signal::Logs, &[3; 700]).expect("one is let through");
        assert!(log.append(Signal::Logs, b"x").is_err(), "but only one");
        log.committer.step();
        refused(&probe);
        assert!(log.append(Signal::Logs, b"x").is_err());
        // Space returns.
        store.set_faults(Faults::default());
        log.clock.advance(SECOND);
        let after = log.put(Signal::Logs, b"after");
        assert!(after > lsn + 1, "burned LSNs stay burned");
        assert_eq!(log.shared.stats().state, LogState::Ready);
        let more = log.put(Signal::Logs, b"more");
        let log = Bench::open(&store, 1 << 20);
        assert_eq!(lsns(&log.replay), [1, after, more], "extra {extra}");
        assert!(
            log.replay.report().is_clean(),
            "extra {extra}: {:?}",
            log.replay.report()
        );
    }
}

#[test]
fn a_failed_sync_is_never_trusted_again() {
    for seed in 0..20 {
        let store = MemoryStore::new(seed);
        let mut log = Bench::open(&store, 1 << 20);
        log.put(Signal::Logs, b"before");
        store.set_faults(Faults {
            failing_syncs: 1,
            ..Faults::default()
        });
        let (_, waiting) = log.append(Signal::Logs, &[9; 3000]).expect("accepted");
        log.committer.step();
        assert!(refused(&waiting).message.contains("cannot be written"));
        log.clock.advance(SECOND);
        let after = log.put(Signal::Logs, b"after");
        assert_eq!(log.segments().len(), 2, "the segment was closed");
        store.crash();
        let log = Bench::open(&store, 1 << 20);
        assert_eq!(lsns(&log.replay), [1, after]);
        assert!(log.replay.report().is_clean());
    }
}

#[test]
fn a_disk_that_refuses_the_cut_too_is_cut_by_the_next_segment() {
    for seed in 0..20 {
        let store = MemoryStore::new(seed);
        let mut log = Bench::open(&store, 1 << 20);
        log.put(Signal::Logs, b"before");
        store.set_faults(Faults {
            failing_syncs: 1,
            failing_cuts: 1,
            ..Faults::default()
        });
        let (_, waiting) = log.append(Signal::Logs, b"refused").expect("accepted");
        log.committer.step();
        refused(&waiting);
        log.clock.advance(SECOND);
        let after = log.put(Signal::Logs, b"after");
        // The next segment fails in the same way: cuts form a chain.
        store.set_faults(Faults {
            failing_syncs: 1,
            failing_cuts: 1,
            ..Faults::default()
        });
        let (_, waiting) = log.append(Signal::Logs, b"refused").expect("accepted");
        log.committer.step();
        refused(&waiting);
        log.clock.advance(SECOND);
        let last = log.put(Signal::Logs, b"last");
        store.crash();
        let log = Bench::open(&store, 1 << 20);
        assert_eq!(lsns(&log.replay), [1, after, last]);
        assert!(log.replay.report().is_clean(), "{:?}", log.replay.report());
    }
}

#[test]
fn a_read_only_disk_refuses_and_still_replays() {
    let store = MemoryStore::new(1);
    let mut log = Bench::open(&store, 1 << 20);
    log.put(Signal::Logs, b"before");
    store.set_faults(Faults {
        read_only: true,
        ..Faults::default()
    });
    let (_, waiting) = log.append(Signal::Logs, b"x").expect("accepted");
    log.committer.step();
    assert!(refused(&waiting).message.contains("read-only"));
    let mut log = Bench::open(&store, 1 << 20);
    assert_eq!(lsns(&log.replay), [1]);
    let (_, waiting) = log.append(Signal::Logs, b"x").expect("accepted");
    log.committer.step();
    refused(&waiting);
    store.set_faults(Faults::default());
    log.clock.advance(SECOND);
    log.put(Signal::Logs, b"after");
    assert_eq!(replay_all(&Bench::open(&store, 1 << 20).replay).len(), 2);
}

#[test]
fn a_torn_tail_on_a_read_only_disk_is_cut_by_the_next_segment() {
    let store = MemoryStore::new(1);
    let mut log = Bench::open(&store, 1 << 20);
    log.put(Signal::Logs, b"before");
    let name = crate::segment::segment_name(1);
    let mut bytes = store.read(&name).expect("written");
    bytes.extend_from_slice(&[7; 33]);
    store.put(&name, bytes);
    store.set_faults(Faults {
        read_only: true,
        ..Faults::default()
    });
    let mut log = Bench::open(&store, 1 << 20);
    assert_eq!(lsns(&log.replay), [1]);
    store.set_faults(Faults::default());
    log.put(Signal::Logs, b"after");
    let log = Bench::open(&store, 1 << 20);
    assert_eq!(replay_all(&log.replay).len(), 2);
    let report = log.replay.report();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.refused_bytes, 33);
}

#[test]
fn closing_takes_back_what_no_segment_recorded() {
    let store = MemoryStore::new(1);
    let mut log = Bench::open(&store, 1 << 20);
    log.put(Signal::Logs, b"before");
    store.set_faults(Faults {
        failing_syncs: 1,
        failing_cuts: 1,
        ..Faults::default()
    });
    let (_, waiting) = log.append(Signal::Logs, b"refused").expect("accepted");
    log.committer.step();
    refused(&waiting);
    log.shared.start_closing();
    log.committer.run();
    assert_eq!(lsns(&Bench::open(&store, 1 << 20).replay), [1]);
}
