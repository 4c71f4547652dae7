//! Notices to the operator. None are given yet; the endpoints exist because Prometheus' own pages keep asking.

use std::convert::Infallible;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use serde_json::json;

use super::Prom;
use super::envelope::respond_value;

/// Most readers of the live stream.
pub const LISTENERS_MAX: usize = 16;

pub async fn list() -> Response {
    respond_value(&json!([]))
}

/// Server-sent events until the client leaves or the server stops; 204 when there are too many readers.
pub async fn live(State(prom): State<Prom>) -> Response {
    let Ok(place) = prom.listeners.clone().try_acquire_owned() else {
        return StatusCode::NO_CONTENT.into_response();
    };
    let stop = prom.shared.shutdown.clone();
    let events = futures::stream::once(async move {
        stop.cancelled_owned().await;
        drop(place);
    })
    .filter_map(|()| std::future::ready(None::<Result<Event, Infallible>>));
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}
