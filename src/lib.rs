//! Every hop between services is one stack of [Tower](tower) layers over one stream of endpoints.
//!
//! Discovery, balancing, circuit breaking, retries, deadlines, fallbacks, tracing and ejection of bad instances, as ordinary layers that
//! compose with everybody else's. A call takes no lock and no task of ours, and what it held is given back when it is dropped,
//! wherever it stands.
//!
//! ```
//! use std::time::Duration;
//! use hopvine::{Directory, EndpointHandle, connect::per_endpoint};
//! use hopvine::layers::{
//!     attempt_timeout::AttemptTimeoutLayer,
//!     balance::{BalanceLayer, DiscoverLayer, P2cPeakEwma},
//!     circuit_breaker::{CircuitBreakerLayer, CircuitBreakerPolicy},
//!     deadline::DeadlineLayer,
//!     outlier::{OutlierDetectionLayer, OutlierPolicy},
//!     retry::{RetryLayer, RetryPolicy},
//! };
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Empty;
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let directory = Directory::fixed([("catalog", ["http://10.0.0.7:8080".parse()?, "http://10.0.0.8:8080".parse()?])]);
//!
//! let catalog = ServiceBuilder::new()
//!     // per call
//!     .layer(CircuitBreakerLayer::new("catalog.item", CircuitBreakerPolicy::default())?)
//!     .layer(DeadlineLayer::new(Duration::from_secs(1)))
//!     .layer(RetryLayer::new(RetryPolicy::default())?)
//!     // one endpoint for each attempt
//!     .layer(DiscoverLayer::new(directory.service("catalog")))
//!     .layer(BalanceLayer::new(P2cPeakEwma::default()))
//!     // per endpoint
//!     .layer(OutlierDetectionLayer::new(OutlierPolicy::default())?)
//!     .layer(per_endpoint(|_| AttemptTimeoutLayer::new(Duration::from_millis(300))))
//!     // the connector: `HttpClient::new()`, or whatever makes a service of an endpoint
//!     .service(|endpoint: &EndpointHandle| {
//!         let address = endpoint.endpoint().address().to_string();
//!         tower::service_fn(move |_| {
//!             let answer = Response::new(format!("an item from {address}"));
//!             async move { Ok::<_, std::io::Error>(answer) }
//!         })
//!     });
//!
//! let response = catalog.oneshot(Request::get("/items/1").body(Empty::<Bytes>::new())?).await?;
//! assert!(response.body().starts_with("an item from 10.0.0."));
//! # Ok(())
//! # }
//! ```
//!
//! # How a call goes
//!
//! ```text
//! caller
//!   |  per call:       client trace, fallback, circuit breaker, bulkhead, deadline, retry
//!   v
//! discover, balance:   which service's endpoints; which of them
//!   |  per endpoint:   attempt trace, outlier detection, deadline header, attempt timeout
//!   v
//! connector:           the pooled HTTP client, or your own
//! ```
//!
//! | layer | stands | does |
//! |---|---|---|
//! | [`ClientTraceLayer`](layers::trace) | per call | a span and statistics of each call |
//! | [`FallbackLayer`](layers::fallback) | per call | answers instead of an error |
//! | [`CircuitBreakerLayer`](layers::circuit_breaker) | per call | refuses calls while most of them fail or are slow |
//! | [`BulkheadLayer`](layers::bulkhead) | per call | bounds the calls in flight |
//! | [`DeadlineLayer`](layers::deadline) | per call | ends the call in time |
//! | [`RetryLayer`](layers::retry) | per call | tries again what may run again, from a budget |
//! | [`DiscoverLayer`](layers::balance) | between | one service of a directory, or the service by request |
//! | [`BalanceLayer`](layers::balance) | between | one endpoint for each attempt |
//! | [`AttemptTraceLayer`](layers::trace) | per endpoint | a span of each attempt, and the headers that carry the trace |
//! | [`PushbackLayer`](layers::pushback) | per endpoint | leaves an endpoint alone for as long as it asks |
//! | [`OutlierDetectionLayer`](layers::outlier) | per endpoint | leaves out an endpoint that keeps failing |
//! | [`DeadlineHeaderLayer`](layers::deadline) | per endpoint | tells the server how long it still has |
//! | [`AttemptTimeoutLayer`](layers::attempt_timeout) | per endpoint | ends one attempt in time |
//! | [`ServerTraceLayer`](layers::trace), [`ServerDeadlineLayer`](layers::deadline), [`RespondLayer`](layers::respond) | in a server | trace and deadline in, errors out as responses |
//!
//! Any tower layer stands above the balancer as it is, and below it by [`per_endpoint`](connect::per_endpoint). Three whole stacks are ready made in
//! [`stacks`]; where endpoints come from is told in [`discover`]; what travels with a call, and how it reaches the calls of a server's handler, in [`context`].
//!
//! # What is public beside this crate
//!
//! `tower` 0.5, `http` 1, `http-body` 1, `hyper` 1, `tokio` 1 and `serde` 1 appear in the interface: a new major version of one is a new major version of
//! this crate. The rest is private.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod connect;
pub mod context;
pub mod discover;
pub mod endpoint;
mod error;
#[cfg(feature = "eureka")]
#[cfg_attr(docsrs, doc(cfg(feature = "eureka")))]
pub mod eureka;
mod lanes;
pub mod layers;
pub mod live;
pub mod monitor;
pub mod outcome;
#[cfg(feature = "registry")]
#[cfg_attr(docsrs, doc(cfg(feature = "registry")))]
pub mod registry;
pub mod request;
#[cfg(feature = "eureka")]
mod snapshot;
mod stack;
pub mod stacks;
mod sync;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;
pub mod trace;

pub use connect::NewService;
pub use context::Context;
pub use discover::{Directory, ServiceHandle};
pub use endpoint::{Endpoint, EndpointHandle};
pub use error::{Error, ErrorKind};
pub use live::{Live, Policy, PolicyError};
pub use monitor::Monitor;
pub use outcome::{Classify, Outcome};
pub use stack::{BoxStack, Stack, build, layers_of};

#[cfg(all(doctest, feature = "full"))]
#[doc = include_str!("../README.md")]
mod readme {}
