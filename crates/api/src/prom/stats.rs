//! The `stats` member of a query's answer: timings and sample counts.

use std::sync::Arc;
use std::time::Duration;

use trilith_promql::{Features, QueryValue};
use trilith_query::vector::Grid;
use trilith_query::{QueryContext, SampleCounts};

use super::labels::list;
use crate::float::{push_plain, push_seconds};

/// Clock of one query, by `ctx.clock`.
#[derive(Debug)]
pub struct Timer {
    pub samples: Arc<SampleCounts>,
    grid: Grid,
    per_step: bool,
    began: Duration,
    preparation: Duration,
    queued: Duration,
    started: Duration,
}

impl Timer {
    /// To be called before the query waits for its slot.
    pub fn start(ctx: &QueryContext, query: &str, features: &Features, grid: Grid, per_step: bool) -> Self {
        let began = ctx.clock.monotonic();
        // The evaluation does it again; here it is only timed.
        let _ = trilith_promql::parse(query, features);
        let parsed = ctx.clock.monotonic();
        Timer {
            samples: Arc::new(SampleCounts::new(grid.steps)),
            grid,
            per_step,
            began,
            preparation: parsed.saturating_sub(began),
            queued: Duration::ZERO,
            started: parsed,
        }
    }

    /// The query has its slot.
    pub fn queued(mut self, ctx: &QueryContext) -> Self {
        let now = ctx.clock.monotonic();
        self.queued = now.saturating_sub(self.started);
        self.started = now;
        self
    }

    /// The object; the query is done. Sorting is part of the evaluation and not timed by itself.
    pub fn push(&self, out: &mut Vec<u8>, ctx: &QueryContext, value: &QueryValue) {
        let now = ctx.clock.monotonic();
        let eval = now.saturating_sub(self.started);
        let timings = [
            ("evalTotalTime", eval + self.preparation),
            ("resultSortTime", Duration::ZERO),
            ("queryPreparationTime", self.preparation),
            ("innerEvalTime", eval),
            ("execQueueTime", self.queued),
            ("execTotalTime", now.saturating_sub(self.began)),
        ];
        out.extend_from_slice(b"{\"timings\":{");
        for (i, (name, time)) in timings.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            out.extend_from_slice(format!("\"{name}\":").as_bytes());
            push_plain(out, time.as_secs_f64());
        }
        let (total, read) = self.samples.steps().fold((0, 0), |(t, r), s| (t + s.0, r + s.1));
        let result = match value {
            QueryValue::Scalar { .. } | QueryValue::String { .. } => 1,
            QueryValue::Vector(v) => v.len(),
            QueryValue::Matrix(m) => m.iter().map(|s| s.points.len() + s.histograms.len()).sum(),
        };
        let peak = self.samples.peak().max(result as u64);
        out.extend_from_slice(b"},\"samples\":{");
        if self.per_step {
            self.steps(out, "totalQueryableSamplesPerStep", |s| s.0);
        }
        out.extend_from_slice(format!("\"totalQueryableSamples\":{total},").as_bytes());
        if self.per_step {
            self.steps(out, "samplesReadPerStep", |s| s.1);
        }
        out.extend_from_slice(format!("\"samplesRead\":{read},\"peakSamples\":{peak}}}}}").as_bytes());
    }

    fn steps(&self, out: &mut Vec<u8>, name: &str, count: impl Fn((u64, u64)) -> u64) {
        out.extend_from_slice(format!("\"{name}\":").as_bytes());
        let steps: Vec<(i64, u64)> = self.grid.times().zip(self.samples.steps().map(count)).collect();
        list(out, &steps, |out, (t, n)| {
            out.push(b'[');
            push_seconds(out, *t);
            out.extend_from_slice(format!(",{n}]").as_bytes());
        });
        out.push(b',');
    }
}
