//! The flags. What is written of them here is what `--help` says.
#![allow(clippy::doc_markdown, reason = "a terminal shows no Markdown")]

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use toml::Value;

/// Hops between services, and the systems made of them.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Registry(RegistryArguments),
}

/// Run a registry that Eureka's clients and peers take for one of theirs
///
/// Clients use http://ADDRESS/eureka/, people http://ADDRESS/. Settings come from a file and from flags; flags win. SIGTERM and SIGINT end it after what is under
/// way, SIGHUP makes it read the file's [policy] again.
///
/// Exit codes: 0 after a signal, 1 if it cannot run (the address is in use), 2 if a setting is wrong.
#[derive(Debug, Args)]
pub(crate) struct RegistryArguments {
    /// Settings in TOML; --example-config shows all of them
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Check the settings and the files they name, print what would hold, and exit
    #[arg(long)]
    pub(crate) check: bool,
    /// Print a file of all settings with their defaults, and exit
    #[arg(long, exclusive = true)]
    pub(crate) example_config: bool,

    /// Where to listen [default: 127.0.0.1:8761]
    #[arg(long, value_name = "ADDRESS:PORT", help_heading = "Server")]
    bind: Option<String>,
    /// The registry's name, on its page and in a monitor [default: registry]
    #[arg(long, value_name = "NAME", help_heading = "Server")]
    name: Option<String>,
    /// The certificate to show, with its chain, in PEM: serves over TLS
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    tls_certificate: Option<String>,
    /// Its key, in PEM
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    tls_key: Option<String>,
    /// Take only clients and peers with a certificate signed by one of these, in PEM
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    tls_client_ca: Option<String>,

    /// The user that everybody must be
    #[arg(long, value_name = "NAME", help_heading = "Who may ask")]
    user: Option<String>,
    /// The file with that user's password
    #[arg(long, value_name = "FILE", help_heading = "Who may ask")]
    password_file: Option<String>,
    /// The user that peers must be; nobody else may replicate then
    #[arg(long, value_name = "NAME", help_heading = "Who may ask")]
    peer_user: Option<String>,
    /// The file with that user's password
    #[arg(long, value_name = "FILE", help_heading = "Who may ask")]
    peer_password_file: Option<String>,

    /// The service URL of another registry, as http://host:8761/eureka/, without a password; several with commas between, or given several times
    #[arg(long, value_name = "URL", help_heading = "Peers")]
    peer: Vec<String>,
    /// The URL that peers reach this registry by, if that is not where it listens
    #[arg(long, value_name = "URL", help_heading = "Peers")]
    my_url: Option<String>,
    /// Keep what is known in this file, for a restart
    #[arg(long, value_name = "FILE", help_heading = "Peers")]
    snapshot: Option<String>,

    /// Whether instances stay listed while too few heartbeats come [default: true]
    #[arg(long, value_name = "BOOL", help_heading = "Policy")]
    self_preservation: Option<bool>,
    /// Any setting of the file by its path there, as policy.eviction_interval=10s; may be given several times
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Policy", value_parser = Setting::parse)]
    set: Vec<Setting>,

    /// How to log: text or json [default: text]
    #[arg(long, value_name = "FORMAT", help_heading = "Log")]
    log: Option<String>,
    /// How much to log: off, error, warn, info, debug or trace; without it, RUST_LOG says so [default: info]
    #[arg(long, value_name = "LEVEL", help_heading = "Log")]
    log_level: Option<String>,
}

/// One setting of the file that a flag gives.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// Its path in the file.
    pub(crate) key: String,
    pub(crate) value: Value,
    /// How the flag was written, for whoever has to mend it.
    pub(crate) flag: String,
}

impl RegistryArguments {
    /// What flags say, in the order in which they count: the last wins.
    pub(crate) fn settings(&self) -> Vec<Setting> {
        let texts = [
            ("bind", "--bind", &self.bind),
            ("name", "--name", &self.name),
            ("log", "--log", &self.log),
            ("log_level", "--log-level", &self.log_level),
            ("auth.user", "--user", &self.user),
            ("auth.password_file", "--password-file", &self.password_file),
            ("peer_auth.user", "--peer-user", &self.peer_user),
            ("peer_auth.password_file", "--peer-password-file", &self.peer_password_file),
            ("my_url", "--my-url", &self.my_url),
            ("snapshot", "--snapshot", &self.snapshot),
            ("tls.certificate", "--tls-certificate", &self.tls_certificate),
            ("tls.key", "--tls-key", &self.tls_key),
            ("tls.client_ca", "--tls-client-ca", &self.tls_client_ca),
        ];
        let text = |(key, flag, given): (&str, &str, &Option<String>)| {
            given.as_ref().map(|text| Setting::new(key, flag, Value::String(text.clone())))
        };
        let preservation = self
            .self_preservation
            .map(|is_on| Setting::new("policy.self_preservation", "--self-preservation", Value::Boolean(is_on)));
        let peers = (!self.peer.is_empty()).then(|| {
            Setting::new("peers", "--peer", Value::Array(self.peer.iter().cloned().map(Value::String).collect()))
        });
        let named = texts.into_iter().filter_map(text).chain(preservation).chain(peers);
        self.set.iter().cloned().chain(named).collect()
    }
}

impl Setting {
    fn new(key: &str, flag: &str, value: Value) -> Self {
        Self { key: key.to_owned(), value, flag: flag.to_owned() }
    }

    /// A value is one of TOML, or else a text: `true`, `7`, `0.9`, `10s`.
    fn parse(given: &str) -> Result<Self, String> {
        let (key, value) = given.split_once('=').ok_or("must be KEY=VALUE")?;
        let key = key.trim();
        if key.is_empty() || key.split('.').any(str::is_empty) {
            return Err(format!("{key:?} is no name of a setting"));
        }
        let parsed = value.parse::<Value>().unwrap_or_else(|_| Value::String(value.to_owned()));
        Ok(Self::new(key, &format!("--set {key}"), parsed))
    }
}
