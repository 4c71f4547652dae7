//! Shards against a toy engine, a store with faults and a log that survives crashes.

mod life;
mod random;

use super::*;
use crate::toy::{Record, Toy, World};

/// Appends as ingest does: log, durable, apply, acknowledge.
fn append(shard: &Shard<Toy>, tenant: &str, record: Record) -> Result<()> {
    let (ticket, ()) = shard.begin(|| Ok((record.0, ())))?;
    ticket.head().apply(tenant, record);
    Ok(())
}
