//! The pooled hyper client: one pool of connections per endpoint.
//!
//! ```
//! use std::time::Duration;
//! use hopvine::connect::http::{HttpClient, HttpPolicy, Version};
//! use http_body_util::Full;
//! use bytes::Bytes;
//!
//! let client = HttpClient::<Full<Bytes>>::new();
//!
//! // gRPC: HTTP/2 in the clear, two connections opened ahead for each new endpoint.
//! let policy = HttpPolicy { warm_up: 2, idle_timeout: Duration::from_secs(20), ..Default::default() };
//! let client = HttpClient::<Full<Bytes>>::builder().version(Version::Http2).policy(policy).build()?;
//! # let _ = client;
//! # Ok::<(), hopvine::PolicyError>(())
//! ```
//!
//! - The service is always ready; a call waits for a connection inside its future, where the attempt timeout covers it. Who waits takes
//!   what comes first, a connection given back or a new one.
//! - A connection goes back when the *body* of the response has ended. A body dropped unread closes its connection (HTTP/1), or resets its stream (HTTP/2).
//! - What was surely never written, as on a connection that the server had closed, is sent again on another one, whatever the method.
//! - A host's addresses are tried one after the other, IPv6 first, each beside those before when they have not answered within 250 ms; those that
//!   [nobody should be sent to](crate::Endpoint::validate) are left out.
//! - A failed connection is told to the calls that waited when it was begun; who came later gets one of its own.
//! - `Connection: close` and GOAWAY are honoured: no new request goes there, those under way finish.
//! - hyper's connections belong to the runtime that drives them; so each runtime has a pool of its own.
//! - An endpoint that leaves the directory loses its idle connections at once, the others when their call is done.
//!
//! **State.** The pools belong to the service of each endpoint; its clones share them. **Placement.** Innermost. **Errors.**
//! [`ErrorKind::Connect`](crate::ErrorKind) for everything before the request could be written (refused, unreachable, no such host, TLS, time out of
//! [`HttpPolicy::connect_timeout`]), `Upstream` for what broke later, marked [unsent](crate::Error::is_unsent) where the server says that it refused
//! the stream. A timer that ends the wait for a connection is [told](crate::context::tell_written) that nothing was sent. What each fault comes to is in
//! `docs/faults.md`. **Cancellation.** A dropped call closes its HTTP/1 connection at once, or resets its stream; one that waited leaves the queue and passes
//! on a connection it was just given.

mod body;
mod client;
mod dial;
mod policy;
mod pool;
mod proxy;
mod request;
mod send;
#[cfg(feature = "tls")]
mod tls;
mod upkeep;

pub use body::ClientBody;
pub use client::{HttpBuilder, HttpClient, HttpService, PoolStats, ResponseFuture};
pub use policy::{HttpPolicy, Version};
pub use proxy::{EgressProxy, InvalidProxy};
#[cfg(feature = "tls")]
pub use tls::{InvalidTls, Tls};
