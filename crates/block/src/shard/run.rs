//! The loops of a running shard: one that cuts, one that merges, expires and collects garbage.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trilith_model::rng::Rng;
use trilith_model::{ErrorKind, Result, task};

use super::Shard;
use crate::engine::{Engine, Head as _};

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Doubling waits with jitter.
#[derive(Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub(crate) fn next(&mut self, rng: &Rng) -> Duration {
        let doubled = BACKOFF_FIRST.saturating_mul(1 << self.failures.min(16));
        self.failures += 1;
        // Between half and all of it, so that shards that failed together do not come back together.
        doubled.min(BACKOFF_MAX).mul_f64(0.5 + rng.next_f64() / 2.0)
    }

    fn reset(&mut self) {
        self.failures = 0;
    }
}

/// When the next cut is due.
enum Due {
    Now,
    In(Duration),
    /// Nothing to cut: wait for the first record.
    Idle,
}

impl<E: Engine> Shard<E> {
    /// Starts [`Shard::run`] as a task.
    pub fn spawn(&self, cancel: CancellationToken) -> JoinHandle<()> {
        let shard = self.clone();
        task::spawn("shard", async move { shard.run(cancel).await })
    }

    /// Cuts by size and by age, and keeps trying while the store is down; merges, expires and collects garbage. Ends
    /// when cancelled, wherever it is: whatever is under way is safe to drop. Does not flush at the end; what is in the
    /// head is in the WAL. Ends as well when the shard is fenced.
    pub async fn run(&self, cancel: CancellationToken) {
        let work = async {
            tokio::join!(self.cut_loop(), self.maintenance_loop());
        };
        // `None` when cancelled first.
        cancel.run_until_cancelled(work).await;
    }

    async fn cut_loop(&self) {
        let inner = &*self.inner;
        let mut backoff = Backoff::default();
        while !inner.is_fenced() {
            match self.due() {
                Due::Now => {}
                Due::In(wait) => {
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = inner.wake.notified() => {}
                    }
                    continue;
                }
                Due::Idle => {
                    inner.wake.notified().await;
                    continue;
                }
            }
            match self.flush().await {
                Ok(()) => backoff.reset(),
                Err(e) => {
                    let wait = backoff.next(&inner.rng);
                    tracing::warn!(
                        signal = %inner.signal, error = %e, ?wait,
                        "recent data could not be written to a block; it stays in memory and in the log, trying again"
                    );
                    tokio::time::sleep(wait).await;
                }
            }
        }
        tracing::error!(signal = %inner.signal, "another process took over this writer; no more blocks are written");
    }

    fn due(&self) -> Due {
        let options = &self.inner.options;
        let live = self.inner.live.lock();
        if live.frozen.is_some() {
            return Due::Now;
        }
        let Some(first_at) = live.first_at else {
            return Due::Idle;
        };
        if live.active.head.bytes() > options.head_bytes_max {
            return Due::Now;
        }
        let age = self.inner.clock.monotonic().saturating_sub(first_at);
        match options.head_age_max.checked_sub(age) {
            Some(left) if !left.is_zero() => Due::In(left),
            _ => Due::Now,
        }
    }

    async fn maintenance_loop(&self) {
        let inner = &*self.inner;
        let mut backoff = Backoff::default();
        let mut last_orphans: Option<Duration> = None;
        while !inner.is_fenced() {
            let orphans_due = last_orphans
                .is_none_or(|at| inner.clock.monotonic().saturating_sub(at) >= inner.options.orphan_interval);
            let wait = match self.maintain(orphans_due).await {
                Ok(()) => {
                    if orphans_due {
                        last_orphans = Some(inner.clock.monotonic());
                    }
                    backoff.reset();
                    inner.options.maintenance_interval
                }
                Err(e) => {
                    let wait = backoff.next(&inner.rng);
                    if e.kind != ErrorKind::Fenced {
                        tracing::warn!(signal = %inner.signal, error = %e, ?wait, "maintenance failed, trying again");
                    }
                    tokio::time::sleep(wait).await;
                    continue;
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = inner.cut_done.notified() => {}
            }
        }
    }

    async fn maintain(&self, orphans: bool) -> Result<()> {
        self.expire().await?;
        self.compact(false).await?;
        self.collect_garbage().await?;
        if orphans {
            self.collect_orphans().await?;
        }
        Ok(())
    }
}
