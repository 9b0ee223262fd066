//! Bounds how many calls are in flight, so that one slow service cannot take everything its caller has.
//!
//! ```
//! use std::time::Duration;
//! use hopvine::{Monitor, layers::bulkhead::{BulkheadLayer, BulkheadPolicy}};
//!
//! // 256 calls; the next one is refused at once.
//! let layer = BulkheadLayer::new(BulkheadPolicy::default())?;
//!
//! // 32 calls; 100 more wait up to 50 ms, the first come first.
//! let policy = BulkheadPolicy { limit: 32, max_wait: Duration::from_millis(50), max_waiting: 100 };
//! let layer = BulkheadLayer::new(policy)?.name("reports").monitor(&Monitor::new());
//! # let _ = layer;
//! # Ok::<(), hopvine::PolicyError>(())
//! ```
//!
//! A call has its place until the head of its response, or its error; a streamed body holds none. The place is taken in `call`, never in `poll_ready`: an idle
//! clone holds nothing. The limit may change while calls run; a smaller one refuses new calls until enough are done.
//!
//! **State.** In the layer value: all clones, all services made from it, all routes and connections share the places. **Placement.** Per call, inside
//! the breaker and outside deadline and retry; or round a server's routes. **Errors.** [`ErrorKind::BulkheadFull`](crate::ErrorKind), or `DeadlineExceeded` if the call's
//! deadline ends while it waits. **Cancellation.** A dropped call gives its place back; a dropped waiter leaves the queue, and passes on a place it was
//! just given.

mod future;
mod layer;
mod places;

pub use future::ResponseFuture;
pub use layer::{Bulkhead, BulkheadLayer, BulkheadPolicy};
