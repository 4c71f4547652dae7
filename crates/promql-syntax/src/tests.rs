mod corpus;

use crate::{SyntaxFeatures, parse};

fn refused(query: &str) -> String {
    match parse(query, &SyntaxFeatures::default()) {
        Ok(e) => panic!("{query:?} is accepted as {e}"),
        Err(e) => e.to_string(),
    }
}
