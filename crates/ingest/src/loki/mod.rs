//! Loki's push: `logproto.PushRequest` in a snappy block, and two forms of JSON.
//!
//! The media type decides: `application/json` is JSON, anything else is protobuf, and a missing content type is
//! refused, as upstream does. Lines are slices of the decompressed body wherever the format allows it (always in
//! protobuf, without escapes in JSON), so a push costs one buffer.
//!
//! Two kinds of refusal, as upstream: what cannot be read (labels that do not parse, a timestamp that is no number)
//! refuses the request; what can be read and breaks a limit refuses the entry or the stream, and the rest is stored.
//!
//! Discovery of `service_name` and `detected_level` is not part of decoding. Its place is `Assembler::begin`
//! (labels of a stream, before the check that at least one exists) and `Assembler::entry` (metadata of an entry,
//! after its limits were checked); until it exists, labels and metadata are stored as sent.

mod json;
mod labels;
mod proto;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use trilith_model::{
    Error, ErrorKind, Labels, LabelsBuilder, Limits, LogBatch, LogEntry, LogStream, Rejection, Result,
};

use crate::body::{self, Budget, Encoding};
use crate::rejections::{Rejections, quoted};
use crate::{Decoded, PushHeaders, content_encoding, media_type};

pub use labels::parse_labels;

/// Decodes the body of `POST /loki/api/v1/push`.
///
/// # Errors
/// `Invalid` (400) for an unknown encoding and for bytes that cannot be read, `Execution` (422) for a request
/// without streams, `TooLarge` (413) above `limits.request_bytes_max`. Nothing of such a request may be stored.
pub fn decode_loki_push(body: Bytes, headers: &PushHeaders<'_>, limits: &Limits) -> Result<Decoded<LogBatch>> {
    decode(body, headers, limits, json::Form::V1)
}

/// Decodes the body of `POST /api/prom/push`: the same protobuf, or the older JSON with label text and RFC 3339 times.
///
/// # Errors
/// As [`decode_loki_push`].
pub fn decode_loki_push_legacy(body: Bytes, headers: &PushHeaders<'_>, limits: &Limits) -> Result<Decoded<LogBatch>> {
    decode(body, headers, limits, json::Form::Legacy)
}

fn decode(body: Bytes, headers: &PushHeaders<'_>, limits: &Limits, form: json::Form) -> Result<Decoded<LogBatch>> {
    let media = match headers.content_type.map(media_type) {
        None => return Err(Error::invalid("mime: no media type")),
        Some(m) if m.is_empty() => return Err(Error::invalid("mime: no media type")),
        Some(m) => m,
    };
    let outer = match content_encoding(headers).as_str() {
        // Agents mark the snappy block inside with this header; it is not another layer.
        "" | "snappy" => Encoding::Identity,
        "gzip" => Encoding::Gzip,
        "deflate" => Encoding::Deflate,
        other => {
            return Err(Error::invalid(format!("Content-Encoding \"{other}\" not supported")));
        }
    };
    let raw = body::decode(body, outer, limits.request_bytes_max)?;
    if media == "application/json" {
        json::decode(&raw, form, limits)
    } else {
        let raw = body::decode(raw, Encoding::SnappyBlock, limits.request_bytes_max)?;
        proto::decode(&raw, limits)
    }
}

/// What to answer when some items were refused: upstream's text, `None` for an empty list.
///
/// One error is given as it is, several become `N errors like: …; M errors like: …`. Refusals by a rate or count
/// (`LimitExceeded`, 429) hide the others, as upstream: the sender retries and meets the others then.
pub fn error_of(rejections: &[Rejection]) -> Option<Error> {
    let limited = rejections.iter().any(|r| r.kind == ErrorKind::LimitExceeded);
    let shown: Vec<&Rejection> = rejections
        .iter()
        .filter(|r| !limited || r.kind == ErrorKind::LimitExceeded)
        .collect();
    // A stream that is refused as a whole is one error, however many entries it has.
    let errors = |r: &Rejection| {
        if STREAM_REASONS.contains(&r.reason) { 1 } else { r.count }
    };
    let text = match shown.as_slice() {
        [] => return None,
        [one] if errors(one) <= 1 => one.message.clone(),
        // The multi-line texts of the stream limits already list and count their entries.
        [one] if limited => one.message.clone(),
        many => {
            let each = many.iter().map(|r| format!("{} errors like: {}", errors(r), r.message));
            each.collect::<Vec<_>>().join("; ")
        }
    };
    // A line above the size limit is `TooLarge` in kind and 400 in upstream's answer.
    let kind = if limited {
        ErrorKind::LimitExceeded
    } else {
        ErrorKind::Invalid
    };
    let mut error = Error::new(kind, text);
    error.retry_after = limited.then_some(std::time::Duration::from_secs(1));
    Some(error)
}

