//! What a histogram from outside must fulfil.

use crate::text::format_g;
use crate::{Buckets, CUSTOM_SCHEMA, FloatHistogram, SCHEMA_MAX, SCHEMA_MIN};

/// Schemas that clients may send: finer ones are reduced, coarser ones reserved.
const SCHEMA_MIN_RESERVED: i32 = -9;
const SCHEMA_MAX_RESERVED: i32 = 52;

pub(crate) fn is_exponential(schema: i32) -> bool {
    (SCHEMA_MIN..=SCHEMA_MAX).contains(&schema)
}

pub(crate) fn is_known(schema: i32) -> bool {
    schema == CUSTOM_SCHEMA || (SCHEMA_MIN_RESERVED..=SCHEMA_MAX_RESERVED).contains(&schema)
}

/// What is wrong with a histogram, or with an operation on one. Displayed in Prometheus' words.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum HistogramError {
    InvalidSchema(i32),
    UnknownSchema(i32),
    /// A span after the first, or any of custom buckets, lies before the one before. Counted from 1.
    SpanNegativeOffset {
        span: usize,
        offset: i32,
    },
    SpansMismatch {
        spans: u64,
        buckets: usize,
    },
    /// A bucket's index does not fit.
    SpansTooFar,
    NegativeBucketCount {
        bucket: usize,
        count: f64,
    },
    NegativeZeroCount(f64),
    NegativeCount(f64),
    CountTooSmall {
        buckets: f64,
        count: f64,
    },
    CountMismatch {
        buckets: f64,
        count: f64,
    },
    ZeroThreshold(f64),
    BoundsTooFew {
        bounds: usize,
        needed: u64,
    },
    BoundsNotIncreasing {
        previous: f64,
        current: f64,
    },
    BoundsInfinite,
    BoundsNan,
    CustomZeroCount,
    CustomZeroThreshold,
    CustomNegativeSpans,
    CustomNegativeBuckets,
    ExponentialWithBounds,
    /// Which part the inner error is about: `positive side`, `negative side`, `custom buckets`.
    Part(&'static str, Box<HistogramError>),
    NotCoarser {
        from: i32,
        to: i32,
    },
    /// Of classic buckets: le, count.
    ClassicNegativeBucket {
        le: f64,
        count: f64,
    },
    ClassicNegativeCount(f64),
    ClassicNanBound,
    ClassicNotCumulative {
        before: f64,
        after: f64,
    },
    ClassicCountMismatch {
        count: f64,
        le: f64,
        bucket: f64,
    },
}

impl std::error::Error for HistogramError {}

