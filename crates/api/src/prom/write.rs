//! Remote write 1.0. Errors are plain text, as Prometheus writes them.

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use trilith_ingest::remote_write;
use trilith_ingest::status::Protocol;
use trilith_model::{Appended, Signal};

use super::Prom;
use crate::push::{Push, Refusal, all_rejections, refused};

pub async fn remote_write(State(prom): State<Prom>, request: Request<Body>) -> Response {
    match write(&prom, request).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => refused(Protocol::RemoteWrite, refusal),
    }
}

async fn write(prom: &Prom, request: Request<Body>) -> Result<(), Refusal> {
    let push = Push::read(&prom.shared, request).await?;
    let (tenant, limits, decoded) = push.decode(trilith_ingest::decode_remote_write).await?;
    let samples = decoded.batch.samples.len() as u64;
    prom.rates
        .check(&tenant, Signal::Metrics, &limits, decoded.bytes, samples)?;
    let appended = if decoded.batch.is_empty() {
        Appended::default()
    } else {
        prom.sink.append(&tenant, decoded.batch).await?
    };
    match remote_write::error_of(&all_rejections(decoded.rejections, appended)) {
        None => Ok(()),
        Some(e) => Err(e.into()),
    }
}
