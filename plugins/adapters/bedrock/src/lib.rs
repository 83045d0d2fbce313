// SPDX-License-Identifier: Apache-2.0
//! Speaks Amazon Bedrock's runtime API (<https://docs.aws.amazon.com/bedrock/latest/APIReference>): Converse for every model
//! and caller, and for callers of Anthropic's API Claude's own. README.md says what is mapped.

mod exchange;
mod sigv4;

use std::collections::BTreeMap;

use penstock_sdk::dialect::{read_fault, read_request};
use penstock_sdk::dialects::anthropic_messages::{self, AnthropicMessages};
use penstock_sdk::dialects::bedrock_converse::{self, BedrockConverse, ToolNames, encode_count_request};
use penstock_sdk::dialects::codec::Codec;
use penstock_sdk::passthrough::passthrough;
use penstock_sdk::prelude::{
    Adapter, Blob, Body, Call, Config, Fault, FaultClass, Framing, Issue, Pairs, Plan, Request, Secret, Signer,
    Unsigned, Upstream, Wants,
};
use penstock_sdk::signing::percent_encoded;
use serde_json::{Value, json};

pub use exchange::BedrockExchange;
use sigv4::Keys;

/// The secret that holds an API key of Bedrock, sent as it is.
const KEY: &str = "key";
/// The secret that requests are signed with.
const SECRET_ACCESS_KEY: &str = "secret_access_key";
/// The secret that goes with temporary credentials.
const SESSION_TOKEN: &str = "session_token";

/// What a caller may say in headers: guardrails and the like, where the body belongs to the model.
const OWN_HEADERS: [&str; 6] = [
    "accept",
    "x-amzn-bedrock-guardrailidentifier",
    "x-amzn-bedrock-guardrailversion",
    "x-amzn-bedrock-performanceconfig-latency",
    "x-amzn-bedrock-service-tier",
    "x-amzn-bedrock-trace",
];

/// Version of Claude's API within Bedrock.
const ANTHROPIC_VERSION: &str = "bedrock-2023-05-31";

/// The operator's choices.
#[derive(Debug, Config)]
pub struct Options {
    /// Id of the access key whose secret is granted as `secret_access_key`.
    #[config(default)]
    access_key_id: String,
    /// Region to sign for; that of the base URL by default.
    #[config(default)]
    region: String,
    /// Names of resources that do not tell which model stands behind them, and the model: application inference profiles,
    /// imported models.
    #[config(default)]
    profiles: BTreeMap<String, String>,
    /// Beta features to ask Claude for.
    #[config(default)]
    beta: Vec<String>,
}

/// The adapter.
#[derive(Debug)]
pub struct Bedrock {
    options: Options,
    /// Requests are signed with these, unless there is an API key.
    keys: Option<Keys>,
}

impl Adapter for Bedrock {
    type Config = Options;
    type Exchange = BedrockExchange;

    const DIALECTS: &'static [&'static str] = &[bedrock_converse::NAME, anthropic_messages::NAME];
    const OPERATIONS: &'static [&'static str] = &["chat", "count_tokens", "passthrough"];
    const FEATURES: &'static [&'static str] =
        &["streaming", "tools", "reasoning", "image-input", "document-input", "json", "caching"];
    const SECRETS: &'static [&'static str] = &[KEY, SECRET_ACCESS_KEY, SESSION_TOKEN];

    fn new(options: Options) -> Result<Self, Vec<Issue>> {
        if Secret::open(KEY).is_some() {
            return Ok(Self { options, keys: None });
        }
        let Some(secret) = Secret::open(SECRET_ACCESS_KEY) else {
            let message = "grant the secret `key` (an API key), or `secret_access_key` with `access_key_id`";
            return Err(vec![Issue::new("", message)]);
        };
        if options.access_key_id.is_empty() {
            return Err(vec![Issue::new("access_key_id", "is required with the secret `secret_access_key`")]);
        }
        let (access_key_id, region) = (options.access_key_id.clone(), options.region.clone());
        let keys = Keys { access_key_id, region, secret, session: Secret::open(SESSION_TOKEN) };
        Ok(Self { options, keys: Some(keys) })
    }

    fn wants(&self) -> Wants {
        Wants::nothing().headers(OWN_HEADERS).response_headers(["x-amzn-errortype", "retry-after"])
    }

    fn relay(&self, call: &Call, headers: &Pairs, _: &Pairs) -> Result<Upstream, Fault> {
        let upstream = match (call.operation.as_str(), call.dialect.as_str()) {
            ("passthrough", _) => with_own_headers(passthrough(call)?, headers),
            (_, bedrock_converse::NAME) => Self::converse(call)?.body(Body::Splice(Vec::new())),
            // A stream comes in frames that the caller cannot read.
            ("chat", anthropic_messages::NAME) if self.is_claude(call) && !call.streaming => {
                let mut edits = vec![("model".to_owned(), String::new()), ("stream".to_owned(), String::new())];
                edits.extend(self.claude_members().map(|(name, value)| (name.to_owned(), value.to_string())));
                with_own_headers(invoke(call), headers).body(Body::Splice(edits))
            }
            _ => return Err(unsupported(call)),
        };
        Ok(self.authorised(upstream))
    }

    fn open(&self, call: &Call, headers: &Pairs, body: &[u8], _: &[Blob]) -> Result<(BedrockExchange, Plan), Fault> {
        let mut request = read_request(call, body)?;
        if let Some(model) = self.options.profiles.get(&call.model) {
            request.model.clone_from(model);
        }
        if call.operation == "chat" && call.dialect == anthropic_messages::NAME && self.is_claude(call) {
            let (body, dropped) = self.claude_body(&request);
            let upstream = with_own_headers(invoke(call), headers).body(Body::Bytes(body)).dropped(dropped);
            return Ok((BedrockExchange::claude(), Plan::Ask(self.authorised(upstream))));
        }
        let upstream = Self::converse(call)?;
        let counts = call.operation == "count_tokens";
        let (body, dropped) =
            if counts { encode_count_request(&request) } else { BedrockConverse.encode_request(&request) };
        let upstream = self.authorised(upstream.body(Body::Bytes(body)).dropped(dropped));
        Ok((BedrockExchange::converse(ToolNames::of(&request)), Plan::Ask(upstream)))
    }

    fn reject(&self, status: u16, headers: &Pairs, body: &[u8]) -> Fault {
        read_fault(&BedrockConverse, status, headers, body)
    }
}

