use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::{sync::watch, time::Instant};

use super::{
    EurekaPolicy, IntoServers, InvalidEureka, Servers,
    calls::Calls,
    follower::{State, follow},
    poller::{Poller, Running},
};
use crate::{
    Live, PolicyError,
    discover::{ChangeStream, Source},
    live::IntoLive,
};

/// A registry as a source of all its services. Clones share the poller. See the [module](super).
#[derive(Clone)]
pub struct Eureka {
    shared: Arc<Shared>,
}

struct Shared {
    servers: Servers,
    policy: Live<EurekaPolicy>,
    snapshot: Option<PathBuf>,
    running: Mutex<Weak<Running>>,
}

/// Puts an [`Eureka`] together.
#[derive(Debug)]
#[must_use]
pub struct EurekaBuilder {
    servers: Result<Servers, InvalidEureka>,
    policy: Result<Live<EurekaPolicy>, PolicyError>,
    zone: Option<Arc<str>>,
    snapshot: Option<PathBuf>,
}

/// How an [`Eureka`] stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct EurekaView {
    /// The server that was heard of last, without its credentials.
    pub server: Option<String>,
    /// Whether changes are pushed; otherwise it is asked.
    pub pushed: bool,
    /// Applications it knows of.
    pub applications: usize,
    /// Instances it knows of, whatever their status.
    pub instances: usize,
    /// Why the registry is not heard of.
    pub error: Option<String>,
}

impl Eureka {
    /// A registry with these servers: [`Servers`], or their URLs.
    pub fn builder(servers: impl IntoServers) -> EurekaBuilder {
        EurekaBuilder {
            servers: servers.into_servers(),
            policy: Live::new(EurekaPolicy::default()),
            zone: None,
            snapshot: None,
        }
    }

    /// How it stands. Empty, while no service of it is used.
    pub fn view(&self) -> EurekaView {
        let Some(running) = self.shared.running().upgrade() else { return EurekaView::default() };
        let state = running.state.borrow();
        EurekaView {
            server: state.server.as_deref().map(str::to_owned),
            pushed: state.pushed,
            applications: state.view.as_ref().map_or(0, |view| view.applications),
            instances: state.view.as_ref().map_or(0, |view| view.instances),
            error: state.error.as_deref().map(str::to_owned),
        }
    }
}

impl EurekaBuilder {
    /// Intervals, modes and limits, fixed or live.
    pub fn policy(mut self, policy: impl IntoLive<EurekaPolicy>) -> Self {
        self.policy = policy.into_live();
        self
    }

    /// The [zone](Servers::zone) we are in.
    pub fn zone(mut self, zone: impl Into<Arc<str>>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Keeps what the registry last said in this file, for a start while no server answers within a second. Only its owner can read it; its folder must exist. It is used up to
    /// an [age](EurekaPolicy::snapshot_age), and says so: the services are stale from the beginning.
    pub fn snapshot(mut self, path: impl Into<PathBuf>) -> Self {
        self.snapshot = Some(path.into());
        self
    }

    /// The source. It begins to work when a directory asks it for a service.
    pub fn build(self) -> Result<Eureka, InvalidEureka> {
        let mut servers = self.servers?;
        if self.zone.is_some() {
            servers.zone = self.zone;
        }
        let shared = Shared { servers, policy: self.policy?, snapshot: self.snapshot, running: Mutex::default() };
        Ok(Eureka { shared: Arc::new(shared) })
    }
}

impl Shared {
    fn running(&self) -> std::sync::MutexGuard<'_, Weak<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The poller, started if need be.
    fn start(&self) -> Arc<Running> {
        let mut running = self.running();
        if let Some(running) = running.upgrade() {
            return running;
        }
        let (sender, _) = watch::channel(State::default());
        let calls = Calls::new(&self.servers, Instant::now()).expect("validated with the servers");
        let servers = self.servers.urls.len();
        let poller = Poller::new(self.policy.clone(), calls, sender, self.snapshot.clone(), servers);
        let started = Arc::new(Running::start(poller));
        *running = Arc::downgrade(&started);
        started
    }
}

impl Source for Eureka {
    /// Yes as well as long as the registry has not been heard of.
    fn lists(&self, service: &str) -> bool {
        let running = self.shared.running().upgrade();
        running.is_none_or(|running| {
            running.state.borrow().view.as_ref().is_none_or(|view| view.lists(&service.to_lowercase()))
        })
    }

    fn discover(&self, service: &str) -> ChangeStream {
        follow(self.shared.start(), service, self.shared.servers.zone.clone(), self.shared.policy.clone())
    }
}

impl fmt::Debug for Eureka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Eureka").field("servers", &self.shared.servers.urls).finish_non_exhaustive()
    }
}
