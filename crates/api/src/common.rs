//! What all listeners share: tenant, limits, clock, and the life of a query's context.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio_util::sync::{CancellationToken, DropGuard};
use trilith_model::{Clock, Error, ErrorKind, LimitsProvider, TenantId};
use trilith_query::{MemoryBudget, QueryContext};

pub const TENANT_HEADER: &str = "x-scope-orgid";

/// Everything a handler needs besides its store. Cheap to clone.
#[derive(Clone)]
pub struct Shared {
    pub clock: Arc<dyn Clock>,
    pub limits: Arc<dyn LimitsProvider>,
    /// What all queries may hold together.
    pub memory: MemoryBudget,
    pub multi_tenancy: bool,
    /// Cancelled when the server stops; ends running queries.
    pub shutdown: CancellationToken,
}

/// A request without a usable tenant: status and text, the same on every port.
#[derive(Debug, PartialEq, Eq)]
pub struct TenantError {
    pub status: StatusCode,
    pub message: String,
}

impl Shared {
    /// With multi-tenancy off the header is not looked at.
    ///
    /// # Errors
    /// 401 without a header, 400 for an id that breaks the rules.
    pub fn tenant(&self, headers: &HeaderMap) -> Result<TenantId, TenantError> {
        self.tenant_of(headers.get(TENANT_HEADER).map(|v| v.to_str().unwrap_or("\u{fffd}")))
    }

    /// # Errors
    /// As [`Shared::tenant`].
    pub fn tenant_of(&self, id: Option<&str>) -> Result<TenantId, TenantError> {
        if !self.multi_tenancy {
            return Ok(TenantId::anonymous());
        }
        match id {
            None | Some("") => Err(TenantError {
                status: StatusCode::UNAUTHORIZED,
                message: "no org id".into(),
            }),
            Some(id) => TenantId::new(id).map_err(|e| TenantError {
                status: StatusCode::BAD_REQUEST,
                message: e.message,
            }),
        }
    }

    /// A context for one query and the guard that cancels it when the handler is dropped.
    /// `timeout` zero means the tenant's limit.
    pub fn query(&self, tenant: &TenantId, timeout: Duration) -> (QueryContext, DropGuard) {
        let limits = self.limits.limits(tenant);
        let mut ctx = QueryContext::new(tenant.clone(), limits, self.clock.clone(), timeout);
        ctx.memory = self.memory.share(ctx.limits.query_memory_bytes);
        ctx.cancel = self.shutdown.child_token();
        let guard = ctx.cancel.clone().drop_guard();
        (ctx, guard)
    }
}

/// A plain-text error as Loki and Tempo write it.
pub fn plain(status: StatusCode, message: impl Into<String>) -> Response {
    (
        status,
        [
            (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ],
        message.into(),
    )
        .into_response()
}

/// JSON bytes that were written by hand.
pub fn json(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response {
    (status, [(header::CONTENT_TYPE, content_type)], body).into_response()
}

/// Status of a store or language error on the Loki and Tempo ports; Prometheus has its own envelope.
pub fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Invalid | ErrorKind::Execution | ErrorKind::Unsupported => StatusCode::BAD_REQUEST,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::LimitExceeded => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::Unavailable | ErrorKind::Fenced => StatusCode::SERVICE_UNAVAILABLE,
        // Not in the registry: nginx' number for a client that went away, used by all three products.
        ErrorKind::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
        ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// An error on its way out of the Loki and Tempo ports, plain text.
#[derive(Debug)]
pub(crate) struct Failure {
    pub status: StatusCode,
    pub message: String,
    pub retry_after: Option<Duration>,
}

impl Failure {
    pub fn bad(message: impl Into<String>) -> Self {
        Failure {
            status: StatusCode::BAD_REQUEST,
            message: message.into(),
            retry_after: None,
        }
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Failure {
            status: status_of(e.kind),
            message: e.message,
            retry_after: e.retry_after,
        }
    }
}

impl From<TenantError> for Failure {
    fn from(e: TenantError) -> Self {
        Failure {
            status: e.status,
            message: e.message,
            retry_after: None,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        with_retry_after(plain(self.status, self.message), self.retry_after)
    }
}

/// Adds `Retry-After` in whole seconds, at least one.
pub fn with_retry_after(mut response: Response, after: Option<Duration>) -> Response {
    if let Some(after) = after {
        let seconds = after.as_secs_f64().ceil().max(1.0) as u64;
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// Reads a body that may be at most `limit` bytes as it comes over the wire.
///
/// # Errors
/// A ready 413 (or 400 when the client broke off).
pub async fn read_body(body: axum::body::Body, limit: u64) -> Result<bytes::Bytes, (StatusCode, String)> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let limited = http_body_util::Limited::new(body, if limit == 0 { usize::MAX } else { limit });
    match http_body_util::BodyExt::collect(limited).await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(e) if e.is::<http_body_util::LengthLimitError>() => Err((
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("request body too large: more than {limit} bytes (limits.request-size)"),
        )),
        Err(e) => Err((StatusCode::BAD_REQUEST, format!("cannot read the request body: {e}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trilith_model::{StaticLimits, SystemClock};

    fn shared(multi_tenancy: bool) -> Shared {
        Shared {
            clock: Arc::new(SystemClock),
            limits: Arc::new(StaticLimits::default()),
            memory: MemoryBudget::new(0),
            multi_tenancy,
            shutdown: CancellationToken::new(),
        }
    }

    #[test]
    fn tenants() {
        let off = shared(false);
        assert_eq!(off.tenant_of(Some("bad/../id")).expect("ignored").as_str(), "anonymous");
        let on = shared(true);
        assert_eq!(on.tenant_of(Some("a-1")).expect("valid").as_str(), "a-1");
        assert_eq!(on.tenant_of(None).unwrap_err().status, StatusCode::UNAUTHORIZED);
        assert_eq!(on.tenant_of(Some("")).unwrap_err().message, "no org id");
        let bad = on.tenant_of(Some("bad/tenant")).unwrap_err();
        assert_eq!(bad.status, StatusCode::BAD_REQUEST);
        assert_eq!(bad.message, "tenant ID 'bad/tenant' contains unsupported character '/'");
    }

    #[test]
    fn a_dropped_handler_cancels_its_query() {
        let (ctx, guard) = shared(false).query(&TenantId::anonymous(), Duration::ZERO);
        assert!(ctx.check().is_ok());
        drop(guard);
        assert_eq!(ctx.check().unwrap_err().kind, ErrorKind::Cancelled);
    }
}
