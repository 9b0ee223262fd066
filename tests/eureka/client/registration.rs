use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use hopvine::{
    discover::eureka::{HoldMode, Registration, RegistrationBuilder, RegistrationPolicy, Servers},
    eureka::{InstanceStatus, Limits, json},
};
use tokio::time::Instant;

use super::server::{Reply, Seen, Server, eventually, with};

const LONG: Duration = Duration::from_secs(10);

/// Takes every registration, knows every heartbeat, and nobody from before.
fn takes_all(seen: &Seen) -> Reply {
    match &*seen.method {
        "POST" => Reply::status(204),
        "GET" => Reply::not_found(),
        _ => Reply::status(200),
    }
}

fn orders(server: &Server) -> RegistrationBuilder {
    let policy =
        RegistrationPolicy { heartbeat_interval: LONG, leave_wait: Duration::from_millis(50), ..Default::default() };
    Registration::builder([server.url()], "orders", 8080)
        .host_name("host1")
        .ip_address("10.0.0.1".parse().unwrap())
        .policy(policy)
}

/// What is said, with the status of each registration: `POST UP`.
fn said(server: &Server) -> Vec<String> {
    let said = |seen: &Seen| {
        let path = seen.path.trim_start_matches("/eureka/apps/ORDERS");
        let path = path.split("&lastDirtyTimestamp").next().unwrap();
        if seen.method == "POST" {
            let instance = json::read_instance(seen.body.as_bytes(), &Limits::default()).unwrap();
            format!("POST {}", instance.status)
        } else {
            format!("{} {path}", seen.method)
        }
    };
    server.seen().iter().map(said).collect()
}

#[tokio::test]
async fn what_is_registered_is_what_java_clients_need() {
    let server = Server::start(takes_all).await;
    let servers = Servers::new([server.url()]).unwrap().zone("a");
    let registration = Registration::builder(servers, "orders", 8080)
        .host_name("host1")
        .ip_address("10.0.0.1".parse().unwrap())
        .status_page("/info")
        .health_page("http://elsewhere/health")
        .metadata("version", "1.4")
        .start()
        .unwrap();
    registration.registered(LONG).await.unwrap();
    let sent = &server.seen()[1];
    assert_eq!(sent.line(), "POST /apps/ORDERS");
    assert_eq!(sent.headers["content-type"], "application/json");
    let document: serde_json::Value = serde_json::from_str(&sent.body).unwrap();
    let instance = &document["instance"];
    let wanted = serde_json::json!({
        "instanceId": "host1:orders:8080", "hostName": "host1", "app": "ORDERS", "ipAddr": "10.0.0.1", "status": "STARTING",
        "overriddenStatus": "UNKNOWN", "port": {"$": 8080, "@enabled": "true"}, "securePort": {"$": 443, "@enabled": "false"},
        "dataCenterInfo": {"@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn"},
        "metadata": {"zone": "a", "version": "1.4"}, "homePageUrl": "http://host1:8080/", "statusPageUrl": "http://host1:8080/info",
        "healthCheckUrl": "http://elsewhere/health", "vipAddress": "orders", "secureVipAddress": "orders"
    });
    for (name, value) in wanted.as_object().unwrap() {
        assert_eq!(&instance[name], value, "{name}");
    }
    assert_eq!(
        (&instance["leaseInfo"]["renewalIntervalInSecs"], &instance["leaseInfo"]["durationInSecs"]),
        (&30.into(), &90.into())
    );
    assert!(instance["lastDirtyTimestamp"].as_str().unwrap().parse::<u64>().unwrap() > 1_700_000_000_000);

    // Without being told anything, and over TLS alone.
    let secure = Registration::builder([server.url()], "pay", 8443).secure().prefer_ip_address().start().unwrap();
    let instance = secure.instance();
    assert_eq!(instance.host_name, instance.ip_addr);
    assert!(instance.ip_addr.parse::<std::net::IpAddr>().is_ok());
    assert_eq!((instance.port.enabled, instance.secure_port.number, instance.secure_port.enabled), (false, 8443, true));
    assert!(instance.home_page_url.as_ref().unwrap().starts_with("https://"));
}

