//! `/search/*`: metric names, label names and label values that resemble some terms, as lines of JSON.
//!
//! The answer is a line `{"results":[…]}` per batch and a last line with the status. Candidates are listed as the label
//! endpoints list them, rated by [`score`], and sorted here.

mod score;

use std::collections::HashMap;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use serde_json::{Map, Value, json};
use trilith_model::{MetricMetadata, task};
use trilith_query::LabelRequest;

use super::Prom;
use super::envelope::ApiError;
use super::labels::{matcher_sets, params};
use super::query::with_deadline;
use super::rules::boolean;
use crate::common;
use crate::params::Params;
use crate::times;
use score::{Algorithm, Filter};

const LIMIT: usize = 100;
const BATCH: usize = 100;
/// Every value is rated by every term.
const TERMS_MAX: usize = 32;

/// What may be searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Metrics,
    Names,
    Values,
}

pub async fn metric_names(State(prom): State<Prom>, request: Request<Body>) -> Result<Response, ApiError> {
    search(&prom, request, What::Metrics).await
}

pub async fn label_names(State(prom): State<Prom>, request: Request<Body>) -> Result<Response, ApiError> {
    search(&prom, request, What::Names).await
}

pub async fn label_values(State(prom): State<Prom>, request: Request<Body>) -> Result<Response, ApiError> {
    search(&prom, request, What::Values).await
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Ascending,
    Descending,
    Score,
}

/// The parameters that all searches share.
struct Search {
    request: LabelRequest,
    filter: Option<Filter>,
    order: Order,
    include_score: bool,
    limit: usize,
    batch: usize,
}

impl Search {
    fn of(params: &Params, what: What, now_ms: i64, limit_max: usize) -> Result<Self, ApiError> {
        let bad = ApiError::bad_data;
        let time = |name: &str, default: i64| match params.get(name) {
            None => Ok(default),
            Some(text) => times::prometheus(text).map_err(|e| bad(format!("invalid time value for '{name}': {e}"))),
        };
        let start = time("start", now_ms.saturating_sub(3_600_000))?;
        let end = time("end", now_ms)?;
        if end < start {
            return Err(bad("end timestamp must not be before start timestamp".into()));
        }
        let matcher_sets = matcher_sets(params).map_err(bad)?;
        let terms: Vec<&str> = params.all("search[]").collect();
        if terms.len() > TERMS_MAX {
            let n = terms.len();
            return Err(bad(format!("too many search[] terms: got {n}, maximum is {TERMS_MAX}")));
        }
        let threshold = match params.get("fuzz_threshold") {
            None => 0,
            Some(text) => match text.parse::<u32>() {
                Ok(n) if n <= 100 => n,
                _ => return Err(bad(format!("invalid fuzz_threshold {text:?}: must be 0-100"))),
            },
        };
        let algorithm = match params.get("fuzz_alg") {
            None | Some("subsequence") => Algorithm::Subsequence,
            Some("jarowinkler") => Algorithm::JaroWinkler,
            Some(other) => {
                let text = format!("unsupported fuzz_alg {other:?}: must be one of [subsequence jarowinkler]");
                return Err(bad(text));
            }
        };
        let case_sensitive = flag(params, "case_sensitive", true)?;
        let include_score = flag(params, "include_score", false)?;
        let order = order(params, what, terms.is_empty())?;
        let mut limit = LIMIT;
        if limit_max > 0 {
            limit = limit.min(limit_max);
        }
        if let Some(text) = params.get("limit") {
            limit = positive("limit", text)?;
            if limit_max > 0 && limit > limit_max {
                return Err(bad(format!(
                    "limit {limit} exceeds the configured maximum ({limit_max})"
                )));
            }
        }
        let batch = params
            .get("batch_size")
            .map_or(Ok(BATCH), |text| positive("batch_size", text))?;
        Ok(Search {
            request: LabelRequest {
                matcher_sets,
                start,
                end,
                limit: 0,
            },
            filter: Filter::new(&terms, f64::from(threshold) / 100.0, algorithm, case_sensitive),
            order,
            include_score,
            limit,
            batch,
        })
    }

    /// Rated, sorted and cut candidates, and whether there are more.
    fn best(&self, candidates: Vec<String>) -> (Vec<(String, f64)>, bool) {
        let rate = |c: String| match &self.filter {
            None => Some((c, 1.0)),
            Some(filter) => filter.score(&c).map(|s| (c, s)),
        };
        let mut found: Vec<(String, f64)> = candidates.into_iter().filter_map(rate).collect();
        match self.order {
            Order::Ascending => {}
            Order::Descending => found.reverse(),
            Order::Score => found.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0))),
        }
        let more = found.len() > self.limit;
        found.truncate(self.limit);
        (found, more)
    }
}

