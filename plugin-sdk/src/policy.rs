// SPDX-License-Identifier: Apache-2.0
//! The kinds that decide: auth, limits, routing, filters. Each answers with data, and the host acts on it.

use penstock_dialects::ir::Fault;
use serde::Serialize;

use crate::call::{Call, Pairs, Wants};
use crate::config::{Config, Issue};
use crate::order::Order;

/// Decides who asks. Export it with [`auth!`](crate::auth!).
pub trait Auth: Sized + 'static {
    /// What operators configure; `()` for nothing.
    type Config: Config;
    /// Secrets that the plugin names by itself; those that its configuration names are not listed.
    const SECRETS: &'static [&'static str] = &[];

    /// Begins service with this configuration; called once for each instance.
    ///
    /// # Errors
    /// What is wrong with the configuration beyond its shape.
    fn new(config: Self::Config) -> Result<Self, Vec<Issue>>;

    /// What the plugin wants to see of each call.
    fn wants(&self) -> Wants;

    /// Who asks.
    ///
    /// # Errors
    /// A fault of class authentication (401) or permission (403). It must not repeat the credential.
    fn authenticate(&self, call: &Call, headers: &Pairs) -> Result<Grant, Fault>;
}

/// Who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Grant {
    /// Stable name of the caller.
    pub subject: String,
    /// The group that the caller belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Further attributes; limits and routing see them as facts (`auth.<name>`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<(String, String)>,
    /// How long the host may answer for the same wanted headers by itself, in milliseconds; 0 for never.
    pub cache_ms: u32,
}

/// Says which counters a call is charged to. Export it with [`limits!`](crate::limits!).
pub trait Limits: Sized + 'static {
    /// What operators configure; `()` for nothing.
    type Config: Config;

    /// Begins service with this configuration; called once for each instance.
    ///
    /// # Errors
    /// What is wrong with the configuration beyond its shape.
    fn new(config: Self::Config) -> Result<Self, Vec<Issue>>;

    /// What calls have to agree in to be charged alike ([`Wants::alike`]); asked for once, after [`Limits::new`].
    fn wants(&self) -> Wants {
        Wants::nothing()
    }

    /// The counters of this call; none means unlimited.
    ///
    /// # Errors
    /// A fault that refuses the call.
    fn plan(&self, call: &Call) -> Result<Vec<Check>, Fault>;
}

/// One counter that a call is charged to. The host keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Name of the counter, within the plugin's own namespace.
    pub key: String,
    /// How it counts.
    pub algorithm: Algorithm,
    /// What it counts.
    pub counted: Counted,
    /// So many within the window.
    pub limit: u64,
    /// Length of the window in milliseconds; not looked at where the algorithm says it.
    pub window_ms: u64,
    /// What a full token bucket holds; 0 for `limit`. Other algorithms do not look at it.
    #[serde(skip_serializing_if = "is_zero")]
    pub burst: u64,
    /// For the caller, when this check refuses: which limit it is, in words.
    pub label: String,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "what serde asks for")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How a counter counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// Refills smoothly.
    TokenBucket,
    /// Starts anew with each window. Windows are cut from 1970 on in UTC, so that one of 24 hours is a day.
    FixedWindow,
    /// The window that ends now.
    SlidingWindow,
    /// The month of the calendar, in UTC.
    Month,
    /// For ever.
    Total,
    /// Calls at a time; the window is ignored.
    Concurrency,
}

impl Algorithm {
    /// The name that crosses the contract.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TokenBucket => "token-bucket",
            Self::FixedWindow => "fixed-window",
            Self::SlidingWindow => "sliding-window",
            Self::Month => "month",
            Self::Total => "total",
            Self::Concurrency => "concurrency",
        }
    }

    /// The algorithm of a name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        use Algorithm::{Concurrency, FixedWindow, Month, SlidingWindow, TokenBucket, Total};
        let all = [TokenBucket, FixedWindow, SlidingWindow, Month, Total, Concurrency];
        all.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

