// SPDX-License-Identifier: Apache-2.0
//! Speaks the first API of Baidu AI Cloud Qianfan (<https://cloud.baidu.com/doc/WENXINWORKSHOP>): a path for each model, a
//! token that is fetched with an API key and a secret key and stands in the query, errors under HTTP 200. Its second API is
//! compatible with OpenAI's, and is a file of the policies.

mod wire;

use std::collections::BTreeMap;

use penstock_sdk::dialect::{read_fault, read_request};
use penstock_sdk::dialects::codec::{Codec, StreamDecoder};
use penstock_sdk::dialects::estimate::input_tokens;
use penstock_sdk::dialects::openai_chat::ways::{Back, Edits, Form, MemberWays, Structured, Thinking, Ways};
use penstock_sdk::dialects::openai_chat::{OpenAiChat, Style};
use penstock_sdk::dialects::splice::Members;
use penstock_sdk::prelude::{
    Adapter, Answer, Blob, Body, Call, Config, Credentials, Event, Exchange, Fault, FaultClass, Fetching, Frame,
    Framing, Issue, Pairs, Placed, Plan, Secret, TOKEN, Upstream, Usage,
};
use serde_json::{Map, Value};

/// The secret that holds the secret key.
const KEY: &str = "key";

/// Where the models are, below the base URL.
const CHAT: &str = "/rpc/2.0/ai_custom/v1/wenxinworkshop/chat/";

/// Models whose path is not their name in lower case.
const SUFFIXES: [(&str, &str); 12] = [
    ("ernie-4.0-8k", "completions_pro"),
    ("ernie-bot-4", "completions_pro"),
    ("ernie-3.5-8k", "completions"),
    ("ernie-bot", "completions"),
    ("ernie-bot-8k", "ernie_bot_8k"),
    ("ernie-bot-turbo", "eb-instant"),
    ("ernie-lite-8k-0922", "eb-instant"),
    ("ernie-lite-8k-0308", "ernie-lite-8k"),
    ("ernie-speed", "ernie_speed"),
    ("ernie-speed-8k", "ernie_speed"),
    ("ernie-character-8k", "ernie-char-8k"),
    ("yi-34b-chat", "yi_34b_chat"),
];

/// What operators configure.
#[derive(Debug, Config)]
pub struct Options {
    /// The API key of the application. It is no secret by itself: the secret key belongs to it.
    #[config(min = 1)]
    client_id: String,
    /// The last part of the path of further models: model = path.
    #[config(default)]
    suffixes: BTreeMap<String, String>,
}

/// The adapter.
#[derive(Debug)]
pub struct Qianfan {
    options: Options,
    style: Style,
    ways: Ways,
}

impl Adapter for Qianfan {
    type Config = Options;
    type Exchange = Conversation;

    const OPERATIONS: &'static [&'static str] = &["chat", "count_tokens"];
    const FEATURES: &'static [&'static str] = &["streaming", "tools"];
    const SECRETS: &'static [&'static str] = &[KEY];

    fn new(options: Options) -> Result<Self, Vec<Issue>> {
        let mut issues = Vec::new();
        if Secret::open(KEY).is_none() {
            issues.push(Issue::new("", "no key is granted: give the secret key of the application as `key`"));
        }
        for (model, _) in options.suffixes.iter().filter(|(_, suffix)| !is_suffix(suffix)) {
            issues.push(Issue::new(
                format!("suffixes.{model}"),
                "the last part of a path: letters, digits, `.`, `_`, `-`",
            ));
        }
        if !issues.is_empty() {
            return Err(issues);
        }
        let thinking = Thinking { form: Form::Unsaid, effort_beside: false };
        let clamp = [("temperature".to_owned(), [0.01, 1.0]), ("top_p".to_owned(), [0.0, 1.0])].into();
        let members = MemberWays { clamp, ..MemberWays::default() };
        let ways = Ways { members, structured: Structured::Object, ..Ways::default() };
        Ok(Self { options, style: Style { thinking, back: Back::Nowhere, ..Style::default() }, ways })
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
        let (wire, lost) = wire::request(chat)?;
        dropped.extend(more.into_iter().chain(lost));
        let mut upstream = Upstream::post(format!("{CHAT}{}", self.suffix(&call.model)?));
        upstream.query.push(Placed::secret("access_token", "", TOKEN));
        let upstream = upstream.framing(Framing::sse_if(call.streaming)).dropped(dropped);
        Ok((conversation, Plan::Ask(upstream.body(Body::Bytes(wire.to_string().into_bytes())))))
    }

    fn reject(&self, status: u16, headers: &Pairs, body: &[u8]) -> Fault {
        let unread = read_fault(&OpenAiChat, status, headers, body);
        wire::answer(body, true).err().filter(|fault| fault.code.is_some()).unwrap_or(unread)
    }
}

