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
async fn a_server_that_goes_away_and_does_not_finish_what_it_took() {
    for fault in [Fault::GoesAwayAbove, Fault::FailsAbove] {
        holds(fault, &[Failed(Upstream)], Again::Yes, Again::No).await;
    }
}

#[tokio::test]
async fn a_server_that_goes_away_and_finishes_what_it_took() {
    holds(Fault::GoesAwayAndFinishes, &[Whole], Again::No, Again::No).await;
}

#[tokio::test]
async fn a_server_that_goes_away_without_having_looked_at_the_stream() {
    holds(Fault::GoesAwayBelow, &[Unsent(Upstream)], Again::Yes, Again::Yes).await;
    // With an error as its reason, streams below and above are told the same, so nothing is sure.
    holds(Fault::FailsBelow, &[Failed(Upstream)], Again::Yes, Again::No).await;
}

#[tokio::test]
async fn a_stream_that_is_refused() {
    holds(Fault::RefusesTheStream, &[Unsent(Upstream)], Again::Yes, Again::Yes).await;
}

/// It has answered: what it says then cannot be true, and nothing is sent again for it.
#[tokio::test]
async fn a_stream_that_is_refused_after_it_was_answered() {
    holds(Fault::RefusesTheStreamLate, &[BrokenBody], Again::No, Again::No).await;
}

#[tokio::test]
async fn a_stream_that_is_reset() {
    holds(Fault::ResetsTheStream, &[Failed(Upstream)], Again::Yes, Again::No).await;
    holds(Fault::ResetsTheStreamInTheBody, &[BrokenBody], Again::No, Again::No).await;
}

#[tokio::test]
async fn a_server_that_speaks_http1() {
    holds(Fault::SpeaksHttp1, &[Failed(Upstream)], Again::Yes, Again::No).await;
}

/// A host that is gone, say: the connection is not closed, and nothing comes of it. Its place is taken by another one once a ping is not answered.
#[tokio::test]
async fn a_connection_on_which_nothing_is_read_any_more() {
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
