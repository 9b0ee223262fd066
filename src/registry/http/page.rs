use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS},
};

use super::{Asked, Body, Desk, path::values, respond};
use crate::registry::page;

impl Desk {
    /// What people see: `?app=` for one application, `?after=` for what comes after a name or an id.
    pub(super) fn page(&self, asked: &Asked<'_>) -> Response<Body> {
        let given = values(asked.head.uri.query(), ["app", "after"]);
        let [application, after] = given.map(|value| value.filter(|value| !value.is_empty()));
        let application = application.map(|name| name.to_uppercase());
        // People type blanks around names, though a name may have its own.
        let named =
            |name: &str| if self.store.instances_of(name) > 0 { name.to_owned() } else { name.trim().to_owned() };
        let application = application.as_deref().map(named);
        let Ok(page) = self.render(application.as_deref(), after.as_deref()) else {
            return respond::empty(StatusCode::INTERNAL_SERVER_ERROR);
        };
        let headers: [(HeaderName, HeaderValue); 5] = [
            (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
            (CONTENT_SECURITY_POLICY, HeaderValue::from_static(page::SECURITY_POLICY)),
            (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
            (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        let mut response = respond::whole(page.into());
        response.headers_mut().extend(headers);
        response
    }
}
