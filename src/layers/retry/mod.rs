//! Tries again what failed and may run again, elsewhere, as long as the budget pays for it.
//!
//! ```
//! use std::time::Duration;
//! use hopvine::{Monitor, layers::retry::{Budget, RetryLayer, RetryPolicy}};
//!
//! let layer = RetryLayer::new(RetryPolicy::default())?;
//!
//! // Two attempts, and a budget shared with another stack to the same service.
//! let budget = Budget::new(0.1, 5.0, 10.0, 10.0);
//! let policy = RetryPolicy { max_attempts: 2, backoff: Duration::from_millis(10), ..Default::default() };
//! let layer = RetryLayer::new(policy)?.budget(budget.clone()).name("catalog").monitor(&Monitor::new());
//! # let _ = layer;
//! # Ok::<(), hopvine::PolicyError>(())
//! ```
//!
//! | what came | tried again | after |
//! |---|---|---|
//! | an error that says the request surely never ran (no connection, refused stream) | whatever the method | no wait |
//! | a failure (but 501 and 505), a timed out attempt | if idempotent: by method, `Idempotency-Key`, or [`Idempotency`](crate::request::Idempotency) | full jitter |
//! | throttled | if idempotent | what it asks for, else full jitter |
//! | refused by a layer of ours inside, a success, a caller's mistake | no | |
//!
//! The rules are gRFC A6's, the requeue is Finagle's, the budget is funded by successes. A retry avoids the endpoints the call has tried. It commits at the
//! head of a response. A wait that would outlast the deadline is not begun. When it ends, the caller has the last response or error itself; why there was no further attempt
//! is in [`context::last_call`], and the number of attempts in the error.
//!
//! A body is kept as it is sent, up to [`RetryPolicy::replay_limit`], without reading ahead; one that outgrows it goes on and is not sent again.
//!
//! **State.** The budget, in the layer value: all services made from it share it. **Placement.** Per call, innermost, above discovery and balancer: so each attempt
//! goes to an endpoint of its own. Lifted below the balancer it is Ribbon's "same server" retry. **Errors.** The last attempt's. **Cancellation.** Drops the
//! attempt, or the wait; a token that was not spent goes back.

mod budget;
mod future;
mod layer;
mod replay;

pub use budget::Budget;
pub use future::ResponseFuture;
pub use layer::{Retry, RetryLayer, RetryPolicy};
pub use replay::{KeptRequest, ReplayBody};

#[allow(unused_imports, reason = "for the docs")]
use crate::context;
