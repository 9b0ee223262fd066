//! The real clients against our registry, all at once.

use std::path::Path;

use futures_util::future::try_join_all;
use hopvine::endpoint::Status;
use libtest_mimic::Failed;

use super::{Caller, RustService, Service, hello, operator, ours, standing, up};
use crate::support::{Tap, becomes, free_port, install};

/// A client of Spring Cloud: the program and the settings that make it what it is, and its user agent and what it accepts, which show that it is that.
struct Kind {
    name: &'static str,
    program: &'static str,
    settings: &'static [&'static str],
    agent: &'static str,
    accept: &'static str,
}

const JAVA: [Kind; 5] = [
    Kind {
        name: "rest-template",
        program: "client-2025.0",
        settings: &[],
        agent: "Apache-HttpClient/5",
        accept: "application/json, application/*+json",
    },
    Kind {
        name: "rest-client",
        program: "client-2025.1",
        settings: &[],
        agent: "Apache-HttpClient/5",
        accept: "application/json\r\n",
    },
    Kind {
        name: "web-client",
        program: "client-2025.0",
        settings: &["--eureka.client.webclient.enabled=true"],
        agent: "ReactorNetty/1",
        accept: "application/json\r\n",
    },
    Kind {
        name: "jersey-3",
        program: "client-jersey3",
        settings: &[],
        agent: "Jersey/3",
        accept: "application/json\r\n",
    },
    Kind {
        name: "jersey-1",
        program: "client-hoxton",
        settings: &[],
        agent: "Java-EurekaClient/v1",
        accept: "application/json\r\n",
    },
];

/// It adds nobody whom a delta adds again, as every registry does with an instance that registers again: one that was ever taken out stays out for it. With its
/// default, everything each time, that is not so.
const NPM_BY_DELTAS: &str = "npm-by-deltas";

pub(crate) fn run() -> Result<(), Failed> {
    let (java, node, python) = (install::java()?, install::node()?, install::python()?);
    tokio::runtime::Runtime::new()?.block_on(suite(&java, &node, &python))
}

struct Client {
    service: Service,
    tap: Tap,
}

async fn suite(java: &Path, node: &Path, python: &Path) -> Result<(), Failed> {
    let port = free_port()?;
    let url = &*format!("http://127.0.0.1:{port}/eureka/");
    let first = ours(port).start().await?;
    let mut clients = Vec::new();
    for Kind { name, program, settings, .. } in JAVA {
        let tap = Tap::open(port).await?;
        let through = format!("http://127.0.0.1:{}/eureka/", tap.port());
        clients.push(Client { service: Service::java(java, program, name, &through, settings)?, tap });
    }
    for (name, deltas) in [("npm", false), (NPM_BY_DELTAS, true)] {
        let tap = Tap::open(port).await?;
        clients.push(Client { service: Service::node(node, name, tap.port(), deltas)?, tap });
    }
    let tap = Tap::open(port).await?;
    let through = format!("http://127.0.0.1:{}/eureka/", tap.port());
    clients.push(Client { service: Service::python(python, "pypi", &through)?, tap });

    let catalog = RustService::start("catalog", "catalog-1", url).await?;
    let names: Vec<_> = clients.iter().map(|client| client.service.name.clone()).collect();
    let names: Vec<_> = names.iter().map(|name| &**name).collect();
    let caller = Caller::new(url, &names)?;
    for client in &mut clients {
        client.service.ready().await?;
    }

    all_find_each_other(url, &clients, &catalog, &caller).await?;
    each_is_what_it_should_be(&clients).await?;
    deltas_tell_who_comes_and_goes(url, &clients, &catalog).await?;
    an_operator_takes_each_out_and_puts_it_back(url, &clients, &caller).await?;

    // The registry is away for a while, and comes back knowing nobody.
    first.shutdown().await;
    for client in &mut clients {
        client.tap.close().await;
    }
    becomes("the outage is seen by ours", true, async || caller.eureka.view().error.is_some()).await?;
    try_join_all(clients.iter().map(async |Client { service, .. }| {
        let name = &*service.name;
        becomes("a call of ours during the outage", hello(name), async || caller.call(name).await).await?;
        becomes("a call of theirs during the outage", hello("catalog-1"), async || service.call("catalog").await).await
    }))
    .await?;
    let second = ours(port).start().await?;
    for client in &mut clients {
        client.tap.reopen().await?;
    }
    all_find_each_other(url, &clients, &catalog, &caller).await?;

    each_stops_in_its_way(url, clients, &caller).await?;
    catalog.registration.leave().await;
    becomes("ours that left", "gone", async || standing(url, "catalog", "catalog-1").await).await?;
    second.shutdown().await;
    Ok(())
}

async fn all_find_each_other(
    registry: &str,
    clients: &[Client],
    catalog: &RustService,
    caller: &Caller,
) -> Result<(), Failed> {
    try_join_all(clients.iter().enumerate().map(async |(place, Client { service, .. })| {
        let name = &*service.name;
        let another = another(clients, place);
        becomes(name, "UP", async || standing(registry, name, &service.id).await).await?;
        let what = |what: &str| format!("{name}: {what}");
        becomes(&what("seen by ours"), up(&[service.url()]), async || Ok(caller.up(name))).await?;
        becomes(&what("sees ours"), up(&[catalog.url()]), async || service.instances("catalog").await).await?;
        becomes(&what("called by ours"), hello(name), async || caller.call(name).await).await?;
        becomes(&what("calls ours"), hello("catalog-1"), async || service.call("catalog").await).await?;
        if name == NPM_BY_DELTAS {
            return Ok(());
        }
        becomes(&what("sees another"), up(&[another.url()]), async || service.instances(&another.name).await).await?;
        becomes(&what("calls another"), hello(&another.name), async || service.call(&another.name).await).await
    }))
    .await?;
    Ok(())
}

