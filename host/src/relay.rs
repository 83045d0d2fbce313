// SPDX-License-Identifier: Apache-2.0
//! The way back: the body that a caller reads. It pulls from the upstream as fast as the caller reads and no faster, and
//! dropping it (the caller hung up) cancels the upstream. The ledger's entry rides in it and settles when it is gone.
//!
//! A stream that breaks never ends cleanly: the caller gets an error event in its own dialect, and then the connection is
//! cut, for those who read no events.

pub mod coded;
pub mod pump;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;

use crate::failure::{Failure, Kind};
use crate::ledger::{Ending, Entry};
use crate::upstream::{Answer as UpstreamAnswer, BodyError};

use coded::Coded;
use pump::Pump;

/// The body of an answer to a caller.
pub enum Body {
    /// No more than this.
    Whole(Option<Bytes>, Option<Box<Entry>>),
    /// A stream of an AI route.
    Stream(Box<Stream>),
    /// The answer of a plain HTTP service, trailers included.
    Piped(Box<Piped>),
    /// Any of them, compressed.
    Coded(Box<Coded>),
}

/// The answer was cut; hyper ends the connection on it.
#[derive(Debug, thiserror::Error)]
#[error("the answer was cut: {0}")]
pub struct Cut(&'static str);

impl Body {
    /// A whole body.
    #[must_use]
    pub fn whole(bytes: impl Into<Bytes>, entry: Option<Entry>) -> Self {
        Self::Whole(Some(bytes.into()), entry.map(Box::new))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match self.get_mut() {
            Self::Whole(bytes, entry) => {
                let bytes = bytes.take();
                if let Some(mut entry) = entry.take() {
                    entry.shows(bytes.as_deref().unwrap_or_default(), false);
                    entry.sent(bytes.as_ref().map_or(0, Bytes::len));
                    entry.ending = Ending::Complete;
                }
                Poll::Ready(bytes.filter(|bytes| !bytes.is_empty()).map(|bytes| Ok(Frame::data(bytes))))
            }
            Self::Stream(stream) => stream.poll(task),
            Self::Piped(piped) => piped.poll(task),
            Self::Coded(coded) => coded.poll(task),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes, _) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Stream(_) => false,
            Self::Piped(piped) => piped.body.is_end_stream(),
            Self::Coded(coded) => coded.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes, _) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Stream(_) | Self::Coded(_) => SizeHint::default(),
            Self::Piped(piped) => piped.body.size_hint(),
        }
    }
}

