// SPDX-License-Identifier: Apache-2.0
//! Cuts a stream of bytes into frames: server-sent events, JSON lines, the elements of a JSON array, the messages of
//! `application/vnd.amazon.eventstream`. One audited parser for the host, the test kit and the conformance run; no
//! adapter ever sees half a frame or half a character.
//!
//! A parser is a value: after the same bytes it is in the same state, however they were cut into chunks (`PartialEq`
//! lets tests prove that). What a parser holds is bounded by `frame_bytes_max`, and a frame that lies whole in one
//! chunk is handed out without a copy.

pub mod event_stream;
mod json_array;
mod json_lines;
mod sse;
#[cfg(test)]
mod tests;

pub use event_stream::EventStreamParser;
pub use json_array::JsonArrayParser;
pub use json_lines::JsonLinesParser;
pub use sse::SseParser;

/// One frame of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Event name, empty if none.
    pub name: &'a str,
    /// Payload.
    pub data: &'a [u8],
}

/// Why a stream cannot be cut into frames. The parser is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// A frame (or one line of it) is longer than the limit.
    TooLong {
        /// The limit in bytes.
        frame_bytes_max: usize,
    },
    /// The bytes are not of this framing: how so.
    Malformed(&'static str),
    /// The stream has ended inside a frame, or before the end of the array. Half a frame is not handed out.
    Cut,
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLong { frame_bytes_max } => {
                write!(formatter, "a frame of the stream is longer than {frame_bytes_max} bytes")
            }
            Self::Malformed(how) => write!(formatter, "the stream cannot be cut into frames: {how}"),
            Self::Cut => formatter.write_str("the stream ends inside a frame"),
        }
    }
}

impl std::error::Error for FrameError {}

/// How a stream is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Server-sent events (WHATWG HTML, section 9.2).
    Sse,
    /// One JSON value a line.
    JsonLines,
    /// The elements of one JSON array.
    JsonArray,
    /// `application/vnd.amazon.eventstream`.
    AwsEventStream,
}

impl Kind {
    /// How a stream of this media type is cut; none if the type is not one of a stream. Parameters do not matter.
    #[must_use]
    pub fn of_media_type(media_type: &str) -> Option<Self> {
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        let is = |name: &str| essence.eq_ignore_ascii_case(name);
        if is("text/event-stream") {
            Some(Self::Sse)
        } else if is("application/vnd.amazon.eventstream") {
            Some(Self::AwsEventStream)
        } else if is("application/json") {
            Some(Self::JsonArray)
        } else if is("application/x-ndjson") || is("application/jsonl") || is("application/stream+json") {
            Some(Self::JsonLines)
        } else {
            None
        }
    }
}

/// A parser of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parser {
    /// Server-sent events.
    Sse(SseParser),
    /// JSON lines.
    JsonLines(JsonLinesParser),
    /// The elements of one JSON array.
    JsonArray(JsonArrayParser),
    /// Messages of `application/vnd.amazon.eventstream`.
    AwsEventStream(EventStreamParser),
}

impl Parser {
    /// A parser that holds at most about `frame_bytes_max` bytes.
    #[must_use]
    pub fn new(kind: Kind, frame_bytes_max: usize) -> Self {
        match kind {
            Kind::Sse => Self::Sse(SseParser::new(frame_bytes_max)),
            Kind::JsonLines => Self::JsonLines(JsonLinesParser::new(frame_bytes_max)),
            Kind::JsonArray => Self::JsonArray(JsonArrayParser::new(frame_bytes_max)),
            Kind::AwsEventStream => Self::AwsEventStream(EventStreamParser::new(frame_bytes_max)),
        }
    }

    /// Hands every frame that `chunk` completes to `out`.
    ///
    /// # Errors
    /// If a frame is longer than the limit or cannot be read; the frames before it have been handed out.
    pub fn feed(&mut self, chunk: &[u8], out: &mut impl FnMut(Frame<'_>)) -> Result<(), FrameError> {
        self.feed_boundary(chunk, out).map(|_| ())
    }

    /// As [`Parser::feed`]; tells how long the part of `chunk` is after which no frame is open (0 if there is none).
    ///
    /// # Errors
    /// As [`Parser::feed`].
    pub fn feed_boundary(&mut self, chunk: &[u8], out: &mut impl FnMut(Frame<'_>)) -> Result<usize, FrameError> {
        match self {
            Self::Sse(parser) => parser.feed_boundary(chunk, out),
            Self::JsonLines(parser) => parser.feed_boundary(chunk, out),
            Self::JsonArray(parser) => parser.feed_boundary(chunk, out),
            Self::AwsEventStream(parser) => parser.feed_boundary(chunk, out),
        }
    }

    /// The stream has ended: hands out a last event or line that lacks its terminator.
    ///
    /// # Errors
    /// As [`Parser::feed`]; [`FrameError::Cut`] if the framing itself tells that something is missing: half a message of
    /// an event stream, an array that is not closed.
    pub fn end(&mut self, out: &mut impl FnMut(Frame<'_>)) -> Result<(), FrameError> {
        match self {
            Self::Sse(parser) => parser.end(out),
            Self::JsonLines(parser) => parser.end(out),
            Self::JsonArray(parser) => parser.end(),
            Self::AwsEventStream(parser) => parser.end(),
        }
    }

    /// Whether the stream may end here: no frame is open, and no array either.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        match self {
            Self::Sse(parser) => parser.at_boundary(),
            Self::JsonLines(parser) => parser.at_boundary(),
            Self::JsonArray(parser) => parser.at_boundary(),
            Self::AwsEventStream(parser) => parser.at_boundary(),
        }
    }
}
