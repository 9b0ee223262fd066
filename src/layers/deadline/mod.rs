//! One deadline for the whole call, from the first caller to the last server.
//!
//! | layer | where | what |
//! |---|---|---|
//! | [`DeadlineLayer`] | per call | ends the call; enters the deadline for everything inside |
//! | [`DeadlineHeaderLayer`] | per endpoint | tells the server how long it still has |
//! | [`ServerDeadlineLayer`] | a server's | takes the deadline from the request, for the handler and all its calls |
//!
//! A deadline inside another never extends it. Between hosts goes what remains, never a time of day: gRPC's `grpc-timeout` on gRPC
//! requests, `x-request-timeout-ms` (whole milliseconds) on others.
//!
//! ```
//! use std::time::Duration;
//! use hopvine::{Live, layers::deadline::{DeadlineLayer, DeadlinePolicy, ServerDeadlineLayer}};
//! use tower::Layer;
//!
//! let layer = DeadlineLayer::new(Duration::from_secs(1));
//!
//! // One that can be changed while calls run.
//! let live = Live::new(DeadlinePolicy { timeout: Duration::from_secs(1) })?;
//! let layer = DeadlineLayer::live(&live);
//! live.set(DeadlinePolicy { timeout: Duration::from_millis(500) })?;
//!
//! // Callers say how long they wait, but nobody is served for longer than 10 s.
//! let server = ServerDeadlineLayer::new().max(Duration::from_secs(10));
//! # let _ = (layer, server);
//! # Ok::<(), hopvine::PolicyError>(())
//! ```
//!
//! **State.** None but the policy. **Placement.** [`DeadlineLayer`] inside breaker and bulkhead, which then see a timeout as an error, and outside
//! retry, whose waits count. [`ServerDeadlineLayer`] inside [`RespondLayer`](super::respond::RespondLayer), which makes its error a 504. **Errors.**
//! [`ErrorKind::DeadlineExceeded`](crate::ErrorKind). **Cancellation.** What is inside is dropped when the time is over, and its guards are told why.

mod client;
mod header;
mod server;
mod wire;

pub use client::{Deadline, DeadlineLayer, DeadlinePolicy, ResponseFuture};
pub use header::{DeadlineHeader, DeadlineHeaderFuture, DeadlineHeaderLayer, NewDeadlineHeader};
pub use server::{ServerDeadline, ServerDeadlineFuture, ServerDeadlineLayer};
pub(crate) use wire::is_grpc;
pub use wire::{GRPC_TIMEOUT, REQUEST_TIMEOUT};
