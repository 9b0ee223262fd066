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
    collections::{BTreeMap, hash_map::DefaultHasher},
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
use serde::Deserialize;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;

use super::{ChangeStream, Source};
use crate::{Endpoint, endpoint::Status};

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

#[derive(Clone, Copy, Debug)]
enum Format {
    Toml,
    Json,
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
    Read(Arc<BTreeMap<String, Vec<Endpoint>>>),
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
        if !self.field.is_empty() && self.field != "." {
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

    /// Begins to watch, on first use.
    fn watch(&self) -> &Watching {
        self.watching.get_or_init(|| {
            let first = self.read();
            let (sender, state) = watch::channel(state(first.map(|(services, _)| services)));
            let reader = Reader { path: self.path.clone(), format: self.format, max_bytes: self.max_bytes };
            Watching { state, _reader: AbortOnDropHandle::new(tokio::spawn(reader.run(sender))) }
        })
    }

    fn read(&self) -> Result<(BTreeMap<String, Vec<Endpoint>>, u64), InvalidFile> {
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

fn state(read: Result<BTreeMap<String, Vec<Endpoint>>, InvalidFile>) -> State {
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

    fn read(&self) -> Result<(BTreeMap<String, Vec<Endpoint>>, u64), InvalidFile> {
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
        Ok((parse(&self.path, self.format, &text)?, hasher.finish()))
    }
}

/// An endpoint as it stands in the file.
#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Url(String),
    Table(Table),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    url: String,
    id: Option<String>,
    weight: Option<u32>,
    zone: Option<String>,
    server_name: Option<String>,
    authority: Option<String>,
    #[serde(default)]
    status: FileStatus,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FileStatus {
    #[default]
    Up,
    Draining,
    Down,
}

fn parse(path: &Path, format: Format, text: &str) -> Result<BTreeMap<String, Vec<Endpoint>>, InvalidFile> {
    // First whether it is a document at all, then each endpoint by itself, so that an error names the one that is wrong.
    let document: BTreeMap<String, Vec<serde_json::Value>> = match format {
        Format::Json => {
            let mut reader = serde_json::Deserializer::from_str(text);
            let document = serde_path_to_error::deserialize(&mut reader)
                .map_err(|error| InvalidFile::new(path, error.path().to_string(), error.inner()))?;
            reader.end().map_err(|error| InvalidFile::new(path, "", error))?;
            document
        }
        Format::Toml => {
            let reader =
                toml::Deserializer::parse(text).map_err(|error| InvalidFile::new(path, "", error.message()))?;
            serde_path_to_error::deserialize(reader)
                .map_err(|error| InvalidFile::new(path, error.path().to_string(), error.inner().message()))?
        }
    };
    let mut services = BTreeMap::new();
    for (service, entries) in document {
        let mut endpoints: Vec<Endpoint> = Vec::with_capacity(entries.len());
        for (number, value) in entries.into_iter().enumerate() {
            let field = format!("{service}[{number}]");
            let endpoint = endpoint(value).map_err(|(name, reason)| {
                let dot = if name.is_empty() { "" } else { "." };
                InvalidFile::new(path, format!("{field}{dot}{name}"), reason)
            })?;
            if endpoints.iter().any(|other| other.id() == endpoint.id()) {
                return Err(InvalidFile::new(
                    path,
                    format!("{field}.id"),
                    format!("{:?} stands there twice", endpoint.id().as_str()),
                ));
            }
            endpoints.push(endpoint);
        }
        services.insert(service, endpoints);
    }
    Ok(services)
}

/// An endpoint, or the field that is wrong and why.
fn endpoint(value: serde_json::Value) -> Result<Endpoint, (String, String)> {
    let entry = if value.is_string() {
        serde_json::from_value(value).map(Entry::Url).map_err(|error| (String::new(), error.to_string()))?
    } else {
        serde_path_to_error::deserialize(value)
            .map(Entry::Table)
            .map_err(|error| (error.path().to_string().trim_start_matches('.').to_owned(), error.inner().to_string()))?
    };
    match entry {
        Entry::Url(url) => {
            url.parse().map_err(|error: crate::endpoint::InvalidEndpoint| (String::new(), error.to_string()))
        }
        Entry::Table(table) => {
            let mut endpoint: Endpoint = table
                .url
                .parse()
                .map_err(|error: crate::endpoint::InvalidEndpoint| ("url".to_owned(), error.to_string()))?;
            if let Some(id) = table.id {
                endpoint = endpoint.with_id(id);
            }
            if let Some(zone) = table.zone {
                endpoint = endpoint.with_zone(zone);
            }
            if let Some(name) = table.server_name {
                endpoint = endpoint.with_server_name(name);
            }
            if let Some(authority) = table.authority {
                endpoint = endpoint.with_authority(authority);
            }
            let status = match table.status {
                FileStatus::Up => Status::Up,
                FileStatus::Draining => Status::Draining,
                FileStatus::Down => Status::Down,
            };
            Ok(endpoint.with_weight(table.weight.unwrap_or(1)).with_status(status).with_metadata(table.metadata))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toml(text: &str) -> Result<BTreeMap<String, Vec<Endpoint>>, InvalidFile> {
        parse(Path::new("shop.toml"), Format::Toml, text)
    }

    #[test]
    fn both_forms_say_the_same() {
        let table = toml(
            "[[catalog]]\nurl = \"http://10.0.0.7:80\"\nid = \"a\"\nzone = \"z\"\nweight = 3\nstatus = \"draining\"\nmetadata = { v = \"1\" }",
        )
        .unwrap();
        let json = r#"{"catalog": [{"url": "http://10.0.0.7:80", "id": "a", "zone": "z", "weight": 3, "status": "draining", "metadata": {"v": "1"}}]}"#;
        assert_eq!(parse(Path::new("shop.json"), Format::Json, json).unwrap(), table);
        let endpoint = &table["catalog"][0];
        assert_eq!((endpoint.id().as_str(), endpoint.zone(), endpoint.weight()), ("a", Some("z"), 3));
        assert_eq!((endpoint.status(), endpoint.metadata()["v"].as_str()), (Status::Draining, "1"));
        assert_eq!(toml("catalog = [\"10.0.0.7:80\"]").unwrap()["catalog"].len(), 1);
    }

    #[test]
    fn an_error_names_the_file_the_field_and_the_value() {
        for (text, field, value) in [
            ("[[a]]\nurl = \"http://x:99999\"", "a[0].url", "99999"),
            ("[[a]]\nurl = \"http://x:1\"\nweight = \"much\"", "a[0].weight", "much"),
            ("[[a]]\nurl = \"http://x:1\"\nwieght = 1", "a[0]", "wieght"),
            ("[[a]]\nurl = \"http://x:1\"\nstatus = \"gone\"", "a[0].status", "gone"),
            ("a = [\"http://x:1\", \"http://x:1\"]", "a[1].id", "x:1"),
            ("a = 5", "a", "5"),
            ("a = [", "", ""),
        ] {
            let error = toml(text).unwrap_err();
            assert!(error.field().starts_with(field), "{error}");
            assert!(error.to_string().contains("shop.toml") && error.to_string().contains(value), "{error}");
        }
    }
}
