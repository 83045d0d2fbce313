// SPDX-License-Identifier: Apache-2.0
//! Speaks OpenAI's API as Azure serves it (<https://learn.microsoft.com/azure/ai-foundry/openai/reference>): a path for each
//! deployment with a version in the query, or the newer paths below `/openai/v1`; with a key, or with a token of Entra ID.

use std::collections::BTreeMap;
use std::sync::Arc;

use penstock_sdk::dialect::{read_fault, read_request};
use penstock_sdk::dialects::codec::{Codec, Operation};
use penstock_sdk::dialects::estimate::input_tokens;
use penstock_sdk::dialects::openai_chat::ways::{self, AnswerWays, Edits, MemberWays};
use penstock_sdk::dialects::openai_chat::{NAME, OpenAiChat};
use penstock_sdk::dialects::splice::Members;
use penstock_sdk::dialects::task::Task;
use penstock_sdk::passthrough::passthrough;
use penstock_sdk::prelude::{
    Adapter, Blob, Body, Call, Config, Credentials, Event, Fault, FaultClass, Fetching, Framing, Issue, Pairs, Placed,
    Plan, Secret, TOKEN, Upstream, Usage, Wants,
};
use penstock_sdk::relayed::{ALIKE, relayed};
use serde_json::Value;

/// The secret that holds the key of the resource, or the client secret of the application in Entra ID.
const KEY: &str = "key";

/// The endpoint of the policy that gives tokens.
const TOKEN_ENDPOINT: &str = "token";

/// Where the newer paths begin.
const V1: &str = "/openai/v1";

/// The response headers by which Azure tells how long to wait.
const WAIT_HEADERS: [&str; 6] = [
    "retry-after",
    "retry-after-ms",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
];

/// What operators configure.
#[derive(Debug, Config)]
pub struct Options {
    /// Which of Azure's paths.
    #[config(default)]
    api: Api,
    /// `api-version` in the query; "" for that of the API: `2024-10-21` for deployments, `2024-05-01-preview` for models, none
    /// for v1.
    #[config(default)]
    api_version: String,
    /// Deployments that are not called as their model: model = deployment.
    #[config(default)]
    deployments: BTreeMap<String, String>,
    /// An application in Entra ID that asks in place of a key.
    entra: Option<Entra>,
    /// Members of a chat request that the deployments call otherwise: OpenAI's name = theirs.
    #[config(default)]
    rename: BTreeMap<String, String>,
    /// Members of a chat request that they refuse.
    #[config(default)]
    drop: Vec<String>,
}

/// Which of Azure's paths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Config)]
enum Api {
    /// `/openai/deployments/NAME/…`.
    #[default]
    Deployments,
    /// `/openai/v1/…`.
    V1,
    /// `/models/…`, which serves models of other makers, too.
    Models,
}

/// An application in Entra ID; its client secret is the key.
#[derive(Debug, Config)]
struct Entra {
    /// Id of the directory.
    #[config(min = 1)]
    tenant: String,
    /// Id of the application.
    #[config(min = 1)]
    client_id: String,
    /// What the token is for.
    #[config(default = "https://cognitiveservices.azure.com/.default")]
    scope: String,
}

/// The adapter.
#[derive(Debug)]
pub struct AzureOpenAi {
    options: Options,
    ways: MemberWays,
}

impl Adapter for AzureOpenAi {
    type Config = Options;
    type Exchange = ways::Answer;

