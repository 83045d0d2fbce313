// SPDX-License-Identifier: Apache-2.0
//! Framing of recorded streams: no cut of the bytes changes a frame.

use penstock_dialects::framing::{Frame, Kind, Parser, SseParser};

use crate::recordings::{exchanges, shared};

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

/// The same for streams of any kind: a piece is what completes a frame, byte by byte. Tells how many frames there are.
fn check_pieces(kind: Kind, name: &str, stream: &[u8]) -> usize {
    let feed = |parser: &mut Parser, bytes: &[u8]| {
        let mut frames = Vec::new();
        let mut out = |frame: Frame<'_>| frames.push((frame.name.to_owned(), frame.data.to_vec()));
        parser.feed(bytes, &mut out).unwrap_or_else(|error| panic!("{name}: {error}"));
        frames
    };
    let (mut parser, mut at, mut count) = (Parser::new(kind, MAX), 0, 0);
    while at < stream.len() {
        let (mut whole, mut end, mut frames) = (parser.clone(), at, Vec::<Owned>::new());
        while frames.is_empty() && end < stream.len() {
            frames = feed(&mut whole, &stream[end..=end]);
            end += 1;
        }
        let piece = &stream[at..end];
        for cut in 0..=piece.len() {
            let mut other = parser.clone();
            let mut cut_frames = feed(&mut other, &piece[..cut]);
            cut_frames.extend(feed(&mut other, &piece[cut..]));
            assert_eq!(cut_frames, frames, "{name}: cut at {}", at + cut);
            assert_eq!(other, whole, "{name}: state after a cut at {}", at + cut);
        }
        count += frames.len();
        (parser, at) = (whole, end);
    }
    parser.end(&mut |_| panic!("{name}: a frame without its end")).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(feed(&mut Parser::new(kind, MAX), stream).len(), count, "{name}: as one chunk");
    count
}

#[test]
fn no_cut_of_a_recorded_event_stream_changes_its_frames() {
    let (mut folders, mut streams) = (shared("open/bedrock").into_iter().collect::<Vec<_>>(), 0);
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| name == "stream.bin") {
                let name = path.display().to_string();
                let frames = check_pieces(Kind::AwsEventStream, &name, &std::fs::read(&path).unwrap());
                assert!(frames > 2, "{name} has {frames} messages");
                streams += 1;
            }
        }
    }
    assert!(streams > 0 || shared("open/bedrock").is_none(), "no event streams among the recordings");
}

/// The recordings hold these streams as server-sent events; the vendor sends the same values as an array where the
/// caller has not asked for events.
#[test]
fn no_cut_of_a_recorded_stream_written_as_an_array_changes_its_elements() {
    for exchange in exchanges("gemini").iter().filter(|exchange| exchange.streamed()) {
        let frames = feed(&mut SseParser::new(MAX), &exchange.answer);
        let values: Vec<serde_json::Value> =
            frames.iter().map(|(_, data)| serde_json::from_slice(data).unwrap()).collect();
        let pretty: Vec<_> = values.iter().map(|value| serde_json::to_string_pretty(value).unwrap()).collect();
        let array = format!("[{}\r\n]\r\n", pretty.join("\r\n,\r\n"));
        assert_eq!(check_pieces(Kind::JsonArray, &exchange.name, array.as_bytes()), frames.len());
    }
}
