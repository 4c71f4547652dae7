//! `info` where the shared scripts do not look: keys with odd characters, many keys, and what cannot be joined.

use super::*;

fn source(series: &[(&str, &[(&str, &str)], i64)]) -> Arc<MemorySeries> {
    let source = MemorySeries::new();
    for (name, pairs, time_ms) in series {
        let all: Vec<(&str, &str)> = std::iter::once(("__name__", *name))
            .chain(pairs.iter().copied())
            .collect();
        source.push(&TenantId::anonymous(), labels(&all), [(*time_ms, 1.0)]);
    }
    source
}

fn shown(source: &Arc<MemorySeries>, query: &str) -> Vec<String> {
    let mut out = show(&run_instant(source, query, 60_000).expect(query).value);
    out.sort();
    out
}

#[test]
fn keys_are_taken_literally() {
    let odd = r"a.b+c|(d)[e]{1}^$\*?";
    let source = source(&[
        ("m", &[("instance", odd), ("job", "x|y")], 0),
        ("target_info", &[("instance", odd), ("job", "x|y"), ("v", "right")], 0),
        (
            "target_info",
            &[("instance", "aXb+c|(d)[e]{1}^$\\*?"), ("job", "x|y"), ("v", "wrong")],
            0,
        ),
    ]);
    let out = shown(&source, "info(m)");
    assert_eq!(out.len(), 1);
    assert!(out[0].contains("v=\"right\""), "{out:?}");
}

#[test]
fn more_keys_than_an_expression_names() {
    let source = MemorySeries::new();
    for i in 0..1500 {
        for name in ["m", "target_info"] {
            let instance = i.to_string();
            let of = [("__name__", name), ("instance", &instance), ("job", "j")];
            let v = [("v", &*instance)];
            let all = of.iter().chain(v.iter().filter(|_| name == "target_info")).copied();
            source.push(&TenantId::anonymous(), Labels::from_pairs(all), [(0, 1.0)]);
        }
    }
    let out = shown(
        &source,
        "count(info(m) == 1 and on (instance) label_replace(info(m), 'instance', '$1', 'v', '(.*)'))",
    );
    assert_eq!(out, ["{} 1500"]);
    assert_eq!(
        shown(&source, "count(info(m{instance='7'}, {v='8'}))"),
        Vec::<String>::new()
    );
}

#[test]
fn the_newest_of_a_key_describes() {
    let key = [("instance", "i"), ("job", "j")];
    let with = |v| [key.as_slice(), &[("v", v)]].concat();
    let (old, new) = (with("old"), with("new"));
    let newest = source(&[("m", &key, 0), ("target_info", &old, 0), ("target_info", &new, 30_000)]);
    assert_eq!(
        shown(&newest, "info(m)"),
        ["{__name__=\"m\", instance=\"i\", job=\"j\", v=\"new\"} 1"]
    );
    let equal = source(&[("m", &key, 0), ("target_info", &old, 0), ("target_info", &new, 0)]);
    let e = error_of(run_instant(&equal, "info(m)", 60_000));
    assert_eq!(e.kind, ErrorKind::Execution);
    assert!(
        e.message
            .starts_with("found duplicate series for info metric: existing {"),
        "{e}"
    );
    // Where nothing is described, nothing is in conflict.
    assert!(shown(&equal, "info(m > 1)").is_empty());
}

#[test]
fn what_cannot_be_told_apart_is_refused() {
    let key = [("instance", "i"), ("job", "j")];
    let own = [key.as_slice(), &[("v", "1")]].concat();
    let source = source(&[("m", &key, 0), ("m", &own, 0), ("target_info", &own, 0)]);
    let e = error_of(run_instant(&source, "info(m)", 60_000));
    assert_eq!(e.message, "vector cannot contain metrics with the same labelset");
    assert_eq!(shown(&source, "info(m, {w='1'})"), Vec::<String>::new());
    assert_eq!(shown(&source, "info(m{v='1'}, {w=''})").len(), 1);
}

#[test]
fn names_that_are_dropped_at_once() {
    let key = [("instance", "i"), ("job", "j")];
    let own = [key.as_slice(), &[("v", "1")]].concat();
    let source: Arc<dyn SeriesSource> = source(&[("m", &key, 0), ("target_info", &own, 0)]);
    let mut options = EvalOptions::default();
    options.features.delayed_name_removal = false;
    let ctx = context();
    let out = runtime()
        .block_on(instant(&ctx, source, "info(-m)", 60_000, &options))
        .expect("valid");
    assert_eq!(show(&out.value), ["{instance=\"i\", job=\"j\", v=\"1\"} -1"]);
}
