// SPDX-License-Identifier: Apache-2.0
//! `application/vnd.amazon.eventstream`, read and written.
//!
//! A message is: its length and the length of its headers (4 bytes each, big endian, as everything), the CRC-32 of those
//! 8 bytes, the headers, the payload, and the CRC-32 of all before. A header is: length of the name (1 byte), name, type
//! (1 byte), value.

use super::{Frame, FrameError};

/// The two lengths and their checksum.
const PRELUDE_BYTES: usize = 12;
const CHECKSUM_BYTES: usize = 4;
/// Type of a header whose value is a text.
const TEXT: u8 = 7;

/// Parser of an event stream; both checksums of every message are verified.
///
/// The name of a frame is the `:event-type`. In-band errors come as `exception:` and their `:exception-type`, or `error:`
/// and their `:error-code`; the data of the latter is the `:error-message` if the payload is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventStreamParser {
    frame_bytes_max: usize,
    /// The part of the open message that earlier chunks brought.
    message: Vec<u8>,
}

impl EventStreamParser {
    /// A parser that holds at most `frame_bytes_max` bytes.
    #[must_use]
    pub fn new(frame_bytes_max: usize) -> Self {
        Self { frame_bytes_max, message: Vec::new() }
    }

    /// Hands every message that `chunk` completes to `out`.
    ///
    /// # Errors
    /// If a message is longer than the limit, a checksum is wrong, or headers cannot be read; the messages before it have
    /// been handed out.
    pub fn feed(&mut self, chunk: &[u8], out: &mut impl FnMut(Frame<'_>)) -> Result<(), FrameError> {
        self.feed_boundary(chunk, out).map(|_| ())
    }

    /// As [`EventStreamParser::feed`]; tells how long the part of `chunk` is that ends with a whole message.
    ///
    /// # Errors
    /// As [`EventStreamParser::feed`].
    pub fn feed_boundary(&mut self, chunk: &[u8], out: &mut impl FnMut(Frame<'_>)) -> Result<usize, FrameError> {
        let mut boundary = 0;
        if !self.message.is_empty() {
            boundary = self.complete(chunk, out)?;
            if !self.message.is_empty() {
                return Ok(0);
            }
        }
        while let Some(length) = self.length(&chunk[boundary..])? {
            let Some(message) = chunk.get(boundary..boundary + length) else { break };
            hand_out(message, out)?;
            boundary += length;
        }
        self.message.extend_from_slice(&chunk[boundary..]);
        Ok(boundary)
    }

    /// The stream has ended.
    ///
    /// # Errors
    /// [`FrameError::Cut`] if a message is open.
    pub fn end(&mut self) -> Result<(), FrameError> {
        if self.at_boundary() { Ok(()) } else { Err(FrameError::Cut) }
    }

    /// Whether no message is open.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        self.message.is_empty()
    }

    /// Takes what the open message lacks; tells how much that was.
    fn complete(&mut self, chunk: &[u8], out: &mut impl FnMut(Frame<'_>)) -> Result<usize, FrameError> {
        let mut taken = 0;
        if self.message.len() < PRELUDE_BYTES {
            taken = chunk.len().min(PRELUDE_BYTES - self.message.len());
            self.message.extend_from_slice(&chunk[..taken]);
        }
        let Some(length) = self.length(&self.message)? else { return Ok(taken) };
        let lacking = (length - self.message.len()).min(chunk.len() - taken);
        self.message.extend_from_slice(&chunk[taken..taken + lacking]);
        if self.message.len() == length {
            hand_out(&self.message, out)?;
            self.message.clear();
        }
        Ok(taken + lacking)
    }

    /// The length of the message that begins with these bytes, once they are enough to tell.
    fn length(&self, message: &[u8]) -> Result<Option<usize>, FrameError> {
        let Some((lengths, checksum)) = message.get(..PRELUDE_BYTES).map(|prelude| prelude.split_at(8)) else {
            return Ok(None);
        };
        if number(checksum) != Some(crc32fast::hash(lengths)) {
            return Err(FrameError::Malformed("the checksum of a prelude is wrong"));
        }
        let (Some(length), Some(headers)) = (number(&lengths[..4]), number(&lengths[4..])) else { return Ok(None) };
        let (length, headers) = (length as usize, headers as usize);
        if length > self.frame_bytes_max {
            return Err(FrameError::TooLong { frame_bytes_max: self.frame_bytes_max });
        }
        if length < PRELUDE_BYTES + CHECKSUM_BYTES || headers > length - PRELUDE_BYTES - CHECKSUM_BYTES {
            return Err(FrameError::Malformed("the lengths of a message contradict each other"));
        }
        Ok(Some(length))
    }
}

/// Appends a message with headers of type text. Names have at most 255 bytes and values 65,535, or the header is left out;
/// readers refuse payloads of more than 16 MiB.
pub fn write(out: &mut Vec<u8>, headers: &[(&str, &str)], payload: &[u8]) {
    let begin = out.len();
    out.extend_from_slice(&[0; PRELUDE_BYTES]);
    for (name, value) in headers {
        let (Ok(name_bytes), Ok(value_bytes)) = (u8::try_from(name.len()), u16::try_from(value.len())) else {
            continue;
        };
        out.push(name_bytes);
        out.extend_from_slice(name.as_bytes());
        out.push(TEXT);
        out.extend_from_slice(&value_bytes.to_be_bytes());
        out.extend_from_slice(value.as_bytes());
    }
    let headers_bytes = length_of(out.len() - begin - PRELUDE_BYTES);
    out.extend_from_slice(payload);
    let length = length_of(out.len() - begin + CHECKSUM_BYTES);
    out[begin..begin + 4].copy_from_slice(&length.to_be_bytes());
    out[begin + 4..begin + 8].copy_from_slice(&headers_bytes.to_be_bytes());
    let prelude = crc32fast::hash(&out[begin..begin + 8]);
    out[begin + 8..begin + PRELUDE_BYTES].copy_from_slice(&prelude.to_be_bytes());
    let whole = crc32fast::hash(&out[begin..]);
    out.extend_from_slice(&whole.to_be_bytes());
}

fn length_of(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_be_bytes)
}

/// One whole message, whose prelude is right.
fn hand_out(message: &[u8], out: &mut impl FnMut(Frame<'_>)) -> Result<(), FrameError> {
    let (rest, checksum) = message.split_at(message.len() - CHECKSUM_BYTES);
    if number(checksum) != Some(crc32fast::hash(rest)) {
        return Err(FrameError::Malformed("the checksum of a message is wrong"));
    }
    let headers_bytes = number(&rest[4..8]).map_or(0, |bytes| bytes as usize);
    let (headers, payload) = rest[PRELUDE_BYTES..].split_at(headers_bytes);
    let Some(headers) = Headers::read(headers) else {
        return Err(FrameError::Malformed("the headers of a message cannot be read"));
    };
    match headers.message_type {
        "exception" => out(Frame { name: &format!("exception:{}", headers.exception_type), data: payload }),
        "error" => {
            let data = if payload.is_empty() { headers.error_message.as_bytes() } else { payload };
            out(Frame { name: &format!("error:{}", headers.error_code), data });
        }
        _ => out(Frame { name: headers.event_type, data: payload }),
    }
    Ok(())
}

/// The headers that say what a message is; "" where there is none.
#[derive(Default)]
struct Headers<'m> {
    message_type: &'m str,
    event_type: &'m str,
    exception_type: &'m str,
    error_code: &'m str,
    error_message: &'m str,
}

impl<'m> Headers<'m> {
    fn read(mut bytes: &'m [u8]) -> Option<Self> {
        let mut headers = Self::default();
        while let Some((&name_bytes, rest)) = bytes.split_first() {
            let (name, rest) = rest.split_at_checked(usize::from(name_bytes))?;
            let (&kind, rest) = rest.split_first()?;
            let (value, rest) = value(kind, rest)?;
            bytes = rest;
            let place = match name {
                b":message-type" => &mut headers.message_type,
                b":event-type" => &mut headers.event_type,
                b":exception-type" => &mut headers.exception_type,
                b":error-code" => &mut headers.error_code,
                b":error-message" => &mut headers.error_message,
                _ => continue,
            };
            if kind == TEXT {
                *place = std::str::from_utf8(value).ok()?;
            }
        }
        Some(headers)
    }
}

/// The value of a header of this type, and what stands behind it.
fn value(kind: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = match kind {
        0 | 1 => 0, // true, false
        2 => 1,     // byte
        3 => 2,     // short
        4 => 4,     // integer
        5 | 8 => 8, // long, milliseconds since 1970
        9 => 16,    // UUID
        6 | TEXT => {
            let (length, rest) = bytes.split_first_chunk()?;
            return rest.split_at_checked(usize::from(u16::from_be_bytes(*length)));
        }
        _ => return None,
    };
    bytes.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1 << 20;

    type Owned = (String, Vec<u8>);

    fn message(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, headers, payload);
        out
    }