impl Credentials for Qianfan {
    fn fetch(&self, _: u64) -> Result<Option<Fetching>, Fault> {
        let mut request = Upstream::post("/oauth/2.0/token")
            .query("grant_type", "client_credentials")
            .query("client_id", &self.options.client_id);
        request.query.push(Placed::secret("client_secret", "", KEY));
        Ok(Some(Fetching {
            request,
            token: "/access_token".to_owned(),
            expires_in: "/expires_in".to_owned(),
            expires_at: String::new(),
            lasts: 30 * 24 * 3600,
        }))
    }
}

impl Qianfan {
    /// The last part of a model's path.
    fn suffix(&self, model: &str) -> Result<String, Fault> {
        let lower = model.to_lowercase();
        let known = SUFFIXES.iter().find(|(known, _)| *known == lower).map(|(_, suffix)| *suffix);
        let suffix = self.options.suffixes.get(model).map(String::as_str).or(known).unwrap_or(&lower);
        if is_suffix(suffix) {
            return Ok(suffix.to_owned());
        }
        Err(Fault::new(FaultClass::ModelNotFound, format!("no model of this vendor is called {model:?}")))
    }
}

fn is_suffix(text: &str) -> bool {
    let admitted = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !text.is_empty() && !text.starts_with('.') && text.bytes().all(admitted)
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
        match wire::answer(frame.data, false) {
            Ok(chunk) => {
                let chunk = chunk.to_string();
                self.decoder.frame(&Frame { name: "", data: chunk.as_bytes() }, events);
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
            let chat = wire::answer(answer.body, true)?.to_string();
            events.extend(OpenAiChat.decode_response(chat.as_bytes())?);
        } else if !self.failed {
            self.decoder.end(events);
        }
        Ok(None)
    }
}

penstock_sdk::adapter!(Qianfan, credentials);

#[cfg(test)]
mod tests {
    use penstock_sdk::adapter::PlacedValue;
    use penstock_sdk::testkit::{grant, run_cases};

    use super::{Adapter, BTreeMap, Credentials, Options, Qianfan};

    #[test]
    fn golden_cases_pass() {
        run_cases::<Qianfan>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }

    #[test]
    fn a_token_is_fetched_with_both_keys_and_only_one_is_seen() {
        grant([("key", "SK")]);
        let suffixes = BTreeMap::from([("Mine".to_owned(), "abc_1".to_owned())]);
        let adapter = Qianfan::new(Options { client_id: "AK".to_owned(), suffixes }).unwrap();
        let fetching = adapter.fetch(0).unwrap().unwrap();
        let query: Vec<_> =
            fetching.request.query.iter().map(|placed| (placed.name.as_str(), placed.value.clone())).collect();
        let text = |text: &str| PlacedValue::Text(text.to_owned());
        let secret = PlacedValue::Secret { prefix: String::new(), secret: "key".to_owned() };
        assert_eq!(
            query,
            [("grant_type", text("client_credentials")), ("client_id", text("AK")), ("client_secret", secret)]
        );
        assert_eq!((fetching.request.path.as_str(), fetching.token.as_str()), ("/oauth/2.0/token", "/access_token"));
        let suffix = |model: &str| adapter.suffix(model).map_err(|fault| fault.class.name());
        let cases = [
            ("ERNIE-4.0-8K", Ok("completions_pro")),
            ("ernie-4.0-turbo-128k", Ok("ernie-4.0-turbo-128k")),
            ("Mine", Ok("abc_1")),
            ("../secret", Err("model-not-found")),
            ("a?b", Err("model-not-found")),
        ];
        for (model, expected) in cases {
            assert_eq!(suffix(model), expected.map(str::to_owned), "{model}");
        }
    }
}
