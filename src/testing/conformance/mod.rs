//! What every tower layer owes the services round it, as one suite: for ours, and for layers of your own.
//!
//! | rule | what a user would lose |
//! |---|---|
//! | the instance that is called is the one that was made ready | permits, or a panic |
//! | a wait for readiness or for an answer ends with the wake-up, and nobody is woken without cause | a call that hangs; a burning CPU |
//! | a call dropped at any await point gives everything back | capacity, for good |
//! | clones and services of one layer value together admit no more than the limit | the protection |
//! | an error comes out as it went in, or as the source of another one, through foreign layers too | the reason |
//! | services and futures can be cloned, sent and shared | the compile |
//! | the future is as small as it is said to be | speed |
//!
//! ```
//! use hopvine::{layers::bulkhead::{BulkheadLayer, BulkheadPolicy}, testing::conformance::Conformance};
//! use tower::Layer;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), hopvine::PolicyError> {
//! // in a test: #[tokio::test(start_paused = true)]
//! let layer = BulkheadLayer::new(BulkheadPolicy { limit: 3, ..Default::default() })?;
//! Conformance::new(move |inner| layer.layer(inner), || "a request", || "a response").limit(3).check().await;
//! # Ok(())
//! # }
//! ```

mod checks;
mod probe;

use std::{fmt, marker::PhantomData, sync::Arc};

use tower::{BoxError, Service};

pub use probe::{Probe, ProbeError, ProbeFuture};

/// A layer, and how its services are called. Put together, then [`check`](Self::check)ed.
pub struct Conformance<M, Req, Res> {
    make: M,
    request: fn() -> Req,
    response: fn() -> Res,
    limit: Option<usize>,
    future_size: Option<usize>,
    keeps_errors: bool,
    given_back: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    types: PhantomData<fn(Req) -> Res>,
}

impl<M, S, Req, Res> Conformance<M, Req, Res>
where
    M: Fn(Probe<Res>) -> S,
    S: Service<Req, Response = Res> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    Req: Send + 'static,
    Res: Send + 'static,
{
    /// Of the services that `make` puts round a [`Probe`]. It is called several times, as a layer's `layer` is: what is shared by
    /// the services of one layer value is shared here, too.
    pub fn new(make: M, request: fn() -> Req, response: fn() -> Res) -> Self {
        Self {
            make,
            request,
            response,
            limit: None,
            future_size: None,
            keeps_errors: true,
            given_back: Arc::new(|| Ok(())),
            types: PhantomData,
        }
    }

    /// All services together let at most this many calls through at once, and refuse the others or have them wait.
    #[must_use]
    pub fn limit(mut self, calls: usize) -> Self {
        self.limit = Some(calls);
        self
    }

    /// A call's future is at most this many bytes larger than the one inside.
    #[must_use]
    pub fn future_size(mut self, bytes: usize) -> Self {
        self.future_size = Some(bytes);
        self
    }

    /// It answers errors in some other way, as a fallback does: they need not come out.
    #[must_use]
    pub fn answers_errors(mut self) -> Self {
        self.keeps_errors = false;
        self
    }

    /// Asked whenever no call is under way: an `Err` says what is not back.
    #[must_use]
    pub fn given_back(mut self, look: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        self.given_back = Arc::new(look);
        self
    }

    /// Runs the suite. On the paused clock it takes no time.
    ///
    /// # Panics
    ///
    /// If a rule does not hold; the message says which.
    pub async fn check(&self) {
        self.answers().await;
        self.drives_readiness().await;
        self.passes_wake_ups_on().await;
        self.is_not_woken_without_cause().await;
        self.gives_everything_back().await;
        self.admits_no_more_than_its_limit().await;
        self.keeps_errors().await;
        self.is_no_larger_than_said();
    }
}

impl<M, Req, Res> fmt::Debug for Conformance<M, Req, Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conformance").field("limit", &self.limit).finish_non_exhaustive()
    }
}
