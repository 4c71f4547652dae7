//! Data points as they stand in the message, read into buffers that are used again for the next one.
//!
//! Source: opentelemetry-proto `metrics/v1/metrics.proto`.

use trilith_codec::unzigzag;
use trilith_model::Result;

use super::labels::Attribute;
use super::{Failed, Refused, values};
use crate::wire::{Field, Fields, Varints};

/// Buckets of one side of a histogram, and bounds: several hundred times what SDKs send.
pub const BUCKETS_MAX: usize = 1 << 16;

/// Attributes of a point, resource or scope: more than any tenant has labels.
const ATTRIBUTES_MAX: usize = 1 << 12;
/// Exemplars of a point that are looked at.
const EXEMPLARS_MAX: usize = 1 << 10;
/// Attributes of an exemplar: more have more characters than it may have.
const EXEMPLAR_ATTRIBUTES_MAX: usize = 128;

/// `DataPointFlags.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK`
const NO_RECORDED_VALUE: u32 = 1;

/// The repeated fields of the point at hand.
#[derive(Default)]
pub struct Buffers<'a> {
    pub attributes: Vec<Attribute<'a>>,
    pub exemplars: Vec<Fields<'a>>,
    /// Exemplars beyond [`EXEMPLARS_MAX`].
    pub exemplars_dropped: u64,
    /// Of explicit or positive buckets.
    pub counts: Vec<u64>,
    pub negative: Vec<u64>,
    pub bounds: Vec<f64>,
    /// (quantile, value)
    pub quantiles: Vec<(f64, f64)>,
}

impl Buffers<'_> {
    fn clear(&mut self) {
        self.attributes.clear();
        self.exemplars.clear();
        self.exemplars_dropped = 0;
        self.counts.clear();
        self.negative.clear();
        self.bounds.clear();
        self.quantiles.clear();
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    Int(i64),
    Double(f64),
}

impl Number {
    pub fn as_f64(self) -> f64 {
        match self {
            Number::Int(n) => n as f64,
            Number::Double(x) => x,
        }
    }
}

/// What points of all types have. Times in ns, 0 when not given.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    pub start_ns: u64,
    pub time_ns: u64,
    flags: u32,
}

impl Times {
    /// The point says that there is nothing to say any more.
    pub fn is_stale(&self) -> bool {
        self.flags & NO_RECORDED_VALUE != 0
    }

    /// # Errors
    /// `Refused` for a point without a time.
    fn checked(self) -> std::result::Result<Self, Refused> {
        if self.time_ns == 0 {
            return Err(Refused::new(
                "missing_timestamp",
                "a data point has no timestamp".into(),
            ));
        }
        Ok(self)
    }

    pub fn ts_ms(&self) -> i64 {
        to_ms(self.time_ns)
    }

    /// 0 when unknown or senseless.
    pub fn start_ms(&self) -> i64 {
        let start = to_ms(self.start_ns);
        if start > self.ts_ms() { 0 } else { start }
    }
}

/// OTLP's unsigned nanoseconds are signed ones for everybody who reads them.
pub fn to_ms(ns: u64) -> i64 {
    ns as i64 / 1_000_000
}

/// A `NumberDataPoint`; attributes and exemplars are in the buffers.
///
/// # Errors
/// `Invalid` for bytes that are no such message, `Refused` for a point without a time.
pub fn number<'a>(
    mut fields: Fields<'a>,
    buffers: &mut Buffers<'a>,
) -> std::result::Result<(Times, Option<Number>), Failed> {
    buffers.clear();
    let (mut times, mut value) = (Times::default(), None);
    while let Some(field) = fields.next()? {
        match field.number {
            2 => times.start_ns = field.fixed64("StartTimeUnixNano")?,
            3 => times.time_ns = field.fixed64("TimeUnixNano")?,
            4 => value = Some(Number::Double(double(&field, "AsDouble")?)),
            5 => push_exemplar(&field, buffers)?,
            6 => value = Some(Number::Int(field.fixed64("AsInt")? as i64)),
            7 => attribute(&field, buffers)?,
            8 => times.flags = field.u32("Flags")?,
            _ => {}
        }
    }
    Ok((times.checked()?, value))
}

/// A `HistogramDataPoint` without its repeated fields.
#[derive(Clone, Copy, Debug, Default)]
pub struct Histogram {
    pub times: Times,
    pub count: u64,
    pub sum: Option<f64>,
}

