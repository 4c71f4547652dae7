//! Remote write 1.0 and 2.0, and OTLP. Errors are plain text, as Prometheus writes them.
//!
//! Every answer to a 2.0 request, refusals included, says in headers how much was stored. A 1.0 answer never does: its
//! senders would take the counts for those of another protocol.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use trilith_ingest::remote_write::{self, Version, Written};
use trilith_ingest::status::Protocol;
use trilith_ingest::{PushHeaders, decode_remote_write};
use trilith_model::{Appended, Signal, task};

use super::Prom;
use crate::push::{Push, Refusal, all_rejections, refused};

pub async fn remote_write(State(prom): State<Prom>, request: Request<Body>) -> Response {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let content_type = content_type.map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
    let version = remote_write::version(&PushHeaders {
        content_type: content_type.as_deref(),
        content_encoding: None,
    });
    let mut written = Written::default();
    let mut response = match write(&prom, request, &mut written).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => refused(Protocol::RemoteWrite, refusal),
    };
    if matches!(version, Ok(Version::V2)) {
        let headers = response.headers_mut();
        for (name, count) in written.headers() {
            headers.insert(HeaderName::from_static(name), count.into());
        }
    }
    response
}

/// `POST /api/v1/otlp/v1/metrics`
pub async fn otlp(State(prom): State<Prom>, request: Request<Body>) -> Response {
    crate::otlp::metrics::prometheus(&prom.otlp, request).await
}

/// Fills `written` as soon as something is stored, whatever comes after.
async fn write(prom: &Prom, request: Request<Body>, written: &mut Written) -> Result<(), Refusal> {
    let push = Push::read(&prom.shared, request).await?;
    let (tenant, limits) = (push.tenant.clone(), push.limits.clone());
    let write = task::compute(move || decode_remote_write(push.body.clone(), &push.headers(), &push.limits)).await??;
    let samples = write.batch.sample_count() as u64;
    prom.rates
        .check(&tenant, Signal::Metrics, &limits, write.bytes, samples)?;
    let appended = if write.batch.is_empty() {
        Appended::default()
    } else {
        prom.sink.append(&tenant, write.batch).await?
    };
    *written = Written::of(&appended, write.histogram_markers);
    match remote_write::error_of(write.version, &all_rejections(write.rejections, appended)) {
        None => Ok(()),
        Some(e) => Err(e.into()),
    }
}
