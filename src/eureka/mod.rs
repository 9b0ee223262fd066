//! Eureka's documents: what registries, clients and peers of Spring Cloud Netflix say to each other, as a model and its two wire formats.
//!
//! | | |
//! |---|---|
//! | [`Instance`], [`Application`], [`Applications`], of [`Text`]s | the model; a delta has the same shape and is [applied](Applications::apply) |
//! | [`Replication`], [`ReplicationResponse`] | what servers tell each other |
//! | [`json`], [`xml`] | the formats, full and compact, written as Java servers write them, read from anybody |
//! | [`Instance::endpoint`] | the endpoint that an instance is |
//! | [`Instance::validate`], [`StatusRules`] | what a server takes, and which status it gives it |
//! | [`StatusCounts`] | the hash by which a client sees whether its copy is whole |
//!
//! Writers write byte for byte what a Java server writes, since Spring's own client refuses a document with one field too many. Readers are lenient: numbers, booleans
//! and texts for each other, one object for an array of one, fields nobody knows; and bounded by [`Limits`]. Where they differ from a Java server's is told in
//! `docs/differences.md`.
//!
//! Nothing here has a clock or a socket.

mod applications;
mod endpoint;
mod field;
mod instance;
pub mod json;
mod limits;
mod metadata;
mod reading;
mod replication;
mod rules;
mod scalar;
mod status;
mod validate;
pub mod xml;

/// A text of a document: cheap to clone, and `&str` for whoever reads it. All texts of a short document that was read are parts of one piece of memory, which stays
/// as long as one of them does.
pub use arcstr::Substr as Text;

pub use applications::{Application, Applications};
pub use endpoint::{EndpointSettings, HostChoice, PortChoice};
pub use instance::{ActionType, DataCenterInfo, Instance, LeaseInfo, Port};
pub use limits::{Limits, ReadError};
pub use metadata::Metadata;
pub use replication::{Action, InvalidReplication, Replication, ReplicationResponse};
pub use rules::StatusRules;
pub use status::{InstanceStatus, StatusCounts};
pub use validate::InvalidRegistration;

/// How much of each instance a document holds: what a client asks for by `X-Eureka-Accept`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Form {
    /// All of it.
    #[default]
    Full,
    /// What is needed to call it: no metadata, lease or pages.
    Compact,
}
