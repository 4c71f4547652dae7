//! The one thread that writes: takes the open group, writes it, syncs it, tells everyone who waits.
//!
//! Failure: the group's records are refused, the segment is cut back to its last durable byte and closed for good
//! (after a failed sync the kernel may call lost pages clean, so no later sync of that file proves anything). The
//! next segment's header repeats the cut, which covers a disk that refused even the cut. Nothing is acknowledged
//! before that header is durable, so a refused record never comes back next to later acknowledged ones.
//!
//! The thread sleeps on a condition variable; an idle log costs nothing.

use std::io;
use std::sync::Arc;

use trilith_model::rng::Rng;

use crate::error::refused;
use crate::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKey};
use crate::log::{Entry, Group, Health, Shared};
use crate::segment::{Cut, SEGMENT_HEADER_BYTES, SegmentHeader, segment_name};
use crate::stats::count;
use crate::store::{SegmentStore, SegmentWriter};
use crate::table::{Closed, SignalLsns};

/// Small records are gathered up to this size into one write; larger payloads are written from where they are.
const GATHER_BYTES: usize = 256 << 10;

pub(crate) struct Committer {
    pub shared: Arc<Shared>,
    pub store: Arc<dyn SegmentStore>,
    pub rng: Rng,
    pub segment_bytes: u64,
    pub active: Option<Active>,
    /// A cut that no durable header tells yet.
    pub cut: Option<Cut>,
    pub durable_lsn: u64,
    pub buffer: Vec<u8>,
}

/// The segment that takes groups.
pub(crate) struct Active {
    writer: Box<dyn SegmentWriter>,
    key: FrameKey,
    first_lsn: u64,
    /// Durable bytes.
    bytes: u64,
    max: SignalLsns,
}

impl Committer {
    pub fn run(mut self) {
        while self.wait() {
            self.step();
        }
        self.finish();
    }

    /// Sleeps until there is something to do; false when the log closes and nothing is left.
    fn wait(&self) -> bool {
        let mut state = self.shared.state.lock();
        loop {
            if !state.open.entries.is_empty() || state.rotate || state.tidy {
                return true;
            }
            if state.closing {
                return false;
            }
            self.shared.work.wait(&mut state);
        }
    }

    /// Does what is due now. Public to the crate so that tests drive the log without a thread, step by step.
    pub fn step(&mut self) {
        let (group, rotate, mut tidy) = {
            let mut state = self.shared.state.lock();
            let group = state.take_group();
            (
                group,
                std::mem::take(&mut state.rotate),
                std::mem::take(&mut state.tidy),
            )
        };
        if !group.entries.is_empty() {
            match self.write(&group) {
                Ok(bytes) => tidy |= self.succeed(group, bytes),
                Err(e) => self.fail(group, &e),
            }
        }
        if rotate {
            tidy |= self.close_active();
        }
        if tidy {
            self.tidy();
        }
    }

    fn write(&mut self, group: &Group) -> io::Result<u64> {
        if self.active.is_none() {
            self.create(group.entries[0].lsn)?;
        }
        let active = self.active.as_mut().expect("created above");
        let mut written = 0;
        self.buffer.clear();
        for entry in &group.entries {
            let header = entry.header();
            let tenant = entry.tenant.as_str().as_bytes();
            if self.buffer.len() + FRAME_HEADER_BYTES + tenant.len() + entry.payload.len() > GATHER_BYTES {
                active.writer.write(&self.buffer)?;
                self.buffer.clear();
            }
            self.buffer.extend_from_slice(&header.encode(active.key));
            self.buffer.extend_from_slice(tenant);
            if entry.payload.len() < GATHER_BYTES {
                self.buffer.extend_from_slice(&entry.payload);
            } else {
                active.writer.write(&self.buffer)?;
                self.buffer.clear();
                active.writer.write(&entry.payload)?;
            }
            written += header.frame_bytes();
        }
        active.writer.write(&self.buffer)?;
        active.writer.sync()?;
        Ok(written)
    }

    /// Starts the segment that begins with `first_lsn`.
    fn create(&mut self, first_lsn: u64) -> io::Result<()> {
        let key = loop {
            let key = FrameKey(self.rng.next_u64());
            // A marker of zeros would meet a candidate at every byte of a preallocated tail.
            if key.marker() != [0; 4] {
                break key;
            }
        };
        let header = SegmentHeader {
            key,
            first_lsn,
            previous_lsn: self.durable_lsn,
            cut: self.cut,
        };
        let writer = self.store.create(&segment_name(first_lsn), &header.encode())?;
        // Its header carries the cut now, and it outlives the segment that was cut (see `tidy`).
        self.cut = None;
        self.active = Some(Active {
            writer,
            key,
            first_lsn,
            bytes: SEGMENT_HEADER_BYTES as u64,
            max: SignalLsns::default(),
        });
        Ok(())
    }

