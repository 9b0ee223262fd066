use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{PeerPolicy, SnapshotPolicy};
use crate::{Policy, PolicyError, eureka::Limits, live::Ratio};

/// How a registry keeps its leases, and how much it takes. All of it may change while it runs, but for `limits.connections` and
/// `peers.connect_timeout`, which are as they were at the start; what only a start asks for, such as `peers.sync_timeout`, holds for the next one.
///
/// The names in brackets are those of `eureka.server.*` in Spring Cloud.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryPolicy {
    /// Nobody is evicted while too few heartbeats come in, since then the network is more likely broken than the instances (`enable-self-preservation`). By default true.
    pub self_preservation: bool,
    /// The share of the expected heartbeats below which that is so, and of the instances that one eviction leaves at least (`renewal-percent-threshold`). By default 0.85.
    pub renewal_threshold: Ratio,
    /// How often each instance is expected to send a heartbeat (`expected-client-renewal-interval-seconds`). By default 30 s.
    #[serde(with = "humantime_serde")]
    pub expected_renewal_interval: Duration,
    /// How often the expected number is set to that of the instances there are (`renewal-threshold-update-interval-ms`). By default 15 min.
    #[serde(with = "humantime_serde")]
    pub threshold_update_interval: Duration,
    /// How often expired leases are looked for (`eviction-interval-timer-in-ms`). By default 60 s.
    #[serde(with = "humantime_serde")]
    pub eviction_interval: Duration,
    /// Whether a lease ends one duration after the last heartbeat, as its name says. By default false: it ends after two, as a Java server's does.
    pub exact_leases: bool,
    /// How long an instance may be silent that does not say. By default 90 s.
    #[serde(with = "humantime_serde")]
    pub default_lease: Duration,
    /// How long a change is told in deltas (`retention-time-in-m-s-in-delta-queue`). By default 180 s.
    #[serde(with = "humantime_serde")]
    pub delta_retention: Duration,
    /// How long an operator's override outlives the last heartbeat of its instance. By default an hour.
    #[serde(with = "humantime_serde")]
    pub override_retention: Duration,
    /// How old what is read may be while changes come; it is rendered at most once in that time, and only when it is read
    /// (`response-cache-update-interval-ms`). By default 100 ms. Zero: never old.
    #[serde(with = "humantime_serde")]
    pub render_interval: Duration,
    /// Whether an instance is taken out that holds a watch as its own, when that breaks and does not come back. By default false.
    pub expel_on_disconnect: bool,
    /// How long it may take to come back. By default 1 s.
    #[serde(with = "humantime_serde")]
    pub suspicion: Duration,
    /// How peers are told of what happens here.
    pub peers: PeerPolicy,
    /// How it is kept on disk.
    pub snapshot: SnapshotPolicy,
    /// How much is taken.
    pub limits: RegistryLimits,
}

/// How much a registry takes, each with a counter of what was refused in the monitor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryLimits {
    /// Instances in all; a further one is answered 503. By default 100 000, which is also the most that clients and peers of ours read in one document unless their own
    /// `limits.instances` says more.
    pub instances: usize,
    /// Instances of one application; a further one is answered 503. By default 10 000.
    pub instances_per_application: usize,
    /// Overrides; a further one is answered 503. By default 10 000.
    pub overrides: usize,
    /// Changes kept for deltas; the oldest are forgotten early, and clients that missed them see it by the hash. By default 100 000.
    pub changes: usize,
    /// What a document may hold: bytes of a text and of one instance's metadata among others; else it is answered 400.
    pub document: Limits,
    /// Bytes of a request's body; a longer one is answered 413. By default 256 KiB.
    pub body_bytes: usize,
    /// Bytes of a peer's batch; a longer one is answered 413, and none is sent. By default 4 MiB: 250 registrations with room.
    pub batch_bytes: usize,
    /// Items of a peer's batch; a longer one is answered 400. By default 250.
    pub batch_items: usize,
    /// Connections; further ones wait to be accepted. By default 10 000. Taken at the start.
    pub connections: usize,
    /// How long a request's head may take. By default 10 s.
    #[serde(with = "humantime_serde")]
    pub head_time: Duration,
    /// How long a request's body may take. By default 10 s.
    #[serde(with = "humantime_serde")]
    pub body_time: Duration,
    /// How long a connection may be idle. By default 120 s, four usual heartbeats.
    #[serde(with = "humantime_serde")]
    pub idle_time: Duration,
    /// Watchers; a further one is answered 503. By default 10 000.
    pub watchers: usize,
    /// Lines a watcher may be behind before it is cut off. By default 64.
    pub watcher_lines: usize,
}

