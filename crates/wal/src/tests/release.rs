//! Segments go when nobody needs them, and not before.

use super::*;
use crate::segment::segment_name;
use crate::store::Faults;

fn names(first_lsns: &[u64]) -> Vec<String> {
    first_lsns.iter().map(|&l| segment_name(l)).collect()
}

#[test]
fn released_segments_are_deleted_oldest_first() {
    let store = MemoryStore::new(1);
    let mut log = Bench::open(&store, 100);
    for i in 0..4u8 {
        log.put(Signal::Logs, &[i; 100]);
    }
    assert_eq!(log.segments(), names(&[1, 2, 3, 4]));
    log.shared.release(Signal::Logs, 2);
    log.committer.step();
    assert_eq!(log.segments(), names(&[3, 4]));
    // Another signal's position says nothing about logs.
    log.shared.release(Signal::Metrics, 4);
    log.committer.step();
    assert_eq!(log.segments(), names(&[3, 4]));
    let log = Bench::open(&store, 100);
    assert_eq!(lsns(&log.replay), [3, 4]);
    assert!(log.replay.report().is_clean());
}

#[test]
fn one_slow_signal_keeps_only_its_own_segment() {
    let store = MemoryStore::new(1);
    let mut log = Bench::open(&store, 100);
    log.put(Signal::Metrics, &[0; 100]);
    for i in 0..3u8 {
        log.put(Signal::Logs, &[i; 1000]);
    }
    log.put(Signal::Metrics, &[0; 100]);
    log.shared.release(Signal::Logs, 5);
    log.committer.step();
    let bytes = log.shared.stats().segment_bytes;
    assert!(bytes < 1000, "the logs' bytes are gone: {bytes}");
    let mut log = Bench::open(&store, 100);
    assert_eq!(lsns(&log.replay), [1, 5]);
    assert!(
        log.replay.report().is_clean(),
        "a release is not a gap: {:?}",
        log.replay.report()
    );
    log.shared.release(Signal::Metrics, 1);
    log.committer.step();
    assert_eq!(log.segments(), names(&[5]), "what was emptied goes with its elders");
}

#[test]
fn an_idle_log_shrinks_to_one_empty_segment_and_keeps_counting() {
    let store = MemoryStore::new(1);
    let mut log = Bench::open(&store, 1 << 20);
    for _ in 0..3 {
        log.put(Signal::Logs, &[0; 100]);
    }
    log.shared.release(Signal::Logs, 3);
    log.committer.step();
    assert_eq!(log.segments(), names(&[4]));
    // Without any hint from the manifest.
    for _ in 0..3 {
        let mut log = Bench::open(&store, 1 << 20);
        assert!(log.shared.last_lsn() >= 3);
        assert_eq!(lsns(&log.replay), [0; 0]);
        log.shared.release(Signal::Logs, 3);
        log.committer.step();
        assert_eq!(log.segments(), names(&[4]), "nothing happens for nothing");
    }
    let mut log = Bench::open(&store, 1 << 20);
    let lsn = log.put(Signal::Logs, b"x");
    assert!(lsn > 3);
    assert_eq!(lsns(&Bench::open(&store, 1 << 20).replay), [lsn]);
}

#[test]
fn segments_of_an_earlier_run_wait_for_their_replay() {
    let store = MemoryStore::new(1);
    let mut log = Bench::open(&store, 100);
    for i in 0..3u8 {
        log.put(Signal::Logs, &[i; 100]);
    }
    let mut log = Bench::open(&store, 100);
    log.put(Signal::Logs, b"new");
    log.shared.release(Signal::Logs, 2);
    log.committer.step();
    assert_eq!(log.segments().len(), 4, "what they hold is not known yet");
    assert_eq!(lsns(&log.replay), [1, 2, 3]);
    log.committer.step();
    assert_eq!(log.segments(), names(&[3, 4]));
}

#[test]
fn rotate_lets_a_small_segment_go() {
    let store = MemoryStore::new(1);
    let mut log = Bench::open(&store, 1 << 20);
    log.put(Signal::Logs, b"old");
    log.shared.rotate();
    log.committer.step();
    log.shared.rotate();
    log.committer.step();
    log.put(Signal::Metrics, b"new");
    assert_eq!(log.segments(), names(&[1, 2]));
    log.shared.release(Signal::Logs, 1);
    log.committer.step();
    assert_eq!(log.segments(), names(&[2]));
}

#[test]
fn a_committed_position_above_the_log_raises_it() {
    let store = MemoryStore::new(1);
    let mut log = Bench::open(&store, 1 << 20);
    log.shared.release(Signal::Logs, 500);
    assert_eq!(log.put(Signal::Logs, b"x"), 501);
    // "Everything" does not use up the numbers.
    log.shared.release(Signal::Logs, u64::MAX);
    log.committer.step();
    assert!(log.put(Signal::Logs, b"x") < 600);
}

#[test]
fn a_cut_outlives_the_segment_that_it_cuts() {
    let store = MemoryStore::new(1);
    let mut log = Bench::open(&store, 1 << 20);
    log.put(Signal::Metrics, b"kept");
    store.set_faults(Faults {
        failing_syncs: 1,
        failing_cuts: 1,
        ..Faults::default()
    });
    log.append(Signal::Metrics, b"refused").expect("accepted");
    log.committer.step();
    log.clock.advance(Duration::from_secs(1));
    log.put(Signal::Logs, b"carries the cut");
    log.shared.rotate();
    log.committer.step();
    log.put(Signal::Logs, b"next");
    // All of the middle segment is released; its header must stay.
    log.shared.release(Signal::Logs, 3);
    log.committer.step();
    store.crash();
    let log = Bench::open(&store, 1 << 20);
    let kept: Vec<_> = replay_all(&log.replay).into_iter().map(|(.., p)| p).collect();
    assert_eq!(kept, [b"kept".to_vec(), b"next".to_vec()]);
}

#[test]
fn a_full_disk_does_not_keep_released_segments() {
    let store = MemoryStore::new(1);
    let mut log = Bench::open(&store, 100);
    for i in 0..4u8 {
        log.put(Signal::Logs, &[i; 100]);
    }
    store.set_faults(Faults {
        space_bytes: Some(0),
        ..Faults::default()
    });
    let (_, waiting) = log.append(Signal::Logs, b"x").expect("accepted");
    log.committer.step();
    assert!(decided(&waiting).is_some_and(|r| r.is_err()));
    log.shared.release(Signal::Logs, 4);
    log.committer.step();
    // The newest one stays until its successor can be made.
    assert!(log.segments().contains(&segment_name(4)) && !log.segments().contains(&segment_name(3)));
    store.set_faults(Faults::default());
    log.clock.advance(Duration::from_secs(1));
    assert!(log.put(Signal::Logs, b"y") > 5);
}

#[test]
fn a_new_segment_is_not_named_above_a_waiting_record() {
    let store = MemoryStore::new(1);
    let log = Bench::open(&store, 1 << 20);
    assert_eq!(log.shared.next_segment_lsn(), 1);
    let (lsn, _) = log
        .shared
        .append(Signal::Metrics, &tenant(), vec![1; 50].into())
        .expect("accepted");
    assert_eq!((lsn, log.shared.next_segment_lsn()), (2, 2));
}
