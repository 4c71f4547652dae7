//! Aggregations that need all elements of a group at a step: topk, quantile, count_values, limitk; and limit_ratio.

use std::cmp::Ordering;

use hashbrown::HashMap;
use trilith_model::{Error, Labels, Result};

use super::block::{ABSENT, Block, Element, Row, is_absent};
use super::group::Grouper;
use super::quantile::quantile;
use crate::series::Grouping;
use crate::{QueryContext, Reservation};

/// Rows by group, in the order in which the groups appear.
fn rows_by_group(block: &Block, grouping: Option<Grouping>) -> (Vec<Labels>, Vec<Vec<usize>>) {
    let mut grouper = Grouper::new(grouping);
    let mut rows: Vec<Vec<usize>> = Vec::new();
    for (i, row) in block.rows.iter().enumerate() {
        let group = grouper.group_of(&row.labels) as usize;
        if group == rows.len() {
            rows.push(Vec::new());
        }
        rows[group].push(i);
    }
    (grouper.into_groups(), rows)
}

/// Larger values first, NaN last.
pub fn descending(a: f64, b: f64) -> Ordering {
    a.is_nan()
        .cmp(&b.is_nan())
        .then_with(|| b.partial_cmp(&a).unwrap_or(Ordering::Equal))
}

/// Smaller values first, NaN last.
pub fn ascending(a: f64, b: f64) -> Ordering {
    a.is_nan()
        .cmp(&b.is_nan())
        .then_with(|| a.partial_cmp(&b).unwrap_or(Ordering::Equal))
}

/// Keeps per group and step the `k` largest (or smallest) floats with their labels. Of equal values the first in label
/// order stay. With a single step the rows come out ranked, group after group. True when histograms were passed over.
/// [`Top`](super::top::Top) does the same for a single group without having all rows at once.
///
/// # Errors
/// Cancellation.
pub fn select_k(
    ctx: &QueryContext,
    mut block: Block,
    grouping: Option<Grouping>,
    k: &[usize],
    largest: bool,
) -> Result<(Block, bool)> {
    let ignored = k
        .iter()
        .enumerate()
        .any(|(step, k)| *k > 0 && has_histogram(&block, step));
    block.drop_histograms();
    let by_value = if largest { descending } else { ascending };
    let (_, groups) = rows_by_group(&block, grouping);
    let steps = block.steps;
    let mut ranked_rows = Vec::new();
    let mut present: Vec<(f64, usize)> = Vec::new();
    for rows in &groups {
        ctx.check()?;
        for (step, k) in k.iter().enumerate().take(steps) {
            present.clear();
            present.extend(
                rows.iter()
                    .map(|r| (block.values[r * steps + step], *r))
                    .filter(|(v, _)| !is_absent(*v)),
            );
            let labels = |r: usize| &block.rows[r].labels;
            let order =
                |a: &(f64, usize), b: &(f64, usize)| by_value(a.0, b.0).then_with(|| labels(a.1).cmp(labels(b.1)));
            if *k > 0 && *k < present.len() {
                present.select_nth_unstable_by(*k - 1, order);
            }
            if steps == 1 {
                let kept = present.len().min(*k);
                present[..kept].sort_by(order);
                ranked_rows.extend(present[..kept].iter().map(|(_, r)| *r));
            }
            for (_, r) in present.iter().skip(*k) {
                block.values[r * steps + step] = ABSENT;
            }
        }
    }
    if steps == 1 {
        block.reorder(&ranked_rows);
    } else {
        block.drop_empty_rows();
    }
    Ok((block, ignored))
}

fn has_histogram(block: &Block, step: usize) -> bool {
    block.rows.iter().any(|r| r.histogram(step).is_some())
}

/// Keeps per group and step the first `k` elements in label order, floats and histograms alike.
///
/// # Errors
/// Cancellation.
pub fn limit_k(ctx: &QueryContext, mut block: Block, grouping: Option<Grouping>, k: &[usize]) -> Result<Block> {
    block.sort_by_labels();
    let (_, groups) = rows_by_group(&block, grouping);
    let mut kept = vec![0usize; block.steps];
    for rows in &groups {
        ctx.check()?;
        kept.fill(0);
        for r in rows {
            for (step, kept) in kept.iter_mut().enumerate() {
                if *kept >= k[step] {
                    block.clear(*r, step);
                } else if block.has_value(*r, step) {
                    *kept += 1;
                }
            }
        }
    }
    block.drop_empty_rows();
    Ok(block)
}

