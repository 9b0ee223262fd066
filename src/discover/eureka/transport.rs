//! One request to one server, and its answer: bounded in time and bytes, unpacked.

use std::{error::Error as _, fmt, io::Read as _, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, LOCATION, USER_AGENT},
};
use http_body_util::{BodyExt as _, Full};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::{Instant, timeout_at};
use tower::ServiceExt as _;

use super::{ServerUrl, Servers};
use crate::{
    EndpointHandle, Error, NewService as _, PolicyError,
    connect::http::{ClientBody, HttpClient, HttpPolicy, HttpService},
    endpoint::Group,
};

/// Most redirects of one request, all at the same server.
const REDIRECTS: usize = 3;

/// Bytes of an answer above which it is read on a thread of its own kind.
const LARGE: usize = 16 * 1024;

/// What is not written as it is in a path segment. `:`, of which ids are full, is: so do most clients.
const SEGMENT: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':').remove(b'@').remove(b'$');

/// A text as one segment of a path, or one part of a query.
pub(super) fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// What is asked of a server.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(super) method: Method,
    /// Below the server's URL.
    pub(super) resource: String,
    /// A JSON document.
    pub(crate) body: Option<Bytes>,
    /// Besides the usual ones.
    pub(crate) headers: HeaderMap,
    /// Bytes of its answer, if they are others than those of the servers' policy.
    pub(crate) max_bytes: Option<usize>,
}

impl Ask {
    pub(crate) fn new(method: Method, resource: impl Into<String>) -> Self {
        Self { method, resource: resource.into(), body: None, headers: HeaderMap::new(), max_bytes: None }
    }
}

/// What a server answered; the body as it came over the wire.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    body: Bytes,
    gzip: bool,
    max_bytes: usize,
}

impl Answer {
    /// Reads the body with this; a large one on a thread of its own kind, so that the executor's others go on.
    pub(crate) async fn read<T: Send + 'static>(
        self,
        read: impl FnOnce(&[u8]) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let is_large = self.body.len() > LARGE;
        let read = move || read(&self.body()?);
        if !is_large {
            return read();
        }
        let reading = tokio::task::spawn_blocking(read).await;
        reading.unwrap_or_else(|_| Err("reading it was cut short".to_owned()))
    }

    /// The body, unpacked.
    pub(crate) fn body(self) -> Result<Bytes, String> {
        if !self.gzip {
            return Ok(self.body);
        }
        let mut plain = Vec::new();
        // One byte more than may be, to see whether there is more.
        let mut reader = MultiGzDecoder::new(&*self.body).take(self.max_bytes as u64 + 1);
        reader.read_to_end(&mut plain).map_err(|error| format!("not gzip: {error}"))?;
        if plain.len() > self.max_bytes {
            return Err(format!("longer than {} bytes unpacked", self.max_bytes));
        }
        Ok(plain.into())
    }
}

/// Why a server gave no answer that can be used.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(super) server: ServerUrl,
    pub(super) reason: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.server, self.reason)
    }
}

/// The connections to all servers.
#[derive(Debug)]
pub(crate) struct Transport {
    servers: Vec<Server>,
    request_timeout: Duration,
    max_bytes: usize,
}

#[derive(Debug)]
struct Server {
    url: ServerUrl,
    service: HttpService<Full<Bytes>>,
}

impl Transport {
    pub(crate) fn new(servers: &Servers) -> Result<Self, PolicyError> {
        let policy = HttpPolicy { connect_timeout: servers.policy.connect_timeout, ..HttpPolicy::default() };
        let client = HttpClient::builder().policy(policy);
        #[cfg(feature = "tls")]
        let client = client.tls(servers.tls.clone());
        let client = client.build()?;
        let server = |url: &ServerUrl| {
            let endpoint = Arc::new(url.endpoint().clone());
            let handle = EndpointHandle::new("eureka".into(), endpoint, Arc::new(Group::new(1)));
            Server { url: url.clone(), service: client.new_service(&handle) }
        };
        Ok(Self {
            servers: servers.urls.iter().map(|(_, url)| server(url)).collect(),
            request_timeout: servers.policy.request_timeout,
            max_bytes: servers.policy.max_bytes,
        })
    }

    pub(super) fn url(&self, server: usize) -> &ServerUrl {
        &self.servers[server].url
    }

    pub(super) fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    pub(super) fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    pub(super) fn failure(&self, server: usize, reason: impl fmt::Display) -> Failure {
        Failure { server: self.servers[server].url.clone(), reason: reason.to_string() }
    }

    /// Asks one server, until `end` at the latest.
    pub(super) async fn ask(&self, server: usize, ask: &Ask, end: Instant) -> Result<Answer, Failure> {
        match timeout_at(end, self.exchange(server, ask)).await {
            Ok(answer) => answer.map_err(|reason| self.failure(server, reason)),
            Err(_) => Err(self.failure(server, "no answer in time")),
        }
    }

    /// Asks one server, for as long as it takes.
    pub(crate) async fn exchange(&self, server: usize, ask: &Ask) -> Result<Answer, String> {
        let mut path = self.servers[server].url.path(&ask.resource);
        for _ in 0..=REDIRECTS {
            let response = self.send(server, ask, &path, "application/json").await?;
            if !response.status().is_redirection() {
                return read(response, ask.max_bytes.unwrap_or(self.max_bytes)).await;
            }
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            match location.and_then(|location| self.servers[server].url.own(location)) {
                Some(own) => path = own,
                // Credentials, and what is believed, are this server's alone.
                None => return Err(format!("{}: a redirect to another host is not followed", response.status())),
            }
        }
        Err(format!("more than {REDIRECTS} redirects"))
    }

    /// The stream of a server's changes, as it begins.
    pub(super) async fn open(&self, server: usize, query: &str) -> Result<Response<ClientBody>, String> {
        let path = format!("{}{query}", self.servers[server].url.watch_path());
        self.send(server, &Ask::new(Method::GET, ""), &path, "application/x-ndjson").await
    }

    async fn send(
        &self,
        server: usize,
        ask: &Ask,
        path: &str,
        accept: &'static str,
    ) -> Result<Response<ClientBody>, String> {
        let server = &self.servers[server];
        let mut request = Request::builder()
            .method(&ask.method)
            .uri(path)
            .header(ACCEPT, accept)
            .header(USER_AGENT, concat!("hopvine/", env!("CARGO_PKG_VERSION")));
        // A stream is not packed: each line must be there at once.
        if accept == "application/json" {
            request = request.header(ACCEPT_ENCODING, "gzip");
        }
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        if ask.body.is_some() {
            request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(authorization) = server.url.authorization() {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request =
            request.body(Full::new(ask.body.clone().unwrap_or_default())).map_err(|error| error.to_string())?;
        server.service.clone().oneshot(request).await.map_err(|error| causes(&error))
    }
}

async fn read(response: Response<ClientBody>, max_bytes: usize) -> Result<Answer, String> {
    let (head, mut body) = response.into_parts();
    let gzip = match head.headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"" | b"identity") => false,
        Some(b"gzip" | b"x-gzip") => true,
        Some(_) => return Err("packed in a way that was not asked for".to_owned()),
    };
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| causes(&error))?;
        if let Ok(data) = frame.into_data() {
            if whole.len() + data.len() > max_bytes {
                return Err(format!("longer than {max_bytes} bytes"));
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(Answer { status: head.status, body: whole.freeze(), gzip, max_bytes })
}

/// An error with what it came from.
fn causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
