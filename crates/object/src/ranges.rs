//! Which requests to send for which ranges: neighbours together, large ones in pieces.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// Requests in ascending order, without overlap, that cover every wanted range: gaps of at most `gap` are read along
/// unless the request would exceed `request_max`, longer ranges are cut. `wanted` must not contain empty ranges.
pub(crate) fn plan(wanted: &[Range<u64>], gap: u64, request_max: u64) -> Vec<Range<u64>> {
    let mut sorted: Vec<Range<u64>> = wanted.to_vec();
    sorted.sort_unstable_by_key(|r| (r.start, r.end));
    let mut requests: Vec<Range<u64>> = Vec::new();
    for mut range in sorted {
        if let Some(last) = requests.last_mut() {
            if range.end <= last.end {
                continue;
            }
            range.start = range.start.max(last.end);
            if range.start - last.end <= gap && range.end - last.start <= request_max {
                last.end = range.end;
                continue;
            }
        }
        while range.end - range.start > request_max {
            requests.push(range.start..range.start + request_max);
            range.start += request_max;
        }
        requests.push(range);
    }
    requests
}

/// Cuts a wanted range out of the bodies of the planned requests, without copying when one body has it all.
/// Each body is as long as its request.
pub(crate) fn assemble(wanted: &Range<u64>, requests: &[Range<u64>], bodies: &[Bytes]) -> Bytes {
    let first = requests.partition_point(|r| r.end <= wanted.start);
    let slice = |i: usize| {
        let (request, body) = (&requests[i], &bodies[i]);
        let from = wanted.start.max(request.start) - request.start;
        let to = wanted.end.min(request.end) - request.start;
        // In range of a body in memory, hence of usize.
        body.slice(from as usize..to as usize)
    };
    if wanted.end <= requests[first].end {
        return slice(first);
    }
    let mut out = BytesMut::with_capacity((wanted.end - wanted.start) as usize);
    let covering = requests.iter().skip(first).take_while(|r| r.start < wanted.end).count();
    (first..first + covering).for_each(|i| out.extend_from_slice(&slice(i)));
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(wanted: &[Range<u64>], gap: u64, max: u64, expected: &[Range<u64>]) {
        assert_eq!(plan(wanted, gap, max), expected, "{wanted:?}");
    }

    #[test]
    #[allow(clippy::single_range_in_vec_init)]
    fn neighbours_are_merged_and_large_ranges_cut() {
        check(&[0..10, 10..20], 0, 100, &[0..20]);
        check(&[30..40, 0..10], 20, 100, &[0..40]);
        check(&[30..40, 0..10], 19, 100, &[0..10, 30..40]);
        check(&[0..10, 5..30], 0, 15, &[0..10, 10..25, 25..30]);
        check(&[0..35], 5, 10, &[0..10, 10..20, 20..30, 30..35]);
        check(&[0..10, 2..3, 0..10], 5, 100, &[0..10]);
        check(&[u64::MAX - 5..u64::MAX], 5, 100, &[u64::MAX - 5..u64::MAX]);
        check(&[], 5, 100, &[]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_wanted_is_what_comes(
            wanted in prop::collection::vec((0u64..500, 1u64..80).prop_map(|(s, n)| s..s + n), 1..20),
            gap in 0u64..60, max in 1u64..120,
        ) {
            let object: Vec<u8> = (0..600u32).map(|i| (i % 251) as u8).collect();
            let requests = plan(&wanted, gap, max);
            for pair in requests.windows(2) {
                prop_assert!(pair[0].end <= pair[1].start);
            }
            let bodies: Vec<Bytes> = requests
                .iter()
                .map(|r| {
                    assert!(r.start < r.end && r.end - r.start <= max);
                    Bytes::copy_from_slice(&object[r.start as usize..r.end as usize])
                })
                .collect();
            for w in &wanted {
                let got = assemble(w, &requests, &bodies);
                prop_assert_eq!(&got[..], &object[w.start as usize..w.end as usize]);
            }
        }
    }
}
