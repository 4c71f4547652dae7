//! The ordinals of one label pair.
//!
//! Most pairs of a real index belong to very few series (`pod="…"`), some to nearly all (`job="…"`). Short lists
//! stay plain; long ones are Roaring bitmaps, which become runs when the series are sorted.

use croaring::{Bitmap, Portable};
use trilith_codec::{Reader, put_uvarint};
use trilith_model::{Error, Result};

/// Up to this many ordinals are kept and written as a plain list: a Roaring bitmap costs about 100 bytes of heap and
/// 20 bytes of file before its first element.
const LIST_MAX: usize = 32;

const TAG_LIST: u8 = 0;
const TAG_ROARING: u8 = 1;

/// Ascending, growing postings of a head.
#[derive(Debug)]
pub enum PostingList {
    List(Vec<u32>),
    Bitmap(Bitmap),
}

impl Default for PostingList {
    fn default() -> Self {
        PostingList::List(Vec::new())
    }
}

impl PostingList {
    /// Adds an ordinal; adding one twice changes nothing.
    pub fn add(&mut self, ordinal: u32) {
        match self {
            PostingList::Bitmap(b) => b.add(ordinal),
            PostingList::List(list) => match list.last() {
                Some(&last) if last >= ordinal => {
                    if let Err(at) = list.binary_search(&ordinal) {
                        list.insert(at, ordinal);
                    }
                }
                _ => list.push(ordinal),
            },
        }
        if let PostingList::List(list) = self
            && list.len() > LIST_MAX
        {
            *self = PostingList::Bitmap(Bitmap::of(list));
        }
    }

