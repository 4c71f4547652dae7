//! `info`: series get the labels of the info metrics (`target_info`) that describe the same `job` and `instance`.
//!
//! Info series are read at the time that the first selector of the described expression looks at. At every step a
//! series joins the newest info series of its key per info metric, so one row may become several, each with values
//! at other steps.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use trilith_model::{Error, Labels, MatchOp, Matcher, Result, task};
use trilith_query::vector::{Block, Element, Grid, Row};
use trilith_query::{QueryContext, SelectHints};

use crate::ast::{Edges, Expr, ExprKind, Span, TimeShift};
use crate::eval::{Evaluator, Sink, execution};
use crate::names::distinct_rows;
use crate::tile::Cell;

const NAME: &str = "__name__";

/// What a series and its info series have in common.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// Alternatives in one expression above which info series are filtered here rather than by the source.
const ALTERNATIVES_MAX: usize = 1000;

impl Evaluator {
    /// `at`: the whole call.
    ///
    /// # Errors
    /// `Execution` when two info series of a key are equally new, when two info metrics disagree about a label, when an
    /// info series is a histogram, and when two series become one; limits, the budget.
    pub(super) fn info<'a>(&'a self, args: &'a [Expr], at: Span, grid: Grid) -> BoxFuture<'a, Result<Block>> {
        async move {
            let (described, selection) = match args {
                [v] => (v, None),
                [v, selection] => match &selection.kind {
                    ExprKind::Selector(s) => (v, Some(s.matchers.as_slice())),
                    _ => return Err(Error::internal("the second argument of info is a selector")),
                },
                _ => return Err(Error::internal("info takes one or two arguments")),
            };
            let (names, data): (Vec<Matcher>, Vec<Matcher>) = selection
                .unwrap_or_default()
                .iter()
                .cloned()
                .partition(|m| &*m.name == NAME);
            let names = info_names(names)?;

            let base = self.vector(described, grid).await?;
            let is_info: Vec<bool> = base
                .rows
                .iter()
                .map(|r| names.iter().all(|m| m.matches(r.labels.get(NAME).unwrap_or(""))))
                .collect();
            let identities = identities(&base.rows, &is_info);
            let mut found = Found {
                info: Block::empty(grid.steps),
                times: None,
            };
            if identities.iter().any(|values| !values.is_empty()) {
                let shift = reference_time(described);
                let mut matchers = [names.as_slice(), data.as_slice()].concat();
                for (label, values) in IDENTIFYING.into_iter().zip(&identities) {
                    if !values.is_empty() && values.len() <= ALTERNATIVES_MAX {
                        let any: Vec<String> = values.iter().map(|v| quote_meta(v)).collect();
                        matchers.push(Matcher::new(MatchOp::Re, label, any.join("|"))?);
                    }
                }
                let described_by_source = |row: &Row, _: &[f64]| {
                    IDENTIFYING.into_iter().zip(&identities).all(|(label, values)| {
                        values.is_empty() || row.labels.get(label).is_some_and(|v| values.contains(v))
                    })
                };
                found.info = self.info_series(&matchers, shift, Cell::Newest, at, grid).await?;
                found.info.retain(described_by_source);
                if found.info.rows.iter().any(|r| r.histograms.is_some()) {
                    return Err(execution("info sample should be float"));
                }
                if found.is_ambiguous() {
                    let times = self.info_series(&matchers, shift, Cell::NewestTime, at, grid).await?;
                    found.times = Some(times);
                }
            }
            let ctx = self.ctx.clone();
            let mut block = task::compute(move || join(&ctx, &base, &is_info, &found, &data)).await??;
            self.settle_names(&mut block)?;
            Ok(block)
        }
        .boxed()
    }

    /// Info series with their names, also where names are dropped at once.
    fn info_series<'a>(
        &'a self,
        matchers: &'a [Matcher],
        shift: TimeShift,
        cell: Cell,
        at: Span,
        grid: Grid,
    ) -> BoxFuture<'a, Result<Block>> {
        async move {
            let mut evaluator = self.clone();
            evaluator.options.features.delayed_name_removal = true;
            let hints = SelectHints {
                func: "info".to_owned(),
                ..SelectHints::default()
            };
            let frame = evaluator.frame(shift, grid, self.options.lookback_ms, Edges::Plain, true);
            let rows = Sink::Collect(Block::empty(grid.steps));
            match evaluator
                .stream(matchers, at, frame, cell, hints, Vec::new(), grid, rows)
                .await?
            {
                Sink::Collect(block) => Ok(block),
                Sink::Group(_) | Sink::Top(_) => Err(Error::internal("the sink changed its kind")),
            }
        }
        .boxed()
    }
}

