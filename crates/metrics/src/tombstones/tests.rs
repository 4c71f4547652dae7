use trilith_model::Labels;

use super::*;

fn range(min: i64, max: i64) -> TimeRange {
    TimeRange::new(min, max)
}

fn tombstone(min: i64, max: i64, selectors: &[Vec<Matcher>]) -> Arc<Tombstone> {
    Arc::new(Tombstone {
        id: Ulid::from_parts(1, min as u128),
        tenant: "t".into(),
        time_min: min,
        time_max: max,
        created_ms: 0,
        what: describe(selectors).unwrap(),
        blocks: [Ulid::nil()].into(),
    })
}

#[test]
fn descriptions_come_back() {
    let m = |op, name: &str, value: &str| Matcher::new(op, name, value).unwrap();
    let selectors = vec![
        vec![m(MatchOp::Eq, "__name__", "a\"é\n"), m(MatchOp::NotRe, "job", "x|y.*")],
        vec![m(MatchOp::Ne, "b", ""), m(MatchOp::Re, "with.dots", ".+")],
    ];
    let t = tombstone(1, 2, &selectors);
    let back = Deletion::of(&t).unwrap();
    assert_eq!((back.selectors, back.range), (selectors, range(1, 2)));
    for bad in [
        "",
        "[[[\"a\",\"~\",\"b\"]]]",
        "[[[\"a\",\"=~\",\"(\"]]]",
        "[[[\"a\",\"=\"]]]",
        "{}",
    ] {
        let t = Tombstone {
            what: bad.into(),
            ..(*t).clone()
        };
        assert!(Deletion::of(&t).is_err(), "{bad}");
    }
}

#[test]
fn masks_join_what_hits_a_series() {
    let up = vec![Matcher::eq("__name__", "up")];
    let web = vec![Matcher::eq("job", "web"), Matcher::ne("instance", "")];
    let deletions = [
        tombstone(10, 20, std::slice::from_ref(&up)),
        tombstone(21, 30, &[web.clone(), up.clone()]),
        tombstone(100, 200, std::slice::from_ref(&web)),
        tombstone(15, 18, &[up]),
    ];
    let mask = Mask(deletions.iter().map(|t| Deletion::of(t).unwrap()).collect());
    let dead = |labels: &[(&str, &str)]| mask.dead(Labels::from_pairs(labels.iter().copied()).as_ref());
    assert_eq!(dead(&[("__name__", "up")]), [range(10, 30)]);
    assert_eq!(
        dead(&[("__name__", "x"), ("job", "web"), ("instance", "i")]),
        [range(21, 30), range(100, 200)]
    );
    assert_eq!(dead(&[("__name__", "x"), ("job", "web")]), []);
    let all = dead(&[("__name__", "up"), ("job", "web"), ("instance", "i")]);
    assert_eq!(all, [range(10, 30), range(100, 200)]);
    for (t, want) in [
        (9, false),
        (10, true),
        (30, true),
        (31, false),
        (99, false),
        (150, true),
        (201, false),
    ] {
        assert_eq!(is_dead(&all, t), want, "{t}");
    }
    assert!(covers(&all, range(12, 25), TimeRange::ALL) && covers(&all, range(0, 1000), range(110, 120)));
    assert!(!covers(&all, range(12, 31), TimeRange::ALL) && !covers(&[], range(12, 13), TimeRange::ALL));
}
