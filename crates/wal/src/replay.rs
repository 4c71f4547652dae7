//! Reading the log back after a start.
//!
//! Segments can be decoded in parallel; within a segment and from one to the next LSNs rise, so a caller that
//! hands on each signal's records in that order rebuilds every head as it was. Memory: one chunk and one record per
//! segment being read.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use parking_lot::Mutex;
use trilith_model::{Result, Signal};

use crate::error::fatal;
use crate::log::Shared;
use crate::scan::Scanner;
use crate::segment::LSN_MAX;
use crate::stats::count;
use crate::store::SegmentStore;
use crate::survey::FoundSegment;
use crate::table::SignalLsns;
use crate::{Lsn, Record};

/// What a replay met, so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayReport {
    /// Segments read to their end.
    pub segments: u64,
    /// Records given to the caller.
    pub records: u64,
    /// Records that blocks hold already.
    pub skipped: u64,
    /// Frame bytes of both.
    pub bytes: u64,
    /// Places where acknowledged records may be lost: damaged frames, and stretches without a valid frame.
    pub corruptions: u64,
    pub corrupt_bytes: u64,
    /// End of the newest segment that a crash left incomplete. Nothing of it was acknowledged.
    pub torn_bytes: u64,
    /// Bytes of refused records that a failing disk did not let be taken back.
    pub refused_bytes: u64,
    /// LSNs that earlier segments should hold and do not: a lost file, or the end of a damaged one. Upper bounds, as
    /// refused records leave gaps too.
    pub missing: Vec<RangeInclusive<u64>>,
    /// Segments without a valid header.
    pub unreadable_segments: Vec<String>,
    /// Files that are not the log's.
    pub foreign_files: Vec<String>,
}

impl ReplayReport {
    /// False when acknowledged records may be lost.
    pub fn is_clean(&self) -> bool {
        self.corruptions == 0 && self.missing.is_empty() && self.unreadable_segments.is_empty()
    }
}

/// The records of a log as it was at `open`. Appends that follow are not in it.
pub struct Replay {
    store: Arc<dyn SegmentStore>,
    log: Arc<Shared>,
    segments: Vec<FoundSegment>,
    positions: SignalLsns,
    progress: Arc<Mutex<Progress>>,
}

#[derive(Default)]
struct Progress {
    report: ReplayReport,
    /// Last LSN met, by the segment's first LSN, of segments read to their end.
    last_lsns: BTreeMap<u64, Option<u64>>,
}

impl Replay {
    pub(crate) fn new(
        store: Arc<dyn SegmentStore>,
        log: Arc<Shared>,
        segments: Vec<FoundSegment>,
        report: ReplayReport,
    ) -> Self {
        let progress = Progress {
            report,
            last_lsns: BTreeMap::new(),
        };
        Replay {
            store,
            log,
            segments,
            positions: SignalLsns::default(),
            progress: Arc::new(Mutex::new(progress)),
        }
    }

    /// Leaves out records of `signal` up to and including `upto`: blocks hold them. Call before `segments` or `run`.
    pub fn after(&mut self, signal: Signal, upto: Lsn) {
        self.positions.note(signal, upto.0);
    }

    /// Bytes of all segments, for a progress bar.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.end).sum()
    }

    /// The segments, oldest first. Each must be read to its end at some time, or it is never deleted.
    pub fn segments(&self) -> Vec<SegmentReplay> {
        let ends = self
            .segments
            .iter()
            .skip(1)
            .map(|s| s.header.first_lsn)
            .chain([LSN_MAX + 1]);
        self.segments
            .iter()
            .zip(ends)
            .map(|(found, lsn_end)| SegmentReplay {
                store: self.store.clone(),
                log: self.log.clone(),
                progress: self.progress.clone(),
                found: found.clone(),
                lsn_end,
                positions: self.positions,
                state: ReadState::Before,
                max: SignalLsns::default(),
                last_lsn: None,
                tally: Tally::default(),
            })
            .collect()
    }

    /// Gives every record to `f` in the order of LSNs.
    ///
    /// # Errors
    /// The first error of `f`; `Unavailable` when the store cannot be read.
    pub fn run(&self, mut f: impl FnMut(Record) -> Result<()>) -> Result<ReplayReport> {
        for segment in self.segments() {
            for record in segment {
                f(record?)?;
            }
        }
        Ok(self.report())
    }

    pub fn report(&self) -> ReplayReport {
        let progress = self.progress.lock();
        let mut report = progress.report.clone();
        for pair in self.segments.windows(2) {
            let (older, newer) = (&pair[0].header, &pair[1].header);
            let Some(last) = progress.last_lsns.get(&older.first_lsn) else {
                continue;
            };
            if pair[0].is_empty() {
                // Emptied by a release: nobody misses what it held.
                continue;
            }
            let have = last.unwrap_or(older.previous_lsn);
            if have < newer.previous_lsn {
                report.missing.push(have + 1..=newer.previous_lsn);
            }
        }
        report
    }
}

