//! Takes endpoints that keep failing out of the balance for a while (E1, E7, E8).
//!
//! | file | what |
//! |---|---|
//! | `layer.rs` | [`OutlierDetectionLayer`], [`OutlierPolicy`], and the connector between |
//! | `service.rs` | plumbing, and the future |
//! | `verdict.rs` | what a call's end says, and what follows from it |
//! | `ejection.rs` | the pure part: how many, how long |

mod ejection;
mod layer;
mod service;
mod verdict;

pub use layer::{NewOutlierDetection, OutlierDetectionLayer, OutlierPolicy};
pub use service::{OutlierDetection, ResponseFuture};
