//! A run of native histograms, each coded as the difference from the one before. One codec for log, head and blocks.
//!
//! | flags u8 | layout, unless as before | zero count | positive counts | negative counts | count |
//!
//! Flags: bits 0 and 1 the reset hint; 4 layout as before; 8 counts are not all integers; 16 custom bounds follow;
//! 32 custom bounds as before. Sums are kept by the caller, who has a better place for a column of doubles.
//!
//! Layout: `| schema varint | zero threshold u64 | positive spans | negative spans | bounds |`, spans
//! `| n uvarint | n × (offset varint, length uvarint) |`, bounds `| n uvarint | n × u64 |`.
//!
//! Counts: each minus what is expected, as varint; the expected one is that of the same bucket of the histogram before,
//! 0 where it had none or had another schema or other bounds. The count of all observations is expected to be the sum of the
//! buckets. Counts that are not integers below 2⁵³: u64 bits XOR the expected bits; the count of all observations against
//! the one before.

use std::borrow::Cow;
use std::sync::Arc;

use trilith_codec::{Reader, put_uvarint, put_varint};
use trilith_histogram::{Buckets, FloatHistogram, ResetHint, Span};
use trilith_model::{Error, Result};

use super::bad;

const HINT_MASK: u8 = 3;
const SAME_LAYOUT: u8 = 4;
const NOT_INTEGERS: u8 = 8;
const BOUNDS: u8 = 16;
const SAME_BOUNDS: u8 = 32;
const KNOWN_FLAGS: u8 = 63;

/// Buckets of both sides of one histogram, and custom bounds: what the finest exponential schema needs for 32 powers
/// of two on each side, far more than producers make, and little enough that a slot of one histogram fits a page.
pub(crate) const BUCKETS_MAX: usize = 1 << 14;

/// Spans beyond the number of buckets: empty ones carry offsets.
const EMPTY_SPANS_MAX: usize = 16;

const INTEGER_MAX: f64 = 9_007_199_254_740_992.0;

/// Whether the store can hold a histogram; says why not.
pub(crate) fn refusal(h: &FloatHistogram) -> Option<&'static str> {
    let bounds = h.custom_bounds.as_deref().map_or(0, <[f64]>::len);
    let (Some(p), Some(n)) = (buckets_of(&h.positive.spans), buckets_of(&h.negative.spans)) else {
        return Some("histogram has too many buckets");
    };
    if p + n > BUCKETS_MAX || bounds > BUCKETS_MAX {
        Some("histogram has too many buckets")
    } else if p != h.positive.counts.len() || n != h.negative.counts.len() {
        Some("histogram spans do not fit its buckets")
    } else if h.positive.spans.len() + h.negative.spans.len() > p + n + EMPTY_SPANS_MAX {
        Some("histogram has too many empty spans")
    } else {
        None
    }
}

fn buckets_of(spans: &[Span]) -> Option<usize> {
    let n: u64 = spans.iter().map(|s| u64::from(s.length)).sum();
    usize::try_from(n).ok().filter(|&n| n <= BUCKETS_MAX)
}

/// A measure of encoded size: numbers in the histogram.
pub(crate) fn numbers(h: &FloatHistogram) -> usize {
    h.positive.counts.len()
        + h.negative.counts.len()
        + h.positive.spans.len()
        + h.negative.spans.len()
        + h.custom_bounds.as_deref().map_or(0, <[f64]>::len)
        + 8
}

/// Equal in all but the reset hint, by bits: what a repetition of a sample is.
pub(crate) fn same(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    std::ptr::eq(a, b)
        || same_layout(a, b)
            && [a.zero_count, a.count, a.sum].map(f64::to_bits) == [b.zero_count, b.count, b.sum].map(f64::to_bits)
            && same_bits(&a.positive.counts, &b.positive.counts)
            && same_bits(&a.negative.counts, &b.negative.counts)
}

fn same_layout(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    a.schema == b.schema
        && a.zero_threshold.to_bits() == b.zero_threshold.to_bits()
        && a.positive.spans == b.positive.spans
        && a.negative.spans == b.negative.spans
        && same_bounds(a, b)
}

fn same_bounds(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    match (&a.custom_bounds, &b.custom_bounds) {
        (None, None) => true,
        (Some(a), Some(b)) => Arc::ptr_eq(a, b) || same_bits(a, b),
        _ => false,
    }
}

