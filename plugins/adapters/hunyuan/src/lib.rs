// SPDX-License-Identifier: Apache-2.0
//! Speaks Tencent Hunyuan's own API (<https://cloud.tencent.com/document/product/1729>): `ChatCompletions` of Tencent Cloud's
//! API 3.0, signed with a secret id and a secret key. Errors come under HTTP 200; only a whole answer has an envelope.

mod tc3;
mod wire;

use penstock_sdk::dialect::{read_fault, read_request};
use penstock_sdk::dialects::codec::{Codec, StreamDecoder};
use penstock_sdk::dialects::estimate::input_tokens;
use penstock_sdk::dialects::openai_chat::ways::{Edits, Form, MemberWays, Structured, Thinking, Ways};
use penstock_sdk::dialects::openai_chat::{OpenAiChat, Style};
use penstock_sdk::dialects::splice::Members;
use penstock_sdk::prelude::{
    Adapter, Answer, Blob, Body, Call, Config, Event, Exchange, Fault, FaultClass, Frame, Framing, Issue, Pairs, Plan,
    Secret, Signer, Unsigned, Upstream, Usage,
};
use serde_json::{Map, Value};

/// The secret that holds the secret key.
const KEY: &str = "key";

/// What operators configure.
#[derive(Debug, Config)]
pub struct Options {
    /// The id ("AKID…") that belongs to the key. It is no secret by itself: each request names it.
    #[config(min = 1)]
    secret_id: String,
    /// Region, where the service has several ("ap-guangzhou").
    #[config(default)]
    region: String,
    /// Name of the service in signatures.
    #[config(default = "hunyuan", min = 1)]
    service: String,
    /// Whether the model may look things up (`EnableEnhancement`); none leaves it to the vendor.
    enhancement: Option<bool>,
}

/// The adapter.
#[derive(Debug)]
pub struct Hunyuan {
    options: Options,
    style: Style,
    ways: Ways,
}

impl Adapter for Hunyuan {
    type Config = Options;
    type Exchange = Conversation;

    const OPERATIONS: &'static [&'static str] = &["chat", "count_tokens"];
    const FEATURES: &'static [&'static str] = &["streaming", "tools", "reasoning", "image-input"];
    const SECRETS: &'static [&'static str] = &[KEY];

    fn new(options: Options) -> Result<Self, Vec<Issue>> {
        if Secret::open(KEY).is_none() {
            return Err(vec![Issue::new("", "no key is granted: give the vendor's SecretKey as `key`")]);
        }
        let thinking = Thinking { form: Form::Flag, effort_beside: false };
        let choices = [("required".to_owned(), Value::from("auto"))].into();
        let values = [("tool_choice".to_owned(), choices)].into();
        let members = MemberWays { values, ..MemberWays::default() };
        let ways = Ways { members, structured: Structured::Instructions, ..Ways::default() };
        Ok(Self { options, style: Style { thinking, ..Style::default() }, ways })
    }

    fn open(&self, call: &Call, _: &Pairs, body: &[u8], _: &[Blob]) -> Result<(Conversation, Plan), Fault> {
        let conversation = Conversation { decoder: OpenAiChat.stream_decoder(), failed: false };
        let request = read_request(call, body)?;
        if call.operation == "count_tokens" {
            let input = input_tokens(&request);
            return Ok((conversation, Plan::Answer(vec![Event::Usage(Usage { input, ..Usage::default() })])));
        }
        let (chat, mut dropped) = OpenAiChat.encode_request_as(&request, &self.style);
        let members = Members::index(&chat)?;
        let Edits { edits, dropped: more } = self.ways.edits(&|name| members.get(name));
        let edits: Vec<_> = edits.iter().map(|(name, json)| (name.as_str(), json.as_str())).collect();
        let chat: Map<String, Value> = serde_json::from_slice(&members.splice(&edits)).unwrap_or_default();
        let (mut wire, lost) = wire::request(chat);
        if let Some(enhancement) = self.options.enhancement {
            wire["EnableEnhancement"] = Value::from(enhancement);
        }
        dropped.extend(more.into_iter().chain(lost));
        let upstream = self.head().framing(Framing::sse_if(call.streaming)).dropped(dropped);
        Ok((conversation, Plan::Ask(upstream.body(Body::Bytes(wire.to_string().into_bytes())))))
    }

    fn reject(&self, status: u16, headers: &Pairs, body: &[u8]) -> Fault {
        let unread = read_fault(&OpenAiChat, status, headers, body);
        wire::answer(body).err().filter(|fault| fault.class != FaultClass::VendorBug).unwrap_or(unread)
    }
}

