//! The `Histogram` message, the same in 1.0 and 2.0: read, checked, turned into float populations.
//!
//! Integer populations come as differences between neighbours and are summed in 128 bits, so that no forged delta
//! wraps around into a plausible count. What makes a histogram invalid, and the texts, are Prometheus'
//! (`model/histogram`, `Validate`); additionally a bucket must lie within [`INDEX_MAX`], so that arithmetic on
//! indexes never overflows later on.

use std::fmt::{self, Display};
use std::sync::Arc;

use trilith_histogram::{Buckets, CUSTOM_SCHEMA, ResetHint, SCHEMA_MAX, SCHEMA_MIN, Span};
use trilith_model::{FloatHistogram, Result, STALE_NAN_BITS};

use crate::body::Budget;
use crate::wire::Fields;

/// The finest schema that is taken, at the price of being merged to [`SCHEMA_MAX`].
const SCHEMA_RESERVED_MAX: i32 = 52;

/// Bucket indexes lie in `-INDEX_MAX..=INDEX_MAX`. The widest that a float can fall into is 2^18 + 1.
const INDEX_MAX: i64 = 1 << 30;

/// Where in a histogram the fault lies; the prefix of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    Positive,
    Negative,
    Custom,
}

impl Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Whole => "",
            Part::Positive => "positive side: ",
            Part::Negative => "negative side: ",
            Part::Custom => "custom buckets: ",
        })
    }
}

/// Why a histogram cannot be stored.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(super) enum HistogramError {
    #[error(
        "histogram has an invalid schema, which must be between {SCHEMA_MIN} and {SCHEMA_MAX} for exponential buckets, or \
         {CUSTOM_SCHEMA} for custom buckets, got schema {0}"
    )]
    Schema(i32),
    #[error("{0}span number {1} with offset {2}: histogram has a span whose offset is negative")]
    NegativeOffset(Part, usize, i32),
    #[error(
        "{0}spans need {1} buckets, have {2} buckets: histogram spans specify different number of buckets than provided"
    )]
    SpanMismatch(Part, u64, usize),
    #[error("have {0} buckets but spans need more: histogram spans specify different number of buckets than provided")]
    TooFewBuckets(usize),
    #[error(
        "{0}bucket number {1} has observation count of {2}: histogram has a bucket whose observation count is negative"
    )]
    NegativeBucket(Part, usize, f64),
    #[error("{0}bucket index {1} is out of range")]
    Index(Part, i64),
    #[error("zero bucket has observation count of {0}: histogram has a bucket whose observation count is negative")]
    NegativeZeroBucket(f64),
    // Two spaces: upstream's text.
    #[error("observation count is  {0}: histogram's observation count is negative")]
    NegativeCount(f64),
    #[error("histogram with exponential schema must not have custom bounds")]
    BoundsOfExponential,
    #[error("custom buckets: histogram custom bounds must not be NaN")]
    BoundNan,
    #[error(
        "custom buckets: previous bound is {0:.6} and current is {1:.6}: histogram custom bounds must be in strictly \
         increasing order"
    )]
    BoundOrder(f64, f64),
    #[error("custom buckets: last +Inf bound must not be explicitly defined: histogram custom bounds must be finite")]
    BoundInfinite,
    #[error("custom buckets: first -Inf bound must not be defined: histogram custom bounds must be finite")]
    BoundNegativeInfinite,
    #[error(
        "custom buckets: only {0} custom bounds defined which is insufficient to cover total span length of {1}: \
         histogram custom bounds are too few"
    )]
    TooFewBounds(usize, u64),
    #[error("custom buckets: must have zero count of 0")]
    CustomZeroCount,
    #[error("custom buckets: must have zero threshold of 0")]
    CustomZeroThreshold,
    #[error("custom buckets: must not have negative spans")]
    CustomNegativeSpans,
    #[error("custom buckets: must not have negative buckets")]
    CustomNegativeBuckets,
    #[error(
        "{0} observations found in buckets, but the Count field is {1}: histogram's observation count should be at least \
         the number of observations found in the buckets"
    )]
    CountNotBigEnough(u128, u64),
    #[error(
        "{0} observations found in buckets, but the Count field is {1}: histogram's observation count should equal the \
         number of observations found in the buckets (in absence of NaN)"
    )]
    CountMismatch(u128, u64),
    /// What only this implementation refuses, a negative zero threshold for one.
    #[error("{0}")]
    Invalid(trilith_histogram::HistogramError),
}

/// Populations while they are checked: exact integers or floats.
trait Count: Copy + Default + std::ops::AddAssign {
    fn is_negative(self) -> bool;
    fn as_f64(self) -> f64;
}

impl Count for i128 {
    fn is_negative(self) -> bool {
        self < 0
    }

