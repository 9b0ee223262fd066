//! A registry that Eureka's clients and peers take for one of theirs.

mod clock;
mod counters;
mod http;
mod policy;
mod render;
mod server;
pub mod store;
mod watch;

use clock::Clock;
pub use counters::{Counters, CountersView};
pub use policy::{RegistryLimits, RegistryPolicy};
#[cfg(feature = "tls")]
pub use server::ServerTls;
pub use server::{Registry, RegistryBuilder, RegistryHandle, StartError};
pub use store::{By, Moment, Refused, ReplicationSink, Store};
