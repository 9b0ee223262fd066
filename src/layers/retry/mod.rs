//! Retry: makes a failed attempt again, where that is safe, in time, and paid for.
//!
//! ```
//! use bytes::Bytes;
//! use hopvine::layers::retry::{RetryLayer, RetryPolicy};
//! use http_body_util::Empty;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), hopvine::Error> {
//! # let answered = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
//! # let catalog = service_fn(move |_: http::Request<hopvine::layers::retry::ReplayBody<Empty<Bytes>>>| {
//! #     let first = answered.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
//! #     let response = http::Response::builder().status(if first { 503 } else { 200 }).body(Empty::<Bytes>::new());
//! #     async move { Ok::<_, hopvine::Error>(response.unwrap()) }
//! # });
//! let catalog = ServiceBuilder::new().layer(RetryLayer::new(RetryPolicy::default()).unwrap()).service(catalog);
//!
//! let response = catalog.oneshot(http::Request::get("/items").body(Empty::<Bytes>::new()).unwrap()).await?;
//! assert_eq!(response.status(), 200);
//! assert_eq!(hopvine::context::last_call().attempts, 2); // the first was answered with a 503
//! # Ok(())
//! # }
//! ```
//!
//! Its settings are [`RetryPolicy`] (attempts, waits, bytes kept of a body) and [`BudgetPolicy`] (what pays for it).
//! Customised, with a budget that all layers in front of one service share, and a request that is no HTTP:
//!
//! ```
//! use std::time::Duration;
//! use hopvine::{
//!     Live, Monitor, Outcome,
//!     layers::retry::{Budget, BudgetPolicy, RetryLayer, RetryPolicy},
//!     live::Ratio,
//!     outcome::Failure,
//!     request::{Idempotent, Replay},
//! };
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! #[derive(Clone)]
//! struct Lookup(&'static str);
//!
//! impl Replay for Lookup {
//!     type Attempt = Self;
//!     type Kept = Self;
//!     fn once(self) -> Self {
//!         self
//!     }
//!     fn split(self, _limit: usize) -> (Self, Self) {
//!         (self.clone(), self)
//!     }
//!     fn again(kept: &mut Self, _earlier: u32) -> Option<Self> {
//!         Some(kept.clone())
//!     }
//! }
//!
//! impl Idempotent for Lookup {
//!     fn is_idempotent(&self) -> bool {
//!         true
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let monitor = Monitor::new();
//! let budget = Budget::new(BudgetPolicy { ratio: Ratio(0.1), ..Default::default() })?;
//! let policy = Live::new(RetryPolicy { max_attempts: 2, backoff_base: Duration::from_millis(5), ..Default::default() })?;
//! let retry = RetryLayer::new(policy.clone())?
//!     .budget(budget.clone())
//!     .classify(|result: Result<&Vec<u8>, &hopvine::Error>| match result {
//!         Ok(rows) if rows.is_empty() => Outcome::Failure(Failure::Other), // a replica that is behind
//!         Ok(_) => Outcome::Success,
//!         Err(error) => Outcome::of_error(error),
//!     })
//!     .name("replica")
//!     .monitor(&monitor);
//! let replica = ServiceBuilder::new()
//!     .layer(retry)
//!     .service(service_fn(|lookup: Lookup| async move { Ok::<_, hopvine::Error>(lookup.0.as_bytes().to_vec()) }));
//!
//! assert_eq!(replica.clone().oneshot(Lookup("")).await?, b""); // still the last result, not an error that hides it
//! assert_eq!(monitor.snapshot().retries[0].attempts, 2);
//! policy.set(RetryPolicy { max_attempts: 1, ..Default::default() })?; // no retries from the next call on
//! replica.clone().oneshot(Lookup("")).await?;
//! assert_eq!(monitor.snapshot().retries[0].attempts, 3);
//! # Ok(())
//! # }
//! ```
//!
//! # What is tried again
//!
//! An attempt ends at the response head: with a good one the call has its response, and what happens to the body later
//! is not tried again (gRFC A6's commit point). Otherwise, by what the classifier makes of it:
//!
//! | the attempt | the next one | waits |
//! |---|---|---|
//! | surely never ran: connection refused, `REFUSED_STREAM`, never written, its time over while it waited for a connection ([`is_unsent`](crate::Error::is_unsent)) | for any request: a *requeue* | not at all |
//! | failed or timed out | if the request may run twice | full jitter: evenly up to 25 ms, 50 ms, ... 250 ms |
//! | was throttled, or failed with a hint when to come back | if it may run twice | as long as the server said (`Retry-After`, `grpc-retry-pushback-ms`), at most 300 s; without a hint as above |
//! | was answered with `grpc-retry-pushback-ms` below zero or unreadable | none | |
//! | status 501 or 505 | none: the next answer is the same | |
//! | was refused on this side ([`is_rejected`](crate::Error::is_rejected)): no endpoint, bulkhead full | none | |
//!
//! A request may run twice if it [says so](crate::request::Idempotent): GET, HEAD, PUT, DELETE, OPTIONS and TRACE, an
//! `Idempotency-Key` header, the [`Idempotency`](crate::request::Idempotency) extension. Requeues count as attempts and
//! are paid for like retries. A wait that would reach the [deadline](crate::context::deadline) is not begun. When
//! attempts, budget or time end, the caller gets the last response or error, and the reason in
//! [`context::last_call`](crate::context::last_call).
//!
//! An unretried request allocates nothing here but a copy of its header map, if it has headers; a body that is not empty costs
//! what [`ReplayBody`] keeps of it. Request extensions are cloned too, where there are any.
//!
//! # State
//!
//! The budget and the counts belong to the layer value: services it is put round share them, and so do clones of layer
//! and service. A [`Budget`] given to several layers is one. Nothing else outlives a call.
//!
//! # Placement
//!
//! Inside the deadline, so that waiting has an end; inside breaker and bulkhead, which see one result and take one
//! place per call; outside `DiscoverLayer` and the balancer, so that the next attempt picks an endpoint this call has not tried yet. What
//! must see each attempt (outlier detection, attempt timeout, attempt trace) stands per endpoint. Without an
//! attempt timeout inside, one attempt that hangs uses up the call's time. Use one retry layer on the way of a call: three
//! retries at five places are 1 024 attempts.
//!
//! The services inside get [`Replay::Attempt`](crate::request::Replay::Attempt): for an `http::Request<B>` that is
//! `http::Request<ReplayBody<B>>`.
//!
//! # Errors
//!
//! None of its own: the last attempt's, with [`Error::attempts`](crate::Error::attempts) set. If the service inside fails to become ready for
//! a further attempt, that error.
//!
//! # Cancellation
//!
//! Dropping the future drops the attempt under way, or the wait. A token is back in the budget if its retry was not sent
//! yet; one that was sent stays spent, unless a layer on this side refused it.
//!
//! # Source
//!
//! gRPC's gRFC A6 (attempts, pushback), the AWS Architecture Blog's "Exponential Backoff And Jitter", Finagle (requeues apart from
//! retries, a budget for both), linkerd2-proxy (bodies kept lazily, 64 KiB). The budget is paid in by successes rather
//! than requests: then it dries up in an outage, and retries cannot keep a service down that would recover.

mod backoff;
mod budget;
mod decision;
mod future;
mod layer;
mod policy;
mod replay;
mod service;
mod tokens;

pub use budget::{Budget, Token};
pub use future::ResponseFuture;
pub use layer::RetryLayer;
pub use policy::{BudgetPolicy, RetryPolicy};
pub use replay::{KeptRequest, ReplayBody};
pub use service::Retry;
