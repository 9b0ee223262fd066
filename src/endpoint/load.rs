use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Calls in flight at an endpoint, and how long its answers take.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Load {
    in_flight: AtomicU32,
}

impl Load {
    /// Calls under way.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }
}
