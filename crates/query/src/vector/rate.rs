//! Rates with Prometheus' extrapolation, split in what depends on timestamps and what depends on values.
//!
//! Arithmetic is in seconds and in upstream's order, so that comparisons at the thresholds fall the same way.

/// What the timestamps of one window contribute; the same for all series on a timestamp vector. Seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Extrapolation {
    /// Half-open sample range.
    pub from: u32,
    pub to: u32,
    sampled: f64,
    to_start: f64,
    to_end: f64,
}

/// Which of the three functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateKind {
    /// Per second, counter.
    Rate,
    /// Counter.
    Increase,
    /// Gauge.
    Delta,
}

impl RateKind {
    pub fn is_counter(self) -> bool {
        self != RateKind::Delta
    }
}

/// The extrapolation of the window `(end - width, end]` (ms) that holds samples `from..to`; `None` for fewer than two.
pub fn extrapolation(ts: &[i64], (from, to): (u32, u32), end: i64, width: i64) -> Option<Extrapolation> {
    let window = ts.get(from as usize..to as usize)?;
    let [first, .., last] = window else {
        return None;
    };
    let start = end.saturating_sub(width);
    let sampled = seconds(*first, *last);
    let average = sampled / (window.len() - 1) as f64;
    Some(Extrapolation {
        from,
        to,
        sampled,
        to_start: clip(seconds(start, *first), average),
        to_end: clip(seconds(*last, end), average),
    })
}

/// The same when counting is known to have begun at `begin`, inside the window and before its first sample: the
/// left edge is exact, one sample is enough, and the change counts from zero. `ts`: the samples of the window.
pub fn extrapolation_since(begin: i64, ts: &[i64], end: i64) -> Option<Extrapolation> {
    let (first, last) = (*ts.first()?, *ts.last()?);
    // A single sample tells no distance, and so nothing is added on the right.
    let average = match ts.len() {
        1 => 0.0,
        n => seconds(first, last) / (n - 1) as f64,
    };
    Some(Extrapolation {
        from: 0,
        to: ts.len() as u32,
        sampled: seconds(begin, last),
        to_start: 0.0,
        to_end: clip(seconds(last, end), average),
    })
}

fn seconds(from_ms: i64, to_ms: i64) -> f64 {
    to_ms.saturating_sub(from_ms) as f64 / 1000.0
}

/// A gap at an edge is bridged when a sample would be due there, otherwise the series ends half-way.
fn clip(gap: f64, average: f64) -> f64 {
    if gap >= average * 1.1 { average / 2.0 } else { gap }
}

impl Extrapolation {
    /// What the change over the samples is multiplied by. `change` is last minus first value with resets added back,
    /// `first` the first value (of a histogram: its count), `width_seconds` the width of the window.
    pub fn factor(&self, kind: RateKind, change: f64, first: f64, width_seconds: f64) -> f64 {
        let mut to_start = self.to_start;
        if kind.is_counter() && change > 0.0 && first >= 0.0 {
            // A counter starts at zero at the earliest.
            let to_zero = self.sampled * (first / change);
            if to_zero < to_start {
                to_start = to_zero;
            }
        }
        let mut factor = 1.0;
        if self.sampled != 0.0 {
            factor = (self.sampled + to_start + self.to_end) / self.sampled;
        }
        if kind == RateKind::Rate {
            factor /= width_seconds;
        }
        factor
    }

    pub fn apply(&self, kind: RateKind, change: f64, first: f64, width_seconds: f64) -> f64 {
        change * self.factor(kind, change, first, width_seconds)
    }
}

/// Last minus first value of the samples `from..to`, at least one; what was lost in resets is added back. `resets`: those
/// of the series from [`resets`], or none for a gauge.
pub fn change(values: &[f64], (from, to): (u32, u32), resets: &[u32]) -> f64 {
    let mut out = values[to as usize - 1] - values[from as usize];
    if !resets.is_empty() {
        // A reset at the first sample was lost before the window.
        let first = resets.partition_point(|at| *at <= from);
        for at in resets[first..].iter().take_while(|at| **at < to) {
            out += values[*at as usize - 1];
        }
    }
    out
}

