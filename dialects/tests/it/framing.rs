// SPDX-License-Identifier: Apache-2.0
//! Framing of recorded streams: no cut of the bytes changes a frame.

use penstock_dialects::framing::{Frame, SseParser};

use crate::recordings::exchanges;

const MAX: usize = 64 << 20;

type Owned = (String, Vec<u8>);

fn feed(parser: &mut SseParser, bytes: &[u8]) -> Vec<Owned> {
    let mut frames = Vec::new();
    parser.feed(bytes, &mut |frame: Frame<'_>| frames.push((frame.name.to_owned(), frame.data.to_vec()))).unwrap();
    frames
}

/// Cutting a stream at one byte is the same as cutting only the piece between two boundaries there: before it the
/// parser has seen the same bytes, and behind it it is in the same state. So each piece is cut at each of its bytes.
fn check_every_cut(name: &str, stream: &[u8]) {
    let (mut parser, mut at, mut pieces) = (SseParser::new(MAX), 0, 0);
    while at < stream.len() {
        let blank = stream[at..].windows(2).position(|pair| matches!(pair, b"\n\n" | b"\r\r" | b"\n\r"));
        let end = blank.map_or(stream.len(), |found| (at + found + 3).min(stream.len()));
        let piece = &stream[at..end];
        let mut whole = parser.clone();
        let frames = feed(&mut whole, piece);
        for cut in 0..=piece.len() {
            let mut other = parser.clone();
            let mut cut_frames = feed(&mut other, &piece[..cut]);
            cut_frames.extend(feed(&mut other, &piece[cut..]));
            assert_eq!(cut_frames, frames, "{name}: cut at {}", at + cut);
            assert_eq!(other, whole, "{name}: state after a cut at {}", at + cut);
        }
        (parser, at, pieces) = (whole, end, pieces + 1);
    }
    assert!(pieces > 0, "{name} is empty");
}

#[test]
fn no_cut_of_a_recorded_stream_changes_its_frames() {
    for protocol in ["openai-chat", "anthropic-messages", "dashscope-native", "cohere-v2"] {
        for exchange in exchanges(protocol).iter().filter(|exchange| exchange.streamed()) {
            check_every_cut(&exchange.name, &exchange.answer);
        }
    }
}
