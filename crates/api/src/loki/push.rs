//! Log pushes. Valid entries are stored even when others of the request are refused; the answer then is the error.

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use trilith_ingest::status::Protocol;
use trilith_ingest::{Decoded, PushHeaders, loki};
use trilith_model::{Appended, Limits, LogBatch, Result, Signal};

use super::Loki;
use crate::push::{Push, Refusal, all_rejections, refused};

type Decoder = fn(Bytes, &PushHeaders<'_>, &Limits) -> Result<Decoded<LogBatch>>;

pub async fn push(State(loki): State<Loki>, request: Request<Body>) -> Response {
    answer(store(&loki, request, trilith_ingest::decode_loki_push).await)
}

pub async fn push_legacy(State(loki): State<Loki>, request: Request<Body>) -> Response {
    answer(store(&loki, request, trilith_ingest::decode_loki_push_legacy).await)
}

fn answer(done: std::result::Result<(), Refusal>) -> Response {
    match done {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => refused(Protocol::Loki, refusal),
    }
}

async fn store(loki: &Loki, request: Request<Body>, decoder: Decoder) -> std::result::Result<(), Refusal> {
    let push = Push::read(&loki.shared, request).await?;
    let (tenant, limits, decoded) = push.decode(decoder).await?;
    let entries = decoded.batch.entry_count();
    let appended = if entries == 0 {
        Appended::default()
    } else {
        let bytes: usize = decoded
            .batch
            .streams
            .iter()
            .flat_map(|s| &s.entries)
            .map(|e| e.line.len() + e.metadata.as_packed().len())
            .sum();
        loki.rates
            .check(&tenant, Signal::Logs, &limits, bytes as u64, entries as u64)?;
        loki.sink.append(&tenant, decoded.batch).await?
    };
    match loki::error_of(&all_rejections(decoded.rejections, appended)) {
        None => Ok(()),
        Some(e) => Err(e.into()),
    }
}
