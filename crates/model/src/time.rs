//! Times and the injected clock.
//!
//! Inside a vector times are bare `i64` (the field's name carries the unit: `_ms`, `_ns`); the newtypes
//! stand where a metrics time and a log or trace time could be mistaken for each other.

use std::time::{Duration, Instant, SystemTime};

/// Milliseconds since the Unix epoch; the metrics clock. Negative before 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct TimestampMs(pub i64);

/// Nanoseconds since the Unix epoch; the logs and traces clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct TimestampNs(pub i64);

impl TimestampMs {
    /// Saturates at both ends.
    pub fn to_ns(self) -> TimestampNs {
        TimestampNs(self.0.saturating_mul(1_000_000))
    }
}

impl TimestampNs {
    /// Rounds towards minus infinity.
    pub fn to_ms(self) -> TimestampMs {
        TimestampMs(self.0.div_euclid(1_000_000))
    }
}

/// A closed interval `[min, max]`, in the unit of its owner (ms for metrics, ns for logs and traces).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeRange {
    pub min: i64,
    pub max: i64,
}

impl TimeRange {
    pub const ALL: TimeRange = TimeRange {
        min: i64::MIN,
        max: i64::MAX,
    };
    /// The neutral element of `extend`; overlaps nothing.
    pub const EMPTY: TimeRange = TimeRange {
        min: i64::MAX,
        max: i64::MIN,
    };

    pub fn new(min: i64, max: i64) -> Self {
        TimeRange { min, max }
    }

    pub fn is_empty(self) -> bool {
        self.min > self.max
    }

    pub fn overlaps(self, other: TimeRange) -> bool {
        self.min <= other.max && other.min <= self.max
    }

    pub fn contains(self, t: i64) -> bool {
        self.min <= t && t <= self.max
    }

    pub fn extend(&mut self, t: i64) {
        self.min = self.min.min(t);
        self.max = self.max.max(t);
    }

    pub fn union(self, other: TimeRange) -> TimeRange {
        TimeRange {
            min: self.min.min(other.min),
            max: self.max.max(other.max),
        }
    }
}

/// The only source of time for everything below the binary, so that tests can run a day in a second and
/// step the wall clock backwards.
pub trait Clock: Send + Sync + 'static {
    /// Wall clock, ns since the epoch. May step in both directions.
    fn now_ns(&self) -> i64;

    /// Monotonic; for ages, deadlines and rates.
    fn monotonic(&self) -> Duration;

    fn now_ms(&self) -> i64 {
        self.now_ns().div_euclid(1_000_000)
    }
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ns(&self) -> i64 {
        // Before 1970 or after 2262 the clock is broken; 0 keeps the process alive and visible.
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .ok()
            .and_then(|d| i64::try_from(d.as_nanos()).ok())
            .unwrap_or(0)
    }

    fn monotonic(&self) -> Duration {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }
}
