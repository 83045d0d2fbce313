// SPDX-License-Identifier: Apache-2.0
//! The canonical form of a caller's request as it crosses into adapters: JSON with long base64 strings lifted out, so that
//! a picture is never copied into a guest. On the way out the strings are put back where the adapter wrote their markers.

use bytes::Bytes;
use memchr::memmem;
use penstock_dialects::codec::Codec;
use penstock_dialects::ir::{Block, Content, Request, Source};

use crate::failure::{Failure, Kind};
use crate::plugin::types;

/// A request in the canonical form.
pub struct Canonical {
    request: Request,
    blobs: Vec<Lifted>,
    /// What every marker begins with; random, so that no text of a caller can pass for a marker.
    nonce: String,
}

struct Lifted {
    marker: String,
    media_type: String,
    data: String,
}

impl Lifted {
    fn blob(&self) -> types::Blob<'_> {
        types::Blob { marker: &self.marker, media_type: &self.media_type, length: self.data.len() as u64 }
    }
}

impl Canonical {
    /// Reads a caller's body. Base64 strings of at least `blob_bytes_min` bytes are lifted.
    ///
    /// # Errors
    /// `bad-body` with the path of what is wrong.
    pub fn read(dialect: &dyn Codec, body: &[u8], blob_bytes_min: usize) -> Result<Self, Failure> {
        let request = dialect.decode_request(body).map_err(|fault| Failure::of_fault(Kind::BadBody, fault))?;
        let nonce = format!("@blob:{:016x}:", crate::random::u64());
        let mut canonical = Self { request, blobs: Vec::new(), nonce };
        let mut blocks = std::mem::take(&mut canonical.request.messages);
        for message in &mut blocks {
            canonical.lift(&mut message.blocks, blob_bytes_min);
        }
        canonical.request.messages = blocks;
        Ok(canonical)
    }

    /// Whether the caller wants its stream to tell the usage.
    #[must_use]
    pub fn stream_usage(&self) -> bool {
        self.request.stream_usage
    }

    /// The JSON for an adapter, with the model that the target names.
    #[must_use]
    pub fn json(&self, model: &str) -> Vec<u8> {
        let mut request = self.request.clone();
        model.clone_into(&mut request.model);
        serde_json::to_vec(&request).unwrap_or_default()
    }

    /// The lifted strings, for an adapter.
    #[must_use]
    pub fn blobs(&self) -> Vec<types::Blob<'_>> {
        self.blobs.iter().map(Lifted::blob).collect()
    }

    /// Puts the lifted strings back into what an adapter wrote.
    #[must_use]
    pub fn restore(&self, body: Vec<u8>) -> Bytes {
        if self.blobs.is_empty() {
            return body.into();
        }
        let extra: usize = self.blobs.iter().map(|lifted| lifted.data.len()).sum();
        let mut restored = Vec::with_capacity(body.len() + extra);
        let mut copied = 0;
        for at in memmem::find_iter(&body, self.nonce.as_bytes()) {
            let lifted = self.blobs.iter().find(|lifted| body[at..].starts_with(lifted.marker.as_bytes()));
            if let Some(lifted) = lifted {
                restored.extend_from_slice(&body[copied..at]);
                restored.extend_from_slice(lifted.data.as_bytes());
                copied = at + lifted.marker.len();
            }
        }
        restored.extend_from_slice(&body[copied..]);
        restored.into()
    }

    fn lift(&mut self, blocks: &mut [Block], blob_bytes_min: usize) {
        for block in blocks {
            match &mut block.content {
                Content::Media { source: Source::Base64 { media_type, data }, .. } if data.len() >= blob_bytes_min => {
                    // The closing mark keeps marker 1 from being the beginning of marker 10.
                    let marker = format!("{}{}@", self.nonce, self.blobs.len());
                    let data = std::mem::replace(data, marker.clone());
                    self.blobs.push(Lifted { marker, media_type: media_type.clone(), data });
                }
                Content::ToolResult { blocks, .. } => self.lift(blocks, blob_bytes_min),
                _ => {}
            }
        }
    }
}
