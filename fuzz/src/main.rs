//! `trilith-fuzz TARGET`: runs one target for as long as asked, or replays an input.
#![allow(clippy::print_stdout, reason = "a command line tool")]

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Parser;
use trilith_fuzz::{Plan, TARGETS, one_input, run, target};

#[derive(Parser)]
#[command(about = "Feeds hostile bytes to a decoder or parser")]
struct Arguments {
    /// One of the list; without it the list is printed.
    target: Option<String>,
    /// Every input depends on this and its iteration.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The first iteration.
    #[arg(long, default_value_t = 0)]
    start: u64,
    #[arg(long, default_value_t = 100_000)]
    iterations: u64,
    /// Stop after so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Give the target this file, once.
    #[arg(long)]
    input: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let Some(name) = arguments.target else {
        for target in TARGETS {
            println!("{}", target.name);
        }
        return Ok(());
    };
    let target = target(&name).with_context(|| format!("there is no target {name}; run without one for the list"))?;
    if let Some(path) = arguments.input {
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        return one_input(target, &bytes).map_err(|reason| anyhow!(reason));
    }
    let time = arguments.seconds.map(Duration::from_secs);
    let plan = Plan {
        seed: arguments.seed,
        start: arguments.start,
        iterations: arguments.iterations,
        time,
    };
    let done = run(target, plan)?;
    println!("{name}: {done} iterations from {} with seed {}", plan.start, plan.seed);
    Ok(())
}
