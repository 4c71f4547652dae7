//! Float chunks of a head: samples of one series, ascending in time.
//!
//! An open chunk grows sample by sample and is Gorilla-coded bit by bit. A full one is sealed: written anew with the
//! encodings of blocks, which need all values at once and take half the bytes. Both live in a [`Pool`], in memory only,
//! and never come from outside.
//!
//! Open: `| t0 i64 | v0 u64 |` then, per sample, `| Δ²t code | value code |`.
//!
//! Δ²t (Δ before the second sample is 0): `0` for none; `10` + 9, `110` + 14, `1110` + 20 bits zigzag; `1111` + 64 bits,
//! wrapping. Value, XOR with the one before: `0` for equal bits; `10` + the bits inside the last window of leading and
//! trailing zeros; `11` + 6 bits leading zeros + 6 bits (significant bits - 1) + the significant bits.
//! Source: Pelkonen et al., VLDB 2015, §4.1.
//!
//! Sealed: `| ref of the chunk before u64 | min ms | max ms | times length u32 | length u32 | timestamp vector | values |`,
//! the last two as in docs/formats/metrics-block.md, histograms and start timestamps included. A series holds the ref of
//! its newest chunk.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use hashbrown::HashTable;
use trilith_codec::{unzigzag, zigzag};
use trilith_model::{Sample, TimeRange};

use crate::format::{rich, times};
use crate::head::pool::{BLOCK_WORDS, Pool};
use crate::samples::{Samples, SamplesRef};

/// Samples after which a chunk is sealed: many enough that a sealed chunk's header does not show, few enough that the
/// open part, which is the larger one per sample, stays small.
pub(crate) const CHUNK_SAMPLES_MAX: u16 = 64;

/// Words after which a chunk is sealed although it has fewer samples.
const WORDS_MAX: usize = BLOCKS_MAX * BLOCK_WORDS;
const BLOCKS_MAX: usize = 8;

/// A sample takes at most 68 bits of time and 78 of value.
const SAMPLE_WORDS_MAX: usize = 3;

const SEALED_HEADER_BYTES: usize = 32;

/// A chunk that grows; timestamps must ascend strictly. Keeps its blocks when it is sealed: the next chunk needs as many.
#[derive(Debug, Default)]
pub(crate) struct OpenChunk {
    blocks: [u32; BLOCKS_MAX],
    blocks_len: u8,
    /// Whole words in the blocks.
    words: u8,
    /// Bits not yet there, in the low `pending_bits` bits.
    pending_bits: u8,
    leading: u8,
    trailing: u8,
    window: bool,
    count: u16,
    pending: u64,
    first_ms: i64,
    last_ms: i64,
    delta_ms: i64,
    last_bits: u64,
}

impl OpenChunk {
    pub(crate) fn is_full(&self) -> bool {
        self.count >= CHUNK_SAMPLES_MAX || usize::from(self.words) + SAMPLE_WORDS_MAX > WORDS_MAX
    }

    /// The range of the samples, `None` when empty.
    pub(crate) fn range(&self) -> Option<TimeRange> {
        (self.count > 0).then(|| TimeRange::new(self.first_ms, self.last_ms))
    }

    /// The chunk must not be full.
    pub(crate) fn append(&mut self, pool: &mut Pool, ts_ms: i64, value: f64) {
        let bits = value.to_bits();
        if self.count == 0 {
            self.first_ms = ts_ms;
            self.put(pool, ts_ms as u64, 64);
            self.put(pool, bits, 64);
        } else {
            debug_assert!(ts_ms > self.last_ms, "timestamps of a chunk ascend");
            let delta = ts_ms.wrapping_sub(self.last_ms);
            let dod = delta.wrapping_sub(self.delta_ms);
            self.delta_ms = delta;
            match zigzag(dod) {
                0 => self.put(pool, 0b0, 1),
                z if z < 1 << 9 => self.put(pool, 0b10 << 9 | z, 11),
                z if z < 1 << 14 => self.put(pool, 0b110 << 14 | z, 17),
                z if z < 1 << 20 => self.put(pool, 0b1110 << 20 | z, 24),
                z => {
                    self.put(pool, 0b1111, 4);
                    self.put(pool, z, 64);
                }
            }
            self.put_value(pool, bits ^ self.last_bits);
        }
        self.last_ms = ts_ms;
        self.last_bits = bits;
        self.count += 1;
    }

    fn put_value(&mut self, pool: &mut Pool, xor: u64) {
        if xor == 0 {
            return self.put(pool, 0, 1);
        }
        let leading = xor.leading_zeros() as u8;
        let trailing = xor.trailing_zeros() as u8;
        let width = 64 - self.leading - self.trailing;
        if self.window && leading >= self.leading && trailing >= self.trailing {
            self.put(pool, 0b10, 2);
            self.put(pool, xor >> self.trailing, width);
            return;
        }
        let width = 64 - leading - trailing;
        self.leading = leading;
        self.trailing = trailing;
        self.window = true;
        self.put(pool, 0b11 << 12 | u64::from(leading) << 6 | u64::from(width - 1), 14);
        self.put(pool, xor >> trailing, width);
    }

