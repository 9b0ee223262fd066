//! What may go wrong in HTTP/1 alone.

use hopvine::connect::http::Version::Http1;

use super::{
    caller::{
        Caller,
        Seen::{self, BrokenBody, Whole},
        get, post,
    },
    case::{Again, Case},
    fault::Fault,
    server::Server,
};

async fn holds(fault: Fault, seen: &'static [Seen], get: Again, post: Again) {
    Case { fault, seen, get, post }.holds_in(Http1).await;
}

#[tokio::test]
async fn a_connection_that_says_close_is_not_used_again() {
    holds(Fault::SaysClose, &[Whole], Again::No, Again::No).await;
    holds(Fault::SaysCloseAndStays, &[Whole], Again::No, Again::No).await;
}

#[tokio::test]
async fn a_reset_at_the_end_of_a_body_without_length_is_told_to_who_reads_it() {
    holds(Fault::ResetsWithoutLength, &[BrokenBody], Again::No, Again::No).await;
}

/// What nobody asked for is nobody's answer.
#[tokio::test]
async fn an_answer_too_many_is_not_the_next_call_s() {
    let server = Server::start(Http1).await;
    let caller = Caller::new(&[&server]);
    for _ in 0..20 {
        server.commit(Fault::AnswersTwice);
        assert_eq!(caller.see(get()).await, Whole);
        server.heal();
        // At once, before anybody looks at what else has come.
        assert_eq!(caller.see(post()).await, Whole);
    }
    caller.settled(&[&server]).await;
}
