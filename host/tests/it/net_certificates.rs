// SPDX-License-Identifier: Apache-2.0
//! Certificates that are renewed on the disk come into force by themselves, and nobody who is connected notices.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::net_support::{Pki, SOON, soon};
use crate::support::program::Program;

/// A gateway with this certificate.
fn program(pki: &Pki) -> Program {
    let (chain, key) = (pki.chain(), pki.key());
    Program::start(&format!(
        "[admin]\naddress = \"127.0.0.1:0\"\n[vendors.echo]\nadapter = \"echo\"\nmodels = [\"echo\"]\n\
         [[listeners]]\naddress = \"127.0.0.1:0\"\ntls = {{ certificate = \"{}\", key = \"{}\" }}\n\
         [[routes]]\nname = \"ai\"\npath = \"/v1\"\n",
        chain.display(),
        key.display()
    ))
}

fn trusting(pki: &Pki) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pki.ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    TlsConnector::from(Arc::new(config))
}

async fn connect(connector: &TlsConnector, addr: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    connector.connect(name, TcpStream::connect(addr).await?).await
}

/// The certificate that is shown now.
async fn shown(connector: &TlsConnector, addr: SocketAddr) -> Vec<u8> {
    let stream = soon(connect(connector, addr)).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

/// Asks for the models over a connection that is kept.
async fn ask(stream: &mut TlsStream<TcpStream>) -> std::io::Result<()> {
    stream.write_all(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n").await?;
    let mut answer = Vec::new();
    // The list ends so, and its length is the same each time.
    while !answer.ends_with(b"]}") {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    if answer.starts_with(b"HTTP/1.1 200") { Ok(()) } else { Err(std::io::ErrorKind::InvalidData.into()) }
}

/// Waits until this certificate is shown.
async fn in_force(pki: &Pki, connector: &TlsConnector, addr: SocketAddr) {
    let expected = CertificateDer::from_pem_slice(&std::fs::read(pki.chain()).unwrap()).unwrap().to_vec();
    let begun = Instant::now();
    while shown(connector, addr).await != expected {
        assert!(begun.elapsed() < SOON, "a renewed certificate does not come into force");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewed_certificates_come_into_force_by_themselves_and_no_request_fails() {
    let pki = Pki::new();
    let program = program(&pki);
    let (connector, addr) = (trusting(&pki), program.gateway);
    let (over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let callers: Vec<_> = (0..4)
        .map(|number| {
            let (connector, over, asked) = (connector.clone(), Arc::clone(&over), Arc::clone(&asked));
            tokio::spawn(async move {
                let mut kept = connect(&connector, addr).await?;
                while !over.load(Ordering::Relaxed) {
                    if number % 2 == 1 {
                        kept = connect(&connector, addr).await?;
                    }
                    ask(&mut kept).await?;
                    asked.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, std::io::Error>(())
            })
        })
        .collect();
    for _ in 0..8 {
        // Certificate and key are two files: there is a moment at which they do not belong together.
        pki.issue();
        in_force(&pki, &connector, addr).await;
    }
    over.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap().expect("no request fails");
    }
    assert!(asked.load(Ordering::Relaxed) > 100);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_leaves_the_old_one_in_force_and_is_told() {
    let pki = Pki::new();
    let program = program(&pki);
    let (connector, addr) = (trusting(&pki), program.gateway);
    let before = shown(&connector, addr).await;
    let (chain, key) = (std::fs::read(pki.chain()).unwrap(), std::fs::read(pki.key()).unwrap());
    let stays = |expected: &str| {
        let line = program.logged("a certificate stays as it was");
        assert!(line["message"].as_str().unwrap().contains(expected), "{line}");
    };
    std::fs::write(pki.chain(), &chain[..chain.len() / 2]).unwrap();
    stays("chain.pem");
    assert_eq!(shown(&connector, addr).await, before, "half of it was there");

    pki.named("other", &["localhost"], &[]);
    std::fs::copy(pki.dir.path().join("other.pem"), pki.chain()).unwrap();
    stays("key.pem: not the key of");
    assert_eq!(shown(&connector, addr).await, before, "the key is another one's");

    std::fs::remove_file(pki.key()).unwrap();
    stays("key.pem");
    assert_eq!(shown(&connector, addr).await, before, "the key is gone");

    std::fs::copy(pki.dir.path().join("other.key"), pki.key()).unwrap();
    program.logged("a certificate was read anew");
    in_force(&pki, &connector, addr).await;
    std::fs::write(pki.chain(), &chain).unwrap();
    std::fs::write(pki.key(), &key).unwrap();
    program.logged("a certificate was read anew");
    assert_eq!(shown(&connector, addr).await, before);
}
