//! Servers to call.

#![allow(unreachable_pub, reason = "for the modules beside it")]

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::broadcast,
    time::Instant,
};

/// What happens to connections on demand.
#[derive(Clone, Copy)]
enum Order {
    Drop,
    GoAway,
}

pub(crate) struct Server {
    pub address: SocketAddr,
    /// Connections accepted so far, open now, and the most at once.
    pub connections: Arc<AtomicUsize>,
    pub open: Arc<AtomicUsize>,
    pub most: Arc<AtomicUsize>,
    /// Requests it works at.
    pub in_flight: Arc<AtomicUsize>,
    orders: broadcast::Sender<Order>,
}

struct Count(Arc<AtomicUsize>);

impl Count {
    fn new(counter: &Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, SeqCst);
        Self(Arc::clone(counter))
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0").await
    }

    pub(crate) async fn start_at(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let (orders, _) = broadcast::channel(16);
        let server = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            open: Arc::default(),
            most: Arc::default(),
            in_flight: Arc::default(),
            orders,
        };
        let (connections, open, most, in_flight, orders) = (
            Arc::clone(&server.connections),
            Arc::clone(&server.open),
            Arc::clone(&server.most),
            Arc::clone(&server.in_flight),
            server.orders.clone(),
        );
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                connections.fetch_add(1, SeqCst);
                let count = Count::new(&open);
                most.fetch_max(open.load(SeqCst), SeqCst);
                let (in_flight, mut orders) = (Arc::clone(&in_flight), orders.subscribe());
                tokio::spawn(async move {
                    let _count = count;
                    let service = service_fn(move |request| {
                        let in_flight = Arc::clone(&in_flight);
                        async move { answer(request, &in_flight).await }
                    });
                    let mut builder = auto::Builder::new(TokioExecutor::new());
                    builder.http2().max_concurrent_streams(100);
                    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(socket), service));
                    loop {
                        tokio::select! {
                            _ = connection.as_mut() => return,
                            Ok(order) = orders.recv() => match order {
                                Order::Drop => return,
                                Order::GoAway => connection.as_mut().graceful_shutdown(),
                            },
                        }
                    }
                });
            }
        });
        server
    }

    /// Closes every connection, whatever is under way on it.
    pub(crate) fn drop_connections(&self) {
        let _ = self.orders.send(Order::Drop);
    }

    /// Says on every connection that it will close.
    pub(crate) fn goaway(&self) {
        let _ = self.orders.send(Order::GoAway);
    }
}

async fn answer(
    request: Request<Incoming>,
    in_flight: &Arc<AtomicUsize>,
) -> Result<Response<BoxBody<Bytes, hyper::Error>>, Infallible> {
    let _count = Count::new(in_flight);
    let whole = |text: &'static str| Full::from(text).map_err(|never| match never {}).boxed();
    Ok(match request.uri().path() {
        "/echo" => Response::new(request.into_body().boxed()),
        "/slow" => {
            tokio::time::sleep_until(Instant::now() + Duration::from_millis(50)).await;
            Response::new(whole("slow"))
        }
        "/large" => Response::new(Full::from(vec![b'x'; 4 << 20]).map_err(|never| match never {}).boxed()),
        "/close" => Response::builder().header("connection", "close").body(whole("closing")).unwrap(),
        _ => Response::new(whole("hello from the server")),
    })
}

/// A server of one's own: `serve` gets each connection.
pub(crate) async fn raw<F, Fut>(serve: F) -> SocketAddr
where
    F: Fn(TcpStream) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let serve = Arc::clone(&serve);
            tokio::spawn(async move { serve(socket).await });
        }
    });
    address
}

/// Waits for a condition, 10 s at most.
pub(crate) async fn eventually(condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "waited 10 s in vain");
        tokio::time::sleep_until(Instant::now() + Duration::from_millis(2)).await;
    }
}
