use std::time::Duration;

use trilith_histogram::{Buckets, ResetHint};
use trilith_model::{ErrorKind, FloatHistogram, Limits, TenantId};
use trilith_query::vector::rate::RateKind;
use trilith_query::{BatchColumn, ValueColumn};
use trilith_testkit::SimClock;

use super::*;
use crate::ast::Span;
use crate::notes::Notes;

mod functions;
mod oracle;

/// Time in ms, value, start timestamp in ms.
type Point = (i64, SampleValue, i64);

const STALE: f64 = trilith_query::vector::ABSENT;
const LOOKBACK: i64 = 300_000;

fn context(samples_max: u64) -> QueryContext {
    let limits = Limits {
        query_samples_max: samples_max,
        ..Limits::default()
    };
    QueryContext::new(
        TenantId::anonymous(),
        Arc::new(limits),
        SimClock::new(0),
        Duration::ZERO,
    )
}

fn f(v: f64) -> SampleValue {
    SampleValue::Float(v)
}

/// A counter of schema 0 whose buckets from index 0 on have these counts.
fn histogram(counts: &[f64]) -> FloatHistogram {
    FloatHistogram {
        count: counts.iter().sum(),
        sum: counts.iter().enumerate().map(|(i, n)| i as f64 * n).sum(),
        positive: Buckets::run(0, counts.to_vec()),
        ..FloatHistogram::default()
    }
}

fn custom(bounds: &[f64], counts: &[f64]) -> FloatHistogram {
    FloatHistogram {
        schema: trilith_histogram::CUSTOM_SCHEMA,
        custom_bounds: Some(Arc::from(bounds)),
        ..histogram(counts)
    }
}

fn hinted(reset_hint: ResetHint, h: FloatHistogram) -> FloatHistogram {
    FloatHistogram { reset_hint, ..h }
}

fn h(h: FloatHistogram) -> SampleValue {
    SampleValue::Histogram(Arc::new(h))
}

/// Samples one minute apart from 0 on, without start timestamps.
fn every_minute(values: impl IntoIterator<Item = SampleValue>) -> Vec<Point> {
    values
        .into_iter()
        .enumerate()
        .map(|(i, v)| (i as i64 * 60_000, v, 0))
        .collect()
}

/// One series `m{a="1"}`.
fn one(points: &[Point]) -> Samples {
    let mut batch = SeriesBatch::default();
    batch.times.push(points.iter().map(|p| p.0).collect());
    let floats = points.iter().filter_map(|p| match &p.1 {
        SampleValue::Float(v) => Some(*v),
        SampleValue::Histogram(_) => None,
    });
    batch.floats = floats.collect();
    let values = if batch.floats.len() == points.len() {
        ValueColumn::Float(0..points.len())
    } else {
        batch.floats.clear();
        batch.mixed = points.iter().map(|p| p.1.clone()).collect();
        ValueColumn::Mixed(0..points.len())
    };
    batch.starts = points.iter().map(|p| p.2).collect();
    batch.columns.push(BatchColumn {
        labels: Labels::from_pairs([("__name__", "m"), ("a", "1")]),
        times_idx: 0,
        values,
        starts: points.iter().any(|p| p.2 != 0).then_some(0..points.len()),
    });
    Samples {
        batch,
        ..Samples::default()
    }
}

fn frame(at: &[i64], width_ms: i64, edges: Edges) -> Frame {
    Frame {
        at_ms: at.into(),
        steps_ms: at.into(),
        width_ms,
        edges,
        lookback_ms: LOOKBACK,
        buckets: true,
    }
}

/// The values at each step, and warnings and infos without prefix and position.
fn run_cell(points: &[Point], cell: &Cell, frame: &Frame) -> (Vec<Option<SampleValue>>, Vec<String>) {
    let remarks = Remarks {
        notes: Notes::of("q"),
        at: Span::default(),
        types: false,
    };
    let block = evaluate(&context(0), &one(points), cell, frame, &remarks).expect("evaluates");
    let cells = (0..frame.at_ms.len()).map(|step| {
        let row = block.rows.first()?;
        match row.histograms.as_ref().and_then(|h| h[step].clone()) {
            Some(h) => {
                assert!(is_absent(block.row(0)[step]), "a cell has one value");
                Some(SampleValue::Histogram(h))
            }
            None => Some(block.row(0)[step])
                .filter(|v| !is_absent(*v))
                .map(SampleValue::Float),
        }
    });
    let cells = cells.collect();
    let (warnings, infos) = remarks.notes.take();
    let bare = |note: String| {
        let text = note.split_once(": ").expect("a prefix").1;
        text.trim_end_matches(" (1:1)").to_owned()
    };
    (cells, warnings.into_iter().chain(infos).map(bare).collect())
}

fn window(function: RangeFunction, params: &[f64], steps: usize) -> Cell {
    Cell::Window {
        function,
        params: params.iter().map(|p| vec![*p; steps].into()).collect(),
        starts: function.uses_starts(),
    }
}

/// A function of the minutes up to `at`, `width` minutes wide.
fn run(
    function: RangeFunction,
    params: &[f64],
    points: &[Point],
    at: f64,
    width: f64,
    edges: Edges,
) -> (Option<SampleValue>, Vec<String>) {
    let ms = |minutes: f64| (minutes * 60_000.0) as i64;
    let (cells, notes) = run_cell(
        points,
        &window(function, params, 1),
        &frame(&[ms(at)], ms(width), edges),
    );
    (cells[0].clone(), notes)
}