    fn as_f64(self) -> f64 {
        self as f64
    }
}

impl Count for f64 {
    fn is_negative(self) -> bool {
        self < 0.0
    }

    fn as_f64(self) -> f64 {
        self
    }
}

/// One side as it came.
#[derive(Debug, Default)]
struct Side {
    spans: Vec<Span>,
    deltas: Vec<i64>,
    counts: Vec<f64>,
}

impl Side {
    fn clear(&mut self) {
        self.spans.clear();
        self.deltas.clear();
        self.counts.clear();
    }

    fn absolute(&self) -> Vec<i128> {
        let mut last = 0i128;
        let sums = self.deltas.iter().map(|&d| {
            last += i128::from(d);
            last
        });
        sums.collect()
    }
}

/// Reads histograms one after the other; the buffers are kept.
#[derive(Debug, Default)]
pub(super) struct HistogramReader {
    positive: Side,
    negative: Side,
    bounds: Vec<f64>,
    /// The bounds of the histogram before: neighbours usually share them.
    last_bounds: Option<Arc<[f64]>>,
    count_int: u64,
    count_float: f64,
    is_float: bool,
    zero_int: u64,
    zero_float: f64,
    zero_threshold: f64,
    schema: i32,
    hint: u64,
    sum: f64,
    pub ts_ms: i64,
    /// 0 when unknown.
    pub start_ms: i64,
}

impl HistogramReader {
    /// # Errors
    /// Bytes that are no such message, or more of them than the budget allows.
    pub fn read(&mut self, mut fields: Fields<'_>, budget: &mut Budget) -> Result<()> {
        self.positive.clear();
        self.negative.clear();
        self.bounds.clear();
        (self.count_int, self.count_float, self.is_float) = (0, 0.0, false);
        (self.zero_int, self.zero_float, self.zero_threshold) = (0, 0.0, 0.0);
        (self.schema, self.hint, self.sum, self.ts_ms, self.start_ms) = (0, 0, 0.0, 0, 0);
        while let Some(field) = fields.next()? {
            match field.number {
                // Of a oneof, the last one on the wire counts.
                1 => (self.count_int, self.is_float) = (field.varint("CountInt")?, false),
                2 => (self.count_float, self.is_float) = (f64::from_bits(field.fixed64("CountFloat")?), true),
                // By bits: it may be the staleness marker.
                3 => self.sum = f64::from_bits(field.fixed64("Sum")?),
                4 => self.schema = zigzag32(field.varint("Schema")?),
                5 => self.zero_threshold = f64::from_bits(field.fixed64("ZeroThreshold")?),
                6 => (self.zero_int, self.zero_float) = (field.varint("ZeroCountInt")?, 0.0),
                7 => (self.zero_int, self.zero_float) = (0, f64::from_bits(field.fixed64("ZeroCountFloat")?)),
                8 => self
                    .negative
                    .spans
                    .push(span(field.message("NegativeSpans", "BucketSpan")?)?),
                9 => field.each_varint("NegativeDeltas", |n| {
                    self.negative.deltas.push(trilith_codec::unzigzag(n));
                })?,
                10 => field.each_fixed64("NegativeCounts", |n| self.negative.counts.push(f64::from_bits(n)))?,
                11 => self
                    .positive
                    .spans
                    .push(span(field.message("PositiveSpans", "BucketSpan")?)?),
                12 => field.each_varint("PositiveDeltas", |n| {
                    self.positive.deltas.push(trilith_codec::unzigzag(n));
                })?,
                13 => field.each_fixed64("PositiveCounts", |n| self.positive.counts.push(f64::from_bits(n)))?,
                14 => self.hint = field.varint("ResetHint")?,
                15 => self.ts_ms = field.varint("Timestamp")? as i64,
                16 => field.each_fixed64("CustomValues", |n| self.bounds.push(f64::from_bits(n)))?,
                17 => self.start_ms = field.varint("StartTimestamp")? as i64,
                _ => {}
            }
        }
        let spans = self.positive.spans.len() + self.negative.spans.len();
        let counts = self.positive.deltas.len() + self.negative.deltas.len() + self.positive.counts.len();
        let counts = counts + self.negative.counts.len() + self.bounds.len();
        budget.charge_bytes(size_of::<FloatHistogram>() + spans * size_of::<Span>() + counts * size_of::<f64>())
    }

    /// Whether the histogram marks the end of its series. Checked by bits.
    pub fn is_marker(&self) -> bool {
        self.sum.to_bits() == STALE_NAN_BITS
    }

