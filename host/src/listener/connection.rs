// SPDX-License-Identifier: Apache-2.0
//! One caller's connection: TLS, which protocol, hyper, and the end.
//!
//! The protocol is chosen before hyper sees a byte, by ALPN or by the HTTP/2 preface, and each has its own builder: a connection that was
//! chosen to be HTTP/2 never falls back to HTTP/1.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::proxy_protocol::Balancers;
use super::socket::{Activity, Open, Socket};
use super::{BoxError, ClientCertificate, Life, Peer, Server};
use crate::upstream::InBody;
use crate::wire::Wire;

/// What an HTTP/2 connection starts with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Between pings on an HTTP/2 connection.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// How long the answer to a ping may take.
const PING_LIMIT: Duration = Duration::from_secs(5);
/// Streams that a caller has reset and that have not been looked at; more is an attack (CVE-2023-44487).
const PENDING_RESETS_MAX: usize = 20;
/// Streams that we reset because of a caller's errors; more is an attack (CVE-2025-8671).
const LOCAL_RESETS_MAX: usize = 256;
/// An HTTP/2 connection that was idle for too long has been told to go; if it does not, it is closed after this time.
const PARTING: Duration = Duration::from_millis(500);
/// A stream that has outlived its exchange's own time-out is dropped after this time.
const STREAM_GRACE: Duration = Duration::from_secs(5);
/// Answer of a handler that panicked.
const PANICKED: &str =
    r#"{"error":{"message":"the gateway failed on this request","type":"internal_error","code":"internal"}}"#;

/// What a caller speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
    /// Nothing that deserves an answer.
    Neither,
}

/// Serves a connection to its end. Errors end it and are nobody's business but the caller's.
pub(super) async fn serve<H, F, B>(
    wire: Wire,
    tls: Option<TlsAcceptor>,
    balancers: Option<Arc<Balancers>>,
    mut peer: Peer,
    server: Arc<Server<H>>,
) where
    H: Fn(Request<InBody>, Peer) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    wire.set_nodelay();
    let activity = Arc::new(Activity::new(server.patience));
    let mut socket = Socket::new(wire, Arc::clone(&activity));
    let mut life = server.life.subscribe();
    if let Some(balancers) = balancers {
        match in_time(&mut life, &activity, balancers.caller(&mut socket, peer.addr)).await {
            Some(Ok(caller)) => (peer.addr, peer.ip) = (caller, super::ip(caller)),
            Some(Err(why)) => return tracing::debug!(peer = %peer.addr, %why, "a connection is closed"),
            None => return,
        }
    }
    let Some(tls) = tls else {
        let protocol = in_time(&mut life, &activity, sniff(&mut socket)).await;
        return match protocol {
            Some(Ok(Protocol::Http1)) => serve_http1(socket, peer, server, activity, life).await,
            Some(Ok(Protocol::Http2)) => serve_http2(socket, peer, server, activity, life).await,
            // Closed in good order, so that what it sent and we did not read makes no reset.
            Some(Ok(Protocol::Neither)) => drop(socket.shutdown().await),
            Some(Err(_)) | None => {}
        };
    };
    let Some(Ok(stream)) = in_time(&mut life, &activity, tls.accept(socket)).await else { return };
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| ClientCertificate::read(chain.first()?));
    if shown.as_ref().is_some_and(ClientCertificate::is_over) {
        return;
    }
    let peer = Peer { certificate: shown.map(Arc::new), ..peer };
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        serve_http2(stream, peer, server, activity, life).await;
    } else {
        serve_http1(stream, peer, server, activity, life).await;
    }
}

async fn serve_http1<H, F, B, I>(
    io: I,
    peer: Peer,
    server: Arc<Server<H>>,
    activity: Arc<Activity>,
    mut life: watch::Receiver<Life>,
) where
    H: Fn(Request<InBody>, Peer) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let head_bytes_max = server.limits.head_bytes_max;
    let service = service_fn(|request| exchange(&server, &peer, activity.begin(false), &activity, request));
    let mut builder = http1::Builder::new();
    // hyper's own time-out would end an idle connection as early as an incomplete head.
    builder.header_read_timeout(None).max_header_size(head_bytes_max);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service).with_upgrades());
    let mut check = pin!(tokio::time::sleep(activity.period()));
    loop {
        tokio::select! {
            done = connection.as_mut() => return done.err().iter().for_each(tell_unreadable),
            life = next(&mut life) => match life {
                Life::Stopped => return,
                Life::Running | Life::Draining => connection.as_mut().graceful_shutdown(),
                Life::Parting => {} // its next answer says so; whoever has just asked must not find it closed
            },
            () = check.as_mut() => {
                let now = Instant::now();
                let mut again = now + activity.period();
                match activity.deadline() {
                    Some((deadline, false)) if deadline <= now => return,
                    Some((deadline, true)) if deadline <= now => connection.as_mut().graceful_shutdown(),
                    Some((deadline, _)) => again = again.min(deadline),
                    None => {}
                }
                check.as_mut().reset(again);
            }
        }
    }
}

