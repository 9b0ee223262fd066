//! An instance of a service: a server on loopback that can be killed as a process is, connections and all.

use std::{convert::Infallible, io, net::SocketAddr};

use axum::{body::Body, extract::Request, response::Response, routing::Router};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, task::JoinSet};
use tower::ServiceExt as _;

pub struct Instance {
    address: SocketAddr,
    // Dropped with the instance, and all its connections with it.
    _tasks: JoinSet<()>,
}

impl Instance {
    pub async fn start(app: Router) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, app));
        Ok(Self { address, _tasks: tasks })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it at once: connections break, the port refuses.
    pub fn kill(self) {
        drop(self);
    }
}

async fn accept(listener: TcpListener, app: Router) {
    let mut connections = JoinSet::new();
    loop {
        let socket = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Ok((socket, _)) = socket else { continue };
        let _ = socket.set_nodelay(true);
        let app = app.clone().map_request(|request: Request<hyper::body::Incoming>| request.map(Body::new));
        connections.spawn(async move {
            let service = TowerToHyperService::new(app.map_err(|never: Infallible| match never {}));
            // A broken connection is the caller's to notice.
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

/// A plain answer.
pub fn text(body: impl Into<String>) -> Response {
    Response::new(Body::from(body.into()))
}
