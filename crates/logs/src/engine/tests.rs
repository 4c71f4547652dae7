use trilith_block::{FileBody, Head as _};
use trilith_model::{Labels, LogBatch, LogEntry, LogStream};

use super::*;

const DAY: i64 = WINDOW_NS;

fn head(times: impl IntoIterator<Item = i64>) -> LogsHead {
    let head = LogsHead::default();
    for (i, ts_ns) in times.into_iter().enumerate() {
        let entry = LogEntry {
            ts_ns,
            line: format!("line {i}").into(),
            metadata: Labels::empty(),
        };
        let stream = LogStream {
            labels: Labels::from_pairs([("app", "x")]),
            entries: vec![entry],
        };
        let batch = LogBatch { streams: vec![stream] };
        head.apply(&TenantId::anonymous(), i as u64 + 1, &batch);
    }
    head
}

fn check(times: &[i64], blocks: usize) {
    let head = head(times.iter().copied());
    let drafts = LogsEngine.cut(&head).expect("cuts");
    assert_eq!(drafts.len(), blocks, "{times:?}");
    assert_eq!(drafts.iter().map(|d| d.items).sum::<u64>(), head.items());
    let ranges: Vec<TimeRange> = drafts.iter().map(|d| d.time).collect();
    assert!(ranges.windows(2).all(|w| w[0].max < w[1].min), "windows do not overlap");
}

#[test]
fn blocks_keep_to_days() {
    check(&[], 0);
    check(&[5], 1);
    check(&[0, DAY - 1], 1);
    check(&[DAY - 1, DAY], 2);
    check(&[-1, 0], 2);
    check(&[3 * DAY, 0, DAY, 2 * DAY], 4);
    // The ends of time are two days like others.
    check(&[i64::MIN, 0, i64::MAX], 3);
}

#[test]
fn a_head_of_many_days_makes_few_blocks() {
    let drafts = LogsEngine.cut(&head((0..100).map(|d| d * DAY))).expect("cuts");
    assert_eq!(drafts.len(), 25);
    let drafts = LogsEngine
        .cut(&head((0..1000).map(|d| d * (i64::MAX / 1000))))
        .expect("cuts");
    assert!(drafts.len() <= WINDOWS_MAX);
}

#[test]
fn a_cut_is_deterministic() {
    let bytes = || {
        let drafts = LogsEngine.cut(&head([7, 3, 5, 3])).expect("cuts");
        match &drafts[0].files[0].body {
            FileBody::Memory(bytes) => bytes.clone(),
            FileBody::Spooled(path) => panic!("a cut spools to {}", path.display()),
        }
    };
    assert_eq!(bytes(), bytes());
}

#[test]
fn windows_end_their_search() {
    let all = [TimeRange::ALL];
    let windows = Windows::for_times(all.into_iter());
    assert!(windows.of(i64::MAX) - windows.of(i64::MIN) < WINDOWS_MAX as i64);
}
