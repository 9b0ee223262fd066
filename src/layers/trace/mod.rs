//! Follows a call: a span for the call, one for each attempt, and the trace's ids in the headers.
//!
//! | layer | where | what |
//! |---|---|---|
//! | [`ClientTraceLayer`] | per call | a span and statistics of the call |
//! | [`AttemptTraceLayer`] | per endpoint | a span of the attempt, and the headers that tell the server |
//! | [`ServerTraceLayer`] | a server's | takes the trace from the request, for the handler and all its calls |
//!
//! In two parts on the client's side, since only below the balancer the endpoint is known. The spans are [`tracing`]'s, at level debug, with the targets
//! `hopvine::call`, `hopvine::attempt` and `hopvine::server`; where no subscriber wants them they cost nothing. Every attempt carries a new
//! span id, its parent being the call's.
//!
//! ```
//! use hopvine::{Monitor, layers::trace::{AttemptTraceLayer, ClientTraceLayer, ServerTraceLayer}, trace::{Format, Propagation}};
//!
//! let call = ClientTraceLayer::new("catalog.item");
//! let attempt = AttemptTraceLayer::new();
//! let server = ServerTraceLayer::new();
//!
//! let call = ClientTraceLayer::new("catalog.item").monitor(&Monitor::new());
//! let attempt = AttemptTraceLayer::new().propagation(Propagation::default().write(&[Format::W3c, Format::B3Multi]));
//! let server = ServerTraceLayer::new().untrusted(); // at the edge
//! # let _ = (call, attempt, server);
//! ```
//!
//! **State.** The statistics, in the client layer's value. **Placement.** The client's outermost, the attempt's directly below the balancer, the server's inside
//! [`RespondLayer`](super::respond::RespondLayer). **Errors.** None of their own; the server's leaves the error's type as it is. **Cancellation.** A dropped call
//! is counted as cancelled, or as timed out if a timer of ours dropped it.

mod attempt;
mod client;
mod server;

use tracing::Span;

pub use attempt::{AttemptFuture, AttemptTrace, AttemptTraceLayer, NewAttemptTrace};
pub use client::{CallFuture, ClientTrace, ClientTraceLayer};
pub use server::{ServerFuture, ServerTrace, ServerTraceLayer};

/// The span, if somebody wants it. In a box: what few calls have must not make the futures of all of them larger.
fn wanted(span: Span) -> Option<Box<Span>> {
    (!span.is_disabled()).then(|| Box::new(span))
}
