//! What an anchored expression comes down to: a literal, a few literals, a prefix, or really an automaton.

use regex_syntax::hir::{Class, Hir, HirKind, Look};

use crate::error::{Error, Result};

/// Most literals an expression may expand to.
const SET_LITERALS_MAX: usize = 256;

/// Most bytes all of these literals may have.
const SET_BYTES_MAX: usize = 64 << 10;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Literal(String),
    /// Look it up in the literal set.
    Set,
    /// `.*`
    Any,
    /// `.+`
    NonEmpty,
    /// `lit.*`, or `lit.+` with `more`.
    Prefix {
        literal: String,
        more: bool,
    },
    /// `.*lit`, or `.+lit` with `more`.
    Suffix {
        literal: String,
        more: bool,
    },
    /// `.*lit.*`
    Contains(String),
    Regex,
}

pub(super) struct Analysis {
    pub shape: Shape,
    pub literal_set: Option<Vec<String>>,
    pub literal_prefix: String,
}

/// One part of a concatenation.
enum Part {
    Literal(String),
    AnyStar,
    AnyPlus,
    Other,
}

/// `translated` is in the `regex` crate's syntax, not yet anchored.
pub(super) fn analyse(translated: &str) -> Result<Analysis> {
    let hir = regex_syntax::ParserBuilder::new()
        .dot_matches_new_line(true)
        .build()
        .parse(translated)
        .map_err(|e| Error::invalid(format!("error parsing regexp: {}", super::last_line(&e.to_string()))))?;

    let literal_set = enumerate(&hir).map(|mut set| {
        set.sort_unstable();
        set.dedup();
        set
    });
    if let Some(set) = &literal_set {
        let shape = match set.as_slice() {
            [only] => Shape::Literal(only.clone()),
            _ => Shape::Set,
        };
        let literal_prefix = common_prefix(set);
        return Ok(Analysis {
            shape,
            literal_set,
            literal_prefix,
        });
    }

    let mut parts = Vec::new();
    flatten(&hir, &mut parts);
    let literal_prefix = match parts.first() {
        Some(Part::Literal(l)) => l.clone(),
        _ => String::new(),
    };
    let shape = match parts.as_slice() {
        [Part::AnyStar] => Shape::Any,
        [Part::AnyPlus] => Shape::NonEmpty,
        [Part::Literal(l), Part::AnyStar] => Shape::Prefix {
            literal: l.clone(),
            more: false,
        },
        [Part::Literal(l), Part::AnyPlus] => Shape::Prefix {
            literal: l.clone(),
            more: true,
        },
        [Part::AnyStar, Part::Literal(l)] => Shape::Suffix {
            literal: l.clone(),
            more: false,
        },
        [Part::AnyPlus, Part::Literal(l)] => Shape::Suffix {
            literal: l.clone(),
            more: true,
        },
        [Part::AnyStar, Part::Literal(l), Part::AnyStar] => Shape::Contains(l.clone()),
        _ => Shape::Regex,
    };
    Ok(Analysis {
        shape,
        literal_set: None,
        literal_prefix,
    })
}

fn common_prefix(set: &[String]) -> String {
    let (Some(first), Some(last)) = (set.first(), set.last()) else {
        return String::new();
    };
    // The set is sorted, so what its ends share, all share.
    first
        .chars()
        .zip(last.chars())
        .take_while(|(a, b)| a == b)
        .map(|(a, _)| a)
        .collect()
}

fn flatten(hir: &Hir, out: &mut Vec<Part>) {
    match hir.kind() {
        HirKind::Empty => {}
        HirKind::Capture(c) => flatten(&c.sub, out),
        HirKind::Concat(items) => {
            let from = items
                .iter()
                .take_while(|h| matches!(h.kind(), HirKind::Look(Look::Start)))
                .count();
            // An assertion is redundant at the ends of the whole expression only.
            let from = if out.is_empty() { from } else { 0 };
            for item in &items[from..] {
                flatten(item, out);
            }
        }
        HirKind::Repetition(r) if r.max.is_none() && r.min <= 1 && is_any_char(&r.sub) => {
            out.push(if r.min == 0 { Part::AnyStar } else { Part::AnyPlus });
        }
        _ => match enumerate(hir).as_deref() {
            Some([only]) => match out.last_mut() {
                Some(Part::Literal(l)) => l.push_str(only),
                _ => out.push(Part::Literal(only.clone())),
            },
            _ => out.push(Part::Other),
        },
    }
}

fn is_any_char(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Class(Class::Unicode(c)) => {
            matches!(c.ranges(), [r] if r.start() == '\0' && r.end() == char::MAX)
        }
        _ => false,
    }
}

/// All values of an expression, when they are few; not necessarily distinct.
fn enumerate(hir: &Hir) -> Option<Vec<String>> {
    let out = match hir.kind() {
        HirKind::Empty => vec![String::new()],
        HirKind::Literal(l) => vec![std::str::from_utf8(&l.0).ok()?.to_owned()],
        HirKind::Capture(c) => return enumerate(&c.sub),
        HirKind::Class(Class::Unicode(c)) => {
            let mut out = Vec::new();
            for r in c.iter() {
                for ch in r.start()..=r.end() {
                    out.push(ch.to_string());
                    if out.len() > SET_LITERALS_MAX {
                        return None;
                    }
                }
            }
            out
        }
        HirKind::Alternation(items) => {
            let mut out = Vec::new();
            for item in items {
                out.extend(enumerate(item)?);
                if !within_limits(&out) {
                    return None;
                }
            }
            out
        }
        HirKind::Concat(items) => {
            let mut out = vec![String::new()];
            for item in items {
                out = product(&out, &enumerate(item)?)?;
            }
            out
        }
        HirKind::Repetition(r) => {
            let max = r.max?;
            let one = if max == 0 { Vec::new() } else { enumerate(&r.sub)? };
            if max as usize > SET_LITERALS_MAX {
                return None;
            }
            let mut power = vec![String::new()];
            let mut out = if r.min == 0 { power.clone() } else { Vec::new() };
            for n in 1..=max {
                power = product(&power, &one)?;
                if n >= r.min {
                    out.extend(power.iter().cloned());
                }
                if !within_limits(&out) {
                    return None;
                }
            }
            out
        }
        HirKind::Class(Class::Bytes(_)) | HirKind::Look(_) => return None,
    };
    within_limits(&out).then_some(out)
}

fn product(left: &[String], right: &[String]) -> Option<Vec<String>> {
    let count = left.len().checked_mul(right.len())?;
    let bytes = |s: &[String]| s.iter().map(String::len).sum::<usize>();
    let total = bytes(left)
        .checked_mul(right.len())?
        .checked_add(bytes(right).checked_mul(left.len())?)?;
    if count > SET_LITERALS_MAX || total > SET_BYTES_MAX {
        return None;
    }
    Some(
        left.iter()
            .flat_map(|l| right.iter().map(move |r| format!("{l}{r}")))
            .collect(),
    )
}

fn within_limits(set: &[String]) -> bool {
    set.len() <= SET_LITERALS_MAX && set.iter().map(String::len).sum::<usize>() <= SET_BYTES_MAX
}
