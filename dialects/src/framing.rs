// SPDX-License-Identifier: Apache-2.0
//! Cuts a stream of bytes into frames: server-sent events, JSON lines. One audited parser for the host, the test kit
//! and the conformance run; no adapter ever sees half a frame or half a character.
//!
//! A parser is a value: after the same bytes it is in the same state, however they were cut into chunks (`PartialEq`
//! lets tests prove that). What a parser holds is bounded by `frame_bytes_max`, and a frame that lies whole in one
//! chunk is handed out without a copy.

use memchr::{memchr, memchr2};

/// One frame of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Event name, empty if none.
    pub name: &'a str,
    /// Payload.
    pub data: &'a [u8],
}

/// A frame (or one line of it) is longer than the limit. The parser is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameTooLong {
    /// The limit in bytes.
    pub frame_bytes_max: usize,
}

impl std::fmt::Display for FrameTooLong {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "a frame of the stream is longer than {} bytes", self.frame_bytes_max)
    }
}

impl std::error::Error for FrameTooLong {}

/// How a stream is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Server-sent events (WHATWG HTML, section 9.2).
    Sse,
    /// One JSON value a line.
    JsonLines,
}

/// A parser of either kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parser {
    /// Server-sent events.
    Sse(SseParser),
    /// JSON lines.
    JsonLines(JsonLinesParser),
}

impl Parser {
    /// A parser that holds at most about `frame_bytes_max` bytes.
    #[must_use]
    pub fn new(kind: Kind, frame_bytes_max: usize) -> Self {
        match kind {
            Kind::Sse => Self::Sse(SseParser::new(frame_bytes_max)),
            Kind::JsonLines => Self::JsonLines(JsonLinesParser::new(frame_bytes_max)),
        }
    }

