// SPDX-License-Identifier: Apache-2.0
//! Where callers connect: sockets, TLS, HTTP/1.1 and HTTP/2, time-outs, the limit of connections, and the way to stop.
//!
//! [`bind`] opens all sockets, so that a bad address or certificate is an error before anything runs. [`serve`] accepts until it is
//! told to stop, then drains: HTTP/1.1 connections get `connection: close`, HTTP/2 ones a GOAWAY, what runs may finish within
//! `drain_ms`, and the rest is cut. A tunnel counts as a connection for as long as its task keeps the [`Peer`].
//!
//! What is asked and answered is none of this module's business.

mod certificate;
mod connection;
mod door;
mod inherited;
pub mod proxy_protocol;
mod sni;
mod socket;
mod tls;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::config::{self, Limits, Place, Timeouts};
use crate::upstream::InBody;

pub use certificate::ClientCertificate;
pub use inherited::{Inherited, open};

use door::Door;
use proxy_protocol::Balancers;
use socket::Patience;
use tls::Certificate;

/// After an error of `accept` that is not about one connection (no descriptors left) the listener waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// After a patient farewell, connections that nobody has used have this long to be closed in good order.
const PARTED: Duration = Duration::from_secs(1);

/// Connections that can be counted.
const PERMITS_MAX: usize = u32::MAX as usize >> 3;

/// An error of a caller's body, or of the answer's.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Sockets that are open and not yet served.
pub struct Bound {
    listeners: Vec<Open>,
    addresses: Vec<SocketAddr>,
    certificates: Certificates,
}

struct Open {
    door: Door,
    address: SocketAddr,
    tls: Option<Arc<Certificate>>,
    balancers: Option<Arc<Balancers>>,
}

/// The certificates of all listeners.
#[derive(Debug, Clone, Default)]
pub struct Certificates {
    all: Vec<Arc<Certificate>>,
}

/// Who is connected. A clone keeps the connection counted, and the drain waiting for it.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Address of the caller: as a load balancer has named it, where one is believed; of a Unix socket 127.0.0.1.
    pub addr: SocketAddr,
    /// Its IP address as text; written once for a connection, since every request is asked for it.
    pub ip: Arc<str>,
    /// Address of the listener.
    pub listener: SocketAddr,
    /// Whether the caller came over TLS.
    pub tls: bool,
    /// What the certificate of the caller says, if it has shown one.
    certificate: Option<Arc<ClientCertificate>>,
    held: Option<Arc<Held>>,
}

#[derive(Debug)]
struct Held {
    _permit: OwnedSemaphorePermit,
    gauge: IntGauge,
    life: watch::Receiver<Life>,
}

/// How far a server has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Life {
    Running,
    /// Another process serves new connections: each of ours ends with its next answer.
    Parting,
    /// Every connection ends as soon as it can.
    Draining,
    Stopped,
}

/// How serving is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// Connections without a request are closed at once.
    Prompt,
    /// Each connection ends with its next answer, so that nobody finds it closed who has just asked; for when another process has
    /// taken over the sockets, and there is time.
    Patient,
}

impl From<()> for Farewell {
    fn from((): ()) -> Self {
        Self::Prompt
    }
}

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut because they had not finished in time.
    pub cut: usize,
}

/// What every connection needs.
struct Server<H> {
    handler: H,
    limits: Limits,
    patience: Patience,
    body_idle: Duration,
    total: Duration,
    permits: Arc<Semaphore>,
    life: watch::Sender<Life>,
    /// Whether each connection ends with its next answer; beside `life`, for a look at it takes no lock.
    parting: AtomicBool,
    connections: IntGauge,
}

/// Stops what still runs, however serving ends.
struct Cut<'a>(&'a watch::Sender<Life>);

