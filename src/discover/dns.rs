//! Discovery by DNS: A and AAAA records, or SRV.
//!
//! ```no_run
//! use std::time::Duration;
//! use hopvine::{Directory, discover::dns::Dns};
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! let dns = Dns::system()?; // /etc/resolv.conf
//! let directory = Directory::builder()
//!     .service("catalog", dns.addresses("catalog.internal", 8080))
//!     .service("orders", dns.srv("_http._tcp.orders.internal"))
//!     // any other name: its headless Kubernetes service
//!     .source(dns.by_name(|service| (format!("{service}.shop.svc.cluster.local"), 80)))
//!     .build();
//! directory.ready(Duration::from_secs(5)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Names are asked for again when their records' time to live is over, cut to between 1 s and 1 h. An answer that there is none, a failure and a silence keep the last
//! set, and are tried again after 1 s, doubling to 60 s, with full jitter. So does an answer of nothing but addresses that may not be used, such as 0.0.0.0, until
//! its time to live is over. The id of an endpoint is its `ip:port`; its server name and authority are those of the
//! host. Of SRV records those of the lowest priority are used, with their weights; there is no failing over to the next priority.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::stream;
use hickory_resolver::{
    TokioResolver,
    config::{LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{RData, RecordType},
};
use tokio::time::Instant;
use tower::BoxError;

use super::{ChangeStream, Source};
use crate::Endpoint;

/// How long a set is good at least, and at most, whatever its records say.
const TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// The ceiling of the first wait after a failure, and the highest one.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A resolver as a source. Clones share it. See the [module](self).
#[derive(Clone)]
pub struct Dns {
    resolver: Arc<TokioResolver>,
}

/// Why there is no resolver.
#[derive(Debug)]
pub struct InvalidDns(NetError);

impl fmt::Display for InvalidDns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no resolver: {}", self.0)
    }
}

impl std::error::Error for InvalidDns {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
enum Question {
    Addresses(String, u16),
    Srv(String),
}

impl Dns {
    /// The system's resolver: `/etc/resolv.conf`, with its search list and `/etc/hosts`.
    pub fn system() -> Result<Self, InvalidDns> {
        let mut builder = TokioResolver::builder_tokio().map_err(InvalidDns)?;
        settle(builder.options_mut());
        Self::new(builder.build())
    }