    /// Appends the low `n` bits of `bits` (1..=64), most significant first.
    fn put(&mut self, pool: &mut Pool, bits: u64, n: u8) {
        let free = 64 - self.pending_bits;
        if n < free {
            self.pending = self.pending << n | bits;
            self.pending_bits += n;
            return;
        }
        let rest = n - free;
        // `free` is 64 only when nothing is pending.
        let head = if free == 64 { 0 } else { self.pending << free };
        self.put_word(pool, head | bits >> rest);
        self.pending = if rest == 0 { 0 } else { bits & (u64::MAX >> (64 - rest)) };
        self.pending_bits = rest;
    }

    fn put_word(&mut self, pool: &mut Pool, word: u64) {
        let (block, at) = (
            usize::from(self.words) / BLOCK_WORDS,
            usize::from(self.words) % BLOCK_WORDS,
        );
        if block == usize::from(self.blocks_len) {
            self.blocks[block] = pool.new_block();
            self.blocks_len += 1;
        }
        pool.block_mut(self.blocks[block])[at] = word;
        self.words += 1;
    }

    /// Moves the samples into a sealed chunk behind `before` and returns its ref.
    pub(crate) fn seal(&mut self, pool: &mut Pool, before: SealedRef) -> SealedRef {
        let (mut times, mut values) = (Vec::new(), Vec::new());
        self.for_each(pool, |s| {
            times.push(s.ts_ms);
            values.push(s.value);
        });
        *self = OpenChunk {
            blocks: self.blocks,
            blocks_len: self.blocks_len,
            ..OpenChunk::default()
        };
        SealedRef::write(pool, before, SamplesRef::floats_only(&times, &values))
    }

    /// Calls `f` with every sample in order.
    pub(crate) fn for_each(&self, pool: &Pool, mut f: impl FnMut(Sample)) {
        let mut words = [0u64; WORDS_MAX + 2];
        for (i, word) in words.iter_mut().enumerate().take(usize::from(self.words)) {
            *word = pool.block(self.blocks[i / BLOCK_WORDS])[i % BLOCK_WORDS];
        }
        if self.pending_bits > 0 {
            words[usize::from(self.words)] = self.pending << (64 - self.pending_bits);
        }
        let mut r = BitReader { words: &words, at: 0 };
        let (mut ts, mut delta, mut bits) = (0i64, 0i64, 0u64);
        let (mut trailing, mut width) = (0u8, 0u8);
        for i in 0..self.count {
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
                        trailing = 64 - leading - width;
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
}

struct BitReader<'a> {
    /// The last one is padding.
    words: &'a [u64],
    /// In bits.
    at: usize,
}

impl BitReader<'_> {
    /// The next `n` bits (1..=64).
    #[inline]
    fn take(&mut self, n: u8) -> u64 {
        let (i, bit) = (self.at / 64, self.at % 64);
        self.at += usize::from(n);
        let mut word = self.words[i] << bit;
        if bit != 0 {
            word |= self.words[i + 1] >> (64 - bit);
        }
        word >> (64 - n)
    }
}

/// Where a sealed chunk is in its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SealedRef(u64);

impl Default for SealedRef {
    fn default() -> Self {
        SealedRef::NONE
    }
}

/// A sealed chunk, read in place.
pub(crate) struct Sealed<'a> {
    pub(crate) range: TimeRange,
    times: &'a [u8],
    values: &'a [u8],
}

impl SealedRef {
    pub(crate) const NONE: SealedRef = SealedRef(u64::MAX);

    /// Ascending times, not empty.
    pub(crate) fn write(pool: &mut Pool, before: SealedRef, samples: SamplesRef<'_>) -> SealedRef {
        let times = samples.times;
        let mut data = Vec::with_capacity(SEALED_HEADER_BYTES + times.len() * 8);
        data.extend_from_slice(&before.0.to_le_bytes());
        data.extend_from_slice(&times[0].to_le_bytes());
        data.extend_from_slice(&times[times.len() - 1].to_le_bytes());
        data.extend_from_slice(&[0; 8]);
        times::encode_vector(&mut data, times);
        let times_len = (data.len() - SEALED_HEADER_BYTES) as u32;
        rich::encode(&mut data, samples);
        let len = (data.len() - SEALED_HEADER_BYTES) as u32;
        data[24..28].copy_from_slice(&times_len.to_le_bytes());
        data[28..32].copy_from_slice(&len.to_le_bytes());
        SealedRef(pool.put_bytes(&data))
    }