impl Signer for Bedrock {
    fn sign(&self, request: &Unsigned) -> Result<Vec<(String, String)>, Fault> {
        self.keys.as_ref().map_or_else(|| Ok(Vec::new()), |keys| keys.sign(request))
    }
}

impl Bedrock {
    /// A call of the Converse API, without its body.
    fn converse(call: &Call) -> Result<Upstream, Fault> {
        let (verb, framing) = match call.operation.as_str() {
            "chat" if call.streaming => ("converse-stream", Framing::AwsEventStream),
            "chat" => ("converse", Framing::Whole),
            "count_tokens" => ("count-tokens", Framing::Whole),
            _ => return Err(unsupported(call)),
        };
        Ok(Upstream::post(path(&call.model, verb)).framing(framing))
    }

    fn is_claude(&self, call: &Call) -> bool {
        self.options.profiles.get(&call.model).unwrap_or(&call.model).contains("anthropic.claude")
    }

    /// Members that a body for Claude has here and nowhere else.
    fn claude_members(&self) -> impl Iterator<Item = (&'static str, Value)> {
        let beta = Some(&self.options.beta).filter(|beta| !beta.is_empty());
        let version = ("anthropic_version", json!(ANTHROPIC_VERSION));
        std::iter::once(version).chain(beta.map(|beta| ("anthropic_beta", json!(beta))))
    }

    /// A request as Claude's own API has it; the model and whether to stream stand in the path.
    fn claude_body(&self, request: &Request) -> (Vec<u8>, Vec<String>) {
        let (body, dropped) = AnthropicMessages.encode_request(request);
        let mut body: Value = serde_json::from_slice(&body).unwrap_or_default();
        if let Value::Object(members) = &mut body {
            members.retain(|name, _| name != "model" && name != "stream");
            members.extend(self.claude_members().map(|(name, value)| (name.to_owned(), value)));
        }
        (body.to_string().into_bytes(), dropped)
    }

    /// With the API key; what is signed gets its signature later, and the token that goes with it now.
    fn authorised(&self, upstream: Upstream) -> Upstream {
        match &self.keys {
            None => upstream.secret_header("authorization", "Bearer ", KEY),
            Some(keys) if keys.session.is_some() => upstream.secret_header(sigv4::SESSION_HEADER, "", SESSION_TOKEN),
            Some(_) => upstream,
        }
    }
}

/// A call of a model's own API, without its body.
fn invoke(call: &Call) -> Upstream {
    match call.streaming {
        true => Upstream::post(path(&call.model, "invoke-with-response-stream")).framing(Framing::AwsEventStream),
        false => Upstream::post(path(&call.model, "invoke")),
    }
}

/// Names of models hold colons, and those of resources slashes.
fn path(model: &str, verb: &str) -> String {
    format!("/model/{}/{verb}", percent_encoded(model, ""))
}

fn with_own_headers(upstream: Upstream, headers: &Pairs) -> Upstream {
    let stated = headers.iter().filter(|(name, _)| OWN_HEADERS.contains(name));
    stated.fold(upstream, |upstream, (name, value)| upstream.header(name, value))
}

fn unsupported(call: &Call) -> Fault {
    let message =
        format!("Bedrock's runtime API has no {} that can be translated from {}", call.operation, call.dialect);
    Fault::new(FaultClass::Unsupported, message)
}

penstock_sdk::adapter!(Bedrock, signing);

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::Bedrock;

    #[test]
    fn golden_cases_pass() {
        penstock_sdk::testkit::run_cases::<Bedrock>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }

    /// Recorded material beside the worktrees, which is not ours to copy: below `PENSTOCK_FIXTURES` or `shared/fixtures`.
    #[allow(clippy::print_stderr, reason = "a test that compares nothing says so")]
    pub(crate) fn recorded(path: &str) -> Option<PathBuf> {
        let near = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("shared/fixtures"));
        let stated = std::env::var_os("PENSTOCK_FIXTURES").map(PathBuf::from);
        let found = stated.into_iter().chain(near).map(|folder| folder.join(path)).find(|found| found.exists());
        if found.is_none() {
            eprintln!("SKIPPED: no {path} under $PENSTOCK_FIXTURES or shared/fixtures");
        }
        found
    }
}
