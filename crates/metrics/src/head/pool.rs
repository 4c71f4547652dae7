//! Memory of one shard of a head: small pieces out of large pages.
//!
//! A head is millions of small pieces that live until it is dropped as a whole. Given to the allocator one by one they
//! cost a header each and leave holes behind that no other size fits; here they cost nothing and go in one step.
//! Pages begin small and double, so that a tenant with one series does not pay for a million.

/// 64-bit words of a block.
pub(crate) const BLOCK_WORDS: usize = 8;

type Block = [u64; BLOCK_WORDS];

/// Pages of 4, 8, 16, … blocks, from the seventh on 256.
const FIRST_PAGE_BLOCKS: usize = 4;
const DOUBLING_PAGES: usize = 6;
const PAGE_BLOCKS_MAX: usize = FIRST_PAGE_BLOCKS << DOUBLING_PAGES;
/// Blocks before the first page of full size.
const DOUBLING_BLOCKS: usize = FIRST_PAGE_BLOCKS * ((1 << DOUBLING_PAGES) - 1);

const BYTES_PAGE_MIN: usize = 512;
const BYTES_PAGE_MAX: usize = 64 << 10;

/// Blocks that are written word by word, and byte strings that never change. Nothing is given back.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    blocks: Vec<Box<[Block]>>,
    blocks_len: usize,
    strings: Vec<Vec<u8>>,
    bytes: usize,
}

/// The page of a block and its place there.
fn locate(block: usize) -> (usize, usize) {
    match block.checked_sub(DOUBLING_BLOCKS) {
        Some(rest) => (DOUBLING_PAGES + rest / PAGE_BLOCKS_MAX, rest % PAGE_BLOCKS_MAX),
        None => {
            let page = (block / FIRST_PAGE_BLOCKS + 1).ilog2() as usize;
            (page, block - FIRST_PAGE_BLOCKS * ((1 << page) - 1))
        }
    }
}

impl Pool {
    /// Bytes of all pages, used or not.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds memory that a user of the pool holds elsewhere to the account.
    pub(crate) fn charge(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// A new block of zeros.
    pub(crate) fn new_block(&mut self) -> u32 {
        let id = self.blocks_len;
        let (page, _) = locate(id);
        if page == self.blocks.len() {
            let n = (FIRST_PAGE_BLOCKS << page.min(DOUBLING_PAGES)).min(PAGE_BLOCKS_MAX);
            self.blocks.push(vec![[0; BLOCK_WORDS]; n].into_boxed_slice());
            self.bytes += n * size_of::<Block>();
        }
        self.blocks_len += 1;
        u32::try_from(id).expect("2^32 blocks are 256 GiB, far above the limit of a head")
    }

    pub(crate) fn block(&self, id: u32) -> &Block {
        let (page, at) = locate(id as usize);
        &self.blocks[page][at]
    }

    pub(crate) fn block_mut(&mut self, id: u32) -> &mut Block {
        let (page, at) = locate(id as usize);
        &mut self.blocks[page][at]
    }

    /// Stores bytes and returns where; never `u64::MAX`.
    pub(crate) fn put_bytes(&mut self, bytes: &[u8]) -> u64 {
        let fits = self
            .strings
            .last()
            .is_some_and(|p| p.capacity() - p.len() >= bytes.len());
        if !fits {
            let last = self.strings.last().map_or(0, Vec::capacity);
            let size = (last * 2).clamp(BYTES_PAGE_MIN, BYTES_PAGE_MAX).max(bytes.len());
            self.strings.push(Vec::with_capacity(size));
            self.bytes += size;
        }
        let page = self.strings.len() - 1;
        let at = self.strings[page].len();
        self.strings[page].extend_from_slice(bytes);
        // A page is one piece or 64 KiB, both far below 4 GiB; pages are below 2^32 as the head is below 2 TiB.
        (page as u64) << 32 | at as u64
    }

    /// The bytes from a place on, to the end of the page; the piece knows its length.
    pub(crate) fn bytes_at(&self, at: u64) -> &[u8] {
        &self.strings[(at >> 32) as usize][at as u32 as usize..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_distinct() {
        let mut pool = Pool::default();
        let ids: Vec<u32> = (0..2000).map(|_| pool.new_block()).collect();
        for &id in &ids {
            pool.block_mut(id)[7] = u64::from(id) + 1;
        }
        assert!(
            ids.iter()
                .all(|&id| pool.block(id)[7] == u64::from(id) + 1 && pool.block(id)[0] == 0)
        );
        assert!(pool.bytes() >= 2000 * 64 && pool.bytes() < 2300 * 64);
    }

    #[test]
    fn strings_stay() {
        let mut pool = Pool::default();
        let text: Vec<Vec<u8>> = (0..300usize)
            .map(|i| vec![i as u8; i * 7 % 1000])
            .chain([vec![1; 100_000]])
            .collect();
        let at: Vec<u64> = text.iter().map(|t| pool.put_bytes(t)).collect();
        for (t, at) in text.iter().zip(at) {
            assert_eq!(&pool.bytes_at(at)[..t.len()], t);
        }
    }
}