/// One segment's records in the order of LSNs. Files are opened at the first `next` and closed at the end.
///
/// An `Err` is a store that cannot be read (damage is skipped and counted); it ends the iteration.
pub struct SegmentReplay {
    store: Arc<dyn SegmentStore>,
    log: Arc<Shared>,
    progress: Arc<Mutex<Progress>>,
    found: FoundSegment,
    lsn_end: u64,
    positions: SignalLsns,
    state: ReadState,
    max: SignalLsns,
    last_lsn: Option<u64>,
    tally: Tally,
}

enum ReadState {
    Before,
    Reading(Scanner),
    Done,
}

#[derive(Clone, Copy, Default)]
struct Tally {
    records: u64,
    skipped: u64,
    bytes: u64,
}

impl SegmentReplay {
    pub fn name(&self) -> &str {
        &self.found.name
    }

    pub fn bytes(&self) -> u64 {
        self.found.end
    }

    fn step(&mut self) -> std::io::Result<Option<Record>> {
        loop {
            let scanner = match &mut self.state {
                ReadState::Done => return Ok(None),
                ReadState::Before => {
                    let reader = self.store.open(&self.found.name)?;
                    let lsns = self.found.header.first_lsn..self.lsn_end;
                    self.state = ReadState::Reading(Scanner::new(reader, self.found.header.key, self.found.end, lsns));
                    continue;
                }
                ReadState::Reading(scanner) => scanner,
            };
            let Some(header) = scanner.next()? else {
                self.finish();
                return Ok(None);
            };
            self.max.note(header.signal, header.lsn);
            self.last_lsn = Some(header.lsn);
            if header.lsn <= self.positions.get(header.signal) {
                scanner.skip(&header);
                self.tally.skipped += 1;
                self.tally.bytes += header.frame_bytes();
            } else if let Some((tenant, payload)) = scanner.body(&header)? {
                self.tally.records += 1;
                self.tally.bytes += header.frame_bytes();
                return Ok(Some(Record {
                    lsn: Lsn(header.lsn),
                    signal: header.signal,
                    tenant,
                    payload,
                }));
            }
        }
    }

    fn finish(&mut self) {
        let ReadState::Reading(scanner) = std::mem::replace(&mut self.state, ReadState::Done) else {
            return;
        };
        let damage = scanner.damage;
        // The torn tail of the newest segment is outside `found.end` already; any other tail is damage.
        let places = damage.places + u64::from(damage.tail_bytes > 0);
        let bytes = damage.bytes + damage.tail_bytes;
        if places > 0 {
            tracing::error!(
                segment = self.found.name,
                places,
                bytes,
                "damaged records in the write-ahead log are lost"
            );
            count(&self.log.counters.corruptions, places);
        }
        let mut progress = self.progress.lock();
        let first_lsn = self.found.header.first_lsn;
        // Reading a segment a second time adds nothing to the report.
        if progress.last_lsns.insert(first_lsn, self.last_lsn).is_none() {
            let report = &mut progress.report;
            report.segments += 1;
            report.records += self.tally.records;
            report.skipped += self.tally.skipped;
            report.bytes += self.tally.bytes;
            report.corruptions += places;
            report.corrupt_bytes += bytes;
        }
        drop(progress);
        self.log.learned(first_lsn, self.max);
    }
}

impl Iterator for SegmentReplay {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Result<Record>> {
        self.step()
            .map_err(|e| {
                self.state = ReadState::Done;
                fatal(
                    &format!("cannot read segment {} of the write-ahead log", self.found.name),
                    &e,
                )
            })
            .transpose()
    }
}
