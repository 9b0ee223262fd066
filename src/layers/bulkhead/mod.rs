//! Bounds how many calls run at once, so that one slow service cannot take every thread, connection and megabyte.
//!
//! When all places are taken, a call is refused at once, or waits for a place: first come, first served, in a queue of
//! bounded length, and for a bounded time.
//!
//! ```
//! use hopvine::layers::bulkhead::{BulkheadLayer, BulkheadPolicy};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let catalog = ServiceBuilder::new()
//!     .layer(BulkheadLayer::new(BulkheadPolicy::default())?) // 256 at once, the next is refused
//!     .service(service_fn(|_: http::Request<()>| async { Ok::<_, std::io::Error>(http::Response::new("an item")) }));
//! assert_eq!(*catalog.oneshot(http::Request::new(())).await?.body(), "an item");
//! # Ok(())
//! # }
//! ```
//!
//! With a wait, a name, and a limit that can be changed:
//!
//! ```
//! use std::time::Duration;
//! use hopvine::{
//!     Live, Monitor,
//!     layers::bulkhead::{BulkheadLayer, BulkheadPolicy},
//! };
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let policy = Live::new(BulkheadPolicy { limit: 8, max_wait: Duration::from_millis(50), max_waiting: 32 })?;
//! let monitor = Monitor::new();
//! let report = ServiceBuilder::new()
//!     .layer(BulkheadLayer::new(policy.clone())?.name("report").monitor(&monitor))
//!     .service(service_fn(|day: u32| async move { Ok::<_, std::io::Error>(day + 1) }));
//! assert_eq!(report.clone().oneshot(1).await?, 2);
//!
//! policy.set(BulkheadPolicy { limit: 4, ..(*policy.get()).clone() })?;
//! assert_eq!(monitor.snapshot().bulkheads[0].limit, 4);
//! # Ok(())
//! # }
//! ```
//!
//! # State
//!
//! Belongs to the layer value: everything made by one [`BulkheadLayer`] and its clones shares its places, over routes,
//! connections and clones of the service. Two layer values share nothing. A higher limit lets waiting calls in at once; under a lower
//! one the calls under way go on, and new ones wait or are refused until enough have ended.
//!
//! # Placement
//!
//! Per call: inside the circuit breaker, which ignores its refusals, and outside the deadline and the retries, so that a
//! call has one place for all its attempts. It may stand on the server's side round a route, too. A place is held until the
//! response's head is there, **not** until its body has ended: a stream that runs for an hour does not hold one.
//!
//! The inner service must be `Clone`: a call that waits keeps the very instance that was made ready, and leaves a clone.
//!
//! # Errors
//!
//! [`ErrorKind::BulkheadFull`](crate::ErrorKind::BulkheadFull), with the bulkhead's name as its service if it has one: all places are taken
//! and [`max_wait`](BulkheadPolicy::max_wait) is zero, or has passed, or [`max_waiting`](BulkheadPolicy::max_waiting) calls wait already.
//! [`ErrorKind::DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded), marked as unsent, if the call's deadline ends before the wait does;
//! a breaker outside counts that as a timeout.
//! The inner service's errors pass through.
//!
//! # Cancellation
//!
//! A call that is dropped gives its place back; one that waits leaves the queue. If it had just been given a place, the next in
//! the queue gets that.
//!
//! # Source
//!
//! Resilience4j's semaphore bulkhead (25 calls, no wait) and Envoy's static limits (1024). There a limit that is lowered
//! waits for the places to be free, and one release too many raises it; here a place is a value that can be given back once only.

mod future;
mod layer;
#[cfg(all(test, hopvine_loom))]
mod models;
mod places;
mod policy;
mod service;

pub use future::ResponseFuture;
pub use layer::BulkheadLayer;
pub use policy::BulkheadPolicy;
pub use service::Bulkhead;