async fn serve_http2<H, F, B, I>(
    io: I,
    peer: Peer,
    server: Arc<Server<H>>,
    activity: Arc<Activity>,
    mut life: watch::Receiver<Life>,
) where
    H: Fn(Request<InBody>, Peer) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    activity.multiplex();
    let keep_alive = server.patience.keep_alive;
    let life_max = server.total.saturating_add(STREAM_GRACE);
    let streams = Streams { life_max, write: server.patience.write, life: life.clone() };
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_LIMIT)
        .max_concurrent_streams(server.limits.streams_max)
        .max_header_list_size(u32::try_from(server.limits.head_bytes_max).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(LOCAL_RESETS_MAX);
    let service = {
        let activity = Arc::clone(&activity);
        // The streams are tasks of their own, so that each needs its own hold on what they share.
        service_fn(move |request| {
            let (server, peer, activity) = (Arc::clone(&server), peer.clone(), Arc::clone(&activity));
            async move { exchange(&server, &peer, activity.begin(true), &activity, request).await }
        })
    };
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    let mut check = pin!(tokio::time::sleep(keep_alive));
    let mut told_to_go = false;
    loop {
        tokio::select! {
            _ = connection.as_mut() => return,
            life = next(&mut life) => match life {
                Life::Stopped => return,
                Life::Running | Life::Parting | Life::Draining => connection.as_mut().graceful_shutdown(),
            },
            () = check.as_mut() => {
                let now = Instant::now();
                let idle_until = activity.idle_since().map_or(now + keep_alive.max(PARTING), |since| since + keep_alive);
                if idle_until > now {
                    told_to_go = false;
                    check.as_mut().reset(idle_until);
                } else if told_to_go {
                    return;
                } else {
                    connection.as_mut().graceful_shutdown();
                    told_to_go = true;
                    check.as_mut().reset(now + PARTING);
                }
            }
        }
    }
}

/// The line of the access log of a request that was none: hyper has answered it.
fn tell_unreadable(error: &hyper::Error) {
    if error.is_parse() {
        let status = if error.is_parse_too_large() { 431 } else { 400 };
        let (route, failure, ending) = ("", "bad-head", "complete");
        tracing::info!(target: "access", route, status, failure, ending, attempts = 0, reason = %error);
    }
}

/// One request and its answer's head; the answer's body keeps the request counted until it is done.
async fn exchange<H, F, B>(
    server: &Server<H>,
    peer: &Peer,
    open: Open,
    activity: &Activity,
    request: Request<Incoming>,
) -> Result<Response<Outgoing<B>>, Infallible>
where
    H: Fn(Request<InBody>, Peer) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let is_http1 = request.version() < Version::HTTP_2;
    let request = request.map(|body| InBody::new(body, server.body_idle));
    // The call itself may panic as well as the future.
    let handling = pin!(async { (server.handler)(request, peer.clone()).await });
    let mut response = match catch(handling).await {
        Ok(response) => response.map(Either::Left),
        Err(Panicked) => {
            tracing::error!(peer = %peer.addr, "the handler of a request panicked");
            let mut response = Response::new(Either::Right(Full::new(Bytes::from_static(PANICKED.as_bytes()))));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        activity.tunnel();
    } else if is_http1 && server.parting.load(Ordering::Relaxed) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    note_offer(true);
    Ok(response.map(|body| Outgoing { body, open }))
}

struct Panicked;

/// Runs a future that may panic. It is not polled again after that. It comes pinned, since moving a large one would copy it.
async fn catch<T>(mut future: Pin<&mut impl Future<Output = T>>) -> Result<T, Panicked> {
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(_) => Poll::Ready(Err(Panicked)),
    })
    .await
}

pin_project! {
    /// Body of an answer; keeps its request counted.
    struct Outgoing<B> {
        #[pin]
        body: Either<B, Full<Bytes>>,
        open: Open,
    }
}

impl<B> Body for Outgoing<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = self.project().body.poll_frame(cx);
        note_offer(frame.is_ready());
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

