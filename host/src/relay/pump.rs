// SPDX-License-Identifier: Apache-2.0
//! Turns the chunks of an upstream's streamed answer into the bytes that the caller reads. Two ways: [`Relayer`] passes
//! the bytes of the caller's own dialect on and only watches, [`Translator`] goes through the adapter and the canonical
//! events. No I/O here: bytes in, bytes out.

use std::collections::VecDeque;

use bytes::Bytes;
use penstock_dialects::codec::{Codec, Envelope, StreamEncoder, Tap};
use penstock_dialects::collect::Collector;
use penstock_dialects::framing::{Frame, FrameError, Parser};
use penstock_dialects::ir::{Event, Fault, Response, Usage};
use serde::de::IgnoredAny;

use crate::failure::{Failure, Kind};
use crate::plugin::Exchange;
use crate::plugin::types::{CallError, Step, UpstreamRequest};

/// Some vendors count at the start of a stream, too, and then state a few tokens of output at most. More is a count of what
/// has been said.
const OUTPUT_AT_START_MAX: u64 = 8;

/// A way of passing a stream on.
pub enum Pump {
    /// Same dialect: bytes, watched.
    Relay(Relayer),
    /// Bytes that nobody looks at: sound, files.
    Bytes,
    /// Different dialect: events.
    Translate(Box<Translator>),
}

impl Pump {
    /// Takes one chunk; appends what can go to the caller now.
    ///
    /// # Errors
    /// The answer cannot be understood; what `ready` holds may still go out.
    pub fn chunk(&mut self, chunk: Bytes, ready: &mut VecDeque<Bytes>) -> Result<(), Failure> {
        match self {
            Self::Relay(relayer) => relayer.chunk(chunk, ready),
            Self::Bytes => {
                ready.push_back(chunk);
                Ok(())
            }
            Self::Translate(translator) => translator.chunk(&chunk, ready),
        }
    }

    /// Whether the upstream has said that its answer is complete.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        match self {
            Self::Relay(relayer) => relayer.tap.complete(),
            Self::Bytes => false,
            Self::Translate(translator) => translator.finished,
        }
    }

    /// The upstream has ended its answer in good order.
    ///
    /// # Errors
    /// `upstream-cut` if the dialect's own end was missing.
    pub fn end(&mut self, ready: &mut VecDeque<Bytes>) -> Result<(), Failure> {
        match self {
            Self::Relay(relayer) => relayer.end(ready),
            Self::Bytes => Ok(()),
            Self::Translate(translator) => translator.end(ready),
        }
    }

    /// What is known of the usage.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        match self {
            Self::Relay(relayer) => relayer.tap.usage(),
            Self::Bytes => None,
            Self::Translate(translator) => translator.usage.clone(),
        }
    }

    /// An error that the vendor has stated inside the stream.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::Relay(relayer) => relayer.tap.fault(),
            Self::Bytes => None,
            Self::Translate(translator) => translator.fault.clone(),
        }
    }

    /// Whether words of the answer have come, and not only what stands before them.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        match self {
            Self::Relay(relayer) => relayer.begun,
            Self::Bytes => true,
            Self::Translate(translator) => translator.begun,
        }
    }

    /// The usage of a stream that has broken: what the vendor has told, and where it has not, an estimate. `input` is that of
    /// the request; each piece that has passed counts as a token of output.
    #[must_use]
    pub fn usage_so_far(&self, input: u64) -> Option<Usage> {
        let pieces = match self {
            Self::Relay(relayer) => relayer.pieces,
            Self::Bytes => return None,
            Self::Translate(translator) => translator.pieces,
        };
        let mut usage = self.usage().unwrap_or_default();
        if usage.input_total() == 0 {
            usage.input = input;
        }
        if usage.output_total() <= OUTPUT_AT_START_MAX {
            usage.output = usage.output.saturating_add(pieces.saturating_sub(usage.output_total()));
        }
        Some(usage)
    }

    /// Ends the caller's stream with an error, in the caller's dialect.
    pub fn fail(&mut self, fault: &Fault, ready: &mut VecDeque<Bytes>) {
        let mut out = Vec::new();
        match self {
            Self::Relay(relayer) => relayer.encoder.fault(fault, &mut out),
            Self::Bytes => {}
            Self::Translate(translator) => translator.fail(fault, &mut out),
        }
        push(ready, out);
    }
}

/// Passes bytes on untouched, whole events only: the tail of a chunk that is not yet an event waits for its rest, so that
/// an error event can follow if the rest never comes.
pub struct Relayer {
    parser: Parser,
    tap: Box<dyn Tap>,
    /// Writes the error event of a stream that breaks.
    encoder: Box<dyn StreamEncoder>,
    held: VecDeque<Bytes>,
    /// Whether every frame is JSON.
    is_json: bool,
    begun: bool,
    /// Frames that hold words of the answer.
    pieces: u64,
}

