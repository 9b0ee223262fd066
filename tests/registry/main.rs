//! The registry: against recordings of real servers and clients, against an obvious model, and against those who mean harm.

mod client;
mod documents;
mod hostile;
mod leases;
mod model;
mod page;
mod peers;
mod recordings;
mod replay;
mod replicated;
#[path = "../support/eureka_server.rs"]
#[allow(dead_code, reason = "shared with the client's tests")]
mod scripted;
mod server;
mod snapshot;
mod watch;
