//! What may go wrong where names are resolved.

use std::net::IpAddr;

use hickory_resolver::proto::{
    op::ResponseCode,
    rr::{Name, RData, Record},
};
use hopvine::{
    BoxStack, Directory, Error, ErrorKind, Monitor, Outcome, ServiceHandle,
    connect::http::{ClientBody, HttpClient, Version::Http1},
    discover::dns::Dns,
    monitor::ServiceView,
    stacks::{self, Hop},
};
use http::{Request, Response};
use tower::ServiceExt;

use super::{
    caller::{Body, get, post},
    name_server::{Lie, Zone},
    server::Server,
    wait::eventually,
};

/// A stack whose endpoints a name server tells.
struct Named {
    zone: Zone,
    server: Server,
    monitor: Monitor,
    /// Watched as long as it is there.
    _directory: Directory,
    service: ServiceHandle,
    stack: BoxStack<Request<Body>, Response<ClientBody>>,
}

impl Named {
    async fn new(zone: Zone) -> Self {
        let server = Server::start(Http1).await;
        let monitor = Monitor::new();
        let dns = Dns::servers([zone.serve().await]).unwrap();
        let addresses = dns.addresses("s.test", server.address.port());
        let directory = Directory::builder().monitor(&monitor).service("s", addresses).build();
        let service = directory.service("s");
        let stack = stacks::server_to_server(Hop::new("s", service.clone())).unwrap();
        let stack = BoxStack::build(stack, HttpClient::new());
        Self { zone, server, monitor, _directory: directory, service, stack }
    }

    async fn call(&self, request: Request<Body>) -> Result<(), Error> {
        let response = self.stack.clone().oneshot(request).await?;
        assert_eq!(response.status(), 200);
        Ok(())
    }

    fn view(&self) -> ServiceView {
        self.monitor.snapshot().directories[0].services[0].clone()
    }

    /// There is nobody to call: refused on this side, held against nobody, nothing kept.
    async fn has_nobody(&self) {
        let error = self.call(post()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoEndpoint);
        assert!(error.is_rejected() && error.is_unsent());
        assert_eq!(Outcome::of_error(&error), Outcome::Ignored);
        let seen = self.monitor.snapshot();
        assert_eq!(seen.retries[0].attempts, seen.retries[0].calls, "asking again would be refused again");
        assert_eq!((seen.bulkheads[0].in_flight, seen.breakers[0].calls), (0, 0));
        assert!(seen.retries[0].budget >= 10.0, "nothing was paid for it: {:?}", seen.retries);
    }

    /// Calls go through, once there is an endpoint.
    async fn goes_through(&self) {
        eventually("there is an endpoint", || !self.service.snapshot().endpoints().is_empty()).await;
        let before = self.server.ran();
        for request in [get(), post()] {
            self.call(request).await.unwrap();
        }
        assert_eq!(self.server.ran(), before + 2);
        let seen = self.monitor.snapshot();
        assert_eq!(seen.bulkheads[0].in_flight, 0);
        assert!(seen.endpoints.iter().all(|endpoint| endpoint.in_flight == 0));
    }
}

fn records(addresses: &[&str]) -> Vec<Record> {
    let name = Name::from_ascii("s.test.").unwrap();
    let record = |address: &&str| {
        let data = match address.parse().unwrap() {
            IpAddr::V4(four) => RData::A(four.into()),
            IpAddr::V6(six) => RData::AAAA(six.into()),
        };
        Record::from_rdata(name.clone(), 1, data)
    };
    addresses.iter().map(record).collect()
}

/// At first nobody is known; once known, nobody is forgotten for it.
async fn lies(lie: Lie) {
    println!("{lie:?}");
    let zone = Zone::default();
    zone.set(records(&["127.0.0.1"]));
    zone.lie(Some(lie));
    let named = Named::new(zone).await;
    named.has_nobody().await;
    named.zone.lie(None);
    named.goes_through().await;
    eventually("it is well", || named.view().stale_for.is_none()).await;
    named.zone.lie(Some(lie));
    eventually("it shows", || named.view().stale_for.is_some() && named.view().error.is_some()).await;
    named.goes_through().await;
}

/// No answer, an answer that there is nothing, and answers to questions that were not asked.
#[tokio::test]
async fn a_name_server_that_says_nothing_of_use_takes_no_endpoint_away() {
    let code = |code| lies(Lie::Code(code));
    tokio::join!(
        lies(Lie::Silence),
        code(ResponseCode::NXDomain),
        code(ResponseCode::NoError),
        code(ResponseCode::ServFail),
        lies(Lie::WrongId),
        lies(Lie::WrongName),
    );
}

#[tokio::test]
async fn an_address_where_nobody_listens_loses_no_request() {
    let zone = Zone::default();
    zone.set(records(&["127.0.0.1", "127.0.0.2"]));
    let named = Named::new(zone).await;
    for _ in 0..5 {
        named.goes_through().await;
    }
    assert_eq!(named.service.snapshot().endpoints().len(), 2);
}

/// What no client should be sent to, whoever says so.
const UNUSABLE: [&str; 8] =
    ["0.0.0.0", "224.0.0.1", "255.255.255.255", "169.254.169.254", "::", "ff02::1", "fe80::1", "::ffff:0.0.0.0"];

#[tokio::test]
async fn addresses_that_are_nobody_s_are_never_called() {
    let zone = Zone::default();
    zone.set(records(&[&["127.0.0.1"][..], &UNUSABLE].concat()));
    let named = Named::new(zone).await;
    named.goes_through().await;
    assert_eq!((named.view().endpoints, named.view().refused), (1, UNUSABLE.len()));
    // Nothing else is said: as good as nothing.
    named.zone.set(records(&UNUSABLE));
    eventually("it shows", || named.view().stale_for.is_some()).await;
    named.goes_through().await;
    named.zone.set(records(&["127.0.0.1"]));
    eventually("it is well", || named.view().stale_for.is_none() && named.view().refused == 0).await;
}

#[tokio::test]
async fn no_address_but_nobody_s_is_as_good_as_none() {
    let zone = Zone::default();
    zone.set(records(&UNUSABLE));
    let named = Named::new(zone).await;
    named.has_nobody().await;
    assert_eq!(named.view().refused, UNUSABLE.len());
    named.zone.set(records(&["127.0.0.1"]));
    named.goes_through().await;
}
