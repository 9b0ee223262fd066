//! The registry: against recordings of real servers and clients, against an obvious model, and against those who mean harm.

mod client;
mod documents;
mod hostile;
mod leases;
mod model;
mod page;
mod recordings;
mod replay;
mod server;
mod watch;
