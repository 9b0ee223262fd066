//! Stops calling what keeps failing, and finds out by a few probes when it works again.
//!
//! A command's results of the last [`window`](CircuitBreakerPolicy::window) are counted. When enough of them failed, or were slow, the
//! breaker **opens**: calls are refused at once, which spares the caller the wait and the other side the load. After the
//! open time it is **half open**: a few calls are let through as probes, and they decide whether it closes or opens
//! again, for longer.
//!
//! ```text
//!              enough of the window failed, or was slow
//!     closed ------------------------------------------> open <----+
//!        ^                                                 |       | too many probes failed,
//!        |                    a call after the open time   |       | twice the open time
//!        |                                                 v       |
//!        +------------------------------------------- half open ---+
//!             80 % of the probes succeeded, surely
//! ```
//!
//! ```
//! use hopvine::layers::circuit_breaker::{CircuitBreakerLayer, CircuitBreakerPolicy};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let catalog = ServiceBuilder::new()
//!     .layer(CircuitBreakerLayer::new("catalog.item", CircuitBreakerPolicy::default())?)
//!     .service(service_fn(|_: http::Request<()>| async { Ok::<_, std::io::Error>(http::Response::new("an item")) }));
//! assert_eq!(*catalog.oneshot(http::Request::new(())).await?.body(), "an item");
//! # Ok(())
//! # }
//! ```
//!
//! With settings of its own, an own opinion on what fails, and a handle for operators:
//!
//! ```
//! use std::time::Duration;
//! use hopvine::{
//!     ErrorKind, Live, Monitor, Outcome,
//!     layers::circuit_breaker::{CircuitBreakerLayer, CircuitBreakerPolicy},
//!     live::Ratio,
//!     outcome::Failure,
//! };
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let policy = Live::new(CircuitBreakerPolicy {
//!     window: Duration::from_secs(30),
//!     failure_rate: Ratio(0.3),
//!     slow_call: Some(Duration::from_millis(400)),
//!     slow_rate: Ratio(0.8),
//!     ..Default::default()
//! })?;
//! let monitor = Monitor::new();
//! let layer = CircuitBreakerLayer::new("stock.level", policy.clone())?
//!     .monitor(&monitor)
//!     .classify(|result: Result<&i64, &hopvine::Error>| match result {
//!         Ok(level) if *level < 0 => Outcome::Failure(Failure::Other), // the store answers -1 when it is broken
//!         Ok(_) => Outcome::Success,
//!         Err(error) => Outcome::of_error(error),
//!     });
//! let breaker = layer.breaker();
//! let stock = ServiceBuilder::new().layer(layer).service(service_fn(|_item: &str| async { Ok::<i64, std::io::Error>(7) }));
//!
//! breaker.force_open(); // an operator knows better
//! let refused = stock.clone().oneshot("tea").await.unwrap_err();
//! assert_eq!((refused.kind(), refused.service()), (ErrorKind::CircuitOpen, Some("stock.level")));
//! breaker.release();
//! assert_eq!(stock.oneshot("tea").await?, 7);
//! # Ok(())
//! # }
//! ```
//!
//! # State
//!
//! Belongs to the layer value: everything made by one [`CircuitBreakerLayer`] and its clones shares one breaker, over
//! routes, connections and clones of the service. Two layer values are two breakers, whatever their names. A
//! [`Breaker`] is a handle to it. A new policy takes effect at the next call; a new window length starts an empty window.
//!
//! # Placement
//!
//! Per call: inside the fallback, which must see the refusal; outside the bulkhead, the deadline and the retries, so
//! that a call counts once, by its final result, and a timeout is seen as a value. One breaker per command, not
//! per endpoint: for one bad endpoint of many there is outlier detection, and this stays closed. To have one per
//! endpoint all the same, put it below the balancer by [`per_endpoint`](crate::connect::per_endpoint).
//!
//! # Errors
//!
//! [`ErrorKind::CircuitOpen`](crate::ErrorKind::CircuitOpen) with the command as its service and, while open, the rest of the open time as
//! `retry_after` (none while forced open, or half open with every probe given out). The inner service's errors pass
//! through. [`Outcome`](crate::Outcome) has the table of what counts: throttled and timed out are failures, what a layer inside refused counts not at all.
//!
//! # Cancellation
//!
//! A call whose future is dropped is neither success nor failure, and a probe's place goes to the next caller. Two
//! exceptions: one dropped by a timer of ours outside ([`DropCause::TimedOut`](crate::context::DropCause)) is a failure, and one dropped after more
//! than [`slow_call`](CircuitBreakerPolicy::slow_call) counts as slow, and only as that. A probe that is neither answered nor dropped is given up
//! after [`probe_lease`](CircuitBreakerPolicy::probe_lease), so there is no way to stay half open for ever.
//!
//! # Events
//!
//! One `tracing` event per transition, target `hopvine::circuit_breaker`, with `command`, `from` and `to`: a warning when it opens,
//! with the rates and the open time, else at info. None per call.
//!
//! # What differs from the peers
//!
//! | | here | Resilience4j 2 | Hystrix 1.5.18 |
//! |---|---|---|---|
//! | window | time, 10 buckets | 100 calls, or seconds | time, 10 buckets |
//! | half open | 5 probes at once, decided as soon as it is certain | 10, decided when all have reported | none: one call per sleep window |
//! | a probe that never ends | replaced after its lease | holds its permit | another one after the sleep window |
//! | a result from before the trip | dropped | counts as a probe's | a success closes it |
//! | open time | grows, jittered | constant by default | constant |
//! | its end | at the time | strictly after it | strictly after it |
//!
//! # Source
//!
//! M. Nygard, *Release It!*; failure and slow rate as in Resilience4j; leases against probes that get lost, as linkerd2-proxy
//! and Resilience4j (`maxWaitDurationInHalfOpenState` 0) can lose them.

mod breaker;
mod future;
mod layer;
#[cfg(all(test, hopvine_loom))]
mod models;
mod policy;
mod service;
mod state;
mod window;
mod word;

pub use breaker::Breaker;
pub use future::ResponseFuture;
pub use layer::CircuitBreakerLayer;
pub use policy::CircuitBreakerPolicy;
pub use service::CircuitBreaker;
pub use state::State;
