//! What every listener answers besides its API: liveness, readiness, own metrics, a front page, flush and compact.

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use trilith_model::{Result, Signal};

use crate::common::{plain, status_of, with_retry_after};

/// The process behind the listeners.
#[async_trait]
pub trait Admin: Send + Sync + 'static {
    /// # Errors
    /// Why requests cannot be served yet, or any more.
    fn ready(&self) -> std::result::Result<(), String>;
    /// Own metrics in Prometheus' text format 0.0.4.
    fn metrics(&self) -> String;
    /// Cuts and uploads a signal's head; returns when its data are in committed blocks.
    async fn flush(&self, signal: Signal) -> Result<()>;
    /// Compacts a signal until there is nothing left to do.
    async fn compact(&self, signal: Signal) -> Result<()>;
    /// Reads the configuration file again.
    async fn reload(&self) -> std::result::Result<(), String>;
    /// Whether clients may reload and stop the process.
    fn lifecycle_enabled(&self) -> bool;
    /// Stops the process as a signal would; returns at once.
    fn quit(&self);
}

#[derive(Clone)]
struct Ops {
    admin: Arc<dyn Admin>,
    signals: &'static [Signal],
    page: Arc<str>,
}

/// The routes of one listener. `links` are shown on the front page as (method and path, what it is).
pub fn router(admin: Arc<dyn Admin>, name: &str, signals: &'static [Signal], links: &[(&str, &str)]) -> Router {
    let ops = Ops {
        admin,
        signals,
        page: page(name, links).into(),
    };
    Router::new()
        .route("/", get(front))
        .route("/ready", get(ready))
        .route("/-/ready", get(ready))
        .route("/-/healthy", get(healthy))
        .route("/metrics", get(metrics))
        .route("/-/flush", post(flush).put(flush))
        .route("/-/compact", post(compact).put(compact))
        .route("/-/reload", post(reload).put(reload))
        .route("/-/quit", post(quit).put(quit))
        // Loki's and Tempo's own name for it.
        .route("/flush", any(flush))
        .with_state(ops)
}

fn page(name: &str, links: &[(&str, &str)]) -> String {
    let mut rows = String::new();
    for (path, what) in links.iter().chain(&[
        ("GET /ready", "200 when requests are served"),
        ("GET /-/healthy", "200 while the process lives"),
        ("GET /metrics", "own metrics, Prometheus text format"),
        ("POST /-/flush", "cut recent data into blocks now"),
        ("POST /-/compact", "merge blocks now"),
        (
            "POST /-/reload",
            "read the limits of the configuration file again (web.enable-lifecycle)",
        ),
        ("POST /-/quit", "stop (web.enable-lifecycle)"),
    ]) {
        let shown = match path.strip_prefix("GET ") {
            Some(p) if !p.contains('{') => format!("GET <a href=\"{p}\">{p}</a>"),
            _ => (*path).to_owned(),
        };
        rows.push_str(&format!("<tr><td><code>{shown}</code></td><td>{what}</td></tr>\n"));
    }
    format!(
        "<!DOCTYPE html>\n<html><head><title>Trilith: {name}</title></head>\n<body>\n<h1>Trilith</h1>\n\
         <p>This port is the {name}.</p>\n<table>\n{rows}</table>\n</body></html>\n"
    )
}

async fn front(State(ops): State<Ops>) -> Response {
    (
        [(header::CONTENT_TYPE, "text/html; charset=utf-8")],
        ops.page.to_string(),
    )
        .into_response()
}

async fn ready(State(ops): State<Ops>) -> Response {
    match ops.admin.ready() {
        Ok(()) => plain(StatusCode::OK, "ready\n"),
        Err(why) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
    }
}

/// For every path that no route takes, as Go's servers answer.
pub async fn not_found() -> Response {
    plain(StatusCode::NOT_FOUND, "404 page not found\n")
}

async fn healthy() -> Response {
    plain(StatusCode::OK, "Trilith is Healthy.\n")
}

async fn metrics(State(ops): State<Ops>) -> Response {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        ops.admin.metrics(),
    )
        .into_response()
}

async fn flush(State(ops): State<Ops>) -> Response {
    for signal in ops.signals {
        if let Err(e) = ops.admin.flush(*signal).await {
            return with_retry_after(
                plain(status_of(e.kind), format!("flush of {signal}: {e}\n")),
                e.retry_after,
            );
        }
    }
    StatusCode::NO_CONTENT.into_response()
}

async fn compact(State(ops): State<Ops>) -> Response {
    for signal in ops.signals {
        if let Err(e) = ops.admin.compact(*signal).await {
            return with_retry_after(
                plain(status_of(e.kind), format!("compaction of {signal}: {e}\n")),
                e.retry_after,
            );
        }
    }
    StatusCode::NO_CONTENT.into_response()
}

fn lifecycle_disabled() -> Response {
    plain(
        StatusCode::FORBIDDEN,
        "Lifecycle API is not enabled (web.enable-lifecycle).\n",
    )
}

async fn quit(State(ops): State<Ops>) -> Response {
    if !ops.admin.lifecycle_enabled() {
        return lifecycle_disabled();
    }
    ops.admin.quit();
    plain(StatusCode::OK, "Requesting termination... Goodbye!\n")
}

async fn reload(State(ops): State<Ops>) -> Response {
    if !ops.admin.lifecycle_enabled() {
        return lifecycle_disabled();
    }
    match ops.admin.reload().await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(e) => plain(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("failed to reload config: {e}\n"),
        ),
    }
}
