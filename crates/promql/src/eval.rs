//! Evaluation of an expression over a grid of steps; an instant query is a grid of one step.
//!
//! A vector expression is a pipeline: a leaf (a selector, or a materialised block), a chain of element-wise
//! operations, and a sink (collect the rows, or accumulate them into groups). Selectors stream: every batch of the
//! source becomes a tile, runs through the chain and ends in the sink, so samples and tiles exist a few at a
//! time. What needs whole vectors (joins, topk, label functions) materialises its inputs.
//!
//! Metric names are dropped when the query is done (delayed name removal): rows are only marked before.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use trilith_model::{Error, ErrorKind, Matcher, Result, task};
use trilith_query::vector::{Accumulator, Block, Grid, Row, Top, is_absent};
use trilith_query::{QueryContext, SelectHints, SeriesSource};

use crate::ast::{Aggregation, Binary, Edges, Expr, ExprKind, Selector, Span, ValueType};
use crate::deep::deep;
use crate::element::ElementOp;
use crate::functions::{Function, RangeFunction, max_of, min_of};
use crate::invariant;
use crate::names::{distinct_rows, same_labelset};
use crate::notes::Notes;
use crate::operators::Link;
use crate::tile::{self, Cell, Frame};

/// Settings of evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvalOptions {
    /// How far an instant selector looks back for a sample.
    pub lookback_ms: i64,
    /// Resolution of subqueries that name none.
    pub subquery_step_ms: i64,
    pub features: Features,
}

/// What upstream keeps behind feature flags; off means as in stock Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Experimental functions and aggregations.
    pub experimental_functions: bool,
    pub duration_expressions: bool,
    /// `anchored` and `smoothed`.
    pub extended_selectors: bool,
    /// `fill`, `fill_left`, `fill_right`
    pub fill_modifiers: bool,
    /// Metric names are dropped at the end of the query rather than in every operation.
    pub delayed_name_removal: bool,
    /// Start timestamps of samples are used by `rate` and its kin.
    pub start_timestamps: bool,
    /// `__type__` decides what is a counter, not the suffix of the name.
    pub type_and_unit_labels: bool,
}

impl Default for Features {
    fn default() -> Self {
        Features {
            experimental_functions: true,
            duration_expressions: true,
            extended_selectors: true,
            fill_modifiers: true,
            delayed_name_removal: true,
            start_timestamps: true,
            type_and_unit_labels: false,
        }
    }
}

impl Default for EvalOptions {
    fn default() -> Self {
        EvalOptions {
            lookback_ms: 300_000,
            subquery_step_ms: 60_000,
            features: Features::default(),
        }
    }
}

/// One query's evaluator; cloning is cheap.
#[derive(Clone)]
pub(crate) struct Evaluator {
    pub ctx: QueryContext,
    pub source: Arc<dyn SeriesSource>,
    pub options: EvalOptions,
    /// The grid of the whole query, for `@ start()` and `@ end()`.
    pub query: Grid,
    /// The end that was asked for; the last step may lie before it.
    pub query_end_ms: i64,
    pub notes: Notes,
    pub series: Arc<AtomicU64>,
}

pub(crate) enum Value {
    /// One per step.
    Scalar(Vec<f64>),
    String(String),
    Vector(Block),
}

/// Where the rows of a pipeline come from.
enum Leaf<'a> {
    Selector {
        selector: &'a Selector,
        width_ms: i64,
        cell: Cell,
        edges: Edges,
        func: &'static str,
        /// What notes about its samples point at.
        at: Span,
    },
    Block(Block),
}

/// Where the rows of a pipeline go.
pub(crate) enum Sink {
    Collect(Block),
    Group(Accumulator),
    Top(Top),
}

impl Sink {
    pub(crate) fn absorb(&mut self, ctx: &QueryContext, mut tile: Block) -> Result<()> {
        match self {
            Sink::Collect(block) => {
                tile.drop_empty_rows();
                block.append(ctx, tile)?;
                let limit = ctx.limits.query_samples_max;
                if limit != 0 && block.values.len() as u64 > limit && block.present_cells() as u64 > limit {
                    return Err(too_many_samples());
                }
                Ok(())
            }
            Sink::Group(acc) => {
                for (row, cells) in tile.iter() {
                    acc.add_row(row, cells)?;
                }
                Ok(())
            }
            Sink::Top(top) => {
                for (row, cells) in tile.iter() {
                    top.add_row(row, cells)?;
                }
                Ok(())
            }
        }
    }
}

