//! Annotations: warnings and infos that accompany a result.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use trilith_query::vector::quantile::Repair;

use crate::ast::Span;
use crate::functions::Civil;

pub(crate) use trilith_histogram::format_g;

/// Shared by all parts of one query. Notes of the same text are one note.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes {
    query: Arc<str>,
    kept: Arc<Mutex<Kept>>,
}

/// Notes by their text.
#[derive(Debug, Default)]
struct Kept {
    warnings: BTreeMap<String, Note>,
    infos: BTreeMap<String, Note>,
}

#[derive(Clone, Copy, Debug)]
struct Note {
    /// The rightmost expression that it is about.
    at: u32,
    /// How often it was made, when that is told.
    occurrences: u64,
    repaired: Option<Repaired>,
}

/// Which buckets of classic histograms were repaired, by how much and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Repaired {
    buckets: Repair,
    samples: u64,
    from_ms: i64,
    to_ms: i64,
}

impl Repaired {
    pub(crate) fn at(time_ms: i64, buckets: Repair) -> Self {
        Repaired {
            buckets,
            samples: 1,
            from_ms: time_ms,
            to_ms: time_ms,
        }
    }

    fn and(self, other: Repaired) -> Repaired {
        Repaired {
            buckets: Repair {
                min_bound: self.buckets.min_bound.min(other.buckets.min_bound),
                max_bound: self.buckets.max_bound.max(other.buckets.max_bound),
                max_diff: self.buckets.max_diff.max(other.buckets.max_diff),
            },
            samples: self.samples.saturating_add(other.samples),
            from_ms: self.from_ms.min(other.from_ms),
            to_ms: self.to_ms.max(other.to_ms),
        }
    }
}

/// Most notes of a kind that an answer carries.
const NOTES_MAX: usize = 10;

/// Most notes of a kind that are kept apart while a query runs: each is about a metric, and there may be many.
const NOTES_KEPT_MAX: usize = 10_000;

impl Notes {
    pub(crate) fn of(query: &str) -> Self {
        Notes {
            query: query.into(),
            kept: Arc::default(),
        }
    }

    /// `at`: the expression that the note is about.
    pub(crate) fn warn(&self, at: Span, text: impl std::fmt::Display) {
        keep(&mut self.kept.lock().warnings, at, text.to_string(), 0, None);
    }

    /// A warning that tells how often it was made, this time so many times.
    pub(crate) fn warn_counted(&self, at: Span, text: impl std::fmt::Display, times: u64) {
        keep(&mut self.kept.lock().warnings, at, text.to_string(), times, None);
    }

    pub(crate) fn info(&self, at: Span, text: impl std::fmt::Display) {
        keep(&mut self.kept.lock().infos, at, text.to_string(), 0, None);
    }

    /// An info that goes on to tell what was repaired in all the samples that it is about.
    pub(crate) fn info_repaired(&self, at: Span, text: impl std::fmt::Display, repaired: Repaired) {
        keep(&mut self.kept.lock().infos, at, text.to_string(), 0, Some(repaired));
    }

    /// `line:column` of a byte of the query, both from 1, columns in bytes.
    fn position(&self, at: u32) -> String {
        let before = &self.query.as_bytes()[..self.query.len().min(at as usize)];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
        format!("{line}:{column}")
    }

    /// Warnings and infos, at most ten each with a line about the rest.
    pub(crate) fn take(&self) -> (Vec<String>, Vec<String>) {
        let kept = std::mem::take(&mut *self.kept.lock());
        (self.shown(kept.warnings, "warning"), self.shown(kept.infos, "info"))
    }

    fn shown(&self, notes: BTreeMap<String, Note>, kind: &str) -> Vec<String> {
        let more = notes.len().saturating_sub(NOTES_MAX);
        let first = notes.into_iter().take(NOTES_MAX);
        let mut out: Vec<String> = first
            .map(|(text, note)| format!("PromQL {kind}: {text}{note} ({})", self.position(note.at)))
            .collect();
        if more > 0 {
            out.push(format!("{more} more {kind} annotations omitted"));
        }
        out
    }
}

