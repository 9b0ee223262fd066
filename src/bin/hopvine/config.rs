use std::{
    fmt, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use hopvine::{Policy as _, discover::eureka::ServerUrl, registry::RegistryPolicy};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use toml::{Table, Value};

use crate::arguments::Setting;

/// All settings of a registry, as they stand in a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    #[serde(deserialize_with = "address")]
    pub(crate) bind: SocketAddr,
    pub(crate) name: String,
    pub(crate) log: LogFormat,
    /// Service URLs of the other registries, without passwords.
    #[serde(deserialize_with = "urls")]
    pub(crate) peers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) my_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) snapshot: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log_level: Option<LogLevel>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) auth: Option<Login>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peer_auth: Option<Login>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls: Option<Tls>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peer_tls: Option<PeerTls>,
    pub(crate) policy: RegistryPolicy,
}

/// A user, and where the password is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password_file: PathBuf,
}

/// Files in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_ca: Option<PathBuf>,
}

/// Files in PEM, for what is asked of peers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PeerTls {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) certificate: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Which setting is wrong, where it stands, and why.
#[derive(Debug)]
pub(crate) struct ConfigError {
    place: String,
    reason: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from(([127, 0, 0, 1], 8761)),
            name: "registry".to_owned(),
            log: LogFormat::default(),
            peers: Vec::new(),
            my_url: None,
            snapshot: None,
            log_level: None,
            auth: None,
            peer_auth: None,
            tls: None,
            peer_tls: None,
            policy: RegistryPolicy::default(),
        }
    }
}

impl Config {
    /// What the file says, and over it what the flags say.
    pub(crate) fn read(file: Option<&Path>, settings: &[Setting]) -> Result<Self, ConfigError> {
        let text = match file {
            Some(file) => fs::read_to_string(file)
                .map_err(|error| ConfigError::new(format!("--config {}", file.display()), error))?,
            None => String::new(),
        };
        let file = file.map_or_else(String::new, |file| file.display().to_string());
        let mut table = Self::table(&file, &text)?;
        for setting in settings {
            put(&mut table, setting)?;
        }
        let read: Self = serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
            let field = error.path().to_string();
            let reason = format!("{field}: {}", error.inner().message());
            ConfigError::new(place(&field, &file, settings), reason)
        })?;
        read.validate().map_err(|(field, reason)| ConfigError::new(place(&field, &file, settings), reason))?;
        Ok(read)
    }

    /// The file alone: its types are checked here, where the lines are known. What it lacks may still come from flags.
    fn table(file: &str, text: &str) -> Result<Table, ConfigError> {
        let wrong = |field: Option<String>, error: &toml::de::Error| {
            let place = match error.span() {
                Some(span) => format!("{file}, {}", position(text, span.start)),
                None => file.to_owned(),
            };
            let field = field.filter(|field| field != ".").map_or_else(String::new, |field| format!("{field}: "));
            ConfigError::new(place, format!("{field}{}", error.message().replace('\n', ", ")))
        };
        let table: Table = toml::from_str(text).map_err(|error| wrong(None, &error))?;
        let reader = toml::Deserializer::parse(text).map_err(|error| wrong(None, &error))?;
        match serde_path_to_error::deserialize::<_, Self>(reader) {
            Err(error) if !error.inner().message().starts_with("missing field") => {
                Err(wrong(Some(error.path().to_string()), error.inner()))
            }
            _ => Ok(table),
        }
    }

    fn validate(&self) -> Result<(), (String, String)> {
        self.policy.validate().map_err(|error| (format!("policy.{}", error.field()), format!("policy.{error}")))?;
        for (field, login) in [("auth.user", &self.auth), ("peer_auth.user", &self.peer_auth)] {
            let Some(Login { user, .. }) = login else { continue };
            if user.is_empty() || user.contains(|character: char| character == ':' || character.is_control()) {
                let reason = format!("{field} is {user:?}: must be a name without colons and control characters");
                return Err((field.to_owned(), reason));
            }
        }
        for (place, url) in self.peers.iter().enumerate() {
            url_without_password(url).map_err(|reason| ("peers".to_owned(), format!("peers[{place}]: {reason}")))?;
        }
        if let Some(url) = &self.my_url {
            url_without_password(url).map_err(|reason| ("my_url".to_owned(), format!("my_url: {reason}")))?;
        }
        if let Some(tls) = &self.peer_tls
            && tls.certificate.is_some() != tls.key.is_some()
        {
            let reason = "peer_tls: certificate and key are only of use together";
            return Err(("peer_tls".to_owned(), reason.to_owned()));
        }
        Ok(())
    }

    /// The settings that differ and hold only from the next start on.
    pub(crate) fn fixed_that_differ(&self, other: &Self) -> Vec<&'static str> {
        let (here, there) = (&self.policy, &other.policy);
        let differ = [
            ("bind", self.bind != other.bind),
            ("name", self.name != other.name),
            ("log", self.log != other.log),
            ("log_level", self.log_level != other.log_level),
            ("auth", self.auth != other.auth),
            ("peer_auth", self.peer_auth != other.peer_auth),
            ("tls", self.tls != other.tls),
            ("peers", self.peers != other.peers),
            ("my_url", self.my_url != other.my_url),
            ("peer_tls", self.peer_tls != other.peer_tls),
            ("snapshot", self.snapshot != other.snapshot),
            ("policy.peers.connect_timeout", here.peers.connect_timeout != there.peers.connect_timeout),
            ("policy.limits.connections", here.limits.connections != there.limits.connections),
        ];
        differ.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }
}

fn put(table: &mut Table, setting: &Setting) -> Result<(), ConfigError> {
    let (parents, name) = setting.key.rsplit_once('.').unwrap_or(("", &setting.key));
    let mut within = table;
    for parent in parents.split('.').filter(|parent| !parent.is_empty()) {
        let next = within.entry(parent).or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(next) = next else {
            return Err(ConfigError::new(&setting.flag, format!("{}: {parent} has no settings in it", setting.key)));
        };
        within = next;
    }
    within.insert(name.to_owned(), setting.value.clone());
    Ok(())
}

/// The flag that gave a setting, or else the file.
fn place(field: &str, file: &str, settings: &[Setting]) -> String {
    let given = settings.iter().rev().find(|setting| {
        let rest = setting.key.strip_prefix(field).or_else(|| field.strip_prefix(&*setting.key));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    });
    given.map_or_else(|| file.to_owned(), |setting| setting.flag.clone())
}

/// A password in a URL would be printed with the settings; what is wrong is said without the URL.
fn url_without_password(url: &str) -> Result<(), String> {
    if url.contains('@') {
        return Err("must not hold a password: peers are asked as whom peer_auth names, or else auth".to_owned());
    }
    if url.contains(',') {
        return Err(format!("{url:?}: must be one URL"));
    }
    url.parse::<ServerUrl>().map(drop).map_err(|error| format!("{url:?}: {error}"))
}

/// Line and column, from 1.
fn position(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}")
}

/// Its error would not say what was given.
fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let given = String::deserialize(deserializer)?;
    given
        .parse()
        .map_err(|_| D::Error::custom(format!("{given:?} is no address with a port, as 127.0.0.1:8761 or [::]:8761")))
}

/// Each text may be several with commas between: one by one, so that each is checked and given its password.
fn urls<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let given = Vec::<String>::deserialize(deserializer)?;
    Ok(given.iter().flat_map(|text| text.split(',')).map(|url| url.trim().to_owned()).collect())
}

impl ConfigError {
    pub(crate) fn new(place: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self { place: place.into(), reason: reason.to_string() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        f.write_str(&self.reason)
    }
}
