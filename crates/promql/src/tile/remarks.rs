//! Notes about the samples of a range, in upstream's words.

use std::cell::Cell;
use std::sync::Arc;

use trilith_model::Labels;
use trilith_query::vector::{Block, is_absent};

use super::metric_name;
use crate::ast::Span;
use crate::functions::RangeFunction;
use crate::notes::{Notes, format_g};

/// What happened to the custom bounds or the counters of two histograms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Addition,
    Subtraction,
    Aggregation,
}

impl Operation {
    const fn as_str(self) -> &'static str {
        match self {
            Operation::Addition => "addition",
            Operation::Subtraction => "subtraction",
            Operation::Aggregation => "aggregation",
        }
    }
}

/// Where notes of one function call go.
#[derive(Clone)]
pub(crate) struct Remarks {
    pub notes: Notes,
    /// The first argument of the call, or the selector.
    pub at: Span,
    /// `__type__` tells what is a counter, not the suffix of the name.
    pub types: bool,
}

impl Remarks {
    pub(super) fn of<'a>(&'a self, labels: &'a Labels) -> SeriesRemarks<'a> {
        SeriesRemarks {
            all: self,
            name: metric_name(labels),
            said: Cell::default(),
            overlaps: Cell::default(),
        }
    }

    /// Notes that depend on the results of all series.
    pub(super) fn after(&self, function: RangeFunction, params: &[Arc<[f64]>], tile: &Block) {
        match function {
            RangeFunction::Rate(kind) if kind.is_counter() => self.check_counter_names(tile),
            RangeFunction::Quantile => {
                let wrong = params.first().into_iter().flat_map(|phi| phi.iter().enumerate());
                for (step, phi) in wrong.filter(|(_, phi)| !(0.0..=1.0).contains(*phi)) {
                    if (0..tile.rows.len()).any(|i| !is_absent(tile.row(i)[step])) {
                        let text = format_args!("quantile value should be between 0 and 1, got {}", format_g(*phi));
                        self.notes.warn(self.at, text);
                    }
                }
            }
            _ => {}
        }
    }

    /// Series whose rates are floats should be counters by their looks.
    fn check_counter_names(&self, tile: &Block) {
        const SUFFIXES: [&str; 4] = ["_total", "_sum", "_count", "_bucket"];
        let mut last = None;
        for (row, cells) in tile.iter() {
            let name = metric_name(&row.labels);
            let kind = if self.types {
                row.labels.get("__type__").unwrap_or("")
            } else {
                ""
            };
            if name.is_empty() || last == Some((name, kind)) {
                continue;
            }
            let is_counter = if self.types {
                matches!(kind, "counter" | "histogram")
            } else {
                SUFFIXES.iter().any(|s| name.ends_with(s))
            };
            if is_counter || cells.iter().all(|v| is_absent(*v)) {
                continue;
            }
            last = Some((name, kind));
            if self.types {
                let text = format_args!(
                    "metric might not be a counter, __type__ label is not set to \"counter\" or \"histogram\", \
                     got {kind:?}: {name:?}"
                );
                self.notes.info(self.at, text);
            } else {
                let text = format_args!(
                    "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {name:?}"
                );
                self.notes.info(self.at, text);
            }
        }
    }
}

/// Notes about one series. Windows overlap and often say the same, so it is passed on once.
pub(crate) struct SeriesRemarks<'a> {
    all: &'a Remarks,
    name: &'a str,
    said: Cell<u32>,
    /// Windows with overlapping start times; passed on at the end.
    overlaps: Cell<u64>,
}

#[derive(Clone, Copy)]
enum Said {
    Mixed,
    Ignored,
    NotACounter,
    NotAGauge,
    MixedSchemas,
    /// One per operation, as are those of conflicts.
    Reconciled,
    Conflict = 8,
}

impl SeriesRemarks<'_> {
    /// Whether this is to be said, as it was not before.
    fn is_new(&self, said: Said, operation: Option<Operation>) -> bool {
        let bit = 1 << (said as u32 + operation.map_or(0, |o| o as u32));
        let before = self.said.replace(self.said.get() | bit);
        before & bit == 0
    }

    fn warn(&self, said: Said, text: impl std::fmt::Display) {
        if self.is_new(said, None) {
            self.all.notes.warn(self.all.at, text);
        }
    }

    /// A window of floats and histograms, which the function cannot combine.
    pub(super) fn mixed(&self) {
        let name = self.name;
        self.warn(
            Said::Mixed,
            format_args!("encountered a mix of histograms and floats for metric name {name:?}"),
        );
    }

    /// A window of both of which the function took the floats.
    pub(super) fn ignored(&self) {
        if self.is_new(Said::Ignored, None) {
            let name = self.name;
            self.all.notes.info(
                self.all.at,
                format_args!(
                    "ignored histograms in a range containing both floats and histograms for metric name {name:?}"
                ),
            );
        }
    }

    pub(super) fn not_a_counter(&self) {
        let name = self.name;
        self.warn(
            Said::NotACounter,
            format_args!("this native histogram metric is not a counter: {name:?}"),
        );
    }

    pub(super) fn not_a_gauge(&self) {
        let name = self.name;
        self.warn(
            Said::NotAGauge,
            format_args!("this native histogram metric is not a gauge: {name:?}"),
        );
    }

    pub(super) fn mixed_schemas(&self) {
        let name = self.name;
        self.warn(
            Said::MixedSchemas,
            format_args!(
                "vector contains a mix of histograms with exponential and custom buckets schemas for metric name \
                 {name:?}"
            ),
        );
    }

    pub(super) fn reconciled(&self, operation: Operation) {
        if self.is_new(Said::Reconciled, Some(operation)) {
            let operation = operation.as_str();
            self.all.notes.info(
                self.all.at,
                format_args!("mismatched custom buckets were reconciled during {operation}"),
            );
        }
    }

    pub(super) fn conflicting_resets(&self, operation: Operation) {
        if self.is_new(Said::Conflict, Some(operation)) {
            let operation = operation.as_str();
            self.all.notes.warn(
                self.all.at,
                format_args!("conflicting counter resets during histogram {operation}"),
            );
        }
    }

    /// Once per window.
    pub(super) fn overlapping_starts(&self) {
        self.overlaps.set(self.overlaps.get() + 1);
    }
}

impl Drop for SeriesRemarks<'_> {
    fn drop(&mut self) {
        let overlaps = self.overlaps.get();
        if overlaps > 0 {
            let name = self.name;
            let text =
                format_args!("sample has start time that overlaps with previous sample timestamp for metric {name:?}");
            self.all.notes.warn_counted(self.all.at, text, overlaps);
        }
    }
}
