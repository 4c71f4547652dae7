//! Prometheus remote write: a snappy block of `prometheus.WriteRequest` (1.0) or `io.prometheus.write.v2.Request`
//! (2.0). The content type tells which.
//!
//! ```text
//! body ── snappy ──► v1 | v2: walk ──► series::Collector ──► Write { batch, rejections, … }
//!                                       │ labels::Packer       checks, packs
//!                                       └ histogram            checks, float populations
//! ```
//!
//! The message is walked, never built: labels are packed straight from the wire into the batch's arena, and a
//! sender that sorts its labels (all known ones do) costs no sorting and no allocation per series.
//!
//! What upstream does with bad items differs: Prometheus skips bad series of 1.0 and says nothing, stores the good part
//! of 2.0 and answers 400; Mimir does the latter for both. Here: store the good ones, answer 400 and name the bad
//! ones, so that nothing disappears silently. Senders drop a request on 400 and never retry it, so the good part is
//! not sent twice. An exemplar that cannot be stored is dropped without an error
//! (`docs/adr/0081-remote-write-refusals.md`, `docs/adr/0102-remote-write-2.md`).

mod histogram;
mod labels;
mod series;
mod v1;
mod v2;

use bytes::Bytes;
use trilith_model::{Appended, Error, ErrorKind, Limits, MetricBatch, Rejection, Result};

use crate::body::{self, Encoding};
use crate::{PushHeaders, content_encoding};

#[cfg(test)]
mod tests;

const MEDIA_TYPE: &str = "application/x-protobuf";
const MESSAGE_V1: &str = "prometheus.WriteRequest";
const MESSAGE_V2: &str = "io.prometheus.write.v2.Request";

/// Which message a request holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

/// A request that could be read, perhaps without some of its items.
#[derive(Clone, Debug)]
pub struct Write {
    pub version: Version,
    /// What passed. May be empty: then there is nothing to append.
    pub batch: MetricBatch,
    /// What did not, with texts for the sender. The rest is still to be stored.
    pub rejections: Vec<Rejection>,
    /// Body bytes after decompression: what the rate limiter charges.
    pub bytes: u64,
    /// Exemplars that were read and cannot be stored.
    pub exemplars_dropped: u64,
    /// Staleness markers among the batch's samples that came as histograms, and count as such for the sender.
    pub histogram_markers: u64,
}

/// What became of a 2.0 request, for the headers that every answer to one has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub samples: u64,
    pub histograms: u64,
    pub exemplars: u64,
}

impl Written {
    /// `histogram_markers` as in [`Write`]. When samples were refused, a marker is taken for stored as long as samples
    /// were: the store does not tell them apart.
    pub fn of(appended: &Appended, histogram_markers: u64) -> Self {
        let floats = appended.accepted.saturating_sub(appended.histograms);
        let markers = histogram_markers.min(floats);
        Written {
            samples: floats - markers,
            histograms: appended.histograms + markers,
            exemplars: appended.exemplars,
        }
    }

    pub fn headers(self) -> [(&'static str, u64); 3] {
        [
            ("x-prometheus-remote-write-samples-written", self.samples),
            ("x-prometheus-remote-write-histograms-written", self.histograms),
            ("x-prometheus-remote-write-exemplars-written", self.exemplars),
        ]
    }
}

/// Which message the content type announces. As Prometheus: an absent one means 1.0.
///
/// # Errors
/// `Unsupported` (415) for another media type or message, with Prometheus' text.
pub fn version(headers: &PushHeaders<'_>) -> Result<Version> {
    let content_type = match headers.content_type {
        None | Some("") => return Ok(Version::V1),
        Some(t) => t,
    };
    let mut parts = content_type.split(';').map(str::trim);
    if parts.next().is_none_or(|m| !m.eq_ignore_ascii_case(MEDIA_TYPE)) {
        return Err(Error::unsupported(format!(
            "expected {MEDIA_TYPE} as the first (media) part, got {content_type} content-type"
        )));
    }
    for part in parts {
        let Some((name, value)) = part.split_once('=') else {
            return Err(Error::unsupported(format!(
                "as per https://www.rfc-editor.org/rfc/rfc9110#parameter expected parameters to be key-values, \
                 got {part} in {content_type} content-type"
            )));
        };
        if !name.eq_ignore_ascii_case("proto") {
            continue;
        }
        return match value.trim_matches('"') {
            MESSAGE_V1 => Ok(Version::V1),
            MESSAGE_V2 => Ok(Version::V2),
            other => Err(Error::unsupported(format!(
                "got {content_type} content type; unknown type for remote write protobuf message {other}, supported: \
                 {MESSAGE_V1}, {MESSAGE_V2}"
            ))),
        };
    }
    Ok(Version::V1)
}

/// Decides whether a request with these headers can be read, before its body is. An absent encoding means snappy.
///
/// # Errors
/// `Unsupported` (415) from [`version`] and for another encoding. A 2.0 sender falls back to 1.0 upon it.
pub fn negotiate(headers: &PushHeaders<'_>) -> Result<Version> {
    let version = version(headers)?;
    match content_encoding(headers).as_str() {
        "" | "snappy" => Ok(version),
        other => Err(Error::unsupported(format!(
            "{other} encoding (compression) is not accepted by this server; only snappy is acceptable"
        ))),
    }
}

/// Decodes one request.
///
/// # Errors
/// `Unsupported` (415) from [`negotiate`], `TooLarge` (413) above `limits.request_bytes_max`, `Invalid` (400)
/// for bytes that are not a snappy block of the message, or a 2.0 request whose first symbol is not empty. Bad series
/// are rejections, not errors.
pub fn decode_remote_write(body: Bytes, headers: &PushHeaders<'_>, limits: &Limits) -> Result<Write> {
    let version = negotiate(headers)?;
    let raw = body::decode(body, Encoding::SnappyBlock, limits.request_bytes_max)?;
    decode_message(version, &raw, limits)
}

/// The message after decompression; also the entry for fuzzing.
pub(crate) fn decode_message(version: Version, raw: &[u8], limits: &Limits) -> Result<Write> {
    match version {
        Version::V1 => v1::decode(raw, limits),
        Version::V2 => v2::decode(raw, limits),
    }
}

/// What to answer when some items were refused: one error of the gravest kind, or `None` for an empty list.
/// `LimitExceeded` (429) goes before 400, because the sender may retry it.
///
/// The texts are joined by line feeds in 2.0, as Prometheus has it; there the headers tell how much was stored.
pub fn error_of(version: Version, rejections: &[Rejection]) -> Option<Error> {
    let limited = rejections.iter().any(|r| r.kind == ErrorKind::LimitExceeded);
    let kind = if limited {
        ErrorKind::LimitExceeded
    } else {
        rejections.first()?.kind
    };
    let texts = rejections.iter().map(|r| match (version, r.count) {
        (Version::V2, _) | (Version::V1, 1) => r.message.clone(),
        (Version::V1, n) => format!("{} ({n} samples refused)", r.message),
    });
    let separator = match version {
        Version::V1 => "; ",
        Version::V2 => "\n",
    };
    let mut error = Error::new(kind, texts.collect::<Vec<_>>().join(separator));
    error.retry_after = limited.then_some(std::time::Duration::from_secs(1));
    Some(error)
}
