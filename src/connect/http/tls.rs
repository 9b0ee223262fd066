use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tower::BoxError;

use super::Version;

/// Settings of TLS: whose certificates are believed, and which one is shown. rustls with ring, TLS 1.2 and 1.3.
///
/// The server's certificate must bear the endpoint's [server name](crate::Endpoint::server_name), or the host of its address.
///
/// ```
/// use hopvine::connect::http::Tls;
/// let tls = Tls::platform_roots();
/// assert!(Tls::pem_roots(b"no certificate").is_err());
/// # let _ = tls;
/// ```
#[derive(Clone, Default)]
pub struct Tls {
    roots: Roots,
    identity: Option<Arc<Identity>>,
    /// Made at the first use, one for each version.
    configs: Arc<[OnceLock<Arc<ClientConfig>>; 3]>,
}

#[derive(Clone, Debug, Default)]
enum Roots {
    #[default]
    Platform,
    Given(Arc<RootCertStore>),
}

struct Identity {
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// Why a PEM text cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidTls(String);

impl Tls {
    /// Believes whom the operating system believes; the default.
    pub fn platform_roots() -> Self {
        Self::default()
    }

    /// Believes Mozilla's list, as compiled in.
    pub fn webpki_roots() -> Self {
        let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect::<RootCertStore>();
        Self { roots: Roots::Given(Arc::new(roots)), ..Self::default() }
    }

    /// Believes the certificates of this PEM text, and no others.
    pub fn pem_roots(pem: &[u8]) -> Result<Self, InvalidTls> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(pem, "roots")? {
            roots.add(certificate).map_err(|error| InvalidTls(format!("roots: {error}")))?;
        }
        Ok(Self { roots: Roots::Given(Arc::new(roots)), ..Self::default() })
    }

    /// Shows this certificate, with its chain, to servers that ask for one. Both as PEM.
    pub fn client_certificate(self, certificate: &[u8], key: &[u8]) -> Result<Self, InvalidTls> {
        let certificates = certificates(certificate, "client certificate")?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| InvalidTls(format!("client key: {error}")))?;
        let identity = Some(Arc::new(Identity { certificates, key }));
        let tls = Self { identity, configs: Arc::default(), ..self };
        // A key that does not fit is told now, not at the first call.
        tls.make(Version::Auto).map_err(|error| InvalidTls(format!("client certificate: {error}")))?;
        Ok(tls)
    }

    pub(super) fn config(&self, version: Version) -> Result<Arc<ClientConfig>, BoxError> {
        let place = &self.configs[version as usize];
        if let Some(config) = place.get() {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.make(version)?);
        Ok(Arc::clone(place.get_or_init(|| config)))
    }

    fn make(&self, version: Version) -> Result<ClientConfig, BoxError> {
        use rustls_platform_verifier::BuilderVerifierExt as _;

        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?;
        let builder = match &self.roots {
            Roots::Platform => builder.with_platform_verifier()?,
            Roots::Given(roots) => builder.with_root_certificates(Arc::clone(roots)),
        };
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder.with_client_auth_cert(identity.certificates.clone(), identity.key.clone_key())?,
        };
        let (http2, http1) = (b"h2".to_vec(), b"http/1.1".to_vec());
        config.alpn_protocols = match version {
            Version::Auto => vec![http2, http1],
            Version::Http1 => vec![http1],
            Version::Http2 => vec![http2],
        };
        Ok(config)
    }
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, InvalidTls> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|error| InvalidTls(format!("{what}: {error}")))?;
    if certificates.is_empty() {
        return Err(InvalidTls(format!("{what}: no certificate in the PEM text")));
    }
    Ok(certificates)
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roots = match &self.roots {
            Roots::Platform => "platform".to_owned(),
            Roots::Given(roots) => format!("{} given", roots.len()),
        };
        f.debug_struct("Tls")
            .field("roots", &roots)
            .field("client_certificate", &self.identity.is_some())
            .finish_non_exhaustive()
    }
}

impl InvalidTls {
    #[cfg(feature = "registry")]
    pub(crate) fn new(why: String) -> Self {
        Self(why)
    }
}

impl fmt::Display for InvalidTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidTls {}