    /// The histogram read last.
    pub fn build(&mut self) -> std::result::Result<FloatHistogram, HistogramError> {
        let mut histogram = FloatHistogram {
            reset_hint: u8::try_from(self.hint)
                .ok()
                .and_then(ResetHint::from_u8)
                .unwrap_or_default(),
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            sum: self.sum,
            ..FloatHistogram::default()
        };
        if self.is_float {
            (histogram.count, histogram.zero_count) = (self.count_float, self.zero_float);
            let (positive, negative) = (self.positive.counts.clone(), self.negative.counts.clone());
            self.check(&mut histogram, positive, negative)?;
        } else {
            (histogram.count, histogram.zero_count) = (self.count_int as f64, self.zero_int as f64);
            let (positive, negative) = (self.positive.absolute(), self.negative.absolute());
            let sum = self.check(&mut histogram, positive, negative)?;
            let sum = u128::try_from(sum).unwrap_or(0) + u128::from(self.zero_int);
            if self.sum.is_nan() && sum > u128::from(self.count_int) {
                return Err(HistogramError::CountNotBigEnough(sum, self.count_int));
            } else if !self.sum.is_nan() && sum != u128::from(self.count_int) {
                return Err(HistogramError::CountMismatch(sum, self.count_int));
            }
        }
        // The store and the arithmetic rely on it.
        histogram.validate().map_err(HistogramError::Invalid)?;
        Ok(histogram)
    }

    /// Fills schema, bounds and buckets, and gives the sum of the populations.
    fn check<C: Count>(
        &mut self,
        out: &mut FloatHistogram,
        positive: Vec<C>,
        negative: Vec<C>,
    ) -> std::result::Result<C, HistogramError> {
        let (mut positive, mut negative) = (
            (self.positive.spans.clone(), positive),
            (self.negative.spans.clone(), negative),
        );
        if (SCHEMA_MAX + 1..=SCHEMA_RESERVED_MAX).contains(&out.schema) {
            let shift = (out.schema - SCHEMA_MAX) as u32;
            positive = reduce(&positive.0, &positive.1, shift)?;
            negative = reduce(&negative.0, &negative.1, shift)?;
            out.schema = SCHEMA_MAX;
        }
        let mut sum = C::default();
        match out.schema {
            CUSTOM_SCHEMA => {
                check_bounds(&self.bounds, &positive.0, positive.1.len())?;
                if out.zero_count != 0.0 {
                    return Err(HistogramError::CustomZeroCount);
                }
                if out.zero_threshold != 0.0 {
                    return Err(HistogramError::CustomZeroThreshold);
                }
                if !negative.0.is_empty() {
                    return Err(HistogramError::CustomNegativeSpans);
                }
                if !negative.1.is_empty() {
                    return Err(HistogramError::CustomNegativeBuckets);
                }
                out.custom_bounds = Some(self.shared_bounds());
            }
            SCHEMA_MIN..=SCHEMA_MAX => {
                check_spans(Part::Positive, &positive.0, positive.1.len())?;
                check_spans(Part::Negative, &negative.0, negative.1.len())?;
                check_counts(Part::Negative, &negative.1, &mut sum)?;
                if out.zero_count < 0.0 {
                    return Err(HistogramError::NegativeZeroBucket(out.zero_count));
                }
                if !self.bounds.is_empty() {
                    return Err(HistogramError::BoundsOfExponential);
                }
            }
            other => return Err(HistogramError::Schema(other)),
        }
        if out.count < 0.0 {
            return Err(HistogramError::NegativeCount(out.count));
        }
        check_counts(Part::Positive, &positive.1, &mut sum)?;
        check_indexes(Part::Positive, &positive.0)?;
        check_indexes(Part::Negative, &negative.0)?;
        out.positive = buckets(positive);
        out.negative = buckets(negative);
        Ok(sum)
    }

    fn shared_bounds(&mut self) -> Arc<[f64]> {
        match &self.last_bounds {
            Some(last) if **last == *self.bounds => last.clone(),
            _ => {
                let bounds: Arc<[f64]> = self.bounds.as_slice().into();
                self.last_bounds = Some(bounds.clone());
                bounds
            }
        }
    }
}

fn buckets<C: Count>((spans, counts): (Vec<Span>, Vec<C>)) -> Buckets {
    Buckets {
        spans,
        counts: counts.into_iter().map(C::as_f64).collect(),
    }
}

fn zigzag32(n: u64) -> i32 {
    let n = n as u32;
    (n >> 1) as i32 ^ -((n & 1) as i32)
}

fn span(mut fields: Fields<'_>) -> Result<Span> {
    let mut span = Span { offset: 0, length: 0 };
    while let Some(field) = fields.next()? {
        match field.number {
            1 => span.offset = zigzag32(field.varint("Offset")?),
            2 => span.length = field.u32("Length")?,
            _ => {}
        }
    }
    Ok(span)
}

