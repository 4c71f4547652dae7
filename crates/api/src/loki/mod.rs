//! The Loki HTTP API under `/loki/api/v1`.
//!
//! Errors are plain text, answers of query endpoints JSON with one trailing line feed. Shapes, codes and texts
//! are those of Loki 3.

mod labels;
mod push;
mod query;
mod result;

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use trilith_model::LogSink;
use trilith_query::EntrySource;

use crate::common::{Shared, json};

/// What the handlers work on.
#[derive(Clone)]
pub struct Loki {
    pub shared: Shared,
    pub source: Arc<dyn EntrySource>,
    pub sink: Arc<dyn LogSink>,
    pub rates: Arc<trilith_ingest::RateLimiter>,
}

/// Front-page links.
pub const LINKS: &[(&str, &str)] = &[
    ("POST /loki/api/v1/push", "log push: snappy protobuf or JSON"),
    ("GET|POST /loki/api/v1/query_range", "log and metric range query"),
    ("GET|POST /loki/api/v1/query", "instant metric query"),
    ("GET|POST /loki/api/v1/labels", "label names"),
    ("GET|POST /loki/api/v1/label/{name}/values", "label values"),
    ("GET|POST /loki/api/v1/series", "label sets of streams"),
    ("GET /loki/api/v1/status/buildinfo", "version"),
];

/// The level of Loki's API that is answered; Grafana switches features by it.
const LOKI_LEVEL: &str = "3.5.0";

pub fn router(loki: Loki) -> Router {
    Router::new()
        .route("/loki/api/v1/push", post(push::push))
        .route("/api/prom/push", post(push::push_legacy))
        .route("/loki/api/v1/query_range", get(query::range).post(query::range))
        .route("/loki/api/v1/query", get(query::instant).post(query::instant))
        .route("/loki/api/v1/labels", get(labels::names).post(labels::names))
        .route("/loki/api/v1/label", get(labels::names).post(labels::names))
        .route(
            "/loki/api/v1/label/{name}/values",
            get(labels::values).post(labels::values),
        )
        .route("/loki/api/v1/series", get(labels::series).post(labels::series))
        .route("/loki/api/v1/status/buildinfo", get(buildinfo))
        .with_state(loki)
}

async fn buildinfo() -> Response {
    let info = serde_json::json!({
        "version": LOKI_LEVEL,
        "revision": env!("CARGO_PKG_VERSION"),
        "branch": "",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
    });
    ok(info.to_string().into_bytes())
}

/// 200 with a JSON body; adds the line feed.
fn ok(mut body: Vec<u8>) -> Response {
    body.push(b'\n');
    json(StatusCode::OK, "application/json; charset=UTF-8", body)
}
