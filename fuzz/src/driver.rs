//! Feeds a target, and turns a panic, a hang or a huge allocation into a failure that can be replayed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::Target;
use crate::memory::peak_of;
use crate::mutate::{Random, input};
#[cfg(test)]
use crate::target;

/// Inputs have at most 64 KiB; no decoder needs this much for one.
const PEAK_BYTES_MAX: usize = 512 << 20;

/// One input in a debug build on a busy machine.
const INPUT_TIME_MAX: Duration = Duration::from_secs(20);

/// Which iterations to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    pub start: u64,
    pub iterations: u64,
    /// Ends a run early.
    pub time: Option<Duration>,
}

#[derive(Debug)]
pub struct Failure {
    pub target: &'static str,
    pub seed: u64,
    pub iteration: u64,
    pub reason: String,
    /// Where the input was saved, if it could be.
    pub saved: Option<PathBuf>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "target {} failed: {}", self.target, self.reason)?;
        write!(
            f,
            "replay with: {}",
            replay_command(self.target, self.seed, self.iteration)
        )?;
        if let Some(path) = &self.saved {
            write!(f, "\nthe input is in {}", path.display())?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

fn replay_command(target: &str, seed: u64, iteration: u64) -> String {
    format!("cargo run -p trilith-fuzz -- {target} --seed {seed} --start {iteration} --iterations 1")
}

/// Runs the plan; first every seed and corpus file unchanged when it starts at 0. Returns the iterations done.
///
/// # Errors
/// The first failure.
pub fn run(target: Target, plan: Plan) -> Result<u64, Failure> {
    let mut seeds = (target.seeds)();
    seeds.extend(corpus(target.name));
    let began = Instant::now();
    let watch = Watch::start(target.name, plan.seed);
    if plan.start == 0 {
        for (i, seed) in seeds.iter().enumerate() {
            one_input(target, seed)
                .map_err(|reason| failure(target, plan.seed, 0, format!("on seed input {i}: {reason}"), seed))?;
        }
    }
    for done in 0..plan.iterations {
        let iteration = plan.start.saturating_add(done);
        watch.iteration.store(iteration, Ordering::Relaxed);
        let bytes = input(&seeds, &mut Random::new(plan.seed, iteration));
        one_input(target, &bytes).map_err(|reason| failure(target, plan.seed, iteration, reason, &bytes))?;
        if plan.time.is_some_and(|time| began.elapsed() > time) {
            return Ok(done + 1);
        }
    }
    Ok(plan.iterations)
}

/// Gives one input to a target.
///
/// # Errors
/// What went wrong, in words.
pub fn one_input(target: Target, bytes: &[u8]) -> Result<(), String> {
    let (result, peak) = peak_of(|| catch_unwind(AssertUnwindSafe(|| (target.run)(bytes))));
    if let Err(panic) = result {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("a panic without text");
        return Err(format!("panic: {text}"));
    }
    if peak > PEAK_BYTES_MAX {
        return Err(format!("{peak} bytes allocated for an input of {}", bytes.len()));
    }
    Ok(())
}

fn failure(target: Target, seed: u64, iteration: u64, reason: String, bytes: &[u8]) -> Failure {
    let path = std::env::temp_dir().join(format!("trilith-fuzz-{}-{seed}-{iteration}", target.name));
    let saved = std::fs::write(&path, bytes).is_ok().then_some(path);
    Failure {
        target: target.name,
        seed,
        iteration,
        reason,
        saved,
    }
}

/// Inputs worth keeping, in the order of their names.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    paths.sort();
    paths.iter().filter_map(|path| std::fs::read(path).ok()).collect()
}

/// A thread that ends the process when one input takes too long: a loop cannot be stopped otherwise.
struct Watch {
    iteration: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Watch {
    fn start(target: &'static str, seed: u64) -> Watch {
        let watch = Watch {
            iteration: Arc::default(),
            stop: Arc::default(),
        };
        let (iteration, stop) = (watch.iteration.clone(), watch.stop.clone());
        std::thread::spawn(move || {
            let mut seen = (iteration.load(Ordering::Relaxed), Instant::now());
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(200));
                let now = iteration.load(Ordering::Relaxed);
                if now != seen.0 {
                    seen = (now, Instant::now());
                } else if seen.1.elapsed() > INPUT_TIME_MAX {
                    hang(target, seed, now);
                }
            }
        });
        watch
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[allow(clippy::print_stderr, reason = "the process is about to be aborted")]
fn hang(target: &str, seed: u64, iteration: u64) {
    eprintln!("target {target}: one input takes longer than {INPUT_TIME_MAX:?}");
    eprintln!("replay with: {}", replay_command(target, seed, iteration));
    std::process::abort();
}

/// What `cargo test` runs: about a second, from a seed that `TRILITH_SEED` replaces.
#[cfg(test)]
pub fn briefly(name: &str) {
    let target = target(name).expect("the macro registers it");
    let seed = std::env::var("TRILITH_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(1);
    let plan = Plan {
        seed,
        start: 0,
        iterations: 20_000,
        time: Some(Duration::from_millis(1200)),
    };
    if let Err(failure) = run(target, plan) {
        panic!("{failure}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            seed: 3,
            start: 0,
            iterations: 5000,
            time: None,
        }
    }

    #[test]
    fn a_panic_is_found_and_replayed_by_its_numbers() {
        let target = Target {
            name: "panics",
            run: |bytes| assert!(bytes.first() != Some(&b'!') || bytes.len() < 4, "found"),
            seeds: || vec![b"?abc".to_vec()],
        };
        let failure = run(target, plan()).expect_err("a flipped bit or two lead there");
        assert!(failure.reason.contains("found"), "{failure}");
        let again = run(
            target,
            Plan {
                start: failure.iteration,
                iterations: 1,
                ..plan()
            },
        )
        .expect_err("replays");
        assert_eq!(again.iteration, failure.iteration);
        let path = failure.saved.expect("saved");
        let saved = std::fs::read(&path).expect("reads");
        std::fs::remove_file(&path).expect("removes");
        assert!(one_input(target, &saved).is_err());
    }

    #[test]
    fn a_huge_allocation_is_a_failure() {
        let target = Target {
            name: "allocates",
            run: |bytes| {
                if bytes.len() == 7 {
                    // Reserved, never touched.
                    std::hint::black_box(Vec::<u8>::with_capacity(PEAK_BYTES_MAX + 1));
                }
            },
            seeds: || vec![vec![0; 6]],
        };
        assert!(
            run(target, plan())
                .expect_err("found")
                .reason
                .contains("bytes allocated")
        );
    }

    #[test]
    fn a_good_target_passes() {
        let target = Target {
            name: "good",
            run: |_| {},
            seeds: Vec::new,
        };
        assert_eq!(run(target, plan()).expect("passes"), 5000);
    }
}
