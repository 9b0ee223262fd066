//! Eureka: ours against the real servers, the real clients against ours, and all of them together.

mod registry;
mod rust;
mod service;

pub(crate) mod clients;
pub(crate) mod peers;
pub(crate) mod servers;

use registry::{JavaServer, metadata, operator, ours, standing};
use rust::{Caller, RustService};
use service::Service;

/// As an instance is listed that takes calls.
fn up(urls: &[&str]) -> Result<Vec<String>, String> {
    let mut urls: Vec<_> = urls.iter().map(|&url| url.to_owned()).collect();
    urls.sort();
    Ok(urls)
}

/// What a call of the service is answered.
fn hello(name: &str) -> Result<String, String> {
    Ok(format!("hello from {name}"))
}