impl Default for RegistryPolicy {
    fn default() -> Self {
        Self {
            self_preservation: true,
            renewal_threshold: Ratio(0.85),
            expected_renewal_interval: Duration::from_secs(30),
            threshold_update_interval: Duration::from_secs(15 * 60),
            eviction_interval: Duration::from_secs(60),
            exact_leases: false,
            default_lease: Duration::from_secs(90),
            delta_retention: Duration::from_secs(180),
            override_retention: Duration::from_secs(3600),
            render_interval: Duration::from_millis(100),
            expel_on_disconnect: false,
            suspicion: Duration::from_secs(1),
            peers: PeerPolicy::default(),
            snapshot: SnapshotPolicy::default(),
            limits: RegistryLimits::default(),
        }
    }
}

impl Default for RegistryLimits {
    fn default() -> Self {
        Self {
            instances: 100_000,
            instances_per_application: 10_000,
            overrides: 10_000,
            changes: 100_000,
            document: Limits::default(),
            body_bytes: 256 * 1024,
            batch_bytes: 4 * 1024 * 1024,
            batch_items: 250,
            connections: 10_000,
            head_time: Duration::from_secs(10),
            body_time: Duration::from_secs(10),
            idle_time: Duration::from_secs(120),
            watchers: 10_000,
            watcher_lines: 64,
        }
    }
}

impl Policy for RegistryPolicy {
    fn validate(&self) -> Result<(), PolicyError> {
        self.renewal_threshold.validate("renewal_threshold")?;
        self.peers.validate()?;
        self.snapshot.validate()?;
        let limits = &self.limits;
        for (field, duration) in [
            ("expected_renewal_interval", self.expected_renewal_interval),
            ("threshold_update_interval", self.threshold_update_interval),
            ("eviction_interval", self.eviction_interval),
            ("default_lease", self.default_lease),
            ("delta_retention", self.delta_retention),
            ("override_retention", self.override_retention),
            ("limits.head_time", limits.head_time),
            ("limits.body_time", limits.body_time),
            ("limits.idle_time", limits.idle_time),
        ] {
            if duration < Duration::from_millis(1) {
                return Err(PolicyError::new(field, duration, "must be at least a millisecond"));
            }
        }
        for (field, duration) in [("render_interval", self.render_interval), ("suspicion", self.suspicion)] {
            if duration > Duration::from_secs(60) {
                return Err(PolicyError::new(field, duration, "must be at most a minute"));
            }
        }
        for (field, count) in [
            ("limits.instances", limits.instances),
            ("limits.instances_per_application", limits.instances_per_application),
            ("limits.changes", limits.changes),
            ("limits.body_bytes", limits.body_bytes),
            ("limits.batch_bytes", limits.batch_bytes),
            ("limits.batch_items", limits.batch_items),
            ("limits.connections", limits.connections),
            ("limits.watcher_lines", limits.watcher_lines),
        ] {
            if count == 0 {
                return Err(PolicyError::new(field, count, "must be above zero"));
            }
        }
        if limits.instances > limits.document.instances {
            let reason = "must be at most limits.document.instances: nobody could read all of them in one document";
            return Err(PolicyError::new("limits.instances", limits.instances, reason));
        }
        Ok(())
    }
}
