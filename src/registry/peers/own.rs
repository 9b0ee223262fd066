//! Which of the URLs is this registry's own.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures_util::future::join_all;

use crate::{discover::eureka::ServerUrl, endpoint::Address};

/// How long a name may take to be looked up.
const LOOKUP: Duration = Duration::from_secs(2);

/// Each of the URLs once, but for the one that is known to be our own.
pub(in crate::registry) fn distinct(urls: Vec<ServerUrl>, my_url: Option<&ServerUrl>) -> Vec<ServerUrl> {
    let mut distinct: Vec<ServerUrl> = Vec::new();
    for url in urls {
        if distinct.iter().any(|other| other.is_same(&url)) {
            tracing::warn!(target: "hopvine::registry", %url, "a peer is named twice");
        } else if my_url.is_some_and(|my_url| my_url.is_same(&url)) {
            left_out(&url);
        } else {
            distinct.push(url);
        }
    }
    distinct
}

/// Whether each of the URLs leads back here. A registry that told itself would undo what happened meanwhile: it would be told half a second later that an instance
/// left which is back. Names are looked up at once.
pub(in crate::registry) async fn own(urls: &[ServerUrl], listening: SocketAddr) -> Vec<bool> {
    let own = Own::new(listening);
    let is_own = urls.iter().map(async |url| {
        let is_own = own.is_at(url.endpoint().address()).await;
        if is_own {
            left_out(url);
        }
        is_own
    });
    join_all(is_own).await
}

fn left_out(url: &ServerUrl) {
    tracing::warn!(target: "hopvine::registry", %url, "left out of the peers: this registry itself");
}

/// Where this registry listens.
struct Own {
    listening: SocketAddr,
    /// This machine's addresses, if it listens at all of them.
    interfaces: Vec<IpAddr>,
}

impl Own {
    fn new(listening: SocketAddr) -> Self {
        let all = listening.ip().is_unspecified();
        let interfaces = if all { if_addrs::get_if_addrs().unwrap_or_default() } else { Vec::new() };
        Self { listening, interfaces: interfaces.iter().map(if_addrs::Interface::ip).collect() }
    }

    async fn is_at(&self, address: &Address) -> bool {
        if address.port() != self.listening.port() {
            return false;
        }
        let (host, port) = match address {
            Address::Socket(socket) => return self.has(socket.ip()),
            Address::Host(host, port) => (host, *port),
        };
        let found = tokio::time::timeout(LOOKUP, tokio::net::lookup_host((&**host, port))).await;
        // A name that cannot be looked up now is that of a peer that is not there yet.
        found.is_ok_and(|found| found.is_ok_and(|mut found| found.any(|socket| self.has(socket.ip()))))
    }

    fn has(&self, address: IpAddr) -> bool {
        let (address, own) = (address.to_canonical(), self.listening.ip().to_canonical());
        address == own || own.is_unspecified() && (address.is_loopback() || self.interfaces.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn left(urls: &[&str], my_url: Option<&str>, listening: &str) -> Vec<String> {
        let my_url = my_url.map(|url| url.parse::<ServerUrl>().unwrap());
        let urls = ServerUrl::list(urls).unwrap();
        let urls = distinct(urls, my_url.as_ref());
        let own = own(&urls, listening.parse().unwrap()).await;
        urls.iter().zip(own).filter(|(_, is_own)| !is_own).map(|(url, _)| url.to_string()).collect()
    }

    #[tokio::test]
    async fn a_registry_is_no_peer_of_its_own_and_all_others_are() {
        let all = ["http://127.0.0.1:8761/eureka/,http://127.0.0.2:8761/eureka/", "http://127.0.0.1:8762/eureka/"];
        let others = ["http://127.0.0.2:8761/eureka/", "http://127.0.0.1:8762/eureka/"];
        assert_eq!(left(&all, None, "127.0.0.1:8761").await, others);
        // All of a machine's addresses are its own where it listens at all.
        assert_eq!(left(&all, None, "0.0.0.0:8761").await, others[1..]);
        assert_eq!(
            left(&["http://localhost:8761/", "http://localhost:8762/"], None, "127.0.0.1:8761").await,
            ["http://localhost:8762/eureka/"]
        );
        // Names it cannot know of are its own only if it is told.
        let named = ["http://u:p@registry-1.invalid:80/eureka/", "http://registry-2.invalid:80/eureka/"];
        assert_eq!(left(&named, None, "127.0.0.1:8761").await.len(), 2);
        assert_eq!(left(&named, Some("http://REGISTRY-1.invalid:80/eureka"), "127.0.0.1:8761").await, named[1..]);
    }

    #[tokio::test]
    async fn a_peer_that_is_named_twice_is_told_once() {
        let twice = ["http://127.0.0.2:1/eureka/", "http://u:p@127.0.0.2:1/eureka/v2/"];
        assert_eq!(left(&twice, None, "127.0.0.1:1").await, twice[..1]);
    }

    #[tokio::test]
    async fn two_peers_behind_one_proxy_are_both_told() {
        let two = ["http://proxy.invalid:80/a/eureka/", "http://proxy.invalid:80/b/eureka/"];
        assert_eq!(left(&two, None, "127.0.0.1:1").await, two);
        assert_eq!(left(&two, Some("http://proxy.invalid:80/a/eureka/v2"), "127.0.0.1:1").await, two[1..]);
    }
}
