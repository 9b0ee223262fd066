use std::sync::Arc;

use tokio::{net::TcpListener, sync::Semaphore, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{RegistryBuilder, RegistryHandle, StartError, TICK, Ticks, listen::Listener};
use crate::registry::{
    Clock, ReplicationSink, Store,
    http::{Desk, Opening},
    peers::{self, Connect, Peers, Sinks},
    render::Documents,
    snapshot::{Keeper, SnapshotPolicy},
    watch::Watches,
};

impl RegistryBuilder {
    /// Starts it on the current runtime.
    ///
    /// It listens at once and takes whatever it is told. With peers or a snapshot, lists are refused (403) until it has learned what they know, or that they know
    /// nothing; this waits for it: with silent peers, [`sync_timeout`](crate::registry::PeerPolicy::sync_timeout) for each. Dropped meanwhile, it stops.
    pub async fn start(self) -> Result<RegistryHandle, StartError> {
        let policy = self.policy.map_err(StartError::Policy)?;
        let urls = self.peers.map_err(StartError::Peers)?;
        let my_url = self.my_url.map_err(StartError::Peers)?;
        if let Some(path) = &self.snapshot {
            SnapshotPolicy::check_path(path).map_err(|error| StartError::Snapshot(path.clone(), error))?;
        }
        let bind = |error| StartError::Bind(self.address, error);
        let socket = TcpListener::bind(self.address).await.map_err(bind)?;
        let address = socket.local_addr().map_err(bind)?;
        #[cfg(feature = "tls")]
        let (tls, knows_clients) = (
            self.tls.as_ref().map(super::ServerTls::acceptor),
            self.tls.as_ref().is_some_and(super::ServerTls::knows_clients),
        );
        #[cfg(not(feature = "tls"))]
        let (is_tls, knows_clients) = (false, false);
        #[cfg(feature = "tls")]
        let is_tls = tls.is_some();
        tracing::info!(target: "hopvine::registry", %address, tls = is_tls, "registry started");
        if !address.ip().is_loopback() && !self.credentials.are_set() && !knows_clients {
            tracing::warn!(
                target: "hopvine::registry",
                %address,
                "the registry listens beyond this machine and asks nobody who he is: whoever reaches it can register and remove instances"
            );
        }

        let clock = Clock::start();
        let store = Arc::new(Store::new(policy, clock.now()).map_err(StartError::Policy)?);
        let mut connect = Connect {
            urls: peers::distinct(urls, my_url.as_ref()),
            #[cfg(feature = "tls")]
            tls: self.peer_tls,
        };
        let peers = Arc::new(Peers::new(&connect, address, store.policy(), clock).map_err(StartError::Policy)?);
        let told = (!connect.urls.is_empty()).then(|| Arc::clone(&peers) as Arc<dyn ReplicationSink>);
        tell(&store, told, self.sink);
        let keeper = self.snapshot.map(|path| Keeper::new(path, &store, clock));

        let documents = Arc::new(Documents::new(Arc::clone(&store), clock));
        let watches = Watches::new(Arc::clone(&store), clock);
        let asks = !connect.urls.is_empty() || keeper.is_some();
        let opening = if asks { Opening::closed() } else { Opening::open() };
        if asks {
            store.begin_to_learn();
        }
        let (ticks, connections) = (Arc::new(Ticks::default()), TaskTracker::new());
        let desk = Arc::new(Desk {
            store,
            documents,
            watches,
            clock,
            credentials: self.credentials,
            name: self.name,
            address,
            connections: connections.clone(),
            peers,
            opening,
            keeper: keeper.clone(),
        });
        ticks.set(clock.now());
        let (stopping, closing, ended) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let (background, last) = (TaskTracker::new(), TaskTracker::new());
        let places = desk.store.policy().get().limits.connections;
        let listener = Listener {
            socket,
            desk: Arc::clone(&desk),
            ticks: Arc::clone(&ticks),
            places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))),
            connections,
            stopping: stopping.clone(),
            ended: ended.clone(),
            #[cfg(feature = "tls")]
            tls,
        };
        let watching = Arc::clone(&desk.watches).run();
        background.spawn(ended.clone().run_until_cancelled_owned(watching));
        background.spawn(ended.clone().run_until_cancelled_owned(upkeep(Arc::clone(&desk), ticks)));
        background.spawn(ended.clone().run_until_cancelled_owned(listener.run()));
        self.monitor.register(&desk.name, &desk);
        let handle = RegistryHandle {
            monitor: self.monitor,
            desk,
            background,
            last,
            stopping: stopping.drop_guard(),
            closing: closing.clone().drop_guard(),
            ended: ended.clone().drop_guard(),
        };
        // From here on, dropping this drops the handle, which stops everything.
        leave_out_own(&handle.desk, &mut connect).await;
        handle.desk.peers.start(&handle.last, &handle.desk.store, &closing, &ended);
        if asks {
            learn(&handle.desk, &connect, keeper.as_ref()).await;
        }
        if let Some(keeper) = keeper {
            handle.last.spawn(ended.run_until_cancelled_owned(keeper.run(closing)));
        }
        Ok(handle)
    }
}

/// Tells them what clients do.
fn tell(store: &Store, peers: Option<Arc<dyn ReplicationSink>>, sink: Option<Arc<dyn ReplicationSink>>) {
    match (peers, sink) {
        (Some(sink), None) | (None, Some(sink)) => store.replicate_to(sink),
        (Some(peers), Some(sink)) => store.replicate_to(Arc::new(Sinks(vec![peers, sink]))),
        (None, None) => {}
    }
}

/// Leaves out of the peers those that are this registry itself. What happens meanwhile waits to be told.
async fn leave_out_own(desk: &Desk, connect: &mut Connect) {
    let own = peers::own(&connect.urls, desk.address).await;
    desk.peers.leave_out(&own);
    let mut own = own.into_iter();
    connect.urls.retain(|_| own.next() == Some(false));
}

/// Takes over what peers know, or else what the snapshot does, and opens the lists.
async fn learn(desk: &Desk, connect: &Connect, keeper: Option<&Arc<Keeper>>) {
    let (store, clock) = (&desk.store, desk.clock);
    let mut learned = 0;
    if !connect.urls.is_empty() {
        learned = peers::copy(connect, store, clock).await;
        if learned > 0 {
            store.expect(store.counted().instances);
        }
    }
    if let Some(keeper) = keeper.filter(|_| learned == 0) {
        learned = keeper.restore().await;
    }
    store.has_learned();
    let wait = store.policy().get().peers.empty_wait;
    let asked_in_vain = learned == 0 && (!connect.urls.is_empty() || keeper.is_some());
    desk.opening.open_at(if asked_in_vain { clock.now().after(wait) } else { clock.now() });
}

/// Lets time pass in the store.
async fn upkeep(desk: Arc<Desk>, ticks: Arc<Ticks>) {
    let mut random = fastrand::Rng::new();
    let mut eviction = Instant::now();
    loop {
        let interval = desk.store.policy().get().eviction_interval;
        let next = (eviction + interval).min(Instant::now() + TICK);
        tokio::time::sleep_until(next).await;
        let now = desk.clock.now();
        ticks.set(now);
        desk.store.tick(now);
        if Instant::now() >= eviction + interval {
            eviction = Instant::now();
            let evicted = desk.store.evict(now, |below| random.usize(..below));
            for instance in evicted {
                tracing::info!(target: "hopvine::registry", app = ?instance.app, id = ?instance.id(), "instance evicted: its lease is over");
            }
        }
    }
}
