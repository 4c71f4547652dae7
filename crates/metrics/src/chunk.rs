//! Float chunks of a head: samples of one series, ascending in time.
//!
//! An open chunk grows sample by sample and is Gorilla-coded bit by bit. A full one is sealed: written anew with the
//! encodings of blocks, which need all values at once and take half the bytes. Both live in memory only and never come
//! from outside.
//!
//! Open: `| t0 i64 | v0 u64 |` then, per sample, `| Δ²t code | value code |`.
//!
//! Δ²t (Δ before the second sample is 0): `0` for none; `10` + 9, `110` + 14, `1110` + 20 bits zigzag; `1111` + 64 bits,
//! wrapping. Value, XOR with the one before: `0` for equal bits; `10` + the bits inside the last window of leading and
//! trailing zeros; `11` + 6 bits leading zeros + 6 bits (significant bits - 1) + the significant bits.
//! Source: Pelkonen et al., VLDB 2015, §4.1.
//!
//! Sealed: a timestamp vector and a slot's values, as in docs/formats/metrics-block.md.

use trilith_codec::{unzigzag, zigzag};
use trilith_model::{Sample, TimeRange};

use crate::format::{times, values};

/// Samples after which a chunk is sealed: many enough that a sealed chunk's header does not show, few enough that the
/// open part, which is the larger one per sample, stays small.
pub(crate) const CHUNK_SAMPLES_MAX: u16 = 64;

/// What an open chunk's buffer grows by.
const BUFFER_STEP_BYTES: usize = 64;

/// A finished chunk.
#[derive(Debug)]
pub(crate) struct SealedChunk {
    pub(crate) min_ms: i64,
    pub(crate) max_ms: i64,
    /// Length of the timestamp vector, which comes first.
    times_len: u32,
    data: Box<[u8]>,
}

/// A chunk that grows; timestamps must ascend strictly.
#[derive(Debug, Default)]
pub(crate) struct OpenChunk {
    data: Vec<u8>,
    /// Bits not yet in `data`, in the low `pending_bits` bits.
    pending: u64,
    pending_bits: u8,
    leading: u8,
    trailing: u8,
    window: bool,
    count: u16,
    first_ms: i64,
    last_ms: i64,
    delta_ms: i64,
    last_bits: u64,
}

impl OpenChunk {
    pub(crate) fn is_full(&self) -> bool {
        self.count >= CHUNK_SAMPLES_MAX
    }

    /// The range of the samples, `None` when empty.
    pub(crate) fn range(&self) -> Option<TimeRange> {
        (self.count > 0).then(|| TimeRange::new(self.first_ms, self.last_ms))
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.data.capacity()
    }

    pub(crate) fn append(&mut self, ts_ms: i64, value: f64) {
        let bits = value.to_bits();
        if self.count == 0 {
            self.first_ms = ts_ms;
            self.put(ts_ms as u64, 64);
            self.put(bits, 64);
        } else {
            debug_assert!(ts_ms > self.last_ms, "timestamps of a chunk ascend");
            let delta = ts_ms.wrapping_sub(self.last_ms);
            let dod = delta.wrapping_sub(self.delta_ms);
            self.delta_ms = delta;
            match zigzag(dod) {
                0 => self.put(0b0, 1),
                z if z < 1 << 9 => self.put(0b10 << 9 | z, 11),
                z if z < 1 << 14 => self.put(0b110 << 14 | z, 17),
                z if z < 1 << 20 => self.put(0b1110 << 20 | z, 24),
                z => {
                    self.put(0b1111, 4);
                    self.put(z, 64);
                }
            }
            self.put_value(bits ^ self.last_bits);
        }
        self.last_ms = ts_ms;
        self.last_bits = bits;
        self.count += 1;
    }

