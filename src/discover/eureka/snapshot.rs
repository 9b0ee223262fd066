//! The registry on disk, so that a service can start while every server is down.
//!
//! Two lines: what the file is, with the length and checksum of the second, and the registry's JSON document.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use flate2::Crc;
use serde::{Deserialize, Serialize};

use super::calls::applications;
use crate::eureka::{Applications, Form, Limits, json};

/// What is raised when the file's form changes: others are not read.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Head {
    eureka_snapshot: u32,
    /// Milliseconds since 1970.
    saved_at: u64,
    bytes: usize,
    crc32: u32,
}

/// A snapshot that may be used.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) applications: Applications,
    pub(super) age: Duration,
}

/// Reads it, if there is one that is young enough. A bad one is set aside, so that somebody can look at it, and told.
pub(super) fn load(path: &Path, max_age: Duration, max_bytes: usize, limits: &Limits) -> Option<Loaded> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(target: "hopvine::eureka", path = %path.display(), %error, "the snapshot cannot be read");
            return None;
        }
    };
    match read(file, max_bytes, limits) {
        Ok(loaded) if loaded.age > max_age => {
            tracing::warn!(target: "hopvine::eureka", path = %path.display(), age = ?loaded.age, "the snapshot is too old");
            None
        }
        Ok(loaded) => Some(loaded),
        Err(reason) => {
            let aside = beside(path, "bad");
            let moved = fs::rename(path, &aside);
            tracing::warn!(target: "hopvine::eureka", path = %path.display(), reason, aside = %aside.display(), moved = moved.is_ok(),
                "the snapshot is bad, and set aside");
            None
        }
    }
}

fn read(file: File, max_bytes: usize, limits: &Limits) -> Result<Loaded, String> {
    let mut whole = Vec::new();
    // The head is short; one byte more than may be shows whether there is more.
    let most = max_bytes as u64 + 256;
    file.take(most + 1).read_to_end(&mut whole).map_err(|error| error.to_string())?;
    if whole.len() as u64 > most {
        return Err(format!("longer than {max_bytes} bytes"));
    }
    let end = whole.iter().position(|byte| *byte == b'\n').ok_or("it has no head")?;
    let head: Head = serde_json::from_slice(&whole[..end]).map_err(|error| format!("its head: {error}"))?;
    if head.eureka_snapshot != VERSION {
        return Err(format!("version {} instead of {VERSION}", head.eureka_snapshot));
    }
    let document = &whole[end + 1..];
    if document.len() != head.bytes || checksum(document) != head.crc32 {
        return Err("its checksum is wrong".to_owned());
    }
    let now = milliseconds();
    // A clock that was set back makes it new: what it says is no older than that.
    let age = Duration::from_millis(now.saturating_sub(head.saved_at));
    Ok(Loaded { applications: applications(document, limits)?, age })
}

/// Writes it: whole, or not at all.
pub(super) fn save(path: &Path, applications: &Applications) -> std::io::Result<()> {
    let mut document = Vec::new();
    json::write_applications(applications, Form::Full, &mut document);
    let head =
        Head { eureka_snapshot: VERSION, saved_at: milliseconds(), bytes: document.len(), crc32: checksum(&document) };
    let draft = beside(path, "new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    // One left over by somebody else could have another mode, or be a link to elsewhere.
    let _ = fs::remove_file(&draft);
    options.create_new(true);
    let mut file = options.open(&draft)?;
    serde_json::to_writer(&mut file, &head)?;
    file.write_all(b"\n")?;
    file.write_all(&document)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&draft, path)?;
    // The rename itself is on disk when its folder is.
    #[cfg(unix)]
    if let Some(folder) = path.parent() {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    path.with_file_name(name)
}

fn checksum(document: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(document);
    crc.sum()
}

fn milliseconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