/// The names of the info metrics: those asked for, from all `_info` metrics when it is only said which not, else
/// `target_info`.
fn info_names(mut asked: Vec<Matcher>) -> Result<Vec<Matcher>> {
    if asked.is_empty() {
        return Ok(vec![Matcher::eq(NAME, "target_info")]);
    }
    if asked.iter().all(|m| m.op.is_negative()) {
        asked.push(Matcher::new(MatchOp::Re, NAME, ".+_info")?);
    }
    Ok(asked)
}

/// The values of the identifying labels of all series that are to be described.
fn identities(rows: &[Row], is_info: &[bool]) -> [BTreeSet<String>; 2] {
    let mut out = [BTreeSet::new(), BTreeSet::new()];
    for (row, _) in rows.iter().zip(is_info).filter(|(_, info)| !**info) {
        for (label, values) in IDENTIFYING.into_iter().zip(&mut out) {
            if let Some(value) = row.labels.get(label).filter(|v| !values.contains(*v)) {
                values.insert(value.to_owned());
            }
        }
    }
    out
}

/// As an expression that matches the text itself.
fn quote_meta(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// The time that the first selector looks at: its own `@` or the innermost one around it, and all offsets up to there.
fn reference_time(e: &Expr) -> TimeShift {
    first_selector(e).unwrap_or_default()
}

fn first_selector(e: &Expr) -> Option<TimeShift> {
    match &e.kind {
        ExprKind::Number(_) | ExprKind::String(_) => None,
        ExprKind::Selector(s) | ExprKind::Range { selector: s, .. } => Some(s.shift),
        ExprKind::Subquery(s) => {
            let mut shift = first_selector(&s.expr)?;
            if shift.at.is_none() {
                shift.at = s.shift.at;
                shift.offset_ms = shift.offset_ms.saturating_add(s.shift.offset_ms);
            }
            Some(shift)
        }
        ExprKind::Call { args, .. } => args.iter().find_map(first_selector),
        ExprKind::Aggregate(a) => first_selector(&a.expr).or_else(|| a.param.as_ref().and_then(first_selector)),
        ExprKind::Neg(inner) | ExprKind::Plus(inner) | ExprKind::Paren(inner) => first_selector(inner),
        ExprKind::Binary(_) | ExprKind::Set(_) => {
            // Chains lean to the left; a loop keeps the depth of the recursion.
            let (mut links, mut e) = (Vec::new(), e);
            loop {
                e = match &e.kind {
                    ExprKind::Binary(b) => {
                        links.push(&b.rhs);
                        &b.lhs
                    }
                    ExprKind::Set(s) => {
                        links.push(&s.rhs);
                        &s.lhs
                    }
                    _ => break,
                };
            }
            first_selector(e).or_else(|| links.into_iter().rev().find_map(first_selector))
        }
    }
}

type Key<'a> = [Option<&'a str>; 2];

fn key(labels: &Labels) -> Key<'_> {
    IDENTIFYING.map(|l| labels.get(l))
}

struct Found {
    info: Block,
    /// The times of the samples of `info`, when they are needed.
    times: Option<Block>,
}

/// The info series of a key: per metric, in the order of their names, the rows that may describe it.
type Candidates<'a> = BTreeMap<&'a str, Vec<usize>>;

impl Found {
    fn by_key(&self) -> HashMap<Key<'_>, Candidates<'_>> {
        let mut out: HashMap<Key<'_>, Candidates<'_>> = HashMap::new();
        for (i, row) in self.info.rows.iter().enumerate() {
            let name = row.labels.get(NAME).unwrap_or("");
            let of_key = out.entry(key(&row.labels)).or_default();
            of_key.entry(name).or_default().push(i);
        }
        out
    }

    /// Whether two series describe the same at the same step.
    fn is_ambiguous(&self) -> bool {
        let by_key = self.by_key();
        let mut rows = by_key.values().flat_map(BTreeMap::values).filter(|rows| rows.len() > 1);
        rows.any(|rows| {
            (0..self.info.steps).any(|step| rows.iter().filter(|r| self.info.has_value(**r, step)).count() > 1)
        })
    }

    /// The newest of `rows` at a step.
    ///
    /// # Errors
    /// `Execution` when two are equally new.
    fn newest(&self, times: &HashMap<&Labels, &[f64]>, rows: &[usize], step: usize) -> Result<Option<usize>> {
        let mut newest: Option<(usize, f64)> = None;
        for row in rows.iter().copied().filter(|r| self.info.has_value(*r, step)) {
            let labels = &self.info.rows[row].labels;
            let time = times.get(labels).map_or(0.0, |cells| cells[step]);
            newest = match newest {
                Some((other, before)) if before == time => {
                    let ms = (time * 1000.0).round();
                    return Err(execution(format!(
                        "found duplicate series for info metric: existing {} @ {ms}, new {labels} @ {ms}",
                        self.info.rows[other].labels
                    )));
                }
                Some((_, before)) if before > time => newest,
                _ => Some((row, time)),
            };
        }
        Ok(newest.map(|(row, _)| row))
    }
}