    const DIALECTS: &'static [&'static str] = &[NAME, "openai-responses", "openai-completions"];
    const OPERATIONS: &'static [&'static str] = &[
        "chat",
        "count_tokens",
        "embeddings",
        "images",
        "image_edits",
        "videos",
        "speech",
        "transcription",
        "translation",
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
        let mut issues = Vec::new();
        if Secret::open(KEY).is_none() {
            let text = "no key is granted: give the key of the resource, or a client secret, as `key`";
            issues.push(Issue::new("", text));
        }
        if options.entra.as_ref().is_some_and(|entra| !is_name(&entra.tenant)) {
            issues.push(Issue::new("entra.tenant", "an id or a domain: letters, digits, `.`, `_`, `-`"));
        }
        for (model, _) in options.deployments.iter().filter(|(_, deployment)| !is_name(deployment)) {
            issues.push(Issue::new(format!("deployments.{model}"), "letters, digits, `.`, `_`, `-`"));
        }
        if !issues.is_empty() {
            return Err(issues);
        }
        let ways = MemberWays { rename: options.rename.clone(), drop: options.drop.clone(), ..MemberWays::default() };
        Ok(Self { options, ways })
    }

    fn wants(&self) -> Wants {
        Wants::nothing().response_headers(WAIT_HEADERS).members(self.ways.names()).alike(ALIKE)
    }

    fn relay(&self, call: &Call, _: &Pairs, members: &Pairs) -> Result<Upstream, Fault> {
        if call.operation == "passthrough" {
            let upstream = passthrough(call)?;
            return Ok(self.authorised(upstream));
        }
        let place = match (call.operation.as_str(), call.dialect.as_str()) {
            ("chat", "openai-responses") | ("stored", _) => "responses",
            ("chat", "openai-completions") => "completions",
            (operation, _) => operation,
        };
        let deployment = self.deployment(&call.model);
        let (ours, theirs) = self.path(place, deployment)?;
        let mut upstream = self.authorised(relayed(call, ours, &theirs)?);
        if upstream.body != Body::None {
            let Edits { mut edits, dropped } = self.edits(place, &|name| members.get(name));
            if Operation::from_name(&call.operation).is_some_and(Operation::names_model) {
                edits.push(("model".to_owned(), Value::from(deployment).to_string()));
            }
            upstream = upstream.body(Body::Splice(edits)).dropped(dropped);
        } else if place == "realtime" {
            // Here the deployment has a parameter of its own, but for v1.
            let name = if self.options.api == Api::V1 { "model" } else { "deployment" };
            upstream.query.retain(|placed| placed.name != "model");
            upstream = upstream.query(name, deployment);
        }
        Ok(upstream)
    }

    fn open(&self, call: &Call, _: &Pairs, body: &[u8], _: &[Blob]) -> Result<(ways::Answer, Plan), Fault> {
        let operation = Operation::from_name(&call.operation).filter(|operation| operation.is_canonical());
        let operation = operation.ok_or_else(|| unsupported(&format!("{} cannot be translated", call.operation)))?;
        let answer = ways::Answer::new(&OpenAiChat, operation, Arc::new(AnswerWays::default()));
        if operation == Operation::CountTokens {
            let input = input_tokens(&read_request(call, body)?);
            return Ok((answer, Plan::Answer(vec![Event::Usage(Usage { input, ..Usage::default() })])));
        }
        let deployment = self.deployment(&call.model);
        let (_, path) = self.path(operation.name(), deployment)?;
        let mut upstream = Upstream::post(path);
        let (body, mut dropped) = if operation == Operation::Chat {
            let mut request = read_request(call, body)?;
            deployment.clone_into(&mut request.model);
            request.stream_usage = request.streaming;
            upstream = upstream.framing(Framing::sse_if(request.streaming));
            OpenAiChat.encode_request(&request)
        } else {
            let wrong = |why| Fault::new(FaultClass::InvalidRequest, format!("the request cannot be read: {why}"));
            let mut task = Task::from_json(operation, body).map_err(wrong)?;
            deployment.clone_into(task.model_mut());
            OpenAiChat.encode_task(operation, &task)?
        };
        let members = Members::index(&body)?;
        let Edits { edits, dropped: more } = self.edits(operation.name(), &|name| members.get(name));
        dropped.extend(more);
        let edits: Vec<_> = edits.iter().map(|(name, json)| (name.as_str(), json.as_str())).collect();
        let upstream = upstream.body(Body::Bytes(members.splice(&edits))).dropped(dropped);
        Ok((answer, Plan::Ask(self.authorised(upstream))))
    }

    fn reject(&self, status: u16, headers: &Pairs, body: &[u8]) -> Fault {
        read_fault(&OpenAiChat, status, headers, body)
    }
}

impl Credentials for AzureOpenAi {
    /// Its query is the form that Entra ID wants: the host sends the query of a request for a credential that has no body and
    /// the media type of a form as that form.
    fn fetch(&self, _: u64) -> Result<Option<Fetching>, Fault> {
        let fetching = self.options.entra.as_ref().map(|entra| {
            let mut request = Upstream::post(format!("/{}/oauth2/v2.0/token", entra.tenant))
                .endpoint(TOKEN_ENDPOINT)
                .header("content-type", "application/x-www-form-urlencoded")
                .query("grant_type", "client_credentials")
                .query("client_id", &entra.client_id)
                .query("scope", &entra.scope);
            request.query.push(Placed::secret("client_secret", "", KEY));
            Fetching {
                request,
                token: "/access_token".to_owned(),
                expires_in: "/expires_in".to_owned(),
                expires_at: String::new(),
                lasts: 3600,
            }
        });
        Ok(fetching)
    }
}

