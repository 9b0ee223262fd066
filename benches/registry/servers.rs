//! Our registry, and a bare hyper service, each as the whole of a process.

use std::{convert::Infallible, fs, net::SocketAddr, process::Command};

use bytes::Bytes;
use hopvine::registry::Registry;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use crate::BoxError;

/// Begins the argument that names the server to be.
pub(crate) const ARGUMENT: &str = "--serve=";

/// This program again, as a server.
pub(crate) fn command(server: &str, address: SocketAddr) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.arg(format!("{ARGUMENT}{server}@{address}"));
    command
}

/// Serves until it is killed.
pub(crate) fn serve(server: &str, file: Option<&str>) -> Result<(), BoxError> {
    let (server, address) = server.split_once('@').ok_or("which server where")?;
    let address: SocketAddr = address.parse()?;
    let document = file.map(fs::read).transpose()?.map(Bytes::from);
    tokio::runtime::Runtime::new()?.block_on(async {
        match document {
            None if server == "hopvine" => {
                let _registry = Registry::builder().bind(address).start().await?;
                std::future::pending().await
            }
            None => Err(format!("{server} is no server").into()),
            Some(document) => bare(address, document).await,
        }
    })
}

/// Every `GET` is answered with the document, everything else with nothing.
async fn bare(address: SocketAddr, document: Bytes) -> Result<(), BoxError> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let document = document.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let document = document.clone();
            async move {
                let mut response = Response::new(Full::default());
                match *request.method() {
                    Method::GET => {
                        response = Response::new(Full::new(document));
                        let headers = response.headers_mut();
                        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
                        headers.insert(header::CONTENT_ENCODING, header::HeaderValue::from_static("gzip"));
                    }
                    Method::POST => {
                        // Whoever stores it must have it whole.
                        let _ = request.into_body().collect().await;
                        *response.status_mut() = StatusCode::NO_CONTENT;
                    }
                    _ => {}
                }
                Ok::<_, Infallible>(response)
            }
        });
        tokio::spawn(http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(socket), service));
    }
}
