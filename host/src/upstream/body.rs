// SPDX-License-Identifier: Apache-2.0
//! Bodies on the wire. [`Received`] is what a peer sends us (the request of a caller, the answer of an upstream): hyper's body
//! with an idle time-out, a way to tell a clean end from a cut, and a guard. [`OutBody`] is what we send to an upstream.
//!
//! The idle time-out measures how long a peer lets us wait. While we do not ask (back-pressure) no time passes, and a frame
//! costs no timer operation: an armed timer is left alone and re-armed when it rings too early.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::decoded::Decoder;
use super::health::{Busy, Outcome};

/// Body of a caller's request.
pub type InBody = Received<()>;
/// Body of an upstream's answer; holds the endpoint's in-flight guard.
pub type Answer = Received<Busy>;

/// Why a body did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The peer sent nothing for this long.
    #[error("nothing came for {} ms", .0.as_millis())]
    Idle(Duration),
    /// The connection or the stream broke, or the framing was wrong.
    #[error("the body was cut: {0}")]
    Cut(String),
}

/// A body that a peer sends us. Trailers pass. Dropping it before its end closes the stream or the connection.
#[derive(Debug)]
pub struct Received<G> {
    inner: Incoming,
    idle: Idle,
    guard: G,
    close_delimited: bool,
    /// What unpacks it. On the heap, as it is rare.
    decoder: Option<Box<Decoder>>,
}

impl InBody {
    /// A caller's body with an idle time-out.
    pub fn new(inner: Incoming, idle: Duration) -> Self {
        Self { inner, idle: Idle::new(idle), guard: (), close_delimited: false, decoder: None }
    }
}

impl Answer {
    pub(super) fn new(inner: Incoming, idle: Duration, guard: Busy, close_delimited: bool) -> Self {
        Self { inner, idle: Idle::new(idle), guard, close_delimited, decoder: None }
    }

    /// Whether only the end of the connection ends this body (HTTP/1 without a length and without chunks, RFC 9112 section
    /// 6.3 rule 8). Its end cannot be told from a cut; what is read must prove by itself that it is whole.
    pub fn is_close_delimited(&self) -> bool {
        self.close_delimited
    }
}

/// The same answer, unpacked if it is compressed; an error names a coding that is not known. For whoever reads what it says.
///
/// # Errors
/// The name of the coding.
pub fn unpacked(mut answer: Response<Answer>) -> Result<Response<Answer>, String> {
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(answer);
    }
    let Some(coding) = answer.headers_mut().remove(CONTENT_ENCODING) else { return Ok(answer) };
    let coding = coding.to_str().unwrap_or("unknown").trim();
    if coding.is_empty() || coding.eq_ignore_ascii_case("identity") || answer.body().inner.is_end_stream() {
        return Ok(answer);
    }
    let decoder = Decoder::new(coding).ok_or_else(|| coding.to_owned())?;
    answer.headers_mut().remove(CONTENT_LENGTH);
    answer.body_mut().decoder = Some(Box::new(decoder));
    Ok(answer)
}

/// What a guard learns when its body breaks.
pub trait Watch: Unpin {
    /// The body did not come to its end.
    fn broken(&self) {}
}

impl Watch for () {}

impl Watch for Busy {
    fn broken(&self) {
        self.health().record(Outcome::Lost(self.begun()), std::time::Instant::now());
    }
}

impl<G: Watch> Body for Received<G> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let error = loop {
            match Pin::new(&mut this.inner).poll_frame(cx) {
                Poll::Ready(Some(Err(error))) => break BodyError::Cut(super::fault::cause(&error)),
                Poll::Ready(frame) => {
                    this.idle.moved();
                    let Some(decoder) = &mut this.decoder else {
                        return Poll::Ready(
                            frame.map(|frame| frame.map_err(|error| BodyError::Cut(error.to_string()))),
                        );
                    };
                    match frame.and_then(Result::ok).map(Frame::into_data) {
                        Some(Ok(piece)) => match decoder.piece(&piece) {
                            Ok(bytes) if bytes.is_empty() => {}
                            Ok(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                            Err(why) => break BodyError::Cut(why),
                        },
                        Some(Err(trailers)) => return Poll::Ready(Some(Ok(trailers))),
                        None => {
                            let rest = decoder.end();
                            this.decoder = None;
                            match rest {
                                Ok(rest) if rest.is_empty() => return Poll::Ready(None),
                                Ok(rest) => return Poll::Ready(Some(Ok(Frame::data(rest)))),
                                Err(why) => break BodyError::Cut(why),
                            }
                        }
                    }
                }
                Poll::Pending => {
                    ready!(this.idle.poll_elapsed(cx));
                    break BodyError::Idle(this.idle.limit());
                }
            }
        };
        this.guard.broken();
        Poll::Ready(Some(Err(error)))
    }

    fn is_end_stream(&self) -> bool {
        self.decoder.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.decoder.is_some() { SizeHint::default() } else { self.inner.size_hint() }
    }
}

