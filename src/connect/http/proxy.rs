use std::{fmt, sync::Arc};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::HeaderValue;

use crate::{Endpoint, endpoint::Scheme};

/// A proxy on the way out, for calls to servers of others: by `CONNECT` to `https` endpoints, in absolute form to `http` ones.
///
/// Never taken from the environment by itself. Credentials are sent as Basic, and shown as `***`.
///
/// ```
/// use hopvine::connect::http::EgressProxy;
/// let proxy: EgressProxy = "http://shop:secret@proxy.internal:3128".parse()?;
/// assert_eq!(format!("{proxy:?}"), r#"EgressProxy { address: "proxy.internal:3128", credentials: "***" }"#);
/// # Ok::<(), hopvine::connect::http::InvalidProxy>(())
/// ```
#[derive(Clone)]
pub struct EgressProxy(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    authorization: Option<HeaderValue>,
}

/// Why a text is no proxy. Does not repeat the text, which may hold a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidProxy(&'static str);

impl std::str::FromStr for EgressProxy {
    type Err = InvalidProxy;

    fn from_str(text: &str) -> Result<Self, InvalidProxy> {
        let rest = text.strip_prefix("http://").ok_or(InvalidProxy("must begin with http://"))?;
        let (credentials, address) = match rest.rsplit_once('@') {
            Some((credentials, address)) => (Some(credentials), address),
            None => (None, rest),
        };
        let endpoint: Endpoint =
            format!("http://{address}").parse().map_err(|_| InvalidProxy("must have a host, and may have a port"))?;
        let authorization = credentials.map(basic).transpose()?;
        Ok(Self(Arc::new(Inner { endpoint, authorization })))
    }
}

/// `user:password`, percent-encoded as in any URL.
fn basic(credentials: &str) -> Result<HeaderValue, InvalidProxy> {
    let plain: Vec<u8> = percent_encoding::percent_decode_str(credentials).collect();
    let mut value = HeaderValue::from_str(&format!("Basic {}", BASE64_STANDARD.encode(plain)))
        .map_err(|_| InvalidProxy("has credentials that cannot be sent"))?;
    value.set_sensitive(true);
    Ok(value)
}

impl EgressProxy {
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    pub(super) fn authorization(&self) -> Option<&HeaderValue> {
        self.0.authorization.as_ref()
    }

    /// Whether requests to this scheme go to the proxy as they are, instead of through a tunnel.
    pub(super) fn is_asked_itself(scheme: Scheme) -> bool {
        scheme == Scheme::Http
    }
}

impl fmt::Debug for EgressProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EgressProxy")
            .field("address", &self.0.endpoint.address().to_string())
            .field("credentials", &if self.0.authorization.is_some() { "***" } else { "none" })
            .finish()
    }
}

impl fmt::Display for InvalidProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a proxy's URL {}", self.0)
    }
}

impl std::error::Error for InvalidProxy {}
