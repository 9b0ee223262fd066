//! One deadline for a call, from the caller to the last server (T1).
//!
//! | layer | stands | does |
//! |---|---|---|
//! | [`DeadlineLayer`] | per call | sets when the call must have ended, and ends it then |
//! | [`DeadlineHeaderLayer`] | per endpoint | tells the server what remains, with each attempt |
//! | [`ServerDeadlineLayer`] | in a server | takes over what the caller said, for the handler and the calls it makes |
//!
//! The deadline itself is a moment of this process's clock in the ambient [context](crate::context). Whoever enters a
//! later one leaves it as it is: it is never extended. Between processes only what remains is sent, since their clocks
//! differ. A layer that waits takes `min(own, remaining)`.
//!
//! A fallback answers with its caller's deadline, since it stands outside [`DeadlineLayer`].

mod header;
mod layer;
mod outgoing;
mod server;
mod service;
mod timed;

pub use header::HEADER;
pub use layer::{DeadlineLayer, DeadlinePolicy};
pub use outgoing::{
    DeadlineHeader, DeadlineHeaderLayer, NewDeadlineHeader, ResponseFuture as DeadlineHeaderResponseFuture,
};
pub use server::{
    ResponseFuture as ServerDeadlineResponseFuture, ServerDeadline, ServerDeadlineLayer, ServerDeadlinePolicy,
};
pub(crate) use service::exceeded;
pub use service::{Deadline, ResponseFuture};
pub(crate) use timed::{Late, Limit, Timed};
