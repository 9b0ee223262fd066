use std::{io::Write as _, pin::pin};

use hopvine::{
    Live,
    registry::{Registry, RegistryBuilder, RegistryHandle, RegistryPolicy, StartError},
};

use crate::{
    Failure,
    arguments::RegistryArguments,
    config::{Config, ConfigError, Login},
    files, log,
};

/// Runs a registry until it is told to stop.
pub(crate) fn run(arguments: &RegistryArguments) -> Result<(), Failure> {
    if arguments.example_config {
        return print(include_str!("../../../docs/registry.toml"));
    }
    let config = read(arguments)?;
    let policy = Live::new(config.policy.clone()).map_err(|error| Failure::Config(error.to_string()))?;
    let builder = builder(&config, &policy)?;
    if arguments.check {
        let settings = toml::to_string(&config).map_err(|error| Failure::Run(error.to_string()))?;
        return print(&settings);
    }
    log::start(config.log, config.log_level).map_err(Failure::Config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Run(format!("cannot start: {error}")))?;
    let ended = runtime.block_on(serve(builder, &policy, &config, arguments));
    // All that is worth waiting for has been waited for; a disk that hangs would keep it for ever.
    runtime.shutdown_background();
    ended
}

fn print(text: &str) -> Result<(), Failure> {
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| Failure::Run(error.to_string()))
}

fn read(arguments: &RegistryArguments) -> Result<Config, ConfigError> {
    Config::read(arguments.config.as_deref(), &arguments.settings())
}

/// The registry that the settings mean. The files they name are read here.
fn builder(config: &Config, policy: &Live<RegistryPolicy>) -> Result<RegistryBuilder, ConfigError> {
    let mut builder = Registry::builder().bind(config.bind).name(&*config.name).policy(policy.clone());
    let login = |section, login: &Option<Login>| -> Result<_, ConfigError> {
        let Some(login) = login else { return Ok(None) };
        Ok(Some((login.user.clone(), files::password(section, login)?)))
    };
    let (clients, peers) = (login("auth", &config.auth)?, login("peer_auth", &config.peer_auth)?);
    if let Some((user, password)) = &clients {
        builder = builder.credential(user, password);
    }
    if let Some((user, password)) = &peers {
        builder = builder.peer_credential(user, password);
    }
    // All registries of a system have the same logins: what they ask of each other, they are.
    let own = peers.as_ref().or(clients.as_ref()).map(|(user, password)| (&**user, &**password));
    builder = builder.peers(config.peers.iter().map(|url| files::with_password(url, own)));
    if let Some(url) = &config.my_url {
        builder = builder.my_url(url);
    }
    if let Some(files) = &config.peer_tls {
        builder = builder.peer_tls(files::peer_tls(files)?);
    }
    if let Some(file) = &config.snapshot {
        files::snapshot(file)?;
        builder = builder.snapshot(file);
    }
    if let Some(files) = &config.tls {
        builder = builder.tls(files::tls(files)?);
    }
    Ok(builder)
}

async fn serve(
    builder: RegistryBuilder,
    policy: &Live<RegistryPolicy>,
    config: &Config,
    arguments: &RegistryArguments,
) -> Result<(), Failure> {
    // Before it listens: whoever sees that it does may end it at once.
    let mut signals = Signals::new().map_err(|error| Failure::Run(format!("cannot listen for signals: {error}")))?;
    let mut is_changed = false;
    // It may wait for peers.
    let Some(started) = unless_stopped(builder.start(), &mut signals, &mut is_changed).await else { return Ok(()) };
    let registry = started.map_err(|error| match error {
        StartError::Policy(error) => Failure::Config(format!("policy.{error}")),
        other => Failure::Run(other.to_string()),
    })?;
    while is_changed || matches!(signals.next().await, Signal::Reload) {
        is_changed = false;
        let reloading = reload(policy, config, arguments);
        if unless_stopped(reloading, &mut signals, &mut is_changed).await.is_none() {
            break;
        }
    }
    tracing::info!("registry stops");
    stop(registry, &mut signals).await
}

/// Waits for it, unless told to stop: then there is nothing. Notes if settings are to be read again.
async fn unless_stopped<T>(work: impl Future<Output = T>, signals: &mut Signals, is_changed: &mut bool) -> Option<T> {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Some(done),
            signal = signals.next() => match signal {
                Signal::Stop => return None,
                Signal::Reload => *is_changed = true,
            },
        }
    }
}

/// Ends after what is under way, or at once when told so again.
async fn stop(registry: RegistryHandle, signals: &mut Signals) -> Result<(), Failure> {
    tokio::select! {
        () = registry.shutdown() => Ok(()),
        () = stopped(signals) => Err(Failure::Run("told to stop again: connections were cut off".to_owned())),
    }
}

async fn stopped(signals: &mut Signals) {
    while !matches!(signals.next().await, Signal::Stop) {}
}

/// Puts the policy that the file has now into force; if anything is wrong with it, all stays as it is.
async fn reload(policy: &Live<RegistryPolicy>, config: &Config, arguments: &RegistryArguments) {
    if arguments.config.is_none() {
        tracing::warn!("no settings to read again: there is no --config");
        return;
    }
    let (file, settings) = (arguments.config.clone(), arguments.settings());
    // Its disk may hang.
    let read = tokio::task::spawn_blocking(move || Config::read(file.as_deref(), &settings)).await;
    let read = read.map_err(|error| error.to_string()).and_then(|read| read.map_err(|error| error.to_string()));
    match read.and_then(|read| policy.set(read.policy.clone()).map(|()| read).map_err(|error| error.to_string())) {
        Ok(read) => {
            tracing::info!("settings read again: the policy holds");
            let later = read.fixed_that_differ(config);
            if !later.is_empty() {
                tracing::warn!(settings = later.join(", "), "these settings hold from the next start on");
            }
        }
        Err(error) => tracing::error!(error, "settings not taken: what held still holds"),
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(error.to_string())
    }
}

enum Signal {
    Stop,
    Reload,
}

#[cfg(unix)]
struct Signals([tokio::signal::unix::Signal; 3]);

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self([signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?]))
    }

    async fn next(&mut self) -> Signal {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => Signal::Stop,
            _ = interrupt.recv() => Signal::Stop,
            _ = hangup.recv() => Signal::Reload,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    #[allow(clippy::unnecessary_wraps, reason = "as on Unix")]
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Signal {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        Signal::Stop
    }
}
