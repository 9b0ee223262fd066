use std::time::Duration;

use hopvine::{
    Directory, ServiceHandle,
    discover::eureka::{Eureka, EurekaPolicy, PushMode, Servers, ZoneAffinity},
    endpoint::{Scheme, Status},
};

use super::server::{Reply, Server, applications, eventually, instance, orders, with};

/// Asks often, and is not pushed to.
pub(crate) fn often() -> EurekaPolicy {
    EurekaPolicy { fetch_interval: Duration::from_millis(20), push: PushMode::Off, ..Default::default() }
}

pub(crate) fn directory(eureka: Eureka) -> Directory {
    Directory::builder().coalesce(Duration::from_millis(1)).source(eureka).build()
}

pub(crate) fn ids(service: &ServiceHandle) -> Vec<String> {
    service.snapshot().endpoints().iter().map(|endpoint| endpoint.id().to_string()).collect()
}

pub(crate) async fn until(service: &ServiceHandle, wanted: &[&str]) {
    eventually(&format!("{wanted:?}"), || service.snapshot().version() > 0 && ids(service) == wanted).await;
}

/// How often everything was fetched.
fn full(server: &Server) -> usize {
    server.lines().iter().filter(|line| *line == "GET /apps/").count()
}

#[tokio::test]
async fn a_service_is_found_by_app_name_and_by_virtual_names_in_any_case() {
    let secure = r#""secureVipAddress":"orders-tls","#;
    let tls = with("ORDERS", 1, "UP", "ADDED", secure)
        .replace(r#""$":8443,"@enabled":"false""#, r#""$":8443,"@enabled":"true""#);
    let plain = with("ORDERS", 2, "OUT_OF_SERVICE", "ADDED", "");
    let named =
        with("STOCK", 3, "DOWN", "ADDED", "").replace(r#""vipAddress":"stock""#, r#""vipAddress":"shelf, Shop.Stock""#);
    let list = applications("DOWN_1_OUT_OF_SERVICE_1_UP_1_", &[("ORDERS", &[tls, plain]), ("STOCK", &[named])]);
    let server = Server::start(move |_| Reply::gzip(&list)).await;
    let eureka = Eureka::builder([server.url()]).policy(often()).build().unwrap();
    let directory = directory(eureka.clone());

    // The poller runs as long as one of its services is used.
    let service = directory.service("orders");
    for name in ["orders", "ORDERS", "Orders"] {
        until(&directory.service(name), &["orders-1", "orders-2"]).await;
    }
    let snapshot = service.snapshot();
    let of = |number: usize| &snapshot.endpoints()[number];
    assert_eq!((of(0).scheme(), of(0).status(), of(0).address().port()), (Scheme::Https, Status::Up, 8443));
    assert_eq!((of(1).scheme(), of(1).status(), of(1).address().port()), (Scheme::Http, Status::Draining, 8080));
    until(&directory.service("orders-TLS"), &["orders-1"]).await;
    for name in ["stock", "shelf", "shop.stock"] {
        until(&directory.service(name), &["stock-3"]).await;
    }
    let stock = directory.service("stock");
    until(&stock, &["stock-3"]).await;
    assert_eq!(stock.snapshot().endpoints()[0].status(), Status::Down);

    // Nobody has it, and that is known.
    until(&directory.service("nobody"), &[]).await;
    assert!(directory.get("nothing").is_none() && directory.get("shelf").is_some());
    let view = eureka.view();
    assert_eq!((view.applications, view.instances, view.pushed, view.error), (2, 3, false, None));
    // One poller for all of them.
    assert_eq!(full(&server), 1, "{:?}", server.lines());
}

#[tokio::test]
async fn changes_come_by_delta_and_a_hash_that_does_not_fit_fetches_everything() {
    let server = Server::start(|_| Reply::json(orders(&[1]))).await;
    let eureka = Eureka::builder([server.url()]).policy(often()).build().unwrap();
    let directory = directory(eureka);
    let service = directory.service("orders");
    until(&service, &["orders-1"]).await;

    // Added, and said again and again.
    server.script(|_| Reply::json(applications("UP_2_", &[("ORDERS", &[instance("ORDERS", 2, "UP")])])));
    until(&service, &["orders-1", "orders-2"]).await;

    // Deleted, once.
    let gone = with("ORDERS", 1, "UP", "DELETED", "");
    server.script(move |_| Reply::json(applications("UP_1_", &[("ORDERS", std::slice::from_ref(&gone))])));
    until(&service, &["orders-2"]).await;
    assert_eq!(full(&server), 1);

    // One was missed.
    server.script(|seen| {
        if seen.path.ends_with("/delta") {
            Reply::json(applications("UP_2_", &[]))
        } else {
            Reply::json(orders(&[2, 3]))
        }
    });
    until(&service, &["orders-2", "orders-3"]).await;
    assert_eq!(full(&server), 2);

    // Deltas are not to be had.
    for status in [403, 404] {
        let before = full(&server);
        server.script(move |seen| {
            if seen.path.ends_with("/delta") { Reply::status(status) } else { Reply::json(orders(&[status / 100])) }
        });
        eventually("a full fetch", || full(&server) > before).await;
    }
    until(&service, &["orders-4"]).await;
}

#[tokio::test]
async fn xml_is_understood_whatever_it_is_called() {
    let document = "<applications>\n  <versions__delta>1</versions__delta>\n  <apps__hashcode>UP_1_</apps__hashcode>\n  <application>\n    <name>ORDERS</name>\n    <instance>\n      <instanceId>orders-1</instanceId>\n      <hostName>10.0.0.1</hostName>\n      <app>ORDERS</app>\n      <ipAddr>10.0.0.1</ipAddr>\n      <status>UP</status>\n      <port enabled=\"true\">8080</port>\n      <vipAddress>orders</vipAddress>\n    </instance>\n  </application>\n</applications>";
    let server = Server::start(move |_| Reply::json(document)).await;
    let eureka = Eureka::builder([server.url()]).policy(often()).build().unwrap();
    let directory = directory(eureka);
    until(&directory.service("orders"), &["orders-1"]).await;
    assert_eq!(server.seen()[0].headers["accept"], "application/json");
    assert_eq!(server.seen()[0].headers["accept-encoding"], "gzip");
}

#[tokio::test]
async fn servers_and_instances_of_our_own_zone_come_first() {
    let zoned = |number: u16, zone: &str, status: &str| {
        with("ORDERS", number, status, "ADDED", &format!(r#""metadata":{{"zone":"{zone}"}},"#))
    };
    let list = |status: &str| {
        let hash = if status == "UP" { "UP_2_" } else { "DOWN_1_UP_1_" };
        applications(hash, &[("ORDERS", &[zoned(1, "a", status), zoned(2, "b", "UP")])])
    };
    let (up, down) = (list("UP"), list("DOWN"));
    let far = Server::start(|_| Reply::json(orders(&[9]))).await;
    let near = Server::start(move |_| Reply::json(&up)).await;
    let servers = Servers::in_zone("b", [far.url()]).unwrap().and_zone("a", [near.url()]).unwrap().zone("a");
    let policy = EurekaPolicy { zones: ZoneAffinity::Prefer, ..often() };
    let directory = directory(Eureka::builder(&servers).policy(policy).build().unwrap());
    let service = directory.service("orders");
    until(&service, &["orders-1"]).await;
    assert!(far.seen().is_empty());

    // None of ours is up: others help out.
    near.script(move |_| Reply::json(&down));
    until(&service, &["orders-1", "orders-2"]).await;
}

#[tokio::test]
async fn nothing_runs_on_when_the_directory_is_shut_down() {
    let server = Server::start(|_| Reply::json(orders(&[1]))).await;
    let eureka = Eureka::builder([server.url()]).policy(often()).build().unwrap();
    let directory = directory(eureka.clone());
    let service = directory.service("orders");
    until(&service, &["orders-1"]).await;
    directory.shutdown().await;
    assert_eq!(ids(&service), ["orders-1"]);
    // The listener and its connections, which go when ours do.
    eventually("no task but the server's listener", || {
        tokio::runtime::Handle::current().metrics().num_alive_tasks() == 1
    })
    .await;
    assert_eq!(eureka.view().instances, 0);
}

#[test]
fn a_bad_setting_is_named() {
    for (urls, words) in [("", "urls"), ("eureka:8761", "url"), ("http://", "url")] {
        let error = Eureka::builder(urls).build().unwrap_err();
        assert!(error.to_string().starts_with(words), "{error}");
    }
    let policy = EurekaPolicy { fetch_interval: Duration::ZERO, ..Default::default() };
    let error = Eureka::builder("http://h:1").policy(policy).build().unwrap_err();
    assert_eq!(error.field(), "fetch_interval");
    let policy = EurekaPolicy { regions: vec!["a&b".into()], ..Default::default() };
    assert_eq!(Eureka::builder("http://h:1").policy(policy).build().unwrap_err().field(), "regions");
    // Several in one text, as Spring writes them.
    let eureka = Eureka::builder("http://a:1/eureka/, http://u:p@b:1/eureka/").build().unwrap();
    assert_eq!(
        format!("{eureka:?}"),
        "Eureka { servers: [(None, ServerUrl(http://a:1/eureka/)), (None, ServerUrl(http://***@b:1/eureka/))], .. }"
    );
}