    /// Hands every frame that `chunk` completes to `out`.
    ///
    /// # Errors
    /// If a frame is longer than the limit; the frames before it have been handed out.
    pub fn feed(&mut self, chunk: &[u8], out: &mut impl FnMut(Frame<'_>)) -> Result<(), FrameTooLong> {
        self.feed_boundary(chunk, out).map(|_| ())
    }

    /// As [`Parser::feed`]; tells how long the part of `chunk` is after which no frame is open (0 if there is none).
    ///
    /// # Errors
    /// As [`Parser::feed`].
    pub fn feed_boundary(&mut self, chunk: &[u8], out: &mut impl FnMut(Frame<'_>)) -> Result<usize, FrameTooLong> {
        match self {
            Self::Sse(parser) => parser.feed_boundary(chunk, out),
            Self::JsonLines(parser) => parser.feed_boundary(chunk, out),
        }
    }

    /// The stream has ended: hands out a last frame that lacks its terminator.
    ///
    /// # Errors
    /// As [`Parser::feed`].
    pub fn end(&mut self, out: &mut impl FnMut(Frame<'_>)) -> Result<(), FrameTooLong> {
        match self {
            Self::Sse(parser) => parser.end(out),
            Self::JsonLines(parser) => parser.end(out),
        }
    }

    /// Whether no frame is open.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        match self {
            Self::Sse(parser) => parser.at_boundary(),
            Self::JsonLines(parser) => parser.at_boundary(),
        }
    }
}

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
    pub fn feed(&mut self, chunk: &[u8], out: &mut impl FnMut(Frame<'_>)) -> Result<(), FrameTooLong> {
        self.feed_boundary(chunk, out).map(|_| ())
    }

    /// As [`SseParser::feed`]; tells how long the part of `chunk` is after which no event is open (0 if there is none).
    /// A relay that sends only up to there can put an event of its own behind it at any time.
    ///
    /// # Errors
    /// As [`SseParser::feed`].
    pub fn feed_boundary(&mut self, chunk: &[u8], out: &mut impl FnMut(Frame<'_>)) -> Result<usize, FrameTooLong> {
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
    pub fn end(&mut self, out: &mut impl FnMut(Frame<'_>)) -> Result<(), FrameTooLong> {
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
    ) -> Result<(), FrameTooLong> {
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

    fn within_limit(&self, held: &Held<'_>, line_bytes: usize) -> Result<(), FrameTooLong> {
        let bytes = self.data.len() + held.data.map_or(0, <[u8]>::len) + line_bytes;
        if bytes > self.frame_bytes_max {
            return Err(FrameTooLong { frame_bytes_max: self.frame_bytes_max });
        }
        Ok(())
    }
}

/// Parser of JSON lines: one frame a line, without the white space around it; blank lines are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonLinesParser {
    frame_bytes_max: usize,
    /// The line that the last chunk did not complete.
    line: Vec<u8>,
}

impl JsonLinesParser {
    /// A parser that holds at most `frame_bytes_max` bytes.
    #[must_use]
    pub fn new(frame_bytes_max: usize) -> Self {
        Self { frame_bytes_max, line: Vec::new() }
    }

    /// Hands every line that `chunk` completes to `out`.
    ///
    /// # Errors
    /// If a line is longer than the limit; the lines before it have been handed out.
    pub fn feed(&mut self, chunk: &[u8], out: &mut impl FnMut(Frame<'_>)) -> Result<(), FrameTooLong> {
        self.feed_boundary(chunk, out).map(|_| ())
    }

    /// As [`JsonLinesParser::feed`]; tells how long the part of `chunk` is that ends with a whole line.
    ///
    /// # Errors
    /// As [`JsonLinesParser::feed`].
    pub fn feed_boundary(&mut self, chunk: &[u8], out: &mut impl FnMut(Frame<'_>)) -> Result<usize, FrameTooLong> {
        let mut at = 0;
        while let Some(length) = memchr(b'\n', &chunk[at..]) {
            let tail = &chunk[at..at + length];
            self.within_limit(tail.len())?;
            if self.line.is_empty() {
                hand_out_line(tail, out);
            } else {
                self.line.extend_from_slice(tail);
                hand_out_line(&self.line, out);
                self.line.clear();
            }
            at += length + 1;
        }
        self.within_limit(chunk.len() - at)?;
        self.line.extend_from_slice(&chunk[at..]);
        Ok(at)
    }

    /// The stream has ended: hands out a last line that lacks its line end.
    ///
    /// # Errors
    /// Never; the signature is that of the other parsers.
    pub fn end(&mut self, out: &mut impl FnMut(Frame<'_>)) -> Result<(), FrameTooLong> {
        hand_out_line(&self.line, out);
        self.line.clear();
        Ok(())
    }

    /// Whether no line is open.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        self.line.is_empty()
    }

    fn within_limit(&self, more: usize) -> Result<(), FrameTooLong> {
        if self.line.len() + more > self.frame_bytes_max {
            return Err(FrameTooLong { frame_bytes_max: self.frame_bytes_max });
        }
        Ok(())
    }
}

fn hand_out_line(line: &[u8], out: &mut impl FnMut(Frame<'_>)) {
    let data = line.trim_ascii();
    if !data.is_empty() {
        out(Frame { name: "", data });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Owned = (String, Vec<u8>);

    const MAX: usize = 1 << 20;

    fn frames_of(kind: Kind, chunks: &[&[u8]]) -> Vec<Owned> {
        let mut parser = Parser::new(kind, MAX);
        let mut frames = Vec::new();
        let mut out = |frame: Frame<'_>| frames.push((frame.name.to_owned(), frame.data.to_vec()));
        for chunk in chunks {
            parser.feed(chunk, &mut out).unwrap();
        }
        parser.end(&mut out).unwrap();
        assert!(parser.at_boundary());
        frames
    }

    /// A stream and its frames: names with data.
    type Case = (&'static [u8], &'static [(&'static str, &'static [u8])]);

    const NASTY: &[Case] = &[
        (b"data: a\n\n", &[("", b"a")]),
        (b"data:a\r\n\r\ndata: b\r\n\r\n", &[("", b"a"), ("", b"b")]),
        (b"data: a\r\rdata: b\r\r", &[("", b"a"), ("", b"b")]),
        (b"data: a\r\n\ndata: b\n\r\ndata: c\r\r\n\r", &[("", b"a"), ("", b"b"), ("", b"c")]),
        (b"\xef\xbb\xbfdata: bom\n\n", &[("", b"bom")]),
        (b"\xef\xbb\xbf\ndata: bom\n\n", &[("", b"bom")]),
        (b"\xef\xbbdata: no bom\n\n", &[]),
        (b"data: a\n\n\xef\xbb\xbfdata: late\n\n", &[("", b"a")]),
        (b": OPENROUTER PROCESSING\n\ndata: a\n\n:\n:\n\n", &[("", b"a")]),
        (b"event: x\ndata: 1\ndata:  2\ndata\ndata:3\n\n", &[("x", b"1\n 2\n\n3")]),
        (b"id:1\nevent:result\n:HTTP_STATUS/200\ndata:{\"a\":1}\n\n", &[("result", b"{\"a\":1}")]),
        (b"event: x\n\ndata: nameless\n\n", &[("", b"nameless")]),
        (b"event: x\ndata\n\n", &[("x", b"")]),
        (b"data\n\ndata: \n\ndata: a\n\n", &[("", b"a")]),
        (b"event: a\nevent: b\ndata: 1\n\n", &[("b", b"1")]),
        (b"retry: 10\nfoo: bar\nfoo\ndata: 1\n\n", &[("", b"1")]),
        (b"data: no blank line", &[("", b"no blank line")]),
        (b"data: a\n\nevent: e\ndata: last\n", &[("", b"a"), ("e", b"last")]),
        (b"data: a\r\n\r\nevent: e\r\ndata: last\r", &[("", b"a"), ("e", b"last")]),
        ("data: ü€😀\n\nevent: é\ndata: 漢\n\n".as_bytes(), &[("", "ü€😀".as_bytes()), ("é", "漢".as_bytes())]),
        (b"event: \xff\ndata: \xfe\n\n", &[("\u{fffd}", b"\xfe")]),
        (b"\n\n\r\r\n\n", &[]),
        (b"data: [DONE]", &[("", b"[DONE]")]),
        (b" data: leading space is another field\n\n", &[]),
    ];

    #[test]
    fn nasty_streams_are_read_as_the_standard_says() {
        for (bytes, expected) in NASTY {
            let expected: Vec<Owned> = expected.iter().map(|(n, d)| ((*n).to_owned(), d.to_vec())).collect();
            assert_eq!(frames_of(Kind::Sse, &[bytes]), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn frames_do_not_depend_on_where_the_bytes_were_cut() {
        for (bytes, _) in NASTY {
            for kind in [Kind::Sse, Kind::JsonLines] {
                let whole = frames_of(kind, &[bytes]);
                let single: Vec<&[u8]> = bytes.chunks(1).collect();
                assert_eq!(frames_of(kind, &single), whole);
                for i in 0..=bytes.len() {
                    for j in i..=bytes.len() {
                        let cut = [&bytes[..i], &bytes[i..j], &bytes[j..]];
                        assert_eq!(frames_of(kind, &cut), whole, "{bytes:?} cut at {i} and {j}");
                    }
                }
            }
        }
    }

    #[test]
    fn state_does_not_depend_on_where_the_bytes_were_cut() {
        for (bytes, _) in NASTY {
            for kind in [Kind::Sse, Kind::JsonLines] {
                for end in 0..=bytes.len() {
                    let mut whole = Parser::new(kind, MAX);
                    whole.feed(&bytes[..end], &mut |_| {}).unwrap();
                    for cut in 0..=end {
                        let mut parser = Parser::new(kind, MAX);
                        parser.feed(&bytes[..cut], &mut |_| {}).unwrap();
                        parser.feed(&bytes[cut..end], &mut |_| {}).unwrap();
                        assert_eq!(parser, whole);
                    }
                }
            }
        }
    }

    #[test]
    fn a_frame_that_lies_in_one_chunk_is_not_copied() {
        let chunk = b"event: a\ndata: 12345\n\n".as_slice();
        let range = chunk.as_ptr_range();
        let mut seen = 0;
        let mut out = |frame: Frame<'_>| {
            assert!(range.contains(&frame.data.as_ptr()) && range.contains(&frame.name.as_ptr()));
            seen += 1;
        };
        SseParser::new(MAX).feed(chunk, &mut out).unwrap();
        assert_eq!(seen, 1);
    }

    #[test]
    fn a_boundary_is_where_no_event_is_open() {
        let cases: &[(&[u8], usize)] = &[
            (b"data: a\n\ndata: b", 9),
            (b"data: a\n\ndata: b\n", 9),
            (b"data: a", 0),
            (b"data: a\r\n\r\n", 11),
            (b"data: a\r\n\r", 10),
            (b": ping\n", 7),
            (b": ping\n\n: pi", 8),
            (b"id: 1\n", 0),
            (b"event: e\n\n", 10),
        ];
        for (bytes, expected) in cases {
            let mut parser = SseParser::new(MAX);
            assert_eq!(parser.feed_boundary(bytes, &mut |_| {}), Ok(*expected), "{bytes:?}");
            assert_eq!(parser.at_boundary(), *expected == bytes.len());
        }
        let mut parser = SseParser::new(MAX);
        assert_eq!(parser.feed_boundary(b"data: a\r\n\r", &mut |_| {}), Ok(10));
        assert_eq!(
            parser.feed_boundary(b"\ndata", &mut |_| {}),
            Ok(1),
            "the LF of a CRLF belongs to the event before it"
        );
    }

    #[test]
    fn what_is_sent_up_to_the_boundaries_holds_exactly_the_frames_seen() {
        for (bytes, _) in NASTY {
            for cut in 0..=bytes.len() {
                let (mut parser, mut sent, mut frames) = (SseParser::new(MAX), 0, Vec::new());
                let mut out = |frame: Frame<'_>| frames.push((frame.name.to_owned(), frame.data.to_vec()));
                let first = parser.feed_boundary(&bytes[..cut], &mut out).unwrap();
                sent = sent.max(first);
                let second = parser.feed_boundary(&bytes[cut..], &mut out).unwrap();
                if second > 0 {
                    sent = cut + second;
                }
                assert_eq!(frames_of(Kind::Sse, &[&bytes[..sent]]), frames, "{bytes:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn a_frame_over_the_limit_is_an_error_however_it_comes() {
        let too_long: &[&[u8]] =
            &[b"data: 12345678901\n\n", b"data: 12345\ndata: 678901234\n\n", b": a long comment\n", b"data"];
        for bytes in too_long {
            for size in 1..=bytes.len() {
                let mut parser = SseParser::new(if bytes.len() == 4 { 3 } else { 15 });
                let result = bytes.chunks(size).try_for_each(|chunk| parser.feed(chunk, &mut |_| {}));
                assert!(result.is_err(), "{bytes:?} in chunks of {size}");
            }
        }
        let mut parser = JsonLinesParser::new(4);
        assert_eq!(parser.feed(b"1234\n12", &mut |_| {}), Ok(()));
        assert_eq!(parser.feed(b"345", &mut |_| {}), Err(FrameTooLong { frame_bytes_max: 4 }));
    }

    #[test]
    fn json_lines_are_cut_at_line_ends() {
        let cases: &[(&[u8], &[&str])] = &[
            (b"{\"a\":1}\n{\"b\":2}\n", &["{\"a\":1}", "{\"b\":2}"]),
            (b"\r\n {\"a\":1} \r\n\n{\"b\":2}", &["{\"a\":1}", "{\"b\":2}"]),
            (b"", &[]),
        ];
        for (bytes, expected) in cases {
            let expected: Vec<Owned> = expected.iter().map(|d| (String::new(), d.as_bytes().to_vec())).collect();
            assert_eq!(frames_of(Kind::JsonLines, &[bytes]), expected);
        }
    }
}
