// SPDX-License-Identifier: Apache-2.0
//! Answers that are compressed on their way to the caller (RFC 9110 sections 8.4 and 12.5.3): which coding, for which answers, and the
//! body itself. What waits for more from the upstream is flushed first, so that no word of a stream waits in the compressor.

use std::io::{self, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll};

use brotli::CompressorWriter;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body as HttpBody, Frame};
use zstd::stream::raw::CParameter;
use zstd::stream::write::Encoder as ZstdEncoder;

use super::{Body, Cut};
use crate::config::Coding;

/// A body that is known to be smaller is sent as it is: compressing it would cost more than it spares.
const BYTES_MIN: u64 = 1024;
/// Compressed bytes that are sent on without waiting for a flush.
const PIECE_BYTES: usize = 16 << 10;
/// Bytes that are compressed before others get their turn.
const TURN_BYTES: usize = 256 << 10;
/// How hard brotli tries (0 to 11), and how far back it looks (a power of two): quick, and half a megabyte for each answer.
const BROTLI: (u32, u32) = (4, 18);
/// How hard gzip tries (0 to 9).
const GZIP: u32 = 5;
/// How hard zstd tries (1 to 22), and how far back it looks (a power of two).
const ZSTD: (i32, u32) = (3, 18);
/// What a caller knows of the bytes of an answer is about the answer as it was.
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
    CONTENT_RANGE,
];

/// Which of these codings a caller likes best; of those that it likes equally, the first. None if it prefers none at all.
#[must_use]
pub fn chosen(offered: &[Coding], headers: &HeaderMap) -> Option<Coding> {
    let asked: Vec<(&str, u16)> =
        headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).flat_map(wishes).collect();
    let weight = |name: &str| {
        let named = asked.iter().find(|(wish, _)| wish.eq_ignore_ascii_case(name));
        named.map(|(_, weight)| *weight)
    };
    let any = weight("*");
    let plain = weight("identity").or(any.filter(|weight| *weight == 0)).unwrap_or(1);
    let mut best = None;
    for coding in offered {
        let alias = if *coding == Coding::Gzip { weight("x-gzip") } else { None };
        let weight = weight(coding.name()).or(alias).or(any).unwrap_or_default();
        if weight > best.map_or(0, |(_, best)| best) {
            best = Some((*coding, weight));
        }
    }
    best.filter(|(_, weight)| *weight >= plain).map(|(coding, _)| coding)
}

/// Names and weights, in thousandths (RFC 9110 section 12.4.2); what cannot be read is not wished for.
fn wishes(value: &str) -> impl Iterator<Item = (&str, u16)> {
    value.split(',').filter_map(|wish| {
        let (name, parameters) = wish.split_once(';').unwrap_or((wish, ""));
        let weight = parameters.split(';').find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim().eq_ignore_ascii_case("q").then(|| value.trim())
        });
        let weight = weight.map_or(Some(1.0), |weight| weight.parse().ok().filter(|q| (0.0..=1.0).contains(q)))?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
        Some((name.trim(), (weight * 1000.0_f64).round() as u16))
    })
}

/// The same answer, compressed if it is worth it; `events` says whether streams of events are, too. That the answer depends on what
/// the caller accepts is told in either case.
#[must_use]
pub fn compressed(mut response: Response<Body>, coding: Option<Coding>, events: bool) -> Response<Body> {
    if !may_be_compressed(&response, events) {
        return response;
    }
    let headers = response.headers_mut();
    headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    let Some(coding) = coding else { return response };
    if response.body().size_hint().upper().is_some_and(|bytes| bytes < BYTES_MIN) {
        return response;
    }
    let Ok(encoder) = Encoder::new(coding) else { return response };
    let headers = response.headers_mut();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    headers.remove(CONTENT_LENGTH);
    headers.remove(ACCEPT_RANGES);
    if let Some(tag) = headers.get(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\"")) {
        // The same text in other bytes (RFC 9110 section 8.8.1).
        match HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()) {
            Ok(weak) => headers.insert(ETAG, weak),
            Err(_) => headers.remove(ETAG),
        };
    }
    response.map(|body| Body::Coded(Box::new(Coded::new(body, encoder))))
}

