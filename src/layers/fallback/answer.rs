use std::{fmt, future::Future};

use tower::{BoxError, util::Oneshot};
use tower_service::Service;

use super::Why;
use crate::request::Replay;

/// Who answers in place of a call that went wrong.
///
/// A layer takes one of three: [`Function`], [`Keeping`], [`Other`]; or one of your own, by
/// [`FallbackLayer::answer`](super::FallbackLayer::answer).
pub trait Answer<Req> {
    /// The request as the call itself gets it.
    type Request;
    /// What is kept of it for the answer.
    type Kept;
    /// The response, the same as the call's.
    type Response;
    /// Why there is none.
    type Error: Into<BoxError>;
    /// The answer to come.
    type Future: Future<Output = Result<Self::Response, Self::Error>>;

    /// Asked for each call, good or bad: keep little.
    fn keep(&self, request: Req) -> (Self::Request, Self::Kept);

    /// Answers a call that went wrong; `None` if what was kept does not suffice.
    fn answer(&self, kept: Self::Kept, why: Why) -> Option<Self::Future>;
}

/// Answers by a function of [`Why`] alone. Made by [`FallbackLayer::new`](super::FallbackLayer::new).
#[derive(Clone, Copy)]
pub struct Function<F>(pub(super) F);

impl<Req, Res, E, F, Fut> Answer<Req> for Function<F>
where
    F: Fn(Why) -> Fut,
    Fut: Future<Output = Result<Res, E>>,
    E: Into<BoxError>,
{
    type Request = Req;
    type Kept = ();
    type Response = Res;
    type Error = E;
    type Future = Fut;

    fn keep(&self, request: Req) -> (Req, ()) {
        (request, ())
    }

    fn answer(&self, (): (), why: Why) -> Option<Fut> {
        Some((self.0)(why))
    }
}

/// Answers by a function of [`Why`] and of something kept of the request. Made by
/// [`FallbackLayer::keeping`](super::FallbackLayer::keeping).
#[derive(Clone, Copy)]
pub struct Keeping<G, F> {
    pub(super) keep: G,
    pub(super) answer: F,
}

impl<Req, Kept, Res, E, G, F, Fut> Answer<Req> for Keeping<G, F>
where
    G: Fn(&Req) -> Kept,
    F: Fn(Kept, Why) -> Fut,
    Fut: Future<Output = Result<Res, E>>,
    E: Into<BoxError>,
{
    type Request = Req;
    type Kept = Kept;
    type Response = Res;
    type Error = E;
    type Future = Fut;

    fn keep(&self, request: Req) -> (Req, Kept) {
        let kept = (self.keep)(&request);
        (request, kept)
    }

    fn answer(&self, kept: Kept, why: Why) -> Option<Fut> {
        Some((self.answer)(kept, why))
    }
}

/// Answers by another service. Made by [`FallbackLayer::service`](super::FallbackLayer::service).
#[derive(Clone)]
pub struct Other<S> {
    pub(super) service: S,
    pub(super) replay_limit: usize,
}

impl<Req, S> Answer<Req> for Other<S>
where
    Req: Replay,
    S: Service<Req::Attempt> + Clone,
    S::Error: Into<BoxError>,
{
    type Request = Req::Attempt;
    type Kept = Req::Kept;
    type Response = S::Response;
    type Error = S::Error;
    type Future = Oneshot<S, Req::Attempt>;

    fn keep(&self, request: Req) -> (Req::Attempt, Req::Kept) {
        request.split(self.replay_limit)
    }

    fn answer(&self, mut kept: Req::Kept, _why: Why) -> Option<Self::Future> {
        // No attempt before it: this is the first that the other service sees.
        Some(Oneshot::new(self.service.clone(), Req::again(&mut kept, 0)?))
    }
}

impl<F> fmt::Debug for Function<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function").finish_non_exhaustive()
    }
}

impl<G, F> fmt::Debug for Keeping<G, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeping").finish_non_exhaustive()
    }
}

impl<S: fmt::Debug> fmt::Debug for Other<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Other").field("service", &self.service).field("replay_limit", &self.replay_limit).finish()
    }
}
