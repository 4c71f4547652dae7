//! OTLP over HTTP. Answers have the encoding of their request.

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use trilith_ingest::status::{self, Format, Protocol, Reply};
use trilith_model::{Error, ErrorKind, Signal};

use super::{Otlp, Stored};
use crate::common::{plain, with_retry_after};
use crate::push::{Push, Refusal};

pub async fn traces(State(otlp): State<Otlp>, request: Request<Body>) -> Response {
    let push = match Push::read(&otlp.shared, request).await {
        Ok(push) => push,
        Err(Refusal::Status(code, message)) => return plain(code, format!("{message}\n")),
        Err(Refusal::Error(e)) => return plain(StatusCode::INTERNAL_SERVER_ERROR, e.message),
    };
    // Before the format is known the answer can only be text.
    let format = match Format::of(&push.headers()) {
        Ok(format) => format,
        Err(e) => return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, e.message),
    };
    match store(&otlp, push).await {
        Ok(Stored { rejected: 0, .. }) => reply(StatusCode::OK, status::export_success(format)),
        Ok(Stored { rejected, message }) => reply(
            StatusCode::OK,
            status::export_partial(format, Signal::Traces, rejected, &message),
        ),
        Err(e) => {
            let code = status_of(e.kind);
            with_retry_after(reply(code, status::error_body(format, &e)), e.retry_after)
        }
    }
}

async fn store(otlp: &Otlp, push: Push) -> Result<Stored, Error> {
    let (tenant, limits, decoded) = push.decode(trilith_ingest::decode_otlp_traces).await?;
    otlp.store(&tenant, &limits, decoded.batch, decoded.bytes, decoded.rejections)
        .await
}

pub(super) fn status_of(kind: ErrorKind) -> StatusCode {
    StatusCode::from_u16(status::http_status(Protocol::Otlp, kind)).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
}

pub(super) fn reply(code: StatusCode, reply: Reply) -> Response {
    (code, [(header::CONTENT_TYPE, reply.content_type)], reply.body).into_response()
}
