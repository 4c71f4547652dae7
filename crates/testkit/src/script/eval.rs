//! `eval` statements and what they expect.

use trilith_model::Labels;

use super::values::{self, Item};

/// One evaluation with its expectations.
#[derive(Clone, Debug, Default)]
pub struct Eval {
    /// Line of the statement, from 1.
    pub line: usize,
    pub query: String,
    /// Of an instant query, or the start; ms.
    pub start_ms: i64,
    pub end_ms: i64,
    /// 0 for an instant query.
    pub step_ms: i64,
    pub ordered: bool,
    pub fail: Option<Note>,
    pub warn: Vec<Note>,
    pub info: Vec<Note>,
    pub no_warn: bool,
    pub no_info: bool,
    pub expected: Expected,
}

/// The result.
#[derive(Clone, Debug)]
pub enum Expected {
    Scalar(f64),
    String(String),
    /// Items from `start` on, one per `step`.
    Series {
        start_ms: i64,
        step_ms: i64,
        /// The result type is a matrix.
        matrix: bool,
        series: Vec<(Labels, Vec<Option<Item>>)>,
    },
}

impl Default for Expected {
    fn default() -> Self {
        Expected::Scalar(f64::NAN)
    }
}

/// What a message must be.
#[derive(Clone, Debug)]
pub enum Note {
    Any,
    Text(String),
    /// Searched anywhere in the message.
    Regex(String),
}

impl Note {
    fn read(text: &str) -> Note {
        let text = text.trim();
        for (keyword, make) in [("msg", Note::Text as fn(String) -> Note), ("regex", Note::Regex)] {
            if let Some(rest) = text.strip_prefix(keyword).map(str::trim_start)
                && let Some(rest) = rest.strip_prefix(':')
            {
                return make(rest.trim().to_owned());
            }
        }
        Note::Any
    }
}

pub(super) fn read(lines: &[&str], at: &mut usize) -> Result<Eval, String> {
    let head = lines[*at];
    let bad = || format!("cannot read {head:?}");
    let (command, rest) = head.split_once(char::is_whitespace).ok_or_else(bad)?;
    let mode = command.to_ascii_lowercase().split_off("eval".len());
    let mut eval = Eval {
        line: *at + 1,
        ..Eval::default()
    };
    match mode.as_str() {
        "" => {}
        "_fail" => eval.fail = Some(Note::Any),
        "_warn" => eval.warn.push(Note::Any),
        "_info" => eval.info.push(Note::Any),
        "_ordered" => eval.ordered = true,
        _ => return Err(bad()),
    }
    let rest = rest.trim_start();
    if let Some(rest) = rest.strip_prefix("instant") {
        let rest = rest.trim_start();
        let (time, query) = match rest.strip_prefix("at ") {
            Some(rest) => rest.trim_start().split_once(char::is_whitespace).ok_or_else(bad)?,
            None => ("0", rest),
        };
        eval.start_ms = values::duration(time)?;
        eval.end_ms = eval.start_ms;
        eval.query = query.trim().to_owned();
    } else {
        let mut rest = rest.strip_prefix("range").ok_or_else(bad)?.trim_start();
        let mut times = [0; 3];
        for (time, keyword) in times.iter_mut().zip(["from", "to", "step"]) {
            let after = rest.strip_prefix(keyword).ok_or_else(bad)?.trim_start();
            let (text, after) = after.split_once(char::is_whitespace).ok_or_else(bad)?;
            *time = values::duration(text)?;
            rest = after.trim_start();
        }
        [eval.start_ms, eval.end_ms, eval.step_ms] = times;
        eval.query = rest.to_owned();
    }
    *at += 1;
    let mut scalar = None;
    let mut string = None;
    let mut matrix = None;
    let mut series = Vec::new();
    while let Some(line) = lines.get(*at).filter(|l| !l.is_empty()) {
        *at += 1;
        if mode == "_fail"
            && let Some(text) = line.strip_prefix("expected_fail_message")
        {
            eval.fail = Some(Note::Text(text.trim().to_owned()));
        } else if mode == "_fail"
            && let Some(text) = line.strip_prefix("expected_fail_regexp")
        {
            eval.fail = Some(Note::Regex(text.trim().to_owned()));
        } else if let Some(expect) = line.strip_prefix("expect ") {
            let (what, rest) = expect.split_once(char::is_whitespace).unwrap_or((expect, ""));
            match what {
                "fail" => eval.fail = Some(Note::read(rest)),
                "warn" => eval.warn.push(Note::read(rest)),
                "info" => eval.info.push(Note::read(rest)),
                "no_warn" => eval.no_warn = true,
                "no_info" => eval.no_info = true,
                "ordered" => eval.ordered = true,
                "string" => string = Some(values::quoted(rest.trim())?.0),
                "range" => {
                    let words: Vec<&str> = rest.split_whitespace().collect();
                    let ["vector", "from", start, "to", _, "step", step] = words.as_slice() else {
                        return Err(format!("cannot read {line:?}"));
                    };
                    matrix = Some((values::duration(start)?, values::duration(step)?));
                }
                _ => return Err(format!("cannot read {line:?}")),
            }
        } else if let Some(v) = values::number(line) {
            scalar = Some(v);
            break;
        } else {
            let (labels, rest) = values::labels(line)?;
            series.push((labels, values::items(rest)?));
        }
    }
    let (start_ms, step_ms) = matrix.unwrap_or((eval.start_ms, eval.step_ms));
    eval.expected = match (scalar, string) {
        (Some(v), _) => Expected::Scalar(v),
        (_, Some(s)) => Expected::String(s),
        _ => Expected::Series {
            start_ms,
            step_ms,
            matrix: eval.step_ms > 0 || matrix.is_some(),
            series,
        },
    };
    Ok(eval)
}
