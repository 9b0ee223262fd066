use std::{
    io::Write,
    sync::{Arc, Mutex},
    time::Duration,
};

use hopvine::{
    Directory, Monitor,
    discover::eureka::{Eureka, EurekaPolicy, FetchMode, Registration, Servers, ServersPolicy},
};

use super::{
    discovery::{directory, ids, often, until},
    server::{Reply, Seen, Server, applications, eventually, gzip, instance, orders, with},
};

fn servers(urls: &[String]) -> Servers {
    let policy =
        ServersPolicy { request_timeout: Duration::from_millis(600), max_bytes: 100_000, ..Default::default() };
    Servers::new(urls).unwrap().policy(policy).unwrap()
}

#[tokio::test]
async fn of_three_servers_one_that_works_is_found_and_stayed_with() {
    let refuses = Server::start(|_| Reply::status(200)).await.stop().await;
    let broken = Server::start(|_| Reply::status(500)).await;
    let works = Server::start(|_| Reply::json(orders(&[1]))).await;
    let urls = [format!("http://{refuses}/eureka/"), broken.url(), works.url()];
    let directory = directory(Eureka::builder(servers(&urls)).policy(often()).build().unwrap());
    let service = directory.service("orders");
    until(&service, &["orders-1"]).await;
    let failed = broken.seen().len();
    eventually("it is stayed with", || works.seen().len() > 5).await;
    assert_eq!(broken.seen().len(), failed);

    // The others work now, and it stops: on to one of them, whose copy may be another.
    broken.script(|_| Reply::json(orders(&[2])));
    works.stop().await;
    until(&service, &["orders-2"]).await;
}

