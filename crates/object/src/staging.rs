//! What crashes leave in a local folder: files `name#1` that were written and never linked to their name. Lists hide
//! them, so nobody else would ever remove them.

use std::path::Path;
use std::time::{Duration, SystemTime};

/// Longer than any upload takes, so that another process's work is left alone.
pub(crate) const STAGING_AGE_MIN: Duration = Duration::from_secs(24 * 3600);
/// Deeper than any layout; ends loops of links.
const DEPTH_MAX: usize = 32;

/// Removes staging files last written before `before`. Returns how many; what cannot be read or removed is left for
/// the next start.
pub(crate) fn sweep(folder: &Path, before: SystemTime) -> usize {
    sweep_below(folder, before, DEPTH_MAX)
}

fn sweep_below(folder: &Path, before: SystemTime, depth: usize) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let mut removed = 0;
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() && depth > 0 {
            removed += sweep_below(&entry.path(), before, depth - 1);
        } else if kind.is_file() && entry.file_name().to_str().is_some_and(is_staging) {
            let old = entry.metadata().and_then(|m| m.modified()).is_ok_and(|t| t < before);
            if old && std::fs::remove_file(entry.path()).is_ok() {
                removed += 1;
            }
        }
    }
    removed
}

fn is_staging(name: &str) -> bool {
    name.rsplit_once('#')
        .is_some_and(|(stem, n)| !stem.is_empty() && !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_staging_files_go() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("blocks/a");
        std::fs::create_dir_all(&below).unwrap();
        for name in ["x#1", "x#12", "x", "x#a", "#1", "x#"] {
            std::fs::write(below.join(name), "x").unwrap();
        }
        let now = SystemTime::now();
        assert_eq!(sweep(dir.path(), now - STAGING_AGE_MIN), 0, "all are young");
        assert_eq!(sweep(dir.path(), now + Duration::from_secs(60)), 2);
        assert_eq!(std::fs::read_dir(&below).unwrap().count(), 4);
        assert_eq!(sweep(&dir.path().join("absent"), now), 0);
    }
}
