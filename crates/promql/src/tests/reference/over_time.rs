//! Functions of the samples in one window.

use std::sync::Arc;

use trilith_histogram::{FloatHistogram, HistogramMean, HistogramSum, ResetHint};

use super::data::Value;

/// `window`: samples after `end - width_ms` up to `end`, without staleness markers.
pub(super) fn apply(
    function: &str,
    param: Option<f64>,
    window: &[(i64, Value)],
    end: i64,
    width_ms: i64,
) -> Option<Value> {
    let (first, last) = (window.first()?, window.last()?);
    let floats: Vec<f64> = window.iter().filter_map(|(_, v)| as_float(v)).collect();
    let histograms: Vec<&FloatHistogram> = window.iter().filter_map(|(_, v)| as_histogram(v)).collect();
    let mixed = !floats.is_empty() && !histograms.is_empty();
    let n = floats.len() as f64;
    let float = |v: f64| Some(Value::Float(v));
    match function {
        "count_over_time" => float(window.len() as f64),
        "present_over_time" => float(1.0),
        "last_over_time" => Some(last.1.clone()),
        "first_over_time" => Some(first.1.clone()),
        "changes" => float(window.windows(2).filter(|w| differ(&w[0].1, &w[1].1)).count() as f64),
        "resets" => float(window.windows(2).filter(|w| is_reset(&w[0].1, &w[1].1)).count() as f64),
        "rate" | "increase" | "delta" | "sum_over_time" | "avg_over_time" if mixed => None,
        "rate" | "increase" | "delta" => rate(function, window, end, width_ms),
        "irate" | "idelta" => instant_rate(function == "irate", window),
        "sum_over_time" | "avg_over_time" if floats.is_empty() => {
            let (mut sum, mut mean) = (HistogramSum::new(histograms[0]), HistogramMean::new(histograms[0]));
            for h in &histograms[1..] {
                sum.add(h).ok()?;
                mean.add(h).ok()?;
            }
            let h = if function == "sum_over_time" {
                sum.finish()
            } else {
                mean.finish()
            };
            Some(Value::Histogram(Arc::new(h)))
        }
        _ if floats.is_empty() => None,
        "sum_over_time" => float(floats.iter().sum()),
        "avg_over_time" => float(floats.iter().sum::<f64>() / n),
        "min_over_time" => float(floats.iter().copied().fold(f64::NAN, f64::min)),
        "max_over_time" => float(floats.iter().copied().fold(f64::NAN, f64::max)),
        "stddev_over_time" => float(stddev(&floats)),
        "quantile_over_time" => float(quantile(param.expect("φ is given"), floats)),
        _ => unreachable!("no such function here"),
    }
}

pub(super) fn as_float(v: &Value) -> Option<f64> {
    match v {
        Value::Float(v) => Some(*v),
        Value::Histogram(_) => None,
    }
}

pub(super) fn as_histogram(v: &Value) -> Option<&FloatHistogram> {
    match v {
        Value::Float(_) => None,
        Value::Histogram(h) => Some(h),
    }
}

pub(super) fn stddev(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n).sqrt()
}

pub(super) fn quantile(phi: f64, mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    if values.iter().any(|v| v.is_nan()) {
        // The smallest.
        values.sort_by_key(|v| !v.is_nan());
    }
    let rank = phi * (values.len() - 1) as f64;
    let (low, part) = (rank.floor() as usize, rank.fract());
    let high = (low + 1).min(values.len() - 1);
    values[low] * (1.0 - part) + values[high] * part
}

fn differ(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a != b && !(a.is_nan() && b.is_nan()),
        (Value::Histogram(a), Value::Histogram(b)) => !a.same(b),
        _ => true,
    }
}

fn is_reset(before: &Value, after: &Value) -> bool {
    match (before, after) {
        (Value::Float(a), Value::Float(b)) => b < a,
        (Value::Histogram(a), Value::Histogram(b)) => b.detect_reset(a),
        _ => true,
    }
}