/// A `HistogramDataPoint`: counts, bounds, attributes and exemplars are in the buffers.
///
/// # Errors
/// `Invalid` for bytes that are no such message, `Refused` for more than [`BUCKETS_MAX`] buckets and for a
/// point without a time.
pub fn histogram<'a>(mut fields: Fields<'a>, buffers: &mut Buffers<'a>) -> std::result::Result<Histogram, Failed> {
    buffers.clear();
    let mut out = Histogram::default();
    while let Some(field) = fields.next()? {
        match field.number {
            2 => out.times.start_ns = field.fixed64("StartTimeUnixNano")?,
            3 => out.times.time_ns = field.fixed64("TimeUnixNano")?,
            4 => out.count = field.fixed64("Count")?,
            5 => out.sum = Some(double(&field, "Sum")?),
            6 => fixed64s(&field, "BucketCounts", |n| push(&mut buffers.counts, n, BUCKETS_MAX))?,
            7 => fixed64s(&field, "ExplicitBounds", |n| {
                push(&mut buffers.bounds, f64::from_bits(n), BUCKETS_MAX)
            })?,
            8 => push_exemplar(&field, buffers)?,
            9 => attribute(&field, buffers)?,
            10 => out.times.flags = field.u32("Flags")?,
            _ => {}
        }
    }
    out.times.checked()?;
    Ok(out)
}

/// An `ExponentialHistogramDataPoint` without its repeated fields.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exponential {
    pub times: Times,
    pub count: u64,
    pub sum: Option<f64>,
    pub scale: i32,
    pub zero_count: u64,
    pub zero_threshold: f64,
    /// Indexes of the first positive and the first negative bucket.
    pub positive_offset: i32,
    pub negative_offset: i32,
}

/// An `ExponentialHistogramDataPoint`: bucket counts, attributes and exemplars are in the buffers.
///
/// # Errors
/// As [`histogram`].
pub fn exponential<'a>(mut fields: Fields<'a>, buffers: &mut Buffers<'a>) -> std::result::Result<Exponential, Failed> {
    buffers.clear();
    let mut out = Exponential::default();
    while let Some(field) = fields.next()? {
        match field.number {
            1 => attribute(&field, buffers)?,
            2 => out.times.start_ns = field.fixed64("StartTimeUnixNano")?,
            3 => out.times.time_ns = field.fixed64("TimeUnixNano")?,
            4 => out.count = field.fixed64("Count")?,
            5 => out.sum = Some(double(&field, "Sum")?),
            6 => out.scale = sint32(&field, "Scale")?,
            7 => out.zero_count = field.fixed64("ZeroCount")?,
            8 => side(&field, "Positive", &mut out.positive_offset, &mut buffers.counts)?,
            9 => side(&field, "Negative", &mut out.negative_offset, &mut buffers.negative)?,
            10 => out.times.flags = field.u32("Flags")?,
            11 => push_exemplar(&field, buffers)?,
            14 => out.zero_threshold = double(&field, "ZeroThreshold")?,
            _ => {}
        }
    }
    out.times.checked()?;
    Ok(out)
}

/// A `SummaryDataPoint` without its repeated fields.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    pub times: Times,
    pub count: u64,
    pub sum: f64,
}

/// A `SummaryDataPoint`: quantiles and attributes are in the buffers.
///
/// # Errors
/// As [`number`].
pub fn summary<'a>(mut fields: Fields<'a>, buffers: &mut Buffers<'a>) -> std::result::Result<Summary, Failed> {
    buffers.clear();
    let mut out = Summary::default();
    while let Some(field) = fields.next()? {
        match field.number {
            2 => out.times.start_ns = field.fixed64("StartTimeUnixNano")?,
            3 => out.times.time_ns = field.fixed64("TimeUnixNano")?,
            4 => out.count = field.fixed64("Count")?,
            5 => out.sum = double(&field, "Sum")?,
            6 => {
                let mut fields = field.message("QuantileValues", "ValueAtQuantile")?;
                let mut pair = (0.0, 0.0);
                while let Some(field) = fields.next()? {
                    match field.number {
                        1 => pair.0 = double(&field, "Quantile")?,
                        2 => pair.1 = double(&field, "Value")?,
                        _ => {}
                    }
                }
                push(&mut buffers.quantiles, pair, BUCKETS_MAX)?;
            }
            7 => attribute(&field, buffers)?,
            8 => out.times.flags = field.u32("Flags")?,
            _ => {}
        }
    }
    out.times.checked()?;
    Ok(out)
}

