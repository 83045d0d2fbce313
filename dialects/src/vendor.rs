// SPDX-License-Identifier: Apache-2.0
//! Wire formats that vendors speak and callers do not: the half of a [`Codec`](crate::codec::Codec) that reads
//! conversations, as data, for whoever holds recorded answers against it. Adapters call the modules themselves.

use crate::codec::StreamDecoder;
use crate::framing::Kind;
use crate::ir::{Event, Fault};
use crate::{dashscope_native, ollama_native};

/// Looks a response header up by its lower-case name.
pub type Header<'l, 'h> = &'l dyn Fn(&str) -> Option<&'h str>;

/// A wire format.
#[derive(Debug)]
pub struct Format {
    /// Its name in recorded exchanges.
    pub name: &'static str,
    /// How its streams are cut.
    pub kind: Kind,
    /// Reads a whole answer.
    pub decode_response: fn(&[u8]) -> Result<Vec<Event>, Fault>,
    /// Begins to read a streamed answer.
    pub stream_decoder: fn() -> Box<dyn StreamDecoder>,
    /// Reads an answer that is not 2xx.
    pub decode_fault: fn(u16, Header<'_, '_>, &[u8]) -> Fault,
}

/// Every such format.
pub static FORMATS: &[Format] = &[
    Format {
        name: dashscope_native::NAME,
        kind: Kind::Sse,
        decode_response: dashscope_native::decode_response,
        stream_decoder: dashscope_native::stream_decoder,
        decode_fault: dashscope_native::decode_fault,
    },
    Format {
        name: ollama_native::NAME,
        kind: Kind::JsonLines,
        decode_response: ollama_native::decode_response,
        stream_decoder: ollama_native::stream_decoder,
        decode_fault: ollama_native::decode_fault,
    },
];

/// The format of this name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|format| format.name == name)
}
