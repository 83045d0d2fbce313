// SPDX-License-Identifier: Apache-2.0
//! The contract in the host's own words: what goes into a plugin and what comes out, whatever version of the contract the
//! plugin was built for. Nothing here knows wasmtime.

use std::sync::Arc;

use http::HeaderName;
use penstock_dialects::ir::{Event, Fault};

use crate::documents::Entry;
use crate::slots::Slot;
use crate::state::charge::{Algorithm, Charge};

/// A name with a value.
pub type Pair<'a> = (&'a str, &'a str);

/// What a plugin is told of one request (`types.wit`, `call`).
#[derive(Debug, Clone, Copy, Default)]
pub struct Call<'a> {
    /// Id of the request.
    pub id: &'a str,
    /// Name of the operation.
    pub operation: &'a str,
    /// Name of the caller's dialect.
    pub dialect: &'a str,
    /// Model.
    pub model: &'a str,
    /// Whether the caller asked for a stream.
    pub streaming: bool,
    /// Number of the attempt, from 0.
    pub attempt: u32,
    /// Milliseconds left.
    pub deadline_ms: u32,
    /// Who asks.
    pub subject: Option<&'a str>,
    /// Group of the subject.
    pub tenant: Option<&'a str>,
    /// Further facts.
    pub facts: &'a [Pair<'a>],
}

/// What a plugin wants to see of each call, sorted by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wants {
    /// Request headers.
    pub headers: Vec<HeaderName>,
    /// Response headers.
    pub response_headers: Vec<HeaderName>,
    /// Top-level members of the request body.
    pub members: Vec<String>,
    /// Facts that cost something to make.
    pub facts: Vec<String>,
    /// Of its manifest, what an adapter does not do as it is configured.
    pub without: Vec<String>,
    /// In what calls have to agree to be answered alike; none if each call is to be asked about.
    pub alike: Option<Alike>,
}

/// In what calls have to agree, beside the wanted headers and members.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Alike(pub Vec<Part>);

impl Alike {
    /// Of a call what the plugin looks at; each text that goes into a guest costs an allocation there.
    #[must_use]
    pub fn seen<'c>(&self, call: &Call<'c>) -> Call<'c> {
        let has = |part: &Part| self.0.contains(part);
        let caller = has(&Part::Caller);
        let facts = caller || self.0.iter().any(|part| matches!(part, Part::Fact(_)));
        Call {
            id: "",
            operation: if has(&Part::Operation) { call.operation } else { "" },
            dialect: if has(&Part::Dialect) { call.dialect } else { "" },
            model: if has(&Part::Model) { call.model } else { "" },
            streaming: has(&Part::Streaming) && call.streaming,
            attempt: if has(&Part::Attempt) { call.attempt } else { 0 },
            deadline_ms: call.deadline_ms,
            subject: call.subject.filter(|_| caller || has(&Part::Subject)),
            tenant: call.tenant.filter(|_| has(&Part::Tenant)),
            facts: if facts { call.facts } else { &[] },
        }
    }
}

/// A part of a call, or of what goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Name of the operation.
    Operation,
    /// Name of the caller's dialect.
    Dialect,
    /// Model.
    Model,
    /// Whether the caller asked for a stream.
    Streaming,
    /// Number of the attempt.
    Attempt,
    /// Who asks.
    Subject,
    /// Group of the subject.
    Tenant,
    /// Who asks; on an open route the address.
    Caller,
    /// Method of the request (filters).
    Method,
    /// Path of the request (filters).
    Path,
    /// Limits that are kept as data.
    Rules,
    /// How fast and how busy targets are (routing); with it no two calls are alike.
    Load,
    /// A fact of this name.
    Fact(String),
}

impl Part {
    /// The part of a name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Some(match name {
            "operation" => Self::Operation,
            "dialect" => Self::Dialect,
            "model" => Self::Model,
            "streaming" => Self::Streaming,
            "attempt" => Self::Attempt,
            "subject" => Self::Subject,
            "tenant" => Self::Tenant,
            "caller" => Self::Caller,
            "method" => Self::Method,
            "path" => Self::Path,
            "rules" => Self::Rules,
            "load" => Self::Load,
            fact => Self::Fact(fact.strip_prefix("fact.")?.to_owned()),
        })
    }
}

/// The value of a header or query parameter of an upstream request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// As is.
    Text(String),
    /// A prefix and the granted name of a secret.
    Secret {
        /// What stands before the secret.
        prefix: String,
        /// Under which name it was granted.
        name: String,
    },
}

/// A header or query parameter of an upstream request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Name.
    pub name: String,
    /// Value.
    pub value: Value,
}

