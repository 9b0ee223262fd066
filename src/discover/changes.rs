use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::Stream;
use futures_util::StreamExt as _;
use tower::{
    BoxError,
    discover::{Change, Discover},
};

use crate::{Endpoint, endpoint::EndpointId};

/// What a source says.
#[derive(Debug)]
pub enum Update {
    /// One endpoint came, changed or left.
    Change(Change<EndpointId, Endpoint>),
    /// These are all there are.
    All(Vec<Endpoint>),
}

/// What a source says of one service, as it says it. An error does not end it.
pub struct ChangeStream {
    updates: Pin<Box<dyn Stream<Item = Result<Update, BoxError>> + Send>>,
}

impl ChangeStream {
    /// From any tower `Discover` of endpoints, which is any stream of results of [`Change`].
    pub fn new<D>(discover: D) -> Self
    where
        D: Discover<Key = EndpointId, Service = Endpoint>
            + Stream<Item = Result<Change<EndpointId, Endpoint>, <D as Discover>::Error>>
            + Send
            + 'static,
        <D as Discover>::Error: Into<BoxError>,
    {
        Self { updates: Box::pin(discover.map(|change| change.map(Update::Change).map_err(Into::into))) }
    }

    /// From a stream of whole sets.
    pub fn sets<S, E>(sets: S) -> Self
    where
        S: Stream<Item = Result<Vec<Endpoint>, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self { updates: Box::pin(sets.map(|set| set.map(Update::All).map_err(Into::into))) }
    }
}

impl Stream for ChangeStream {
    type Item = Result<Update, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.updates.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for ChangeStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeStream").finish_non_exhaustive()
    }
}

/// A source of many services: a registry, a file, a naming scheme.
///
/// It is asked for a service at its first use, and the stream is dropped with the service's last handle.
pub trait Source: Send + Sync + 'static {
    /// Whether it lists a service of this name now. One that cannot tell without asking says yes.
    fn lists(&self, service: &str) -> bool;

    /// What it says of a service, listed or not yet.
    fn discover(&self, service: &str) -> ChangeStream;
}
