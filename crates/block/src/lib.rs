//! The block layer, shared by the three engines: the container, the manifest, the life of a head from the first
//! record to a committed block, compaction, retention and garbage. It does not know what a section holds.

pub mod engine;
pub mod meta;
pub mod shard;

pub use engine::{BlockDraft, BlockFile, BlockHandle, Engine, FileBody, Head, Merge};
pub use meta::{BlockMeta, FileMeta};
pub use shard::{AppendTicket, Shard, ShardOptions, View};
