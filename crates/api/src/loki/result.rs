//! Answers of the query endpoints.

use std::collections::BTreeMap;
use std::time::Duration;

use trilith_logql::log::{LogLine, merged_labels};
use trilith_logql::{MetricResult, MetricSeries};
use trilith_model::Labels;
use trilith_query::{QueryContext, QueryStats};

use crate::float::{push_labels, push_plain, push_seconds, push_string};

/// What the answer says of its cost.
pub struct Stats {
    bytes: u64,
    lines: u64,
    exec: Duration,
    returned: usize,
}

impl Stats {
    pub fn of(ctx: &QueryContext, started: Duration, returned: usize) -> Self {
        Stats {
            bytes: QueryStats::get(&ctx.stats.bytes_decoded),
            lines: QueryStats::get(&ctx.stats.entries_scanned),
            exec: ctx.clock.monotonic().saturating_sub(started),
            returned,
        }
    }

    fn push(&self, out: &mut Vec<u8>) {
        let seconds = self.exec.as_secs_f64();
        let per_second = |n: u64| {
            if seconds > 0.0 { (n as f64 / seconds) as u64 } else { 0 }
        };
        let summary = serde_json::json!({"summary": {
            "bytesProcessedPerSecond": per_second(self.bytes),
            "linesProcessedPerSecond": per_second(self.lines),
            "totalBytesProcessed": self.bytes,
            "totalLinesProcessed": self.lines,
            "execTime": seconds,
            "queueTime": 0,
            "subqueries": 0,
            "totalEntriesReturned": self.returned,
            "splits": 0,
            "shards": 0,
            "totalPostFilterLines": self.returned,
            "totalStructuredMetadataBytesProcessed": 0,
        }});
        out.extend_from_slice(summary.to_string().as_bytes());
    }
}

/// Keeps entries that are at least `interval` ns from the last kept one, at most `limit`.
pub fn spaced(mut lines: Vec<LogLine>, interval: i64, limit: usize) -> Vec<LogLine> {
    if interval > 0 {
        let mut last: Option<i64> = None;
        lines.retain(|l| {
            let keep = last.is_none_or(|t| l.ts_ns.abs_diff(t) >= interval as u64);
            if keep {
                last = Some(l.ts_ns);
            }
            keep
        });
    }
    lines.truncate(limit);
    lines
}

fn head(out: &mut Vec<u8>, kind: &str, categorize: bool) {
    out.extend_from_slice(b"{\"status\":\"success\",\"data\":{\"resultType\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.push(b'"');
    if categorize {
        out.extend_from_slice(b",\"encodingFlags\":[\"categorize-labels\"]");
    }
    out.extend_from_slice(b",\"result\":");
}

fn tail(out: &mut Vec<u8>, stats: &Stats) {
    out.extend_from_slice(b",\"stats\":");
    stats.push(out);
    out.extend_from_slice(b"}}");
}

/// `streams`: entries by label set, streams sorted by labels, entries in the order of the query.
pub fn logs_body(lines: &[LogLine], categorize: bool, stats: &Stats) -> Vec<u8> {
    let mut streams: BTreeMap<Labels, Vec<&LogLine>> = BTreeMap::new();
    for line in lines {
        let labels = if categorize {
            line.stream.clone()
        } else {
            merged_labels(&line.stream, &line.metadata)
        };
        streams.entry(labels).or_default().push(line);
    }
    let mut out = Vec::with_capacity(lines.iter().map(|l| l.line.len() + 40).sum::<usize>() + 512);
    head(&mut out, "streams", categorize);
    out.push(b'[');
    for (i, (labels, entries)) in streams.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"stream\":");
        push_labels(&mut out, labels);
        out.extend_from_slice(b",\"values\":[");
        for (j, e) in entries.iter().enumerate() {
            if j > 0 {
                out.push(b',');
            }
            out.extend_from_slice(b"[\"");
            out.extend_from_slice(itoa::Buffer::new().format(e.ts_ns).as_bytes());
            out.extend_from_slice(b"\",");
            push_string(&mut out, &String::from_utf8_lossy(&e.line), true);
            if categorize {
                out.push(b',');
                push_categories(&mut out, e);
            }
            out.push(b']');
        }
        out.extend_from_slice(b"]}");
    }
    out.push(b']');
    tail(&mut out, stats);
    out
}

