//! How long it takes until every client of ours knows that an instance leaves.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use hopvine::{
    Directory, ServiceHandle,
    discover::eureka::{Eureka, Registration, RegistrationPolicy},
    endpoint::Status,
};
use tokio::time::timeout;

use crate::{BoxError, instances::FETCH, process::Process, servers};

/// Each with a poller and connections of its own.
const CLIENTS: usize = 10;
const LEAVES: usize = 100;
/// Leaves under way at once.
const AT_ONCE: usize = 5;

pub(crate) struct Leave {
    pub p50_ms: f64,
    pub p99_ms: f64,
}

pub(crate) fn measure() -> Result<Leave, BoxError> {
    let process = Process::start(|address| servers::command("hopvine", address), FETCH)?;
    let mut took = tokio::runtime::Runtime::new()?.block_on(leaves(process.address))?;
    took.sort_unstable();
    let at = |share: f64| {
        let rank = (took.len() as f64 * share).ceil() as usize;
        took[rank.clamp(1, took.len()) - 1].as_secs_f64() * 1e3
    };
    Ok(Leave { p50_ms: at(0.5), p99_ms: at(0.99) })
}

async fn leaves(server: SocketAddr) -> Result<Vec<Duration>, BoxError> {
    let url = format!("http://{server}/eureka/");
    let mut directories = Vec::new();
    for _ in 0..CLIENTS {
        directories.push(Directory::builder().source(Eureka::builder(&*url).build()?).build());
    }
    let clients: Vec<ServiceHandle> = directories.iter().map(|directory| directory.service("orders")).collect();
    let mut took = Vec::new();
    for round in 0..LEAVES / AT_ONCE {
        let mut rounds = tokio::task::JoinSet::new();
        for place in 0..AT_ONCE {
            let id = format!("orders-{}", round * AT_ONCE + place);
            // Apart from each other, so that they do not share one push.
            let after = Duration::from_millis(37 * place as u64);
            rounds.spawn(leave(url.clone(), id, after, clients.clone()));
        }
        while let Some(leave) = rounds.join_next().await {
            took.push(leave??);
        }
        eprint!("\rleave: {} of {LEAVES}", took.len());
    }
    eprintln!();
    Ok(took)
}

async fn leave(url: String, id: String, after: Duration, clients: Vec<ServiceHandle>) -> Result<Duration, BoxError> {
    let policy = RegistrationPolicy { leave_wait: Duration::from_secs(1), ..Default::default() };
    let registration =
        Registration::builder(&*url, "orders", 8080).host_name("127.0.0.1").instance_id(&id).policy(policy).start()?;
    registration.up();
    all(&clients, &id, true).await?;
    tokio::time::sleep(after).await;
    let start = Instant::now();
    let leaving = tokio::spawn(registration.leave());
    all(&clients, &id, false).await?;
    let took = start.elapsed();
    leaving.await?;
    Ok(took)
}

/// Waits until every client has it so.
async fn all(clients: &[ServiceHandle], id: &str, up: bool) -> Result<(), BoxError> {
    for client in clients {
        let is_up = || {
            let snapshot = client.snapshot();
            snapshot.endpoints().iter().any(|one| one.id().as_str() == id && one.status() == Status::Up)
        };
        let mut versions = client.watch();
        let seen = versions.wait_for(|_| is_up() == up);
        timeout(Duration::from_secs(60), seen).await.map_err(|_| format!("{id} is not known to be {up}"))??;
    }
    Ok(())
}
