// SPDX-License-Identifier: Apache-2.0
//! Speaks Zhipu's API with the signed tokens that its older interfaces demand: a JSON Web Token (HS256) for each request,
//! whose times are in milliseconds. Where the raw key is taken, the file of the policies is the better choice.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use penstock_sdk::compatible::Options as Compatible;
use penstock_sdk::config::Reader;
use penstock_sdk::dialect::{DialectExchange, read_fault, read_request};
use penstock_sdk::dialects::estimate::input_tokens;
use penstock_sdk::dialects::openai_chat::ways::{Edits, Ways};
use penstock_sdk::dialects::openai_chat::{NAME, OpenAiChat, Style};
use penstock_sdk::dialects::splice::Members;
use penstock_sdk::prelude::{
    Adapter, Blob, Body, Call, Config, Event, Fault, FaultClass, Framing, Issue, Pairs, Plan, Secret, Signer, Unsigned,
    Upstream, Usage, Wants,
};
use penstock_sdk::relayed::ALIKE;
use serde_json::{Value, json};

/// The secret that holds the part of the key after the point.
const KEY: &str = "key";

/// What operators configure.
#[derive(Debug, Config)]
pub struct Options {
    /// The part of the key before the point. It is no secret by itself: each token names it.
    #[config(min = 1)]
    id: String,
    /// Seconds for which a token is valid.
    #[config(default = 3600, min = 60, max = 86400)]
    lasts: u64,
}

/// The adapter.
#[derive(Debug)]
pub struct Zhipu {
    options: Options,
    style: Style,
    ways: Ways,
}

impl Adapter for Zhipu {
    type Config = Options;
    type Exchange = DialectExchange<OpenAiChat>;

    const DIALECTS: &'static [&'static str] = &[NAME];
    const OPERATIONS: &'static [&'static str] = &["chat", "count_tokens", "embeddings"];
    const FEATURES: &'static [&'static str] = &["streaming", "tools", "reasoning", "image-input", "json", "caching"];
    const SECRETS: &'static [&'static str] = &[KEY];

    fn new(options: Options) -> Result<Self, Vec<Issue>> {
        if Secret::open(KEY).is_none() {
            return Err(vec![Issue::new("", "no key is granted: give the part of it after the point as `key`")]);
        }
        let compatible: Compatible = Reader::read(&json!({
            "rename": { "max_completion_tokens": "max_tokens" },
            "clamp": { "temperature": [0.0, 1.0], "top_p": [0.01, 1.0] },
            "values": { "tool_choice": { "required": "auto", "function": "auto" } },
            "roles": { "developer": "system" },
            "reasoning": { "ask": "thinking" },
            "structured": "object",
        }))?;
        Ok(Self { options, style: compatible.style(), ways: compatible.ways() })
    }

    fn wants(&self) -> Wants {
        Wants::nothing().members(self.ways.names()).alike(ALIKE)
    }

    fn relay(&self, call: &Call, _: &Pairs, members: &Pairs) -> Result<Upstream, Fault> {
        let (path, edits) = match call.operation.as_str() {
            "chat" => ("/chat/completions", self.ways.edits(&|name| members.get(name))),
            "embeddings" => ("/embeddings", Edits::default()),
            other => return Err(Fault::new(FaultClass::Unsupported, format!("this adapter has no {other}"))),
        };
        let Edits { mut edits, dropped } = edits;
        edits.push(("model".to_owned(), Value::from(call.model.as_str()).to_string()));
        let framing = Framing::sse_if(call.streaming);
        Ok(Upstream::post(path).framing(framing).body(Body::Splice(edits)).dropped(dropped))
    }

    fn open(
        &self,
        call: &Call,
        _: &Pairs,
        body: &[u8],
        _: &[Blob],
    ) -> Result<(DialectExchange<OpenAiChat>, Plan), Fault> {
        if call.operation == "embeddings" {
            return Err(Fault::new(FaultClass::Unsupported, format!("embeddings are not translated: ask in {NAME}")));
        }
        let exchange = DialectExchange::new(OpenAiChat);
        let mut request = read_request(call, body)?;
        if call.operation == "count_tokens" {
            let input = input_tokens(&request);
            return Ok((exchange, Plan::Answer(vec![Event::Usage(Usage { input, ..Usage::default() })])));
        }
        request.stream_usage = request.streaming;
        let (body, mut dropped) = OpenAiChat.encode_request_as(&request, &self.style);
        let members = Members::index(&body)?;
        let Edits { edits, dropped: more } = self.ways.edits(&|name| members.get(name));
        dropped.extend(more);
        let edits: Vec<_> = edits.iter().map(|(name, json)| (name.as_str(), json.as_str())).collect();
        let upstream = Upstream::post("/chat/completions").framing(Framing::sse_if(request.streaming));
        Ok((exchange, Plan::Ask(upstream.body(Body::Bytes(members.splice(&edits))).dropped(dropped))))
    }

    fn reject(&self, status: u16, headers: &Pairs, body: &[u8]) -> Fault {
        read_fault(&OpenAiChat, status, headers, body)
    }
}

