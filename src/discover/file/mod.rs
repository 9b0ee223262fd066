//! Discovery by a file: all services and their endpoints, in TOML or JSON, as it changes.
//!
//! ```toml
//! [[catalog]]
//! url = "http://10.0.0.7:8080"
//! id = "catalog-7"
//! zone = "a"
//!
//! [[catalog]]
//! url = "http://10.0.0.8:8080"
//! weight = 2
//! status = "draining"
//! metadata = { version = "1.4" }
//! ```
//!
//! or in JSON, where an endpoint may be its URL alone, as it may in TOML (`catalog = ["http://10.0.0.7:8080"]`):
//!
//! ```json
//! { "catalog": ["http://10.0.0.7:8080", { "url": "https://10.0.0.8:8443", "server_name": "catalog.internal" }] }
//! ```
//!
//! | field | default | |
//! |---|---|---|
//! | `url` | | `http://host:port` or `https://host:port` |
//! | `id` | the address | unique in its service |
//! | `weight` | 1 | relative to the service's others |
//! | `zone`, `server_name`, `authority` | none | |
//! | `status` | `up` | `up`, `draining` or `down` |
//! | `metadata` | none | texts by name |
//!
//! ```no_run
//! use hopvine::{Directory, discover::file::File};
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! let directory = Directory::builder().source(File::open("/etc/shop/endpoints.toml")?).build();
//! directory.service("catalog").ready(std::time::Duration::from_secs(5)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! The *directory* of the file is watched, so that an editor's rename and Kubernetes' swap of a `ConfigMap`'s symlink are seen; and the file is looked at every 5 s
//! besides, for file systems that tell nothing. A bad file, or none, is a state: the last good set stays, and the monitor has the error, which names the
//! field.

use std::{
    collections::hash_map::DefaultHasher,
    fmt,
    hash::{Hash as _, Hasher as _},
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::stream;
use notify::RecursiveMode;
use notify_debouncer_full::{DebounceEventResult, new_debouncer};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;

use super::{ChangeStream, Source};

mod text;

use text::{Format, Services};

/// How often the file is looked at without being told to.
const POLL: Duration = Duration::from_secs(5);

/// How long changes of the directory are gathered.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// A watched file as a source. See the [module](self).
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    format: Format,
    max_bytes: u64,
    watching: std::sync::OnceLock<Watching>,
}

/// The one reader, for all services.
#[derive(Debug)]
struct Watching {
    state: watch::Receiver<State>,
    _reader: AbortOnDropHandle<()>,
}

/// What was read last: the services, or what is wrong.
#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Unread,
    Read(Arc<Services>),
    Bad(Arc<InvalidFile>),
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidFile {
    path: PathBuf,
    field: String,
    reason: String,
}

impl InvalidFile {
    fn new(path: &Path, field: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self { path: path.to_owned(), field: field.into(), reason: reason.to_string() }
    }

    /// The path to the field that is wrong, as `catalog[1].url`; empty if the whole file is.
    pub fn field(&self) -> &str {
        &self.field
    }
}

impl fmt::Display for InvalidFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if !self.field.is_empty() {
            write!(f, ", {}", self.field)?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl std::error::Error for InvalidFile {}

impl File {
    /// This file, TOML or JSON by its extension. It need not exist yet.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, InvalidFile> {
        let path = path.into();
        let format = match path.extension().and_then(|extension| extension.to_str()) {
            Some("toml") => Format::Toml,
            Some("json") => Format::Json,
            _ => return Err(InvalidFile::new(&path, "", "the extension must be .toml or .json")),
        };
        Ok(Self { path, format, max_bytes: 1024 * 1024, watching: std::sync::OnceLock::new() })
    }

