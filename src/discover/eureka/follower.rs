//! What the poller says, and how a service's stream follows it.

use std::{collections::VecDeque, sync::Arc};

use futures_util::stream;
use tokio::sync::watch;
use tower::BoxError;

use super::{
    EurekaPolicy, ZoneAffinity,
    copy::{Set, View},
    poller::Running,
};
use crate::{Endpoint, Live, discover::ChangeStream, endpoint::Status};

/// How the registry stands, for all services.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// The last good one.
    pub(super) view: Option<Arc<View>>,
    /// Goes up each time the registry was heard of, changes or not.
    pub(super) heard: u64,
    /// Why it is not heard of.
    pub(super) error: Option<Arc<str>>,
    /// The server that is followed or asked.
    pub(super) server: Option<Arc<str>>,
    /// Whether changes are pushed.
    pub(super) pushed: bool,
}

/// One service's view of it.
struct Follower {
    state: watch::Receiver<State>,
    /// In lower case.
    name: String,
    zone: Option<Arc<str>>,
    policy: Live<EurekaPolicy>,
    sets: Option<Vec<Set>>,
    heard: u64,
    error: Option<Arc<str>>,
    /// Said, but not taken yet.
    said: VecDeque<Result<Vec<Endpoint>, BoxError>>,
    /// The poller runs as long as somebody follows it.
    _running: Arc<Running>,
}

/// What is said of a service of this name.
pub(super) fn follow(
    running: Arc<Running>,
    service: &str,
    zone: Option<Arc<str>>,
    policy: Live<EurekaPolicy>,
) -> ChangeStream {
    let mut state = running.state.clone();
    state.mark_changed();
    let follower = Follower {
        state,
        name: service.to_lowercase(),
        zone,
        policy,
        sets: None,
        heard: 0,
        error: None,
        said: VecDeque::new(),
        _running: running,
    };
    ChangeStream::sets(stream::unfold(follower, async |mut follower| {
        let next = follower.next().await?;
        Some((next, follower))
    }))
}

impl Follower {
    async fn next(&mut self) -> Option<Result<Vec<Endpoint>, BoxError>> {
        loop {
            if let Some(said) = self.said.pop_front() {
                return Some(said);
            }
            self.state.changed().await.ok()?;
            let state = self.state.borrow_and_update().clone();
            self.take(&state);
        }
    }

    /// A set, when it is new or was confirmed; an error, when it is new.
    fn take(&mut self, state: &State) {
        if let Some(view) = &state.view {
            let sets = view.service(&self.name);
            let same = self.sets.as_ref().is_some_and(|before| {
                before.len() == sets.len() && before.iter().zip(sets).all(|(before, now)| Arc::ptr_eq(before, now))
            });
            if !same || self.heard != state.heard {
                self.said.push_back(Ok(self.endpoints(sets)));
                self.sets = Some(sets.to_vec());
                // A set clears what was wrong before.
                self.error = None;
            }
        }
        self.heard = state.heard;
        if self.error != state.error {
            self.error.clone_from(&state.error);
            if let Some(error) = &state.error {
                self.said.push_back(Err((**error).into()));
            }
        }
    }

    fn endpoints(&self, sets: &[Set]) -> Vec<Endpoint> {
        let all = sets.iter().flat_map(|set| set.iter());
        let near = |endpoint: &&Endpoint| endpoint.zone() == self.zone.as_deref();
        let prefer = self.policy.get().zones == ZoneAffinity::Prefer
            && self.zone.is_some()
            && all.clone().filter(near).any(|endpoint| endpoint.status() == Status::Up);
        if prefer { all.filter(near).cloned().collect() } else { all.cloned().collect() }
    }
}
