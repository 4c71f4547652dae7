//! Instant and range queries.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::Response;
use tokio_util::sync::DropGuard;
use trilith_model::{TenantId, task};
use trilith_promql::{EvalOptions, QueryOutput, QueryValue};
use trilith_query::QueryContext;
use trilith_query::vector::Grid;

use super::Prom;
use super::envelope::{ApiError, TRUNCATED, respond, success};
use super::gate::Slot;
use super::labels::limit;
use super::result::push_data;
use super::stats::Timer;
use crate::params::Params;
use crate::times;

/// Steps of one range query.
const POINTS_MAX: i64 = 11_000;

pub async fn instant(State(prom): State<Prom>, request: Request<Body>) -> Result<Response, ApiError> {
    let tenant = prom.shared.tenant(request.headers())?;
    let params = Params::read(request).await.map_err(ApiError::bad_data)?;
    let limit = limit(&params)?;
    let time_ms = times::optional(&params, "time")?.unwrap_or_else(|| prom.shared.clock.now_ms());
    let grid = Grid::instant(time_ms);
    let run = Run::begin(&prom, &tenant, &params, limit, grid).await?;
    let output = trilith_promql::instant(&run.ctx, prom.source.clone(), run.query, time_ms, &run.options);
    let output = with_deadline(&run.ctx, output).await?;
    run.answer(output).await
}

pub async fn range(State(prom): State<Prom>, request: Request<Body>) -> Result<Response, ApiError> {
    let tenant = prom.shared.tenant(request.headers())?;
    let params = Params::read(request).await.map_err(ApiError::bad_data)?;
    let limit = limit(&params)?;
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
    let grid = Grid::range(start_ms, end_ms, step_ms)?;
    let run = Run::begin(&prom, &tenant, &params, limit, grid).await?;
    let output = trilith_promql::range(
        &run.ctx,
        prom.source.clone(),
        run.query,
        start_ms,
        end_ms,
        step_ms,
        &run.options,
    );
    let output = with_deadline(&run.ctx, output).await?;
    run.answer(output).await
}

/// One query that has its slot.
struct Run<'a> {
    query: &'a str,
    options: EvalOptions,
    limit: usize,
    stats: Option<Timer>,
    /// A note about the `stats` parameter.
    warning: Option<String>,
    ctx: QueryContext,
    _cancel: DropGuard,
    _slot: Slot,
}

impl<'a> Run<'a> {
    /// Reads the parameters that both kinds of queries share, and waits for a slot.
    async fn begin(
        prom: &Prom,
        tenant: &TenantId,
        params: &'a Params,
        limit: usize,
        grid: Grid,
    ) -> Result<Self, ApiError> {
        let timeout = match params.get("timeout") {
            None => Duration::ZERO,
            Some(text) => {
                let ms = times::prometheus_duration(text).map_err(|e| ApiError::parameter("timeout", e))?;
                // Zero would mean the limit's.
                Duration::from_millis(ms.max(1) as u64)
            }
        };
        let mut options = prom.options.eval;
        if let Some(text) = params.get("lookback_delta") {
            let ms = times::prometheus_duration(text)
                .map_err(|e| ApiError::bad_data(format!("error parsing lookback delta duration: {e}")))?;
            if ms > 0 {
                options.lookback_ms = ms;
            }
        }
        // An absent query is an empty one: the parser words the error.
        let query = params.get("query").unwrap_or("");
        let stats = params.get("stats");
        let warning = stats.filter(|s| !matches!(*s, "true" | "all")).map(|s| {
            format!(
                "value {s:?} for parameter \"stats\" is deprecated and will be rejected in the next major release, \
                 use \"true\" or \"all\""
            )
        });
        let (mut ctx, cancel) = prom.shared.query(tenant, timeout);
        let stats = stats.map(|s| Timer::start(&ctx, query, &options.features, grid, s == "all"));
        if let Some(stats) = &stats {
            ctx.samples = Some(stats.samples.clone());
        }
        let slot = prom.queries.enter(&ctx, params.bytes()).await?;
        let stats = stats.map(|s| s.queued(&ctx));
        Ok(Run {
            query,
            options,
            limit,
            stats,
            warning,
            ctx,
            _cancel: cancel,
            _slot: slot,
        })
    }

    async fn answer(self, output: QueryOutput) -> Result<Response, ApiError> {
        let QueryOutput {
            mut value,
            mut warnings,
            infos,
        } = output;
        warnings.extend(self.ctx.warnings());
        let cut = match &mut value {
            QueryValue::Vector(v) if self.limit > 0 && v.len() > self.limit => {
                v.truncate(self.limit);
                true
            }
            QueryValue::Matrix(m) if self.limit > 0 && m.len() > self.limit => {
                m.truncate(self.limit);
                true
            }
            _ => false,
        };
        if cut {
            warnings.push(TRUNCATED.into());
        }
        warnings.extend(self.warning.clone());
        // Booked until the body is complete; while it is sent, it is the connection's.
        let booked = self.ctx.memory.reserve(json_bytes(&value))?;
        let (stats, ctx) = (self.stats, self.ctx);
        let items = json_bytes(&value) / 30;
        let body = task::compute_sized(items, move || {
            let body = success(&warnings, &infos, |out| {
                push_data(out, &value, |out| {
                    if let Some(stats) = &stats {
                        out.extend_from_slice(b",\"stats\":");
                        stats.push(out, &ctx, &value);
                    }
                });
            });
            drop(booked);
            body
        })
        .await?;
        Ok(respond(body))
    }
}

/// About how long an answer will be.
fn json_bytes(value: &QueryValue) -> usize {
    const POINT: usize = 30;
    let labels = |l: &trilith_model::Labels| l.as_packed().len() * 2 + 64;
    match value {
        QueryValue::Scalar { .. } | QueryValue::String { .. } => 0,
        QueryValue::Vector(v) => v.iter().map(|e| labels(&e.labels) + POINT).sum(),
        QueryValue::Matrix(m) => m
            .iter()
            .map(|s| labels(&s.labels) + s.points.len() * POINT + s.histograms.len() * 10 * POINT)
            .sum(),
    }
}

/// The evaluator looks at the deadline between batches; this also ends a wait for the store.
pub(super) async fn with_deadline<T>(
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
