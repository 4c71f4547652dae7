//! The shared state between appenders, the commit thread and replay.
//!
//! One mutex, held for a few assignments; checksums are computed before it is taken and I/O happens without it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;
use trilith_model::{Clock, Error, ErrorKind, Result, Signal, TenantId};

use crate::frame::{RECORD_BYTES_MAX, body_checksum};
use crate::segment::{LSN_MAX, SEGMENT_HEADER_BYTES};
use crate::stats::{Counters, LogState, Stats, count, read};
use crate::table::{Closed, SignalLsns};

/// While the disk refuses, one append per interval finds out whether it still does.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) struct Shared {
    pub state: Mutex<State>,
    /// Something for the commit thread to do.
    pub work: Condvar,
    pub clock: Arc<dyn Clock>,
    pub counters: Counters,
    pub backlog_bytes_max: u64,
}

pub(crate) struct State {
    pub next_lsn: u64,
    pub open: Group,
    pub in_flight_bytes: u64,
    pub health: Health,
    pub rotate: bool,
    pub tidy: bool,
    pub closing: bool,
    pub released: SignalLsns,
    /// By first LSN; without the active one.
    pub segments: BTreeMap<u64, Closed>,
    pub active_bytes: u64,
    spare: Vec<Entry>,
}

pub(crate) enum Health {
    Ready,
    Failing { error: Error, tried: Duration },
}

/// `None` until the group is decided.
pub(crate) type Outcome = Option<Result<()>>;

/// Records that become durable, or not, together.
pub(crate) struct Group {
    pub entries: Vec<Entry>,
    pub bytes: u64,
    pub outcome: watch::Sender<Outcome>,
}

pub(crate) struct Entry {
    pub lsn: u64,
    pub signal: Signal,
    pub tenant: TenantId,
    pub payload: Bytes,
    pub body_crc: u32,
}

impl Group {
    fn new(entries: Vec<Entry>) -> Self {
        Group {
            entries,
            bytes: 0,
            outcome: watch::Sender::new(None),
        }
    }

    pub fn resolve(&self, outcome: Result<()>) {
        self.outcome.send_replace(Some(outcome));
    }
}

impl State {
    pub fn new(next_lsn: u64, segments: BTreeMap<u64, Closed>) -> Self {
        State {
            next_lsn,
            open: Group::new(Vec::new()),
            in_flight_bytes: 0,
            health: Health::Ready,
            rotate: false,
            tidy: false,
            closing: false,
            released: SignalLsns::default(),
            segments,
            active_bytes: 0,
            spare: Vec::new(),
        }
    }

    pub fn take_group(&mut self) -> Group {
        if self.open.entries.is_empty() {
            // Nobody waits for an empty group, so the open one can stay.
            return Group::new(Vec::new());
        }
        let next = Group::new(std::mem::take(&mut self.spare));
        let group = std::mem::replace(&mut self.open, next);
        self.in_flight_bytes += group.bytes;
        group
    }
}

