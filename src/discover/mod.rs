//! Where instances come from: sources, and the directory they fill.

mod directory;
mod service;

pub use directory::Directory;
pub use service::{ServiceHandle, Snapshot, Subscriber};
