//! Delta temporality: points that count since the point before become running totals.
//!
//! One total per series, in memory, per tenant. The rules are those of the collector's `deltatocumulative` processor:
//!
//! - The first point of a series begins a total at its start time.
//! - A later point is added. One whose start lies before the total's start, or whose time is not past the last
//!   point's, is refused: it may have been counted already.
//! - Exactly the last point again is a retry: it is answered with the total as it stands.
//! - A histogram with other bounds than the total's begins a new total.
//! - A total that nothing was added to for `delta_idle` is forgotten; the next point begins a new one.
//!
//! The memory of a tenant's totals has a ceiling; points of further series are refused until some expire.
//!
//! Crash behaviour: totals are lost with the process. The first point after a restart begins a new total with its own
//! start time, which queries see as a counter reset: nothing is counted twice, and nothing stored is lost.
//! Decision: docs/adr/0105-otlp-delta-temporality.md.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use trilith_histogram::FloatHistogram;
use trilith_model::{Clock, ErrorKind, OtlpMetrics, TenantId};

use super::Refused;
use super::points::{Histogram, Number, Times};

/// Tenants without totals are forgotten when there are more than this.
const TENANTS_BEFORE_PRUNING: usize = 1024;

/// How often idle totals are looked for, at most.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// Map entry, allocator and key overhead of a total, by measure.
const ENTRY_BYTES: usize = 192;

/// Buckets of one side of a total; more make it coarser, as upstream's processor does.
const NATIVE_BUCKETS_MAX: usize = 160;

/// The running totals of all tenants.
pub struct DeltaTotals {
    clock: Arc<dyn Clock>,
    /// Held for a lookup; a tenant's own lock is taken after it is released.
    tenants: Mutex<HashMap<TenantId, Arc<TenantTotals>, RandomState>>,
}

/// The totals of one tenant.
#[derive(Default)]
pub(super) struct TenantTotals {
    /// Held while a request with delta points is translated.
    pub totals: Mutex<Totals>,
    /// Figures as of the last request, so that reading them waits for none.
    series: AtomicUsize,
    bytes: AtomicUsize,
}

impl TenantTotals {
    pub fn note_usage(&self) {
        let totals = self.totals.lock();
        self.series.store(totals.by_labels.len(), Ordering::Relaxed);
        self.bytes.store(totals.bytes, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for DeltaTotals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeltaTotals").finish_non_exhaustive()
    }
}

impl DeltaTotals {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        DeltaTotals {
            clock,
            tenants: Mutex::default(),
        }
    }

    pub(super) fn tenant(&self, tenant: &TenantId) -> Arc<TenantTotals> {
        let mut tenants = self.tenants.lock();
        if tenants.len() >= TENANTS_BEFORE_PRUNING && !tenants.contains_key(tenant) {
            // One that is held elsewhere is in use; the others are not locked.
            tenants.retain(|_, t| Arc::strong_count(t) > 1 || !t.totals.lock().by_labels.is_empty());
        }
        tenants.entry(tenant.clone()).or_default().clone()
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Series with a running total and the memory of all, over all tenants, as of their last request with delta points.
    pub fn usage(&self) -> (usize, usize) {
        let tenants = self.tenants.lock();
        tenants.values().fold((0, 0), |(series, bytes), t| {
            let (s, b) = (t.series.load(Ordering::Relaxed), t.bytes.load(Ordering::Relaxed));
            (series + s, bytes + b)
        })
    }
}

/// The running totals of one tenant, by packed labels.
#[derive(Default)]
pub(super) struct Totals {
    by_labels: HashMap<Box<[u8]>, Entry, RandomState>,
    bytes: usize,
    swept: Option<Duration>,
}

struct Entry {
    start_ns: u64,
    time_ns: u64,
    /// By the process's clock.
    touched: Duration,
    /// The last point added, so that a retry can be told from a second writer.
    last: Print,
    total: Total,
}

/// What is compared of two points that should be the same.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Print {
    start_ns: u64,
    /// Bits of the value, or the count of a histogram.
    value: u64,
}

enum Total {
    /// Integers are summed apart, so that they stay exact beyond 2⁵³.
    Number {
        int: i64,
        double: f64,
    },
    Classic(Box<Classic>),
    Native(Box<FloatHistogram>),
}

/// The total of a histogram with explicit bounds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Classic {
    pub counts: Vec<u64>,
    pub bounds: Vec<f64>,
    pub count: u64,
    /// `None` as soon as one point came without.
    pub sum: Option<f64>,
}

