use std::{fmt, sync::Arc};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
        server::WebPkiClientVerifier,
    },
};
use tower::BoxError;

use crate::connect::http::InvalidTls;

/// The certificate a registry shows, and whose it asks for: TLS 1.2 and 1.3 by rustls with ring.
#[derive(Clone)]
#[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
pub struct ServerTls {
    certificates: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKeyDer<'static>>,
    clients: Option<Arc<RootCertStore>>,
    acceptor: TlsAcceptor,
}

impl ServerTls {
    /// Shows this certificate, with its chain. Both as PEM.
    pub fn new(certificate: &[u8], key: &[u8]) -> Result<Self, InvalidTls> {
        let certificates = certificates(certificate, "certificate")?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| InvalidTls::new(format!("key: {error}")))?;
        Self::make(certificates, Arc::new(key), None)
    }

    /// Takes only clients and peers that show a certificate signed by one of these, as PEM.
    pub fn client_roots(self, pem: &[u8]) -> Result<Self, InvalidTls> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(pem, "client roots")? {
            roots.add(certificate).map_err(|error| InvalidTls::new(format!("client roots: {error}")))?;
        }
        Self::make(self.certificates, self.key, Some(Arc::new(roots)))
    }

    /// Whether it asks clients for a certificate.
    pub(super) fn knows_clients(&self) -> bool {
        self.clients.is_some()
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }

    fn make(
        certificates: Vec<CertificateDer<'static>>,
        key: Arc<PrivateKeyDer<'static>>,
        clients: Option<Arc<RootCertStore>>,
    ) -> Result<Self, InvalidTls> {
        let config = || -> Result<ServerConfig, BoxError> {
            let provider = Arc::new(ring::default_provider());
            let builder =
                ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
            let builder = match &clients {
                None => builder.with_no_client_auth(),
                Some(roots) => {
                    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider).build()?;
                    builder.with_client_cert_verifier(verifier)
                }
            };
            let mut config = builder.with_single_cert(certificates.clone(), key.clone_key())?;
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            Ok(config)
        };
        let config = config().map_err(|error| InvalidTls::new(format!("certificate: {error}")))?;
        Ok(Self { certificates, key, clients, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, InvalidTls> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|error| InvalidTls::new(format!("{what}: {error}")))?;
    if certificates.is_empty() {
        return Err(InvalidTls::new(format!("{what}: no certificate in the PEM text")));
    }
    Ok(certificates)
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("asks_clients", &self.knows_clients()).finish_non_exhaustive()
    }
}