/// Prometheus' extrapolatedRate, step by step; `window` is of one kind.
fn rate(function: &str, window: &[(i64, Value)], end: i64, width_ms: i64) -> Option<Value> {
    let n = window.len();
    if n < 2 {
        return None;
    }
    let counter = function != "delta";
    let mut result = match (&window[0].1, &window[n - 1].1) {
        (Value::Float(first), Value::Float(last)) => {
            let mut change = last - first;
            for w in window.windows(2).filter(|w| counter && is_reset(&w[0].1, &w[1].1)) {
                change += as_float(&w[0].1)?;
            }
            Value::Float(change)
        }
        _ => Value::Histogram(Arc::new(histogram_change(counter, window)?)),
    };
    let seconds = |ms: i64| ms as f64 / 1000.0;
    let start = end - width_ms;
    let (mut to_start, mut to_end) = (seconds(window[0].0 - start), seconds(end - window[n - 1].0));
    let sampled = seconds(window[n - 1].0 - window[0].0);
    let average = sampled / (n - 1) as f64;
    if to_start >= average * 1.1 {
        to_start = average / 2.0;
    }
    if counter {
        let (size, first) = match (&result, &window[0].1) {
            (Value::Float(change), Value::Float(first)) => (*change, *first),
            (Value::Histogram(change), Value::Histogram(first)) => (change.count, first.count),
            _ => unreachable!("a window of one kind"),
        };
        if size > 0.0 && first >= 0.0 {
            to_start = to_start.min(sampled * (first / size));
        }
    }
    if to_end >= average * 1.1 {
        to_end = average / 2.0;
    }
    let mut factor = (sampled + to_start + to_end) / sampled;
    if function == "rate" {
        factor /= seconds(width_ms);
    }
    match &mut result {
        Value::Float(v) => *v *= factor,
        Value::Histogram(h) => Arc::make_mut(h).mul(factor),
    }
    Some(result)
}

fn histogram_change(counter: bool, window: &[(i64, Value)]) -> Option<FloatHistogram> {
    let all: Vec<&FloatHistogram> = window.iter().filter_map(|(_, v)| as_histogram(v)).collect();
    let mut first = all[0].clone();
    let last = all[all.len() - 1];
    if counter && all[1].detect_reset(&first) {
        first = FloatHistogram {
            schema: all[1].schema,
            custom_bounds: all[1].custom_bounds.clone(),
            ..FloatHistogram::default()
        };
    }
    let custom = first.uses_custom_buckets();
    let between = if counter { &all[1..] } else { &all[all.len() - 1..] };
    if between.iter().any(|h| h.uses_custom_buckets() != custom) {
        return None;
    }
    let schema = between.iter().map(|h| h.schema).min()?.min(first.schema);
    let mut change = last.at_schema(schema).ok()?;
    change.sub(&first).ok()?;
    let mut before = &first;
    for h in &all[1..] {
        if counter && h.detect_reset(before) {
            change.add(before).ok()?;
        }
        before = h;
    }
    change.reset_hint = ResetHint::Gauge;
    change.compact();
    Some(change)
}

fn instant_rate(per_second: bool, window: &[(i64, Value)]) -> Option<Value> {
    let [.., (from, before), (to, after)] = window else {
        return None;
    };
    let reset = per_second && is_reset(before, after);
    let seconds = (to - from) as f64 / 1000.0;
    match (before, after) {
        (Value::Float(a), Value::Float(b)) => {
            let change = if reset { *b } else { b - a };
            Some(Value::Float(if per_second { change / seconds } else { change }))
        }
        (Value::Histogram(a), Value::Histogram(b)) => {
            let mut change = FloatHistogram::clone(b);
            if !reset {
                change.sub(a).ok()?;
            }
            change.reset_hint = ResetHint::Gauge;
            change.compact();
            if per_second {
                change.div(seconds);
            }
            Some(Value::Histogram(Arc::new(change)))
        }
        _ => None,
    }
}
