//! One expression at one time.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use trilith_histogram::{FloatHistogram, HistogramMean, HistogramSum, ResetHint};
use trilith_query::vector::quantile::{Bucket, bucket_fraction, bucket_quantile};

use super::close;
use super::data::{LabelMap, Series, Value};
use super::expr::{At, Expr, Matching, Selector, Shift, Window};
use super::over_time;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Stop {
    /// The query is refused.
    Refused,
    /// Several answers are right: equal values at the edge of `topk`.
    Tie,
}

type Result<T> = std::result::Result<T, Stop>;

#[derive(Clone, Debug)]
pub(super) struct Element {
    pub labels: LabelMap,
    /// The name is to go at the end.
    pub unnamed: bool,
    pub value: Value,
}

pub(super) struct Reference<'a> {
    pub data: &'a [Series],
    pub start: i64,
    pub end: i64,
    /// Names go in every operation rather than at the end.
    pub names_go_at_once: bool,
}

const LOOKBACK_MS: i64 = 300_000;

impl Reference<'_> {
    /// The elements of the answer by their labels.
    pub fn answer(&self, expr: &Expr, t: i64) -> Result<BTreeMap<LabelMap, Value>> {
        let mut out = BTreeMap::new();
        for mut e in self.eval(expr, t)? {
            if e.unnamed {
                e.labels.remove("__name__");
            }
            if out.insert(e.labels, e.value).is_some() {
                return Err(Stop::Refused);
            }
        }
        Ok(out)
    }

    fn eval(&self, expr: &Expr, t: i64) -> Result<Vec<Element>> {
        let mut out = self.parts(expr, t)?;
        for e in out.iter_mut().filter(|e| self.names_go_at_once && e.unnamed) {
            e.labels.remove("__name__");
            e.unnamed = false;
        }
        let mut labels: Vec<_> = out.iter().map(|e| &e.labels).collect();
        labels.sort();
        match labels.windows(2).any(|w| w[0] == w[1]) {
            true => Err(Stop::Refused),
            false => Ok(out),
        }
    }

    fn parts(&self, expr: &Expr, t: i64) -> Result<Vec<Element>> {
        Ok(match expr {
            Expr::Select(selector) => {
                let at = self.shifted(selector.shift, t);
                let newest = |s: &Series| {
                    let sample = s.samples.iter().rev().find(|(time, _)| *time <= at)?;
                    let fresh = sample.0 > at - LOOKBACK_MS && !sample.1.is_stale();
                    fresh.then(|| sample.1.clone())
                };
                self.selected(selector)
                    .filter_map(|s| Some(named(&s.labels, newest(s)?)))
                    .collect()
            }
            Expr::Over(function, param, Window::Range(selector)) => {
                let at = self.shifted(selector.shift, t);
                let width = selector.range.expect("a range") * 1000;
                let over = |s: &Series| {
                    let inside = |(time, v): &&(i64, Value)| *time > at - width && *time <= at && !v.is_stale();
                    let window: Vec<_> = s.samples.iter().filter(inside).cloned().collect();
                    over_time::apply(function, *param, &window, at, width)
                };
                let results = self
                    .selected(selector)
                    .filter_map(|s| Some((named(&s.labels, over(s)?), function)));
                results
                    .map(|(e, f)| Element {
                        unnamed: !keeps_name(f),
                        ..e
                    })
                    .collect()
            }
            Expr::Over(
                function,
                param,
                Window::Subquery {
                    expr,
                    range,
                    step,
                    shift,
                },
            ) => {
                let (at, width, step) = (self.shifted(*shift, t), range * 1000, step * 1000);
                let mut windows: BTreeMap<LabelMap, (bool, Vec<(i64, Value)>)> = BTreeMap::new();
                let mut time = (at - width).div_euclid(step) * step + step;
                while time <= at {
                    for e in self.eval(expr, time)? {
                        let (unnamed, window) = windows.entry(e.labels).or_default();
                        *unnamed |= e.unnamed;
                        window.push((time, neighbourless(e.value)));
                    }
                    time += step;
                }
                let over = |window: &[(i64, Value)]| over_time::apply(function, *param, window, at, width);
                let results = windows.into_iter().filter_map(|(labels, (unnamed, window))| {
                    Some(Element {
                        labels,
                        unnamed: unnamed || !keeps_name(function),
                        value: over(&window)?,
                    })
                });
                results.collect()
            }
            Expr::Call(function, scalars, inner) => self.call(function, scalars, inner, t)?,
            Expr::Negate(inner) => {
                let mut out = self.eval(inner, t)?;
                for e in &mut out {
                    e.unnamed = true;
                    e.value = match &e.value {
                        Value::Float(v) => Value::Float(-v),
                        Value::Histogram(h) => scaled(h, |h| h.mul(-1.0)),
                    };
                }
                out
            }
            Expr::Scalar {
                op,
                return_bool,
                scalar,
                scalar_left,
                expr,
            } => {
                let scalar = Value::Float(*scalar);
                let comparison = is_comparison(op);
                let apply = |e: Element| {
                    let (l, r) = if *scalar_left {
                        (&scalar, &e.value)
                    } else {
                        (&e.value, &scalar)
                    };
                    let (kept, value) = operate(op, l, r)?;
                    if !comparison {
                        return Some(Element {
                            unnamed: true,
                            value,
                            ..e
                        });
                    }
                    match return_bool {
                        true => Some(Element {
                            unnamed: true,
                            value: Value::Float(f64::from(u8::from(kept))),
                            ..e
                        }),
                        false => kept.then_some(e),
                    }
                };
                self.eval(expr, t)?.into_iter().filter_map(apply).collect()
            }
            Expr::Binary {
                op,
                return_bool,
                matching,
                left,
                right,
            } => {
                let (left, right) = (self.eval(left, t)?, self.eval(right, t)?);
                match *op {
                    "and" | "or" | "unless" => set(op, matching, left, right),
                    _ => binary(op, *return_bool, matching, &left, &right)?,
                }
            }
            Expr::Aggregate {
                op: op @ ("topk" | "bottomk"),
                param,
                by,
                expr,
            } => {
                let mut groups: BTreeMap<LabelMap, Vec<(f64, Element)>> = BTreeMap::new();
                for e in self.eval(expr, t)? {
                    if let Value::Float(v) = e.value {
                        let labels = group_labels(&e.labels, by);
                        groups.entry(labels).or_default().push((v, e));
                    }
                }
                let k = param.expect("k is given") as usize;
                let mut out = Vec::new();
                for mut group in groups.into_values() {
                    let rank = |v: f64| if *op == "topk" { -v } else { v };
                    // NaN comes last in both.
                    group.sort_by(|(a, _), (b, _)| {
                        (a.is_nan(), rank(*a))
                            .partial_cmp(&(b.is_nan(), rank(*b)))
                            .unwrap_or(Ordering::Equal)
                    });
                    let at = |i: usize| group.get(i).map(|(v, _)| *v);
                    if let (Some(last), Some(next)) = (at(k - 1), at(k))
                        && close(last, next)
                    {
                        return Err(Stop::Tie);
                    }
                    out.extend(group.into_iter().take(k).map(|(_, e)| e));
                }
                out
            }
            Expr::Aggregate { op, param, by, expr } => {
                let mut groups: BTreeMap<LabelMap, Vec<Value>> = BTreeMap::new();
                for e in self.eval(expr, t)? {
                    let mut labels = group_labels(&e.labels, by);
                    if *op == "count_values" {
                        let text = match &e.value {
                            Value::Float(v) => v.to_string(),
                            Value::Histogram(h) => h.to_string(),
                        };
                        labels.insert("v".to_owned(), text);
                    }
                    groups.entry(labels).or_default().push(e.value);
                }
                let aggregated = groups.into_iter().filter_map(|(labels, values)| {
                    let value = aggregate(op, *param, &values)?;
                    let unnamed = false;
                    Some(Element { labels, unnamed, value })
                });
                aggregated.collect()
            }
        })
    }

    fn selected<'s>(&'s self, selector: &'s Selector) -> impl Iterator<Item = &'s Series> {
        self.data.iter().filter(|s| {
            s.labels["__name__"] == selector.metric && selector.job.is_none_or(|job| s.labels["job"] == job)
        })
    }

    fn shifted(&self, shift: Shift, t: i64) -> i64 {
        let at = match shift.at {
            None => t,
            Some(At::Start) => self.start,
            Some(At::End) => self.end,
            Some(At::Time(t)) => t * 1000,
        };
        at - shift.offset * 1000
    }

    fn call(&self, function: &str, scalars: &[f64], inner: &Expr, t: i64) -> Result<Vec<Element>> {
        let input = self.eval(inner, t)?;
        let each = |f: &dyn Fn(&Value) -> Option<f64>| {
            let results = input.iter().filter_map(|e| {
                Some(Element {
                    labels: e.labels.clone(),
                    unnamed: true,
                    value: Value::Float(f(&e.value)?),
                })
            });
            results.collect()
        };
        let of_histogram = |f: fn(&FloatHistogram) -> f64| each(&|v| over_time::as_histogram(v).map(f));
        Ok(match function {
            "abs" => each(&|v| over_time::as_float(v).map(f64::abs)),
            "ceil" => each(&|v| over_time::as_float(v).map(f64::ceil)),
            "histogram_count" => of_histogram(|h| h.count),
            "histogram_sum" => of_histogram(|h| h.sum),
            "histogram_avg" => of_histogram(|h| h.sum / h.count),
            "histogram_stdvar" => of_histogram(FloatHistogram::variance),
            "absent" if !input.is_empty() => Vec::new(),
            "absent" => {
                let job = match inner {
                    Expr::Select(Selector { job: Some(job), .. }) => Some(("job".to_owned(), (*job).to_owned())),
                    _ => None,
                };
                let labels: LabelMap = job.into_iter().collect();
                vec![Element {
                    labels,
                    unnamed: false,
                    value: Value::Float(1.0),
                }]
            }
            "histogram_quantile" => histograms(
                input,
                |buckets| bucket_quantile(scalars[0], buckets).value,
                |h| h.quantile(scalars[0]).0,
            ),
            _ => histograms(
                input,
                |buckets| bucket_fraction(scalars[0], scalars[1], buckets),
                |h| h.fraction(scalars[0], scalars[1]).0,
            ),
        })
    }
}

