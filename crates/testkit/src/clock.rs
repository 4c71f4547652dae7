//! A clock that stands still until told otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use trilith_model::Clock;

/// Wall clock and monotonic clock under the test's control.
#[derive(Debug)]
pub struct SimClock {
    wall_ns: AtomicI64,
    monotonic_ns: AtomicU64,
}

impl SimClock {
    /// Starts at `now_ns` since the epoch and monotonic zero.
    pub fn new(now_ns: i64) -> Arc<Self> {
        Arc::new(SimClock {
            wall_ns: AtomicI64::new(now_ns),
            monotonic_ns: AtomicU64::new(0),
        })
    }

    /// Both clocks go forward.
    pub fn advance(&self, by: Duration) {
        let ns = by.as_nanos() as u64;
        self.wall_ns.fetch_add(ns as i64, Ordering::SeqCst);
        self.monotonic_ns.fetch_add(ns, Ordering::SeqCst);
    }

    /// The wall clock steps, forwards or backwards; the monotonic clock does not notice.
    pub fn set_wall(&self, now_ns: i64) {
        self.wall_ns.store(now_ns, Ordering::SeqCst);
    }
}

impl Clock for SimClock {
    fn now_ns(&self) -> i64 {
        self.wall_ns.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.monotonic_ns.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_steps_do_not_touch_the_monotonic_clock() {
        let c = SimClock::new(5_000_000_000);
        c.advance(Duration::from_secs(2));
        assert_eq!((c.now_ms(), c.monotonic()), (7_000, Duration::from_secs(2)));
        c.set_wall(-1);
        assert_eq!((c.now_ms(), c.monotonic()), (-1, Duration::from_secs(2)));
    }
}
