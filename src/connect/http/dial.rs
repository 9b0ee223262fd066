//! From an endpoint to a connection that speaks HTTP.

use std::{
    collections::VecDeque,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use http::{HeaderValue, Method, Request};
use http_body::Body;
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::{Instant, timeout_at},
};
use tower::BoxError;

use super::{
    client::Settings,
    policy::Version,
    proxy::EgressProxy,
    send::{Sender, not_connected},
};
use crate::{
    Endpoint, Error, context,
    endpoint::{Address, Scheme},
};

/// A connection, and the future that drives it, which is told where to note how many streams its server allows.
pub(super) struct Established<B> {
    pub(super) sender: Sender<B>,
    pub(super) driver: Driver,
}

type Driver = Box<dyn FnOnce(Arc<AtomicUsize>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// Any two-way stream of bytes.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// How long an address may take to answer until the next one is tried beside it (RFC 8305).
const HAPPY_EYEBALLS: Duration = Duration::from_millis(250);

pub(super) async fn dial<B>(endpoint: &Endpoint, settings: &Settings) -> Result<Established<B>, Error>
where
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let end = context::now() + settings.policy.connect_timeout;
    let result = match timeout_at(end, establish(endpoint, settings)).await {
        Ok(result) => result.map_err(not_connected),
        Err(_) => Err(not_connected(format!("no connection within {:?}", settings.policy.connect_timeout))),
    };
    result.map_err(|error| error.with_endpoint(endpoint.id().shared()))
}

async fn establish<B>(endpoint: &Endpoint, settings: &Settings) -> Result<Established<B>, BoxError>
where
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let io: Box<dyn Io> = match &settings.proxy {
        None => Box::new(connect(endpoint.address()).await?),
        Some(proxy) => {
            let io = connect(proxy.endpoint().address()).await?;
            if EgressProxy::is_asked_itself(endpoint.scheme()) {
                Box::new(io)
            } else {
                tunnel(io, endpoint, proxy).await?
            }
        }
    };
    match endpoint.scheme() {
        Scheme::Http => {
            let http2 = settings.version == Version::Http2;
            handshake(io, http2, settings).await
        }
        Scheme::Https => {
            let (io, http2) = secure(io, endpoint, settings).await?;
            handshake(io, http2, settings).await
        }
    }
}

#[cfg(feature = "tls")]
async fn secure(io: Box<dyn Io>, endpoint: &Endpoint, settings: &Settings) -> Result<(Box<dyn Io>, bool), BoxError> {
    use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

    let name = match (endpoint.server_name(), endpoint.address()) {
        (Some(name), _) => name.to_owned(),
        (None, Address::Host(host, _)) => host.to_string(),
        (None, Address::Socket(socket)) => socket.ip().to_string(),
    };
    let name = ServerName::try_from(name)?;
    let config = settings.tls.config(settings.version)?;
    let stream = TlsConnector::from(config).connect(name, io).await?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    if settings.version == Version::Http2 && !http2 {
        return Err("the server does not speak HTTP/2".into());
    }
    Ok((Box::new(stream), http2))
}

#[cfg(not(feature = "tls"))]
#[allow(clippy::unused_async, reason = "the same signature with and without TLS")]
async fn secure(_: Box<dyn Io>, _: &Endpoint, _: &Settings) -> Result<(Box<dyn Io>, bool), BoxError> {
    Err("an https endpoint needs the feature `tls`".into())
}

async fn handshake<B>(io: Box<dyn Io>, http2: bool, settings: &Settings) -> Result<Established<B>, BoxError>
where
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let io = TokioIo::new(io);
    let policy = &settings.policy;
    if http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(policy.ping_interval)
            .keep_alive_timeout(policy.ping_interval)
            .max_header_list_size(u32::try_from(policy.max_head).unwrap_or(u32::MAX));
        let (sender, mut connection) = builder.handshake(io).await?;
        Ok(Established {
            sender: Sender::Http2(sender),
            driver: Box::new(move |most| {
                Box::pin(std::future::poll_fn(move |cx| {
                    let ended = Pin::new(&mut connection).poll(cx);
                    most.store(connection.current_max_send_streams(), Relaxed);
                    if ended.is_ready() { Poll::Ready(()) } else { Poll::Pending }
                }))
            }),
        })
    } else {
        let (sender, connection) = http1::Builder::new().max_buf_size(policy.max_head).handshake(io).await?;
        Ok(Established {
            sender: Sender::Http1(sender),
            driver: Box::new(|_| {
                Box::pin(async move {
                    let _ = connection.await;
                })
            }),
        })
    }
}

