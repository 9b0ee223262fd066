use std::{fmt, sync::Arc};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::{HeaderValue, uri::PathAndQuery};
use secrecy::{ExposeSecret as _, SecretString};

use super::InvalidEureka;
#[cfg(feature = "registry")]
use crate::endpoint::Address;
use crate::{Endpoint, endpoint::Scheme};

/// Where a Eureka server is: its URL, `http://host:8761/eureka/`, with the credentials taken out of it.
///
/// ```
/// use hopvine::discover::eureka::ServerUrl;
/// let url: ServerUrl = "http://shop:secret@eureka-1:8761/eureka".parse()?;
/// assert_eq!(url.to_string(), "http://***@eureka-1:8761/eureka/");
/// # Ok::<(), hopvine::discover::eureka::InvalidEureka>(())
/// ```
#[derive(Clone)]
pub struct ServerUrl(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    /// Begins and ends with a slash.
    path: Box<str>,
    /// The whole `Authorization` header.
    authorization: Option<SecretString>,
}

impl std::str::FromStr for ServerUrl {
    type Err = InvalidEureka;

    fn from_str(text: &str) -> Result<Self, InvalidEureka> {
        // The text may hold a secret, so that no error repeats any of it.
        let invalid = |reason: &str| InvalidEureka::new("url", format!("the URL of a Eureka server {reason}"));
        let (scheme, rest) =
            text.trim().split_once("://").ok_or_else(|| invalid("must begin with http:// or https://"))?;
        if !matches!(scheme, "http" | "https") {
            return Err(invalid("must begin with http:// or https://"));
        }
        // A password may hold a slash or a question mark by mistake: credentials end with the last @ before the path.
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) => (authority, path),
            None => (rest, ""),
        };
        let (credentials, address) = match authority.rsplit_once('@') {
            Some((credentials, address)) => (Some(credentials), address),
            None => (None, authority),
        };
        let endpoint: Endpoint = format!("{scheme}://{address}")
            .parse()
            .map_err(|_| invalid("must have a host, and may have a port and a path"))?;
        let path = match path.trim_matches('/') {
            "" => "/eureka/".to_owned(),
            path => format!("/{path}/"),
        };
        if path.contains(['?', '#', '@']) || path.parse::<PathAndQuery>().is_err() {
            return Err(invalid("must have a plain path: write @, / and ? in a password as %40, %2F and %3F"));
        }
        let authorization = credentials.map(|credentials| {
            let plain: Vec<u8> = percent_encoding::percent_decode_str(credentials).collect();
            SecretString::from(format!("Basic {}", BASE64_STANDARD.encode(plain)))
        });
        Ok(Self(Arc::new(Inner { endpoint, path: path.into(), authorization })))
    }
}

impl ServerUrl {
    /// Several: each text may be some with commas between, as Spring's `service-url.defaultZone` is.
    pub(crate) fn list<U: AsRef<str>>(texts: impl IntoIterator<Item = U>) -> Result<Vec<Self>, InvalidEureka> {
        let mut urls = Vec::new();
        for text in texts {
            for url in text.as_ref().split(',').map(str::trim).filter(|url| !url.is_empty()) {
                urls.push(url.parse()?);
            }
        }
        Ok(urls)
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// The path of a resource of its REST interface.
    pub(super) fn path(&self, resource: &str) -> String {
        format!("{}{resource}", self.0.path)
    }

    /// Whether it names the same registry: the same host, port and path, whose last `v2/` says nothing. Two behind one proxy differ in their paths.
    #[cfg(feature = "registry")]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let path = |url: &Self| url.0.path.strip_suffix("v2/").unwrap_or(&url.0.path).to_owned();
        let same_address = match (self.endpoint().address(), other.endpoint().address()) {
            (Address::Host(host, port), Address::Host(other, other_port)) => {
                host.eq_ignore_ascii_case(other) && port == other_port
            }
            (address, other) => address == other,
        };
        same_address && path(self) == path(other)
    }

    /// The path of the push, which stands beside the REST interface and never in it.
    pub(super) fn watch_path(&self) -> String {
        let path = self.0.path.strip_suffix("v2/").unwrap_or(&self.0.path);
        format!("{}hopvine/v1/watch", path.strip_suffix("eureka/").unwrap_or(path))
    }

    pub(super) fn authorization(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(self.0.authorization.as_ref()?.expose_secret()).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// The path of a redirect, if it stays at this server.
    pub(super) fn own(&self, location: &str) -> Option<String> {
        if location.starts_with('/') && !location.starts_with("//") {
            return Some(location.to_owned());
        }
        let (scheme, rest) = location.split_once("://")?;
        let slash = rest.find('/')?;
        let (authority, path) = rest.split_at(slash);
        let there: Endpoint = format!("{scheme}://{authority}").parse().ok()?;
        let same = there.scheme() == self.0.endpoint.scheme() && there.address() == self.0.endpoint.address();
        same.then(|| path.to_owned())
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.0.endpoint.scheme() == Scheme::Https { "https" } else { "http" };
        let secret = if self.0.authorization.is_some() { "***@" } else { "" };
        write!(f, "{scheme}://{secret}{}{}", self.0.endpoint.address(), self.0.path)
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown_and_reaches_the_header() {
        let url: ServerUrl = "https://shop:s%40fe%2Fly@eureka.internal/eureka/v2".parse().unwrap();
        assert_eq!(url.to_string(), "https://***@eureka.internal:443/eureka/v2/");
        assert!(!format!("{url:?}").contains("fe"));
        let header = url.authorization().unwrap();
        assert_eq!(header, format!("Basic {}", BASE64_STANDARD.encode("shop:s@fe/ly")).as_str());
        assert_eq!(format!("{header:?}"), "Sensitive");
        for bad in ["http://shop:s/e@host:1/eureka/", "http://shop:s?e@host:1:1/", "ftp://shop:s@host/", "shop:s@host"]
        {
            let error = bad.parse::<ServerUrl>().unwrap_err().to_string();
            assert!(!error.contains("shop") && error.starts_with("url: "), "{error}");
        }
    }

    #[test]
    fn the_push_stands_beside_the_rest_interface_and_behind_the_same_prefix() {
        for (url, path) in [
            ("http://h:1", "/hopvine/v1/watch"),
            ("http://h:1/eureka/", "/hopvine/v1/watch"),
            ("http://h:1/eureka/v2/", "/hopvine/v1/watch"),
            ("http://h:1/shop/eureka", "/shop/hopvine/v1/watch"),
        ] {
            assert_eq!(url.parse::<ServerUrl>().unwrap().watch_path(), path);
        }
    }

    #[test]
    fn a_redirect_is_followed_at_the_same_server_only() {
        let url: ServerUrl = "http://a:b@host:8761/eureka/".parse().unwrap();
        assert_eq!(url.own("http://host:8761/eureka/v2/apps").as_deref(), Some("/eureka/v2/apps"));
        assert_eq!(url.own("/eureka/v2/apps").as_deref(), Some("/eureka/v2/apps"));
        for other in ["http://host:8762/x", "https://host:8761/x", "http://other:8761/x", "//other/x", "x"] {
            assert_eq!(url.own(other), None, "{other}");
        }
    }
}
