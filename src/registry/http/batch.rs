use bytes::Bytes;
use http::{Response, StatusCode};

use super::{Asked, Body, Desk, negotiate, respond};
use crate::{
    eureka::{Action, InvalidReplication, Replication, ReplicationResponse, json},
    registry::{
        By, Moment,
        render::Encoding,
        store::{Heartbeat, Renewed},
    },
};

impl Desk {
    /// What a peer tells of, each answered in its place. None of it is told to peers again.
    pub(super) fn batch(&self, asked: &Asked<'_>, body: &Bytes) -> Response<Body> {
        if negotiate::of_body(&asked.head.headers) != Some(Encoding::Json) {
            return respond::empty(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        let limits = &self.store.policy().get().limits;
        let items = match json::read_replications(body, &limits.document) {
            Ok(items) => items,
            Err(error) => {
                self.store.counters().refused_documents.add();
                return respond::reason(StatusCode::BAD_REQUEST, format_args!("cannot parse request body: {error}"));
            }
        };
        if items.len() > limits.batch_items {
            self.store.counters().refused_batches.add();
            let why = format!("{} items, more than limits.batch_items allows: {}", items.len(), limits.batch_items);
            return respond::reason(StatusCode::BAD_REQUEST, why);
        }
        let now = self.clock.now();
        let answers: Vec<_> = items.into_iter().map(|item| self.replicated(item, now)).collect();
        let mut written = Vec::new();
        json::write_replication_responses(&answers, &mut written);
        respond::of_instance(written.into(), Encoding::Json)
    }

    fn replicated(&self, item: Result<Replication, InvalidReplication>, now: Moment) -> ReplicationResponse {
        let answer = |status_code| ReplicationResponse { status_code, instance: None };
        let Ok(Replication { app_name, id, last_dirty_timestamp, action }) = item else {
            self.store.counters().refused_documents.add();
            return answer(500);
        };
        let app = &*app_name;
        let found = |found| answer(if found { 200 } else { 404 });
        let refused = |refused: crate::registry::Refused| answer(if refused.is_for_now() { 503 } else { 400 });
        match action {
            Action::Register(instance) => {
                if instance.validate(app).is_err() {
                    self.store.counters().refused_documents.add();
                    return answer(400);
                }
                let instance = std::sync::Arc::unwrap_or_clone(instance);
                self.store.register(instance, By::Peer, now).map_or_else(refused, |()| answer(200))
            }
            Action::Heartbeat { overridden_status, .. } => {
                let heartbeat = Heartbeat { last_dirty_timestamp, overridden_status };
                match self.store.renew(app, &id, heartbeat, By::Peer, now) {
                    Renewed::Yes => answer(200),
                    Renewed::Unknown | Renewed::Newer => answer(404),
                    Renewed::Older(instance) => ReplicationResponse { status_code: 409, instance: Some(instance) },
                }
            }
            Action::Cancel => found(self.store.cancel(app, &id, By::Peer, now)),
            Action::StatusUpdate(status) => {
                self.store.set_status(app, &id, status, last_dirty_timestamp, By::Peer, now).map_or_else(refused, found)
            }
            Action::DeleteStatusOverride(status) => {
                found(self.store.clear_status(app, &id, status, last_dirty_timestamp, By::Peer, now))
            }
        }
    }
}
