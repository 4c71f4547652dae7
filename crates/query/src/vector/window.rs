//! Which samples each step looks at.

/// For every step the samples in the left-open window `(end - width, end]`, as a half-open index range.
/// `ts` ascends; `ends` may come in any order, ascending ones are found in one pass.
pub fn bounds(ts: &[i64], ends: impl Iterator<Item = i64>, width: i64) -> Vec<(u32, u32)> {
    let (mut from, mut to) = (0usize, 0usize);
    let mut last_end = i64::MIN;
    ends.map(|end| {
        let start = end.saturating_sub(width);
        if end < last_end {
            (from, to) = (0, 0);
        }
        last_end = end;
        to += advance(&ts[to..], end);
        from += advance(&ts[from..], start);
        (from.min(to) as u32, to as u32)
    })
    .collect()
}

/// How many leading timestamps are at or before `t`. Steps usually move by a few samples, so a gallop is
/// faster than a search over the rest.
fn advance(ts: &[i64], t: i64) -> usize {
    let mut high = 1;
    while high <= ts.len() && ts[high - 1] <= t {
        high *= 2;
    }
    let low = high / 2;
    low + ts[low..high.min(ts.len())].partition_point(|x| *x <= t)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn left_open_right_closed() {
        let ts: Vec<i64> = (0..10).map(|i| i * 10).collect();
        assert_eq!(
            bounds(&ts, [20, 25, 30, 200].into_iter(), 20),
            [(1, 3), (1, 3), (2, 4), (10, 10)]
        );
        assert_eq!(bounds(&ts, [0, -1].into_iter(), 5), [(0, 1), (0, 0)]);
        assert_eq!(bounds(&[], [0].into_iter(), 5), [(0, 0)]);
        assert_eq!(bounds(&ts, [90].into_iter(), i64::MAX), [(0, 10)]);
        assert_eq!(bounds(&ts, [i64::MIN].into_iter(), 5), [(0, 0)]);
        assert_eq!(bounds(&ts, [50].into_iter(), 0), [(6, 6)]);
    }

    #[test]
    fn agrees_with_a_search() {
        let ts: Vec<i64> = (0..500).map(|i: i64| i * 7 + (i * i) % 5).collect();
        for width in [1, 3, 10, 100, 5000] {
            let ends: Vec<i64> = (0..200).map(|i| i * 19 - 50).collect();
            for (end, (a, b)) in ends.iter().zip(bounds(&ts, ends.iter().copied(), width)) {
                let want: Vec<i64> = ts.iter().copied().filter(|t| *t > end - width && *t <= *end).collect();
                assert_eq!(&ts[a as usize..b as usize], want, "end {end} width {width}");
            }
        }
    }
}
