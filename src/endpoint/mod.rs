//! One instance of a service: what is known of it, and its live state in a stack.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

mod handle;
mod health;
mod load;
#[cfg(all(test, hopvine_loom))]
mod models;

pub use handle::{EndpointHandle, Group};
pub(crate) use health::Standing;
pub use health::{Admission, Health};
pub use load::Load;

/// The name of an instance, unique among its service's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(Arc<str>);

impl EndpointId {
    /// An id of this text.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<EndpointId> for Arc<str> {
    fn from(id: EndpointId) -> Self {
        id.0
    }
}

/// Where an endpoint listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// An IP address and port.
    Socket(SocketAddr),
    /// A name the connector resolves, both IP families, as one endpoint.
    Host(Arc<str>, u16),
}

impl Address {
    /// The IP address, unless it is a name.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Socket(socket) => Some(socket.ip()),
            Self::Host(..) => None,
        }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        match self {
            Self::Socket(socket) => socket.port(),
            Self::Host(_, port) => *port,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(socket) => socket.fmt(f),
            Self::Host(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// How an endpoint is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// In the clear.
    #[default]
    Http,
    /// Over TLS.
    Https,
}

/// What the source says an instance is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// Takes calls.
    #[default]
    Up,
    /// Finishes what it has and takes no new calls.
    Draining,
    /// Takes no calls.
    Down,
}

/// One instance of a service, as its source describes it. Pure data; clones are cheap.
///
/// Identity is the id and the address: the same pair with other metadata, weight, zone or status is the same endpoint,
/// and keeps its connections, latency and ejections.
///
/// ```
/// use hopvine::Endpoint;
/// let endpoint: Endpoint = "https://10.0.0.7:8443".parse()?;
/// let endpoint = endpoint.with_id("catalog-7").with_zone("a").with_weight(2);
/// assert_eq!(endpoint.address().port(), 8443);
/// # Ok::<(), hopvine::endpoint::InvalidEndpoint>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    id: EndpointId,
    address: Address,
    scheme: Scheme,
    status: Status,
    weight: u32,
    more: More,
}

/// What sources say of few endpoints, or each of all of its own: one pointer where there is nothing of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct More(Option<Arc<Rare>>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rare {
    server_name: Option<Arc<str>>,
    authority: Option<Arc<str>>,
    zone: Option<Arc<str>>,
    metadata: BTreeMap<String, String>,
}

impl More {
    fn get(&self) -> &Rare {
        static NOTHING: Rare = Rare { server_name: None, authority: None, zone: None, metadata: BTreeMap::new() };
        self.0.as_deref().unwrap_or(&NOTHING)
    }

    fn set(&mut self, change: impl FnOnce(&mut Rare)) {
        change(Arc::make_mut(self.0.get_or_insert_default()));
        // As if it had never been set, also to `==`.
        self.0.take_if(|rare| **rare == Rare::default());
    }
}

impl Endpoint {
    /// An endpoint at this address, in the clear, of weight 1, up, with its address as its id.
    pub fn new(address: Address) -> Self {
        Self {
            id: EndpointId::new(address.to_string()),
            address,
            scheme: Scheme::Http,
            status: Status::Up,
            weight: 1,
            more: More::default(),
        }
    }

    /// With this id.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<Arc<str>>) -> Self {
        self.id = EndpointId::new(id);
        self
    }

    /// With this scheme.
    #[must_use]
    pub fn with_scheme(mut self, scheme: Scheme) -> Self {
        self.scheme = scheme;
        self
    }

    /// With the name that its certificate must bear and that is sent as SNI; by default the host of its address.
    #[must_use]
    pub fn with_server_name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.more.set(|more| more.server_name = Some(name.into()));
        self
    }

    /// With what is sent as `Host` or `:authority` where the request names none; by default its address.
    #[must_use]
    pub fn with_authority(mut self, authority: impl Into<Arc<str>>) -> Self {
        self.more.set(|more| more.authority = Some(authority.into()));
        self
    }

    /// With this weight, relative to the service's other endpoints.
    #[must_use]
    pub fn with_weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// In this zone.
    #[must_use]
    pub fn with_zone(mut self, zone: impl Into<Arc<str>>) -> Self {
        self.more.set(|more| more.zone = Some(zone.into()));
        self
    }

    /// With this status.
    #[must_use]
    pub fn with_status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    /// With this metadata.
    #[must_use]
    pub fn with_metadata(mut self, metadata: BTreeMap<String, String>) -> Self {
        self.more.set(|more| more.metadata = metadata);
        self
    }

    /// Its name.
    pub fn id(&self) -> &EndpointId {
        &self.id
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// How it is spoken to.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The name its certificate must bear, if it is not the host of its address.
    pub fn server_name(&self) -> Option<&str> {
        self.more.get().server_name.as_deref()
    }

    /// What is sent as `Host`, if it is not its address.
    pub fn authority(&self) -> Option<&str> {
        self.more.get().authority.as_deref()
    }

    /// Its weight.
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// Its zone.
    pub fn zone(&self) -> Option<&str> {
        self.more.get().zone.as_deref()
    }

    /// What its source says it is doing.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Whatever else its source says.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.more.get().metadata
    }

    /// Whether `other` is the same endpoint to a stack: same id and address, and reached the same way, so that
    /// connections and what was learned stay valid.
    pub fn is_same(&self, other: &Self) -> bool {
        self.id == other.id
            && self.address == other.address
            && self.scheme == other.scheme
            && self.server_name() == other.server_name()
            && self.authority() == other.authority()
    }

    /// An error for what no client should be sent to (design: what a registry says is input): an unspecified,
    /// multicast, broadcast or link-local address, port 0, or a host name that is none.
    pub fn validate(&self) -> Result<(), InvalidEndpoint> {
        let refuse = |reason| Err(InvalidEndpoint { text: self.address.to_string(), reason });
        if self.address.port() == 0 {
            return refuse("port 0");
        }
        match &self.address {
            Address::Socket(socket) => match socket.ip().to_canonical() {
                ip if ip.is_unspecified() => refuse("unspecified address"),
                ip if ip.is_multicast() => refuse("multicast address"),
                IpAddr::V4(ip) if ip.is_broadcast() => refuse("broadcast address"),
                IpAddr::V4(ip) if ip.is_link_local() => refuse("link-local address"),
                IpAddr::V6(ip) if ip.is_unicast_link_local() => refuse("link-local address"),
                _ => Ok(()),
            },
            Address::Host(host, _) if is_host_name(host) => Ok(()),
            Address::Host(..) => refuse("not a host name"),
        }
    }
}