fn same_bits(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

#[inline]
fn integer(v: f64) -> Option<i64> {
    let i = v as i64;
    (v.abs() <= INTEGER_MAX && (i as f64).to_bits() == v.to_bits()).then_some(i)
}

fn all_integers(h: &FloatHistogram) -> bool {
    let side = |b: &Buckets| b.counts.iter().all(|&c| integer(c).is_some());
    integer(h.zero_count).is_some() && integer(h.count).is_some() && side(&h.positive) && side(&h.negative)
}

/// The bucket numbers of spans.
fn indexes(spans: &[Span]) -> impl Iterator<Item = i64> {
    let ends = spans.iter().scan(0i64, |end, s| {
        let from = *end + i64::from(s.offset);
        *end = from + i64::from(s.length);
        Some(from..*end)
    });
    ends.flatten()
}

/// The counts of `last` under the buckets of `spans`, which are not more than [`BUCKETS_MAX`].
fn expected<'a>(last: Option<&'a Buckets>, spans: &[Span], n: usize) -> Cow<'a, [f64]> {
    let Some(last) = last else {
        return Cow::Owned(vec![0.0; n]);
    };
    if last.spans == spans {
        return Cow::Borrowed(&last.counts);
    }
    let mut known = indexes(&last.spans).zip(&last.counts).peekable();
    let find = |i| {
        while known.next_if(|(k, _)| *k < i).is_some() {}
        known.next_if(|(k, _)| *k == i).map_or(0.0, |(_, &c)| c)
    };
    Cow::Owned(indexes(spans).map(find).collect())
}

/// What a histogram is coded against.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    last: Option<Arc<FloatHistogram>>,
}

/// The expected counts of a histogram.
struct Expected<'a> {
    zero: f64,
    count: f64,
    positive: Cow<'a, [f64]>,
    negative: Cow<'a, [f64]>,
}

