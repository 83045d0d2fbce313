// SPDX-License-Identifier: Apache-2.0
//! The elements of one JSON array, as Gemini streams without `alt=sse`: pretty-printed, an element at a time.

use memchr::memchr2;

use super::{Frame, FrameError};

/// Parser of one JSON array: one frame an element. A body that is one object and no array is one frame: vendors answer
/// errors so. White space and commas between elements are passed over.
///
/// It finds where an element ends and no more: whether the element is JSON is for its reader to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonArrayParser {
    frame_bytes_max: usize,
    place: Place,
    /// The part of the open element that earlier chunks brought.
    element: Vec<u8>,
}

/// Where in the body the next byte lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the array.
    Before,
    /// In the array, outside its elements.
    Between,
    /// In an object, array or string.
    Inside {
        /// Brackets that are open.
        depth: usize,
        /// How far a string has come.
        text: Text,
        /// The element lies in an array; else it is the whole body.
        listed: bool,
    },
    /// In a number or a word.
    Bare,
    /// Behind the end of the array.
    After,
}

/// Whether the next byte is part of a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    No,
    Yes,
    /// Behind a backslash.
    Escaped,
}

impl JsonArrayParser {
    /// A parser that holds at most `frame_bytes_max` bytes.
    #[must_use]
    pub fn new(frame_bytes_max: usize) -> Self {
        Self { frame_bytes_max, place: Place::Before, element: Vec::new() }
    }