impl std::fmt::Display for HistogramError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use HistogramError as E;
        match self {
            E::InvalidSchema(s) => write!(
                f,
                "histogram has an invalid schema, which must be between {SCHEMA_MIN} and {SCHEMA_MAX} for exponential \
                 buckets, or {CUSTOM_SCHEMA} for custom buckets, got schema {s}"
            ),
            E::UnknownSchema(s) => write!(
                f,
                "histogram has an unknown schema, which must be between {SCHEMA_MIN_RESERVED} and \
                 {SCHEMA_MAX_RESERVED} for exponential buckets, or {CUSTOM_SCHEMA} for custom buckets, got schema {s}"
            ),
            E::SpanNegativeOffset { span, offset } => write!(
                f,
                "span number {span} with offset {offset}: histogram has a span whose offset is negative"
            ),
            E::SpansMismatch { spans, buckets } => write!(
                f,
                "spans need {spans} buckets, have {buckets} buckets: histogram spans specify different number of \
                 buckets than provided"
            ),
            E::SpansTooFar => f.write_str("histogram spans lead to a bucket index of more than 32 bits"),
            E::NegativeBucketCount { bucket, count } => write!(
                f,
                "bucket number {bucket} has observation count of {}: histogram has a bucket whose observation count \
                 is negative",
                format_g(*count)
            ),
            E::NegativeZeroCount(count) => write!(
                f,
                "zero bucket has observation count of {}: histogram has a bucket whose observation count is negative",
                format_g(*count)
            ),
            E::NegativeCount(count) => write!(
                f,
                "observation count is  {}: histogram's observation count is negative",
                format_g(*count)
            ),
            E::CountTooSmall { buckets, count } => write!(
                f,
                "{buckets} observations found in buckets, but the Count field is {count}: histogram's observation \
                 count should be at least the number of observations found in the buckets"
            ),
            E::CountMismatch { buckets, count } => write!(
                f,
                "{buckets} observations found in buckets, but the Count field is {count}: histogram's observation \
                 count should equal the number of observations found in the buckets (in absence of NaN)"
            ),
            E::ZeroThreshold(t) => write!(f, "histogram has a zero threshold of {}", format_g(*t)),
            E::BoundsTooFew { bounds, needed } => write!(
                f,
                "only {bounds} custom bounds defined which is insufficient to cover total span length of {needed}: \
                 histogram custom bounds are too few"
            ),
            E::BoundsNotIncreasing { previous, current } => write!(
                f,
                "previous bound is {previous:.6} and current is {current:.6}: histogram custom bounds must be in \
                 strictly increasing order"
            ),
            E::BoundsInfinite => {
                f.write_str("last +Inf bound must not be explicitly defined: histogram custom bounds must be finite")
            }
            E::BoundsNan => f.write_str("histogram custom bounds must not be NaN"),
            E::CustomZeroCount => f.write_str("custom buckets: must have zero count of 0"),
            E::CustomZeroThreshold => f.write_str("custom buckets: must have zero threshold of 0"),
            E::CustomNegativeSpans => f.write_str("custom buckets: must not have negative spans"),
            E::CustomNegativeBuckets => f.write_str("custom buckets: must not have negative buckets"),
            E::ExponentialWithBounds => f.write_str("histogram with exponential schema must not have custom bounds"),
            E::Part(part, inner) => write!(f, "{part}: {inner}"),
            E::NotCoarser { from, to } => write!(f, "cannot reduce resolution from schema {from} to {to}"),
            E::ClassicNegativeBucket { le, count } => write!(
                f,
                "bucket count must be non-negative: le={}, count={}",
                format_g(*le),
                format_g(*count)
            ),
            E::ClassicNegativeCount(count) => write!(f, "count must be non-negative: count={}", format_g(*count)),
            E::ClassicNanBound => f.write_str("bucket boundary cannot be NaN"),
            E::ClassicNotCumulative { before, after } => write!(
                f,
                "count is not cumulative: {} < {}",
                format_g(*after),
                format_g(*before)
            ),
            E::ClassicCountMismatch { count, le, bucket } => write!(
                f,
                "count mismatch: count={} != le={} count={}",
                format_g(*count),
                format_g(*le),
                format_g(*bucket)
            ),
        }
    }
}

type Result<T> = std::result::Result<T, HistogramError>;

fn part<T>(name: &'static str, result: Result<T>) -> Result<T> {
    result.map_err(|e| HistogramError::Part(name, Box::new(e)))
}

impl FloatHistogram {
    /// Whether the histogram is well formed: a schema of −4…8 or custom buckets, spans that fit the counts, no
    /// negative counts, bounds that ascend. The count need not be the sum of the buckets, as floats may be rounded.
    ///
    /// # Errors
    /// The first thing wrong.
    pub fn validate(&self) -> Result<()> {
        use HistogramError as E;
        if self.uses_custom_buckets() {
            part("custom buckets", self.check_custom())?;
            if self.zero_count != 0.0 {
                return Err(E::CustomZeroCount);
            }
            if self.zero_threshold != 0.0 {
                return Err(E::CustomZeroThreshold);
            }
            if !self.negative.spans.is_empty() {
                return Err(E::CustomNegativeSpans);
            }
            if !self.negative.counts.is_empty() {
                return Err(E::CustomNegativeBuckets);
            }
        } else if is_exponential(self.schema) {
            part("positive side", check_spans(&self.positive))?;
            part("negative side", check_spans(&self.negative))?;
            part("negative side", check_counts(&self.negative))?;
            if self.zero_count < 0.0 {
                return Err(E::NegativeZeroCount(self.zero_count));
            }
            if self.custom_bounds.is_some() {
                return Err(E::ExponentialWithBounds);
            }
            if self.zero_threshold.is_nan() || self.zero_threshold < 0.0 {
                return Err(E::ZeroThreshold(self.zero_threshold));
            }
        } else {
            return Err(E::InvalidSchema(self.schema));
        }
        if self.count < 0.0 {
            return Err(E::NegativeCount(self.count));
        }
        part("positive side", check_counts(&self.positive))
    }