impl Drop for Cut<'_> {
    fn drop(&mut self) {
        self.0.send_replace(Life::Stopped);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

/// Opens the sockets of all listeners and reads their certificates. Needs a running tokio runtime.
/// The error names the address or the file.
pub fn bind(listeners: &[config::Listener]) -> Result<Bound, String> {
    bind_or_inherit(listeners, &mut Inherited::default())
}

/// As [`bind`], with the sockets that another process has opened where they are meant.
pub fn bind_or_inherit(listeners: &[config::Listener], inherited: &mut Inherited) -> Result<Bound, String> {
    let mut bound = Bound { listeners: Vec::new(), addresses: Vec::new(), certificates: Certificates::default() };
    for listener in listeners {
        let tls = match &listener.tls {
            None => None,
            Some(files) => {
                let certificate = Certificate::read(files)?;
                bound.certificates.all.push(Arc::clone(&certificate));
                Some(certificate)
            }
        };
        let balancers = listener
            .proxy_protocol
            .as_ref()
            .map(|written| Balancers::new(written, matches!(listener.address, Place::File(_))).map(Arc::new));
        let balancers = balancers.transpose().map_err(|error| format!("{}: {error}", listener.address))?;
        let door = opened(listener, inherited).map_err(|error| format!("{}: {error}", listener.address))?;
        let address = door.address().map_err(|error| format!("{}: {error}", listener.address))?;
        bound.addresses.push(address);
        bound.listeners.push(Open { door, address, tls, balancers });
    }
    Ok(bound)
}

fn opened(listener: &config::Listener, inherited: &mut Inherited) -> io::Result<Door> {
    const MODE_MAX: u32 = 0o777;
    match &listener.address {
        Place::Network(address) => inherited.listen(*address).map(Door::Network),
        Place::File(path) => match u32::from_str_radix(&listener.mode, 8) {
            Ok(mode) if mode <= MODE_MAX => Door::file(path, mode, inherited.follows()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "`mode` is no permissions; write such as \"660\"")),
        },
    }
}

impl Bound {
    /// The addresses, in the order of the configuration, with the ports that were chosen for port 0; of a Unix socket 127.0.0.1, port 0.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The certificates, to be reloaded when their files change.
    pub fn certificates(&self) -> Certificates {
        self.certificates.clone()
    }
}

impl Certificates {
    /// Reads all files again and returns how many certificates are new. New connections get them. A certificate that cannot be read
    /// stays as it was; the error names every such file.
    pub fn reload(&self) -> Result<usize, String> {
        let mut new = 0;
        let mut errors = Vec::new();
        for certificate in &self.all {
            match certificate.reload() {
                Ok(replaced) => new += usize::from(replaced),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(new) } else { Err(errors.join("; ")) }
    }
}

impl Certificates {
    /// The files of all of them.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.all.iter().flat_map(|certificate| certificate.files())
    }

    /// Reads the files again of those of which one has changed since it was read last. What comes of it is told in the log.
    pub fn look(&self) {
        for certificate in &self.all {
            match certificate.look() {
                None | Some(Ok(false)) => {}
                Some(Ok(true)) => {
                    let file = certificate.files().next().map(Path::display);
                    tracing::info!(file = file.map(tracing::field::display), "a certificate was read anew");
                }
                Some(Err(error)) => tracing::warn!("a certificate stays as it was: {error}"),
            }
        }
    }
}

impl Peer {
    /// A caller without a connection, for calls from within the process.
    pub fn detached(addr: SocketAddr) -> Self {
        Self { addr, ip: ip(addr), listener: addr, tls: false, certificate: None, held: None }
    }

    /// The certificate that the caller has shown, and the listener has found to be in order.
    pub fn certificate(&self) -> Option<&ClientCertificate> {
        self.certificate.as_deref()
    }

    /// Resolves when what still runs is being cut: a tunnel must end now.
    pub async fn stopped(&self) {
        match &self.held {
            None => std::future::pending().await,
            Some(held) => {
                let mut life = held.life.clone();
                // An error means that the server is gone.
                let _ = life.wait_for(|life| *life == Life::Stopped).await;
            }
        }
    }
}

