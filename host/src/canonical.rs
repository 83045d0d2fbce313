// SPDX-License-Identifier: Apache-2.0
//! The canonical form of a caller's request as it crosses into adapters: JSON with long base64 strings lifted out, so that
//! a picture is never copied into a guest. On the way out the strings are put back where the adapter wrote their markers.

use std::borrow::Cow;

use bytes::Bytes;
use memchr::memmem;
use penstock_dialects::ir::{Block, Content as PieceOf, Fault, FaultClass, Request, Response, Source};
use penstock_dialects::settle;
use penstock_dialects::task::{EmbedInput, Task};

use crate::failure::{Failure, Kind};
use crate::inbound::{Content, Inbound};
use crate::plugin::types;

/// A request in the canonical form.
pub struct Canonical {
    form: Form,
    blobs: Vec<Lifted>,
    /// What every marker begins with; random, so that no text of a caller can pass for a marker.
    nonce: String,
}

enum Form {
    Conversation(Box<Request>),
    Task(Box<Task>),
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
    /// Reads a caller's request. Base64 strings of at least `blob_bytes_min` bytes are lifted.
    ///
    /// # Errors
    /// `bad-body` with the path of what is wrong; `unsupported` if the dialect has no canonical form of the operation.
    pub fn read(inbound: &Inbound<'_>, blob_bytes_min: usize) -> Result<Self, Failure> {
        let (dialect, operation) = (inbound.asked.dialect, inbound.asked.operation);
        let refused = |fault: Fault| match fault.class {
            FaultClass::Unsupported => Failure::of_fault(Kind::Unsupported, fault),
            _ => Failure::of_fault(Kind::BadBody, fault),
        };
        let body = match &inbound.content {
            Content::Form(form) => Cow::Owned(form.to_json().to_string().into_bytes()),
            _ => Cow::Borrowed(&inbound.body[..]),
        };
        let mut lifter = Lifter {
            nonce: format!("@blob:{:016x}:", crate::random::u64()),
            blobs: Vec::new(),
            bytes_min: blob_bytes_min,
        };
        let form = if operation.is_conversation() {
            let mut request = dialect.decode_request(&body).map_err(refused)?;
            request.streaming = inbound.streaming;
            for message in &mut request.messages {
                lifter.blocks(&mut message.blocks);
            }
            Form::Conversation(Box::new(request))
        } else {
            let mut task = dialect.decode_task(operation, &body).map_err(refused)?;
            lifter.task(&mut task);
            Form::Task(Box::new(task))
        };
        Ok(Self { form, blobs: lifter.blobs, nonce: lifter.nonce })
    }

    /// Whether the caller wants its stream to tell the usage.
    #[must_use]
    pub fn stream_usage(&self) -> bool {
        matches!(&self.form, Form::Conversation(request) if request.stream_usage)
    }

    /// The JSON for an adapter, with the model that the target names.
    #[must_use]
    pub fn json(&self, model: &str) -> Vec<u8> {
        match &self.form {
            Form::Conversation(request) => {
                let mut request = request.clone();
                model.clone_into(&mut request.model);
                serde_json::to_vec(&request).unwrap_or_default()
            }
            Form::Task(task) => {
                let mut task = task.clone();
                model.clone_into(task.model_mut());
                task.to_json()
            }
        }
    }

    /// Makes an answer what the request asked for, where the vendor could not be asked for it.
    pub fn settle(&self, response: &mut Response) {
        if let Form::Task(task) = &self.form {
            settle::settle(task, response);
        }
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
}

/// Takes long base64 strings out of a request.
struct Lifter {
    nonce: String,
    blobs: Vec<Lifted>,
    bytes_min: usize,
}

impl Lifter {
    fn blocks(&mut self, blocks: &mut [Block]) {
        for block in blocks {
            match &mut block.content {
                PieceOf::Media { source, .. } => self.source(source),
                PieceOf::ToolResult { blocks, .. } => self.blocks(blocks),
                _ => {}
            }
        }
    }

    fn task(&mut self, task: &mut Task) {
        match task {
            Task::Embed(embed) => {
                for input in &mut embed.input {
                    if let EmbedInput::Blocks(blocks) = input {
                        self.blocks(blocks);
                    }
                }
            }
            Task::Image(image) => {
                for source in image.images.iter_mut().chain(image.mask.as_mut()) {
                    self.source(source);
                }
            }
            Task::Video(video) => {
                if let Some(source) = &mut video.image {
                    self.source(source);
                }
            }
            Task::Rerank(_) => {}
        }
    }

    fn source(&mut self, source: &mut Source) {
        if let Source::Base64 { media_type, data } = source
            && data.len() >= self.bytes_min
        {
            // The closing mark keeps marker 1 from being the beginning of marker 10.
            let marker = format!("{}{}@", self.nonce, self.blobs.len());
            let data = std::mem::replace(data, marker.clone());
            self.blobs.push(Lifted { marker, media_type: media_type.clone(), data });
        }
    }
}
