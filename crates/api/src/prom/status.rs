//! Version and metric metadata.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::Response;
use trilith_model::MetricMetadata;

use super::Prom;
use super::envelope::{ApiError, respond, success};
use super::labels::limit;
use crate::float::push_string;
use crate::params::Params;

/// The level of Prometheus' API that is answered; Grafana switches features by it.
const PROMETHEUS_LEVEL: &str = "3.5.0";

pub async fn buildinfo() -> Response {
    let info = serde_json::json!({
        "version": PROMETHEUS_LEVEL,
        "revision": env!("CARGO_PKG_VERSION"),
        "branch": "",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
        "application": "Trilith",
    });
    respond(success(&[], &[], |out| {
        out.extend_from_slice(info.to_string().as_bytes())
    }))
}

pub async fn metadata(State(prom): State<Prom>, request: Request<Body>) -> Result<Response, ApiError> {
    let tenant = prom.shared.tenant(request.headers())?;
    let params = Params::read(request).await.map_err(ApiError::bad_data)?;
    let families_max = limit(&params)?;
    let per_family_max = match params.get("limit_per_metric") {
        None => 0,
        Some(text) => text
            .parse::<usize>()
            .map_err(|_| ApiError::parameter("limit_per_metric", "limit_per_metric must be a number"))?,
    };
    let (ctx, _cancel) = prom.shared.query(&tenant, Duration::ZERO);
    let mut families: BTreeMap<String, Vec<MetricMetadata>> = BTreeMap::new();
    for m in prom.source.metadata(&ctx, params.get("metric")).await? {
        families.entry(m.family.clone()).or_default().push(m);
    }
    let shown = if families_max == 0 {
        families.len()
    } else {
        families_max
    };
    Ok(respond(success(&ctx.warnings(), &[], |out| {
        out.push(b'{');
        for (i, (family, entries)) in families.iter().take(shown).enumerate() {
            if i > 0 {
                out.push(b',');
            }
            push_string(out, family, false);
            out.extend_from_slice(b":[");
            let n = if per_family_max == 0 {
                entries.len()
            } else {
                per_family_max
            };
            for (j, m) in entries.iter().take(n).enumerate() {
                if j > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(b"{\"type\":");
                push_string(out, m.kind.as_str(), false);
                out.extend_from_slice(b",\"help\":");
                push_string(out, &m.help, false);
                out.extend_from_slice(b",\"unit\":");
                push_string(out, &m.unit, false);
                out.push(b'}');
            }
            out.push(b']');
        }
        out.push(b'}');
    })))
}
