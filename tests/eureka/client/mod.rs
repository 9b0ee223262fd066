//! The client, against a server that answers from recordings, or as badly as it is told.

mod against_ours;
mod discovery;
mod faults;
mod push;
mod recorded;
mod registration;
#[path = "../../support/eureka_server.rs"]
mod server;
mod snapshot;
