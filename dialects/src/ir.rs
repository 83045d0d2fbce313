// SPDX-License-Identifier: Apache-2.0
//! The canonical form of a request and of an answer: what every dialect is translated to and from.
//!
//! A request is a value ([`Request`]); an answer is a sequence of [`Event`]s, streamed or not: a whole answer is the same
//! events with whole deltas, and [`Response`] is what they fold into. What only one dialect knows travels in
//! `extensions` under that dialect's name and is never leaked to another one.
//!
//! The JSON of [`Request`] crosses the plugin contract (docs/ir.md), so a field may be added here (readers ignore what they
//! do not know, and absent means the default) but never renamed or given another meaning.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Raw JSON members by name.
pub type Members = BTreeMap<String, Value>;

/// One generation request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Request {
    /// Model, as the host wants it named to the vendor.
    pub model: String,
    /// Instructions that stand before the conversation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub system: Vec<Block>,
    /// The conversation, oldest first.
    pub messages: Vec<Message>,
    /// Tools that the model may call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool>,
    /// Which tool it must or may call; none leaves it to the vendor's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<ToolChoice>,
    /// Whether several tools may be called at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel_tools: Option<bool>,
    /// Ceiling of output tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_tokens_max: Option<u64>,
    /// Sampling temperature, as the caller's dialect scales it (0 to 2, or 0 to 1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Sampling from the k likeliest tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u64>,
    /// Sequences that end the answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// Seed for repeatable sampling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// Shape of the text asked for; none means plain text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// How much the model should think.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<Reasoning>,
    /// The end user, for the vendor's abuse detection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Whether the answer is to be streamed.
    pub streaming: bool,
    /// Whether the caller asked that a stream tell its usage.
    pub stream_usage: bool,
    /// Members that only the dialect named by the key knows (`"openai-chat": {"logit_bias": …}`).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extensions: BTreeMap<String, Members>,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Instructions in the middle of a conversation.
    System,
    /// The user, and the results of tools.
    #[default]
    User,
    /// The model.
    Assistant,
}

/// One turn of the conversation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// Name of the speaker, where the dialect has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What is said, in order. Results of tools are blocks of a user message.
    pub blocks: Vec<Block>,
}

/// A piece of content.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Block {
    /// What it is.
    #[serde(flatten)]
    pub content: Content,
    /// The dialect's own cache mark (`{"type":"ephemeral"}`): everything up to here may be cached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<Value>,
    /// Members of this block that only the dialect named by the key knows (`"anthropic-messages": {"context": …}`).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extensions: BTreeMap<String, Members>,
}

impl Block {
    /// A block without cache mark and extensions.
    #[must_use]
    pub fn new(content: Content) -> Self {
        Self { content, ..Self::default() }
    }

    /// A block of text without citations.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::new(Content::Text { text: text.into(), citations: Vec::new() })
    }
}

/// What a block holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Content {
    /// Visible text.
    Text {
        /// The text.
        text: String,
        /// Citations of the answering dialect, as they came.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        citations: Vec<Value>,
    },
    /// An image, a document, a sound.
    Media {
        /// "image", "document", "audio", "video".
        kind: String,
        /// Where it is.
        source: Source,
        /// Title or file name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        title: Option<String>,
        /// "low", "high", "auto" for images, where the dialect knows it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// The model calls a tool.
    ToolUse {
        /// Id of the call.
        id: String,
        /// Name of the tool.
        name: String,
        /// Arguments as JSON text, exactly as the model wrote them.
        input: String,
    },
    /// The result of a tool call.
    ToolResult {
        /// Id of the call.
        id: String,
        /// What the tool answered.
        blocks: Vec<Block>,
        /// Whether the tool failed.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
    },
    /// The model thinks.
    Reasoning {
        /// The thought, or the vendor's summary of it.
        text: String,
        /// The vendor's seal, to be sent back unchanged.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signature: Option<String>,
    },
    /// A thought that only the vendor can read, to be sent back unchanged.
    Redacted {
        /// The vendor's bytes.
        data: String,
    },
    /// The model refuses.
    Refusal {
        /// Why.
        text: String,
    },
    /// Content that only one dialect knows.
    Opaque {
        /// Name of the dialect.
        dialect: String,
        /// The block as it came.
        json: Value,
    },
}

impl Default for Content {
    fn default() -> Self {
        Self::Text { text: String::new(), citations: Vec::new() }
    }
}

