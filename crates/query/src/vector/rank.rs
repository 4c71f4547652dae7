//! Aggregations that need all elements of a group at a step: topk, quantile, count_values.

use std::cmp::Ordering;

use trilith_model::{Error, Labels, Result};

use super::block::{ABSENT, Block, Row, is_absent};
use super::group::Grouper;
use super::quantile::quantile;
use crate::QueryContext;
use crate::series::Grouping;

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

/// Keeps per group and step the `k` largest (or smallest) elements with their labels. Of equal values the first
/// in label order stay. With a single step the rows come out ranked, group after group.
///
/// # Errors
/// Cancellation.
pub fn select_k(
    ctx: &QueryContext,
    mut block: Block,
    grouping: Option<Grouping>,
    k: &[usize],
    largest: bool,
) -> Result<Block> {
    block.sort_by_labels();
    let order = if largest { descending } else { ascending };
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
            present.sort_by(|a, b| order(a.0, b.0));
            for (_, r) in present.iter().skip(*k) {
                block.values[r * steps + step] = ABSENT;
            }
            if steps == 1 {
                ranked_rows.extend(present.iter().take(*k).map(|(_, r)| *r));
            }
        }
    }
    if steps == 1 {
        block.reorder(&ranked_rows);
    } else {
        block.drop_empty_rows();
    }
    Ok(block)
}

/// The φ-quantile of every group at every step.
///
/// # Errors
/// Cancellation, memory budget.
pub fn group_quantile(ctx: &QueryContext, block: &Block, grouping: Option<Grouping>, phi: &[f64]) -> Result<Block> {
    let (labels, groups) = rows_by_group(block, grouping);
    let mut out = Block::absent(ctx, labels.into_iter().map(Row::new).collect(), block.steps)?;
    let mut present: Vec<f64> = Vec::new();
    for (g, rows) in groups.iter().enumerate() {
        ctx.check()?;
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
    Ok(out)
}

/// Most distinct values that `count_values` turns into series.
const DISTINCT_VALUES_MAX: usize = 1_000_000;

/// How often each distinct value occurs per group; the value stands in `label`, written by `format`.
///
/// # Errors
/// Cancellation, memory budget, too many distinct values.
pub fn count_values(
    ctx: &QueryContext,
    block: &Block,
    grouping: Option<Grouping>,
    label: &str,
    format: impl Fn(f64) -> String,
) -> Result<Block> {
    // `by` names stay also when the counted label is among them: it is overwritten.
    let (labels, groups) = rows_by_group(block, grouping);
    let mut cells: hashbrown::HashMap<(usize, u64), Vec<f64>> = hashbrown::HashMap::new();
    let mut memory = ctx.memory.reserve(0)?;
    for (g, rows) in groups.iter().enumerate() {
        for r in rows {
            ctx.check()?;
            for (step, v) in block.row(*r).iter().enumerate().filter(|(_, v)| !is_absent(**v)) {
                let bits = if v.is_nan() { f64::NAN.to_bits() } else { v.to_bits() };
                if !cells.contains_key(&(g, bits)) {
                    memory.grow(block.steps * 8 + 64)?;
                    if cells.len() >= DISTINCT_VALUES_MAX {
                        return Err(Error::new(
                            trilith_model::ErrorKind::Execution,
                            format!("count_values found more than {DISTINCT_VALUES_MAX} distinct values"),
                        ));
                    }
                }
                cells.entry((g, bits)).or_insert_with(|| vec![0.0; block.steps])[step] += 1.0;
            }
        }
    }
    let mut keys: Vec<(usize, u64)> = cells.keys().copied().collect();
    keys.sort_unstable();
    let rows = keys
        .iter()
        .map(|(g, bits)| Row::new(labels[*g].with(label, &format(f64::from_bits(*bits)))))
        .collect();
    let mut out = Block::absent(ctx, rows, block.steps)?;
    for (i, key) in keys.iter().enumerate() {
        for (o, n) in out.row_mut(i).iter_mut().zip(&cells[key]) {
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
        let top = |k, largest| names(&select_k(&ctx, block(&ctx, data), None, &[k], largest).unwrap());
        assert_eq!(top(2, true), ["2", "4"]);
        assert_eq!(top(2, false), ["0", "3"]);
        assert_eq!(top(9, true), ["2", "4", "3", "0", "1"]);
        assert_eq!(top(0, true), [""; 0]);
        let b = select_k(&ctx, block(&ctx, &[&[1.0, 5.0], &[2.0, 4.0]]), None, &[1, 1], true).unwrap();
        assert_eq!(names(&b), ["0", "1"]);
        assert!(is_absent(b.values[0]) && b.values[1] == 5.0 && b.values[2] == 2.0 && is_absent(b.values[3]));
    }

    #[test]
    fn quantiles_and_values() {
        let ctx = test_context();
        let b = block(&ctx, &[&[1.0, ABSENT], &[2.0, ABSENT], &[1.0, ABSENT]]);
        let q = group_quantile(&ctx, &b, None, &[0.5, 0.5]).unwrap();
        assert!(q.values[0] == 1.0 && is_absent(q.values[1]));
        let c = count_values(&ctx, &b, None, "v", |v| v.to_string()).unwrap();
        assert_eq!(
            c.rows.iter().map(|r| r.labels.to_string()).collect::<Vec<_>>(),
            [r#"{v="1"}"#, r#"{v="2"}"#]
        );
        assert!(c.values[0] == 2.0 && is_absent(c.values[1]) && c.values[2] == 1.0);
    }
}