pub(crate) fn execution(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Execution, message)
}

/// More samples at a time than `limits.query-samples`.
pub(crate) fn too_many_samples() -> Error {
    execution("query processing would load too many samples into memory in query execution")
}

impl Evaluator {
    /// Evaluates any expression but a range vector.
    pub(crate) fn eval<'a>(&'a self, expr: &'a Expr, grid: Grid) -> BoxFuture<'a, Result<Value>> {
        async move {
            self.ctx.check()?;
            match expr.value_type() {
                ValueType::Scalar => Ok(Value::Scalar(self.scalar(expr, grid).await?)),
                ValueType::Vector => Ok(Value::Vector(self.vector(expr, grid).await?)),
                ValueType::String => match &expr.unwrapped().kind {
                    ExprKind::String(s) => Ok(Value::String(s.to_str().into_owned())),
                    _ => Err(Error::internal("a string expression is a literal")),
                },
                ValueType::Matrix => Err(Error::internal("a range vector has no value of its own")),
            }
        }
        .boxed()
    }

    /// A scalar at every step.
    pub(crate) fn scalar<'a>(&'a self, expr: &'a Expr, grid: Grid) -> BoxFuture<'a, Result<Vec<f64>>> {
        deep(async move {
            Ok(match &expr.kind {
                ExprKind::Number(v) => vec![*v; grid.steps],
                ExprKind::Paren(e) | ExprKind::Plus(e) => self.scalar(e, grid).await?,
                ExprKind::Neg(e) => {
                    let mut values = self.scalar(e, grid).await?;
                    values.iter_mut().for_each(|v| *v = -*v);
                    values
                }
                ExprKind::Binary(b) => {
                    // Chains lean to the left; a loop keeps the depth of the recursion.
                    let mut links = vec![b];
                    let mut innermost = &b.lhs;
                    while let ExprKind::Binary(b) = &innermost.kind {
                        links.push(b);
                        innermost = &b.lhs;
                    }
                    let mut left = self.scalar(innermost, grid).await?;
                    for b in links.into_iter().rev() {
                        let right = self.scalar(&b.rhs, grid).await?;
                        left.iter_mut().zip(right).for_each(|(l, r)| *l = b.op.scalar(*l, r));
                    }
                    left
                }
                ExprKind::Call {
                    function: Function::Pi, ..
                } => vec![std::f64::consts::PI; grid.steps],
                ExprKind::Call {
                    function: Function::Time,
                    ..
                } => grid.times().map(|t| t as f64 / 1000.0).collect(),
                ExprKind::Call {
                    function: function @ (Function::MaxOf | Function::MinOf),
                    args,
                } => {
                    let [a, b] = args.as_slice() else {
                        return Err(Error::internal("two scalars are compared"));
                    };
                    let pick = if matches!(function, Function::MaxOf) {
                        max_of
                    } else {
                        min_of
                    };
                    let mut values = self.scalar(a, grid).await?;
                    let others = self.scalar(b, grid).await?;
                    values.iter_mut().zip(others).for_each(|(a, b)| *a = pick(*a, b));
                    values
                }
                ExprKind::Call {
                    function: Function::Scalar,
                    args,
                } => {
                    let block = self.vector(&args[0], grid).await?;
                    (0..grid.steps)
                        .map(|step| {
                            let mut present = (0..block.rows.len())
                                .map(|r| block.row(r)[step])
                                .filter(|v| !is_absent(*v));
                            match (present.next(), present.next()) {
                                (Some(only), None) => only,
                                _ => f64::NAN,
                            }
                        })
                        .collect()
                }
                _ => return Err(Error::internal("not a scalar expression")),
            })
        })
    }

    fn shared_scalar<'a>(&'a self, expr: &'a Expr, grid: Grid) -> BoxFuture<'a, Result<Arc<[f64]>>> {
        async move { Ok(self.scalar(expr, grid).await?.into()) }.boxed()
    }

