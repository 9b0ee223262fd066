mod layer;
mod service;

pub use layer::{DeadlineHeaderLayer, NewDeadlineHeader};
pub use service::{DeadlineHeader, ResponseFuture};
