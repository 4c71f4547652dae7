//! The walk: resources, scopes, metrics, points.
//!
//! Fields of a message may come in any order, so a message is walked twice where later fields decide about earlier ones.

mod histogram;

use std::borrow::Cow;
use std::time::Duration;

use parking_lot::MutexGuard;
use trilith_model::{
    DeltaTemporality, LabelsBuilder, Limits, MetricBatch, MetricMetadata, MetricType, OtlpMetrics, Rejection, Result,
    STALE_NAN_BITS, Sample,
};

use super::delta::Totals;
use super::exemplars::exemplar;
use super::labels::{Added, Attribute, IDENTIFYING, LabelMaker};
use super::names::{NameKind, go_quoted, metric_name, unit_name};
use super::points::{self, Buffers, Times, push_attribute, to_ms};
use super::series::{SeriesIdx, SeriesTable};
use super::values::plain_number;
use super::{Failed, Refused};
use crate::rejections::{Rejections, quoted};
use crate::wire::Fields;
use histogram::BoundTexts;

/// Distance of the points of `target_info`: half of the time that a query looks back, so that it finds one everywhere.
const TARGET_INFO_EVERY_NS: i64 = 150 * 1_000_000_000;
/// Points of `target_info` per resource; a request whose points lie further apart gets the last ones.
const TARGET_INFO_POINTS_MAX: i64 = 1000;

/// The message type of a metric's data, by its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DataKind {
    Gauge,
    Sum,
    Histogram,
    Exponential,
    Summary,
}

impl DataKind {
    fn of(field: u32) -> Option<DataKind> {
        Some(match field {
            5 => DataKind::Gauge,
            7 => DataKind::Sum,
            9 => DataKind::Histogram,
            10 => DataKind::Exponential,
            11 => DataKind::Summary,
            _ => return None,
        })
    }

    fn has_temporality(self) -> bool {
        matches!(self, DataKind::Sum | DataKind::Histogram | DataKind::Exponential)
    }
}

const TEMPORALITY_DELTA: u64 = 1;
const TEMPORALITY_CUMULATIVE: u64 = 2;

/// What stands beside the points of a metric.
struct Data {
    points: u64,
    temporality: u64,
    monotonic: bool,
}

impl Data {
    fn of(mut fields: Fields<'_>) -> Result<Data> {
        let mut out = Data {
            points: 0,
            temporality: 0,
            monotonic: false,
        };
        while let Some(field) = fields.next()? {
            match field.number {
                1 => {
                    field.bytes("DataPoints")?;
                    out.points += 1;
                }
                // Fields 2 and 3 of types without them are unknown fields.
                2 => out.temporality = field.varint("AggregationTemporality").unwrap_or(0),
                3 => out.monotonic = field.varint("IsMonotonic").is_ok_and(|n| n != 0),
                _ => {}
            }
        }
        Ok(out)
    }
}

/// Calls `f` with every metric of a message.
fn each_metric<'a>(message: &'a [u8], mut f: impl FnMut(Fields<'a>) -> Result<()>) -> Result<()> {
    let mut request = Fields::new(message, "ExportMetricsServiceRequest");
    while let Some(field) = request.next()? {
        if field.number != 1 {
            continue;
        }
        let mut resource = field.message("ResourceMetrics", "ResourceMetrics")?;
        while let Some(field) = resource.next()? {
            if field.number != 2 {
                continue;
            }
            let mut scope = field.message("ScopeMetrics", "ScopeMetrics")?;
            while let Some(field) = scope.next()? {
                if field.number == 2 {
                    f(field.message("Metrics", "Metric")?)?;
                }
            }
        }
    }
    Ok(())
}

/// The number of points, and whether some of them are deltas.
///
/// # Errors
/// `Invalid` for bytes that are no such message, as far as it was looked into.
pub fn outline(message: &[u8]) -> Result<(u64, bool)> {
    let (mut points, mut has_deltas) = (0, false);
    each_metric(message, |mut metric| {
        while let Some(field) = metric.next()? {
            if let Some(kind) = DataKind::of(field.number) {
                let data = Data::of(field.message("Data", "Data")?)?;
                points += data.points;
                has_deltas |= kind.has_temporality() && data.temporality == TEMPORALITY_DELTA;
            }
        }
        Ok(())
    })?;
    Ok((points, has_deltas))
}

