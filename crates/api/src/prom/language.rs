//! A query as text again and as a tree.

use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::Response;
use trilith_model::task;
use trilith_promql::Features;

use super::Prom;
use super::envelope::{ApiError, respond, success};
use super::labels::params;
use crate::float::push_string;

pub async fn format_query(State(prom): State<Prom>, request: Request<Body>) -> Result<Response, ApiError> {
    answer(&prom, request, |query, features| {
        let text = trilith_promql::format_query(query, features)?;
        let mut out = Vec::with_capacity(text.len() + 16);
        push_string(&mut out, &text, false);
        Ok(out)
    })
    .await
}

pub async fn parse_query(State(prom): State<Prom>, request: Request<Body>) -> Result<Response, ApiError> {
    answer(&prom, request, |query, features| {
        Ok(trilith_promql::parse_query(query, features)?.into_bytes())
    })
    .await
}

/// `write` gives the data as JSON.
async fn answer(
    prom: &Prom,
    request: Request<Body>,
    write: impl Fn(&str, &Features) -> trilith_model::Result<Vec<u8>> + Send + 'static,
) -> Result<Response, ApiError> {
    prom.shared.tenant(request.headers())?;
    let params = params(request).await?;
    let features = prom.options.eval.features;
    let body = task::compute(move || {
        let data = write(params.get("query").unwrap_or(""), &features)?;
        Ok::<_, trilith_model::Error>(success(&[], &[], |out| out.extend_from_slice(&data)))
    })
    .await?
    .map_err(|e| ApiError::parameter("query", e.message))?;
    Ok(respond(body))
}