/// Per step which info series describe a key, as an index of `sets`; a set has one row at most per info metric.
struct Choices {
    at: Vec<u32>,
    sets: Vec<Vec<usize>>,
}

fn choices(
    found: &Found,
    times: &HashMap<&Labels, &[f64]>,
    candidates: &Candidates<'_>,
    counts: &[bool],
) -> Result<Choices> {
    let mut out = Choices {
        at: vec![0; counts.len()],
        sets: vec![Vec::new()],
    };
    for (step, _) in counts.iter().enumerate().filter(|(_, counts)| **counts) {
        let mut set = Vec::with_capacity(candidates.len());
        for rows in candidates.values() {
            set.extend(found.newest(times, rows, step)?);
        }
        let known = out.sets.iter().rposition(|s| *s == set).unwrap_or_else(|| {
            out.sets.push(set);
            out.sets.len() - 1
        });
        out.at[step] = known as u32;
    }
    Ok(out)
}

/// `is_info`: rows of `base` that stay as they are.
fn join(ctx: &QueryContext, base: &Block, is_info: &[bool], found: &Found, data: &[Matcher]) -> Result<Block> {
    let steps = base.steps;
    let mut any_base = vec![false; steps];
    for (row, cells) in base.iter() {
        row.mark_present(cells, &mut any_base);
    }
    let times = found
        .times
        .iter()
        .flat_map(|t| t.iter().map(|(row, cells)| (&row.labels, cells)));
    let times: HashMap<&Labels, &[f64]> = times.collect();
    let _booked = ctx
        .memory
        .reserve(found.info.rows.len().saturating_mul(steps).saturating_mul(4))?;
    let mut by_key = HashMap::new();
    for (key, candidates) in found.by_key() {
        ctx.check()?;
        by_key.insert(key, choices(found, &times, &candidates, &any_base)?);
    }
    let undescribed = Choices {
        at: vec![0; steps],
        sets: vec![Vec::new()],
    };
    let required = data.iter().any(|m| !m.matches_empty());
    let wanted: BTreeSet<&str> = data.iter().map(|m| &*m.name).collect();

    let mut out = Block::empty(steps);
    for (i, row) in base.rows.iter().enumerate() {
        ctx.check()?;
        let choices = by_key
            .get(&key(&row.labels))
            .filter(|_| !is_info[i])
            .unwrap_or(&undescribed);
        // Per set of info series the labels of the row; made when a value needs them.
        let mut made: Vec<Option<usize>> = vec![None; choices.sets.len()];
        let mut rows: Vec<Row> = Vec::new();
        let mut cells = Vec::with_capacity(steps);
        let mut bytes = 0;
        for step in 0..steps {
            let set = choices.at[step] as usize;
            let described = !choices.sets[set].is_empty();
            let kept = base.has_value(i, step) && (described || is_info[i] || !required);
            cells.push(if !kept {
                None
            } else if let Some(row) = made[set] {
                Some(row)
            } else {
                let mut labels = row.labels.clone();
                if described {
                    labels = describe(&row.labels, &choices.sets[set], &found.info, &wanted)?;
                    bytes += labels.as_packed().len();
                }
                rows.push(Row {
                    labels,
                    drop_name: row.drop_name,
                    histograms: None,
                });
                made[set] = Some(rows.len() - 1);
                made[set]
            });
        }
        let mut described = Block::absent(ctx, rows, steps)?;
        described.charge(ctx, bytes)?;
        for (step, to) in cells.into_iter().enumerate() {
            match (to, base.element(i, step)) {
                (Some(to), Some(Element::Float(v))) => described.row_mut(to)[step] = v,
                (Some(to), Some(Element::Histogram(h))) => described.put_histogram(ctx, to, step, h.clone())?,
                _ => {}
            }
        }
        out.append(ctx, described)?;
    }
    distinct_rows(&mut out)?;
    Ok(out)
}

/// The labels of a series with those of its info series; its own are never changed.
///
/// # Errors
/// `Execution` when two info series disagree.
fn describe(labels: &Labels, set: &[usize], info: &Block, wanted: &BTreeSet<&str>) -> Result<Labels> {
    let mut added: BTreeMap<&str, &str> = BTreeMap::new();
    for row in set {
        for label in info.rows[*row].labels.iter() {
            if label.name == NAME || !(wanted.is_empty() || wanted.contains(label.name)) {
                continue;
            }
            if added.get(label.name).is_some_and(|v| *v != label.value) {
                return Err(execution(format!("conflicting label: {}", label.name)));
            }
            if labels.get(label.name).is_none() {
                added.insert(label.name, label.value);
            }
        }
    }
    let own = labels.iter().map(|l| (l.name, l.value));
    Ok(Labels::from_pairs(own.chain(added)))
}