pub struct Translated {
    pub batch: MetricBatch,
    pub rejections: Vec<Rejection>,
    pub exemplars_dropped: u64,
}

/// `deltas`: the tenant's totals and the time, when there are delta points to be converted.
///
/// # Errors
/// `Invalid` for a malformed message, `TooLarge` for one that expands without measure.
pub fn translate<'a>(
    message: &'a [u8],
    points: usize,
    limits: &'a Limits,
    deltas: Option<(MutexGuard<'a, Totals>, Duration)>,
) -> Result<Translated> {
    let mut translator = Translator {
        settings: &limits.otlp,
        limits,
        labels: LabelMaker::new(&limits.otlp, limits),
        table: SeriesTable::new(message.len(), points),
        rejections: Rejections::default(),
        buffers: Buffers::default(),
        builder: LabelsBuilder::new(),
        deltas,
        bounds: BoundTexts::default(),
        buckets: Vec::new(),
        exemplars_dropped: 0,
        span: Span::default(),
    };
    let mut fields = Fields::new(message, "ExportMetricsServiceRequest");
    while let Some(field) = fields.next()? {
        if field.number == 1 {
            translator.resource(field.message("ResourceMetrics", "ResourceMetrics")?)?;
        }
    }
    Ok(Translated {
        batch: translator.table.into_batch(),
        rejections: translator.rejections.into_vec(),
        exemplars_dropped: translator.exemplars_dropped,
    })
}

struct Translator<'a> {
    settings: &'a OtlpMetrics,
    limits: &'a Limits,
    labels: LabelMaker<'a>,
    table: SeriesTable,
    rejections: Rejections,
    buffers: Buffers<'a>,
    builder: LabelsBuilder,
    deltas: Option<(MutexGuard<'a, Totals>, Duration)>,
    bounds: BoundTexts,
    /// The series of the histogram point at hand, by bucket.
    buckets: Vec<SeriesIdx>,
    exemplars_dropped: u64,
    /// Of the points of the resource at hand.
    span: Span,
}

/// First and last time of points, ns; empty when `first > last`.
#[derive(Clone, Copy)]
struct Span {
    first: u64,
    last: u64,
}

impl Default for Span {
    fn default() -> Self {
        Span {
            first: u64::MAX,
            last: 0,
        }
    }
}

/// A metric and what its points have in common.
struct Metric<'a> {
    family: String,
    /// `<family>_bucket`, `_sum`, `_count`
    bucket: String,
    sum: String,
    count: String,
    kind: MetricType,
    data_kind: DataKind,
    unit: &'a str,
    delta: bool,
}

impl<'a> Translator<'a> {
    fn resource(&mut self, fields: Fields<'a>) -> Result<()> {
        self.span = Span::default();
        let mut attributes = Vec::new();
        let read = resource_attributes(fields, &mut attributes);
        let mut added = match read.and_then(|()| self.labels.resource(&attributes)) {
            Ok(added) => added,
            Err(e) => return self.refuse_metrics(e, fields, 2),
        };
        let mut walk = fields;
        while let Some(field) = walk.next()? {
            if field.number == 2 {
                self.scope(field.message("ScopeMetrics", "ScopeMetrics")?, &mut added)?;
            }
        }
        self.target_info(&attributes, &added)
    }

    fn scope(&mut self, fields: Fields<'a>, added: &mut Added<'a>) -> Result<()> {
        if self.settings.promote_scope_metadata {
            let mut scope = Scope::default();
            let read = scope.read(fields);
            let made = read.and_then(|()| {
                self.labels
                    .scope(added, scope.name, scope.version, scope.schema_url, &scope.attributes)
            });
            if let Err(e) = made {
                return self.refuse_metrics(e, fields, 1);
            }
        }
        let mut walk = fields;
        while let Some(field) = walk.next()? {
            if field.number == 2 {
                self.metric(field.message("Metrics", "Metric")?, added)?;
            }
        }
        Ok(())
    }

