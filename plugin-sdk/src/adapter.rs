// SPDX-License-Identifier: Apache-2.0
//! Adapters: plugins that speak a vendor's API. An adapter is a pure function with memory; the host does the network.

use penstock_dialects::framing::Frame;
use penstock_dialects::ir::{Event, Fault, FaultClass};
use serde::Serialize;

use crate::call::{Call, Pairs, Wants};
use crate::config::{Config, Issue};

/// What a conversation may have that not every vendor can carry.
pub const FEATURES: &[&str] =
    &["streaming", "tools", "reasoning", "image-input", "document-input", "audio-input", "json", "caching"];

/// Speaks one vendor's API. Export it with [`adapter!`](crate::adapter!).
pub trait Adapter: Sized + 'static {
    /// What operators configure; `()` for nothing.
    type Config: Config;
    /// One call to the vendor; [`Unasked`] for an adapter that answers by itself.
    type Exchange: Exchange;

    /// Wire languages of the vendor ("openai-chat"): for callers that speak one of them the host asks [`Self::relay`].
    const DIALECTS: &'static [&'static str] = &[];
    /// What the adapter can be asked for: `chat`, `count_tokens`, `embeddings`.
    const OPERATIONS: &'static [&'static str];
    /// What of a conversation it can carry: some of [`FEATURES`].
    const FEATURES: &'static [&'static str] = &[];
    /// Secrets that the adapter names by itself.
    const SECRETS: &'static [&'static str] = &[];

    /// Begins service with this configuration; called once for each instance.
    ///
    /// # Errors
    /// What is wrong with the configuration beyond its shape.
    fn new(config: Self::Config) -> Result<Self, Vec<Issue>>;

    /// What the adapter wants to see of each call.
    fn wants(&self) -> Wants {
        Wants::nothing()
    }

    /// The caller speaks the vendor's language: the head of the upstream request, and what to change in the caller's body.
    /// The answer goes to the caller untouched.
    ///
    /// # Errors
    /// A fault for the caller; `unsupported` sends the call to the next target.
    fn relay(&self, call: &Call, _headers: &Pairs, _members: &Pairs) -> Result<Upstream, Fault> {
        Err(Fault::new(FaultClass::Unsupported, format!("this adapter cannot relay {}", call.dialect)))
    }

    /// Begins a call. `body` is the canonical request as JSON ([`penstock_dialects::ir::Request`]), or for an operation
    /// without a canonical form the caller's bytes; `blobs` are the large base64 texts that the host has lifted out of it.
    ///
    /// # Errors
    /// A fault for the caller; `unsupported` sends the call to the next target.
    fn open(&self, call: &Call, headers: &Pairs, body: &[u8], blobs: &[Blob]) -> Result<(Self::Exchange, Plan), Fault>;

    /// Classifies an answer of the vendor that is not 2xx. `headers` holds the wanted response headers.
    fn reject(&self, status: u16, headers: &Pairs, body: &[u8]) -> Fault;
}

/// One call to the vendor, from `open` to the end of the answer.
pub trait Exchange: 'static {
    /// One complete frame of the answer: its events go to `events`.
    ///
    /// # Errors
    /// A fault that ends the answer.
    fn frame(&mut self, frame: &Frame<'_>, events: &mut Vec<Event>) -> Result<(), Fault>;

    /// The end of the answer; for [`Framing::Whole`] with the whole body. May ask for another round trip.
    ///
    /// # Errors
    /// A fault that ends the answer.
    fn finish(&mut self, answer: &Answer<'_>, events: &mut Vec<Event>) -> Result<Option<Upstream>, Fault>;

    /// What to send if the caller goes before the round trip is done that `finish` has just asked for: it ends the work that
    /// the vendor has begun.
    fn cancel(&self) -> Option<Upstream> {
        None
    }
}

/// An adapter whose vendor wants requests signed. Export it with `adapter!(Type, signing)`.
pub trait Signer: Adapter {
    /// Headers to add to a request that is final; one that is there already is replaced.
    ///
    /// # Errors
    /// A fault for the caller.
    fn sign(&self, request: &Unsigned) -> Result<Vec<(String, String)>, Fault>;
}

/// A request that is about to go out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unsigned {
    /// "POST", "GET" …
    pub method: String,
    /// Authority as in the header `host`.
    pub host: String,
    /// Path with the prefix of the endpoint, percent-encoded, as it goes out.
    pub path: String,
    /// Query without the question mark, encoded, as it goes out.
    pub query: String,
    /// Headers that go out, with lower-case names; those with a secret are left out.
    pub headers: Pairs,
    /// SHA-256 of the body in lower-case hexadecimal.
    pub body_sha256: String,
    /// Seconds since 1970.
    pub time: u64,
}