    fn put_value(&mut self, xor: u64) {
        if xor == 0 {
            return self.put(0, 1);
        }
        let leading = xor.leading_zeros() as u8;
        let trailing = xor.trailing_zeros() as u8;
        let width = 64 - self.leading - self.trailing;
        if self.window && leading >= self.leading && trailing >= self.trailing {
            self.put(0b10, 2);
            self.put(xor >> self.trailing, width);
            return;
        }
        let width = 64 - leading - trailing;
        self.leading = leading;
        self.trailing = trailing;
        self.window = true;
        self.put(
            0b11 << 12 | u64::from(leading) << 6 | u64::from(width - 1),
            14,
        );
        self.put(xor >> trailing, width);
    }

    /// Appends the low `n` bits of `bits` (1..=64), most significant first.
    fn put(&mut self, bits: u64, n: u8) {
        let free = 64 - self.pending_bits;
        if n < free {
            self.pending = self.pending << n | bits;
            self.pending_bits += n;
            return;
        }
        let rest = n - free;
        // `free` is 64 only when nothing is pending.
        let head = if free == 64 { 0 } else { self.pending << free };
        let word = head | bits >> rest;
        if self.data.capacity() - self.data.len() < 8 {
            // Not doubled: a hundred thousand half-empty buffers are most of what a head could waste.
            self.data.reserve_exact(BUFFER_STEP_BYTES);
        }
        self.data.extend_from_slice(&word.to_be_bytes());
        self.pending = if rest == 0 {
            0
        } else {
            bits & (u64::MAX >> (64 - rest))
        };
        self.pending_bits = rest;
    }

    /// Ends the chunk and begins an empty one in its place.
    pub(crate) fn seal(&mut self) -> SealedChunk {
        let mut times = Vec::with_capacity(usize::from(self.count));
        let mut values = Vec::with_capacity(usize::from(self.count));
        self.for_each(|s| {
            times.push(s.ts_ms);
            values.push(s.value);
        });
        *self = OpenChunk::default();
        SealedChunk::of(&times, &values)
    }

    fn tail(&self) -> [u8; 8] {
        if self.pending_bits == 0 {
            [0; 8]
        } else {
            (self.pending << (64 - self.pending_bits)).to_be_bytes()
        }
    }

    /// Calls `f` with every sample in order.
    pub(crate) fn for_each(&self, f: impl FnMut(Sample)) {
        decode(&self.data, self.tail(), self.count, f);
    }
}

impl SealedChunk {
    /// Ascending times, not empty, and as many values.
    pub(crate) fn of(times: &[i64], values: &[f64]) -> Self {
        let mut data = Vec::with_capacity(times.len() * 4 + 16);
        times::encode_vector(&mut data, times);
        let times_len = data.len() as u32;
        values::encode(&mut data, values);
        SealedChunk {
            min_ms: times[0],
            max_ms: times[times.len() - 1],
            times_len,
            data: data.into_boxed_slice(),
        }
    }

    pub(crate) fn for_each(&self, mut f: impl FnMut(Sample)) {
        let (times, payload) = self.data.split_at(self.times_len as usize);
        let times = times::decode_vector(times).expect("the chunk was encoded by this process");
        let mut values = Vec::new();
        values::decode(payload, times.len(), &mut values)
            .expect("the chunk was encoded by this process");
        for (&ts_ms, &value) in times.iter().zip(&values) {
            f(Sample { ts_ms, value });
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.data.len() + std::mem::size_of::<Self>()
    }
}

fn decode(data: &[u8], tail: [u8; 8], count: u16, mut f: impl FnMut(Sample)) {
    let mut r = BitReader { data, tail, at: 0 };
    let (mut ts, mut delta, mut bits) = (0i64, 0i64, 0u64);
    let (mut trailing, mut width) = (0u8, 0u8);
    for i in 0..count {
        if i == 0 {
            ts = r.take(64) as i64;
            bits = r.take(64);
        } else {
            let dod = if r.take(1) == 0 {
                0
            } else if r.take(1) == 0 {
                unzigzag(r.take(9))
            } else if r.take(1) == 0 {
                unzigzag(r.take(14))
            } else if r.take(1) == 0 {
                unzigzag(r.take(20))
            } else {
                unzigzag(r.take(64))
            };
            delta = delta.wrapping_add(dod);
            ts = ts.wrapping_add(delta);
            if r.take(1) == 1 {
                if r.take(1) == 1 {
                    let leading = r.take(6) as u8;
                    width = r.take(6) as u8 + 1;
                    trailing = 64u8.saturating_sub(leading + width);
                }
                bits ^= r.take(width) << trailing;
            }
        }
        f(Sample {
            ts_ms: ts,
            value: f64::from_bits(bits),
        });
    }
}

struct BitReader<'a> {
    data: &'a [u8],
    /// Follows `data`.
    tail: [u8; 8],
    /// In bits.
    at: usize,
}

