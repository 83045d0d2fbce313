// SPDX-License-Identifier: Apache-2.0
//! Cuts a recorded stream at every byte, as a network may, and finds out which batches of frames a plugin would be given.

use penstock_dialects::framing::{Frame, FrameError, Kind, Parser};

const FRAME_BYTES_MAX: usize = 16 << 20;
/// Up to here every cut is also parsed from the very beginning, without the shortcut.
const PLAIN_BYTES_MAX: usize = 4 << 10;

/// A frame that outlives its chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) name: String,
    pub(crate) data: Vec<u8>,
}

impl Kept {
    pub(crate) fn frame(&self) -> Frame<'_> {
        Frame { name: &self.name, data: &self.data }
    }
}

/// The frames of the stream, after proof that no cut changes them.
pub(crate) fn frames(kind: Kind, stream: &[u8]) -> Result<Vec<Kept>, String> {
    let whole = parse(kind, &[stream])?;
    if stream.len() <= PLAIN_BYTES_MAX {
        for cut in 1..stream.len() {
            if parse(kind, &[&stream[..cut], &stream[cut..]])? != whole {
                return Err(format!("a cut after byte {cut} changes the frames of the stream"));
            }
        }
    } else {
        check_each_frame(kind, stream)?;
    }
    Ok(whole)
}

/// The same for a long stream. A parser between two frames is as good as new apart from what equality shows, so it is
/// enough to cut each frame at each of its bytes, from the state before it to the state after it.
fn check_each_frame(kind: Kind, stream: &[u8]) -> Result<(), String> {
    let mut before = Parser::new(kind, FRAME_BYTES_MAX);
    let mut start = 0;
    while start < stream.len() {
        let (end, after, expected) = next_frame(&before, &stream[start..])?;
        let segment = &stream[start..start + end];
        for cut in 1..segment.len() {
            let mut parser = before.clone();
            let mut frames = Vec::new();
            feed(&mut parser, &segment[..cut], &mut frames)?;
            feed(&mut parser, &segment[cut..], &mut frames)?;
            if frames != expected || parser != after {
                return Err(format!("a cut after byte {} changes the frames of the stream", start + cut));
            }
        }
        start += end;
        before = after;
    }
    Ok(())
}

/// Feeds single bytes until a frame is complete (or the stream ends): how many, the state then, and the frames.
fn next_frame(before: &Parser, rest: &[u8]) -> Result<(usize, Parser, Vec<Kept>), String> {
    let mut parser = before.clone();
    let mut frames = Vec::new();
    for (index, byte) in rest.iter().enumerate() {
        feed(&mut parser, std::slice::from_ref(byte), &mut frames)?;
        if !frames.is_empty() {
            return Ok((index + 1, parser, frames));
        }
    }
    Ok((rest.len(), parser, frames))
}

fn parse(kind: Kind, chunks: &[&[u8]]) -> Result<Vec<Kept>, String> {
    let mut parser = Parser::new(kind, FRAME_BYTES_MAX);
    let mut frames = Vec::new();
    for chunk in chunks {
        feed(&mut parser, chunk, &mut frames)?;
    }
    parser.end(&mut |frame| frames.push(kept(frame))).map_err(in_words)?;
    Ok(frames)
}

fn feed(parser: &mut Parser, chunk: &[u8], frames: &mut Vec<Kept>) -> Result<(), String> {
    parser.feed(chunk, &mut |frame| frames.push(kept(frame))).map_err(in_words)
}

fn kept(frame: Frame<'_>) -> Kept {
    Kept { name: frame.name.to_owned(), data: frame.data.to_owned() }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn in_words(error: FrameError) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::{Kind, frames};
    use crate::case::Answer;

    #[test]
    fn short_and_long_streams_give_their_frames() {
        for count in [3, 400] {
            let stream: String = (0..count).map(|n| format!("event: e{n}\ndata: {{\"text\":\"é{n}\"}}\n\n")).collect();
            let frames = frames(Kind::Sse, stream.as_bytes()).unwrap();
            assert_eq!(frames.len(), count);
            assert_eq!(frames[2].name, "e2");
            assert_eq!(frames[2].data, "{\"text\":\"é2\"}".as_bytes());
        }
    }

    #[test]
    fn messages_of_a_case_are_an_event_stream_and_come_back_as_frames() {
        let answer: Answer = serde_json::from_value(serde_json::json!({
            "messages": [["messageStart", { "role": "assistant" }], ["exception:throttlingException", { "message": "slow" }]],
        }))
        .unwrap();
        let frames = frames(Kind::AwsEventStream, &answer.bytes()).unwrap();
        let read: Vec<_> = frames.iter().map(|kept| (kept.name.as_str(), kept.data.as_slice())).collect();
        let expected: [(&str, &[u8]); 2] = [
            ("messageStart", b"{\"role\":\"assistant\"}"),
            ("exception:throttlingException", b"{\"message\":\"slow\"}"),
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn an_array_is_cut_into_its_elements_and_half_an_array_is_refused() {
        let read = frames(Kind::JsonArray, b"[{\"a\":1},\n{\"b\":2}]").unwrap();
        assert_eq!(read.len(), 2);
        frames(Kind::JsonArray, b"[{\"a\":1},").unwrap_err();
    }
}
