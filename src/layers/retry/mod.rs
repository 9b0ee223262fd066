//! Retry.
mod backoff;
mod budget;
mod decision;
mod future;
mod layer;
mod policy;
mod replay;
mod service;
mod tokens;

pub use budget::{Budget, Token};
pub use future::ResponseFuture;
pub use layer::RetryLayer;
pub use policy::{BudgetPolicy, RetryPolicy};
pub use replay::{KeptRequest, ReplayBody};
pub use service::Retry;