/// Where a medium is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum Source {
    /// In the request, as base64.
    Base64 {
        /// Media type: "image/png".
        media_type: String,
        /// Base64 text, or the marker of a lifted blob.
        data: String,
    },
    /// At a URL that the vendor fetches.
    Url {
        /// The URL.
        url: String,
    },
    /// In the vendor's file store.
    File {
        /// The vendor's id of the file.
        id: String,
    },
    /// Plain text given in place.
    Text {
        /// The text.
        text: String,
    },
}

/// A tool that the model may call.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tool {
    /// Name.
    pub name: String,
    /// What it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON schema of its arguments; null if it takes none.
    pub parameters: Value,
    /// Whether the arguments must satisfy the schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
    /// Cache mark, as in [`Block`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<Value>,
    /// A tool that only one dialect knows (server tools): the dialect's name and the tool as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opaque: Option<(String, Value)>,
    /// Members of this tool that only the dialect named by the key knows.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extensions: BTreeMap<String, Members>,
}

/// Which tool the model calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", content = "name", rename_all = "snake_case")]
pub enum ToolChoice {
    /// As it likes.
    Auto,
    /// None.
    None,
    /// At least one.
    Required,
    /// This one.
    Tool(String),
}

/// Shape of the text asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Format {
    /// Any JSON object.
    Json,
    /// JSON that satisfies a schema.
    Schema {
        /// Name of the schema, where the dialect has one.
        name: Option<String>,
        /// What it is for.
        description: Option<String>,
        /// JSON schema.
        schema: Value,
        /// Whether the vendor must enforce it.
        strict: Option<bool>,
    },
}

/// How much the model should think.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reasoning {
    /// False switches thinking off where the vendor can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// "none", "minimal", "low", "medium", "high", "xhigh", "max".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effort: Option<String>,
    /// Ceiling of thinking tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_tokens: Option<u64>,
}

/// Tokens in disjoint buckets (see `types.wit`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Input tokens neither read from nor written to a cache.
    pub input: u64,
    /// Input tokens read from the vendor's cache.
    pub cache_read: u64,
    /// Input tokens written to the vendor's cache.
    pub cache_write: u64,
    /// Visible output tokens.
    pub output: u64,
    /// Output tokens spent on reasoning.
    pub reasoning: u64,
    /// Further disjoint buckets by name; docs/ir.md lists them.
    pub more: Vec<(String, u64)>,
    /// The vendor's own usage object as JSON text; empty if there is none.
    pub stated: String,
}

impl Usage {
    /// Adds another exchange's tokens; what the vendor stated of them is not kept.
    pub fn add(&mut self, other: &Self) {
        for (mine, more) in [
            (&mut self.input, other.input),
            (&mut self.cache_read, other.cache_read),
            (&mut self.cache_write, other.cache_write),
            (&mut self.output, other.output),
            (&mut self.reasoning, other.reasoning),
        ] {
            *mine = mine.saturating_add(more);
        }
        for (name, more) in &other.more {
            match self.more.iter_mut().find(|(known, _)| known == name) {
                Some((_, mine)) => *mine = mine.saturating_add(*more),
                None => self.more.push((name.clone(), *more)),
            }
        }
    }

    /// Counts something in a further bucket; nothing is no entry.
    pub fn count(&mut self, bucket: impl Into<String>, count: u64) {
        if count > 0 {
            self.more.push((bucket.into(), count));
        }
    }

    /// Notes the service tier that has answered, if it is one that may have prices of its own, as a bucket with a count of one.
    pub fn served_as(&mut self, tier: &str) {
        if matches!(tier, "batch" | "flex" | "priority") && self.more_of("tier-") == 0 {
            self.count(format!("tier-{tier}"), 1);
        }
    }

    /// All input tokens, also those of the further buckets (`input-audio` …).
    #[must_use]
    pub fn input_total(&self) -> u64 {
        let more = self.more_of("input-").saturating_add(self.more_of("cache-"));
        self.input.saturating_add(self.cache_read).saturating_add(self.cache_write).saturating_add(more)
    }

    /// All output tokens, also those of the further buckets (`output-image` …).
    #[must_use]
    pub fn output_total(&self) -> u64 {
        self.output.saturating_add(self.reasoning).saturating_add(self.more_of("output-"))
    }

