//! An engine of the simplest kind, for tests: a record is (lsn, value), its time in milliseconds is the value.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use object_store::memory::InMemory;
use parking_lot::Mutex;
use trilith_codec::Reader;
use trilith_model::rng::Rng;
use trilith_model::{Error, Result, Signal, TenantId, TimeRange};
use trilith_object::{Store, StoreOptions};
use trilith_testkit::SimClock;
use trilith_testkit::faulty::FaultyStore;

use crate::container::{Compression, Container, ContainerWriter};
use crate::engine::{BlockDraft, BlockHandle, Engine, Head, Merge};
use crate::shard::{Shard, ShardOptions, View};

pub(crate) const KIND: u16 = 1;
pub(crate) const FILE: &str = "data";

/// (lsn, value)
pub(crate) type Record = (u64, u64);

#[derive(Default)]
pub(crate) struct ToyHead(pub(crate) Mutex<BTreeMap<String, Vec<Record>>>);

impl ToyHead {
    pub(crate) fn apply(&self, tenant: &str, record: Record) {
        self.0.lock().entry(tenant.to_owned()).or_default().push(record);
    }
}

impl Head for ToyHead {
    fn bytes(&self) -> u64 {
        self.items() * 16
    }

    fn items(&self) -> u64 {
        self.0.lock().values().map(|r| r.len() as u64).sum()
    }
}

#[derive(Default)]
pub(crate) struct Toy {
    /// `cut` fails as long as this is set.
    pub(crate) broken: AtomicBool,
}

fn draft(tenant: &str, mut records: Vec<Record>) -> Result<BlockDraft> {
    records.sort_unstable();
    let mut time = TimeRange::EMPTY;
    let mut bytes = Vec::new();
    for (lsn, value) in &records {
        time.extend(*value as i64);
        bytes.extend_from_slice(&lsn.to_le_bytes());
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    let mut file = ContainerWriter::in_memory();
    file.section(KIND, 0, &bytes, Compression::Zstd(1))?;
    Ok(BlockDraft {
        tenant: TenantId::new(tenant)?,
        time,
        items: records.len() as u64,
        groups: 1,
        files: vec![file.finish(FILE)?],
        facts: BTreeMap::new(),
    })
}

pub(crate) async fn read_block(block: &BlockHandle) -> Result<Vec<Record>> {
    let bytes = Container::open(block, FILE).await?.read(KIND, 0).await?;
    let mut r = Reader::new(&bytes);
    let mut records = Vec::new();
    while !r.is_empty() {
        let record = r.u64().and_then(|lsn| Ok((lsn, r.u64()?)));
        records.push(record.map_err(|e| Error::corrupt(e.to_string()))?);
    }
    Ok(records)
}

#[async_trait]
impl Engine for Toy {
    type Head = ToyHead;

    fn signal(&self) -> Signal {
        Signal::Metrics
    }

    fn new_head(&self) -> ToyHead {
        ToyHead::default()
    }

    fn cut(&self, head: &ToyHead) -> Result<Vec<BlockDraft>> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(Error::internal("the toy is broken"));
        }
        let tenants = head.0.lock();
        tenants
            .iter()
            .map(|(tenant, records)| draft(tenant, records.clone()))
            .collect()
    }

    async fn merge(&self, job: Merge) -> Result<Vec<BlockDraft>> {
        let mut records = Vec::new();
        for input in &job.inputs {
            records.extend(read_block(input).await?);
        }
        if let Some(from) = job.keep_from {
            records.retain(|(_, value)| *value as i64 >= from);
        }
        match records.is_empty() {
            true => Ok(vec![]),
            false => Ok(vec![draft(&job.inputs[0].meta.tenant, records)?]),
        }
    }

    async fn verify(&self, block: &BlockHandle) -> Result<()> {
        read_block(block).await.map(|_| ())
    }
}

/// A store under test, what is behind it, and everything a shard needs.
pub(crate) struct World {
    pub(crate) faulty: FaultyStore,
    /// What the shard uses; faults strike here.
    pub(crate) store: Store,
    /// Past the faults.
    pub(crate) honest: Store,
    pub(crate) clock: Arc<SimClock>,
    pub(crate) rng: Arc<Rng>,
    pub(crate) options: ShardOptions,
    _scratch: tempfile::TempDir,
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        // Faults come from the script of a test; waiting for them to pass is not part of it.
        let options = StoreOptions {
            attempts_max: 1,
            backoff_min: Duration::ZERO,
            cache_memory_bytes: 0,
            ..StoreOptions::default()
        };
        let inner = Arc::new(InMemory::new());
        let faulty = FaultyStore::new(inner.clone());
        let scratch = tempfile::tempdir().expect("a temporary folder");
        World {
            store: Store::new(Arc::new(faulty.clone()), options.clone()),
            honest: Store::new(inner, options),
            faulty,
            // The stores' times come from the machine's clock, so the simulated one starts near it.
            clock: SimClock::new(trilith_model::Clock::now_ns(&trilith_model::SystemClock)),
            rng: Arc::new(Rng::seeded(seed)),
            options: ShardOptions {
                compaction_fan_in_min: 2,
                compaction_fan_in_max: 4,
                ..ShardOptions::defaults(Signal::Metrics, scratch.path())
            },
            _scratch: scratch,
        }
    }

    pub(crate) async fn open(&self, writer: &str) -> Result<Shard<Toy>> {
        Shard::open(
            Arc::new(Toy::default()),
            self.store.clone(),
            self.clock.clone(),
            self.rng.clone(),
            writer.to_owned(),
            self.options.clone(),
        )
        .await
    }

    /// Every record that a query would see, sorted, duplicates included.
    pub(crate) async fn seen(&self, view: &View<Toy>) -> Vec<Record> {
        let mut records = Vec::new();
        for head in &view.heads {
            records.extend(head.0.lock().values().flatten());
        }
        for block in view.blocks.iter() {
            let block = BlockHandle {
                store: self.honest.clone(),
                ..block.clone()
            };
            records.extend(read_block(&block).await.expect("a visible block is readable"));
        }
        records.sort_unstable();
        records
    }
}
