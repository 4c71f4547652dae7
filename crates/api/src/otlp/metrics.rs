//! Metrics over OTLP: one way in for the HTTP receiver, the gRPC receiver and the Prometheus port.
//!
//! The rate is checked before delta points are added to their totals, so that a refused request changes nothing. What
//! the store refuses after that is in the totals all the same: the next point of the series brings it.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use trilith_ingest::otlp_metrics::{DeltaTotals, Export};
use trilith_ingest::status::{self, Format, Protocol};
use trilith_ingest::{PushHeaders, RateLimiter};
use trilith_model::{Appended, Error, ErrorKind, Limits, MetricSink, Rejection, Result, Signal, TenantId, task};

use super::Stored;
use super::http::{reply, status_of};
use crate::common::{Shared, plain, with_retry_after};
use crate::push::{Push, Refusal, all_rejections, refused};

/// What the receivers of metrics work on.
#[derive(Clone)]
pub struct MetricsReceiver {
    pub shared: Shared,
    pub sink: Arc<dyn MetricSink>,
    pub rates: Arc<RateLimiter>,
    pub totals: Arc<DeltaTotals>,
}

impl MetricsReceiver {
    /// Reads (on a compute thread), charges, translates, appends, and sorts the refusals.
    ///
    /// # Errors
    /// Those of `read`; `LimitExceeded` when a retry may help; `Invalid` when points were refused and none was stored.
    pub(super) async fn store(
        &self,
        tenant: TenantId,
        limits: Arc<Limits>,
        read: impl FnOnce(&Limits) -> Result<Export> + Send + 'static,
    ) -> Result<Stored> {
        let (rates, totals, pusher) = (self.rates.clone(), self.totals.clone(), tenant.clone());
        let decoded = task::compute(move || {
            let export = read(&limits)?;
            rates.check(&pusher, Signal::Metrics, &limits, export.bytes, export.points)?;
            export.translate(&pusher, &limits, &totals)
        })
        .await??;
        let appended = if decoded.batch.is_empty() {
            Appended::default()
        } else {
            self.sink.append(&tenant, decoded.batch).await?
        };
        let accepted = appended.accepted;
        let rejections = all_rejections(decoded.rejections, appended);
        if let Some(error) = status::retryable(&rejections) {
            return Err(error);
        }
        let stored = Stored {
            rejected: rejections.iter().map(|r| r.count).sum(),
            message: joined(rejections),
        };
        if accepted == 0 && stored.rejected > 0 {
            return Err(Error::invalid(stored.message));
        }
        Ok(stored)
    }

    async fn push(&self, push: Push) -> Result<Stored> {
        let (tenant, limits) = (push.tenant.clone(), push.limits.clone());
        let read = move |limits: &Limits| Export::read(push.body.clone(), &push.headers(), limits);
        self.store(tenant, limits, read).await
    }
}

fn joined(rejections: Vec<Rejection>) -> String {
    rejections.into_iter().map(|r| r.message).collect::<Vec<_>>().join("; ")
}

fn answer(format: Format, stored: &Stored) -> Response {
    let body = match stored.rejected {
        0 => status::export_success(format),
        n => status::export_partial(format, Signal::Metrics, n, &stored.message),
    };
    reply(StatusCode::OK, body)
}

/// `POST /v1/metrics` of the OTLP receiver: refusals have the encoding of the request.
pub async fn otlp(State(otlp): State<super::Otlp>, request: Request<Body>) -> Response {
    let push = match Push::read(&otlp.shared, request).await {
        Ok(push) => push,
        Err(refusal) => return refused(Protocol::Otlp, refusal),
    };
    // Before the format is known the answer can only be text.
    let format = match Format::of(&push.headers()) {
        Ok(format) => format,
        Err(e) => return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, e.message),
    };
    match otlp.metrics.push(push).await {
        Ok(stored) => answer(format, &stored),
        Err(e) => with_retry_after(reply(status_of(e.kind), status::error_body(format, &e)), e.retry_after),
    }
}

/// `POST /api/v1/otlp/v1/metrics` of the Prometheus API: refusals are plain text, and a content type that is not
/// known is a bad request, as Prometheus has it.
pub async fn prometheus(receiver: &MetricsReceiver, request: Request<Body>) -> Response {
    let push = match Push::read(&receiver.shared, request).await {
        Ok(push) => push,
        Err(refusal) => return refused(Protocol::Otlp, refusal),
    };
    let Ok(format) = Format::of(&push.headers()) else {
        return refused(Protocol::Otlp, unknown_type(&push.headers()));
    };
    match receiver.push(push).await {
        Ok(stored) => answer(format, &stored),
        Err(e) => refused(Protocol::Otlp, e.into()),
    }
}

fn unknown_type(headers: &PushHeaders<'_>) -> Refusal {
    Refusal::Error(Error::new(
        ErrorKind::Invalid,
        format!(
            "unsupported content type: {}, supported: [application/json, application/x-protobuf]",
            headers.content_type.unwrap_or_default()
        ),
    ))
}
