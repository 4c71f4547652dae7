//! `admin/tsdb`: deleting series, cleaning up after it, snapshots. Off unless the operator allows it.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use trilith_model::{Error, MetricAdmin, TimeRange};

use super::Prom;
use super::envelope::{ApiError, respond, success};
use crate::float::push_string;
use crate::params::Params;
use crate::times;

fn allowed(prom: &Prom) -> Result<Arc<dyn MetricAdmin>, ApiError> {
    let disabled = || Error::unavailable("admin APIs disabled");
    let admin = prom.admin.clone().filter(|_| prom.options.enable_admin);
    Ok(admin.ok_or_else(disabled)?)
}

/// `match[]` (at least one), `start`, `end`: 204. A selector may match everything, as in Prometheus.
pub async fn delete_series(State(prom): State<Prom>, request: Request<Body>) -> Result<Response, ApiError> {
    let admin = allowed(&prom)?;
    let tenant = prom.shared.tenant(request.headers())?;
    let params = Params::read(request).await.map_err(ApiError::bad_data)?;
    if !params.has("match[]") {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let time = |name: &str, default: i64| match params.get(name) {
        None => Ok(default),
        Some(text) => times::prometheus(text).map_err(|e| ApiError::parameter(name, e)),
    };
    let range = TimeRange::new(time("start", i64::MIN)?, time("end", i64::MAX)?);
    let selectors = params.all("match[]").map(trilith_promql::parse_selector);
    let selectors = selectors
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| ApiError::parameter("match[]", e))?;
    admin.delete_series(&tenant, &selectors, range).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// 204 when the space of what was deleted is free, but for the grace of running queries.
pub async fn clean_tombstones(State(prom): State<Prom>, request: Request<Body>) -> Result<Response, ApiError> {
    let admin = allowed(&prom)?;
    let tenant = prom.shared.tenant(request.headers())?;
    admin.clean_tombstones(&tenant).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `skip_head`: the name of the copy.
pub async fn snapshot(State(prom): State<Prom>, request: Request<Body>) -> Result<Response, ApiError> {
    let admin = allowed(&prom)?;
    let tenant = prom.shared.tenant(request.headers())?;
    let params = Params::read(request).await.map_err(ApiError::bad_data)?;
    let skip_head = match params.get("skip_head") {
        None => false,
        Some(text) => go_bool(text).ok_or_else(|| {
            let text = format!("unable to parse boolean: strconv.ParseBool: parsing {text:?}: invalid syntax");
            ApiError::parameter("skip_head", text)
        })?,
    };
    let name = admin.snapshot(&tenant, skip_head).await?;
    Ok(respond(success(&[], &[], |out| {
        out.extend_from_slice(b"{\"name\":");
        push_string(out, &name, false);
        out.push(b'}');
    })))
}

/// What Go's `strconv.ParseBool` takes.
fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
