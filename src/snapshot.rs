//! A registry on disk: what a client keeps for a start while every server is down, and a server for a restart.
//!
//! Two lines: what the file is, with the length and checksum of the second, and the registry's JSON document. It is written whole or not at all, and only its
//! owner can read it.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use flate2::Crc;
use serde::{Deserialize, Serialize};

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
pub(crate) struct Loaded {
    pub(crate) applications: Applications,
    pub(crate) age: Duration,
}

/// Why there is none.
#[derive(Debug)]
pub(crate) enum NotLoaded {
    /// There is no file.
    Missing,
    Unreadable(io::Error),
    Old(Duration),
    /// It is not what was written, and has another name now, so that somebody can look at it.
    Bad {
        reason: String,
        aside: Result<PathBuf, io::Error>,
    },
}

/// Reads it, if there is one that is young enough.
pub(crate) fn load(path: &Path, max_age: Duration, max_bytes: usize, limits: &Limits) -> Result<Loaded, NotLoaded> {
    let whole = bytes(path, max_bytes).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => NotLoaded::Missing,
        _ => NotLoaded::Unreadable(error),
    })?;
    match read(&whole, max_bytes, limits) {
        Ok(loaded) if loaded.age > max_age => Err(NotLoaded::Old(loaded.age)),
        Ok(loaded) => Ok(loaded),
        Err(reason) => {
            let aside = beside(path, "bad");
            Err(NotLoaded::Bad { reason, aside: fs::rename(path, &aside).map(|()| aside) })
        }
    }
}

/// The most that is read: the head is short; one byte more than may be shows whether there is more.
fn most(max_bytes: usize) -> u64 {
    max_bytes as u64 + 256
}

fn bytes(path: &Path, max_bytes: usize) -> io::Result<Vec<u8>> {
    // Looked at before it is opened: a pipe would be waited for.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let mut whole = Vec::new();
    File::open(path)?.take(most(max_bytes) + 1).read_to_end(&mut whole)?;
    Ok(whole)
}

fn read(whole: &[u8], max_bytes: usize, limits: &Limits) -> Result<Loaded, String> {
    if whole.len() as u64 > most(max_bytes) {
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
    let applications = json::read_applications(document, limits).map_err(|error| error.to_string())?;
    Ok(Loaded { applications, age })
}

/// Writes it: whole, or not at all. It is of that age already.
pub(crate) fn save(path: &Path, applications: &Applications, age: Duration) -> io::Result<()> {
    let mut document = Vec::new();
    json::write_applications(applications, Form::Full, &mut document);
    let saved_at = milliseconds().saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    let head = Head { eureka_snapshot: VERSION, saved_at, bytes: document.len(), crc32: checksum(&document) };
    let draft = beside(path, "new");
    // One left over by somebody else could have another mode, or be a link to elsewhere.
    let _ = fs::remove_file(&draft);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&draft)?;
    serde_json::to_writer(&mut file, &head)?;
    file.write_all(b"\n")?;
    file.write_all(&document)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&draft, path)?;
    // The rename itself is on disk when its folder is.
    #[cfg(unix)]
    File::open(folder(path))?.sync_all()?;
    Ok(())
}

/// The folder a file is in.
pub(crate) fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
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

impl fmt::Display for NotLoaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("there is none"),
            Self::Unreadable(error) => write!(f, "it cannot be read: {error}"),
            Self::Old(age) => write!(f, "it is too old: {age:?}"),
            Self::Bad { reason, aside: Ok(aside) } => {
                write!(f, "it is bad, and set aside as {}: {reason}", aside.display())
            }
            Self::Bad { reason, aside: Err(error) } => {
                write!(f, "it is bad, and cannot be set aside ({error}): {reason}")
            }
        }
    }
}