    /// Refuses every point of a resource (`levels` 2) or scope (1).
    fn refuse_metrics(&mut self, why: Failed, mut fields: Fields<'a>, levels: u8) -> Result<()> {
        let refused = match why {
            Failed::Request(e) => return Err(e),
            Failed::Item(refused) => refused,
        };
        let mut points = 0;
        let mut count = |mut metric: Fields<'a>| -> Result<()> {
            while let Some(field) = metric.next()? {
                if DataKind::of(field.number).is_some() {
                    points += Data::of(field.message("Data", "Data")?)?.points;
                }
            }
            Ok(())
        };
        while let Some(field) = fields.next()? {
            if field.number != 2 {
                continue;
            }
            let mut inner = field.message("Metrics", "Metrics")?;
            if levels == 1 {
                count(inner)?;
                continue;
            }
            while let Some(field) = inner.next()? {
                if field.number == 2 {
                    count(field.message("Metrics", "Metric")?)?;
                }
            }
        }
        self.refuse(refused, points);
        Ok(())
    }

    fn refuse(&mut self, refused: Refused, points: u64) {
        if points > 0 {
            let message = refused.message;
            self.rejections.add(refused.kind, refused.reason, points, || message);
        }
    }

    fn metric(&mut self, mut fields: Fields<'a>, added: &Added<'a>) -> Result<()> {
        let (mut name, mut description, mut unit, mut found) = ("", "", "", None);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => name = field.text("Metric.Name")?,
                2 => description = field.text("Metric.Description")?,
                3 => unit = field.text("Metric.Unit")?,
                n => {
                    if let Some(kind) = DataKind::of(n) {
                        found = Some((kind, field.message("Data", "Data")?));
                    }
                }
            }
        }
        // A metric of a type that is not known here has no points that could be counted.
        let Some((data_kind, fields)) = found else {
            return Ok(());
        };
        let data = Data::of(fields)?;
        if data.points == 0 {
            return Ok(());
        }
        let metric = match self.describe(name, unit, data_kind, &data) {
            Ok(metric) => metric,
            Err(refused) => {
                self.refuse(refused, data.points);
                return Ok(());
            }
        };
        self.table.metadata(MetricMetadata {
            family: metric.family.clone(),
            kind: metric.kind,
            help: description.to_owned(),
            unit: unit_name(unit, true),
        });
        let mut walk = fields;
        while let Some(field) = walk.next()? {
            if field.number != 1 {
                continue;
            }
            let point = field.message("DataPoints", "DataPoint")?;
            let done = match data_kind {
                DataKind::Gauge | DataKind::Sum => self.number(&metric, added, point),
                DataKind::Histogram => self.histogram(&metric, added, point),
                DataKind::Exponential => self.exponential(&metric, added, point),
                DataKind::Summary => self.summary(&metric, added, point),
            };
            match done {
                Ok(()) => {}
                Err(Failed::Request(e)) => return Err(e),
                Err(Failed::Item(mut refused)) => {
                    refused.message = format!("{}, metric: {}", refused.message, go_quoted(name));
                    self.refuse(refused, 1);
                }
            }
        }
        Ok(())
    }

    fn describe(
        &self,
        name: &str,
        unit: &'a str,
        data_kind: DataKind,
        data: &Data,
    ) -> std::result::Result<Metric<'a>, Refused> {
        let delta = data_kind.has_temporality() && data.temporality == TEMPORALITY_DELTA;
        let cumulative = !data_kind.has_temporality() || data.temporality == TEMPORALITY_CUMULATIVE;
        let converted = delta && self.settings.delta != DeltaTemporality::Reject;
        if !cumulative && !converted {
            return Err(Refused::new(
                "temporality",
                format!(
                    "invalid temporality and type combination for metric {}",
                    go_quoted(name)
                ),
            ));
        }
        let counter = data_kind == DataKind::Sum && data.monotonic;
        let name_kind = match data_kind {
            _ if counter => NameKind::Counter,
            DataKind::Gauge => NameKind::Gauge,
            _ => NameKind::Other,
        };
        let bad_name = |message| Refused::new("metric_name_invalid", message);
        let family = metric_name(self.settings, name, unit, name_kind).map_err(bad_name)?;
        if family.is_empty() {
            return Err(bad_name("received a metric without a name".into()));
        }
        let max = self.limits.label_value_bytes_max as usize;
        // Room for the longest suffix, so that all series of a histogram have the same fate.
        if max > 0 && family.len() + "_bucket".len() > max {
            return Err(Refused::new(
                "label_value_too_long",
                format!(
                    "received a metric whose name length of {} exceeds the limit of {max} (limits.label-value-length), \
                     metric: {}",
                    family.len(),
                    quoted(&family)
                ),
            ));
        }
        let kind = match data_kind {
            _ if delta && self.settings.delta == DeltaTemporality::Store => MetricType::Unknown,
            _ if counter => MetricType::Counter,
            DataKind::Gauge | DataKind::Sum => MetricType::Gauge,
            DataKind::Histogram | DataKind::Exponential => MetricType::Histogram,
            DataKind::Summary => MetricType::Summary,
        };
        let parts = matches!(data_kind, DataKind::Histogram | DataKind::Summary);
        let with = |suffix: &str| {
            if parts {
                format!("{family}{suffix}")
            } else {
                String::new()
            }
        };
        Ok(Metric {
            bucket: with("_bucket"),
            sum: with("_sum"),
            count: with("_count"),
            family,
            kind,
            data_kind,
            unit,
            delta,
        })
    }

    fn number(&mut self, metric: &Metric<'_>, added: &Added<'a>, point: Fields<'a>) -> std::result::Result<(), Failed> {
        let (times, value) = points::number(point, &mut self.buffers)?;
        self.labels
            .point(&self.buffers.attributes, added, None, metric.kind, metric.unit)?;
        let packed = self.labels.series(&metric.family, None);
        let mut start_ms = times.start_ms();
        // As upstream, a point without a value counts as zero.
        let value = value.unwrap_or(points::Number::Int(0));
        let mut float = value.as_f64();
        if times.is_stale() {
            float = f64::from_bits(STALE_NAN_BITS);
            if let Some((totals, _)) = &mut self.deltas {
                totals.forget(packed);
            }
        } else if metric.delta
            && let Some((totals, now)) = &mut self.deltas
        {
            let start_ns;
            (float, start_ns) = totals.number(self.settings, *now, packed, times, value)?;
            start_ms = to_ms(start_ns);
        }
        let series = self.table.series(packed)?;
        self.span.include(times);
        let ts_ms = times.ts_ms();
        self.table.sample(series, Sample { ts_ms, value: float }, start_ms)?;
        if metric.data_kind == DataKind::Sum {
            self.exemplars(ts_ms, |_| series)?;
        }
        Ok(())
    }

    /// Adds the exemplars of the point at hand to the series that `series` gives for their value.
    fn exemplars(&mut self, ts_ms: i64, series: impl Fn(f64) -> SeriesIdx) -> Result<()> {
        self.exemplars_dropped += self.buffers.exemplars_dropped;
        for &fields in &self.buffers.exemplars {
            match exemplar(fields, ts_ms, &mut self.builder)? {
                Some(exemplar) => self.table.exemplar(series(exemplar.value), exemplar)?,
                None => self.exemplars_dropped += 1,
            }
        }
        Ok(())
    }

    fn summary(
        &mut self,
        metric: &Metric<'_>,
        added: &Added<'a>,
        point: Fields<'a>,
    ) -> std::result::Result<(), Failed> {
        let point = points::summary(point, &mut self.buffers)?;
        const EXTRA: &str = "quantile";
        self.labels
            .point(&self.buffers.attributes, added, Some(EXTRA), metric.kind, metric.unit)?;
        self.span.include(point.times);
        let (ts_ms, start_ms) = (point.times.ts_ms(), point.times.start_ms());
        let stale = point.times.is_stale();
        let sample = |value: f64| Sample {
            ts_ms,
            value: if stale { f64::from_bits(STALE_NAN_BITS) } else { value },
        };
        for (name, value) in [(&metric.sum, point.sum), (&metric.count, point.count as f64)] {
            let series = self.table.series(self.labels.series_without(name, EXTRA))?;
            self.table.sample(series, sample(value), start_ms)?;
        }
        for &(quantile, value) in &self.buffers.quantiles {
            let quantile = plain_number(quantile);
            let packed = self.labels.series(&metric.family, Some((EXTRA, &quantile)));
            let series = self.table.series(packed)?;
            self.table.sample(series, sample(value), start_ms)?;
        }
        Ok(())
    }

    /// What a resource says of itself, at the times of its points.
    fn target_info(&mut self, attributes: &[Attribute<'a>], added: &Added<'a>) -> Result<()> {
        let Span { first, last } = self.span;
        // With nothing but job and instance in it the series would say nothing.
        if first > last || attributes.iter().all(|(key, _)| IDENTIFYING.contains(key)) {
            return Ok(());
        }
        match self.labels.target_info(attributes, added) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(Failed::Request(e)) => return Err(e),
            Err(Failed::Item(mut refused)) => {
                refused.message = format!("{}, metric: \"target_info\"", refused.message);
                self.refuse(refused, 1);
                return Ok(());
            }
        }
        let name: Cow<'_, str> = match &*self.settings.namespace {
            "" => "target_info".into(),
            namespace => format!("{namespace}_target_info").into(),
        };
        let series = self.table.series(self.labels.series(&name, None))?;
        self.table.metadata(MetricMetadata {
            family: name.into_owned(),
            kind: MetricType::Gauge,
            help: "Target metadata".into(),
            unit: String::new(),
        });
        let (first, last) = (first as i64, last as i64);
        let earliest = last.saturating_sub(TARGET_INFO_EVERY_NS * TARGET_INFO_POINTS_MAX);
        let mut at = first.max(earliest);
        while at < last {
            self.table.target_info(series, to_ms(at as u64))?;
            at = at.saturating_add(TARGET_INFO_EVERY_NS);
        }
        self.table.target_info(series, to_ms(last as u64))
    }
}

