use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::PolicyError;

/// How peers are told of what happens here, and asked for what they know at the start.
///
/// The names in brackets are those of `eureka.server.*` in Spring Cloud.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PeerPolicy {
    /// How long something waits for more to travel with it. By default 500 ms.
    #[serde(with = "humantime_serde")]
    pub batch_wait: Duration,
    /// Most that travel together. By default 250, which is all that a peer of ours takes.
    pub batch_items: usize,
    /// Most that wait for one peer (`max-elements-in-peer-replication-pool`); beyond that a heartbeat is forgotten, and of all else it is told
    /// later how the instance is by then. By default 10 000.
    pub queue: usize,
    /// How long something is worth telling (`max-time-for-replication`): after that it is as if there were no room. By default 30 s.
    #[serde(with = "humantime_serde")]
    pub task_time: Duration,
    /// For name resolution, connecting and TLS together (`peer-node-connect-timeout-ms`). By default 1 s. Taken at the start.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// For one batch and its answer (`peer-node-read-timeout-ms`, there 200 ms: so little that a peer that was just started, or collects garbage, gets it
    /// again and again). By default 2 s.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// How long a peer is left alone after a 503, or no answer in time. By default 1 s; doubled each time.
    #[serde(with = "humantime_serde")]
    pub busy_wait: Duration,
    /// How long a peer is left alone after it could not be reached or understood. By default 100 ms; doubled each time.
    #[serde(with = "humantime_serde")]
    pub retry_wait: Duration,
    /// The longest that either becomes, which is also how soon a peer that is back is noticed. By default 5 s.
    #[serde(with = "humantime_serde")]
    pub max_retry_wait: Duration,
    /// How long one peer may take to give everything it knows at our start. By default 10 s.
    #[serde(with = "humantime_serde")]
    pub sync_timeout: Duration,
    /// Bytes of it, unpacked; and of an answer to a batch. By default 128 MiB.
    pub sync_bytes: usize,
    /// How often all peers are asked once more, if none had anything (`registry-sync-retries`). By default 0.
    pub sync_retries: u32,
    /// The wait before that (`registry-sync-retry-wait-ms`). By default 30 s.
    #[serde(with = "humantime_serde")]
    pub sync_retry_wait: Duration,
    /// How long lists are refused (403) when no peer, nor a snapshot, had anything (`wait-time-in-ms-when-sync-empty`). By default not at all, as in Spring Cloud.
    #[serde(with = "humantime_serde")]
    pub empty_wait: Duration,
}

impl Default for PeerPolicy {
    fn default() -> Self {
        Self {
            batch_wait: Duration::from_millis(500),
            batch_items: 250,
            queue: 10_000,
            task_time: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(2),
            busy_wait: Duration::from_secs(1),
            retry_wait: Duration::from_millis(100),
            max_retry_wait: Duration::from_secs(5),
            sync_timeout: Duration::from_secs(10),
            sync_bytes: 128 << 20,
            sync_retries: 0,
            sync_retry_wait: Duration::from_secs(30),
            empty_wait: Duration::ZERO,
        }
    }
}

impl PeerPolicy {
    /// The names are those of a [`RegistryPolicy`](crate::registry::RegistryPolicy) around it.
    pub(in crate::registry) fn validate(&self) -> Result<(), PolicyError> {
        for (field, duration) in [
            ("peers.task_time", self.task_time),
            ("peers.connect_timeout", self.connect_timeout),
            ("peers.request_timeout", self.request_timeout),
            ("peers.busy_wait", self.busy_wait),
            ("peers.retry_wait", self.retry_wait),
            ("peers.max_retry_wait", self.max_retry_wait),
            ("peers.sync_timeout", self.sync_timeout),
            ("peers.sync_retry_wait", self.sync_retry_wait),
        ] {
            if duration < Duration::from_millis(1) {
                return Err(PolicyError::new(field, duration, "must be at least a millisecond"));
            }
        }
        if self.batch_wait >= self.task_time {
            return Err(PolicyError::new("peers.batch_wait", self.batch_wait, "must be below peers.task_time"));
        }
        for (field, count) in [
            ("peers.batch_items", self.batch_items),
            ("peers.queue", self.queue),
            ("peers.sync_bytes", self.sync_bytes),
        ] {
            if count == 0 {
                return Err(PolicyError::new(field, count, "must be above zero"));
            }
        }
        Ok(())
    }
}
