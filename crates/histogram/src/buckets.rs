//! Walking over buckets.

use crate::{Buckets, FloatHistogram, Span};

/// One bucket with its bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bucket {
    pub lower: f64,
    pub upper: f64,
    pub lower_inclusive: bool,
    pub upper_inclusive: bool,
    pub count: f64,
}

impl Bucket {
    /// The fraction of the bucket's width that lies at or below `v`, for `v` strictly between finite bounds:
    /// linear, or on a logarithmic scale.
    pub(crate) fn fraction_below(&self, v: f64, linear: bool) -> f64 {
        if linear {
            return (v - self.lower) / (self.upper - self.lower);
        }
        let (lower, upper) = (self.lower.abs().log2(), self.upper.abs().log2());
        let v_log = v.abs().log2();
        if v > 0.0 {
            (v_log - lower) / (upper - lower)
        } else {
            1.0 - (v_log - upper) / (lower - upper)
        }
    }
}

impl Buckets {
    /// Buckets of consecutive indexes from `first` on.
    pub fn run(first: i32, counts: Vec<f64>) -> Self {
        if counts.is_empty() {
            return Buckets::default();
        }
        let length = u32::try_from(counts.len()).unwrap_or(u32::MAX);
        Buckets {
            spans: vec![Span { offset: first, length }],
            counts,
        }
    }

    /// Index and population of every bucket, ascending; from both ends.
    ///
    /// Whatever the spans say, indexes strictly ascend and there are no more of them than counts: a negative gap
    /// counts as none, and what lies past the last index is left out.
    pub fn iter(&self) -> BucketIter<'_> {
        BucketIter::new(self)
    }

    /// Whether both have the same buckets, populated or not, in whatever spans.
    pub(crate) fn same_layout(&self, other: &Buckets) -> bool {
        self.counts.len() == other.counts.len()
            && (self.spans == other.spans
                || (self.iter().len() == other.iter().len()
                    && self.iter().zip(other.iter()).all(|((a, _), (b, _))| a == b)))
    }

    /// Removes empty buckets and joins adjacent spans.
    pub(crate) fn compact(&mut self) {
        let gaps = self.spans.iter().skip(1).all(|s| s.offset > 0);
        let solid = gaps && self.spans.iter().all(|s| s.length > 0) && self.counts.iter().all(|c| *c != 0.0);
        if !solid || self.iter().len() != self.counts.len() {
            let mut builder = BucketsBuilder::with_capacity(self.counts.len());
            for (index, count) in self.iter().filter(|(_, count)| *count != 0.0) {
                builder.push(index, count);
            }
            *self = builder.finish();
        }
    }
}

/// See [`Buckets::iter`].
#[derive(Clone, Debug)]
pub struct BucketIter<'a> {
    spans: &'a [Span],
    counts: &'a [f64],
    front: Cursor,
    back: Cursor,
}

/// Between two buckets.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    span: usize,
    /// Buckets of the span that lie before.
    within: u32,
    /// Of the bucket that follows, if it is in the same span.
    index: i64,
    /// Buckets before, over all spans.
    passed: usize,
}

/// One past the last index.
const INDEX_END: i64 = i32::MAX as i64 + 1;

impl<'a> BucketIter<'a> {
    fn new(buckets: &'a Buckets) -> Self {
        let (spans, counts) = (buckets.spans.as_slice(), buckets.counts.as_slice());
        let front = Cursor {
            index: spans.first().map_or(0, |s| i64::from(s.offset)),
            ..Cursor::default()
        };
        let mut back = front;
        for (i, span) in spans.iter().enumerate() {
            let start = if i == 0 { front.index } else { back.index + gap(*span) };
            let room = usize::try_from(INDEX_END - start).unwrap_or(0);
            let usable = (span.length as usize).min(counts.len() - back.passed).min(room);
            back = Cursor {
                span: i,
                within: usable as u32,
                index: start + usable as i64,
                passed: back.passed + usable,
            };
            if usable < span.length as usize {
                break;
            }
        }
        BucketIter {
            spans,
            counts,
            front,
            back,
        }
    }
}

fn gap(span: Span) -> i64 {
    i64::from(span.offset.max(0))
}

impl Iterator for BucketIter<'_> {
    type Item = (i32, f64);

    fn next(&mut self) -> Option<Self::Item> {
        if self.front.passed >= self.back.passed {
            return None;
        }
        while self.front.within >= self.spans[self.front.span].length {
            self.front.span += 1;
            self.front.within = 0;
            self.front.index += gap(self.spans[self.front.span]);
        }
        let item = (self.front.index as i32, self.counts[self.front.passed]);
        self.front.within += 1;
        self.front.index += 1;
        self.front.passed += 1;
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.back.passed - self.front.passed;
        (left, Some(left))
    }
}

