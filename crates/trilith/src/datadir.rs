//! The data directory: made on first use, owned by one process at a time.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use fs4::fs_std::FileExt as _;

/// Holds the directory's lock until dropped; the operating system frees it when the process dies.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// # Errors
    /// The directory cannot be made or written, or another process owns it.
    pub fn open(path: &Path) -> anyhow::Result<DataDir> {
        std::fs::create_dir_all(path)
            .with_context(|| format!("cannot make the data directory {} (data-dir)", path.display()))?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .with_context(|| format!("the data directory {} is not writable (data-dir)", path.display()))?;
        if !lock
            .try_lock_exclusive()
            .with_context(|| format!("cannot lock {}", lock_path.display()))?
        {
            bail!("another process owns the data directory {} (data-dir)", path.display());
        }
        Ok(DataDir {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// A folder in it, made if absent.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.path.join(name);
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_owner_at_a_time() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("data");
        let first = DataDir::open(&path).expect("free");
        let e = DataDir::open(&path).unwrap_err().to_string();
        assert!(e.contains("another process owns the data directory"), "{e}");
        drop(first);
        DataDir::open(&path).expect("free again");
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("file");
        std::fs::write(&path, "x").expect("writable");
        let e = DataDir::open(&path).unwrap_err().to_string();
        assert!(e.contains("data-dir"), "{e}");
    }
}