/// Serves until `shutdown` resolves and the connections have finished or were cut.
///
/// `handler` is called for each request; a panic in it becomes a 500 for that request. `connections` counts what is
/// connected, tunnels included. Dropping the future stops accepting and cuts all connections.
pub async fn serve<H, F, B>(
    bound: Bound,
    handler: H,
    limits: &Limits,
    timeouts: &Timeouts,
    connections: &IntGauge,
    shutdown: impl Future<Output: Into<Farewell>>,
) -> Drained
where
    H: Fn(Request<InBody>, Peer) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    // A listener holds a permit while it waits for a caller.
    let permits_max = limits.connections_max.max(bound.listeners.len()).min(PERMITS_MAX);
    let millis = Duration::from_millis;
    let server = Arc::new(Server {
        handler,
        limits: limits.clone(),
        patience: Patience {
            head: millis(timeouts.head_ms),
            keep_alive: millis(timeouts.keep_alive_ms),
            write: millis(timeouts.idle_ms),
        },
        body_idle: millis(timeouts.body_idle_ms),
        total: millis(timeouts.total_ms),
        permits: Arc::new(Semaphore::new(permits_max)),
        life: watch::Sender::new(Life::Running),
        parting: AtomicBool::new(false),
        connections: connections.clone(),
    });
    let mut accepting = tokio::task::JoinSet::new();
    for listener in bound.listeners {
        accepting.spawn(accept_all(listener, Arc::clone(&server)));
    }
    let _cut = Cut(&server.life);
    let farewell = shutdown.await.into();
    accepting.shutdown().await;
    let all = u32::try_from(permits_max).unwrap_or(u32::MAX);
    let mut patience = millis(timeouts.drain_ms);
    if farewell == Farewell::Patient {
        server.parting.store(true, Ordering::Relaxed);
        server.life.send_replace(Life::Parting);
        if tokio::time::timeout(patience, server.permits.acquire_many(all)).await.is_ok() {
            return Drained { cut: 0 };
        }
        patience = PARTED;
    }
    server.life.send_replace(Life::Draining);
    let finished = tokio::time::timeout(patience, server.permits.acquire_many(all)).await;
    Drained { cut: if finished.is_ok() { 0 } else { permits_max - server.permits.available_permits() } }
}

/// Accepts as long as there are permits; an error that is not about one connection makes it pause, and is logged once.
async fn accept_all<H, F, B>(listener: Open, server: Arc<Server<H>>)
where
    H: Fn(Request<InBody>, Peer) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let mut failing = false;
    // The semaphore is never closed.
    while let Ok(permit) = Arc::clone(&server.permits).acquire_owned().await {
        let (wire, addr) = match listener.door.accept().await {
            Ok(accepted) => accepted,
            Err(error) if is_callers(&error) => continue,
            Err(error) => {
                if !failing {
                    tracing::warn!(listener = %listener.address, %error, "cannot accept connections; trying on");
                }
                failing = true;
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if failing {
            tracing::info!(listener = %listener.address, "accepting connections again");
            failing = false;
        }
        let peer = server.peer(addr, &listener, permit);
        let acceptor = listener.tls.as_ref().map(|certificate| certificate.acceptor());
        let balancers = listener.balancers.clone();
        tokio::spawn(connection::serve(wire, acceptor, balancers, peer, Arc::clone(&server)));
    }
}

impl<H> Server<H> {
    fn peer(&self, addr: SocketAddr, listener: &Open, permit: OwnedSemaphorePermit) -> Peer {
        self.connections.inc();
        let held = Held { _permit: permit, gauge: self.connections.clone(), life: self.life.subscribe() };
        Peer {
            addr,
            ip: ip(addr),
            listener: listener.address,
            tls: listener.tls.is_some(),
            certificate: None,
            held: Some(Arc::new(held)),
        }
    }
}

fn ip(addr: SocketAddr) -> Arc<str> {
    addr.ip().to_string().into()
}

/// Whether an error of `accept` is about the one connection that it would have returned (accept(2)).
fn is_callers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
