//! A split-block Bloom filter over trace ids: one cache line per probe, about 1 % false positives at 10 bits per trace.
//!
//! The layout is that of Parquet's: blocks of eight 32-bit words, one bit per word, salts as there. The hash is xxh3 of the
//! 16 id bytes with seed 0.

use trilith_model::{Error, Result, TraceId};

const BLOCK_BYTES: usize = 32;
const BITS_PER_TRACE: usize = 10;
const SALT: [u32; 8] = [
    0x47b6_137b,
    0x4497_4d91,
    0x8824_ad5b,
    0xa2b7_289d,
    0x7054_95c7,
    0x2df1_424b,
    0x9efc_4947,
    0x5c6b_fb31,
];

#[derive(Clone, Debug)]
pub struct TraceFilter {
    words: Vec<[u32; 8]>,
}

impl TraceFilter {
    /// Sized for this many traces.
    pub fn new(traces: usize) -> Self {
        let blocks = (traces * BITS_PER_TRACE).div_ceil(8 * BLOCK_BYTES).max(1);
        TraceFilter {
            words: vec![[0; 8]; blocks],
        }
    }

    fn place(&self, id: TraceId) -> (usize, [u32; 8]) {
        let hash = xxhash_rust::xxh3::xxh3_64(&id.0);
        let block = ((hash >> 32) * self.words.len() as u64) >> 32;
        let low = hash as u32;
        // The product of two numbers below 2^32 and the length, shifted, is below the length.
        (block as usize, SALT.map(|salt| 1 << (low.wrapping_mul(salt) >> 27)))
    }

    pub fn insert(&mut self, id: TraceId) {
        let (block, bits) = self.place(id);
        for (word, bit) in self.words[block].iter_mut().zip(bits) {
            *word |= bit;
        }
    }

    /// False: certainly not inserted.
    pub fn may_contain(&self, id: TraceId) -> bool {
        let (block, bits) = self.place(id);
        self.words[block].iter().zip(bits).all(|(word, bit)| word & bit != 0)
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        self.words.iter().flatten().flat_map(|w| w.to_le_bytes()).collect()
    }

    /// # Errors
    /// `Corrupt` unless the bytes are whole blocks, at least one.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() || !bytes.len().is_multiple_of(BLOCK_BYTES) {
            return Err(Error::corrupt(format!("trace filter of {} bytes", bytes.len())));
        }
        let words = bytes
            .chunks_exact(BLOCK_BYTES)
            .map(|block| {
                let mut words = [0; 8];
                for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
                    *word = u32::from_le_bytes(bytes.try_into().expect("chunks of four"));
                }
                words
            })
            .collect();
        Ok(TraceFilter { words })
    }

    pub fn bytes(&self) -> usize {
        self.words.len() * BLOCK_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> TraceId {
        let mut id = [0; 16];
        id[8..].copy_from_slice(&n.to_be_bytes());
        TraceId(id)
    }

    #[test]
    fn finds_what_was_inserted_and_little_else() {
        let mut f = TraceFilter::new(10_000);
        (0..10_000).for_each(|n| f.insert(id(n)));
        let f = TraceFilter::from_bytes(&f.to_bytes()).expect("own bytes");
        assert!((0..10_000).all(|n| f.may_contain(id(n))));
        let wrong = (10_000..110_000).filter(|n| f.may_contain(id(*n))).count();
        assert!(wrong < 2_500, "{wrong} of 100000");
    }

    #[test]
    fn broken_bytes_are_refused() {
        assert!(TraceFilter::from_bytes(&[]).is_err());
        assert!(TraceFilter::from_bytes(&[0; 31]).is_err());
    }
}
