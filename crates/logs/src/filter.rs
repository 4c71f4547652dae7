//! Line filters over many lines at once.
//!
//! A substring is searched in the concatenated lines of a run, not line by line: for a rare needle the cost is one
//! pass of a vectorised search over the page. A hit that crosses the end of a line is none.

use memchr::memmem::Finder;
use trilith_query::{LineFilter, LineFilterOp};

use crate::page::Keys;

/// The filters of one query, with their searchers built once.
pub(crate) struct Filters {
    filters: Vec<Compiled>,
}

struct Compiled {
    op: LineFilterOp,
    finders: Vec<Finder<'static>>,
    regexes: Vec<regex::bytes::Regex>,
}

impl Filters {
    pub fn new(filters: &[LineFilter]) -> Self {
        let compile = |f: &LineFilter| Compiled {
            op: f.op,
            finders: match f.op {
                LineFilterOp::Contains | LineFilterOp::NotContains => f
                    .needles
                    .iter()
                    .map(|n| Finder::new(n.as_bytes()).into_owned())
                    .collect(),
                LineFilterOp::Matches | LineFilterOp::NotMatches => Vec::new(),
            },
            regexes: f.regexes.clone(),
        };
        let mut filters: Vec<Compiled> = filters.iter().map(compile).collect();
        // A substring costs a fraction of an expression and leaves it fewer lines. The order does not change the
        // result: all must hold.
        filters.sort_by_key(|f| matches!(f.op, LineFilterOp::Matches | LineFilterOp::NotMatches));
        Filters { filters }
    }

    pub fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// Appends the rows of `rows` whose lines pass all filters, ascending.
    pub fn select(&self, keys: &Keys, lines: &[u8], rows: std::ops::Range<usize>, out: &mut Vec<u32>) {
        let Some((first, rest)) = self.filters.split_first() else {
            out.extend(rows.map(|r| r as u32));
            return;
        };
        let from = out.len();
        first.scan(keys, lines, rows, out);
        for filter in rest {
            let mut kept = from;
            for i in from..out.len() {
                if filter.matches(&lines[keys.line_range(out[i] as usize)]) {
                    out[kept] = out[i];
                    kept += 1;
                }
            }
            out.truncate(kept);
        }
    }
}

impl Compiled {
    fn matches(&self, line: &[u8]) -> bool {
        match self.op {
            LineFilterOp::Contains => self.finders.iter().any(|f| f.find(line).is_some()),
            LineFilterOp::NotContains => !self.finders.iter().any(|f| f.find(line).is_some()),
            LineFilterOp::Matches => self.regexes.iter().any(|r| r.is_match(line)),
            LineFilterOp::NotMatches => !self.regexes.iter().any(|r| r.is_match(line)),
        }
    }

    fn scan(&self, keys: &Keys, lines: &[u8], rows: std::ops::Range<usize>, out: &mut Vec<u32>) {
        if let ([finder], LineFilterOp::Contains | LineFilterOp::NotContains) = (&self.finders[..], self.op)
            && !finder.needle().is_empty()
            && !rows.is_empty()
        {
            scan_substring(finder, self.op == LineFilterOp::Contains, keys, lines, rows, out);
        } else {
            out.extend(
                rows.filter(|&r| self.matches(&lines[keys.line_range(r)]))
                    .map(|r| r as u32),
            );
        }
    }
}

/// Appends the rows that contain the needle (`wanted`) or those that do not.
fn scan_substring(
    finder: &Finder<'_>,
    wanted: bool,
    keys: &Keys,
    lines: &[u8],
    rows: std::ops::Range<usize>,
    out: &mut Vec<u32>,
) {
    let end = keys.ends[rows.end - 1] as usize;
    let mut at = keys.line_range(rows.start).start;
    let mut row = rows.start;
    while row < rows.end {
        let Some(found) = finder.find(&lines[at..end]).map(|i| at + i) else {
            break;
        };
        // The row in which the hit starts. Needle and hit are not empty, so neither is the row.
        let hit = row + keys.ends[row..rows.end].partition_point(|&e| e as usize <= found);
        let line_end = keys.ends[hit] as usize;
        let inside = found + finder.needle().len() <= line_end;
        if !wanted {
            out.extend((row..hit).map(|r| r as u32));
        }
        if inside == wanted {
            out.push(hit as u32);
        }
        // Later hits in this row cross its end as well, or are not needed.
        at = line_end;
        row = hit + 1;
    }
    if !wanted {
        out.extend((row..rows.end).map(|r| r as u32));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn filter(op: LineFilterOp, needles: &[String]) -> LineFilter {
        LineFilter::new(op, needles.iter().map(|n| Arc::from(n.as_str())).collect()).expect("needles are plain letters")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// A tiny alphabet makes hits across line ends and empty lines common.
        #[test]
        fn select_is_the_filters_line_by_line(
            lines in prop::collection::vec("[ab]{0,4}", 0..20),
            specs in prop::collection::vec((0..4usize, prop::collection::vec("[ab]{0,3}", 1..3)), 0..3),
            cut in any::<(prop::sample::Index, prop::sample::Index)>(),
        ) {
            const OPS: [LineFilterOp; 4] =
                [LineFilterOp::Contains, LineFilterOp::NotContains, LineFilterOp::Matches, LineFilterOp::NotMatches];
            let filters: Vec<LineFilter> = specs.iter().map(|(op, needles)| filter(OPS[*op], needles)).collect();
            let mut keys = Keys::default();
            let mut text = Vec::new();
            for l in &lines {
                text.extend_from_slice(l.as_bytes());
                keys.ends.push(text.len() as u32);
                keys.ts.push(0);
            }
            let (a, b) = (cut.0.index(lines.len() + 1), cut.1.index(lines.len() + 1));
            let rows = a.min(b)..a.max(b);
            let want: Vec<u32> = rows
                .clone()
                .filter(|&r| filters.iter().all(|f| f.matches(lines[r].as_bytes())))
                .map(|r| r as u32)
                .collect();
            let mut got = Vec::new();
            Filters::new(&filters).select(&keys, &text, rows, &mut got);
            prop_assert_eq!(got, want);
        }
    }
}
