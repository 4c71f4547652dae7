//! The shared syntax cases: accepted or refused with which message, printed and prettified as upstream does.

use std::path::PathBuf;

use serde_json::Value;

use crate::pretty::pretty_to_width;
use crate::{Expr, ParseError, SyntaxFeatures, parse};

fn cases(file: &str) -> Vec<Value> {
    let root = std::env::var_os("TRILITH_CORPORA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpora")),
        PathBuf::from,
    );
    let path = root.join("promql-syntax").join(file);
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("skipped: no {}", path.display());
        return Vec::new();
    };
    text.lines()
        .filter(|l| !l.trim().is_empty())
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

fn query(case: &Value) -> String {
    if let Some(hex) = case["expr_hex"].as_str() {
        let bytes: Vec<u8> = (0..hex.len() / 2)
            .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
            .collect();
        return String::from_utf8_lossy(&bytes).into_owned();
    }
    case["expr"].as_str().or(case["in"].as_str()).unwrap().to_owned()
}

fn parsed(case: &Value) -> (String, Result<Expr, ParseError>) {
    let text = query(case);
    let parsed = parse(&text, &SyntaxFeatures::default());
    (text, parsed)
}

#[test]
fn accepted_and_refused() {
    let mut wrong = Vec::new();
    for case in cases("parse.jsonl") {
        let (text, parsed) = parsed(&case);
        let want = case["errors"][0].as_str();
        match parsed {
            Ok(_) if want.is_none() => {}
            Ok(_) => wrong.push(format!("{text}: accepted, want {want:?}")),
            Err(e) if want == Some(e.message.as_str()) => {}
            Err(e) => wrong.push(format!("{text}: {:?}, want {want:?}", e.message)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn check_printed(file: &str, print: impl Fn(&Expr) -> String) {
    let mut wrong = Vec::new();
    for case in cases(file) {
        let (text, parsed) = parsed(&case);
        let got = parsed.map_or_else(|e| e.to_string(), |e| print(&e));
        if case["out"] != got.as_str() {
            wrong.push(format!("{text}:\n{got}\nwant\n{}", case["out"].as_str().unwrap()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn printed() {
    check_printed("print.jsonl", ToString::to_string);
}

#[test]
fn prettified() {
    check_printed("prettify.jsonl", |e| pretty_to_width(e, 10).unwrap());
}

#[test]
fn formatted() {
    check_printed("format.jsonl", |e| pretty_to_width(e, 100).unwrap());
}
