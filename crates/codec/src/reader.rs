//! A cursor over bytes that nobody vouches for.

use std::ops::Range;

use crate::varint::{UVARINT_BYTES_MAX, unzigzag};

/// Why bytes do not decode. Offsets count from the start of the slice that the reader was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    #[error("truncated: {wanted} bytes wanted at offset {at}, {left} left")]
    Truncated { at: usize, wanted: u64, left: usize },
    #[error("variable-length number at offset {at} does not fit 64 bits")]
    VarintOverflow { at: usize },
    /// The number is well formed but larger than the field allows.
    #[error("number {got} at offset {at} exceeds {max}")]
    TooLarge { at: usize, got: u64, max: u64 },
    #[error("text at offset {at} is not UTF-8")]
    NotUtf8 { at: usize },
    #[error("{left} bytes too many at offset {at}")]
    Trailing { at: usize, left: usize },
    #[error("magic number expected at offset {at}")]
    BadMagic { at: usize },
}

/// Reads forward through a slice. Everything is checked; a failed read leaves the position where it was.
///
/// `Clone` is cheap and gives an independent position.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, pos: 0 }
    }

    /// Offset of the next byte.
    #[inline]
    pub fn position(&self) -> usize {
        self.pos
    }

    /// Bytes not yet read.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.pos
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// Everything not yet read, without reading it.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.pos..]
    }

    #[cold]
    fn truncated(&self, wanted: u64) -> DecodeError {
        DecodeError::Truncated {
            at: self.pos,
            wanted,
            left: self.remaining(),
        }
    }

    /// The next `n` bytes, borrowed from the input.
    ///
    /// # Errors
    /// `Truncated`.
    #[inline]
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let Some(taken) = self.rest().get(..n) else {
            return Err(self.truncated(n as u64));
        };
        self.pos += n;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some(taken) = self.rest().first_chunk::<N>() else {
            return Err(self.truncated(N as u64));
        };
        self.pos += N;
        Ok(*taken)
    }

    #[inline]
    pub fn skip(&mut self, n: usize) -> Result<(), DecodeError> {
        self.take(n).map(|_| ())
    }

    #[inline]
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[b]| b)
    }

    #[inline]
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }

    #[inline]
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    #[inline]
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    #[inline]
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_le_bytes)
    }

    /// Bit-exact, NaN payloads included.
    #[inline]
    pub fn f64(&mut self) -> Result<f64, DecodeError> {
        self.array().map(f64::from_le_bytes)
    }

    /// # Errors
    /// `Truncated`; `VarintOverflow` past 64 bits. Overlong forms of small numbers are accepted.
    #[inline]
    pub fn uvarint(&mut self) -> Result<u64, DecodeError> {
        // One or two bytes are by far the most common lengths.
        match self.rest() {
            [first @ 0..0x80, ..] => {
                self.pos += 1;
                Ok(u64::from(*first))
            }
            [first, second @ 0..0x80, ..] => {
                self.pos += 2;
                Ok(u64::from(first & 0x7F) | u64::from(*second) << 7)
            }
            _ => self.uvarint_long(),
        }
    }

    fn uvarint_long(&mut self) -> Result<u64, DecodeError> {
        let rest = self.rest();
        let mut n = 0u64;
        for (i, &byte) in rest.iter().take(UVARINT_BYTES_MAX).enumerate() {
            // The tenth byte has room for one bit.
            if i == UVARINT_BYTES_MAX - 1 && byte > 1 {
                return Err(DecodeError::VarintOverflow { at: self.pos });
            }
            n |= u64::from(byte & 0x7F) << (7 * i);
            if byte < 0x80 {
                self.pos += i + 1;
                return Ok(n);
            }
        }
        Err(self.truncated(rest.len() as u64 + 1))
    }

    #[inline]
    pub fn varint(&mut self) -> Result<i64, DecodeError> {
        self.uvarint().map(unzigzag)
    }

    /// A uvarint of at most `max` (inclusive).
    ///
    /// # Errors
    /// `TooLarge`, and those of `uvarint`.
    pub fn uvarint_max(&mut self, max: u64) -> Result<u64, DecodeError> {
        let at = self.pos;
        let got = self.uvarint()?;
        if got > max {
            self.pos = at;
            return Err(DecodeError::TooLarge { at, got, max });
        }
        Ok(got)
    }

    pub fn uvarint_u32(&mut self) -> Result<u32, DecodeError> {
        // The bound makes the cast exact.
        self.uvarint_max(u64::from(u32::MAX)).map(|n| n as u32)
    }

    /// A uvarint that counts items which take at least `item_bytes_min` bytes each in what is left of the input:
    /// a count that cannot be true is refused before anybody allocates for it. With zero, it is bounded by the
    /// bytes left as if each took one.
    ///
    /// # Errors
    /// `TooLarge`, and those of `uvarint`.
    pub fn count(&mut self, item_bytes_min: usize) -> Result<usize, DecodeError> {
        let at = self.pos;
        let got = self.uvarint()?;
        let max = (self.remaining() / item_bytes_min.max(1)) as u64;
        if got > max {
            self.pos = at;
            return Err(DecodeError::TooLarge { at, got, max });
        }
        // Not larger than `remaining`, a usize.
        Ok(got as usize)
    }

    /// Length as uvarint, then as many bytes.
    ///
    /// # Errors
    /// `Truncated` (also when the length is absurd), `VarintOverflow`.
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let at = self.pos;
        let len = self.uvarint()?;
        let taken = usize::try_from(len).ok().and_then(|n| self.rest().get(..n));
        match taken {
            Some(taken) => {
                self.pos += taken.len();
                Ok(taken)
            }
            None => {
                let error = self.truncated(len);
                self.pos = at;
                Err(error)
            }
        }
    }

    /// As `bytes`, as the range of offsets instead of the bytes: for slicing a shared buffer without a copy.
    ///
    /// # Errors
    /// Those of `bytes`.
    pub fn bytes_range(&mut self) -> Result<Range<usize>, DecodeError> {
        let len = self.bytes()?.len();
        Ok(self.pos - len..self.pos)
    }

    /// As `bytes`, checked to be UTF-8.
    ///
    /// # Errors
    /// `NotUtf8`, and those of `bytes`.
    pub fn str(&mut self) -> Result<&'a str, DecodeError> {
        let at = self.pos;
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| {
            self.pos = at;
            DecodeError::NotUtf8 { at }
        })
    }

    /// # Errors
    /// `BadMagic` when the next bytes are others, `Truncated` when there are fewer.
    pub fn magic(&mut self, magic: &[u8]) -> Result<(), DecodeError> {
        let at = self.pos;
        if self.take(magic.len())? != magic {
            self.pos = at;
            return Err(DecodeError::BadMagic { at });
        }
        Ok(())
    }

    /// Everything must have been read.
    ///
    /// # Errors
    /// `Trailing`.
    pub fn finish(&self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(DecodeError::Trailing { at: self.pos, left }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::varint::{put_bytes, put_str, put_uvarint, put_varint, uvarint_len, zigzag};
    use proptest::prelude::*;

    const EDGES: [u64; 12] = [
        0,
        1,
        127,
        128,
        16_383,
        16_384,
        (1 << 35) - 1,
        1 << 35,
        (1 << 63) - 1,
        1 << 63,
        u64::MAX - 1,
        u64::MAX,
    ];

    #[test]
    fn edges_of_uvarint() {
        for n in EDGES {
            let mut out = Vec::new();
            put_uvarint(&mut out, n);
            assert_eq!(out.len(), uvarint_len(n), "{n}");
            let mut r = Reader::new(&out);
            assert_eq!(r.uvarint(), Ok(n));
            assert_eq!(r.finish(), Ok(()));
            for cut in 0..out.len() {
                let mut r = Reader::new(&out[..cut]);
                assert!(
                    matches!(r.uvarint(), Err(DecodeError::Truncated { .. })),
                    "{n} cut to {cut}"
                );
                assert_eq!(r.position(), 0, "a failed read does not move");
            }
        }
    }

    #[test]
    fn zigzag_keeps_small_small() {
        assert_eq!([0, -1, 1, -2, 2].map(zigzag), [0, 1, 2, 3, 4]);
        for n in [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX] {
            assert_eq!(unzigzag(zigzag(n)), n);
        }
    }

    #[test]
    fn overflow_is_refused() {
        let mut eleven = [0xFFu8; 11];
        eleven[10] = 0;
        assert_eq!(
            Reader::new(&eleven).uvarint(),
            Err(DecodeError::VarintOverflow { at: 0 })
        );
        let mut two_bits = [0x80u8; 10];
        two_bits[9] = 2;
        assert_eq!(
            Reader::new(&two_bits).uvarint(),
            Err(DecodeError::VarintOverflow { at: 0 })
        );
    }

    #[test]
    fn absurd_lengths_allocate_nothing() {
        let mut out = Vec::new();
        put_uvarint(&mut out, u64::MAX);
        out.extend_from_slice(b"abc");
        let mut r = Reader::new(&out);
        assert!(matches!(
            r.bytes(),
            Err(DecodeError::Truncated {
                wanted: u64::MAX,
                left: 3,
                ..
            })
        ));
        assert!(matches!(r.count(1), Err(DecodeError::TooLarge { max: 3, .. })));
        assert_eq!(r.position(), 0);
    }

    #[test]
    fn text_and_magic() {
        let mut out = b"TRLB".to_vec();
        put_str(&mut out, "ünï");
        put_bytes(&mut out, &[0xFF]);
        let mut r = Reader::new(&out);
        assert_eq!(r.clone().magic(b"XXXX"), Err(DecodeError::BadMagic { at: 0 }));
        r.magic(b"TRLB").expect("it is the magic");
        assert_eq!(r.str(), Ok("ünï"));
        assert!(matches!(r.str(), Err(DecodeError::NotUtf8 { .. })));
        assert_eq!(
            r.finish(),
            Err(DecodeError::Trailing {
                at: out.len() - 2,
                left: 2
            })
        );
        let range = r.bytes_range().expect("one byte is left");
        assert_eq!(&out[range], &[0xFF]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn round_trip(items in prop::collection::vec((any::<u64>(), any::<i64>(), prop::collection::vec(any::<u8>(), 0..20)), 0..20)) {
            let mut out = Vec::new();
            for (u, i, b) in &items {
                put_uvarint(&mut out, *u);
                put_varint(&mut out, *i);
                put_bytes(&mut out, b);
            }
            let mut r = Reader::new(&out);
            for (u, i, b) in &items {
                prop_assert_eq!(r.uvarint(), Ok(*u));
                prop_assert_eq!(r.varint(), Ok(*i));
                prop_assert_eq!(r.bytes(), Ok(b.as_slice()));
            }
            prop_assert_eq!(r.finish(), Ok(()));
        }

        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut r = Reader::new(&bytes);
            while !r.is_empty() {
                let before = r.position();
                if r.uvarint().is_err() && r.bytes().is_err() && r.str().is_err() && r.skip(1).is_err() {
                    break;
                }
                prop_assert!(r.position() > before);
            }
        }
    }
}