fn named(labels: &LabelMap, value: Value) -> Element {
    Element {
        labels: labels.clone(),
        unnamed: false,
        value,
    }
}

fn keeps_name(function: &str) -> bool {
    matches!(function, "last_over_time" | "first_over_time")
}

fn only(labels: &LabelMap, keep: impl Fn(&str) -> bool) -> LabelMap {
    let kept = labels.iter().filter(|(n, _)| keep(n.as_str()));
    kept.map(|(n, v)| (n.clone(), v.clone())).collect()
}

fn group_labels(labels: &LabelMap, by: &Option<(bool, Vec<&'static str>)>) -> LabelMap {
    match by {
        None => LabelMap::new(),
        Some((by, names)) => only(labels, |n| names.contains(&n) == *by && n != "__name__"),
    }
}

/// A subquery's histograms do not know what came before them.
fn neighbourless(value: Value) -> Value {
    match value {
        Value::Histogram(h) if h.reset_hint != ResetHint::Gauge => scaled(&h, |h| h.reset_hint = ResetHint::Unknown),
        v => v,
    }
}

fn scaled(h: &FloatHistogram, f: impl Fn(&mut FloatHistogram)) -> Value {
    let mut h = h.clone();
    f(&mut h);
    h.compact();
    Value::Histogram(Arc::new(h))
}

fn is_comparison(op: &str) -> bool {
    matches!(op, ">" | "<=" | "==" | "!=")
}

/// Whether a comparison holds, and the value. `None` when the operands do not fit the operator.
fn operate(op: &str, l: &Value, r: &Value) -> Option<(bool, Value)> {
    use Value::{Float, Histogram};
    let holds = |b: bool| Some((b, l.clone()));
    match (l, op, r) {
        (Float(l), "+", Float(r)) => Some((true, Float(l + r))),
        (Float(l), "-", Float(r)) => Some((true, Float(l - r))),
        (Float(l), "*", Float(r)) => Some((true, Float(l * r))),
        (Float(l), "/", Float(r)) => Some((true, Float(l / r))),
        (Float(l), ">", Float(r)) => holds(l > r),
        (Float(l), "<=", Float(r)) => holds(l <= r),
        (Float(l), "==", Float(r)) => holds(l == r),
        (Float(l), "!=", Float(r)) => holds(l != r),
        (Histogram(h), "*", Float(f)) | (Float(f), "*", Histogram(h)) => Some((true, scaled(h, |h| h.mul(*f)))),
        (Histogram(h), "/", Float(f)) => Some((true, scaled(h, |h| h.div(*f)))),
        (Histogram(l), "==", Histogram(r)) => holds(l.same(r)),
        (Histogram(l), "!=", Histogram(r)) => holds(!l.same(r)),
        (Histogram(l), "+" | "-", Histogram(r)) => {
            let mut sum = FloatHistogram::clone(l);
            if op == "+" {
                sum.add(r).ok()?;
            } else {
                sum.sub(r).ok()?;
                sum.reset_hint = ResetHint::Gauge;
            }
            Some((true, scaled(&sum, |_| {})))
        }
        _ => None,
    }
}

fn key(e: &Element, matching: &Matching) -> LabelMap {
    only(&e.labels, |n| match matching.on {
        true => matching.labels.contains(&n),
        false => !matching.labels.contains(&n) && n != "__name__",
    })
}

fn set(op: &str, matching: &Matching, left: Vec<Element>, right: Vec<Element>) -> Vec<Element> {
    let is_in = |e: &Element, others: &[Element]| others.iter().any(|o| key(o, matching) == key(e, matching));
    match op {
        "and" => left.into_iter().filter(|e| is_in(e, &right)).collect(),
        "unless" => left.into_iter().filter(|e| !is_in(e, &right)).collect(),
        _ => {
            let more: Vec<_> = right.into_iter().filter(|e| !is_in(e, &left)).collect();
            left.into_iter().chain(more).collect()
        }
    }
}

fn binary(
    op: &str,
    return_bool: bool,
    matching: &Matching,
    left: &[Element],
    right: &[Element],
) -> Result<Vec<Element>> {
    if left.is_empty() || right.is_empty() {
        return Ok(Vec::new());
    }
    let mut ones: BTreeMap<LabelMap, &Element> = BTreeMap::new();
    for e in right {
        if ones.insert(key(e, matching), e).is_some() {
            return Err(Stop::Refused);
        }
    }
    let mut made: Vec<(LabelMap, LabelMap)> = Vec::new();
    let mut out = Vec::new();
    for e in left {
        let key = key(e, matching);
        let Some(one) = ones.get(&key) else {
            continue;
        };
        let Some((kept, value)) = operate(op, &e.value, &one.value) else {
            continue;
        };
        let mut labels = e.labels.clone();
        if !is_comparison(op) {
            labels.remove("__name__");
        }
        if !matching.group_left {
            labels.retain(|n, _| matching.labels.contains(&n.as_str()) == matching.on);
        }
        let again = |(k, l): &(LabelMap, LabelMap)| *k == key && (!matching.group_left || *l == labels);
        if made.iter().any(again) {
            return Err(Stop::Refused);
        }
        made.push((key, labels.clone()));
        let (kept, value) = match return_bool {
            true => (true, Value::Float(f64::from(u8::from(kept)))),
            false => (kept, value),
        };
        if kept {
            out.push(Element {
                labels,
                unnamed: return_bool || (is_comparison(op) && e.unnamed),
                value,
            });
        }
    }
    Ok(out)
}

fn aggregate(op: &str, param: Option<f64>, values: &[Value]) -> Option<Value> {
    let floats: Vec<f64> = values.iter().filter_map(over_time::as_float).collect();
    let histograms: Vec<&FloatHistogram> = values.iter().filter_map(over_time::as_histogram).collect();
    let n = floats.len() as f64;
    Some(Value::Float(match op {
        "count" | "count_values" => values.len() as f64,
        "group" => 1.0,
        "sum" | "avg" if !histograms.is_empty() => {
            if !floats.is_empty() {
                return None;
            }
            let (mut sum, mut mean) = (HistogramSum::new(histograms[0]), HistogramMean::new(histograms[0]));
            for h in &histograms[1..] {
                sum.add(h).ok()?;
                mean.add(h).ok()?;
            }
            let h = if op == "sum" { sum.finish() } else { mean.finish() };
            return Some(Value::Histogram(Arc::new(h)));
        }
        _ if floats.is_empty() => return None,
        "sum" => floats.iter().sum(),
        "avg" => floats.iter().sum::<f64>() / n,
        "min" => floats.iter().copied().fold(f64::NAN, f64::min),
        "max" => floats.iter().copied().fold(f64::NAN, f64::max),
        "stddev" => over_time::stddev(&floats),
        _ => over_time::quantile(param.expect("φ is given"), floats),
    }))
}

fn histograms(
    input: Vec<Element>,
    classic: impl Fn(&mut Vec<Bucket>) -> f64,
    native: impl Fn(&FloatHistogram) -> f64,
) -> Vec<Element> {
    let mut groups: BTreeMap<LabelMap, Vec<Bucket>> = BTreeMap::new();
    let mut natives: BTreeMap<LabelMap, Arc<FloatHistogram>> = BTreeMap::new();
    for e in input {
        match e.value {
            Value::Histogram(h) => {
                natives.insert(e.labels, h);
            }
            Value::Float(count) => {
                let bound = e.labels.get("le").map(|le| le.parse().expect("bounds are numbers"));
                if let Some(upper_bound) = bound {
                    let labels = only(&e.labels, |n| n != "le");
                    groups.entry(labels).or_default().push(Bucket { upper_bound, count });
                }
            }
        }
    }
    let element = |labels: &LabelMap, value| Element {
        labels: labels.clone(),
        unnamed: true,
        value: Value::Float(value),
    };
    let mut out = Vec::new();
    for (labels, h) in natives.iter().filter(|(l, _)| !groups.contains_key(*l)) {
        out.push(element(labels, native(h)));
    }
    for (labels, buckets) in groups.iter_mut().filter(|(l, _)| !natives.contains_key(*l)) {
        out.push(element(labels, classic(buckets)));
    }
    out
}
