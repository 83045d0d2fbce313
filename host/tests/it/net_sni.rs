// SPDX-License-Identifier: Apache-2.0
//! Several certificates on one listener, and TLS sessions that are taken up again.

use std::net::SocketAddr;
use std::sync::Arc;

use penstock::config::{Limits, Listener, Timeouts, Tls};
use penstock::listener;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::net_support::{Pki, ok, server, soon};

/// A caller that trusts the authority and remembers its sessions.
fn caller(pki: &Pki, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pki.ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Asks once under a name: which kind of handshake it was, and the certificate that was shown.
async fn ask(config: &Arc<ClientConfig>, addr: SocketAddr, name: &str) -> Result<(HandshakeKind, Vec<u8>), String> {
    let stream = TcpStream::connect(addr).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connected = soon(TlsConnector::from(Arc::clone(config)).connect(name, stream)).await;
    let mut stream = connected.map_err(|error| error.to_string())?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let tls = stream.get_ref().1;
    Ok((tls.handshake_kind().unwrap(), tls.peer_certificates().unwrap()[0].to_vec()))
}

#[tokio::test]
async fn each_name_is_shown_its_certificate_and_a_renewed_one_at_once() {
    let pki = Pki::new();
    let sni = vec![
        pki.named("a", &["a.example", "a.wild.example"], &["a.example"]),
        pki.named("wild", &["*.wild.example", "other.test"], &[]),
    ];
    let server = server(Limits::default(), Timeouts::default(), Some(Tls { sni, ..pki.tls() }), ok).await;
    let file = |name: &str| {
        let pem = std::fs::read(pki.dir.path().join(name)).unwrap();
        CertificateDer::from_pem_slice(&pem).unwrap().to_vec()
    };
    let check = async |cases: &[(&str, &str)]| {
        for (name, expected) in cases {
            let config = caller(&pki, &rustls::version::TLS13);
            let (_, shown) = ask(&config, server.addr, name).await.unwrap();
            assert_eq!(shown, file(expected), "{name}");
        }
    };
    let cases = [
        ("a.example", "a.pem"),
        ("a.wild.example", "wild.pem"),
        ("b.wild.example", "wild.pem"),
        ("other.test", "wild.pem"),
        ("localhost", "chain.pem"),
        ("127.0.0.1", "chain.pem"),
    ];
    check(&cases).await;
    let strange = ask(&caller(&pki, &rustls::version::TLS13), server.addr, "c.b.wild.example").await;
    assert!(strange.unwrap_err().contains("not valid for name"), "the listener's own certificate is shown");

    pki.named("a", &["a.example"], &[]);
    assert_eq!(server.certificates.reload(), Ok(1));
    check(&cases).await;

    let before = file("wild.pem");
    std::fs::write(pki.dir.path().join("wild.key"), "nothing").unwrap();
    pki.named("a", &["a.example"], &[]);
    let error = server.certificates.reload().unwrap_err();
    assert!(error.contains("wild.key"), "{error}");
    let config = caller(&pki, &rustls::version::TLS13);
    assert_eq!(ask(&config, server.addr, "b.wild.example").await.unwrap().1, before, "all stay as they were");
}

#[tokio::test]
async fn a_certificate_that_is_not_for_its_name_keeps_the_gateway_from_starting() {
    let pki = Pki::new();
    let sni = vec![pki.named("a", &["a.example"], &["b.example"])];
    let listener = Listener { tls: Some(Tls { sni, ..pki.tls() }), ..Listener::plain("127.0.0.1:0".parse().unwrap()) };
    let error = listener::bind(&[listener]).err().unwrap();
    assert!(error.contains("a.pem") && error.contains("b.example"), "{error}");
}

#[tokio::test]
async fn a_session_is_taken_up_again_until_the_certificates_change() {
    let pki = Pki::new();
    let server = server(Limits::default(), Timeouts::default(), Some(pki.tls()), ok).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = caller(&pki, version);
        let kind = async || ask(&config, server.addr, "localhost").await.unwrap().0;
        assert_eq!(kind().await, HandshakeKind::Full, "{version:?}");
        for _ in 0..300 {
            // As many others as a cache of sessions would not hold.
            let other = caller(&pki, version);
            if ask(&other, server.addr, "localhost").await.unwrap().0 != HandshakeKind::Full {
                unreachable!("nobody takes up what another has begun");
            }
        }
        assert_eq!(kind().await, HandshakeKind::Resumed, "{version:?}");
        pki.issue();
        assert_eq!(server.certificates.reload(), Ok(1));
        assert_eq!(kind().await, HandshakeKind::Full, "{version:?}");
    }
}
