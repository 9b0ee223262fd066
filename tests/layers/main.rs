//! Every layer alone, on the paused clock.

mod attempt_timeout;
mod balance;
mod bulkhead;
mod circuit_breaker;
mod context;
mod deadline;
mod fallback;
mod outlier;
mod respond;
mod retry;
mod support;
mod trace;
