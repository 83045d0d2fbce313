// SPDX-License-Identifier: Apache-2.0
//! Speaks Google's Gemini API on AI Studio (<https://ai.google.dev/api>) and on Vertex AI
//! (<https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest>), and Anthropic's models on Vertex AI. README.md
//! says what is mapped.

mod conversation;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use penstock_sdk::dialect::read_request;
use penstock_sdk::dialects::anthropic_messages::{self, AnthropicMessages};
use penstock_sdk::dialects::codec::{Codec, Operation};
use penstock_sdk::dialects::gemini;
use penstock_sdk::dialects::ir::Request;
use penstock_sdk::dialects::task::{Embed, Task};
use penstock_sdk::passthrough::passthrough;
use penstock_sdk::prelude::{
    Adapter, Blob, Body, Call, Config, Credentials, Fault, FaultClass, Fetching, Framing, Issue, Pairs, Plan, Secret,
    TOKEN, Upstream, Wants,
};
use penstock_sdk::relayed::{ALIKE, relayed};
use serde_json::{Map, Value, json};

use conversation::Conversation;

/// The secret that holds the API key of AI Studio, or the private key of the service account of Vertex AI.
const KEY: &str = "key";
/// The endpoint where access tokens are given out, and its address: a claim names it.
const TOKEN_ENDPOINT: &str = "token";
const TOKEN_AUDIENCE: &str = "https://oauth2.googleapis.com/token";
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// Seconds for which a token is asked for; the API gives no more.
const TOKEN_SECONDS: u64 = 3600;
/// The endpoint of conversations over a WebSocket, which are not below the API's version.
const LIVE_ENDPOINT: &str = "live";
/// The version of Anthropic's API that Vertex AI wants to be told, and the member that tells it.
const ANTHROPIC_VERSION: &str = "vertex-2023-10-16";
const VERSION: &str = "anthropic_version";
const BETA: &str = "anthropic-beta";

/// A body, and the paths of what it has no place for.
type Written = (Vec<u8>, Vec<String>);

/// What operators configure.
#[derive(Debug, Config)]
pub struct Options {
    /// Vertex AI; without it the vendor is Google AI Studio.
    #[config(default)]
    vertex: Option<Vertex>,
}

/// A project on Vertex AI.
#[derive(Debug, Config)]
pub struct Vertex {
    /// Id of the project.
    #[config(min = 1)]
    project: String,
    /// Location of the models; the base URL must be of the same one.
    #[config(default = "global")]
    location: String,
    /// Whose models they are.
    #[config(default)]
    publisher: Publisher,
    /// Name of the service account, an address.
    #[config(min = 1)]
    client_email: String,
}

/// Whose models they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Config)]
pub enum Publisher {
    /// Google's.
    #[default]
    Google,
    /// Anthropic's.
    Anthropic,
}

/// The adapter.
#[derive(Debug)]
pub struct Gemini {
    vertex: Option<Vertex>,
    has_key: bool,
}

impl Adapter for Gemini {
    type Config = Options;
    type Exchange = Conversation;

