//! A small shop on loopback in one process, and the drill that teams know. Nothing to install:
//!
//! ```sh
//! cargo run --release --example shop
//! ```
//!
//! ```text
//! customers -> gateway -> display -> product
//!                      -> order   -> payment (outside the registry: a fixed list)
//! ```
//!
//! `display`, `product` and `order` have three instances each. Every instance is a real server on a port of its own that registers itself at the shop's registry, every
//! call goes over a socket. The exit status is 1 if a phase does not hold what it promises.

#![allow(missing_docs, missing_debug_implementations, unreachable_pub, reason = "a program, not a library")]

use std::{collections::BTreeMap, net::SocketAddr, process::ExitCode, time::Duration};

use hopvine::{
    Directory, Endpoint, Monitor,
    discover::eureka::Eureka,
    registry::{Registry, RegistryHandle, RegistryPolicy},
};

mod args;
mod drill;
mod host;
mod load;
mod report;
mod services;
mod watch;

use args::Args;
use host::{Entry, Instance};
use services::{Payments, Products};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    fastrand::seed(args.seed);
    let outcome = async { drill::run(Shop::open().await?, &args).await };
    match outcome.await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the shop could not open: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The shop, open.
pub struct Shop {
    pub monitor: Monitor,
    pub products: Products,
    pub payments: Payments,
    /// What the shop's services find each other in.
    pub directory: Directory,
    pub gateway: Endpoint,
    /// By name; killed by taking one out.
    pub instances: BTreeMap<String, Instance>,
    registry: RegistryHandle,
}

impl Shop {
    async fn open() -> Result<Self, BoxError> {
        let policy = RegistryPolicy { expel_on_disconnect: true, ..Default::default() };
        let registry = Registry::builder().policy(policy).bind(SocketAddr::from(([127, 0, 0, 1], 0))).start().await?;
        let url = format!("http://{}/eureka/", registry.local_addr());
        let (monitor, products, payments) = (Monitor::new(), Products::default(), Payments::default());
        let directory = Directory::builder().monitor(&monitor).source(Eureka::builder(&*url).build()?).build();

        let payment = Instance::start(services::payment(&payments), None).await?;
        let outside = Directory::fixed([("payment", [Endpoint::from(payment.address()).with_id("payment")])]);
        let gateway = Instance::start(services::gateway(&directory, &monitor)?, None).await?;
        let address = Endpoint::from(gateway.address());
        let instances = BTreeMap::from([("payment".to_owned(), payment), ("gateway".to_owned(), gateway)]);
        let mut shop = Self { monitor, products, payments, directory, gateway: address, instances, registry };
        // In any order: who calls whom is found out by name.
        for number in 1..=3 {
            let name = format!("display-{number}");
            shop.open_instance("display", &name, services::display(&name, &shop.directory, &shop.monitor)?).await?;
            let name = format!("order-{number}");
            shop.open_instance("order", &name, services::order(&name, &outside, &shop.monitor)?).await?;
            shop.join_product(&format!("product-{number}")).await?;
        }
        for service in ["display", "order", "product"] {
            let service = shop.directory.service(service);
            let mut versions = service.watch();
            let all = versions.wait_for(|_| service.snapshot().endpoints().len() == 3);
            tokio::time::timeout(Duration::from_secs(5), all).await??;
        }
        Ok(shop)
    }

    /// Starts one more instance of `product`.
    pub async fn join_product(&mut self, name: &str) -> Result<(), BoxError> {
        self.open_instance("product", name, services::product(name, &self.products)).await
    }

    async fn open_instance(&mut self, service: &'static str, name: &str, app: axum::Router) -> Result<(), BoxError> {
        let registry = format!("http://{}/eureka/", self.registry.local_addr());
        let entry = Entry { registry, service, id: name.to_owned() };
        self.instances.insert(name.to_owned(), Instance::start(app, Some(entry)).await?);
        Ok(())
    }
}
