use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::Semaphore, time::Instant};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

mod connection;
mod listen;
#[cfg(feature = "tls")]
mod tls;
mod view;

pub(super) use connection::{Connection, Ticks};
#[cfg(feature = "tls")]
pub use tls::ServerTls;

use listen::Listener;

use super::{
    Clock, RegistryPolicy, ReplicationSink, Store,
    http::{Credential, Credentials, Desk},
    render::Documents,
    watch::Watches,
};
use crate::{Live, Monitor, PolicyError, live::IntoLive};

/// How often leases, minutes and old changes are looked at.
const TICK: Duration = Duration::from_secs(1);

/// How long a stop waits for what is under way.
const DRAIN: Duration = Duration::from_secs(5);

/// A registry that runs as a part of your program: a server that Eureka's clients and peers take for one of theirs.
///
/// ```
/// use std::net::SocketAddr;
/// use hopvine::registry::Registry;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = Registry::builder().bind(SocketAddr::from(([127, 0, 0, 1], 0))).start().await?;
/// println!("clients use http://{}/eureka/", registry.local_addr());
/// registry.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Registry(());

impl Registry {
    /// How a registry is to be; [start](RegistryBuilder::start) it then.
    pub fn builder() -> RegistryBuilder {
        RegistryBuilder {
            policy: Live::new(RegistryPolicy::default()),
            address: SocketAddr::from(([127, 0, 0, 1], 8761)),
            name: "registry".to_owned(),
            credentials: Credentials::default(),
            monitor: Monitor::new(),
            sink: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

/// Settings of a [`Registry`].
#[must_use = "a registry runs when it is started"]
pub struct RegistryBuilder {
    policy: Result<Live<RegistryPolicy>, PolicyError>,
    address: SocketAddr,
    name: String,
    credentials: Credentials,
    monitor: Monitor,
    sink: Option<Arc<dyn ReplicationSink>>,
    #[cfg(feature = "tls")]
    tls: Option<ServerTls>,
}

/// Why a registry did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// A setting is wrong.
    Policy(PolicyError),
    /// The address cannot be listened on.
    Bind(SocketAddr, io::Error),
}

impl RegistryBuilder {
    /// Its policy, fixed or live. By default [`RegistryPolicy::default`].
    pub fn policy(mut self, policy: impl IntoLive<RegistryPolicy>) -> Self {
        self.policy = policy.into_live();
        self
    }

    /// Where it listens. By default 127.0.0.1:8761; port 0 is any free one.
    pub fn bind(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// Its name in the monitor. By default `registry`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Asks everybody for this user and password, as clients have it in their URL.
    pub fn credential(mut self, user: &str, password: &str) -> Self {
        self.credentials.client = Some(Credential::basic(user, password));
        self
    }

    /// Asks peers for this user and password; with it, nobody else may replicate.
    pub fn peer_credential(mut self, user: &str, password: &str) -> Self {
        self.credentials.peer = Some(Credential::basic(user, password));
        self
    }

    /// The monitor it is seen in. By default one of its own.
    pub fn monitor(mut self, monitor: &Monitor) -> Self {
        self.monitor = monitor.clone();
        self
    }

    /// Who is told of what happens here, to tell the peers.
    pub fn replicate_to(mut self, sink: Arc<dyn ReplicationSink>) -> Self {
        self.sink = Some(sink);
        self
    }

    /// Serves over TLS.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn tls(mut self, tls: ServerTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Starts it on the current runtime.
    pub async fn start(self) -> Result<RegistryHandle, StartError> {
        let policy = self.policy.map_err(StartError::Policy)?;
        let bind = |error| StartError::Bind(self.address, error);
        let socket = TcpListener::bind(self.address).await.map_err(bind)?;
        let address = socket.local_addr().map_err(bind)?;
        #[cfg(feature = "tls")]
        let (tls, knows_clients) =
            (self.tls.as_ref().map(ServerTls::acceptor), self.tls.as_ref().is_some_and(ServerTls::knows_clients));
        #[cfg(feature = "tls")]
        let is_tls = tls.is_some();
        #[cfg(not(feature = "tls"))]
        let (is_tls, knows_clients) = (false, false);

        let clock = Clock::start();
        let store = Arc::new(Store::new(policy, clock.now()).map_err(StartError::Policy)?);
        if let Some(sink) = self.sink {
            store.replicate_to(sink);
        }
        let documents = Arc::new(Documents::new(Arc::clone(&store), clock));
        let watches = Watches::new(Arc::clone(&store), clock);
        let (ticks, connections) = (Arc::new(Ticks::default()), TaskTracker::new());
        let desk = Arc::new(Desk {
            store,
            documents,
            watches,
            clock,
            credentials: self.credentials,
            name: self.name,
            address,
            connections: connections.clone(),
        });
        ticks.set(clock.now());
        let (stopping, ended) = (CancellationToken::new(), CancellationToken::new());
        let background = TaskTracker::new();
        let until = |ended: &CancellationToken, task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            let ended = ended.clone();
            async move {
                tokio::select! {
                    () = ended.cancelled() => {}
                    () = task => {}
                }
            }
        };
        background.spawn(until(&ended, Box::pin(Arc::clone(&desk.watches).run())));
        background.spawn(until(&ended, Box::pin(upkeep(Arc::clone(&desk), Arc::clone(&ticks)))));
        let places = desk.store.policy().get().limits.connections;
        let listener = Listener {
            socket,
            desk: Arc::clone(&desk),
            ticks,
            places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))),
            connections: connections.clone(),
            stopping: stopping.clone(),
            ended: ended.clone(),
            #[cfg(feature = "tls")]
            tls,
        };
        background.spawn(until(&ended, Box::pin(listener.run())));
        self.monitor.register(&desk.name, &desk);
        tracing::info!(target: "hopvine::registry", %address, tls = is_tls, "registry started");
        if !address.ip().is_loopback() && !desk.credentials.are_set() && !knows_clients {
            tracing::warn!(
                target: "hopvine::registry",
                %address,
                "the registry listens beyond this machine and asks nobody who he is: whoever reaches it can register and remove instances"
            );
        }
        Ok(RegistryHandle {
            monitor: self.monitor,
            desk,
            background,
            stopping: stopping.drop_guard(),
            ended: ended.drop_guard(),
        })
    }
}