/// A base64 string that was lifted out of the canonical request.
#[derive(Debug, Clone, Copy)]
pub struct Blob<'a> {
    /// What stands in its place.
    pub marker: &'a str,
    /// Media type.
    pub media_type: &'a str,
    /// Length of the base64 text.
    pub length: u64,
}

/// How an answer is cut into frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// One frame.
    Whole,
    /// Server-sent events.
    Sse,
    /// One JSON value a line.
    JsonLines,
    /// AWS event stream.
    AwsEventStream,
    /// Elements of a JSON array.
    JsonArray,
}

/// Body of an upstream request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// None.
    None,
    /// These bytes.
    Bytes(Vec<u8>),
    /// The caller's bytes with these members set, or removed where the value is empty.
    Splice(Vec<(String, String)>),
}

/// A request to a vendor, as an adapter states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamRequest {
    /// Method.
    pub method: http::Method,
    /// Name of a further endpoint of the vendor; empty for the base URL.
    pub endpoint: String,
    /// Path below that URL, beginning with a slash.
    pub path: String,
    /// Query parameters, not yet encoded.
    pub query: Vec<Placed>,
    /// Headers; names are valid and in lower case, texts hold no control characters.
    pub headers: Vec<Placed>,
    /// Body.
    pub body: Body,
    /// Framing of a 2xx answer.
    pub framing: Framing,
    /// Wait before sending, in milliseconds.
    pub after_ms: u32,
    /// What the vendor's API has no place for.
    pub dropped: Vec<String>,
}

/// How an adapter goes about a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Plan {
    /// Ask the vendor.
    Ask(UpstreamRequest),
    /// Answer at once.
    Answer(Vec<Event>),
}

/// What a piece of the answer means.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Step {
    /// Events, in order.
    pub events: Vec<Event>,
    /// Another round trip.
    pub next: Option<UpstreamRequest>,
    /// What to send if the caller goes before that is done.
    pub cancel: Option<UpstreamRequest>,
}

/// A request that is about to go out (`signing.wit`).
#[derive(Debug, Clone, Copy)]
pub struct Unsigned<'a> {
    /// Method.
    pub method: &'a str,
    /// Authority.
    pub host: &'a str,
    /// Path as it goes out.
    pub path: &'a str,
    /// Query as it goes out.
    pub query: &'a str,
    /// Headers but those with a secret.
    pub headers: &'a [Pair<'a>],
    /// SHA-256 of the body, in hexadecimal.
    pub body_sha256: &'a str,
    /// Seconds since 1970.
    pub time: u64,
}

/// How to get a short-lived credential (`credentials.wit`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetching {
    /// What to ask.
    pub request: UpstreamRequest,
    /// JSON pointer to the credential.
    pub token: String,
    /// JSON pointer to the seconds for which it is valid; may be empty.
    pub expires_in: String,
    /// JSON pointer to the time until which it is valid; may be empty.
    pub expires_at: String,
    /// Seconds for which it is valid if the answer does not say.
    pub lasts: u64,
}

/// The secret under which a fetched credential is granted.
pub const TOKEN: &str = "token";

/// Who asks, as auth says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grant {
    /// Name of the caller.
    pub subject: String,
    /// Group.
    pub tenant: Option<String>,
    /// Further attributes.
    pub attributes: Vec<(String, String)>,
    /// How long the host may answer by itself, in milliseconds.
    pub cache_ms: u32,
}

/// The fact of the time, for auth plugins that want it: milliseconds since 1970.
pub const TIME: &str = "time-ms";
/// The fact that there is a certificate of the caller, for auth plugins that want it.
pub const CLIENT_CERTIFICATE: &str = "client-certificate";

/// What an auth plugin must know (`documents.wit`).
#[derive(Clone)]
pub struct Wish {
    /// What is to be asked.
    pub request: UpstreamRequest,
    /// Where the answer goes.
    pub entry: Arc<Slot<Entry>>,
    /// Whether the plugin cannot go on without it; else it has an older answer.
    pub is_needed: bool,
}

/// What an auth plugin has come to.
pub struct Verified {
    /// Who asks, or why not.
    pub grant: Result<Grant, CallError>,
    /// What it must know, or will have to.
    pub wishes: Vec<Wish>,
    /// Whether it would have needed an answer of somebody who was away a moment ago.
    pub away: bool,
    /// From when on the credential is not accepted any more, in seconds since 1970, if the directory says so.
    pub valid_until_unix_s: Option<u64>,
}

