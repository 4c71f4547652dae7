//! Rates with Prometheus' extrapolation, split in what depends on timestamps and what depends on values.

/// What the timestamps of one window contribute; the same for all series on a timestamp vector.
/// Times in units of the timestamps.
#[derive(Clone, Copy, Debug)]
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

/// The extrapolation of the window `(end - width, end]` that holds samples `from..to`; `None` for fewer than two.
pub fn extrapolation(ts: &[i64], (from, to): (u32, u32), end: i64, width: i64) -> Option<Extrapolation> {
    let window = ts.get(from as usize..to as usize)?;
    let (first, last) = match window {
        [first, .., last] => (*first, *last),
        _ => return None,
    };
    let start = end.saturating_sub(width);
    let sampled = last.saturating_sub(first) as f64;
    let average = sampled / (window.len() - 1) as f64;
    let threshold = average * 1.1;
    let clip = |gap: f64| if gap >= threshold { average / 2.0 } else { gap };
    Some(Extrapolation {
        from,
        to,
        sampled,
        to_start: clip(first.saturating_sub(start) as f64),
        to_end: clip(end.saturating_sub(last) as f64),
    })
}

impl Extrapolation {
    /// `change` is last minus first value with resets added back, `first` the first value, `width_seconds` the
    /// width of the window.
    pub fn apply(&self, kind: RateKind, change: f64, first: f64, width_seconds: f64) -> f64 {
        let mut to_start = self.to_start;
        if kind.is_counter() && change > 0.0 && first >= 0.0 {
            // A counter starts at zero at the earliest.
            to_start = to_start.min(self.sampled * (first / change));
        }
        let mut factor = (self.sampled + to_start + self.to_end) / self.sampled;
        if kind == RateKind::Rate {
            factor /= width_seconds;
        }
        change * factor
    }
}

/// Last minus first value of a window; for counters what was lost in resets is added back.
/// `resets`: whether the series has any reset at all, so that most windows need no walk.
pub fn change(values: &[f64], counter: bool, resets: bool) -> f64 {
    let mut out = values[values.len() - 1] - values[0];
    if counter && resets {
        for w in values.windows(2) {
            if w[1] < w[0] {
                out += w[0];
            }
        }
    }
    out
}

pub fn has_resets(values: &[f64]) -> bool {
    values.windows(2).any(|w| w[1] < w[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(kind: RateKind, ts: &[i64], vs: &[f64], end: i64, width: i64) -> Option<f64> {
        let e = extrapolation(ts, (0, ts.len() as u32), end, width)?;
        Some(e.apply(
            kind,
            change(vs, kind.is_counter(), has_resets(vs)),
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
