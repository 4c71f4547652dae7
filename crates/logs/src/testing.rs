//! Shared by the tests: batches, and the plainest possible store to compare with.

use proptest::prelude::*;
use trilith_model::{Labels, LogBatch, LogEntry, LogStream};
use trilith_query::{Direction, LineFilter};

type Row<'a> = (i64, &'a str, &'a Labels);

pub(crate) fn batch(streams: &[(&[(&str, &str)], &[Row<'_>])]) -> LogBatch {
    let entry = |&(ts_ns, line, metadata): &Row<'_>| LogEntry {
        ts_ns,
        line: line.as_bytes().to_vec().into(),
        metadata: metadata.clone(),
    };
    LogBatch {
        streams: streams
            .iter()
            .map(|(labels, rows)| LogStream {
                labels: Labels::from_pairs(labels.iter().copied()),
                entries: rows.iter().map(entry).collect(),
            })
            .collect(),
    }
}

/// Few streams, times and lines, so that equal times, duplicates and interleaving are common.
pub(crate) fn arb_batch() -> impl Strategy<Value = LogBatch> {
    let ts = prop_oneof![
        8 => 0i64..6,
        2 => (0i64..4).prop_map(|d| d * 24 * 3600 * 1_000_000_000),
        1 => Just(i64::MIN),
        1 => Just(i64::MAX),
    ];
    let metadata = prop_oneof![
        3 => Just(Labels::empty()),
        1 => (0..2u8).prop_map(|i| Labels::from_pairs([("m", i.to_string())])),
    ];
    let entry = (ts, "[abx]{0,3}", metadata).prop_map(|(ts_ns, line, metadata)| LogEntry {
        ts_ns,
        line: line.into_bytes().into(),
        metadata,
    });
    let labels = (0..4u8).prop_map(|i| match i {
        0 => Labels::from_pairs([("app", "x")]),
        1 => Labels::from_pairs([("app", "x"), ("i", "1")]),
        2 => Labels::from_pairs([("app", "y")]),
        _ => Labels::from_pairs([("zone", "z")]),
    });
    let stream =
        (labels, prop::collection::vec(entry, 0..6)).prop_map(|(labels, entries)| LogStream { labels, entries });
    prop::collection::vec(stream, 0..4).prop_map(|streams| LogBatch { streams })
}

/// An entry as tests compare it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Got {
    pub stream: Labels,
    pub ts_ns: i64,
    pub line: Vec<u8>,
    pub metadata: Labels,
}

/// Everything that was pushed, in order of arrival.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model(Vec<Got>);

impl Model {
    pub fn push(&mut self, batch: &LogBatch) {
        for stream in &batch.streams {
            for e in &stream.entries {
                let got = Got {
                    stream: stream.labels.clone(),
                    ts_ns: e.ts_ns,
                    line: e.line.to_vec(),
                    metadata: e.metadata.clone(),
                };
                if !self.0.contains(&got) {
                    self.0.push(got);
                }
            }
        }
    }

    /// `keep` says which streams; `end` is inclusive here.
    pub fn select(
        &self,
        keep: impl Fn(&Labels) -> bool,
        start: i64,
        end: i64,
        filters: &[LineFilter],
        direction: Direction,
        limit: usize,
    ) -> Vec<Got> {
        let wanted = |g: &&Got| {
            keep(&g.stream) && (start..=end).contains(&g.ts_ns) && filters.iter().all(|f| f.matches(&g.line))
        };
        let mut out: Vec<Got> = self.0.iter().filter(wanted).cloned().collect();
        out.sort_by(|a, b| (a.ts_ns, &a.stream).cmp(&(b.ts_ns, &b.stream)));
        if direction == Direction::Backward {
            out.reverse();
        }
        out.truncate(limit);
        out
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}