/// An adapter that works with short-lived credentials: the host fetches one, keeps it, and grants it as the secret
/// [`TOKEN`]. Export it with `adapter!(Type, credentials)`.
pub trait Credentials: Adapter {
    /// How to get a credential at this time (seconds since 1970); none if the configuration needs none.
    ///
    /// # Errors
    /// A fault for the caller.
    fn fetch(&self, time: u64) -> Result<Option<Fetching>, Fault>;
}

/// Name of the secret that the host grants when it has fetched a credential.
pub const TOKEN: &str = "token";

/// How to get a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fetching {
    /// What to ask; its answer is JSON.
    pub request: Upstream,
    /// Where the credential is in the answer, as a JSON pointer.
    pub token: String,
    /// Where the answer says for how many seconds it is valid, as a JSON pointer; "" if it does not.
    pub expires_in: String,
    /// Where the answer says until when it is valid, in seconds since 1970, as a JSON pointer; "" if it does not.
    pub expires_at: String,
    /// Seconds for which it is valid if the answer does not say.
    pub lasts: u64,
}

/// The exchange of an adapter that never asks a vendor.
#[derive(Debug)]
pub struct Unasked;

impl Exchange for Unasked {
    fn frame(&mut self, _: &Frame<'_>, _: &mut Vec<Event>) -> Result<(), Fault> {
        Err(Fault::new(FaultClass::VendorBug, "an answer arrived for a call that asked no vendor"))
    }

    fn finish(&mut self, _: &Answer<'_>, _: &mut Vec<Event>) -> Result<Option<Upstream>, Fault> {
        Ok(None)
    }
}

/// The end of an answer.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// HTTP status.
    pub status: u16,
    /// The wanted response headers.
    pub headers: &'a Pairs,
    /// The body if the framing is [`Framing::Whole`], otherwise empty.
    pub body: &'a [u8],
}

/// How an adapter goes about a call.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Plan {
    /// Ask the vendor.
    #[serde(rename = "upstream")]
    Ask(Upstream),
    /// Answer at once.
    #[serde(rename = "events")]
    Answer(Vec<Event>),
}

/// A large base64 text that the host has lifted out of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// What stands in its place; written where the text belongs, the host splices it in.
    pub marker: String,
    /// Media type, "" if unknown.
    pub media_type: String,
    /// Length of the base64 text in bytes.
    pub length: u64,
}

/// A request to the vendor, below the base URL that the operator configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Upstream {
    /// Method.
    pub method: String,
    /// Name of a further endpoint of the policy; "" for the base URL.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
    /// Path, beginning with a slash.
    pub path: String,
    /// Query parameters, not encoded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<Placed>,
    /// Headers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Placed>,
    /// Body.
    pub body: Body,
    /// Framing of a 2xx answer.
    pub framing: Framing,
    /// Wait so long before sending, in milliseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub after_ms: u32,
    /// What of the caller's request the vendor has no place for, as paths.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<String>,
}

impl Upstream {
    /// A POST of JSON, with an answer that comes whole. The host states the content type and the length of the body.
    #[must_use]
    pub fn post(path: impl Into<String>) -> Self {
        Self {
            method: "POST".to_owned(),
            endpoint: String::new(),
            path: path.into(),
            query: Vec::new(),
            headers: Vec::new(),
            body: Body::None,
            framing: Framing::Whole,
            after_ms: 0,
            dropped: Vec::new(),
        }
    }

