//! The walk over `prometheus.WriteRequest`.

use trilith_model::{Exemplar, Limits, Result, Sample};

use super::series::Collector;
use super::{Version, Write};
use crate::wire::Fields;

pub(super) fn decode(raw: &[u8], limits: &Limits) -> Result<Write> {
    let mut out = Collector::new(limits, Version::V1, raw.len());
    let mut exemplar_labels = Vec::new();
    let mut fields = Fields::new(raw, "WriteRequest");
    while let Some(field) = fields.next()? {
        match field.number {
            1 => series(
                &mut out,
                field.message("Timeseries", "TimeSeries")?,
                &mut exemplar_labels,
            )?,
            3 => metadata(&mut out, field.message("Metadata", "MetricMetadata")?)?,
            _ => {}
        }
    }
    Ok(out.into_write(raw.len()))
}

fn series<'a>(
    out: &mut Collector<'a, '_>,
    mut fields: Fields<'a>,
    exemplar_labels: &mut Vec<(&'a [u8], &'a [u8])>,
) -> Result<()> {
    out.labels.clear();
    let mut any = false;
    while let Some(field) = fields.next()? {
        match field.number {
            1 => {
                out.labels.push(label(field.bytes("Labels")?)?);
            }
            2 => {
                // A message takes at least two bytes on the wire and 16 here: bounded without a budget.
                let sample = sample(field.bytes("Samples")?)?;
                out.batch.samples.push(sample);
                any = true;
            }
            3 => {
                exemplar(out, field.message("Exemplars", "Exemplar")?, exemplar_labels)?;
                any = true;
            }
            4 => {
                out.histogram(field.message("Histograms", "Histogram")?)?;
                any = true;
            }
            _ => {}
        }
    }
    if any {
        out.finish();
    }
    Ok(())
}

fn exemplar<'a>(
    out: &mut Collector<'a, '_>,
    mut fields: Fields<'a>,
    labels: &mut Vec<(&'a [u8], &'a [u8])>,
) -> Result<()> {
    labels.clear();
    let (mut value, mut ts_ms) = (0.0, 0);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => labels.push(label(field.bytes("Labels")?)?),
            2 => value = f64::from_bits(field.fixed64("Value")?),
            3 => ts_ms = field.varint("Timestamp")? as i64,
            _ => {}
        }
    }
    match out.packer.exemplar(labels) {
        Some(labels) => {
            out.budget.charge::<Exemplar>()?;
            out.batch.exemplars.push(Exemplar { labels, value, ts_ms });
        }
        None => out.exemplars_dropped += 1,
    }
    Ok(())
}

fn metadata(out: &mut Collector<'_, '_>, mut fields: Fields<'_>) -> Result<()> {
    let (mut kind, mut family, mut help, mut unit) = (0, &b""[..], &b""[..], &b""[..]);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => kind = field.varint("Type")?,
            2 => family = field.bytes("MetricFamilyName")?,
            4 => help = field.bytes("Help")?,
            5 => unit = field.bytes("Unit")?,
            _ => {}
        }
    }
    out.metadata(kind, family, help, unit)
}

#[inline]
fn label(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    // Name, then value, both short: what every sender writes nearly always.
    if let [0x0a, name_len @ 0..0x80, rest @ ..] = bytes
        && let Some((name, rest)) = rest.split_at_checked(usize::from(*name_len))
        && let [0x12, value_len @ 0..0x80, value @ ..] = rest
        && value.len() == usize::from(*value_len)
    {
        return Ok((name, value));
    }
    let (mut name, mut value) = (&b""[..], &b""[..]);
    let mut fields = Fields::new(bytes, "Label");
    while let Some(field) = fields.next()? {
        match field.number {
            1 => name = field.bytes("Name")?,
            2 => value = field.bytes("Value")?,
            _ => {}
        }
    }
    Ok((name, value))
}

#[inline]
fn sample(bytes: &[u8]) -> Result<Sample> {
    let mut out = Sample { ts_ms: 0, value: 0.0 };
    let mut fields = Fields::new(bytes, "Sample");
    while let Some(field) = fields.next()? {
        match field.number {
            // By bits: the payload of a NaN is the staleness marker.
            1 => out.value = f64::from_bits(field.fixed64("Value")?),
            2 => out.ts_ms = field.varint("Timestamp")? as i64,
            _ => {}
        }
    }
    Ok(out)
}
