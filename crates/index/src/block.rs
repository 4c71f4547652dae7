//! Reads the serialized index in place. Format: docs/formats/index.md.

use std::ops::{ControlFlow, Range};

use bytes::Bytes;
use croaring::Bitmap;
use trilith_codec::{Reader, put_str};
use trilith_model::{Error, Labels, LabelsRef, Result};

use crate::postings::PostingsRef;
use crate::select::LabelIndex;

pub(crate) const MAGIC: &[u8; 4] = b"TLIX";
pub(crate) const VERSION: u8 = 1;
pub(crate) const HEADER_BYTES: usize = 36;

/// An opened index; cloning shares the bytes.
///
/// Opening checks the sizes, the order of every offset table, and that the symbols are ascending UTF-8; after that
/// symbols, names and values are read without further checks. Postings and label sets are checked when they are read.
#[derive(Clone, Debug)]
pub struct BlockIndex {
    bytes: Bytes,
    series: u32,
    symbols: u32,
    names: u32,
    pairs: u32,
    /// Byte positions of the parts.
    symbol_offsets: usize,
    name_symbols: usize,
    name_pairs: usize,
    pair_symbols: usize,
    posting_offsets: usize,
    series_offsets: usize,
    symbol_bytes: usize,
    posting_bytes: usize,
    series_bytes: usize,
}

impl BlockIndex {
    /// # Errors
    /// `Corrupt` when the bytes are no index, `Unsupported` for a newer version.
    pub fn open(bytes: Bytes) -> Result<Self> {
        let bad = |e: trilith_codec::DecodeError| Error::corrupt(format!("index header: {e}"));
        let mut r = Reader::new(&bytes);
        r.magic(MAGIC).map_err(bad)?;
        let version = r.u8().map_err(bad)?;
        if version != VERSION {
            return Err(Error::unsupported(format!(
                "index version {version} is newer than this program reads"
            )));
        }
        r.skip(3).map_err(bad)?;
        let mut n = [0u32; 7];
        for field in &mut n {
            *field = r.u32().map_err(bad)?;
        }
        let [series, symbols, names, pairs, symbol_len, posting_len, series_len] = n;

        // At most 2^32 entries of 4 bytes per table: no overflow in 64 bits.
        let tables = [
            u64::from(symbols) + 1,
            names.into(),
            names.into(),
            pairs.into(),
            u64::from(pairs) + 1,
            u64::from(series) + 1,
        ];
        let mut at = HEADER_BYTES as u64;
        let mut starts = [0u64; 9];
        for (i, entries) in tables.iter().enumerate() {
            starts[i] = at;
            at += entries * 4;
        }
        for (i, len) in [symbol_len, posting_len, series_len].into_iter().enumerate() {
            starts[6 + i] = at;
            at += u64::from(len);
        }
        if at != bytes.len() as u64 {
            return Err(Error::corrupt(format!(
                "index is {} bytes long, its header says {at}",
                bytes.len()
            )));
        }
        let start = |i: usize| starts[i] as usize;
        let index = BlockIndex {
            series,
            symbols,
            names,
            pairs,
            symbol_offsets: start(0),
            name_symbols: start(1),
            name_pairs: start(2),
            pair_symbols: start(3),
            posting_offsets: start(4),
            series_offsets: start(5),
            symbol_bytes: start(6),
            posting_bytes: start(7),
            series_bytes: start(8),
            bytes,
        };
        index.check(symbol_len, posting_len, series_len)?;
        Ok(index)
    }

