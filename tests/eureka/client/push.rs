use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use hopvine::discover::eureka::{Eureka, EurekaPolicy};
use tokio::sync::mpsc;

use super::{
    discovery::{directory, ids, until},
    server::{Reply, Seen, Server, applications, eventually, instance, orders, with},
};

const FIRST: &str = "{\"version\":1,\"apps__hashcode\":\"UP_1_\"}\n";

/// What is pushed to the client that follows now.
#[derive(Clone, Default)]
struct Push(Arc<Mutex<Option<mpsc::UnboundedSender<String>>>>);

impl Push {
    fn reply(&self) -> Reply {
        let (sender, lines) = mpsc::unbounded_channel();
        sender.send(FIRST.to_owned()).unwrap();
        *self.0.lock().unwrap() = Some(sender);
        Reply::Push(lines)
    }

    fn say(&self, line: &str) {
        self.0.lock().unwrap().as_ref().unwrap().send(format!("{line}\n")).unwrap();
    }

    fn end(&self) {
        *self.0.lock().unwrap() = None;
    }
}

fn is_watch(seen: &Seen) -> bool {
    seen.path == "/hopvine/v1/watch"
}

#[tokio::test]
async fn a_change_that_is_pushed_is_there_without_asking() {
    let push = Push::default();
    let pushing = push.clone();
    let script = move |seen: &Seen| if is_watch(seen) { pushing.reply() } else { Reply::gzip(orders(&[1])) };
    let server = Server::start(script).await;
    // It would be asked in half a minute only.
    let eureka = Eureka::builder([server.url()]).build().unwrap();
    let directory = directory(eureka.clone());
    let service = directory.service("orders");
    until(&service, &["orders-1"]).await;
    assert!(eureka.view().pushed);
    // Subscribed first, fetched then.
    assert_eq!(server.lines(), ["GET /hopvine/v1/watch", "GET /apps/"]);

    push.say(&applications("UP_2_", &[("ORDERS", &[instance("ORDERS", 2, "UP")])]));
    until(&service, &["orders-1", "orders-2"]).await;
    push.say("");
    push.say(&applications("UP_1_", &[("ORDERS", &[with("ORDERS", 1, "UP", "DELETED", "")])]));
    until(&service, &["orders-2"]).await;
    assert_eq!(server.seen().len(), 2);

    // One line was lost: what was missed is fetched, from the same server, while it is followed.
    let pushing = push.clone();
    server.script(move |seen| if is_watch(seen) { pushing.reply() } else { Reply::json(orders(&[2, 3, 4])) });
    push.say(&applications("UP_3_", &[("ORDERS", &[instance("ORDERS", 4, "UP")])]));
    until(&service, &["orders-2", "orders-3", "orders-4"]).await;
    assert_eq!(server.lines()[2..], ["GET /apps/delta"]);

    // Its end is noticed, and made up for at once.
    let pushing = push.clone();
    server.script(move |seen| if is_watch(seen) { pushing.reply() } else { Reply::json(orders(&[5, 6, 7])) });
    push.end();
    until(&service, &["orders-5", "orders-6", "orders-7"]).await;
    eventually("followed again", || server.count("GET /hopvine/v1/watch") == 2 && eureka.view().pushed).await;
}

#[tokio::test]
async fn a_list_that_was_made_before_the_stream_began_is_fetched_again() {
    let push = Push::default();
    let mut lists = [orders(&[1, 2]), orders(&[2])].into_iter();
    let script = move |seen: &Seen| match &*seen.path {
        "/hopvine/v1/watch" => push.reply(),
        "/eureka/apps/" => Reply::json(lists.next().unwrap_or_else(|| orders(&[9]))),
        _ => Reply::json(applications("UP_1_", &[])),
    };
    let server = Server::start(script).await;
    let directory = directory(Eureka::builder([server.url()]).build().unwrap());
    let service = directory.service("orders");
    // The stream says that there is one.
    until(&service, &["orders-2"]).await;
    assert_eq!(server.lines(), ["GET /hopvine/v1/watch", "GET /apps/", "GET /apps/delta", "GET /apps/"]);
}

#[tokio::test]
async fn a_server_that_does_not_push_is_asked() {
    let policy = EurekaPolicy { fetch_interval: Duration::from_millis(20), ..Default::default() };
    let page = || Reply::Whole(200, vec![("content-type", "text/html".to_owned())], b"<html>".to_vec());
    let answers: [fn() -> Reply; 3] = [Reply::not_found, || Reply::status(401), page];
    for answer in answers {
        let script = move |seen: &Seen| if is_watch(seen) { answer() } else { Reply::json(orders(&[1])) };
        let server = Server::start(script).await;
        let eureka = Eureka::builder([server.url()]).policy(policy.clone()).build().unwrap();
        let directory = directory(eureka.clone());
        let service = directory.service("orders");
        until(&service, &["orders-1"]).await;
        server.script(|seen| if is_watch(seen) { Reply::status(404) } else { Reply::json(orders(&[1, 2])) });
        until(&service, &["orders-1", "orders-2"]).await;
        // And not asked for a push with each.
        assert_eq!((server.count("GET /hopvine"), eureka.view().pushed), (1, false));
    }
}

#[tokio::test]
async fn a_push_of_nonsense_is_given_up_and_the_server_asked() {
    let push = Push::default();
    let pushing = push.clone();
    let script = move |seen: &Seen| if is_watch(seen) { pushing.reply() } else { Reply::json(orders(&[1])) };
    let server = Server::start(script).await;
    let eureka = Eureka::builder([server.url()]).build().unwrap();
    let directory = directory(eureka.clone());
    let service = directory.service("orders");
    until(&service, &["orders-1"]).await;
    server.script(|seen| if is_watch(seen) { Reply::status(503) } else { Reply::json(orders(&[7])) });
    push.say("nonsense");
    until(&service, &["orders-7"]).await;
    assert!(!eureka.view().pushed);
    assert_eq!(ids(&service), ["orders-7"]);
}

#[tokio::test]
async fn when_the_server_that_is_followed_dies_another_is() {
    let (first, second) = (Push::default(), Push::default());
    let script = |push: &Push, number: u16| {
        let push = push.clone();
        move |seen: &Seen| if is_watch(seen) { push.reply() } else { Reply::json(orders(&[number])) }
    };
    let a = Server::start(script(&first, 1)).await;
    let b = Server::start(script(&second, 2)).await;
    let servers = hopvine::discover::eureka::Servers::in_zone("a", [a.url()]).unwrap();
    let servers = servers.and_zone("b", [b.url()]).unwrap().zone("a");
    let eureka = Eureka::builder(servers).build().unwrap();
    let directory = directory(eureka.clone());
    let service = directory.service("orders");
    until(&service, &["orders-1"]).await;
    a.stop().await;
    until(&service, &["orders-2"]).await;
    eventually("followed", || eureka.view().pushed).await;
    assert_eq!(eureka.view().server, Some(b.url()));
}