#[tokio::test]
async fn a_heartbeat_that_is_answered_404_registers_again_at_once_whatever_the_page_says() {
    let server = Server::start(takes_all).await;
    let policy = RegistrationPolicy { heartbeat_interval: Duration::from_millis(20), ..Default::default() };
    let registration = orders(&server).policy(policy).status(InstanceStatus::Up).start().unwrap();
    registration.registered(LONG).await.unwrap();
    eventually("heartbeats", || server.count("PUT") > 2).await;
    let dirty = |seen: &Seen| seen.path.split("lastDirtyTimestamp=").nth(1).unwrap().parse::<u64>().unwrap();
    let before = server.seen().iter().rev().find(|seen| seen.method == "PUT").map(dirty).unwrap();

    for page in [
        Reply::not_found as fn() -> Reply,
        || Reply::status(404),
        || Reply::Whole(404, vec![("content-type", "text/html".into())], b"<html>".to_vec()),
    ] {
        let posts = server.count("POST");
        let mut lost = true;
        server.script(
            move |seen| {
                if seen.method == "PUT" && std::mem::take(&mut lost) { page() } else { takes_all(seen) }
            },
        );
        eventually("a registration", || server.count("POST") > posts).await;
        let lines = server.lines();
        let post = lines.iter().rposition(|line| line.starts_with("POST")).unwrap();
        assert!(lines[post - 1].starts_with("PUT /apps/ORDERS/host1:orders:8080?status=UP"), "{lines:?}");
    }
    eventually("heartbeats", || server.lines().last().unwrap().starts_with("PUT")).await;
    let after = server.seen().iter().rev().find(|seen| seen.method == "PUT").map(dirty).unwrap();
    assert!(after > before);
}

#[tokio::test]
async fn leaving_is_told_first_and_done_last() {
    let server = Server::start(takes_all).await;
    let registration = orders(&server).status(InstanceStatus::Up).start().unwrap();
    registration.registered(LONG).await.unwrap();
    let drained = AtomicBool::new(false);
    let before = Instant::now();
    registration
        .leave_after(async {
            assert_eq!(said(&server).last().unwrap(), "POST DOWN");
            assert!(before.elapsed() >= Duration::from_millis(50));
            drained.store(true, SeqCst);
        })
        .await;
    assert!(drained.load(SeqCst));
    assert_eq!(said(&server), ["GET /host1:orders:8080", "POST UP", "POST DOWN", "DELETE /host1:orders:8080"]);
}

#[tokio::test]
async fn an_axum_server_serves_on_until_callers_know_and_then_leaves() {
    let server = Server::start(takes_all).await;
    let registration = orders(&server).start().unwrap();
    registration.up();
    registration.registered(LONG).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let signal = registration.leaving_on(async move { _ = stopped.await });
    let serving = async { axum::serve(listener, axum::Router::new()).with_graceful_shutdown(signal).await.unwrap() };
    let caller = async {
        stop.send(()).unwrap();
        eventually("DOWN is told", || said(&server).last().unwrap() == "POST DOWN").await;
        // Calls are still taken.
        drop(tokio::net::TcpStream::connect(address).await.unwrap());
    };
    tokio::join!(serving, caller);
    assert!(!said(&server).iter().any(|said| said.starts_with("DELETE")));
    registration.leave().await;
    let said = said(&server);
    assert_eq!(said[said.len() - 2..], ["POST DOWN", "DELETE /host1:orders:8080"]);
}

