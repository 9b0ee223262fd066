//! The DNS source against a server of the test's own.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use hickory_resolver::proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{
        Name, RData, Record,
        rdata::{A, SRV},
    },
    serialize::binary::BinDecodable,
};
use hopvine::{Directory, Monitor, discover::dns::Dns};
use tokio::{net::UdpSocket, time::Instant};

use super::ids;

/// What the server says now.
#[derive(Clone, Default)]
struct Zone(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    records: Vec<Record>,
    failure: Option<ResponseCode>,
    silent: bool,
    asked: usize,
}

impl Zone {
    async fn serve(&self) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let zone = self.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let Ok(question) = Message::from_bytes(&buffer[..length]) else { continue };
                if let Some(answer) = zone.answer(&question) {
                    let _ = socket.send_to(&answer.to_vec().unwrap(), from).await;
                }
            }
        });
        address
    }

    fn answer(&self, question: &Message) -> Option<Message> {
        let mut state = self.0.lock().unwrap();
        state.asked += 1;
        if state.silent {
            return None;
        }
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        answer.metadata.message_type = MessageType::Response;
        answer.metadata.recursion_available = true;
        for query in &question.queries {
            answer.add_query(query.clone());
            let fits = |record: &&Record| record.name == *query.name() && record.record_type() == query.query_type();
            let records = state.records.iter().filter(|_| state.failure.is_none());
            answer.add_answers(records.filter(fits).cloned());
        }
        answer.metadata.response_code = state.failure.unwrap_or(if answer.answers.is_empty() {
            ResponseCode::NXDomain
        } else {
            ResponseCode::NoError
        });
        Some(answer)
    }

    fn set(&self, records: Vec<Record>) {
        self.0.lock().unwrap().records = records;
    }
}

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
        zone.0.lock().unwrap().failure = Some(failure);
        eventually(stale).await;
        assert_eq!(ids(&service), ["127.0.0.2:80", "127.0.0.3:80"]);
        zone.0.lock().unwrap().failure = None;
        eventually(|| !stale()).await;
    }
    zone.0.lock().unwrap().silent = true;
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
    assert_eq!(zone.0.lock().unwrap().asked, 0);
    let service = directory.get("catalog").unwrap();
    service.ready(Duration::from_secs(10)).await.unwrap();
    assert_eq!(ids(&service), ["127.0.0.1:80"]);
    drop(service);
    let asked = zone.0.lock().unwrap().asked;
    tokio::time::sleep_until(Instant::now() + Duration::from_millis(1500)).await;
    assert_eq!(zone.0.lock().unwrap().asked, asked, "nobody asks for what nobody uses");
}