impl Total {
    fn heap_bytes(&self) -> usize {
        let native = |b: &trilith_histogram::Buckets| b.spans.len() * 8 + b.counts.len() * 8;
        match self {
            Total::Number { .. } => 0,
            Total::Classic(c) => size_of::<Classic>() + 8 * (c.counts.len() + c.bounds.len()),
            Total::Native(h) => size_of::<FloatHistogram>() + native(&h.positive) + native(&h.negative),
        }
    }
}

/// What to do with a point.
enum Step<'a> {
    /// Its series had none, or one of another kind.
    Begin,
    Add(&'a mut Entry),
    /// The last one again.
    Repeat(&'a mut Entry),
}

impl Totals {
    /// Adds a sum's point and gives the total with its start, ns.
    pub fn number(
        &mut self,
        settings: &OtlpMetrics,
        now: Duration,
        labels: &[u8],
        times: Times,
        value: Number,
    ) -> Result<(f64, u64), Refused> {
        let print = Print {
            start_ns: times.start_ns,
            value: match value {
                Number::Int(n) => n as u64,
                Number::Double(x) => x.to_bits(),
            },
        };
        let (int, double) = match value {
            Number::Int(n) => (n, 0.0),
            Number::Double(x) => (0, x),
        };
        match self.step(now, labels, times, print, |t| matches!(t, Total::Number { .. }))? {
            Step::Begin => {
                self.begin(settings, now, labels, times, print, Total::Number { int, double })?;
                Ok((value.as_f64(), times.start_ns))
            }
            Step::Add(entry) => {
                let Total::Number { int: i, double: d } = &mut entry.total else {
                    unreachable!("the kind was checked")
                };
                *i = i.saturating_add(int);
                *d += double;
                let total = *i as f64 + *d;
                entry.added(now, times, print);
                Ok((total, entry.start_ns))
            }
            Step::Repeat(entry) => match entry.total {
                Total::Number { int, double } => Ok((int as f64 + double, entry.start_ns)),
                _ => unreachable!("the kind was checked"),
            },
        }
    }

    /// Adds a point with explicit bounds and gives the total with its start, ns.
    pub fn classic(
        &mut self,
        settings: &OtlpMetrics,
        now: Duration,
        labels: &[u8],
        point: &Histogram,
        counts: &[u64],
        bounds: &[f64],
    ) -> Result<(&Classic, u64), Refused> {
        let print = Print {
            start_ns: point.times.start_ns,
            value: point.count,
        };
        let same_bounds = |t: &Total| matches!(t, Total::Classic(c) if c.bounds == bounds);
        match self.step(now, labels, point.times, print, same_bounds)? {
            Step::Begin => {
                let total = Total::Classic(Box::new(Classic {
                    counts: counts.to_vec(),
                    bounds: bounds.to_vec(),
                    count: point.count,
                    sum: point.sum,
                }));
                self.begin(settings, now, labels, point.times, print, total)?;
            }
            Step::Add(entry) => {
                let Total::Classic(total) = &mut entry.total else {
                    unreachable!("the kind was checked")
                };
                for (total, n) in total.counts.iter_mut().zip(counts) {
                    *total = total.saturating_add(*n);
                }
                total.count = total.count.saturating_add(point.count);
                total.sum = total.sum.zip(point.sum).map(|(a, b)| a + b);
                entry.added(now, point.times, print);
            }
            Step::Repeat(_) => {}
        }
        let entry = self.by_labels.get(labels).expect("it was added to or just made");
        match &entry.total {
            Total::Classic(total) => Ok((total, entry.start_ns)),
            _ => unreachable!("the kind was checked"),
        }
    }

    /// Adds a native histogram and gives the total with its start, ns.
    pub fn native(
        &mut self,
        settings: &OtlpMetrics,
        now: Duration,
        labels: &[u8],
        times: Times,
        histogram: FloatHistogram,
    ) -> Result<(FloatHistogram, u64), Refused> {
        let print = Print {
            start_ns: times.start_ns,
            value: histogram.count.to_bits(),
        };
        let native = |t: &Total| matches!(t, Total::Native(_));
        let (added, entry) = match self.step(now, labels, times, print, native)? {
            Step::Begin => {
                self.begin(
                    settings,
                    now,
                    labels,
                    times,
                    print,
                    Total::Native(Box::new(histogram.clone())),
                )?;
                return Ok((histogram, times.start_ns));
            }
            Step::Add(entry) => (true, entry),
            Step::Repeat(entry) => (false, entry),
        };
        let before = entry.total.heap_bytes();
        let Total::Native(total) = &mut entry.total else {
            unreachable!("the kind was checked")
        };
        if added {
            let refused = |e: &dyn std::fmt::Display| Refused::new("histogram_invalid", e.to_string());
            total.add(&histogram).map_err(|e| refused(&e))?;
            while total.positive.counts.len().max(total.negative.counts.len()) > NATIVE_BUCKETS_MAX
                && total.schema > trilith_histogram::SCHEMA_MIN
            {
                let coarser = total.schema - 1;
                total.reduce_resolution(coarser).map_err(|e| refused(&e))?;
            }
            total.compact();
        }
        let out = ((**total).clone(), entry.start_ns);
        if added {
            entry.added(now, times, print);
            let after = entry.total.heap_bytes();
            self.bytes = (self.bytes + after).saturating_sub(before);
        }
        Ok(out)
    }

    /// The series says that it has ended.
    pub fn forget(&mut self, labels: &[u8]) {
        if let Some(entry) = self.by_labels.remove(labels) {
            self.bytes = self.bytes.saturating_sub(entry.bytes(labels));
        }
    }

    fn step(
        &mut self,
        now: Duration,
        labels: &[u8],
        times: Times,
        print: Print,
        fits: impl Fn(&Total) -> bool,
    ) -> Result<Step<'_>, Refused> {
        let Some(entry) = self.by_labels.get_mut(labels) else {
            return Ok(Step::Begin);
        };
        if times.start_ns < entry.start_ns {
            return Err(Refused::new(
                "delta_older_start",
                format!(
                    "dropped sample with start_time={}, because series only starts at start_time={}. consider checking \
                     for multiple processes sending the exact same series",
                    times.start_ns, entry.start_ns
                ),
            ));
        }
        if times.time_ns == entry.time_ns && print == entry.last && fits(&entry.total) {
            entry.touched = now;
            return Ok(Step::Repeat(entry));
        }
        if times.time_ns <= entry.time_ns {
            return Err(Refused::new(
                "delta_out_of_order",
                format!(
                    "out of order: dropped sample from time={}, because series is already at time={}",
                    times.time_ns, entry.time_ns
                ),
            ));
        }
        if fits(&entry.total) {
            Ok(Step::Add(entry))
        } else {
            Ok(Step::Begin)
        }
    }

    fn begin(
        &mut self,
        settings: &OtlpMetrics,
        now: Duration,
        labels: &[u8],
        times: Times,
        last: Print,
        total: Total,
    ) -> Result<(), Refused> {
        let entry = Entry {
            start_ns: times.start_ns,
            time_ns: times.time_ns,
            touched: now,
            last,
            total,
        };
        self.forget(labels);
        let (bytes, max) = (entry.bytes(labels), settings.delta_bytes_max);
        if max > 0 && (self.bytes + bytes) as u64 > max {
            return Err(Refused {
                kind: ErrorKind::LimitExceeded,
                reason: "delta_totals",
                message: format!(
                    "the running totals of delta metrics take more than {max} bytes (otlp.delta-totals-size)"
                ),
            });
        }
        self.bytes += bytes;
        self.by_labels.insert(labels.into(), entry);
        Ok(())
    }

    /// Forgets totals that were not touched for the tenant's idle time; called once per request.
    pub fn sweep(&mut self, settings: &OtlpMetrics, now: Duration) {
        let idle = settings.delta_idle;
        if idle.is_zero()
            || self
                .swept
                .is_some_and(|at| now.saturating_sub(at) < SWEEP_EVERY.min(idle))
        {
            return;
        }
        self.swept = Some(now);
        let mut bytes = 0;
        self.by_labels.retain(|labels, entry| {
            let keep = now.saturating_sub(entry.touched) < idle;
            bytes += if keep { entry.bytes(labels) } else { 0 };
            keep
        });
        self.bytes = bytes;
        if self.by_labels.capacity() > 4 * self.by_labels.len() + 64 {
            self.by_labels.shrink_to_fit();
        }
    }
}

impl Entry {
    fn added(&mut self, now: Duration, times: Times, print: Print) {
        self.time_ns = times.time_ns;
        self.touched = now;
        self.last = print;
    }

    fn bytes(&self, labels: &[u8]) -> usize {
        ENTRY_BYTES + labels.len() + self.total.heap_bytes()
    }
}
