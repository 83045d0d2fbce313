// SPDX-License-Identifier: Apache-2.0
//! What the network tests share: servers and raw upstreams on port 0, certificates, small bodies.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use penstock::config::{Limits, Listener, Sni, Timeouts, Tls};
use penstock::listener::{self, Certificates, Drained, Peer};
use penstock::upstream::{Client, Endpoint, InBody, OutBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// No test waits longer than this for what must happen.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Body of an answer in tests: frames from a channel; an error cuts it.
pub(crate) type Frames = mpsc::Receiver<Result<Frame<Bytes>, String>>;

pub(crate) struct TestBody(pub(crate) Frames);

impl Body for TestBody {
    type Data = Bytes;
    type Error = String;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, String>>> {
        self.0.poll_recv(cx)
    }
}

pub(crate) type BoxBody = http_body_util::combinators::UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

pub(crate) fn full(text: impl Into<Bytes>) -> BoxBody {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn frames() -> (mpsc::Sender<Result<Frame<Bytes>, String>>, BoxBody) {
    let (sender, receiver) = mpsc::channel(8);
    (sender, TestBody(receiver).map_err(Into::into).boxed_unsync())
}

pub(crate) fn data(text: &'static str) -> Result<Frame<Bytes>, String> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

/// A running server; stops when told to or dropped.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) certificates: Certificates,
    pub(crate) connections: prometheus::IntGauge,
    stop: oneshot::Sender<()>,
    done: JoinHandle<Drained>,
}

impl Server {
    pub(crate) async fn stop(self) -> Drained {
        self.stop.send(()).expect("it runs");
        soon(self.done).await.expect("serving does not panic")
    }

    /// Begins to stop; the handle gives the result.
    pub(crate) fn begin_stop(self) -> JoinHandle<Drained> {
        self.stop.send(()).expect("it runs");
        self.done
    }
}

pub(crate) async fn server<H, F>(limits: Limits, timeouts: Timeouts, tls: Option<Tls>, handler: H) -> Server
where
    H: Fn(Request<InBody>, Peer) -> F + Send + Sync + 'static,
    F: Future<Output = Response<BoxBody>> + Send + 'static,
{
    serve(limits, timeouts, Listener { tls, ..Listener::plain("127.0.0.1:0".parse().unwrap()) }, handler).await
}

pub(crate) async fn serve<H, F>(limits: Limits, timeouts: Timeouts, listener: Listener, handler: H) -> Server
where
    H: Fn(Request<InBody>, Peer) -> F + Send + Sync + 'static,
    F: Future<Output = Response<BoxBody>> + Send + 'static,
{
    let bound = listener::bind(&[listener]).expect("port 0 is free");
    let (addr, certificates) = (bound.addresses()[0], bound.certificates());
    let connections = prometheus::IntGauge::new("connections", "connections").unwrap();
    let (stop, stopped) = oneshot::channel();
    let gauge = connections.clone();
    let done = tokio::spawn(async move {
        let stopped = async { drop(stopped.await) };
        listener::serve(bound, handler, &limits, &timeouts, &gauge, stopped).await
    });
    Server { addr, certificates, connections, stop, done }
}

/// Answers "ok".
pub(crate) async fn ok(_: Request<InBody>, _: Peer) -> Response<BoxBody> {
    Response::new(full("ok"))
}

/// An upstream that does what it is told to each connection, byte by byte.
pub(crate) async fn raw<F, R>(script: F) -> SocketAddr
where
    F: Fn(TcpStream, usize) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for index in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(script(stream, index));
        }
    });
    addr
}

/// Reads up to the end of a head; `None` if the peer closes first.
pub(crate) async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return None,
        }
    }
    Some(String::from_utf8(head).unwrap())
}

/// Writes bytes and reads to the end.
pub(crate) async fn talk(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    soon(stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(SOON, future).await.expect("it happens soon")
}

pub(crate) fn client(timeouts: &Timeouts) -> Client {
    Client::new(&Limits::default(), timeouts).unwrap()
}

pub(crate) fn endpoint(addr: SocketAddr, http2: bool) -> Arc<Endpoint> {
    Arc::new(Endpoint::parse(&format!("http://{addr}"), None, http2).unwrap())
}

pub(crate) fn get(endpoint: &Endpoint, path: &str) -> Request<OutBody> {
    Request::get(endpoint.uri(path).unwrap()).body(OutBody::Empty).unwrap()
}

pub(crate) fn post(endpoint: &Endpoint, path: &str, body: impl Into<Bytes>) -> Request<OutBody> {
    Request::post(endpoint.uri(path).unwrap()).body(OutBody::Full(body.into())).unwrap()
}

/// A root of trust and a certificate for `localhost` and 127.0.0.1, as files.
pub(crate) struct Pki {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) ca: Vec<u8>,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap().pem().into_bytes();
        let pki = Self { dir: tempfile::tempdir().unwrap(), ca, issuer: rcgen::Issuer::new(params, key) };
        pki.issue();
        pki
    }

    /// Replaces the certificate by a new one.
    pub(crate) fn issue(&self) {
        self.issue_for(&["localhost", "127.0.0.1"], &self.chain(), &self.key());
    }

    /// Writes a certificate for these names.
    pub(crate) fn issue_for(&self, names: &[&str], chain: &Path, key_file: &Path) {
        let names = names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let params = rcgen::CertificateParams::new(names).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(chain, certificate.pem()).unwrap();
        std::fs::write(key_file, key.serialize_pem()).unwrap();
    }

    /// A further certificate in files of this name, for these names.
    pub(crate) fn named(&self, file: &str, names: &[&str], asked: &[&str]) -> Sni {
        let path = |end: &str| self.dir.path().join(format!("{file}.{end}"));
        self.issue_for(names, &path("pem"), &path("key"));
        Sni {
            names: asked.iter().map(|&name| toml::Spanned::new(0..0, name.to_owned())).collect(),
            certificate: spanned(&path("pem")),
            key: spanned(&path("key")),
        }
    }

    pub(crate) fn tls(&self) -> Tls {
        Tls {
            certificate: spanned(&self.chain()),
            key: spanned(&self.key()),
            sni: Vec::new(),
            client_ca: None,
            client_auth: None,
            client_crls: Vec::new(),
        }
    }

    pub(crate) fn chain(&self) -> PathBuf {
        self.dir.path().join("chain.pem")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.dir.path().join("key.pem")
    }
}

fn spanned(path: &Path) -> toml::Spanned<String> {
    toml::Spanned::new(0..0, path.to_str().unwrap().to_owned())
}