#[tokio::test]
async fn a_registration_that_is_dropped_leaves_and_its_task_ends() {
    let server = Server::start(takes_all).await;
    let registration = orders(&server).start().unwrap();
    registration.registered(LONG).await.unwrap();
    drop(registration);
    eventually("it has left", || said(&server).last().unwrap() == "DELETE /host1:orders:8080").await;
    // The listener stays.
    eventually("no task", || tokio::runtime::Handle::current().metrics().num_alive_tasks() == 1).await;

    // With a registry that never answers it ends too.
    server.script(|_| Reply::Never);
    let registration = orders(&server).start().unwrap();
    eventually("asked", || server.lines().last().unwrap().starts_with("GET")).await;
    drop(registration);
    eventually("no task", || tokio::runtime::Handle::current().metrics().num_alive_tasks() == 1).await;
}

#[tokio::test]
async fn out_of_service_by_hand_holds_at_a_java_server_and_ends() {
    let server = Server::start(takes_all).await;
    let registration = orders(&server).status(InstanceStatus::Up).start().unwrap();
    registration.registered(LONG).await.unwrap();
    registration.set_status(InstanceStatus::OutOfService);
    registration.registered(LONG).await.unwrap();
    registration.up();
    registration.registered(LONG).await.unwrap();
    let id = "/host1:orders:8080";
    assert_eq!(
        said(&server),
        [
            format!("GET {id}"),
            "POST UP".to_owned(),
            "POST STARTING".to_owned(),
            format!("PUT {id}/status?value=OUT_OF_SERVICE"),
            format!("DELETE {id}/status?value=UP"),
            "POST UP".to_owned()
        ]
    );
    let marked: Vec<bool> = server
        .seen()
        .iter()
        .filter(|seen| seen.method == "POST")
        .map(|seen| seen.body.contains("hopvine.out-of-service"))
        .collect();
    assert_eq!(marked, [false, true, false]);
}

