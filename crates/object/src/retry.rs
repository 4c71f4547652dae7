//! One loop around every request: permit, time limit, classification, jittered pause, counters.
//!
//! The backends are built with their own retries off, so that a storm multiplies nowhere. A permit is held during a
//! try and given back during the pause. The clock of an operation starts with its first permit: waiting in our own
//! queue is not the backend's fault.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use trilith_model::rng::Rng;
use trilith_model::{Clock, Result};

use crate::error::Failure;
use crate::options::StoreOptions;
use crate::stats::{Operation, Stats};

pub(crate) struct Retry {
    pub stats: Stats,
    clock: Arc<dyn Clock>,
    rng: Arc<Rng>,
    reads: Semaphore,
    writes: Semaphore,
    attempts_max: u32,
    backoff_min: Duration,
    backoff_max: Duration,
    total_timeout: Duration,
    request_timeout: Duration,
    timeout_per_mib: Duration,
}

/// What an operation is and how long it may take.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    pub operation: Operation,
    pub path: &'a str,
    /// Body in either direction; lengthens the time limits.
    pub bytes: u64,
    /// One try has no time limit of its own, because it consists of steps that have one each.
    pub stepwise: bool,
}

impl<'a> Job<'a> {
    pub fn new(operation: Operation, path: &'a str, bytes: u64) -> Self {
        Job {
            operation,
            path,
            bytes,
            stepwise: false,
        }
    }

    pub fn stepwise(operation: Operation, path: &'a str) -> Self {
        Job {
            operation,
            path,
            bytes: 0,
            stepwise: true,
        }
    }
}

impl Retry {
    pub fn new(options: &StoreOptions, clock: Arc<dyn Clock>, rng: Arc<Rng>) -> Self {
        Retry {
            stats: Stats::default(),
            clock,
            rng,
            reads: Semaphore::new(options.reads_max),
            writes: Semaphore::new(options.writes_max),
            attempts_max: options.attempts_max,
            backoff_min: options.backoff_min,
            backoff_max: options.backoff_max,
            total_timeout: options.total_timeout,
            request_timeout: options.request_timeout,
            timeout_per_mib: options.timeout_per_mib,
        }
    }

    /// Monotonic.
    pub fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Unique where one store is concerned; names probes and tests.
    pub fn nonce(&self) -> u128 {
        self.rng.next_u128()
    }

    /// Time for one try with a body of `bytes`.
    pub fn request_timeout(&self, bytes: u64) -> Duration {
        self.request_timeout.saturating_add(self.body_time(bytes))
    }

    fn body_time(&self, bytes: u64) -> Duration {
        let mib = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
        self.timeout_per_mib.saturating_mul(mib)
    }

    pub fn writes(&self) -> &Semaphore {
        &self.writes
    }

    /// Repeats `attempt` until it succeeds, fails for good, or attempts or time are used up. `attempt` learns whether
    /// an earlier try may have been applied without our knowing it.
    pub async fn run<T, F, Fut>(&self, job: Job<'_>, mut attempt: F) -> Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, Failure>>,
    {
        let semaphore = match job.operation {
            Operation::Get | Operation::Read | Operation::Head | Operation::List => Some(&self.reads),
            Operation::Create | Operation::Part | Operation::Delete => Some(&self.writes),
            // Takes a permit per request itself, because one upload is many requests.
            Operation::Upload => None,
        };
        let result = self.attempts(job, semaphore, &mut attempt).await;
        result.map_err(|failure| {
            let expected = failure.kind == trilith_model::ErrorKind::NotFound;
            if !expected {
                self.stats.failed(job.operation);
            }
            failure.into_error(job.operation.as_str(), job.path)
        })
    }

    async fn attempts<T, Fut>(
        &self,
        job: Job<'_>,
        semaphore: Option<&Semaphore>,
        attempt: &mut impl FnMut() -> Fut,
    ) -> Result<T, Failure>
    where
        Fut: Future<Output = Result<T, Failure>>,
    {
        let per_try = self.request_timeout(job.bytes);
        // A large body deserves a second chance to be sent whole.
        let total = self
            .total_timeout
            .saturating_add(self.body_time(job.bytes).saturating_mul(2));
        let mut started = None;
        let mut tries = 0;
        loop {
            let permit = match semaphore {
                Some(s) => Some(s.acquire().await.map_err(|_| closed())?),
                None => None,
            };
            let before = self.clock.monotonic();
            let start = *started.get_or_insert(before);
            let left = total.saturating_sub(before.saturating_sub(start));
            let limit = if job.stepwise { Duration::MAX } else { per_try.min(left) };
            let result = tokio::time::timeout(limit, attempt()).await;
            drop(permit);
            tries += 1;
            let now = self.clock.monotonic();
            self.stats.tried(job.operation, tries == 1, now.saturating_sub(before));
            let failure = match result {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(failure)) => failure,
                Err(_) => Failure::retry(format!("no answer within {limit:?}")),
            };
            if !failure.retry {
                return Err(failure);
            }
            let pause = self.pause(tries);
            let spent = now.saturating_sub(start);
            if tries >= self.attempts_max || spent.saturating_add(pause) >= total {
                let detail = format!("gave up after {tries} tries in {spent:.1?}: {}", failure.detail);
                return Err(Failure { detail, ..failure });
            }
            tracing::debug!(
                operation = job.operation.as_str(),
                path = job.path,
                tries,
                error = failure.detail,
                "retrying a request to the object store"
            );
            tokio::time::sleep(pause).await;
        }
    }

