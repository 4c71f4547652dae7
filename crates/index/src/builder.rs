//! Writes the serialized index.

use hashbrown::HashMap;
use trilith_codec::put_uvarint;
use trilith_model::{Error, LabelsRef, Result};

use crate::block::{HEADER_BYTES, MAGIC, VERSION};
use crate::interner::Interner;
use crate::postings;

/// Takes label sets in ordinal order, gives the bytes that [`crate::BlockIndex`] opens.
///
/// Memory while building: the distinct strings once and 8 bytes per label of each series.
#[derive(Debug, Default)]
pub struct IndexBuilder {
    symbols: Interner,
    /// (name symbol, value symbol) to pair number, in order of first appearance.
    pairs: HashMap<(u32, u32), u32, foldhash::fast::RandomState>,
    /// Pair numbers of all series, one after the other.
    series_pairs: Vec<u32>,
    /// End of each series in `series_pairs`.
    series_ends: Vec<usize>,
}

impl IndexBuilder {
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of label sets so far; the ordinal of the next one.
    pub fn len(&self) -> u32 {
        self.series_ends.len() as u32
    }

    pub fn is_empty(&self) -> bool {
        self.series_ends.is_empty()
    }

    /// Adds the next label set and returns its ordinal.
    ///
    /// # Errors
    /// `TooLarge` past 2^32 - 1 series.
    pub fn add(&mut self, labels: LabelsRef<'_>) -> Result<u32> {
        let ordinal = u32::try_from(self.series_ends.len())
            .ok()
            .filter(|&o| o < u32::MAX)
            .ok_or_else(|| too_large("series"))?;
        for l in labels.iter() {
            let key = (self.symbols.intern(l.name), self.symbols.intern(l.value));
            let next = self.pairs.len() as u32;
            let pair = *self.pairs.entry(key).or_insert(next);
            self.series_pairs.push(pair);
        }
        self.series_ends.push(self.series_pairs.len());
        Ok(ordinal)
    }

    /// Approximate heap bytes.
    pub fn bytes(&self) -> usize {
        self.symbols.bytes()
            + self.pairs.capacity() * 16
            + self.series_pairs.capacity() * 4
            + self.series_ends.capacity() * 8
    }

    /// The serialized index. The same label sets in the same order give the same bytes.
    ///
    /// # Errors
    /// `TooLarge` when a part exceeds 4 GiB.
    pub fn finish(self) -> Result<Vec<u8>> {
        let IndexBuilder {
            symbols,
            pairs,
            series_pairs,
            series_ends,
        } = self;

        // Symbols in byte order, so that their numbers compare like the strings.
        let mut symbol_order: Vec<u32> = (0..symbols.len() as u32).collect();
        symbol_order.sort_unstable_by_key(|&id| symbols.get(id));
        let mut symbol_rank = vec![0u32; symbol_order.len()];
        for (rank, &id) in symbol_order.iter().enumerate() {
            symbol_rank[id as usize] = rank as u32;
        }

        // Pairs by (name, value), numbered anew.
        let mut pair_order: Vec<(u32, u32, u32)> = pairs
            .iter()
            .map(|(&(n, v), &id)| (symbol_rank[n as usize], symbol_rank[v as usize], id))
            .collect();
        pair_order.sort_unstable();
        let mut pair_rank = vec![0u32; pair_order.len()];
        for (rank, &(_, _, id)) in pair_order.iter().enumerate() {
            pair_rank[id as usize] = rank as u32;
        }

        // Postings by a counting sort: ordinals ascend within a pair because series are visited in order.
        let mut starts = vec![0usize; pair_order.len() + 1];
        for &p in &series_pairs {
            starts[pair_rank[p as usize] as usize + 1] += 1;
        }
        for i in 1..starts.len() {
            starts[i] += starts[i - 1];
        }
        let mut fill = starts.clone();
        let mut ordinals = vec![0u32; series_pairs.len()];
        let mut series_bytes = Vec::new();
        let mut series_offsets = Vec::with_capacity(series_ends.len() + 1);
        series_offsets.push(0u32);
        let mut from = 0;
        for (ordinal, &end) in series_ends.iter().enumerate() {
            let mut last = 0;
            for &p in &series_pairs[from..end] {
                // Label names ascend, so the ranks of the pairs do.
                let rank = pair_rank[p as usize];
                put_uvarint(&mut series_bytes, u64::from(rank - last));
                last = rank;
                ordinals[fill[rank as usize]] = ordinal as u32;
                fill[rank as usize] += 1;
            }
            series_offsets.push(offset(series_bytes.len(), "series table")?);
            from = end;
        }

        let mut posting_bytes = Vec::new();
        let mut posting_offsets = Vec::with_capacity(pair_order.len() + 1);
        posting_offsets.push(0u32);
        for run in starts.windows(2) {
            postings::encode(&mut posting_bytes, &ordinals[run[0]..run[1]]);
            posting_offsets.push(offset(posting_bytes.len(), "postings")?);
        }

        let mut symbol_bytes = Vec::new();
        let mut symbol_offsets = Vec::with_capacity(symbol_order.len() + 1);
        symbol_offsets.push(0u32);
        for &id in &symbol_order {
            symbol_bytes.extend_from_slice(symbols.get(id).as_bytes());
            symbol_offsets.push(offset(symbol_bytes.len(), "symbols")?);
        }

        let mut names: Vec<(u32, u32)> = Vec::new();
        for (i, &(name, _, _)) in pair_order.iter().enumerate() {
            if names.last().is_none_or(|n| n.0 != name) {
                names.push((name, i as u32));
            }
        }

        let mut out = Vec::with_capacity(
            HEADER_BYTES
                + 4 * (symbol_offsets.len() + names.len() * 2 + pair_order.len() * 2 + series_offsets.len() + 1)
                + symbol_bytes.len()
                + posting_bytes.len()
                + series_bytes.len(),
        );
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[VERSION, 0, 0, 0]);
        for n in [
            series_ends.len(),
            symbol_order.len(),
            names.len(),
            pair_order.len(),
            symbol_bytes.len(),
            posting_bytes.len(),
            series_bytes.len(),
        ] {
            put_u32(&mut out, offset(n, "index")?);
        }
        symbol_offsets.iter().for_each(|&o| put_u32(&mut out, o));
        names.iter().for_each(|&(symbol, _)| put_u32(&mut out, symbol));
        names.iter().for_each(|&(_, first)| put_u32(&mut out, first));
        pair_order.iter().for_each(|&(_, value, _)| put_u32(&mut out, value));
        posting_offsets.iter().for_each(|&o| put_u32(&mut out, o));
        series_offsets.iter().for_each(|&o| put_u32(&mut out, o));
        out.extend_from_slice(&symbol_bytes);
        out.extend_from_slice(&posting_bytes);
        out.extend_from_slice(&series_bytes);
        Ok(out)
    }
}

fn put_u32(out: &mut Vec<u8>, n: u32) {
    out.extend_from_slice(&n.to_le_bytes());
}

fn offset(n: usize, what: &str) -> Result<u32> {
    u32::try_from(n).map_err(|_| too_large(what))
}

fn too_large(what: &str) -> Error {
    Error::new(
        trilith_model::ErrorKind::TooLarge,
        format!("the {what} of a block index exceed 32 bits"),
    )
}
