//! Protocol bytes become checked batches. No web framework, no storage: the API layer hands in a body and two
//! headers and gets a `model` batch with the list of what was refused.
//!
//! ```text
//! body ── body::decode ──► raw bytes ── walk ──► checks ──► Decoded { batch, rejections, bytes }
//!         (gzip, snappy, …, under a ceiling)     (labels, ids, limits)          │
//!                                     limits::RateLimiter ◄── bytes ────────────┤
//!                                     MetricSink | LogSink | TraceSink ◄── batch┘
//! ```
//!
//! | protocol | entry point | answer on refusal |
//! |---|---|---|
//! | Prometheus remote write 1.0, 2.0 | [`decode_remote_write`] | [`remote_write::error_of`] |
//! | Loki push, protobuf and JSON | [`decode_loki_push`], [`decode_loki_push_legacy`] | [`loki::error_of`] |
//! | OTLP metrics, protobuf and JSON | [`otlp_metrics::Export`] | [`status`] |
//! | OTLP traces, protobuf and JSON | [`decode_otlp_traces`], [`otlp_traces::from_request`] (gRPC) | [`status`] |
//!
//! The way back, a stored trace as protobuf and as Tempo's JSON, is in [`otlp_traces::out`].
//!
//! Invariants
//! - An `Err` means that nothing of the request may be stored; a `Decoded` holds only items that passed every
//!   check that needs no clock and no stored state. Age limits and counts of series, streams and traces are the
//!   engines' checks: they answer with `Rejection`s of the same form.
//! - No input panics, loops or allocates without bound: bodies are bounded after decompression, lengths are
//!   compared with what is left, nesting is bounded, and decoded items are charged against a budget that is a
//!   multiple of the body.
//! - Values are bit-exact: NaN payloads (staleness markers), line bytes, attribute order, both ends of `i64`.
//! - There is no state but the rate limiter's buckets and the running totals of delta metrics
//!   ([`otlp_metrics::DeltaTotals`]); a crash loses nothing that was acknowledged.

pub mod body;
pub mod fuzzing;
pub mod limits;
pub mod loki;
pub mod otlp_metrics;
pub mod otlp_traces;
mod rejections;
pub mod remote_write;
pub mod status;
mod wire;

use trilith_model::Rejection;

pub use limits::RateLimiter;
pub use loki::{decode_loki_push, decode_loki_push_legacy};
pub use otlp_traces::decode_otlp_traces;
pub use remote_write::decode_remote_write;

/// The headers that decide how a body is read, as received; `None` when absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PushHeaders<'a> {
    pub content_type: Option<&'a str>,
    pub content_encoding: Option<&'a str>,
}

/// A push that could be read, perhaps without some of its items.
#[derive(Clone, Debug)]
pub struct Decoded<B> {
    /// What passed. May be empty: then there is nothing to append.
    pub batch: B,
    /// What did not, with texts for the sender. The rest is still to be stored.
    pub rejections: Vec<Rejection>,
    /// Body bytes after decompression: what the rate limiter charges.
    pub bytes: u64,
    /// Exemplars that were read and cannot be stored; upstream does not fail a push for them.
    pub exemplars_dropped: u64,
}

/// The media type of a content type header: lower case, without parameters.
fn media_type(content_type: &str) -> String {
    let (media, _) = content_type.split_once(';').unwrap_or((content_type, ""));
    media.trim().to_ascii_lowercase()
}

/// The content encoding header: lower case, `identity` and absent are the empty string.
fn content_encoding(headers: &PushHeaders<'_>) -> String {
    let name = headers.content_encoding.unwrap_or_default().trim().to_ascii_lowercase();
    if name == "identity" { String::new() } else { name }
}
