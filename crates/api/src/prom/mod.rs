//! The Prometheus HTTP API under `/api/v1`.
//!
//! Shapes, status codes and error texts are Prometheus 3's. Parameters come from the URL and from a form body,
//! merged; unknown ones are ignored.

mod envelope;
mod labels;
mod query;
mod result;
mod status;
mod write;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use trilith_model::MetricSink;
use trilith_query::SeriesSource;

use crate::common::Shared;
use crate::otlp::MetricsReceiver;

/// What the handlers work on.
#[derive(Clone)]
pub struct Prom {
    pub shared: Shared,
    pub source: Arc<dyn SeriesSource>,
    pub sink: Arc<dyn MetricSink>,
    pub rates: Arc<trilith_ingest::RateLimiter>,
    pub otlp: MetricsReceiver,
}

/// Front-page links.
pub const LINKS: &[(&str, &str)] = &[
    ("POST /api/v1/write", "Prometheus remote write 1.0 and 2.0"),
    (
        "POST /api/v1/otlp/v1/metrics",
        "OTLP metrics, protobuf or JSON, gzip or zstd",
    ),
    ("GET|POST /api/v1/query", "instant query"),
    ("GET|POST /api/v1/query_range", "range query"),
    ("GET|POST /api/v1/series", "label sets of series"),
    ("GET|POST /api/v1/labels", "label names"),
    ("GET /api/v1/label/{name}/values", "label values"),
    ("GET /api/v1/metadata", "metric metadata"),
    ("GET /api/v1/status/buildinfo", "version"),
];

pub fn router(prom: Prom) -> Router {
    Router::new()
        .route("/api/v1/query", get(query::instant).post(query::instant))
        .route("/api/v1/query_range", get(query::range).post(query::range))
        .route("/api/v1/series", get(labels::series).post(labels::series))
        .route("/api/v1/labels", get(labels::names).post(labels::names))
        .route("/api/v1/label/{name}/values", get(labels::values).post(labels::values))
        .route("/api/v1/metadata", get(status::metadata))
        .route("/api/v1/status/buildinfo", get(status::buildinfo))
        .route("/api/v1/write", post(write::remote_write))
        .route("/api/v1/otlp/v1/metrics", post(write::otlp))
        // Where Mimir has it.
        .route("/otlp/v1/metrics", post(write::otlp))
        .with_state(prom)
}
