//! Both indexes against a scan over the label sets.

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;
use trilith_model::{Error, Labels, MatchOp, Matcher};

use crate::{BlockIndex, IndexBuilder, LabelIndex, MemIndex, label_names, label_values, select};

fn both(sets: &[Labels]) -> (MemIndex, BlockIndex, Vec<u8>) {
    let mut mem = MemIndex::new();
    let mut builder = IndexBuilder::new();
    for (i, l) in sets.iter().enumerate() {
        mem.add(i as u32, l.as_ref());
        assert_eq!(builder.add(l.as_ref()).unwrap(), i as u32);
    }
    let bytes = builder.finish().unwrap();
    let block = BlockIndex::open(Bytes::from(bytes.clone())).unwrap();
    (mem, block, bytes)
}

fn scan(sets: &[Labels], matchers: &[Matcher]) -> Vec<u32> {
    let holds = |l: &Labels| matchers.iter().all(|m| m.matches(l.get(&m.name).unwrap_or("")));
    (0u32..).zip(sets).filter(|(_, l)| holds(l)).map(|(i, _)| i).collect()
}

fn check(sets: &[Labels], matchers: &[Matcher]) {
    let (mem, block, _) = both(sets);
    let expected = scan(sets, matchers);
    for index in [&mem as &dyn LabelIndex, &block] {
        let got = select(index, matchers, &|| Ok(())).unwrap();
        assert_eq!(got.to_vec(), expected, "{matchers:?}");
        let names: BTreeSet<String> = expected
            .iter()
            .flat_map(|&i| sets[i as usize].iter().map(|l| l.name.to_owned()))
            .collect();
        let names: Vec<String> = names.into_iter().collect();
        assert_eq!(label_names(index, Some(&got), 0, &|| Ok(())).unwrap(), names);
        for name in names.iter().map(String::as_str).chain(["absent"]) {
            let values: BTreeSet<String> = expected
                .iter()
                .filter_map(|&i| sets[i as usize].get(name).map(str::to_owned))
                .collect();
            let values: Vec<String> = values.into_iter().collect();
            assert_eq!(label_values(index, name, Some(&got), 0, &|| Ok(())).unwrap(), values);
            let one = label_values(index, name, Some(&got), 1, &|| Ok(())).unwrap();
            assert_eq!(one, values[..values.len().min(1)]);
        }
    }
}

fn matcher(op: MatchOp, name: &str, value: &str) -> Matcher {
    Matcher::new(op, name, value).unwrap()
}

fn sample() -> Vec<Labels> {
    let mut sets = Vec::new();
    for job in ["api", "db", "web"] {
        for i in 0..40 {
            let instance = format!("h{i}");
            let mut pairs = vec![("__name__", "up"), ("job", job), ("instance", instance.as_str())];
            if i % 3 == 0 {
                pairs.push(("zone", if i % 2 == 0 { "a" } else { "bé" }));
            }
            sets.push(Labels::from_pairs(pairs));
        }
    }
    sets.push(Labels::empty());
    sets
}

#[test]
fn a_missing_label_is_an_empty_value() {
    let sets = sample();
    use MatchOp::{Eq, Ne, NotRe, Re};
    for (op, value) in [
        (Eq, "a"),
        (Eq, ""),
        (Eq, "nope"),
        (Ne, "a"),
        (Ne, ""),
        (Ne, "nope"),
        (Re, "a|b.*"),
        (Re, "a|"),
        (Re, ".*"),
        (Re, ".+"),
        (Re, "b.*"),
        (Re, "a|bé"),
        (Re, ""),
        (Re, "(a)?"),
        (NotRe, "a|b.*"),
        (NotRe, "a|"),
        (NotRe, ".*"),
        (NotRe, ".+"),
        (NotRe, "b.*"),
        (NotRe, "a|bé"),
        (NotRe, ""),
    ] {
        for name in ["zone", "absent"] {
            check(&sets, &[matcher(op, name, value)]);
            check(&sets, &[matcher(Eq, "job", "db"), matcher(op, name, value)]);
            check(&sets, &[matcher(NotRe, "job", "db|web"), matcher(op, name, value)]);
        }
    }
    check(&sets, &[]);
}

#[test]
fn an_empty_index_answers() {
    check(&[], &[matcher(MatchOp::Eq, "a", "b")]);
    check(&[], &[]);
}

#[test]
fn label_sets_come_back() {
    let sets = sample();
    let (_, block, bytes) = both(&sets);
    for (i, l) in sets.iter().enumerate() {
        assert_eq!(&block.labels(i as u32).unwrap(), l);
    }
    assert!(block.labels(sets.len() as u32).is_err());
    let (_, _, again) = both(&sets);
    assert_eq!(bytes, again, "the same sets give the same bytes");
}

#[test]
fn a_long_scan_can_be_stopped() {
    let sets: Vec<Labels> = (0..5000).map(|i| Labels::from_pairs([("i", i.to_string())])).collect();
    let (mem, block, _) = both(&sets);
    for index in [&mem as &dyn LabelIndex, &block] {
        let stop = || Err(Error::internal("stop"));
        assert!(select(index, &[matcher(MatchOp::Re, "i", "x.*y|.*7")], &stop).is_err());
    }
}

#[test]
fn every_flipped_byte_is_survived() {
    let (_, _, bytes) = both(&sample()[..30]);
    for cut in 0..bytes.len() {
        assert!(
            BlockIndex::open(Bytes::copy_from_slice(&bytes[..cut])).is_err(),
            "cut at {cut}"
        );
    }
    for at in 0..bytes.len() {
        for mask in [1u8, 0x80, 0xff] {
            let mut b = bytes.clone();
            b[at] ^= mask;
            crate::block::fuzz(&b);
        }
    }
}

fn arb_matcher() -> impl Strategy<Value = Matcher> {
    let op = prop_oneof![
        Just(MatchOp::Eq),
        Just(MatchOp::Ne),
        Just(MatchOp::Re),
        Just(MatchOp::NotRe)
    ];
    let value =
        proptest::sample::select(vec!["", "[ab]{1,2}", ".*", ".+", "a.*", "a|b", "a|", "x"]).prop_map(String::from);
    (op, "[abc]", value).prop_map(|(op, name, value)| {
        let literal = value.replace(['[', ']', '{', '}', ','], "");
        match op {
            MatchOp::Eq | MatchOp::Ne => matcher(op, &name, &literal),
            _ => matcher(op, &name, &value),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn agrees_with_a_scan(
        sets in proptest::collection::vec(proptest::collection::btree_map("[abc]", "[ab]{0,2}", 0..3), 0..60),
        matchers in proptest::collection::vec(arb_matcher(), 0..3),
    ) {
        let sets: Vec<Labels> = sets.into_iter().map(Labels::from_pairs).collect();
        check(&sets, &matchers);
    }

    #[test]
    fn hostile_bytes_do_not_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), header in any::<bool>()) {
        if header && bytes.len() > 8 {
            bytes[..5].copy_from_slice(b"TLIX\x01");
        }
        crate::block::fuzz(&bytes);
    }
}
