//! OTLP receivers, HTTP (`POST /v1/traces`, `/v1/metrics`) and gRPC, for traces and metrics.
//!
//! Refusals that a retry may cure are errors with a retry hint, as OpenTelemetry senders expect; refusals for good
//! are a partial success, so that senders drop what cannot be stored and go on; metrics of which nothing could be stored
//! are an error.

pub(crate) mod grpc;
mod http;
pub(crate) mod metrics;
mod metrics_grpc;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::post;
use trilith_model::{Appended, Limits, Rejection, Result, Signal, TenantId, TraceBatch, TraceSink};
use trilith_proto::otlp::collector::trace::v1::trace_service_server::TraceServiceServer;

use crate::common::Shared;

pub use metrics::MetricsReceiver;

/// What the receivers work on.
#[derive(Clone)]
pub struct Otlp {
    pub shared: Shared,
    pub traces: Arc<dyn TraceSink>,
    pub rates: Arc<trilith_ingest::RateLimiter>,
    pub metrics: MetricsReceiver,
}

/// Front-page links.
pub const HTTP_LINKS: &[(&str, &str)] = &[
    ("POST /v1/traces", "OTLP traces, protobuf or JSON, gzip or zstd"),
    ("POST /v1/metrics", "OTLP metrics, protobuf or JSON, gzip or zstd"),
];
pub const GRPC_LINKS: &[(&str, &str)] = &[
    (
        "gRPC opentelemetry.proto.collector.trace.v1.TraceService/Export",
        "OTLP traces, gzip or zstd",
    ),
    (
        "gRPC opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        "OTLP metrics, gzip or zstd",
    ),
];

/// Messages above this size are refused by the gRPC layer before a tenant is known, because decoded messages may take
/// thirty times their size; the limit of the tenant is checked after.
const GRPC_MESSAGE_BYTES_MAX: usize = 32 << 20;

pub fn http_router(otlp: Otlp) -> Router {
    Router::new()
        .route("/v1/traces", post(http::traces))
        .route("/v1/metrics", post(metrics::otlp))
        .layer(DefaultBodyLimit::disable())
        .with_state(otlp)
}

pub fn grpc_router(otlp: Otlp) -> Router {
    use tonic::codec::CompressionEncoding::{Gzip, Zstd};
    let metrics = metrics_grpc::MetricsService(otlp.metrics.clone());
    let traces = TraceServiceServer::new(grpc::Receiver { otlp })
        .accept_compressed(Gzip)
        .accept_compressed(Zstd)
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX);
    tonic::service::Routes::new(traces)
        .add_service(metrics)
        .into_axum_router()
}

/// What the store made of an export.
struct Stored {
    /// Refused for good; the rest is stored.
    rejected: u64,
    message: String,
}

impl Otlp {
    /// Charges, appends and sorts the refusals.
    async fn store(
        &self,
        tenant: &TenantId,
        limits: &Limits,
        batch: TraceBatch,
        bytes: u64,
        mut rejections: Vec<Rejection>,
    ) -> Result<Stored> {
        let spans = batch.span_count();
        self.rates.check(tenant, Signal::Traces, limits, bytes, spans as u64)?;
        let appended = if spans == 0 {
            Appended::default()
        } else {
            self.traces.append(tenant, batch).await?
        };
        rejections.extend(appended.rejections);
        if let Some(error) = trilith_ingest::status::retryable(&rejections) {
            return Err(error);
        }
        Ok(Stored {
            rejected: rejections.iter().map(|r| r.count).sum(),
            message: rejections.into_iter().map(|r| r.message).collect::<Vec<_>>().join("; "),
        })
    }
}
