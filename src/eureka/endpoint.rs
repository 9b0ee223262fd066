use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{Instance, InstanceStatus};
use crate::{
    Endpoint,
    endpoint::{Address, InvalidEndpoint, Scheme, Status},
};

/// How an instance is called.
///
/// | field | default | |
/// |---|---|---|
/// | `host` | `host_name` | `host_name`, as Spring's clients do, or `ip_address`; where one is missing, the other |
/// | `port` | `secure_if_enabled` | `secure_if_enabled`, as Spring's clients do; `plain`; or `secure` |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EndpointSettings {
    /// Where it is reached.
    pub host: HostChoice,
    /// On which of its ports.
    pub port: PortChoice,
}

/// Where an instance is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostChoice {
    /// At its host name.
    #[default]
    HostName,
    /// At its IP address.
    IpAddress,
}

/// On which of its two ports an instance is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortChoice {
    /// The one over TLS if it is enabled, or else the one in the clear.
    #[default]
    SecureIfEnabled,
    /// The one in the clear, which must be enabled.
    Plain,
    /// The one over TLS, which must be enabled.
    Secure,
}

impl Instance {
    /// The endpoint that this instance is, if it says where it listens. Whether anybody should be sent there is the directory's to judge.
    ///
    /// | of the endpoint | of the instance |
    /// |---|---|
    /// | id | its [id](Self::id) |
    /// | status | `UP` is up, `OUT_OF_SERVICE` draining, all others down |
    /// | zone | the metadata's `zone`, or Amazon's availability zone |
    /// | weight | the metadata's `weight`, a whole number; 1 if it has none |
    /// | server name | over TLS, its host name, if it is reached at its IP address |
    /// | metadata | the rest of it |
    pub fn endpoint(&self, settings: &EndpointSettings) -> Result<Endpoint, InvalidEndpoint> {
        let refuse = |reason| InvalidEndpoint::new(self.id(), reason);
        let (host, other) = match settings.host {
            HostChoice::HostName => (&self.host_name, &self.ip_addr),
            HostChoice::IpAddress => (&self.ip_addr, &self.host_name),
        };
        let host = if host.is_empty() { other } else { host };
        if host.is_empty() {
            return Err(refuse("neither a host name nor an address"));
        }
        let scheme = match settings.port {
            PortChoice::SecureIfEnabled if self.secure_port.enabled => Scheme::Https,
            PortChoice::SecureIfEnabled | PortChoice::Plain => Scheme::Http,
            PortChoice::Secure => Scheme::Https,
        };
        let port = match scheme {
            Scheme::Http => self.port,
            Scheme::Https => self.secure_port,
        };
        if !port.enabled {
            return Err(refuse("the port is not enabled"));
        }
        let port = u16::try_from(port.number).map_err(|_| refuse("not a port"))?;

        let mut endpoint =
            Endpoint::new(address(host, port)).with_id(self.id()).with_scheme(scheme).with_status(status(self.status));
        if scheme == Scheme::Https && endpoint.address().ip().is_some() && is_name(&self.host_name) {
            endpoint = endpoint.with_server_name(&*self.host_name);
        }
        if let Some(zone) = self.metadata.get("zone").or_else(|| self.amazon("availability-zone")) {
            endpoint = endpoint.with_zone(zone);
        }
        if let Some(weight) = self.metadata.get("weight").and_then(|weight| weight.trim().parse().ok()) {
            endpoint = endpoint.with_weight(weight);
        }
        let rest = self.metadata.iter().filter(|(name, _)| !matches!(*name, "zone" | "weight"));
        Ok(endpoint.with_metadata(rest.map(|(name, text)| (name.to_owned(), text.to_owned())).collect()))
    }
}

fn address(host: &str, port: u16) -> Address {
    match host.parse::<IpAddr>() {
        Ok(ip) => Address::Socket(SocketAddr::new(ip, port)),
        Err(_) => Address::Host(host.to_ascii_lowercase().into(), port),
    }
}

fn is_name(host: &str) -> bool {
    !host.is_empty() && host.parse::<IpAddr>().is_err()
}

fn status(status: InstanceStatus) -> Status {
    match status {
        InstanceStatus::Up => Status::Up,
        InstanceStatus::OutOfService => Status::Draining,
        InstanceStatus::Down | InstanceStatus::Starting | InstanceStatus::Unknown => Status::Down,
    }
}
