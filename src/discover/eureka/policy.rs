use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    Policy, PolicyError,
    eureka::{EndpointSettings, Limits},
};

/// How [`Eureka`](super::Eureka) follows a registry.
///
/// | field | default | |
/// |---|---|---|
/// | `fetch_interval` | 30 s | how often a server that does not push is asked, 10 % less or more by chance |
/// | `fetch` | `deltas` | `deltas`, or `full`: everything each time |
/// | `push` | `auto` | `auto`: follow a server that can push; `off` |
/// | `zones` | `off` | `prefer`: endpoints of our own zone only, as long as one of them is up |
/// | `regions` | none | remote regions whose instances are asked for besides |
/// | `endpoint` | as Spring | at which host and port an instance is called |
/// | `removal_grace` | 45 s | how long what is missing stays when a server lists far less than before, as one does that was just started |
/// | `snapshot_age` | 24 h | how old a snapshot may be to be used |
/// | `snapshot_interval` | 30 s | how often it is written at most |
/// | `limits` | | what one document may hold |
///
/// ```
/// use hopvine::{Policy, discover::eureka::{EurekaPolicy, PushMode}};
/// let policy: EurekaPolicy = serde_json::from_str(r#"{"fetch_interval": "5s", "push": "off", "endpoint": {"host": "ip_address"}}"#)?;
/// assert_eq!(policy.push, PushMode::Off);
/// policy.validate()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EurekaPolicy {
    /// How often a server that does not push is asked.
    #[serde(with = "humantime_serde")]
    pub fetch_interval: Duration,
    /// What it is asked for.
    pub fetch: FetchMode,
    /// Whether changes are pushed.
    pub push: PushMode,
    /// Which zones' endpoints are used.
    pub zones: ZoneAffinity,
    /// Remote regions whose instances are asked for besides.
    pub regions: Vec<String>,
    /// At which host and port an instance is called.
    pub endpoint: EndpointSettings,
    /// How long what is missing stays when a server that is asked for everything suddenly lists less than half of it; zero: not at all.
    ///
    /// Half of some application is enough where everything is asked for out of turn: when a delta did not fit, or another server answers. Where it is asked for each
    /// time ([`FetchMode::Full`], or a server without deltas), it must be half of all: a restarted server that already knows enough others cannot be told there from
    /// one whose instances left in order, and what it does not list is gone at once.
    #[serde(with = "humantime_serde")]
    pub removal_grace: Duration,
    /// How old a snapshot may be to be used.
    #[serde(with = "humantime_serde")]
    pub snapshot_age: Duration,
    /// How often it is written at most.
    #[serde(with = "humantime_serde")]
    pub snapshot_interval: Duration,
    /// What one document may hold.
    pub limits: Limits,
}

/// What a server that does not push is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FetchMode {
    /// What has changed; everything where that does not fit.
    #[default]
    Deltas,
    /// Everything.
    Full,
}

/// Whether changes are pushed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PushMode {
    /// By servers that can.
    #[default]
    Auto,
    /// Never: they are asked.
    Off,
}

/// Which zones' endpoints are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZoneAffinity {
    /// All zones'.
    #[default]
    Off,
    /// Those of our own [zone](super::Servers::zone), as long as one of them is up; otherwise all.
    Prefer,
}

impl Default for EurekaPolicy {
    fn default() -> Self {
        Self {
            fetch_interval: Duration::from_secs(30),
            fetch: FetchMode::default(),
            push: PushMode::default(),
            zones: ZoneAffinity::default(),
            regions: Vec::new(),
            endpoint: EndpointSettings::default(),
            removal_grace: Duration::from_secs(45),
            snapshot_age: Duration::from_secs(24 * 3600),
            snapshot_interval: Duration::from_secs(30),
            limits: Limits::default(),
        }
    }
}

impl Policy for EurekaPolicy {
    fn validate(&self) -> Result<(), PolicyError> {
        for (field, duration) in [("fetch_interval", self.fetch_interval), ("snapshot_age", self.snapshot_age)] {
            if duration.is_zero() {
                return Err(PolicyError::new(field, duration, "must be above zero"));
            }
        }
        let plain = |region: &&String| {
            !region.is_empty()
                && region.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        };
        if let Some(region) = self.regions.iter().find(|region| !plain(region)) {
            return Err(PolicyError::new("regions", region, "must be letters, digits, dots, dashes and underscores"));
        }
        Ok(())
    }
}
