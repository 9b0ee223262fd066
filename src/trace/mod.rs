//! The trace a call belongs to, and how it is written in headers.

use std::sync::Arc;

/// Where in which trace the work under way stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    pub(crate) trace_id: u128,
    pub(crate) span_id: u64,
    pub(crate) state: Option<Arc<str>>,
}
