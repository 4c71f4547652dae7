//! Random series: counters with resets, gauges, native and classic histograms, series that change their kind; with
//! gaps and staleness markers.

use std::collections::BTreeMap;
use std::sync::Arc;

use trilith_histogram::{Buckets, BucketsBuilder, CUSTOM_SCHEMA, FloatHistogram, ResetHint};
use trilith_model::rng::Rng;

use super::*;

pub(super) type LabelMap = BTreeMap<String, String>;

/// One series of the data.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub labels: LabelMap,
    /// Ascending in time, staleness markers among them.
    pub samples: Vec<(i64, Value)>,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Float(f64),
    Histogram(Arc<FloatHistogram>),
}

impl Value {
    pub fn is_stale(&self) -> bool {
        matches!(self, Value::Float(v) if is_absent(*v))
    }
}

/// Numbers from a seed.
pub(super) struct Random(Rng);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(Rng::seeded(seed))
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0.next_u64() % n
    }

    /// With a probability of one in `n`.
    pub fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

pub(super) const METRICS: [&str; 4] = ["c_total", "g", "h", "b_bucket"];

/// Every 15 s as a rule, half an hour long.
const SCRAPE_MS: i64 = 15_000;
const SCRAPES: i64 = 120;

pub(super) fn series(random: &mut Random) -> Vec<Series> {
    let mut all = Vec::new();
    for metric in METRICS {
        for job in ["a", "b"] {
            for i in ["0", "1", "2"] {
                if random.once_in(4) {
                    continue;
                }
                let base = [("__name__", metric), ("job", job), ("i", i)];
                let mut labels: LabelMap = base.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
                match metric {
                    "c_total" => all.push(sampled(random, labels, &mut Counter::default())),
                    "g" => all.push(sampled(random, labels, &mut Gauge)),
                    "h" => {
                        let mut kind = NativeHistogram::new(random);
                        all.push(sampled(random, labels, &mut kind));
                    }
                    _ => {
                        for le in ["0.5", "1", "2", "+Inf"] {
                            if !random.once_in(12) {
                                labels.insert("le".to_owned(), le.to_owned());
                                all.push(sampled(random, labels.clone(), &mut Counter::default()));
                            }
                        }
                        if random.once_in(6) {
                            labels.remove("le");
                            let mut kind = NativeHistogram::new(random);
                            all.push(sampled(random, labels, &mut kind));
                        }
                    }
                }
            }
        }
    }
    all
}

trait Source {
    fn next(&mut self, random: &mut Random) -> Value;
}

fn sampled(random: &mut Random, labels: LabelMap, source: &mut dyn Source) -> Series {
    let shift = if random.once_in(3) {
        random.below(15_000) as i64
    } else {
        0
    };
    let (mut samples, mut away) = (Vec::new(), 0);
    for scrape in 0..SCRAPES {
        if away > 0 {
            away -= 1;
            continue;
        }
        let t = scrape * SCRAPE_MS + shift;
        if random.once_in(40) {
            samples.push((t, Value::Float(STALE)));
            away = random.below(12);
        } else if random.once_in(40) {
            away = random.below(30);
        } else {
            samples.push((t, source.next(random)));
        }
    }
    Series { labels, samples }
}

#[derive(Default)]
struct Counter(f64);

impl Source for Counter {
    fn next(&mut self, random: &mut Random) -> Value {
        if random.once_in(20) {
            self.0 = 0.0;
        }
        self.0 += random.below(30) as f64;
        Value::Float(self.0)
    }
}

struct Gauge;

impl Source for Gauge {
    fn next(&mut self, random: &mut Random) -> Value {
        Value::Float(random.below(41) as f64 - 20.0)
    }
}

/// Grows; now and then it is reset, changes its layout, or is a float.
struct NativeHistogram {
    custom: bool,
    gauge: bool,
    schema: i32,
    zero_threshold: f64,
    bounds: Arc<[f64]>,
    counts: BTreeMap<i32, f64>,
    negative: BTreeMap<i32, f64>,
    zero_count: f64,
    sum: f64,
    floats: u64,
}

impl NativeHistogram {
    fn new(random: &mut Random) -> Self {
        let mut new = NativeHistogram {
            custom: random.once_in(4),
            gauge: random.once_in(6),
            schema: 0,
            zero_threshold: 0.0,
            bounds: Arc::default(),
            counts: BTreeMap::new(),
            negative: BTreeMap::new(),
            zero_count: 0.0,
            sum: 0.0,
            floats: 0,
        };
        new.lay_out(random);
        new
    }

    fn lay_out(&mut self, random: &mut Random) {
        self.schema = random.below(3) as i32;
        self.zero_threshold = *random.pick(&[0.0, 0.001, 0.25]);
        self.bounds = (1..6).filter(|_| random.below(5) > 0).map(f64::from).collect();
        self.counts.clear();
        self.negative.clear();
        (self.zero_count, self.sum) = (0.0, 0.0);
    }
}

fn buckets(counts: &BTreeMap<i32, f64>) -> Buckets {
    let mut builder = BucketsBuilder::default();
    for (index, n) in counts {
        builder.push(*index, *n);
    }
    builder.finish()
}

impl Source for NativeHistogram {
    fn next(&mut self, random: &mut Random) -> Value {
        let mut hint = ResetHint::Unknown;
        if random.once_in(25) {
            if random.once_in(4) {
                self.custom = !self.custom;
            }
            self.lay_out(random);
            if random.once_in(2) {
                hint = ResetHint::Reset;
            }
        }
        if random.once_in(60) {
            self.floats = random.below(4);
        }
        if self.floats > 0 {
            self.floats -= 1;
            return Value::Float(random.below(100) as f64);
        }
        for _ in 0..random.below(4) {
            let more = random.below(5) as f64;
            let index = random.below(6) as i32;
            self.sum += more;
            if self.custom {
                let last = self.bounds.len() as i32;
                *self.counts.entry(index.min(last)).or_default() += more;
            } else if random.once_in(6) {
                *self.negative.entry(index).or_default() += more;
            } else if random.once_in(6) {
                self.zero_count += more;
            } else {
                *self.counts.entry(index).or_default() += more;
            }
        }
        if random.once_in(30)
            && let Some((_, lost)) = self.counts.pop_first()
        {
            // A reset that the count does not show.
            *self.counts.entry(0).or_default() += (lost / 2.0).floor();
            let next = if self.custom && self.bounds.is_empty() { 0 } else { 1 };
            *self.counts.entry(next).or_default() += lost;
        }
        if self.gauge {
            hint = ResetHint::Gauge;
        }
        let all = self.counts.values().chain(self.negative.values()).sum::<f64>();
        let h = FloatHistogram {
            reset_hint: hint,
            schema: if self.custom { CUSTOM_SCHEMA } else { self.schema },
            zero_threshold: if self.custom { 0.0 } else { self.zero_threshold },
            zero_count: if self.custom { 0.0 } else { self.zero_count },
            count: all + if self.custom { 0.0 } else { self.zero_count },
            sum: self.sum,
            positive: buckets(&self.counts),
            negative: if self.custom {
                Buckets::default()
            } else {
                buckets(&self.negative)
            },
            custom_bounds: self.custom.then(|| self.bounds.clone()),
        };
        assert_eq!(h.validate_integer(), Ok(()));
        Value::Histogram(Arc::new(h))
    }
}