    /// An instant vector at every step; rows in no particular order unless the expression orders them.
    pub(crate) fn vector<'a>(&'a self, expr: &'a Expr, grid: Grid) -> BoxFuture<'a, Result<Block>> {
        async move {
            let sink = Sink::Collect(Block::empty(grid.steps));
            match self.pipeline(expr, grid, sink, SelectHints::default()).await? {
                Sink::Collect(block) => {
                    self.check_weight(&block)?;
                    Ok(block)
                }
                Sink::Group(_) | Sink::Top(_) => Err(Error::internal("the sink changed its kind")),
            }
        }
        .boxed()
    }

    /// Runs the pipeline that ends in `expr` into `sink`.
    pub(crate) fn pipeline<'a>(
        &'a self,
        expr: &'a Expr,
        grid: Grid,
        sink: Sink,
        hints: SelectHints,
    ) -> BoxFuture<'a, Result<Sink>> {
        deep(async move {
            let (leaf, ops) = self.leaf(expr, grid).await?;
            let block = match leaf {
                Leaf::Block(block) => block,
                Leaf::Selector {
                    selector,
                    width_ms,
                    edges,
                    cell,
                    func,
                    at,
                } => {
                    let mut hints = hints;
                    if !func.is_empty() {
                        hints.func = func.to_owned();
                    }
                    if ops.iter().any(ElementOp::needs_labels) {
                        hints.grouping = None;
                    }
                    let frame = self.frame(selector.shift, grid, width_ms, edges, selector.buckets);
                    let streamed = !self.may_collide(selector, !cell.keeps_name(), &ops);
                    let run = if streamed { Self::stream } else { Self::collect };
                    return run(self, &selector.matchers, at, frame, cell, hints, ops, grid, sink).await;
                }
            };
            let this = self.clone();
            task::compute_sized(block.values.len(), move || this.finish_block(block, &ops, sink)).await?
        })
    }

    /// As [`stream`](Self::stream), but all rows at once: those that become equal have to be told apart from those that
    /// just belong to one group.
    fn collect<'a>(
        &'a self,
        matchers: &'a [Matcher],
        at: Span,
        frame: Frame,
        cell: Cell,
        hints: SelectHints,
        ops: Vec<ElementOp>,
        grid: Grid,
        sink: Sink,
    ) -> BoxFuture<'a, Result<Sink>> {
        async move {
            let rows = Sink::Collect(Block::empty(grid.steps));
            let window = matches!(cell, Cell::Window { .. });
            let rows = self.stream(matchers, at, frame, cell, hints, Vec::new(), grid, rows);
            let Sink::Collect(mut block) = rows.await? else {
                return Err(Error::internal("the sink changed its kind"));
            };
            let this = self.clone();
            task::compute_sized(block.values.len(), move || {
                let rows = block.rows.len();
                distinct_rows(&mut block)?;
                if window && block.rows.len() < rows {
                    // Functions of windows refuse equal series also when they share no step.
                    return Err(same_labelset());
                }
                this.finish_block(block, &ops, sink)
            })
            .await?
        }
        .boxed()
    }

    /// The rest of a pipeline that has its rows at once.
    fn finish_block(&self, mut block: Block, ops: &[ElementOp], mut sink: Sink) -> Result<Sink> {
        self.settle_names(&mut block)?;
        for op in ops {
            op.apply(&self.ctx, &self.notes, &mut block)?;
            self.settle_names(&mut block)?;
        }
        if let (Sink::Collect(rows), true) = (&sink, ops.is_empty())
            && rows.rows.is_empty()
        {
            // Nothing to do to it: its order may matter (sort, topk).
            return Ok(Sink::Collect(block));
        }
        sink.absorb(&self.ctx, block)?;
        Ok(sink)
    }

    /// Walks down the element-wise operations to what they work on; `ops` come out last one first.
    fn leaf<'a>(&'a self, expr: &'a Expr, grid: Grid) -> BoxFuture<'a, Result<(Leaf<'a>, Vec<ElementOp>)>> {
        deep(async move {
            let mut ops = Vec::new();
            let mut e = expr;
            let leaf = loop {
                if grid.steps > 1 && invariant::is_step_invariant(e) {
                    break Leaf::Block(self.at_first_step(e, grid).await?);
                }
                match &e.kind {
                    ExprKind::Paren(inner) | ExprKind::Plus(inner) => e = inner,
                    ExprKind::Neg(inner) => {
                        ops.push(ElementOp::Neg);
                        e = inner;
                    }
                    ExprKind::Binary(b) if b.lhs.value_type() == ValueType::Scalar => {
                        ops.push(self.scalar_op(b, e.span, true, grid).await?);
                        e = &b.rhs;
                    }
                    ExprKind::Binary(b) if b.rhs.value_type() == ValueType::Scalar => {
                        ops.push(self.scalar_op(b, e.span, false, grid).await?);
                        e = &b.lhs;
                    }
                    ExprKind::Selector(selector) => break self.instant_leaf(selector, Cell::Newest, "", e.span),
                    ExprKind::Call { function, args } => match (function, args.as_slice()) {
                        (Function::Map(_, f), [arg]) => {
                            ops.push(ElementOp::Map(*f));
                            e = arg;
                        }
                        (Function::Histogram(_, f), [arg]) => {
                            ops.push(ElementOp::Histogram(*f));
                            e = arg;
                        }
                        (Function::Calendar(_, f), [arg]) => {
                            ops.push(ElementOp::Calendar(*f));
                            e = arg;
                        }
                        (Function::Clamp, [arg, min, max]) => {
                            let min = Some(self.shared_scalar(min, grid).await?);
                            let max = Some(self.shared_scalar(max, grid).await?);
                            ops.push(ElementOp::Clamp { min, max });
                            e = arg;
                        }
                        (Function::ClampMin, [arg, min]) => {
                            ops.push(ElementOp::Clamp {
                                min: Some(self.shared_scalar(min, grid).await?),
                                max: None,
                            });
                            e = arg;
                        }
                        (Function::ClampMax, [arg, max]) => {
                            ops.push(ElementOp::Clamp {
                                min: None,
                                max: Some(self.shared_scalar(max, grid).await?),
                            });
                            e = arg;
                        }
                        (Function::Round, [arg, to @ ..]) => {
                            let to = match to.first() {
                                Some(to) => self.shared_scalar(to, grid).await?,
                                None => vec![1.0; grid.steps].into(),
                            };
                            ops.push(ElementOp::Round { to });
                            e = arg;
                        }
                        (Function::Timestamp, [arg]) => {
                            if let ExprKind::Selector(selector) = &arg.unwrapped().kind {
                                break self.instant_leaf(selector, Cell::NewestTime, "timestamp", arg.span);
                            }
                            ops.push(ElementOp::Timestamp {
                                seconds: grid.times().map(|t| t as f64 / 1000.0).collect(),
                            });
                            e = arg;
                        }
                        (Function::StartTimestamp, [arg]) => match &arg.unwrapped().kind {
                            ExprKind::Selector(selector) if self.options.features.start_timestamps => {
                                break self.instant_leaf(selector, Cell::NewestStart, "start_timestamp", arg.span);
                            }
                            _ => {
                                // What is computed has no start timestamps.
                                self.vector(arg, grid).await?;
                                break Leaf::Block(Block::empty(grid.steps));
                            }
                        },
                        (Function::OverTime(function), args) => {
                            break self.range_leaf(*function, args, grid).await?;
                        }
                        _ => break Leaf::Block(self.call(*function, args, e.span, grid).await?),
                    },
                    ExprKind::Aggregate(a) if a.op == Aggregation::LimitRatio => {
                        ops.push(self.ratio_op(a, grid).await?);
                        e = &a.expr;
                    }
                    ExprKind::Aggregate(a) => {
                        let block = match a.op {
                            // Without a detour: these nest deep.
                            Aggregation::Simple(op) => self.group(op, a.grouping.clone(), &a.expr, grid),
                            _ => self.aggregate(a, e.span, grid),
                        };
                        break Leaf::Block(block.await?);
                    }
                    ExprKind::Binary(b) => {
                        break Leaf::Block(self.vector_chain(Link::Operator(b, e.span), grid).await?);
                    }
                    ExprKind::Set(s) => {
                        break Leaf::Block(self.vector_chain(Link::Set(s), grid).await?);
                    }
                    ExprKind::Number(_) | ExprKind::String(_) | ExprKind::Range { .. } | ExprKind::Subquery(_) => {
                        return Err(Error::internal("not an instant vector expression"));
                    }
                }
            };
            ops.reverse();
            Ok((leaf, ops))
        })
    }

    fn scalar_op<'a>(
        &'a self,
        b: &'a Binary,
        at: Span,
        scalar_left: bool,
        grid: Grid,
    ) -> BoxFuture<'a, Result<ElementOp>> {
        async move {
            let scalar = if scalar_left { &b.lhs } else { &b.rhs };
            let scalars = self.shared_scalar(scalar, grid).await?;
            Ok(ElementOp::Scalar {
                op: b.op,
                scalars,
                scalar_left,
                return_bool: b.return_bool,
                at,
            })
        }
        .boxed()
    }

    /// The newest sample of a selector's series, or something of it.
    fn instant_leaf<'a>(&self, selector: &'a Selector, cell: Cell, func: &'static str, at: Span) -> Leaf<'a> {
        let edges = match cell {
            Cell::Newest => selector.edges,
            // Times are those of samples.
            _ => Edges::Plain,
        };
        let width_ms = match edges {
            // Both neighbours lie one lookback around the step.
            Edges::Smoothed => 0,
            _ => self.options.lookback_ms,
        };
        Leaf::Selector {
            selector,
            edges,
            width_ms,
            cell,
            func,
            at,
        }
    }

    /// A function of a range selector or a subquery.
    fn range_leaf<'a>(
        &'a self,
        function: RangeFunction,
        args: &'a [Expr],
        grid: Grid,
    ) -> BoxFuture<'a, Result<Leaf<'a>>> {
        async move {
            let is_range = |e: &Expr| e.value_type() == ValueType::Matrix;
            let range = args
                .iter()
                .find(|e| is_range(e))
                .ok_or_else(|| Error::internal("a range function has other arguments than its signature"))?;
            if let ExprKind::Range { selector, .. } = &range.unwrapped().kind {
                check_edges(function.name(), selector.edges)?;
            }
            let mut params: Vec<Arc<[f64]>> = Vec::new();
            for param in args.iter().filter(|e| !is_range(e)) {
                params.push(self.shared_scalar(param, grid).await?);
            }
            let starts = function.uses_starts() && self.options.features.start_timestamps;
            let cell = Cell::Window {
                function,
                params: params.into(),
                starts,
            };
            // Notes are about the first argument, whichever it is.
            let at = args[0].unwrapped().span;
            match &range.unwrapped().kind {
                ExprKind::Range { selector, range_ms } => Ok(Leaf::Selector {
                    selector,
                    edges: selector.edges,
                    width_ms: *range_ms,
                    cell,
                    func: function.name(),
                    at,
                }),
                ExprKind::Subquery(s) => {
                    let (samples, frame) = self.subquery(s, grid).await?;
                    // Upstream forgets where a subquery stands.
                    let at = if is_range(&args[0]) { Span::default() } else { at };
                    let (ctx, remarks) = (self.ctx.clone(), self.remarks(at));
                    Ok(Leaf::Block(
                        task::compute(move || tile::evaluate(&ctx, &samples, &cell, &frame, &remarks)).await??,
                    ))
                }
                _ => Err(Error::internal("not a range vector expression")),
            }
        }
        .boxed()
    }

    /// A block of one row without labels.
    pub(crate) fn single(&self, values: Vec<f64>, labels: trilith_model::Labels) -> Result<Block> {
        let mut block = Block::absent(&self.ctx, vec![Row::new(labels)], values.len())?;
        block.values = values;
        Ok(block)
    }
}

/// The functions that understand edges other than plain.
pub(crate) fn check_edges(function: &str, edges: Edges) -> Result<()> {
    let (modifier, known): (_, &[&str]) = match edges {
        Edges::Plain => return Ok(()),
        Edges::Anchored => ("anchored", &["changes", "delta", "increase", "rate", "resets"]),
        Edges::Smoothed => ("smoothed", &["delta", "increase", "rate"]),
    };
    if known.contains(&function) {
        return Ok(());
    }
    let known = known.join(", ");
    Err(execution(format!(
        "{modifier} modifier can only be used with: {known} - not with {function}"
    )))
}
