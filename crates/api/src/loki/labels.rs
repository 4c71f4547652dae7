//! Label names, label values and series of streams.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Request;
use axum::response::Response;
use trilith_model::Matcher;
use trilith_query::LabelRequest;

use super::{Loki, ok};
use crate::common::{Failure, Shared};
use crate::float::{push_labels, push_string};
use crate::params::Params;
use crate::times;

/// `since` when neither it nor `start` is given.
const SINCE_DEFAULT_NS: i64 = 3_600_000_000_000;

/// `[start, end)` in ns from `start`, `end` and `since`.
pub(super) fn time_range(shared: &Shared, params: &Params) -> Result<(i64, i64), Failure> {
    let now = shared.clock.now_ns();
    let time = |name: &str| {
        params
            .get(name)
            .map(|t| times::loki(t).map_err(|e| Failure::bad(format!("could not parse '{name}' parameter: {e}"))))
            .transpose()
    };
    let end = time("end")?.unwrap_or(now);
    let start = match time("start")? {
        Some(start) => start,
        None => {
            let since = match params.get("since") {
                None => SINCE_DEFAULT_NS,
                Some(text) => times::duration_ms(text)
                    .and_then(|ms| ms.checked_mul(1_000_000))
                    .ok_or_else(|| {
                        Failure::bad(format!(
                            "could not parse 'since' parameter: not a valid duration string: {text:?}"
                        ))
                    })?,
            };
            end.min(now).saturating_sub(since)
        }
    };
    if end < start {
        return Err(Failure::bad("end timestamp must not be before or equal to start time"));
    }
    Ok((start, end))
}

fn selector(text: &str) -> Result<Vec<Matcher>, Failure> {
    trilith_logql::parse_selector(text).map_err(Failure::from)
}

fn label_request(shared: &Shared, params: &Params, matcher_sets: Vec<Vec<Matcher>>) -> Result<LabelRequest, Failure> {
    let (start, end) = time_range(shared, params)?;
    Ok(LabelRequest {
        matcher_sets,
        start,
        end,
        limit: 0,
    })
}

/// `query`, when given, is a bare selector.
fn query_sets(params: &Params) -> Result<Vec<Vec<Matcher>>, Failure> {
    match params.get("query") {
        None => Ok(Vec::new()),
        Some(q) if q.trim() == "{}" => Ok(Vec::new()),
        Some(q) => Ok(vec![selector(q)?]),
    }
}

/// The `data` key is absent when there is nothing; existing clients were written against that.
fn strings(found: &[String]) -> Response {
    let mut out = b"{\"status\":\"success\"".to_vec();
    if !found.is_empty() {
        out.extend_from_slice(b",\"data\":[");
        for (i, s) in found.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            push_string(&mut out, s, true);
        }
        out.push(b']');
    }
    out.push(b'}');
    ok(out)
}

pub async fn names(State(loki): State<Loki>, request: Request<Body>) -> Result<Response, Failure> {
    let tenant = loki.shared.tenant(request.headers())?;
    let params = Params::read(request).await.map_err(Failure::bad)?;
    let request = label_request(&loki.shared, &params, query_sets(&params)?)?;
    let (ctx, _cancel) = loki.shared.query(&tenant, Duration::ZERO);
    Ok(strings(&loki.source.label_names(&ctx, request).await?))
}

pub async fn values(
    State(loki): State<Loki>,
    Path(name): Path<String>,
    request: Request<Body>,
) -> Result<Response, Failure> {
    let tenant = loki.shared.tenant(request.headers())?;
    let params = Params::read(request).await.map_err(Failure::bad)?;
    let request = label_request(&loki.shared, &params, query_sets(&params)?)?;
    let (ctx, _cancel) = loki.shared.query(&tenant, Duration::ZERO);
    Ok(strings(&loki.source.label_values(&ctx, &name, request).await?))
}

pub async fn series(State(loki): State<Loki>, request: Request<Body>) -> Result<Response, Failure> {
    let tenant = loki.shared.tenant(request.headers())?;
    let params = Params::read(request).await.map_err(Failure::bad)?;
    let mut sets = Vec::new();
    let mut everything = false;
    for text in params.all("match[]").chain(params.all("match")) {
        if text.trim() == "{}" {
            everything = true;
        } else {
            sets.push(selector(text)?);
        }
    }
    if everything {
        sets.clear();
    }
    let request = label_request(&loki.shared, &params, sets)?;
    let (ctx, _cancel) = loki.shared.query(&tenant, Duration::ZERO);
    let found = loki.source.streams(&ctx, request).await?;
    let mut out = b"{\"status\":\"success\",\"data\":[".to_vec();
    for (i, labels) in found.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        push_labels(&mut out, labels);
    }
    out.extend_from_slice(b"]}");
    Ok(ok(out))
}
