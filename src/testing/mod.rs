//! Scripted services and endpoints for tests of your own, and a [conformance suite](conformance) for layers of your own.
//!
//! On tokio's paused clock waits take no time and are exact:
//!
//! ```
//! use std::time::Duration;
//! use hopvine::{ErrorKind, layers::deadline::DeadlineLayer, testing::ScriptedService};
//! use tower::{Layer, ServiceExt};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! // in a test: #[tokio::test(start_paused = true)]
//! let catalog = ScriptedService::<&str, &str>::new();
//! catalog.respond_after(Duration::from_millis(80), "apples").never();
//!
//! let stack = DeadlineLayer::new(Duration::from_millis(100)).layer(catalog.clone());
//! assert_eq!(stack.clone().oneshot("a").await.unwrap(), "apples");
//!
//! let start = tokio::time::Instant::now();
//! assert_eq!(stack.oneshot("b").await.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
//! assert_eq!(start.elapsed(), Duration::from_millis(100));
//! assert_eq!((catalog.requests(), catalog.in_flight(), catalog.dropped()), (vec!["a", "b"], 0, 1));
//! # }
//! ```
//!
//! Below a balancer, one script an endpoint:
//!
//! ```
//! use hopvine::{Directory, Error, ErrorKind, layers::{balance::{BalanceLayer, DiscoverLayer, RoundRobin}, retry::{RetryLayer, RetryPolicy}}};
//! use hopvine::testing::ScriptedEndpoints;
//! use http::{Request, Response};
//! use http_body_util::Empty;
//! use bytes::Bytes;
//! use tower::ServiceExt;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let directory = Directory::fixed([("catalog", ["127.0.0.1:1".parse()?, "127.0.0.1:2".parse()?])]);
//! let endpoints = ScriptedEndpoints::new();
//! endpoints.endpoint("127.0.0.1:1").fail(Error::new(ErrorKind::Connect));
//! endpoints.endpoint("127.0.0.1:2").respond(Response::new("apples"));
//!
//! let builder = tower::ServiceBuilder::new()
//!     .layer(RetryLayer::new(RetryPolicy::default())?)
//!     .layer(DiscoverLayer::new(directory.service("catalog")))
//!     .layer(BalanceLayer::new(RoundRobin::default()));
//! let stack = hopvine::build::<Request<Empty<Bytes>>, _, _>(builder, endpoints);
//! assert_eq!(stack.oneshot(Request::new(Empty::new())).await?.into_body(), "apples");
//! # Ok(())
//! # }
//! ```

pub mod conformance;
mod scripted;

pub use scripted::{ScriptedEndpoints, ScriptedService};
