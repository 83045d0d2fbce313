// SPDX-License-Identifier: Apache-2.0
//! Shows that a stream means the same wherever the network cuts it.
//!
//! A parser is a value, so the proof needs no run of the whole stream for each cut. `states[k]` is the parser after the
//! first `k` bytes, fed one by one. For each cut `k`, a window that begins two frames before it and ends two frames behind
//! it is fed in two pieces; both pieces must lead to the recorded states and bring the frames that lie between. By
//! induction over the windows the stream cut at `k` brings the frames of the whole stream, and the codec sees frames only.

use penstock_dialects::framing::{Frame, Kind, Parser};
use penstock_dialects::ir::Event;

use super::Failure;
use super::reader::Reader;

const FRAME_BYTES_MAX: usize = 16 << 20;
/// Frames on each side of a cut that the window around it holds.
const AROUND: usize = 2;

/// A frame that outlives its bytes.
type Owned = (String, Vec<u8>);

/// Every cut, and the stream byte by byte.
pub(super) fn check(body: &[u8], reader: Reader) -> Option<Failure> {
    let fail = |reason: String| Some(Failure::new("split", reason));
    let kind = reader.kind(body);
    let whole = match frames_of(kind, &[body]) {
        Ok(frames) => frames,
        Err(reason) => return fail(reason),
    };
    let bytes: Vec<&[u8]> = body.chunks(1).collect();
    match frames_of(kind, &bytes) {
        Ok(frames) if frames == whole => {}
        Ok(frames) => {
            return fail(format!("{} frames whole, {} byte by byte, or different ones", whole.len(), frames.len()));
        }
        Err(reason) => return fail(format!("byte by byte: {reason}")),
    }
    if events(reader, &whole) != events(reader, &whole) {
        return fail("the same frames were decoded to different events".to_owned());
    }
    match Walk::over(kind, body) {
        Ok(walk) => (1..body.len()).find_map(|cut| walk.check(body, cut).err()).and_then(fail),
        Err(reason) => fail(reason),
    }
}

/// What the frames mean.
pub(super) fn events(reader: Reader, frames: &[Owned]) -> Vec<Event> {
    let mut decoder = reader.stream_decoder();
    let mut events = Vec::new();
    for (name, data) in frames {
        decoder.frame(&Frame { name, data }, &mut events);
    }
    decoder.end(&mut events);
    events
}

/// The frames of a stream that comes in these pieces.
pub(super) fn frames_of(kind: Kind, pieces: &[&[u8]]) -> Result<Vec<Owned>, String> {
    let mut parser = Parser::new(kind, FRAME_BYTES_MAX);
    let mut frames = Vec::new();
    for piece in pieces {
        feed(&mut parser, piece, &mut frames)?;
    }
    let mut last = |frame: Frame<'_>| frames.push(owned(frame));
    parser.end(&mut last).map_err(|error| error.to_string())?;
    Ok(frames)
}

fn feed(parser: &mut Parser, piece: &[u8], frames: &mut Vec<Owned>) -> Result<(), String> {
    let mut out = |frame: Frame<'_>| frames.push(owned(frame));
    parser.feed(piece, &mut out).map_err(|error| error.to_string())
}

fn owned(frame: Frame<'_>) -> Owned {
    (frame.name.to_owned(), frame.data.to_vec())
}

/// The parser after each byte, and where frames were complete.
struct Walk {
    states: Vec<Parser>,
    frames: Vec<Owned>,
    /// `ends[i]`: how many bytes had been fed when frame `i` was complete.
    ends: Vec<usize>,
}

impl Walk {
    fn over(kind: Kind, body: &[u8]) -> Result<Self, String> {
        let mut parser = Parser::new(kind, FRAME_BYTES_MAX);
        let mut walk = Self { states: vec![parser.clone()], frames: Vec::new(), ends: Vec::new() };
        for (at, byte) in body.iter().enumerate() {
            feed(&mut parser, std::slice::from_ref(byte), &mut walk.frames)?;
            walk.ends.resize(walk.frames.len(), at + 1);
            walk.states.push(parser.clone());
        }
        Ok(walk)
    }

    /// Feeds the window around a cut in two pieces.
    fn check(&self, body: &[u8], cut: usize) -> Result<(), String> {
        let before = self.ends.partition_point(|end| *end <= cut);
        let begin = before.checked_sub(AROUND + 1).map_or(0, |frame| self.ends[frame]);
        let end = self.ends.get(before + AROUND).copied().unwrap_or(body.len());
        for (from, to) in [(begin, cut), (cut, end)] {
            let mut parser = self.states[from].clone();
            let mut frames = Vec::new();
            feed(&mut parser, &body[from..to], &mut frames)?;
            let between = self.ends.partition_point(|end| *end <= from)..self.ends.partition_point(|end| *end <= to);
            if frames != self.frames[between] {
                return Err(format!("cut at byte {cut}: other frames in bytes {from} to {to}"));
            }
            if parser != self.states[to] {
                return Err(format!("cut at byte {cut}: another state of the parser at byte {to}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_of_an_awkward_stream_is_accepted() {
        let body = "\u{feff}event: a\r\ndata: {\"t\":\"grüße 你好 🙂\"}\r\n\r\n: ping\n\ndata:x\rdata: y\r\rdata: last"
            .as_bytes();
        let walk = Walk::over(Kind::Sse, body).unwrap();
        assert_eq!(walk.frames.len(), 2);
        for cut in 1..body.len() {
            walk.check(body, cut).unwrap();
        }
        assert_eq!(frames_of(Kind::Sse, &[body]).unwrap().len(), 3);
    }

    #[test]
    fn a_parser_that_depends_on_cuts_would_be_found() {
        let body = b"data: a\n\ndata: b\n\n";
        let mut walk = Walk::over(Kind::Sse, body).unwrap();
        walk.frames[1].1 = b"c".to_vec();
        assert!(walk.check(body, 12).is_err());
        let mut walk = Walk::over(Kind::Sse, body).unwrap();
        walk.states[12] = walk.states[0].clone();
        assert!(walk.check(body, 12).is_err());
    }
}