async fn connect(address: &Address) -> Result<TcpStream, BoxError> {
    let stream = match address {
        Address::Socket(socket) => TcpStream::connect(socket).await?,
        Address::Host(host, port) => connect_first(candidates(lookup_host((&**host, *port)).await?)).await?,
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Those of a host's addresses that a client may be sent to, one of each family after the other, IPv6 first.
fn candidates(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    // A name is input as an address is, whoever says what it stands for.
    let usable = found.filter(|address| Endpoint::from(*address).validate().is_ok());
    let (mut six, mut four): (VecDeque<_>, VecDeque<_>) = usable.partition(SocketAddr::is_ipv6);
    let pairs = std::iter::from_fn(|| match [six.pop_front(), four.pop_front()] {
        [None, None] => None,
        pair => Some(pair),
    });
    pairs.flatten().flatten().collect()
}

/// The first of a host's addresses that answers. The next one is tried when the one before has failed, and beside it when it has not answered
/// for a while.
async fn connect_first(addresses: Vec<SocketAddr>) -> Result<TcpStream, BoxError> {
    let mut last: BoxError = "the name has no address that may be used".into();
    let mut addresses = addresses.into_iter();
    let mut connecting = FuturesUnordered::new();
    loop {
        connecting.extend(addresses.next().map(TcpStream::connect));
        match timeout_at(Instant::now() + HAPPY_EYEBALLS, connecting.next()).await {
            Ok(Some(Ok(stream))) => return Ok(stream),
            Ok(Some(Err(error))) => last = error.into(),
            Ok(None) => return Err(last),
            Err(_) => {}
        }
    }
}

/// Asks a proxy for a way through to the endpoint.
async fn tunnel(io: TcpStream, endpoint: &Endpoint, proxy: &EgressProxy) -> Result<Box<dyn Io>, BoxError> {
    let (mut sender, connection) = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(io)).await?;
    let connection = tokio::spawn(connection.with_upgrades());
    let target = endpoint.address().to_string();
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri(&target)
        .header(http::header::HOST, HeaderValue::from_str(&target)?)
        .body(Empty::new())?;
    if let Some(authorization) = proxy.authorization() {
        request.headers_mut().insert(http::header::PROXY_AUTHORIZATION, authorization.clone());
    }
    let response = sender.send_request(request).await?;
    if !response.status().is_success() {
        connection.abort();
        return Err(format!("the proxy answered {} to CONNECT", response.status()).into());
    }
    Ok(Box::new(TokioIo::new(hyper::upgrade::on(response).await?)))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Nobody listens there.
    async fn refuses(ip: &str) -> SocketAddr {
        TcpListener::bind((ip, 0)).await.unwrap().local_addr().unwrap()
    }

    async fn reached(addresses: &[SocketAddr]) -> Result<SocketAddr, BoxError> {
        let stream = connect_first(addresses.to_vec());
        let end = Instant::now() + Duration::from_secs(10);
        Ok(timeout_at(end, stream).await.expect("hangs")?.peer_addr()?)
    }

    #[test]
    fn families_take_turns_and_nobody_is_sent_where_nobody_should_be() {
        let addresses = |text: &str| text.split_whitespace().map(|one| one.parse().unwrap()).collect::<Vec<_>>();
        let tried = |found: &str| candidates(addresses(found).into_iter());
        assert_eq!(tried("10.0.0.1:1 10.0.0.2:1 [::1]:1"), addresses("[::1]:1 10.0.0.1:1 10.0.0.2:1"));
        assert_eq!(tried("[::1]:1 [::2]:1 10.0.0.1:1"), addresses("[::1]:1 10.0.0.1:1 [::2]:1"));
        assert_eq!(tried("0.0.0.0:1 10.0.0.1:1 169.254.169.254:1 [::]:1 224.0.0.1:1"), addresses("10.0.0.1:1"));
        assert_eq!(tried("[::ffff:0.0.0.0]:1 [fe80::1]:1"), []);
    }

    #[tokio::test]
    async fn a_host_is_reached_though_some_of_its_addresses_are_dead() {
        let (six, four) =
            (TcpListener::bind("[::1]:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let (six, four) = (six.local_addr().unwrap(), four.local_addr().unwrap());
        // Its queue is full: the kernel answers no further handshake.
        let silent = tokio::net::TcpSocket::new_v4().unwrap();
        silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let silent = silent.listen(0).unwrap();
        let address = silent.local_addr().unwrap();
        let mut held = Vec::new();
        while let Ok(stream) = timeout_at(Instant::now() + HAPPY_EYEBALLS, TcpStream::connect(address)).await {
            held.push(stream.unwrap());
            assert!(held.len() < 10, "the queue never filled");
        }
        let refused = [refuses("::1").await, refuses("127.0.0.1").await];
        assert_eq!(reached(&[refused[0], four]).await.unwrap(), four);
        assert_eq!(reached(&[refused[1], six]).await.unwrap(), six);
        assert_eq!(reached(&[address, six]).await.unwrap(), six);
        assert_eq!(reached(&[address, refused[0], refused[1], four]).await.unwrap(), four, "of one family, too");
        assert!(reached(&refused).await.unwrap_err().to_string().contains("refused"));
        assert!(reached(&[]).await.unwrap_err().to_string().contains("no address"));
    }
}
