use std::time::Duration;

use http::HeaderName;
use tower_layer::Layer;

use super::DeadlineHeader;
use crate::{NewService, layers::deadline::HEADER};

/// Tells the server, with each attempt, how long the call may still take.
///
/// A gRPC request (`content-type: application/grpc`) gets `grpc-timeout`, and keeps a shorter one that it has. Any other
/// gets the plain header, by default [`HEADER`], in milliseconds. Without a deadline nothing is written. A plain header that
/// the request has already, perhaps of an inbound request that is passed on, speaks of a time that has gone by, and is removed.
///
/// What is written is what remains less a margin for the way there, at least 1 ms.
///
/// ```
/// use std::time::Duration;
/// use hopvine::layers::deadline::DeadlineHeaderLayer;
///
/// let layer = DeadlineHeaderLayer::new();
///
/// let far_away = DeadlineHeaderLayer::new()
///     .margin(Duration::from_millis(40)) // half a round trip
///     .header(http::HeaderName::from_static("x-envoy-expected-rq-timeout-ms"));
/// # let _ = (layer, far_away);
/// ```
///
/// # State
///
/// None.
///
/// # Placement
///
/// Per endpoint, below the balancer, where each attempt passes with what remains for it. Above the attempt timeout or below,
/// which makes no difference: what is told is the call's deadline. In a stack that leaves the trust boundary, leave it out.
///
/// # Errors
///
/// [`ErrorKind::DeadlineExceeded`](crate::ErrorKind), [unsent](crate::Error::is_unsent), if nothing remains: a zero would
/// be read by some servers as "no limit".
///
/// # Cancellation
///
/// Dropping the response future drops the attempt inside.
#[derive(Clone, Debug)]
pub struct DeadlineHeaderLayer {
    settings: Settings,
}

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) header: HeaderName,
    pub(super) margin: Duration,
    pub(super) withheld: bool,
}

/// The least that is taken off, and the least that is written.
pub(super) const LEAST: Duration = Duration::from_millis(1);

impl DeadlineHeaderLayer {
    /// With the plain header [`HEADER`] and a margin of 1 ms.
    pub fn new() -> Self {
        Self { settings: Settings { header: HeaderName::from_static(HEADER), margin: LEAST, withheld: false } }
    }

    /// With another plain header.
    #[must_use]
    pub fn header(mut self, header: HeaderName) -> Self {
        self.settings.header = header;
        self
    }

    /// Says nothing, and takes out what is there: for servers of others, who need not know how long we wait.
    #[must_use]
    pub fn withheld(mut self) -> Self {
        self.settings.withheld = true;
        self
    }

    /// Takes this much off for the way there, about half a round trip; below 1 ms is 1 ms.
    #[must_use]
    pub fn margin(mut self, margin: Duration) -> Self {
        self.settings.margin = margin.max(LEAST);
        self
    }
}

impl Default for DeadlineHeaderLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<N> Layer<N> for DeadlineHeaderLayer {
    type Service = NewDeadlineHeader<N>;

    fn layer(&self, inner: N) -> NewDeadlineHeader<N> {
        NewDeadlineHeader { inner, settings: self.settings.clone() }
    }
}

/// A connector whose services tell how long a call may still take. Made by [`DeadlineHeaderLayer`].
#[derive(Clone, Debug)]
pub struct NewDeadlineHeader<N> {
    inner: N,
    settings: Settings,
}

impl<N, Target> NewService<Target> for NewDeadlineHeader<N>
where
    N: NewService<Target>,
{
    type Service = DeadlineHeader<N::Service>;

    fn new_service(&self, target: &Target) -> DeadlineHeader<N::Service> {
        DeadlineHeader::new(self.inner.new_service(target), self.settings.clone())
    }
}
