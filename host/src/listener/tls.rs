// SPDX-License-Identifier: Apache-2.0
//! TLS towards callers: 1.2 and 1.3, ALPN, certificates that can be replaced while connections run, and sessions that are taken up
//! again. Sessions are sealed tickets (RFC 8446 section 4.6.1, RFC 5077): they cost no memory, and their keys change every
//! six hours.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::Ticketer;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::sni::Names;
use crate::config::{self, ClientAuth};

/// The certificates of a listener, and what it asks of callers.
pub(super) struct Certificate {
    places: Places,
    current: ArcSwap<Current>,
    /// The files as they were when they were read last. Held while they are read: what is read later is in force later.
    looked: Mutex<Vec<Option<Stamp>>>,
}

/// What tells that a file is another one, or was written: its number, length, and when it was changed, in nanoseconds.
type Stamp = (u64, u64, i64, i64);

/// Which files there are.
struct Places {
    own: Pair,
    named: Vec<(Vec<String>, Pair)>,
    callers: Option<Callers>,
}

/// A certificate with its key.
struct Pair {
    chain: PathBuf,
    key: PathBuf,
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
    chains: Vec<Vec<CertificateDer<'static>>>,
    roots: Vec<CertificateDer<'static>>,
    crls: Vec<CertificateRevocationListDer<'static>>,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Certificate").field("chain", &self.places.own.chain).finish_non_exhaustive()
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
        let named = tls.sni.iter().map(|named| {
            let names = named.names.iter().map(|name| name.as_ref().clone()).collect();
            (names, Pair { chain: path(&named.certificate), key: path(&named.key) })
        });
        let own = Pair { chain: path(&tls.certificate), key: path(&tls.key) };
        let places = Places { own, named: named.collect(), callers };
        let looked = Mutex::new(places.stamps());
        let current = ArcSwap::from_pointee(current(&places)?);
        Ok(Arc::new(Self { places, current, looked }))
    }

    /// The files.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.places.files()
    }

    /// Reads the files again; true if something is new in them. On an error what was there stays. Sessions of before are not
    /// taken up again then: a caller whose certificate has been revoked meanwhile must show it.
    pub(super) fn reload(&self) -> Result<bool, String> {
        self.read_again(&mut self.looked.lock().unwrap_or_else(PoisonError::into_inner), self.places.stamps())
    }

    /// As [`Self::reload`], if a file has changed since it was read last; none if none has.
    pub(super) fn look(&self) -> Option<Result<bool, String>> {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = self.places.stamps();
        (*looked != stamps).then(|| self.read_again(&mut looked, stamps))
    }

    fn read_again(&self, looked: &mut Vec<Option<Stamp>>, stamps: Vec<Option<Stamp>>) -> Result<bool, String> {
        *looked = stamps;
        let new = current(&self.places)?;
        if *looked != self.places.stamps() {
            // Of files that are being written, some may be of before. The next look finds all of them.
            looked.clear();
            return Ok(false);
        }
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

impl Places {
    fn files(&self) -> impl Iterator<Item = &Path> {
        let pairs = std::iter::once(&self.own).chain(self.named.iter().map(|(_, pair)| pair));
        let callers = self.callers.iter().flat_map(|callers| std::iter::once(&callers.ca).chain(&callers.crls));
        pairs.flat_map(|pair| [&pair.chain, &pair.key]).chain(callers).map(PathBuf::as_path)
    }

    /// What the files are now, links followed; none for one that is not there.
    fn stamps(&self) -> Vec<Option<Stamp>> {
        let stamp = |path: &Path| {
            let file = std::fs::metadata(path).ok()?;
            Some((file.ino(), file.len(), file.ctime(), file.ctime_nsec()))
        };
        self.files().map(stamp).collect()
    }
}

fn current(places: &Places) -> Result<Current, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certified = certified_key(&places.own)?;
    let mut files = Files { chains: vec![certified.cert.clone()], roots: Vec::new(), crls: Vec::new() };
    let mut names = Names::new(certified);
    for (wanted, pair) in &places.named {
        let certified = certified_key(pair)?;
        files.chains.push(certified.cert.clone());
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        names.add(&wanted, certified).map_err(|error| say(&pair.chain, &error))?;
    }
    let verifier = match &places.callers {
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
        .with_cert_resolver(Arc::new(names));
    config.ticketer = Ticketer::new().map_err(|error| format!("no keys for TLS sessions: {error}"))?;
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

fn certified_key(Pair { chain, key }: &Pair) -> Result<CertifiedKey, String> {
    let certificates = certificates(chain)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|_| say(key, &"not a PEM file with a private key"))?;
    let signing = rustls::crypto::ring::sign::any_supported_type(&private);
    let signing = signing.map_err(|_| say(key, &"not a private key of a supported kind (RSA, ECDSA, Ed25519)"))?;
    let certified = CertifiedKey::new(certificates, signing);
    certified.keys_match().map_err(|_| say(key, &format!("not the key of {}", chain.display())))?;
    Ok(certified)
}
