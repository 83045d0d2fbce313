// SPDX-License-Identifier: Apache-2.0
//! TLS towards callers: 1.2 and 1.3, ALPN, and a certificate that can be replaced while connections run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config;

/// The certificate of a listener.
#[derive(Debug)]
pub(super) struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    current: ArcSwap<CertifiedKey>,
}

impl Certificate {
    /// Reads the files. The error names the file and never its content.
    pub(super) fn read(tls: &config::Tls) -> Result<Arc<Self>, String> {
        let (chain, key) = (PathBuf::from(tls.certificate.as_ref()), PathBuf::from(tls.key.as_ref()));
        let current = ArcSwap::from_pointee(certified_key(&chain, &key)?);
        Ok(Arc::new(Self { chain, key, current }))
    }

    /// Reads the files again; true if the certificate is another one. On an error the old one stays.
    pub(super) fn reload(&self) -> Result<bool, String> {
        let new = certified_key(&self.chain, &self.key)?;
        if new.cert == self.current.load().cert {
            return Ok(false);
        }
        self.current.store(Arc::new(new));
        Ok(true)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

/// The TLS settings of a listener.
pub(super) fn server_config(certificate: Arc<Certificate>) -> Result<Arc<ServerConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certified_key(chain: &Path, key: &Path) -> Result<CertifiedKey, String> {
    let say = |path: &Path, what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(chain).map_err(|error| say(chain, &error))?.collect();
    let certificates = certificates.map_err(|error| say(chain, &error))?;
    if certificates.is_empty() {
        return Err(say(chain, &"no certificate in it; a PEM file has `-----BEGIN CERTIFICATE-----`"));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|_| say(key, &"not a PEM file with a private key"))?;
    let signing = rustls::crypto::ring::sign::any_supported_type(&private);
    let signing = signing.map_err(|_| say(key, &"not a private key of a supported kind (RSA, ECDSA, Ed25519)"))?;
    let certified = CertifiedKey::new(certificates, signing);
    certified.keys_match().map_err(|_| say(key, &format!("not the key of {}", chain.display())))?;
    Ok(certified)
}
