use std::{fmt, io, net::SocketAddr, path::PathBuf, sync::Arc};

#[cfg(feature = "tls")]
use super::ServerTls;
use crate::{
    Live, Monitor, PolicyError,
    discover::eureka::{InvalidEureka, ServerUrl},
    live::IntoLive,
    registry::{
        RegistryPolicy, ReplicationSink,
        http::{Credential, Credentials},
    },
};

/// Settings of a [`Registry`](super::Registry).
#[must_use = "a registry runs when it is started"]
pub struct RegistryBuilder {
    pub(super) policy: Result<Live<RegistryPolicy>, PolicyError>,
    pub(super) address: SocketAddr,
    pub(super) name: String,
    pub(super) credentials: Credentials,
    pub(super) monitor: Monitor,
    pub(super) sink: Option<Arc<dyn ReplicationSink>>,
    pub(super) peers: Result<Vec<ServerUrl>, InvalidEureka>,
    pub(super) my_url: Result<Option<ServerUrl>, InvalidEureka>,
    #[cfg(feature = "tls")]
    pub(super) peer_tls: crate::connect::http::Tls,
    pub(super) snapshot: Option<PathBuf>,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<ServerTls>,
}

/// Why a registry did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// A setting is wrong.
    Policy(PolicyError),
    /// The address cannot be listened on.
    Bind(SocketAddr, io::Error),
    /// A peer's URL, or our own, is none.
    Peers(InvalidEureka),
    /// The folder of the snapshot cannot be used.
    Snapshot(PathBuf, io::Error),
}

impl RegistryBuilder {
    pub(super) fn new() -> Self {
        Self {
            policy: Live::new(RegistryPolicy::default()),
            address: SocketAddr::from(([127, 0, 0, 1], 8761)),
            name: "registry".to_owned(),
            credentials: Credentials::default(),
            monitor: Monitor::new(),
            sink: None,
            peers: Ok(Vec::new()),
            my_url: Ok(None),
            #[cfg(feature = "tls")]
            peer_tls: crate::connect::http::Tls::default(),
            snapshot: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

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

    /// The other registries, of ours or Java ones: their service URLs, as `http://user:password@host:8761/eureka/`, each of which may be several with commas
    /// between. They are told of what clients do here, and at the start are asked for what they know. Every one must have all others as its peers, since what
    /// one was told by another it does not tell on.
    ///
    /// The list may be the same for all of them: a URL that is this registry itself is left out, and told in the log. That is one whose host and port are those
    /// it listens at, by address or by a name that stands for such an address, or that is [`my_url`](Self::my_url).
    pub fn peers<U: AsRef<str>>(mut self, urls: impl IntoIterator<Item = U>) -> Self {
        self.peers = ServerUrl::list(urls);
        self
    }

    /// Which URL peers reach this registry by (`eureka.server.my-url`), if that cannot be told from where it listens, as behind a forwarded port.
    pub fn my_url(mut self, url: &str) -> Self {
        self.my_url = url.parse().map(Some);
        self
    }

    /// Whose certificates are believed where a peer's URL begins with `https://`, and which one is shown.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn peer_tls(mut self, tls: crate::connect::http::Tls) -> Self {
        self.peer_tls = tls;
        self
    }

    /// Keeps what it knows in this file, so that a restart while no peer has anything does not begin empty. Only its owner can read it; its folder must exist.
    ///
    /// What is restored has one full lease to be heard of. A file that is bad is renamed to `.bad` and told in the log, and one that is too old is not used.
    pub fn snapshot(mut self, path: impl Into<PathBuf>) -> Self {
        self.snapshot = Some(path.into());
        self
    }

    /// Who else is told of what happens here.
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

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(error) => error.fmt(f),
            Self::Bind(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::Peers(error) => write!(f, "peers: {error}"),
            Self::Snapshot(path, error) => write!(f, "snapshot {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Policy(error) => Some(error),
            Self::Bind(_, error) | Self::Snapshot(_, error) => Some(error),
            Self::Peers(error) => Some(error),
        }
    }
}
