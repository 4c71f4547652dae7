//! A block on disk: one container with the pages, their directory and the stream index.
//! Format: docs/formats/logs-block.md.

pub(crate) mod reader;
pub(crate) mod writer;

/// The file of a block.
pub(crate) const FILE: &str = "logs";

/// Section kinds of the container; never reused.
pub(crate) const PAGES: u16 = 1;
pub(crate) const DIRECTORY: u16 = 2;
pub(crate) const STREAMS: u16 = 3;
