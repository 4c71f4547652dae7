//! Histograms without their buckets, see [`crate::bucketless`].

use std::sync::Arc;

use trilith_histogram::ResetHint;
use trilith_model::{FloatHistogram, SampleValue};

/// Strips histograms of their buckets; what the buckets tell of resets goes into the hints. Samples up to
/// `before_ms`, inclusive, serve to know the neighbour of the first one after.
pub(super) fn strip(ts: &[i64], values: &[SampleValue], before_ms: i64) -> Vec<SampleValue> {
    let mut last: Option<&FloatHistogram> = None;
    // Whether a histogram was read, and whether the sample right before is one.
    let (mut reading, mut adjacent) = (false, false);
    let stripped = ts.iter().zip(values).map(|(t, value)| {
        let SampleValue::Histogram(h) = value else {
            adjacent = false;
            return value.clone();
        };
        let reset = last.map(|last| h.detect_reset(last));
        let reset_hint = match (h.reset_hint, reset) {
            (ResetHint::Gauge, _) => ResetHint::Gauge,
            // Within a chunk of the store it is known that nothing was reset; a chunk begins with a reset, or after
            // something else than a histogram.
            (_, Some(false)) if reading || adjacent => ResetHint::NotReset,
            (_, Some(true)) if reading => ResetHint::Reset,
            _ => ResetHint::Unknown,
        };
        reading |= *t > before_ms;
        adjacent = true;
        last = Some(h);
        SampleValue::Histogram(Arc::new(FloatHistogram {
            reset_hint,
            schema: h.schema,
            count: h.count,
            sum: h.sum,
            ..FloatHistogram::default()
        }))
    });
    stripped.collect()
}

#[cfg(test)]
mod tests {
    use trilith_histogram::Buckets;

    use super::*;

    fn h(reset_hint: ResetHint, n: f64) -> SampleValue {
        SampleValue::Histogram(Arc::new(FloatHistogram {
            reset_hint,
            count: n,
            positive: Buckets::run(0, vec![n]),
            ..FloatHistogram::default()
        }))
    }

    fn hints(values: &[SampleValue], before_ms: i64) -> Vec<Option<ResetHint>> {
        let ts: Vec<i64> = (0..values.len() as i64).collect();
        let stripped = strip(&ts, values, before_ms);
        let hint = |v: &SampleValue| match v {
            SampleValue::Histogram(h) => {
                assert!(h.positive.counts.is_empty());
                Some(h.reset_hint)
            }
            SampleValue::Float(_) => None,
        };
        stripped.iter().map(hint).collect()
    }

    #[test]
    fn hints_tell_what_buckets_would() {
        use ResetHint::{Gauge, NotReset, Reset, Unknown};
        let counter = [1.0, 2.0, 1.0, 3.0].map(|n| h(Unknown, n));
        let known = |hints: [ResetHint; 4]| hints.map(Some).to_vec();
        assert_eq!(hints(&counter, -1), known([Unknown, NotReset, Reset, NotReset]));
        // The first one read: what the store knows, and no more.
        assert_eq!(
            hints(&counter, 0)[1..],
            known([Unknown, NotReset, Reset, NotReset])[1..]
        );
        assert_eq!(
            hints(&counter, 1)[2..],
            known([Unknown, NotReset, Unknown, NotReset])[2..]
        );
        let mixed = [h(Unknown, 1.0), SampleValue::Float(1.0), h(Unknown, 2.0), h(Gauge, 1.0)];
        assert_eq!(hints(&mixed, -1), [Some(Unknown), None, Some(NotReset), Some(Gauge)]);
        assert_eq!(hints(&mixed, 0)[2..], [Some(Unknown), Some(Gauge)]);
    }
}
