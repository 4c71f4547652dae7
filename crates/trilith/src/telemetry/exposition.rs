//! Metric families, written as Prometheus text 0.0.4 and as samples.
//!
//! A client library is not used: ours come from atomics that live elsewhere (log, stores, caches), have to satisfy
//! `promtool check metrics`, and are wanted as samples too; the two libraries at hand give OpenMetrics text only
//! (whose counter families the linter rejects) or global state.

use std::fmt::Write as _;

use trilith_api::prom::{OwnFamily, OwnKind, OwnPoint, OwnValue};
use trilith_model::{LabelsBuilder, MetricBatch, MetricMetadata, MetricType, Sample};

/// Families in the order added. A family's samples must be added right after its header.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
    points: Vec<Point>,
    families: Vec<(&'static str, MetricType, &'static str)>,
}

#[derive(Debug)]
struct Point {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Exposition {
    fn family(&mut self, name: &'static str, kind: MetricType, help: &'static str) {
        let kind_text = kind.as_str();
        write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind_text}\n").expect("writing to memory cannot fail");
        self.families.push((name, kind, help));
    }

    /// A counter without labels; `name` ends in `_total`.
    pub fn counter(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.family(name, MetricType::Counter, help);
        self.sample(name, &[], value as f64);
    }

    pub fn gauge(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.family(name, MetricType::Gauge, help);
        self.sample(name, &[], value);
    }

    /// One sample per item. Nothing is written when there are no items.
    pub fn labelled<'a>(
        &mut self,
        name: &'static str,
        kind: MetricType,
        help: &'static str,
        items: impl IntoIterator<Item = (Vec<(&'a str, String)>, f64)>,
    ) {
        let mut items = items.into_iter().peekable();
        if items.peek().is_none() {
            return;
        }
        self.family(name, kind, help);
        for (labels, value) in items {
            let labels: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (*n, v.as_str())).collect();
            self.sample(name, &labels, value);
        }
    }

    /// A classic histogram family. `bounds` ascending without +Inf; `counts` per bucket, one more than bounds, not cumulative.
    pub fn histograms<'a>(
        &mut self,
        name: &'static str,
        help: &'static str,
        bounds: &[f64],
        items: impl IntoIterator<Item = (Vec<(&'a str, String)>, Vec<u64>, f64)>,
    ) {
        let mut items = items.into_iter().peekable();
        if items.peek().is_none() {
            return;
        }
        self.family(name, MetricType::Histogram, help);
        for (labels, counts, sum) in items {
            let base: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (*n, v.as_str())).collect();
            let mut cumulative = 0;
            for (i, n) in counts.iter().enumerate() {
                cumulative += n;
                let le = bounds.get(i).map_or_else(|| "+Inf".to_owned(), ToString::to_string);
                let mut with_le = base.clone();
                with_le.push(("le", &le));
                self.sample(&format!("{name}_bucket"), &with_le, cumulative as f64);
            }
            self.sample(&format!("{name}_sum"), &base, sum);
            self.sample(&format!("{name}_count"), &base, cumulative as f64);
        }
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.text.push_str(name);
        if !labels.is_empty() {
            self.text.push('{');
            for (i, (n, v)) in labels.iter().enumerate() {
                let v = v.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                let comma = if i > 0 { "," } else { "" };
                write!(self.text, "{comma}{n}=\"{v}\"").expect("writing to memory cannot fail");
            }
            self.text.push('}');
        }
        writeln!(self.text, " {value}").expect("writing to memory cannot fail");
        let labels = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        self.points.push(Point {
            name: name.to_owned(),
            labels,
            value,
        });
    }

    pub fn into_text(self) -> String {
        self.text
    }

