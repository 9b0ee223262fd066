//! Over loopback: hyper's bare client, hyper-util's, our client, and our stack over it. CPU time of the client's thread per request,
//! 32 at once: over HTTP/1 on 32 connections, over HTTP/2 on one.

use std::{future::Future, net::SocketAddr, rc::Rc, sync::Arc};

use bytes::Bytes;
use futures_util::future::join_all;
use hopvine::{
    Directory, Endpoint, EndpointHandle, NewService as _,
    connect::http::{HttpClient, Version},
    endpoint::Group,
    stacks::{Hop, server_to_server},
};
use http::{Response, Uri};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    client::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use tower::{Service, ServiceExt as _};

use crate::{
    bare::get,
    layers::Http,
    measure::{Case, Run, cpu, runtime},
    stacks,
};

/// Requests at once.
const AT_ONCE: u64 = 32;

pub(crate) fn cases(cases: &mut Vec<Case>) {
    for (version, name) in [(Version::Http1, "http1"), (Version::Http2, "http2")] {
        let bare = format!("{name}/bare");
        let mut push = |case: Case| cases.push(case.beside(bare.clone()).uncountable().long());
        push(Case::new(bare.clone(), move || bare_client(version)));
        push(Case::new(format!("{name}/legacy"), move || legacy(version)));
        push(Case::new(format!("{name}/client"), move || client(version)));
        push(Case::new(format!("{name}/stack"), move || stack(version)));
        push(Case::new(format!("{name}/stack-full"), move || stack_full(version)));
    }
}

/// A server of one answer, on a thread of its own, as long as the process lives.
fn server() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        runtime().block_on(async move {
            let listener = TcpListener::from_std(listener).expect("a socket");
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                tokio::spawn(async move {
                    let answer = |_| async {
                        Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from_static(b"apples"))))
                    };
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
                });
            }
        });
    });
    address
}

/// So many requests at once, each by `one`, which makes its share of them.
fn at_once<F: Future<Output = ()>>(runtime: Runtime, one: impl Fn(usize, u64) -> F + 'static) -> Run {
    Box::new(move |count| {
        let each = count.div_ceil(AT_ONCE);
        let start = cpu();
        runtime.block_on(join_all((0..AT_ONCE as usize).map(|number| one(number, each))));
        // Per request asked for, though a few more may have been made.
        cpu().saturating_sub(start).mul_f64(count as f64 / (each * AT_ONCE) as f64)
    })
}

/// The answers of a service that is cloned for each request, as a handler would.
fn each_by<S, B>(runtime: Runtime, service: S, request: impl Fn() -> Http + Clone + 'static) -> Run
where
    S: Service<Http, Response = Response<B>, Error: std::fmt::Debug> + Clone + 'static,
    B: Body<Error: std::fmt::Debug>,
{
    at_once(runtime, move |_, count| {
        let (service, request) = (service.clone(), request.clone());
        async move {
            for _ in 0..count {
                let response = service.clone().oneshot(request()).await.expect("an answer");
                drain(response).await;
            }
        }
    })
}

async fn drain<B: Body<Error: std::fmt::Debug>>(response: Response<B>) {
    let body = response.into_body().collect().await.expect("a body");
    std::hint::black_box(body.to_bytes().len());
}

fn bare_client(version: Version) -> Run {
    let (runtime, address) = (runtime(), server());
    if version == Version::Http2 {
        let sender = runtime.block_on(async {
            let stream = TcpStream::connect(address).await.expect("connected");
            stream.set_nodelay(true).expect("a socket");
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("a handshake");
            tokio::spawn(connection);
            sender
        });
        at_once(runtime, move |_, count| {
            let mut sender = sender.clone();
            async move {
                for _ in 0..count {
                    sender.ready().await.expect("ready");
                    drain(sender.send_request(absolute(address)).await.expect("an answer")).await;
                }
            }
        })
    } else {
        let senders = runtime.block_on(join_all((0..AT_ONCE).map(|_| async {
            let stream = TcpStream::connect(address).await.expect("connected");
            stream.set_nodelay(true).expect("a socket");
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("a handshake");
            tokio::spawn(connection);
            Rc::new(tokio::sync::Mutex::new(sender))
        })));
        at_once(runtime, move |number, count| {
            let sender = Rc::clone(&senders[number]);
            async move {
                // Nobody else has it.
                let mut sender = sender.lock().await;
                for _ in 0..count {
                    sender.ready().await.expect("ready");
                    drain(sender.send_request(get()).await.expect("an answer")).await;
                }
            }
        })
    }
}

/// As HTTP/2 and hyper-util's client want it.
fn absolute(address: SocketAddr) -> Http {
    thread_local! {
        static LAST: std::cell::RefCell<Option<(SocketAddr, Uri)>> = const { std::cell::RefCell::new(None) };
    }
    let mut request = get();
    *request.uri_mut() = LAST.with_borrow_mut(|last| match last {
        Some((of, uri)) if *of == address => uri.clone(),
        _ => {
            let uri: Uri = format!("http://{address}/items/7").parse().expect("a URI");
            *last = Some((address, uri.clone()));
            uri
        }
    });
    request
}

fn legacy(version: Version) -> Run {
    let (runtime, address) = (runtime(), server());
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).http2_only(version == Version::Http2).build(connector);
    each_by(runtime, client, move || absolute(address))
}

fn client(version: Version) -> Run {
    let (runtime, address) = (runtime(), server());
    let endpoint: Endpoint = format!("http://{address}").parse().expect("an endpoint");
    let service = http_client(version).new_service(&EndpointHandle::new(
        "catalog".into(),
        Arc::new(endpoint),
        Arc::new(Group::new(1)),
    ));
    each_by(runtime, service, get)
}

/// The one instance of the service.
fn catalog(address: SocketAddr) -> Directory {
    let endpoint: Endpoint = format!("http://{address}").parse().expect("an endpoint");
    Directory::fixed([("catalog", [endpoint])])
}

fn stack(version: Version) -> Run {
    let (runtime, address) = (runtime(), server());
    let stack = stacks::stack(catalog(address).service("catalog"), http_client(version));
    each_by(runtime, stack, get)
}

fn stack_full(version: Version) -> Run {
    let (runtime, address) = (runtime(), server());
    let directory = catalog(address);
    let hop = Hop::new("catalog.item", directory.service("catalog"));
    let stack = server_to_server(hop).expect("valid").service(http_client(version));
    each_by(runtime, stack, get)
}

fn http_client<B>(version: Version) -> HttpClient<B> {
    HttpClient::builder().version(version).build().expect("valid")
}
