use ipnet::IpNet;

use crate::Endpoint;

/// Which addresses a directory takes from its sources: networks that are allowed (all, if none is named) and networks that are denied.
///
/// Host names pass; what they resolve to is the connector's, and `HttpClient` leaves out what no endpoint may be.
///
/// ```
/// use hopvine::discover::AddressFilter;
/// let filter = AddressFilter::default().allow("10.0.0.0/8".parse()?).deny("10.9.0.0/16".parse()?);
/// assert!(filter.admits(&"10.1.2.3:80".parse()?));
/// assert!(!filter.admits(&"10.9.2.3:80".parse()?));
/// assert!(!filter.admits(&"192.168.0.1:80".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AddressFilter {
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
}

impl AddressFilter {
    /// Allows this network, beside others that are allowed.
    #[must_use]
    pub fn allow(mut self, network: IpNet) -> Self {
        self.allow.push(network);
        self
    }

    /// Denies this network, allowed or not.
    #[must_use]
    pub fn deny(mut self, network: IpNet) -> Self {
        self.deny.push(network);
        self
    }

    /// Whether an endpoint's address may be used.
    pub fn admits(&self, endpoint: &Endpoint) -> bool {
        let Some(ip) = endpoint.address().ip().map(|ip| ip.to_canonical()) else { return true };
        let within = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&ip));
        (self.allow.is_empty() || within(&self.allow)) && !within(&self.deny)
    }
}