impl Signer for Hunyuan {
    fn sign(&self, request: &Unsigned) -> Result<Vec<(String, String)>, Fault> {
        let key = Secret::open(KEY).ok_or_else(|| Fault::new(FaultClass::Authentication, "no key is granted"))?;
        Ok(tc3::sign(request, &key, &self.options.secret_id, &self.options.service))
    }
}

impl Hunyuan {
    fn head(&self) -> Upstream {
        let upstream = Upstream::post("/")
            .header("content-type", "application/json; charset=utf-8")
            .header("x-tc-action", "ChatCompletions")
            .header("x-tc-version", "2023-09-01");
        match self.options.region.as_str() {
            "" => upstream,
            region => upstream.header("x-tc-region", region),
        }
    }
}

/// One conversation.
pub struct Conversation {
    decoder: Box<dyn StreamDecoder>,
    failed: bool,
}

impl std::fmt::Debug for Conversation {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Conversation").finish_non_exhaustive()
    }
}

impl Exchange for Conversation {
    fn frame(&mut self, frame: &Frame<'_>, events: &mut Vec<Event>) -> Result<(), Fault> {
        if frame.data.trim_ascii().is_empty() || self.failed {
            return Ok(());
        }
        match wire::answer(frame.data) {
            Ok((chunk, usage)) => {
                let (first, chunk) = (events.len(), chunk.to_string());
                self.decoder.frame(&Frame { name: frame.name, data: chunk.as_bytes() }, events);
                state(&usage, &mut events[first..]);
            }
            Err(fault) => {
                self.failed = true;
                events.push(Event::Fault(fault));
            }
        }
        Ok(())
    }

    fn finish(&mut self, answer: &Answer<'_>, events: &mut Vec<Event>) -> Result<Option<Upstream>, Fault> {
        if !answer.body.is_empty() {
            let (chat, usage) = wire::answer(answer.body)?;
            let first = events.len();
            events.extend(OpenAiChat.decode_response(chat.to_string().as_bytes())?);
            state(&usage, &mut events[first..]);
        } else if !self.failed {
            self.decoder.end(events);
        }
        Ok(None)
    }
}

/// The usage as the vendor has stated it.
fn state(stated: &str, events: &mut [Event]) {
    for event in events {
        if let Event::Usage(usage) = event {
            stated.clone_into(&mut usage.stated);
        }
    }
}

penstock_sdk::adapter!(Hunyuan, signing);

#[cfg(test)]
mod tests {
    use super::{Answer, Conversation, Exchange, FaultClass, Hunyuan, OpenAiChat, Pairs};
    use penstock_sdk::dialects::codec::Codec;

    #[test]
    fn an_error_that_comes_whole_ends_a_stream() {
        let mut conversation = Conversation { decoder: OpenAiChat.stream_decoder(), failed: false };
        let body = br#"{"Response":{"Error":{"Code":"LimitExceeded","Message":"too many at once"},"RequestId":"r"}}"#;
        let answer = Answer { status: 200, headers: &Pairs::default(), body };
        let fault = conversation.finish(&answer, &mut Vec::new()).unwrap_err();
        assert_eq!((fault.class, fault.message.as_str()), (FaultClass::RateLimit, "too many at once"));
    }

    #[test]
    fn golden_cases_pass() {
        penstock_sdk::testkit::run_cases::<Hunyuan>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }
}
