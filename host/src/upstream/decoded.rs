// SPDX-License-Identifier: Apache-2.0
//! Answers that come compressed although nobody has asked for that: they are unpacked as they pass, since what reads them reads
//! text. A piece may grow by a factor and no more, so that no answer can fill the memory.

use std::io::{self, Write};

use brotli::DecompressorWriter;
use bytes::Bytes;
use flate2::write::{MultiGzDecoder, ZlibDecoder};
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder};
use zstd::stream::zio;

/// How much longer a piece may become, and what any may grow to.
const GROWTH_MAX: usize = 128;
const PIECE_BYTES_MAX: usize = 1 << 20;
/// The buffer of brotli.
const BUFFER_BYTES: usize = 16 << 10;
/// How far back zstd may look (a power of two): what RFC 8878 section 3.1.1.1.2 recommends, and all that HTTP has (RFC 9659).
const ZSTD_WINDOW: u32 = 23;

/// Unpacks a body.
pub(super) enum Decoder {
    Gzip(MultiGzDecoder<Bounded>),
    Deflate(ZlibDecoder<Bounded>),
    Brotli(Box<DecompressorWriter<Bounded>>),
    Zstd(Box<zio::Writer<Bounded, ZstdDecoder<'static>>>),
}

/// Takes what is unpacked, up to a limit.
#[derive(Default)]
pub(super) struct Bounded {
    bytes: Vec<u8>,
    left: usize,
}

impl Decoder {
    /// For a `content-encoding`; none if it is not known.
    pub(super) fn new(coding: &str) -> Option<Self> {
        let to = Bounded::default();
        Some(match coding.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Self::Gzip(MultiGzDecoder::new(to)),
            "deflate" => Self::Deflate(ZlibDecoder::new(to)),
            "br" => Self::Brotli(Box::new(DecompressorWriter::new(to, BUFFER_BYTES))),
            "zstd" => {
                let mut decoder = ZstdDecoder::new().ok()?;
                decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW)).ok()?;
                Self::Zstd(Box::new(zio::Writer::new(to, decoder)))
            }
            _ => return None,
        })
    }

    /// What a piece unpacks to. The error says what is wrong and repeats nothing of the piece.
    pub(super) fn piece(&mut self, piece: &[u8]) -> Result<Bytes, String> {
        self.output().left = piece.len().saturating_mul(GROWTH_MAX).saturating_add(PIECE_BYTES_MAX);
        let written = match self {
            Self::Gzip(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
            Self::Deflate(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
            Self::Brotli(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
            Self::Zstd(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
        };
        self.taken(written)
    }

    /// What is left at the end; an error if it is not the end of the compressed data.
    pub(super) fn end(&mut self) -> Result<Bytes, String> {
        self.output().left = PIECE_BYTES_MAX;
        let ended = match self {
            Self::Gzip(decoder) => decoder.try_finish(),
            Self::Deflate(decoder) => decoder.try_finish(),
            Self::Brotli(decoder) => decoder.close(),
            Self::Zstd(decoder) => decoder.finish(),
        };
        self.taken(ended)
    }

    fn taken(&mut self, result: io::Result<()>) -> Result<Bytes, String> {
        result.map_err(|error| format!("compressed data that cannot be read: {}", error.kind()))?;
        Ok(std::mem::take(&mut self.output().bytes).into())
    }

    fn output(&mut self) -> &mut Bounded {
        match self {
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Deflate(decoder) => decoder.get_mut(),
            Self::Brotli(decoder) => decoder.get_mut(),
            Self::Zstd(decoder) => decoder.writer_mut(),
        }
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Decoder")
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;

    fn packed(coding: &str, plain: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        match coding {
            "gzip" => {
                let mut encoder = GzEncoder::new(&mut packed, Compression::best());
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap();
            }
            "deflate" => {
                let mut encoder = ZlibEncoder::new(&mut packed, Compression::best());
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap();
            }
            "zstd" => packed = zstd::encode_all(plain, 3).unwrap(),
            _ => {
                let mut encoder = brotli::CompressorWriter::new(&mut packed, 4096, 9, 22);
                encoder.write_all(plain).unwrap();
                drop(encoder);
            }
        }
        packed
    }

    #[test]
    fn a_body_is_unpacked_however_it_is_cut_and_half_of_one_is_an_error() {
        let plain: Vec<u8> = (0..5000_u32).flat_map(|at| (at * 7919 % 1009).to_string().into_bytes()).collect();
        for coding in ["gzip", "deflate", "br", "zstd"] {
            let packed = packed(coding, &plain);
            for size in [1, 7, packed.len()] {
                let mut decoder = Decoder::new(coding).unwrap();
                let mut out = Vec::new();
                for piece in packed.chunks(size) {
                    out.extend_from_slice(&decoder.piece(piece).unwrap());
                }
                out.extend_from_slice(&decoder.end().unwrap());
                assert!(out == plain, "{coding} in pieces of {size}");
            }
            let mut decoder = Decoder::new(coding).unwrap();
            decoder.piece(&packed[..packed.len() / 2]).unwrap();
            assert!(decoder.end().is_err(), "{coding}");
            assert!(Decoder::new(coding).unwrap().piece(b"{\"choices\":[{\"a\":1}]}").is_err(), "{coding}");
        }
        assert!(Decoder::new("compress").is_none());
    }

    #[test]
    fn a_bomb_does_not_go_off() {
        let bomb = vec![0; 64 << 20];
        for coding in ["gzip", "deflate", "br", "zstd"] {
            let error = Decoder::new(coding).unwrap().piece(&packed(coding, &bomb)).unwrap_err();
            assert!(error.contains("too large"), "{coding}: {error}");
        }
    }
}