/// Reasons that refuse a whole stream.
const STREAM_REASONS: [&str; 5] = [
    "missing_labels",
    "max_label_names_per_series",
    "label_name_too_long",
    "label_value_too_long",
    "duplicate_label_names",
];

/// Puts streams and entries together and applies the limits that need no clock, the same for all formats.
struct Assembler<'l> {
    limits: &'l Limits,
    batch: LogBatch,
    rejections: Rejections,
    budget: Budget,
    /// Streams in the request, stored or not.
    streams_seen: u64,
    /// Scratch for metadata.
    builder: LabelsBuilder,
    /// Cloned for every entry without metadata, which is most of them.
    no_metadata: Labels,
}

impl<'l> Assembler<'l> {
    fn new(limits: &'l Limits, body_bytes: usize) -> Self {
        Assembler {
            limits,
            batch: LogBatch::default(),
            rejections: Rejections::default(),
            budget: Budget::for_body(body_bytes),
            streams_seen: 0,
            builder: LabelsBuilder::new(),
            no_metadata: Labels::empty(),
        }
    }

    /// Starts a stream of `entries` entries. `None`: it is refused, and the refusal is recorded.
    ///
    /// `labels` holds the pairs as sent; empty values are dropped, order does not matter.
    fn begin(&mut self, labels: &mut LabelsBuilder, entries: u64) -> Option<Labels> {
        if entries == 0 {
            labels.clear();
            return None;
        }
        let duplicate = labels.duplicate().map(str::to_owned);
        let labels = labels.finish();
        let refused = match duplicate {
            Some(name) => Some((
                "duplicate_label_names",
                format!(
                    "stream '{}' has duplicate label name: '{}'",
                    shown(&labels),
                    quoted(&name)
                ),
            )),
            None => self.bad_labels(&labels),
        };
        let Some((reason, message)) = refused else {
            return Some(labels);
        };
        self.rejections.add(ErrorKind::Invalid, reason, entries, || message);
        None
    }

    fn bad_labels(&self, labels: &Labels) -> Option<(&'static str, String)> {
        let limits = self.limits;
        if labels.is_empty() {
            let message = "error at least one label pair is required per stream".to_owned();
            return Some(("missing_labels", message));
        }
        let (names_max, names) = (limits.label_names_max as usize, labels.len());
        if names_max > 0 && names > names_max {
            return Some((
                "max_label_names_per_series",
                format!(
                    "entry for stream '{}' has {names} label names; limit {names_max}",
                    shown(labels)
                ),
            ));
        }
        for label in labels.iter() {
            if limits.label_name_bytes_max > 0 && label.name.len() > limits.label_name_bytes_max as usize {
                return Some((
                    "label_name_too_long",
                    format!(
                        "stream '{}' has label name too long: '{}'",
                        shown(labels),
                        quoted(label.name)
                    ),
                ));
            }
            if limits.label_value_bytes_max > 0 && label.value.len() > limits.label_value_bytes_max as usize {
                return Some((
                    "label_value_too_long",
                    format!(
                        "stream '{}' has label value too long: '{}'",
                        shown(labels),
                        quoted(label.value)
                    ),
                ));
            }
        }
        None
    }

    /// Adds one pair of structured metadata of the entry at hand, its name normalised.
    fn metadata(&mut self, name: &[u8], value: &[u8]) {
        self.builder.push(&metadata_name(name), &metadata_value(value));
    }

    /// Takes the metadata collected so far.
    fn take_metadata(&mut self) -> Labels {
        let packed = self.builder.pack();
        let metadata = if packed.is_empty() {
            self.no_metadata.clone()
        } else {
            packed.to_owned()
        };
        self.builder.clear();
        metadata
    }

