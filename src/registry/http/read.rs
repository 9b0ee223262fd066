use std::{borrow::Cow, sync::Arc};

use http::{Response, StatusCode};

use super::{
    Asked, Body, Desk, negotiate,
    path::{self, Route},
    respond,
};
use crate::{
    eureka::Instance,
    registry::{
        render::{Document, Found, Variant},
        watch::{Interest, TooMany},
    },
};

impl Desk {
    /// A document that is rendered already.
    pub(super) fn ready(&self, asked: &Asked<'_>) -> Option<Response<Body>> {
        let (document, variant) = wanted(asked)?;
        let Found(bytes) = self.documents.ready(document, variant)?;
        Some(answer(bytes, variant))
    }

    /// A document, rendered if that must be.
    pub(super) async fn document(&self, asked: &Asked<'_>) -> Response<Body> {
        match wanted(asked) {
            Some((document, variant)) => answer(self.documents.get(document, variant).await, variant),
            None => respond::empty(StatusCode::NOT_FOUND),
        }
    }

    /// One instance, which is always as it is now.
    pub(super) fn instance(&self, asked: &Asked<'_>, app: &str, id: &str) -> Response<Body> {
        one(asked, self.store.instance(app, id, self.clock.now()))
    }

    /// The instance of this id, in whatever application.
    pub(super) fn any_instance(&self, asked: &Asked<'_>, id: &str) -> Response<Body> {
        one(asked, self.store.instance_of_any(id, self.clock.now()))
    }

    /// Lines of what changes, as long as somebody reads them.
    pub(super) fn watch(self: &Arc<Self>, asked: &Asked<'_>) -> Response<Body> {
        let mut interest = Interest::default();
        for (name, value) in path::parameters(asked.head.uri.query()) {
            match &*name {
                "app" => interest.applications.push(value.to_uppercase().into()),
                "instance" => {
                    let Some((app, id)) = value.split_once('/').filter(|(app, id)| !app.is_empty() && !id.is_empty())
                    else {
                        return respond::reason(StatusCode::BAD_REQUEST, "instance: not of the form APP/ID");
                    };
                    interest.own = Some((app.to_uppercase().into(), id.into()));
                }
                _ => {}
            }
        }
        match self.watches.watch(interest, asked.connection) {
            Ok(lines) => respond::lines(lines),
            Err(TooMany(most)) => respond::busy(Cow::from(format!("more than limits.watchers allows: {most}"))),
        }
    }
}

/// The document a list's path asks for, and in which variant.
fn wanted<'a>(asked: &'a Asked<'_>) -> Option<(Document<'a>, Variant)> {
    let (document, may_zip) = match &asked.route {
        Route::All => (Document::All, true),
        Route::Delta => (Document::Delta, true),
        Route::Application(name) => (Document::Application(name), false),
        Route::Vip(name) => (Document::Vip(name), false),
        Route::SecureVip(name) => (Document::SecureVip(name), false),
        _ => return None,
    };
    Some((document, negotiate::variant(&asked.head.headers, may_zip)))
}

fn answer(bytes: Option<bytes::Bytes>, variant: Variant) -> Response<Body> {
    match bytes {
        Some(bytes) => respond::document(bytes, variant),
        None => respond::empty(StatusCode::NOT_FOUND),
    }
}

fn one(asked: &Asked<'_>, instance: Option<Arc<Instance>>) -> Response<Body> {
    let Some(instance) = instance else { return respond::empty(StatusCode::NOT_FOUND) };
    match negotiate::of_instance(&asked.head.headers) {
        Some(encoding) => respond::of_instance(encoding.instance(&instance), encoding),
        None => respond::empty(StatusCode::NOT_ACCEPTABLE),
    }
}
