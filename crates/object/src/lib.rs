//! Object storage as the rest of Trilith sees it: immutable objects, created if absent, read by range.

mod options;
mod store;

pub use options::{DiskCacheOptions, StoreOptions};
pub use store::{ObjectInfo, PutOutcome, Store};
