//! Whole lives, with the answers that real servers gave to real clients.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use hopvine::{
    discover::eureka::{Eureka, EurekaPolicy, Registration, RegistrationPolicy},
    eureka::InstanceStatus,
};

use super::{
    discovery::{directory, often},
    server::{Reply, Seen, Server, eventually},
};
use crate::recordings::exchanges;

/// What a client asks for, whoever and wherever it is.
fn kind(method: &str, path: &str) -> String {
    let path = path.split('?').next().unwrap().trim_end_matches('/');
    let rest = path.trim_start_matches("/eureka").trim_start_matches("/v2").trim_start_matches("/apps");
    match (method, rest) {
        ("GET", "") => "full".to_owned(),
        ("GET", "/delta") => "delta".to_owned(),
        ("GET", _) => "look".to_owned(),
        (_, rest) if rest.ends_with("/status") || rest.ends_with("/metadata") => "operator".to_owned(),
        (method, _) => method.to_owned(),
    }
}

/// The answers of a recording, each kind in its order; the last one again and again.
fn replay(file: &str) -> impl FnMut(&Seen) -> Reply + Send + 'static {
    let mut answers: HashMap<String, VecDeque<(u16, String)>> = HashMap::new();
    for exchange in exchanges(file) {
        if exchange.status == 0 {
            continue; // only a note, or a connection that was refused
        }
        let kind = kind(&exchange.method, &exchange.path);
        answers.entry(kind).or_default().push_back((exchange.status as u16, exchange.answered));
    }
    move |seen| {
        let kind = kind(&seen.method, &seen.path);
        if kind == "look" || seen.path.contains("/hopvine/") {
            return Reply::not_found();
        }
        let Some(answers) = answers.get_mut(&kind) else {
            return Reply::status(if kind == "delta" { 404 } else { 200 });
        };
        let (status, body) = if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() };
        let format = if body.starts_with('<') { "application/xml" } else { "application/json" };
        Reply::Whole(status, vec![("content-type", format.to_owned())], body.into_bytes())
    }
}

#[tokio::test]
async fn a_whole_life_among_real_answers() {
    for file in [
        "client-spring-2025.0-default",
        "client-spring-2025.0-jersey3",
        "client-spring-2025.0-server-restart",
        "client-spring-2025.0-webclient",
        "client-spring-2025.1-default",
        "client-spring-hoxton-on-hoxton-server",
        "client-npm-4.5.0",
        "client-pypi-0.13.3",
    ] {
        let server = Server::start(replay(file)).await;
        // The registry is restarted in it, and lacks for good who was there as a witness only.
        let policy = EurekaPolicy { removal_grace: Duration::from_millis(200), ..often() };
        let eureka = Eureka::builder([server.url()]).policy(policy).build().unwrap();
        let directory = directory(eureka.clone());
        let service = directory.service(if file.ends_with("restart") { "orders" } else { "stock" });
        let policy = RegistrationPolicy {
            heartbeat_interval: Duration::from_millis(20),
            leave_wait: Duration::from_millis(50),
            ..Default::default()
        };
        let registration = Registration::builder([server.url()], "orders", 18080)
            .host_name("host1")
            .instance_id("host1:orders:8080")
            .status(InstanceStatus::Up)
            .policy(policy)
            .start()
            .unwrap();
        registration.registered(Duration::from_secs(10)).await.unwrap();
        // Who came was seen, and each heartbeat that was answered 404 was followed by a registration.
        eventually(&format!("{file}: who came"), || service.snapshot().version() > 1).await;
        let lost =
            exchanges(file).iter().filter(|said| kind(&said.method, &said.path) == "PUT" && said.status == 404).count();
        assert!(lost > 0, "{file}");
        eventually(&format!("{file}: {lost} new registrations"), || {
            let posts: Vec<_> = server.seen().into_iter().filter(|seen| seen.method == "POST").collect();
            posts.len() > lost.min(2)
        })
        .await;
        // Each with a later time than the one before.
        let dirty = |seen: &Seen| {
            let document: serde_json::Value = serde_json::from_str(&seen.body).unwrap();
            document["instance"]["lastDirtyTimestamp"].as_str().unwrap().parse::<u64>().unwrap()
        };
        let times: Vec<u64> = server.seen().iter().filter(|seen| seen.method == "POST").map(dirty).collect();
        assert!(times.is_sorted_by(|a, b| a < b), "{file}: {times:?}");
        eventually(&format!("{file}: the end of the recording"), || registration.view().registered).await;
        registration.leave().await;
        let ends: Vec<String> =
            server.seen().iter().filter(|seen| seen.method != "GET" && seen.method != "PUT").map(Seen::line).collect();
        assert_eq!(ends.last().unwrap(), "DELETE /apps/ORDERS/host1:orders:8080", "{file}");
        eventually(&format!("{file}: no error"), || eureka.view().error.is_none()).await;
    }
}