/// Body of a request to an upstream.
#[derive(Debug, Default)]
pub enum OutBody {
    /// Nothing; no `content-length` for methods that have none.
    #[default]
    Empty,
    /// All of it.
    Full(Bytes),
    /// What the caller sends, as it comes.
    Streaming(InBody),
    /// The same, to be given back if nothing of it was taken.
    Lent(Lent),
}

/// What was lent to an exchange. It is given back when the exchange lets go of it untouched.
#[derive(Debug)]
pub struct Lent {
    body: Option<InBody>,
    touched: bool,
    /// Nobody waits for this lock: it is taken when the exchange is over.
    back: Arc<Mutex<Option<InBody>>>,
}

/// The lender's side.
#[derive(Debug)]
pub struct Loan(Arc<Mutex<Option<InBody>>>);

impl OutBody {
    /// A caller's body that may be sent to somebody else if this exchange takes nothing of it.
    #[must_use]
    pub fn lent(body: InBody) -> (Self, Loan) {
        let back = Arc::default();
        (Self::Lent(Lent { body: Some(body), touched: false, back: Arc::clone(&back) }), Loan(back))
    }
}

impl Loan {
    /// The body, if the exchange is over and nothing of it was taken.
    #[must_use]
    pub fn back(self) -> Option<InBody> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|_| !self.touched) {
            *self.back.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }
}

impl Body for OutBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Streaming(body) => Pin::new(body).poll_frame(cx),
            Self::Lent(lent) => match &mut lent.body {
                Some(body) => {
                    lent.touched = true;
                    Pin::new(body).poll_frame(cx)
                }
                None => Poll::Ready(None),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Streaming(body) => body.is_end_stream(),
            Self::Lent(lent) => lent.body.as_ref().is_none_or(Body::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Streaming(body) => body.size_hint(),
            Self::Lent(lent) => lent.body.as_ref().map_or_else(SizeHint::default, Body::size_hint),
        }
    }
}

/// How the upload of a streamed request goes on, for whoever waits for its answer.
#[derive(Debug, Default)]
pub(super) struct Upload {
    frames: AtomicU64,
    failed: OnceLock<BodyError>,
}

impl Upload {
    /// Frames that were taken from the caller so far.
    pub(super) fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    /// How the caller's body broke.
    pub(super) fn failed(&self) -> Option<&BodyError> {
        self.failed.get()
    }
}

/// [`OutBody`] as it is given to the pooled client: an upload is observed.
#[derive(Debug)]
pub(super) struct Sent {
    body: OutBody,
    upload: Option<Arc<Upload>>,
}

impl Sent {
    pub(super) fn new(body: OutBody) -> (Self, Option<Arc<Upload>>) {
        let upload = matches!(body, OutBody::Streaming(_) | OutBody::Lent(_)).then(Arc::default);
        (Self { body, upload: upload.clone() }, upload)
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(upload) = &self.upload {
            upload.frames.fetch_add(1, Ordering::Relaxed);
            if let Some(Err(error)) = &frame {
                // The first failure is the one that counts.
                let _ = upload.failed.set(error.clone());
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Measures how long a peer lets us wait.
#[derive(Debug)]
struct Idle {
    /// In milliseconds: there is one in every body, and bodies are moved.
    limit_ms: u32,
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Idle {
    fn new(limit: Duration) -> Self {
        Self { limit_ms: u32::try_from(limit.as_millis()).unwrap_or(u32::MAX), since: None, timer: None }
    }

    fn limit(&self) -> Duration {
        Duration::from_millis(self.limit_ms.into())
    }

    /// Something came.
    fn moved(&mut self) {
        self.since = None;
    }

    /// Nothing came yet. Ready when that is so for too long.
    fn poll_elapsed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = *self.since.get_or_insert_with(Instant::now) + self.limit();
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}
