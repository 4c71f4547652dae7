//! Histogram points: classic series, or native histograms.

use trilith_histogram::{FloatHistogram, ResetHint};
use trilith_model::{DeltaTemporality, HistogramSample, STALE_NAN_BITS, Sample};

use super::{Metric, Translator};
use crate::otlp_metrics::labels::Added;
use crate::otlp_metrics::points::{self, Exponential, Histogram, Times, to_ms};
use crate::otlp_metrics::values::plain_number;
use crate::otlp_metrics::{Failed, Refused, histograms};
use crate::wire::Fields;

/// The `le` values of the last bounds: the points of a metric have the same ones.
#[derive(Default)]
pub(super) struct BoundTexts {
    bounds: Vec<f64>,
    texts: Vec<String>,
}

impl BoundTexts {
    fn of(&mut self, bounds: &[f64]) -> &[String] {
        if self.bounds != bounds {
            self.bounds.clear();
            self.bounds.extend_from_slice(bounds);
            self.texts.clear();
            self.texts.extend(bounds.iter().map(|b| plain_number(*b)));
        }
        &self.texts
    }
}

impl<'a> Translator<'a> {
    pub(super) fn histogram(
        &mut self,
        metric: &Metric<'_>,
        added: &Added<'a>,
        point: Fields<'a>,
    ) -> std::result::Result<(), Failed> {
        let mut point = points::histogram(point, &mut self.buffers)?;
        self.tidy_bounds()?;
        let native = self.settings.histograms_to_nhcb;
        let extra = (!native).then_some("le");
        self.labels
            .point(&self.buffers.attributes, added, extra, metric.kind, metric.unit)?;
        let mut start_ms = point.times.start_ms();
        if let Some((totals, now)) = &mut self.deltas
            && metric.delta
        {
            let packed = self.labels.series_without(&metric.family, "le");
            if point.times.is_stale() {
                totals.forget(packed);
            } else {
                let (counts, bounds) = (&self.buffers.counts, &self.buffers.bounds);
                let (total, start_ns) = totals.classic(self.settings, *now, packed, &point, counts, bounds)?;
                start_ms = to_ms(start_ns);
                (point.count, point.sum) = (total.count, total.sum);
                self.buffers.counts.clone_from(&total.counts);
            }
        }
        if native {
            let (counts, bounds) = (&self.buffers.counts, &self.buffers.bounds);
            let histogram = match point.times.is_stale() {
                true => None,
                false => Some(histograms::custom(
                    counts,
                    bounds,
                    point.count,
                    point.sum,
                    self.hint(metric),
                )?),
            };
            return self.native(metric, point.times, start_ms, histogram);
        }
        self.classic(metric, &point, start_ms)
    }

    /// A last bound of +∞ is the overflow bucket by another name; anything else must ascend.
    fn tidy_bounds(&mut self) -> std::result::Result<(), Refused> {
        let (bounds, counts) = (&mut self.buffers.bounds, &mut self.buffers.counts);
        if bounds.last() == Some(&f64::INFINITY) {
            if counts.len() == bounds.len() + 1 {
                let beyond = counts.pop().unwrap_or(0);
                if let Some(last) = counts.last_mut() {
                    *last = last.saturating_add(beyond);
                }
            }
            bounds.pop();
        }
        let ascending = bounds.windows(2).all(|w| w[0] < w[1]);
        let finite = bounds.iter().all(|b| b.is_finite());
        if !ascending || !finite {
            let what = if finite { "not strictly ascending" } else { "not finite" };
            return Err(Refused::new(
                "histogram_invalid",
                format!("histogram bounds are {what}"),
            ));
        }
        Ok(())
    }