impl Run {
    /// `comparable`: schema and bounds are those of the last one.
    fn expected(&self, comparable: bool, positive: (&[Span], usize), negative: (&[Span], usize)) -> Expected<'_> {
        let last = self.last.as_deref().filter(|_| comparable);
        Expected {
            zero: last.map_or(0.0, |l| l.zero_count),
            count: last.map_or(0.0, |l| l.count),
            positive: expected(last.map(|l| &l.positive), positive.0, positive.1),
            negative: expected(last.map(|l| &l.negative), negative.0, negative.1),
        }
    }

    /// Appends a histogram, of which [`refusal`] has nothing to say.
    pub(crate) fn put(&mut self, out: &mut Vec<u8>, h: &Arc<FloatHistogram>) {
        debug_assert_eq!(refusal(h), None);
        let last = self.last.as_deref();
        let integers = all_integers(h);
        let known_bounds = last.is_some_and(|l| same_bounds(l, h));
        let mut flags = h.reset_hint as u8;
        if last.is_some_and(|l| same_layout(l, h)) {
            flags |= SAME_LAYOUT;
        } else if h.custom_bounds.is_some() {
            flags |= if known_bounds { SAME_BOUNDS } else { BOUNDS };
        }
        if !integers {
            flags |= NOT_INTEGERS;
        }
        out.push(flags);
        if flags & SAME_LAYOUT == 0 {
            put_varint(out, i64::from(h.schema));
            out.extend_from_slice(&h.zero_threshold.to_le_bytes());
            put_spans(out, &h.positive.spans);
            put_spans(out, &h.negative.spans);
            if let (Some(bounds), true) = (&h.custom_bounds, flags & BOUNDS != 0) {
                put_uvarint(out, bounds.len() as u64);
                for b in bounds.iter() {
                    out.extend_from_slice(&b.to_le_bytes());
                }
            }
        }
        let comparable = known_bounds && last.is_some_and(|l| l.schema == h.schema);
        let e = self.expected(
            comparable,
            (&h.positive.spans, h.positive.counts.len()),
            (&h.negative.spans, h.negative.counts.len()),
        );
        let of = |v: f64| integer(v).unwrap_or(0);
        if integers {
            let mut sum = of(h.zero_count);
            put_varint(out, of(h.zero_count).wrapping_sub(of(e.zero)));
            for (counts, expected) in [(&h.positive.counts, &e.positive), (&h.negative.counts, &e.negative)] {
                for (&c, &x) in counts.iter().zip(expected.iter()) {
                    sum = sum.wrapping_add(of(c));
                    put_varint(out, of(c).wrapping_sub(of(x)));
                }
            }
            put_varint(out, of(h.count).wrapping_sub(sum));
        } else {
            let mut put = |v: f64, x: f64| out.extend_from_slice(&(v.to_bits() ^ x.to_bits()).to_le_bytes());
            put(h.zero_count, e.zero);
            for (counts, expected) in [(&h.positive.counts, &e.positive), (&h.negative.counts, &e.negative)] {
                counts.iter().zip(expected.iter()).for_each(|(&c, &x)| put(c, x));
            }
            put(h.count, e.count);
        }
        self.last = Some(h.clone());
    }

    /// Reads the next histogram.
    ///
    /// # Errors
    /// `Corrupt`.
    pub(crate) fn take(&mut self, r: &mut Reader<'_>, sum: f64) -> Result<Arc<FloatHistogram>> {
        let bad = bad("histogram");
        let flags = r.u8().map_err(&bad)?;
        if flags & !KNOWN_FLAGS != 0 {
            return Err(Error::corrupt(format!("histogram flags {flags}")));
        }
        let last = self.last.as_deref();
        let before = || last.ok_or_else(|| Error::corrupt("the first histogram of a run refers to one before"));
        let mut h = FloatHistogram {
            reset_hint: ResetHint::from_u8(flags & HINT_MASK).expect("two bits are a hint"),
            sum,
            ..FloatHistogram::default()
        };
        if flags & SAME_LAYOUT != 0 {
            let l = before()?;
            h.schema = l.schema;
            h.zero_threshold = l.zero_threshold;
            h.positive.spans.clone_from(&l.positive.spans);
            h.negative.spans.clone_from(&l.negative.spans);
            h.custom_bounds.clone_from(&l.custom_bounds);
        } else {
            let schema = r.varint().map_err(&bad)?;
            h.schema = i32::try_from(schema).map_err(|_| Error::corrupt(format!("histogram schema {schema}")))?;
            h.zero_threshold = r.f64().map_err(&bad)?;
            h.positive.spans = take_spans(r)?;
            h.negative.spans = take_spans(r)?;
            if flags & SAME_BOUNDS != 0 {
                h.custom_bounds.clone_from(&before()?.custom_bounds);
            } else if flags & BOUNDS != 0 {
                let n = r.count(8).map_err(&bad)?;
                if n > BUCKETS_MAX {
                    return Err(Error::corrupt(format!("histogram of {n} bounds")));
                }
                let mut bounds = Vec::with_capacity(n);
                for _ in 0..n {
                    bounds.push(r.f64().map_err(&bad)?);
                }
                h.custom_bounds = Some(bounds.into());
            }
        }
        let comparable = last.is_some_and(|l| l.schema == h.schema && same_bounds(l, &h));
        let too_many = || Error::corrupt("histogram has too many buckets");
        let p = buckets_of(&h.positive.spans).ok_or_else(too_many)?;
        let n = buckets_of(&h.negative.spans).ok_or_else(too_many)?;
        let spans = h.positive.spans.len() + h.negative.spans.len();
        // Every bucket takes a byte at least.
        if p + n > BUCKETS_MAX.min(r.remaining()) || spans > p + n + EMPTY_SPANS_MAX {
            return Err(too_many());
        }
        let e = self.expected(comparable, (&h.positive.spans, p), (&h.negative.spans, n));
        let (mut positive, mut negative) = (Vec::with_capacity(p), Vec::with_capacity(n));
        if flags & NOT_INTEGERS == 0 {
            let of = |v: f64| integer(v).unwrap_or(0);
            let mut total = of(e.zero).wrapping_add(r.varint().map_err(&bad)?);
            h.zero_count = total as f64;
            for (counts, expected) in [(&mut positive, &e.positive), (&mut negative, &e.negative)] {
                for &x in expected.iter() {
                    let c = of(x).wrapping_add(r.varint().map_err(&bad)?);
                    total = total.wrapping_add(c);
                    counts.push(c as f64);
                }
            }
            h.count = total.wrapping_add(r.varint().map_err(&bad)?) as f64;
        } else {
            let mut next = |x: f64| r.u64().map(|bits| f64::from_bits(bits ^ x.to_bits())).map_err(&bad);
            h.zero_count = next(e.zero)?;
            for (counts, expected) in [(&mut positive, &e.positive), (&mut negative, &e.negative)] {
                for &x in expected.iter() {
                    counts.push(next(x)?);
                }
            }
            h.count = next(e.count)?;
        }
        h.positive.counts = positive;
        h.negative.counts = negative;
        let h = Arc::new(h);
        self.last = Some(h.clone());
        Ok(h)
    }
}

fn put_spans(out: &mut Vec<u8>, spans: &[Span]) {
    put_uvarint(out, spans.len() as u64);
    for s in spans {
        put_varint(out, i64::from(s.offset));
        put_uvarint(out, u64::from(s.length));
    }
}

fn take_spans(r: &mut Reader<'_>) -> Result<Vec<Span>> {
    let bad = bad("histogram");
    let n = r.count(2).map_err(&bad)?;
    if n > BUCKETS_MAX + EMPTY_SPANS_MAX {
        return Err(Error::corrupt(format!("histogram of {n} spans")));
    }
    let mut spans = Vec::with_capacity(n);
    for _ in 0..n {
        let offset = r.varint().map_err(&bad)?;
        let offset = i32::try_from(offset).map_err(|_| Error::corrupt(format!("span offset {offset}")))?;
        let length = r.uvarint_u32().map_err(&bad)?;
        spans.push(Span { offset, length });
    }
    Ok(spans)
}

#[cfg(test)]
mod tests;
