//! Conformance suites for the waist. Every engine runs them with its own loader; each case starts with an
//! empty store.
//!
//! ```ignore
//! waist::series::run(|data| async move {
//!     let engine = open_engine().await;
//!     for (tenant, batch) in data {
//!         engine.append(&tenant, batch).await.unwrap();
//!     }
//!     engine as Arc<dyn SeriesSource>
//! }).await;
//! ```
//!
//! An engine calls `run` once per place where data may live: all in the head, all in blocks, cut between batches.

pub mod entries;
pub mod series;
pub mod spans;

use std::sync::Arc;
use std::time::Duration;

use trilith_model::{Limits, MatchOp, Matcher, TenantId};
use trilith_query::QueryContext;

use crate::SimClock;

/// A query context of a tenant, with default limits and a standing clock.
pub fn context(tenant: &TenantId) -> QueryContext {
    QueryContext::new(
        tenant.clone(),
        Arc::new(Limits::default()),
        SimClock::new(0),
        Duration::ZERO,
    )
}

pub(crate) fn tenant(id: &str) -> TenantId {
    TenantId::new(id).expect("the suites use valid tenant ids")
}

pub(crate) fn matcher(op: MatchOp, name: &str, value: &str) -> Matcher {
    Matcher::new(op, name, value).expect("the suites use valid expressions")
}

/// Selectors over [`LABEL_SETS`] with the indexes of the sets they match.
pub(crate) const MATCHER_CASES: &[(&[(MatchOp, &str, &str)], &[usize])] = {
    use MatchOp::{Eq, Ne, NotRe, Re};
    &[
        (&[(Eq, "job", "api")], &[0, 1, 2]),
        (&[(Eq, "job", "web")], &[3]),
        (&[(Eq, "job", "none")], &[]),
        (&[(Eq, "job", "API")], &[]),
        // A missing label is the empty string, in every kind of matcher.
        (&[(Eq, "job", "api"), (Eq, "zone", "")], &[2]),
        (&[(Eq, "job", "api"), (Ne, "zone", "")], &[0, 1]),
        (&[(Eq, "job", "api"), (Ne, "zone", "a")], &[1, 2]),
        (&[(Eq, "job", "api"), (Re, "zone", "")], &[2]),
        (&[(Eq, "job", "api"), (Re, "zone", ".*")], &[0, 1, 2]),
        (&[(Eq, "job", "api"), (Re, "zone", ".+")], &[0, 1]),
        (&[(Eq, "job", "api"), (Re, "zone", "a|")], &[0, 2]),
        (&[(Eq, "job", "api"), (NotRe, "zone", "a")], &[1, 2]),
        (&[(Eq, "job", "api"), (NotRe, "zone", "a|")], &[1]),
        (&[(Eq, "job", "api"), (NotRe, "zone", ".+")], &[2]),
        (&[(Ne, "nothing", "x"), (Eq, "job", "api")], &[0, 1, 2]),
        // Expressions are anchored and see line feeds.
        (&[(Re, "job", "ap")], &[]),
        (&[(Re, "job", "ap.")], &[0, 1, 2]),
        (&[(Re, "job", "a.*")], &[0, 1, 2]),
        (&[(Re, "job", ".*b")], &[3]),
        (&[(Re, "job", "api|web")], &[0, 1, 2, 3]),
        (&[(Re, "job", "(?i)API")], &[0, 1, 2]),
        (&[(Re, "job", "line.feed")], &[4]),
        (&[(NotRe, "job", "a.*"), (Ne, "job", "")], &[3, 4]),
        // Several matchers on one label.
        (&[(Re, "job", "a.*|w.*"), (Ne, "job", "web")], &[0, 1, 2]),
        (&[(Eq, "job", "api"), (Eq, "job", "web")], &[]),
        (&[(Ne, "job", "")], &[0, 1, 2, 3, 4]),
        (&[(Eq, "umlaut", "größe")], &[5]),
        (&[(Re, "umlaut", "gr..e")], &[5]),
    ]
};

/// Every set also has `i` with its index, so that the sets are distinct.
pub(crate) const LABEL_SETS: &[&[(&str, &str)]] = &[
    &[("__name__", "m"), ("job", "api"), ("zone", "a"), ("i", "0")],
    &[("__name__", "m"), ("job", "api"), ("zone", "b"), ("i", "1")],
    &[("__name__", "n"), ("job", "api"), ("i", "2")],
    &[("__name__", "m"), ("job", "web"), ("zone", "a"), ("i", "3")],
    &[("__name__", "n"), ("job", "line\nfeed"), ("i", "4")],
    &[("__name__", "o"), ("umlaut", "größe"), ("i", "5")],
];
