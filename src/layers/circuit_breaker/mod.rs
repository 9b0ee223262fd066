//! Refuses calls while most of them fail or are slow, so that a service in trouble is left alone and its callers get an answer at once.
//!
//! ```
//! use std::time::Duration;
//! use hopvine::{Monitor, layers::circuit_breaker::{CircuitBreakerLayer, CircuitBreakerPolicy}};
//! use tower::{Layer, ServiceExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let layer = CircuitBreakerLayer::new("catalog.item", CircuitBreakerPolicy::default())?;
//!
//! // With slow calls counted, and an operator's hand on it.
//! let policy = CircuitBreakerPolicy { slow_call: Some(Duration::from_millis(300)), ..Default::default() };
//! let layer = CircuitBreakerLayer::new("catalog.item", policy)?.monitor(&Monitor::new());
//! let breaker = layer.breaker();
//! let service = layer.layer(tower::service_fn(|_: http::Request<()>| async {
//!     Ok::<_, std::io::Error>(http::Response::new(()))
//! }));
//! assert!(service.clone().oneshot(http::Request::new(())).await.is_ok());
//! breaker.force_open();
//! assert_eq!(service.oneshot(http::Request::new(())).await.unwrap_err().kind(), hopvine::ErrorKind::CircuitOpen);
//! # Ok(())
//! # }
//! ```
//!
//! Closed, it counts the outcomes of a sliding window of time; after a failure or a slow call it opens if enough calls were seen and the share of failures,
//! or of slow calls, has reached its limit. Open, it refuses. After the open time a few probes are let through: four of five good ones close it, the second
//! bad one opens it again, for twice as long up to a limit (a constant open time would hammer a dead service in step). A probe is a
//! lease: cancelled, it is given back; never heard of, it expires. Rates and windows are Resilience4j's, the growing open time and the leases are not.
//!
//! **State.** In the layer value: clones, and every service made from it, share one breaker. **Placement.** Per call, outside bulkhead, deadline and
//! retry: so it sees one result a call, and timeouts as results. **Errors.** [`ErrorKind::CircuitOpen`](crate::ErrorKind) with the remaining open time as
//! `retry_after`. **Cancellation.** A dropped call counts as nothing, unless it was slow already, or a timer of ours dropped it: that is a failure.
//! A dropped probe gives its place back.

mod future;
mod layer;
mod service;
mod state;
mod window;

pub use future::ResponseFuture;
pub use layer::{Breaker, CircuitBreakerLayer, CircuitBreakerPolicy};
pub use service::CircuitBreaker;
pub use state::State;