    const DIALECTS: &'static [&'static str] = &[gemini::NAME, anthropic_messages::NAME];
    const OPERATIONS: &'static [&'static str] =
        &["chat", "count_tokens", "embeddings", "files", "batches", "stored", "realtime", "passthrough"];
    const FEATURES: &'static [&'static str] =
        &["streaming", "tools", "reasoning", "image-input", "document-input", "audio-input", "json", "caching"];
    const SECRETS: &'static [&'static str] = &[KEY];

    fn new(options: Options) -> Result<Self, Vec<Issue>> {
        let has_key = Secret::open(KEY).is_some();
        let mut issues = Vec::new();
        if let Some(vertex) = &options.vertex {
            let ids = [("project", &vertex.project), ("location", &vertex.location)];
            for (name, _) in ids.into_iter().filter(|(_, id)| !gemini::is_id(id)) {
                issues.push(Issue::new(format!("vertex.{name}"), "letters, digits, `.`, `_`, `:`, `-`"));
            }
            if !has_key {
                let text = "no key is granted: give the private key of the service account as `key`, in PEM";
                issues.push(Issue::new("", text));
            }
        }
        if issues.is_empty() { Ok(Self { vertex: options.vertex, has_key }) } else { Err(issues) }
    }

    fn wants(&self) -> Wants {
        let members = gemini::NAMING_MEMBERS.into_iter().chain([VERSION]);
        Wants::nothing().response_headers(["retry-after"]).headers([BETA]).members(members).alike(ALIKE)
    }

    fn relay(&self, call: &Call, headers: &Pairs, members: &Pairs) -> Result<Upstream, Fault> {
        let upstream = match call.operation.as_str() {
            "passthrough" => passthrough(call)?,
            "files" | "batches" | "stored" => self.resource(call)?,
            "realtime" => self.live(call)?,
            _ if call.dialect != self.codec().name() => {
                return Err(unsupported(&format!("the configured models do not speak {}", call.dialect)));
            }
            "embeddings" if self.vertex.is_some() => {
                return Err(unsupported("Vertex AI makes vectors at addresses of its own"));
            }
            operation if self.is_anthropic() => {
                // The model stands in the path, but for a count.
                let model = if operation == "count_tokens" { json!(call.model).to_string() } else { String::new() };
                let mut edits = vec![("model".to_owned(), model)];
                if members.get(VERSION).is_none() {
                    edits.push((VERSION.to_owned(), json!(ANTHROPIC_VERSION).to_string()));
                }
                self.ask(call, headers)?.body(Body::Splice(edits))
            }
            _ => self.relay_gemini(call, members)?,
        };
        Ok(self.authorised(upstream))
    }

    fn open(&self, call: &Call, headers: &Pairs, body: &[u8], _: &[Blob]) -> Result<(Conversation, Plan), Fault> {
        let operation = Operation::from_name(&call.operation).filter(|operation| operation.is_canonical());
        let operation = operation.ok_or_else(|| unsupported(&format!("{} cannot be translated", call.operation)))?;
        let (upstream, (body, dropped)) = match operation {
            Operation::Chat => (self.ask(call, headers)?, self.chat(&read_request(call, body)?)),
            Operation::CountTokens => (self.ask(call, headers)?, self.count(&read_request(call, body)?)),
            _ => {
                let wrong = |why| Fault::new(FaultClass::InvalidRequest, format!("the request cannot be read: {why}"));
                let Task::Embed(mut task) = Task::from_json(operation, body).map_err(wrong)? else {
                    return Err(unsupported(&format!("this vendor has no {} here", call.operation)));
                };
                call.model.clone_into(&mut task.model);
                self.vectors(task)?
            }
        };
        let upstream = upstream.body(Body::Bytes(body)).dropped(dropped);
        Ok((Conversation::new(self.codec(), operation), Plan::Ask(self.authorised(upstream))))
    }

    fn reject(&self, status: u16, headers: &Pairs, body: &[u8]) -> Fault {
        self.codec().decode_fault(status, &|name| headers.get(name), body)
    }
}

impl Credentials for Gemini {
    /// A service account signs what it asks for. Source:
    /// <https://developers.google.com/identity/protocols/oauth2/service-account#httprest>.
    fn fetch(&self, time: u64) -> Result<Option<Fetching>, Fault> {
        let Some(Vertex { client_email, .. }) = &self.vertex else { return Ok(None) };
        let (iat, exp) = (time, time + TOKEN_SECONDS);
        let claims = json!({"iss": client_email, "scope": SCOPE, "aud": TOKEN_AUDIENCE, "iat": iat, "exp": exp});
        let part = |json: &Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
        let unsigned = format!("{}.{}", part(&json!({"alg": "RS256", "typ": "JWT"})), part(&claims));
        let wrong = "the key of this vendor is no RSA private key in PEM, as a service account of Google Cloud has it";
        let signature = Secret::open(KEY).and_then(|key| key.rs256(unsigned.as_bytes()));
        let signature = signature.ok_or_else(|| Fault::new(FaultClass::Authentication, wrong))?;
        let grant = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer";
        let signature = BASE64_URL_SAFE_NO_PAD.encode(signature);
        let form = format!("grant_type={grant}&assertion={unsigned}.{signature}");
        let request = Upstream::post("/token")
            .endpoint(TOKEN_ENDPOINT)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::Bytes(form.into_bytes()));
        Ok(Some(Fetching {
            request,
            token: "/access_token".to_owned(),
            expires_in: "/expires_in".to_owned(),
            expires_at: String::new(),
            lasts: TOKEN_SECONDS,
        }))
    }
}

impl Gemini {
    fn is_anthropic(&self) -> bool {
        self.vertex.as_ref().is_some_and(|vertex| vertex.publisher == Publisher::Anthropic)
    }

