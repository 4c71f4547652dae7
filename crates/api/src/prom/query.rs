//! Instant and range queries.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::Response;
use trilith_model::task;
use trilith_promql::{EvalOptions, QueryOutput, QueryValue};
use trilith_query::QueryContext;

use super::Prom;
use super::envelope::{ApiError, respond, success};
use super::labels::limit;
use super::result::push_value;
use crate::params::Params;
use crate::times;

/// Steps of one range query.
const POINTS_MAX: i64 = 11_000;

pub async fn instant(State(prom): State<Prom>, request: Request<Body>) -> Result<Response, ApiError> {
    let tenant = prom.shared.tenant(request.headers())?;
    let params = Params::read(request).await.map_err(ApiError::bad_data)?;
    let time_ms = match params.get("time") {
        None => prom.shared.clock.now_ms(),
        Some(text) => times::prometheus(text).map_err(|e| ApiError::parameter("time", e))?,
    };
    let common = Common::of(&params)?;
    let (ctx, _cancel) = prom.shared.query(&tenant, common.timeout);
    let output = trilith_promql::instant(&ctx, prom.source.clone(), common.query, time_ms, &common.options);
    answer(&ctx, with_deadline(&ctx, output).await?, common.limit).await
}

pub async fn range(State(prom): State<Prom>, request: Request<Body>) -> Result<Response, ApiError> {
    let tenant = prom.shared.tenant(request.headers())?;
    let params = Params::read(request).await.map_err(ApiError::bad_data)?;
    let time = |name: &str| times::prometheus(params.get(name).unwrap_or("")).map_err(|e| ApiError::parameter(name, e));
    let (start_ms, end_ms) = (time("start")?, time("end")?);
    if end_ms < start_ms {
        return Err(ApiError::parameter(
            "end",
            "end timestamp must not be before start time",
        ));
    }
    let step_ms =
        times::prometheus_duration(params.get("step").unwrap_or("")).map_err(|e| ApiError::parameter("step", e))?;
    if step_ms <= 0 {
        let text = "zero or negative query resolution step widths are not accepted. Try a positive integer";
        return Err(ApiError::parameter("step", text));
    }
    if end_ms.saturating_sub(start_ms) / step_ms > POINTS_MAX {
        return Err(ApiError::bad_data(
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
        ));
    }
    let common = Common::of(&params)?;
    let (ctx, _cancel) = prom.shared.query(&tenant, common.timeout);
    let output = trilith_promql::range(
        &ctx,
        prom.source.clone(),
        common.query,
        start_ms,
        end_ms,
        step_ms,
        &common.options,
    );
    answer(&ctx, with_deadline(&ctx, output).await?, common.limit).await
}

struct Common<'a> {
    query: &'a str,
    /// Zero: the tenant's limit.
    timeout: Duration,
    options: EvalOptions,
    limit: usize,
}

impl<'a> Common<'a> {
    fn of(params: &'a Params) -> Result<Self, ApiError> {
        let duration = |name: &str| -> Result<Option<i64>, ApiError> {
            params
                .get(name)
                .map(|text| times::prometheus_duration(text).map_err(|e| ApiError::parameter(name, e)))
                .transpose()
        };
        let mut options = EvalOptions::default();
        if let Some(ms) = duration("lookback_delta")? {
            if ms <= 0 {
                return Err(ApiError::parameter(
                    "lookback_delta",
                    "a duration greater than 0 is expected",
                ));
            }
            options.lookback_ms = ms;
        }
        let timeout = duration("timeout")?.map_or(Duration::ZERO, |ms| Duration::from_millis(ms.max(1) as u64));
        // An absent query is an empty one: the parser words the error.
        let query = params.get("query").unwrap_or("");
        Ok(Common {
            query,
            timeout,
            options,
            limit: limit(params)?,
        })
    }
}

/// The evaluator looks at the deadline between batches; this also ends a wait for the store.
async fn with_deadline<T>(
    ctx: &QueryContext,
    work: impl Future<Output = trilith_model::Result<T>>,
) -> Result<T, ApiError> {
    let done = match ctx.remaining() {
        None => work.await,
        Some(left) => match tokio::time::timeout(left, work).await {
            Ok(done) => done,
            Err(_) => Err(ctx.timed_out()),
        },
    };
    done.map_err(|e| match e.kind {
        trilith_model::ErrorKind::Invalid => ApiError::parameter("query", e.message),
        _ => e.into(),
    })
}

async fn answer(ctx: &QueryContext, output: QueryOutput, limit: usize) -> Result<Response, ApiError> {
    let QueryOutput {
        mut value,
        mut warnings,
        infos,
    } = output;
    warnings.extend(ctx.warnings());
    let cut = match &mut value {
        QueryValue::Vector(v) if limit > 0 && v.len() > limit => {
            v.truncate(limit);
            true
        }
        QueryValue::Matrix(m) if limit > 0 && m.len() > limit => {
            m.truncate(limit);
            true
        }
        _ => false,
    };
    if cut {
        warnings.push("results truncated due to limit".into());
    }
    let items = match &value {
        QueryValue::Matrix(m) => m.iter().map(|s| s.points.len() + s.histograms.len() * 16 + 4).sum(),
        QueryValue::Vector(v) => v.len() * 4,
        QueryValue::Scalar { .. } | QueryValue::String { .. } => 1,
    };
    let body = task::compute_sized(items, move || success(&warnings, &infos, |out| push_value(out, &value))).await?;
    Ok(respond(body))
}
