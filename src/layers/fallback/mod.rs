//! Fallback: another answer in place of a call that went wrong.
//!
//! By a function that is told [`Why`]:
//!
//! ```
//! use hopvine::{Error, ErrorKind, layers::fallback::{FallbackLayer, Why}};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Error> {
//! let catalog = service_fn(|_: &'static str| async { Err::<http::Response<String>, _>(Error::new(ErrorKind::CircuitOpen)) });
//! let catalog = ServiceBuilder::new()
//!     .layer(FallbackLayer::new(|_: Why| async { Ok::<_, Error>(http::Response::new("something popular".to_owned())) }))
//!     .service(catalog);
//!
//! assert_eq!(catalog.oneshot("item 7").await?.body(), "something popular");
//! # Ok(())
//! # }
//! ```
//!
//! Customised: of what is kept of each request, only where waiting would not help, and counted in a monitor.
//!
//! ```
//! use hopvine::{Error, ErrorKind, Monitor, layers::fallback::{FallbackLayer, Why}};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Error> {
//! # let catalog = service_fn(|_: http::Request<()>| async { Err::<http::Response<String>, _>(Error::new(ErrorKind::CircuitOpen)) });
//! let monitor = Monitor::new();
//! let cached = FallbackLayer::keeping(
//!     |request: &http::Request<()>| request.uri().path().to_owned(),
//!     |path: String, why: Why| async move {
//!         let answer = http::Response::builder().header("x-answered-by", "cache").body(format!("{path}, as of yesterday"));
//!         answer.map_err(|error| Error::from_any(error).with_attempts(why.attempts()))
//!     },
//! )
//! .when(|why| why.error() == Some(ErrorKind::CircuitOpen) || why.outcome().is_bad())
//! .name("catalog")
//! .monitor(&monitor);
//! let catalog = ServiceBuilder::new().layer(cached).service(catalog);
//!
//! let response = catalog.clone().oneshot(http::Request::get("/items/7").body(()).unwrap()).await?;
//! assert_eq!(response.body(), "/items/7, as of yesterday");
//! assert_eq!(monitor.snapshot().fallbacks[0].answered, 1);
//! # Ok(())
//! # }
//! ```
//!
//! By another service, a whole stack perhaps: `FallbackLayer::service(other)`
//! ([what it costs](FallbackLayer::service)).
//!
//! It answers where the call ended with an error, whichever, or with a response that the classifier calls a failure,
//! throttled or timed out. It has the time the caller gave, not what this stack's own deadline left of it. If it fails
//! too, the caller gets the original error or response, and the fallback's own error is a `tracing` event at debug.
//!
//! What it answered looks like any other response: count it here ([`monitor`](FallbackLayer::monitor)), or mark it in
//! the function that makes it, as above. [`context::last_call`](crate::context::last_call) still tells how the call itself ended.
//!
//! # State
//!
//! Its counts, which belong to the layer value: services it is put round share them, and so do clones.
//!
//! # Placement
//!
//! Outside breaker, bulkhead and deadline, or what they refuse never reaches it; inside the client trace, which then
//! sees what the caller sees.
//!
//! # Errors
//!
//! None of its own. An error of the inner service's `poll_ready` is passed on: no call was made that could be answered
//! otherwise.
//!
//! # Cancellation
//!
//! Dropping the future drops the call, or the answer to come. A bad response is held until the answer is there, in case there is
//! none, and its connection with it.

mod answer;
mod future;
mod layer;
mod service;
mod why;

pub use answer::{Answer, Function, Keeping, Other};
pub use future::ResponseFuture;
pub use layer::FallbackLayer;
pub use service::Fallback;
pub use why::Why;