    pub fn len(&self) -> u64 {
        match self {
            PostingList::List(l) => l.len() as u64,
            PostingList::Bitmap(b) => b.cardinality(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Borrowed postings of either index.
#[derive(Clone, Copy, Debug)]
pub enum PostingsRef<'a> {
    Mem(&'a PostingList),
    /// The serialized form and the number of series of its index.
    Bytes(&'a [u8], u32),
}

impl PostingsRef<'_> {
    /// # Errors
    /// `Corrupt` when serialized postings do not check out.
    pub fn to_bitmap(self) -> Result<Bitmap> {
        let mut out = Bitmap::new();
        self.union_into(&mut out)?;
        Ok(out)
    }

    /// Adds all ordinals to `out`.
    ///
    /// # Errors
    /// `Corrupt` when serialized postings do not check out; `out` may hold a part of them then.
    pub fn union_into(self, out: &mut Bitmap) -> Result<()> {
        match self {
            PostingsRef::Mem(PostingList::List(l)) => out.add_many(l),
            PostingsRef::Mem(PostingList::Bitmap(b)) => out.or_inplace(b),
            PostingsRef::Bytes(bytes, series) => match decode(bytes, series)? {
                Decoded::List(l) => out.add_many(&l),
                Decoded::Bitmap(b) => out.or_inplace(&b),
            },
        }
        Ok(())
    }

    /// Whether any ordinal is in `set`.
    ///
    /// # Errors
    /// As `to_bitmap`.
    pub fn intersects(self, set: &Bitmap) -> Result<bool> {
        Ok(match self {
            PostingsRef::Mem(PostingList::List(l)) => l.iter().any(|&o| set.contains(o)),
            PostingsRef::Mem(PostingList::Bitmap(b)) => b.intersect(set),
            PostingsRef::Bytes(bytes, series) => match decode(bytes, series)? {
                Decoded::List(l) => l.iter().any(|&o| set.contains(o)),
                Decoded::Bitmap(b) => b.intersect(set),
            },
        })
    }

    /// Number of ordinals.
    ///
    /// # Errors
    /// As `to_bitmap`.
    pub fn len(self) -> Result<u64> {
        Ok(match self {
            PostingsRef::Mem(l) => l.len(),
            PostingsRef::Bytes(bytes, series) => match decode(bytes, series)? {
                Decoded::List(l) => l.len() as u64,
                Decoded::Bitmap(b) => b.cardinality(),
            },
        })
    }

    /// # Errors
    /// As `to_bitmap`.
    pub fn is_empty(self) -> Result<bool> {
        Ok(self.len()? == 0)
    }
}

enum Decoded {
    List(Vec<u32>),
    Bitmap(Bitmap),
}

/// Appends the serialized form of an ascending list without repetitions.
pub(crate) fn encode(out: &mut Vec<u8>, ordinals: &[u32]) {
    debug_assert!(ordinals.is_sorted_by(|a, b| a < b), "postings ascend");
    if ordinals.len() <= LIST_MAX {
        out.push(TAG_LIST);
        put_uvarint(out, ordinals.len() as u64);
        let mut last = 0;
        for &o in ordinals {
            put_uvarint(out, u64::from(o - last));
            last = o;
        }
    } else {
        out.push(TAG_ROARING);
        let mut b = Bitmap::of(ordinals);
        b.run_optimize();
        // Returns a view of what it appended.
        let _ = b.serialize_into_vec::<Portable>(out);
    }
}

fn decode(bytes: &[u8], series: u32) -> Result<Decoded> {
    let corrupt = |e: trilith_codec::DecodeError| Error::corrupt(format!("postings: {e}"));
    let mut r = Reader::new(bytes);
    match r.u8().map_err(corrupt)? {
        TAG_LIST => {
            let n = r.count(1).map_err(corrupt)?;
            let mut list = Vec::with_capacity(n);
            let mut last = 0u64;
            for i in 0..n {
                let delta = u64::from(r.uvarint_u32().map_err(corrupt)?);
                if i > 0 && delta == 0 {
                    return Err(Error::corrupt("postings do not ascend"));
                }
                last += delta;
                if last >= u64::from(series) {
                    return Err(Error::corrupt("postings name a series that does not exist"));
                }
                // Below `series`, a u32.
                list.push(last as u32);
            }
            r.finish().map_err(corrupt)?;
            Ok(Decoded::List(list))
        }
        TAG_ROARING => {
            let b = Bitmap::try_deserialize::<Portable>(r.rest())
                .ok_or_else(|| Error::corrupt("postings are no roaring bitmap"))?;
            // The deserializer guards its reads, but not the order inside containers, which the set operations
            // rely on.
            b.internal_validate()
                .map_err(|e| Error::corrupt(format!("postings: {e}")))?;
            if b.maximum().is_some_and(|m| m >= series) {
                return Err(Error::corrupt("postings name a series that does not exist"));
            }
            Ok(Decoded::Bitmap(b))
        }
        tag => Err(Error::corrupt(format!("postings have the unknown tag {tag}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn both_forms_hold_the_same(set in proptest::collection::btree_set(0u32..5000, 0..200)) {
            let list: Vec<u32> = set.iter().copied().collect();
            let mut mem = PostingList::default();
            for &o in list.iter().rev() {
                mem.add(o);
                mem.add(o);
            }
            let mut bytes = Vec::new();
            encode(&mut bytes, &list);
            for p in [PostingsRef::Mem(&mem), PostingsRef::Bytes(&bytes, 5000)] {
                prop_assert_eq!(p.to_bitmap().unwrap().to_vec(), list.clone());
                prop_assert_eq!(p.len().unwrap(), list.len() as u64);
                prop_assert_eq!(p.intersects(&Bitmap::of(&[list.first().copied().unwrap_or(9)])).unwrap(), !list.is_empty());
            }
        }

        #[test]
        fn hostile_postings_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), flip in any::<(u8, usize)>()) {
            let _ = PostingsRef::Bytes(&bytes, 100).to_bitmap();
            let mut good = Vec::new();
            encode(&mut good, &(0..200).step_by(3).collect::<Vec<u32>>());
            let at = flip.1 % good.len();
            good[at] ^= flip.0;
            if let Ok(b) = PostingsRef::Bytes(&good, 200).to_bitmap() {
                prop_assert!(b.maximum().is_none_or(|m| m < 200));
            }
        }
    }
}