/// What a counter counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Calls.
    Requests,
    /// Input and output tokens.
    Tokens,
    /// Input tokens.
    InputTokens,
    /// Output tokens.
    OutputTokens,
    /// What calls cost, in 10^-9 US dollars.
    Cost,
}

impl Counted {
    /// Name in the contract.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::InputTokens => "input-tokens",
            Self::OutputTokens => "output-tokens",
            Self::Cost => "cost",
        }
    }

    /// What a name says is counted.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        use Counted::{Cost, InputTokens, OutputTokens, Requests, Tokens};
        [Requests, Tokens, InputTokens, OutputTokens, Cost].into_iter().find(|counted| counted.name() == name)
    }
}

/// A limit that is kept as data beside the policy (`rules.wit`, `rule`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Whose limit it is, unlike that of any other rule: the name of the counter.
    pub scope: Arc<str>,
    /// How it counts.
    pub algorithm: Algorithm,
    /// What it counts.
    pub counted: Counted,
    /// So many in a window.
    pub limit: u64,
    /// Window in milliseconds.
    pub window_ms: u64,
    /// What a full bucket holds; 0 for `limit`.
    pub burst: u64,
    /// For the caller, when it refuses: which limit it is, in words.
    pub label: Arc<str>,
}

/// Whose limits they are. The same plugin may limit callers and vendors, with counters apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Of those who ask.
    Callers,
    /// Of those who are asked.
    Vendors,
}

/// A counter that a call is charged to (`limits.wit`, `check`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Name of the counter among those of the plugin.
    pub key: String,
    /// Window in milliseconds, as the plugin says it.
    pub window_ms: u64,
    /// The counter; what the call takes from it is for the host to say.
    pub charge: Charge,
    /// What it counts.
    pub counted: Counted,
    /// Which limit it is, in words.
    pub label: Arc<str>,
}

/// A target as a routing plugin sees it (`routing.wit`, `target`).
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Unique in the route.
    pub id: &'a str,
    /// Vendor or service.
    pub vendor: &'a str,
    /// The vendor's name of the model.
    pub model: &'a str,
    /// Weight.
    pub weight: u32,
    /// Priority; lower first.
    pub priority: u32,
    /// Whether the breaker lets calls through.
    pub healthy: bool,
    /// Smoothed time to the first byte.
    pub latency_ms: u32,
    /// Calls under way.
    pub inflight: u32,
    /// Further facts.
    pub facts: &'a [Pair<'a>],
}

/// A change to a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Replace.
    Set(HeaderName, http::HeaderValue),
    /// Add.
    Add(HeaderName, http::HeaderValue),
    /// Remove.
    Remove(HeaderName),
}

/// An answer that a filter gives itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Status.
    pub status: http::StatusCode,
    /// Headers.
    pub headers: Vec<(HeaderName, http::HeaderValue)>,
    /// Body.
    pub body: Vec<u8>,
}

/// What a filter made of a head.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// Changes to the request.
    pub request: Vec<Edit>,
    /// Changes to the answer.
    pub response: Vec<Edit>,
    /// Answer at once.
    pub answer: Option<Reply>,
}

/// Why a call into a plugin gave no result.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CallError {
    /// The plugin understood and refused.
    #[error("{}: {}", .0.class.name(), .0.message)]
    Fault(Fault),
    /// The plugin broke; its instance is gone.
    #[error("plugin {plugin} {reason}")]
    Broken {
        /// Name of the configured plugin.
        plugin: String,
        /// What happened.
        reason: Broken,
    },
}

/// How a plugin broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// It ran into a trap: where, and the trap's own text.
    #[error("trapped: {0}")]
    Trap(String),
    /// It did not come back in time.
    #[error("did not answer within {0} ms")]
    Deadline(u64),
    /// It wanted more memory than it may have.
    #[error("wanted more memory than sandbox.memory_bytes_max")]
    Memory,
    /// It wanted more memory while all plugins together had as much as they may.
    #[error("wanted more memory than all plugins together may have (sandbox.memory_sum_bytes_max)")]
    Crowded,
    /// Its output is not acceptable: CR or LF in a header, a body over the limit …
    #[error("gave an invalid answer: {0}")]
    Output(String),
    /// Every instance is at its limit.
    #[error("has no free instance (sandbox.instances_max x sandbox.exchanges_max)")]
    Exhausted,
}

impl Broken {
    /// In a word, for metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Trap(_) => "trap",
            Self::Deadline(_) => "deadline",
            Self::Memory | Self::Crowded => "memory",
            Self::Output(_) => "output",
            Self::Exhausted => "exhausted",
        }
    }
}
