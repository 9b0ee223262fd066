use super::{Pick, Picker};
use crate::EndpointHandle;

/// The one with fewer calls in flight, relative to its weight, of two endpoints drawn at random.
///
/// Power of two choices (Mitzenmacher; Finagle's `P2CLeastLoaded`, Envoy's least request). It counts this stack's own calls only: with many clients
/// of few calls each, prefer [`P2cPeakEwma`](super::P2cPeakEwma), which also avoids an endpoint that fails fast.
#[derive(Clone, Copy, Debug, Default)]
pub struct P2cLeastRequest;

impl Picker for P2cLeastRequest {
    fn measures(&self) -> bool {
        false
    }

    fn pick<E: AsRef<EndpointHandle>>(&self, endpoints: &[E], pick: &Pick) -> Option<usize> {
        pick.cheaper_of_two(endpoints, |endpoint| (f64::from(endpoint.load().in_flight()) + 1.0) / endpoint.weight())
    }
}
