//! The only places where tasks and threads start.
//!
//! Three kinds of work, kept apart so that none starves another: I/O futures on the async runtime
//! (`spawn`), the CPU part of queries and pushes (`compute`), and flush, merge and other work that may
//! wait (`background`). `compute` and `background` run on the runtime's blocking threads behind
//! semaphores, so at most one computation per core and half as many background jobs run at once.

use std::future::Future;
use std::sync::OnceLock;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::error::{Error, Result};

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Spawns a future on the current runtime. `name` appears in diagnostics only.
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tracing::trace!(task = name, "spawn");
    tokio::spawn(future)
}

/// Starts a named operating-system thread, for loops that block on a disk or a condition variable.
///
/// # Errors
/// The operating system refuses another thread.
pub fn thread<F>(name: &str, f: F) -> std::io::Result<std::thread::JoinHandle<()>>
where
    F: FnOnce() + Send + 'static,
{
    std::thread::Builder::new().name(name.to_owned()).spawn(f)
}

/// Runs CPU-heavy work of a query or a push off the I/O threads. Not cancelled when the caller goes away:
/// long loops poll `QueryContext::check` themselves.
///
/// # Errors
/// `Internal` when the work panicked.
pub async fn compute<R, F>(f: F) -> Result<R>
where
    R: Send + 'static,
    F: FnOnce() -> R + Send + 'static,
{
    static SLOTS: OnceLock<Semaphore> = OnceLock::new();
    run(SLOTS.get_or_init(|| Semaphore::new(cores())), f).await
}

/// Items (samples, cells) up to which work is done where it is: some 100 µs, about what handing it over costs.
const INLINE_ITEMS_MAX: usize = 8192;

/// As `compute`, but done at once when it is small. `items`: how many samples or cells it looks at, roughly.
///
/// # Errors
/// `Internal` when the work panicked.
pub async fn compute_sized<R, F>(items: usize, f: F) -> Result<R>
where
    R: Send + 'static,
    F: FnOnce() -> R + Send + 'static,
{
    if items > INLINE_ITEMS_MAX {
        return compute(f).await;
    }
    // What `f` owns is dropped by the unwinding, and nothing else can see a half-made state.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).map_err(|_| Error::internal("a computation panicked"))
}

/// As `compute`, for flush, compaction and verification: at most half the cores.
///
/// # Errors
/// `Internal` when the work panicked.
pub async fn background<R, F>(f: F) -> Result<R>
where
    R: Send + 'static,
    F: FnOnce() -> R + Send + 'static,
{
    static SLOTS: OnceLock<Semaphore> = OnceLock::new();
    run(SLOTS.get_or_init(|| Semaphore::new(cores().div_ceil(2))), f).await
}

async fn run<R, F>(slots: &'static Semaphore, f: F) -> Result<R>
where
    R: Send + 'static,
    F: FnOnce() -> R + Send + 'static,
{
    let permit = slots
        .acquire()
        .await
        .map_err(|_| Error::internal("the compute pool is closed"))?;
    let job = tokio::task::spawn_blocking(move || {
        // Held by the work, not by the waiter: a caller that goes away does not free the core.
        let _permit = permit;
        f()
    });
    job.await
        .map_err(|e| Error::internal(format!("a computation failed: {e}")))
}