/// Keeps per step the elements of a part of the label space: those whose hash, as a fraction of all hashes, lies below a
/// positive ratio, or not below 1 + a negative one. So the ratios r and r − 1 split a vector. `ratios` lie within
/// [-1, 1]; 0 keeps nothing.
///
/// # Errors
/// Cancellation.
pub fn limit_ratio(ctx: &QueryContext, block: &mut Block, ratios: &[f64]) -> Result<()> {
    let mut text = Vec::new();
    for r in 0..block.rows.len() {
        if r % 1024 == 0 {
            ctx.check()?;
        }
        let place = fraction(&block.rows[r].labels, &mut text);
        for (step, ratio) in ratios.iter().enumerate() {
            let keeps = if *ratio < 0.0 {
                place >= 1.0 + ratio
            } else {
                place < *ratio
            };
            if !keeps {
                block.clear(r, step);
            }
        }
    }
    block.drop_empty_rows();
    Ok(())
}

/// Where a label set lies in [0, 1]: the XXH64 of `name 0xff value 0xff …`, names ascending, over 2⁶⁴ − 1.
fn fraction(labels: &Labels, text: &mut Vec<u8>) -> f64 {
    text.clear();
    for l in labels.iter() {
        for part in [l.name, l.value] {
            text.extend_from_slice(part.as_bytes());
            text.push(0xff);
        }
    }
    xxhash_rust::xxh64::xxh64(text, 0) as f64 / u64::MAX as f64
}

/// The φ-quantile of the floats of every group at every step. True when histograms were passed over.
///
/// # Errors
/// Cancellation, memory budget.
pub fn group_quantile(
    ctx: &QueryContext,
    block: &Block,
    grouping: Option<Grouping>,
    phi: &[f64],
) -> Result<(Block, bool)> {
    let ignored = (0..block.steps).any(|step| has_histogram(block, step));
    let (labels, groups) = rows_by_group(block, grouping);
    let mut out = Block::absent(ctx, labels.into_iter().map(Row::new).collect(), block.steps)?;
    let mut present: Vec<f64> = Vec::new();
    for (g, rows) in groups.iter().enumerate() {
        ctx.check()?;
        out.rows[g].drop_name = group_drops_name(block, rows);
        for (step, phi) in phi.iter().enumerate().take(block.steps) {
            present.clear();
            present.extend(
                rows.iter()
                    .map(|r| block.values[r * block.steps + step])
                    .filter(|v| !is_absent(*v)),
            );
            if !present.is_empty() {
                out.values[g * block.steps + step] = quantile(*phi, &mut present);
            }
        }
    }
    out.drop_empty_rows();
    Ok((out, ignored))
}

/// Whether an element at the last step of a group comes from a row whose name is to be dropped.
fn group_drops_name(block: &Block, rows: &[usize]) -> bool {
    let last = |r: &usize| block.row(*r).iter().rposition(|v| !is_absent(*v));
    let at = rows.iter().filter_map(last).max();
    at.is_some() && rows.iter().any(|r| block.rows[*r].drop_name && last(r) == at)
}

/// Most distinct values that `count_values` turns into series.
const DISTINCT_VALUES_MAX: usize = 1_000_000;

/// The groups of `count_values`.
struct Tally {
    rows: Vec<Row>,
    /// Per row and step.
    counts: Vec<Vec<f64>>,
    memory: Reservation,
}

impl Tally {
    fn add(&mut self, labels: Labels, steps: usize) -> Result<usize> {
        if self.rows.len() >= DISTINCT_VALUES_MAX {
            return Err(Error::new(
                trilith_model::ErrorKind::Execution,
                format!("count_values found more than {DISTINCT_VALUES_MAX} distinct values"),
            ));
        }
        let labels_bytes = labels.as_packed().len();
        self.memory.grow(steps * size_of::<f64>() + 2 * labels_bytes + 64)?;
        self.rows.push(Row::new(labels));
        self.counts.push(vec![0.0; steps]);
        Ok(self.rows.len() - 1)
    }
}

