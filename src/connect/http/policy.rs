use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Policy, PolicyError};

/// Settings of the client's pools.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpPolicy {
    /// How long name resolution, connecting, a proxy's and TLS's handshake may take together; default 1 s.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// How long a connection may be idle; default 50 s, just below the 60 s of many servers and load balancers.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// How long a connection may live, 10 % less by chance; default 10 min. It ends between two requests.
    #[serde(with = "humantime_serde")]
    pub max_lifetime: Duration,
    /// HTTP/1 connections per endpoint and runtime; default 128.
    pub max_connections: usize,
    /// HTTP/2 connections per endpoint and runtime; default 4. A second one is opened when the first has as many streams as its server allows.
    pub max_http2_connections: usize,
    /// Connections opened ahead for a new endpoint; default none. Needs [`BalanceLayer::eager`](crate::layers::balance::BalanceLayer::eager) to come before the first call.
    pub warm_up: usize,
    /// How often an HTTP/2 connection with streams under way is asked whether it lives; default 20 s. It is closed when no answer comes as long again.
    #[serde(with = "humantime_serde")]
    pub ping_interval: Duration,
    /// The largest response head, in bytes, at least 8 192; default 64 KiB.
    pub max_head: usize,
}

impl Default for HttpPolicy {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(50),
            max_lifetime: Duration::from_secs(600),
            max_connections: 128,
            max_http2_connections: 4,
            warm_up: 0,
            ping_interval: Duration::from_secs(20),
            max_head: 64 * 1024,
        }
    }
}

impl Policy for HttpPolicy {
    fn validate(&self) -> Result<(), PolicyError> {
        for (field, duration) in [
            ("connect_timeout", self.connect_timeout),
            ("idle_timeout", self.idle_timeout),
            ("max_lifetime", self.max_lifetime),
            ("ping_interval", self.ping_interval),
        ] {
            if duration.is_zero() {
                return Err(PolicyError::new(field, duration, "must be above zero"));
            }
        }
        for (field, count) in
            [("max_connections", self.max_connections), ("max_http2_connections", self.max_http2_connections)]
        {
            if count == 0 {
                return Err(PolicyError::new(field, count, "must be at least 1"));
            }
        }
        if self.warm_up > self.max_connections {
            return Err(PolicyError::new("warm_up", self.warm_up, "must not be above max_connections"));
        }
        if self.max_head < 8192 {
            return Err(PolicyError::new("max_head", self.max_head, "must be at least 8192"));
        }
        Ok(())
    }
}

/// Which version of HTTP is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Version {
    /// In the clear HTTP/1; over TLS what the server prefers of both.
    #[default]
    Auto,
    /// HTTP/1.
    Http1,
    /// HTTP/2; in the clear by prior knowledge.
    Http2,
}
