//! The open chunk of a series that has histograms or start timestamps. Grows sample by sample; sealed in the encodings
//! of blocks, as chunks of floats are. In memory only.
//!
//! Per sample: `| flags u8 | Δt uvarint | [Δstart varint] | value |`; flags: 1 histogram, 2 the start differs from the one
//! before. A float is the bits XOR those of the float before, bytes reversed, as uvarint; a histogram its sum in the
//! same way, then as in docs/formats/metrics-block.md.

use std::sync::Arc;

use trilith_codec::{Reader, put_uvarint, put_varint};
use trilith_histogram::FloatHistogram;
use trilith_model::{Result, SampleValue, TimeRange};

use super::pool::Pool;
use crate::chunk::SealedRef;
use crate::format::histogram;
use crate::samples::{AnySample, Samples, histogram_bytes};

const SAMPLES_MAX: usize = 64;
/// Bytes after which a chunk is sealed although it has fewer samples.
const BYTES_MAX: usize = 16 << 10;
/// Late samples kept plain before they are sealed.
const LATE_SAMPLES_MAX: usize = 16;

const HISTOGRAM: u8 = 1;
const START: u8 = 2;

/// The part of a series that only histograms and start timestamps need.
#[derive(Debug, Default)]
pub(super) struct Rich {
    bytes: Vec<u8>,
    count: usize,
    first_ms: i64,
    state: State,
    /// The newest histogram, if it is the newest sample; survives a seal.
    pub(super) newest: Option<Arc<FloatHistogram>>,
    /// Of the newest sample of either kind.
    pub(super) newest_start_ms: i64,
    /// In write order; of equal times the later one counts.
    pub(super) late: Vec<AnySample>,
    /// Memory told to the pool; it is never taken back.
    charged: usize,
}

/// What the next sample is coded against.
#[derive(Debug, Default)]
struct State {
    last_ms: i64,
    start_ms: i64,
    float: u64,
    sum: u64,
    run: histogram::Run,
}

impl Rich {
    pub(super) fn range(&self) -> Option<TimeRange> {
        (self.count > 0).then(|| TimeRange::new(self.first_ms, self.state.last_ms))
    }

    /// Adds a sample newer than all others; returns the new end of the chain when the chunk was sealed.
    pub(super) fn append(&mut self, pool: &mut Pool, s: &AnySample, sealed: SealedRef) -> SealedRef {
        if self.count == 0 {
            self.first_ms = s.ts_ms;
            self.state.last_ms = s.ts_ms;
        }
        let st = &mut self.state;
        let is_histogram = matches!(s.value, SampleValue::Histogram(_));
        let flags = if is_histogram { HISTOGRAM } else { 0 } | if s.start_ms != st.start_ms { START } else { 0 };
        self.bytes.push(flags);
        put_uvarint(&mut self.bytes, s.ts_ms.wrapping_sub(st.last_ms) as u64);
        if s.start_ms != st.start_ms {
            put_varint(&mut self.bytes, s.start_ms.wrapping_sub(st.start_ms));
        }
        st.last_ms = s.ts_ms;
        st.start_ms = s.start_ms;
        self.newest_start_ms = s.start_ms;
        match &s.value {
            SampleValue::Float(v) => {
                put_uvarint(&mut self.bytes, (v.to_bits() ^ st.float).swap_bytes());
                st.float = v.to_bits();
                self.newest = None;
            }
            SampleValue::Histogram(h) => {
                put_uvarint(&mut self.bytes, (h.sum.to_bits() ^ st.sum).swap_bytes());
                st.sum = h.sum.to_bits();
                st.run.put(&mut self.bytes, h);
                self.newest = Some(h.clone());
            }
        }
        self.count += 1;
        self.charge(pool);
        if self.count < SAMPLES_MAX && self.bytes.len() < BYTES_MAX {
            return sealed;
        }
        let mut samples = Samples::default();
        self.read(&mut samples);
        self.bytes.clear();
        self.count = 0;
        self.state = State::default();
        SealedRef::write(pool, sealed, samples.as_ref())
    }

    /// Keeps a sample that is not newer than all others; returns the new end of the late chain when it was sealed.
    pub(super) fn append_late(&mut self, pool: &mut Pool, s: AnySample, sealed: SealedRef) -> SealedRef {
        self.late.push(s);
        self.charge(pool);
        if self.late.len() < LATE_SAMPLES_MAX {
            return sealed;
        }
        let mut samples = Samples::default();
        for s in self.late.drain(..) {
            samples.push(s);
        }
        samples.sort_last_of_each();
        SealedRef::write(pool, sealed, samples.as_ref())
    }

    fn charge(&mut self, pool: &mut Pool) {
        let held = |v: &SampleValue| match v {
            SampleValue::Float(_) => 0,
            SampleValue::Histogram(h) => histogram_bytes(h),
        };
        let now = size_of::<Rich>()
            + self.bytes.capacity()
            + self.newest.as_deref().map_or(0, histogram_bytes)
            + self.late.capacity() * size_of::<AnySample>()
            + self.late.iter().map(|s| held(&s.value)).sum::<usize>();
        pool.charge(now.saturating_sub(self.charged));
        self.charged = self.charged.max(now);
    }

    /// Appends the samples of the open chunk.
    pub(super) fn read(&self, out: &mut Samples) {
        self.try_read(out).expect("the chunk was encoded by this process");
    }

    fn try_read(&self, out: &mut Samples) -> Result<()> {
        let bad = crate::format::bad("open chunk");
        let mut r = Reader::new(&self.bytes);
        let mut st = State {
            last_ms: self.first_ms,
            ..State::default()
        };
        for _ in 0..self.count {
            let flags = r.u8().map_err(&bad)?;
            st.last_ms = st.last_ms.wrapping_add(r.uvarint().map_err(&bad)? as i64);
            if flags & START != 0 {
                st.start_ms = st.start_ms.wrapping_add(r.varint().map_err(&bad)?);
            }
            let bits = r.uvarint().map_err(&bad)?.swap_bytes();
            let value = if flags & HISTOGRAM == 0 {
                st.float ^= bits;
                SampleValue::Float(f64::from_bits(st.float))
            } else {
                st.sum ^= bits;
                SampleValue::Histogram(st.run.take(&mut r, f64::from_bits(st.sum))?)
            };
            out.push(AnySample {
                ts_ms: st.last_ms,
                start_ms: st.start_ms,
                value,
            });
        }
        r.finish().map_err(&bad)
    }
}