/// What it is called, and what is answered.
type Fault = (&'static str, Box<dyn Fn() -> Reply + Send>);

#[tokio::test]
async fn whatever_a_server_answers_the_last_good_set_stays_until_it_is_itself_again() {
    let server = Server::start(|_| Reply::json(orders(&[1]))).await;
    let monitor = Monitor::new();
    let eureka = Eureka::builder(servers(&[server.url()])).policy(often()).build().unwrap();
    let directory = Directory::builder().monitor(&monitor).source(eureka).build();
    let service = directory.service("orders");
    until(&service, &["orders-1"]).await;
    let view = || monitor.snapshot().directories[0].services[0].clone();

    let deep = format!(r#"{{"applications":{{"x":{}{}}}}}"#, "[".repeat(200), "]".repeat(200));
    let bomb = gzip(&vec![b' '; 10_000_000]);
    let half = bomb[..bomb.len() / 2].to_vec();
    assert!(bomb.len() < 100_000);
    let packed = |bytes: Vec<u8>| move || Reply::Whole(200, vec![("content-encoding", "gzip".into())], bytes.clone());
    let faults: Vec<Fault> = vec![
        ("garbage", Box::new(|| Reply::json("<<<what>>>"))),
        ("garbage", Box::new(|| Reply::json(""))),
        ("a page", Box::new(|| Reply::json("<html><body>busy</body></html>"))),
        ("a nest", Box::new(move || Reply::json(&*deep))),
        ("too long", Box::new(|| Reply::json(" ".repeat(200_000)))),
        ("a bomb", Box::new(packed(bomb))),
        ("half of it", Box::new(packed(half))),
        ("no gzip", Box::new(packed(b"plain".to_vec()))),
        ("another packing", Box::new(|| Reply::Whole(200, vec![("content-encoding", "br".into())], vec![1]))),
        ("an error", Box::new(|| Reply::status(503))),
        ("silence", Box::new(|| Reply::Never)),
    ];
    for (what, fault) in faults {
        server.script(move |_| fault());
        eventually(what, || view().stale_for.is_some()).await;
        let error = view().error.unwrap();
        assert!(error.starts_with(&format!("no server answered: {}: ", server.url())), "{what}: {error}");
        assert_eq!(ids(&service), ["orders-1"], "{what}");
        server.script(|_| Reply::json(orders(&[1])));
        eventually(what, || view().stale_for.is_none() && view().error.is_none()).await;
    }
    // And with the registry gone altogether, and back.
    let address = server.stop().await;
    eventually("gone", || view().stale_for.is_some()).await;
    assert_eq!(ids(&service), ["orders-1"]);
    let _server = Server::start_at(address, |_| Reply::json(orders(&[1, 2]))).await;
    until(&service, &["orders-1", "orders-2"]).await;
    assert_eq!(view().stale_for, None);
}

#[tokio::test]
async fn a_registry_that_comes_back_empty_empties_nobody_until_its_instances_had_time() {
    let server = Server::start(|_| Reply::json(orders(&[1, 2]))).await;
    let monitor = Monitor::new();
    let policy = EurekaPolicy { removal_grace: Duration::from_secs(2), ..often() };
    let eureka = Eureka::builder(servers(&[server.url()])).policy(policy).build().unwrap();
    let directory = Directory::builder().monitor(&monitor).source(eureka).build();
    let service = directory.service("orders");
    until(&service, &["orders-1", "orders-2"]).await;
    let view = || monitor.snapshot().directories[0].services[0].clone();

    server.script(|_| Reply::json(orders(&[])));
    eventually("it is told", || view().error.is_some_and(|error| error.contains("lists 0 instances"))).await;
    assert_eq!(ids(&service), ["orders-1", "orders-2"]);
    // One has come back; the other has as long as was said in the beginning.
    server.script(|_| Reply::json(orders(&[2])));
    eventually("it is told", || view().error.is_some_and(|error| error.contains("lists 1 instances"))).await;
    assert_eq!(ids(&service).len(), 2);
    until(&service, &["orders-2"]).await;
    eventually("all is well", || view().error.is_none()).await;
    // And if nobody comes, there is nobody.
    server.script(|_| Reply::json(orders(&[])));
    until(&service, &[]).await;
}

fn orders_and_stock(orders: &[u16], stock: &[u16]) -> String {
    let of = |app: &'static str, numbers: &[u16]| -> Vec<_> {
        numbers.iter().map(|number| instance(app, *number, "UP")).collect()
    };
    let hash = format!("UP_{}_", orders.len() + stock.len());
    applications(&hash, &[("ORDERS", &of("ORDERS", orders)), ("STOCK", &of("STOCK", stock))])
}

#[tokio::test]
async fn a_registry_that_comes_back_with_others_first_empties_no_service_whose_instances_are_late() {
    let (before, after) = (orders_and_stock(&[1, 2], &[1]), orders_and_stock(&[], &[1, 2, 3, 4, 5, 6]));
    let server = Server::start(move |_| Reply::json(before.clone())).await;
    let policy = EurekaPolicy { removal_grace: Duration::from_secs(3), ..often() };
    let eureka = Eureka::builder(servers(&[server.url()])).policy(policy).build().unwrap();
    let directory = Directory::builder().source(eureka).build();
    let (service, others) = (directory.service("orders"), directory.service("stock"));
    until(&service, &["orders-1", "orders-2"]).await;

    server.script(move |_| Reply::json(after.clone()));
    eventually("the others are there", || ids(&others).len() == 6).await;
    assert_eq!(ids(&service), ["orders-1", "orders-2"]);
    until(&service, &[]).await;
}

#[tokio::test]
async fn the_last_instance_that_leaves_in_order_is_called_no_more_where_everything_is_fetched_each_time() {
    // Because it is wanted so, or because the server tells no deltas.
    for fetch in [FetchMode::Full, FetchMode::Deltas] {
        let lists = |list: String| {
            move |seen: &Seen| match &*seen.path {
                "/eureka/apps/delta" => Reply::status(403),
                _ => Reply::json(list.clone()),
            }
        };
        let server = Server::start(lists(orders_and_stock(&[1], &[1, 2, 3, 4]))).await;
        let eureka = Eureka::builder(servers(&[server.url()])).policy(EurekaPolicy { fetch, ..often() });
        let eureka = eureka.build().unwrap();
        let directory = Directory::builder().source(eureka.clone()).build();
        let (service, others) = (directory.service("orders"), directory.service("stock"));
        until(&service, &["orders-1"]).await;
        // With the default grace it would stay for longer than is waited here.
        server.script(lists(orders_and_stock(&[], &[1, 2, 3, 4])));
        until(&service, &[]).await;
        assert_eq!(eureka.view().error, None);

        // One that suddenly knows few was just started, as elsewhere.
        server.script(lists(orders_and_stock(&[], &[1])));
        eventually("it is told", || eureka.view().error.is_some_and(|error| error.contains("lists 1 instances"))).await;
        assert_eq!(ids(&others).len(), 4);
    }
}

#[tokio::test]
async fn another_server_that_lags_empties_no_service_where_everything_is_fetched_each_time() {
    let first = Server::start(|_| Reply::json(orders_and_stock(&[1], &[1]))).await;
    let second = Server::start(|_| Reply::json(orders_and_stock(&[], &[1, 2, 3]))).await;
    let servers = Servers::in_zone("a", [first.url()]).unwrap().and_zone("b", [second.url()]).unwrap().zone("a");
    let eureka = Eureka::builder(servers).policy(EurekaPolicy { fetch: FetchMode::Full, ..often() }).build().unwrap();
    let directory = Directory::builder().source(eureka.clone()).build();
    let (service, others) = (directory.service("orders"), directory.service("stock"));
    until(&service, &["orders-1"]).await;
    first.stop().await;
    eventually("the second answers", || ids(&others).len() == 3).await;
    assert!(eureka.view().error.is_some_and(|error| error.contains("stay for a while")));
    assert_eq!(ids(&service), ["orders-1"]);
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_password_is_never_logged_shown_or_sent_elsewhere() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let other = Server::start(|_| Reply::json(orders(&[9]))).await;
    let elsewhere = format!("{}apps/", other.url());
    let redirects = Server::start(move |_| Reply::Whole(302, vec![("location", elsewhere.clone())], vec![])).await;
    let own = Server::start(|seen| match &*seen.path {
        "/eureka/apps/" => Reply::Whole(307, vec![("location", "/eureka/v2/apps".into())], vec![]),
        "/eureka/v2/apps" => Reply::json(orders(&[1])),
        _ => Reply::not_found(),
    })
    .await;
    let with_password = |server: &Server, password: &str| server.url().replace("://", &format!("://shop:{password}@"));

    let monitor = Monitor::new();
    let urls = [with_password(&redirects, "s3cret-one")];
    let eureka = Eureka::builder(servers(&urls)).build().unwrap();
    let directory = Directory::builder().monitor(&monitor).source(eureka.clone()).build();
    let service = directory.service("orders");
    let registration = Registration::builder(servers(&urls), "shop", 80).start().unwrap();
    eventually("a failure", || monitor.snapshot().directories[0].services[0].error.is_some()).await;
    eventually("a failure", || registration.view().error.is_some()).await;
    let error = monitor.snapshot().directories[0].services[0].error.clone().unwrap();
    assert!(error.contains("***@") && error.contains("another host"), "{error}");
    assert!(other.seen().is_empty());
    assert_eq!(redirects.seen()[0].headers["authorization"], "Basic c2hvcDpzM2NyZXQtb25l");

    // At the same server a redirect is followed, with the password of that server.
    let mine = Eureka::builder(servers(&[with_password(&own, "s3cret-two"), redirects.url()]));
    let mine = mine.policy(often()).build().unwrap();
    let directory = super::discovery::directory(mine.clone());
    let found = directory.service("orders");
    until(&found, &["orders-1"]).await;
    assert!(own.seen().iter().all(|seen| seen.headers["authorization"] == "Basic c2hvcDpzM2NyZXQtdHdv"));
    let theirs = redirects.seen();
    let theirs = theirs.iter().filter_map(|seen| seen.headers.get("authorization"));
    assert!(theirs.into_iter().all(|value| value == "Basic c2hvcDpzM2NyZXQtb25l"));

    drop(registration);
    let shown = format!("{eureka:?} {mine:?} {:?} {:?} {service:?}", eureka.view(), monitor.snapshot());
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("hopvine::eureka"), "nothing was logged");
    for secret in ["s3cret", "c2hvcDpz"] {
        assert!(!shown.contains(secret), "{shown}");
        assert!(!logged.contains(secret), "{logged}");
    }
}

