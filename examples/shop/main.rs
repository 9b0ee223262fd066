//! A small shop on loopback in one process, and the drill that teams know. Nothing to install:
//!
//! ```sh
//! cargo run --release --example shop
//! ```
//!
//! ```text
//! customers -> gateway -> display -> product
//!                      -> order   -> payment (outside the directory)
//! ```
//!
//! `display`, `product` and `order` have three instances each. Every instance is a real server on a port of its own, every
//! call goes over a socket. The exit status is 1 if a phase does not hold what it promises.

#![allow(missing_docs, missing_debug_implementations, unreachable_pub, reason = "a program, not a library")]

use std::{collections::BTreeMap, io, process::ExitCode};

use hopvine::{
    Directory, Endpoint, Monitor,
    discover::{Change, ChangeStream},
    endpoint::EndpointId,
};
use tokio::sync::mpsc;

mod args;
mod drill;
mod host;
mod load;
mod report;
mod services;
mod watch;

use args::Args;
use host::Instance;
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
    pub gateway: Endpoint,
    /// By name; killed by taking one out.
    pub instances: BTreeMap<String, Instance>,
    join: mpsc::UnboundedSender<Change<EndpointId, Endpoint>>,
}

impl Shop {
    async fn open() -> Result<Self, BoxError> {
        let monitor = Monitor::new();
        let (products, payments) = (Products::default(), Payments::default());
        let mut instances = BTreeMap::new();

        // Servers first, so that the directory can list them; who calls whom follows below.
        let (join, mut joins) = mpsc::unbounded_channel();
        for number in 1..=3 {
            let name = format!("product-{number}");
            let instance = Instance::start(services::product(&name, &products)).await?;
            join.send(Change::Insert(EndpointId::new(&*name), endpoint(&name, &instance)))?;
            instances.insert(name, instance);
        }
        let payment = Instance::start(services::payment(&payments)).await?;
        let outside = Directory::fixed([("payment", [endpoint("payment", &payment)])]);
        instances.insert("payment".to_owned(), payment);

        // Any stream of changes is a source: here a channel, so that an instance can join later.
        let changes =
            futures_util::stream::poll_fn(move |cx| joins.poll_recv(cx).map(|change| change.map(Ok::<_, io::Error>)));
        let inside = Directory::builder().monitor(&monitor).service("product", ChangeStream::new(changes)).build();
        inside.ready(std::time::Duration::from_secs(5)).await?;

        let mut displays = Vec::new();
        let mut orders = Vec::new();
        for number in 1..=3 {
            let name = format!("display-{number}");
            let instance = Instance::start(services::display(&name, &inside, &monitor)?).await?;
            displays.push(endpoint(&name, &instance));
            instances.insert(name, instance);
            let name = format!("order-{number}");
            let instance = Instance::start(services::order(&name, &outside, &monitor)?).await?;
            orders.push(endpoint(&name, &instance));
            instances.insert(name, instance);
        }
        let front = Directory::fixed([("display", displays), ("order", orders)]);
        let gateway = Instance::start(services::gateway(&front, &monitor)?).await?;
        let address = Endpoint::from(gateway.address());
        instances.insert("gateway".to_owned(), gateway);
        Ok(Self { monitor, products, payments, gateway: address, instances, join })
    }

    /// Starts one more instance of `product` and lists it.
    pub async fn join_product(&mut self, name: &str) -> Result<(), io::Error> {
        let instance = Instance::start(services::product(name, &self.products)).await?;
        // The directory outlives the drill, and with it the other end.
        let _ = self.join.send(Change::Insert(EndpointId::new(name), endpoint(name, &instance)));
        self.instances.insert(name.to_owned(), instance);
        Ok(())
    }
}

fn endpoint(name: &str, instance: &Instance) -> Endpoint {
    Endpoint::from(instance.address()).with_id(name)
}
