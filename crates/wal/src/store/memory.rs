//! A disk in memory that fails on demand: for simulations and tests, here and in the engines.
//!
//! Every file has two pictures: what a reader sees now (the page cache) and what a power loss leaves. A sync
//! copies the first to the second; a failed sync copies some sectors and then calls everything clean, as Linux
//! does, so that a later successful sync proves nothing about them.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use trilith_model::rng::Rng;

use super::{SegmentReader, SegmentStore, SegmentWriter, StoredFile};

const SECTOR_BYTES: usize = 512;

/// What goes wrong from now on. The default is a healthy disk.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Bytes that all files together may have; `None` is no limit.
    pub space_bytes: Option<u64>,
    pub read_only: bool,
    /// So many of the next syncs fail.
    pub failing_syncs: u32,
    /// So many of the next cuts and truncations fail, leaving the disk as it was.
    pub failing_cuts: u32,
    /// How long a sync takes.
    pub sync_takes: Duration,
}

/// Cheap to clone; all clones are one disk.
#[derive(Clone)]
pub struct MemoryStore(Arc<Mutex<Disk>>);

struct Disk {
    files: BTreeMap<String, FileState>,
    faults: Faults,
    rng: Rng,
    /// Counts crashes: handles from before a crash are dead.
    epoch: u64,
    syncs: u64,
}

#[derive(Default)]
struct FileState {
    cached: Vec<u8>,
    durable: Vec<u8>,
    /// `cached[dirty_from..]` was not written back.
    dirty_from: usize,
}

impl FileState {
    /// Some sectors of the dirty part reach the disk, in no particular order.
    fn write_back_some(&mut self, rng: &Rng) {
        let mut at = self.dirty_from;
        while at < self.cached.len() {
            let end = (at - at % SECTOR_BYTES + SECTOR_BYTES).min(self.cached.len());
            if rng.next_u64() & 1 == 0 {
                if self.durable.len() < end {
                    self.durable.resize(end, 0);
                }
                self.durable[at..end].copy_from_slice(&self.cached[at..end]);
            }
            at = end;
        }
    }

    fn write_back(&mut self) {
        let from = self.dirty_from;
        self.durable.resize(self.durable.len().max(self.cached.len()), 0);
        self.durable[from..self.cached.len()].copy_from_slice(&self.cached[from..]);
        self.dirty_from = self.cached.len();
    }

    fn truncate(&mut self, bytes: usize) {
        self.cached.truncate(bytes);
        self.durable.truncate(bytes);
        self.dirty_from = self.dirty_from.min(bytes);
    }
}

impl MemoryStore {
    /// `seed` decides which sectors survive a crash or a failed sync.
    pub fn new(seed: u64) -> Self {
        MemoryStore(Arc::new(Mutex::new(Disk {
            files: BTreeMap::new(),
            faults: Faults::default(),
            rng: Rng::seeded(seed),
            epoch: 0,
            syncs: 0,
        })))
    }

    pub fn set_faults(&self, faults: Faults) {
        self.0.lock().faults = faults;
    }

    /// Power loss: what was not synced survives in part, and open writers are dead.
    pub fn crash(&self) {
        let mut disk = self.0.lock();
        let disk = &mut *disk;
        disk.epoch += 1;
        for file in disk.files.values_mut() {
            file.write_back_some(&disk.rng);
            file.cached.clone_from(&file.durable);
            file.dirty_from = file.cached.len();
        }
    }

    /// Successful syncs of segments so far.
    pub fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }

    /// What a reader sees.
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        self.0.lock().files.get(name).map(|f| f.cached.clone())
    }

    /// Puts a file as if it had always been there: for damaged and foreign ones.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let file = FileState {
            dirty_from: bytes.len(),
            durable: bytes.clone(),
            cached: bytes,
        };
        self.0.lock().files.insert(name.to_owned(), file);
    }

    /// Removes a file behind the log's back.
    pub fn lose(&self, name: &str) {
        self.0.lock().files.remove(name);
    }
}