/// Lets time pass in the store.
async fn upkeep(desk: Arc<Desk>, ticks: Arc<Ticks>) {
    let mut random = fastrand::Rng::new();
    let mut eviction = Instant::now();
    loop {
        let interval = desk.store.policy().get().eviction_interval;
        let next = (eviction + interval).min(Instant::now() + TICK);
        tokio::time::sleep_until(next).await;
        let now = desk.clock.now();
        ticks.set(now);
        desk.store.tick(now);
        if Instant::now() >= eviction + interval {
            eviction = Instant::now();
            let evicted = desk.store.evict(now, |below| random.usize(..below));
            for instance in evicted {
                tracing::info!(target: "hopvine::registry", app = ?instance.app, id = ?instance.id(), "instance evicted: its lease is over");
            }
        }
    }
}

/// A registry that runs. Dropped, it stops at once; [`shutdown`](Self::shutdown) lets it finish what is under way.
pub struct RegistryHandle {
    monitor: Monitor,
    desk: Arc<Desk>,
    background: TaskTracker,
    stopping: DropGuard,
    ended: DropGuard,
}

impl RegistryHandle {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.desk.address
    }

    /// The monitor it is seen in.
    pub fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    /// What it knows, to be read and changed without HTTP.
    pub fn store(&self) -> &Arc<Store> {
        &self.desk.store
    }

    /// The registry's own time, as [`Store`] wants it.
    pub fn now(&self) -> super::Moment {
        self.desk.clock.now()
    }

    /// Takes no more connections, ends watches, lets what is under way finish for 5 s at most, and stops.
    pub async fn shutdown(self) {
        drop(self.stopping);
        self.desk.watches.close();
        self.desk.connections.close();
        let drained = tokio::time::timeout(DRAIN, self.desk.connections.wait()).await;
        if drained.is_err() {
            tracing::warn!(target: "hopvine::registry", connections = self.desk.connections.len(), "connections cut off at the stop");
        }
        drop(self.ended);
        self.background.close();
        self.background.wait().await;
    }
}

impl fmt::Debug for RegistryBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryBuilder")
            .field("policy", &self.policy)
            .field("address", &self.address)
            .field("name", &self.name)
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RegistryHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryHandle")
            .field("address", &self.desk.address)
            .field("store", &self.desk.store)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(error) => error.fmt(f),
            Self::Bind(address, error) => write!(f, "cannot listen on {address}: {error}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Policy(error) => Some(error),
            Self::Bind(_, error) => Some(error),
        }
    }
}
