// SPDX-License-Identifier: Apache-2.0
//! Streams cut into frames. Promise: the frames do not depend on how the bytes arrive. The first byte says in pieces of which
//! length they do.

use penstock_dialects::framing::{Frame, FrameError, Kind, Parser};

/// Of one frame; small, so that the limit is reached.
const FRAME_BYTES_MAX: usize = 1 << 12;

type Owned = (String, Vec<u8>);

pub(crate) fn sse(bytes: &[u8]) {
    holds(Kind::Sse, bytes);
}

pub(crate) fn json_lines(bytes: &[u8]) {
    holds(Kind::JsonLines, bytes);
}

pub(crate) fn json_array(bytes: &[u8]) {
    holds(Kind::JsonArray, bytes);
}

pub(crate) fn event_stream(bytes: &[u8]) {
    holds(Kind::AwsEventStream, bytes);
}

fn holds(kind: Kind, bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let whole = frames(kind, bytes, bytes.len().max(1));
    let cut = frames(kind, bytes, usize::from(*first).max(1));
    let is_too_long = |ended: &Result<(), FrameError>| matches!(ended, Err(FrameError::TooLong { .. }));
    // The limit is on what is held at a time, which is less for pieces.
    if !is_too_long(&whole.1) && !is_too_long(&cut.1) {
        assert_eq!(whole, cut, "{kind:?} in pieces of {first}");
    }
}

fn frames(kind: Kind, bytes: &[u8], piece: usize) -> (Vec<Owned>, Result<(), FrameError>) {
    let mut parser = Parser::new(kind, FRAME_BYTES_MAX);
    let mut frames = Vec::new();
    let mut keep = |frame: Frame<'_>| frames.push((frame.name.to_owned(), frame.data.to_vec()));
    let fed = bytes.chunks(piece).try_for_each(|chunk| parser.feed(chunk, &mut keep));
    let ended = fed.and_then(|()| parser.end(&mut keep));
    (frames, ended)
}