fn may_be_compressed(response: &Response<Body>, events: bool) -> bool {
    let headers = response.headers();
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let whole = response.status() != StatusCode::PARTIAL_CONTENT && !response.status().is_informational();
    let untouched = !headers.contains_key(CONTENT_ENCODING) && !DIGESTS.iter().any(|name| headers.contains_key(name));
    let transform = !text(&CACHE_CONTROL).to_ascii_lowercase().contains("no-transform");
    whole && untouched && transform && is_text(text(&CONTENT_TYPE), events) && !response.body().is_end_stream()
}

/// Whether compression spares something of what has this media type.
fn is_text(media_type: &str, events: bool) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "text/event-stream" | "application/x-ndjson" | "application/jsonl" => events,
        "application/json" | "application/xml" | "application/javascript" | "application/wasm" | "image/svg+xml" => {
            true
        }
        other if other.starts_with("application/grpc") => false,
        other => other.starts_with("text/") || other.ends_with("+json") || other.ends_with("+xml"),
    }
}

/// A compressed body.
pub struct Coded {
    body: Body,
    encoder: Option<Encoder>,
    /// Something is in the compressor.
    dirty: bool,
    /// What comes when everything else has gone out.
    last: Option<Result<Frame<Bytes>, Cut>>,
}

enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Zstd(Box<ZstdEncoder<'static, Vec<u8>>>),
}

impl Coded {
    fn new(body: Body, encoder: Encoder) -> Self {
        Self { body, encoder: Some(encoder), dirty: false, last: None }
    }

    pub(super) fn poll(&mut self, task: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let Some(encoder) = &mut self.encoder else { return Poll::Ready(self.last.take()) };
        let mut turn = 0;
        loop {
            let piece = match Pin::new(&mut self.body).poll_frame(task) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        turn += data.len();
                        self.dirty = true;
                        let written = encoder.write(&data);
                        if written.is_ok() && encoder.ready() < PIECE_BYTES && turn < TURN_BYTES {
                            continue;
                        }
                        written.and_then(|()| encoder.take(turn >= TURN_BYTES))
                    }
                    Err(trailers) => {
                        self.last = Some(Ok(trailers));
                        return self.end();
                    }
                },
                Poll::Ready(None) => return self.end(),
                Poll::Ready(Some(Err(cut))) => {
                    // The end of the compressed data never comes, so that the answer is seen to be cut. Errors overtake buffered bytes:
                    // one turn for the connection to write what there is.
                    self.encoder = None;
                    self.last = Some(Err(cut));
                    task.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Pending if self.dirty => {
                    self.dirty = false;
                    encoder.take(true)
                }
                Poll::Pending => return Poll::Pending,
            };
            match piece {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Err(_) => return Poll::Ready(Some(Err(Cut("compression")))),
            }
        }
    }

    /// The last of the compressed bytes; then what has been kept for the end.
    fn end(&mut self) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let rest = self.encoder.take().map(Encoder::finish);
        match rest {
            Some(Ok(rest)) if !rest.is_empty() => Poll::Ready(Some(Ok(Frame::data(rest.into())))),
            Some(Err(_)) => Poll::Ready(Some(Err(Cut("compression")))),
            _ => Poll::Ready(self.last.take()),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.encoder.is_none() && self.last.is_none()
    }
}

