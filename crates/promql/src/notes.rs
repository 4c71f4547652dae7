//! Annotations: warnings and infos that accompany a result.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::ast::Span;

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
}

/// Most notes of a kind that an answer carries.
const NOTES_MAX: usize = 10;

impl Notes {
    pub(crate) fn of(query: &str) -> Self {
        Notes {
            query: query.into(),
            kept: Arc::default(),
        }
    }

    /// `at`: the expression that the note is about.
    pub(crate) fn warn(&self, at: Span, text: impl std::fmt::Display) {
        keep(&mut self.kept.lock().warnings, at, text.to_string(), 0);
    }

    /// A warning that tells how often it was made.
    pub(crate) fn warn_counted(&self, at: Span, text: impl std::fmt::Display) {
        keep(&mut self.kept.lock().warnings, at, text.to_string(), 1);
    }

    pub(crate) fn info(&self, at: Span, text: impl std::fmt::Display) {
        keep(&mut self.kept.lock().infos, at, text.to_string(), 0);
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
            .map(|(text, note)| {
                let position = self.position(note.at);
                match note.occurrences {
                    0 | 1 => format!("PromQL {kind}: {text} ({position})"),
                    n => format!("PromQL {kind}: {text} ({n} occurrences) ({position})"),
                }
            })
            .collect();
        if more > 0 {
            out.push(format!("{more} more {kind} annotations omitted"));
        }
        out
    }
}

fn keep(notes: &mut BTreeMap<String, Note>, at: Span, text: String, occurrences: u64) {
    let fresh = Note {
        at: at.start,
        occurrences,
    };
    notes
        .entry(text)
        .and_modify(|note| {
            note.at = note.at.max(at.start);
            note.occurrences = note.occurrences.saturating_add(occurrences);
        })
        .or_insert(fresh);
}

/// Go's `%g`: shortest digits, exponent form below 1e-4 and from 1e21 on.
pub(crate) fn format_g(v: f64) -> String {
    if v.is_nan() {
        return "NaN".to_owned();
    }
    if v.is_infinite() {
        return if v > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    if v != 0.0 && (v.abs() < 1e-4 || v.abs() >= 1e21) {
        let s = format!("{v:e}");
        let (mantissa, exponent) = s.split_once('e').unwrap_or((&s, "0"));
        let (sign, digits) = match exponent.strip_prefix('-') {
            Some(d) => ('-', d),
            None => ('+', exponent),
        };
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    format!("{v}")
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
    fn numbers_as_go_prints_them() {
        for (v, want) in [
            (2.0, "2"),
            (1.5, "1.5"),
            (1e21, "1e+21"),
            (1e20, "100000000000000000000"),
            (5e-5, "5e-05"),
        ] {
            assert_eq!(format_g(v), want);
        }
        assert_eq!(format_g(f64::NEG_INFINITY), "-Inf");
        assert_eq!(
            (format_f(1e9), format_f(f64::NAN)),
            ("1000000000".to_owned(), "NaN".to_owned())
        );
    }

    #[test]
    fn notes_are_distinct_and_few() {
        let n = Notes::default();
        for i in 0..13 {
            n.warn(Span::default(), i);
            n.warn(Span::default(), i);
        }
        let (warnings, infos) = n.take();
        n.warn_counted(Span::default(), "o");
        n.warn_counted(Span { start: 3, end: 4 }, "o");
        assert_eq!(n.take().0, ["PromQL warning: o (2 occurrences) (1:1)"]);
        assert_eq!(warnings.len(), 11);
        assert_eq!(warnings[10], "3 more warning annotations omitted");
        assert!(infos.is_empty());
    }
}
