//! Where segments live. The log above it frames, groups and decides; a store only keeps bytes.
//!
//! Calls block: they are made from the log's own thread, from `open` and from replay threads. A store on objects
//! maps `sync` to one immutable object per group under the segment's name.

mod dir;
mod memory;

use std::io;

pub use dir::DirStore;
pub use memory::{Faults, MemoryStore};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    pub name: String,
    pub bytes: u64,
}

/// The contract of a place for segments. Names are plain file names.
pub trait SegmentStore: Send + Sync + 'static {
    /// Everything that is there, in no particular order; also what the log did not put there.
    fn list(&self) -> io::Result<Vec<StoredFile>>;

    /// Creates a segment with `header` as its first bytes. Name and header are durable on return; `AlreadyExists` when
    /// the name is taken. After an error nothing or a useless remnant is left, which the store tries to remove.
    fn create(&self, name: &str, header: &[u8]) -> io::Result<Box<dyn SegmentWriter>>;

    fn open(&self, name: &str) -> io::Result<Box<dyn SegmentReader>>;

    /// Shortens a closed segment and makes all that remains durable, also when nothing is taken away.
    fn truncate(&self, name: &str, bytes: u64) -> io::Result<()>;

    /// Deleting what is not there is fine. Durable on return.
    fn delete(&self, name: &str) -> io::Result<()>;

    /// A small file other than a segment; `None` when absent. At most 4 KiB are read.
    fn read_small(&self, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// Creates a small file, all or nothing, durable on return.
    fn write_small(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
}

/// The open end of one segment.
pub trait SegmentWriter: Send {
    /// Appends. After an error any part of the bytes may be there.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes everything written durable. After an error nothing since the last success may be trusted, and the
    /// writer is good for nothing but `cut`.
    fn sync(&mut self) -> io::Result<()>;

    /// Takes back what was written beyond `bytes`. Durable on return.
    fn cut(&mut self, bytes: u64) -> io::Result<()>;
}

pub trait SegmentReader: Send {
    /// Bytes at open.
    fn bytes(&self) -> u64;

    /// Fills `buf` from `offset`; shorter only at the end.
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
}