    /// A GET, with an answer that comes whole.
    #[must_use]
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: "GET".to_owned(), ..Self::post(path) }
    }

    /// Sends it to this further endpoint of the policy instead of the base URL.
    #[must_use]
    pub fn endpoint(mut self, name: impl Into<String>) -> Self {
        self.endpoint = name.into();
        self
    }

    /// Has it wait before it is sent.
    #[must_use]
    pub fn after_ms(mut self, ms: u32) -> Self {
        self.after_ms = ms;
        self
    }

    /// Adds a query parameter; the host encodes it.
    #[must_use]
    pub fn query(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.query.push(Placed::text(name, value));
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push(Placed::text(name, value));
        self
    }

    /// Adds a header whose value is `prefix` and a granted secret; the host fills the secret in.
    #[must_use]
    pub fn secret_header(
        mut self,
        name: impl Into<String>,
        prefix: impl Into<String>,
        secret: impl Into<String>,
    ) -> Self {
        self.headers.push(Placed::secret(name, prefix, secret));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    /// Sets the framing of the answer.
    #[must_use]
    pub fn framing(mut self, framing: Framing) -> Self {
        self.framing = framing;
        self
    }

    /// Says what the vendor has no place for.
    #[must_use]
    pub fn dropped(mut self, paths: Vec<String>) -> Self {
        self.dropped = paths;
        self
    }
}

/// A header or a query parameter of an upstream request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Lower-case header name, or name of the parameter.
    pub name: String,
    /// Value.
    pub value: PlacedValue,
}

impl Placed {
    /// A value as it is.
    #[must_use]
    pub fn text(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: PlacedValue::Text(value.into()) }
    }

    /// A value that the host makes of a prefix and a granted secret.
    #[must_use]
    pub fn secret(name: impl Into<String>, prefix: impl Into<String>, secret: impl Into<String>) -> Self {
        Self { name: name.into(), value: PlacedValue::Secret { prefix: prefix.into(), secret: secret.into() } }
    }
}

/// The value of a header or a query parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum PlacedValue {
    /// As it is.
    Text(String),
    /// A prefix, and the name under which a secret was granted.
    Secret {
        /// What stands before the secret.
        prefix: String,
        /// Name of the secret.
        secret: String,
    },
}

/// Body of an upstream request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// None.
    None,
    /// These bytes.
    Bytes(Vec<u8>),
    /// The caller's bytes with these top-level members set to raw JSON, or removed where that is "".
    Splice(Vec<(String, String)>),
}

/// How an answer is cut into frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Framing {
    /// One frame: the whole body.
    Whole,
    /// Server-sent events.
    Sse,
    /// One JSON value a line.
    JsonLines,
    /// `application/vnd.amazon.eventstream`
    AwsEventStream,
    /// The elements of one JSON array.
    JsonArray,
}

impl Framing {
    /// [`Self::Sse`] for a streamed answer, [`Self::Whole`] for another one.
    #[must_use]
    pub fn sse_if(streaming: bool) -> Self {
        if streaming { Self::Sse } else { Self::Whole }
    }
}

/// Golden cases show `["name", "text"]` or `["name", {"prefix", "secret"}]`.
impl Serialize for Placed {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.name, &self.value).serialize(serializer)
    }
}

/// Golden cases show a body as JSON, `{"splice": {…}}` as the changed members, anything else as text.
impl Serialize for Body {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_none(),
            Self::Bytes(bytes) => match serde_json::from_slice::<serde_json::Value>(bytes) {
                Ok(json) => json.serialize(serializer),
                Err(_) => String::from_utf8_lossy(bytes).serialize(serializer),
            },
            Self::Splice(edits) => {
                let edits: serde_json::Map<_, _> =
                    edits.iter().map(|(name, json)| (name.clone(), json.clone().into())).collect();
                serde_json::json!({ "splice": edits }).serialize(serializer)
            }
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