impl Relayer {
    /// A relay of this dialect's streams, which `parser` cuts into frames of JSON or, if not `is_json`, of anything.
    #[must_use]
    pub fn new(dialect: &dyn Codec, parser: Parser, is_json: bool, envelope: &Envelope) -> Self {
        let encoder = dialect.stream_encoder(&Envelope { begun: true, ..envelope.clone() });
        Self { parser, tap: dialect.tap(), encoder, held: VecDeque::new(), is_json, begun: false, pieces: 0 }
    }

    fn chunk(&mut self, mut chunk: Bytes, ready: &mut VecDeque<Bytes>) -> Result<(), Failure> {
        let Self { parser, tap, is_json, begun, pieces, .. } = self;
        let mut sound = true;
        let whole = parser.feed_boundary(&chunk, &mut |frame: Frame<'_>| {
            tap.frame(&frame);
            sound &= !*is_json || is_sound(&frame);
            *begun = *begun || !tap.is_prelude(&frame);
            *pieces += u64::from(*begun);
        });
        let whole = whole.map_err(of_framing)?;
        if !sound {
            // Half an event would break the caller's library, or be passed over in silence.
            return Err(Failure::new(Kind::BadAnswer, "an event of the upstream's answer is not whole"));
        }
        if whole > 0 {
            ready.append(&mut self.held);
            ready.push_back(chunk.split_to(whole));
        }
        if !chunk.is_empty() {
            self.held.push_back(chunk);
        }
        Ok(())
    }

    fn end(&mut self, ready: &mut VecDeque<Bytes>) -> Result<(), Failure> {
        let tap = &mut self.tap;
        let end = self.parser.end(&mut |frame: Frame<'_>| tap.frame(&frame));
        end.map_err(of_framing)?;
        if !self.tap.complete() && self.tap.fault().is_none() {
            return Err(cut());
        }
        ready.append(&mut self.held);
        Ok(())
    }
}

/// Whether what a frame holds is one JSON value, or one of the words that end or announce something without being one.
fn is_sound(frame: &Frame<'_>) -> bool {
    let data = frame.data.trim_ascii();
    data.is_empty() || data == b"[DONE]" || frame.name == "error" || serde_json::from_slice::<IgnoredAny>(data).is_ok()
}

/// What a translated answer becomes.
enum Output {
    /// Wire events of the caller's dialect.
    Stream(Box<dyn StreamEncoder>),
    /// One value, at the end.
    Whole(Box<Collector>),
}

/// What an adapter wants after a round trip.
#[derive(Debug, Default)]
pub struct Round {
    /// Another round trip; none if the answer is complete.
    pub next: Option<UpstreamRequest>,
    /// What to send if the caller goes before that is done.
    pub cancel: Option<UpstreamRequest>,
}

/// Takes an answer through the adapter and writes it in the caller's dialect.
pub struct Translator {
    exchange: Exchange,
    parser: Option<Parser>,
    output: Output,
    usage: Option<Usage>,
    fault: Option<Fault>,
    finished: bool,
    begun: bool,
    /// Events that hold words of the answer.
    pieces: u64,
    arena: Vec<u8>,
}

impl Translator {
    /// A translation into a stream of the caller's dialect. `parser` cuts the upstream's answer.
    #[must_use]
    pub fn streaming(exchange: Exchange, parser: Option<Parser>, encoder: Box<dyn StreamEncoder>) -> Self {
        Self::new(exchange, parser, Output::Stream(encoder))
    }

    /// A translation into one value.
    #[must_use]
    pub fn whole(exchange: Exchange, parser: Option<Parser>) -> Self {
        Self::new(exchange, parser, Output::Whole(Box::default()))
    }

    fn new(exchange: Exchange, parser: Option<Parser>, output: Output) -> Self {
        let (usage, fault, arena) = (None, None, Vec::new());
        Self { exchange, parser, output, usage, fault, finished: false, begun: false, pieces: 0, arena }
    }

    /// The answer turns out to be a stream that this parser cuts.
    pub fn cut_into(&mut self, parser: Parser) {
        self.parser = Some(parser);
    }

    /// Events that the adapter gave without asking a vendor.
    pub fn answer(&mut self, events: &[Event], ready: &mut VecDeque<Bytes>) {
        self.write(events, ready);
    }

    /// Hands the end of an answer to the adapter: a whole body, or an empty one after the last frame.
    ///
    /// # Errors
    /// What the adapter says of the body, or that it broke.
    pub fn finish(
        &mut self,
        status: u16,
        headers: &[(&str, &str)],
        body: &[u8],
        ready: &mut VecDeque<Bytes>,
    ) -> Result<Round, Failure> {
        let step = self.exchange.finish(status, headers, body).map_err(Failure::of_adapter)?;
        self.write(&step.events, ready);
        Ok(Round { next: step.next, cancel: step.cancel })
    }

