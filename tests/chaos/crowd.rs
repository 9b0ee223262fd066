//! Many instances, as requests only.

use std::{
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use hopvine::{
    Directory,
    discover::eureka::Eureka,
    eureka::{DataCenterInfo, Instance, InstanceStatus, LeaseInfo, Limits, Port, json},
    registry::RegistryPolicy,
};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use libtest_mimic::Failed;
use tokio::{net::TcpStream, task::JoinSet};

use crate::{
    Outcome,
    killed::count,
    part::{Part, Process},
};

const ORDERS: usize = 5;
const CONNECTIONS: usize = 32;

pub(crate) async fn at_once() -> Outcome {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let part = Part::Registry { address, snapshot: None, policy: Box::new(RegistryPolicy::default()) };
    let registry = Process::start(&part).await?;
    let server = registry.address;
    let directory = Directory::builder().source(Eureka::builder(&*format!("http://{server}/eureka/")).build()?).build();
    let orders = directory.service("orders");
    register(server, 0..ORDERS, 1).await?;
    count(&orders, ORDERS).await?;

    // The registry begins anew, knowing nobody, and all of them come at once.
    registry.kill().await?;
    let Part::Registry { snapshot, policy, .. } = part else { return Err("a registry".into()) };
    let _registry = Process::start(&Part::Registry { address: server, snapshot, policy }).await?;
    let fewest = Arc::new(AtomicUsize::new(ORDERS));
    let watching = tokio::spawn({
        let (fewest, orders, mut versions) = (Arc::clone(&fewest), orders.clone(), orders.watch());
        async move {
            loop {
                fewest.fetch_min(orders.snapshot().endpoints().len(), Relaxed);
                if versions.changed().await.is_err() {
                    return;
                }
            }
        }
    });
    let mut crowd = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let share = 10_000 / CONNECTIONS + 1;
        let others = 1_000 + connection * share;
        crowd.spawn(async move {
            register(server, others..others + share, 1).await.map_err(|error| error.message().map(str::to_owned))
        });
    }
    while let Some(done) = crowd.join_next().await {
        done?.map_err(|why| format!("a registration failed: {why:?}"))?;
    }
    register(server, 0..ORDERS, 2).await?;
    let wanted = ORDERS + (10_000 / CONNECTIONS + 1) * CONNECTIONS;
    let known = registered(server).await?;
    if known != wanted {
        return Err(format!("the registry knows {known} of {wanted}").into());
    }
    // Another client sees all of it, and the first one has never been without.
    let late = Directory::builder().source(Eureka::builder(&*format!("http://{server}/eureka/")).build()?).build();
    count(&late.service("orders"), ORDERS).await?;
    count(&late.service("crowd-7"), 10).await?;
    count(&orders, ORDERS).await?;
    watching.abort();
    match fewest.load(Relaxed) {
        ORDERS => Ok(()),
        fewest => Err(format!("a client had {fewest} of {ORDERS}").into()),
    }
}

/// Registers each once, as one that changed at that time.
pub(crate) async fn register(server: SocketAddr, numbers: Range<usize>, time: u64) -> Outcome {
    let mut connection = connect(server).await?;
    for number in numbers {
        let instance = instance(number, time);
        let mut document = Vec::new();
        json::write_instance(&instance, &mut document);
        let request = Request::post(format!("/eureka/apps/{}", instance.app))
            .header("host", "eureka")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(document)))?;
        connection.ready().await?;
        let response = connection.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if status != StatusCode::NO_CONTENT {
            return Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into());
        }
    }
    Ok(())
}

/// How many the registry lists; the hash it tells must be theirs.
pub(crate) async fn registered(server: SocketAddr) -> Result<usize, Failed> {
    // A rendering may be a moment old.
    tokio::time::sleep_until(tokio::time::Instant::now() + Duration::from_millis(150)).await;
    let mut connection = connect(server).await?;
    let request = Request::get("/eureka/apps").header("host", "eureka").header("accept", "application/json");
    let response = connection.send_request(request.body(Full::default())?).await?;
    let document = response.into_body().collect().await?.to_bytes();
    let all = json::read_applications(&document, &Limits::default())?;
    if all.counts().to_string() != *all.hash {
        return Err(format!("the hash {} is not that of {}", all.hash, all.counts()).into());
    }
    Ok(all.instances().count())
}

async fn connect(server: SocketAddr) -> Result<SendRequest<Full<Bytes>>, Failed> {
    let (sender, connection) = handshake(TokioIo::new(TcpStream::connect(server).await?)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

fn instance(number: usize, time: u64) -> Instance {
    let app = if number < 1_000 { "ORDERS".to_owned() } else { format!("CROWD-{}", (number - 1_000) / 10) };
    let host = format!("10.{}.{}.{}", number >> 16, (number >> 8) & 255, number & 255);
    Instance {
        instance_id: Some(format!("i{number}").into()),
        host_name: (*host).into(),
        vip_address: Some(app.to_lowercase().into()),
        app: app.into(),
        ip_addr: host.into(),
        status: InstanceStatus::Up,
        port: Port { number: 8080, enabled: true },
        data_center_info: Some(DataCenterInfo::MyOwn),
        lease_info: Some(LeaseInfo::default()),
        last_dirty_timestamp: Some(1_790_000_000_000 + time),
        ..Instance::default()
    }
}