    /// The series of a classic histogram.
    fn classic(&mut self, metric: &Metric<'_>, point: &Histogram, start_ms: i64) -> std::result::Result<(), Failed> {
        self.span.include(point.times);
        let ts_ms = point.times.ts_ms();
        let stale = point.times.is_stale();
        let sample = |value: f64| Sample {
            ts_ms,
            value: if stale { f64::from_bits(STALE_NAN_BITS) } else { value },
        };
        if let Some(sum) = point.sum {
            let series = self.table.series(self.labels.series_without(&metric.sum, "le"))?;
            self.table.sample(series, sample(sum), start_ms)?;
        }
        let series = self.table.series(self.labels.series_without(&metric.count, "le"))?;
        self.table.sample(series, sample(point.count as f64), start_ms)?;
        self.buckets.clear();
        let mut below = 0u64;
        let texts = self.bounds.of(&self.buffers.bounds);
        for (le, count) in texts.iter().zip(&self.buffers.counts) {
            below = below.saturating_add(*count);
            let series = self
                .table
                .series(self.labels.series(&metric.bucket, Some(("le", le))))?;
            self.table.sample(series, sample(below as f64), start_ms)?;
            self.buckets.push(series);
        }
        let series = self
            .table
            .series(self.labels.series(&metric.bucket, Some(("le", "+Inf"))))?;
        self.table.sample(series, sample(point.count as f64), start_ms)?;
        self.buckets.push(series);
        if !self.buffers.exemplars.is_empty() {
            let (bounds, buckets) = (
                std::mem::take(&mut self.buffers.bounds),
                std::mem::take(&mut self.buckets),
            );
            let bucket = |value: f64| {
                // NaN is below no bound.
                let at = bounds.partition_point(|b| value.is_nan() || *b < value);
                buckets[at.min(buckets.len() - 1)]
            };
            self.exemplars(ts_ms, bucket)?;
            (self.buffers.bounds, self.buckets) = (bounds, buckets);
        }
        Ok(())
    }

    fn hint(&self, metric: &Metric<'_>) -> ResetHint {
        // Points that are stored as they came do not count from a common start.
        if metric.delta && self.settings.delta == DeltaTemporality::Store {
            ResetHint::Gauge
        } else {
            ResetHint::Unknown
        }
    }

    pub(super) fn exponential(
        &mut self,
        metric: &Metric<'_>,
        added: &Added<'a>,
        point: Fields<'a>,
    ) -> std::result::Result<(), Failed> {
        let point: Exponential = points::exponential(point, &mut self.buffers)?;
        self.labels
            .point(&self.buffers.attributes, added, None, metric.kind, metric.unit)?;
        let mut start_ms = point.times.start_ms();
        if point.times.is_stale() {
            if let Some((totals, _)) = &mut self.deltas {
                totals.forget(self.labels.series(&metric.family, None));
            }
            return self.native(metric, point.times, start_ms, None);
        }
        let (positive, negative) = (&self.buffers.counts, &self.buffers.negative);
        let mut histogram = histograms::native(&point, positive, negative, self.hint(metric))?;
        if let Some((totals, now)) = &mut self.deltas
            && metric.delta
        {
            let packed = self.labels.series(&metric.family, None);
            let start_ns;
            (histogram, start_ns) = totals.native(self.settings, *now, packed, point.times, histogram)?;
            start_ms = to_ms(start_ns);
        }
        self.native(metric, point.times, start_ms, Some(histogram))
    }

    /// A native histogram, or the end of one.
    fn native(
        &mut self,
        metric: &Metric<'_>,
        times: Times,
        start_ms: i64,
        histogram: Option<FloatHistogram>,
    ) -> std::result::Result<(), Failed> {
        self.span.include(times);
        let series = self.table.series(self.labels.series(&metric.family, None))?;
        let ts_ms = times.ts_ms();
        match histogram {
            Some(histogram) => self.table.histogram(
                series,
                HistogramSample {
                    ts_ms,
                    start_ms,
                    histogram: histogram.into(),
                },
            )?,
            None => {
                let value = f64::from_bits(STALE_NAN_BITS);
                self.table.sample(series, Sample { ts_ms, value }, start_ms)?;
            }
        }
        Ok(self.exemplars(ts_ms, |_| series)?)
    }
}
