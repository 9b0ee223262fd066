//! The program `hopvine`, as its users start it.
#![cfg(unix)]

#[path = "../support/certificates.rs"]
mod certificates;
mod process;
mod registry;
mod settings;