    /// [`validate`](Self::validate) for a histogram whose producer counts in integers: the count must then be that
    /// of the buckets, or more if NaN was observed.
    ///
    /// # Errors
    /// The first thing wrong.
    pub fn validate_integer(&self) -> Result<()> {
        self.validate()?;
        let buckets = self.negative.counts.iter().sum::<f64>() + self.positive.counts.iter().sum::<f64>();
        let (buckets, count) = (buckets + self.zero_count, self.count);
        if self.sum.is_nan() {
            if buckets > count {
                return Err(HistogramError::CountTooSmall { buckets, count });
            }
        } else if buckets != count {
            return Err(HistogramError::CountMismatch { buckets, count });
        }
        Ok(())
    }

    fn check_custom(&self) -> Result<()> {
        use HistogramError as E;
        let bounds = self.custom_bounds();
        let mut previous = f64::NEG_INFINITY;
        for (i, &current) in bounds.iter().enumerate() {
            if current.is_nan() {
                return Err(E::BoundsNan);
            }
            if i > 0 && current <= previous {
                return Err(E::BoundsNotIncreasing { previous, current });
            }
            previous = current;
        }
        if previous == f64::INFINITY {
            return Err(E::BoundsInfinite);
        }
        let (mut buckets, mut reach) = (0u64, 0u64);
        for (i, span) in self.positive.spans.iter().enumerate() {
            let Ok(offset) = u32::try_from(span.offset) else {
                return Err(E::SpanNegativeOffset {
                    span: i + 1,
                    offset: span.offset,
                });
            };
            buckets = buckets.saturating_add(span.length.into());
            reach = reach.saturating_add(span.length.into()).saturating_add(offset.into());
        }
        check_total(buckets, self.positive.counts.len())?;
        if (bounds.len() as u64) + 1 < reach {
            return Err(E::BoundsTooFew {
                bounds: bounds.len(),
                needed: reach,
            });
        }
        Ok(())
    }
}

fn check_total(spans: u64, buckets: usize) -> Result<()> {
    if spans != buckets as u64 {
        return Err(HistogramError::SpansMismatch { spans, buckets });
    }
    Ok(())
}

fn check_spans(side: &Buckets) -> Result<()> {
    let mut buckets = 0u64;
    let mut end = 0i64;
    for (i, span) in side.spans.iter().enumerate() {
        if i > 0 && span.offset < 0 {
            return Err(HistogramError::SpanNegativeOffset {
                span: i + 1,
                offset: span.offset,
            });
        }
        buckets = buckets.saturating_add(span.length.into());
        end = end
            .saturating_add(span.offset.into())
            .saturating_add(span.length.into());
    }
    check_total(buckets, side.counts.len())?;
    if end > i64::from(i32::MAX) + 1 {
        return Err(HistogramError::SpansTooFar);
    }
    Ok(())
}

fn check_counts(side: &Buckets) -> Result<()> {
    match side.counts.iter().position(|c| *c < 0.0) {
        Some(at) => Err(HistogramError::NegativeBucketCount {
            bucket: at + 1,
            count: side.counts[at],
        }),
        None => Ok(()),
    }
}
