//! The push rate of a tenant: one token bucket per tenant and signal, in bytes after decompression.
//!
//! A push takes its bytes at once or is refused as a whole, so a refusal leaves nothing behind. Time comes from
//! the injected clock. Buckets live in memory only: after a restart every tenant starts with a full burst.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use trilith_model::{Clock, Error, Limits, Result, Signal, TenantId};

/// Full buckets are forgotten when more tenants than this have pushed; a full bucket and none are the same.
const BUCKETS_BEFORE_PRUNING: usize = 4096;

/// Shortest and longest hint for a retry: senders that back off by themselves should not be woken too early,
/// nor give up on a bucket that refills slowly.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

pub struct RateLimiter {
    clock: Arc<dyn Clock>,
    /// Held for a few arithmetic operations; no other lock is taken under it.
    buckets: Mutex<Buckets>,
}

struct Buckets {
    map: HashMap<(TenantId, Signal), Bucket, foldhash::fast::RandomState>,
    prune_at: usize,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Bytes that may pass now, at `at`.
    tokens: f64,
    at: Duration,
}

impl Bucket {
    fn refill(&mut self, now: Duration, rate: f64, burst: f64) {
        let gained = now.saturating_sub(self.at).as_secs_f64() * rate;
        // `min` also applies a burst that was lowered by a reload.
        self.tokens = (self.tokens + gained).min(burst);
        self.at = self.at.max(now);
    }
}

impl std::fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RateLimiter").finish_non_exhaustive()
    }
}

impl RateLimiter {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        RateLimiter {
            clock,
            buckets: Mutex::new(Buckets {
                map: HashMap::default(),
                prune_at: BUCKETS_BEFORE_PRUNING,
            }),
        }
    }

    /// Takes `bytes` of a push with `items` samples, lines or spans, or refuses all of it.
    ///
    /// # Errors
    /// `LimitExceeded` with a retry hint and upstream's text when the bucket holds less. A push above the whole burst
    /// can never pass and says so.
    pub fn check(&self, tenant: &TenantId, signal: Signal, limits: &Limits, bytes: u64, items: u64) -> Result<()> {
        let rate = limits.ingest_bytes_per_second;
        if rate == 0 {
            return Ok(());
        }
        let burst = limits.ingest_burst_bytes.max(rate);
        let now = self.clock.monotonic();
        let mut buckets = self.buckets.lock();
        buckets.prune(now, rate as f64, burst as f64);
        let full = Bucket {
            tokens: burst as f64,
            at: now,
        };
        let bucket = buckets.map.entry((tenant.clone(), signal)).or_insert(full);
        bucket.refill(now, rate as f64, burst as f64);
        let missing = bytes as f64 - bucket.tokens;
        if missing <= 0.0 {
            bucket.tokens -= bytes as f64;
            return Ok(());
        }
        drop(buckets);
        let wait = if bytes > burst {
            RETRY_AFTER_MAX
        } else {
            Duration::from_secs_f64(missing / rate as f64).clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX)
        };
        Err(Error::limit(message(tenant, signal, rate, burst, bytes, items), wait))
    }
}

impl Buckets {
    fn prune(&mut self, now: Duration, rate: f64, burst: f64) {
        if self.map.len() < self.prune_at {
            return;
        }
        // Judged by the limits of the tenant at hand: a tenant with a larger burst gets, at worst, its burst early.
        self.map.retain(|_, b| {
            b.refill(now, rate, burst);
            b.tokens < burst
        });
        self.prune_at = (self.map.len() * 2).max(BUCKETS_BEFORE_PRUNING);
    }
}

