//! What happens on a hop: one module a pattern. The [crate's page](crate) has them all in order.

pub mod attempt_timeout;
pub mod balance;
pub mod bulkhead;
pub mod circuit_breaker;
pub mod deadline;
pub mod fallback;
pub mod outlier;
pub mod pushback;
pub mod respond;
pub mod retry;
pub mod trace;