fn flag(params: &Params, name: &str, default: bool) -> Result<bool, ApiError> {
    params.get(name).map_or(Ok(default), |text| {
        boolean(text).map_err(|_| ApiError::bad_data(format!("invalid {name} {text:?}: must be boolean")))
    })
}

fn positive(name: &str, text: &str) -> Result<usize, ApiError> {
    let n = text.parse::<usize>().ok().filter(|n| *n > 0);
    n.ok_or_else(|| ApiError::bad_data(format!("invalid {name} {text:?}: must be a positive integer")))
}

fn order(params: &Params, what: What, no_terms: bool) -> Result<Order, ApiError> {
    let bad = |text: String| Err(ApiError::bad_data(text));
    let (by, direction) = (params.get("sort_by"), params.get("sort_dir"));
    match (by, direction) {
        (None, Some(_)) => return bad("sort_dir is only valid when sort_by is set".into()),
        (Some("score"), Some(_)) => return bad("sort_dir is not supported for sort_by=score".into()),
        (_, Some(d)) if d != "asc" && d != "dsc" => {
            return bad(format!("invalid sort_dir {d:?}: must be \"asc\" or \"dsc\""));
        }
        _ => {}
    }
    match by {
        Some("score") if no_terms => bad("sort_by=score requires search[] to be set".into()),
        Some("score") => Ok(Order::Score),
        Some("alpha") if direction == Some("dsc") => Ok(Order::Descending),
        None | Some("alpha") => Ok(Order::Ascending),
        Some(other) => {
            let endpoint = match what {
                What::Metrics => "metric_names",
                What::Names => "label_names",
                What::Values => "label_values",
            };
            bad(format!(
                "invalid sort_by {other:?} for {endpoint}: must be \"alpha\" or \"score\""
            ))
        }
    }
}

async fn search(prom: &Prom, request: Request<Body>, what: What) -> Result<Response, ApiError> {
    let tenant = prom.shared.tenant(request.headers())?;
    let params = params(request).await?;
    let now_ms = prom.shared.clock.now_ms();
    let search = Search::of(&params, what, now_ms, prom.options.search_results_max)?;
    let with_metadata = what == What::Metrics && flag(&params, "include_metadata", false)?;
    let label = match what {
        What::Metrics => Some("__name__"),
        What::Names => None,
        What::Values => match params.get("label") {
            Some(label) => Some(label),
            None => return Err(ApiError::bad_data("missing required parameter \"label\"")),
        },
    };
    let (ctx, _cancel) = prom.shared.query(&tenant, Duration::ZERO);
    let _slot = prom.lookups.enter(&ctx, params.bytes()).await?;
    let candidates = match label {
        None => with_deadline(&ctx, prom.source.label_names(&ctx, search.request.clone())).await?,
        Some(label) => with_deadline(&ctx, prom.source.label_values(&ctx, label, search.request.clone())).await?,
    };
    let mut metadata: HashMap<String, MetricMetadata> = HashMap::new();
    if with_metadata {
        for m in with_deadline(&ctx, prom.source.metadata(&ctx, None)).await? {
            metadata.entry(m.family.clone()).or_insert(m);
        }
    }
    let warnings = ctx.warnings();
    let body = task::compute(move || {
        let (found, more) = search.best(candidates);
        lines(&search, &found, more, what, &metadata, &warnings)
    })
    .await?;
    Ok(common::json(
        StatusCode::OK,
        "application/x-ndjson; charset=utf-8",
        body,
    ))
}

fn lines(
    search: &Search,
    found: &[(String, f64)],
    more: bool,
    what: What,
    metadata: &HashMap<String, MetricMetadata>,
    warnings: &[String],
) -> Vec<u8> {
    let record = |(value, score): &(String, f64)| {
        let mut out = Map::new();
        let key = if what == What::Values { "value" } else { "name" };
        out.insert(key.into(), value.as_str().into());
        if search.include_score {
            out.insert("score".into(), json!(score));
        }
        if let Some(m) = metadata.get(value) {
            for (key, text) in [("type", m.kind.as_str()), ("help", &m.help), ("unit", &m.unit)] {
                if !text.is_empty() {
                    out.insert(key.into(), text.into());
                }
            }
        }
        Value::from(out)
    };
    let mut batches: Vec<Value> = found
        .chunks(search.batch)
        .map(|batch| json!({ "results": batch.iter().map(record).collect::<Vec<_>>() }))
        .collect();
    if batches.is_empty() {
        // The first line is always there.
        batches.push(json!({ "results": [] }));
    }
    if !warnings.is_empty() {
        batches[0]["warnings"] = json!(warnings);
    }
    batches.push(json!({ "status": "success", "has_more": more }));
    batches.iter().flat_map(|b| format!("{b}\n").into_bytes()).collect()
}
