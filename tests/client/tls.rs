//! TLS: whom the client believes, what it shows, and what is agreed on.

use std::sync::Arc;

use bytes::Bytes;
use hopvine::{
    Endpoint, Error, ErrorKind, NewService,
    connect::http::{HttpClient, Tls, Version},
    endpoint::Scheme,
};
use http::{Request, Version as HttpVersion};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rcgen::ExtendedKeyUsagePurpose;
use tokio::net::TcpListener;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
    },
};
use tower::ServiceExt;

use super::{
    certificates::{self, Issuer, issuer},
    handle,
};

/// A certificate for `name`, and its key, as PEM.
fn leaf(issuer: &Issuer, name: &str, purpose: ExtendedKeyUsagePurpose) -> (String, String) {
    certificates::leaf(issuer, name, purpose, |_| {})
}

/// A server that says which version of HTTP it was asked in. With `clients` it wants to see a certificate of theirs.
async fn serve(issuer: &Issuer, protocols: &[&str], clients: Option<&Issuer>) -> Endpoint {
    let (certificate, key) = leaf(issuer, "shop.test", ExtendedKeyUsagePurpose::ServerAuth);
    let provider = Arc::new(ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(clients.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let certificate = PemObject::from_pem_slice(certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let mut config = builder.with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(socket).await else { return };
                let service = service_fn(async |request: Request<hyper::body::Incoming>| {
                    let text = format!(
                        "{:?} {}",
                        request.version(),
                        request.uri().authority().map_or("", |name| name.as_str())
                    );
                    Ok::<_, std::convert::Infallible>(http::Response::new(Full::<Bytes>::from(text)))
                });
                let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Endpoint::from(address).with_scheme(Scheme::Https)
}

async fn call(endpoint: &Endpoint, tls: &Tls, version: Version) -> Result<(HttpVersion, String), Error> {
    let client = HttpClient::<Full<Bytes>>::builder().version(version).tls(tls.clone()).build().unwrap();
    let response = client.new_service(&handle(endpoint.clone())).oneshot(Request::new(Full::default())).await?;
    let version = response.version();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((version, String::from_utf8_lossy(&body).into_owned()))
}

fn roots(issuer: &Issuer) -> Tls {
    Tls::pem_roots(issuer.pem().as_bytes()).unwrap()
}

#[tokio::test]
async fn the_version_is_what_both_sides_agree_on() {
    let issuer = issuer();
    let tls = roots(&issuer);
    let both =
        serve(&issuer, &["h2", "http/1.1"], None).await.with_server_name("shop.test").with_authority("shop.test");
    let old = serve(&issuer, &["http/1.1"], None).await.with_server_name("shop.test");
    let version = async |endpoint, version| call(endpoint, &tls, version).await.map(|(version, _)| version);
    assert_eq!(call(&both, &tls, Version::Auto).await.unwrap(), (HttpVersion::HTTP_2, "HTTP/2.0 shop.test".to_owned()));
    assert_eq!(version(&both, Version::Http1).await.unwrap(), HttpVersion::HTTP_11);
    assert_eq!(version(&old, Version::Auto).await.unwrap(), HttpVersion::HTTP_11);
    assert_eq!(version(&old, Version::Http2).await.unwrap_err().kind(), ErrorKind::Connect);
}

#[tokio::test]
async fn a_server_that_cannot_show_who_it_is_gets_no_request() {
    let issuer = issuer();
    let endpoint = serve(&issuer, &["http/1.1"], None).await;
    let refused = async |endpoint: &Endpoint, tls: &Tls| {
        let error = call(endpoint, tls, Version::Auto).await.unwrap_err();
        assert_eq!((error.kind(), error.is_unsent()), (ErrorKind::Connect, true));
        std::error::Error::source(&error).unwrap().to_string()
    };
    let named = endpoint.clone().with_server_name("shop.test");
    assert!(call(&named, &roots(&issuer), Version::Auto).await.is_ok());
    let wrong = endpoint.clone().with_server_name("bank.test");
    let reason = refused(&wrong, &roots(&issuer)).await;
    assert!(reason.contains("bank.test"), "{reason}");
    let reason = refused(&endpoint, &roots(&issuer)).await;
    assert!(reason.contains("127.0.0.1"), "by its address: {reason}");
    let somebody = certificates::issuer();
    let reason = refused(&named, &roots(&somebody)).await;
    assert!(reason.contains("UnknownIssuer") || reason.contains("BadSignature"), "{reason}");
    refused(&named, &Tls::webpki_roots()).await;
}

#[tokio::test]
async fn a_client_shows_its_certificate_where_one_is_wanted() {
    let (issuer, clients) = (issuer(), certificates::issuer());
    let endpoint = serve(&issuer, &["http/1.1"], Some(&clients)).await.with_server_name("shop.test");
    assert!(call(&endpoint, &roots(&issuer), Version::Auto).await.is_err());
    let (certificate, key) = leaf(&clients, "client", ExtendedKeyUsagePurpose::ClientAuth);
    let tls = roots(&issuer).client_certificate(certificate.as_bytes(), key.as_bytes()).unwrap();
    assert!(call(&endpoint, &tls, Version::Auto).await.is_ok());
    let (_, other_key) = leaf(&clients, "client", ExtendedKeyUsagePurpose::ClientAuth);
    let error = roots(&issuer).client_certificate(certificate.as_bytes(), other_key.as_bytes()).unwrap_err();
    assert!(error.to_string().starts_with("client certificate:"), "{error}");
    assert!(Tls::pem_roots(b"nothing").unwrap_err().to_string().contains("no certificate"));
}
