//! `/query_exemplars`: the exemplars of every series that a query's selectors name.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::Response;
use trilith_model::task;
use trilith_query::ExemplarRequest;

use super::Prom;
use super::envelope::{ApiError, respond, success};
use super::labels::{list, params};
use super::query::with_deadline;
use crate::float::{push_json, push_labels, push_seconds};
use crate::times;

pub async fn query(State(prom): State<Prom>, request: Request<Body>) -> Result<Response, ApiError> {
    let tenant = prom.shared.tenant(request.headers())?;
    let params = params(request).await?;
    let start_ms = times::optional(&params, "start")?.unwrap_or(i64::MIN);
    let end_ms = times::optional(&params, "end")?.unwrap_or(i64::MAX);
    if end_ms < start_ms {
        return Err(ApiError::bad_data("end timestamp must not be before start timestamp"));
    }
    let query = params.get("query").unwrap_or("");
    let matcher_sets = trilith_promql::selectors(query, &prom.options.eval.features)?;
    let (ctx, _cancel) = prom.shared.query(&tenant, Duration::ZERO);
    let _slot = prom.lookups.enter(&ctx, params.bytes()).await?;
    let request = ExemplarRequest {
        matcher_sets,
        start_ms,
        end_ms,
    };
    let found = if request.matcher_sets.is_empty() {
        Vec::new()
    } else {
        with_deadline(&ctx, prom.source.exemplars(&ctx, request)).await?
    };
    let warnings = ctx.warnings();
    let body = task::compute(move || {
        success(&warnings, &[], |out| {
            list(out, &found, |out, s| {
                out.extend_from_slice(b"{\"seriesLabels\":");
                push_labels(out, &s.labels);
                out.extend_from_slice(b",\"exemplars\":");
                list(out, &s.exemplars, |out, e| {
                    out.extend_from_slice(b"{\"labels\":");
                    push_labels(out, &e.labels);
                    out.extend_from_slice(b",\"value\":\"");
                    push_json(out, e.value);
                    out.extend_from_slice(b"\",\"timestamp\":");
                    push_seconds(out, e.ts_ms);
                    out.push(b'}');
                });
                out.push(b'}');
            });
        })
    })
    .await?;
    Ok(respond(body))
}
