use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use tokio_util::{sync::DropGuard, task::TaskTracker};

mod builder;
mod connection;
mod listen;
mod start;
#[cfg(feature = "tls")]
mod tls;
mod view;

pub use builder::{RegistryBuilder, StartError};
pub(super) use connection::{Connection, Ticks};
#[cfg(feature = "tls")]
pub use tls::ServerTls;

use super::{Store, http::Desk};
use crate::Monitor;

/// How often leases, minutes and old changes are looked at.
const TICK: Duration = Duration::from_secs(1);

/// How long a stop waits for what is under way.
const DRAIN: Duration = Duration::from_secs(5);

/// A registry that runs as a part of your program: a server that Eureka's clients and peers take for one of theirs.
///
/// ```
/// use std::net::SocketAddr;
/// use hopvine::registry::Registry;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = Registry::builder().bind(SocketAddr::from(([127, 0, 0, 1], 0))).start().await?;
/// println!("clients use http://{}/eureka/", registry.local_addr());
/// registry.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Registry(());

impl Registry {
    /// How a registry is to be; [start](RegistryBuilder::start) it then.
    pub fn builder() -> RegistryBuilder {
        RegistryBuilder::new()
    }
}

/// A registry that runs. Dropped, it stops at once; [`shutdown`](Self::shutdown) lets it finish what is under way.
pub struct RegistryHandle {
    monitor: Monitor,
    desk: Arc<Desk>,
    background: TaskTracker,
    /// What has something to do at the stop.
    last: TaskTracker,
    stopping: DropGuard,
    closing: DropGuard,
    ended: DropGuard,
}

impl RegistryHandle {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.desk.address
    }

    /// The monitor it is seen in.
    pub fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    /// What it knows, to be read and changed without HTTP.
    pub fn store(&self) -> &Arc<Store> {
        &self.desk.store
    }

    /// The registry's own time, as [`Store`] wants it.
    pub fn now(&self) -> super::Moment {
        self.desk.clock.now()
    }

    /// Takes no more connections, ends watches, lets what is under way finish for 5 s at most; tells peers what they were not told yet, and writes the snapshot,
    /// for 5 s more; and stops.
    pub async fn shutdown(self) {
        drop(self.stopping);
        self.desk.watches.close();
        self.desk.connections.close();
        let drained = tokio::time::timeout(DRAIN, self.desk.connections.wait()).await;
        if drained.is_err() {
            tracing::warn!(target: "hopvine::registry", connections = self.desk.connections.len(), "connections cut off at the stop");
        }
        drop(self.closing);
        self.last.close();
        if tokio::time::timeout(DRAIN, self.last.wait()).await.is_err() {
            tracing::warn!(target: "hopvine::registry", "stopped before all was told to peers, or written");
        }
        drop(self.ended);
        self.background.close();
        self.background.wait().await;
    }
}

impl fmt::Debug for RegistryHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryHandle")
            .field("address", &self.desk.address)
            .field("store", &self.desk.store)
            .finish_non_exhaustive()
    }
}
