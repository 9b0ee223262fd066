//! New connections, and who waits for them.

use std::sync::{Arc, Weak, atomic::AtomicUsize};

use http_body::Body;
use tokio::time::Instant;
use tower::BoxError;

use super::{Connection, Pool, State, Waiter};
use crate::{
    Error,
    connect::http::{
        body::Lease,
        dial::{self, Established},
        policy::Version,
        send::not_connected,
        upkeep::{Dialing, SharedError},
    },
};

impl<B> Pool<B>
where
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// Whether one more connection may be dialed.
    ///
    /// Of HTTP/1 up to the limit. Of HTTP/2, or where it may be that, one at a time: all who wait may share it.
    pub(super) fn may_dial(&self, state: &State<B>) -> bool {
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
    pub(super) fn dial(&self, state: &mut State<B>) {
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
    pub(in crate::connect::http) fn dialed(&self, result: Result<Established<B>, Error>, waited: u64) {
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
    pub(super) fn serve_waiters(&self) {
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
}
