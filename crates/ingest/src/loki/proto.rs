//! `logproto.PushRequest` by walking its bytes. Lines are slices of the body.

use bytes::Bytes;
use trilith_model::{Error, ErrorKind, Labels, LabelsBuilder, Limits, LogBatch, LogEntry, Result};

use super::labels::parse_labels;
use super::{Assembler, shown};
use crate::Decoded;
use crate::wire::Fields;

/// Bounds of `google.protobuf.Timestamp`: the years 1 to 9999.
const SECONDS_MIN: i64 = -62_135_596_800;
const SECONDS_MAX: i64 = 253_402_300_799;

pub(super) fn decode(raw: &Bytes, limits: &Limits) -> Result<Decoded<LogBatch>> {
    let mut assembler = Assembler::new(limits, raw.len());
    let mut labels = LabelsBuilder::new();
    let mut fields = Fields::new(raw, "PushRequest");
    while let Some(field) = fields.next()? {
        if field.number == 1 {
            stream(
                raw,
                field.message("Streams", "StreamAdapter")?,
                &mut assembler,
                &mut labels,
            )?;
        }
    }
    assembler.finish(raw.len())
}

fn stream(raw: &Bytes, fields: Fields<'_>, assembler: &mut Assembler<'_>, labels: &mut LabelsBuilder) -> Result<()> {
    assembler.streams_seen += 1;
    // First the labels, wherever they stand: refusals of entries name the stream.
    let (mut text, mut count) = ("", 0);
    let mut all = fields;
    while let Some(field) = all.next()? {
        match field.number {
            1 => {
                text = field
                    .text("Labels")
                    .map_err(|e| Error::invalid(format!("couldn't parse labels: {e}")))?
            }
            2 => count += 1,
            _ => {}
        }
    }
    parse_labels(text, labels)?;
    let stream = assembler.begin(labels, count);
    let mut entries = Vec::new();
    let mut all = fields;
    while let Some(field) = all.next()? {
        if field.number == 2 {
            let entry = field.message("Entries", "EntryAdapter")?;
            if let Some(labels) = &stream {
                entries.extend(read_entry(raw, entry, assembler, labels)?);
            }
        }
    }
    if let Some(labels) = stream {
        assembler.stream(labels, entries);
    }
    Ok(())
}

/// `None`: the entry is refused, and the refusal is recorded.
fn read_entry(
    raw: &Bytes,
    mut fields: Fields<'_>,
    assembler: &mut Assembler<'_>,
    stream: &Labels,
) -> Result<Option<LogEntry>> {
    assembler.budget.charge::<LogEntry>()?;
    let mut time = None;
    let mut line = Bytes::new();
    while let Some(field) = fields.next()? {
        match field.number {
            1 => time = Some(timestamp(field.message("Timestamp", "Timestamp")?)?),
            2 => line = raw.slice_ref(field.bytes("Line")?),
            3 => {
                let (name, value) = pair(field.message("StructuredMetadata", "LabelPairAdapter")?)?;
                assembler.metadata(name, value);
            }
            // 4, `parsed`, is part of answers only.
            _ => {}
        }
    }
    let metadata = assembler.take_metadata();
    let ts_ns = match time.map(|(seconds, nanos)| nanoseconds(seconds, nanos)) {
        Some(Some(ns)) => ns,
        // Years 1 to 1677 and 2262 to 9999, and no time at all, which upstream reads as year 1.
        outside => {
            let future = outside.is_some() && time.is_some_and(|(s, _)| s > 0);
            let reason = if future {
                "too_far_in_future"
            } else {
                "greater_than_max_sample_age"
            };
            assembler.rejections.add(ErrorKind::Invalid, reason, 1, || {
                let seconds = time.map_or(SECONDS_MIN, |(s, _)| s);
                let time = jiff::Timestamp::from_second(seconds).unwrap_or_default();
                let (stream, time) = (shown(stream), time.strftime("%Y-%m-%dT%H:%M:%SZ"));
                if future {
                    return format!("entry for stream '{stream}' has timestamp too new: {time}");
                }
                format!(
                    "entry for stream '{stream}' has timestamp too old: {time}, oldest acceptable timestamp is: \
                     1677-09-21T00:12:44Z"
                )
            });
            return Ok(None);
        }
    };
    let entry = LogEntry { ts_ns, line, metadata };
    Ok(assembler.admit(stream, &entry).then_some(entry))
}

fn nanoseconds(seconds: i64, nanos: i32) -> Option<i64> {
    // In 128 bits: the first second that i64 nanoseconds reach is not a whole one.
    i64::try_from(i128::from(seconds) * 1_000_000_000 + i128::from(nanos)).ok()
}

/// # Errors
/// `Invalid` outside of what a protobuf timestamp may hold, which refuses the request, as upstream's decoder does.
fn timestamp(mut fields: Fields<'_>) -> Result<(i64, i32)> {
    let (mut seconds, mut nanos) = (0i64, 0i32);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => seconds = field.varint("Seconds")? as i64,
            2 => nanos = field.i32("Nanos")?,
            _ => {}
        }
    }
    let bad = if seconds < SECONDS_MIN {
        "before 0001-01-01"
    } else if seconds > SECONDS_MAX {
        "after 10000-01-01"
    } else if !(0..1_000_000_000).contains(&nanos) {
        "nanos not in range [0, 1e9)"
    } else {
        return Ok((seconds, nanos));
    };
    Err(Error::invalid(format!(
        "timestamp: seconds:{seconds} nanos:{nanos}: {bad}"
    )))
}

fn pair<'a>(mut fields: Fields<'a>) -> Result<(&'a [u8], &'a [u8])> {
    let (mut name, mut value) = (&b""[..], &b""[..]);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => name = field.bytes("Name")?,
            2 => value = field.bytes("Value")?,
            _ => {}
        }
    }
    Ok((name, value))
}
