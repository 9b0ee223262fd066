use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::{Pick, Picker, Rank};
use crate::EndpointHandle;

/// One after the other, by id. Weights play no part.
///
/// The counter belongs to the layer value: all services made from it take turns together.
#[derive(Debug, Default)]
pub struct RoundRobin {
    next: AtomicUsize,
}

impl Picker for RoundRobin {
    fn measures(&self) -> bool {
        false
    }

    fn pick<E: AsRef<EndpointHandle>>(&self, endpoints: &[E], pick: &Pick) -> Option<usize> {
        if endpoints.is_empty() {
            return None;
        }
        let start = self.next.fetch_add(1, Relaxed) % endpoints.len();
        let mut tried = None;
        for index in (start..endpoints.len()).chain(0..start) {
            match pick.rank(endpoints[index].as_ref()) {
                Rank::Fresh => return Some(index),
                Rank::Tried => tried = tried.or(Some(index)),
                Rank::Unusable => {}
            }
        }
        tried
    }
}
