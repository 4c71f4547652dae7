//! The Prometheus HTTP API under `/api/v1`, and what stands beside it: `/federate` and `/version`.
//!
//! Shapes, status codes and error texts are Prometheus 3's. Parameters come from the URL and from a form body,
//! merged; unknown ones are ignored. Queries wait for a slot of [`gate::Gate`]; a client that goes away drops the
//! handler, which cancels the query's context and frees the slot.

mod admin;
mod discovery;
mod edge;
mod envelope;
mod exemplars;
mod federate;
mod gate;
mod labels;
mod language;
mod metadata;
mod notifications;
mod query;
mod read;
mod result;
mod rules;
mod search;
mod stats;
mod status;
mod system;
mod write;

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use tokio::sync::Semaphore;
use trilith_model::{MetricAdmin, MetricSink};
use trilith_query::SeriesSource;

use crate::common::Shared;
use crate::ops;
use crate::otlp::MetricsReceiver;

pub(crate) use envelope::ApiError;
use gate::Gate;
pub use system::{
    BlockInfo, Cardinality, Options, OwnFamily, OwnKind, OwnPoint, OwnValue, RuntimeInfo, System, WalReplay,
};
pub use trilith_promql::{EvalOptions, Features};

/// What the handlers work on.
#[derive(Clone)]
pub struct Prom {
    pub shared: Shared,
    pub source: Arc<dyn SeriesSource>,
    pub sink: Arc<dyn MetricSink>,
    pub rates: Arc<trilith_ingest::RateLimiter>,
    pub otlp: MetricsReceiver,
    pub options: Arc<Options>,
    pub system: Arc<dyn System>,
    admin: Option<Arc<dyn MetricAdmin>>,
    queries: Arc<Gate>,
    /// Series, label names and values, exemplars, metadata: apart, so that an editor works while queries wait.
    lookups: Arc<Gate>,
    reads: Arc<Gate>,
    /// Readers of `/notifications/live`.
    listeners: Arc<Semaphore>,
}

impl Prom {
    pub fn new(
        shared: Shared,
        source: Arc<dyn SeriesSource>,
        sink: Arc<dyn MetricSink>,
        rates: Arc<trilith_ingest::RateLimiter>,
        otlp: MetricsReceiver,
        options: Options,
        system: Arc<dyn System>,
    ) -> Self {
        let gate = |slots, what| Gate::new(slots, shared.multi_tenancy, what);
        Prom {
            queries: gate(options.queries_max, "query queue"),
            lookups: gate(options.queries_max, "lookup queue"),
            reads: gate(options.reads_max, "remote read queue"),
            listeners: Arc::new(Semaphore::new(notifications::LISTENERS_MAX)),
            shared,
            source,
            sink,
            rates,
            otlp,
            options: Arc::new(options),
            system,
            admin: None,
        }
    }

    /// What `admin/tsdb` acts on; without it, and unless [`Options::enable_admin`], these endpoints are disabled.
    pub fn with_admin(mut self, admin: Arc<dyn MetricAdmin>) -> Self {
        self.admin = Some(admin);
        self
    }
}

/// Front-page links.
pub const LINKS: &[(&str, &str)] = &[
    ("POST /api/v1/write", "Prometheus remote write 1.0 and 2.0"),
    ("POST /api/v1/read", "Prometheus remote read"),
    (
        "POST /api/v1/otlp/v1/metrics",
        "OTLP metrics, protobuf or JSON, gzip or zstd",
    ),
    ("GET|POST /api/v1/query", "instant query"),
    ("GET|POST /api/v1/query_range", "range query"),
    (
        "GET|POST /api/v1/query_exemplars",
        "exemplars of the series that a query selects",
    ),
    ("GET|POST /api/v1/format_query", "a query, laid out"),
    ("GET|POST /api/v1/parse_query", "the syntax tree of a query"),
    ("GET|POST /api/v1/series", "label sets of series"),
    ("GET|POST /api/v1/labels", "label names"),
    ("GET /api/v1/label/{name}/values", "label values"),
    ("GET /api/v1/metadata", "metric metadata"),
    ("GET /api/v1/targets", "scrape targets"),
    ("GET /api/v1/rules", "rules and their alerts"),
    (
        "POST|PUT /api/v1/admin/tsdb/…",
        "delete_series, clean_tombstones, snapshot (web.enable-admin-api)",
    ),
    ("GET /api/v1/status/tsdb", "cardinality of recent data"),
    ("GET /api/v1/status/flags", "settings in force"),
    ("GET /api/v1/status/buildinfo", "version"),
    ("GET /federate", "newest samples of selected series"),
];

