// SPDX-License-Identifier: Apache-2.0
//! The dialect `openai-completions`: OpenAI's legacy Completions, which base models, code completion and many local
//! servers still speak. Source: <https://platform.openai.com/docs/api-reference/completions>, and recorded exchanges.
//!
//! A prompt is one message of the user, and its continuation is text. The parts: [`request`] reads and writes requests,
//! [`answer`] answers. Errors and usage are those of Chat Completions.

mod answer;
mod request;

use crate::codec::{Ask, Codec, Envelope, Head, ModelEntry, Operation, StreamDecoder, StreamEncoder, Tap};
use crate::ir::{Event, Fault, Request, Response, Usage};
use crate::openai_chat::OpenAiChat;

/// Name of the dialect, also of its extensions.
pub const NAME: &str = "openai-completions";

/// The dialect.
#[derive(Debug, Clone, Copy)]
pub struct OpenAiCompletions;

impl Codec for OpenAiCompletions {
    fn name(&self) -> &'static str {
        NAME
    }

    fn recognise(&self, head: &Head<'_>) -> Option<Ask> {
        ((head.method, head.path) == ("POST", "/completions")).then(|| Operation::Chat.into())
    }

    fn decode_request(&self, body: &[u8]) -> Result<Request, Fault> {
        request::decode(body)
    }

    fn encode_response(&self, response: &Response, envelope: &Envelope) -> Vec<u8> {
        answer::whole(response, envelope)
    }

    fn encode_count(&self, usage: &Usage) -> Vec<u8> {
        OpenAiChat.encode_count(usage)
    }

    fn stream_encoder(&self, envelope: &Envelope) -> Box<dyn StreamEncoder> {
        Box::new(answer::Chunks::new(envelope))
    }

    fn encode_fault(&self, fault: &Fault, request_id: &str) -> Vec<u8> {
        OpenAiChat.encode_fault(fault, request_id)
    }

    fn encode_models(&self, models: &[ModelEntry]) -> Vec<u8> {
        OpenAiChat.encode_models(models)
    }

    fn tap(&self) -> Box<dyn Tap> {
        OpenAiChat.tap()
    }

    fn whole_usage(&self, body: &[u8]) -> Option<Usage> {
        OpenAiChat.whole_usage(body)
    }

    fn encode_request(&self, request: &Request) -> (Vec<u8>, Vec<String>) {
        request::encode(request)
    }

    fn decode_response(&self, body: &[u8]) -> Result<Vec<Event>, Fault> {
        answer::read(body)
    }

    fn stream_decoder(&self) -> Box<dyn StreamDecoder> {
        Box::new(answer::Reading::default())
    }

    fn decode_fault<'h>(&self, status: u16, header: &dyn Fn(&str) -> Option<&'h str>, body: &[u8]) -> Fault {
        OpenAiChat.decode_fault(status, header, body)
    }
}