    fn check(&self, symbol_len: u32, posting_len: u32, series_len: u32) -> Result<()> {
        for (table, entries, len, what) in [
            (self.symbol_offsets, self.symbols, symbol_len, "symbol"),
            (self.posting_offsets, self.pairs, posting_len, "postings"),
            (self.series_offsets, self.series, series_len, "series"),
        ] {
            let mut last = 0;
            for i in 0..=entries {
                let o = self.u32_at(table, i);
                if o < last || (i == 0 && o != 0) {
                    return Err(Error::corrupt(format!("index: {what} offsets do not ascend")));
                }
                last = o;
            }
            if last != len {
                return Err(Error::corrupt(format!(
                    "index: {what} offsets end at {last}, not at {len}"
                )));
            }
        }

        let text = std::str::from_utf8(&self.bytes[self.symbol_bytes..self.posting_bytes])
            .map_err(|_| Error::corrupt("index: symbols are not UTF-8"))?;
        for i in 0..self.symbols {
            if !text.is_char_boundary(self.u32_at(self.symbol_offsets, i) as usize) {
                return Err(Error::corrupt("index: a symbol begins inside a character"));
            }
        }
        for i in 1..self.symbols {
            if self.symbol(i - 1) >= self.symbol(i) {
                return Err(Error::corrupt("index: symbols do not ascend"));
            }
        }

        let mut last_name = None;
        for i in 0..self.names {
            let symbol = self.u32_at(self.name_symbols, i);
            let first = self.u32_at(self.name_pairs, i);
            if last_name.is_some_and(|l| l >= symbol) || symbol >= self.symbols {
                return Err(Error::corrupt("index: label names do not ascend"));
            }
            if (i == 0 && first != 0) || first >= self.name_end(i) || self.name_end(i) > self.pairs {
                return Err(Error::corrupt("index: label pairs of a name are out of order"));
            }
            let mut last_value = None;
            for p in first..self.name_end(i) {
                let value = self.u32_at(self.pair_symbols, p);
                if last_value.is_some_and(|l| l >= value) || value >= self.symbols {
                    return Err(Error::corrupt("index: label values do not ascend"));
                }
                last_value = Some(value);
            }
            last_name = Some(symbol);
        }
        if self.names == 0 && self.pairs != 0 {
            return Err(Error::corrupt("index: label pairs without a name"));
        }
        Ok(())
    }

    /// The label set of an ordinal.
    ///
    /// # Errors
    /// `Corrupt` when the stored set does not check out, `NotFound` when the ordinal does not exist.
    pub fn labels(&self, ordinal: u32) -> Result<Labels> {
        let mut packed = Vec::with_capacity(128);
        self.labels_into(ordinal, &mut packed)?;
        Ok(LabelsRef::from_packed_trusted(&packed).to_owned())
    }

    /// As `labels`, appending the packed form to `packed`.
    ///
    /// # Errors
    /// As `labels`.
    pub fn labels_into(&self, ordinal: u32, packed: &mut Vec<u8>) -> Result<()> {
        if ordinal >= self.series {
            return Err(Error::new(
                trilith_model::ErrorKind::NotFound,
                format!("series {ordinal} of {} does not exist", self.series),
            ));
        }
        let bad = |e: trilith_codec::DecodeError| Error::corrupt(format!("label set {ordinal}: {e}"));
        let range = self.range(self.series_offsets, self.series_bytes, ordinal);
        let mut r = Reader::new(&self.bytes[range]);
        let mut pair = 0u32;
        let mut last_name = None;
        while !r.is_empty() {
            let delta = r.uvarint_u32().map_err(bad)?;
            pair = pair
                .checked_add(delta)
                .filter(|&p| p < self.pairs)
                .ok_or_else(|| Error::corrupt(format!("label set {ordinal} names a pair that does not exist")))?;
            let name = self.name_of_pair(pair);
            if last_name.is_some_and(|l| l >= name) {
                return Err(Error::corrupt(format!("label set {ordinal} has a label twice")));
            }
            last_name = Some(name);
            put_str(packed, self.name(name));
            put_str(packed, self.symbol(self.u32_at(self.pair_symbols, pair)));
        }
        Ok(())
    }

    /// Length of the serialized form.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// Number of distinct label pairs.
    pub fn pair_count(&self) -> u32 {
        self.pairs
    }

    /// `table` and `i` stem from the checked header.
    fn u32_at(&self, table: usize, i: u32) -> u32 {
        let at = table + i as usize * 4;
        let b: [u8; 4] = self.bytes[at..at + 4].try_into().expect("four bytes");
        u32::from_le_bytes(b)
    }