pub fn router(prom: Prom) -> Router {
    // Go's router answers unknown paths, and known ones with another method, in plain text.
    let json = Router::new()
        .route("/query", get(query::instant).post(query::instant))
        .route("/query_range", get(query::range).post(query::range))
        .route("/query_exemplars", get(exemplars::query).post(exemplars::query))
        .route(
            "/format_query",
            get(language::format_query).post(language::format_query),
        )
        .route("/parse_query", get(language::parse_query).post(language::parse_query))
        .route("/series", get(labels::series).post(labels::series))
        .route("/labels", get(labels::names).post(labels::names))
        .route("/label/{name}/values", get(labels::values).post(labels::values))
        .route("/metadata", get(metadata::metadata))
        .route("/targets", get(discovery::targets))
        .route("/targets/metadata", get(discovery::target_metadata))
        .route("/targets/relabel_steps", get(discovery::relabel_steps))
        .route("/scrape_pools", get(discovery::scrape_pools))
        .route("/scrape_pools/config", get(discovery::scrape_pool_config))
        .route("/alertmanagers", get(discovery::alertmanagers))
        .route("/rules", get(rules::rules))
        .route("/alerts", get(rules::alerts))
        .route("/status/config", get(status::config))
        .route("/status/flags", get(status::flags))
        .route("/status/runtimeinfo", get(status::runtimeinfo))
        .route("/status/buildinfo", get(status::buildinfo))
        .route("/status/tsdb", get(status::tsdb))
        .route("/status/tsdb/blocks", get(status::blocks))
        .route("/status/walreplay", get(status::walreplay))
        .route("/status/self_metrics", get(status::self_metrics))
        .route("/features", get(status::features))
        .route("/notifications", get(notifications::list))
        .layer(from_fn(edge::accepts_json));
    let other = Router::new()
        .route("/notifications/live", get(notifications::live))
        .route(
            "/search/metric_names",
            get(search::metric_names).post(search::metric_names),
        )
        .route(
            "/search/label_names",
            get(search::label_names).post(search::label_names),
        )
        .route(
            "/search/label_values",
            get(search::label_values).post(search::label_values),
        )
        .route(
            "/admin/tsdb/delete_series",
            post(admin::delete_series).put(admin::delete_series),
        )
        .route(
            "/admin/tsdb/clean_tombstones",
            post(admin::clean_tombstones).put(admin::clean_tombstones),
        )
        .route("/admin/tsdb/snapshot", post(admin::snapshot).put(admin::snapshot))
        .route("/read", post(read::remote_read))
        .route("/write", post(write::remote_write))
        .route("/otlp/v1/metrics", post(write::otlp));
    let api = json
        .merge(other)
        .fallback(ops::not_found)
        .method_not_allowed_fallback(edge::method_not_allowed)
        .layer(from_fn_with_state(prom.clone(), edge::cors));
    Router::new()
        // Where Mimir has it.
        .route("/otlp/v1/metrics", post(write::otlp))
        .nest("/api/v1", api)
        .route("/federate", get(federate::federate))
        .route("/version", get(status::version))
        .with_state(prom)
}

#[cfg(test)]
mod tests;