#[tokio::test]
async fn an_own_override_of_an_earlier_life_is_cleared_and_an_operators_is_not() {
    for (metadata, cleared) in [(r#"{"hopvine.out-of-service":"self"}"#, true), (r#"{"a":"b"}"#, false)] {
        let more = format!(r#""overriddenStatus":"OUT_OF_SERVICE","metadata":{metadata},"#);
        let earlier = format!(r#"{{"instance":{}}}"#, with("ORDERS", 1, "OUT_OF_SERVICE", "MODIFIED", &more));
        let script = move |seen: &Seen| if seen.method == "GET" { Reply::json(&*earlier) } else { takes_all(seen) };
        let server = Server::start(script).await;
        let registration = orders(&server).status(InstanceStatus::Up).start().unwrap();
        registration.registered(LONG).await.unwrap();
        let clears = said(&server)[1] == "DELETE /host1:orders:8080/status";
        assert_eq!(clears, cleared, "{:?}", said(&server));
    }
}

#[tokio::test]
async fn a_health_check_says_what_we_are_and_one_that_hangs_or_panics_is_down() {
    for (fault, status) in [("down", "DOWN"), ("hangs", "DOWN"), ("panics", "DOWN"), ("unknown", "UNKNOWN")] {
        let server = Server::start(takes_all).await;
        let policy = RegistrationPolicy {
            heartbeat_interval: LONG,
            health_interval: Duration::from_millis(5),
            health_timeout: Duration::from_millis(500),
            ..Default::default()
        };
        let faulty = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&faulty);
        let check = move || {
            let faulty = asked.load(SeqCst);
            async move {
                match fault {
                    _ if !faulty => InstanceStatus::Up,
                    "hangs" => std::future::pending().await,
                    "panics" => panic!("the check is broken"),
                    "unknown" => InstanceStatus::Unknown,
                    _ => InstanceStatus::Down,
                }
            }
        };
        let registration = orders(&server).policy(policy).health(check).start().unwrap();
        eventually("UP", || said(&server).last().is_some_and(|said| said == "POST UP")).await;
        faulty.store(true, SeqCst);
        eventually(fault, || *said(&server).last().unwrap() == format!("POST {status}")).await;
        // By hand it stays out, though the check says otherwise.
        registration.set_status(InstanceStatus::Down);
        faulty.store(false, SeqCst);
        registration.registered(LONG).await.unwrap();
        assert_eq!(registration.view().status, InstanceStatus::Down, "{fault}");
    }
}

#[tokio::test]
async fn a_registry_that_is_away_or_refuses_is_asked_again_and_the_reason_told() {
    let server = Server::start(takes_all).await;
    let builder = orders(&server);
    let address = server.stop().await;
    let registration = builder.status(InstanceStatus::Up).start().unwrap();
    let error = registration.registered(Duration::from_millis(300)).await.unwrap_err();
    assert!(error.to_string().contains("no server answered"), "{error}");
    let refuse = |seen: &Seen| match &*seen.method {
        "POST" => Reply::Whole(400, vec![], b"Missing \x1b[31mhostname".to_vec()),
        _ => takes_all(seen),
    };
    let server = Server::start_at(address, refuse).await;
    let told = || {
        registration.view().error.is_some_and(|error| error.contains("400 Bad Request: Missing \\u{1b}[31mhostname"))
    };
    eventually("the reason", told).await;
    server.script(takes_all);
    registration.registered(LONG).await.unwrap();
    assert_eq!(registration.view().error, None);
}

#[tokio::test]
async fn a_heartbeat_goes_to_the_next_server_and_is_registered_there_if_need_be() {
    let servers = [Server::start(takes_all).await, Server::start(takes_all).await];
    let policy = RegistrationPolicy { heartbeat_interval: Duration::from_millis(20), ..Default::default() };
    let urls = servers.each_ref().map(Server::url);
    let registration =
        Registration::builder(urls, "orders", 80).status(InstanceStatus::Up).policy(policy).start().unwrap();
    registration.registered(LONG).await.unwrap();
    let first = registration.view().server.unwrap();
    let (here, there) = if first == servers[0].url() { (0, 1) } else { (1, 0) };
    assert!(servers[there].seen().is_empty());
    servers[here].script(|_| Reply::status(500));
    let mut known = false;
    servers[there].script(move |seen| match &*seen.method {
        "PUT" if !known => Reply::not_found(),
        "POST" => {
            known = true;
            Reply::status(204)
        }
        _ => takes_all(seen),
    });
    eventually("registered there", || servers[there].count("POST") == 1 && servers[there].count("PUT") > 2).await;
    assert_eq!(registration.view().server, Some(servers[there].url()));
}

#[tokio::test]
async fn a_connection_is_held_and_made_anew_when_it_breaks() {
    let pushes = Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = Arc::clone(&pushes);
    let script = move |seen: &Seen| {
        if !seen.path.starts_with("/hopvine/v1/watch") {
            return takes_all(seen);
        }
        let (sender, lines) = tokio::sync::mpsc::unbounded_channel();
        sender.send("{\"version\":1,\"apps__hashcode\":\"\"}\n".to_owned()).unwrap();
        kept.lock().unwrap().push(sender);
        Reply::Push(lines)
    };
    let server = Server::start(script).await;
    let policy = RegistrationPolicy {
        heartbeat_interval: LONG,
        hold: HoldMode::On,
        leave_wait: Duration::ZERO,
        ..Default::default()
    };
    let registration = orders(&server).policy(policy).start().unwrap();
    eventually("held", || pushes.lock().unwrap().len() == 1).await;
    let watch = "GET /hopvine/v1/watch?app=ORDERS&instance=ORDERS%2Fhost1:orders:8080";
    assert_eq!(server.lines().last().unwrap(), watch);
    pushes.lock().unwrap().clear();
    eventually("held again", || pushes.lock().unwrap().len() == 1).await;
    // That may have taken too long: the registry is asked at once whether it still knows us.
    eventually("a heartbeat", || server.count("PUT") == 1).await;
    // Let go only when the registry knows that we left.
    let sender = pushes.lock().unwrap()[0].clone();
    registration.leave().await;
    assert_eq!(server.lines().last().unwrap(), "DELETE /apps/ORDERS/host1:orders:8080");
    eventually("let go", || sender.is_closed()).await;
}
