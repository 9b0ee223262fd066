//! The connections of one endpoint in one runtime.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use http_body::Body;
use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot},
    task::AbortHandle,
    time::{Instant, timeout_at},
};
use tower::BoxError;

use super::{
    PoolStats,
    body::{Lease, Release},
    client::Settings,
    dial::{self, Established},
    policy::Version,
    send::{Sender, not_connected},
    upkeep::{Dialing, SharedError, janitor},
};
use crate::{EndpointHandle, Error, context};

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

/// How long an HTTP/1 connection may go on writing a request that has been answered. A server that answers early may never read the rest.
const STILL_WRITING: Duration = Duration::from_secs(1);

struct Connection<B> {
    /// `None` while somebody writes a request to it, of HTTP/1.
    sender: Option<Sender<B>>,
    http2: bool,
    /// Requests under way; of HTTP/1 0 or 1.
    uses: usize,
    /// Of HTTP/2, how many its server allows at once.
    most: Arc<AtomicUsize>,
    dies: Instant,
    idle_since: Instant,
    /// Ends it whatever it is doing.
    driver: Option<AbortHandle>,
}

impl<B> Connection<B>
where
    B: Body + Send + 'static,
{
    fn is_expired(&self, now: Instant, settings: &Settings) -> bool {
        let idle = self.uses == 0 && now.saturating_duration_since(self.idle_since) >= settings.policy.idle_timeout;
        idle || (self.uses == 0 && now >= self.dies) || self.sender.as_ref().is_some_and(Sender::is_closed)
    }

    fn has_room(&self, now: Instant) -> bool {
        self.http2
            && now < self.dies
            && self.uses < self.most.load(Relaxed)
            && self.sender.as_ref().is_some_and(|sender| !sender.is_closed())
    }

    /// Of HTTP/2 all write at once, each with a sender of its own.
    fn lend(&mut self) -> Option<Sender<B>> {
        match &self.sender {
            Some(Sender::Http2(sender)) => Some(Sender::Http2(sender.clone())),
            _ => self.sender.take(),
        }
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

    /// Whether one more connection may be dialed.
    ///
    /// Of HTTP/1 up to the limit. Of HTTP/2, or where it may be that, one at a time: all who wait may share it.
    fn may_dial(&self, state: &State<B>) -> bool {
        let open = state.connections.len() + state.dialing;
        let http2 = state.connections.values().any(|connection| connection.http2);
        match self.settings.version_for(&self.endpoint.endpoint()) {
            Version::Http2 => state.dialing == 0 && open < self.settings.policy.max_http2_connections,
            Version::Auto if http2 => state.dialing == 0 && open < self.settings.policy.max_http2_connections,
            Version::Auto if state.connections.is_empty() => state.dialing == 0,
            Version::Http1 | Version::Auto => open < self.settings.policy.max_connections,
        }
    }

    /// Opens a connection in a task of the pool's, so that a caller who goes away does not take it from the others.
    fn dial(&self, state: &mut State<B>) {
        state.dialing += 1;
        let (pool, settings, waited) = (Weak::clone(&self.this), Arc::clone(&self.settings), state.waited);
        let endpoint = self.endpoint.endpoint();
        self.runtime.spawn(async move {
            let mut dialing = Dialing { pool, waited, done: false };
            let result = dial::dial(&endpoint, &settings).await;
            dialing.done = true;
            if let Some(pool) = dialing.pool.upgrade() {
                pool.dialed(result, waited);
            }
        });
    }

    /// A dial is over, which began when so many had waited.
    pub(super) fn dialed(&self, result: Result<Established<B>, Error>, waited: u64) {
        match result {
            Ok(established) => self.established(established),
            Err(error) => self.failed(error, waited),
        }
    }

    fn established(&self, established: Established<B>) {
        let now = Instant::now();
        let lifetime = self.settings.policy.max_lifetime.mul_f64(0.9 + 0.1 * fastrand::f64());
        let most = Arc::new(AtomicUsize::new(usize::MAX));
        let http2 = established.sender.is_http2();
        let id = {
            let mut state = self.state();
            state.dialing -= 1;
            let id = state.next;
            state.next += 1;
            let connection = Connection {
                sender: Some(established.sender),
                http2,
                // Held by whoever gets it first, below.
                uses: 1,
                most: Arc::clone(&most),
                dies: now + lifetime,
                idle_since: now,
                driver: None,
            };
            state.connections.insert(id, connection);
            id
        };
        let (pool, driver) = (Weak::clone(&self.this), (established.driver)(most));
        let driver = self.runtime.spawn(async move {
            // How it ended is told to whoever had a request on it.
            driver.await;
            if let Some(pool) = pool.upgrade() {
                pool.died(id);
            }
        });
        if let Some(connection) = self.state().connections.get_mut(&id) {
            connection.driver = Some(driver.abort_handle());
        }
        self.give(self.lease(id));
        self.serve_waiters();
    }

    /// Tells those who counted on it: of HTTP/1 one, of what may be HTTP/2 all. Who came while it was under way gets a dial of its own: the
    /// server may be back since, and those for whom this one began may be gone.
    fn failed(&self, error: Error, waited: u64) {
        let waiters: Vec<Waiter> = {
            let mut state = self.state();
            state.dialing -= 1;
            let one_each = self.settings.version_for(&self.endpoint.endpoint()) == Version::Http1
                || state.connections.values().any(|connection| !connection.http2);
            state.waiters.retain(|waiter| !waiter.is_closed());
            let count = state.waiters.iter().take_while(|waiter| waiter.number < waited).count();
            let count = if one_each { count.min(1) } else { count };
            state.waiters.drain(..count).collect()
        };
        let error: Arc<Error> = Arc::new(error);
        for waiter in waiters {
            let shared = not_connected(SharedError(Arc::clone(&error)));
            // Nobody there any more: nobody to tell.
            let _ = waiter.place.send(Err(shared));
        }
        self.serve_waiters();
    }

    /// Hands a connection to who waits longest, or keeps it.
    fn give(&self, mut lease: Lease) {
        loop {
            let waiter = self.state().waiters.pop_front();
            // Goes back, and is idle, when dropped here.
            let Some(waiter) = waiter else { return };
            match waiter.place.send(Ok(lease)) {
                Err(Ok(back)) => lease = back,
                Ok(()) | Err(Err(_)) => return,
            }
        }
    }

    /// Gives those who wait what room there is, and dials for the others.
    fn serve_waiters(&self) {
        loop {
            let connection = {
                let mut state = self.state();
                state.waiters.retain(|waiter| !waiter.is_closed());
                if state.waiters.is_empty() {
                    return;
                }
                let Some(connection) = self.take(&mut state, Instant::now()) else {
                    while state.dialing < state.waiters.len() && self.may_dial(&state) {
                        self.dial(&mut state);
                    }
                    return;
                };
                connection
            };
            self.give(self.lease(connection));
        }
    }

    fn died(&self, id: u64) {
        let dead = {
            let mut state = self.state();
            state.idle.retain(|idle| *idle != id);
            state.connections.remove(&id)
        };
        drop(dead);
        self.serve_waiters();
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

impl<B> Release for Pool<B>
where
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    fn release(&self, id: u64, reusable: bool) {
        let mut late = None;
        let (mut dead, mut given_up) = (None, None);
        let mut janitor_idle = false;
        let waiting;
        {
            let mut state = self.state();
            let draining = state.draining;
            waiting = !state.waiters.is_empty();
            let Some(connection) = state.connections.get_mut(&id) else { return };
            connection.uses -= 1;
            if connection.uses == 0 {
                let now = context::now();
                connection.idle_since = now;
                let keep = !draining && now < connection.dies;
                match &connection.sender {
                    // The streams of HTTP/2 leave nothing behind.
                    _ if keep && connection.http2 => {}
                    Some(sender) if keep && reusable && !sender.is_closed() => {
                        if sender.is_ready() {
                            state.idle.push(id);
                        } else {
                            // The body has ended; the connection's task has yet to notice.
                            connection.uses += 1;
                            late = connection.sender.take().zip(connection.driver.clone());
                        }
                    }
                    _ => {
                        dead = state.connections.remove(&id);
                        // In the middle of something: left to itself, it would go on writing what nobody waits for, to a server that
                        // may not read.
                        given_up = dead.as_ref().filter(|_| !reusable).and_then(|dead| dead.driver.clone());
                    }
                }
                // Where it has a time set, no connection that is idle from now on has to be looked at before.
                janitor_idle = std::mem::take(&mut state.janitor_idle);
            }
        }
        if let Some(driver) = given_up {
            driver.abort();
        }
        drop(dead);
        if let Some((mut sender, driver)) = late {
            let pool = Weak::clone(&self.this);
            self.runtime.spawn(async move {
                let ready = timeout_at(Instant::now() + STILL_WRITING, sender.ready()).await;
                if ready.is_err() {
                    driver.abort();
                }
                let ready = matches!(ready, Ok(Ok(())));
                if let Some(pool) = pool.upgrade() {
                    let mut lease = pool.lease(id);
                    pool.put_back(&lease, sender);
                    lease.reusable = ready;
                }
            });
        }
        if janitor_idle {
            self.changed.notify_one();
        }
        if waiting {
            self.serve_waiters();
        }
    }
}

impl<B> Drop for Pool<B> {
    fn drop(&mut self) {
        self.changed.notify_one();
    }
}
