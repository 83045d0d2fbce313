// SPDX-License-Identifier: Apache-2.0
//! Callers that are known by their certificates.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use penstock::config::{ClientAuth, Listener, Tls};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::rig::{Rig, library};

const POLICY: &str = r#"
[plugins.callers]
plugin = "mtls"
config = { callers = [{ uri = "spiffe://corp/*", tenant = "ai" }, { common_name = "bob" }] }
[vendors.echo]
adapter = "echo"
models = ["echo"]
[[routes]]
name = "ai"
path = "/v1"
auth = "callers"
[[routes]]
name = "open"
path = "/open"
"#;

/// An authority that signs the certificates of callers.
struct Authority {
    root: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What a caller shows.
struct Shown {
    certificate: String,
    key: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = named(name);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().pem();
        Self { root, issuer: Issuer::new(params, key) }
    }

    fn sign(&self, serial: u64, name: &str, uri: Option<&str>) -> Shown {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = named(name);
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = uri.map(|uri| SanType::URI(uri.try_into().unwrap())).into_iter().collect();
        let key = KeyPair::generate().unwrap();
        Shown { certificate: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }

    fn revoke(&self, serials: &[u64]) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2124, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut named = DistinguishedName::new();
    named.push(DnType::CommonName, name);
    named
}

/// The files of a listener.
struct Files {
    folder: tempfile::TempDir,
    server: String,
}

impl Files {
    fn new(authority: &Authority) -> Self {
        let key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
        let files = Self { folder: tempfile::tempdir().unwrap(), server: server.clone() };
        files.write("server.pem", &server);
        files.write("server.key", &key.serialize_pem());
        files.write("callers.pem", &authority.root);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn tls(&self, client_auth: ClientAuth, crls: &[&str]) -> Tls {
        let spanned = |path: &Path| toml::Spanned::new(0..0, path.to_str().unwrap().to_owned());
        Tls {
            certificate: spanned(&self.path("server.pem")),
            key: spanned(&self.path("server.key")),
            sni: Vec::new(),
            client_ca: Some(spanned(&self.path("callers.pem"))),
            client_auth: Some(client_auth),
            client_crls: crls.iter().map(|name| spanned(&self.path(name))).collect(),
        }
    }
}

/// Asks over TLS, with a certificate or without; none if the connection is refused.
async fn ask(address: SocketAddr, files: &Files, shown: Option<&Shown>, path: &str) -> Option<(u16, String)> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(files.server.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots);
    let config = match shown {
        None => config.with_no_client_auth(),
        Some(Shown { certificate, key }) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
        }
    };
    let stream = TcpStream::connect(address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let body = r#"{"model":"echo","messages":[{"role":"user","content":"hi"}]}"#;
    let request = Request::post(path).header("host", "localhost").body(Full::new(Bytes::from_static(body.as_bytes())));
    let mut request = request.unwrap();
    let forged = "By=spiffe://corp/gateway;URI=spiffe://corp/admin";
    request.headers_mut().insert("x-forwarded-client-cert", forged.parse().unwrap());
    // With TLS 1.3 a caller learns here that its certificate is not taken.
    let answer = sender.send_request(request).await.ok()?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    Some((status, String::from_utf8_lossy(&body).into_owned()))
}

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn a_certificate_is_the_caller_and_a_header_that_speaks_of_one_is_nothing() {
    let (authority, stranger) = (Authority::new("callers"), Authority::new("callers"));
    let files = Files::new(&authority);
    for client_auth in [ClientAuth::Required, ClientAuth::Optional] {
        let rig = Rig::behind(POLICY, library(), Some(files.tls(client_auth, &[]))).await;
        let status = async |shown: Option<&Shown>, path: &str| {
            ask(rig.address, &files, shown, path).await.map(|(status, _)| status)
        };
        let known = authority.sign(1, "web", Some("spiffe://corp/web"));
        let other = authority.sign(2, "eve", Some("spiffe://other/web"));
        let forged = stranger.sign(1, "web", Some("spiffe://corp/web"));
        for _ in 0..2 {
            assert_eq!(status(Some(&known), CHAT).await, Some(200), "{client_auth:?}");
            assert_eq!(status(Some(&authority.sign(3, "bob", None)), CHAT).await, Some(200), "{client_auth:?}");
            assert_eq!(status(Some(&other), CHAT).await, Some(401), "{client_auth:?}");
            assert_eq!(status(Some(&forged), CHAT).await, None, "{client_auth:?}: signed by nobody whom we trust");
        }
        let without = (status(None, CHAT).await, status(None, "/open/chat/completions").await);
        let expected = if client_auth == ClientAuth::Required { (None, None) } else { (Some(401), Some(200)) };
        assert_eq!(without, expected, "{client_auth:?}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_revoked_is_not_taken_any_more() {
    let authority = Authority::new("callers");
    let files = Files::new(&authority);
    files.write("revoked.pem", &authority.revoke(&[9]));
    let rig = Rig::behind(POLICY, library(), Some(files.tls(ClientAuth::Required, &["revoked.pem"]))).await;
    let shown = authority.sign(7, "web", Some("spiffe://corp/web"));
    let status = async || ask(rig.address, &files, Some(&shown), CHAT).await.map(|(status, _)| status);
    assert_eq!(status().await, Some(200));
    assert_eq!(rig.certificates.reload(), Ok(0), "nothing new");
    files.write("revoked.pem", "no list");
    assert!(rig.certificates.reload().is_err_and(|error| error.contains("revoked.pem")));
    assert_eq!(status().await, Some(200), "what was in force stays");
    files.write("revoked.pem", &authority.revoke(&[7, 9]));
    assert_eq!(rig.certificates.reload(), Ok(1));
    assert_eq!(status().await, None);
    files.write("revoked.pem", &authority.revoke(&[]));
    files.write("callers.pem", &Authority::new("others").root);
    assert_eq!(rig.certificates.reload(), Ok(1));
    assert_eq!(status().await, None, "another authority");
}

#[tokio::test]
async fn a_listener_that_should_ask_for_certificates_and_cannot_does_not_start() {
    let files = Files::new(&Authority::new("callers"));
    let start = |tls: Tls| {
        let address = "127.0.0.1:0".parse().unwrap();
        penstock::listener::bind(&[Listener { tls: Some(tls), ..Listener::plain(address) }]).err().unwrap_or_default()
    };
    let tls = files.tls(ClientAuth::Required, &[]);
    assert_eq!(start(tls.clone()), "");
    assert!(start(Tls { client_ca: None, ..tls.clone() }).contains("client_ca"));
    assert!(start(files.tls(ClientAuth::Required, &["none.pem"])).contains("none.pem"));
    files.write("callers.pem", "nothing");
    assert!(start(tls).contains("callers.pem"));
}
