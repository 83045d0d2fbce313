// SPDX-License-Identifier: Apache-2.0
//! Speaks OpenAI's API (<https://platform.openai.com/docs/api-reference>) as OpenAI does, and as the many vendors that are
//! compatible with it do. In which ways a vendor differs is configuration: a new one is a policy file, not code.
//! README.md has the table.

use std::collections::BTreeMap;
use std::sync::Arc;

use penstock_sdk::compatible::{Options, TranslateBy};
use penstock_sdk::dialect::read_request;
use penstock_sdk::dialects::codec::{Codec, Operation};
use penstock_sdk::dialects::estimate::input_tokens;
use penstock_sdk::dialects::openai_chat::ways::{Answer, AnswerWays, Edits, MemberWays, Ways};
use penstock_sdk::dialects::openai_chat::{NAME, OpenAiChat, Style};
use penstock_sdk::dialects::openai_completions::NAME as COMPLETIONS;
use penstock_sdk::dialects::openai_responses::{NAME as RESPONSES, OpenAiResponses};
use penstock_sdk::dialects::splice::Members;
use penstock_sdk::dialects::task::Task;
use penstock_sdk::passthrough::passthrough;
use penstock_sdk::prelude::{
    Adapter, Blob, Body, Call, Credentials, Event, Fault, FaultClass, Fetching, Framing, Issue, Pairs, Placed, Plan,
    Secret, TOKEN, Upstream, Usage, Wants,
};
use penstock_sdk::relayed::{ALIKE, relayed};
use serde_json::Value;

/// The secret that holds the vendor's key.
const KEY: &str = "key";

/// The response headers by which vendors tell how long to wait.
const WAIT_HEADERS: [&str; 6] = [
    "retry-after",
    "retry-after-ms",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
];

/// The adapter.
#[derive(Debug)]
pub struct OpenAiCompatible {
    options: Options,
    has_key: bool,
    style: Style,
    ways: Ways,
    other_ways: BTreeMap<String, MemberWays>,
    answers: Arc<AnswerWays>,
}

impl Adapter for OpenAiCompatible {
    type Config = Options;
    type Exchange = Answer;

    const DIALECTS: &'static [&'static str] = &[NAME, RESPONSES, COMPLETIONS];
    const OPERATIONS: &'static [&'static str] = &[
        "chat",
        "count_tokens",
        "embeddings",
        "rerank",
        "images",
        "image_edits",
        "videos",
        "speech",
        "transcription",
        "translation",
        "moderations",
        "files",
        "batches",
        "stored",
        "realtime",
        "passthrough",
    ];
    const FEATURES: &'static [&'static str] =
        &["streaming", "tools", "reasoning", "image-input", "document-input", "audio-input", "json", "caching"];
    const SECRETS: &'static [&'static str] = &[KEY];

    fn new(options: Options) -> Result<Self, Vec<Issue>> {
        let issues = options.issues();
        if !issues.is_empty() {
            return Err(issues);
        }
        Ok(Self {
            has_key: Secret::open(KEY).is_some(),
            style: options.style(),
            ways: options.ways(),
            other_ways: options.other_ways(),
            answers: Arc::new(options.answer_ways()),
            options,
        })
    }

    fn wants(&self) -> Wants {
        let others = self.other_ways.values().flat_map(MemberWays::names);
        let wants = Wants::nothing().response_headers(WAIT_HEADERS).headers(self.options.forward.iter().cloned());
        let wants = wants.without(self.options.missing());
        wants.members(self.ways.names()).members(others).alike(ALIKE)
    }

    fn relay(&self, call: &Call, headers: &Pairs, members: &Pairs) -> Result<Upstream, Fault> {
        if call.operation == "passthrough" {
            let upstream = passthrough(call)?;
            return Ok(self.authorised(upstream, headers));
        }
        let operation = Operation::from_name(&call.operation);
        if operation.is_some_and(Operation::is_canonical) && self.must_translate(call) {
            return Err(unsupported("this vendor's answers have to be read: they are not relayed".to_owned()));
        }
        let place = match (call.operation.as_str(), call.dialect.as_str()) {
            ("chat", RESPONSES) | ("stored", _) => "responses",
            ("chat", COMPLETIONS) => "completions",
            // OpenAI counts for Responses only.
            ("count_tokens", dialect) if dialect != RESPONSES => "",
            (operation, _) => operation,
        };
        let (ours, theirs) = self.path(place, call)?;
        let mut upstream = self.authorised(relayed(call, ours, theirs)?, headers);
        if upstream.body != Body::None {
            let Edits { mut edits, dropped } = self.edits(place, &|name| members.get(name));
            if operation.is_some_and(Operation::names_model) {
                edits.push(("model".to_owned(), Value::from(call.model.as_str()).to_string()));
            }
            upstream = upstream.body(Body::Splice(edits)).dropped(dropped);
        }
        Ok(upstream)
    }

    fn open(&self, call: &Call, headers: &Pairs, body: &[u8], _: &[Blob]) -> Result<(Answer, Plan), Fault> {
        let operation = Operation::from_name(&call.operation).filter(|operation| operation.is_canonical());
        let operation = operation.ok_or_else(|| cannot_be_translated(call))?;
        let (codec, place) = match (operation, self.options.translate_by) {
            (Operation::Chat, TranslateBy::Responses) => (&OpenAiResponses as &dyn Codec, "responses"),
            _ => (&OpenAiChat as &dyn Codec, operation.name()),
        };
        let answer = Answer::new(codec, operation, Arc::clone(&self.answers));
        if operation == Operation::CountTokens {
            // These vendors do not count; an estimate at once is more useful than none.
            let input = input_tokens(&read_request(call, body)?);
            return Ok((answer, Plan::Answer(vec![Event::Usage(Usage { input, ..Usage::default() })])));
        }
        let mut streaming = false;
        let (body, mut dropped) = if operation == Operation::Chat {
            let mut request = read_request(call, body)?;
            request.streaming |= self.options.forced_stream;
            request.stream_usage = request.streaming && self.options.stream_usage;
            streaming = request.streaming;
            match self.options.translate_by {
                TranslateBy::Chat => OpenAiChat.encode_request_as(&request, &self.style),
                TranslateBy::Responses => codec.encode_request(&request),
            }
        } else {
            let wrong = |why| Fault::new(FaultClass::InvalidRequest, format!("the request cannot be read: {why}"));
            let mut task = Task::from_json(operation, body).map_err(wrong)?;
            task.model_mut().clone_from(&call.model);
            codec.encode_task(operation, &task)?
        };
        let (_, path) = self.path(place, call)?;
        let members = Members::index(&body)?;
        let Edits { edits, dropped: more } = self.edits(place, &|name| members.get(name));
        let edits: Vec<_> = edits.iter().map(|(name, json)| (name.as_str(), json.as_str())).collect();
        let body = if edits.is_empty() { body } else { members.splice(&edits) };
        dropped.extend(more);
        let upstream =
            Upstream::post(path).framing(Framing::sse_if(streaming)).body(Body::Bytes(body)).dropped(dropped);
        Ok((answer, Plan::Ask(self.authorised(upstream, headers))))
    }

    fn reject(&self, status: u16, headers: &Pairs, body: &[u8]) -> Fault {
        self.answers.fault(&OpenAiChat, status, &|name| headers.get(name), body)
    }
}

