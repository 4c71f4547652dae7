//! What every push over HTTP does: tenant, body, decoding off the I/O threads, rate, append, answer.

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use trilith_ingest::status::{Protocol, http_status};
use trilith_ingest::{Decoded, PushHeaders};
use trilith_model::{Appended, Error, Limits, Rejection, Result, TenantId, task};

use crate::common::{Shared, plain, with_retry_after};

/// A push whose body has arrived.
pub struct Push {
    pub tenant: TenantId,
    pub limits: std::sync::Arc<Limits>,
    pub body: Bytes,
    pub content_type: Option<String>,
    pub content_encoding: Option<String>,
}

/// Why a push was refused: a status that the kind alone does not give, or an error.
#[derive(Debug)]
pub enum Refusal {
    Status(StatusCode, String),
    Error(Error),
}

impl From<Error> for Refusal {
    fn from(e: Error) -> Self {
        Refusal::Error(e)
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<String> {
    // A header that is not text cannot name a known type; the decoder refuses it with its own message.
    headers
        .get(name)
        .map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned())
}

impl Push {
    /// Checks the tenant before a byte of the body is read.
    ///
    /// # Errors
    /// 401 and 400 for the tenant, 413 for the body.
    pub async fn read(shared: &Shared, request: Request<Body>) -> std::result::Result<Push, Refusal> {
        let (parts, body) = request.into_parts();
        let tenant = shared
            .tenant(&parts.headers)
            .map_err(|e| Refusal::Status(e.status, e.message))?;
        let limits = shared.limits.limits(&tenant);
        let body = crate::common::read_body(body, limits.request_bytes_max)
            .await
            .map_err(|(status, message)| Refusal::Status(status, message))?;
        Ok(Push {
            tenant,
            limits,
            body,
            content_type: text(&parts.headers, header::CONTENT_TYPE),
            content_encoding: text(&parts.headers, header::CONTENT_ENCODING),
        })
    }

    pub fn headers(&self) -> PushHeaders<'_> {
        PushHeaders {
            content_type: self.content_type.as_deref(),
            content_encoding: self.content_encoding.as_deref(),
        }
    }

    /// Runs a decoder on a compute thread.
    ///
    /// # Errors
    /// Those of the decoder.
    pub async fn decode<B: Send + 'static>(
        self,
        decoder: fn(Bytes, &PushHeaders<'_>, &Limits) -> Result<Decoded<B>>,
    ) -> Result<(TenantId, std::sync::Arc<Limits>, Decoded<B>)> {
        task::compute(move || {
            let decoded = decoder(self.body.clone(), &self.headers(), &self.limits)?;
            Ok((self.tenant, self.limits, decoded))
        })
        .await?
    }
}

/// What the decoder refused, then what the store refused.
pub fn all_rejections(decoded: Vec<Rejection>, appended: Appended) -> Vec<Rejection> {
    let mut all = decoded;
    all.extend(appended.rejections);
    all
}

/// The answer to a refused push of a protocol with plain-text errors, which end with a line feed.
pub fn refused(protocol: Protocol, refusal: Refusal) -> Response {
    match refusal {
        Refusal::Status(status, message) => plain(status, format!("{message}\n")),
        Refusal::Error(e) => {
            let status =
                StatusCode::from_u16(http_status(protocol, e.kind)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            with_retry_after(plain(status, format!("{}\n", e.message)), e.retry_after)
        }
    }
}
