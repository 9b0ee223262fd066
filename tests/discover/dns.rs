//! The DNS source against a server of the test's own.

use std::time::Duration;

use hickory_resolver::proto::{
    op::ResponseCode,
    rr::{
        Name, RData, Record,
        rdata::{A, SRV},
    },
};
use hopvine::{Directory, Monitor, discover::dns::Dns};
use tokio::time::Instant;

use super::{
    ids,
    name_server::{Lie, Zone},
};

fn a(name: &str, ttl: u32, last: u8) -> Record {
    Record::from_rdata(Name::from_ascii(name).unwrap(), ttl, RData::A(A::new(127, 0, 0, last)))
}

fn srv(name: &str, priority: u16, weight: u16, port: u16, target: &str) -> Record {
    let srv = SRV::new(priority, weight, port, Name::from_ascii(target).unwrap());
    Record::from_rdata(Name::from_ascii(name).unwrap(), 1, RData::SRV(srv))
}

async fn eventually(condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "waited 10 s in vain");
        tokio::time::sleep_until(Instant::now() + Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn addresses_follow_their_records_and_outlive_every_failure() {
    let zone = Zone::default();
    // Five seconds at most are asked for; less than one is one.
    zone.set(vec![a("catalog.test.", 0, 1), a("catalog.test.", 0, 2)]);
    let dns = Dns::servers([zone.serve().await]).unwrap();
    let monitor = Monitor::new();
    let directory =
        Directory::builder().monitor(&monitor).service("catalog", dns.addresses("catalog.test", 80)).build();
    let service = directory.service("catalog");
    service.ready(Duration::from_secs(10)).await.unwrap();
    assert_eq!(ids(&service), ["127.0.0.1:80", "127.0.0.2:80"]);
    let endpoint = service.snapshot().endpoints()[0].clone();
    assert_eq!((endpoint.server_name(), endpoint.authority()), (Some("catalog.test"), Some("catalog.test:80")));

    zone.set(vec![a("catalog.test.", 0, 2), a("catalog.test.", 0, 3)]);
    eventually(|| ids(&service) == ["127.0.0.2:80", "127.0.0.3:80"]).await;

    let stale = || monitor.snapshot().directories[0].services[0].stale_for.is_some();
    for failure in [ResponseCode::NXDomain, ResponseCode::ServFail] {
        zone.lie(Some(Lie::Code(failure)));
        eventually(stale).await;
        assert_eq!(ids(&service), ["127.0.0.2:80", "127.0.0.3:80"]);
        zone.lie(None);
        eventually(|| !stale()).await;
    }
    zone.lie(Some(Lie::Silence));
    eventually(stale).await;
    assert_eq!(ids(&service), ["127.0.0.2:80", "127.0.0.3:80"]);
}

#[tokio::test]
async fn srv_records_say_port_and_weight_and_the_first_priority_counts() {
    let zone = Zone::default();
    let name = "_http._tcp.orders.test.";
    zone.set(vec![
        srv(name, 1, 10, 8001, "one.test."),
        srv(name, 1, 0, 8002, "two.test."),
        srv(name, 2, 10, 8003, "backup.test."),
        a("one.test.", 60, 1),
        a("two.test.", 60, 2),
        a("backup.test.", 60, 3),
    ]);
    let dns = Dns::servers([zone.serve().await]).unwrap();
    let directory = Directory::builder().service("orders", dns.srv("_http._tcp.orders.test")).build();
    let service = directory.service("orders");
    service.ready(Duration::from_secs(10)).await.unwrap();
    let snapshot = service.snapshot();
    let seen: Vec<_> =
        snapshot.endpoints().iter().map(|one| (one.id().as_str(), one.weight(), one.server_name())).collect();
    assert_eq!(seen, [("127.0.0.1:8001", 10, Some("one.test")), ("127.0.0.2:8002", 1, Some("two.test"))]);
    zone.set(vec![srv(name, 5, 1, 9000, "one.test."), a("one.test.", 60, 1)]);
    eventually(|| ids(&service) == ["127.0.0.1:9000"]).await;
}

#[tokio::test]
async fn names_are_asked_for_at_their_first_use_and_left_after_the_last() {
    let zone = Zone::default();
    zone.set(vec![a("catalog.shop.test.", 0, 1)]);
    let dns = Dns::servers([zone.serve().await]).unwrap();
    let directory = Directory::builder().source(dns.by_name(|name| (format!("{name}.shop.test"), 80))).build();
    assert_eq!(zone.asked(), 0);
    let service = directory.get("catalog").unwrap();
    service.ready(Duration::from_secs(10)).await.unwrap();
    assert_eq!(ids(&service), ["127.0.0.1:80"]);
    drop(service);
    let asked = zone.asked();
    tokio::time::sleep_until(Instant::now() + Duration::from_millis(1500)).await;
    assert_eq!(zone.asked(), asked, "nobody asks for what nobody uses");
}
