//! The connections of one endpoint in one runtime.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
};

use http_body::Body;
use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot},
    task::AbortHandle,
    time::Instant,
};
use tower::BoxError;

use super::{
    PoolStats,
    body::Lease,
    client::Settings,
    send::{Sender, not_connected},
    upkeep::janitor,
};
use crate::{EndpointHandle, Error, context};

mod connection;
mod dialing;
mod release;

use connection::Connection;

pub(super) struct Pool<B> {
    settings: Arc<Settings>,
    endpoint: EndpointHandle,
    runtime: Handle,
    state: Mutex<State<B>>,
    /// Wakes the janitor.
    changed: Arc<Notify>,
    janitor: OnceLock<AbortHandle>,
    this: Weak<Self>,
}

struct State<B> {
    connections: BTreeMap<u64, Connection<B>>,
    /// HTTP/1 connections nobody uses, the one used last at the end.
    idle: Vec<u64>,
    waiters: VecDeque<Waiter>,
    /// How many have waited so far.
    waited: u64,
    dialing: usize,
    next: u64,
    /// The endpoint has been removed: nothing is kept.
    draining: bool,
    /// The janitor has no time set to look again.
    janitor_idle: bool,
}

struct Waiter {
    /// How many had waited before it.
    number: u64,
    place: oneshot::Sender<Result<Lease, Error>>,
}

impl Waiter {
    /// Went away.
    fn is_closed(&self) -> bool {
        self.place.is_closed()
    }
}

impl<B> Pool<B>
where
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    pub(super) fn new(settings: Arc<Settings>, endpoint: EndpointHandle, runtime: Handle) -> Arc<Self> {
        let changed = Arc::new(Notify::new());
        let pool = Arc::new_cyclic(|this| Self {
            settings,
            endpoint,
            runtime,
            state: Mutex::new(State {
                connections: BTreeMap::new(),
                idle: Vec::new(),
                waiters: VecDeque::new(),
                waited: 0,
                dialing: 0,
                next: 0,
                draining: false,
                janitor_idle: false,
            }),
            changed: Arc::clone(&changed),
            janitor: OnceLock::new(),
            this: Weak::clone(this),
        });
        let janitor = pool.runtime.spawn(janitor(Arc::downgrade(&pool), changed, pool.endpoint.clone()));
        pool.janitor.get_or_init(|| janitor.abort_handle());
        pool
    }

    /// Whether its runtime runs.
    pub(super) fn is_alive(&self) -> bool {
        self.janitor.get().is_some_and(|janitor| !janitor.is_finished())
    }

    /// Opens connections ahead.
    pub(super) fn warm_up(&self) {
        let count = self.settings.policy.warm_up;
        let mut state = self.state();
        for _ in 0..count {
            if !self.may_dial(&state) {
                break;
            }
            self.dial(&mut state);
        }
    }

    /// A connection and its sender, if there is one that nobody waits for.
    pub(super) fn try_acquire(&self) -> Option<(Lease, Sender<B>)> {
        let mut state = self.state();
        let id = self.take(&mut state, context::now())?;
        let sender = state.connections.get_mut(&id).and_then(Connection::lend);
        drop(state);
        let lease = self.lease(id);
        Some((lease, sender?))
    }

    /// A connection, once there is one. Not an idle one if it must be `fresh`.
    pub(super) async fn acquire(&self, fresh: bool) -> Result<Lease, Error> {
        let waiting = {
            let mut state = self.state();
            let now = context::now();
            if fresh {
                // Those that are idle were no good lately, and would keep new ones from being made.
                let idle = std::mem::take(&mut state.idle);
                state.connections.retain(|id, _| !idle.contains(id));
            } else if let Some(connection) = self.take(&mut state, now) {
                return Ok(self.lease(connection));
            }
            while state.waiters.front().is_some_and(Waiter::is_closed) {
                state.waiters.pop_front();
            }
            let (place, waiting) = oneshot::channel();
            let number = state.waited;
            state.waited += 1;
            state.waiters.push_back(Waiter { number, place });
            if self.may_dial(&state) && state.dialing < state.waiters.len() {
                self.dial(&mut state);
            }
            waiting
        };
        waiting.await.unwrap_or_else(|_| Err(not_connected("the pool was dropped")))
    }

    /// The sender of a connection in somebody's hands, for as long as it takes to write to it.
    pub(super) fn sender(&self, lease: &Lease) -> Option<Sender<B>> {
        self.state().connections.get_mut(&lease.connection()).and_then(Connection::lend)
    }

    /// Puts it back.
    pub(super) fn put_back(&self, lease: &Lease, sender: Sender<B>) {
        if !sender.is_http2()
            && let Some(connection) = self.state().connections.get_mut(&lease.connection())
        {
            connection.sender = Some(sender);
        }
    }

    pub(super) fn stats(&self) -> PoolStats {
        let state = self.state();
        PoolStats {
            open: state.connections.len(),
            idle: state.connections.values().filter(|connection| connection.uses == 0).count(),
            waiting: state.waiters.iter().filter(|waiter| !waiter.is_closed()).count(),
            dialing: state.dialing,
        }
    }

    /// One that can take a request now.
    fn take(&self, state: &mut State<B>, now: Instant) -> Option<u64> {
        while let Some(id) = state.idle.pop() {
            match state.connections.get_mut(&id) {
                Some(connection) if connection.is_expired(now, &self.settings) => drop(state.connections.remove(&id)),
                Some(connection) => {
                    connection.uses += 1;
                    return Some(id);
                }
                None => {}
            }
        }
        let roomy = state.connections.iter_mut().filter(|(_, connection)| connection.has_room(now));
        let (id, connection) = roomy.min_by_key(|(_, connection)| connection.uses)?;
        connection.uses += 1;
        Some(*id)
    }

    fn lease(&self, connection: u64) -> Lease {
        let this = self.this.upgrade().expect("called on a pool that is held");
        Lease::new(this, connection)
    }

    /// Closes what is idle for too long, or old; says when to look again.
    pub(super) fn sweep(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut dead = Vec::new();
        let mut state = self.state();
        let gone: Vec<u64> = state
            .connections
            .iter()
            .filter(|(_, connection)| {
                (state.draining && connection.uses == 0) || connection.is_expired(now, &self.settings)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            state.idle.retain(|idle| *idle != id);
            dead.extend(state.connections.remove(&id));
        }
        let idle_timeout = self.settings.policy.idle_timeout;
        let unused = state.connections.values().filter(|connection| connection.uses == 0);
        let next = unused.map(|connection| (connection.idle_since + idle_timeout).min(connection.dies)).min();
        state.janitor_idle = next.is_none();
        next
    }

    pub(super) fn drain(&self) {
        self.state().draining = true;
    }
}

impl<B> Pool<B> {
    fn state(&self) -> MutexGuard<'_, State<B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> Drop for Pool<B> {
    fn drop(&mut self) {
        self.changed.notify_one();
    }
}
