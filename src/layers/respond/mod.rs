//! Errors as responses, in one place: for axum routers, tonic servers, and handlers that use `?`.
//!
//! | kind | HTTP | gRPC |
//! |---|---|---|
//! | `CircuitOpen`, `BulkheadFull`, `NoService`, `NoEndpoint`, `Connect` | 503 | 14 `UNAVAILABLE` |
//! | `RateLimited` | 429 | 8 `RESOURCE_EXHAUSTED` |
//! | `AttemptTimeout`, `DeadlineExceeded` | 504 | 4 `DEADLINE_EXCEEDED` |
//! | `Upstream` | 502 | 2 `UNKNOWN`; 14 if it surely never ran |
//!
//! `NoService` is no 404: it speaks of our directory, which may hear of the service in a moment, not of what the caller
//! asked for. `Upstream` is no `UNAVAILABLE`, since callers retry that one, and what broke on the way may have run.
//!
//! Where it is known when to ask again, the response says so: `Retry-After` in whole seconds, rounded up, or
//! `grpc-retry-pushback-ms`. A gRPC error is Trailers-Only: status 200, its `grpc-status` in the head, no body.
//!
//! The text names the kind and nothing else: which services and addresses stand behind is not the caller's business. The
//! error itself goes to `tracing`, at debug, target `hopvine::respond`.
//!
//! # In an axum handler
//!
//! An [`Error`](crate::Error) becomes an [`ErrorResponse`] by `?`:
//!
//! ```
//! use axum::{Router, routing::get};
//! use hopvine::{Error, ErrorKind, layers::respond::ErrorResponse};
//!
//! async fn item() -> Result<&'static str, ErrorResponse> {
//!     let item = call_another_service().await?;
//!     Ok(item)
//! }
//! # async fn call_another_service() -> Result<&'static str, Error> { Err(Error::new(ErrorKind::CircuitOpen)) }
//!
//! let app: Router = Router::new().route("/item", get(item));
//! # use tower::ServiceExt;
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! # let response = app.oneshot(http::Request::new(axum::body::Body::empty())).await.unwrap();
//! # assert_eq!(response.status(), 404);
//! # let response = Router::new().route("/", get(item)).oneshot(http::Request::new(axum::body::Body::empty())).await;
//! # assert_eq!(response.unwrap().status(), 503);
//! # });
//! ```
//!
//! In an error type of your own, call [`to_response`] where it implements axum's `IntoResponse`.

mod body;
mod convert;
mod layer;
mod service;

pub use body::{RespondBody, Text};
pub use convert::{ErrorResponse, to_response};
pub use layer::RespondLayer;
pub use service::{Respond, ResponseFuture};