impl AzureOpenAi {
    fn deployment<'m>(&'m self, model: &'m str) -> &'m str {
        self.options.deployments.get(model).map_or(model, String::as_str)
    }

    fn edits<'m>(&self, place: &str, member: &dyn Fn(&str) -> Option<&'m str>) -> Edits {
        if place == "chat" { self.ways.edits(member) } else { Edits::default() }
    }

    /// OpenAI's path of an operation, and Azure's.
    fn path(&self, place: &str, deployment: &str) -> Result<(&'static str, String), Fault> {
        let ours = match place {
            "chat" => "/chat/completions",
            "responses" => "/responses",
            "completions" => "/completions",
            "embeddings" => "/embeddings",
            "images" => "/images/generations",
            "image_edits" => "/images/edits",
            "videos" => "/videos",
            "speech" => "/audio/speech",
            "transcription" => "/audio/transcriptions",
            "translation" => "/audio/translations",
            "files" => "/files",
            "batches" => "/batches",
            "realtime" => "/realtime",
            _ => return Err(unsupported(&format!("Azure has no {place}: name a model of another vendor"))),
        };
        let theirs = match (self.options.api, place) {
            // The older paths have no version that has these and is not a preview.
            (Api::V1, _) | (Api::Deployments, "responses" | "videos") => format!("{V1}{ours}"),
            (Api::Models, "chat" | "embeddings") => format!("/models{ours}"),
            (Api::Models, _) => {
                return Err(unsupported(&format!("these paths of Azure have no {place}: set api = \"v1\"")));
            }
            (Api::Deployments, "files" | "batches" | "realtime") => format!("/openai{ours}"),
            (Api::Deployments, _) if !is_name(deployment) => {
                let message = format!("no deployment can be called {deployment:?}");
                return Err(Fault::new(FaultClass::ModelNotFound, message));
            }
            (Api::Deployments, _) => format!("/openai/deployments/{deployment}{ours}"),
        };
        Ok((ours, theirs))
    }

    /// With the version, unless the caller has named one or the path needs none, and the key or the token.
    fn authorised(&self, mut upstream: Upstream) -> Upstream {
        let is_named = upstream.query.iter().any(|placed| placed.name == "api-version");
        let needs_none = self.options.api != Api::V1 && upstream.path.starts_with(V1);
        let version = match (self.options.api_version.as_str(), self.options.api) {
            ("", Api::Deployments) => "2024-10-21",
            ("", Api::Models) => "2024-05-01-preview",
            (stated, _) => stated,
        };
        if !is_named && !needs_none && !version.is_empty() {
            upstream = upstream.query("api-version", version);
        }
        match self.options.entra {
            Some(_) => upstream.secret_header("authorization", "Bearer ", TOKEN),
            None => upstream.secret_header("api-key", "", KEY),
        }
    }
}

fn is_name(text: &str) -> bool {
    let admitted = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !text.is_empty() && !text.starts_with('.') && text.bytes().all(admitted)
}

fn unsupported(message: &str) -> Fault {
    Fault::new(FaultClass::Unsupported, message)
}

penstock_sdk::adapter!(AzureOpenAi, credentials);

#[cfg(test)]
mod tests {
    use penstock_sdk::adapter::PlacedValue;
    use penstock_sdk::config::Reader;
    use penstock_sdk::testkit::{grant, run_cases};
    use serde_json::json;

    use super::{Adapter, AzureOpenAi, Credentials, Options};

    #[test]
    fn golden_cases_pass() {
        run_cases::<AzureOpenAi>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }

    #[test]
    fn a_token_of_entra_id_is_asked_for_with_a_form() {
        grant([("key", "client-secret")]);
        let made = |config| Reader::read::<Options>(&config).and_then(AzureOpenAi::new).unwrap();
        assert_eq!(made(json!({})).fetch(0), Ok(None));
        let adapter = made(json!({"entra": {"tenant": "contoso.example", "client_id": "app"}}));
        let fetching = adapter.fetch(0).unwrap().unwrap();
        assert_eq!(
            (fetching.request.endpoint.as_str(), fetching.request.path.as_str()),
            ("token", "/contoso.example/oauth2/v2.0/token")
        );
        let secret = fetching.request.query.iter().find(|placed| placed.name == "client_secret").unwrap();
        assert_eq!(secret.value, PlacedValue::Secret { prefix: String::new(), secret: "key".to_owned() });
        assert_eq!((fetching.token.as_str(), fetching.expires_in.as_str()), ("/access_token", "/expires_in"));
    }
}