    /// This chunk and those before it, oldest first.
    pub(crate) fn chain(self, pool: &Pool) -> impl Iterator<Item = Sealed<'_>> {
        self.chain_from(pool, i64::MIN)
    }

    /// As `chain`, of chunks that ascend in time: without those that end before `min_ms`, which are not even looked at.
    pub(crate) fn chain_from(self, pool: &Pool, min_ms: i64) -> impl Iterator<Item = Sealed<'_>> {
        let mut refs: smallvec::SmallVec<[u64; 16]> = smallvec::SmallVec::new();
        let mut at = self;
        while at != SealedRef::NONE {
            let bytes = pool.bytes_at(at.0);
            if (u64_at(bytes, 16) as i64) < min_ms {
                break;
            }
            refs.push(at.0);
            at = SealedRef(u64_at(bytes, 0));
        }
        refs.into_iter().rev().map(|at| {
            let bytes = pool.bytes_at(at);
            let lengths = u64_at(bytes, 24);
            // Two halves of one word.
            let (times_len, len) = (lengths as u32 as usize, (lengths >> 32) as usize);
            let (times, values) = bytes[SEALED_HEADER_BYTES..SEALED_HEADER_BYTES + len].split_at(times_len);
            let range = TimeRange::new(u64_at(bytes, 8) as i64, u64_at(bytes, 16) as i64);
            Sealed { range, times, values }
        })
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

impl Sealed<'_> {
    /// Appends the samples.
    pub(crate) fn read(&self, memo: &mut TimesMemo, out: &mut Samples) {
        rich::decode(self.values, memo.decode(self.times), out).expect("the chunk was encoded by this process");
    }
}

/// The timestamp vectors that a reader met last: chunks of series that are scraped together have equal ones.
#[derive(Debug, Default)]
pub(crate) struct TimesMemo {
    /// (hash of the encoded vector, index).
    known: HashTable<(u64, u32)>,
    vectors: Vec<(Box<[u8]>, Arc<[i64]>)>,
    hasher: foldhash::fast::RandomState,
}

/// Each takes some 600 bytes.
const MEMO_VECTORS_MAX: usize = 2048;

impl TimesMemo {
    fn decode(&mut self, encoded: &[u8]) -> &[i64] {
        let hash = self.hasher.hash_one(encoded);
        let vectors = &self.vectors;
        let known = self
            .known
            .find(hash, |&(h, i)| h == hash && *vectors[i as usize].0 == *encoded);
        let at = match known {
            Some(&(_, at)) => at as usize,
            None => {
                if self.vectors.len() >= MEMO_VECTORS_MAX {
                    self.known.clear();
                    self.vectors.clear();
                }
                let times = times::decode_vector(encoded).expect("the chunk was encoded by this process");
                let at = self.vectors.len();
                self.vectors.push((encoded.into(), times));
                self.known.insert_unique(hash, (hash, at as u32), |&(h, _)| h);
                at
            }
        };
        &self.vectors[at].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use trilith_model::STALE_NAN_BITS;

    fn check(samples: &[(i64, u64)]) {
        let mut pool = Pool::default();
        let mut open = OpenChunk::default();
        let mut newest = SealedRef::NONE;
        for (i, &(t, v)) in samples.iter().enumerate() {
            open.append(&mut pool, t, f64::from_bits(v));
            if open.is_full() {
                newest = open.seal(&mut pool, newest);
            }
            let mut got = Vec::new();
            for chunk in newest.chain(&pool) {
                let from = got.len();
                let mut samples = Samples::default();
                chunk.read(&mut TimesMemo::default(), &mut samples);
                got.extend(
                    samples
                        .times
                        .iter()
                        .zip(&samples.floats)
                        .map(|(&t, v)| (t, v.to_bits())),
                );
                assert_eq!((chunk.range.min, chunk.range.max), (got[from].0, got[got.len() - 1].0));
            }
            open.for_each(&pool, |s| got.push((s.ts_ms, s.value.to_bits())));
            assert_eq!(got, samples[..=i]);
        }
    }

    #[test]
    fn extremes() {
        check(&[(i64::MIN, 0), (i64::MAX, u64::MAX)]);
        check(&[(i64::MIN, 0), (-1, 1), (0, 1 << 63), (i64::MAX, STALE_NAN_BITS)]);
        check(&[
            (0, 1.5f64.to_bits()),
            (15, 1.5f64.to_bits()),
            (30, STALE_NAN_BITS),
            (45, 0),
        ]);
        // The longest codes: chunks are full by size.
        let mut t = 0;
        let longest: Vec<(i64, u64)> = (0..200u64)
            .map(|i| {
                t += 1 + (i as i64 % 3) * (1 << 50);
                (t, if i % 2 == 0 { 1 } else { 1 << 63 | i })
            })
            .collect();
        check(&longest);
    }

    #[test]
    fn a_constant_regular_series_takes_two_bits_per_sample() {
        let mut pool = Pool::default();
        let mut open = OpenChunk::default();
        for i in 0..i64::from(CHUNK_SAMPLES_MAX) {
            assert!(!open.is_full());
            open.append(&mut pool, i * 15_000, 1.0);
        }
        assert!(open.is_full());
        assert_eq!(open.blocks_len, 1);
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
