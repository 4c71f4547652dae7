//! Matchers to sorted ordinals, label names and label values: written once for both indexes.

use std::ops::ControlFlow;

use croaring::Bitmap;
use trilith_model::{MatchOp, Matcher, Result};

use crate::postings::PostingsRef;

/// What resolution needs of an index. Names and values come in ascending byte order; an empty value does not occur.
pub trait LabelIndex {
    /// Ordinals are below this number.
    fn series_count(&self) -> u32;

    /// Every ordinal.
    fn all(&self) -> Bitmap;

    /// Calls `f` with each label name and the number of its values, until it breaks.
    ///
    /// # Errors
    /// Those of `f`.
    fn for_each_name(&self, f: &mut dyn FnMut(&str, usize) -> Result<ControlFlow<()>>) -> Result<()>;

    /// The series that have exactly this label; `None` when there is none.
    fn postings(&self, name: &str, value: &str) -> Option<PostingsRef<'_>>;

    /// Calls `f` with each value of `name` that starts with `prefix`, until it breaks.
    ///
    /// # Errors
    /// Those of `f`.
    fn for_each_value(
        &self,
        name: &str,
        prefix: &str,
        f: &mut dyn FnMut(&str, PostingsRef<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<()>;
}

/// A scan asks `check` once per this many values.
const CHECK_EVERY: u32 = 1024;

/// The ordinals for which every matcher holds; all ordinals when there is no matcher.
///
/// `check` is asked now and then during long scans and ends the resolution with its error.
///
/// # Errors
/// `Corrupt` when postings do not check out, and those of `check`.
pub fn select(index: &dyn LabelIndex, matchers: &[Matcher], check: &dyn Fn() -> Result<()>) -> Result<Bitmap> {
    // Cheap and selective ones first: they decide whether the dear ones run at all.
    let mut ordered: Vec<(u8, &Matcher)> = matchers.iter().map(|m| (cost(m), m)).collect();
    ordered.sort_by_key(|(c, _)| *c);
    let mut acc: Option<Bitmap> = None;
    for (_, m) in ordered {
        if acc.as_ref().is_some_and(Bitmap::is_empty) {
            break;
        }
        // `.*` holds for every value and for none.
        if m.op == MatchOp::Re && &*m.value == ".*" {
            continue;
        }
        if m.matches_empty() {
            // Series without the label pass, so take away those whose value fails.
            let drop = union(index, m, false, check)?;
            acc.get_or_insert_with(|| index.all()).andnot_inplace(&drop);
        } else {
            let keep = union(index, m, true, check)?;
            acc = Some(match acc {
                Some(mut a) => {
                    a.and_inplace(&keep);
                    a
                }
                None => keep,
            });
        }
    }
    Ok(acc.unwrap_or_else(|| index.all()))
}

fn cost(m: &Matcher) -> u8 {
    match m.op {
        MatchOp::Eq if !m.value.is_empty() => 0,
        MatchOp::Re if m.literal_set().is_some() => 1,
        MatchOp::Ne if !m.value.is_empty() => 2,
        MatchOp::NotRe if m.literal_set().is_some() => 3,
        _ if !m.literal_prefix().is_empty() => 4,
        _ => 5,
    }
}

/// The series that have the label with a (non-empty) value for which the matcher's verdict is `wanted`.
fn union(index: &dyn LabelIndex, m: &Matcher, wanted: bool, check: &dyn Fn() -> Result<()>) -> Result<Bitmap> {
    let mut out = Bitmap::new();
    // The values of this finite set, or all others?
    let literals: Option<(&[String], bool)> = match m.op {
        MatchOp::Re => m.literal_set().map(|s| (s, wanted)),
        MatchOp::NotRe => m.literal_set().map(|s| (s, !wanted)),
        MatchOp::Eq | MatchOp::Ne => None,
    };
    let probe = match m.op {
        MatchOp::Eq => wanted,
        MatchOp::Ne => !wanted,
        MatchOp::Re | MatchOp::NotRe => false,
    };
    if probe && !m.value.is_empty() {
        if let Some(p) = index.postings(&m.name, &m.value) {
            p.union_into(&mut out)?;
        }
        return Ok(out);
    }
    if let Some((set, true)) = literals {
        for value in set.iter().filter(|v| !v.is_empty()) {
            if let Some(p) = index.postings(&m.name, value) {
                p.union_into(&mut out)?;
            }
        }
        return Ok(out);
    }
    // Only values with the literal prefix can match the expression itself.
    let prefix = match (m.op, wanted) {
        (MatchOp::Re, true) | (MatchOp::NotRe, false) => m.literal_prefix(),
        _ => "",
    };
    // `.+` holds for every value that an index stores.
    let every = (m.op == MatchOp::Re && wanted || m.op == MatchOp::NotRe && !wanted) && &*m.value == ".+";
    let mut n = 0;
    index.for_each_value(&m.name, prefix, &mut |value, postings| {
        n += 1;
        if n % CHECK_EVERY == 0 {
            check()?;
        }
        if every || m.matches(value) == wanted {
            postings.union_into(&mut out)?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(out)
}

/// The label names of the selected series, ascending; of all series with `None`. At most `limit` unless it is 0.
///
/// # Errors
/// As `select`.
pub fn label_names(
    index: &dyn LabelIndex,
    selected: Option<&Bitmap>,
    limit: usize,
    check: &dyn Fn() -> Result<()>,
) -> Result<Vec<String>> {
    let mut out = Vec::new();
    index.for_each_name(&mut |name, _| {
        check()?;
        let found = match selected {
            None => true,
            Some(set) => {
                let mut found = false;
                index.for_each_value(name, "", &mut |_, p| {
                    found = p.intersects(set)?;
                    Ok(if found {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    })
                })?;
                found
            }
        };
        if found {
            out.push(name.to_owned());
        }
        Ok(full(out.len(), limit))
    })?;
    Ok(out)
}

/// The values of a label among the selected series, ascending; of all series with `None`. At most `limit` unless 0.
///
/// # Errors
/// As `select`.
pub fn label_values(
    index: &dyn LabelIndex,
    name: &str,
    selected: Option<&Bitmap>,
    limit: usize,
    check: &dyn Fn() -> Result<()>,
) -> Result<Vec<String>> {
    let mut out = Vec::new();
    let mut n = 0;
    index.for_each_value(name, "", &mut |value, postings| {
        n += 1;
        if n % CHECK_EVERY == 0 {
            check()?;
        }
        if selected.map_or(Ok(true), |set| postings.intersects(set))? {
            out.push(value.to_owned());
        }
        Ok(full(out.len(), limit))
    })?;
    Ok(out)
}

fn full(len: usize, limit: usize) -> ControlFlow<()> {
    if limit != 0 && len >= limit {
        ControlFlow::Break(())
    } else {
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests;