fn message(tenant: &TenantId, signal: Signal, rate: u64, burst: u64, bytes: u64, items: u64) -> String {
    const SETTINGS: &str = "(limits.ingest-rate, limits.ingest-burst)";
    match signal {
        Signal::Metrics => format!(
            "the request has been rejected because the tenant exceeded the ingestion rate limit, set to {rate} bytes/s \
             with a maximum allowed burst of {burst}, while adding {items} samples totaling {bytes} bytes for user \
             {tenant} {SETTINGS}"
        ),
        Signal::Logs => format!(
            "ingestion rate limit exceeded for user {tenant} (limit: {rate} bytes/sec) while attempting to ingest \
             '{items}' lines totaling '{bytes}' bytes, reduce log volume or contact your Loki administrator to see if \
             the limit can be increased {SETTINGS}"
        ),
        Signal::Traces if bytes > burst => format!(
            "RATE_LIMITED: batch size ({bytes} bytes) exceeds ingestion limit (local: {rate} bytes/s, global: 0 \
             bytes/s, burst: {burst} bytes) while adding {bytes} bytes for user {tenant} {SETTINGS}"
        ),
        Signal::Traces => format!(
            "RATE_LIMITED: ingestion rate limit (local: {rate} bytes, global: 0 bytes, burst: {burst} bytes) exceeded \
             while adding {bytes} bytes for user {tenant} {SETTINGS}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use trilith_model::ErrorKind;

    use super::*;

    #[derive(Default)]
    struct ManualClock(AtomicU64);

    impl Clock for ManualClock {
        fn now_ns(&self) -> i64 {
            0
        }
        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::Relaxed))
        }
    }

    fn setup(rate: u64, burst: u64) -> (Arc<ManualClock>, RateLimiter, Limits) {
        let clock = Arc::new(ManualClock::default());
        let limits = Limits {
            ingest_bytes_per_second: rate,
            ingest_burst_bytes: burst,
            ..Limits::default()
        };
        (clock.clone(), RateLimiter::new(clock), limits)
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let (clock, limiter, limits) = setup(100, 1000);
        let tenant = TenantId::anonymous();
        let push = |bytes| limiter.check(&tenant, Signal::Logs, &limits, bytes, 2);
        push(600).unwrap();
        push(400).unwrap();
        let e = push(250).unwrap_err();
        assert_eq!(e.kind, ErrorKind::LimitExceeded);
        assert_eq!(e.retry_after, Some(Duration::from_millis(2500)));
        assert!(
            e.message.starts_with(
                "ingestion rate limit exceeded for user anonymous (limit: 100 bytes/sec) while attempting to ingest \
                 '2' lines totaling '250' bytes, reduce log volume"
            ),
            "{}",
            e.message
        );
        // The refused push took nothing.
        clock.0.store(2499, Ordering::Relaxed);
        push(250).unwrap_err();
        clock.0.store(2500, Ordering::Relaxed);
        push(250).unwrap();
        push(1).unwrap_err();
        clock.0.store(1_000_000, Ordering::Relaxed);
        push(1000).unwrap();
        push(1).unwrap_err();
    }

    #[test]
    fn tenants_and_signals_have_their_own_buckets() {
        let (_, limiter, limits) = setup(10, 10);
        let (a, b) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
        for (tenant, signal) in [
            (&a, Signal::Logs),
            (&b, Signal::Logs),
            (&a, Signal::Metrics),
            (&a, Signal::Traces),
        ] {
            limiter.check(tenant, signal, &limits, 10, 1).unwrap();
            limiter.check(tenant, signal, &limits, 1, 1).unwrap_err();
        }
    }

    #[test]
    fn more_than_the_burst_never_passes_and_zero_is_no_limit() {
        let (_, limiter, limits) = setup(10, 100);
        let e = limiter
            .check(&TenantId::anonymous(), Signal::Traces, &limits, 101, 1)
            .unwrap_err();
        assert!(
            e.message
                .starts_with("RATE_LIMITED: batch size (101 bytes) exceeds ingestion limit"),
            "{}",
            e.message
        );
        let (_, limiter, limits) = setup(0, 0);
        limiter
            .check(&TenantId::anonymous(), Signal::Traces, &limits, u64::MAX, 1)
            .unwrap();
        let (_, limiter, limits) = setup(u64::MAX, u64::MAX);
        limiter
            .check(&TenantId::anonymous(), Signal::Traces, &limits, u64::MAX, 1)
            .unwrap();
    }

    #[test]
    fn many_tenants_do_not_pile_up() {
        let (clock, limiter, limits) = setup(1000, 1000);
        for i in 0..20_000u64 {
            clock.0.store(i, Ordering::Relaxed);
            let tenant = TenantId::new(&format!("t{i}")).unwrap();
            limiter.check(&tenant, Signal::Metrics, &limits, 1, 1).unwrap();
        }
        assert!(limiter.buckets.lock().map.len() <= BUCKETS_BEFORE_PRUNING);
    }
}
