//! Eureka's documents: against recordings of real servers and clients, and against obvious models.

mod batch;
#[path = "../support/certificates.rs"]
mod certificates;
mod client;
mod delta;
mod endpoint;
mod golden;
mod limits;
mod properties;
mod recordings;
mod register;
mod rules;
mod support;
