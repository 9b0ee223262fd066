//! The next set: made of what the directory publishes, with what is known of endpoints that were here before.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

use super::{Endpoints, Identity, Made, Node, Slot, identity};
use crate::{
    Endpoint, EndpointHandle,
    discover::{Edit, Snapshot, Subscriber},
};

/// How long what was learned of a removed endpoint is kept.
const KEEP: Duration = Duration::from_secs(60);

/// Of how many removed endpoints it is kept.
const KEPT: usize = 1024;

/// Keeps what is young enough, and of that the youngest.
fn forget(removed: &mut HashMap<Identity, (EndpointHandle, Instant)>, now: Instant) {
    removed.retain(|_, (_, since)| now.saturating_duration_since(*since) < KEEP);
    if removed.len() > KEPT {
        let mut times: Vec<_> = removed.values().map(|(_, since)| *since).collect();
        let (_, limit, _) = times.select_nth_unstable(removed.len() - KEPT);
        let limit = *limit;
        let mut places = KEPT;
        removed.retain(|_, (_, since)| {
            let keep = *since >= limit && places > 0;
            places -= usize::from(keep);
            keep
        });
    }
}

impl<S: Send + Sync, R: Send + Sync> Subscriber for Endpoints<S, R> {
    fn prepare(&self, before: usize, chunk: &[Arc<Endpoint>]) {
        let mut writer = self.writer();
        let writer = &mut *writer;
        if before == 0 {
            writer.prepared = Made::new(chunk.len());
            writer.returned.clear();
        }
        writer.prepared.slots.reserve(chunk.len());
        for endpoint in chunk {
            let handle = Self::known(writer, endpoint)
                .unwrap_or_else(|| EndpointHandle::of(&self.service, endpoint, &self.group));
            let node = Node::new();
            if self.eager {
                node.service.get_or_init(|| (self.connect)(&handle));
            }
            writer.prepared.up += u32::from(handle.is_up());
            writer.prepared.slots.push(Slot { handle, node });
        }
    }

    fn publish(&self, snapshot: &Snapshot, edits: &[(Edit, usize)]) {
        let mut writer = self.writer();
        let writer = &mut *writer;
        let now = Instant::now();
        let before = self.sets.here().load_full();
        let prepared = mem::take(&mut writer.prepared);
        let mut fresh = prepared.slots.into_iter();
        let mut after = Made::new(snapshot.endpoints().len());
        after.up = before.up + prepared.up;
        let mut left = Vec::new();
        let mut at = 0;
        // What is kept is not looked at, only counted: each would be a cache miss.
        for &(edit, count) in edits {
            let old = at..at + count;
            match edit {
                Edit::Keep => after.slots.extend_from_slice(&before.slots[old]),
                Edit::Update => {
                    let said = &snapshot.endpoints()[after.slots.len()..];
                    for (Slot { handle, .. }, endpoint) in before.slots[old.clone()].iter().zip(said) {
                        after.up -= u32::from(handle.is_up());
                        handle.update(Arc::clone(endpoint));
                        after.up += u32::from(handle.is_up());
                    }
                    after.slots.extend_from_slice(&before.slots[old]);
                }
                Edit::Insert => {
                    after.slots.extend(fresh.by_ref().take(count));
                    continue;
                }
                Edit::Remove => left.extend(&before.slots[old]),
            }
            at += count;
        }
        for handle in writer.returned.drain(..) {
            handle.revive();
        }
        for Slot { handle, .. } in left {
            after.up -= u32::from(handle.is_up());
            handle.remove();
            writer.removed.insert(identity(&handle.endpoint()), (handle.clone(), now));
        }
        forget(&mut writer.removed, now);
        self.group.size.store(after.slots.len() as u32, Relaxed);
        self.replace(after);
        self.changed.notify_waiters();
    }
}
