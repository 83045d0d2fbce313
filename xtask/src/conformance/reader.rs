// SPDX-License-Identifier: Apache-2.0
//! Who reads a recorded answer: the codec of a dialect, or the reading half of a format that only vendors speak.

use penstock_dialects::codec::{Codec, StreamDecoder};
use penstock_dialects::conformance::stream_kind;
use penstock_dialects::framing::Kind;
use penstock_dialects::ir::{Event, Fault};
use penstock_dialects::vendor::{self, Format};

use super::case::Case;

/// Reads the answers of one wire format.
#[derive(Clone, Copy)]
pub(super) enum Reader {
    /// A dialect that callers speak, too.
    Dialect(&'static dyn Codec),
    /// A vendor's own format.
    Vendor(&'static Format),
}

impl Reader {
    /// The reader of a recording. An error of an operation that has no wire format of its own is read as its vendor's.
    pub(super) fn of(case: &Case) -> Option<Self> {
        let by_name = |name: &str| {
            let dialect = penstock_dialects::by_name(name).map(Self::Dialect);
            dialect.or_else(|| vendor::by_name(name).map(Self::Vendor))
        };
        match case.protocol.as_deref() {
            Some(protocol) => by_name(protocol),
            None if case.status < 400 => None,
            None => by_name(match case.vendor.as_str() {
                "anthropic" => "anthropic-messages",
                "bedrock" => "bedrock-converse",
                "cohere" => "cohere-v2",
                "gemini" | "vertex" => "gemini",
                "dashscope" if case.place.contains("/api/v1/") => "dashscope-native",
                _ => "openai-chat",
            }),
        }
    }

    /// The codec, if it is a dialect.
    pub(super) fn codec(self) -> Option<&'static dyn Codec> {
        match self {
            Self::Dialect(codec) => Some(codec),
            Self::Vendor(_) => None,
        }
    }

    /// How this stream is cut.
    pub(super) fn kind(self, body: &[u8]) -> Kind {
        match self {
            Self::Dialect(codec) => stream_kind(codec, body),
            Self::Vendor(format) => format.kind,
        }
    }

    pub(super) fn decode_response(self, body: &[u8]) -> Result<Vec<Event>, Fault> {
        match self {
            Self::Dialect(codec) => codec.decode_response(body),
            Self::Vendor(format) => (format.decode_response)(body),
        }
    }

    pub(super) fn stream_decoder(self) -> Box<dyn StreamDecoder> {
        match self {
            Self::Dialect(codec) => codec.stream_decoder(),
            Self::Vendor(format) => (format.stream_decoder)(),
        }
    }

    pub(super) fn decode_fault(self, case: &Case) -> Fault {
        let header = |name: &str| case.header(name);
        match self {
            Self::Dialect(codec) => codec.decode_fault(case.status, &header, &case.body),
            Self::Vendor(format) => (format.decode_fault)(case.status, &header, &case.body),
        }
    }
}