    /// Hands every element that `chunk` completes to `out`.
    ///
    /// # Errors
    /// If an element is longer than the limit, or the body is no array; the elements before have been handed out.
    pub fn feed(&mut self, chunk: &[u8], out: &mut impl FnMut(Frame<'_>)) -> Result<(), FrameError> {
        self.feed_boundary(chunk, out).map(|_| ())
    }

    /// As [`JsonArrayParser::feed`]; tells how long the part of `chunk` is that ends with a whole element (0 if there is
    /// none), without the comma behind it, or all of it behind the end of the array. A relay that has sent only up to
    /// there can go on with a comma and an element of its own.
    ///
    /// # Errors
    /// As [`JsonArrayParser::feed`].
    pub fn feed_boundary(&mut self, chunk: &[u8], out: &mut impl FnMut(Frame<'_>)) -> Result<usize, FrameError> {
        let (mut at, mut boundary, mut begin) = (0, 0, 0);
        while let Some(&byte) = chunk.get(at) {
            match self.place {
                Place::Before | Place::Between | Place::After => {
                    begin = at;
                    self.place = outside(self.place, byte)?;
                    at += 1;
                }
                Place::Bare => {
                    if matches!(byte, b',' | b']') || byte.is_ascii_whitespace() {
                        boundary = at;
                        self.hand_out(&chunk[begin..at], out)?;
                        self.place = Place::Between;
                    } else {
                        at += 1;
                    }
                }
                Place::Inside { depth, text, listed } => {
                    at += if text == Text::Yes {
                        memchr2(b'"', b'\\', &chunk[at..]).unwrap_or(chunk.len() - at)
                    } else {
                        0
                    };
                    let Some(&byte) = chunk.get(at) else { break };
                    at += 1;
                    let (depth, text) = inside(depth, text, byte);
                    self.place = Place::Inside { depth, text, listed };
                    if depth == 0 && text == Text::No {
                        boundary = at;
                        self.hand_out(&chunk[begin..at], out)?;
                        self.place = if listed { Place::Between } else { Place::After };
                    }
                }
            }
            if self.place == Place::After {
                boundary = at;
            }
        }
        if matches!(self.place, Place::Inside { .. } | Place::Bare) {
            self.within_limit(chunk.len() - begin)?;
            self.element.extend_from_slice(&chunk[begin..]);
        }
        Ok(boundary)
    }

    /// The stream has ended.
    ///
    /// # Errors
    /// [`FrameError::Cut`] if the array, or the one object, is not closed.
    pub fn end(&mut self) -> Result<(), FrameError> {
        if self.at_boundary() { Ok(()) } else { Err(FrameError::Cut) }
    }

    /// Whether the array is closed or has not begun.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        matches!(self.place, Place::Before | Place::After)
    }

    /// An element whose last part is `tail`; its first part may lie in `self.element`.
    fn hand_out(&mut self, tail: &[u8], out: &mut impl FnMut(Frame<'_>)) -> Result<(), FrameError> {
        self.within_limit(tail.len())?;
        if self.element.is_empty() {
            out(Frame { name: "", data: tail });
        } else {
            self.element.extend_from_slice(tail);
            out(Frame { name: "", data: &self.element });
            self.element.clear();
        }
        Ok(())
    }

    fn within_limit(&self, more: usize) -> Result<(), FrameError> {
        if self.element.len() + more > self.frame_bytes_max {
            return Err(FrameError::TooLong { frame_bytes_max: self.frame_bytes_max });
        }
        Ok(())
    }
}

/// The place behind a byte that lies in no element.
fn outside(place: Place, byte: u8) -> Result<Place, FrameError> {
    let opened = |text, depth| Place::Inside { depth, text, listed: place == Place::Between };
    match (place, byte) {
        (_, b' ' | b'\t' | b'\r' | b'\n') => Ok(place),
        (Place::Before, b'[') => Ok(Place::Between),
        (Place::Before | Place::Between, b'{') => Ok(opened(Text::No, 1)),
        (Place::Before, _) => Err(FrameError::Malformed("neither a JSON array nor an object")),
        (Place::Between, b',') => Ok(Place::Between),
        (Place::Between, b']') => Ok(Place::After),
        (Place::Between, b'[') => Ok(opened(Text::No, 1)),
        (Place::Between, b'"') => Ok(opened(Text::Yes, 0)),
        (Place::Between, b'}' | b':') => {
            Err(FrameError::Malformed("a bracket or colon between two elements of an array"))
        }
        (Place::Between, _) => Ok(Place::Bare),
        _ => Err(FrameError::Malformed("something behind the end of the JSON array")),
    }
}

/// Open brackets and string behind a byte of an element.
fn inside(depth: usize, text: Text, byte: u8) -> (usize, Text) {
    match (text, byte) {
        (Text::Escaped, _) => (depth, Text::Yes),
        (Text::Yes, b'"') => (depth, Text::No),
        (Text::Yes, b'\\') => (depth, Text::Escaped),
        (Text::No, b'"') => (depth, Text::Yes),
        (Text::No, b'{' | b'[') => (depth + 1, Text::No),
        (Text::No, b'}' | b']') => (depth.saturating_sub(1), Text::No),
        _ => (depth, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1 << 20;

    /// A body, its elements, and how it ends.
    type Case = (&'static str, &'static [&'static str], Result<(), FrameError>);

    const JUNK_BEHIND: Result<(), FrameError> =
        Err(FrameError::Malformed("something behind the end of the JSON array"));
    const NO_ARRAY: Result<(), FrameError> = Err(FrameError::Malformed("neither a JSON array nor an object"));
    const STRAY: Result<(), FrameError> =
        Err(FrameError::Malformed("a bracket or colon between two elements of an array"));
    const CUT: Result<(), FrameError> = Err(FrameError::Cut);

    const CASES: &[Case] = &[
        ("[]", &[], Ok(())),
        ("", &[], Ok(())),
        (" \r\n", &[], Ok(())),
        ("[{\"a\":1},{\"b\":2}]", &["{\"a\":1}", "{\"b\":2}"], Ok(())),
        ("[{\n  \"a\": [1, {}]\n}\n,\r\n{\"b\": 2}\r\n]\r\n", &["{\n  \"a\": [1, {}]\n}", "{\"b\": 2}"], Ok(())),
        (" [ {} , {} ] ", &["{}", "{}"], Ok(())),
        ("[{}{},,{},]", &["{}", "{}", "{}"], Ok(())),
        (r#"[{"t":"a]},{[\\"},{"t":"\"\\\"]"}]"#, &[r#"{"t":"a]},{[\\"}"#, r#"{"t":"\"\\\"]"}"#], Ok(())),
        (r#"["a]",[[]],-1.5e3,null ,true]"#, &[r#""a]""#, "[[]]", "-1.5e3", "null", "true"], Ok(())),
        ("[{\"t\":\"ü€😀\"}]", &["{\"t\":\"ü€😀\"}"], Ok(())),
        ("{\"error\":{\"code\":400}}\n", &["{\"error\":{\"code\":400}}"], Ok(())),
        ("{}{}", &["{}"], JUNK_BEHIND),
        ("[{}]]", &["{}"], JUNK_BEHIND),
        ("[{}] x", &["{}"], JUNK_BEHIND),
        ("data: {}", &[], NO_ARRAY),
        ("\"text\"", &[], NO_ARRAY),
        ("[{}}]", &["{}"], STRAY),
        ("[{}:1]", &["{}"], STRAY),
        ("[{\"a\":1", &[], CUT),
        ("[{\"a\":1}", &["{\"a\":1}"], CUT),
        ("[{\"a\":1},", &["{\"a\":1}"], CUT),
        ("[12", &[], CUT),
        ("[\"a", &[], CUT),
        ("[", &[], CUT),
        ("{\"error\":", &[], CUT),
    ];

    /// What pieces of a body come to, and how much of them a relay may have sent.
    fn read(pieces: &[&str]) -> (Vec<String>, Result<(), FrameError>, usize) {
        let (mut parser, mut elements) = (JsonArrayParser::new(MAX), Vec::new());
        let (mut seen, mut sent) = (0, 0);
        for piece in pieces {
            let mut out = |frame: Frame<'_>| elements.push(String::from_utf8_lossy(frame.data).into_owned());
            match parser.feed_boundary(piece.as_bytes(), &mut out) {
                Ok(0) => {}
                Ok(boundary) => sent = seen + boundary,
                Err(error) => return (elements, Err(error), sent),
            }
            seen += piece.len();
        }
        (elements, parser.end(), sent)
    }

    #[test]
    fn an_array_is_cut_into_its_elements_and_half_an_element_is_none() {
        for (body, elements, end) in CASES {
            let (found, ended, _) = read(&[body]);
            assert_eq!(
                (found.iter().map(String::as_str).collect::<Vec<_>>().as_slice(), ended),
                (*elements, *end),
                "{body}"
            );
        }
    }

    #[test]
    fn no_cut_changes_elements_or_end_and_every_prefix_leaves_the_same_state() {
        for (body, elements, end) in CASES {
            for cut in (0..=body.len()).filter(|cut| body.is_char_boundary(*cut)) {
                let (found, ended, _) = read(&[&body[..cut], &body[cut..]]);
                assert_eq!(
                    (found.iter().map(String::as_str).collect::<Vec<_>>().as_slice(), ended),
                    (*elements, *end),
                    "{body} cut at {cut}"
                );
                let (mut whole, mut pieces) = (JsonArrayParser::new(MAX), JsonArrayParser::new(MAX));
                let (first, second) = body.as_bytes()[..cut].split_at(cut / 2);
                let fed = whole.feed(&body.as_bytes()[..cut], &mut |_| {});
                let cut_fed = pieces.feed(first, &mut |_| {}).and_then(|()| pieces.feed(second, &mut |_| {}));
                assert_eq!(fed, cut_fed);
                assert!(fed.is_err() || whole == pieces, "{body} cut at {}", cut / 2);
            }
        }
    }

    #[test]
    fn a_relay_that_stops_at_a_boundary_can_go_on_with_a_comma_and_an_element() {
        let body = "[{\"a\":1}\n,\n{\"b\":[2]}\n]\n";
        let boundaries = [(0..8, 0), (8..20, 8), (20..22, 20), (22..23, 22), (23..24, 23)];
        for (range, expected) in boundaries {
            for length in range {
                let (elements, _, sent) = read(&[&body[..length]]);
                assert_eq!(sent, expected, "of {length} bytes");
                let behind = if sent >= 22 { "" } else { ",{}]" };
                let (relayed, end, _) = read(&[&body[..sent], if sent == 0 { "" } else { behind }]);
                assert_eq!((relayed.starts_with(&elements), end), (true, Ok(())), "{length}");
            }
        }
        assert_eq!(read(&["[{}", ",", "{}", "]"]).2, 7);
    }

    #[test]
    fn an_element_over_the_limit_is_an_error_however_it_comes() {
        for body in ["[{\"a\":\"12345\"}]", "[\"123456789012\"]", "[123456789012]"] {
            for size in 1..=body.len() {
                let mut parser = JsonArrayParser::new(10);
                let result = body.as_bytes().chunks(size).try_for_each(|chunk| parser.feed(chunk, &mut |_| {}));
                assert_eq!(result, Err(FrameError::TooLong { frame_bytes_max: 10 }), "{body} in chunks of {size}");
            }
        }
        let mut parser = JsonArrayParser::new(10);
        assert_eq!(parser.feed(format!("[{}{{}}]", " ,".repeat(100)).as_bytes(), &mut |_| {}), Ok(()));
    }
}
