//! The Tempo HTTP API and, on the same port, the gRPC service that Grafana streams searches from.
//!
//! Errors are plain text. JSON bodies are proto3 JSON as Tempo writes it: defaults left out, 64-bit integers as
//! strings, ids in trace bodies base64; Grafana decodes searches strictly, so nothing may be added.

mod search;
mod streaming;
mod trace;

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use trilith_proto::tempopb::streaming_querier_server::StreamingQuerierServer;
use trilith_query::SpanSource;

use crate::common::{Shared, json, plain};

/// What the handlers work on.
#[derive(Clone)]
pub struct Tempo {
    pub shared: Shared,
    pub source: Arc<dyn SpanSource>,
}

/// Front-page links.
pub const LINKS: &[(&str, &str)] = &[
    ("GET /api/v2/traces/{id}", "trace by id, JSON or protobuf"),
    ("GET /api/traces/{id}", "the same, version 1"),
    ("GET /api/search", "search by TraceQL (q) or tags"),
    ("GET /api/echo", "health check of Grafana"),
    ("GET /api/status/buildinfo", "version"),
    ("gRPC tempopb.StreamingQuerier/Search", "streamed search"),
];

/// The level of Tempo's API that is answered; Grafana switches features by it.
const TEMPO_LEVEL: &str = "2.9.0";

pub fn router(tempo: Tempo) -> Router {
    let streaming = StreamingQuerierServer::new(streaming::Querier { tempo: tempo.clone() });
    let http = Router::new()
        .route("/api/traces/{id}", get(trace::v1))
        .route("/api/v2/traces/{id}", get(trace::v2))
        .route("/api/search", get(search::search))
        .route("/api/echo", get(echo))
        .route("/api/status/buildinfo", get(buildinfo))
        .with_state(tempo);
    http.merge(Router::new().route_service("/tempopb.StreamingQuerier/{method}", streaming))
}

async fn echo() -> Response {
    plain(StatusCode::OK, "echo")
}

async fn buildinfo() -> Response {
    let info = serde_json::json!({
        "version": TEMPO_LEVEL,
        "revision": env!("CARGO_PKG_VERSION"),
        "branch": "",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
    });
    json(StatusCode::OK, "application/json", info.to_string().into_bytes())
}
