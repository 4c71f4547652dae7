//! Quantiles and fractions of histograms, classic and native ones in one vector.
//!
//! Float rows that differ in `le` only are one classic histogram; rows with native histograms stand for themselves.
//! Where both have the same labels at a step, neither has a result.

use std::collections::HashMap;

use trilith_histogram::{FloatHistogram, NanEffect};
use trilith_model::{Labels, Result, task};
use trilith_query::QueryContext;
use trilith_query::vector::quantile::{Bucket, bucket_fraction, bucket_quantile};
use trilith_query::vector::{Block, Grid, Row, is_absent};

use crate::ast::{Expr, Span};
use crate::calls::le::{format_label, parse_bound};
use crate::eval::{Evaluator, execution};
use crate::notes::{Notes, Repaired, format_g};

/// Booked for a label set that a function made.
const LABELS_BYTES: usize = 128;

impl Evaluator {
    /// φ per step, with warnings about those out of range.
    pub(super) async fn quantile_argument(&self, phi: &Expr, grid: Grid) -> Result<Vec<f64>> {
        let values = self.scalar(phi, grid).await?;
        for p in values.iter().filter(|p| !(0.0..=1.0).contains(*p)) {
            let p = format_g(*p);
            self.notes.warn(
                phi.span,
                format_args!("quantile value should be between 0 and 1, got {p}"),
            );
        }
        Ok(values)
    }

    /// `phis`: per step each. `label` gets the quantile.
    pub(super) async fn histogram_quantiles(
        &self,
        v: &Expr,
        label: Option<String>,
        phis: Vec<Vec<f64>>,
        grid: Grid,
    ) -> Result<Block> {
        if label.as_ref().is_some_and(String::is_empty) {
            return Err(execution("invalid label name in histogram_quantiles(): "));
        }
        let block = self.vector(v, grid).await?;
        let (ctx, about) = (self.ctx.clone(), self.about(v, grid));
        task::compute_sized(block.values.len(), move || {
            let input = Input::new(&ctx, &about, &block)?;
            let Some(label) = label else {
                return input.each(&Variants::one(), |h, step| {
                    quantile(&about, h, phis[0][step], step, false)
                });
            };
            let mut out = Block::empty(block.steps);
            for (i, phi) in phis.iter().enumerate() {
                let variants = Variants::labelled(label.clone(), phi);
                // Buckets are repaired once, for the first quantile that looks at them.
                let silent = |step: usize| phis[..i].iter().any(|p| (0.0..=1.0).contains(&p[step]));
                let part = input.each(&variants, |h, step| quantile(&about, h, phi[step], step, silent(step)))?;
                out.append(&ctx, part)?;
            }
            crate::names::distinct_rows(&mut out)?;
            Ok(out)
        })
        .await?
    }

    pub(super) async fn histogram_fraction(
        &self,
        v: &Expr,
        lower: Vec<f64>,
        upper: Vec<f64>,
        grid: Grid,
    ) -> Result<Block> {
        let block = self.vector(v, grid).await?;
        let (ctx, about) = (self.ctx.clone(), self.about(v, grid));
        task::compute_sized(block.values.len(), move || {
            let input = Input::new(&ctx, &about, &block)?;
            input.each(&Variants::one(), |h, step| match h {
                Histogram::Classic { buckets, .. } => bucket_fraction(lower[step], upper[step], buckets),
                Histogram::Native { histogram, name } => {
                    let (fraction, nan_missing) = histogram.fraction(lower[step], upper[step]);
                    if nan_missing {
                        let text = "input to histogram_fraction has NaN observations, which are excluded from all \
                                    fractions";
                        about.info(text, name);
                    }
                    fraction
                }
            })
        })
        .await?
    }

    fn about(&self, v: &Expr, grid: Grid) -> About {
        About {
            notes: self.notes.clone(),
            at: v.span,
            grid,
            // Otherwise the name is gone by the time there is something to say.
            names: self.options.features.delayed_name_removal,
        }
    }
}

