//! Merging, retention and the order they happen in.
//!
//! [`planner`] decides from the manifest alone and is a pure function; [`driver`] carries a job out: merge, check,
//! upload, commit. A job that loses a race or dies leaves orphans behind and nothing else.

pub(crate) mod driver;
pub mod planner;

pub use planner::{Job, Plan, PlannerOptions, plan};