impl Credentials for OpenAiCompatible {
    fn fetch(&self, _: u64) -> Result<Option<Fetching>, Fault> {
        let fetching = self.options.token.as_ref().map(|token| {
            let mut request = Upstream::get(&token.path).endpoint(&token.endpoint);
            request.headers.extend(self.options.headers.iter().map(|(name, value)| Placed::text(name, value)));
            Fetching {
                request: request.secret_header("authorization", &token.prefix, KEY),
                token: token.at.clone(),
                expires_in: String::new(),
                expires_at: token.expires_at.clone(),
                lasts: token.lasts,
            }
        });
        Ok(fetching)
    }
}

impl OpenAiCompatible {
    /// Whether the bytes of an answer would not do for the caller.
    fn must_translate(&self, call: &Call) -> bool {
        let is_chat = call.operation == "chat";
        self.answers.must_be_read() || (is_chat && self.options.forced_stream && !call.streaming)
    }

    /// OpenAI's path of an operation, and the vendor's.
    fn path(&self, place: &str, call: &Call) -> Result<(&'static str, &str), Fault> {
        let missing =
            || unsupported(format!("this vendor has no {}: name a model of another one", name_of(place, call)));
        self.options.path(place).ok_or_else(missing)
    }

    fn edits<'m>(&self, place: &str, member: &dyn Fn(&str) -> Option<&'m str>) -> Edits {
        match place {
            "chat" => self.ways.edits(member),
            other => self.other_ways.get(other).map(|ways| ways.edits(member)).unwrap_or_default(),
        }
    }

    /// With what each request has: the operator's headers and parameters, those of the caller that go along, the key.
    fn authorised(&self, mut upstream: Upstream, headers: &Pairs) -> Upstream {
        let Options { headers: fixed, query, forward, auth, token, .. } = &self.options;
        let forwarded = forward.iter().filter_map(|name| Some((name, headers.get(name)?)));
        upstream.headers.extend(forwarded.map(|(name, value)| Placed::text(name, value)));
        upstream.headers.extend(fixed.iter().map(|(name, value)| Placed::text(name, value)));
        upstream.query.extend(query.iter().map(|(name, value)| Placed::text(name, value)));
        if self.has_key {
            let secret = if token.is_some() { TOKEN } else { KEY };
            match &auth.query {
                Some(name) => upstream.query.push(Placed::secret(name, "", secret)),
                None => upstream.headers.push(Placed::secret(&auth.header, &auth.prefix, secret)),
            }
        }
        upstream
    }
}

/// What callers call an operation.
fn name_of<'n>(place: &'n str, call: &'n Call) -> &'n str {
    if place.is_empty() { &call.operation } else { place }
}

