//! Other registries, of ours or Java ones: they are told what clients do here, and tell us at the start what they know.
//!
//! | | |
//! |---|---|
//! | `queue` | what waits to be told to one peer: pure |
//! | `reaction` | what follows from its answer: pure |
//! | `peer` | sends it, one batch at a time |
//! | `copy` | fetches everything at the start |
//! | `own` | finds out which URL is our own |
//!
//! # What heals what
//!
//! Peers are told of events, and events can be lost: by a long outage, a full queue, a refused batch.
//!
//! - A lost heartbeat is followed by another.
//! - A lost registration shows at the next heartbeat: the peer answers 404, and is sent the registration. So an empty peer is full again within one interval of
//!   heartbeats.
//! - A departure, an override or its end, and a change of metadata show nowhere in heartbeats. With a Java sender they are lost for good; here they are debts of
//!   the queue, and told as soon as the peer answers, as things stand by then.
//! - What a peer does not take for now (5xx, 429, 401, 403) is a debt too. What it refuses with a whole batch (400, 404, 413) is gone, as with Java senders: it
//!   would refuse it again.

mod copy;
mod own;
mod peer;
mod policy;
#[cfg(test)]
mod properties;
mod queue;
mod reaction;

pub(super) use copy::{copy, valid};
pub(super) use own::{distinct, own};
pub use policy::PeerPolicy;

use std::{net::SocketAddr, sync::Arc};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use peer::Peer;

use super::{Clock, ReplicationSink, Store};
use crate::{
    PolicyError,
    discover::eureka::{ServerUrl, Servers, ServersPolicy, Transport},
    eureka::Replication,
    monitor::PeerView,
};

/// Where the peers are, and how a connection to them is made.
#[derive(Debug)]
pub(super) struct Connect {
    pub(super) urls: Vec<ServerUrl>,
    #[cfg(feature = "tls")]
    pub(super) tls: crate::connect::http::Tls,
}

impl Connect {
    #[cfg(feature = "tls")]
    fn servers(&self, urls: Vec<ServerUrl>, policy: ServersPolicy) -> Servers {
        Servers::of(urls, policy).tls(self.tls.clone())
    }

    #[cfg(not(feature = "tls"))]
    #[expect(clippy::unused_self, reason = "without TLS there is nothing to add")]
    fn servers(&self, urls: Vec<ServerUrl>, policy: ServersPolicy) -> Servers {
        Servers::of(urls, policy)
    }

    /// All of them, to copy from.
    fn for_copies(&self, policy: &PeerPolicy) -> Servers {
        let policy = ServersPolicy {
            connect_timeout: policy.connect_timeout,
            request_timeout: policy.sync_timeout,
            max_bytes: policy.sync_bytes,
            ..ServersPolicy::default()
        };
        self.servers(self.urls.clone(), policy)
    }
}

/// All peers.
#[derive(Debug)]
pub(super) struct Peers {
    all: Vec<Arc<Peer>>,
    policy: crate::Live<super::RegistryPolicy>,
    clock: Clock,
}

impl Peers {
    pub(super) fn new(
        connect: &Connect,
        own: SocketAddr,
        policy: &crate::Live<super::RegistryPolicy>,
        clock: Clock,
    ) -> Result<Self, PolicyError> {
        let now = policy.get();
        let peer = |url: &ServerUrl| {
            let transport = ServersPolicy {
                connect_timeout: now.peers.connect_timeout,
                request_timeout: now.peers.request_timeout,
                ..ServersPolicy::default()
            };
            let transport = Transport::new(&connect.servers(vec![url.clone()], transport))?;
            Ok(Arc::new(Peer::new(url.clone(), transport, &own.ip().to_string())))
        };
        let all = connect.urls.iter().map(peer).collect::<Result<_, PolicyError>>()?;
        Ok(Self { all, policy: policy.clone(), clock })
    }

    /// Leaves out those that are this registry itself.
    pub(super) fn leave_out(&self, own: &[bool]) {
        for (peer, _) in self.all.iter().zip(own).filter(|(_, is_own)| **is_own) {
            peer.leave_out();
        }
    }

    /// Sends to each on its own, until told to close.
    pub(super) fn start(
        &self,
        tasks: &TaskTracker,
        store: &Arc<Store>,
        closing: &CancellationToken,
        ended: &CancellationToken,
    ) {
        for peer in self.all.iter().filter(|peer| !peer.is_left_out()) {
            let task = Arc::clone(peer).run(Arc::clone(store), self.clock, closing.clone());
            tasks.spawn(ended.clone().run_until_cancelled_owned(task));
        }
    }

    pub(super) fn views(&self) -> Vec<PeerView> {
        self.all.iter().filter(|peer| !peer.is_left_out()).map(|peer| peer.view(self.clock.now())).collect()
    }
}

impl ReplicationSink for Peers {
    fn replicate(&self, operation: Replication) {
        let (policy, now) = (self.policy.get(), self.clock.now());
        let Some((last, others)) = self.all.split_last() else { return };
        for peer in others {
            peer.push(operation.clone(), now, &policy);
        }
        last.push(operation, now, &policy);
    }
}

/// Several that are told.
pub(super) struct Sinks(pub(super) Vec<Arc<dyn ReplicationSink>>);

impl ReplicationSink for Sinks {
    fn replicate(&self, operation: Replication) {
        for sink in &self.0 {
            sink.replicate(operation.clone());
        }
    }
}
