//! Targets, scrape pools and Alertmanagers. Nothing is scraped and nobody is notified yet, so the lists are empty;
//! parameters are checked as Prometheus does, so that clients meet the same errors.

use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::Response;
use serde_json::json;

use super::Prom;
use super::envelope::{ApiError, respond_value};
use super::labels::{params, selector};
use super::metadata::bound;
use crate::params::Params;

/// The tenant is checked even where all have the same answer: a request without one is a mistake.
async fn checked(prom: &Prom, request: Request<Body>) -> Result<Params, ApiError> {
    prom.shared.tenant(request.headers())?;
    params(request).await
}

pub async fn targets(State(prom): State<Prom>, request: Request<Body>) -> Result<Response, ApiError> {
    let params = checked(&prom, request).await?;
    let mut data = json!({ "activeTargets": [], "droppedTargets": [], "droppedTargetCounts": {} });
    // Counts of dropped targets are only told to those who want to see dropped ones.
    let state = params.get("state").unwrap_or("").to_ascii_lowercase();
    if !matches!(state.as_str(), "" | "any" | "dropped") {
        data["droppedTargetCounts"] = serde_json::Value::Null;
    }
    Ok(respond_value(&data))
}

pub async fn target_metadata(State(prom): State<Prom>, request: Request<Body>) -> Result<Response, ApiError> {
    let params = checked(&prom, request).await?;
    bound(&params, "limit")?;
    if let Some(text) = params.get("match_target") {
        selector(text).map_err(|e| ApiError::parameter("match_target", e))?;
    }
    Ok(respond_value(&json!([])))
}

fn required<'a>(params: &'a Params, name: &str) -> Result<&'a str, ApiError> {
    params
        .get(name)
        .ok_or_else(|| ApiError::bad_data(format!("no {name} parameter provided")))
}

fn unknown_pool(pool: &str) -> ApiError {
    ApiError::bad_data(format!(
        "error retrieving scrape config: scrape pool {pool:?} not found"
    ))
}

pub async fn relabel_steps(State(prom): State<Prom>, request: Request<Body>) -> Result<Response, ApiError> {
    let params = checked(&prom, request).await?;
    let pool = required(&params, "scrapePool")?;
    let labels = required(&params, "labels")?;
    serde_json::from_str::<std::collections::BTreeMap<String, String>>(labels)
        .map_err(|e| ApiError::bad_data(format!("error parsing labels: {e}")))?;
    Err(unknown_pool(pool))
}

pub async fn scrape_pools(State(prom): State<Prom>, request: Request<Body>) -> Result<Response, ApiError> {
    checked(&prom, request).await?;
    Ok(respond_value(&json!({ "scrapePools": [] })))
}

pub async fn scrape_pool_config(State(prom): State<Prom>, request: Request<Body>) -> Result<Response, ApiError> {
    let params = checked(&prom, request).await?;
    Err(unknown_pool(required(&params, "scrapePool")?))
}

pub async fn alertmanagers(State(prom): State<Prom>, request: Request<Body>) -> Result<Response, ApiError> {
    checked(&prom, request).await?;
    Ok(respond_value(
        &json!({ "activeAlertmanagers": [], "droppedAlertmanagers": [] }),
    ))
}