    /// A message whose headers are these bytes, with right checksums.
    fn raw(headers: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&length_of(headers.len() + payload.len() + 16).to_be_bytes());
        out.extend_from_slice(&length_of(headers.len()).to_be_bytes());
        out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
        out.extend_from_slice(headers);
        out.extend_from_slice(payload);
        out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
        out
    }

    fn read(max: usize, pieces: &[&[u8]]) -> Result<Vec<Owned>, FrameError> {
        let (mut parser, mut frames) = (EventStreamParser::new(max), Vec::new());
        for piece in pieces {
            parser.feed(piece, &mut |frame| frames.push((frame.name.to_owned(), frame.data.to_vec())))?;
        }
        parser.end().map(|()| frames)
    }

    fn every_sort() -> Vec<u8> {
        let event = [(":event-type", "chunk"), (":content-type", "application/json"), (":message-type", "event")];
        let mut stream = message(&event, b"{\"a\":1}");
        stream.extend(message(&[], b""));
        let exception = [(":message-type", "exception"), (":exception-type", "throttlingException")];
        stream.extend(message(&exception, b"{\"message\":\"slow\"}"));
        let error = [(":message-type", "error"), (":error-code", "Internal"), (":error-message", "lost")];
        stream.extend(message(&error, b""));
        stream.extend(message(&error, b"{}"));
        stream
    }

    #[test]
    fn names_tell_events_from_exceptions_and_errors() {
        let frames = read(MAX, &[&every_sort()]).unwrap();
        let expected: [(&str, &[u8]); 5] = [
            ("chunk", b"{\"a\":1}"),
            ("", b""),
            ("exception:throttlingException", b"{\"message\":\"slow\"}"),
            ("error:Internal", b"lost"),
            ("error:Internal", b"{}"),
        ];
        assert_eq!(frames, expected.map(|(name, data)| (name.to_owned(), data.to_vec())));
    }

    #[test]
    fn a_message_is_written_as_amazon_writes_it() {
        // From the test vectors of aws-c-event-stream: one header of type text, a payload of JSON.
        let expected: &[u8] =
            b"\x00\x00\x00\x3d\x00\x00\x00\x20\x07\xfd\x83\x96\x0ccontent-type\x07\x00\x10application/json\
            {'foo':'bar'}\x8d\x9c\x08\xb1";
        assert_eq!(message(&[("content-type", "application/json")], b"{'foo':'bar'}"), expected);
    }

    #[test]
    fn headers_of_every_type_are_passed_over() {
        let values: [&[u8]; 10] =
            [b"", b"", b"1", b"12", b"1234", b"12345678", b"\0\x03abc", b"\0\x02hi", b"12345678", b"0123456789abcdef"];
        let mut headers = Vec::new();
        for (kind, value) in (0u8..).zip(values) {
            headers.extend_from_slice(&[1, b'h', kind]);
            headers.extend_from_slice(value);
        }
        headers.extend_from_slice(b"\x0b:event-type\x07\0\x04ping");
        assert_eq!(read(MAX, &[&raw(&headers, b"x")]), Ok(vec![("ping".to_owned(), b"x".to_vec())]));
        for length in (0..headers.len()).filter(|length| *length < headers.len() - 18) {
            let cut = read(MAX, &[&raw(&headers[..length], b"x")]);
            assert!(cut.is_ok() || cut == Err(FrameError::Malformed("the headers of a message cannot be read")));
        }
        let unknown = raw(b"\x01h\x0a", b"");
        assert_eq!(read(MAX, &[&unknown]), Err(FrameError::Malformed("the headers of a message cannot be read")));
        let not_utf8 = raw(b"\x0b:event-type\x07\0\x01\xff", b"");
        assert_eq!(read(MAX, &[&not_utf8]), Err(FrameError::Malformed("the headers of a message cannot be read")));
    }

    #[test]
    fn no_cut_changes_a_message_and_every_prefix_leaves_the_same_state() {
        let stream = every_sort();
        let whole = read(MAX, &[&stream]);
        for cut in 0..=stream.len() {
            assert_eq!(read(MAX, &[&stream[..cut], &stream[cut..]]), whole, "cut at {cut}");
            for before in 0..=cut {
                let (mut one, mut two) = (EventStreamParser::new(MAX), EventStreamParser::new(MAX));
                one.feed(&stream[..cut], &mut |_| {}).unwrap();
                two.feed(&stream[..before], &mut |_| {}).unwrap();
                two.feed(&stream[before..cut], &mut |_| {}).unwrap();
                assert_eq!(one, two, "{cut} bytes cut at {before}");
            }
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(read(MAX, &bytes), whole);
    }

    #[test]
    fn a_flipped_bit_anywhere_is_an_error_and_a_cut_is_one() {
        let stream = message(&[(":event-type", "chunk")], b"{\"a\":1}");
        for at in 0..stream.len() {
            for bit in 0..8 {
                let mut broken = stream.clone();
                broken[at] ^= 1 << bit;
                let expected = if at < PRELUDE_BYTES {
                    "the checksum of a prelude is wrong"
                } else {
                    "the checksum of a message is wrong"
                };
                assert_eq!(read(MAX, &[&broken]), Err(FrameError::Malformed(expected)), "byte {at}, bit {bit}");
            }
            let cut = read(MAX, &[&stream[..at]]);
            assert_eq!(cut, if at == 0 { Ok(Vec::new()) } else { Err(FrameError::Cut) }, "{at} bytes");
        }
    }

    #[test]
    fn lengths_that_lie_are_refused_before_anything_is_kept() {
        let prelude = |length: u32, headers: u32| {
            let mut out = [length.to_be_bytes(), headers.to_be_bytes()].concat();
            out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
            out
        };
        let contradiction = Err(FrameError::Malformed("the lengths of a message contradict each other"));
        let too_long = Err(FrameError::TooLong { frame_bytes_max: MAX });
        for (length, headers, expected) in [
            (0, 0, &contradiction),
            (15, 0, &contradiction),
            (16, 1, &contradiction),
            (100, u32::MAX, &contradiction),
            (u32::MAX, 0, &too_long),
            ((1 << 20) + 1, 0, &too_long),
        ] {
            let bytes = prelude(length, headers);
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!((&read(MAX, &[&bytes]), &read(MAX, &single)), (expected, expected), "{length} {headers}");
        }
    }

    #[test]
    fn a_relay_sends_whole_messages() {
        let mut stream = message(&[(":event-type", "a")], b"{}");
        let first = stream.len();
        stream.extend(message(&[(":event-type", "b")], b"{}"));
        for cut in 0..=stream.len() {
            let mut parser = EventStreamParser::new(MAX);
            let expected = if cut < first {
                0
            } else if cut < stream.len() {
                first
            } else {
                cut
            };
            assert_eq!(parser.feed_boundary(&stream[..cut], &mut |_| {}), Ok(expected), "{cut}");
            assert_eq!(parser.at_boundary(), cut == expected);
            let rest = if cut == stream.len() { 0 } else { stream.len() - cut };
            assert_eq!(parser.feed_boundary(&stream[cut..], &mut |_| {}), Ok(rest), "{cut}");
        }
    }

    #[test]
    fn a_message_that_lies_in_one_chunk_is_not_copied() {
        let chunk = message(&[(":event-type", "a")], b"{}");
        let mut seen = 0;
        let mut out = |frame: Frame<'_>| {
            let range = chunk.as_ptr_range();
            assert!(range.contains(&frame.data.as_ptr()) && range.contains(&frame.name.as_ptr()));
            seen += 1;
        };
        EventStreamParser::new(MAX).feed(&chunk, &mut out).unwrap();
        assert_eq!(seen, 1);
    }
}
