use proptest::prelude::*;

use super::*;

fn arb() -> impl Strategy<Value = Directory> {
    let piece = (any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(len, raw_len, crc32c)| PieceMeta {
        len,
        raw_len,
        crc32c,
    });
    let run = (0u32..50, 1u32..1000, any::<(i64, i64)>(), any::<u64>());
    let page = (piece.clone(), piece.clone(), piece, prop::collection::vec(run, 1..6));
    prop::collection::vec(page, 0..5).prop_map(|pages| {
        let mut d = Directory::default();
        let mut offset = 0;
        for (keys, meta, lines, mut runs) in pages {
            runs.sort_by_key(|r| r.0);
            runs.dedup_by_key(|r| r.0);
            let start = d.runs.len() as u32;
            let mut first = 0;
            for (stream, rows, (a, b), bytes) in runs {
                d.runs.push(Run {
                    stream,
                    first,
                    rows,
                    ts_min: a.min(b),
                    ts_max: a.max(b),
                });
                d.line_bytes.push(bytes);
                first += rows;
            }
            let page = PageMeta {
                offset,
                keys,
                meta,
                lines,
                runs: start..d.runs.len() as u32,
            };
            offset = page.end();
            d.pages.push(page);
        }
        d
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn round_trip(d in arb()) {
        prop_assert_eq!(Directory::decode(&d.encode(), 50).expect("decodes"), d);
    }

    #[test]
    fn damage_is_an_error_or_harmless(d in arb(), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let mut bytes = d.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(d) = Directory::decode(&bytes, 50) {
            prop_assert!(d.runs.iter().all(|r| r.stream < 50 && r.rows > 0 && r.ts_min <= r.ts_max));
        }
        prop_assert!(Directory::decode(&bytes[..at], 50).is_err());
    }
}

#[test]
fn a_stream_that_is_not_there_is_refused() {
    let mut d = Directory::default();
    d.runs.push(Run {
        stream: 3,
        first: 0,
        rows: 1,
        ts_min: 0,
        ts_max: 0,
    });
    d.line_bytes.push(0);
    d.pages.push(PageMeta {
        offset: 0,
        keys: PieceMeta::default(),
        meta: PieceMeta::default(),
        lines: PieceMeta::default(),
        runs: 0..1,
    });
    assert!(Directory::decode(&d.encode(), 4).is_ok());
    assert!(Directory::decode(&d.encode(), 3).is_err());
}
