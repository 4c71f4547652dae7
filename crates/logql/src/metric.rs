//! Metric queries.
//!
//! An entry at time `t` counts at the steps `T` with `T − range < t + offset ≤ T`: a run of steps. It is added at the
//! run's first step and taken off behind its last one; a running sum at the end gives every step its value. So an
//! entry costs the same however much windows overlap, and nothing of it is kept.

use std::future::Future;
use std::pin::Pin;

use futures::StreamExt as _;
use hashbrown::HashMap;
use trilith_model::{Error, ErrorKind, Labels, MatchOp, Matcher, Result, task};
use trilith_query::series::Grouping;
use trilith_query::vector::rank::select_k;
use trilith_query::vector::{
    ABSENT, Accumulator, AggregateOp, BinaryOp, Block, Grid, Grouper, Join, MatchError, NameRemoval, Row, is_absent,
    matching, ops,
};
use trilith_query::{Direction, EntryBatch, EntryRequest, EntrySource, QueryContext, Reservation, WantedFields};

use crate::ast::{MetricExpr, RangeAggregation, RangeOp};
use crate::log::merged_labels;
use crate::pipeline::Pipeline;

/// One series of an answer; points ascending by time (ns).
#[derive(Clone, Debug, PartialEq)]
pub struct MetricSeries {
    pub labels: Labels,
    pub points: Vec<(i64, f64)>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum MetricResult {
    /// Literal arithmetic, instant.
    Scalar(i64, f64),
    /// Sorted by labels, or by value when the query sorts. One point each for an instant query.
    Series(Vec<MetricSeries>),
}

enum Value {
    Number(f64),
    Vector(Block),
}

/// Evaluates at every time of `grid` (ns); `instant` decides the shape of literal results.
///
/// # Errors
/// Those of the source; many-to-many matches; memory budget, deadline, cancellation.
pub async fn query_metric(
    ctx: &QueryContext,
    source: &dyn EntrySource,
    expr: &MetricExpr,
    grid: Grid,
    instant: bool,
) -> Result<MetricResult> {
    let value = evaluate(ctx, source, expr, grid, None).await?;
    let mut block = match value {
        Value::Number(v) if instant => return Ok(MetricResult::Scalar(grid.start, v)),
        Value::Number(v) => constant(ctx, v, grid)?,
        Value::Vector(block) => block,
    };
    match sorted_by_value(expr).filter(|_| instant) {
        Some(descending) => {
            let mut order: Vec<usize> = (0..block.rows.len()).collect();
            let key = |i: usize| block.values[i * block.steps];
            order.sort_by(|a, b| {
                let o = if descending {
                    key(*b).total_cmp(&key(*a))
                } else {
                    key(*a).total_cmp(&key(*b))
                };
                o.then_with(|| block.rows[*a].labels.cmp(&block.rows[*b].labels))
            });
            block.reorder(&order);
        }
        None => block.sort_by_labels(),
    }
    let series = block
        .iter()
        .map(|(row, cells)| MetricSeries {
            labels: row.labels.clone(),
            points: grid
                .times()
                .zip(cells)
                .filter(|(_, v)| !is_absent(**v))
                .map(|(t, v)| (t, *v))
                .collect(),
        })
        .filter(|s| !s.points.is_empty())
        .collect();
    Ok(MetricResult::Series(series))
}

/// The direction of the outermost `sort` or `sort_desc` anywhere in the expression.
fn sorted_by_value(expr: &MetricExpr) -> Option<bool> {
    let mut e = expr;
    let mut found = None;
    loop {
        match e {
            MetricExpr::Sort { descending, .. } => return Some(*descending),
            MetricExpr::Aggregate { argument, .. } | MetricExpr::Rank { argument, .. } => {
                e = argument;
            }
            // Down the left edge in the loop: chains of operators are long there. What stands left wins.
            MetricExpr::Binary { left, right, .. } | MetricExpr::Set { left, right, .. } => {
                found = sorted_by_value(right).or(found);
                e = left;
            }
            MetricExpr::Number(_) | MetricExpr::Vector(_) | MetricExpr::Range(_) => return found,
        }
    }
}

fn constant(ctx: &QueryContext, v: f64, grid: Grid) -> Result<Block> {
    let mut block = Block::absent(ctx, vec![Row::new(Labels::empty())], grid.steps)?;
    block.values.fill(v);
    Ok(block)
}

type Evaluation<'a> = Pin<Box<dyn Future<Output = Result<Value>> + Send + 'a>>;

/// `sum_by`: the grouping of a surrounding `sum`, which a range aggregation may apply while it counts.
fn evaluate<'a>(
    ctx: &'a QueryContext,
    source: &'a dyn EntrySource,
    expr: &'a MetricExpr,
    grid: Grid,
    sum_by: Option<&'a Option<Grouping>>,
) -> Evaluation<'a> {
    Box::pin(async move {
        ctx.check()?;
        Ok(match expr {
            MetricExpr::Number(v) => Value::Number(*v),
            MetricExpr::Vector(v) => Value::Vector(constant(ctx, *v, grid)?),
            MetricExpr::Range(r) => Value::Vector(range(ctx, source, r, grid, sum_by).await?),
            MetricExpr::Aggregate { op, grouping, argument } => {
                let pushed = (*op == AggregateOp::Sum).then_some(grouping);
                let block = vector(ctx, evaluate(ctx, source, argument, grid, pushed).await?, grid)?;
                let (ctx, op, grouping) = (ctx.clone(), *op, grouping.clone());
                let grouped = task::compute(move || {
                    let mut acc = Accumulator::new(&ctx, op, grouping, grid.steps);
                    for (row, cells) in block.iter() {
                        acc.add(&row.labels, cells)?;
                    }
                    acc.finish(&ctx).map(|(block, _)| block)
                });
                Value::Vector(grouped.await??)
            }
            MetricExpr::Rank {
                largest,
                k,
                grouping,
                argument,
            } => {
                let block = vector(ctx, evaluate(ctx, source, argument, grid, None).await?, grid)?;
                let (ctx, grouping) = (ctx.clone(), grouping.clone());
                let (k, largest) = (vec![*k; grid.steps], *largest);
                let ranked = task::compute(move || select_k(&ctx, block, grouping, &k, largest));
                Value::Vector(ranked.await??.0)
            }
            MetricExpr::Sort { argument, .. } => evaluate(ctx, source, argument, grid, None).await?,
            MetricExpr::Binary { .. } | MetricExpr::Set { .. } => chain(ctx, source, expr, grid).await?,
        })
    })
}

