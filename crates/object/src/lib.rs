//! Object storage as the rest of Trilith sees it: immutable objects, created if absent, read by range.
//!
//! ```text
//!   get_range(s)              put_if_absent, upload(_file), get, head, list, delete
//!       │                                     │
//!   cache      memory, then disk              │
//!   ranges     neighbours merged, long ones cut
//!   single_flight  equal reads become one     │
//!       └──────────────┬──────────────────────┘
//!   retry      permit, time limit, jittered pause, counters
//!       │
//!   object_store   local folder | S3 | GCS | Azure | memory
//! ```
//!
//! Invariants:
//! - An object never changes under its name, so cached ranges never go stale. The one coordination primitive is the
//!   conditional create; [`Store::probe`] refuses a backend that gets it wrong.
//! - A body has exactly the length asked for. A cut answer is asked for again and never returned or cached.
//! - Memory is bounded by the options: requests in flight × their size, plus the cache, plus what callers hold.
//! - Absence is an answer (`None`, or fine for a delete), but a missing bucket or folder is an error: a store that is
//!   gone must not look empty.
//!
//! Crash behaviour: an object is there whole or not at all. Local files are written beside their name, synced, and
//! linked to it (create) or renamed (upload); a crash can leave `name#1` behind, which no list shows and which a start
//!   removes a day later. A multipart
//! upload that dies leaves invisible parts in the bucket. A write whose answer was lost may have been applied, or be
//! applied later: see [`Store::put_if_absent`].
//!
//! Why it is so: docs/adr/0010-object-cache-and-retry.md.

mod cache;
pub mod conformance;
mod error;
mod open;
mod options;
mod probe;
mod ranges;
mod retry;
mod single_flight;
mod staging;
mod stats;
mod store;
mod upload;

pub use open::install_tls_provider;
pub use options::{DiskCacheOptions, ProviderSettings, StoreOptions};
pub use stats::{Operation, OperationStats, Stats, StatsSnapshot};
pub use store::{ObjectInfo, PutOutcome, Store};