    /// What is in the further buckets of a kind.
    #[must_use]
    pub fn more_of(&self, kind: &str) -> u64 {
        let counts = self.more.iter().filter(|(name, _)| name.starts_with(kind)).map(|(_, count)| *count);
        counts.fold(0, u64::saturating_add)
    }

    /// All tokens.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.input_total().saturating_add(self.output_total())
    }
}

/// How the answer ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finish {
    /// `stop`, `length`, `tool_calls`, `content_filter`, `refusal`, `stop_sequence`, `pause`, `error`; others pass through.
    pub reason: String,
    /// The stop sequence that was met.
    pub sequence: Option<String>,
}

/// One thing that happened in an answer. The doc lines of `adapter.wit` are the definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The answer begins.
    Start {
        /// The vendor's id of the answer, verbatim; may be empty.
        id: String,
        /// The model that answers; may be empty.
        model: String,
    },
    /// More visible text.
    Text(String),
    /// More reasoning text.
    Reasoning(String),
    /// The seal of the reasoning block that ends here.
    Signature(String),
    /// A whole reasoning block that only the vendor can read.
    Redacted(String),
    /// A tool call begins.
    Tool {
        /// Position among the tool calls of this answer, from 0.
        index: u32,
        /// The vendor's id; may be empty.
        id: String,
        /// Name of the tool.
        name: String,
    },
    /// More of a tool call's arguments.
    ToolInput {
        /// Position among the tool calls.
        index: u32,
        /// A piece of JSON text.
        json: String,
    },
    /// More of a refusal.
    Refusal(String),
    /// The current block ends, where the vendor marks it.
    BlockEnd,
    /// What is known of the usage so far; a later one replaces it.
    Usage(Usage),
    /// The answer is complete.
    Finish(Finish),
    /// The vendor reports an error inside a 2xx answer.
    Fault(Fault),
    /// Anything else, by name.
    Other {
        /// "citation", "logprobs", "embedding", "audio", "image" …
        name: String,
        /// Its JSON.
        json: String,
    },
}

/// A failure, as the host acts on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What kind.
    pub class: FaultClass,
    /// For the caller: what happened and what to do next.
    pub message: String,
    /// The vendor's own code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Wait so long before the next try, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Fault {
    /// A fault of this class, with a text for the caller.
    #[must_use]
    pub fn new(class: FaultClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), code: None, retry_after_ms: None }
    }
}

macro_rules! fault_classes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:literal;)*) => {
        /// Kinds of failure. Retry, fallback, breaker and billing follow from the class.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum FaultClass { $($(#[$doc])* #[serde(rename = $name)] $variant,)* }

        impl FaultClass {
            /// Every class.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name that crosses the contract.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The HTTP status that a caller reads.
            #[must_use]
            pub fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// The class of a name; what is not known is the vendor's bug.
            #[must_use]
            pub fn from_name(name: &str) -> Self {
                match name { $($name => Self::$variant,)* _ => Self::VendorBug }
            }
        }
    };
}

fault_classes! {
    /// The credential is missing or wrong.
    Authentication = "authentication", 401;
    /// The credential does not allow this.
    Permission = "permission", 403;
    /// The account has no money.
    Billing = "billing", 402;
    /// Too many requests or tokens for now.
    RateLimit = "rate-limit", 429;
    /// A quota is used up until it is renewed.
    Quota = "quota", 429;
    /// The request does not fit the model's context.
    ContextTooLong = "context-too-long", 400;
    /// Refused by a content filter.
    ContentFilter = "content-filter", 400;
    /// The request is wrong.
    InvalidRequest = "invalid-request", 400;
    /// No such model.
    ModelNotFound = "model-not-found", 404;
    /// The vendor is overloaded or down.
    Overloaded = "overloaded", 503;
    /// Nothing came in time.
    Timeout = "timeout", 504;
    /// The adapter cannot serve this call.
    Unsupported = "unsupported", 400;
    /// The vendor answered nonsense.
    VendorBug = "vendor-bug", 502;
}

/// What the events of an answer fold into (see [`crate::collect`]).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Response {
    /// The vendor's id of the answer.
    pub id: String,
    /// The model that answered.
    pub model: String,
    /// What was said.
    pub blocks: Vec<Block>,
    /// How it ended; none if it did not.
    pub finish: Option<Finish>,
    /// Tokens.
    pub usage: Option<Usage>,
    /// Error inside the answer.
    pub fault: Option<Fault>,
    /// Events that have no block: logprobs and the like.
    pub other: Vec<(String, String)>,
}
