use proptest::prelude::*;

use super::*;
use crate::testing::{arb_batch, batch};

#[test]
fn extremes_and_metadata_survive() {
    let m = Labels::from_pairs([("trace_id", "x")]);
    let b = batch(&[
        (
            &[("a", "1")],
            &[
                (i64::MIN, "first", &m),
                (i64::MAX, "", &Labels::empty()),
                (0, "\u{0}\n", &m),
            ],
        ),
        (&[], &[(-1, "no labels", &m)]),
    ]);
    let payload = encode(&b).expect("encodes");
    assert_eq!(decode(&payload).expect("decodes"), b);
}

#[test]
fn streams_without_entries_are_left_out() {
    let b = batch(&[(&[("a", "1")], &[])]);
    let payload = encode(&b).expect("encodes");
    assert_eq!(decode(&payload).expect("decodes"), LogBatch::default());
}

#[test]
fn a_later_version_is_named() {
    let e = decode(&[9, 0]).expect_err("version 9 does not exist");
    assert_eq!(e.kind, trilith_model::ErrorKind::Unsupported);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn round_trip(b in arb_batch()) {
        let payload = encode(&b).expect("encodes");
        let mut want = b;
        want.streams.retain(|s| !s.entries.is_empty());
        prop_assert_eq!(decode(&payload).expect("decodes"), want);
    }

    #[test]
    fn a_damaged_payload_is_refused_or_decodes(b in arb_batch(), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let mut payload = encode(&b).expect("encodes").to_vec();
        let at = at.index(payload.len());
        payload[at] ^= flip;
        let _ = decode(&payload);
        let _ = decode(&payload[..at]);
    }
}
