//! Composable Tower layers for every hop between services.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod connect;
pub mod context;
pub mod discover;
pub mod endpoint;
mod error;
pub mod layers;
pub mod live;
pub mod monitor;
pub mod outcome;
pub mod request;
mod stack;
pub mod stacks;
#[cfg(feature = "testing")]
pub mod testing;
pub mod trace;

pub use connect::NewService;
pub use context::Context;
pub use discover::{Directory, ServiceHandle};
pub use endpoint::{Endpoint, EndpointHandle};
pub use error::{Error, ErrorKind};
pub use live::{Live, Policy, PolicyError};
pub use monitor::Monitor;
pub use outcome::{Classify, Outcome};
pub use stack::{BoxStack, Stack, build, layers_of};