#[tokio::test]
async fn one_who_registers_far_too_much_freezes_no_client_and_makes_none_fetch_everything() {
    let far = with("ORDERS", 2, "UP", "ADDED", &format!("\"homePageUrl\":\"http://{}\",", "x".repeat(9000)));
    let all = applications("UP_2_", &[("ORDERS", &[instance("ORDERS", 1, "UP"), far.clone()])]);
    let delta = applications("UP_2_", &[("ORDERS", &[far])]);
    let answer = move |seen: &Seen| Reply::json(if seen.path.contains("delta") { delta.clone() } else { all.clone() });
    let server = Server::start(answer).await;
    let eureka = Eureka::builder(servers(&[server.url()])).policy(often()).build().unwrap();
    let service = directory(eureka).service("orders");
    until(&service, &["orders-1"]).await;
    eventually("deltas go on", || server.count("GET /apps/delta") >= 3).await;
    assert_eq!(server.count("GET /apps/"), server.count("GET /apps/delta") + 1, "everything was fetched once");

    // It leaves, and somebody else comes.
    let gone = with("ORDERS", 2, "UP", "DELETED", "");
    let delta = applications("UP_2_", &[("ORDERS", &[gone, instance("ORDERS", 3, "UP")])]);
    server.script(move |_| Reply::json(delta.clone()));
    until(&service, &["orders-1", "orders-3"]).await;
    assert_eq!(server.count("GET /apps/"), server.count("GET /apps/delta") + 1);
}
