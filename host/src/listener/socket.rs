// SPDX-License-Identifier: Apache-2.0
//! A caller's connection with what hyper leaves to us: what it is doing and how long it may, bytes that were read ahead, an
//! end for a reader that does not read, and a close that lets the caller read the last answer.
//!
//! [`Activity`] only takes notes; the connection's task looks at them now and then, so that a request costs no timer
//! operation. A write that is stuck for too long ends the connection by an I/O error, which hyper takes as the end.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::wire::Wire;

/// After our last byte we read on for this long, until the caller closes. Closing with unread input makes the kernel reset the
/// connection, and the caller may lose the answer (RFC 9112 section 9.6): a 413 to a caller that still sends.
const LINGER: Duration = Duration::from_secs(2);
/// Reads at a time while lingering, before other tasks get their turn.
const LINGER_READS: usize = 32;

/// The first head is awaited, or a later one has begun.
const HEAD: u8 = 0;
/// Between requests.
const IDLE: u8 = 1;
/// Requests run, or the protocol looks after its own time-outs (HTTP/2).
const BUSY: u8 = 2;
/// The connection is a tunnel.
const TUNNEL: u8 = 3;

/// Time-outs of a caller's connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// From the first byte of a head (or the accept) to its end.
    pub(super) head: Duration,
    /// Between requests.
    pub(super) keep_alive: Duration,
    /// The caller takes nothing of what we write.
    pub(super) write: Duration,
}

/// What a connection is doing; shared by its socket, its requests and its task.
#[derive(Debug)]
pub(super) struct Activity {
    patience: Patience,
    start: Instant,
    phase: AtomicU8,
    since_us: AtomicU64,
    open: AtomicU32,
}

impl Activity {
    pub(super) fn new(patience: Patience) -> Self {
        let (phase, since_us, open) = (AtomicU8::new(HEAD), AtomicU64::new(0), AtomicU32::new(0));
        Self { patience, start: Instant::now(), phase, since_us, open }
    }

    /// HTTP/2 was chosen: the socket stops judging what it reads.
    pub(super) fn multiplex(&self) {
        self.enter(BUSY);
    }

    /// A request begins; it ends when the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>, multiplexed: bool) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        if !multiplexed {
            self.phase.store(BUSY, Ordering::Relaxed);
        }
        Open { activity: Arc::clone(self), multiplexed }
    }

    /// The connection was upgraded.
    pub(super) fn tunnel(&self) {
        self.phase.store(TUNNEL, Ordering::Relaxed);
    }

    /// Since when no request has been running; none while one is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.open.load(Ordering::Relaxed) == 0).then(|| self.since())
    }

    fn since(&self) -> Instant {
        self.start + Duration::from_micros(self.since_us.load(Ordering::Relaxed))
    }

    fn enter(&self, phase: u8) {
        self.mark();
        self.phase.store(phase, Ordering::Relaxed);
    }

    fn mark(&self) {
        let since = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.since_us.store(since, Ordering::Relaxed);
    }

    fn was_read(&self) {
        if self.phase.load(Ordering::Relaxed) == IDLE {
            self.enter(HEAD);
        }
    }

    /// When the caller's time is over, if it is the caller whom we wait for, and whether that is between requests.
    pub(super) fn deadline(&self) -> Option<(Instant, bool)> {
        match self.phase.load(Ordering::Relaxed) {
            HEAD => Some((self.since() + self.patience.head, false)),
            IDLE => Some((self.since() + self.patience.keep_alive, true)),
            _ => None,
        }
    }

    /// How long one may look away without missing a deadline that begins meanwhile.
    pub(super) fn period(&self) -> Duration {
        self.patience.head.min(self.patience.keep_alive)
    }

    fn is_tunnel(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == TUNNEL
    }
}

/// A request that runs.
#[derive(Debug)]
pub(super) struct Open {
    activity: Arc<Activity>,
    multiplexed: bool,
}

impl Drop for Open {
    fn drop(&mut self) {
        let last = self.activity.open.fetch_sub(1, Ordering::Relaxed) == 1;
        if last && self.multiplexed {
            self.activity.mark();
        } else if last && !self.activity.is_tunnel() {
            self.activity.enter(IDLE);
        }
    }
}

/// A caller's connection.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Wire,
    ahead: Bytes,
    activity: Arc<Activity>,
    timer: Timer,
    write_since: Option<Instant>,
    ended: bool,
    shut: Option<Instant>,
}

impl Socket {
    pub(super) fn new(stream: Wire, activity: Arc<Activity>) -> Self {
        Self {
            stream,
            ahead: Bytes::new(),
            activity,
            timer: Timer::default(),
            write_since: None,
            ended: false,
            shut: None,
        }
    }

    /// Gives bytes back that were read to find out who the caller is and what it speaks.
    pub(super) fn unread(&mut self, bytes: Bytes) {
        self.ahead = if self.ahead.is_empty() { bytes } else { [bytes, self.ahead.split_off(0)].concat().into() };
    }

    /// What a write has come to; an error once it is stuck for too long.
    fn wrote<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() || self.activity.is_tunnel() {
            self.write_since = None;
            return written;
        }
        let deadline = *self.write_since.get_or_insert_with(Instant::now) + self.activity.patience.write;
        ready!(self.timer.poll_at(cx, deadline));
        // Else the kernel would go on for a quarter of an hour to offer what was written. It is only about how soon.
        self.stream.give_up_on_close();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = *self.shut.get_or_insert_with(Instant::now) + LINGER;
        let mut scratch = [const { std::mem::MaybeUninit::<u8>::uninit() }; 4096];
        for _ in 0..LINGER_READS {
            let mut buffer = ReadBuf::uninit(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.timer.poll_at(cx, deadline),
            }
        }
        cx.waker().wake_by_ref();
        if Instant::now() < deadline { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.ahead.is_empty() {
            let count = this.ahead.len().min(buf.remaining());
            buf.put_slice(&this.ahead[..count]);
            this.ahead.advance(count);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut this.stream).poll_read(cx, buf));
        this.ended |= buf.filled().len() == before;
        this.activity.was_read();
        Poll::Ready(read)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.wrote(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.shut.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        if !this.ended && !this.activity.is_tunnel() {
            ready!(this.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}

/// A timer that is set again only when it must ring earlier, or has rung too early.
#[derive(Debug, Default)]
struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    fn poll_at(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}
