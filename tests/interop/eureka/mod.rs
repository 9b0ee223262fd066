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

/// What a client sees of a service when these take calls.
#[allow(clippy::unnecessary_wraps, reason = "compared with what a client answers")]
fn up(urls: &[&str]) -> Result<Vec<String>, String> {
    let mut urls: Vec<_> = urls.iter().map(|&url| url.to_owned()).collect();
    urls.sort();
    Ok(urls)
}

/// What a call of a service is answered.
#[allow(clippy::unnecessary_wraps, reason = "compared with what a client answers")]
fn hello(name: &str) -> Result<String, String> {
    Ok(format!("hello from {name}"))
}