impl Encoder {
    fn new(coding: Coding) -> io::Result<Self> {
        let (quality, window) = BROTLI;
        Ok(match coding {
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), Compression::new(GZIP))),
            Coding::Br => Self::Brotli(Box::new(CompressorWriter::new(Vec::new(), PIECE_BYTES, quality, window))),
            Coding::Zstd => {
                let (level, window) = ZSTD;
                let mut encoder = ZstdEncoder::new(Vec::new(), level)?;
                encoder.set_parameter(CParameter::WindowLog(window))?;
                Self::Zstd(Box::new(encoder))
            }
        })
    }

    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.write_all(data),
            Self::Brotli(encoder) => encoder.write_all(data),
            Self::Zstd(encoder) => encoder.write_all(data),
        }
    }

    fn output(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Brotli(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
        }
    }

    /// Compressed bytes that can be taken.
    fn ready(&mut self) -> usize {
        self.output().len()
    }

    /// Takes what is compressed; after a flush, all that was written.
    fn take(&mut self, flush: bool) -> io::Result<Bytes> {
        if flush {
            match self {
                Self::Gzip(encoder) => encoder.flush()?,
                Self::Brotli(encoder) => encoder.flush()?,
                Self::Zstd(encoder) => encoder.flush()?,
            }
        }
        Ok(std::mem::take(self.output()).into())
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Brotli(encoder) => Ok(encoder.into_inner()),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn the_coding_is_the_one_that_the_caller_likes_best() {
        let (br, gzip) = (Some(Coding::Br), Some(Coding::Gzip));
        let cases = [
            ("", None),
            ("gzip", gzip),
            ("x-gzip", gzip),
            ("gzip, deflate, br", br),
            ("br;q=0.5, gzip", gzip),
            ("br ; q=0.500 ,gzip;Q=0.501", gzip),
            ("*", br),
            ("*;q=0.1, gzip;q=0", br),
            ("gzip;q=0", None),
            ("identity", None),
            ("identity;q=0.5, gzip;q=0.4", None),
            ("gzip;q=0.5, identity;q=0", gzip),
            ("identity, gzip;q=0.5", None),
            ("*;q=0", None),
            ("zstd, deflate", None),
            ("gzip;q=2, br;q=x", None),
            ("gzip;q=NaN", None),
        ];
        for (accepted, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(accepted));
            assert_eq!(chosen(&[Coding::Br, Coding::Gzip], &headers), expected, "{accepted}");
        }
        assert_eq!(chosen(&[Coding::Br], &HeaderMap::new()), None);
    }

    #[test]
    fn only_whole_texts_of_some_size_are_compressed() {
        type Case = (&'static [(&'static str, &'static str)], usize, bool);
        const JSON: (&str, &str) = ("content-type", "application/json");
        const CASES: [Case; 12] = [
            (&[JSON], 2000, true),
            (&[("content-type", "text/html; charset=utf-8")], 2000, true),
            (&[("content-type", "application/problem+json")], 2000, true),
            (&[JSON], 1000, false),
            (&[], 2000, false),
            (&[("content-type", "image/png")], 2000, false),
            (&[("content-type", "application/grpc-web-text")], 2000, false),
            (&[("content-type", "text/event-stream")], 2000, false),
            (&[JSON, ("content-encoding", "br")], 2000, false),
            (&[JSON, ("cache-control", "public, No-Transform")], 2000, false),
            (&[JSON, ("content-range", "bytes 0-1/2")], 2000, false),
            (&[JSON, ("content-digest", "sha-256=:x:")], 2000, false),
        ];
        for (headers, size, expected) in CASES {
            let mut response = Response::new(Body::whole(vec![b'x'; size], None));
            for (name, value) in headers {
                response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            response.headers_mut().insert(ETAG, HeaderValue::from_static("\"v\""));
            let response = compressed(response, Some(Coding::Gzip), false);
            let is = response.headers().get(CONTENT_ENCODING).is_some_and(|coding| coding == "gzip");
            assert_eq!(is, expected, "{headers:?} {size}");
            assert_eq!(response.headers()[ETAG] == "W/\"v\"", expected);
        }
    }

    #[tokio::test]
    async fn what_was_compressed_is_what_was_said() {
        let text: Vec<u8> = (0..200_000_u32).flat_map(|at| (at * at % 977).to_string().into_bytes()).collect();
        for coding in [Coding::Gzip, Coding::Br, Coding::Zstd] {
            let coded =
                Body::Coded(Box::new(Coded::new(Body::whole(text.clone(), None), Encoder::new(coding).unwrap())));
            let bytes = http_body_util::BodyExt::collect(coded).await.unwrap().to_bytes();
            assert!(bytes.len() < text.len() / 2, "{coding:?}: {}", bytes.len());
            let mut plain = Vec::new();
            match coding {
                Coding::Gzip => flate2::read::GzDecoder::new(&*bytes).read_to_end(&mut plain).unwrap(),
                Coding::Br => brotli::Decompressor::new(&*bytes, 4096).read_to_end(&mut plain).unwrap(),
                Coding::Zstd => zstd::Decoder::new(&*bytes).unwrap().read_to_end(&mut plain).unwrap(),
            };
            assert!(plain == text, "{coding:?}");
        }
    }
}
