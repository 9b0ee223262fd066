use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tower::BoxError;
use tower_service::Service;

use super::{
    Picker, ResponseFuture,
    endpoints::{Connect, Endpoints, Picked},
};
use crate::{
    Error, ErrorKind, Monitor, ServiceHandle, context,
    outcome::{Classify, Standard},
};

/// The endpoints of one service, as one service. Made by [`BalanceLayer`](super::BalanceLayer) under [`DiscoverLayer`](super::DiscoverLayer).
///
/// Always ready; clones share everything.
pub struct Balance<S, P, C = Standard> {
    pub(super) shared: Arc<Shared<S, P, C>>,
}

pub(super) struct Shared<S, P, C> {
    pub(super) endpoints: Arc<Endpoints<S, Rule<P, C>>>,
    /// Its source runs as long as somebody has this.
    _service: ServiceHandle,
}

/// By what endpoints are chosen, and calls judged.
pub(super) struct Rule<P, C> {
    pub(super) picker: Arc<P>,
    pub(super) classify: Arc<C>,
    pub(super) max_wait: Duration,
}

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) max_wait: Duration,
    pub(super) eager: bool,
    pub(super) monitor: Option<Monitor>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_wait: Duration::from_secs(1), eager: false, monitor: None }
    }
}

impl<S, P, C> Balance<S, P, C>
where
    S: Send + Sync + 'static,
    P: Send + Sync + 'static,
    C: Send + Sync + 'static,
{
    pub(super) fn new(
        service: &ServiceHandle,
        connect: Connect<S>,
        picker: Arc<P>,
        classify: Arc<C>,
        settings: &Settings,
    ) -> Self {
        let rule = Arc::new(Rule { picker, classify, max_wait: settings.max_wait });
        let endpoints = Arc::new(Endpoints::new(Arc::clone(service.name()), connect, settings.eager, rule));
        service.subscribe(&endpoints);
        settings.monitor.as_ref().unwrap_or(service.monitor()).register(service.name(), &endpoints);
        Self { shared: Arc::new(Shared { endpoints, _service: service.clone() }) }
    }
}

impl<S, P, C> Shared<S, P, C>
where
    S: Clone,
    P: Picker,
{
    pub(super) fn pick(&self) -> Option<Picked<S, Rule<P, C>>> {
        self.endpoints.pick(|slots, pick| self.endpoints.rule().picker.pick(slots, pick))
    }

    /// Waits for an endpoint: for a change of the set, or for one that is closed for a time only.
    pub(super) async fn wait(self: Arc<Self>) -> Result<Picked<S, Rule<P, C>>, Error> {
        let start = context::now();
        let own = start + self.endpoints.rule().max_wait;
        let deadline = context::deadline();
        let end = deadline.map_or(own, |deadline| deadline.min(own));
        loop {
            let mut changed = std::pin::pin!(self.endpoints.changed.notified());
            // Before the look, so that a change in between is not missed.
            changed.as_mut().enable();
            if let Some(picked) = self.pick() {
                return Ok(picked);
            }
            let now = context::now();
            if now >= end {
                let kind = if end < own { ErrorKind::DeadlineExceeded } else { ErrorKind::NoEndpoint };
                return Err(self.error(kind).unsent());
            }
            let nanos = context::nanos(now);
            let after = |until: u64| now + Duration::from_nanos(until.saturating_sub(nanos));
            if let Some(until) = self.endpoints.all_held_until(nanos) {
                // At once: those who waited would all come at the very moment it is over.
                return Err(self.error(ErrorKind::RateLimited).with_retry_after(after(until) - now));
            }
            let opens = self.endpoints.opens_at().filter(|&until| until > nanos).map(after);
            let wake = opens.map_or(end, |opens| opens.min(end));
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    pub(super) fn error(&self, kind: ErrorKind) -> Error {
        error(kind, self.endpoints.service())
    }
}

pub(super) fn error(kind: ErrorKind, service: &Arc<str>) -> Error {
    Error::new(kind).with_layer("balance").with_service(Arc::clone(service))
}

impl<S, P, C, Req> Service<Req> for Balance<S, P, C>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    P: Picker,
    C: Classify<S::Response>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S, S::Future, Req, P, C>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let _clock = context::enter_clock();
        ResponseFuture::new(&self.shared, request)
    }
}

impl<S, P, C> Clone for Balance<S, P, C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<S, P: fmt::Debug, C> fmt::Debug for Balance<S, P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balance")
            .field("endpoints", &self.shared.endpoints)
            .field("picker", &self.shared.endpoints.rule().picker)
            .finish_non_exhaustive()
    }
}