    /// Whether an entry of the stream is within its limits; a refusal is recorded.
    fn admit(&mut self, stream: &Labels, entry: &LogEntry) -> bool {
        let limits = self.limits;
        let line = entry.line.len() as u64;
        if limits.line_bytes_max > 0 && line > limits.line_bytes_max {
            self.rejections.add(ErrorKind::TooLarge, "line_too_long", 1, || {
                format!(
                    "max entry size '{}' bytes exceeded for stream '{}' while adding an entry with length '{line}' bytes",
                    limits.line_bytes_max,
                    shown(stream)
                )
            });
            return false;
        }
        if entry.metadata.is_empty() {
            return true;
        }
        let (count, bytes) = entry.metadata.iter().fold((0u64, 0u64), |(count, bytes), l| {
            (count + 1, bytes + (l.name.len() + l.value.len()) as u64)
        });
        let (count_max, bytes_max) = (
            limits.structured_metadata_count_max,
            limits.structured_metadata_bytes_max,
        );
        if bytes_max > 0 && bytes > bytes_max {
            self.rejections
                .add(ErrorKind::TooLarge, "structured_metadata_too_large", 1, || {
                    format!(
                        "stream '{}' has structured metadata too large: '{bytes}' bytes, limit: '{bytes_max}' bytes. \
                     Please see limits.structured-metadata-size",
                        shown(stream)
                    )
                });
            return false;
        }
        if count_max > 0 && count > u64::from(count_max) {
            self.rejections
                .add(ErrorKind::Invalid, "structured_metadata_too_many", 1, || {
                    format!(
                        "stream '{}' has too many structured metadata labels: '{count}', limit: '{count_max}'. \
                     Please see limits.structured-metadata-count",
                        shown(stream)
                    )
                });
            return false;
        }
        true
    }

    fn stream(&mut self, labels: Labels, entries: Vec<LogEntry>) {
        if !entries.is_empty() {
            self.batch.streams.push(LogStream { labels, entries });
        }
    }

    /// # Errors
    /// `Execution` (422) when the request had no streams.
    fn finish(self, body_bytes: usize) -> Result<Decoded<LogBatch>> {
        if self.streams_seen == 0 {
            return Err(Error::new(
                ErrorKind::Execution,
                "error at least one valid stream is required for ingestion",
            ));
        }
        Ok(Decoded {
            batch: self.batch,
            rejections: self.rejections.into_vec(),
            bytes: body_bytes as u64,
            exemplars_dropped: 0,
        })
    }
}

/// A stream's labels for a message.
fn shown(labels: &Labels) -> String {
    quoted(&labels.to_string()).into_owned()
}

/// Every byte that is no part of `[A-Za-z0-9_]` becomes `_` (one per character), runs of `_` collapse, a leading
/// digit gets `key_` in front. Names that are label names already stay as they are, runs included.
fn metadata_name(name: &[u8]) -> std::borrow::Cow<'_, str> {
    let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    if let Ok(text) = std::str::from_utf8(name)
        && name.iter().all(word)
        && name.first().is_some_and(|b| !b.is_ascii_digit())
    {
        return text.into();
    }
    let mut out = String::with_capacity(name.len() + 4);
    if name.first().is_some_and(u8::is_ascii_digit) {
        out.push_str("key_");
    }
    for c in String::from_utf8_lossy(name).chars() {
        let c = if c.is_ascii_alphanumeric() { c } else { '_' };
        if c != '_' || !out.ends_with('_') {
            out.push(c);
        }
    }
    if out.is_empty() {
        out.push('_');
    }
    out.into()
}

/// Bytes that are not UTF-8 become spaces, as upstream stores them.
fn metadata_value(value: &[u8]) -> std::borrow::Cow<'_, str> {
    match std::str::from_utf8(value) {
        Ok(text) => text.into(),
        Err(_) => {
            let mut out = String::with_capacity(value.len());
            for chunk in value.utf8_chunks() {
                out.push_str(chunk.valid());
                out.extend(chunk.invalid().iter().map(|_| ' '));
            }
            out.into()
        }
    }
}

/// The message after decompression, for fuzzing.
pub(crate) fn decode_protobuf(raw: &[u8], limits: &Limits) -> Result<Decoded<LogBatch>> {
    proto::decode(&Bytes::copy_from_slice(raw), limits)
}
