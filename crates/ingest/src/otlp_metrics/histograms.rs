//! Histogram points as native histograms.
//!
//! OTLP numbers exponential buckets so that bucket 0 begins at 1; here it ends there, hence the shift by one.
//!
//! Source: Prometheus `storage/remote/otlptranslator/prometheusremotewrite/histograms.go`.

use std::sync::Arc;

use trilith_histogram::{Buckets, BucketsBuilder, CUSTOM_SCHEMA, FloatHistogram, ResetHint, SCHEMA_MAX, SCHEMA_MIN};

use super::Refused;
use super::points::Exponential;

/// Upstream's width of the zero bucket; that of a point which gives none.
const ZERO_THRESHOLD_DEFAULT: f64 = 1e-128;

/// An exponential histogram; `positive` and `negative` are its counts.
///
/// # Errors
/// `Refused` for a scale below −4, bucket indexes out of range, and counts that do not add up.
pub fn native(
    point: &Exponential,
    positive: &[u64],
    negative: &[u64],
    hint: ResetHint,
) -> Result<FloatHistogram, Refused> {
    if point.scale < SCHEMA_MIN {
        return Err(Refused::new(
            "histogram_scale",
            format!(
                "cannot convert exponential to native histogram. Scale must be >= {SCHEMA_MIN}, was {}",
                point.scale
            ),
        ));
    }
    let schema = point.scale.min(SCHEMA_MAX);
    // A shift by 32 or more takes every 32-bit index to 0 or −1.
    let shift = (point.scale.saturating_sub(schema)).min(40) as u32;
    let threshold = point.zero_threshold;
    let out = FloatHistogram {
        reset_hint: hint,
        schema,
        zero_threshold: if threshold > 0.0 {
            threshold
        } else {
            ZERO_THRESHOLD_DEFAULT
        },
        zero_count: point.zero_count as f64,
        count: point.count as f64,
        sum: point.sum.unwrap_or(0.0),
        positive: buckets(positive, i64::from(point.positive_offset), shift, 1)?,
        negative: buckets(negative, i64::from(point.negative_offset), shift, 1)?,
        custom_bounds: None,
    };
    checked(out)
}

/// A histogram with explicit bounds as one with custom buckets. `counts` has one number per bucket, the overflow bucket
/// last.
///
/// # Errors
/// `Refused` for bounds that are not ascending and finite, and counts that do not add up.
pub fn custom(
    counts: &[u64],
    bounds: &[f64],
    count: u64,
    sum: Option<f64>,
    hint: ResetHint,
) -> Result<FloatHistogram, Refused> {
    checked(FloatHistogram {
        reset_hint: hint,
        schema: CUSTOM_SCHEMA,
        count: count as f64,
        sum: sum.unwrap_or(0.0),
        positive: buckets(counts, 0, 0, 0)?,
        custom_bounds: Some(Arc::from(bounds)),
        ..FloatHistogram::default()
    })
}

/// Empty buckets are left out.
fn buckets(counts: &[u64], offset: i64, shift: u32, add: i64) -> Result<Buckets, Refused> {
    let mut out = BucketsBuilder::with_capacity(counts.iter().filter(|c| **c > 0).count().min(1 << 10));
    for (i, &count) in counts.iter().enumerate().filter(|(_, c)| **c > 0) {
        let index = ((offset + i as i64) >> shift) + add;
        let index = i32::try_from(index)
            .map_err(|_| Refused::new("histogram_invalid", "a bucket index is out of range".into()))?;
        out.push(index, count as f64);
    }
    Ok(out.finish())
}

fn checked(histogram: FloatHistogram) -> Result<FloatHistogram, Refused> {
    match histogram.validate_integer() {
        Ok(()) => Ok(histogram),
        Err(e) => Err(Refused::new("histogram_invalid", e.to_string())),
    }
}