    /// The same as families; a histogram's points become one per label set.
    pub fn into_families(self) -> Vec<OwnFamily> {
        let mut points = self.points.into_iter().peekable();
        let mut out = Vec::with_capacity(self.families.len());
        for (name, kind, help) in self.families {
            let kind = match kind {
                MetricType::Counter => OwnKind::Counter,
                MetricType::Histogram => OwnKind::Histogram,
                _ => OwnKind::Gauge,
            };
            let mut family = OwnFamily {
                name: name.to_owned(),
                help: help.to_owned(),
                kind,
                points: Vec::new(),
            };
            // Those of a family follow its header, those of one histogram each other, its count last.
            let mut buckets = Vec::new();
            let mut sum = 0.0;
            while let Some(p) = points.next_if(|p| belongs(&p.name, name, kind)) {
                let value = match p.name.strip_prefix(name) {
                    Some("_bucket") => {
                        let bound = p.labels.iter().find(|(n, _)| n == "le");
                        let bound = bound.and_then(|(_, v)| v.parse().ok()).unwrap_or(f64::INFINITY);
                        buckets.push((bound, p.value as u64));
                        continue;
                    }
                    Some("_sum") => {
                        sum = p.value;
                        continue;
                    }
                    Some("_count") => OwnValue::Histogram {
                        sum,
                        buckets: std::mem::take(&mut buckets),
                    },
                    _ => OwnValue::Number(p.value),
                };
                family.points.push(OwnPoint {
                    labels: p.labels,
                    value,
                });
            }
            out.push(family);
        }
        out
    }

    /// The same as samples at one time, with further labels on every series.
    pub fn into_batch(self, ts_ms: i64, extra: &[(&str, &str)]) -> MetricBatch {
        let mut batch = MetricBatch::default();
        let mut labels = LabelsBuilder::new();
        for p in self.points {
            labels.clear();
            labels.push("__name__", &p.name);
            for (n, v) in &p.labels {
                labels.push(n, v);
            }
            for (n, v) in extra {
                labels.push(n, v);
            }
            batch.samples.push(Sample { ts_ms, value: p.value });
            batch.finish_series(labels.pack());
        }
        batch.metadata = self
            .families
            .into_iter()
            .map(|(name, kind, help)| MetricMetadata {
                family: name.to_owned(),
                kind,
                help: help.to_owned(),
                unit: String::new(),
            })
            .collect();
        batch
    }
}

fn belongs(point: &str, family: &str, kind: OwnKind) -> bool {
    point.strip_prefix(family).is_some_and(|rest| match kind {
        OwnKind::Histogram => matches!(rest, "_bucket" | "_sum" | "_count"),
        OwnKind::Counter | OwnKind::Gauge => rest.is_empty(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_samples_agree() {
        let mut e = Exposition::default();
        e.counter("a_total", "How many.", 3);
        e.labelled(
            "b",
            MetricType::Gauge,
            "State.",
            [(vec![("x", "q\"\n".to_owned())], 1.5)],
        );
        e.histograms(
            "c_seconds",
            "Time.",
            &[0.1, 1.0],
            [(vec![("r", "/".to_owned())], vec![1, 2, 3], 9.0)],
        );
        let text = "# HELP a_total How many.\n# TYPE a_total counter\na_total 3\n\
            # HELP b State.\n# TYPE b gauge\nb{x=\"q\\\"\\n\"} 1.5\n\
            # HELP c_seconds Time.\n# TYPE c_seconds histogram\nc_seconds_bucket{r=\"/\",le=\"0.1\"} 1\n\
            c_seconds_bucket{r=\"/\",le=\"1\"} 3\nc_seconds_bucket{r=\"/\",le=\"+Inf\"} 6\n\
            c_seconds_sum{r=\"/\"} 9\nc_seconds_count{r=\"/\"} 6\n";
        assert_eq!(e.text, text);
        let batch = e.into_batch(5, &[("job", "trilith")]);
        assert_eq!(batch.series_count(), 7);
        let (labels, samples) = batch.series().next().expect("seven series");
        assert_eq!(labels.to_string(), "{__name__=\"a_total\", job=\"trilith\"}");
        assert_eq!((samples[0].ts_ms, samples[0].value), (5, 3.0));
        assert_eq!(batch.metadata.len(), 3);
    }
}