/// Operators along the left edge of the tree. A chain `a + b + c …` is as deep as it is long; a loop keeps the depth
/// of the recursion.
fn chain<'a>(
    ctx: &'a QueryContext,
    source: &'a dyn EntrySource,
    outermost: &'a MetricExpr,
    grid: Grid,
) -> Evaluation<'a> {
    Box::pin(async move {
        let mut links = Vec::new();
        let mut innermost = outermost;
        while let MetricExpr::Binary { left, .. } | MetricExpr::Set { left, .. } = innermost {
            links.push(innermost);
            innermost = left;
        }
        let mut value = evaluate(ctx, source, innermost, grid, None).await?;
        for link in links.into_iter().rev() {
            value = match link {
                MetricExpr::Binary {
                    op,
                    return_bool,
                    matching,
                    right,
                    ..
                } => match (value, evaluate(ctx, source, right, grid, None).await?) {
                    (Value::Number(a), Value::Number(b)) => Value::Number(op.scalar(a, b)),
                    (Value::Vector(v), Value::Number(n)) => Value::Vector(with_number(v, n, *op, false, *return_bool)),
                    (Value::Number(n), Value::Vector(v)) => Value::Vector(with_number(v, n, *op, true, *return_bool)),
                    (Value::Vector(a), Value::Vector(b)) => {
                        let ctx = ctx.clone();
                        let join = Join {
                            op: *op,
                            return_bool: *return_bool,
                            matching: matching.clone(),
                            names: NameRemoval::Immediate,
                        };
                        let joined = task::compute(move || join.run(&ctx, &a, &b));
                        Value::Vector(joined.await?.map_err(match_error)?.0)
                    }
                },
                MetricExpr::Set {
                    op, matching, right, ..
                } => {
                    let l = vector(ctx, value, grid)?;
                    let r = vector(ctx, evaluate(ctx, source, right, grid, None).await?, grid)?;
                    let (ctx, op, matching) = (ctx.clone(), *op, matching.clone());
                    let set = task::compute(move || matching::set_operation(&ctx, l, r, op, &matching));
                    Value::Vector(set.await?.map_err(match_error)?)
                }
                _ => return Err(Error::internal("a chain consists of operators")),
            };
        }
        Ok(value)
    })
}