/// How often each distinct value occurs per group; the value stands in `label`, written by `format`. The label takes part
/// in the grouping: `by` keeps it also when it is not listed, `without` can list it away.
///
/// # Errors
/// Cancellation, memory budget, too many distinct values.
pub fn count_values(
    ctx: &QueryContext,
    block: &Block,
    grouping: Option<Grouping>,
    label: &str,
    format: impl Fn(Element<'_>) -> String,
) -> Result<Block> {
    let hidden = grouping
        .as_ref()
        .is_some_and(|g| !g.by && g.labels.iter().any(|l| l == label));
    // The label of the input is overwritten, so it does not tell groups apart.
    let grouping = match grouping {
        Some(mut g) if g.by => {
            g.labels.retain(|l| l != label);
            Some(g)
        }
        Some(mut g) => {
            g.labels.push(label.to_owned());
            Some(g)
        }
        None => None,
    };
    let (labels, groups) = rows_by_group(block, grouping);
    let mut tally = Tally {
        rows: Vec::new(),
        counts: Vec::new(),
        memory: ctx.memory.reserve(0)?,
    };
    // Floats are told apart by their bits before they are written, which is dear.
    let mut floats: HashMap<u64, usize> = HashMap::new();
    let mut texts: HashMap<String, usize> = HashMap::new();
    for (group, members) in groups.iter().enumerate() {
        floats.clear();
        texts.clear();
        let mut place = |tally: &mut Tally, element| -> Result<usize> {
            let text = if hidden { String::new() } else { format(element) };
            if let Some(at) = texts.get(&text) {
                return Ok(*at);
            }
            let at = tally.add(labels[group].with(label, &text), block.steps)?;
            texts.insert(text, at);
            Ok(at)
        };
        for r in members {
            ctx.check()?;
            for step in 0..block.steps {
                let at = match block.element(*r, step) {
                    None => continue,
                    Some(Element::Float(v)) => {
                        let bits = if v.is_nan() { f64::NAN.to_bits() } else { v.to_bits() };
                        match floats.get(&bits) {
                            Some(at) => *at,
                            None => {
                                let at = place(&mut tally, Element::Float(v))?;
                                floats.insert(bits, at);
                                at
                            }
                        }
                    }
                    Some(h @ Element::Histogram(_)) => place(&mut tally, h)?,
                };
                tally.counts[at][step] += 1.0;
            }
        }
    }
    let Tally { rows, counts, .. } = tally;
    let mut out = Block::absent(ctx, rows, block.steps)?;
    for (i, counts) in counts.iter().enumerate() {
        for (o, n) in out.row_mut(i).iter_mut().zip(counts) {
            if *n != 0.0 {
                *o = *n;
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::super::test_context;
    use super::*;

    fn block(ctx: &QueryContext, rows: &[&[f64]]) -> Block {
        let labels = (0..rows.len())
            .map(|i| Row::new(Labels::from_pairs([("i", i.to_string())])))
            .collect();
        let mut b = Block::absent(ctx, labels, rows[0].len()).unwrap();
        b.values = rows.concat();
        b
    }

    fn names(b: &Block) -> Vec<String> {
        b.rows
            .iter()
            .map(|r| r.labels.get("i").unwrap_or("").to_owned())
            .collect()
    }

    #[test]
    fn top_and_bottom() {
        let ctx = test_context();
        let data: &[&[f64]] = &[&[1.0], &[f64::NAN], &[3.0], &[2.0], &[3.0]];
        let top = |k, largest| names(&select_k(&ctx, block(&ctx, data), None, &[k], largest).unwrap().0);
        assert_eq!(top(2, true), ["2", "4"]);
        assert_eq!(top(2, false), ["0", "3"]);
        assert_eq!(top(9, true), ["2", "4", "3", "0", "1"]);
        assert_eq!(top(0, true), [""; 0]);
        let (b, _) = select_k(&ctx, block(&ctx, &[&[1.0, 5.0], &[2.0, 4.0]]), None, &[1, 1], true).unwrap();
        assert_eq!(names(&b), ["0", "1"]);
        assert!(is_absent(b.values[0]) && b.values[1] == 5.0 && b.values[2] == 2.0 && is_absent(b.values[3]));
    }

    #[test]
    fn quantiles_and_values() {
        let ctx = test_context();
        let b = block(&ctx, &[&[1.0, ABSENT], &[2.0, ABSENT], &[1.0, ABSENT]]);
        let (q, _) = group_quantile(&ctx, &b, None, &[0.5, 0.5]).unwrap();
        assert!(q.values[0] == 1.0 && is_absent(q.values[1]));
        let c = count_values(&ctx, &b, None, "v", |v| match v {
            Element::Float(v) => v.to_string(),
            Element::Histogram(_) => "h".to_owned(),
        })
        .unwrap();
        assert_eq!(
            c.rows.iter().map(|r| r.labels.to_string()).collect::<Vec<_>>(),
            [r#"{v="1"}"#, r#"{v="2"}"#]
        );
        assert!(c.values[0] == 2.0 && is_absent(c.values[1]) && c.values[2] == 1.0);
    }
}
