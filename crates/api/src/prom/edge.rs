//! What every endpoint under `/api/v1` does before and after its work: cross-origin headers, `OPTIONS`, `Accept`.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Prom;
use super::envelope::ApiError;
use crate::common::plain;

const ALLOWED_HEADERS: HeaderValue = HeaderValue::from_static("Accept, Authorization, Content-Type, Origin");
const ALLOWED_METHODS: HeaderValue = HeaderValue::from_static("GET, POST, OPTIONS");

/// For all paths under `/api/v1`, unknown ones too.
pub async fn cors(State(prom): State<Prom>, request: Request<Body>, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let mut response = if request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    allow(&prom, origin, response.headers_mut());
    response
}

fn allow(prom: &Prom, origin: Option<HeaderValue>, headers: &mut HeaderMap) {
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = origin else { return };
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Date"));
    match &prom.options.cors_origin {
        None => {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        }
        Some(pattern) if origin.to_str().is_ok_and(|o| pattern.matches(o)) => {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        }
        Some(_) => {}
    }
}

/// For the endpoints that answer JSON.
pub async fn accepts_json(request: Request<Body>, next: Next) -> Response {
    if json_excluded(request.headers()) {
        return ApiError::not_acceptable("cannot encode response as application/json").into_response();
    }
    next.run(request).await
}

/// Whether no range of the `Accept` headers takes `application/json`. What is not a media range is no reason to refuse.
fn json_excluded(headers: &HeaderMap) -> bool {
    // The most specific range decides (RFC 9110, 12.5.1); (specificity, accepted).
    let mut best: Option<(u8, bool)> = None;
    let mut ranges = 0;
    for value in headers.get_all(header::ACCEPT) {
        let Ok(value) = value.to_str() else { return false };
        for range in value.split(',').map(str::trim).filter(|r| !r.is_empty()) {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or("").to_ascii_lowercase();
            if !kind.contains('/') && kind != "*" {
                return false;
            }
            ranges += 1;
            let specificity = match kind.as_str() {
                "application/json" => 3,
                "application/*" => 2,
                "*/*" | "*" => 1,
                _ => continue,
            };
            let refused = parts.any(|p| {
                p.strip_prefix("q=")
                    .and_then(|q| q.trim().parse::<f64>().ok())
                    .is_some_and(|q| q <= 0.0)
            });
            if best.is_none_or(|(s, _)| specificity > s) {
                best = Some((specificity, !refused));
            }
        }
    }
    ranges > 0 && !best.is_some_and(|(_, accepted)| accepted)
}

/// A known path with a method it does not take, as Go's router answers.
pub async fn method_not_allowed() -> Response {
    plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_headers() {
        for (accept, excluded) in [
            ("application/json", false),
            ("application/json, text/plain, */*", false),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", false),
            ("application/*;q=0.1", false),
            ("", false),
            ("nonsense", false),
            ("text/plain", true),
            ("application/protobuf, text/html", true),
            ("*/*;q=0", true),
            ("*/*, application/json;q=0", true),
            ("*/*;q=0, application/json;q=0.2", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(json_excluded(&headers), excluded, "{accept}");
        }
        assert!(!json_excluded(&HeaderMap::new()));
    }
}