    /// True when a segment was closed.
    fn succeed(&mut self, group: Group, bytes: u64) -> bool {
        let active = self.active.as_mut().expect("the group was written to it");
        active.bytes += bytes;
        for entry in &group.entries {
            active.max.note(entry.signal, entry.lsn);
        }
        self.durable_lsn = group.entries.last().map_or(self.durable_lsn, |e| e.lsn);
        let full = active.bytes >= self.segment_bytes;
        let active_bytes = active.bytes;
        let counters = &self.shared.counters;
        count(&counters.syncs, 1);
        count(&counters.groups, 1);
        count(&counters.records, group.entries.len() as u64);
        count(&counters.bytes, bytes);
        {
            let mut state = self.shared.state.lock();
            state.in_flight_bytes = 0;
            state.active_bytes = active_bytes;
            if matches!(state.health, Health::Failing { .. }) {
                tracing::info!("the write-ahead log accepts records again");
                state.health = Health::Ready;
            }
        }
        group.resolve(Ok(()));
        self.shared.recycle(group);
        full && self.close_active()
    }

    /// Refuses the group and what came in behind it, and takes back what was written of it.
    fn fail(&mut self, group: Group, e: &io::Error) {
        let error = refused(e);
        if let Some(mut active) = self.active.take() {
            if let Err(cut_error) = active.writer.cut(active.bytes) {
                tracing::warn!(error = %cut_error, segment = segment_name(active.first_lsn), "cannot take back a failed write; the next segment records the cut");
            }
            self.cut = Some(Cut {
                first_lsn: active.first_lsn,
                offset: active.bytes,
            });
            self.shared.close_segment(active.first_lsn, active.bytes, active.max);
        }
        count(&self.shared.counters.failures, 1);
        let behind = {
            let mut state = self.shared.state.lock();
            state.in_flight_bytes = 0;
            if !matches!(state.health, Health::Failing { .. }) {
                tracing::error!(error = %e, "the write-ahead log cannot be written; pushes are refused until it can");
            }
            state.health = Health::Failing {
                error: error.clone(),
                tried: self.shared.clock.monotonic(),
            };
            let behind = state.take_group();
            state.in_flight_bytes = 0;
            behind
        };
        group.resolve(Err(error.clone()));
        behind.resolve(Err(error));
    }

    /// True when there was something to close. A segment without records stays open.
    fn close_active(&mut self) -> bool {
        match self.active.take() {
            Some(active) if active.bytes > SEGMENT_HEADER_BYTES as u64 => {
                self.shared.close_segment(active.first_lsn, active.bytes, active.max);
                true
            }
            other => {
                self.active = other;
                false
            }
        }
    }

    /// Deletes what every signal released. A segment that has older living ones before it is emptied to its header
    /// first and deleted when they are gone: its header tells a cut or a gap of its predecessors. The newest segment
    /// stays until another one follows, so that LSNs are never reused.
    fn tidy(&mut self) {
        let released = self.shared.state.lock().released;
        if self.active.as_ref().is_some_and(|a| a.max.within(&released)) {
            self.close_active();
        }
        let newest = {
            let state = self.shared.state.lock();
            state.segments.last_key_value().map(|(&first, s)| (first, s.clone()))
        };
        let mut keep_from = u64::MAX;
        if let (None, Some((first_lsn, newest))) = (&self.active, newest) {
            keep_from = first_lsn;
            if newest.releasable(&released) && !newest.emptied {
                let next = self.shared.next_segment_lsn();
                match self.create(next) {
                    Ok(()) => keep_from = u64::MAX,
                    Err(e) => {
                        tracing::warn!(error = %e, "cannot start a new segment; the last one is kept")
                    }
                }
            }
        }
        let candidates: Vec<(u64, Closed)> = {
            let state = self.shared.state.lock();
            state
                .segments
                .range(..keep_from)
                .map(|(&first, s)| (first, s.clone()))
                .collect()
        };
        let mut oldest = true;
        for (first_lsn, segment) in candidates {
            if !segment.releasable(&released) {
                oldest = false;
                continue;
            }
            let name = segment_name(first_lsn);
            let done = if oldest {
                self.store.delete(&name)
            } else if segment.emptied {
                continue;
            } else {
                self.store.truncate(&name, SEGMENT_HEADER_BYTES as u64)
            };
            if let Err(e) = done {
                // Tried again with the next release; the records in it are skipped at replay either way.
                tracing::warn!(error = %e, segment = name, "cannot remove a released segment");
                return;
            }
            let mut state = self.shared.state.lock();
            if oldest {
                state.segments.remove(&first_lsn);
            } else if let Some(segment) = state.segments.get_mut(&first_lsn) {
                segment.emptied = true;
                segment.bytes = SEGMENT_HEADER_BYTES as u64;
            }
        }
    }

    /// A last attempt at a cut that no header carries.
    fn finish(&mut self) {
        if let Some(cut) = self.cut
            && let Err(e) = self.store.truncate(&segment_name(cut.first_lsn), cut.offset)
        {
            tracing::error!(error = %e, segment = segment_name(cut.first_lsn), offset = cut.offset, "refused records may remain after this offset");
        }
    }
}

impl Entry {
    fn header(&self) -> FrameHeader {
        let tenant_bytes = self.tenant.as_str().len();
        FrameHeader {
            body_bytes: u32::try_from(tenant_bytes + self.payload.len()).expect("append checks the size"),
            lsn: self.lsn,
            signal: self.signal,
            tenant_bytes: u8::try_from(tenant_bytes).expect("a tenant id has at most 150 bytes"),
            body_crc: self.body_crc,
        }
    }

    pub fn frame_bytes(&self) -> u64 {
        self.header().frame_bytes()
    }
}