/// Where a stream is.
enum State {
    /// The upstream may send more.
    Open(UpstreamAnswer),
    /// The error event is on its way out: one turn for the connection to flush it.
    Flushing(&'static str),
    /// Nothing more comes; cut the connection.
    Cutting(&'static str),
    /// Everything has been said.
    Done,
}

/// A streamed answer of an AI route.
pub struct Stream {
    pump: Pump,
    ready: VecDeque<Bytes>,
    state: State,
    entry: Box<Entry>,
    deadline: Pin<Box<Sleep>>,
}

impl Stream {
    /// Goes on with a stream that an attempt has begun.
    #[must_use]
    pub fn new(
        pump: Pump,
        ready: VecDeque<Bytes>,
        rest: Option<UpstreamAnswer>,
        entry: Entry,
        deadline: Instant,
    ) -> Self {
        let state = rest.map_or(State::Done, State::Open);
        let deadline = Box::pin(tokio::time::sleep_until(deadline.into()));
        let mut stream = Self { pump, ready, state, entry: Box::new(entry), deadline };
        stream.note_piece();
        stream
    }

    fn poll(&mut self, task: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                self.entry.sent(bytes.len());
                if !matches!(self.pump, Pump::Bytes) {
                    self.entry.shows(&bytes, true);
                }
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            match &mut self.state {
                State::Open(body) => {
                    let polled = Pin::new(body).poll_frame(task);
                    match polled {
                        Poll::Ready(frame) => self.step(frame),
                        Poll::Pending => match self.deadline.as_mut().poll(task) {
                            Poll::Pending => return Poll::Pending,
                            Poll::Ready(()) => self.fail(&Failure::new(
                                Kind::TotalTimeout,
                                "the answer took longer than timeouts.total_ms",
                            )),
                        },
                    }
                }
                State::Flushing(code) => {
                    // Body errors overtake buffered bytes, so the connection gets one turn to write the error event.
                    self.state = State::Cutting(code);
                    task.waker().wake_by_ref();
                    return Poll::Pending;
                }
                State::Cutting(code) => {
                    let code = *code;
                    self.state = State::Done;
                    return Poll::Ready(Some(Err(Cut(code))));
                }
                State::Done => {
                    self.note();
                    if self.entry.ending == Ending::Abandoned {
                        self.entry.ending = Ending::Complete;
                    }
                    self.entry.settle();
                    return Poll::Ready(None);
                }
            }
        }
    }

    /// Takes what the upstream has said.
    fn step(&mut self, frame: Option<Result<Frame<Bytes>, BodyError>>) {
        let done = match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => self.pump.chunk(data, &mut self.ready),
                Err(_) => Ok(()), // trailers of a stream say nothing to a caller
            },
            Some(Err(error)) => Err(Failure::cut(&error)),
            None => {
                let ended = self.pump.end(&mut self.ready);
                self.state = State::Done;
                ended
            }
        };
        self.note_piece();
        if let Err(failure) = done {
            self.fail(&failure);
        }
    }

    /// What has become ready is a piece of the answer. Of sound and files nobody counts the pieces.
    fn note_piece(&mut self) {
        if !self.ready.is_empty() && !matches!(self.pump, Pump::Bytes) {
            self.entry.piece();
        }
    }

    /// Ends the stream with an error event.
    fn fail(&mut self, failure: &Failure) {
        let code = failure.kind.code();
        self.broke_off();
        self.pump.fail(&failure.fault, &mut self.ready);
        self.entry.broken(failure);
        tracing::warn!(request = %self.entry.id, vendor = %self.entry.vendor, %failure, "stream broke");
        // Leaving `Open` drops the upstream's answer, which cancels it.
        self.state = State::Flushing(code);
    }

    /// Hands what was used of an answer that is not whole to the ledger: what the vendor has not told is estimated.
    fn broke_off(&mut self) {
        if let Some(usage) = self.pump.usage_so_far(self.entry.input_estimate) {
            self.entry.used(usage);
        }
        self.entry.used_more();
    }

    /// Hands what is known of the usage to the ledger.
    fn note(&mut self) {
        if let Some(usage) = self.pump.usage() {
            self.entry.used(usage);
        }
        if let Some(fault) = self.pump.fault().filter(|_| self.entry.failure.is_none()) {
            tracing::warn!(request = %self.entry.id, vendor = %self.entry.vendor, class = fault.class.name(), "vendor reports an error in its stream");
            self.entry.broken(&Failure::refused(fault));
            self.broke_off();
        }
    }
}

impl Drop for Stream {
    /// A caller who hangs up pays for what the upstream has told by then, and for what was reserved if that is not all.
    fn drop(&mut self) {
        if matches!(self.state, State::Open(_)) {
            self.note();
            if !self.pump.is_complete() {
                self.broke_off();
            }
        }
    }
}

/// The answer of a plain HTTP service.
pub struct Piped {
    body: UpstreamAnswer,
    entry: Box<Entry>,
}

impl Piped {
    /// Passes an answer on.
    #[must_use]
    pub fn new(body: UpstreamAnswer, entry: Entry) -> Self {
        let mut entry = Box::new(entry);
        if body.is_end_stream() {
            entry.ending = Ending::Complete;
        }
        Self { body, entry }
    }

    fn poll(&mut self, task: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(task) else { return Poll::Pending };
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                self.entry.sent(frame.data_ref().map_or(0, Bytes::len));
                if self.body.is_end_stream() {
                    self.entry.ending = Ending::Complete;
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                tracing::warn!(request = %self.entry.id, service = %self.entry.vendor, %error, "answer broke off");
                self.entry.failure = Some(Kind::Cut.code());
                self.entry.ending = Ending::Broken;
                Some(Err(Cut(Kind::Cut.code())))
            }
            None => {
                self.entry.ending = Ending::Complete;
                self.entry.settle();
                None
            }
        })
    }
}
