use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{InvalidEureka, ServerUrl};
use crate::{Policy, PolicyError};

/// The servers of a registry, and how they are talked to. Shared by [`Eureka`](super::Eureka) and [`Registration`](super::Registration).
///
/// ```
/// use hopvine::discover::eureka::Servers;
/// let servers = Servers::in_zone("a", ["http://eureka-a:8761/eureka/"])?
///     .and_zone("b", ["http://eureka-b:8761/eureka/"])?
///     .zone("b"); // we are in zone b: its server comes first
/// # Ok::<(), hopvine::discover::eureka::InvalidEureka>(())
/// ```
#[derive(Clone, Debug)]
pub struct Servers {
    pub(super) urls: Vec<(Option<Arc<str>>, ServerUrl)>,
    pub(super) zone: Option<Arc<str>>,
    pub(super) policy: ServersPolicy,
    #[cfg(feature = "tls")]
    pub(super) tls: crate::connect::http::Tls,
}

/// How servers are talked to.
///
/// | field | default | |
/// |---|---|---|
/// | `connect_timeout` | 2 s | for name resolution, connecting and TLS together |
/// | `request_timeout` | 8 s | for one try of one request, its answer included |
/// | `session` | 20 min | how long one server is stayed with, half of it more or less by chance |
/// | `max_bytes` | 64 MiB | of one answer, unpacked |
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServersPolicy {
    /// For name resolution, connecting and TLS together.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// For one try of one request, its answer included.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// How long one server is stayed with.
    #[serde(with = "humantime_serde")]
    pub session: Duration,
    /// Bytes of one answer, unpacked.
    pub max_bytes: usize,
}

impl Default for ServersPolicy {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(8),
            session: Duration::from_secs(20 * 60),
            max_bytes: 64 << 20,
        }
    }
}

impl Policy for ServersPolicy {
    fn validate(&self) -> Result<(), PolicyError> {
        for (field, duration) in [
            ("connect_timeout", self.connect_timeout),
            ("request_timeout", self.request_timeout),
            ("session", self.session),
        ] {
            if duration.is_zero() {
                return Err(PolicyError::new(field, duration, "must be above zero"));
            }
        }
        if self.max_bytes == 0 {
            return Err(PolicyError::new("max_bytes", self.max_bytes, "must be at least 1"));
        }
        Ok(())
    }
}

impl Servers {
    /// Servers of no zone. Each URL may be several with commas between, as Spring's `service-url.defaultZone` is.
    pub fn new<U: AsRef<str>>(urls: impl IntoIterator<Item = U>) -> Result<Self, InvalidEureka> {
        Self::none().add(None, urls)
    }

    /// Servers of this zone.
    pub fn in_zone<U: AsRef<str>>(
        zone: impl Into<Arc<str>>,
        urls: impl IntoIterator<Item = U>,
    ) -> Result<Self, InvalidEureka> {
        Self::none().add(Some(&zone.into()), urls)
    }

    /// And servers of this zone.
    pub fn and_zone<U: AsRef<str>>(
        self,
        zone: impl Into<Arc<str>>,
        urls: impl IntoIterator<Item = U>,
    ) -> Result<Self, InvalidEureka> {
        self.add(Some(&zone.into()), urls)
    }

    /// The zone we are in: its servers come first, and what registers says that it is there.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<Arc<str>>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Times and limits.
    pub fn policy(mut self, policy: ServersPolicy) -> Result<Self, InvalidEureka> {
        policy.validate()?;
        self.policy = policy;
        Ok(self)
    }

    /// Whose certificates are believed, and which one is shown.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: crate::connect::http::Tls) -> Self {
        self.tls = tls;
        self
    }

    /// Servers of no zone, none at all included.
    #[cfg(feature = "registry")]
    pub(crate) fn of(urls: Vec<ServerUrl>, policy: ServersPolicy) -> Self {
        Self { urls: urls.into_iter().map(|url| (None, url)).collect(), policy, ..Self::none() }
    }

    fn none() -> Self {
        Self {
            urls: Vec::new(),
            zone: None,
            policy: ServersPolicy::default(),
            #[cfg(feature = "tls")]
            tls: crate::connect::http::Tls::default(),
        }
    }

    fn add<U: AsRef<str>>(
        mut self,
        zone: Option<&Arc<str>>,
        urls: impl IntoIterator<Item = U>,
    ) -> Result<Self, InvalidEureka> {
        let urls = ServerUrl::list(urls)?;
        if urls.is_empty() {
            return Err(InvalidEureka::new("urls", "there must be at least one server"));
        }
        self.urls.extend(urls.into_iter().map(|url| (zone.cloned(), url)));
        Ok(self)
    }

    /// Whether each server is near: in our zone.
    pub(super) fn near(&self) -> Vec<bool> {
        self.urls.iter().map(|(zone, _)| zone.is_some() && *zone == self.zone).collect()
    }
}

/// What can be taken as [`Servers`]: those, a URL, or several.
pub trait IntoServers {
    /// The servers, if the URLs are valid.
    fn into_servers(self) -> Result<Servers, InvalidEureka>;
}

impl IntoServers for Servers {
    fn into_servers(self) -> Result<Servers, InvalidEureka> {
        Ok(self)
    }
}

impl IntoServers for &Servers {
    fn into_servers(self) -> Result<Servers, InvalidEureka> {
        Ok(self.clone())
    }
}

impl IntoServers for &str {
    fn into_servers(self) -> Result<Servers, InvalidEureka> {
        Servers::new([self])
    }
}

impl<U: AsRef<str>, const N: usize> IntoServers for [U; N] {
    fn into_servers(self) -> Result<Servers, InvalidEureka> {
        Servers::new(self)
    }
}

impl<U: AsRef<str>> IntoServers for Vec<U> {
    fn into_servers(self) -> Result<Servers, InvalidEureka> {
        Servers::new(self)
    }
}

impl<U: AsRef<str>> IntoServers for &[U] {
    fn into_servers(self) -> Result<Servers, InvalidEureka> {
        Servers::new(self)
    }
}
