//! Servers that do not read what they are sent.

use std::sync::Arc;

use bytes::Bytes;
use hopvine::{ErrorKind::AttemptTimeout, connect::http::Version};
use http::Request;

use super::{
    caller::{
        Body, Caller,
        Seen::{Failed, Whole},
        VERSIONS, post,
    },
    fault::Fault,
    server::Server,
    wait::eventually,
};

/// More than anybody takes who does not read; and what tells whether somebody still has it.
fn much() -> (Request<Body>, Arc<()>) {
    struct Owned(Vec<u8>, #[allow(dead_code, reason = "counted")] Arc<()>);
    impl AsRef<[u8]> for Owned {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    let held = Arc::new(());
    let body = Bytes::from_owner(Owned(vec![b'x'; 16 << 20], Arc::clone(&held)));
    (Request::post("/").body(Body::from(body)).unwrap(), held)
}

#[tokio::test]
async fn a_request_that_nobody_reads_is_let_go() {
    for version in VERSIONS {
        println!("{version:?}");
        let server = Server::start(version).await;
        let caller = Caller::new(&[&server]);
        assert_eq!(caller.see(post()).await, Whole);
        server.commit(Fault::ReadsNothing);
        caller.hurry(true);
        let (request, held) = much();
        assert_eq!(caller.see(request).await, Failed(AttemptTimeout));
        eventually("nobody has what was to be sent", || Arc::strong_count(&held) == 1).await;
        server.heal();
        caller.hurry(false);
        caller.settled(&[&server]).await;
        assert_eq!(caller.see(post()).await, Whole);
        caller.settled(&[&server]).await;
    }
}

/// A server that says no before it has read the request, and reads no further. In HTTP/1 the connection cannot be used again, and is not kept. In
/// HTTP/2 it goes on, and what was to be sent stays with it unless the server resets the stream, as it should.
#[tokio::test]
async fn an_answer_before_the_request_is_read_keeps_no_connection() {
    for version in VERSIONS {
        println!("{version:?}");
        let server = Server::start(version).await;
        server.commit(Fault::AnswersUnread);
        let caller = Caller::new(&[&server]);
        let (request, held) = much();
        assert_eq!(caller.see(request).await, Whole);
        eventually("nothing is in use", || caller.stats(&server).open == caller.stats(&server).idle).await;
        if version == Version::Http1 {
            eventually("nobody has what was to be sent", || Arc::strong_count(&held) == 1).await;
        }
        server.heal();
        caller.settled(&[&server]).await;
        assert_eq!(caller.see(post()).await, Whole);
        caller.settled(&[&server]).await;
    }
}
