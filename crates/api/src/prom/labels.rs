//! Series, label names and label values.

use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::Request;
use axum::response::Response;
use trilith_model::{Matcher, task};
use trilith_query::LabelRequest;

use super::Prom;
use super::envelope::{ApiError, TRUNCATED, respond, success};
use super::query::with_deadline;
use crate::float::{push_labels, push_string};
use crate::params::Params;
use crate::times;

/// Parameters that the three endpoints share. `wrapped`: errors of `match[]` name the parameter.
fn label_request(params: &Params, wrapped: bool) -> Result<LabelRequest, ApiError> {
    let limit = limit(params)?;
    let start = times::optional(params, "start")?.unwrap_or(i64::MIN);
    let end = times::optional(params, "end")?.unwrap_or(i64::MAX);
    let matcher_sets = matcher_sets(params).map_err(|e| {
        if wrapped {
            ApiError::parameter("match[]", e)
        } else {
            ApiError::bad_data(e)
        }
    })?;
    Ok(LabelRequest {
        matcher_sets,
        start,
        end,
        limit,
    })
}

/// The selectors of `match[]`, none of which may be satisfied by a series without labels.
pub(super) fn matcher_sets(params: &Params) -> Result<Vec<Vec<Matcher>>, String> {
    let sets = params.all("match[]").map(selector).collect::<Result<Vec<_>, _>>()?;
    if sets.iter().any(|set| set.iter().all(Matcher::matches_empty)) {
        return Err("match[] must contain at least one non-empty matcher".into());
    }
    Ok(sets)
}

/// The matchers of a bare series selector.
pub(super) fn selector(text: &str) -> Result<Vec<Matcher>, String> {
    trilith_promql::parse_selector(text).map_err(|e| e.message)
}

/// 0: no limit.
pub(super) fn limit(params: &Params) -> Result<usize, ApiError> {
    match params.get("limit") {
        None => Ok(0),
        Some(text) => match text.parse::<i64>() {
            Ok(n) if n >= 0 => Ok(usize::try_from(n).unwrap_or(usize::MAX)),
            Ok(_) => Err(ApiError::parameter("limit", "limit must be non-negative")),
            Err(_) => Err(ApiError::parameter(
                "limit",
                format!("strconv.Atoi: parsing {text:?}: invalid syntax"),
            )),
        },
    }
}

/// Asks for one more than wanted, so that a cut is known; returns the limit to cut at.
fn probe(request: &mut LabelRequest) -> usize {
    let wanted = request.limit;
    if wanted > 0 {
        request.limit = wanted.saturating_add(1);
    }
    wanted
}

fn cut<T>(mut items: Vec<T>, wanted: usize, warnings: &mut Vec<String>) -> Vec<T> {
    if wanted > 0 && items.len() > wanted {
        items.truncate(wanted);
        warnings.push(TRUNCATED.into());
    }
    items
}

pub(super) async fn params(request: Request<Body>) -> Result<Params, ApiError> {
    Params::read(request).await.map_err(ApiError::bad_data)
}

pub async fn series(State(prom): State<Prom>, request: Request<Body>) -> Result<Response, ApiError> {
    let tenant = prom.shared.tenant(request.headers())?;
    let params = params(request).await?;
    if params.all("match[]").next().is_none() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let mut request = label_request(&params, true)?;
    let wanted = probe(&mut request);
    let (ctx, _cancel) = prom.shared.query(&tenant, Duration::ZERO);
    let _slot = prom.lookups.enter(&ctx, params.bytes()).await?;
    let found = with_deadline(&ctx, prom.source.series(&ctx, request)).await?;
    let mut warnings = ctx.warnings();
    let found = cut(found, wanted, &mut warnings);
    // May be many, as those of the others.
    let body = task::compute(move || success(&warnings, &[], |out| list(out, &found, push_labels))).await?;
    Ok(respond(body))
}

pub async fn names(State(prom): State<Prom>, request: Request<Body>) -> Result<Response, ApiError> {
    let tenant = prom.shared.tenant(request.headers())?;
    let params = params(request).await?;
    let mut request = label_request(&params, false)?;
    let wanted = probe(&mut request);
    let (ctx, _cancel) = prom.shared.query(&tenant, Duration::ZERO);
    let _slot = prom.lookups.enter(&ctx, params.bytes()).await?;
    let found = with_deadline(&ctx, prom.source.label_names(&ctx, request)).await?;
    let mut warnings = ctx.warnings();
    let found = cut(found, wanted, &mut warnings);
    Ok(respond(success(&warnings, &[], |out| {
        list(out, &found, |o, s| push_string(o, s, false))
    })))
}

pub async fn values(
    State(prom): State<Prom>,
    name: Result<Path<String>, PathRejection>,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let tenant = prom.shared.tenant(request.headers())?;
    let params = params(request).await?;
    let Ok(Path(name)) = name else {
        return Err(ApiError::bad_data("invalid label name: not valid UTF-8"));
    };
    let name = unescape_name(&name);
    if name.is_empty() {
        return Err(ApiError::bad_data(format!("invalid label name: {name:?}")));
    }
    let mut request = label_request(&params, false)?;
    let wanted = probe(&mut request);
    let (ctx, _cancel) = prom.shared.query(&tenant, Duration::ZERO);
    let _slot = prom.lookups.enter(&ctx, params.bytes()).await?;
    let found = with_deadline(&ctx, prom.source.label_values(&ctx, &name, request)).await?;
    let mut warnings = ctx.warnings();
    let found = cut(found, wanted, &mut warnings);
    Ok(respond(success(&warnings, &[], |out| {
        list(out, &found, |o, s| push_string(o, s, false))
    })))
}

pub(super) fn list<T>(out: &mut Vec<u8>, items: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

/// Undoes the path form of names outside the legacy charset: `U__`, `__` for `_`, `_<hex>_` for another character.
/// What is not such a form is taken as it is.
fn unescape_name(name: &str) -> String {
    let Some(mut rest) = name.strip_prefix("U__") else {
        return name.to_owned();
    };
    let mut out = String::new();
    while let Some(at) = rest.find('_') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(r) = rest.strip_prefix('_') {
            out.push('_');
            rest = r;
            continue;
        }
        let decoded = rest
            .split_once('_')
            .filter(|(hex, _)| (1..=6).contains(&hex.len()))
            .and_then(|(hex, r)| Some((char::from_u32(u32::from_str_radix(hex, 16).ok()?)?, r)));
        match decoded {
            Some((c, r)) => {
                out.push(c);
                rest = r;
            }
            None => return name.to_owned(),
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_names() {
        for (escaped, name) in [
            ("U__http_2e_status", "http.status"),
            ("U__a__b", "a_b"),
            ("U___e9_", "é"),
            ("plain_name", "plain_name"),
            ("U__bad_zz_", "U__bad_zz_"),
            ("U__", ""),
        ] {
            assert_eq!(unescape_name(escaped), name);
        }
    }

    #[test]
    fn limits() {
        let p = |q| limit(&Params::from_query(Some(q)));
        assert_eq!(p("limit=5").ok(), Some(5));
        assert_eq!(p("").ok(), Some(0));
        assert!(p("limit=-1").is_err() && p("limit=x").is_err());
    }
}