/// What notes are about.
struct About {
    notes: Notes,
    at: Span,
    grid: Grid,
    /// Whether metric names are told.
    names: bool,
}

impl About {
    fn name<'l>(&self, labels: &'l Labels) -> Option<&'l str> {
        labels.get("__name__").filter(|_| self.names)
    }

    fn info(&self, text: &str, name: Option<&str>) {
        self.notes.info(self.at, with_name(text, name));
    }

    fn warn(&self, text: &str, name: Option<&str>) {
        self.notes.warn(self.at, with_name(text, name));
    }
}

fn with_name(text: &str, name: Option<&str>) -> String {
    match name {
        Some(name) => format!("{text} for metric name {name:?}"),
        None => text.to_owned(),
    }
}

/// A histogram at a step.
enum Histogram<'a> {
    /// In any order, at least one.
    Classic {
        buckets: &'a mut Vec<Bucket>,
        name: Option<&'a str>,
    },
    Native {
        histogram: &'a FloatHistogram,
        name: Option<&'a str>,
    },
}

/// `silent`: nothing is said of repaired buckets.
fn quantile(about: &About, histogram: Histogram<'_>, phi: f64, step: usize, silent: bool) -> f64 {
    match histogram {
        Histogram::Classic { buckets, name } => {
            let quantile = bucket_quantile(phi, buckets);
            if let Some(repair) = quantile.repair.filter(|_| !silent) {
                let text = "input to histogram_quantile needed to be fixed for monotonicity (see \
                            https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)";
                let repaired = Repaired::at(about.grid.time(step), repair);
                about.notes.info_repaired(about.at, with_name(text, name), repaired);
            }
            quantile.value
        }
        Histogram::Native { histogram, name } => {
            let (value, effect) = histogram.quantile(phi);
            let text = match effect {
                NanEffect::None => return value,
                NanEffect::Skewed => "input to histogram_quantile has NaN observations, result is skewed higher",
                NanEffect::Result => "input to histogram_quantile has NaN observations, result is NaN",
            };
            about.info(text, name);
            value
        }
    }
}

/// What a label of the result can be; steps with the same value of it share their rows.
struct Variants {
    label: Option<String>,
    values: Vec<String>,
    /// Per step, into `values`; empty when there is but one.
    of_step: Vec<usize>,
}

impl Variants {
    /// No label.
    fn one() -> Self {
        Variants {
            label: None,
            values: vec![String::new()],
            of_step: Vec::new(),
        }
    }

    fn labelled(label: String, phi: &[f64]) -> Self {
        let mut index: HashMap<u64, usize> = HashMap::new();
        let mut values = Vec::new();
        let of_step = phi.iter().map(|p| {
            *index.entry(p.to_bits()).or_insert_with(|| {
                values.push(format_label(*p));
                values.len() - 1
            })
        });
        let of_step = of_step.collect();
        Variants {
            label: Some(label),
            values,
            of_step,
        }
    }
}

/// The histograms in a vector.
struct Input<'a> {
    ctx: &'a QueryContext,
    about: &'a About,
    block: &'a Block,
    classic: Vec<Classic>,
    native: Vec<Native>,
}

struct Classic {
    /// Without `le`.
    labels: Labels,
    /// Upper bounds, ascending, with their rows.
    members: Vec<(f64, usize)>,
    /// Into `Input::native`: histograms of the same labels.
    rivals: Vec<usize>,
}

struct Native {
    row: usize,
    /// Into `Input::classic`: the histogram of the same labels.
    rival: Option<usize>,
}