/// The next one whose view can be relied on.
fn another(clients: &[Client], place: usize) -> &Service {
    let mut others = clients.iter().cycle().skip(place + 1).map(|client| &client.service);
    others.find(|service| service.name != NPM_BY_DELTAS).expect("not all are that one")
}

/// Each speaks the way we think, sends heartbeats, and asks for deltas.
async fn each_is_what_it_should_be(clients: &[Client]) -> Result<(), Failed> {
    try_join_all(clients.iter().map(async |Client { service, tap }| {
        let (name, id) = (&*service.name, &*service.id);
        let mut texts = vec![format!("GET /eureka/apps/{}", if name == "npm" { " " } else { "delta" })];
        if let Some(Kind { agent, accept, .. }) = JAVA.iter().find(|kind| kind.name == name) {
            texts.extend([format!("user-agent: {agent}"), format!("accept: {accept}")]);
        }
        texts.push(match name {
            // Neither a status nor a time stamp.
            "npm" | NPM_BY_DELTAS => format!("PUT /eureka/apps/{name}/{id} HTTP/1.1\r\n"),
            "web-client" | "pypi" => format!("PUT /eureka/apps/{name}/{}?status=UP&", id.replace(':', "%3A")),
            _ => format!("PUT /eureka/apps/{name}/{id}?status=UP&"),
        });
        for text in texts {
            becomes(&format!("{name} says {text:?}"), true, async || tap.heard(&text)).await?;
        }
        Ok::<_, Failed>(())
    }))
    .await?;
    Ok(())
}

async fn deltas_tell_who_comes_and_goes(
    registry: &str,
    clients: &[Client],
    catalog: &RustService,
) -> Result<(), Failed> {
    let second = RustService::start("catalog", "catalog-2", registry).await?;
    let all_see = async |urls: &[&str]| {
        try_join_all(clients.iter().map(async |Client { service, .. }| {
            let what = format!("{}: sees who is there", service.name);
            becomes(&what, up(urls), async || service.instances("catalog").await).await
        }))
        .await
    };
    all_see(&[catalog.url(), second.url()]).await?;
    second.registration.leave().await;
    all_see(&[catalog.url()]).await?;
    Ok(())
}

async fn an_operator_takes_each_out_and_puts_it_back(
    registry: &str,
    clients: &[Client],
    caller: &Caller,
) -> Result<(), Failed> {
    try_join_all(clients.iter().enumerate().map(async |(place, Client { service, .. })| {
        let name = &*service.name;
        let another = another(clients, place);
        let what = |what: &str| format!("{name}: {what}");
        let seen = |status| vec![(service.url().to_owned(), status)];
        operator(registry, name, &service.id, Some("OUT_OF_SERVICE")).await?;
        becomes(&what("taken out"), seen(Status::Draining), async || caller.endpoints(name)).await?;
        becomes(&what("taken out, for another"), up(&[]), async || another.instances(name).await).await?;
        let told = "OUT_OF_SERVICE, told OUT_OF_SERVICE";
        becomes(&what("stays out"), told, async || standing(registry, name, &service.id).await).await?;
        operator(registry, name, &service.id, None).await?;
        // It registers again, since the registry does not say any more how it is.
        becomes(&what("put back"), "UP", async || standing(registry, name, &service.id).await).await?;
        becomes(&what("put back"), seen(Status::Up), async || caller.endpoints(name)).await?;
        becomes(&what("put back, for another"), up(&[service.url()]), async || another.instances(name).await).await
    }))
    .await?;
    Ok(())
}

/// All take themselves out, but for the one that forgets to: it is `DOWN` until its lease ends, and nobody calls it.
async fn each_stops_in_its_way(registry: &str, mut clients: Vec<Client>, caller: &Caller) -> Result<(), Failed> {
    let place = clients.iter().position(|client| client.service.name == "web-client").ok_or("no such client")?;
    let forgetful = clients.remove(place);
    let id = forgetful.service.id.clone();
    let down = vec![(forgetful.service.url().to_owned(), Status::Down)];
    forgetful.service.stop().await?;
    let stands = async || standing(registry, "web-client", &id).await;
    becomes("web-client, stopped", "DOWN", stands).await?;
    becomes("web-client, stopped", down, async || caller.endpoints("web-client")).await?;
    try_join_all(clients.iter().filter(|client| client.service.name != NPM_BY_DELTAS).map(
        async |Client { service, .. }| {
            becomes("web-client, stopped", up(&[]), async || service.instances("web-client").await).await
        },
    ))
    .await?;
    becomes("web-client, its lease over", "gone", stands).await?;

    try_join_all(clients.into_iter().map(async |Client { service, tap }| {
        let (name, id) = (service.name.clone(), service.id.clone());
        service.stop().await?;
        becomes(&format!("{name}, stopped"), "gone", async || standing(registry, &name, &id).await).await?;
        becomes(&format!("{name}, stopped"), up(&[]), async || Ok(caller.up(&name))).await?;
        let heard = tap.heard("DELETE /eureka/apps/");
        if heard { Ok(()) } else { Err(Failed::from(format!("{name} did not take itself out"))) }
    }))
    .await?;
    Ok(())
}