impl Span {
    fn include(&mut self, times: Times) {
        // Zero is "no time"; beyond i64 is no time either.
        if times.time_ns > 0 && i64::try_from(times.time_ns).is_ok() {
            self.first = self.first.min(times.time_ns);
            self.last = self.last.max(times.time_ns);
        }
    }
}

/// The attributes of a `ResourceMetrics`' resource.
fn resource_attributes<'a>(mut fields: Fields<'a>, out: &mut Vec<Attribute<'a>>) -> std::result::Result<(), Failed> {
    while let Some(field) = fields.next()? {
        if field.number != 1 {
            continue;
        }
        let mut resource = field.message("Resource", "Resource")?;
        while let Some(field) = resource.next()? {
            if field.number == 1 {
                push_attribute(&field, out)?;
            }
        }
    }
    Ok(())
}

/// What a `ScopeMetrics` says of its scope.
#[derive(Default)]
struct Scope<'a> {
    name: &'a str,
    version: &'a str,
    schema_url: &'a str,
    attributes: Vec<Attribute<'a>>,
}

impl<'a> Scope<'a> {
    fn read(&mut self, mut fields: Fields<'a>) -> std::result::Result<(), Failed> {
        while let Some(field) = fields.next()? {
            match field.number {
                1 => {
                    let mut scope = field.message("Scope", "InstrumentationScope")?;
                    while let Some(field) = scope.next()? {
                        match field.number {
                            1 => self.name = field.text("Scope.Name")?,
                            2 => self.version = field.text("Scope.Version")?,
                            3 => push_attribute(&field, &mut self.attributes)?,
                            _ => {}
                        }
                    }
                }
                3 => self.schema_url = field.text("ScopeMetrics.SchemaUrl")?,
                _ => {}
            }
        }
        Ok(())
    }
}
