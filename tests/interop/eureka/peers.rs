//! Two of Spring Cloud's servers and one registry of ours, each the peer of the others.

use std::{path::Path, time::Duration};

use futures_util::future::{try_join_all, try_join3};
use hopvine::registry::RegistryHandle;
use libtest_mimic::Failed;
use tokio::time::Instant;

use super::{Caller, JavaServer, RustService, Service, hello, metadata, operator, ours, standing, up};
use crate::support::{becomes, free_port, install};

pub(crate) fn run() -> Result<(), Failed> {
    let programs = install::java()?;
    tokio::runtime::Runtime::new()?.block_on(suite(&programs))
}

/// The Java ones: the program, and the name by which it registers with the others.
const JAVA: [(&str, &str); 2] = [("server-2025.0", "eureka-current"), ("server-hoxton", "eureka-old")];

/// The place of ours.
const OURS: usize = JAVA.len();

struct Cluster<'a> {
    programs: &'a Path,
    ports: [u16; 3],
    urls: [String; 3],
    java: [Option<JavaServer>; 2],
    ours: Option<RegistryHandle>,
}

impl<'a> Cluster<'a> {
    fn new(programs: &'a Path) -> Result<Self, Failed> {
        let ports = [free_port()?, free_port()?, free_port()?];
        let urls = ports.map(|port| format!("http://127.0.0.1:{port}/eureka/"));
        Ok(Self { programs, ports, urls, java: [None, None], ours: None })
    }

    fn but(&self, place: usize) -> Vec<&str> {
        let others = self.urls.iter().enumerate().filter(|(other, _)| *other != place);
        others.map(|(_, url)| &**url).collect()
    }

    /// Logs of Java servers are told from those of former starts by their end.
    async fn start(&mut self, place: usize, log: &str) -> Result<(), Failed> {
        let (port, others) = (self.ports[place], self.but(place));
        if place == OURS {
            self.ours = Some(ours(port).peers(others).start().await?);
        } else {
            let (program, name) = JAVA[place];
            let names = (name, &*format!("{name}{log}"));
            self.java[place] = Some(JavaServer::with_peers(self.programs, program, names, port, &others.join(","))?);
        }
        Ok(())
    }

    async fn ready(&mut self) -> Result<(), Failed> {
        for server in self.java.iter_mut().flatten() {
            server.ready().await?;
        }
        Ok(())
    }

    /// It tells nobody.
    fn kill(&mut self, place: usize) {
        if place == OURS {
            self.ours = None;
        } else {
            self.java[place] = None;
        }
    }

    async fn stop(self) -> Result<(), Failed> {
        for server in self.java.into_iter().flatten() {
            server.stop().await?;
        }
        if let Some(ours) = self.ours {
            ours.shutdown().await;
        }
        Ok(())
    }
}

/// An instance by its service and id.
type Who<'a> = (&'a str, &'a str);

/// It stands like this at all of these.
async fn everywhere(what: &str, (service, id): Who<'_>, wanted: &str, urls: &[&str]) -> Result<(), Failed> {
    try_join_all(urls.iter().map(async |url| {
        becomes(&format!("{what}: {id} at {url}"), wanted, async || standing(url, service, id).await).await
    }))
    .await?;
    Ok(())
}

async fn suite(programs: &Path) -> Result<(), Failed> {
    let mut cluster = Cluster::new(programs)?;
    for place in 0..3 {
        cluster.start(place, "").await?;
    }
    let all = cluster.urls.join(",");
    let mut stock = Service::java(programs, "client-2025.0", "stock", &all, &[])?;
    let mut bills = Service::java(programs, "client-2025.1", "bills", &all, &[])?;
    let catalog = RustService::start("catalog", "catalog-everywhere", &all).await?;
    let caller = Caller::new(&all, &["stock", "bills"])?;
    cluster.ready().await?;
    stock.ready().await?;
    bills.ready().await?;

    let urls = cluster.urls.clone();
    let urls = urls.each_ref().map(|url| &**url);
    registered_at_one_is_seen_at_all(&urls).await?;
    // The servers themselves, which register with each other, and those that know all three.
    let (stock_id, bills_id) = (stock.id.clone(), bills.id.clone());
    let clients = [("stock", &*stock_id), ("bills", &*bills_id), ("catalog", "catalog-everywhere")];
    for who in clients.into_iter().chain(JAVA.map(|(_, name)| (name, name))) {
        everywhere("at the start", who, "UP", &urls).await?;
    }

    // One that is out when its registry's peers die and come back, by an operator's word.
    let out = RustService::start("catalog", "catalog-out", &all).await?;
    everywhere("one more", ("catalog", "catalog-out"), "UP", &urls).await?;
    operator(urls[OURS], "catalog", "catalog-out", Some("OUT_OF_SERVICE")).await?;
    everywhere("taken out", ("catalog", "catalog-out"), OUT, &urls).await?;

    for place in 0..3 {
        cluster.kill(place);
        let rest = cluster.but(place);
        // One that comes while the peer is away.
        let late = RustService::start("late", "late", &all).await?;
        everywhere("while one is away", ("late", "late"), "UP", &rest).await?;
        nobody_is_lost(&clients, &rest).await?;
        calls_go_on(&stock, &bills, &catalog, &caller).await?;

        cluster.start(place, "-again").await?;
        cluster.ready().await?;
        for who in clients.into_iter().chain([("late", "late")]) {
            everywhere("after its return", who, "UP", &urls).await?;
        }
        everywhere("after its return", ("catalog", "catalog-out"), OUT, &urls).await?;
        nobody_is_lost(&clients, &urls).await?;
        calls_go_on(&stock, &bills, &catalog, &caller).await?;
        late.registration.leave().await;
        everywhere("after its return", ("late", "late"), "gone", &urls).await?;
    }

    put_back(("catalog", "catalog-out"), 0, &urls).await?;
    out.registration.leave().await;
    stock.stop().await?;
    bills.stop().await?;
    catalog.registration.leave().await;
    for who in clients.into_iter().chain([("catalog", "catalog-out")]) {
        everywhere("at the end", who, "gone", &urls).await?;
    }
    cluster.stop().await
}