/// The number of buckets that spans stand for. Spans are at least two bytes on the wire, so the sum fits.
fn span_buckets(spans: &[Span]) -> u64 {
    spans.iter().map(|s| u64::from(s.length)).sum()
}

fn check_spans(part: Part, spans: &[Span], buckets: usize) -> std::result::Result<(), HistogramError> {
    let mut later = spans.iter().enumerate().skip(1);
    if let Some((i, span)) = later.find(|(_, s)| s.offset < 0) {
        return Err(HistogramError::NegativeOffset(part, i + 1, span.offset));
    }
    let need = span_buckets(spans);
    if need != buckets as u64 {
        return Err(HistogramError::SpanMismatch(part, need, buckets));
    }
    Ok(())
}

fn check_counts<C: Count>(part: Part, counts: &[C], sum: &mut C) -> std::result::Result<(), HistogramError> {
    for (i, &count) in counts.iter().enumerate() {
        if count.is_negative() {
            return Err(HistogramError::NegativeBucket(part, i + 1, count.as_f64()));
        }
        *sum += count;
    }
    Ok(())
}

fn check_indexes(part: Part, spans: &[Span]) -> std::result::Result<(), HistogramError> {
    let mut next = 0i64;
    for span in spans {
        let first = next + i64::from(span.offset);
        next = first + i64::from(span.length);
        for index in [first, next] {
            if !(-INDEX_MAX..=INDEX_MAX).contains(&index) {
                return Err(HistogramError::Index(part, index));
            }
        }
    }
    Ok(())
}

fn check_bounds(bounds: &[f64], spans: &[Span], buckets: usize) -> std::result::Result<(), HistogramError> {
    if bounds.iter().any(|b| b.is_nan()) {
        return Err(HistogramError::BoundNan);
    }
    if let Some([a, b]) = bounds.array_windows().find(|[a, b]| b <= a) {
        return Err(HistogramError::BoundOrder(*a, *b));
    }
    if bounds.last() == Some(&f64::INFINITY) {
        return Err(HistogramError::BoundInfinite);
    }
    if bounds.first() == Some(&f64::NEG_INFINITY) {
        return Err(HistogramError::BoundNegativeInfinite);
    }
    if let Some((i, span)) = spans.iter().enumerate().find(|(_, s)| s.offset < 0) {
        return Err(HistogramError::NegativeOffset(Part::Custom, i + 1, span.offset));
    }
    let need = span_buckets(spans);
    if need != buckets as u64 {
        return Err(HistogramError::SpanMismatch(Part::Custom, need, buckets));
    }
    // Offsets were found not to be negative.
    let total: u64 = need + spans.iter().map(|s| u64::from(s.offset.unsigned_abs())).sum::<u64>();
    if (bounds.len() as u64 + 1) < total {
        return Err(HistogramError::TooFewBounds(bounds.len(), total));
    }
    Ok(())
}

/// Merges buckets to a schema that is coarser by `shift`.
///
/// # Errors
/// Spans that do not fit the populations, with the texts of Prometheus' `reduceResolution`.
fn reduce<C: Count>(
    spans: &[Span],
    counts: &[C],
    shift: u32,
) -> std::result::Result<(Vec<Span>, Vec<C>), HistogramError> {
    let mut out: (Vec<Span>, Vec<C>) = (Vec::new(), Vec::new());
    let mut left = counts.iter();
    let (mut index, mut last) = (0i64, 0i64);
    for (n, span) in spans.iter().enumerate() {
        if n > 0 && span.offset < 0 {
            return Err(HistogramError::NegativeOffset(Part::Whole, n + 1, span.offset));
        }
        index += i64::from(span.offset);
        // Ends with the populations at the latest, however long the span claims to be.
        for _ in 0..span.length {
            let Some(&count) = left.next() else {
                return Err(HistogramError::TooFewBuckets(counts.len()));
            };
            let target = ((index - 1) >> shift) + 1;
            index += 1;
            match (out.0.last_mut(), out.1.last_mut()) {
                (Some(_), Some(merged)) if target == last => *merged += count,
                (Some(span), _) if target == last + 1 => {
                    span.length += 1;
                    out.1.push(count);
                }
                (before, _) => {
                    let gap = if before.is_some() { target - last - 1 } else { target };
                    let offset = i32::try_from(gap).map_err(|_| HistogramError::Index(Part::Whole, target))?;
                    out.0.push(Span { offset, length: 1 });
                    out.1.push(count);
                }
            }
            last = target;
        }
    }
    match left.len() {
        0 => Ok(out),
        extra => {
            let need = (counts.len() - extra) as u64;
            Err(HistogramError::SpanMismatch(Part::Whole, need, counts.len()))
        }
    }
}