/// An `Exemplar` message.
#[derive(Clone, Debug, Default)]
pub struct RawExemplar<'a> {
    pub time_ns: u64,
    pub value: Option<Number>,
    pub trace_id: &'a [u8],
    pub span_id: &'a [u8],
    /// Not all, when there are too many to be kept.
    pub attributes: Vec<Attribute<'a>>,
}

impl RawExemplar<'_> {
    pub fn has_too_many_attributes(&self) -> bool {
        self.attributes.len() > EXEMPLAR_ATTRIBUTES_MAX
    }
}

/// # Errors
/// `Invalid` for bytes that are no such message.
pub fn exemplar<'a>(mut fields: Fields<'a>) -> Result<RawExemplar<'a>> {
    let mut out = RawExemplar::default();
    while let Some(field) = fields.next()? {
        match field.number {
            2 => out.time_ns = field.fixed64("TimeUnixNano")?,
            3 => out.value = Some(Number::Double(double(&field, "AsDouble")?)),
            4 => out.span_id = field.bytes("SpanId")?,
            5 => out.trace_id = field.bytes("TraceId")?,
            6 => out.value = Some(Number::Int(field.fixed64("AsInt")? as i64)),
            7 => {
                let message = field.message("FilteredAttributes", "KeyValue")?;
                if out.attributes.len() <= EXEMPLAR_ATTRIBUTES_MAX {
                    out.attributes.push(values::key_value(message)?);
                }
            }
            _ => {}
        }
    }
    Ok(out)
}

fn push_exemplar<'a>(field: &Field<'a>, buffers: &mut Buffers<'a>) -> Result<()> {
    let message = field.message("Exemplars", "Exemplar")?;
    if buffers.exemplars.len() < EXEMPLARS_MAX {
        buffers.exemplars.push(message);
    } else {
        buffers.exemplars_dropped += 1;
    }
    Ok(())
}

fn attribute<'a>(field: &Field<'a>, buffers: &mut Buffers<'a>) -> std::result::Result<(), Failed> {
    push_attribute(field, &mut buffers.attributes)
}

/// Adds an attribute of a point, resource or scope.
///
/// # Errors
/// `Invalid` for bytes that are none, `Refused` beyond [`ATTRIBUTES_MAX`].
pub fn push_attribute<'a>(field: &Field<'a>, out: &mut Vec<Attribute<'a>>) -> std::result::Result<(), Failed> {
    let message = field.message("Attributes", "KeyValue")?;
    push(out, values::key_value(message)?, ATTRIBUTES_MAX)
}

fn side(
    field: &Field<'_>,
    name: &'static str,
    offset: &mut i32,
    counts: &mut Vec<u64>,
) -> std::result::Result<(), Failed> {
    let mut fields = field.message(name, "Buckets")?;
    while let Some(field) = fields.next()? {
        match field.number {
            1 => *offset = sint32(&field, "Offset")?,
            2 => match field.bytes("BucketCounts") {
                Ok(packed) => {
                    let mut numbers = Varints::new(packed, "BucketCounts");
                    while let Some(n) = numbers.next()? {
                        push(counts, n, BUCKETS_MAX)?;
                    }
                }
                Err(_) => push(counts, field.varint("BucketCounts")?, BUCKETS_MAX)?,
            },
            _ => {}
        }
    }
    Ok(())
}

fn push<T>(out: &mut Vec<T>, item: T, max: usize) -> std::result::Result<(), Failed> {
    if out.len() == max {
        let message = format!("more than {max} buckets or attributes");
        return Err(Refused::new("too_many_items", message).into());
    }
    out.push(item);
    Ok(())
}

/// A repeated `fixed64` or `double`, packed or one by one.
fn fixed64s(
    field: &Field<'_>,
    name: &'static str,
    mut take: impl FnMut(u64) -> std::result::Result<(), Failed>,
) -> std::result::Result<(), Failed> {
    let Ok(packed) = field.bytes(name) else {
        return take(field.fixed64(name)?);
    };
    let (chunks, rest) = packed.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(trilith_model::Error::invalid(format!("proto: {name}: unexpected EOF")).into());
    }
    chunks.iter().try_for_each(|c| take(u64::from_le_bytes(*c)))
}

fn double(field: &Field<'_>, name: &'static str) -> Result<f64> {
    Ok(f64::from_bits(field.fixed64(name)?))
}

fn sint32(field: &Field<'_>, name: &'static str) -> Result<i32> {
    Ok(unzigzag(u64::from(field.u32(name)?)) as i32)
}
