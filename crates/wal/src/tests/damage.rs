//! Torn tails, flipped bits, lost and foreign files.

use proptest::prelude::*;

use super::*;
use crate::segment::{SEGMENT_HEADER_BYTES, segment_name};

/// Six records in one segment; also where each frame begins.
fn six() -> (MemoryStore, Vec<u8>, Vec<usize>) {
    let store = MemoryStore::new(3);
    let mut log = Bench::open(&store, 1 << 20);
    let mut starts = Vec::new();
    for i in 0..6u8 {
        starts.push(store.read(&segment_name(1)).map_or(SEGMENT_HEADER_BYTES, |b| b.len()));
        log.put(Signal::ALL[usize::from(i) % 3], &vec![i; usize::from(i) * 9]);
    }
    let bytes = store.read(&segment_name(1)).expect("written");
    (store, bytes, starts)
}

#[test]
fn a_tail_torn_anywhere_costs_only_the_torn_record() {
    let (_, bytes, starts) = six();
    for len in 0..=bytes.len() {
        let store = MemoryStore::new(4);
        store.put(&segment_name(1), bytes[..len].to_vec());
        let mut log = Bench::open(&store, 1 << 20);
        let ends = starts[1..].iter().copied().chain([bytes.len()]);
        let whole = ends.filter(|&end| end <= len).count() as u64;
        assert_eq!(lsns(&log.replay), (1..=whole).collect::<Vec<_>>(), "cut at {len}");
        let report = log.replay.report();
        assert!(report.is_clean(), "cut at {len}: {report:?}");
        // New records are above everything that was ever in the file, and live in a new one.
        let lsn = log.put(Signal::Logs, b"new");
        assert!(lsn > whole, "cut at {len}");
        let log = Bench::open(&store, 1 << 20);
        assert_eq!(
            lsns(&log.replay),
            (1..=whole).chain([lsn]).collect::<Vec<_>>(),
            "cut at {len}"
        );
        assert_eq!(log.replay.report().torn_bytes, 0, "the tail was truncated at {len}");
        assert!(
            log.replay.report().is_clean(),
            "cut at {len}: {:?}",
            log.replay.report()
        );
    }
}

#[test]
fn zeros_after_the_tail_are_torn_too() {
    let (store, mut bytes, _) = six();
    bytes.resize(bytes.len() + 8192, 0);
    store.put(&segment_name(1), bytes);
    let log = Bench::open(&store, 1 << 20);
    assert_eq!(lsns(&log.replay), [1, 2, 3, 4, 5, 6]);
    assert_eq!(log.replay.report().torn_bytes, 8192);
}

#[test]
fn a_flipped_bit_anywhere_costs_at_most_the_record_it_hits() {
    let (_, bytes, starts) = six();
    for at in 0..bytes.len() {
        let bit = at % 8;
        let mut bad = bytes.clone();
        bad[at] ^= 1 << bit;
        let store = MemoryStore::new(4);
        store.put(&segment_name(1), bad);
        let mut log = Bench::open(&store, 1 << 20);
        let hit = starts.iter().rposition(|&s| s <= at).map(|i| i as u64 + 1);
        let expected: Vec<u64> = (1..=6).filter(|&lsn| Some(lsn) != hit).collect();
        assert_eq!(lsns(&log.replay), expected, "byte {at}");
        let report = log.replay.report();
        if hit.is_none() {
            assert!(report.is_clean(), "the header has a second copy: byte {at}");
        } else {
            assert!(
                report.corruptions + report.torn_bytes > 0,
                "byte {at} is reported: {report:?}"
            );
        }
        assert!(log.put(Signal::Logs, b"new") > 6, "byte {at}: no LSN is used twice");
    }
}

#[test]
fn damage_in_an_older_segment_is_reported_as_such() {
    let (store, mut bytes, starts) = six();
    let mut log = Bench::open(&store, 1 << 20);
    log.put(Signal::Logs, b"in the next segment");
    // The header of the last frame of the first segment: no valid one follows.
    bytes[starts[5] + 5] ^= 1;
    store.put(&segment_name(1), bytes);
    let log = Bench::open(&store, 1 << 20);
    assert_eq!(lsns(&log.replay), [1, 2, 3, 4, 5, 7]);
    let report = log.replay.report();
    assert_eq!((report.corruptions, report.torn_bytes), (1, 0));
    assert_eq!(report.missing, vec![6..=6]);
    assert_eq!(log.shared.stats().corruptions, 1);
}

