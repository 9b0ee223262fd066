//! How long one attempt may take until its response head (T1).
//!
//! [`AttemptTimeoutLayer`] is an ordinary tower layer, lifted below the balancer by
//! [`per_endpoint`](crate::connect::per_endpoint).

mod layer;
mod service;

pub use layer::{AttemptTimeoutLayer, AttemptTimeoutPolicy};
pub use service::{AttemptTimeout, ResponseFuture};
