//! Time, randomness and tasks come from `trilith_model`, so that simulations own them; files stay readable.

const LINES_MAX: usize = 800;

/// What only the injection points may name.
const RAW: &[(&str, &str)] = &[
    ("SystemTime::now", "take a `Clock`"),
    ("Instant::now", "take a `Clock`"),
    ("tokio::spawn", "use `trilith_model::task::spawn`"),
    ("tokio::task::spawn", "use `trilith_model::task`"),
    ("thread::spawn", "use `trilith_model::task::thread`"),
    ("thread::Builder", "use `trilith_model::task::thread`"),
    ("rand::rng(", "take an `Rng`"),
    ("rand::random", "take an `Rng`"),
    ("thread_rng(", "take an `Rng`"),
    ("from_os_rng(", "take an `Rng`"),
    ("rand::make_rng", "take an `Rng`"),
];

/// The injection points.
const RAW_ALLOWED: &[&str] = &[
    "crates/model/src/time.rs",
    "crates/model/src/rng.rs",
    "crates/model/src/task.rs",
];

/// Folders of code that runs in tests only.
const TEST_CODE: &[&str] = &[
    "crates/testkit/",
    "crates/s3server/",
    "tests/",
    "fuzz/",
    "benches/",
    "xtask/",
];

/// `path`: relative to the workspace, with `/`.
pub fn check(path: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let lines = text.lines().count();
    if lines > LINES_MAX && !is_generated(text) {
        problems.push(format!(
            "{path}: {lines} lines, more than {LINES_MAX}; which second subject moved in?"
        ));
    }
    if !is_product_code(path) || RAW_ALLOWED.contains(&path) {
        return problems;
    }
    for (number, line) in product_lines(text) {
        let code = line.split("//").next().unwrap_or_default();
        for (pattern, instead) in RAW {
            if names(code, pattern) {
                problems.push(format!("{path}:{number}: `{pattern}`: {instead}"));
            }
        }
    }
    problems
}

fn is_generated(text: &str) -> bool {
    text.lines().take(5).any(|line| line.contains("@generated"))
}

fn is_product_code(path: &str) -> bool {
    let test_file =
        ["/tests/", "/benches/", "/examples/"].iter().any(|f| path.contains(f)) || path.ends_with("/tests.rs");
    path.starts_with("crates/") && !test_file && !TEST_CODE.iter().any(|folder| path.starts_with(folder))
}

/// The pattern as a path of its own: `tokio::spawn` but not `my_tokio::spawn` or `tokio::spawner`.
fn names(code: &str, pattern: &str) -> bool {
    code.match_indices(pattern).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + pattern.len()..].chars().next();
        let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !word(before) && (pattern.ends_with('(') || pattern == "tokio::task::spawn" || !word(after))
    })
}

/// Numbered lines outside of inline `#[cfg(test)]` items. Relies on rustfmt: an item ends with a closing brace at its
/// own indentation.
fn product_lines(text: &str) -> Vec<(usize, &str)> {
    let mut kept = Vec::new();
    let mut lines = text.lines().enumerate().map(|(i, line)| (i + 1, line));
    while let Some((number, line)) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            kept.push((number, line));
            continue;
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        let end = format!("{indent}}}");
        for (_, inner) in lines.by_ref() {
            let item_line = inner.starts_with(indent) && !inner[indent.len()..].starts_with([' ', '#', '/']);
            if inner == end || (item_line && inner.trim_end().ends_with([';', ','])) {
                break;
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(path: &str, text: &str) -> usize {
        check(path, text).len()
    }

    #[test]
    fn raw_clocks_and_tasks_are_found() {
        let path = "crates/wal/src/lib.rs";
        for line in [
            "let t = std::time::Instant::now();",
            "    SystemTime::now()",
            "tokio::spawn(async {});",
            "tokio::task::spawn_blocking(f)",
            "std::thread::spawn(|| {});",
            "let x: u8 = rand::random();",
        ] {
            assert_eq!(problems(path, line), 1, "{line}");
        }
    }

    #[test]
    fn what_looks_alike_is_fine() {
        let path = "crates/wal/src/lib.rs";
        for line in [
            "// tokio::spawn is not used here",
            "trilith_model::task::spawn(\"x\", f)",
            "task::thread(\"wal\", f)",
            "MyInstant::now()",
            "self.clock.monotonic() // not Instant::now()",
        ] {
            assert_eq!(problems(path, line), 0, "{line}");
        }
    }

    #[test]
    fn tests_and_injection_points_are_free() {
        let line = "Instant::now()";
        for path in [
            "crates/model/src/time.rs",
            "crates/wal/src/tests.rs",
            "crates/wal/src/tests/threads.rs",
            "crates/wal/tests/whole.rs",
            "crates/wal/examples/load.rs",
            "crates/testkit/src/lib.rs",
            "tests/src/lib.rs",
            "fuzz/src/driver.rs",
        ] {
            assert_eq!(problems(path, line), 0, "{path}");
        }
        assert_eq!(problems("crates/trilith/src/main.rs", line), 1);
    }

    #[test]
    fn only_the_test_item_is_left_out() {
        let text = "\
#[cfg(test)]
mod tests;

fn a() {
    Instant::now();
}

#[cfg(test)]
#[allow(x)]
mod more {
    fn b() {
        Instant::now();
    }
}

impl A {
    #[cfg(test)]
    fn c() {
        Instant::now();
    }

    fn d() {
        Instant::now();
    }
}
";
        let found = check("crates/wal/src/lib.rs", text);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains(":5:") && found[1].contains(":23:"), "{found:?}");
    }

    #[test]
    fn long_files_are_found_unless_generated() {
        let long = "fn x() {}\n".repeat(801);
        assert_eq!(problems("crates/wal/src/lib.rs", &long), 1);
        assert_eq!(problems("crates/wal/src/tests.rs", &long), 1);
        assert_eq!(
            problems("crates/proto/src/gen.rs", &format!("// @generated by prost\n{long}")),
            0
        );
    }
}
