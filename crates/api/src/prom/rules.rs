//! Rules and alerts. There is no rule engine yet, so the lists are empty; parameters are checked as Prometheus does.

use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::Response;
use serde_json::json;

use super::Prom;
use super::envelope::{ApiError, respond_value};
use super::labels::{matcher_sets, params};
use crate::params::Params;

pub async fn rules(State(prom): State<Prom>, request: Request<Body>) -> Result<Response, ApiError> {
    prom.shared.tenant(request.headers())?;
    let params = params(request).await?;
    matcher_sets(&params).map_err(ApiError::bad_data)?;
    check(&params)?;
    Ok(respond_value(&json!({ "groups": [] })))
}

fn check(params: &Params) -> Result<(), ApiError> {
    let kind = params.get("type").unwrap_or("").to_ascii_lowercase();
    if !matches!(kind.as_str(), "" | "alert" | "record") {
        return Err(ApiError::parameter(
            "type",
            format_args!("not supported value {kind:?}"),
        ));
    }
    if let Some(text) = params.get("exclude_alerts") {
        boolean(text)
            .map_err(|e| ApiError::parameter("exclude_alerts", format_args!("error converting exclude_alerts: {e}")))?;
    }
    let token = params.get("group_next_token");
    match params.get("group_limit") {
        None if token.is_some() => {
            let text = "group_limit needs to be present in order to paginate over the groups";
            return Err(ApiError::parameter("group_next_token", text));
        }
        None => {}
        Some(text) => match text.parse::<i32>() {
            Ok(n) if n > 0 => {}
            Ok(_) => {
                return Err(ApiError::parameter(
                    "group_limit",
                    "group_limit needs to be greater than 0",
                ));
            }
            Err(_) => {
                let text = format!(
                    "group_limit needs to be a valid number: strconv.ParseInt: parsing {text:?}: invalid syntax"
                );
                return Err(ApiError::parameter("group_limit", text));
            }
        },
    }
    match token {
        // No group has a token.
        Some(token) => Err(ApiError::parameter(
            "group_next_token",
            format_args!("invalid group_next_token '{token}'. were rule groups changed?"),
        )),
        None => Ok(()),
    }
}

/// Go's `strconv.ParseBool`.
///
/// # Errors
/// Go's text.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

pub async fn alerts(State(prom): State<Prom>, request: Request<Body>) -> Result<Response, ApiError> {
    prom.shared.tenant(request.headers())?;
    Ok(respond_value(&json!({ "alerts": [] })))
}