impl<'a> Input<'a> {
    fn new(ctx: &'a QueryContext, about: &'a About, block: &'a Block) -> Result<Self> {
        let mut index: HashMap<Labels, usize> = HashMap::new();
        let mut classic: Vec<Classic> = Vec::new();
        let mut native = Vec::new();
        for (i, (row, cells)) in block.iter().enumerate() {
            if row.histograms.is_some() {
                native.push(Native { row: i, rival: None });
            }
            if cells.iter().all(|v| is_absent(*v)) {
                continue;
            }
            let le = row.labels.get("le").unwrap_or("");
            let Some(bound) = parse_bound(le) else {
                let text = format!("bucket label \"le\" is missing or has a malformed value of {le:?}");
                about.warn(&text, about.name(&row.labels));
                continue;
            };
            let labels = row.labels.without(|n| n == "le");
            let slot = *index.entry(labels.clone()).or_insert_with(|| {
                classic.push(Classic {
                    labels,
                    members: Vec::new(),
                    rivals: Vec::new(),
                });
                classic.len() - 1
            });
            classic[slot].members.push((bound, i));
        }
        for (i, n) in native.iter_mut().enumerate() {
            if let Some(slot) = index.get(&block.rows[n.row].labels) {
                n.rival = Some(*slot);
                classic[*slot].rivals.push(i);
            }
        }
        for c in &mut classic {
            c.members.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        ctx.check()?;
        Ok(Input {
            ctx,
            about,
            block,
            classic,
            native,
        })
    }

    /// A row per histogram and variant, its cells made by `value`.
    fn each(&self, variants: &Variants, mut value: impl FnMut(Histogram<'_>, usize) -> f64) -> Result<Block> {
        let sources = self.native.len() + self.classic.len();
        let mut rows = Vec::with_capacity(sources);
        for text in &variants.values {
            let native = self.native.iter().map(|n| &self.block.rows[n.row].labels);
            for labels in native.chain(self.classic.iter().map(|c| &c.labels)) {
                let labels = match &variants.label {
                    Some(label) => labels.with(label, text),
                    None => labels.clone(),
                };
                rows.push(Row {
                    drop_name: true,
                    ..Row::new(labels)
                });
            }
            self.ctx.check()?;
        }
        let made = rows.len();
        let mut out = Block::absent(self.ctx, rows, self.block.steps)?;
        out.charge(self.ctx, made.saturating_mul(LABELS_BYTES))?;
        let row_at = |source, step| variants.of_step.get(step).unwrap_or(&0) * sources + source;
        for (i, n) in self.native.iter().enumerate() {
            self.ctx.check()?;
            let row = &self.block.rows[n.row];
            let name = self.about.name(&row.labels);
            for step in 0..self.block.steps {
                let Some(histogram) = self.native_at(n, step) else {
                    continue;
                };
                if n.rival.is_some_and(|c| self.has_buckets(&self.classic[c], step)) {
                    self.about
                        .warn("vector contains a mix of classic and native histograms", name);
                    continue;
                }
                out.row_mut(row_at(i, step))[step] = value(Histogram::Native { histogram, name }, step);
            }
        }
        let mut buckets = Vec::new();
        for (i, c) in self.classic.iter().enumerate() {
            self.ctx.check()?;
            let name = self.about.name(&c.labels);
            for step in 0..self.block.steps {
                if c.rivals
                    .iter()
                    .any(|n| self.native_at(&self.native[*n], step).is_some())
                {
                    continue;
                }
                buckets.clear();
                let members = c.members.iter().map(|(upper_bound, row)| Bucket {
                    upper_bound: *upper_bound,
                    count: self.block.row(*row)[step],
                });
                buckets.extend(members.filter(|b| !is_absent(b.count)));
                if !buckets.is_empty() {
                    let buckets = &mut buckets;
                    let row = row_at(self.native.len() + i, step);
                    out.row_mut(row)[step] = value(Histogram::Classic { buckets, name }, step);
                }
            }
        }
        crate::names::distinct_rows(&mut out)?;
        out.drop_empty_rows();
        Ok(out)
    }

    fn native_at(&self, n: &Native, step: usize) -> Option<&FloatHistogram> {
        self.block.rows[n.row].histograms.as_ref()?.get(step)?.as_deref()
    }

    fn has_buckets(&self, c: &Classic, step: usize) -> bool {
        c.members.iter().any(|(_, row)| !is_absent(self.block.row(*row)[step]))
    }
}
