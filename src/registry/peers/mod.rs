//! Other registries that are told of what happens here.

mod policy;

pub use policy::PeerPolicy;
