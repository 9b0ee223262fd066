//! Which endpoint an attempt goes to.
//!
//! [`DiscoverLayer`] over [`BalanceLayer`] stands between the layers per call and those per endpoint. The first says which
//! service's endpoints, the second chooses one of them by a [`Picker`]:
//!
//! | picker | chooses |
//! |---|---|
//! | [`RoundRobin`] | one after the other |
//! | [`P2cLeastRequest`] | of two at random, the one with fewer calls in flight |
//! | [`P2cPeakEwma`] | of two at random, the one whose answer would come sooner; failures count as slow |
//!
//! ```
//! use std::time::Duration;
//! use hopvine::{Directory, EndpointHandle, layers::balance::{BalanceLayer, DiscoverLayer, P2cPeakEwma}};
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let directory = Directory::fixed([("catalog", ["http://127.0.0.1:8081".parse()?, "http://127.0.0.1:8082".parse()?])]);
//! let stack = ServiceBuilder::new()
//!     .layer(DiscoverLayer::new(directory.service("catalog")))
//!     .layer(BalanceLayer::new(P2cPeakEwma::default()).max_wait(Duration::from_millis(200)))
//!     .service(|endpoint: &EndpointHandle| {
//!         let port = endpoint.endpoint().address().port();
//!         tower::service_fn(move |_: http::Request<()>| async move { Ok::<_, std::io::Error>(http::Response::new(port)) })
//!     });
//! let port = stack.oneshot(http::Request::new(())).await?.into_body();
//! assert!(port == 8081 || port == 8082);
//! # Ok(())
//! # }
//! ```
//!
//! **The call.** The endpoint is chosen in `call`, from an immutable snapshot, without a lock; its service is made on the first pick and cloned for
//! each call. Readiness is driven on that clone. Endpoints that this call tried before, are ejected, drained or down are avoided.
//!
//! **An empty set** is waited for: at most the remaining time of the call, and at most [`BalanceLayer::max_wait`] (1 s). So is an
//! endpoint's service that is not ready.
//!
//! **Panic.** With fewer than half of the serving endpoints usable by our own data, that data is ignored until 60 % are: then a bad guess is better than
//! none (Envoy's panic threshold). What its source took out of service, or an operator drained, stays out.
//!
//! **State.** Endpoints with their load, health and services belong to each service that [`DiscoverLayer`] makes; its clones share
//! them, and nothing is cached per clone. An endpoint whose metadata, weight or status change keeps all of it. What was learned of a removed one
//! is kept for 60 s, of 1 024 at most; the service of one goes when the last call ends that began before it was removed. **Placement.** Below everything per call, above everything per endpoint; anything else does not compile. **Errors.** [`NoService`](crate::ErrorKind),
//! `NoEndpoint` after the wait, `RateLimited` while every endpoint asked to be left alone, `DeadlineExceeded`. **Cancellation.** A dropped call is
//! no longer in flight; what it had waited counts as a lower bound of the endpoint's latency.
//!
//! # What does not compile
//!
//! A stack without discovery and balancer:
//!
//! ```compile_fail
//! # use hopvine::{EndpointHandle, layers::retry::{RetryLayer, RetryPolicy}};
//! # fn connector(_: &EndpointHandle) -> tower::util::BoxCloneSyncService<http::Request<()>, http::Response<()>, hopvine::Error> { todo!() }
//! let stack = tower::ServiceBuilder::new().layer(RetryLayer::new(RetryPolicy::default()).unwrap());
//! hopvine::build::<http::Request<http_body_util::Empty<bytes::Bytes>>, _, _>(stack, connector);
//! ```
//!
//! An ordinary layer below the balancer, without [`per_endpoint`](crate::connect::per_endpoint):
//!
//! ```compile_fail
//! # use hopvine::{EndpointHandle, ServiceHandle, layers::balance::{BalanceLayer, DiscoverLayer, RoundRobin}};
//! # fn connector(_: &EndpointHandle) -> tower::util::BoxCloneSyncService<http::Request<()>, http::Response<()>, hopvine::Error> { todo!() }
//! # let service = ServiceHandle::fixed("a", []);
//! let stack = tower::ServiceBuilder::new()
//!     .layer(DiscoverLayer::new(service))
//!     .layer(BalanceLayer::new(RoundRobin::default()))
//!     .layer(tower::timeout::TimeoutLayer::new(std::time::Duration::from_secs(1)));
//! hopvine::build::<http::Request<()>, _, _>(stack, connector);
//! ```
//!
//! A layer that knows the endpoint above the balancer:
//!
//! ```compile_fail
//! # use hopvine::{EndpointHandle, ServiceHandle, layers::{balance::{BalanceLayer, DiscoverLayer, RoundRobin}, pushback::PushbackLayer}};
//! # fn connector(_: &EndpointHandle) -> tower::util::BoxCloneSyncService<http::Request<()>, http::Response<()>, hopvine::Error> { todo!() }
//! # let service = ServiceHandle::fixed("a", []);
//! let stack = tower::ServiceBuilder::new()
//!     .layer(PushbackLayer::new())
//!     .layer(DiscoverLayer::new(service))
//!     .layer(BalanceLayer::new(RoundRobin::default()));
//! hopvine::build::<http::Request<()>, _, _>(stack, connector);
//! ```

mod discover;
mod endpoints;
mod future;
mod layer;
pub mod picker;
mod service;

pub use discover::{ByRequest, Discover, DiscoverBy, DiscoverByFuture, DiscoverLayer};
pub use future::ResponseFuture;
pub use layer::{BalanceLayer, NewBalance};
pub use picker::{P2cLeastRequest, P2cPeakEwma, PeakEwmaPolicy, Picker, RoundRobin};
pub use service::Balance;
