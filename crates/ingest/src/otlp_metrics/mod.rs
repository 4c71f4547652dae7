//! OTLP metrics: `ExportMetricsServiceRequest` in protobuf and JSON becomes series, as Prometheus translates them.
//!
//! ```text
//! body ─► read ─► Export ─► translate ─► Decoded<MetricBatch>
//!         │ decompress, JSON → protobuf,     │ per resource: job, instance, promoted attributes, target_info
//!         │ count the points                 │ per metric: name, type, unit, metadata
//!         └─ the caller checks the rate ─┘   │ per point: labels, delta totals, native histograms, exemplars
//! ```
//!
//! Two steps, because delta points change the running totals: a request that is refused for its rate must not.
//!
//! Invariants
//! - JSON is rewritten as protobuf ([`json`]), so that there is one translation. It walks the bytes; no message is built.
//! - A point is stored as a whole or refused as a whole, with a reason; a malformed message refuses the request.
//! - Equal label sets of a request are one series of its batch. Labels are sorted.
//! - The only state that outlives a request are the totals of [`delta`].
//!
//! Differences to upstream: one bad point does not refuse the rest of its metric (`docs/adr/0106-otlp-metrics.md`).
//!
//! Source: Prometheus `storage/remote/otlptranslator/prometheusremotewrite`, prometheus/otlptranslator.

mod delta;
mod exemplars;
mod histograms;
mod json;
mod labels;
mod names;
mod points;
mod series;
mod translate;
mod values;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use trilith_model::{DeltaTemporality, Error, ErrorKind, Limits, MetricBatch, Result, TenantId};

use crate::body::{self, Encoding};
use crate::status::Format;
use crate::wire::WireError;
use crate::{Decoded, PushHeaders, content_encoding};

pub use delta::DeltaTotals;

/// A request that could be read, not yet translated.
#[derive(Clone, Debug)]
pub struct Export {
    /// `ExportMetricsServiceRequest`
    pub(crate) message: Bytes,
    /// Bytes as they came, after decompression: what the rate limiter charges.
    pub bytes: u64,
    /// Data points.
    pub points: u64,
    has_deltas: bool,
}

impl Export {
    /// Reads the body of `POST /v1/metrics`. Encodings: none, `gzip`, `zstd`, `deflate`, `zlib`.
    ///
    /// # Errors
    /// `Unsupported` (415) for another content type, `Invalid` (400) for an unknown encoding or unreadable bytes,
    /// `TooLarge` (413) above `limits.request_bytes_max`.
    pub fn read(body: Bytes, headers: &PushHeaders<'_>, limits: &Limits) -> Result<Export> {
        let format = Format::of(headers)?;
        let encoding = match content_encoding(headers).as_str() {
            "" => Encoding::Identity,
            "gzip" => Encoding::Gzip,
            "zstd" => Encoding::Zstd,
            "deflate" | "zlib" => Encoding::Deflate,
            other => {
                return Err(Error::invalid(format!(
                    "unsupported compression: {other}. Only \"gzip\", \"zstd\", \"deflate\" or no compression supported"
                )));
            }
        };
        let raw = body::decode(body, encoding, limits.request_bytes_max)?;
        let bytes = raw.len() as u64;
        let message = match format {
            Format::Protobuf => raw,
            Format::Json => json::to_protobuf(&raw)?.into(),
        };
        Export::of(message, bytes)
    }

    /// A message that came over gRPC, decompressed.
    ///
    /// # Errors
    /// `Invalid` for unreadable bytes, `TooLarge` above `limits.request_bytes_max`.
    pub fn from_message(message: Bytes, limits: &Limits) -> Result<Export> {
        let message = body::decode(message, Encoding::Identity, limits.request_bytes_max)?;
        let bytes = message.len() as u64;
        Export::of(message, bytes)
    }

    fn of(message: Bytes, bytes: u64) -> Result<Export> {
        let (points, has_deltas) = translate::outline(&message)?;
        Ok(Export {
            message,
            bytes,
            points,
            has_deltas,
        })
    }

    /// Makes series of the points. Delta points are added to the totals of `tenant`.
    ///
    /// # Errors
    /// `Invalid` for a malformed message, `TooLarge` for one that expands without measure. Points that cannot be stored
    /// are rejections, not errors.
    pub fn translate(&self, tenant: &TenantId, limits: &Limits, totals: &DeltaTotals) -> Result<Decoded<MetricBatch>> {
        let own = (self.has_deltas && limits.otlp.delta == DeltaTemporality::Convert).then(|| totals.tenant(tenant));
        let deltas = own.as_ref().map(|own| {
            let mut own = own.totals.lock();
            own.sweep(&limits.otlp, totals.now());
            (own, totals.now())
        });
        let points = usize::try_from(self.points).unwrap_or(usize::MAX);
        let translated = translate::translate(&self.message, points, limits, deltas);
        if let Some(own) = &own {
            own.note_usage();
        }
        let translated = translated?;
        Ok(Decoded {
            batch: translated.batch,
            rejections: translated.rejections,
            bytes: self.bytes,
            exemplars_dropped: translated.exemplars_dropped,
        })
    }
}

/// Why one point cannot be stored.
#[derive(Clone, Debug, PartialEq)]
struct Refused {
    kind: ErrorKind,
    reason: &'static str,
    message: String,
}

impl Refused {
    fn new(reason: &'static str, message: String) -> Self {
        Refused {
            kind: ErrorKind::Invalid,
            reason,
            message,
        }
    }
}

/// Why a step failed: the whole request, or the item at hand.
#[derive(Clone, Debug)]
enum Failed {
    Request(Error),
    Item(Refused),
}

impl From<Error> for Failed {
    fn from(e: Error) -> Self {
        Failed::Request(e)
    }
}

impl From<WireError> for Failed {
    fn from(e: WireError) -> Self {
        Failed::Request(e.into())
    }
}

impl From<Refused> for Failed {
    fn from(r: Refused) -> Self {
        Failed::Item(r)
    }
}
