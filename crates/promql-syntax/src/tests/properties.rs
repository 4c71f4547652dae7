use proptest::collection::vec;
use proptest::prelude::*;

use super::generate::{Generator, noise};
use crate::{SyntaxFeatures, fuzzing, parse};

#[test]
fn most_generated_queries_are_valid() {
    let mut valid = 0;
    for seed in 0..2000 {
        let query = Generator::new(&noise(seed)).query();
        valid += usize::from(parse(&query, &SyntaxFeatures::default()).is_ok());
    }
    assert!(valid > 1000, "{valid} of 2000");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// What is accepted prints as something that is accepted and prints the same.
    #[test]
    fn printing_is_stable(choices in vec(any::<u8>(), 0..300)) {
        fuzzing::round_trip(Generator::new(&choices).query().as_bytes());
    }

    #[test]
    fn any_text_is_survived(text in "[a-z0-9(){}\\[\\]:,=!~<>+*/^%@\"'` .#_\\\\-]{0,60}") {
        fuzzing::round_trip(text.as_bytes());
        fuzzing::parser(text.as_bytes());
    }

    /// A character less or more does no harm.
    #[test]
    fn damaged_queries_are_survived(choices in vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), with in ".?") {
        let query = Generator::new(&choices).query();
        let mut chars: Vec<char> = query.chars().collect();
        let at = at.index(chars.len());
        chars.splice(at..=at, with.chars());
        let damaged: String = chars.into_iter().collect();
        fuzzing::round_trip(damaged.as_bytes());
    }
}