impl Shared {
    pub fn append(&self, signal: Signal, tenant: &TenantId, payload: Bytes) -> Result<(u64, watch::Receiver<Outcome>)> {
        if payload.len() > RECORD_BYTES_MAX {
            let message = format!(
                "a record of {} bytes is larger than the log takes ({RECORD_BYTES_MAX})",
                payload.len()
            );
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        let body_crc = body_checksum(tenant.as_str().as_bytes(), &payload);
        let mut entry = Entry {
            lsn: 0,
            signal,
            tenant: tenant.clone(),
            payload,
            body_crc,
        };
        let bytes = entry.frame_bytes();

        let mut state = self.state.lock();
        if let Err(e) = self.admit(&mut state, bytes) {
            count(&self.counters.refused, 1);
            return Err(e);
        }
        let lsn = state.next_lsn;
        state.next_lsn += 1;
        entry.lsn = lsn;
        state.open.entries.push(entry);
        state.open.bytes += bytes;
        let outcome = state.open.outcome.subscribe();
        drop(state);
        self.work.notify_one();
        Ok((lsn, outcome))
    }

    fn admit(&self, state: &mut State, bytes: u64) -> Result<()> {
        if state.closing {
            return Err(Error::unavailable("the server is stopping"));
        }
        let backlog = state.in_flight_bytes + state.open.bytes;
        // A single record passes however low the ceiling is: refused once, it would be refused for ever.
        if backlog > 0 && backlog + bytes > self.backlog_bytes_max {
            return Err(Error::unavailable(format!(
                "{backlog} bytes wait for the disk; the backlog of the write-ahead log is limited to {}",
                self.backlog_bytes_max
            )));
        }
        if let Health::Failing { error, tried } = &mut state.health {
            let now = self.clock.monotonic();
            if now.saturating_sub(*tried) < PROBE_INTERVAL {
                return Err(error.clone());
            }
            *tried = now;
        }
        Ok(())
    }

    pub fn last_lsn(&self) -> u64 {
        self.state.lock().next_lsn - 1
    }

    pub fn release(&self, signal: Signal, upto: u64) {
        let mut state = self.state.lock();
        // "All" is as far as LSNs were handed out.
        let upto = if upto > LSN_MAX { state.next_lsn - 1 } else { upto };
        if state.released.get(signal) >= upto {
            return;
        }
        state.released.note(signal, upto);
        // A committed position above every known LSN comes from a log whose end is lost. New records must be above it,
        // or the next replay would take them for committed.
        state.next_lsn = state.next_lsn.max(upto + 1);
        state.tidy = true;
        drop(state);
        self.work.notify_one();
    }

    pub fn rotate(&self) {
        self.state.lock().rotate = true;
        self.work.notify_one();
    }

    /// What a replay learned about a segment.
    pub fn learned(&self, first_lsn: u64, max: SignalLsns) {
        let mut state = self.state.lock();
        if let Some(segment) = state.segments.get_mut(&first_lsn) {
            segment.max = Some(max);
            state.tidy = true;
            drop(state);
            self.work.notify_one();
        }
    }

    pub fn close_segment(&self, first_lsn: u64, bytes: u64, max: SignalLsns) {
        let mut state = self.state.lock();
        state.active_bytes = 0;
        let emptied = bytes == SEGMENT_HEADER_BYTES as u64;
        state.segments.insert(
            first_lsn,
            Closed {
                bytes,
                max: Some(max),
                emptied,
            },
        );
    }

    /// The first LSN of a segment that is made before its first record: that of the first waiting record, or one that no
    /// record has. A later number than a waiting record's would make replay take that record for damage.
    pub fn next_segment_lsn(&self) -> u64 {
        let mut state = self.state.lock();
        if let Some(waiting) = state.open.entries.first() {
            return waiting.lsn;
        }
        let lsn = state.next_lsn;
        state.next_lsn += 1;
        lsn
    }

    /// Keeps the allocation for a later group, unless one burst made it large.
    pub fn recycle(&self, group: Group) {
        let mut entries = group.entries;
        entries.clear();
        if entries.capacity() <= 64 << 10 {
            self.state.lock().spare = entries;
        }
    }

    pub fn start_closing(&self) {
        self.state.lock().closing = true;
        self.work.notify_one();
    }

    pub fn stats(&self) -> Stats {
        let c = &self.counters;
        let state = self.state.lock();
        Stats {
            state: match &state.health {
                _ if state.closing => LogState::Closed,
                Health::Ready => LogState::Ready,
                Health::Failing { .. } => LogState::Failing,
            },
            records: read(&c.records),
            bytes: read(&c.bytes),
            groups: read(&c.groups),
            syncs: read(&c.syncs),
            failures: read(&c.failures),
            refused: read(&c.refused),
            corruptions: read(&c.corruptions),
            backlog_bytes: state.in_flight_bytes + state.open.bytes,
            segments: state.segments.len() as u64 + u64::from(state.active_bytes > 0),
            segment_bytes: state.segments.values().map(|s| s.bytes).sum::<u64>() + state.active_bytes,
        }
    }
}
