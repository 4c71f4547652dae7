//! `/metadata`: type, help and unit of metric families.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::Response;
use trilith_model::MetricMetadata;

use super::Prom;
use super::envelope::{ApiError, respond, success};
use super::labels::{list, params};
use super::query::with_deadline;
use crate::float::push_string;
use crate::params::Params;

/// A count that bounds a list: `None` when absent, zero or negative.
pub(super) fn bound(params: &Params, name: &str) -> Result<Option<usize>, ApiError> {
    match params.get(name) {
        None => Ok(None),
        Some(text) => match text.parse::<i64>() {
            Ok(n) => Ok(usize::try_from(n).ok().filter(|n| *n > 0)),
            Err(_) => Err(ApiError::bad_data(format!("{name} must be a number"))),
        },
    }
}

pub async fn metadata(State(prom): State<Prom>, request: Request<Body>) -> Result<Response, ApiError> {
    let tenant = prom.shared.tenant(request.headers())?;
    let params = params(request).await?;
    let families_max = bound(&params, "limit")?.unwrap_or(usize::MAX);
    let per_family_max = bound(&params, "limit_per_metric")?.unwrap_or(usize::MAX);
    let (ctx, _cancel) = prom.shared.query(&tenant, Duration::ZERO);
    let _slot = prom.lookups.enter(&ctx, params.bytes()).await?;
    let mut families: BTreeMap<String, Vec<MetricMetadata>> = BTreeMap::new();
    for m in with_deadline(&ctx, prom.source.metadata(&ctx, params.get("metric"))).await? {
        families.entry(m.family.clone()).or_default().push(m);
    }
    Ok(respond(success(&ctx.warnings(), &[], |out| {
        out.push(b'{');
        for (i, (family, entries)) in families.iter().take(families_max).enumerate() {
            if i > 0 {
                out.push(b',');
            }
            push_string(out, family, false);
            out.push(b':');
            list(out, &entries[..entries.len().min(per_family_max)], |out, m| {
                out.extend_from_slice(b"{\"type\":");
                push_string(out, m.kind.as_str(), false);
                out.extend_from_slice(b",\"help\":");
                push_string(out, &m.help, false);
                out.extend_from_slice(b",\"unit\":");
                push_string(out, &m.unit, false);
                out.push(b'}');
            });
        }
        out.push(b'}');
    })))
}
