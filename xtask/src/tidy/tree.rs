//! What may be in the repository: no large or stray files, no paths of somebody's machine, one number per decision.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;

const FILE_BYTES_MAX: u64 = 1 << 20;

/// Left behind by tools.
const STRAY_ENDINGS: &[&str] = &[".orig", ".rej", ".rs.bk", ".swp", "~", ".DS_Store", ".profraw", ".pyc"];

/// Made by builds and runs.
const STRAY_FOLDERS: &[&str] = &["target", "trilith-data", "__pycache__", "node_modules"];

/// Data of tests quotes other machines' logs.
const QUOTING_FOLDERS: &[&str] = &["testdata", "corpus", "fixtures"];

/// Roots of working copies and homes. In pieces, so that this file passes.
const MACHINE_ROOTS: [&str; 3] = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];

/// One file that git tracks.
pub struct Tracked {
    /// Relative to the workspace, with `/`.
    pub path: String,
    pub bytes: u64,
}

/// Every tracked file that is there.
///
/// # Errors
/// Without git, or outside of a repository.
pub fn tracked(root: &Path) -> anyhow::Result<Vec<Tracked>> {
    let list = String::from_utf8(super::git(root, &["ls-files", "-z"])?).context("file names are UTF-8")?;
    let there = |path: &str| std::fs::symlink_metadata(root.join(path)).ok();
    let files = list.split('\0').filter(|path| !path.is_empty());
    Ok(files
        .filter_map(|path| {
            Some(Tracked {
                path: path.to_owned(),
                bytes: there(path)?.len(),
            })
        })
        .collect())
}

pub fn check(root: &Path, files: &[Tracked]) -> Vec<String> {
    let mut problems: Vec<String> = files.iter().filter_map(stray).collect();
    problems.extend(decisions(files.iter().map(|f| f.path.as_str())));
    for file in files.iter().filter(|f| f.bytes <= FILE_BYTES_MAX) {
        // Binary files are not text, and hold no paths that anybody wrote.
        if let Ok(text) = std::fs::read_to_string(root.join(&file.path)) {
            problems.extend(machine_paths(&file.path, &text));
        }
    }
    problems
}

fn stray(file: &Tracked) -> Option<String> {
    let Tracked { path, bytes } = file;
    if *bytes > FILE_BYTES_MAX {
        return Some(format!("{path}: {bytes} bytes, more than {FILE_BYTES_MAX}"));
    }
    let ending = STRAY_ENDINGS.iter().any(|ending| path.ends_with(ending));
    let folder = path.split('/').rev().skip(1).any(|part| STRAY_FOLDERS.contains(&part));
    (ending || folder).then(|| format!("{path}: a stray file"))
}

fn machine_paths(path: &str, text: &str) -> Vec<String> {
    if path.split('/').any(|part| QUOTING_FOLDERS.contains(&part)) {
        return Vec::new();
    }
    let mut problems = Vec::new();
    for (i, line) in text.lines().enumerate() {
        for root in MACHINE_ROOTS {
            // Not in the middle of a longer path or URL.
            let starts = |at: usize| {
                let before = line[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || "._-/}*".contains(c))
            };
            if line.match_indices(root).any(|(at, _)| starts(at)) {
                problems.push(format!("{path}:{}: a path of one machine: {root}", i + 1));
            }
        }
    }
    problems
}

/// `docs/adr/NNNN-title.md`, each number once.
fn decisions<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for path in paths {
        let Some(name) = path.strip_prefix("docs/adr/").filter(|name| *name != "README.md") else {
            continue;
        };
        let number = name.split('-').next().unwrap_or_default();
        let well_named = number.len() == 4
            && number.bytes().all(|b| b.is_ascii_digit())
            && name.len() > "0000-.md".len()
            && name.ends_with(".md")
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b));
        if !well_named {
            problems.push(format!("{path}: decisions are named NNNN-title.md"));
        } else if let Some(other) = seen.insert(number, path) {
            problems.push(format!("{path}: has the number of {other}"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_stray(path: &str, bytes: u64) -> bool {
        stray(&Tracked {
            path: path.to_owned(),
            bytes,
        })
        .is_some()
    }

    #[test]
    fn stray_files() {
        assert!(is_stray("a.rs.orig", 1));
        assert!(is_stray("crates/wal/src/lib.rs.rej", 1));
        assert!(is_stray("target/debug/x", 1));
        assert!(is_stray("deploy/trilith-data/wal/x", 1));
        assert!(is_stray("docs/big.png", FILE_BYTES_MAX + 1));
        assert!(!is_stray("docs/small.png", FILE_BYTES_MAX));
        assert!(!is_stray("crates/scrape/src/target.rs", 1));
        assert!(!is_stray("target", 1), "a file of that name is no build folder");
    }

    #[test]
    fn machine_paths_are_found_where_they_start() {
        let root = MACHINE_ROOTS[0];
        let count = |path: &str, text: &str| machine_paths(path, text).len();
        assert_eq!(count("a.md", &format!("see {root}shared")), 1);
        assert_eq!(count("a.rs", &format!("\"{root}shared\"")), 1);
        assert_eq!(count("a.rs", &format!("ok\n`{root}x`\n({root}y)")), 2);
        assert_eq!(count("a.rs", &format!("\"..{root}shared\"")), 0);
        assert_eq!(count("a.md", &format!("https://example.org{root}x")), 0);
        assert_eq!(count("crates/logs/testdata/a.log", &format!("open {root}x")), 0);
    }

    #[test]
    fn decision_numbers_are_unique() {
        let check = |paths: &[&str]| decisions(paths.iter().copied()).len();
        assert_eq!(
            check(&[
                "docs/adr/0001-a.md",
                "docs/adr/0002-b.md",
                "docs/adr/README.md",
                "docs/x.md"
            ]),
            0
        );
        assert_eq!(check(&["docs/adr/0001-a.md", "docs/adr/0001-b.md"]), 1);
        for bad in [
            "docs/adr/1-a.md",
            "docs/adr/0001.md",
            "docs/adr/0001-A.md",
            "docs/adr/0001-a.txt",
            "docs/adr/a.md",
        ] {
            assert_eq!(check(&[bad]), 1, "{bad}");
        }
    }
}