fn vector(ctx: &QueryContext, value: Value, grid: Grid) -> Result<Block> {
    match value {
        Value::Vector(block) => Ok(block),
        Value::Number(v) => constant(ctx, v, grid),
    }
}

fn with_number(mut block: Block, n: f64, op: BinaryOp, number_left: bool, return_bool: bool) -> Block {
    let scalars = vec![n; block.steps];
    for i in 0..block.rows.len() {
        ops::with_scalars(block.row_mut(i), &scalars, op, number_left, return_bool);
    }
    block.drop_empty_rows();
    block
}

fn match_error(e: MatchError) -> Error {
    let text = match e {
        MatchError::Duplicate { .. } => {
            "found duplicate series on the right hand-side;many-to-many matching not allowed: matching labels must be \
             unique on one side"
        }
        MatchError::ManyToOne => {
            "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
        }
        MatchError::NotUnique | MatchError::SameLabels => {
            "multiple matches for labels: grouping labels must ensure unique matches"
        }
        MatchError::Other(e) => return e,
    };
    Error::new(ErrorKind::Internal, text)
}

async fn range(
    ctx: &QueryContext,
    source: &dyn EntrySource,
    r: &RangeAggregation,
    grid: Grid,
    sum_by: Option<&Option<Grouping>>,
) -> Result<Block> {
    let counts_bytes = matches!(r.op, RangeOp::BytesOverTime | RangeOp::BytesRate);
    // Labels of metadata matter unless everything goes into one group.
    let absent = r.op == RangeOp::Absent;
    let sum_by = if absent { Some(&None) } else { sum_by };
    let one_group = matches!(sum_by, Some(None)) || matches!(sum_by, Some(Some(g)) if g.by && g.labels.is_empty());
    let request = EntryRequest {
        matchers: r.log.matchers.clone(),
        start_ns: grid
            .start
            .saturating_sub(r.offset_ns)
            .saturating_sub(r.range_ns)
            .saturating_add(1),
        end_ns: grid.end().saturating_sub(r.offset_ns).saturating_add(1),
        direction: Direction::Forward,
        limit: None,
        filters: r.log.filters.clone(),
        fields: WantedFields {
            line: false,
            line_len: counts_bytes,
            // Stages look at metadata.
            metadata: !one_group || !r.log.stages.is_empty(),
        },
    };
    let mut windows = Windows {
        grid,
        range_ns: r.range_ns,
        offset_ns: r.offset_ns,
        counts_bytes,
        pipeline: Pipeline::new(&r.log.stages),
        group: sum_by.map(|g| Grouper::new(g.clone())),
        rows: Vec::new(),
        index: HashMap::new(),
        changes: Vec::new(),
        touched: Vec::new(),
        memory: ctx.memory.reserve(0)?,
    };
    let mut batches = source.select(ctx, request);
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        ctx.check()?;
        windows = task::compute(move || windows.add(&batch).map(|()| windows)).await??;
    }
    let seconds = r.range_ns as f64 / 1e9;
    let divisor = match r.op {
        RangeOp::Rate | RangeOp::BytesRate => seconds,
        RangeOp::CountOverTime | RangeOp::BytesOverTime | RangeOp::Absent => 1.0,
    };
    let context = ctx.clone();
    let block = task::compute(move || windows.finish(&context, divisor)).await??;
    if !absent {
        return Ok(block);
    }
    let mut out = Block::absent(ctx, vec![Row::new(absent_labels(&r.log.matchers))], grid.steps)?;
    for (i, cell) in out.values.iter_mut().enumerate() {
        if block.values.get(i).is_none_or(|v| is_absent(*v)) {
            *cell = 1.0;
        }
    }
    Ok(out)
}

/// What is known of streams that are not there: labels with exactly one matcher, and that for equality.
fn absent_labels(matchers: &[Matcher]) -> Labels {
    let known = matchers
        .iter()
        .filter(|m| m.op == MatchOp::Eq && matchers.iter().filter(|o| o.name == m.name).count() == 1);
    Labels::from_pairs(known.map(|m| (&*m.name, &*m.value)))
}