impl Signer for Zhipu {
    fn sign(&self, request: &Unsigned) -> Result<Vec<(String, String)>, Fault> {
        let key = Secret::open(KEY).ok_or_else(|| Fault::new(FaultClass::Authentication, "no key is granted"))?;
        let token = token(&self.options.id, &key, request.time * 1000, self.options.lasts * 1000);
        Ok(vec![("authorization".to_owned(), format!("Bearer {token}"))])
    }
}

/// The token of a key at a time: `exp` and `timestamp` are in milliseconds, and the header says `sign_type`.
fn token(id: &str, key: &Secret, now_ms: u64, lasts_ms: u64) -> String {
    let header = json!({ "alg": "HS256", "sign_type": "SIGN" });
    let payload = json!({ "api_key": id, "exp": now_ms + lasts_ms, "timestamp": now_ms });
    let [header, payload] = [header, payload].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string()));
    let text = format!("{header}.{payload}");
    let signature = BASE64_URL_SAFE_NO_PAD.encode(key.hmac_sha256(text.as_bytes()));
    format!("{text}.{signature}")
}

penstock_sdk::adapter!(Zhipu, signing);

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use penstock_sdk::testkit::{grant, run_cases};
    use serde_json::Value;

    use super::{Adapter, Options, Secret, Signer, Unsigned, Zhipu, token};

    #[test]
    fn golden_cases_pass() {
        run_cases::<Zhipu>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }

    /// The vectors beside the worktrees; none where they are not.
    fn vectors() -> Vec<Value> {
        let given = std::env::var_os("PENSTOCK_FIXTURES").map(PathBuf::from);
        let near = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|at| at.join("shared/fixtures"));
        let mut files = given.into_iter().chain(near).map(|folder| folder.join("signatures/zhipu-jwt.json"));
        let Some(file) = files.find(|file| file.exists()) else {
            eprintln!("SKIPPED: no signatures/zhipu-jwt.json under $PENSTOCK_FIXTURES or shared/fixtures");
            return Vec::new();
        };
        let vectors: Vec<Value> = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        assert_eq!(vectors.len(), 2);
        vectors
    }

    #[test]
    fn tokens_are_those_that_zhipu_takes() {
        for vector in vectors() {
            let (id, secret) = vector["api_key"].as_str().unwrap().split_once('.').unwrap();
            let number = |name: &str| vector[name].as_u64().unwrap();
            grant([("key", secret)]);
            let key = Secret::open("key").unwrap();
            assert_eq!(token(id, &key, number("now_ms"), number("ttl_ms")), vector["token"], "{}", vector["name"]);
            let adapter = Zhipu::new(Options { id: id.to_owned(), lasts: number("ttl_ms") / 1000 }).unwrap();
            let request = Unsigned { time: number("now_ms") / 1000, ..Unsigned::default() };
            let bearer = format!("Bearer {}", vector["token"].as_str().unwrap());
            assert_eq!(adapter.sign(&request), Ok(vec![("authorization".to_owned(), bearer)]));
        }
    }
}
