//! Timestamp vectors: each distinct vector of a block is stored once, whatever number of series share it.
//!
//! Vector: `| n uvarint | t0 varint | n-1 × Δ²t varint |`, Δ before the second timestamp is 0, wrapping arithmetic.
//! Page (before compression): `| count uvarint | count × length uvarint | vectors |`.

use std::ops::Range;
use std::sync::Arc;

use trilith_codec::{Reader, put_uvarint, put_varint};
use trilith_model::{Error, Result};

use super::{SLOT_SAMPLES_MAX, bad};

pub(crate) fn encode_vector(out: &mut Vec<u8>, times: &[i64]) {
    debug_assert!(!times.is_empty() && times.len() <= SLOT_SAMPLES_MAX);
    debug_assert!(times.is_sorted_by(|a, b| a < b), "timestamps of a vector ascend");
    put_uvarint(out, times.len() as u64);
    put_varint(out, times[0]);
    let (mut last, mut delta) = (times[0], 0i64);
    for &t in &times[1..] {
        let d = t.wrapping_sub(last);
        put_varint(out, d.wrapping_sub(delta));
        (last, delta) = (t, d);
    }
}

/// # Errors
/// `Corrupt` unless the bytes are exactly one vector, strictly ascending.
pub(crate) fn decode_vector(bytes: &[u8]) -> Result<Arc<[i64]>> {
    let mut out = Vec::new();
    decode_vector_into(bytes, &mut out)?;
    Ok(out.into())
}

/// As `decode_vector`; appends to `out`, which is undefined after an error.
pub(crate) fn decode_vector_into(bytes: &[u8], out: &mut Vec<i64>) -> Result<()> {
    let bad = bad("timestamps");
    let mut r = Reader::new(bytes);
    // Each timestamp takes a byte at least, so the count is bounded by the input.
    let n = r.count(1).map_err(&bad)?;
    if n == 0 || n > SLOT_SAMPLES_MAX {
        return Err(Error::corrupt(format!("a timestamp vector of {n} entries")));
    }
    out.reserve(n);
    let mut last = r.varint().map_err(&bad)?;
    let mut delta = 0i64;
    out.push(last);
    for _ in 1..n {
        delta = delta.wrapping_add(r.varint().map_err(&bad)?);
        let t = last.wrapping_add(delta);
        if t <= last {
            return Err(Error::corrupt("timestamps do not ascend"));
        }
        out.push(t);
        last = t;
    }
    r.finish().map_err(&bad)
}

/// Frames vectors that were encoded one after the other into a page.
pub(crate) fn encode_page(lengths: &[usize], vectors: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(vectors.len() + lengths.len() * 2 + 4);
    put_uvarint(&mut out, lengths.len() as u64);
    for &len in lengths {
        put_uvarint(&mut out, len as u64);
    }
    out.extend_from_slice(vectors);
    out
}

/// A decompressed page of vectors, opened for access by position.
#[derive(Debug)]
pub(crate) struct TimesPage {
    raw: Vec<u8>,
    spans: Vec<Range<usize>>,
}

impl TimesPage {
    /// # Errors
    /// `Corrupt` when the frame does not check out.
    pub(crate) fn open(raw: Vec<u8>) -> Result<Self> {
        let bad = bad("timestamp page");
        let mut r = Reader::new(&raw);
        let n = r.count(1).map_err(&bad)?;
        let mut lengths = Vec::with_capacity(n);
        for _ in 0..n {
            lengths.push(r.count(1).map_err(&bad)?);
        }
        let mut spans = Vec::with_capacity(n);
        for len in lengths {
            let start = r.position();
            r.skip(len).map_err(&bad)?;
            spans.push(start..r.position());
        }
        r.finish().map_err(&bad)?;
        Ok(TimesPage { raw, spans })
    }

    /// # Errors
    /// `Corrupt` when there is no such vector or it does not check out.
    pub(crate) fn vector(&self, i: usize) -> Result<Arc<[i64]>> {
        let span = self
            .spans
            .get(i)
            .ok_or_else(|| Error::corrupt("timestamp vector out of its page"))?;
        decode_vector(&self.raw[span.clone()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(times: &[i64]) {
        let mut out = Vec::new();
        encode_vector(&mut out, times);
        assert_eq!(&*decode_vector(&out).unwrap(), times);
        for cut in 0..out.len() {
            assert!(decode_vector(&out[..cut]).is_err());
        }
    }

    #[test]
    fn extremes() {
        check(&[0]);
        check(&[i64::MIN]);
        check(&[i64::MIN, i64::MAX]);
        check(&[i64::MIN, -1, 0, i64::MAX]);
    }

    #[test]
    fn descending_is_refused() {
        for second in [0i64, -1] {
            let mut out = Vec::new();
            put_uvarint(&mut out, 2);
            put_varint(&mut out, 5);
            put_varint(&mut out, second);
            assert!(decode_vector(&out).is_err());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn round_trip(set in proptest::collection::btree_set(any::<i64>(), 1..50)) {
            check(&set.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn hostile(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode_vector(&bytes);
            if let Ok(p) = TimesPage::open(bytes) {
                for i in 0..p.spans.len() + 1 {
                    let _ = p.vector(i);
                }
            }
        }
    }
}
