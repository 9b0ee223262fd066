//! A registry that answers as it is told, on loopback.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures_util::stream;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet, time::Instant};

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Seen {
    /// `GET /apps/`: below `/eureka`.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.path.strip_prefix("/eureka").unwrap_or(&self.path))
    }
}

/// What is answered.
pub(crate) enum Reply {
    Whole(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Lines of a push, as they come.
    Push(mpsc::UnboundedReceiver<String>),
    /// Nothing at all.
    Never,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self::Whole(status, Vec::new(), Vec::new())
    }

    pub(crate) fn json(document: impl Into<String>) -> Self {
        let kind = ("content-type", "application/json".to_owned());
        Self::Whole(200, vec![kind], document.into().into_bytes())
    }

    pub(crate) fn gzip(document: impl AsRef<[u8]>) -> Self {
        let headers = vec![("content-type", "application/json".to_owned()), ("content-encoding", "gzip".to_owned())];
        Self::Whole(200, headers, gzip(document.as_ref()))
    }

    /// As a current Spring server does it.
    pub(crate) fn not_found() -> Self {
        let kind = ("content-type", "application/json".to_owned());
        let page =
            r#"{"timestamp":"2026-11-22T12:08:24.917+00:00","status":404,"error":"Not Found","path":"/eureka/apps"}"#;
        Self::Whole(404, vec![kind], page.into())
    }
}

pub(crate) fn gzip(document: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::Write::write_all(&mut packed, document).unwrap();
    packed.finish().unwrap()
}

type Script = Arc<Mutex<Box<dyn FnMut(&Seen) -> Reply + Send>>>;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    script: Script,
    /// Stops the listener and every connection.
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(crate) async fn start(script: impl FnMut(&Seen) -> Reply + Send + 'static) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), script).await
    }

    pub(crate) async fn start_at(address: SocketAddr, script: impl FnMut(&Seen) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let script: Script = Arc::new(Mutex::new(Box::new(script)));
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let task = tokio::spawn(serve(listener, Arc::clone(&script), Arc::clone(&seen)));
        Self { address, seen, script, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/eureka/", self.address)
    }

    /// From now on answers like this.
    pub(crate) fn script(&self, script: impl FnMut(&Seen) -> Reply + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    /// Closes everything, and is gone.
    pub(crate) async fn stop(mut self) -> SocketAddr {
        self.task.abort();
        let _ = (&mut self.task).await;
        self.address
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen().iter().map(Seen::line).collect()
    }

    /// How many requests began like this.
    pub(crate) fn count(&self, beginning: &str) -> usize {
        self.lines().iter().filter(|line| line.starts_with(beginning)).count()
    }
}

async fn serve(listener: TcpListener, script: Script, seen: Arc<Mutex<Vec<Seen>>>) {
    // Dropped with this task, and the connections with it.
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
        let service = service_fn(move |request| answer(request, Arc::clone(&script), Arc::clone(&seen)));
        connections.spawn(async move {
            let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}

type Body = BoxBody<Bytes, Infallible>;

async fn answer(
    request: Request<Incoming>,
    script: Script,
    seen: Arc<Mutex<Vec<Seen>>>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let request = Seen {
        method: head.method.to_string(),
        path: head.uri.to_string(),
        headers: head.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let reply = (script.lock().unwrap())(&request);
    seen.lock().unwrap().push(request);
    Ok(match reply {
        Reply::Whole(status, headers, body) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(Full::from(body).boxed()).unwrap()
        }
        Reply::Push(lines) => {
            let frames = stream::unfold(lines, async |mut lines| {
                let line = lines.recv().await?;
                Some((Ok(Frame::data(Bytes::from(line))), lines))
            });
            let response = Response::builder().header("content-type", "application/x-ndjson");
            response.body(BoxBody::new(StreamBody::new(frames))).unwrap()
        }
        Reply::Never => std::future::pending().await,
    })
}

/// An instance's document.
pub(crate) fn instance(app: &str, number: u16, status: &str) -> String {
    with(app, number, status, "ADDED", "")
}

/// With more fields, each followed by a comma.
pub(crate) fn with(app: &str, number: u16, status: &str, action: &str, more: &str) -> String {
    let vip = app.to_lowercase();
    format!(
        r#"{{"instanceId":"{vip}-{number}","hostName":"10.0.0.{number}","app":"{app}","ipAddr":"10.0.0.{number}","status":"{status}",{more}"port":{{"$":8080,"@enabled":"true"}},"securePort":{{"$":8443,"@enabled":"false"}},"vipAddress":"{vip}","actionType":"{action}"}}"#
    )
}

/// A list or a delta.
pub(crate) fn applications(hash: &str, applications: &[(&str, &[String])]) -> String {
    let each = applications
        .iter()
        .map(|(name, instances)| format!(r#"{{"name":"{name}","instance":[{}]}}"#, instances.join(",")));
    let each: Vec<_> = each.collect();
    format!(
        r#"{{"applications":{{"versions__delta":"1","apps__hashcode":"{hash}","application":[{}]}}}}"#,
        each.join(",")
    )
}

/// So many instances of ORDERS that are up.
pub(crate) fn orders(numbers: &[u16]) -> String {
    let instances: Vec<_> = numbers.iter().map(|number| instance("ORDERS", *number, "UP")).collect();
    let hash = if numbers.is_empty() { String::new() } else { format!("UP_{}_", numbers.len()) };
    applications(&hash, &[("ORDERS", &instances)])
}

/// Waits for a condition, 30 s at most.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < end, "waited 30 s in vain: {what}");
        tokio::time::sleep_until(Instant::now() + Duration::from_millis(2)).await;
    }
}
