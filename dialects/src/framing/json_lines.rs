// SPDX-License-Identifier: Apache-2.0
//! JSON lines.

use memchr::memchr;

use super::{Frame, FrameError};

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
    pub fn feed(&mut self, chunk: &[u8], out: &mut impl FnMut(Frame<'_>)) -> Result<(), FrameError> {
        self.feed_boundary(chunk, out).map(|_| ())
    }

    /// As [`JsonLinesParser::feed`]; tells how long the part of `chunk` is that ends with a whole line.
    ///
    /// # Errors
    /// As [`JsonLinesParser::feed`].
    pub fn feed_boundary(&mut self, chunk: &[u8], out: &mut impl FnMut(Frame<'_>)) -> Result<usize, FrameError> {
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
    pub fn end(&mut self, out: &mut impl FnMut(Frame<'_>)) -> Result<(), FrameError> {
        hand_out_line(&self.line, out);
        self.line.clear();
        Ok(())
    }

    /// Whether no line is open.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        self.line.is_empty()
    }

    fn within_limit(&self, more: usize) -> Result<(), FrameError> {
        if self.line.len() + more > self.frame_bytes_max {
            return Err(FrameError::TooLong { frame_bytes_max: self.frame_bytes_max });
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