impl Disk {
    fn used_bytes(&self) -> u64 {
        self.files.values().map(|f| f.cached.len() as u64).sum()
    }

    fn writable(&self) -> io::Result<()> {
        if self.faults.read_only {
            Err(io::ErrorKind::ReadOnlyFilesystem.into())
        } else {
            Ok(())
        }
    }

    fn file(&mut self, name: &str) -> io::Result<&mut FileState> {
        self.files.get_mut(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.writable()?;
        let room = self
            .faults
            .space_bytes
            .map_or(u64::MAX, |space| space.saturating_sub(self.used_bytes()));
        let fits = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        self.file(name)?.cached.extend_from_slice(&bytes[..fits]);
        if fits < bytes.len() {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.writable()?;
        if self.faults.failing_syncs > 0 {
            self.faults.failing_syncs -= 1;
            let file = self.files.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
            file.write_back_some(&self.rng);
            file.dirty_from = file.cached.len();
            return Err(io::Error::other("the device reports an input/output error"));
        }
        self.syncs += 1;
        self.file(name)?.write_back();
        Ok(())
    }

    fn truncate(&mut self, name: &str, bytes: u64) -> io::Result<()> {
        self.writable()?;
        if self.faults.failing_cuts > 0 {
            self.faults.failing_cuts -= 1;
            return Err(io::Error::other("the device reports an input/output error"));
        }
        let file = self.file(name)?;
        file.truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
        file.write_back();
        Ok(())
    }
}

impl SegmentStore for MemoryStore {
    fn list(&self) -> io::Result<Vec<StoredFile>> {
        let disk = self.0.lock();
        Ok(disk
            .files
            .iter()
            .map(|(n, f)| StoredFile {
                name: n.clone(),
                bytes: f.cached.len() as u64,
            })
            .collect())
    }

    fn create(&self, name: &str, header: &[u8]) -> io::Result<Box<dyn SegmentWriter>> {
        let mut disk = self.0.lock();
        disk.writable()?;
        if disk.files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk.files.insert(name.to_owned(), FileState::default());
        // After an error the remnant stays, to prove that it does no harm.
        disk.append(name, header)?;
        disk.sync(name)?;
        Ok(Box::new(MemoryWriter {
            store: self.clone(),
            name: name.to_owned(),
            epoch: disk.epoch,
        }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn SegmentReader>> {
        let bytes = self.read(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(MemoryReader { bytes }))
    }

    fn truncate(&self, name: &str, bytes: u64) -> io::Result<()> {
        self.0.lock().truncate(name, bytes)
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.writable()?;
        disk.files.remove(name);
        Ok(())
    }

    fn read_small(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.read(name))
    }

    fn write_small(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().writable()?;
        self.put(name, bytes.to_vec());
        Ok(())
    }
}

struct MemoryWriter {
    store: MemoryStore,
    name: String,
    epoch: u64,
}

impl MemoryWriter {
    fn on_disk<R>(&self, f: impl FnOnce(&mut Disk) -> io::Result<R>) -> io::Result<R> {
        let mut disk = self.store.0.lock();
        if disk.epoch != self.epoch {
            return Err(io::Error::other("the machine crashed"));
        }
        f(&mut disk)
    }
}

impl SegmentWriter for MemoryWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.on_disk(|disk| disk.append(&self.name, bytes))
    }

    fn sync(&mut self) -> io::Result<()> {
        let takes = self.store.0.lock().faults.sync_takes;
        if !takes.is_zero() {
            std::thread::sleep(takes);
        }
        self.on_disk(|disk| disk.sync(&self.name))
    }

    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        self.on_disk(|disk| disk.truncate(&self.name, bytes))
    }
}

struct MemoryReader {
    bytes: Vec<u8>,
}

impl SegmentReader for MemoryReader {
    fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.bytes.len());
        let n = buf.len().min(self.bytes.len() - from);
        buf[..n].copy_from_slice(&self.bytes[from..from + n]);
        Ok(n)
    }
}