fn unsupported(message: String) -> Fault {
    Fault::new(FaultClass::Unsupported, message)
}

fn cannot_be_translated(call: &Call) -> Fault {
    unsupported(format!("{} in {} cannot be translated: ask in {NAME}", call.operation, call.dialect))
}

penstock_sdk::adapter!(OpenAiCompatible, credentials);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use penstock_sdk::config::Reader;

    use super::{Adapter, Body, Call, Credentials, OpenAiCompatible, Options, Pairs, Value};

    #[test]
    fn golden_cases_pass() {
        penstock_sdk::testkit::run_cases::<OpenAiCompatible>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }

    /// The vendors of the policies that this adapter serves, with what it makes of their configuration.
    fn vendors() -> BTreeMap<String, (Value, OpenAiCompatible)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../policies/vendors");
        let mut found = BTreeMap::new();
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.lines().count() < 30, "{} is not short", path.display());
            let policy: Value = toml::from_str(&text).unwrap();
            for (name, vendor) in policy["vendors"].as_object().unwrap() {
                if vendor["adapter"] != "openai-compatible" {
                    continue;
                }
                let config = vendor.get("config").cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new()));
                let adapter = Reader::read::<Options>(&config).and_then(OpenAiCompatible::new);
                let adapter = adapter.unwrap_or_else(|issues| panic!("{}: {issues:?}", path.display()));
                found.insert(name.clone(), (vendor.clone(), adapter));
            }
        }
        found
    }

    #[test]
    fn every_vendor_of_the_policies_is_understood() {
        let vendors = vendors();
        assert!(vendors.len() >= 26, "{:?}", vendors.keys());
        for (name, (vendor, adapter)) in &vendors {
            let url = vendor["base_url"].as_str().unwrap();
            let local = url.starts_with("http://127.0.0.1:");
            assert!((local || url.starts_with("https://")) && !url.ends_with('/'), "{name}: {url}");
            assert!(local || (vendor["key"].is_string() && vendor["optional"] == true), "{name} has no key");
            let token = adapter.fetch(0).unwrap();
            assert_eq!(
                token.map(|token| token.request.endpoint),
                vendor["endpoints"].as_object().map(|_| "token".into())
            );
        }
    }

    #[test]
    fn a_model_is_listed_by_one_of_the_policies_vendors() {
        let vendors = vendors();
        let patterns = |vendor: &Value| -> Vec<String> {
            let models = vendor["models"].as_array().cloned().unwrap_or_default();
            models.iter().map(|model| model.as_str().unwrap().to_owned()).collect()
        };
        let overlap = |one: &str, other: &str| match (one.strip_suffix('*'), other.strip_suffix('*')) {
            (Some(one), Some(other)) => one.starts_with(other) || other.starts_with(one),
            (Some(prefix), None) => other.starts_with(prefix),
            (None, Some(prefix)) => one.starts_with(prefix),
            (None, None) => one == other,
        };
        for (name, (vendor, _)) in &vendors {
            for (other_name, (other, _)) in vendors.range(name.clone()..).skip(1) {
                for (one, two) in
                    patterns(vendor).iter().flat_map(|one| patterns(other).into_iter().map(move |two| (one, two)))
                {
                    assert!(!overlap(one, &two), "{name}: {one}, {other_name}: {two}");
                }
            }
        }
    }

    #[test]
    fn vendors_have_what_their_files_say() {
        let vendors = vendors();
        let relay = |vendor: &str, operation: &str, dialect: &str| {
            let call = Call { operation: operation.to_owned(), dialect: dialect.to_owned(), ..Call::default() };
            vendors[vendor].1.relay(&call, &Pairs::default(), &Pairs::default())
        };
        let has = [
            ("openai", "chat", "openai-responses", "/responses"),
            ("openai", "moderations", "openai-chat", "/moderations"),
            ("deepseek", "chat", "openai-completions", "/beta/completions"),
            ("voyage", "rerank", "openai-chat", "/rerank"),
            ("xai", "images", "openai-chat", "/images/generations"),
            ("groq", "transcription", "openai-chat", "/audio/transcriptions"),
            ("mistral", "batches", "openai-chat", "/batch/jobs"),
            ("zhipu", "chat", "openai-chat", "/chat/completions"),
        ];
        for (vendor, operation, dialect, path) in has {
            let upstream = relay(vendor, operation, dialect).unwrap();
            assert_eq!((upstream.path.as_str(), matches!(upstream.body, Body::Splice(_))), (path, true), "{vendor}");
        }
        let lacks = [
            ("deepseek", "embeddings", "openai-chat"),
            ("voyage", "chat", "openai-chat"),
            ("zhipu", "chat", "openai-responses"),
            ("minimax", "chat", "openai-chat"), // errors under 200 have to be read
        ];
        for (vendor, operation, dialect) in lacks {
            assert!(relay(vendor, operation, dialect).is_err(), "{vendor} {operation} {dialect}");
        }
    }
}
