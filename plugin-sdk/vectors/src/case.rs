// SPDX-License-Identifier: Apache-2.0
//! The format of a golden case.

use std::collections::BTreeMap;
use std::path::Path;

use penstock_dialects::framing::event_stream;
use serde::Deserialize;
use serde_json::{Map, Value};

/// One case.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Name; the stem of the file by default.
    #[serde(default)]
    pub name: String,
    /// What the case shows.
    #[serde(default)]
    pub about: String,
    /// Whether the case travels in the component and is run whenever a host loads it.
    #[serde(default)]
    pub self_test: bool,
    /// Configuration of the plugin.
    #[serde(default = "empty_object")]
    pub config: Value,
    /// Secrets that are granted, with values for the test.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    /// What the plugin is told of the request.
    #[serde(default)]
    pub call: Call,
    /// What is asked of it.
    pub ask: Ask,
    /// Parts of the outcome.
    #[serde(default)]
    pub expect: Map<String, Value>,
}

impl Case {
    /// Reads a case file, and the stream files that it names.
    ///
    /// # Errors
    /// A text that names the file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let refuse = |why: String| format!("{}: {why}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
        let mut case: Self = serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
        if case.name.is_empty() {
            case.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        }
        if let Ask::Exchange(exchange) = &mut case.ask {
            for answer in &mut exchange.answers {
                let Some(file) = answer.stream_file.take() else { continue };
                let stream = path.with_file_name(&file);
                let bytes = std::fs::read_to_string(stream).map_err(|error| refuse(format!("{file}: {error}")))?;
                answer.stream = Some(bytes);
            }
        }
        Ok(case)
    }

    /// Every case of a folder, in order of the file names.
    ///
    /// # Errors
    /// The first file that cannot be read, or a folder without cases: a test of nothing must not pass.
    pub fn read_folder(folder: &Path) -> Result<Vec<Self>, String> {
        let paths = Self::files(folder)?;
        paths.iter().map(|path| Self::read(path)).collect()
    }

    /// The case files of a folder, in order of their names.
    ///
    /// # Errors
    /// If there is none.
    pub fn files(folder: &Path) -> Result<Vec<std::path::PathBuf>, String> {
        let entries = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let is_json = |path: &std::path::PathBuf| path.extension().is_some_and(|extension| extension == "json");
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(is_json).collect();
        paths.sort();
        if paths.is_empty() { Err(format!("{}: no *.json in here", folder.display())) } else { Ok(paths) }
    }

    /// The cases that a component carries: the bytes of its section `penstock:vectors`.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read_embedded(section: &[u8]) -> Result<Vec<Self>, String> {
        serde_json::from_slice(section).map_err(|error| format!("the embedded cases cannot be read: {error}"))
    }
}

/// What a plugin is told of a request (`types.wit`, `call`).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "documented in wit/types.wit")]
pub struct Call {
    pub id: String,
    pub operation: String,
    pub dialect: String,
    pub model: String,
    pub streaming: bool,
    pub attempt: u32,
    pub deadline_ms: u32,
    pub subject: Option<String>,
    pub tenant: Option<String>,
    pub facts: Pairs,
}

/// Names with values, written as an object; a list stands for a name that repeats.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub struct Pairs(pub Vec<(String, String)>);

impl TryFrom<Map<String, Value>> for Pairs {
    type Error = String;

    fn try_from(object: Map<String, Value>) -> Result<Self, String> {
        let mut pairs = Vec::new();
        for (name, value) in object {
            match value {
                Value::String(text) => pairs.push((name, text)),
                Value::Array(texts) => {
                    for text in texts {
                        let text = text.as_str().ok_or_else(|| format!("{name}: expected texts"))?;
                        pairs.push((name.clone(), text.to_owned()));
                    }
                }
                other => return Err(format!("{name}: expected a text or a list of texts, found {other}")),
            }
        }
        Ok(Self(pairs))
    }
}

/// What is asked of a plugin.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ask {
    /// Only to be configured: outcome `wants` or `issues`.
    Configure {},
    /// An adapter, for the head of a relayed call: outcome `upstream` or `fault`.
    Relay {
        /// Wanted request headers.
        #[serde(default)]
        headers: Pairs,
        /// Wanted members of the body, as JSON values.
        #[serde(default)]
        members: Map<String, Value>,
    },
    /// An adapter, for a whole exchange: outcome `upstream`, `next`, `events`, `response` or `fault`.
    Exchange(Exchange),
    /// An adapter, what an answer that is not 2xx means: outcome `fault`.
    Reject(Answer),
    /// Auth: outcome `grant` or `fault`.
    Authenticate {
        /// Wanted request headers.
        #[serde(default)]
        headers: Pairs,
        /// What others have answered.
        #[serde(default)]
        documents: Vec<Document>,
    },
    /// Limits: outcome `checks` or `fault`.
    Plan {
        /// The rules that the call is under.
        #[serde(default)]
        rules: Vec<Rule>,
    },
    /// Routing: outcome `order` or `fault`.
    Rank {
        /// The targets.
        targets: Vec<Target>,
        /// Randomness.
        #[serde(default)]
        seed: u64,
    },
    /// A filter, about the head of a request: outcome `verdict` or `fault`.
    RequestHead {
        /// Method.
        method: String,
        /// Path.
        path: String,
        /// Wanted request headers.
        #[serde(default)]
        headers: Pairs,
    },
    /// A filter, about the head of an answer: outcome `edits` or `fault`.
    ResponseHead {
        /// HTTP status.
        status: u16,
        /// Wanted response headers.
        #[serde(default)]
        headers: Pairs,
    },
}

