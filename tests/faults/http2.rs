//! What may go wrong in HTTP/2 alone.

use std::time::Duration;

use hopvine::{
    ErrorKind::{AttemptTimeout, Upstream},
    connect::http::{HttpPolicy, Version::Http2},
};

use super::{
    caller::{
        Caller,
        Seen::{self, BrokenBody, Failed, Unsent, Whole},
        get, post,
    },
    case::{Again, Case},
    fault::Fault,
    server::Server,
};

async fn holds(fault: Fault, seen: &'static [Seen], get: Again, post: Again) {
    Case { fault, seen, get, post }.holds_in(Http2).await;
}

#[tokio::test]
async fn a_server_that_goes_away_unfinished_loses_no_get_and_doubles_no_post() {
    for fault in [Fault::GoesAwayAbove, Fault::FailsAbove] {
        holds(fault, &[Failed(Upstream)], Again::Yes, Again::No).await;
    }
}

#[tokio::test]
async fn a_server_that_goes_away_may_finish_what_it_took() {
    holds(Fault::GoesAwayAndFinishes, &[Whole], Again::No, Again::No).await;
}

#[tokio::test]
async fn a_stream_never_looked_at_by_a_server_that_goes_away_loses_no_request() {
    holds(Fault::GoesAwayBelow, &[Unsent(Upstream)], Again::Yes, Again::Yes).await;
    // With an error as its reason, streams below and above are told the same, so nothing is sure.
    holds(Fault::FailsBelow, &[Failed(Upstream)], Again::Yes, Again::No).await;
}

#[tokio::test]
async fn a_refused_stream_loses_no_request() {
    holds(Fault::RefusesTheStream, &[Unsent(Upstream)], Again::Yes, Again::Yes).await;
}

/// It has answered: what it says then cannot be true, and nothing is sent again for it.
#[tokio::test]
async fn a_stream_refused_after_its_answer_is_not_sent_again() {
    holds(Fault::RefusesTheStreamLate, &[BrokenBody], Again::No, Again::No).await;
}

#[tokio::test]
async fn a_reset_stream_loses_no_get_and_doubles_no_post() {
    holds(Fault::ResetsTheStream, &[Failed(Upstream)], Again::Yes, Again::No).await;
    holds(Fault::ResetsTheStreamInTheBody, &[BrokenBody], Again::No, Again::No).await;
}

#[tokio::test]
async fn a_server_that_speaks_http1_loses_no_get() {
    holds(Fault::SpeaksHttp1, &[Failed(Upstream)], Again::Yes, Again::No).await;
}

/// A host that is gone, say: the connection is not closed, and nothing comes of it. Its place is taken by another one once a ping is not answered.
#[tokio::test]
async fn a_frozen_connection_is_replaced() {
    let server = Server::start(Http2).await;
    let policy = HttpPolicy { ping_interval: Duration::from_millis(300), ..Default::default() };
    let caller = Caller::with(&[&server], policy);
    assert_eq!(caller.see(get()).await, Whole);
    server.commit(Fault::Freezes);
    caller.hurry(true);
    assert_eq!(caller.see(post()).await, Failed(AttemptTimeout));
    server.heal();
    caller.hurry(false);
    // On the frozen connection still, or on a new one: it does not wait for ever.
    let seen = caller.see(get()).await;
    assert!([Whole, Failed(Upstream)].contains(&seen), "{seen:?}");
    assert_eq!(caller.see(post()).await, Whole);
    assert_eq!(server.accepted(), 2);
}