    /// Doubling from `backoff_min` to `backoff_max`, of which a random part between one half and all is waited.
    pub fn pause(&self, tries: u32) -> Duration {
        let doubled = self.backoff_min.saturating_mul(1u32 << (tries - 1).min(20));
        doubled.min(self.backoff_max).mul_f64(0.5 + 0.5 * self.rng.next_f64())
    }
}

fn closed() -> Failure {
    Failure::permanent(trilith_model::ErrorKind::Internal, "the store is closed")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use trilith_model::{ErrorKind, SystemClock};

    use super::*;

    fn retry(options: StoreOptions) -> Retry {
        Retry::new(&options, Arc::new(SystemClock), Arc::new(Rng::seeded(1)))
    }

    fn job() -> Job<'static> {
        Job::new(Operation::Get, "x", 0)
    }

    #[tokio::test]
    async fn attempts_are_capped_and_the_last_reason_is_told() {
        let r = retry(StoreOptions {
            attempts_max: 3,
            ..Default::default()
        });
        let n = AtomicU32::new(0);
        let e = r
            .run(job(), || async {
                n.fetch_add(1, Ordering::Relaxed);
                Err::<(), _>(Failure::retry("503 SlowDown"))
            })
            .await
            .unwrap_err();
        assert_eq!(n.load(Ordering::Relaxed), 3);
        assert_eq!(e.kind, ErrorKind::Unavailable);
        assert!(e.message.contains("3 tries") && e.message.contains("SlowDown"), "{e}");
        let s = r.stats.snapshot().operation(Operation::Get);
        assert_eq!((s.requests, s.retries, s.errors), (3, 2, 1));
    }

    #[tokio::test]
    async fn total_time_is_capped() {
        let r = retry(StoreOptions {
            attempts_max: u32::MAX,
            backoff_min: Duration::from_millis(1),
            backoff_max: Duration::from_millis(10),
            total_timeout: Duration::from_millis(200),
            request_timeout: Duration::from_millis(30),
            ..Default::default()
        });
        let began = SystemClock.monotonic();
        let e = r
            .run(job(), std::future::pending::<Result<(), Failure>>)
            .await
            .unwrap_err();
        let took = SystemClock.monotonic() - began;
        assert!(
            took >= Duration::from_millis(150) && took < Duration::from_secs(5),
            "{took:?}"
        );
        assert!(e.message.contains("no answer within"), "{e}");
    }

    #[tokio::test]
    async fn what_is_final_is_not_repeated() {
        let r = retry(StoreOptions::default());
        let n = AtomicU32::new(0);
        let e = r
            .run(job(), || async {
                n.fetch_add(1, Ordering::Relaxed);
                Err::<(), _>(Failure::permanent(ErrorKind::Corrupt, "short"))
            })
            .await
            .unwrap_err();
        assert_eq!((n.load(Ordering::Relaxed), e.kind), (1, ErrorKind::Corrupt));
    }

    #[tokio::test]
    async fn pauses_grow_with_jitter_to_the_maximum() {
        let r = retry(StoreOptions::default());
        for tries in 1..200 {
            let full = Duration::from_millis(50 << (tries - 1).min(20)).min(Duration::from_secs(5));
            let pause = r.pause(tries);
            assert!(pause >= full / 2 && pause <= full, "{tries}: {pause:?}");
        }
    }
}
