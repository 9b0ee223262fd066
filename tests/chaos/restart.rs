//! A registry that is killed or paused.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use hopvine::{
    Directory,
    discover::eureka::{Eureka, Registration, RegistrationPolicy},
    registry::{RegistryPolicy, SnapshotPolicy},
};
use tokio::time::{Instant, sleep_until};

use crate::{
    Outcome,
    crowd::{self, registered},
    killed::count,
    part::{Part, Process},
};

const INSTANCES: usize = 300;
const KILLS: u64 = 8;

/// A port that the next process can have again.
fn address() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

pub(crate) async fn in_mid_write() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("registry.snapshot");
    let snapshot = SnapshotPolicy { interval: Duration::from_millis(1), ..Default::default() };
    let part = Part::Registry {
        address: address()?,
        snapshot: Some(path.clone()),
        policy: Box::new(RegistryPolicy { snapshot, ..Default::default() }),
    };
    let mut registry = Process::start(&part).await?;
    let server = registry.address;
    crowd::register(server, 0..INSTANCES, 1).await?;
    let written = Instant::now() + Duration::from_secs(60);
    while !path.exists() {
        if Instant::now() > written {
            return Err("no snapshot was written".into());
        }
        sleep_until(Instant::now() + Duration::from_millis(20)).await;
    }
    // The next one holds all of them.
    sleep_until(Instant::now() + Duration::from_secs(3)).await;

    let directory = Directory::builder().source(Eureka::builder(&*format!("http://{server}/eureka/")).build()?).build();
    let service = directory.service("orders");
    count(&service, INSTANCES).await?;
    for kill in 0..KILLS {
        // It writes as it is changed.
        let changing =
            tokio::spawn(async move { crowd::register(server, 0..INSTANCES, 2 + kill).await.map_err(|_| ()) });
        sleep_until(Instant::now() + Duration::from_millis(30 + 90 * kill)).await;
        registry.kill().await?;
        let _ = changing.await;
        registry = Process::start(&part).await?;
        let known = registered(server).await?;
        if known != INSTANCES {
            return Err(format!("after kill {kill} the registry knows {known} of {INSTANCES}").into());
        }
        let listed = service.snapshot().endpoints().len();
        if listed != INSTANCES {
            return Err(format!("after kill {kill} a client has {listed} of {INSTANCES}").into());
        }
    }
    let left = std::fs::read_dir(folder.path())?.filter_map(|file| file.ok()?.file_name().into_string().ok());
    let bad: Vec<_> = left.filter(|name| name.contains("bad")).collect();
    if !bad.is_empty() {
        return Err(format!("a snapshot was set aside: {bad:?}").into());
    }
    Ok(())
}

pub(crate) async fn paused() -> Outcome {
    const LIVE: usize = 8;
    let policy = RegistryPolicy {
        self_preservation: false,
        eviction_interval: Duration::from_millis(500),
        ..Default::default()
    };
    let part = Part::Registry { address: address()?, snapshot: None, policy: Box::new(policy) };
    let registry = Process::start(&part).await?;
    let url = format!("http://{}/eureka/", registry.address);
    let policy = RegistrationPolicy {
        heartbeat_interval: Duration::from_secs(1),
        lease_duration: Duration::from_secs(3),
        ..Default::default()
    };
    let mut registrations = Vec::new();
    for number in 0..LIVE {
        let registration = Registration::builder(&*url, "orders", 8080)
            .host_name("127.0.0.1")
            .instance_id(&format!("orders-{number}"))
            .policy(policy.clone())
            .start()?;
        registration.up();
        registration.registered(Duration::from_secs(30)).await?;
        registrations.push(registration);
    }
    let directory = Directory::builder().source(Eureka::builder(&*url).build()?).build();
    let service = directory.service("orders");
    count(&service, LIVE).await?;

    // Far longer than their leases.
    let (over, fewest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(LIVE)));
    let watching = tokio::spawn({
        let (over, fewest, mut versions) = (Arc::clone(&over), Arc::clone(&fewest), service.watch());
        async move {
            while !over.load(Relaxed) {
                fewest.fetch_min(service.snapshot().endpoints().len(), Relaxed);
                let _ = tokio::time::timeout(Duration::from_millis(100), versions.changed()).await;
            }
        }
    });
    registry.pause()?;
    sleep_until(Instant::now() + Duration::from_secs(8)).await;
    registry.resume()?;
    let end = Instant::now() + Duration::from_secs(8);
    while Instant::now() < end {
        let known = registered(registry.address).await?;
        if known != LIVE {
            return Err(format!("{} of {LIVE} that live were evicted", LIVE - known).into());
        }
        sleep_until(Instant::now() + Duration::from_millis(100)).await;
    }
    over.store(true, Relaxed);
    watching.await?;
    match fewest.load(Relaxed) {
        LIVE => Ok(()),
        fewest => Err(format!("a client had {fewest} of {LIVE}").into()),
    }
}