/// What somebody has answered to an auth plugin (`documents.wit`).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// The request, as cases state an upstream request.
    pub request: Value,
    /// HTTP status.
    #[serde(default = "ok")]
    pub status: u16,
    /// Body: JSON, or a text as it is.
    #[serde(default)]
    pub body: Value,
}

impl Document {
    /// The bytes of the body.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        match &self.body {
            Value::Null => Vec::new(),
            Value::String(text) => text.clone().into_bytes(),
            json => json.to_string().into_bytes(),
        }
    }
}

/// A whole exchange of an adapter.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// Wanted request headers.
    #[serde(default)]
    pub headers: Pairs,
    /// The canonical request, or the caller's JSON.
    #[serde(default)]
    pub body: Value,
    /// Large base64 texts that stand in the body as markers.
    #[serde(default)]
    pub blobs: Vec<Blob>,
    /// What the vendor answers, one for each round trip.
    #[serde(default)]
    pub answers: Vec<Answer>,
}

/// A lifted base64 text.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blob {
    /// What stands in its place.
    pub marker: String,
    /// Media type.
    #[serde(default)]
    pub media_type: String,
    /// Length of the text.
    #[serde(default)]
    pub length: u64,
}

/// An answer of the vendor: `body` (JSON), `text`, or a stream: `stream`, `stream_file` or `messages`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// HTTP status.
    #[serde(default = "ok")]
    pub status: u16,
    /// Wanted response headers.
    #[serde(default)]
    pub headers: Pairs,
    /// A whole body of JSON.
    #[serde(default)]
    pub body: Value,
    /// A whole body of another kind.
    #[serde(default)]
    pub text: Option<String>,
    /// A streamed body, byte for byte.
    #[serde(default)]
    pub stream: Option<String>,
    /// A file beside the case that holds the streamed body.
    #[serde(default)]
    pub stream_file: Option<String>,
    /// A stream of `application/vnd.amazon.eventstream`, readable: the event type of each message (or `exception:TYPE`) and
    /// its payload.
    #[serde(default)]
    pub messages: Vec<(String, Value)>,
}

impl Answer {
    /// The bytes of the body, whole or streamed.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        if !self.messages.is_empty() {
            return self.event_stream();
        }
        match (&self.text, &self.stream, &self.body) {
            (Some(text), _, _) | (None, Some(text), _) => text.clone().into_bytes(),
            (None, None, Value::Null) => Vec::new(),
            (None, None, json) => json.to_string().into_bytes(),
        }
    }

    fn event_stream(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, payload) in &self.messages {
            let (sort, name_header, name) = match name.strip_prefix("exception:") {
                Some(exception) => ("exception", ":exception-type", exception),
                None => ("event", ":event-type", name.as_str()),
            };
            let headers = [(name_header, name), (":content-type", "application/json"), (":message-type", sort)];
            event_stream::write(&mut out, &headers, payload.to_string().as_bytes());
        }
        out
    }
}

/// A group of an order as an outcome has it: the index of a target that stands alone, else `[index, weight]` of each.
#[must_use]
pub fn group(shares: &[(usize, u32)]) -> Value {
    match shares {
        [(target, _)] => Value::from(*target),
        shares => shares.iter().map(|(target, weight)| Value::from(vec![*target as u64, u64::from(*weight)])).collect(),
    }
}

/// A target of a routing plugin (`routing.wit`, `target`): healthy and of weight 1 unless stated otherwise.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented in wit/routing.wit")]
pub struct Target {
    pub id: String,
    #[serde(default)]
    pub vendor: String,
    #[serde(default)]
    pub model: String,
    #[serde(default = "one")]
    pub weight: u32,
    #[serde(default)]
    pub priority: u32,
    #[serde(default = "yes")]
    pub healthy: bool,
    #[serde(default)]
    pub latency_ms: u32,
    #[serde(default)]
    pub inflight: u32,
    #[serde(default)]
    pub facts: Pairs,
}

/// A limit that is kept as data beside the policy (`rules.wit`, `rule`): of requests in a fixed window unless stated otherwise.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented in wit/rules.wit")]
pub struct Rule {
    pub scope: String,
    #[serde(default = "fixed_window")]
    pub algorithm: String,
    #[serde(default = "requests")]
    pub counted: String,
    pub limit: u64,
    #[serde(default)]
    pub window_ms: u64,
    #[serde(default)]
    pub burst: u64,
    #[serde(default)]
    pub label: String,
}

fn fixed_window() -> String {
    "fixed-window".to_owned()
}

fn requests() -> String {
    "requests".to_owned()
}

fn empty_object() -> Value {
    Value::Object(Map::new())
}

fn ok() -> u16 {
    200
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}
