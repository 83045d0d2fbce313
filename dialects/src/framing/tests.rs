// SPDX-License-Identifier: Apache-2.0
//! Promises of every framing.

use super::{Frame, FrameError, JsonLinesParser, Kind, Parser, SseParser};

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
    assert_eq!(parser.feed_boundary(b"\ndata", &mut |_| {}), Ok(1), "the LF of a CRLF belongs to the event before it");
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
    assert_eq!(parser.feed(b"345", &mut |_| {}), Err(FrameError::TooLong { frame_bytes_max: 4 }));
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

#[test]
fn a_media_type_says_how_its_stream_is_cut() {
    for (media_type, kind) in [
        ("text/event-stream; charset=utf-8", Some(Kind::Sse)),
        ("Text/Event-Stream", Some(Kind::Sse)),
        ("application/vnd.amazon.eventstream", Some(Kind::AwsEventStream)),
        ("application/json;charset=UTF-8", Some(Kind::JsonArray)),
        ("application/x-ndjson", Some(Kind::JsonLines)),
        ("text/html", None),
        ("", None),
    ] {
        assert_eq!(Kind::of_media_type(media_type), kind, "{media_type}");
    }
}
