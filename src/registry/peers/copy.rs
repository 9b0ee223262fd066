//! What a registry learns from its peers when it starts.

use std::sync::Arc;

use tokio::time::Instant;

use super::Connect;
use crate::{
    discover::eureka::{Calls, Fetched},
    eureka::{ActionType, Applications, Instance},
    registry::{Clock, RegistryPolicy, Store},
};

/// Copies what the first peer has that has anything, and says how many instances that are. All of them are asked again as often, and after such waits, as the
/// policy says.
pub(in crate::registry) async fn copy(connect: &Connect, store: &Arc<Store>, clock: Clock) -> usize {
    let policy = store.policy().get();
    let mut tries = policy.peers.sync_retries;
    loop {
        let copied = from_any(connect, &policy, store, clock).await;
        if copied > 0 || tries == 0 {
            return copied;
        }
        tries -= 1;
        tokio::time::sleep_until(Instant::now() + policy.peers.sync_retry_wait).await;
    }
}

async fn from_any(connect: &Connect, policy: &RegistryPolicy, store: &Arc<Store>, clock: Clock) -> usize {
    let servers = connect.for_copies(&policy.peers);
    let calls = match Calls::new(&servers, Instant::now()) {
        Ok(calls) => calls,
        Err(error) => {
            tracing::warn!(target: "hopvine::registry", %error, "no copy from peers");
            return 0;
        }
    };
    for (number, url) in connect.urls.iter().enumerate() {
        match calls.fetch_from(number, "apps/", false, &policy.limits.document).await {
            Ok(Fetched::Applications(all)) if all.instances().next().is_some() => {
                let known = Arc::clone(store);
                let copied = tokio::task::spawn_blocking(move || keep(all, &known, clock)).await.unwrap_or(0);
                tracing::info!(target: "hopvine::registry", peer = %url, instances = copied, "copied from a peer");
                if copied > 0 {
                    return copied;
                }
            }
            Ok(_) => tracing::info!(target: "hopvine::registry", peer = %url, "peer has nothing to copy"),
            Err(error) => tracing::warn!(target: "hopvine::registry", %error, "no copy from this peer"),
        }
    }
    0
}

/// Registers all that is valid and has not left meanwhile, each with a whole new lease, and says how many that were. Nothing of it is told to peers.
fn keep(all: Applications, store: &Store, clock: Clock) -> usize {
    valid(all, store).map(|instance| store.learn(instance, clock.now())).filter(|learned| *learned == Ok(true)).count()
}

/// The instances of a document that a client could have registered.
pub(in crate::registry) fn valid(all: Applications, store: &Store) -> impl Iterator<Item = Instance> {
    all.applications.into_iter().flat_map(move |application| {
        let is_valid = move |instance: &Arc<Instance>| {
            let is_valid =
                instance.action_type != Some(ActionType::Deleted) && instance.validate(&application.name).is_ok();
            if !is_valid {
                store.counters().refused_documents.add();
            }
            is_valid
        };
        application.instances.into_iter().filter(is_valid).map(Arc::unwrap_or_clone)
    })
}
