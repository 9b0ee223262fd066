//! A registry that Eureka's clients and peers take for one of theirs, as a part of your program.
//!
//! It serves Eureka's operations under `/eureka` and `/eureka/v2`, in JSON and XML, and its own push at `/hopvine/v1/watch`. Where it is right instead of
//! doing as a Java server does is told in `docs/differences.md`.
//!
//! | | |
//! |---|---|
//! | [`Registry`] | starts it: where it listens, whom it asks for a password, TLS |
//! | [`RegistryPolicy`], [`RegistryLimits`] | how it keeps leases, and how much it takes; [live](crate::Live) |
//! | [`Store`] | what it knows, without clock or socket; to be read and changed in the program itself |
//! | [`PeerPolicy`], [`SnapshotPolicy`] | how it tells other registries, and keeps itself on disk |
//! | [`ReplicationSink`] | who else is told of what happens |
//! | [`RegistryView`](crate::monitor::RegistryView) | what a monitor sees of it, with a counter for each limit |
//!
//! # Leases and self-preservation
//!
//! An instance says how long it may be silent (`leaseInfo.durationInSecs`, usually 90 s). Its lease ends that long after it registered and, since a Java server
//! does so, **twice** that long after its last heartbeat; `exact_leases` makes that once. Each `eviction_interval` those whose lease is over are taken out, at
//! most 15 % of all at once, drawn by chance.
//!
//! While self-preservation is on, as it is by default, nobody is taken out unless more heartbeats came in the last whole minute than
//! `(expected instances) x 2 x 0.85`: if fewer came, the network is more likely broken than the instances. The expected number begins with 1, as Spring's does,
//! and follows registrations and departures. So with fewer than about 13 instances the heartbeats of all but one are never enough, and **an instance that was
//! killed is never taken out by its lease**: switch self-preservation off in small systems, or let instances hold watches.
//!
//! # Push
//!
//! `GET /hopvine/v1/watch` answers lines as long as somebody reads them: first `{"version":N,"apps__hashcode":"UP_2_"}`, then the full JSON of a delta for each batch of
//! changes, at most one each `render_interval`, and an empty line each 5 s. `?app=A&app=B` leaves the others out. A client watches first, then reads
//! everything, then applies the lines, which may tell it again what it has read. One that reads too slowly is cut off and does the same again.
//!
//! `?instance=APP/ID` says that the instance itself holds the watch. If the registry is told so (`expel_on_disconnect`), it is taken out when the watch breaks and does not come
//! back within `suspicion`: at most 15 % of an application a minute (but one), and nobody where more than half of an application break at once. Self-preservation
//! does not keep it; peers are told.
//!
//! # Peers
//!
//! [`RegistryBuilder::peers`] names other registries, ours or Java ones. They are told what clients do here, in batches half a second apart, as Java servers tell
//! each other, and nothing of what another told us: each must name all others. Of two that know an instance differently, the one it told later is believed
//! (`lastDirtyTimestamp`). A peer that is down costs its queue; when it is back it is told how those instances are by then of which something could not be told,
//! and of all others with their next heartbeat. Evictions are not told, since each has leases of its own; instances whose watch broke are.
//!
//! When a registry starts, it copies what the first peer knows that knows anything; if none does, what its [snapshot](RegistryBuilder::snapshot) says. Until then it
//! takes registrations and heartbeats, and refuses lists: a Java client asks another server then, and one of ours keeps what it has.
//!
//! What is restored from a snapshot has one whole lease to be heard of, and no heartbeats are expected of it before: so the dead go even while self-preservation is
//! on, unless the living are silent too.

mod clock;
mod counters;
mod http;
mod page;
mod peers;
mod policy;
mod render;
mod server;
mod snapshot;
pub mod store;
mod watch;

use clock::Clock;
pub use counters::{Counters, CountersView};
pub use peers::PeerPolicy;
pub use policy::{RegistryLimits, RegistryPolicy};
#[cfg(feature = "tls")]
pub use server::ServerTls;
pub use server::{Registry, RegistryBuilder, RegistryHandle, StartError};
pub use snapshot::SnapshotPolicy;
pub use store::{By, Moment, Refused, ReplicationSink, Store};
