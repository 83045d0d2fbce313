// SPDX-License-Identifier: Apache-2.0
//! Server-sent events (WHATWG HTML, section 9.2).

use memchr::{memchr, memchr2};

use super::{Frame, FrameError};

/// Parser of server-sent events.
///
/// Lines end with LF, CRLF or CR; a leading byte order mark, comments, `id`, `retry` and unknown fields are passed
/// over; the space after the colon may be missing; several `data` lines are joined with LF. An event without `data` is
/// none, and neither is one whose data and name are both empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SseParser {
    frame_bytes_max: usize,
    /// A line has been seen, so that a byte order mark is no longer one.
    started: bool,
    /// The last byte was CR: an LF that follows belongs to it.
    after_cr: bool,
    /// A field of the current event has been seen.
    open: bool,
    /// A `data` field of the current event is in `data`.
    has_data: bool,
    /// The line that the last chunk did not complete.
    line: Vec<u8>,
    name: String,
    data: Vec<u8>,
}

/// What the current event has in the current chunk: not copied unless the event goes on in the next chunk.
#[derive(Default)]
struct Held<'c> {
    name: Option<&'c str>,
    data: Option<&'c [u8]>,
}

impl SseParser {
    /// A parser that holds at most about `frame_bytes_max` bytes.
    #[must_use]
    pub fn new(frame_bytes_max: usize) -> Self {
        Self {
            frame_bytes_max,
            started: false,
            after_cr: false,
            open: false,
            has_data: false,
            line: Vec::new(),
            name: String::new(),
            data: Vec::new(),
        }
    }

    /// Hands every event that `chunk` completes to `out`.
    ///
    /// # Errors
    /// If an event is longer than the limit; the events before it have been handed out.
    pub fn feed(&mut self, chunk: &[u8], out: &mut impl FnMut(Frame<'_>)) -> Result<(), FrameError> {
        self.feed_boundary(chunk, out).map(|_| ())
    }

    /// As [`SseParser::feed`]; tells how long the part of `chunk` is after which no event is open (0 if there is none).
    /// A relay that sends only up to there can put an event of its own behind it at any time.
    ///
    /// # Errors
    /// As [`SseParser::feed`].
    pub fn feed_boundary(&mut self, chunk: &[u8], out: &mut impl FnMut(Frame<'_>)) -> Result<usize, FrameError> {
        let mut held = Held::default();
        let (mut at, mut boundary) = (0, 0);
        while let Some(&first) = chunk.get(at) {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                at += 1;
            } else if let Some(length) = memchr2(b'\n', b'\r', &chunk[at..]) {
                self.after_cr = chunk[at + length] == b'\r';
                self.complete_line(&chunk[at..at + length], &mut held, out)?;
                at += length + 1;
            } else {
                self.within_limit(&held, self.line.len() + chunk.len() - at)?;
                self.line.extend_from_slice(&chunk[at..]);
                break;
            }
            if !self.open {
                boundary = at;
            }
        }
        self.keep(&held);
        Ok(boundary)
    }

    /// The stream has ended: hands out a last event that lacks its blank line. (The standard would drop it, but vendors
    /// end streams so.)
    ///
    /// # Errors
    /// As [`SseParser::feed`].
    pub fn end(&mut self, out: &mut impl FnMut(Frame<'_>)) -> Result<(), FrameError> {
        if !self.line.is_empty() {
            self.complete_line(&[], &mut Held::default(), out)?;
        }
        self.dispatch(&mut Held::default(), out);
        self.after_cr = false;
        Ok(())
    }

    /// Whether no event is open: everything fed belongs to complete events or to none.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        !self.open && self.line.is_empty()
    }

    /// A line whose last part is `tail`; its first part may lie in `self.line`.
    fn complete_line<'c>(
        &mut self,
        tail: &'c [u8],
        held: &mut Held<'c>,
        out: &mut impl FnMut(Frame<'_>),
    ) -> Result<(), FrameError> {
        self.within_limit(held, self.line.len() + tail.len())?;
        if self.line.is_empty() {
            self.take_line(tail, held, out);
            return Ok(());
        }
        self.keep(held);
        *held = Held::default();
        let mut line = std::mem::take(&mut self.line);
        line.extend_from_slice(tail);
        let mut joined = Held::default();
        self.take_line(&line, &mut joined, out);
        self.keep(&joined);
        line.clear();
        self.line = line;
        Ok(())
    }

    fn take_line<'c>(&mut self, line: &'c [u8], held: &mut Held<'c>, out: &mut impl FnMut(Frame<'_>)) {
        let first = !std::mem::replace(&mut self.started, true);
        let line = if first { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
        if line.is_empty() {
            return self.dispatch(held, out);
        }
        let (field, value) = match memchr(b':', line) {
            Some(0) => return, // a comment
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &line[line.len()..]),
        };
        self.open = true;
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => self.take_data(value, held),
            b"event" => self.take_name(value, held),
            _ => {}
        }
    }

    fn take_data<'c>(&mut self, value: &'c [u8], held: &mut Held<'c>) {
        if let Some(earlier) = held.data.take() {
            self.keep_data(earlier);
        }
        if self.has_data {
            self.keep_data(value);
        } else {
            held.data = Some(value);
        }
    }

    fn take_name<'c>(&mut self, value: &'c [u8], held: &mut Held<'c>) {
        match std::str::from_utf8(value) {
            Ok(name) => held.name = Some(name),
            Err(_) => {
                held.name = None;
                self.name = String::from_utf8_lossy(value).into_owned();
            }
        }
    }

    fn dispatch(&mut self, held: &mut Held<'_>, out: &mut impl FnMut(Frame<'_>)) {
        let Held { name, data } = std::mem::take(held);
        let name = name.unwrap_or(&self.name);
        let data = data.or(self.has_data.then_some(self.data.as_slice()));
        if let Some(data) = data
            && !(data.is_empty() && name.is_empty())
        {
            out(Frame { name, data });
        }
        self.open = false;
        self.has_data = false;
        self.name.clear();
        self.data.clear();
    }

    /// Copies what is held of the chunk, which is about to go.
    fn keep(&mut self, held: &Held<'_>) {
        if let Some(name) = held.name {
            name.clone_into(&mut self.name);
        }
        if let Some(data) = held.data {
            self.keep_data(data);
        }
    }

    fn keep_data(&mut self, data: &[u8]) {
        if std::mem::replace(&mut self.has_data, true) {
            self.data.push(b'\n');
        }
        self.data.extend_from_slice(data);
    }

    fn within_limit(&self, held: &Held<'_>, line_bytes: usize) -> Result<(), FrameError> {
        let bytes = self.data.len() + held.data.map_or(0, <[u8]>::len) + line_bytes;
        if bytes > self.frame_bytes_max {
            return Err(FrameError::TooLong { frame_bytes_max: self.frame_bytes_max });
        }
        Ok(())
    }
}