#[test]
fn a_frame_inside_a_payload_is_not_a_record() {
    let (store, bytes, starts) = six();
    // A client that knows another log's bytes, sent as payload; then its own frame header breaks.
    let foreign = MemoryStore::new(99);
    let mut other = Bench::try_open(&foreign, 1 << 20, Lsn(1000)).expect("opens");
    other.put(Signal::Logs, b"forged");
    let forged = foreign.read(&segment_name(1001)).expect("written");
    let mut log = Bench::open(&store, 1 << 20);
    let lsn = log.put(Signal::Logs, &forged);
    let name = segment_name(lsn);
    let mut damaged = store.read(&name).expect("written");
    damaged[SEGMENT_HEADER_BYTES + 4] ^= 1;
    store.put(&name, damaged);
    log = Bench::open(&store, 1 << 20);
    assert_eq!(lsns(&log.replay), [1, 2, 3, 4, 5, 6]);
    assert_eq!(bytes.len(), log.replay.segments()[0].bytes() as usize);
    assert!(starts[0] == SEGMENT_HEADER_BYTES);
}

#[test]
fn a_lost_segment_is_reported_with_its_lsns() {
    let store = MemoryStore::new(1);
    let mut log = Bench::open(&store, 100);
    for i in 0..5u8 {
        log.put(Signal::Logs, &[i; 100]);
    }
    assert_eq!(log.segments().len(), 5);
    store.lose(&segment_name(3));
    let mut log = Bench::open(&store, 100);
    assert_eq!(lsns(&log.replay), [1, 2, 4, 5]);
    assert_eq!(log.replay.report().missing, vec![3..=3]);
    assert_eq!(log.put(Signal::Logs, b"x"), 6);
}

#[test]
fn foreign_and_renamed_files_are_reported_and_left() {
    let (store, bytes, _) = six();
    store.put("core", vec![1; 100]);
    store.put("00000000000000000001.wal.bak", bytes.clone());
    // A copy under another name would give every record twice.
    store.put(&segment_name(50), bytes);
    store.put(&segment_name(70), vec![0xff; 1000]);
    let mut log = Bench::open(&store, 1 << 20);
    assert_eq!(lsns(&log.replay), [1, 2, 3, 4, 5, 6]);
    let report = log.replay.report();
    assert_eq!(report.foreign_files, ["00000000000000000001.wal.bak", "core"]);
    assert_eq!(report.unreadable_segments, [segment_name(50), segment_name(70)]);
    assert!(!report.is_clean());
    // The unreadable file may have held so many records.
    assert!(log.put(Signal::Logs, b"x") > 70 + 1000 / 28);
    assert!(store.read("core").is_some() && store.read(&segment_name(70)).is_some());
}

#[test]
fn a_segment_that_was_never_finished_goes_away() {
    let (store, bytes, _) = six();
    for len in [0, 1, 63] {
        store.put(&segment_name(9), bytes[..len].to_vec());
        let mut log = Bench::open(&store, 1 << 20);
        assert_eq!(lsns(&log.replay), [1, 2, 3, 4, 5, 6]);
        assert!(log.replay.report().is_clean());
        assert!(store.read(&segment_name(9)).is_none());
        assert!(log.shared.next_segment_lsn() > 9);
        log.committer.step();
    }
}

#[test]
fn a_later_version_refuses_to_start() {
    let (store, mut bytes, _) = six();
    for start in [0, 64] {
        bytes[start + 8] = 2;
        let crc = crc32c::crc32c(&bytes[start..start + 60]);
        bytes[start + 60..start + 64].copy_from_slice(&crc.to_le_bytes());
    }
    store.put(&segment_name(1), bytes);
    let error = Bench::try_open(&store, 1 << 20, Lsn(0))
        .map(|_| ())
        .expect_err("refused");
    assert_eq!(error.kind, trilith_model::ErrorKind::Unsupported);
    assert!(error.message.contains("version 2"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// However many bytes are overwritten: no record is invented or changed, and untouched ones survive.
    #[test]
    fn overwritten_bytes_cost_only_the_records_they_hit(
        hits in prop::collection::vec((0usize..2000, any::<u8>()), 1..12),
    ) {
        let (_, bytes, starts) = six();
        let mut bad = bytes.clone();
        let mut hit = std::collections::BTreeSet::new();
        for (at, value) in hits {
            // The segment's header has a test of its own.
            let at = SEGMENT_HEADER_BYTES + at % (bytes.len() - SEGMENT_HEADER_BYTES);
            bad[at] = value;
        }
        for (i, &start) in starts.iter().enumerate() {
            let end = starts.get(i + 1).copied().unwrap_or(bytes.len());
            if bad[start..end] != bytes[start..end] {
                hit.insert(i as u64 + 1);
            }
        }
        let store = MemoryStore::new(4);
        store.put(&segment_name(1), bad);
        let log = Bench::open(&store, 1 << 20);
        let expected: Vec<u64> = (1..=6).filter(|lsn| !hit.contains(lsn)).collect();
        prop_assert_eq!(lsns(&log.replay), expected);
    }

    #[test]
    fn any_file_opens(data in prop::collection::vec(any::<u8>(), 0..3000)) {
        crate::fuzzing::segment(&data);
    }
}

#[test]
fn the_seeds_of_the_fuzz_targets_are_valid() {
    for seed in crate::fuzzing::seeds() {
        crate::fuzzing::segment(&seed);
    }
    for seed in crate::fuzzing::frame_seeds() {
        crate::fuzzing::frames(&seed);
    }
}
