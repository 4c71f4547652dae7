//! From label predicates to series: symbols, postings and the resolution of matchers.
//!
//! An index numbers the label sets it was given with dense ordinals (`u32`, from 0, in the order given) and answers
//! which ordinals satisfy a list of matchers. There are two of them with the same answers:
//!
//! - [`MemIndex`], mutable, for heads: label sets are added one by one and never removed.
//! - [`BlockIndex`], immutable bytes, written by [`IndexBuilder`]: opened with one linear check and no decoding;
//!   lookups are binary searches. Format: docs/formats/index.md.
//!
//! Both implement [`LabelIndex`]; [`select()`] is written once on top of it. A missing label has the value `""`, in every
//! matcher: `a=""`, `a!="x"` and `a=~".*"` hold for label sets without `a`.
//!
//! Invariants: an ordinal's label set never changes; postings are exact (no false positives); a block index that
//! [`BlockIndex::open`] accepted never makes a lookup panic, whatever its bytes are, though a lookup may still find
//! a posting list or a label set corrupt and say so.
//!
//! This crate knows no samples, no lines and no I/O.

pub mod block;
pub mod builder;
pub mod interner;
pub mod mem;
pub mod postings;
pub mod select;
pub mod stats;

pub use block::BlockIndex;
pub use builder::IndexBuilder;
pub use croaring::Bitmap;
pub use interner::Interner;
pub use mem::MemIndex;
pub use postings::{PostingList, PostingsRef};
pub use select::{LabelIndex, label_names, label_values, select};
pub use stats::IndexStats;
