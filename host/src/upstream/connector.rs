// SPDX-License-Identifier: Apache-2.0
//! Makes connections to upstreams: name, TCP (or a proxy, or a Unix socket), TLS with ALPN, all within one time-out.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use super::addresses::{Addresses, Resolver};
use super::endpoint::Way;
use super::fault::{SendError, cause};
use crate::wire::Wire;

/// Between probes of an idle TCP connection.
const TCP_KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Makes connections; the error is always a [`SendError`].
#[derive(Clone)]
pub(super) struct Connector {
    network: Network,
    tls: TlsConnector,
    way: Way,
    limit: Duration,
}

/// Names and TCP: the one place that knows where connections go to.
#[derive(Clone)]
pub(super) struct Network {
    tcp: HttpConnector<Resolver>,
    names: Resolver,
}

impl Connector {
    pub(super) fn new(tls: Arc<ClientConfig>, way: Way, limit: Duration, allowed: Addresses) -> Self {
        Self { network: Network::new(allowed), tls: TlsConnector::from(tls), way, limit }
    }

    async fn connect(mut self, uri: Uri) -> Result<Link, SendError> {
        let (limit, way) = (self.limit, self.way.clone());
        let link = async move {
            let wire = self.wire(&uri).await?;
            if uri.scheme() != Some(&Scheme::HTTPS) {
                return Ok(Link::Clear(TokioIo::new(wire)));
            }
            let name = server_name(&uri)?;
            let tls = self.tls.connect(name, wire).await.map_err(|error| SendError::Tls(cause(&error)))?;
            Ok(Link::Tls(Box::new(TokioIo::new(tls))))
        };
        tokio::time::timeout(limit, link).await.unwrap_or_else(|_| match way {
            Way::Through(proxy) => {
                Err(SendError::Proxy(format!("{proxy}: no connection through it within {} ms", limit.as_millis())))
            }
            Way::Network | Way::Socket(_) | Way::At(_) => Err(SendError::ConnectTimeout(limit)),
        })
    }

    async fn wire(&mut self, uri: &Uri) -> Result<Wire, SendError> {
        match &self.way {
            Way::Network => self.network.connect(uri.clone()).await.map(Wire::Tcp),
            Way::Through(proxy) => {
                self.network.admit(uri).map_err(SendError::Connect)?;
                proxy.connect(&mut self.network, uri).await
            }
            Way::At(address) => {
                let uri = format!("http://{address}").parse::<Uri>();
                let uri = uri.map_err(|error| SendError::Connect(format!("{address}: {error}")))?;
                self.network.connect(uri).await.map(Wire::Tcp)
            }
            Way::Socket(path) => {
                let unix = UnixStream::connect(&**path).await;
                unix.map(Wire::Unix).map_err(|error| SendError::unconnected(&error))
            }
        }
    }
}

impl Network {
    fn new(allowed: Addresses) -> Self {
        let names = Resolver::new(allowed);
        let mut tcp = HttpConnector::new_with_resolver(names.clone());
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(TCP_KEEP_ALIVE));
        Self { tcp, names }
    }

    /// A connection to the host and port of `uri`.
    pub(super) async fn connect(&mut self, uri: Uri) -> Result<TcpStream, SendError> {
        self.admit(&uri).map_err(SendError::Connect)?;
        self.tcp.call(uri).await.map(TokioIo::into_inner).map_err(|error| SendError::unconnected(&error))
    }

    /// Refuses a host that is an address and is not allowed; names are looked at when they are resolved.
    fn admit(&self, uri: &Uri) -> Result<(), String> {
        self.names.admit(uri.host().unwrap_or_default())
    }

    /// The first address of a name that is allowed.
    pub(super) async fn find(&mut self, name: &str) -> Result<IpAddr, String> {
        let parsed = name.parse::<Name>().map_err(|_| format!("`{name}` is not a name"))?;
        let mut found = self.names.call(parsed).await.map_err(|error| cause(&error))?;
        found.next().map(|address| address.ip()).ok_or_else(|| format!("{name} has no address"))
    }
}

impl Service<Uri> for Connector {
    type Response = Link;
    type Error = SendError;
    type Future = Pin<Box<dyn Future<Output = Result<Link, SendError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// TLS towards upstreams: 1.2 and 1.3, HTTP/2 preferred.
pub(super) fn client_config(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The system's roots of trust, or Mozilla's when the system has none, and further ones.
pub(super) fn roots(further: &[CertificateDer<'static>]) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots.add_parsable_certificates(further.iter().cloned());
    roots
}

fn server_name(uri: &Uri) -> Result<ServerName<'static>, SendError> {
    let host = uri.host().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(host.to_owned()).map_err(|_| SendError::Tls(format!("`{host}` is not a server name")))
}

/// A connection to an upstream.
pub(super) enum Link {
    Clear(TokioIo<Wire>),
    Tls(Box<TokioIo<TlsStream<Wire>>>),
}

impl Connection for Link {
    fn connected(&self) -> Connected {
        match self {
            Self::Clear(_) => Connected::new(),
            Self::Tls(io) if io.inner().get_ref().1.alpn_protocol() == Some(b"h2") => Connected::new().negotiated_h2(),
            Self::Tls(_) => Connected::new(),
        }
    }
}

impl Read for Link {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Clear(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl Write for Link {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Clear(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Clear(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Clear(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Clear(io) => io.is_write_vectored(),
            Self::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Clear(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }
}
