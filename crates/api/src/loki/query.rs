//! Log and metric queries.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request};
use axum::response::Response;
use trilith_logql::{MetricExpr, Query, query_log, query_metric};
use trilith_model::task;
use trilith_query::vector::Grid;
use trilith_query::{Direction, QueryContext};

use super::labels::time_range;
use super::result::{Stats, logs_body, metric_body};
use super::{Loki, ok};
use crate::common::Failure;
use crate::params::Params;
use crate::times;

const POINTS_MAX: i64 = 11_000;
const LIMIT_DEFAULT: usize = 100;
const FLAGS_HEADER: &str = "x-loki-response-encoding-flags";

/// `categorize-labels` in the request's encoding flags.
fn categorize(headers: &HeaderMap) -> bool {
    headers
        .get_all(FLAGS_HEADER)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|f| f.trim() == "categorize-labels")
}

fn limit(params: &Params, limit_max: u64) -> Result<usize, Failure> {
    let limit = match params.get("limit") {
        None => LIMIT_DEFAULT,
        Some(text) => match text.parse::<i64>() {
            Ok(n) if n > 0 => usize::try_from(n).unwrap_or(usize::MAX),
            Ok(_) => return Err(Failure::bad("limit must be a positive value")),
            Err(_) => {
                return Err(Failure::bad(format!("strconv.Atoi: parsing {text:?}: invalid syntax")));
            }
        },
    };
    if limit_max > 0 && limit as u64 > limit_max {
        return Err(Failure::bad(format!(
            "max entries limit per query exceeded, limit > max_entries_limit_per_query ({limit} > {limit_max})"
        )));
    }
    Ok(limit)
}

fn direction(params: &Params) -> Result<Direction, Failure> {
    match params.get("direction") {
        None => Ok(Direction::Backward),
        Some(d) if d.eq_ignore_ascii_case("backward") => Ok(Direction::Backward),
        Some(d) if d.eq_ignore_ascii_case("forward") => Ok(Direction::Forward),
        Some(d) => Err(Failure::bad(format!("invalid direction '{d}'"))),
    }
}

fn step(params: &Params, start: i64, end: i64) -> Result<i64, Failure> {
    const SECOND: i64 = 1_000_000_000;
    let step = match params.get("step") {
        None => ((end.saturating_sub(start) / SECOND) / 250).max(1) * SECOND,
        Some(text) => times::loki_duration(text).map_err(Failure::bad)?,
    };
    if step <= 0 {
        return Err(Failure::bad(
            "zero or negative query resolution step widths are not accepted. Try a positive integer",
        ));
    }
    if end.saturating_sub(start) / step > POINTS_MAX {
        return Err(Failure::bad(
            "exceeded maximum resolution of 11,000 points per time series. Try increasing the value of the step parameter",
        ));
    }
    Ok(step)
}

pub async fn range(State(loki): State<Loki>, request: Request<Body>) -> Result<Response, Failure> {
    let tenant = loki.shared.tenant(request.headers())?;
    let categorize = categorize(request.headers());
    let params = Params::read(request).await.map_err(Failure::bad)?;
    let (start, end) = time_range(&loki.shared, &params)?;
    let (ctx, _cancel) = loki.shared.query(&tenant, Duration::ZERO);
    let limit = limit(&params, ctx.limits.query_limit_max)?;
    let direction = direction(&params)?;
    let step = step(&params, start, end)?;
    let interval = match params.get("interval") {
        None => 0,
        Some(text) => times::loki_duration(text).map_err(Failure::bad)?,
    };
    if interval < 0 {
        return Err(Failure::bad("interval must be >= 0"));
    }
    let started = ctx.clock.monotonic();
    match trilith_logql::parse(params.get("query").unwrap_or(""))? {
        Query::Log(query) => {
            // With an interval, entries are dropped after the read, so that more than `limit` may be needed.
            let read_limit = if interval > 0 { usize::MAX } else { limit };
            let source = &*loki.source;
            let found = with_deadline(&ctx, query_log(&ctx, source, &query, start, end, direction, read_limit)).await?;
            let found = super::result::spaced(found, interval, limit);
            let stats = Stats::of(&ctx, started, found.len());
            let body = task::compute(move || logs_body(&found, categorize, &stats)).await?;
            Ok(ok(body))
        }
        Query::Metric(expr) => {
            // Rounded outwards to multiples of the step, as Loki's query frontend does.
            let (start, end) = (start.div_euclid(step) * step, round_up(end, step));
            let grid = Grid::range(start, end, step)?;
            metric(&loki, &ctx, &expr, grid, false, categorize, started).await
        }
    }
}

fn round_up(t: i64, step: i64) -> i64 {
    let down = t.div_euclid(step) * step;
    if down == t { t } else { down.saturating_add(step) }
}

pub async fn instant(State(loki): State<Loki>, request: Request<Body>) -> Result<Response, Failure> {
    let tenant = loki.shared.tenant(request.headers())?;
    let categorize = categorize(request.headers());
    let params = Params::read(request).await.map_err(Failure::bad)?;
    let time = match params.get("time") {
        None => loki.shared.clock.now_ns(),
        Some(text) => times::loki(text).map_err(Failure::bad)?,
    };
    let (ctx, _cancel) = loki.shared.query(&tenant, Duration::ZERO);
    limit(&params, ctx.limits.query_limit_max)?;
    direction(&params)?;
    let started = ctx.clock.monotonic();
    match trilith_logql::parse(params.get("query").unwrap_or(""))? {
        Query::Log(_) => Err(Failure::bad(
            "log queries are not supported as an instant query type, please change your query to a range query type",
        )),
        Query::Metric(expr) => metric(&loki, &ctx, &expr, Grid::instant(time), true, categorize, started).await,
    }
}

async fn metric(
    loki: &Loki,
    ctx: &QueryContext,
    expr: &MetricExpr,
    grid: Grid,
    instant: bool,
    categorize: bool,
    started: Duration,
) -> Result<Response, Failure> {
    let result = with_deadline(ctx, query_metric(ctx, &*loki.source, expr, grid, instant)).await?;
    let stats = Stats::of(ctx, started, 0);
    let body = task::compute(move || metric_body(&result, instant, categorize, &stats)).await?;
    Ok(ok(body))
}

/// Ends a wait for the store when the time is up; the evaluation itself looks between batches.
async fn with_deadline<T>(
    ctx: &QueryContext,
    work: impl Future<Output = trilith_model::Result<T>>,
) -> Result<T, Failure> {
    match ctx.remaining() {
        None => Ok(work.await?),
        Some(left) => match tokio::time::timeout(left, work).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(ctx.timed_out().into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_round_outwards() {
        assert_eq!((round_up(10, 5), round_up(11, 5), round_up(-11, 5)), (10, 15, -10));
    }

    #[test]
    fn parameters() {
        let p = |q| Params::from_query(Some(q));
        assert_eq!(limit(&p(""), 5000).ok(), Some(100));
        assert!(
            limit(&p("limit=0"), 0).is_err() && limit(&p("limit=x"), 0).is_err() && limit(&p("limit=6"), 5).is_err()
        );
        assert_eq!(direction(&p("direction=FORWARD")).ok(), Some(Direction::Forward));
        assert!(direction(&p("direction=up")).is_err());
        assert_eq!(step(&p(""), 0, 3_600_000_000_000).ok(), Some(14_000_000_000));
        assert!(step(&p("step=0"), 0, 1).is_err());
        assert!(step(&p("step=1"), 0, 11_002_000_000_000).is_err());
    }
}
