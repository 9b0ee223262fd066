//! One fault, and all that must hold of it.

use std::{future::Future, pin::pin, task::Poll};

use hopvine::{ErrorKind, connect::http::Version, monitor::CountsView};

use super::{
    authority::Authority,
    caller::{Caller, Seen, get, post},
    fault::Fault,
    server::Server,
    wait::eventually,
};

/// What happens where a server commits a fault.
pub(crate) struct Case {
    pub(crate) fault: Fault,
    /// What a caller without a second server may get.
    pub(crate) seen: &'static [Seen],
    /// Whether a GET is tried again at another server.
    pub(crate) get: Again,
    /// Whether a POST is.
    pub(crate) post: Again,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    Yes,
    No,
    /// If the request was surely not written, which depends on who is faster.
    IfUnsent,
}

impl Case {
    /// In both versions, side by side, for some take their time.
    pub(crate) async fn holds(&self) {
        tokio::join!(self.holds_in(Version::Http1), self.holds_in(Version::Http2));
    }

    pub(crate) async fn holds_in(&self, version: Version) {
        // On a connection that is there, and on one that has to be made.
        for warm in [true, false] {
            let applies = if warm { !self.fault.is_of_the_door() } else { !self.fault.is_slow() };
            if applies {
                println!("{:?} {version:?}, warm: {warm}", self.fault);
                self.alone(version, warm).await;
                self.again(version, warm, false).await;
                self.again(version, warm, true).await;
            }
        }
        self.dropped(version).await;
    }

    /// What the caller sees, and what that says of the endpoint.
    async fn alone(&self, version: Version, warm: bool) {
        let server = self.server(version, None, warm).await;
        let caller = Caller::new(&[&server]);
        self.begin(&caller, &server, warm).await;
        let before = caller.endpoints()[0].counts;
        let seen = caller.see(get()).await;
        assert!(self.seen.contains(&seen), "{seen:?}");
        assert_eq!(caller.endpoints()[0].counts, counted(before, seen));
        self.over(&server).await;
        caller.settled(&[&server]).await;
        self.recovers(&caller, &[&server]).await;
    }

    /// Whether it is tried again, and runs once where it must not run twice.
    async fn again(&self, version: Version, warm: bool, is_post: bool) {
        let bad = self.server(version, None, warm).await;
        let good = self.server(version, Some(&bad), true).await;
        let caller = Caller::new(&[&bad, &good]);
        self.begin(&caller, &bad, warm).await;
        let before = bad.ran();
        let seen = caller.see(if is_post { post() } else { get() }).await;
        let ran = bad.ran() - before + good.ran();
        let (again, what) = if is_post { (self.post, "POST") } else { (self.get, "GET") };
        let was = good.ran() == 1;
        println!("{what}: {seen:?}, again: {was}, ran: {ran}");
        match again {
            Again::Yes => assert!(was),
            Again::No => assert!(!was),
            Again::IfUnsent => {}
        }
        assert_eq!(caller.retries(), u64::from(was));
        if was {
            assert_eq!(seen, Seen::Whole);
        } else {
            assert!(self.seen.contains(&seen), "{seen:?}");
        }
        if is_post {
            assert!(ran <= 1, "a POST ran {ran} times");
            assert!(!matches!(seen, Seen::Unsent(_)), "there was another to send it to");
        }
        self.over(&bad).await;
        caller.settled(&[&bad, &good]).await;
        self.recovers(&caller, &[&bad, &good]).await;
    }

    /// A caller that goes away, after each number of polls.
    async fn dropped(&self, version: Version) {
        let warm = !self.fault.is_of_the_door();
        let server = self.server(version, None, warm).await;
        let caller = Caller::new(&[&server]);
        // Where each takes its time, no more than it takes to begin.
        let most = if self.fault.is_timed() { 4 } else { 40 };
        for polls in [0, 1, 3, 5, 8, 13, 21, 34].into_iter().filter(|polls| *polls < most) {
            if warm {
                server.heal();
                self.begin(&caller, &server, true).await;
            }
            caller.hurry(false);
            let response = poll_times(caller.call(post()), polls).await;
            // Its body, too, where it got as far as that.
            drop(response);
            caller.settled(&[&server]).await;
            // What the server still does to a call that was given up is no fault of the next one.
            server.hang_up().await;
            caller.settled(&[&server]).await;
        }
        self.recovers(&caller, &[&server]).await;
    }

    /// At its door, if that is where the fault is. `beside` another one.
    async fn server(&self, version: Version, beside: Option<&Server>, good: bool) -> Server {
        let authority = match beside {
            Some(other) => other.authority.clone(),
            None => self.fault.is_of_tls().then(Authority::new),
        };
        let fault = (!good && self.fault.is_of_the_door()).then_some(self.fault);
        Server::start_with(version, fault, authority).await
    }

    /// Begins with the fault; if `warm`, on a connection that has had a good call.
    async fn begin(&self, caller: &Caller, server: &Server, warm: bool) {
        if warm {
            caller.hurry(false);
            assert_eq!(caller.see(get()).await, Seen::Whole);
            caller.settled(&[server]).await;
        }
        server.commit(self.fault);
        caller.hurry(self.fault.is_slow());
    }

    /// The next call goes through once the first server is well.
    async fn recovers(&self, caller: &Caller, servers: &[&Server]) {
        servers[0].heal();
        caller.hurry(false);
        let before = servers[0].ran();
        assert_eq!(caller.see(post()).await, Seen::Whole);
        assert_eq!(servers[0].ran(), before + 1);
        caller.settled(servers).await;
    }

    /// Waits until the fault has been committed to its end.
    async fn over(&self, server: &Server) {
        if self.fault.ends_unheard() {
            eventually("the connection has ended", || server.open() == 0).await;
        }
    }
}

/// The counts after one more attempt that was seen like this. Its head decides: what becomes of the body is no attempt's matter.
fn counted(before: CountsView, seen: Seen) -> CountsView {
    let mut after = before;
    match seen {
        Seen::Whole | Seen::BrokenBody | Seen::EndlessBody => after.success += 1,
        Seen::Failed(ErrorKind::AttemptTimeout) | Seen::Unsent(ErrorKind::AttemptTimeout) => after.timed_out += 1,
        Seen::Failed(_) | Seen::Unsent(_) => after.failure += 1,
    }
    after
}

/// Polls that often, with everybody else's turn in between, and no further.
pub(crate) async fn poll_times<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..polls {
        let polled = std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}