tokio::task_local! {
    /// Since when an HTTP/2 stream has had something for its caller that the caller has not taken; none while it has nothing.
    static OFFERED: Cell<Option<Instant>>;
}

/// Notes that a stream has something for its caller now, or waits for it. On HTTP/1 the socket sees that by itself.
fn note_offer(has_something: bool) {
    // Outside of a stream there is nobody to tell.
    let _ = OFFERED.try_with(|offered| offered.set(has_something.then(Instant::now)));
}

/// Runs the streams of an HTTP/2 connection: each is dropped, which resets it, when its caller opens no window for what there is
/// for too long, when it outlives every time-out of its exchange, or when the server stops.
#[derive(Clone)]
struct Streams {
    life_max: Duration,
    write: Duration,
    life: watch::Receiver<Life>,
}

impl Streams {
    /// Resolves when a stream has had its time.
    async fn over(&self) {
        let end = Instant::now() + self.life_max;
        loop {
            let now = Instant::now();
            let offered = OFFERED.try_with(Cell::get).ok().flatten();
            let deadline = (offered.unwrap_or(now) + self.write).min(end);
            if deadline <= now {
                return;
            }
            tokio::time::sleep_until(deadline).await;
        }
    }
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let streams = self.clone();
        tokio::spawn(OFFERED.scope(Cell::new(None), async move {
            let mut life = streams.life.clone();
            tokio::select! {
                () = stream => {}
                () = streams.over() => {}
                _ = life.wait_for(|life| *life == Life::Stopped) => {}
            }
        }));
    }
}

/// The next change of the server's life; a server that is gone has stopped.
async fn next(life: &mut watch::Receiver<Life>) -> Life {
    match life.changed().await {
        Ok(()) => *life.borrow_and_update(),
        Err(_) => Life::Stopped,
    }
}

/// Runs what comes before the first request; none if it takes longer than a head may, or the server drains meanwhile.
async fn in_time<T>(
    life: &mut watch::Receiver<Life>,
    activity: &Activity,
    future: impl Future<Output = T>,
) -> Option<T> {
    let deadline = activity.deadline().map_or_else(Instant::now, |(deadline, _)| deadline);
    tokio::select! {
        done = future => Some(done),
        () = tokio::time::sleep_until(deadline) => None,
        _ = life.wait_for(|life| *life >= Life::Draining) => None,
    }
}

/// Reads as much as it takes to tell HTTP/2 from HTTP/1, and gives it back.
async fn sniff(socket: &mut Socket) -> std::io::Result<Protocol> {
    let mut read = BytesMut::with_capacity(PREFACE.len());
    let protocol = loop {
        if let Some(protocol) = recognise(&read) {
            break protocol;
        }
        let room = PREFACE.len() - read.len();
        let mut next = [0; PREFACE.len()];
        let count = socket.read(&mut next[..room]).await?;
        read.extend_from_slice(&next[..count]);
        if count == 0 {
            // A half of a preface, or nothing at all.
            break if read.is_empty() { Protocol::Neither } else { Protocol::Http1 };
        }
    };
    socket.unread(read.freeze());
    Ok(protocol)
}

/// What the first bytes say; none if more are needed. What has no request target where HTTP/1 has one (RFC 9112 section 3) is
/// neither: an answer in HTTP/1 would only confuse whoever speaks something else.
fn recognise(bytes: &[u8]) -> Option<Protocol> {
    if bytes == PREFACE {
        return Some(Protocol::Http2);
    }
    if PREFACE.starts_with(bytes) {
        return None;
    }
    let mut words = bytes.splitn(2, |&byte| byte == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let garbage = match target.first() {
        None | Some(b'/' | b'*' | b'h' | b'H' | b' ') => false,
        Some(_) => method != b"CONNECT" && method.iter().all(u8::is_ascii_uppercase),
    };
    Some(if garbage { Protocol::Neither } else { Protocol::Http1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_the_protocol() {
        let cases: [(&[u8], Option<Protocol>); 9] = [
            (b"", None),
            (b"P", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", None),
            (PREFACE, Some(Protocol::Http2)),
            (b"PO", Some(Protocol::Http1)),
            (b"GET /", Some(Protocol::Http1)),
            (b"\r\nGET / HTTP/1.1", Some(Protocol::Http1)),
            (b"CONNECT x:1 HTTP/1.1", Some(Protocol::Http1)),
            (b"INVALID CONNECTION PREFA", Some(Protocol::Neither)),
        ];
        for (bytes, expected) in cases {
            assert_eq!(recognise(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}
