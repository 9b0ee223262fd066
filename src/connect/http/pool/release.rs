//! Connections that come back.

use std::{sync::Weak, time::Duration};

use http_body::Body;
use tokio::time::{Instant, timeout_at};
use tower::BoxError;

use super::Pool;
use crate::{connect::http::body::Release, context};

/// How long an HTTP/1 connection may go on writing a request that has been answered. A server that answers early may never read the rest.
const STILL_WRITING: Duration = Duration::from_secs(1);

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
