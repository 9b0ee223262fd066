//! Who signs the certificates of the servers here, and of those that are not what they say.

use std::sync::Arc;

use hopvine::connect::http::{Tls, Version};
use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, pem::PemObject},
    },
};

use super::{
    certificates::{self, Issuer},
    fault::Fault,
};

/// The name on the certificates.
pub(crate) const NAME: &str = "shop.test";

pub(crate) struct Authority {
    ours: Issuer,
    unknown: Issuer,
}

impl Authority {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { ours: certificates::issuer(), unknown: certificates::issuer() })
    }

    /// Believes it.
    pub(crate) fn tls(&self) -> Tls {
        Tls::pem_roots(self.ours.pem().as_bytes()).unwrap()
    }

    /// Shows a certificate with this fault.
    pub(crate) fn acceptor(&self, fault: Option<Fault>, version: Version) -> TlsAcceptor {
        let issuer = if fault == Some(Fault::UnknownIssuer) { &self.unknown } else { &self.ours };
        let name = if fault == Some(Fault::WrongName) { "bank.test" } else { NAME };
        let (certificate, key) =
            certificates::leaf(issuer, name, ExtendedKeyUsagePurpose::ServerAuth, |params| match fault {
                Some(Fault::Expired) => params.not_after = date_time_ymd(2020, 1, 1),
                Some(Fault::NotYetValid) => params.not_before = date_time_ymd(4000, 1, 1),
                _ => {}
            });
        let certificate = PemObject::from_pem_slice(certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let protocol = if version == Version::Http2 { "h2" } else { "http/1.1" };
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}
