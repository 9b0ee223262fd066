//! What a request needs before it goes on a connection.

use std::sync::OnceLock;

use http::{
    HeaderName, HeaderValue, Request, Uri, Version,
    header::{self, HOST},
    uri::{Authority, PathAndQuery, Scheme as UriScheme},
};

use super::send::not_connected;
use crate::{Endpoint, Error, endpoint::Scheme};

/// Headers of one hop only (RFC 9110, 7.6.1), beside those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 5] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authorization"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The authority that was asked for first. Most requests to an endpoint have the same one, which is then parsed once.
#[derive(Default)]
pub(super) struct Known(OnceLock<Authority>);

impl Known {
    fn parse(&self, text: &[u8]) -> Result<Authority, Error> {
        if let Some(known) = self.0.get()
            && known.as_str().as_bytes() == text
        {
            return Ok(known.clone());
        }
        let authority = Authority::try_from(text).map_err(not_connected)?;
        // Another one was first: this one is parsed again next time.
        let _ = self.0.set(authority.clone());
        Ok(authority)
    }

    /// Where the request goes by its own word, or by the endpoint's.
    fn authority<B>(&self, request: &Request<B>, endpoint: &Endpoint) -> Result<Authority, Error> {
        if let Some(authority) = request.uri().authority() {
            return Ok(authority.clone());
        }
        match (request.headers().get(HOST), endpoint.authority()) {
            (Some(host), _) => self.parse(host.as_bytes()),
            (None, Some(authority)) => self.parse(authority.as_bytes()),
            (None, None) => self.parse(endpoint.address().to_string().as_bytes()),
        }
    }
}

/// Makes the request one of this version: of HTTP/1 with `Host` and the path alone (`absolute`: with everything, for a proxy), of HTTP/2 with
/// scheme and authority. Can be done again for another version.
pub(super) fn prepare<B>(
    request: &mut Request<B>,
    endpoint: &Endpoint,
    known: &Known,
    http2: bool,
    absolute: bool,
) -> Result<(), Error> {
    remove_hop_by_hop(request);
    let (uri, scheme) = (request.uri(), endpoint.scheme());
    if !http2 && !absolute && uri.authority().is_none() && uri.path_and_query().is_some() && has_host(request) {
        // It is one already.
        *request.version_mut() = Version::HTTP_11;
        return Ok(());
    }
    let authority = known.authority(request, endpoint)?;
    let mut parts = http::uri::Parts::default();
    parts.path_and_query =
        Some(request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
    if http2 {
        request.headers_mut().remove(HOST);
        *request.version_mut() = Version::HTTP_2;
    } else {
        let host = HeaderValue::from_str(authority.as_str()).map_err(not_connected)?;
        request.headers_mut().insert(HOST, host);
        *request.version_mut() = Version::HTTP_11;
    }
    if http2 || absolute {
        parts.scheme = Some(if scheme == Scheme::Https { UriScheme::HTTPS } else { UriScheme::HTTP });
        parts.authority = Some(authority);
    }
    *request.uri_mut() = Uri::from_parts(parts).map_err(not_connected)?;
    Ok(())
}

/// Whether there is a `Host`, one, that can be one.
fn has_host<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let valid = |host: &HeaderValue| {
        // What a parser of authorities would take anyway; anything else is for it to say.
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b".-:_".contains(byte);
        !host.is_empty() && host.as_bytes().iter().all(plain)
    };
    hosts.next().is_some_and(valid) && hosts.next().is_none()
}

fn remove_hop_by_hop<B>(request: &mut Request<B>) {
    let headers = request.headers_mut();
    // Mostly there is none of them, and one look at each name costs less than to ask for each of these.
    if !headers.keys().any(is_hop_by_hop) {
        return;
    }
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|text| text.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    // Of `TE` only `trailers` goes on; gRPC needs it.
    if headers.get(header::TE).is_some_and(|value| value != "trailers") {
        headers.remove(header::TE);
    }
}

/// Whether there may be something to remove.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(name) || name == header::CONNECTION || name == header::TE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request<()> {
        Request::get("/a?b=c")
            .header("connection", "close, x-internal")
            .header("x-internal", "1")
            .header("te", "trailers")
            .header("keep-alive", "timeout=5")
            .header("x-public", "1")
            .body(())
            .unwrap()
    }

    #[test]
    fn headers_of_one_hop_do_not_pass() {
        let endpoint: Endpoint = "http://10.0.0.1:80".parse().unwrap();
        let mut request = request();
        prepare(&mut request, &endpoint, &Known::default(), false, false).unwrap();
        let mut names: Vec<_> = request.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["host", "te", "x-public"]);
        assert_eq!(
            (request.uri().to_string().as_str(), &request.headers()["host"]),
            ("/a?b=c", &HeaderValue::from_static("10.0.0.1:80"))
        );
    }

    #[test]
    fn a_request_moves_between_versions() {
        let endpoint = "https://10.0.0.1:80".parse::<Endpoint>().unwrap().with_authority("shop.example");
        let mut request = request();
        prepare(&mut request, &endpoint, &Known::default(), true, false).unwrap();
        assert_eq!(request.uri().to_string(), "https://shop.example/a?b=c");
        assert!(!request.headers().contains_key("host"));
        prepare(&mut request, &endpoint, &Known::default(), false, false).unwrap();
        assert_eq!(request.uri().to_string(), "/a?b=c");
        assert_eq!(request.headers()["host"], "shop.example");
    }

    #[test]
    fn the_request_knows_better_than_the_endpoint() {
        let endpoint: Endpoint = "http://10.0.0.1:80".parse().unwrap();
        let known = Known::default();
        let by_uri = Request::get("http://a.example:8080/").header("host", "b.example").body(()).unwrap();
        assert_eq!(known.authority(&by_uri, &endpoint).unwrap(), "a.example:8080");
        let by_host = Request::get("/").header("host", "b.example").body(()).unwrap();
        for _ in 0..2 {
            assert_eq!(known.authority(&by_host, &endpoint).unwrap(), "b.example");
            let by_endpoint = Request::get("/").body(()).unwrap();
            assert_eq!(known.authority(&by_endpoint, &endpoint).unwrap(), "10.0.0.1:80");
        }
    }
}
