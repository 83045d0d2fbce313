// SPDX-License-Identifier: Apache-2.0
//! Ollama's own API, vendor's side only: no caller speaks it, so it is no [`Codec`](crate::codec::Codec) but functions for
//! the adapter. Requests and answers are those of `/api/chat` and `/api/embed`
//! (<https://github.com/ollama/ollama/blob/main/docs/api.md>); the answers of `/api/generate` are read, too, since they
//! differ by one member. A stream is a JSON object a line. [`asking`] writes, [`reading`] reads.

mod asking;
mod reading;

pub use asking::{Style, encode_embed, encode_request};
pub use reading::{decode_embeddings, decode_fault, decode_response, stream_decoder};

/// Name of the format in recorded exchanges, and of its extensions.
pub const NAME: &str = "ollama-native";
