use proptest::prelude::*;

use super::*;

/// A page of streams with (time, LSN, line, metadata number), put in order.
fn build(streams: Vec<Vec<(i64, u64, Vec<u8>, u8)>>) -> (Vec<Run>, Keys, Vec<u8>) {
    let (mut runs, mut keys, mut lines, mut dict) = (Vec::new(), Keys::default(), Vec::new(), MetaDict::default());
    for (stream, mut rows) in streams.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
        rows.sort_by_key(|r| (r.0, r.1));
        runs.push(Run {
            stream: stream as u32,
            first: keys.rows() as u32,
            rows: rows.len() as u32,
            ts_min: rows[0].0,
            ts_max: rows[rows.len() - 1].0,
        });
        for (ts, lsn, line, meta) in rows {
            lines.extend_from_slice(&line);
            keys.ts.push(ts);
            keys.lsn.push(lsn);
            keys.ends.push(lines.len() as u32);
            let labels = if meta == 0 {
                Labels::empty()
            } else {
                Labels::from_pairs([("m", meta.to_string())])
            };
            keys.meta.push(dict.code(&labels));
        }
    }
    keys.dict = dict.dict;
    (runs, keys, lines)
}

fn check(runs: &[Run], keys: &Keys, lines: &[u8]) {
    let mut compressor = Compressor::new(1).expect("zstd");
    let p = encode(&mut compressor, runs, keys, lines).expect("encodes");
    let mut got = decode_keys(&p.keys, p.keys_raw, runs, p.lines_raw).expect("keys decode");
    assert_eq!((&got.ts, &got.lsn, &got.ends), (&keys.ts, &keys.lsn, &keys.ends));
    if !p.meta.is_empty() {
        decode_meta(&p.meta, p.meta_raw, &mut got).expect("metadata decodes");
    }
    for row in 0..keys.rows() {
        assert_eq!(got.metadata(row), keys.metadata(row));
    }
    assert_eq!(decode_lines(&p.lines, p.lines_raw).expect("lines decode"), lines);
}

fn arb_ts() -> impl Strategy<Value = i64> {
    prop_oneof![
        any::<i64>(),
        0i64..5,
        (0i64..1000).prop_map(|ms| ms * 1_000_000),
        Just(i64::MIN),
        Just(i64::MAX)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn round_trip(streams in prop::collection::vec(
        prop::collection::vec((arb_ts(), any::<u64>(), prop::collection::vec(any::<u8>(), 0..6), 0u8..3), 0..12), 0..5)) {
        let (runs, keys, lines) = build(streams);
        check(&runs, &keys, &lines);
    }

    #[test]
    fn damage_is_an_error_or_harmless(at in any::<prop::sample::Index>(), flip in 1u8.., rows in 1u32..9) {
        let (mut runs, keys, lines) = build(vec![(0..4).map(|i| (i, i as u64, vec![b'x'; i as usize], i as u8)).collect()]);
        let raw = encode_keys(&runs, &keys);
        let mut bad = raw.clone();
        let at = at.index(bad.len());
        bad[at] ^= flip;
        runs[0].rows = rows;
        let pack = |b: &[u8]| zstd::bulk::compress(b, 1).expect("zstd");
        if let Ok(got) = decode_keys(&pack(&bad), bad.len(), &runs, lines.len()) {
            prop_assert_eq!(got.ends.last().copied(), Some(lines.len() as u32));
            prop_assert!(got.ends.is_sorted());
        }
        prop_assert!(decode_keys(&pack(&raw), raw.len() + 1, &runs, lines.len()).is_err());
    }
}

#[test]
fn millisecond_clocks_cost_little() {
    let rows = |unit: i64| (0..1000).map(|i| (i * 7 * unit, 1, vec![], 0)).collect();
    let size = |unit| {
        let (runs, keys, _) = build(vec![rows(unit)]);
        encode_keys(&runs, &keys).len()
    };
    assert_eq!(size(1), size(1_000_000));
    assert_eq!(size(1), size(1_000_000_000));
}

#[test]
fn a_forged_length_allocates_little() {
    let packed = zstd::bulk::compress(b"abc", 1).expect("zstd");
    assert!(decode_lines(&packed, 3).is_ok());
    assert!(decode_lines(&packed, 2).is_err());
    assert!(decode_lines(&packed, 4).is_err());
    assert!(decode_lines(&packed, usize::MAX - 1).is_err());
}
