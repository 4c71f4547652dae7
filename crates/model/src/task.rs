//! The only places where tasks and threads start.
//!
//! Three kinds of work, kept apart so that none starves another: I/O futures on the async runtime
//! (`spawn`), the CPU part of queries and pushes (`compute`), and flush, merge and other work that may
//! wait (`background`). `compute` and `background` have threads of their own: one computation per core and half as
//! many background jobs run at once.

use std::future::Future;
use std::sync::{Arc, OnceLock, mpsc};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};
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
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(|| Pool::start("compute", cores())).run(f).await
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
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(|| Pool::start("background", cores().div_ceil(2)))
        .run(f)
        .await
}

type Job = Box<dyn FnOnce() + Send>;

/// A fixed set of threads. An allocator keeps what a thread freed for that thread: with as many threads as there is work
/// for, and always the same ones, that is little and is used again. The runtime's blocking threads come and go.
struct Pool {
    slots: Semaphore,
    jobs: Mutex<mpsc::Sender<Job>>,
}

impl Pool {
    fn start(name: &str, threads: usize) -> Pool {
        let (jobs, queue) = mpsc::channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for i in 0..threads {
            let queue = queue.clone();
            let work = move || {
                loop {
                    let next = queue.lock().recv();
                    match next {
                        Ok(job) => job(),
                        Err(_) => return,
                    }
                }
            };
            thread(&format!("{name}-{i}"), work).expect("the process may start its few threads");
        }
        Pool {
            slots: Semaphore::new(threads),
            jobs: Mutex::new(jobs),
        }
    }

    async fn run<R, F>(&'static self, f: F) -> Result<R>
    where
        R: Send + 'static,
        F: FnOnce() -> R + Send + 'static,
    {
        // Waiting costs nothing and ends with the caller; what has a slot finds an idle thread.
        let slot = self.slots.acquire().await;
        let slot = slot.map_err(|_| Error::internal("the compute pool is closed"))?;
        let (answer, done) = oneshot::channel();
        let runtime = tokio::runtime::Handle::current();
        let job: Job = Box::new(move || {
            let _runtime = runtime.enter();
            // What `f` owns is dropped by the unwinding, and nothing else can see a half-made state.
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
            // Held by the work, not by the waiter: a caller that goes away does not free the core.
            drop(slot);
            let _ = answer.send(result);
        });
        let sent = self.jobs.lock().send(job);
        sent.map_err(|_| Error::internal("the compute pool is gone"))?;
        match done.await {
            Ok(Ok(result)) => Ok(result),
            _ => Err(Error::internal("a computation panicked")),
        }
    }
}
