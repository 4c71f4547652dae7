//! Tasks around the code. `cargo xtask ci` is the gate beside `cargo test`; `cargo xtask tidy` is its fast part.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

mod tidy;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tasks of the Trilith workspace")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Formatting, clippy and documentation without warnings, and tidy
    Ci,
    /// Crate ranks, injected clock and randomness, stray and oversized files, decision numbers
    Tidy,
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        // Without a backtrace: what failed is in the tree, not in here.
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the workspace is above xtask")?;
    match task {
        Task::Ci => ci(root),
        Task::Tidy => tidy::run(root),
    }
}

/// Runs every step, also after one failed, so that one run tells everything.
fn ci(root: &Path) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    let steps: [(&str, &[&str]); 3] = [
        ("fmt", &["fmt", "--all", "--check"]),
        (
            "clippy",
            &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
        ),
        ("doc", &["doc", "--workspace", "--no-deps"]),
    ];
    for (name, arguments) in steps {
        println!("== cargo {}", arguments.join(" "));
        let mut command = cargo(root);
        command.args(arguments);
        if name == "doc" {
            command.env("RUSTDOCFLAGS", "-D warnings");
        }
        if !command.status().context("cannot run cargo")?.success() {
            failed.push(name);
        }
    }
    println!("== tidy");
    if let Err(e) = tidy::run(root) {
        println!("{e:#}");
        failed.push("tidy");
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    println!("== ci: all good");
    Ok(())
}

/// The cargo that runs this, or the one in the path.
fn cargo(root: &Path) -> Command {
    let program = std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
    let mut command = Command::new(program);
    command.current_dir(root);
    command
}