impl DoubleEndedIterator for BucketIter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.front.passed >= self.back.passed {
            return None;
        }
        while self.back.within == 0 {
            self.back.index -= gap(self.spans[self.back.span]);
            self.back.span -= 1;
            self.back.within = self.spans[self.back.span].length;
        }
        self.back.within -= 1;
        self.back.index -= 1;
        self.back.passed -= 1;
        Some((self.back.index as i32, self.counts[self.back.passed]))
    }
}

impl ExactSizeIterator for BucketIter<'_> {}

/// Makes [`Buckets`] of ascending indexes.
#[derive(Debug, Default)]
pub struct BucketsBuilder {
    out: Buckets,
    /// One past the last index.
    end: i64,
}

impl BucketsBuilder {
    pub fn with_capacity(buckets: usize) -> Self {
        let mut builder = BucketsBuilder::default();
        builder.out.counts.reserve(buckets);
        builder
    }

    /// Adds a bucket; one that does not lie past the last joins it.
    pub fn push(&mut self, index: i32, count: f64) {
        let at = i64::from(index);
        match self.out.spans.last_mut() {
            Some(_) if at < self.end => {
                *self.out.counts.last_mut().expect("every span has a bucket") += count;
                return;
            }
            Some(last) if at == self.end => last.length += 1,
            last => {
                let first = last.is_none();
                let mut offset = if first { at } else { at - self.end };
                // A gap can be wider than its field.
                while i32::try_from(offset).is_err() {
                    self.out.spans.push(Span {
                        offset: i32::MAX,
                        length: 0,
                    });
                    offset -= i64::from(i32::MAX);
                }
                self.out.spans.push(Span {
                    offset: offset as i32,
                    length: 1,
                });
            }
        }
        self.out.counts.push(count);
        self.end = at + 1;
    }

    pub fn finish(self) -> Buckets {
        self.out
    }
}

impl FloatHistogram {
    /// Buckets ascending by value: negative ones, the zero bucket unless it is empty, positive ones; from both ends.
    /// Buckets that reach into the zero bucket are cut at its threshold. Buckets may be empty.
    pub fn buckets(&self) -> impl DoubleEndedIterator<Item = Bucket> + '_ {
        let negative = self.negative.iter().rev().map(|(index, count)| {
            let mut bucket = self.negative_bucket(index, count);
            if bucket.upper < 0.0 && bucket.upper > -self.zero_threshold {
                bucket.upper = -self.zero_threshold;
            }
            bucket
        });
        let zero = (self.zero_count > 0.0).then(|| self.zero_bucket());
        let positive = self.positive.iter().map(|(index, count)| {
            let mut bucket = self.positive_bucket(index, count);
            if bucket.lower > 0.0 && bucket.lower < self.zero_threshold {
                bucket.lower = self.zero_threshold;
            }
            bucket
        });
        negative.chain(zero).chain(positive)
    }

    pub(crate) fn zero_bucket(&self) -> Bucket {
        Bucket {
            lower: -self.zero_threshold,
            upper: self.zero_threshold,
            lower_inclusive: true,
            upper_inclusive: true,
            count: self.zero_count,
        }
    }

    pub(crate) fn positive_bucket(&self, index: i32, count: f64) -> Bucket {
        let index = i64::from(index);
        let (lower, upper) = (self.upper_bound(index - 1), self.upper_bound(index));
        self.bucket(lower, upper, count, index)
    }

    pub(crate) fn negative_bucket(&self, index: i32, count: f64) -> Bucket {
        let index = i64::from(index);
        let (lower, upper) = (-self.upper_bound(index), -self.upper_bound(index - 1));
        self.bucket(lower, upper, count, index)
    }

    fn bucket(&self, lower: f64, upper: f64, count: f64, index: i64) -> Bucket {
        let custom = self.uses_custom_buckets();
        Bucket {
            lower,
            upper,
            lower_inclusive: if custom { index == 0 } else { lower < 0.0 },
            upper_inclusive: custom || upper > 0.0,
            count,
        }
    }
}

impl Bucket {
    /// How the API numbers the kinds of intervals: 0 `(l, r]`, 1 `[l, r)`, 2 `(l, r)`, 3 `[l, r]`.
    pub fn rule(&self) -> u8 {
        match (self.lower_inclusive, self.upper_inclusive) {
            (false, true) => 0,
            (true, false) => 1,
            (false, false) => 2,
            (true, true) => 3,
        }
    }
}
