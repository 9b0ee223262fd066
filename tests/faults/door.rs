//! What may go wrong on the way to a connection, in the clear.

use hopvine::{
    ErrorKind::{AttemptTimeout, Connect, Upstream},
    connect::http::{
        HttpPolicy,
        Version::{self, Http1, Http2},
    },
};
use tokio::net::TcpSocket;

use super::{
    caller::{
        Caller,
        Seen::{Failed, Unsent, Whole},
        VERSIONS, get, post,
    },
    case::{Again, Case, poll_times},
    fault::Fault,
    server::Server,
    wait::eventually,
};

#[tokio::test]
async fn a_port_where_nobody_listens_loses_no_request() {
    let fault = Fault::Refuses;
    Case { fault, seen: &[Unsent(Connect)], get: Again::Yes, post: Again::Yes }.holds().await;
}

#[tokio::test]
async fn a_full_backlog_loses_no_request() {
    let fault = Fault::BacklogFull;
    Case { fault, seen: &[Unsent(Connect)], get: Again::Yes, post: Again::Yes }.holds().await;
}

/// As by default, where an attempt may take no longer than a connection: its clock ends the wait for one.
#[tokio::test]
async fn a_request_whose_time_is_up_while_it_waits_for_a_connection_is_not_lost() {
    tokio::join!(waits_alone(Http1), waits_alone(Http2), waits_and_goes_on(Http1), waits_and_goes_on(Http2));
}

async fn waits_alone(version: Version) {
    let full = Server::start_with(version, Some(Fault::BacklogFull), None).await;
    let caller = Caller::with(&[&full], HttpPolicy::default());
    caller.hurry(true);
    assert_eq!(caller.see(post()).await, Unsent(AttemptTimeout));
    assert_eq!(caller.endpoints()[0].counts.timed_out, 1, "it counts against the endpoint all the same");
    full.heal();
    caller.settled(&[&full]).await;
}

async fn waits_and_goes_on(version: Version) {
    let full = Server::start_with(version, Some(Fault::BacklogFull), None).await;
    let good = Server::start(version).await;
    let caller = Caller::with(&[&full, &good], HttpPolicy::default());
    caller.hurry(true);
    assert_eq!(caller.see(post()).await, Whole);
    assert_eq!((full.read(), good.ran()), (0, 1));
    full.heal();
    caller.settled(&[&full, &good]).await;
}

/// The same where all connections are taken.
#[tokio::test]
async fn a_request_whose_time_is_up_while_it_waits_behind_others_is_not_lost() {
    let (busy, good) = (Server::start(Http1).await, Server::start(Http1).await);
    let caller = Caller::with(&[&busy, &good], HttpPolicy { max_connections: 1, ..Default::default() });
    busy.commit(Fault::NeverAnswers);
    let ahead = tokio::spawn(caller.call(get()));
    eventually("the one connection is taken", || busy.read() == 1).await;
    caller.hurry(true);
    assert_eq!(caller.see(post()).await, Whole);
    assert_eq!((busy.read(), good.ran()), (1, 1));
    ahead.abort();
    caller.settled(&[&busy, &good]).await;
}

/// The kernel asks again after a second only: the connection that began before the server was well comes to nothing, and that is not for the next
/// caller to hear.
#[tokio::test]
async fn a_failure_that_began_for_a_caller_who_is_gone_is_not_the_next_one_s() {
    for version in VERSIONS {
        let server = Server::start_with(version, Some(Fault::BacklogFull), None).await;
        let caller = Caller::new(&[&server]);
        assert!(poll_times(caller.call(get()), 3).await.is_none());
        assert_eq!(caller.stats(&server).dialing, 1);
        server.heal();
        assert_eq!(caller.see(post()).await, Whole);
        caller.settled(&[&server]).await;
    }
}

/// Whether the request was written before the reset was seen is a matter of who is faster. Whoever it is, nothing runs twice.
#[tokio::test]
async fn a_reset_at_once_loses_no_get_and_doubles_no_post() {
    let fault = Fault::ResetsAtOnce;
    let seen = &[Unsent(Connect), Failed(Upstream)];
    Case { fault, seen, get: Again::Yes, post: Again::IfUnsent }.holds().await;
}

#[tokio::test]
async fn a_server_that_has_ipv6_alone_is_reached() {
    for version in VERSIONS {
        let socket = TcpSocket::new_v6().unwrap();
        socket.bind("[::1]:0".parse().unwrap()).unwrap();
        let server = Server::start_on(socket, version, None, None).await;
        let caller = Caller::new(&[&server]);
        assert_eq!(caller.see(get()).await, Whole);
        caller.settled(&[&server]).await;
        assert_eq!(caller.see(post()).await, Whole);
        assert_eq!((server.ran(), server.accepted()), (2, 1));
        caller.settled(&[&server]).await;
    }
}