/// What a counter counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
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
    /// The name that crosses the contract.
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

/// Orders the targets of a call. Export it with [`routing!`](crate::routing!).
pub trait Routing: Sized + 'static {
    /// What operators configure; `()` for nothing.
    type Config: Config;

    /// Begins service with this configuration; called once for each instance.
    ///
    /// # Errors
    /// What is wrong with the configuration beyond its shape.
    fn new(config: Self::Config) -> Result<Self, Vec<Issue>>;

    /// What it wants to know of each call: headers become the facts `header.<name>`.
    fn wants(&self) -> Wants {
        Wants::nothing()
    }

    /// The order in which to try the targets; those left out are not tried. `seed` is random, new for each call: for chances
    /// that the weights of an [`Order`] cannot tell, and only without [`Wants::alike`].
    ///
    /// # Errors
    /// A fault that refuses the call.
    fn rank(&self, call: &Call, targets: &[Target], seed: u64) -> Result<Order, Fault>;
}

/// A target that a call may go to (`routing.wit`, `target`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Target {
    /// Unique in the route.
    pub id: String,
    /// Vendor or service.
    pub vendor: String,
    /// The vendor's name of the model.
    pub model: String,
    /// As the policy says.
    pub weight: u32,
    /// As the policy says; lower is tried first.
    pub priority: u32,
    /// Whether the host's breaker lets calls through.
    pub healthy: bool,
    /// Smoothed time to the first byte in milliseconds; 0 if unknown.
    pub latency_ms: u32,
    /// Calls under way.
    pub inflight: u32,
    /// Further facts by name: `input-price` and `output-price` for who wants `prices`.
    pub facts: Vec<(String, String)>,
}

impl Target {
    /// A further fact.
    #[must_use]
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.facts.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A healthy target of weight 1 without a name.
impl Default for Target {
    fn default() -> Self {
        Self {
            id: String::new(),
            vendor: String::new(),
            model: String::new(),
            weight: 1,
            priority: 0,
            healthy: true,
            latency_ms: 0,
            inflight: 0,
            facts: Vec::new(),
        }
    }
}

/// Sees the head of each request before auth. Export it with [`filter!`](crate::filter!).
pub trait Filter: Sized + 'static {
    /// What operators configure; `()` for nothing.
    type Config: Config;

    /// Begins service with this configuration; called once for each instance.
    ///
    /// # Errors
    /// What is wrong with the configuration beyond its shape.
    fn new(config: Self::Config) -> Result<Self, Vec<Issue>>;

    /// What the filter wants to see of each call.
    fn wants(&self) -> Wants;

    /// What to change, or how to answer.
    ///
    /// # Errors
    /// A fault that refuses the request.
    fn request_head(&self, call: &Call, head: &Head<'_>) -> Result<Verdict, Fault>;
}

/// A filter that sees the head of each answer, too. Export it with [`response_filter!`](crate::response_filter!).
pub trait ResponseFilter: Filter {
    /// What to change in the head of the answer. `headers` holds the wanted response headers.
    ///
    /// # Errors
    /// A fault that takes the place of the answer.
    fn response_head(&self, call: &Call, status: u16, headers: &Pairs) -> Result<Vec<Edit>, Fault>;
}

/// The head of a request.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// Method.
    pub method: &'a str,
    /// Path.
    pub path: &'a str,
    /// The wanted request headers.
    pub headers: &'a Pairs,
}

/// What a filter made of the head of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Changes to the request that goes on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub request: Vec<Edit>,
    /// Changes to the head of whatever answer the caller gets, errors included.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub response: Vec<Edit>,
    /// Answer at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<Reply>,
}

/// A change to a head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Edit {
    /// Replaces every value of the header.
    Set(String, String),
    /// Adds one value.
    Add(String, String),
    /// Removes the header.
    Remove(String),
}

/// An answer that a filter gives itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// Body.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_text")]
    pub body: Vec<u8>,
}

fn as_text<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&String::from_utf8_lossy(bytes))
}
