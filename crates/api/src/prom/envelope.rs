//! `{"status":…,"data":…}` and the error form of it.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use trilith_model::{Error, ErrorKind};

use crate::common::{TenantError, json, with_retry_after};
use crate::float::push_string;

const JSON: &str = "application/json";

/// The warning of an answer that a `limit` cut.
pub const TRUNCATED: &str = "results truncated due to limit";

/// Warnings and infos of each kind that an answer lists before it only counts.
const ANNOTATIONS_MAX: usize = 10;

/// An error on its way out. `Response` is made only once, at the edge.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    error_type: &'static str,
    message: String,
    retry_after: Option<std::time::Duration>,
}

impl ApiError {
    /// 400 `bad_data`.
    pub fn bad_data(message: impl Into<String>) -> Self {
        ApiError {
            status: StatusCode::BAD_REQUEST,
            error_type: "bad_data",
            message: message.into(),
            retry_after: None,
        }
    }

    pub fn not_acceptable(message: impl Into<String>) -> Self {
        ApiError {
            status: StatusCode::NOT_ACCEPTABLE,
            error_type: "not_acceptable",
            ..Self::bad_data(message)
        }
    }

    /// 400 with upstream's `invalid parameter "x": …`.
    pub fn parameter(name: &str, message: impl std::fmt::Display) -> Self {
        Self::bad_data(format!("invalid parameter {name:?}: {message}"))
    }
}

impl From<TenantError> for ApiError {
    fn from(e: TenantError) -> Self {
        ApiError {
            status: e.status,
            error_type: "bad_data",
            message: e.message,
            retry_after: None,
        }
    }
}

impl From<Error> for ApiError {
    fn from(e: Error) -> Self {
        let (status, error_type) = match e.kind {
            ErrorKind::Invalid => (400, "bad_data"),
            ErrorKind::Execution | ErrorKind::LimitExceeded | ErrorKind::TooLarge | ErrorKind::Unsupported => {
                (422, "execution")
            }
            ErrorKind::NotFound => (404, "not_found"),
            ErrorKind::Cancelled => (499, "canceled"),
            ErrorKind::Timeout => (503, "timeout"),
            // Upstream's documentation says 503, its code 500.
            ErrorKind::Unavailable | ErrorKind::Fenced => (500, "unavailable"),
            _ => (500, "internal"),
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        ApiError {
            status,
            error_type,
            message: e.message,
            retry_after: e.retry_after,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut out = Vec::with_capacity(self.message.len() + 64);
        out.extend_from_slice(b"{\"status\":\"error\",\"errorType\":\"");
        out.extend_from_slice(self.error_type.as_bytes());
        out.extend_from_slice(b"\",\"error\":");
        push_string(&mut out, &self.message, false);
        out.push(b'}');
        with_retry_after(json(self.status, JSON, out), self.retry_after)
    }
}

/// 200 with data written by `data`, then warnings and infos if any.
pub fn success(warnings: &[String], infos: &[String], data: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"{\"status\":\"success\",\"data\":");
    data(&mut out);
    for (name, list) in [("warnings", warnings), ("infos", infos)] {
        if list.is_empty() {
            continue;
        }
        out.extend_from_slice(format!(",\"{name}\":[").as_bytes());
        for (i, text) in list.iter().take(ANNOTATIONS_MAX).enumerate() {
            if i > 0 {
                out.push(b',');
            }
            push_string(&mut out, text, false);
        }
        if list.len() > ANNOTATIONS_MAX {
            let kind = if name == "infos" { "info" } else { "warning" };
            out.push(b',');
            push_string(
                &mut out,
                &format!("{} more {kind} annotations omitted", list.len() - ANNOTATIONS_MAX),
                false,
            );
        }
        out.push(b']');
    }
    out.push(b'}');
    out
}

pub fn respond(body: Vec<u8>) -> Response {
    json(StatusCode::OK, JSON, body)
}

/// 200 with a small tree as data.
pub fn respond_value(data: &serde_json::Value) -> Response {
    respond(success(&[], &[], |out| {
        out.extend_from_slice(data.to_string().as_bytes())
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_are_capped_and_left_out_when_empty() {
        assert_eq!(
            success(&[], &[], |o| o.extend_from_slice(b"[]")),
            br#"{"status":"success","data":[]}"#
        );
        let many: Vec<String> = (0..12).map(|i| format!("w{i}")).collect();
        let v: serde_json::Value =
            serde_json::from_slice(&success(&many, &["i".into()], |o| o.extend_from_slice(b"1"))).expect("valid JSON");
        assert_eq!(v["warnings"].as_array().map(Vec::len), Some(11));
        assert_eq!(v["warnings"][10], "2 more warning annotations omitted");
        assert_eq!(v["infos"][0], "i");
    }

    #[test]
    fn kinds_map_to_upstream_codes() {
        for (kind, code) in [
            (ErrorKind::Invalid, 400),
            (ErrorKind::Execution, 422),
            (ErrorKind::Unsupported, 422),
            (ErrorKind::Timeout, 503),
            (ErrorKind::Cancelled, 499),
            (ErrorKind::Internal, 500),
            (ErrorKind::Unavailable, 500),
        ] {
            assert_eq!(
                ApiError::from(Error::new(kind, "x")).into_response().status().as_u16(),
                code,
                "{kind:?}"
            );
        }
    }
}
