mod layer;
mod service;

pub use layer::{ServerDeadlineLayer, ServerDeadlinePolicy};
pub use service::{ResponseFuture, ServerDeadline};
