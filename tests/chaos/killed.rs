//! An instance killed by SIGKILL while it is called 500 times a second.

use std::{net::SocketAddr, time::Duration};

use axum::body::Body;
use hopvine::{
    BoxStack, Directory, ServiceHandle,
    connect::http::{ClientBody, HttpClient},
    discover::eureka::Eureka,
    layers::{
        bulkhead::BulkheadPolicy,
        retry::{Budget, BudgetPolicy},
    },
    registry::{Registry, RegistryHandle, RegistryPolicy},
    stacks::{self, Hop},
};
use http::{Request, Response, StatusCode};
use libtest_mimic::Failed;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tower::ServiceExt as _;

use crate::{
    Outcome,
    part::{Part, Process},
};

type Stack = BoxStack<Request<Body>, Response<ClientBody>>;

const INSTANCES: usize = 4;
const CLIENTS: usize = 3;
/// Between two calls: 500 a second.
const GAP: Duration = Duration::from_millis(2);

pub(crate) async fn by_push() -> Outcome {
    let policy = RegistryPolicy { expel_on_disconnect: true, ..Default::default() };
    let gone = killed(policy, Duration::from_secs(30), Duration::from_secs(90), true).await?;
    within(gone, Duration::from_secs(3))
}

pub(crate) async fn by_lease() -> Outcome {
    let (lease, eviction) = (Duration::from_secs(3), Duration::from_millis(500));
    let policy = RegistryPolicy { self_preservation: false, eviction_interval: eviction, ..Default::default() };
    let gone = killed(policy, Duration::from_secs(1), lease, false).await?;
    // And what it takes a very busy machine to look and to tell.
    within(gone, 2 * lease + eviction + Duration::from_secs(3))
}

fn within(gone: Duration, most: Duration) -> Outcome {
    if gone > most {
        return Err(format!("every client has dropped it after {gone:?}, later than {most:?}").into());
    }
    Ok(())
}

/// How long it took until every client had dropped the instance that was killed, if no call failed.
async fn killed(policy: RegistryPolicy, heartbeat: Duration, lease: Duration, hold: bool) -> Result<Duration, Failed> {
    let registry = registry(policy).await?;
    let url = format!("http://{}/eureka/", registry.local_addr());
    let mut instances = Vec::new();
    for number in 0..INSTANCES {
        let part = Part::Instance { registry: url.clone(), id: format!("orders-{number}"), lease, heartbeat, hold };
        instances.push(Process::start(&part).await?);
    }
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Directory::builder().source(Eureka::builder(&*url).build()?).build());
    }
    for client in &clients {
        count(&client.service("orders"), INSTANCES).await?;
    }

    // A machine that stands still for seconds is no failure here: then hundreds of calls are under way at once, and a quarter of them to the one that is killed.
    let hop = Hop::new("orders.get", clients[0].service("orders"))
        .bulkhead(BulkheadPolicy { limit: 10_000, ..Default::default() })?
        .budget(Budget::new(BudgetPolicy { cap: 10_000, start: 10_000, ..Default::default() })?)
        .deadline(Duration::from_secs(10))?
        .attempt_timeout(Duration::from_secs(5))?;
    let stack = Stack::build(stacks::server_to_server(hop)?, HttpClient::new());
    let (stop, stopped) = watch::channel(false);
    let load = tokio::spawn(load(stack, stopped));
    // Each has sent a heartbeat, if that is how it is known to live.
    sleep_until(Instant::now() + Duration::from_millis(1500)).await;
    let killed = Instant::now();
    instances.swap_remove(0).kill().await?;
    for client in &clients {
        count(&client.service("orders"), INSTANCES - 1).await?;
    }
    let gone = killed.elapsed();
    sleep_until(Instant::now() + Duration::from_millis(500)).await;
    stop.send_replace(true);
    let (calls, failed) = load.await?;
    println!("{calls} calls, {} failed; every client dropped it after {gone:?}", failed.len());
    if calls < 100 || !failed.is_empty() {
        return Err(format!("of {calls} calls {} failed: {:?}", failed.len(), failed.first()).into());
    }
    registry.shutdown().await;
    Ok(gone)
}

async fn registry(policy: RegistryPolicy) -> Result<RegistryHandle, Failed> {
    Ok(Registry::builder().policy(policy).bind(SocketAddr::from(([127, 0, 0, 1], 0))).start().await?)
}

/// Waits until it has so many endpoints.
pub(crate) async fn count(service: &ServiceHandle, wanted: usize) -> Outcome {
    let mut versions = service.watch();
    let seen = versions.wait_for(|_| service.snapshot().endpoints().len() == wanted);
    let has = || service.snapshot().endpoints().len();
    timeout(Duration::from_secs(60), seen).await.map_err(|_| format!("{} instances instead of {wanted}", has()))??;
    Ok(())
}

/// Calls until it is stopped, waiting for no answer; counts them, and says which failed.
async fn load(stack: Stack, stopped: watch::Receiver<bool>) -> (usize, Vec<String>) {
    let (mut calls, mut next, mut count, mut failed) = (JoinSet::new(), Instant::now(), 0, Vec::new());
    let mut note = |answer: Result<(), String>| failed.extend(answer.err());
    while !*stopped.borrow() {
        sleep_until(next).await;
        next += GAP;
        count += 1;
        let stack = stack.clone();
        calls.spawn(async move {
            let request = Request::get("/").body(Body::empty()).expect("a request");
            match stack.oneshot(request).await {
                Ok(response) if response.status() == StatusCode::OK => Ok(()),
                Ok(response) => Err(response.status().to_string()),
                Err(error) => Err(error.to_string()),
            }
        });
        while let Some(call) = calls.try_join_next() {
            note(call.unwrap_or_else(|error| Err(error.to_string())));
        }
    }
    while let Some(call) = calls.join_next().await {
        note(call.unwrap_or_else(|error| Err(error.to_string())));
    }
    (count, failed)
}
