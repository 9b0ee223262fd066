//! Discovery by a Eureka registry, and registration there: a Rust service finds, and is found by, those of Spring Cloud.
//!
//! ```no_run
//! use std::time::Duration;
//! use hopvine::{Directory, discover::eureka::{Eureka, Registration, Servers}};
//! # async fn serve<F: Future<Output = ()>>(_: F) {}
//! # async fn interrupted() {}
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! let servers = Servers::new(["http://shop:secret@eureka-1:8761/eureka/", "http://eureka-2:8761/eureka/"])?;
//!
//! // Who else is there: one poller for all services of the directory.
//! let eureka = Eureka::builder(servers.clone()).snapshot("/var/lib/shop/eureka.json").build()?;
//! let directory = Directory::builder().source(eureka).build();
//! directory.service("catalog").ready(Duration::from_secs(5)).await?;
//!
//! // That we are there: STARTING, until `up` says that we take calls.
//! let registration = Registration::builder(servers, "orders", 8080).metadata("version", "1.4").start()?;
//! registration.up();
//! serve(registration.leaving_on(interrupted())).await; // as axum's `with_graceful_shutdown` takes it
//! registration.leave().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Names
//!
//! `directory.service(name)` is looked up, in any case, as a virtual name (VIP), which is what Spring calls a service; if no instance has it, as
//! the name of an application; and else as a virtual name over TLS (secure VIP), whose instances are called on their secure port. How an instance becomes an endpoint is told at
//! [`Instance::endpoint`](crate::eureka::Instance::endpoint); only those `UP` receive calls, those `OUT_OF_SERVICE` finish what they have.
//!
//! # How it keeps up
//!
//! A registry of ours [pushes](PushMode): the client follows `/hopvine/v1/watch`, and has a change within milliseconds. A Java server answers 404 there, and is asked for
//! the delta each [`fetch_interval`](EurekaPolicy::fetch_interval); if the hash says that something was missed, for everything. So is a pushing one whose stream breaks,
//! until it can be followed again; that is tried with growing waits, 1 s to 10 min.
//!
//! Of several servers one is stayed with for 20 minutes or so, one of the own zone if there is any. One that fails is avoided until two thirds of all have failed; a request is
//! tried at up to three. Answers are bounded: 64 MiB unpacked, and [`Limits`](crate::eureka::Limits) in them. Redirects to another host are not followed.
//!
//! A server that was just started knows nobody yet. Where one that is asked for everything, since a delta did not fit or another server answers, suddenly lists less than half of
//! some application, all that it does not list any more stays for [45 s](EurekaPolicy::removal_grace), in which instances register again; where it is asked for everything each
//! time, that takes less than half of all. What it tells one by one is always believed.
//!
//! When none answers, the last good set stays, and the [monitor](crate::Monitor) says since when and why. With a [snapshot](EurekaBuilder::snapshot) a service starts while the
//! registry is down.
//!
//! The poller runs as long as the directory, or a handle to one of its services, is used; `directory.shutdown()` ends it.
//!
//! # Credentials
//!
//! User and password in a URL (percent-encoded) become a secret when it is parsed, are sent as Basic to that server alone, and shown as `***`.

mod builder;
mod calls;
mod copy;
mod cursor;
mod disk;
mod error;
mod follower;
mod policy;
mod poller;
mod registration;
mod servers;
mod transport;
mod url;
mod watch;

pub use builder::{Eureka, EurekaBuilder, EurekaView};
pub use error::InvalidEureka;
pub use policy::{EurekaPolicy, FetchMode, PushMode, ZoneAffinity};
pub use registration::{
    HoldMode, NotRegistered, Registration, RegistrationBuilder, RegistrationPolicy, RegistrationView,
};
pub use servers::{IntoServers, Servers, ServersPolicy};
pub use url::ServerUrl;

// A registry is a client of its peers.
#[cfg(feature = "registry")]
pub(crate) use {
    calls::{Calls, Fetched},
    transport::{Ask, Transport},
};