/// Where a counter decreases: the places of the values after.
pub fn resets(values: &[f64]) -> Vec<u32> {
    if !has_resets(values) {
        return Vec::new();
    }
    let decreases = values.windows(2).zip(1u32..).filter(|(w, _)| w[1] < w[0]);
    decreases.map(|(_, at)| at).collect()
}

fn has_resets(values: &[f64]) -> bool {
    // In blocks without an early way out, so that many neighbours are compared at once.
    const BLOCK: usize = 64;
    let Some(after) = values.get(1..) else {
        return false;
    };
    let mut blocks = values.chunks(BLOCK).zip(after.chunks(BLOCK));
    blocks.any(|(a, b)| a.iter().zip(b).fold(false, |any, (a, b)| any | (b < a)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(kind: RateKind, ts: &[i64], vs: &[f64], end: i64, width: i64) -> Option<f64> {
        let e = extrapolation(ts, (0, ts.len() as u32), end, width)?;
        Some(e.apply(
            kind,
            change(
                vs,
                (0, vs.len() as u32),
                &if kind.is_counter() { resets(vs) } else { Vec::new() },
            ),
            vs[0],
            width as f64 / 1000.0,
        ))
    }

    #[test]
    fn extrapolates_like_prometheus() {
        let ts = [60_000, 120_000, 180_000, 240_000, 300_000];
        // Full coverage but for the open left end, which is extrapolated by one whole interval.
        assert_eq!(
            run(
                RateKind::Increase,
                &ts,
                &[100.0, 160.0, 220.0, 280.0, 340.0],
                300_000,
                300_000
            ),
            Some(300.0)
        );
        assert_eq!(
            run(
                RateKind::Rate,
                &ts,
                &[100.0, 160.0, 220.0, 280.0, 340.0],
                300_000,
                300_000
            ),
            Some(1.0)
        );
        // A reset in the middle.
        assert_eq!(
            run(
                RateKind::Increase,
                &ts,
                &[100.0, 160.0, 20.0, 80.0, 140.0],
                300_000,
                300_000
            ),
            Some(250.0)
        );
        assert_eq!(
            run(RateKind::Delta, &ts, &[4.0, 3.0, 2.0, 1.0, 0.0], 300_000, 300_000),
            Some(-5.0)
        );
        // The zero point bounds the extrapolation to the left.
        assert_eq!(
            run(
                RateKind::Increase,
                &ts,
                &[0.0, 60.0, 120.0, 180.0, 240.0],
                300_000,
                300_000
            ),
            Some(240.0)
        );
        assert_eq!(run(RateKind::Rate, &ts[..1], &[1.0], 300_000, 300_000), None);
    }

    #[test]
    fn resets_are_found_anywhere() {
        for n in [0, 1, 2, 63, 64, 65, 66, 128, 129, 200] {
            let up: Vec<f64> = (0..n).map(f64::from).collect();
            assert!(!has_resets(&up), "{n}");
            for at in 1..up.len() {
                let mut down = up.clone();
                down[at] = -1.0;
                assert!(has_resets(&down), "{n} {at}");
            }
        }
        assert!(!has_resets(&[1.0, f64::NAN, 0.0]));
    }

    #[test]
    fn changes_add_what_was_lost() {
        let vs = [5.0, 7.0, 1.0, 4.0, 0.0, 3.0];
        let lost = resets(&vs);
        assert_eq!(lost, [2, 4]);
        assert_eq!(change(&vs, (0, 6), &lost), -2.0 + 7.0 + 4.0);
        assert_eq!(change(&vs, (1, 4), &lost), -3.0 + 7.0);
        assert_eq!(change(&vs, (2, 4), &lost), 3.0);
        assert_eq!(change(&vs, (0, 6), &[]), -2.0);
        assert_eq!(change(&vs, (4, 5), &lost), 0.0);
    }

    #[test]
    fn far_edges_count_half_an_interval() {
        // Gap of 150 s to the start, 100 s to the end, average interval 10 s: 5 s at each side.
        let got = run(
            RateKind::Delta,
            &[150_000, 160_000, 170_000],
            &[0.0, 1.0, 2.0],
            270_000,
            270_000,
        );
        assert_eq!(got, Some(2.0 * (20.0 + 5.0 + 5.0) / 20.0));
    }
}