    fn range(&self, offsets: usize, base: usize, i: u32) -> Range<usize> {
        base + self.u32_at(offsets, i) as usize..base + self.u32_at(offsets, i + 1) as usize
    }

    fn symbol(&self, i: u32) -> &str {
        // Checked when opened; a copy of the check is cheaper than `unsafe`.
        std::str::from_utf8(&self.bytes[self.range(self.symbol_offsets, self.symbol_bytes, i)]).unwrap_or("")
    }

    fn name(&self, i: u32) -> &str {
        self.symbol(self.u32_at(self.name_symbols, i))
    }

    fn name_end(&self, i: u32) -> u32 {
        if i + 1 < self.names {
            self.u32_at(self.name_pairs, i + 1)
        } else {
            self.pairs
        }
    }

    fn name_of_pair(&self, pair: u32) -> u32 {
        // The last name that begins at or before the pair; the first begins at 0.
        partition(0..self.names, |i| self.u32_at(self.name_pairs, i) <= pair) - 1
    }

    fn find_name(&self, name: &str) -> Option<u32> {
        let i = partition(0..self.names, |i| self.name(i) < name);
        (i < self.names && self.name(i) == name).then_some(i)
    }

    fn value(&self, pair: u32) -> &str {
        self.symbol(self.u32_at(self.pair_symbols, pair))
    }

    fn postings_of(&self, pair: u32) -> PostingsRef<'_> {
        PostingsRef::Bytes(
            &self.bytes[self.range(self.posting_offsets, self.posting_bytes, pair)],
            self.series,
        )
    }
}

impl LabelIndex for BlockIndex {
    fn series_count(&self) -> u32 {
        self.series
    }

    fn all(&self) -> Bitmap {
        Bitmap::from_range(0..self.series)
    }

    fn for_each_name(&self, f: &mut dyn FnMut(&str, usize) -> Result<ControlFlow<()>>) -> Result<()> {
        for i in 0..self.names {
            let values = self.name_end(i) - self.u32_at(self.name_pairs, i);
            if f(self.name(i), values as usize)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn postings(&self, name: &str, value: &str) -> Option<PostingsRef<'_>> {
        let i = self.find_name(name)?;
        let pairs = self.u32_at(self.name_pairs, i)..self.name_end(i);
        let end = pairs.end;
        let p = partition(pairs, |p| self.value(p) < value);
        (p < end && self.value(p) == value).then(|| self.postings_of(p))
    }

    fn for_each_value(
        &self,
        name: &str,
        prefix: &str,
        f: &mut dyn FnMut(&str, PostingsRef<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let Some(i) = self.find_name(name) else {
            return Ok(());
        };
        let pairs = self.u32_at(self.name_pairs, i)..self.name_end(i);
        let end = pairs.end;
        let first = if prefix.is_empty() {
            pairs.start
        } else {
            partition(pairs, |p| self.value(p) < prefix)
        };
        for p in first..end {
            let value = self.value(p);
            if !value.starts_with(prefix) || f(value, self.postings_of(p))?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// The first number of the range for which `before` does not hold; `before` holds for a prefix of it.
fn partition(range: Range<u32>, before: impl Fn(u32) -> bool) -> u32 {
    let (mut lo, mut hi) = (range.start, range.end);
    while lo < hi {
        let mid = lo + (hi - lo) / 2;
        if before(mid) { lo = mid + 1 } else { hi = mid }
    }
    lo
}

/// Opens an index of untrusted bytes and reads everything in it; for fuzzing.
pub fn fuzz(bytes: &[u8]) {
    let Ok(index) = BlockIndex::open(Bytes::copy_from_slice(bytes)) else {
        return;
    };
    for o in 0..index.series.min(1000) {
        let _ = index.labels(o);
    }
    let _ = index.for_each_name(&mut |name, _| {
        index.for_each_value(name, "", &mut |value, p| {
            let _ = p.to_bitmap();
            let _ = index.postings(name, value);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(ControlFlow::Continue(()))
    });
}
