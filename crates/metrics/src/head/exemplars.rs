//! The exemplars of one tenant in a head: the last ones that came, in a ring.
//!
//! Keyed by label set, not by series: senders put an exemplar into another entry, and at times into another push, than
//! the sample it belongs to, and a cut may come between.

use std::collections::VecDeque;

use hashbrown::HashMap;
use trilith_model::{Exemplar, Labels, LabelsRef};

/// What to do with an exemplar, after the newest one of its series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    New,
    /// The newest one again.
    Known,
    Old,
}

/// The rules of upstream: exact repetitions count as kept, and times do not descend.
pub(crate) fn judge(newest: Option<&Exemplar>, e: &Exemplar) -> Verdict {
    match newest {
        Some(n) if n.ts_ms == e.ts_ms && same(n, e) => Verdict::Known,
        Some(n) if n.ts_ms > e.ts_ms => Verdict::Old,
        Some(n) if n.ts_ms == e.ts_ms && e.value.total_cmp(&n.value).is_lt() => Verdict::Old,
        _ => Verdict::New,
    }
}

fn same(a: &Exemplar, b: &Exemplar) -> bool {
    a.value.to_bits() == b.value.to_bits() && a.labels == b.labels
}

/// In the order of arrival, the oldest leaving first.
#[derive(Debug)]
pub(crate) struct Exemplars {
    ring: VecDeque<(Labels, Exemplar)>,
    newest: HashMap<Labels, Exemplar>,
    max: usize,
}

impl Exemplars {
    pub(crate) fn new(max: usize) -> Self {
        Exemplars {
            ring: VecDeque::new(),
            newest: HashMap::new(),
            max,
        }
    }

    /// Changes how many are kept; none for 0.
    pub(crate) fn set_max(&mut self, max: usize) {
        self.max = max;
        self.evict();
    }

    pub(crate) fn newest(&self, series: LabelsRef<'_>) -> Option<&Exemplar> {
        if self.newest.is_empty() {
            return None;
        }
        self.newest.get(&series.to_owned())
    }

    /// Adds an exemplar if it is a new one. Returns the bytes that it takes.
    pub(crate) fn insert(&mut self, series: LabelsRef<'_>, e: &Exemplar) -> usize {
        if self.max == 0 {
            return 0;
        }
        let (key, known) = match self.newest.get_key_value(&series.to_owned()) {
            Some((key, newest)) if judge(Some(newest), e) == Verdict::New => (key.clone(), true),
            Some(_) => return 0,
            None => (series.to_owned(), false),
        };
        let mut bytes = e.labels.as_packed().len() + size_of::<(Labels, Exemplar)>() + 32;
        if !known {
            bytes += key.as_packed().len() + size_of::<(Labels, Exemplar)>() + 32;
        }
        self.newest.insert(key.clone(), e.clone());
        self.ring.push_back((key, e.clone()));
        let full = self.ring.len() > self.max;
        self.evict();
        // What leaves is about as large as what came.
        if full { 0 } else { bytes }
    }

    fn evict(&mut self) {
        while self.ring.len() > self.max {
            let Some((series, e)) = self.ring.pop_front() else {
                return;
            };
            if self
                .newest
                .get(&series)
                .is_some_and(|n| n.ts_ms == e.ts_ms && same(n, &e))
            {
                self.newest.remove(&series);
            }
        }
    }

    /// Calls `f` with every exemplar and its series.
    pub(crate) fn for_each(&self, mut f: impl FnMut(&Labels, &Exemplar)) {
        for (series, e) in &self.ring {
            f(series, e);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exemplar(ts_ms: i64, value: f64, trace: &str) -> Exemplar {
        Exemplar {
            labels: Labels::from_pairs([("trace_id", trace)]),
            value,
            ts_ms,
        }
    }

    #[test]
    fn repetitions_and_old_ones() {
        let newest = exemplar(10, 1.0, "a");
        for (e, want) in [
            (exemplar(10, 1.0, "a"), Verdict::Known),
            (exemplar(10, 1.0, "b"), Verdict::New),
            (exemplar(10, 2.0, "a"), Verdict::New),
            (exemplar(10, 0.5, "a"), Verdict::Old),
            (exemplar(9, 1.0, "a"), Verdict::Old),
            (exemplar(11, 0.0, "a"), Verdict::New),
        ] {
            assert_eq!(judge(Some(&newest), &e), want, "{e:?}");
        }
        assert_eq!(judge(None, &newest), Verdict::New);
    }

    #[test]
    fn the_oldest_leave() {
        let mut all = Exemplars::new(3);
        let series: Vec<Labels> = (0..2).map(|i| Labels::from_pairs([("i", i.to_string())])).collect();
        for ts in 0..5 {
            all.insert(series[(ts > 0) as usize].as_ref(), &exemplar(ts, 1.0, "t"));
        }
        let mut got = Vec::new();
        all.for_each(|l, e| got.push((l.clone(), e.ts_ms)));
        assert_eq!(got, (2..5).map(|t| (series[1].clone(), t)).collect::<Vec<_>>());
        assert!(all.newest(series[0].as_ref()).is_none(), "what has left is forgotten");
        assert_eq!(all.insert(series[1].as_ref(), &exemplar(4, 1.0, "t")), 0);
        all.set_max(0);
        all.for_each(|l, _| panic!("{l} stayed"));
        assert_eq!(all.insert(series[1].as_ref(), &exemplar(9, 1.0, "t")), 0);
    }
}
