//! Endpoints that come and change, ten thousand of them: the CPU time is that of all, none of it inside a call.

use std::{convert::Infallible, time::Duration};

use futures_util::{StreamExt as _, stream};
use hopvine::{
    Directory, Endpoint,
    discover::{Change, ChangeStream},
    endpoint::EndpointId,
    layers::balance::{BalanceLayer, DiscoverLayer, P2cLeastRequest},
};
use tokio::sync::mpsc;
use tower::{Service as _, ServiceBuilder, balance::p2c::Balance};

use crate::{
    bare::{Bare, Pends, Plain},
    measure::{Case, Run, cpu, runtime},
    peers,
};

const MANY: u32 = 10_000;

/// How long changes are gathered; they are all there at once, and a wait costs no CPU.
const GATHER: Duration = Duration::from_millis(2);

pub(crate) fn cases(cases: &mut Vec<Case>) {
    const TOWER: &str = "tower/directory/insert/10000";
    cases.push(Case::new("hopvine/directory/insert/10000", insert).beside(TOWER).heavy());
    cases.push(Case::new("hopvine/directory/churn/10000", churn).beside(TOWER).heavy());
    cases.push(Case::new(TOWER, tower_insert).heavy());
}

fn endpoints(from: u32, count: u32) -> Vec<Change<EndpointId, Endpoint>> {
    let endpoint = |number: u32| {
        let [_, a, b, c] = number.to_be_bytes();
        let endpoint: Endpoint = format!("10.{a}.{b}.{c}:80").parse().expect("an endpoint");
        Change::Insert(endpoint.id().clone(), endpoint)
    };
    (from..from + count).map(endpoint).collect()
}

/// From a source's set of ten thousand to a balancer that has them.
fn insert() -> Run {
    let runtime = runtime();
    let set: Vec<Endpoint> = endpoints(0, MANY)
        .into_iter()
        .filter_map(|change| match change {
            Change::Insert(_, endpoint) => Some(endpoint),
            Change::Remove(_) => None,
        })
        .collect();
    Box::new(move |count| {
        let mut took = Duration::ZERO;
        for _ in 0..count {
            let set = set.clone();
            took += runtime.block_on(async {
                let start = cpu();
                let told = stream::once(async { Ok::<_, Infallible>(set) }).chain(stream::pending());
                let directory =
                    Directory::builder().coalesce(GATHER).service("catalog", ChangeStream::sets(told)).build();
                let service = directory.service("catalog");
                let stack = ServiceBuilder::new()
                    .layer(DiscoverLayer::new(service.clone()))
                    .layer(BalanceLayer::new(P2cLeastRequest))
                    .service(Bare(Pends::Never));
                let mut versions = service.watch();
                while service.snapshot().endpoints().len() < MANY as usize {
                    versions.changed().await.expect("a version");
                }
                let took = cpu().saturating_sub(start);
                drop((stack, service));
                directory.shutdown().await;
                took
            });
        }
        took
    })
}

/// One in a hundred of them replaced: as many leave as come, and the rest keep their history.
fn churn() -> Run {
    const FEW: u32 = MANY / 100;
    let runtime = runtime();
    let (tell, mut told) = mpsc::unbounded_channel();
    let told = stream::poll_fn(move |cx| told.poll_recv(cx).map(|change| change.map(Ok::<_, Infallible>)));
    let (service, stack) = runtime.block_on(async {
        for change in endpoints(0, MANY) {
            tell.send(change).expect("the writer listens");
        }
        let directory = Directory::builder().coalesce(GATHER).service("catalog", ChangeStream::new(told)).build();
        let service = directory.service("catalog");
        let stack = ServiceBuilder::new()
            .layer(DiscoverLayer::new(service.clone()))
            .layer(BalanceLayer::new(P2cLeastRequest))
            .service(Bare(Pends::Never));
        let mut versions = service.watch();
        while service.snapshot().endpoints().len() < MANY as usize {
            versions.changed().await.expect("a version");
        }
        (service, stack)
    });
    let mut next = MANY;
    Box::new(move |count| {
        let _stack = &stack;
        let mut took = Duration::ZERO;
        for _ in 0..count {
            let leave = endpoints(next - MANY, FEW);
            let come = endpoints(next, FEW);
            next += FEW;
            let mut versions = service.watch();
            versions.mark_unchanged();
            let start = cpu();
            for change in leave {
                if let Change::Insert(id, _) = change {
                    tell.send(Change::Remove(id)).expect("the writer listens");
                }
            }
            for change in come {
                tell.send(change).expect("the writer listens");
            }
            runtime.block_on(async {
                versions.changed().await.expect("a version");
                // A slow machine may see some of them first.
                while service.snapshot().endpoints().len() != MANY as usize {
                    versions.changed().await.expect("a version");
                }
            });
            took += cpu().saturating_sub(start);
        }
        took
    })
}

/// The same ten thousand until tower's balancer is ready, all of it inside `poll_ready`.
fn tower_insert() -> Run {
    let runtime = runtime();
    let changes = endpoints(0, MANY);
    Box::new(move |count| {
        let mut took = Duration::ZERO;
        for _ in 0..count {
            let changes = changes.iter().filter_map(|change| match change {
                Change::Insert(id, _) => {
                    Some(Ok::<_, Infallible>(Change::Insert(id.clone(), peers::pending(Bare(Pends::Never)))))
                }
                Change::Remove(_) => None,
            });
            let changes: Vec<_> = changes.collect();
            took += runtime.block_on(async {
                let start = cpu();
                let told = stream::iter(changes).chain(stream::pending());
                let mut balance: Balance<_, Plain> = Balance::new(told);
                std::future::poll_fn(|cx| balance.poll_ready(cx)).await.expect("ready");
                let took = cpu().saturating_sub(start);
                assert_eq!(balance.len(), MANY as usize);
                took
            });
        }
        took
    })
}
