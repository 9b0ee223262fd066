use bytes::Bytes;
use http::{Response, StatusCode};

use super::{
    Asked, Body, Desk, negotiate,
    path::{parameters, values},
    respond,
};
use crate::{
    eureka::{InstanceStatus, json, xml},
    registry::{
        render::Encoding,
        store::{Heartbeat, Renewed},
    },
};

impl Desk {
    pub(super) fn register(&self, asked: &Asked<'_>, app: &str, body: &Bytes) -> Response<Body> {
        let limits = &self.store.policy().get().limits.document;
        let read = match negotiate::of_body(&asked.head.headers) {
            Some(Encoding::Json) => json::read_instance(body, limits),
            Some(Encoding::Xml) => xml::read_instance(body, limits),
            None => return respond::empty(StatusCode::UNSUPPORTED_MEDIA_TYPE),
        };
        let instance = match read {
            Ok(instance) => instance,
            Err(error) => {
                self.store.counters().refused_documents.add();
                return respond::reason(StatusCode::BAD_REQUEST, format_args!("cannot parse request body: {error}"));
            }
        };
        if let Err(invalid) = instance.validate(app) {
            self.store.counters().refused_documents.add();
            return respond::reason(StatusCode::BAD_REQUEST, invalid);
        }
        match self.store.register(instance, asked.by, self.clock.now()) {
            Ok(()) => respond::empty(StatusCode::NO_CONTENT),
            Err(refused) => respond::refused(refused),
        }
    }

    pub(super) fn heartbeat(&self, asked: &Asked<'_>, app: &str, id: &str) -> Response<Body> {
        let [given, told] = values(asked.head.uri.query(), ["lastDirtyTimestamp", "overriddenstatus"]);
        let last_dirty_timestamp = match dirty(given.as_deref()) {
            Ok(timestamp) => timestamp,
            Err(response) => return *response,
        };
        let overridden_status = told.and_then(|status| InstanceStatus::named(&status));
        let heartbeat = Heartbeat { last_dirty_timestamp, overridden_status };
        match self.store.renew(app, id, heartbeat, asked.by, self.clock.now()) {
            Renewed::Yes => respond::empty(StatusCode::OK),
            Renewed::Unknown | Renewed::Newer => respond::empty(StatusCode::NOT_FOUND),
            Renewed::Older(instance) => {
                let encoding = negotiate::of_instance(&asked.head.headers).unwrap_or(Encoding::Xml);
                let mut response = respond::of_instance(encoding.instance(&instance), encoding);
                *response.status_mut() = StatusCode::CONFLICT;
                response
            }
        }
    }

    pub(super) fn cancel(&self, asked: &Asked<'_>, app: &str, id: &str) -> Response<Body> {
        found(self.store.cancel(app, id, asked.by, self.clock.now()))
    }

    pub(super) fn set_status(&self, asked: &Asked<'_>, app: &str, id: &str) -> Response<Body> {
        let now = self.clock.now();
        if self.store.instance(app, id, now).is_none() {
            return respond::empty(StatusCode::NOT_FOUND);
        }
        let (status, last_dirty_timestamp) = match status(asked.head.uri.query(), None) {
            Ok(told) => told,
            Err(response) => return *response,
        };
        match self.store.set_status(app, id, status, last_dirty_timestamp, asked.by, now) {
            Ok(done) => found(done),
            Err(refused) => respond::refused(refused),
        }
    }

    pub(super) fn clear_status(&self, asked: &Asked<'_>, app: &str, id: &str) -> Response<Body> {
        let now = self.clock.now();
        if self.store.instance(app, id, now).is_none() {
            return respond::empty(StatusCode::NOT_FOUND);
        }
        let (status, last_dirty_timestamp) = match status(asked.head.uri.query(), Some(InstanceStatus::Unknown)) {
            Ok(told) => told,
            Err(response) => return *response,
        };
        found(self.store.clear_status(app, id, status, last_dirty_timestamp, asked.by, now))
    }

    pub(super) fn set_metadata(&self, asked: &Asked<'_>, app: &str, id: &str) -> Response<Body> {
        // Of a name that comes twice, the first text counts.
        let mut entries: Vec<(String, String)> = Vec::new();
        for (name, text) in parameters(asked.head.uri.query()) {
            if entries.iter().all(|(key, _)| *key != name) {
                entries.push((name.into_owned(), text.into_owned()));
            }
        }
        match self.store.add_metadata(app, id, entries, asked.by, self.clock.now()) {
            Ok(done) => found(done),
            Err(refused) => respond::refused(refused),
        }
    }
}

fn found(found: bool) -> Response<Body> {
    respond::empty(if found { StatusCode::OK } else { StatusCode::NOT_FOUND })
}

fn dirty(given: Option<&str>) -> Result<Option<u64>, Box<Response<Body>>> {
    let Some(given) = given else { return Ok(None) };
    let timestamp = given.parse::<i64>().map_err(|_| {
        let reason = format!("lastDirtyTimestamp: {:?} is not a number", shown(given));
        Box::new(respond::reason(StatusCode::BAD_REQUEST, reason))
    })?;
    Ok(Some(u64::try_from(timestamp).unwrap_or(0)))
}

/// The status to set, and when the instance changed.
fn status(
    query: Option<&str>,
    default: Option<InstanceStatus>,
) -> Result<(InstanceStatus, Option<u64>), Box<Response<Body>>> {
    let bad = |reason: String| Box::new(respond::reason(StatusCode::BAD_REQUEST, reason));
    let [value, given] = values(query, ["value", "lastDirtyTimestamp"]);
    let status = match value {
        Some(value) => {
            InstanceStatus::named(&value).ok_or_else(|| bad(format!("value: {:?} is no status", shown(&value))))
        }
        None => default.ok_or_else(|| bad("value: missing".to_owned())),
    }?;
    Ok((status, dirty(given.as_deref())?))
}

/// As much of a text from outside as a message needs.
fn shown(text: &str) -> &str {
    text.char_indices().nth(64).map_or(text, |(end, _)| &text[..end])
}
