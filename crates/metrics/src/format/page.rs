//! Value page: the values of neighbouring series.
//!
//! Before compression: `| slots uvarint | slot headers | payloads |`, slot header
//! `| ordinal Δ uvarint (the first from the page's first ordinal) | vector varint Δ | payload length uvarint |`.
//! A slot is a run of one series with one timestamp vector; payloads are those of `values` and `rich`.

use std::ops::Range;

use trilith_codec::{Reader, put_uvarint, put_varint};
use trilith_model::{Error, Result};

use super::{bad, rich, values};
use crate::samples::{Samples, SamplesRef};

/// Slots of a page: enough that neighbours compress together, few enough that one series does not cost many.
pub(crate) const PAGE_SLOTS_MAX: usize = 64;
/// Payload bytes after which a page ends.
pub(crate) const PAGE_BYTES_TARGET: usize = 64 << 10;

/// Collects slots of one page.
#[derive(Debug, Default)]
pub(crate) struct PageBuilder {
    headers: Vec<u8>,
    payloads: Vec<u8>,
    slots: usize,
    last_ordinal: u32,
    last_vector: u32,
}

impl PageBuilder {
    pub(crate) fn is_empty(&self) -> bool {
        self.slots == 0
    }

    pub(crate) fn is_full(&self) -> bool {
        self.slots >= PAGE_SLOTS_MAX || self.payloads.len() >= PAGE_BYTES_TARGET
    }

    /// Ordinals do not descend.
    pub(crate) fn push(&mut self, ordinal: u32, vector: u32, run: SamplesRef<'_>) {
        let delta = if self.slots == 0 {
            0
        } else {
            ordinal - self.last_ordinal
        };
        put_uvarint(&mut self.headers, u64::from(delta));
        put_varint(&mut self.headers, i64::from(vector) - i64::from(self.last_vector));
        let from = self.payloads.len();
        rich::encode(&mut self.payloads, run);
        put_uvarint(&mut self.headers, (self.payloads.len() - from) as u64);
        self.slots += 1;
        self.last_ordinal = ordinal;
        self.last_vector = vector;
    }

    /// The raw page; the builder is empty afterwards.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.headers.len() + self.payloads.len() + 4);
        put_uvarint(&mut out, self.slots as u64);
        out.append(&mut self.headers);
        out.append(&mut self.payloads);
        self.slots = 0;
        self.last_ordinal = 0;
        self.last_vector = 0;
        out
    }
}

/// One run of one series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) ordinal: u32,
    pub(crate) vector: u32,
    payload: Range<usize>,
}

/// A decompressed page, opened for access by series.
#[derive(Debug)]
pub(crate) struct Page {
    raw: Vec<u8>,
    /// Ordinals do not descend.
    slots: Vec<Slot>,
}

impl Page {
    /// # Errors
    /// `Corrupt` unless the frame checks out, ordinals lie in `ordinals` (inclusive) and vectors below `vectors`.
    pub(crate) fn open(raw: Vec<u8>, first_ordinal: u32, last_ordinal: u32, vectors: u32) -> Result<Self> {
        let bad = bad("value page");
        let mut r = Reader::new(&raw);
        let n = r.count(3).map_err(&bad)?;
        let mut slots = Vec::with_capacity(n);
        let (mut ordinal, mut vector) = (first_ordinal, 0i64);
        let mut lens = Vec::with_capacity(n);
        for _ in 0..n {
            ordinal = ordinal
                .checked_add(r.uvarint_u32().map_err(&bad)?)
                .filter(|&o| o <= last_ordinal)
                .ok_or_else(|| Error::corrupt("slot outside of its page"))?;
            vector = vector
                .checked_add(r.varint().map_err(&bad)?)
                .filter(|v| (0..i64::from(vectors)).contains(v))
                .ok_or_else(|| Error::corrupt("slot names a timestamp vector that does not exist"))?;
            lens.push(r.count(1).map_err(&bad)?);
            // Within 0..vectors, a u32.
            slots.push(Slot {
                ordinal,
                vector: vector as u32,
                payload: 0..0,
            });
        }
        for (slot, len) in slots.iter_mut().zip(lens) {
            let start = r.position();
            r.skip(len).map_err(&bad)?;
            slot.payload = start..r.position();
        }
        r.finish().map_err(&bad)?;
        if slots.first().map(|s| s.ordinal) != Some(first_ordinal)
            || slots.last().map(|s| s.ordinal) != Some(last_ordinal)
        {
            return Err(Error::corrupt("page does not hold the series of its directory entry"));
        }
        Ok(Page { raw, slots })
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The slots of one series, in time order.
    pub(crate) fn slots_of(&self, ordinal: u32) -> &[Slot] {
        let from = self.slots.partition_point(|s| s.ordinal < ordinal);
        let to = self.slots.partition_point(|s| s.ordinal <= ordinal);
        &self.slots[from..to]
    }

    pub(crate) fn raw_bytes(&self) -> usize {
        self.raw.len() + self.slots.len() * std::mem::size_of::<Slot>()
    }

    /// Whether the slot has histograms or start timestamps: then [`Page::values`] does not read it.
    #[inline]
    pub(crate) fn is_rich(&self, slot: &Slot) -> bool {
        rich::is_rich(&self.raw[slot.payload.clone()])
    }

    /// Appends the samples of a slot of any kind; `times` are those of its vector.
    ///
    /// # Errors
    /// `Corrupt`; `out` is unchanged then.
    pub(crate) fn read(&self, slot: &Slot, times: &[i64], out: &mut Samples) -> Result<()> {
        rich::decode(&self.raw[slot.payload.clone()], times, out)
    }

    /// Appends the `n` values of a slot of floats alone, `n` being the length of its vector.
    ///
    /// # Errors
    /// `Corrupt`; `out` is unchanged then.
    pub(crate) fn values(&self, slot: &Slot, n: usize, out: &mut Vec<f64>) -> Result<()> {
        values::decode(&self.raw[slot.payload.clone()], n, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn round_trip() {
        let mut b = PageBuilder::default();
        let runs: [(u32, u32, &[f64]); 4] = [
            (7, 3, &[1.0, 2.0]),
            (7, 4, &[3.0]),
            (8, 0, &[0.5, 0.25]),
            (10, 9, &[1e300]),
        ];
        for (o, v, run) in runs {
            b.push(o, v, SamplesRef::floats_only(&[1, 2][..run.len()], run));
        }
        let raw = b.finish();
        assert!(b.is_empty());
        let page = Page::open(raw.clone(), 7, 10, 10).unwrap();
        for (slot, (o, v, run)) in page.slots().iter().zip(runs) {
            assert_eq!((slot.ordinal, slot.vector), (o, v));
            let mut out = Vec::new();
            page.values(slot, run.len(), &mut out).unwrap();
            assert_eq!(out, run);
        }
        assert_eq!(page.slots_of(7).len(), 2);
        assert_eq!(page.slots_of(9).len(), 0);
        assert!(Page::open(raw.clone(), 7, 10, 9).is_err(), "vector out of range");
        assert!(Page::open(raw.clone(), 7, 9, 10).is_err(), "series out of range");
        assert!(Page::open(raw.clone(), 6, 10, 10).is_err(), "another first series");
        for cut in 0..raw.len() {
            assert!(Page::open(raw[..cut].to_vec(), 7, 10, 10).is_err());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn hostile(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(p) = Page::open(bytes, 0, 5, 5) {
                for s in p.slots() {
                    let _ = p.values(s, 10, &mut Vec::new());
                }
            }
        }
    }
}