    /// The largest file that is read, in bytes; default 1 MiB.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// What it would say if this were its text. For `fuzz/`, which has no time for files; no part of the interface.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn parse(&self, text: &str) -> Result<Services, InvalidFile> {
        text::parse(&self.path, self.format, text)
    }

    /// Begins to watch, on first use.
    fn watch(&self) -> &Watching {
        self.watching.get_or_init(|| {
            let first = self.read();
            let (sender, state) = watch::channel(state(first.map(|(services, _)| services)));
            let reader = Reader { path: self.path.clone(), format: self.format, max_bytes: self.max_bytes };
            Watching { state, _reader: AbortOnDropHandle::new(tokio::spawn(reader.run(sender))) }
        })
    }

    fn read(&self) -> Result<(Services, u64), InvalidFile> {
        Reader { path: self.path.clone(), format: self.format, max_bytes: self.max_bytes }.read()
    }
}

impl Source for File {
    fn lists(&self, service: &str) -> bool {
        match &*self.watch().state.borrow() {
            State::Read(services) => services.contains_key(service),
            State::Unread | State::Bad(_) => false,
        }
    }

    fn discover(&self, service: &str) -> ChangeStream {
        let mut state = self.watch().state.clone();
        state.mark_changed();
        let service = service.to_owned();
        ChangeStream::sets(stream::unfold((state, service), async |(mut state, service)| {
            state.changed().await.ok()?;
            let said = match &*state.borrow_and_update() {
                State::Unread => Ok(Vec::new()),
                // A service that left the file has no endpoints.
                State::Read(services) => Ok(services.get(&service).cloned().unwrap_or_default()),
                State::Bad(error) => Err(InvalidFile::clone(error)),
            };
            Some((said, (state, service)))
        }))
    }
}

fn state(read: Result<Services, InvalidFile>) -> State {
    match read {
        Ok(services) => State::Read(Arc::new(services)),
        Err(error) => State::Bad(Arc::new(error)),
    }
}

struct Reader {
    path: PathBuf,
    format: Format,
    max_bytes: u64,
}

impl Reader {
    async fn run(self, sender: watch::Sender<State>) {
        let told = Arc::new(Notify::new());
        let watcher = self.watcher(&told);
        if let Err(error) = &watcher {
            tracing::warn!(target: "hopvine::discover", path = %self.path.display(), %error,
                "the directory cannot be watched; the file is looked at every 5 s");
        }
        let reader = Arc::new(self);
        let mut seen = None;
        loop {
            let read = {
                let reader = Arc::clone(&reader);
                tokio::task::spawn_blocking(move || reader.read()).await
            };
            let Ok(read) = read else { return };
            let mark = match &read {
                Ok((_, hash)) => Ok(*hash),
                Err(error) => Err(error.clone()),
            };
            // Only a change is told.
            if seen.as_ref() != Some(&mark) {
                seen = Some(mark);
                sender.send_replace(state(read.map(|(services, _)| services)));
            }
            let _ = tokio::time::timeout_at(Instant::now() + POLL, told.notified()).await;
        }
    }

    fn watcher(&self, told: &Arc<Notify>) -> notify::Result<impl Sized + use<>> {
        let told = Arc::clone(told);
        let mut debouncer = new_debouncer(DEBOUNCE, None, move |_: DebounceEventResult| told.notify_one())?;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        debouncer.watch(parent.unwrap_or(Path::new(".")), RecursiveMode::NonRecursive)?;
        Ok(debouncer)
    }

    fn read(&self) -> Result<(Services, u64), InvalidFile> {
        let invalid = |error: std::io::Error| InvalidFile::new(&self.path, "", error);
        let mut text = String::new();
        // One byte more than may be, to see whether there is more.
        let file = std::fs::File::open(&self.path).map_err(invalid)?;
        file.take(self.max_bytes + 1).read_to_string(&mut text).map_err(invalid)?;
        if text.len() as u64 > self.max_bytes {
            return Err(InvalidFile::new(&self.path, "", format!("longer than {} bytes", self.max_bytes)));
        }
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        Ok((text::parse(&self.path, self.format, &text)?, hasher.finish()))
    }
}