/// An operator takes back at one what was said of an instance, and says it again where it is not known everywhere in good time: what another is still telling of it at that moment,
/// a batch sent twice or a heartbeat with the override of before, can set it anew. How often it was so is told.
async fn put_back((service, id): Who<'_>, removed: usize, urls: &[&str; 3]) -> Result<(), Failed> {
    operator(urls[removed], service, id, None).await?;
    for _ in 0..3 {
        let known = everywhere("put back", (service, id), "UP", urls);
        if let Ok(known) = tokio::time::timeout(Duration::from_secs(12), known).await {
            return known;
        }
        for url in urls {
            if standing(url, service, id).await != "UP" {
                println!("eureka_peers: {id} was still out at {url}, after it was put back at {}", urls[removed]);
                operator(url, service, id, None).await?;
            }
        }
    }
    everywhere("put back", (service, id), "UP", urls).await
}

const OUT: &str = "OUT_OF_SERVICE, told OUT_OF_SERVICE";

/// And so is what an operator says of it at any, and that it left.
async fn registered_at_one_is_seen_at_all(urls: &[&str; 3]) -> Result<(), Failed> {
    let life = async |home: usize| {
        let id = format!("only-at-{home}");
        let who = ("catalog", &*id);
        let instance = RustService::start("catalog", &id, urls[home]).await?;
        everywhere("registered", who, "UP", urls).await?;
        // At its own registry, and then at each other one.
        for (set, removed) in [(home, (home + 1) % 3), ((home + 2) % 3, home)] {
            operator(urls[set], "catalog", &id, Some("OUT_OF_SERVICE")).await?;
            everywhere("taken out", who, OUT, urls).await?;
            put_back(who, removed, urls).await?;
        }
        instance.registration.set_metadata("colour", "blue");
        for url in urls {
            let what = format!("its metadata at {url}");
            let wanted = Ok(Some("blue".to_owned()));
            becomes(&what, wanted, async || metadata(url, "catalog", &id, "colour").await).await?;
        }
        instance.registration.leave().await;
        everywhere("left", who, "gone", urls).await
    };
    try_join3(life(0), life(1), life(2)).await?;
    Ok(())
}

/// At any moment of some seconds, all are there.
async fn nobody_is_lost(clients: &[Who<'_>], urls: &[&str]) -> Result<(), Failed> {
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        for (service, id) in clients {
            for url in urls {
                let stands = standing(url, service, id).await;
                if stands != "UP" {
                    return Err(format!("{id} at {url}: {stands}").into());
                }
            }
        }
        tokio::time::sleep_until(Instant::now() + Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn calls_go_on(stock: &Service, bills: &Service, catalog: &RustService, caller: &Caller) -> Result<(), Failed> {
    becomes("stock sees bills", up(&[bills.url()]), async || stock.instances("bills").await).await?;
    becomes("bills sees stock", up(&[stock.url()]), async || bills.instances("stock").await).await?;
    becomes("bills sees ours", up(&[catalog.url()]), async || bills.instances("catalog").await).await?;
    becomes("stock calls ours", hello("catalog-everywhere"), async || stock.call("catalog").await).await?;
    for service in [stock, bills] {
        becomes("ours sees it", up(&[service.url()]), async || Ok(caller.up(&service.name))).await?;
        becomes("ours calls it", hello(&service.name), async || caller.call(&service.name).await).await?;
    }
    becomes("ours hears of the registry", None, async || caller.eureka.view().error).await
}
