//! Our client and our registration against Spring Cloud's server, beside a Spring service of the same train.

use std::path::Path;

use hopvine::{endpoint::Status, eureka::InstanceStatus};
use libtest_mimic::Failed;

use super::{Caller, JavaServer, RustService, Service, hello, operator, standing, up};
use crate::support::{becomes, free_port, install};

pub(crate) fn current() -> Result<(), Failed> {
    run("server-2025.0", "client-2025.0", "stock-current")
}

pub(crate) fn next() -> Result<(), Failed> {
    run("server-2025.1", "client-2025.1", "stock-next")
}

pub(crate) fn old() -> Result<(), Failed> {
    run("server-hoxton", "client-hoxton", "stock-old")
}

fn run(server: &str, client: &str, name: &str) -> Result<(), Failed> {
    let programs = install::java()?;
    tokio::runtime::Runtime::new()?.block_on(suite(&programs, server, client, name))
}

/// What takes part: ours, which is registered as `catalog`; ours, which calls; and a Spring service.
struct Parties {
    registry: String,
    catalog: RustService,
    caller: Caller,
    stock: Service,
}

async fn suite(programs: &Path, server: &str, client: &str, name: &str) -> Result<(), Failed> {
    let port = free_port()?;
    let registry = format!("http://127.0.0.1:{port}/eureka/");
    // All start at once, so that the server is there last.
    let mut java = JavaServer::alone(programs, server, server, port)?;
    let catalog = RustService::start("catalog", "catalog-1", &registry).await?;
    let caller = Caller::new(&registry, &["catalog", name])?;
    let mut stock = Service::java(programs, client, name, &registry, &[])?;
    java.ready().await?;
    stock.ready().await?;
    let parties = Parties { registry, catalog, caller, stock };
    parties.find_each_other().await?;
    parties.see_changes_of_ours().await?;
    parties.see_what_an_operator_says().await?;
    parties.see_who_comes_and_goes().await?;

    // The server is away, and comes back knowing nobody.
    java.stop().await?;
    parties.endure_an_outage().await?;
    let mut java = JavaServer::alone(programs, server, &format!("{server}-again"), port)?;
    java.ready().await?;
    parties.find_each_other().await?;

    parties.leave().await?;
    java.stop().await
}

impl Parties {
    async fn find_each_other(&self) -> Result<(), Failed> {
        let Self { registry, catalog, caller, stock } = self;
        let name = &*stock.name;
        becomes("ours at the server", "UP", async || standing(registry, "catalog", "catalog-1").await).await?;
        becomes("theirs at the server", "UP", async || standing(registry, name, &stock.id).await).await?;
        becomes("ours, seen by theirs", up(&[catalog.url()]), async || stock.instances("catalog").await).await?;
        let there = vec![(stock.url().to_owned(), Status::Up)];
        becomes("theirs, seen by ours", there, async || caller.endpoints(name)).await?;
        becomes("errors of ours", (None, None), async || self.errors()).await?;
        becomes("theirs calls ours", hello("catalog-1"), async || stock.call("catalog").await).await?;
        becomes("ours calls theirs", hello(name), async || caller.call(name).await).await
    }

    fn errors(&self) -> (Option<String>, Option<String>) {
        (self.caller.eureka.view().error, self.catalog.registration.view().error)
    }

    async fn see_changes_of_ours(&self) -> Result<(), Failed> {
        let Self { registry, catalog, caller, stock } = self;
        let here = async || standing(registry, "catalog", "catalog-1").await;
        for (status, word) in [
            (InstanceStatus::OutOfService, "OUT_OF_SERVICE, told OUT_OF_SERVICE"),
            (InstanceStatus::Down, "DOWN"),
            (InstanceStatus::OutOfService, "OUT_OF_SERVICE, told OUT_OF_SERVICE"),
        ] {
            catalog.registration.set_status(status);
            becomes("what ours says of itself, at the server", word, here).await?;
            becomes("ours that takes no calls, seen by theirs", up(&[]), async || stock.instances("catalog").await)
                .await?;
        }
        catalog.registration.up();
        becomes("ours that is up again", "UP", here).await?;
        becomes("ours that is up again, seen by theirs", up(&[catalog.url()]), async || {
            stock.instances("catalog").await
        })
        .await?;
        catalog.registration.set_metadata("zone", "b");
        becomes("the zone of ours", Some("b".to_owned()), async || caller.zone_of("catalog")).await
    }

    async fn see_what_an_operator_says(&self) -> Result<(), Failed> {
        let Self { registry, catalog, caller, stock } = self;
        let name = &*stock.name;
        operator(registry, "catalog", "catalog-1", Some("OUT_OF_SERVICE")).await?;
        becomes("ours taken out, seen by theirs", up(&[]), async || stock.instances("catalog").await).await?;
        operator(registry, "catalog", "catalog-1", None).await?;
        // It registers again, since the server does not say any more how it is.
        becomes("ours put back", "UP", async || standing(registry, "catalog", "catalog-1").await).await?;
        becomes("ours put back, seen by theirs", up(&[catalog.url()]), async || stock.instances("catalog").await)
            .await?;

        operator(registry, name, &stock.id, Some("OUT_OF_SERVICE")).await?;
        let there = |status| vec![(stock.url().to_owned(), status)];
        becomes("theirs taken out", there(Status::Draining), async || caller.endpoints(name)).await?;
        operator(registry, name, &stock.id, None).await?;
        becomes("theirs put back", there(Status::Up), async || caller.endpoints(name)).await
    }

    async fn see_who_comes_and_goes(&self) -> Result<(), Failed> {
        let Self { registry, catalog, caller, stock } = self;
        let second = RustService::start("catalog", "catalog-2", registry).await?;
        let both = [catalog.url(), second.url()];
        becomes("a second one of ours, seen by theirs", up(&both), async || stock.instances("catalog").await).await?;
        becomes("a second one of ours", up(&both), async || Ok(caller.up("catalog"))).await?;
        second.registration.leave().await;
        becomes("it left, seen by theirs", up(&[catalog.url()]), async || stock.instances("catalog").await).await?;
        becomes("it left", up(&[catalog.url()]), async || Ok(caller.up("catalog"))).await
    }

    async fn endure_an_outage(&self) -> Result<(), Failed> {
        let Self { catalog, caller, stock, .. } = self;
        let name = &*stock.name;
        let seen = async || (caller.eureka.view().error.is_some(), catalog.registration.view().error.is_some());
        becomes("the outage is seen", (true, true), seen).await?;
        becomes("theirs during the outage", up(&[stock.url()]), async || Ok(caller.up(name))).await?;
        becomes("theirs calls ours", hello("catalog-1"), async || stock.call("catalog").await).await?;
        becomes("ours calls theirs", hello(name), async || caller.call(name).await).await
    }

    async fn leave(self) -> Result<(), Failed> {
        let Self { registry, catalog, caller, stock } = self;
        let (name, id) = (stock.name.clone(), stock.id.clone());
        catalog.registration.leave().await;
        becomes("ours that left", "gone", async || standing(&registry, "catalog", "catalog-1").await).await?;
        becomes("ours that left, seen by theirs", up(&[]), async || stock.instances("catalog").await).await?;
        stock.stop().await?;
        becomes("theirs that left", "gone", async || standing(&registry, &name, &id).await).await?;
        becomes("theirs that left, seen by ours", up(&[]), async || Ok(caller.up(&name))).await
    }
}
