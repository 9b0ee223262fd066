//! DNS discovery against knot, with dynamic updates.

use std::{
    fs,
    io::Write,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use hopvine::{Directory, Monitor, ServiceHandle, discover::dns::Dns};
use libtest_mimic::Failed;
use tokio::time::Instant;

use crate::support::{self, free_port};

/// A server of the suite's own; ended with it.
struct Knot {
    process: Child,
    address: SocketAddr,
}

impl Drop for Knot {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Knot {
    fn start(folder: &Path, address: SocketAddr) -> Result<Self, Failed> {
        let port = address.port();
        let at = folder.display();
        fs::write(
            folder.join("knot.conf"),
            format!(
                "server:\n  listen: 127.0.0.1@{port}\n  rundir: {at}\n  pidfile: {at}/knot.pid\n\
                 database:\n  storage: {at}\n\
                 acl:\n  - id: here\n    address: 127.0.0.1\n    action: update\n\
                 zone:\n  - domain: shop.test\n    storage: {at}\n    file: shop.zone\n    zonefile-sync: -1\n    acl: here\n"
            ),
        )?;
        let zone = folder.join("shop.zone");
        if !zone.exists() {
            fs::write(
                zone,
                "$ORIGIN shop.test.\n$TTL 1\n@ SOA ns admin 1 60 60 60 1\n@ NS ns\nns A 127.0.0.1\n\
                 catalog A 127.0.0.1\ncatalog A 127.0.0.2\none A 127.0.0.1\ntwo A 127.0.0.2\n\
                 _http._tcp.orders SRV 1 10 8001 one\n_http._tcp.orders SRV 2 10 8009 two\n",
            )?;
        }
        let log = fs::File::create(support::folder("logs")?.join("knot.log"))?;
        let process = Command::new("knotd")
            .arg("-c")
            .arg(folder.join("knot.conf"))
            .env("PATH", search_path())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Self { process, address })
    }

    /// Changes the zone while the server runs.
    fn update(&self, lines: &str) -> Result<(), Failed> {
        let mut update = Command::new("knsupdate").stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        let script = format!("server 127.0.0.1 {}\nzone shop.test.\n{lines}\nsend\n", self.address.port());
        update.stdin.take().ok_or("no standard input")?.write_all(script.as_bytes())?;
        if update.wait()?.success() { Ok(()) } else { Err(format!("refused: {lines}").into()) }
    }
}

/// Servers are often installed where only root looks.
fn search_path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

pub(crate) fn run() -> Result<(), Failed> {
    tokio::runtime::Runtime::new()?.block_on(suite())
}

async fn suite() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    // Knot takes it for UDP and TCP.
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let knot = Knot::start(folder.path(), address)?;

    let dns = Dns::servers([address])?;
    let monitor = Monitor::new();
    let directory = Directory::builder()
        .monitor(&monitor)
        .service("catalog", dns.addresses("catalog.shop.test", 80))
        .service("orders", dns.srv("_http._tcp.orders.shop.test"))
        .build();
    let (catalog, orders) = (directory.service("catalog"), directory.service("orders"));
    holds(&catalog, &["127.0.0.1:80", "127.0.0.2:80"]).await?;
    holds(&orders, &["127.0.0.1:8001"]).await?;

    knot.update("delete catalog.shop.test. A 127.0.0.1\nadd catalog.shop.test. 1 A 127.0.0.3")?;
    holds(&catalog, &["127.0.0.2:80", "127.0.0.3:80"]).await?;
    knot.update("add _http._tcp.orders.shop.test. 1 SRV 1 5 8002 two.shop.test.")?;
    holds(&orders, &["127.0.0.1:8001", "127.0.0.2:8002"]).await?;

    // All records gone: the name is there no more, the endpoints are.
    knot.update("delete catalog.shop.test. A")?;
    stale(&monitor, true).await?;
    holds(&catalog, &["127.0.0.2:80", "127.0.0.3:80"]).await?;
    knot.update("add catalog.shop.test. 1 A 127.0.0.4")?;
    holds(&catalog, &["127.0.0.4:80"]).await?;

    // The server gone, and back.
    drop(knot);
    stale(&monitor, true).await?;
    holds(&catalog, &["127.0.0.4:80"]).await?;
    let knot = Knot::start(folder.path(), address)?;
    eventually("the server answers updates", || knot.update("add catalog.shop.test. 1 A 127.0.0.5").is_ok()).await?;
    eventually("the new address is there", || ids(&catalog).contains(&"127.0.0.5:80".to_owned())).await?;
    stale(&monitor, false).await
}

fn ids(service: &ServiceHandle) -> Vec<String> {
    service.snapshot().endpoints().iter().map(|endpoint| endpoint.id().to_string()).collect()
}

async fn holds(service: &ServiceHandle, wanted: &[&str]) -> Result<(), Failed> {
    let what = format!("{} is {wanted:?}", service.name());
    eventually(&what, || ids(service) == wanted).await
}

async fn stale(monitor: &Monitor, wanted: bool) -> Result<(), Failed> {
    let seen = || {
        let services = &monitor.snapshot().directories[0].services;
        services.iter().any(|service| service.name == "catalog" && service.stale_for.is_some() == wanted)
    };
    eventually(if wanted { "the source is stale" } else { "the source is back" }, seen).await
}

async fn eventually(what: &str, condition: impl Fn() -> bool) -> Result<(), Failed> {
    // Longer than elsewhere: on a busy machine the server is away so long that the backoff grows to its longest, a minute.
    let end = Instant::now() + Duration::from_secs(90);
    while !condition() {
        if Instant::now() >= end {
            return Err(format!("waited 90 s in vain until {what}").into());
        }
        tokio::time::sleep_until(Instant::now() + Duration::from_millis(20)).await;
    }
    Ok(())
}
