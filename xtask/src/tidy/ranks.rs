//! A crate depends only on crates of lower rank (ARCHITECTURE.md), and does not see what it must not know.

use serde_json::Value;

/// Product crates by rank.
const RANKS: &[(&str, u8)] = &[
    ("trilith", 6),
    ("trilith-api", 5),
    ("trilith-rules", 5),
    ("trilith-promql", 4),
    ("trilith-logql", 4),
    ("trilith-traceql", 4),
    ("trilith-ingest", 4),
    ("trilith-scrape", 4),
    ("trilith-metrics", 3),
    ("trilith-logs", 3),
    ("trilith-traces", 3),
    ("trilith-promql-syntax", 2),
    ("trilith-query", 2),
    ("trilith-block", 2),
    ("trilith-wal", 2),
    ("trilith-index", 2),
    ("trilith-model", 1),
    ("trilith-object", 1),
    ("trilith-proto", 1),
    ("trilith-codec", 0),
    ("trilith-histogram", 0),
];

/// Crates that no product crate depends on, except for its tests. They may depend on anything.
const DEV_ONLY: &[&str] = &[
    "trilith-testkit",
    "trilith-s3server",
    "trilith-tests",
    "trilith-fuzz",
    "trilith-benches",
    "xtask",
];

/// Edges within one rank, each with its reason.
const ALLOWED: &[(&str, &str, &str)] = &[(
    "trilith-object",
    "trilith-model",
    "errors, the clock and randomness; nothing of the data model",
)];

/// Edges that the ranks alone would let pass.
const FORBIDDEN: &[(&str, &[&str], &str)] = &[
    ("trilith-promql", ENGINES, "a language sees the waist, not an engine"),
    ("trilith-logql", ENGINES, "a language sees the waist, not an engine"),
    ("trilith-traceql", ENGINES, "a language sees the waist, not an engine"),
    (
        "trilith-promql",
        &["trilith-proto", "trilith-block", "trilith-wal", "trilith-object"],
        "storage is below the waist",
    ),
    (
        "trilith-logql",
        &["trilith-proto", "trilith-block", "trilith-wal", "trilith-object"],
        "storage is below the waist",
    ),
    (
        "trilith-traceql",
        &["trilith-proto", "trilith-block", "trilith-wal", "trilith-object"],
        "storage is below the waist",
    ),
    ("trilith-ingest", ENGINES, "it makes batches; sinks take them"),
    (
        "trilith-ingest",
        &["axum", "hyper", "tower-http"],
        "it knows protocol bytes, not a web framework",
    ),
    ("trilith-scrape", ENGINES, "it makes batches; sinks take them"),
    ("trilith-rules", ENGINES, "it asks the languages"),
    (
        "trilith-api",
        &["trilith-block", "trilith-wal", "trilith-object", "trilith-index"],
        "block layout stays below the engines",
    ),
    (
        "trilith-metrics",
        &["axum", "hyper", "tonic"],
        "an engine knows no HTTP",
    ),
    ("trilith-logs", &["axum", "hyper", "tonic"], "an engine knows no HTTP"),
    ("trilith-traces", &["axum", "hyper", "tonic"], "an engine knows no HTTP"),
    (
        "trilith-model",
        &["prost", "axum", "object_store", "arrow", "parquet"],
        "words, not formats",
    ),
    ("trilith-codec", &["tokio", "futures"], "bytes in, bytes out"),
];

const ENGINES: &[&str] = &["trilith-metrics", "trilith-logs", "trilith-traces"];

/// Generated messages end where batches begin.
const SEES_PROTO: &[&str] = &["trilith-ingest", "trilith-api"];

fn rank(name: &str) -> Option<u8> {
    RANKS.iter().find(|(n, _)| *n == name).map(|(_, rank)| *rank)
}

/// `metadata`: what `cargo metadata --format-version 1 --no-deps` prints.
pub fn check(metadata: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    let packages = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
    if packages.is_empty() {
        problems.push("cargo metadata lists no packages".to_owned());
    }
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        if DEV_ONLY.contains(&name) {
            continue;
        }
        let Some(own) = rank(name) else {
            problems.push(format!(
                "{name}: has no rank; add it to ARCHITECTURE.md and to xtask/src/tidy/ranks.rs"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().map_or(&[][..], Vec::as_slice) {
            // Tests may look anywhere; `null` is a normal dependency, the rest is "build".
            if dependency["kind"].as_str() != Some("dev") {
                let to = dependency["name"].as_str().unwrap_or_default();
                problems.extend(edge(name, own, to));
            }
        }
    }
    problems
}

fn edge(from: &str, own: u8, to: &str) -> Option<String> {
    if DEV_ONLY.contains(&to) {
        return Some(format!("{from}: depends on {to}, which is for tests only"));
    }
    if let Some((.., reason)) = FORBIDDEN.iter().find(|(f, list, _)| *f == from && list.contains(&to)) {
        return Some(format!("{from}: must not depend on {to}: {reason}"));
    }
    if to == "trilith-proto" && !SEES_PROTO.contains(&from) {
        return Some(format!(
            "{from}: must not depend on trilith-proto; only {} do",
            SEES_PROTO.join(" and ")
        ));
    }
    let theirs = rank(to)?;
    let allowed = ALLOWED.iter().any(|(f, t, _)| *f == from && *t == to);
    (theirs >= own && !allowed)
        .then(|| format!("{from} (rank {own}): depends on {to} (rank {theirs}); only lower ranks are allowed"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check_edge(from: &str, to: &str, kind: Option<&str>, expected: &str) {
        let metadata = json!({"packages": [{"name": from, "dependencies": [{"name": to, "kind": kind}]}]});
        let problems = check(&metadata).join("\n");
        if expected.is_empty() {
            assert_eq!(problems, "", "{from} -> {to}");
        } else {
            assert!(problems.contains(expected), "{from} -> {to}: {problems:?}");
        }
    }

    #[test]
    fn edges() {
        check_edge("trilith-metrics", "trilith-wal", None, "");
        check_edge("trilith-metrics", "trilith-logs", None, "only lower ranks");
        check_edge("trilith-metrics", "trilith-logs", Some("build"), "only lower ranks");
        check_edge("trilith-block", "trilith-query", None, "only lower ranks");
        check_edge("trilith-model", "trilith-block", None, "only lower ranks");
        check_edge("trilith-object", "trilith-model", None, "");
        check_edge("trilith-model", "trilith-object", None, "only lower ranks");
        check_edge("trilith-promql", "trilith-metrics", None, "waist");
        check_edge("trilith-api", "trilith-block", None, "block layout");
        check_edge("trilith-ingest", "trilith-proto", None, "");
        check_edge(
            "trilith-logs",
            "trilith-proto",
            None,
            "must not depend on trilith-proto",
        );
        check_edge("trilith-ingest", "axum", None, "web framework");
        check_edge("trilith-ingest", "serde", None, "");
        check_edge("trilith-logs", "trilith-testkit", None, "for tests only");
        check_edge("trilith-logs", "trilith-testkit", Some("dev"), "");
        check_edge("trilith-tests", "trilith", None, "");
        check_edge("trilith-extra", "serde", None, "has no rank");
    }

    #[test]
    fn an_empty_workspace_is_no_success() {
        assert_eq!(check(&json!({})).len(), 1);
    }

    #[test]
    fn an_edge_is_not_both_allowed_and_forbidden() {
        for (from, to, _) in ALLOWED {
            assert!(
                !FORBIDDEN.iter().any(|(f, list, _)| f == from && list.contains(to)),
                "{from} -> {to}"
            );
        }
    }
}