    /// These servers, over UDP, and TCP for what is too long, and no others.
    pub fn servers(servers: impl IntoIterator<Item = SocketAddr>) -> Result<Self, InvalidDns> {
        let servers = servers.into_iter().map(|address| {
            let mut server = NameServerConfig::udp_and_tcp(address.ip());
            for connection in &mut server.connections {
                connection.port = address.port();
            }
            server
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        settle(builder.options_mut());
        Self::new(builder.build())
    }

    fn new(resolver: Result<TokioResolver, NetError>) -> Result<Self, InvalidDns> {
        Ok(Self { resolver: Arc::new(resolver.map_err(InvalidDns)?) })
    }

    /// The A and AAAA records of a host, as endpoints of this port.
    pub fn addresses(&self, host: &str, port: u16) -> ChangeStream {
        self.ask(Question::Addresses(host.to_owned(), port))
    }

    /// The SRV records of a name, and the addresses of their targets.
    pub fn srv(&self, name: &str) -> ChangeStream {
        self.ask(Question::Srv(name.to_owned()))
    }

    /// A source of any service: `host` says under which host and port its instances are.
    pub fn by_name<F>(&self, host: F) -> ByName<F>
    where
        F: Fn(&str) -> (String, u16) + Send + Sync + 'static,
    {
        ByName { dns: self.clone(), host }
    }

    fn ask(&self, question: Question) -> ChangeStream {
        let asked = Asked { dns: self.clone(), question, next: None, failures: 0 };
        ChangeStream::sets(stream::unfold(asked, async |mut asked| {
            let said = asked.next().await;
            Some((said, asked))
        }))
    }

    async fn resolve(&self, question: &Question) -> Result<(Vec<Endpoint>, Instant), BoxError> {
        match question {
            Question::Addresses(host, port) => {
                let (addresses, until) = self.lookup(host).await?;
                Ok((addresses.into_iter().map(|ip| endpoint(ip, *port, host)).collect(), until))
            }
            Question::Srv(name) => {
                let found = self.resolver.lookup(name.as_str(), RecordType::SRV).await?;
                let mut until = Instant::from_std(found.valid_until());
                let records = found.answers().iter().filter_map(|record| match &record.data {
                    RData::SRV(srv) => Some(srv),
                    _ => None,
                });
                let records: Vec<_> = records.collect();
                let Some(first) = records.iter().map(|srv| srv.priority).min() else {
                    return Err(format!("no SRV record of {name}").into());
                };
                let mut endpoints = Vec::new();
                for srv in records.iter().filter(|srv| srv.priority == first && !srv.target.is_root()) {
                    let host = srv.target.to_utf8();
                    let host = host.trim_end_matches('.');
                    let (addresses, good) = self.lookup(host).await?;
                    until = until.min(good);
                    // RFC 2782: one of weight 0 has a small chance beside others.
                    let weight = u32::from(srv.weight).max(1);
                    endpoints.extend(addresses.into_iter().map(|ip| endpoint(ip, srv.port, host).with_weight(weight)));
                }
                Ok((endpoints, until))
            }
        }
    }

    async fn lookup(&self, host: &str) -> Result<(BTreeSet<IpAddr>, Instant), BoxError> {
        let found = self.resolver.lookup_ip(host).await?;
        let addresses: BTreeSet<IpAddr> = found.iter().collect();
        if addresses.is_empty() {
            return Err(format!("no address of {host}").into());
        }
        Ok((addresses, Instant::from_std(found.valid_until())))
    }
}

/// What all our resolvers do: both families, 2 s at most, and no cache longer than we want to be behind.
fn settle(options: &mut ResolverOpts) {
    options.timeout = Duration::from_secs(1);
    options.attempts = 1;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.positive_max_ttl = Some(TTL.1);
    // An answer that there is none is asked for again by our own backoff.
    options.negative_max_ttl = Some(Duration::ZERO);
}

fn endpoint(ip: IpAddr, port: u16, host: &str) -> Endpoint {
    let endpoint = Endpoint::from(SocketAddr::new(ip, port)).with_server_name(host);
    endpoint.with_authority(format!("{host}:{port}"))
}

/// One question, asked again and again.
struct Asked {
    dns: Dns,
    question: Question,
    /// When to ask again; `None` before the first time.
    next: Option<Instant>,
    failures: u32,
}

impl Asked {
    async fn next(&mut self) -> Result<Vec<Endpoint>, BoxError> {
        if let Some(next) = self.next {
            tokio::time::sleep_until(next).await;
        }
        match self.dns.resolve(&self.question).await {
            Ok((endpoints, until)) => {
                let now = Instant::now();
                self.failures = 0;
                self.next = Some(now + until.saturating_duration_since(now).clamp(TTL.0, TTL.1));
                Ok(endpoints)
            }
            Err(error) => {
                let ceiling = BACKOFF.0.saturating_mul(1 << self.failures.min(10)).min(BACKOFF.1);
                self.failures += 1;
                // Not all clients at once, and not at once.
                self.next = Some(Instant::now() + ceiling.mul_f64(0.1 + 0.9 * fastrand::f64()));
                Err(error)
            }
        }
    }
}

/// Made by [`Dns::by_name`].
pub struct ByName<F> {
    dns: Dns,
    host: F,
}

impl<F> Source for ByName<F>
where
    F: Fn(&str) -> (String, u16) + Send + Sync + 'static,
{
    /// Cannot be told without asking.
    fn lists(&self, _: &str) -> bool {
        true
    }

    fn discover(&self, service: &str) -> ChangeStream {
        let (host, port) = (self.host)(service);
        self.dns.addresses(&host, port)
    }
}

impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dns").finish_non_exhaustive()
    }
}

impl<F> fmt::Debug for ByName<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByName").finish_non_exhaustive()
    }
}