/// What follows the text.
impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.occurrences > 1 {
            write!(f, " ({} occurrences)", self.occurrences)?;
        }
        if let Some(r) = &self.repaired {
            write!(
                f,
                ", from buckets {} to {}, with a max diff of {}, over {} samples from {} to {}",
                format_g(r.buckets.min_bound),
                format_g(r.buckets.max_bound),
                format_two_digits(r.buckets.max_diff),
                r.samples,
                rfc3339_seconds(r.from_ms),
                rfc3339_seconds(r.to_ms)
            )?;
        }
        Ok(())
    }
}

fn keep(notes: &mut BTreeMap<String, Note>, at: Span, text: String, occurrences: u64, repaired: Option<Repaired>) {
    if notes.len() >= NOTES_KEPT_MAX && !notes.contains_key(&text) {
        return;
    }
    let fresh = Note {
        at: at.start,
        occurrences,
        repaired,
    };
    notes
        .entry(text)
        .and_modify(|note| {
            note.at = note.at.max(at.start);
            note.occurrences = note.occurrences.saturating_add(occurrences);
            note.repaired = match (note.repaired, repaired) {
                (Some(a), Some(b)) => Some(a.and(b)),
                (a, b) => a.or(b),
            };
        })
        .or_insert(fresh);
}

/// Go's `%.2g`.
fn format_two_digits(v: f64) -> String {
    let rounded = format!("{v:.1e}");
    match rounded.split_once('e').map(|(m, e)| (m, e.parse::<i32>())) {
        Some((mantissa, Ok(exponent))) if !(-4..2).contains(&exponent) => {
            let mantissa = mantissa.strip_suffix(".0").unwrap_or(mantissa);
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
        }
        _ => format_g(rounded.parse().unwrap_or(v)),
    }
}

/// `2006-01-02T15:04:05Z`, the fraction cut off.
fn rfc3339_seconds(time_ms: i64) -> String {
    let seconds = (time_ms / 1000) as f64;
    match Civil::from_seconds(seconds) {
        Some(c) => format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
            c.year,
            c.month,
            c.day,
            c.hour,
            c.minute,
            seconds.rem_euclid(60.0)
        ),
        None => format_g(seconds),
    }
}

/// Go's `'f', -1`: shortest digits, never an exponent.
pub(crate) fn format_f(v: f64) -> String {
    if v.is_infinite() {
        return if v > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    format!("{v}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_as_go_prints_them() {
        assert_eq!(
            (format_f(1e9), format_f(f64::NAN)),
            ("1000000000".to_owned(), "NaN".to_owned())
        );
        for (v, want) in [
            (0.0, "0"),
            (5.0, "5"),
            (10.0, "10"),
            (99.6, "1e+02"),
            (123.0, "1.2e+02"),
            (0.123456, "0.12"),
            (0.00001234, "1.2e-05"),
        ] {
            assert_eq!(format_two_digits(v), want);
        }
        assert_eq!(rfc3339_seconds(3_000_999), "1970-01-01T00:50:00Z");
        assert_eq!(rfc3339_seconds(1_700_000_005_000), "2023-11-14T22:13:25Z");
    }

    #[test]
    fn notes_are_distinct_and_few() {
        let n = Notes::default();
        for i in 0..13 {
            n.warn(Span::default(), i);
            n.warn(Span::default(), i);
        }
        let (warnings, infos) = n.take();
        n.warn_counted(Span::default(), "o", 1);
        n.warn_counted(Span { start: 3, end: 4 }, "o", 1);
        assert_eq!(n.take().0, ["PromQL warning: o (2 occurrences) (1:1)"]);
        assert_eq!(warnings.len(), 11);
        assert_eq!(warnings[10], "3 more warning annotations omitted");
        assert!(infos.is_empty());
    }
}