/// RFC 1123, with underscores, as container platforms use them; not all digits and dots, which would be an address.
fn is_host_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    (1..=253).contains(&host.len())
        && host.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        })
        && host.rsplit('.').next().is_some_and(|last| !last.bytes().all(|byte| byte.is_ascii_digit()))
}

impl From<SocketAddr> for Endpoint {
    fn from(socket: SocketAddr) -> Self {
        Self::new(Address::Socket(socket))
    }
}

/// `host:port`, `ip:port`, or with `http://` or `https://` in front, when the port may be left out. An IPv6 address stands in brackets.
impl std::str::FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let refuse = |reason| InvalidEndpoint { text: text.to_owned(), reason };
        let (scheme, rest, default_port) = match text.split_once("://") {
            Some(("http", rest)) => (Scheme::Http, rest, Some(80)),
            Some(("https", rest)) => (Scheme::Https, rest, Some(443)),
            Some(_) => return Err(refuse("the scheme must be http or https")),
            None => (Scheme::Http, text, None),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let address = if let Ok(socket) = rest.parse::<SocketAddr>() {
            Address::Socket(socket)
        } else if let Some(ip) = lone_ip(rest) {
            Address::Socket(SocketAddr::new(ip, default_port.ok_or_else(|| refuse("a port is missing"))?))
        } else {
            let (host, port) = match rest.rsplit_once(':') {
                // Rust reads `+80` as a number, too.
                Some((_, port)) if port.starts_with('+') => return Err(refuse("not a port")),
                Some((host, port)) => (host, port.parse().map_err(|_| refuse("not a port"))?),
                None => (rest, default_port.ok_or_else(|| refuse("a port is missing"))?),
            };
            Address::Host(host.to_ascii_lowercase().into(), port)
        };
        let endpoint = Self::new(address).with_scheme(scheme);
        endpoint.validate().map_err(|invalid| refuse(invalid.reason))?;
        Ok(endpoint)
    }
}

/// An IP address without a port. One of IPv6 is told from a port by its brackets: without them, `fd00::1:80` would be another address.
fn lone_ip(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(inside) => inside.parse().ok().map(IpAddr::V6),
        None => text.parse().ok().map(IpAddr::V4),
    }
}

/// Why a text or an address is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidEndpoint {
    text: String,
    reason: &'static str,
}

#[cfg(feature = "eureka")]
impl InvalidEndpoint {
    pub(crate) fn new(text: &str, reason: &'static str) -> Self {
        Self { text: text.to_owned(), reason }
    }
}

impl fmt::Display for InvalidEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "endpoint {:?}: {}", self.text, self.reason)
    }
}

impl std::error::Error for InvalidEndpoint {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_with_a_slip_in_it_does_not_lead_somewhere_else() {
        let address = |url: &str| url.parse::<Endpoint>().map(|endpoint| endpoint.address().to_string());
        assert_eq!(address("http://[fd00::1]:8080").as_deref(), Ok("[fd00::1]:8080"));
        assert_eq!(address("https://[fd00::1]/").as_deref(), Ok("[fd00::1]:443"));
        assert_eq!(address("http://10.0.0.1").as_deref(), Ok("10.0.0.1:80"));
        for wrong in [
            "http://fd00::1:8080",
            "http://fd00::1",
            "http://[[fd00::1]]",
            "http://[fd00::1",
            "http://10.0.0.1]",
            "http://[10.0.0.1]",
            "http://[10.0.0.1]:80",
            "catalog:+80",
            "10.0.0.1:+80",
        ] {
            assert!(address(wrong).is_err(), "{wrong}: {:?}", address(wrong));
        }
    }
}
