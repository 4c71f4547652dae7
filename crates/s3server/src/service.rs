//! The HTTP service: faults, then the lock, then s3s-fs.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, IF_NONE_MATCH};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use parking_lot::Mutex;
use s3s::service::S3Service;
use tokio::sync::RwLock;

use crate::fault::{Fault, Faults};

/// Bodies are taken whole before the lock, so that a slow client does not block the others.
const REQUEST_BYTES_MAX: usize = 256 << 20;

type Error = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Body = UnsyncBoxBody<Bytes, Error>;

pub(crate) struct Shared {
    pub s3: S3Service,
    pub root: PathBuf,
    /// s3s-fs looks whether an object exists and writes it later; under the write lock that is one step.
    pub lock: RwLock<()>,
    pub faults: Mutex<Faults>,
    pub requests: AtomicU64,
}

pub(crate) async fn serve(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Error> {
    shared.requests.fetch_add(1, Ordering::Relaxed);
    let path = request
        .uri()
        .path_and_query()
        .map_or_else(String::new, |p| p.as_str().to_owned());
    let fault = shared.faults.lock().take(request.method(), &path);
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, REQUEST_BYTES_MAX).collect().await?.to_bytes();
    match &fault {
        Some(Fault::Error503 { .. }) => {
            return Ok(refusal(StatusCode::SERVICE_UNAVAILABLE, "SlowDown", &path));
        }
        Some(Fault::Conflict409 { .. }) => {
            return Ok(refusal(StatusCode::CONFLICT, "ConditionalRequestConflict", &path));
        }
        Some(Fault::AccessDenied { .. }) => {
            return Ok(refusal(StatusCode::FORBIDDEN, "AccessDenied", &path));
        }
        _ => {}
    }
    if bucket_is_missing(&shared, &parts.method, parts.uri.path()).await {
        return Ok(refusal(StatusCode::NOT_FOUND, "NoSuchBucket", &path));
    }
    let forgetful = matches!(fault, Some(Fault::IgnoreConditions { .. }));
    let response = apply(&shared, Request::from_parts(parts, s3s::Body::from(body)), forgetful).await?;
    match fault {
        // An error instead of an answer makes hyper close the connection.
        Some(Fault::DropReplyAfterApply { .. }) => Err("the reply is dropped on purpose".into()),
        Some(Fault::Delay { delay, .. }) => {
            tokio::time::sleep(delay).await;
            Ok(response)
        }
        Some(Fault::TruncateBody { .. }) => truncate(response).await,
        _ => Ok(response),
    }
}

async fn apply(shared: &Shared, request: Request<s3s::Body>, forgetful: bool) -> Result<Response<Body>, Error> {
    let read_only = matches!(*request.method(), Method::GET | Method::HEAD);
    let response = if read_only {
        let _guard = shared.lock.read().await;
        shared.s3.call(request).await
    } else {
        let _guard = shared.lock.write().await;
        if forgetful && request.headers().contains_key(IF_NONE_MATCH) {
            // The header is part of the signature, so the object goes instead of the condition. Keys of tests need
            // no decoding.
            let object = shared.root.join(request.uri().path().trim_start_matches('/'));
            let _ = tokio::fs::remove_file(object).await;
        }
        shared.s3.call(request).await
    };
    let response = response.map_err(|e| format!("{e:?}"))?;
    Ok(response.map(BodyExt::boxed_unsync))
}

/// s3s-fs would create the folder of a missing bucket with the first object.
async fn bucket_is_missing(shared: &Shared, method: &Method, path: &str) -> bool {
    let path = path.trim_start_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let creates_bucket = *method == Method::PUT && key.is_empty();
    !bucket.is_empty() && !creates_bucket && !tokio::fs::try_exists(shared.root.join(bucket)).await.unwrap_or(false)
}

fn refusal(status: StatusCode, code: &str, path: &str) -> Response<Body> {
    let path = path.replace('&', "&amp;").replace('<', "&lt;");
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>injected or refused by the test \
         server</Message><Resource>{path}</Resource></Error>"
    );
    let body = Full::new(Bytes::from(body)).map_err(infallible).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, http::HeaderValue::from_static("application/xml"));
    response
}

async fn truncate(response: Response<Body>) -> Result<Response<Body>, Error> {
    let (mut parts, body) = response.into_parts();
    let bytes = body.collect().await?.to_bytes();
    parts.headers.insert(CONTENT_LENGTH, bytes.len().into());
    let half = Ok(Frame::data(bytes.slice(..bytes.len() / 2)));
    let frames = futures::stream::iter([half]).chain(futures::stream::once(async {
        // Let the half reach the client before the connection breaks.
        tokio::time::sleep(Duration::from_millis(5)).await;
        Err(Error::from("the body is cut on purpose"))
    }));
    Ok(Response::from_parts(parts, StreamBody::new(frames).boxed_unsync()))
}

fn infallible(e: Infallible) -> Error {
    match e {}
}