    /// What the models speak.
    fn codec(&self) -> &'static dyn Codec {
        if self.is_anthropic() { &AnthropicMessages } else { &gemini::Gemini }
    }

    /// The project's path; "" on AI Studio.
    fn project(&self) -> String {
        let path = |vertex: &Vertex| format!("/projects/{}/locations/{}", vertex.project, vertex.location);
        self.vertex.as_ref().map(path).unwrap_or_default()
    }

    fn model_path(&self, model: &str, verb: &str) -> String {
        let publisher = match &self.vertex {
            None => "",
            Some(_) if self.is_anthropic() => "/publishers/anthropic",
            Some(_) => "/publishers/google",
        };
        gemini::model_path(&format!("{}{publisher}", self.project()), model, verb)
    }

    fn authorised(&self, upstream: Upstream) -> Upstream {
        match &self.vertex {
            Some(_) => upstream.secret_header("authorization", "Bearer ", TOKEN),
            None if self.has_key => upstream.secret_header("x-goog-api-key", "", KEY),
            None => upstream,
        }
    }

    /// A conversation or a count, without its body.
    fn ask(&self, call: &Call, headers: &Pairs) -> Result<Upstream, Fault> {
        let counts = call.operation == "count_tokens";
        if !counts && call.operation != "chat" {
            return Err(unsupported(&format!("this vendor has no {} here", call.operation)));
        }
        let (anthropic, streaming) = (self.is_anthropic(), call.streaming && !counts);
        let model = if anthropic && counts { "count-tokens" } else { call.model.as_str() };
        let verb = match (anthropic, counts, streaming) {
            (true, _, false) => "rawPredict",
            (true, _, true) => "streamRawPredict",
            (false, true, _) => "countTokens",
            (false, false, false) => "generateContent",
            (false, false, true) => "streamGenerateContent",
        };
        let mut upstream = Upstream::post(self.model_path(model, verb)).framing(Framing::sse_if(streaming));
        if streaming && !anthropic {
            upstream = upstream.query("alt", "sse");
        }
        match headers.get(BETA).filter(|_| anthropic) {
            Some(beta) => Ok(upstream.header(BETA, beta)),
            None => Ok(upstream),
        }
    }

    /// A caller of the same dialect: its verb and its query stay, the model becomes the target's wherever it is named.
    fn relay_gemini(&self, call: &Call, members: &Pairs) -> Result<Upstream, Fault> {
        let path = call.fact("path").unwrap_or_default();
        let verb = gemini::verb(path).ok_or_else(|| unsupported("this path names no model"))?;
        let mut upstream = relayed(call, path, &self.model_path(&call.model, verb))?;
        if call.streaming && !gemini::wants_events(call.fact("query").unwrap_or_default()) {
            upstream.framing = Framing::JsonArray;
        }
        let edits = gemini::rename(&call.model, &|name| members.get(name))?;
        Ok(upstream.body(Body::Splice(edits)))
    }

    /// What the vendor keeps.
    fn resource(&self, call: &Call) -> Result<Upstream, Fault> {
        let path = call.fact("path").unwrap_or_default();
        let resource = gemini::resource_path(path);
        let is_studios = call.operation == "files" || resource.starts_with("/models/");
        if call.dialect != gemini::NAME || path.starts_with("/upload") || (self.vertex.is_some() && is_studios) {
            return Err(unsupported(&format!("this vendor has no {} of this kind here", call.operation)));
        }
        relayed(call, path, &format!("{}{resource}", self.project()))
    }

    /// A conversation over a WebSocket. The model is named in its first message, and stays the caller's.
    fn live(&self, call: &Call) -> Result<Upstream, Fault> {
        if call.dialect != gemini::NAME || self.is_anthropic() {
            return Err(unsupported("conversations of another dialect cannot be held with this vendor"));
        }
        let path = call.fact("path").unwrap_or_default();
        let service = path.strip_prefix("/ws").unwrap_or(path).trim_start_matches('/');
        let mut upstream = relayed(call, path, &format!("/ws/{service}"))?.endpoint(LIVE_ENDPOINT);
        upstream.query.retain(|placed| placed.name != "model");
        Ok(upstream)
    }

    fn chat(&self, request: &Request) -> Written {
        let (body, dropped) = self.codec().encode_request(request);
        (if self.is_anthropic() { for_vertex(&body, false) } else { body }, dropped)
    }

    fn count(&self, request: &Request) -> Written {
        if self.is_anthropic() {
            let (body, dropped) = anthropic_messages::encode_count_request(request);
            return (for_vertex(&body, true), dropped);
        }
        gemini::encode_count_request(request, self.vertex.is_some())
    }

    fn vectors(&self, task: Embed) -> Result<(Upstream, Written), Fault> {
        if self.is_anthropic() {
            return Err(unsupported("Anthropic's API has no embeddings: name a model of a vendor that offers them"));
        }
        let path = |verb: &str| Upstream::post(self.model_path(&task.model, verb));
        if self.vertex.is_some() {
            let (verb, body, dropped) = gemini::encode_vertex_request(&task)?;
            return Ok((path(verb), (body, dropped)));
        }
        let upstream = path("batchEmbedContents");
        Ok((upstream, gemini::Gemini.encode_task(Operation::Embeddings, &Task::Embed(task))?))
    }
}

/// A request of Anthropic's API as Vertex AI takes it: the model stands in the path, but for a count.
fn for_vertex(body: &[u8], keeps_model: bool) -> Vec<u8> {
    let mut body: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    if !keeps_model {
        body.shift_remove("model");
    }
    body.insert(VERSION.to_owned(), json!(ANTHROPIC_VERSION));
    Value::Object(body).to_string().into_bytes()
}

fn unsupported(message: &str) -> Fault {
    Fault::new(FaultClass::Unsupported, message)
}

penstock_sdk::adapter!(Gemini, credentials);

#[cfg(test)]
mod tests;