fn push_categories(out: &mut Vec<u8>, line: &LogLine) {
    out.push(b'{');
    if !line.metadata.is_empty() {
        out.extend_from_slice(b"\"structuredMetadata\":");
        // Metadata named like a stream label is shown under its other name, as everywhere.
        let shown = merged_labels(&line.stream, &line.metadata);
        push_labels(out, &shown.without(|n| line.stream.get(n).is_some()));
    }
    out.push(b'}');
}

pub fn metric_body(result: &MetricResult, instant: bool, categorize: bool, stats: &Stats) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    match result {
        MetricResult::Scalar(ns, v) => {
            head(&mut out, "scalar", categorize);
            point(&mut out, *ns, *v);
        }
        MetricResult::Series(series) => {
            head(&mut out, if instant { "vector" } else { "matrix" }, categorize);
            out.push(b'[');
            for (i, s) in series.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                push_series(&mut out, s, instant);
            }
            out.push(b']');
        }
    }
    tail(&mut out, stats);
    out
}

fn push_series(out: &mut Vec<u8>, s: &MetricSeries, instant: bool) {
    out.extend_from_slice(b"{\"metric\":");
    push_labels(out, &s.labels);
    match s.points.first() {
        Some((ns, v)) if instant => {
            out.extend_from_slice(b",\"value\":");
            point(out, *ns, *v);
        }
        _ => {
            out.extend_from_slice(b",\"values\":[");
            for (i, (ns, v)) in s.points.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                point(out, *ns, *v);
            }
            out.push(b']');
        }
    }
    out.push(b'}');
}

fn point(out: &mut Vec<u8>, ns: i64, v: f64) {
    out.push(b'[');
    push_seconds(out, ns.div_euclid(1_000_000));
    out.extend_from_slice(b",\"");
    push_plain(out, v);
    out.extend_from_slice(b"\"]");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(ts_ns: i64, text: &str, metadata: &[(&str, &str)]) -> LogLine {
        LogLine {
            stream: Labels::from_pairs([("app", "x")]),
            ts_ns,
            line: bytes::Bytes::copy_from_slice(text.as_bytes()),
            metadata: Labels::from_pairs(metadata.iter().copied()),
        }
    }

    fn body(lines: &[LogLine], categorize: bool) -> String {
        let stats = Stats {
            bytes: 0,
            lines: 0,
            exec: Duration::ZERO,
            returned: 0,
        };
        let text = String::from_utf8(logs_body(lines, categorize, &stats)).expect("text");
        serde_json::from_str::<serde_json::Value>(&text).expect("valid JSON");
        text[..text.find(",\"stats\"").expect("stats come last")].to_owned()
    }

    #[test]
    fn without_flags_metadata_splits_streams() {
        let lines = [line(2, "<b>", &[]), line(1, "a", &[("t", "1"), ("app", "z")])];
        assert_eq!(
            body(&lines, false),
            "{\"status\":\"success\",\"data\":{\"resultType\":\"streams\",\"result\":[\
             {\"stream\":{\"app\":\"x\"},\"values\":[[\"2\",\"\\u003cb\\u003e\"]]},\
             {\"stream\":{\"app\":\"x\",\"app_extracted\":\"z\",\"t\":\"1\"},\"values\":[[\"1\",\"a\"]]}]"
        );
    }

    #[test]
    fn with_flags_every_entry_has_three_parts() {
        let lines = [line(2, "b", &[]), line(1, "a", &[("t", "1")])];
        assert_eq!(
            body(&lines, true),
            "{\"status\":\"success\",\"data\":{\"resultType\":\"streams\",\"encodingFlags\":[\"categorize-labels\"],\"result\":[\
             {\"stream\":{\"app\":\"x\"},\"values\":[[\"2\",\"b\",{}],[\"1\",\"a\",{\"structuredMetadata\":{\"t\":\"1\"}}]]}]"
        );
    }

    #[test]
    fn spacing() {
        let lines: Vec<LogLine> = [10, 9, 5, 4, 0].iter().map(|t| line(*t, "", &[])).collect();
        let kept = |i, l| spaced(lines.clone(), i, l).iter().map(|l| l.ts_ns).collect::<Vec<_>>();
        assert_eq!(kept(0, 3), [10, 9, 5]);
        assert_eq!(kept(5, 10), [10, 5, 0]);
    }
}
