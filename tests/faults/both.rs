//! What may go wrong in either version of HTTP once a request has been read.

use hopvine::{
    ErrorKind::{AttemptTimeout, Upstream},
    connect::http::Version,
};

use super::{
    caller::{
        Caller,
        Seen::{BrokenBody, EndlessBody, Failed, Whole},
        VERSIONS, get, post,
    },
    case::{Again, Case},
    fault::Fault,
    server::Server,
};

/// Broken before a head was there: it may have run.
async fn breaks(fault: Fault) {
    Case { fault, seen: &[Failed(Upstream)], get: Again::Yes, post: Again::No }.holds().await;
}

/// The head was there: the call is answered, and its body is the caller's.
async fn breaks_in_the_body(fault: Fault) {
    Case { fault, seen: &[BrokenBody], get: Again::No, post: Again::No }.holds().await;
}

#[tokio::test]
async fn a_reset_before_a_byte_loses_no_get_and_doubles_no_post() {
    breaks(Fault::ResetsBeforeAByte).await;
}

#[tokio::test]
async fn a_reset_in_the_head_loses_no_get_and_doubles_no_post() {
    breaks(Fault::ResetsInTheHead).await;
}

#[tokio::test]
async fn a_reset_in_the_body_is_told_to_who_reads_it() {
    breaks_in_the_body(Fault::ResetsInTheBody).await;
}

#[tokio::test]
async fn a_half_close_before_a_byte_loses_no_get_and_doubles_no_post() {
    breaks(Fault::EndsBeforeAByte).await;
}

#[tokio::test]
async fn a_half_close_in_the_head_loses_no_get_and_doubles_no_post() {
    breaks(Fault::EndsInTheHead).await;
}

#[tokio::test]
async fn a_half_close_in_the_body_is_told_to_who_reads_it() {
    breaks_in_the_body(Fault::EndsInTheBody).await;
}

#[tokio::test]
async fn a_server_that_never_answers_loses_no_get_and_doubles_no_post() {
    let fault = Fault::NeverAnswers;
    Case { fault, seen: &[Failed(AttemptTimeout)], get: Again::Yes, post: Again::No }.holds().await;
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_does_not_outlast_its_attempt() {
    let fault = Fault::TricklesTheHead;
    Case { fault, seen: &[Failed(AttemptTimeout)], get: Again::Yes, post: Again::No }.holds().await;
}

#[tokio::test]
async fn a_body_that_comes_byte_by_byte_holds_nothing_once_it_is_dropped() {
    let fault = Fault::TricklesTheBody;
    Case { fault, seen: &[EndlessBody], get: Again::No, post: Again::No }.holds().await;
}

#[tokio::test]
async fn interim_responses_without_end_do_not_outlast_their_attempt() {
    let fault = Fault::PutsOff;
    Case { fault, seen: &[Failed(AttemptTimeout)], get: Again::Yes, post: Again::No }.holds().await;
}

#[tokio::test]
async fn garbage_is_no_answer() {
    breaks(Fault::Garbage).await;
}

#[tokio::test]
async fn garbage_in_a_body_is_told_to_who_reads_it() {
    breaks_in_the_body(Fault::GarbageInTheBody).await;
}

#[tokio::test]
async fn a_head_of_too_many_headers_is_no_answer() {
    breaks(Fault::ManyHeaders).await;
}

#[tokio::test]
async fn a_head_with_a_giant_header_is_no_answer() {
    breaks(Fault::GiantHeader).await;
}

/// The end of the connection is the end of the body, in HTTP/1 as it was once. In HTTP/2 a body says when it ends.
#[tokio::test]
async fn a_body_without_length_is_whole_at_the_end_of_its_connection_in_http1_alone() {
    let fault = Fault::EndsWithoutLength;
    for (version, seen) in [(Version::Http1, &[Whole]), (Version::Http2, &[BrokenBody])] {
        Case { fault, seen, get: Again::No, post: Again::No }.holds_in(version).await;
    }
}

#[tokio::test]
async fn a_connection_that_ends_with_its_answer_is_not_used_again() {
    for fault in [Fault::AnswersAndEnds, Fault::AnswersAndResets] {
        Case { fault, seen: &[Whole], get: Again::No, post: Again::No }.holds().await;
    }
}

/// An idle connection is closed just as it is used again. Either the client sees it in time, or the request is lost with it.
#[tokio::test]
async fn a_connection_closed_as_it_is_used_again_loses_no_get_and_doubles_no_post() {
    for version in VERSIONS {
        for fault in [Fault::AnswersAndEnds, Fault::AnswersAndResets] {
            // The closing is on its way for so long.
            for turns in 0..10 {
                closed_as_used(version, fault, turns).await;
            }
        }
    }
}

async fn closed_as_used(version: Version, fault: Fault, turns: usize) {
    let (bad, good) = (Server::start(version).await, Server::start(version).await);
    let caller = Caller::new(&[&bad, &good]);
    for is_post in [true, false] {
        bad.commit(fault);
        let before = bad.ran() + good.ran() + 1;
        assert_eq!(caller.see(get()).await, Whole);
        bad.heal();
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        let seen = caller.see(if is_post { post() } else { get() }).await;
        let ran = bad.ran() + good.ran() - before;
        match seen {
            Whole => assert_eq!(ran, 1),
            Failed(Upstream) if is_post => assert_eq!(ran, 0),
            other => panic!("{other:?}"),
        }
    }
    caller.settled(&[&bad, &good]).await;
}
