//! Rules that no compiler checks. Each rule is a function from what it looks at to a list of problems, so that its
//! tests need no workspace.

mod ranks;
mod sources;
mod tree;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

/// Checks everything and prints every problem.
pub fn run(root: &Path) -> anyhow::Result<()> {
    let mut problems = ranks::check(&metadata(root)?);
    let files = tree::tracked(root)?;
    problems.extend(tree::check(root, &files));
    for file in files.iter().filter(|f| f.path.ends_with(".rs")) {
        // A file that was deleted but not yet committed is still listed.
        if let Ok(text) = std::fs::read_to_string(root.join(&file.path)) {
            problems.extend(sources::check(&file.path, &text));
        }
    }
    for problem in &problems {
        println!("{problem}");
    }
    match problems.len() {
        0 => Ok(()),
        n => bail!("tidy: {n} problems"),
    }
}

fn metadata(root: &Path) -> anyhow::Result<serde_json::Value> {
    let output = crate::cargo(root)
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .output()?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("cargo metadata")
}

fn git(root: &Path, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
    let output = Command::new("git")
        .current_dir(root)
        .args(arguments)
        .output()
        .context("cannot run git")?;
    if !output.status.success() {
        bail!(
            "git {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(output.stdout)
}
