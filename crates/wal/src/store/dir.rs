//! Segments as files of one local directory.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::{SegmentReader, SegmentStore, SegmentWriter, StoredFile};

const SMALL_BYTES_MAX: u64 = 4096;

/// Holds a lock on `<dir>/lock` as long as it lives, so that two processes never append to one log.
#[derive(Debug)]
pub struct DirStore {
    dir: PathBuf,
    _lock: Option<File>,
}

impl DirStore {
    /// Creates the directory when it is missing.
    ///
    /// # Errors
    /// `WouldBlock` when another process or another log of this process uses the directory; what the file system says.
    pub fn open(dir: &Path) -> io::Result<DirStore> {
        fs::create_dir_all(dir)?;
        if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
            // The new directory's own name must survive too. Not every parent may be opened; then its owner made it.
            let _ = sync_dir(parent);
        }
        let lock = match OpenOptions::new().create(true).append(true).open(dir.join("lock")) {
            Ok(file) => {
                match file.try_lock() {
                    Ok(()) => {}
                    Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
                    Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => {}
                    Err(TryLockError::Error(e)) => return Err(e),
                }
                Some(file)
            }
            // Where nothing can be written nothing can be broken; what is there can still be replayed.
            Err(e) if e.kind() == io::ErrorKind::ReadOnlyFilesystem => None,
            Err(e) => return Err(e),
        };
        Ok(DirStore {
            dir: dir.to_owned(),
            _lock: lock,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// A name is durable when its directory is.
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

impl SegmentStore for DirStore {
    fn list(&self) -> io::Result<Vec<StoredFile>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            files.push(StoredFile {
                name,
                bytes: entry.metadata()?.len(),
            });
        }
        Ok(files)
    }

    fn create(&self, name: &str, header: &[u8]) -> io::Result<Box<dyn SegmentWriter>> {
        let path = self.path(name);
        let mut file = OpenOptions::new().append(true).create_new(true).open(&path)?;
        let made = file
            .write_all(header)
            .and_then(|()| file.sync_all())
            .and_then(|()| sync_dir(&self.dir));
        if let Err(e) = made {
            // It holds no record; when even this fails, the next start finds a file without a valid header.
            let _ = fs::remove_file(&path);
            return Err(e);
        }
        Ok(Box::new(DirWriter { file }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn SegmentReader>> {
        let file = File::open(self.path(name))?;
        let bytes = file.metadata()?.len();
        Ok(Box::new(DirReader { file, bytes }))
    }

    fn truncate(&self, name: &str, bytes: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.path(name))?;
        file.set_len(bytes)?;
        file.sync_all()
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => sync_dir(&self.dir),
        }
    }

    fn read_small(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.path(name)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut bytes = Vec::new();
        file.take(SMALL_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn write_small(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.path(&format!("{name}.tmp"));
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, self.path(name))?;
        sync_dir(&self.dir)
    }
}

struct DirWriter {
    file: File,
}

impl SegmentWriter for DirWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)?;
        self.file.sync_all()
    }
}

struct DirReader {
    file: File,
    bytes: u64,
}

impl SegmentReader for DirReader {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.file.seek(SeekFrom::Start(offset))?;
        let mut filled = 0;
        while filled < buf.len() {
            match self.file.read(&mut buf[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(filled)
    }
}