    /// Takes one chunk of a streamed answer.
    ///
    /// # Errors
    /// What the adapter says of a frame, or that it broke; `upstream-bad-answer` if there is no end of a frame.
    pub fn chunk(&mut self, chunk: &[u8], ready: &mut VecDeque<Bytes>) -> Result<(), Failure> {
        let Some(parser) = &mut self.parser else { return Ok(()) };
        let mut batch = Batch::begin(&mut self.arena);
        let fed = parser.feed(chunk, &mut |frame: Frame<'_>| batch.push(&frame));
        let step = batch.frames(|frames| self.exchange.frames(frames))?;
        self.write(&step.events, ready);
        fed.map_err(of_framing)
    }

    /// The upstream has ended its streamed answer in good order.
    ///
    /// # Errors
    /// `upstream-cut` if nothing said that the answer is complete.
    pub fn end(&mut self, ready: &mut VecDeque<Bytes>) -> Result<(), Failure> {
        if let Some(mut parser) = self.parser.take() {
            let mut batch = Batch::begin(&mut self.arena);
            let ended = parser.end(&mut |frame: Frame<'_>| batch.push(&frame));
            let step = batch.frames(|frames| self.exchange.frames(frames))?;
            self.write(&step.events, ready);
            ended.map_err(of_framing)?;
            self.finish(200, &[], &[], ready)?;
        }
        self.close(ready)
    }

    /// Ends the caller's answer.
    ///
    /// # Errors
    /// `upstream-cut` if nothing said that the answer is complete.
    pub fn close(&mut self, ready: &mut VecDeque<Bytes>) -> Result<(), Failure> {
        if self.fault.is_some() {
            return Ok(());
        }
        if !self.finished {
            return Err(cut());
        }
        if let Output::Stream(encoder) = &mut self.output {
            let mut out = Vec::new();
            encoder.end(&mut out);
            push(ready, out);
        }
        Ok(())
    }

    /// What a whole answer has become; the usage is in it.
    #[must_use]
    pub fn into_response(self) -> Response {
        match self.output {
            Output::Whole(collector) => collector.finish(),
            Output::Stream(_) => Response::default(),
        }
    }

    /// What is known of the usage.
    #[must_use]
    pub fn usage(&self) -> Option<&Usage> {
        self.usage.as_ref()
    }

    /// An error that the vendor has stated inside its answer.
    #[must_use]
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    fn fail(&mut self, fault: &Fault, out: &mut Vec<u8>) {
        // After an error of the vendor's own nothing may follow.
        if let (Output::Stream(encoder), None) = (&mut self.output, &self.fault) {
            encoder.fault(fault, out);
        }
    }

    fn write(&mut self, events: &[Event], ready: &mut VecDeque<Bytes>) {
        let mut out = Vec::new();
        for event in events {
            if self.fault.is_some() {
                break; // nothing after an error
            }
            match event {
                Event::Usage(usage) => self.usage = Some(usage.clone()),
                Event::Finish(_) => self.finished = true,
                Event::Fault(fault) => self.fault = Some(fault.clone()),
                Event::Start { .. } | Event::BlockEnd => {}
                _ => {
                    self.begun = true;
                    self.pieces += 1;
                }
            }
            match (&mut self.output, event) {
                (Output::Whole(collector), event) => collector.event(event),
                (Output::Stream(encoder), Event::Fault(fault)) => encoder.fault(fault, &mut out),
                (Output::Stream(encoder), event) => encoder.event(event, &mut out),
            }
        }
        push(ready, out);
    }
}

/// Frames of one network read, kept together so that they cross into the guest in one call.
struct Batch<'a> {
    arena: &'a mut Vec<u8>,
    cuts: Vec<(usize, usize)>,
}

impl<'a> Batch<'a> {
    fn begin(arena: &'a mut Vec<u8>) -> Self {
        arena.clear();
        Self { arena, cuts: Vec::new() }
    }

    fn push(&mut self, frame: &Frame<'_>) {
        self.arena.extend_from_slice(frame.name.as_bytes());
        let name_end = self.arena.len();
        self.arena.extend_from_slice(frame.data);
        self.cuts.push((name_end, self.arena.len()));
    }

    fn frames(self, call: impl FnOnce(&[Frame<'_>]) -> Result<Step, CallError>) -> Result<Step, Failure> {
        if self.cuts.is_empty() {
            return Ok(Step::default());
        }
        let mut begin = 0;
        let mut frames = Vec::with_capacity(self.cuts.len());
        for (name_end, end) in self.cuts {
            let name = std::str::from_utf8(&self.arena[begin..name_end]).unwrap_or_default();
            frames.push(Frame { name, data: &self.arena[name_end..end] });
            begin = end;
        }
        call(&frames).map_err(Failure::of_adapter)
    }
}

fn push(ready: &mut VecDeque<Bytes>, out: Vec<u8>) {
    if !out.is_empty() {
        ready.push_back(Bytes::from(out));
    }
}

fn of_framing(error: FrameError) -> Failure {
    match error {
        FrameError::Cut => cut(),
        error => Failure::new(Kind::BadAnswer, error.to_string()),
    }
}

fn cut() -> Failure {
    Failure::new(Kind::Cut, "the upstream ended its answer before it was complete; what came is not the whole answer")
}
