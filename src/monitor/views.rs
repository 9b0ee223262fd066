use std::time::Duration;

use serde::Serialize;

use super::{CountsView, LatencyView};

/// What one entry of a monitor is like.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is the view of its name")]
pub enum Observation {
    Command(CommandView),
    Breaker(BreakerView),
    Bulkhead(BulkheadView),
    Retry(RetryView),
    Fallback(FallbackView),
    Endpoint(EndpointView),
    Directory(DirectoryView),
    Registry(RegistryView),
}

/// All of a monitor, by kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is the list of its name")]
pub struct Snapshot {
    pub commands: Vec<CommandView>,
    pub breakers: Vec<BreakerView>,
    pub bulkheads: Vec<BulkheadView>,
    pub retries: Vec<RetryView>,
    pub fallbacks: Vec<FallbackView>,
    pub endpoints: Vec<EndpointView>,
    pub directories: Vec<DirectoryView>,
    pub registries: Vec<RegistryView>,
}

impl Snapshot {
    pub(super) fn add(&mut self, observation: Observation) {
        match observation {
            Observation::Command(view) => self.commands.push(view),
            Observation::Breaker(view) => self.breakers.push(view),
            Observation::Bulkhead(view) => self.bulkheads.push(view),
            Observation::Retry(view) => self.retries.push(view),
            Observation::Fallback(view) => self.fallbacks.push(view),
            Observation::Endpoint(view) => self.endpoints.push(view),
            Observation::Directory(view) => self.directories.push(view),
            Observation::Registry(view) => self.registries.push(view),
        }
    }
}

/// Calls of one name, as their client trace layer sees them: fallbacks included.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CommandView {
    /// Its name.
    pub name: String,
    /// Calls under way.
    pub in_flight: u64,
    /// Finished calls.
    pub counts: CountsView,
    /// How long they took.
    pub latency: LatencyView,
}

/// A circuit breaker.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BreakerView {
    /// The command's name.
    pub name: String,
    /// `closed`, `open`, `half_open`, `forced_open` or `forced_closed`.
    pub state: &'static str,
    /// Calls in the window.
    pub calls: u64,
    /// The share of them that failed, 0 to 1.
    pub failure_rate: f64,
    /// The share of them that were slow, 0 to 1.
    pub slow_rate: f64,
    /// Calls refused since the start.
    pub rejected: u64,
    /// Times it opened since the start.
    pub opened: u64,
    /// How long it still stays open.
    pub open_for: Option<Duration>,
    /// Probes under way.
    pub probes: u32,
}

/// A bulkhead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BulkheadView {
    /// Its name.
    pub name: String,
    /// Places.
    pub limit: u32,
    /// Places taken.
    pub in_flight: u32,
    /// Calls waiting for one.
    pub waiting: u32,
    /// Calls refused since the start.
    pub rejected: u64,
}

/// Retries.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RetryView {
    /// Its name.
    pub name: String,
    /// Calls since the start.
    pub calls: u64,
    /// Their attempts, first ones included.
    pub attempts: u64,
    /// Attempts that were sent again because they surely never ran.
    pub requeues: u64,
    /// Retries the budget refused.
    pub refused: u64,
    /// Tokens in the budget: retries it would pay for now.
    pub budget: f64,
}

/// A fallback.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FallbackView {
    /// Its name.
    pub name: String,
    /// Calls it answered since the start.
    pub answered: u64,
    /// Calls it could not answer either.
    pub failed: u64,
}

/// An endpoint in a stack.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct EndpointView {
    /// The balancer's name: its service's, numbered if there are several.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Where it listens.
    pub address: String,
    /// `up`, `draining`, `down`, `ejected`, `probing`, or by an operator's word `held` (ejected) or `drained`.
    pub state: &'static str,
    /// Attempts under way.
    pub in_flight: u32,
    /// Finished attempts.
    pub counts: CountsView,
    /// How long an attempt takes, by the moving average that the balancer keeps; `None` without history.
    pub latency: Option<Duration>,
}

/// A directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DirectoryView {
    /// Its name.
    pub name: String,
    /// Its services.
    pub services: Vec<ServiceView>,
}

/// A service in a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ServiceView {
    /// Its name.
    pub name: String,
    /// How many endpoints it has.
    pub endpoints: usize,
    /// Changes published so far.
    pub version: u64,
    /// How long ago the source was last heard of; `None` for a set that never changes, or one never heard of.
    pub age: Option<Duration>,
    /// How long the source has been failing.
    pub stale_for: Option<Duration>,
    /// What is wrong with it.
    pub error: Option<String>,
    /// Endpoints it lists that nobody can, or may, be sent to.
    pub refused: usize,
}

/// A registry that runs here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RegistryView {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// Applications.
    pub applications: usize,
    /// Instances of all of them.
    pub instances: usize,
    /// Overrides that operators set.
    pub overrides: usize,
    /// Clients that are pushed what changes.
    pub watchers: usize,
    /// Open connections.
    pub connections: usize,
    /// Instances that should send heartbeats.
    pub expected_instances: u64,
    /// Heartbeats of the last whole minute.
    pub renewals_last_minute: u64,
    /// Heartbeats a minute above which leases may end.
    pub renewals_threshold: u64,
    /// Whether leases may end now; if not, self-preservation holds.
    pub eviction_allowed: bool,
    /// What was done and what each limit refused since the start, by name.
    pub counts: Vec<(&'static str, u64)>,
    /// The other registries that are told of it.
    pub peers: Vec<PeerView>,
    /// What is kept of it on disk, if it is.
    pub snapshot: Option<SnapshotView>,
}

/// Another registry that is told of what happens here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PeerView {
    /// Its URL, without its credentials.
    pub url: String,
    /// How long it has been answering; nothing if it has not yet, or fails now.
    pub reachable_for: Option<Duration>,
    /// How long it has been failing.
    pub failing_for: Option<Duration>,
    /// Why it failed last; stays while it fails.
    pub error: Option<String>,
    /// What waits to be told, in order.
    pub queued: usize,
    /// Instances whose state is to be told, since what happened to them could not be.
    pub owed: usize,
    /// What it was told and answered well, since the start.
    pub sent: u64,
    /// What it answered otherwise, or refused with a whole batch.
    pub failed: u64,
    /// What it was not told: heartbeats that grew too old or found no room, and what could be owed no more.
    pub dropped: u64,
}

/// What is kept of a registry on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SnapshotView {
    /// The file.
    pub path: String,
    /// How long ago it was written by this process.
    pub age: Option<Duration>,
    /// Why it could not be written last.
    pub error: Option<String>,
}
