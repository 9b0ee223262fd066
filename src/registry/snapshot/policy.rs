use std::{fs, io, path::Path, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{PolicyError, snapshot};

/// How a registry keeps itself on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SnapshotPolicy {
    /// How often it is written at most; only if something has changed, or it is a quarter of `max_age` old. By default 30 s.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// How old it may be to be used. By default 10 min: after that, most of what lives has another name, and what is dead would only be in the way.
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
    /// Bytes of it that are read. By default 256 MiB.
    pub max_bytes: usize,
}

impl Default for SnapshotPolicy {
    fn default() -> Self {
        Self { interval: Duration::from_secs(30), max_age: Duration::from_secs(600), max_bytes: 256 << 20 }
    }
}

impl SnapshotPolicy {
    /// Whether a registry can be kept in this file, as a start asks: its folder must be there, and what has its name, if anything, must be a regular file. That it is
    /// not so is a wrong setting, not a bad day.
    pub fn check_path(path: &Path) -> io::Result<()> {
        let invalid = |reason: &str| io::Error::new(io::ErrorKind::InvalidInput, reason);
        if path.file_name().is_none() {
            return Err(invalid("names no file"));
        }
        let folder = fs::metadata(snapshot::folder(path));
        let folder = folder.map_err(|error| io::Error::new(error.kind(), format!("its folder: {error}")))?;
        if !folder.is_dir() {
            return Err(invalid("its folder is none"));
        }
        match fs::metadata(path) {
            Ok(found) if !found.is_file() => Err(invalid("is no regular file")),
            _ => Ok(()),
        }
    }

    /// The names are those of a [`RegistryPolicy`](crate::registry::RegistryPolicy) around it.
    pub(in crate::registry) fn validate(&self) -> Result<(), PolicyError> {
        for (field, duration) in [("snapshot.interval", self.interval), ("snapshot.max_age", self.max_age)] {
            if duration < Duration::from_millis(1) {
                return Err(PolicyError::new(field, duration, "must be at least a millisecond"));
            }
        }
        if self.max_bytes == 0 {
            return Err(PolicyError::new("snapshot.max_bytes", self.max_bytes, "must be above zero"));
        }
        Ok(())
    }
}
