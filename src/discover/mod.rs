//! Where instances come from: sources, and the directory they fill.
//!
//! | source | says |
//! |---|---|
//! | [`Directory::fixed`] | a list that never changes |
//! | any tower [`Discover`](tower::discover::Discover) | changes of one service, by [`ChangeStream::new`] |
//! | `File` (feature `file`) | all services of a TOML or JSON file, as it changes |
//! | `Dns` (feature `dns`) | a service's A, AAAA or SRV records |
//! | `Eureka` (feature `eureka`) | the services of a Eureka registry |
//! | [`Source`] | whatever you implement |
//!
//! ```
//! use std::time::Duration;
//! use hopvine::{Directory, Endpoint, discover::{Change, ChangeStream}, endpoint::EndpointId};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let endpoint: Endpoint = "http://127.0.0.1:8081".parse()?;
//! let insert = Change::Insert(endpoint.id().clone(), endpoint);
//! let changes = futures_util::stream::iter([Ok::<_, std::io::Error>(insert)]);
//!
//! let directory = Directory::builder().service("catalog", ChangeStream::new(changes)).build();
//! directory.ready(Duration::from_secs(1)).await?;
//! assert_eq!(directory.service("catalog").snapshot().endpoints().len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! A source that fails or ends is a *state*: the last good set stays, and the [monitor](crate::Monitor) says since when and why. Changes are gathered for
//! 50 ms and published at once as an immutable [`Snapshot`]; what came and went in between is no change. What a source says is input: addresses
//! nobody can be sent to are [refused](crate::Endpoint::validate), and an [`AddressFilter`] may refuse more; a whole list of nothing but those is a failure.
//!
//! The directory's tasks run as long as the directory, or any of its [`ServiceHandle`]s, is held: a stack holds the handles it needs.

#[cfg(feature = "dns")]
pub mod dns;
#[cfg(feature = "eureka")]
#[cfg_attr(docsrs, doc(cfg(feature = "eureka")))]
pub mod eureka;
#[cfg(feature = "file")]
pub mod file;

mod changes;
mod directory;
mod filter;
mod merge;
mod pending;
mod replay;
mod service;
mod writer;

pub use changes::{ChangeStream, Source, Update};
pub use directory::{Directory, DirectoryBuilder, NotReady};
pub use filter::AddressFilter;
pub use merge::Edit;
pub use replay::Changes;
pub use service::{ServiceHandle, Snapshot, Subscriber};
pub use tower::discover::Change;
