// SPDX-License-Identifier: Apache-2.0
//! TLS towards callers: 1.2 and 1.3, ALPN, and a certificate that can be replaced while connections run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::config::{self, ClientAuth};

/// The certificate of a listener, and what it asks of callers.
pub(super) struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    callers: Option<Callers>,
    current: ArcSwap<Current>,
}

/// What is asked of callers.
struct Callers {
    ca: PathBuf,
    crls: Vec<PathBuf>,
    must: ClientAuth,
}

/// What the files have said.
struct Current {
    files: Files,
    config: Arc<ServerConfig>,
}

/// Everything that the files hold but the private key.
#[derive(PartialEq)]
struct Files {
    chain: Vec<CertificateDer<'static>>,
    roots: Vec<CertificateDer<'static>>,
    crls: Vec<CertificateRevocationListDer<'static>>,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Certificate").field("chain", &self.chain).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Reads the files. The error names the file and never its content.
    pub(super) fn read(tls: &config::Tls) -> Result<Arc<Self>, String> {
        let path = |path: &toml::Spanned<String>| PathBuf::from(path.as_ref());
        if tls.client_ca.is_none() && (tls.client_auth.is_some() || !tls.client_crls.is_empty()) {
            return Err(format!("{}: client_auth and client_crls need client_ca", tls.certificate.as_ref()));
        }
        let callers = tls.client_ca.as_ref().map(|ca| Callers {
            ca: path(ca),
            crls: tls.client_crls.iter().map(path).collect(),
            must: tls.client_auth.unwrap_or(ClientAuth::Required),
        });
        let (chain, key) = (path(&tls.certificate), path(&tls.key));
        let current = ArcSwap::from_pointee(current(&chain, &key, callers.as_ref())?);
        Ok(Arc::new(Self { chain, key, callers, current }))
    }

    /// Reads the files again; true if something is new in them. On an error what was there stays. Sessions of before are not
    /// taken up again then: a caller whose certificate has been revoked meanwhile must show it.
    pub(super) fn reload(&self) -> Result<bool, String> {
        let new = current(&self.chain, &self.key, self.callers.as_ref())?;
        if new.files == self.current.load().files {
            return Ok(false);
        }
        self.current.store(Arc::new(new));
        Ok(true)
    }

    /// What a new connection is accepted with.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current.load().config))
    }
}

fn current(chain: &Path, key: &Path, callers: Option<&Callers>) -> Result<Current, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certified = certified_key(chain, key)?;
    let mut files = Files { chain: certified.cert.clone(), roots: Vec::new(), crls: Vec::new() };
    let verifier = match callers {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(callers) => {
            files.roots = certificates(&callers.ca)?;
            for path in &callers.crls {
                files.crls.extend(revoked(path)?);
            }
            verifier(callers, &files, &provider)?
        }
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Current { files, config: Arc::new(config) })
}

/// Who checks the certificates of callers.
fn verifier(
    callers: &Callers,
    files: &Files,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for root in &files.roots {
        roots.add(root.clone()).map_err(|error| say(&callers.ca, &format!("not a root of trust: {error}")))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = builder.with_crls(files.crls.iter().cloned()).only_check_end_entity_revocation();
    let builder = if callers.must == ClientAuth::Optional { builder.allow_unauthenticated() } else { builder };
    builder.build().map_err(|error| say(&callers.ca, &error))
}

fn revoked(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let lists = CertificateRevocationListDer::pem_file_iter(path).map_err(|error| say(path, &error))?;
    let lists: Vec<_> = lists.collect::<Result<_, _>>().map_err(|error| say(path, &error))?;
    if lists.is_empty() {
        return Err(say(path, &"no list of revoked certificates in it; a PEM file has `-----BEGIN X509 CRL-----`"));
    }
    Ok(lists)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| say(path, &error))?;
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().map_err(|error| say(path, &error))?;
    if certificates.is_empty() {
        return Err(say(path, &"no certificate in it; a PEM file has `-----BEGIN CERTIFICATE-----`"));
    }
    Ok(certificates)
}

fn say(path: &Path, what: &dyn std::fmt::Display) -> String {
    format!("{}: {what}", path.display())
}

fn certified_key(chain: &Path, key: &Path) -> Result<CertifiedKey, String> {
    let certificates = certificates(chain)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|_| say(key, &"not a PEM file with a private key"))?;
    let signing = rustls::crypto::ring::sign::any_supported_type(&private);
    let signing = signing.map_err(|_| say(key, &"not a private key of a supported kind (RSA, ECDSA, Ed25519)"))?;
    let certified = CertifiedKey::new(certificates, signing);
    certified.keys_match().map_err(|_| say(key, &format!("not the key of {}", chain.display())))?;
    Ok(certified)
}
