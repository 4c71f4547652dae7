//! The `.test` mini-language of PromQL scripts: load synthetic series, evaluate, state the exact result.
//!
//! The language is upstream's; see the shared corpus for its description. A script is read into [`Command`]s; running
//! them is the caller's part. Everything unreadable is an error that names the line.

mod eval;
mod values;

use std::collections::BTreeMap;
use std::sync::Arc;

use trilith_histogram::{Buckets, CUSTOM_SCHEMA, FloatHistogram, Span};
use trilith_model::{Labels, SampleValue};

pub use eval::{Eval, Expected, Note};
pub use values::{Item, number};

/// One statement of a script.
#[derive(Clone, Debug)]
pub enum Command {
    Clear,
    Load(Vec<Loaded>),
    Eval(Box<Eval>),
}

/// A series to be stored; points ascend in time.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub labels: Labels,
    pub points: Vec<Point>,
}

#[derive(Clone, Debug)]
pub struct Point {
    pub ts_ms: i64,
    pub value: SampleValue,
    /// 0 when unknown.
    pub start_ms: i64,
}

/// Reads a script.
///
/// # Errors
/// The line number and what cannot be read.
pub fn parse(text: &str) -> Result<Vec<Command>, String> {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .map(|l| if l.starts_with('#') { "" } else { l })
        .collect();
    let mut out = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let from = at;
        let named = |e: String| format!("line {}: {e}", from + 1);
        let word = lines[at].split_whitespace().next().unwrap_or("").to_ascii_lowercase();
        if word.is_empty() {
            at += 1;
        } else if word == "clear" {
            out.push(Command::Clear);
            at += 1;
        } else if word.starts_with("load") {
            out.push(Command::Load(load(&lines, &mut at).map_err(named)?));
        } else if word.starts_with("eval") {
            out.push(Command::Eval(Box::new(eval::read(&lines, &mut at).map_err(named)?)));
        } else {
            return Err(named(format!("unknown command {word:?}")));
        }
    }
    Ok(out)
}

fn load(lines: &[&str], at: &mut usize) -> Result<Vec<Loaded>, String> {
    let mut words = lines[*at].split_whitespace();
    let custom = words.next().is_some_and(|w| w.eq_ignore_ascii_case("load_with_nhcb"));
    let step = values::duration(words.next().unwrap_or(""))?;
    *at += 1;
    let mut series: BTreeMap<Labels, Vec<Point>> = BTreeMap::new();
    let mut starts: Option<Vec<Option<i64>>> = None;
    while let Some(line) = lines.get(*at).filter(|l| !l.is_empty()) {
        *at += 1;
        if let Some((_, offsets)) = line.split_once("@st").filter(|(l, _)| !l.contains(char::is_whitespace)) {
            starts = Some(values::start_offsets(offsets)?);
            continue;
        }
        let (labels, rest) = values::labels(line)?;
        let items = values::items(rest)?;
        let starts = starts.take().unwrap_or_default();
        if !starts.is_empty() && starts.len() != items.len() {
            return Err("the start times do not fit the samples after them".into());
        }
        let mut points = Vec::new();
        for (i, item) in items.into_iter().enumerate() {
            let ts_ms = i as i64 * step;
            let Some(item) = item else { continue };
            let start_ms = starts.get(i).copied().flatten().map_or(0, |offset| ts_ms + offset);
            let value = item.value;
            points.push(Point { ts_ms, value, start_ms });
        }
        series.insert(labels, points);
    }
    let more = if custom {
        custom_histograms(&series)?
    } else {
        Vec::new()
    };
    let mut out: Vec<Loaded> = series
        .into_iter()
        .map(|(labels, points)| Loaded { labels, points })
        .collect();
    out.extend(more);
    Ok(out)
}

#[derive(Default)]
struct Classic {
    /// By upper bound: (bound, cumulative count).
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
}

/// Classic histogram series as histograms with custom buckets.
fn custom_histograms(series: &BTreeMap<Labels, Vec<Point>>) -> Result<Vec<Loaded>, String> {
    let mut groups: BTreeMap<Labels, BTreeMap<i64, Classic>> = BTreeMap::new();
    for (labels, points) in series {
        let name = labels.get("__name__").unwrap_or("");
        let Some((base, suffix)) = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|s| Some((name.strip_suffix(s)?, *s)))
        else {
            continue;
        };
        let le = labels.get("le").and_then(values::number);
        if suffix == "_bucket" && le.is_none_or(f64::is_nan) {
            continue;
        }
        let identity = labels.without(|n| n == "le").with("__name__", base);
        let by_time = groups.entry(identity).or_default();
        for p in points {
            let SampleValue::Float(v) = p.value else { continue };
            let part = by_time.entry(p.ts_ms).or_default();
            match (suffix, le) {
                ("_bucket", Some(le)) if part.buckets.iter().all(|(b, _)| *b != le) => part.buckets.push((le, v)),
                ("_bucket", _) => {}
                ("_count", _) => part.count = Some(v),
                _ => part.sum = v,
            }
        }
    }
    let mut out = Vec::new();
    for (labels, by_time) in groups {
        let mut points = Vec::new();
        for (ts_ms, mut part) in by_time {
            part.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            let last = part.buckets.last().map_or(0.0, |b| b.1);
            let count = part.count.unwrap_or(last);
            if part.buckets.last().is_none_or(|b| b.0 != f64::INFINITY) {
                part.buckets.push((f64::INFINITY, count));
            }
            let bounds: Vec<f64> = part.buckets.iter().map(|b| b.0).filter(|b| b.is_finite()).collect();
            let mut before = 0.0;
            let mut counts = Vec::new();
            for (_, cumulative) in &part.buckets {
                if *cumulative < before {
                    return Err(format!("the buckets of {labels} are not cumulative"));
                }
                counts.push(cumulative - before);
                before = *cumulative;
            }
            let histogram = FloatHistogram {
                schema: CUSTOM_SCHEMA,
                count,
                sum: part.sum,
                positive: Buckets {
                    spans: vec![Span {
                        offset: 0,
                        length: counts.len() as u32,
                    }],
                    counts,
                },
                custom_bounds: Some(bounds.into()),
                ..FloatHistogram::default()
            };
            points.push(Point {
                ts_ms,
                value: SampleValue::Histogram(Arc::new(histogram)),
                start_ms: 0,
            });
        }
        out.push(Loaded { labels, points });
    }
    Ok(out)
}