impl BitReader<'_> {
    /// The next `n` bits (0..=64); zeros past the end.
    #[inline]
    fn take(&mut self, n: u8) -> u64 {
        if n == 0 {
            return 0;
        }
        let (byte, bit) = (self.at / 8, (self.at % 8) as u32);
        self.at += usize::from(n);
        let word = self.word(byte) << bit;
        // A ninth byte is needed when the bits do not fit the word that begins at `byte`.
        let word = if bit != 0 && u32::from(n) + bit > 64 {
            word | u64::from(self.byte(byte + 8)) >> (8 - bit)
        } else {
            word
        };
        word >> (64 - n)
    }

    #[inline]
    fn word(&self, at: usize) -> u64 {
        if let Some(w) = self.data.get(at..).and_then(|d| d.first_chunk::<8>()) {
            return u64::from_be_bytes(*w);
        }
        u64::from_be_bytes(std::array::from_fn(|i| self.byte(at + i)))
    }

    #[inline]
    fn byte(&self, at: usize) -> u8 {
        match at.checked_sub(self.data.len()) {
            None => self.data[at],
            Some(i) => self.tail.get(i).copied().unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use trilith_model::STALE_NAN_BITS;

    fn check(samples: &[(i64, u64)]) {
        let mut open = OpenChunk::default();
        for (i, &(t, v)) in samples.iter().enumerate() {
            open.append(t, f64::from_bits(v));
            let mut got = Vec::new();
            open.for_each(|s| got.push((s.ts_ms, s.value.to_bits())));
            assert_eq!(got, samples[..=i]);
        }
        let sealed = open.seal();
        let mut got = Vec::new();
        sealed.for_each(|s| got.push((s.ts_ms, s.value.to_bits())));
        assert_eq!(got, samples);
        assert_eq!(
            (sealed.min_ms, sealed.max_ms),
            (samples[0].0, samples[samples.len() - 1].0)
        );
    }

    #[test]
    fn extremes() {
        check(&[(i64::MIN, 0), (i64::MAX, u64::MAX)]);
        check(&[
            (i64::MIN, 0),
            (-1, 1),
            (0, 1 << 63),
            (i64::MAX, STALE_NAN_BITS),
        ]);
        check(&[
            (0, 1.5f64.to_bits()),
            (15, 1.5f64.to_bits()),
            (30, STALE_NAN_BITS),
            (45, 0),
        ]);
    }

    #[test]
    fn a_constant_regular_series_takes_two_bits_per_sample() {
        let mut open = OpenChunk::default();
        for i in 0..i64::from(CHUNK_SAMPLES_MAX) {
            open.append(i * 15_000, 1.0);
        }
        assert!(open.is_full());
        assert!(open.heap_bytes() <= 64);
        assert!(open.seal().data.len() < 90);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn round_trip(
            start in any::<i32>(),
            steps in proptest::collection::vec(
                (prop_oneof![1i64..20, 14_990i64..15_010, 1i64..1 << 40], prop_oneof![Just(0u64), any::<u64>(), (0u64..100).prop_map(|n| (n as f64).to_bits())]),
                1..60,
            ),
        ) {
            let mut t = i64::from(start);
            let samples: Vec<(i64, u64)> = steps.into_iter().map(|(d, v)| { t += d; (t, v) }).collect();
            check(&samples);
        }
    }
}
