//! What goes on beside a pool's calls: dials, and closing what is idle.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use http_body::Body;
use tokio::sync::Notify;
use tower::BoxError;

use super::{pool::Pool, send::not_connected};
use crate::{EndpointHandle, Error};

/// A dial under way; counted out if its task is dropped, as when its runtime ends.
pub(super) struct Dialing<B>
where
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    pub(super) pool: Weak<Pool<B>>,
    /// How many had waited when it began.
    pub(super) waited: u64,
    pub(super) done: bool,
}

impl<B> Drop for Dialing<B>
where
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    fn drop(&mut self) {
        if !self.done
            && let Some(pool) = self.pool.upgrade()
        {
            pool.dialed(Err(not_connected("the dial was dropped")), self.waited);
        }
    }
}

/// Closes what is idle for too long, and everything idle once the endpoint is removed. Ends with the pool.
pub(super) async fn janitor<B>(pool: Weak<Pool<B>>, changed: Arc<Notify>, endpoint: EndpointHandle)
where
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let mut removed = std::pin::pin!(endpoint.removed());
    let mut draining = false;
    loop {
        let Some(next) = pool.upgrade().map(|pool| pool.sweep()) else { return };
        let tick = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed.notified() => {}
            () = tick => {}
            () = &mut removed, if !draining => {
                draining = true;
                if let Some(pool) = pool.upgrade() {
                    pool.drain();
                }
            }
        }
    }
}

/// One failure that several callers are told of.
pub(super) struct SharedError(pub(super) Arc<Error>);

impl fmt::Debug for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::error::Error::source(&*self.0) {
            Some(source) => fmt::Display::fmt(source, f),
            None => fmt::Display::fmt(&self.0, f),
        }
    }
}

impl std::error::Error for SharedError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&*self.0).and_then(std::error::Error::source)
    }
}
