//! The order of an instant vector: `sort` and its kin.

use std::borrow::Cow;
use std::cmp::Ordering;

use trilith_promql_syntax::Text;
use trilith_query::vector::Block;
use trilith_query::vector::rank::{ascending, descending};

/// By the values of the only step, NaN last; equal ones in label order.
pub(super) fn by_value(block: &mut Block, down: bool) {
    block.sort_by_labels();
    let mut order: Vec<usize> = (0..block.rows.len()).collect();
    let by = if down { descending } else { ascending };
    order.sort_by(|a, b| by(block.row(*a)[0], block.row(*b)[0]));
    block.reorder(&order);
}

/// By the values of labels in natural order, the first label first; then by the whole label sets.
pub(super) fn by_labels(block: &mut Block, labels: &[Text], down: bool) {
    let labels: Vec<_> = labels.iter().map(Text::to_str).collect();
    let mut order: Vec<usize> = (0..block.rows.len()).collect();
    order.sort_by(|a, b| {
        let (a, b) = (&block.rows[*a].labels, &block.rows[*b].labels);
        let by_label = |name: &Cow<'_, str>| natural(a.get(name).unwrap_or(""), b.get(name).unwrap_or(""));
        let order = labels.iter().map(by_label).find(|o| o.is_ne());
        let order = order.unwrap_or_else(|| a.cmp(b));
        if down { order.reverse() } else { order }
    });
    block.reorder(&order);
}

/// Runs of digits compare as numbers, all else bytewise; what is equal then, by its bytes.
///
/// A zero before a number does not count, and one before another character makes a run of that character and the digits
/// behind it. That is how Prometheus' order has it. Runs do not depend on the other string, so the order is total.
fn natural(a: &str, b: &str) -> Ordering {
    let (a_all, b_all) = (a.as_bytes(), b.as_bytes());
    let (mut a, mut b) = (a_all, b_all);
    loop {
        match (a.first(), b.first()) {
            (Some(x), Some(y)) if x.is_ascii_digit() && y.is_ascii_digit() => {
                let (n, a_rest) = number(a);
                let (m, b_rest) = number(b);
                let order = n.len().cmp(&m.len()).then_with(|| n.cmp(m));
                if order.is_ne() {
                    return order;
                }
                (a, b) = (a_rest, b_rest);
            }
            (Some(x), Some(y)) if x == y => (a, b) = (&a[1..], &b[1..]),
            (None, None) => return a_all.cmp(b_all),
            (x, y) => return x.cmp(&y),
        }
    }
}

/// A number without its leading zeros, and what follows.
fn number(mut text: &[u8]) -> (&[u8], &[u8]) {
    while let [b'0', rest @ ..] = text
        && !rest.is_empty()
    {
        text = rest;
    }
    let digits = text[1..].iter().take_while(|c| c.is_ascii_digit()).count();
    text.split_at(1 + digits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_count_as_numbers() {
        for (small, large) in [
            ("node2", "node10"),
            ("", "a"),
            ("a", "a1"),
            ("1.9.3", "1.10.1"),
            ("v01", "v2"),
            ("a1b2", "a1b10"),
            ("10", "a"),
            ("0", "1"),
            ("007", "8"),
            ("01", "1"),
        ] {
            assert_eq!(natural(small, large), Ordering::Less, "{small} {large}");
            assert_eq!(natural(large, small), Ordering::Greater, "{large} {small}");
        }
        assert_eq!(natural("node1", "node1"), Ordering::Equal);
    }

    proptest! {
        #[test]
        fn the_order_is_total(mut texts in prop::collection::vec("[0-2a./]{0,5}", 3)) {
            texts.sort_by(|a, b| natural(a, b));
            for i in 0..3 {
                for j in i..3 {
                    prop_assert_ne!(natural(&texts[i], &texts[j]), Ordering::Greater);
                }
            }
        }
    }
}