/// Accumulators per series and step.
struct Windows {
    grid: Grid,
    range_ns: i64,
    offset_ns: i64,
    counts_bytes: bool,
    pipeline: Pipeline,
    /// Present when a surrounding `sum` groups.
    group: Option<Grouper>,
    rows: Vec<Labels>,
    index: HashMap<Labels, usize>,
    /// Per row `steps + 1` differences of the value.
    changes: Vec<f64>,
    /// The same of the number of entries: a window of empty lines has 0 bytes, but a value.
    touched: Vec<i64>,
    memory: Reservation,
}

impl Windows {
    fn add(&mut self, batch: &EntryBatch) -> Result<()> {
        // Rows of entries without metadata, by stream of this batch.
        let mut plain: Vec<Option<Option<usize>>> = vec![None; batch.streams.len()];
        for e in &batch.entries {
            let Some((first, behind)) = self.steps_of(e.ts_ns) else {
                continue;
            };
            let stream = e.stream as usize;
            let row = match plain[stream] {
                Some(row) if e.metadata.is_empty() => row,
                _ => {
                    let row = self.row_of(&batch.streams[stream], &e.metadata)?;
                    if e.metadata.is_empty() {
                        plain[stream] = Some(row);
                    }
                    row
                }
            };
            let Some(row) = row else {
                continue; // A label filter dropped the entry.
            };
            let value = if self.counts_bytes { f64::from(e.line_len) } else { 1.0 };
            let base = row * (self.grid.steps + 1);
            self.changes[base + first] += value;
            self.changes[base + behind] -= value;
            self.touched[base + first] += 1;
            self.touched[base + behind] -= 1;
        }
        Ok(())
    }

    /// The steps `[first, behind)` at which an entry of this time counts.
    fn steps_of(&self, ts_ns: i64) -> Option<(usize, usize)> {
        // T ≥ ts + offset and T < ts + offset + range, in 128 bits: times may be at the ends of i64.
        let t = i128::from(ts_ns) + i128::from(self.offset_ns) - i128::from(self.grid.start);
        let step = i128::from(self.grid.step.max(1));
        let ceil = |x: i128| if x <= 0 { 0 } else { (x + step - 1) / step };
        let first = ceil(t);
        let behind = ceil(t + i128::from(self.range_ns)).min(self.grid.steps as i128);
        (first < behind).then_some((first as usize, behind as usize))
    }

    /// `None` when the stages drop the entry.
    fn row_of(&mut self, stream: &Labels, metadata: &Labels) -> Result<Option<usize>> {
        let labels = if self.pipeline.is_empty() {
            merged_labels(stream, metadata)
        } else {
            match self.pipeline.process(stream, metadata) {
                Some(l) => merged_labels(&l.stream, &l.metadata),
                None => return Ok(None),
            }
        };
        if let Some(row) = self.index.get(&labels) {
            return Ok(Some(*row));
        }
        let row = match &mut self.group {
            None => {
                self.rows.push(labels.clone());
                self.rows.len() - 1
            }
            Some(g) => g.group_of(&labels) as usize,
        };
        let cells = (row + 1) * (self.grid.steps + 1);
        self.memory
            .grow(labels.as_packed().len() + 64 + cells.saturating_sub(self.changes.len()) * 16)?;
        if cells > self.changes.len() {
            self.changes.resize(cells, 0.0);
            self.touched.resize(cells, 0);
        }
        self.index.insert(labels, row);
        Ok(Some(row))
    }

    fn finish(self, ctx: &QueryContext, divisor: f64) -> Result<Block> {
        let rows = match self.group {
            None => self.rows,
            Some(g) => g.into_groups(),
        };
        let mut out = Block::absent(ctx, rows.into_iter().map(Row::new).collect(), self.grid.steps)?;
        let width = self.grid.steps + 1;
        for i in 0..out.rows.len() {
            let (mut value, mut entries) = (0.0, 0);
            for (s, cell) in out.row_mut(i).iter_mut().enumerate() {
                value += self.changes[i * width + s];
                entries += self.touched[i * width + s];
                *cell = if entries > 0 { value / divisor } else { ABSENT };
            }
        }
        out.drop_empty_rows();
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
