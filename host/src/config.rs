// SPDX-License-Identifier: Apache-2.0
//! What an operator writes: the TOML of the policy files, as types. An unknown key is an error, every limit has a name and
//! a default here, and these doc comments are the configuration reference (docs/configuration.md is made from them).
//!
//! Nothing here is checked beyond its type; [`crate::snapshot`] turns a `Config` into what is in force or refuses it.

mod listeners;
pub mod load;
mod models;
pub mod place;
mod services;
mod stores;
pub mod suggest;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use penstock_prices::price::Price;
use serde::Deserialize;
use toml::Spanned;

pub use listeners::{ClientAuth, Listener, Place, ProxyProtocol, Sni, Tls};
pub use models::{Hedge, Model, Target};
pub use services::{Balance, Base, Consul, Discover, Kubernetes, Probe, Scheme, Service};
pub use stores::{Away, Cluster, State, Trust};

/// All policy files together.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The admin API.
    pub admin: Admin,
    /// Sockets that callers connect to.
    pub listeners: Vec<Listener>,
    /// Requests that go on when their callers have gone.
    pub jobs: Jobs,
    /// What is remembered for auth plugins, and asked for them.
    pub auth: Auth,
    /// Ceilings of the data path.
    pub limits: Limits,
    /// Time-outs towards callers and upstreams.
    pub timeouts: Timeouts,
    /// Where the counters of limits and budgets are.
    pub state: State,
    /// Traces of requests, for a collector.
    pub traces: Traces,
    /// The gateways that share keys, policies and plugins.
    pub cluster: Cluster,
    /// Ceilings of the plugins.
    pub sandbox: Sandbox,
    /// Whose plugins are taken.
    pub trust: Trust,
    /// Secrets by name, for grants to plugins: `"env:NAME"` or `"file:PATH"`.
    pub secrets: BTreeMap<String, Spanned<String>>,
    /// Configured policy plugins (auth, limits, routing, filters) by name; routes refer to these names.
    pub plugins: BTreeMap<String, Plugin>,
    /// Vendors by name.
    pub vendors: BTreeMap<String, Vendor>,
    /// Names that a caller may use for a model, beside `vendor/model` and the models that vendors list.
    pub models: BTreeMap<String, Model>,
    /// What models cost, by `"vendor/model"`, before what the built-in tables say of them.
    pub prices: BTreeMap<String, Spanned<Price>>,
    /// Plain HTTP upstreams by name.
    pub services: BTreeMap<String, Service>,
    /// What is served where. The longest matching path prefix wins, a route with a host before one without.
    pub routes: Vec<Route>,
}

/// The admin API. It speaks clear text: give it an address that only operators reach.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Address and port; port 0 takes a free one.
    pub address: SocketAddr,
    /// Let `/metrics` be read without the token.
    pub metrics_open: bool,
    /// Connections at a time.
    pub connections_max: usize,
    /// The key that seals vendor keys in the state directory, `"env:NAME"` or `"file:PATH"`, of at least 32 bytes; without it, one
    /// is made in the state directory. Changes take effect after a restart.
    pub master_key: Option<Spanned<String>>,
}

impl Default for Admin {
    fn default() -> Self {
        Self { address: (Ipv4Addr::LOCALHOST, 9080).into(), metrics_open: false, connections_max: 64, master_key: None }
    }
}

/// What is remembered for auth plugins, and asked for them. Each of them has its own; a change makes them forget.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// Callers that are let in again without asking the plugin. Rounded to a power of two.
    pub grants_max: usize,
    /// How long at most a caller is let in without asking the plugin, in milliseconds, whatever the plugin says; 0 for never.
    pub grant_ms_max: u64,
    /// Answers of others that are kept: sets of keys, what is thought of a token. Rounded to a power of two.
    pub documents_max: usize,
    /// Largest such answer, in bytes.
    pub document_bytes_max: usize,
    /// Sum of these answers, in bytes; when there are more, they are forgotten.
    pub documents_bytes_max: u64,
    /// Such questions on their way at a time.
    pub fetches_max: usize,
    /// How long an answer may take, in milliseconds; then whoever was asked is away.
    pub fetch_ms: u64,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            grants_max: 65_536,
            grant_ms_max: 300_000,
            documents_max: 8_192,
            document_bytes_max: 256 << 10,
            documents_bytes_max: 64 << 20,
            fetches_max: 64,
            fetch_ms: 5_000,
        }
    }
}

/// Ceilings of the data path.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest request body of an AI route, in bytes. Bodies of plain HTTP routes are streamed and have no ceiling.
    pub body_bytes_max: usize,
    /// Largest whole answer that is translated or kept for a retry decision, in bytes.
    pub answer_bytes_max: usize,
    /// Largest single frame of a streamed answer, in bytes.
    pub frame_bytes_max: usize,
    /// Largest head of a request, in bytes.
    pub head_bytes_max: usize,
    /// Connections at a time, over all listeners.
    pub connections_max: usize,
    /// Requests of callers under way at a time, streams to their last byte; further ones are refused at once. Read at the start only.
    pub requests_max: usize,
    /// How long a request may wait for a processor, all its steps together, in milliseconds. Where there is more to do than that, as many
    /// are refused at once as it takes; 0 for none. Read at the start only.
    pub shed_delay_ms: u64,
    /// HTTP/2 streams at a time on one connection.
    pub streams_max: u32,
    /// Idle upstream connections kept for each host.
    pub idle_upstream_max: usize,
    /// Where upstreams may be, whatever their names resolve to: `"public"`, `"private"` (those of RFC 1918, `100.64.0.0/10`,
    /// `fc00::/7`), `"loopback"`, `"link-local"` (`169.254.0.0/16`, where clouds have their metadata, and `fe80::/10`), and ranges such
    /// as `"10.1.0.0/16"`. Connections to other addresses are not made. Read at the start only.
    pub upstream_addresses: Vec<String>,
    /// Tries of one request, at one target after another, second ones included.
    pub attempts_max: u32,
    /// Round trips that an adapter may ask for within one attempt.
    pub round_trips_max: u32,
    /// Base64 strings from this length on are kept out of adapters.
    pub blob_bytes_min: usize,
    /// Counters kept in memory for limits; the least recently used one goes first. Those of windows of an hour and more are
    /// apart (`state.budgets_max`).
    pub counters_max: usize,
    /// Tokens that an answer is expected to have where the caller does not say how many it may have; limits of tokens and
    /// money reserve them until the truth is known.
    pub output_tokens: u64,
    /// Generations kept for a roll-back.
    pub generations_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 32 << 20,
            answer_bytes_max: 64 << 20,
            frame_bytes_max: 16 << 20,
            head_bytes_max: 64 << 10,
            connections_max: 16_384,
            requests_max: 16_384,
            shed_delay_ms: 100,
            streams_max: 100,
            idle_upstream_max: 256,
            upstream_addresses: ["public", "private", "loopback"].map(str::to_owned).to_vec(),
            attempts_max: 4,
            round_trips_max: 200,
            blob_bytes_min: 4096,
            counters_max: 1_000_000,
            output_tokens: 1024,
            generations_max: 16,
        }
    }
}

/// Traces of requests, told over OTLP. Read at the start only.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Traces {
    /// A collector that takes OTLP over HTTP, without the path `/v1/traces`: `"http://127.0.0.1:4318"`. None traces nothing.
    pub endpoint: Option<Spanned<String>>,
    /// Headers that the collector wants, by their names; the values are `"env:NAME"` or `"file:PATH"`.
    pub headers: BTreeMap<String, Spanned<String>>,
    /// PEM file with further roots of trust for the collector.
    pub ca: Option<Spanned<String>>,
    /// The proxy on the way to the collector, as that of a vendor.
    pub proxy: Option<Spanned<String>>,
    /// Share of the requests that are traced, from 0 to 1.
    pub sample_ratio: f64,
    /// Trace a request if the caller's `traceparent` says that it is sampled, and do not if it says that it is not, whatever the
    /// share.
    pub follow_parent: bool,
    /// Name of this gateway in traces (`service.name`).
    pub service_name: String,
    /// Requests whose traces wait to be told; further ones are dropped and counted.
    pub queue_max: usize,
    /// Spans that are told at a time.
    pub batch_spans_max: usize,
    /// How long a trace waits for others to be told with, in milliseconds.
    pub interval_ms: u64,
    /// How long the collector may take to answer, in milliseconds.
    pub timeout_ms: u64,
}

impl Default for Traces {
    fn default() -> Self {
        Self {
            endpoint: None,
            headers: BTreeMap::new(),
            ca: None,
            proxy: None,
            sample_ratio: 1.0,
            follow_parent: true,
            service_name: "penstock".to_owned(),
            queue_max: 2048,
            batch_spans_max: 512,
            interval_ms: 2000,
            timeout_ms: 10_000,
        }
    }
}

/// Time-outs, in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// A caller sends the head of a request.
    pub head_ms: u64,
    /// A caller sends the next piece of a body.
    pub body_idle_ms: u64,
    /// A caller's connection without a request.
    pub keep_alive_ms: u64,
    /// Connect to an upstream, TLS included.
    pub connect_ms: u64,
    /// An upstream sends the head of its answer.
    pub first_byte_ms: u64,
    /// An upstream that streams says the first word of its answer, counted from the head of it, while another target is left
    /// to ask.
    pub first_word_ms: u64,
    /// An upstream sends the next piece of its answer.
    pub idle_ms: u64,
    /// A target that asks for patience, or may do better a moment later, is asked a second time when nobody else is left;
    /// for longer than this nobody waits, and the caller is told how long. 0 asks nobody twice.
    pub retry_wait_ms: u64,
    /// A whole exchange, from the first byte of the request to the last one of the answer.
    pub total_ms: u64,
    /// Streams that run when the gateway is told to stop.
    pub drain_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head_ms: 10_000,
            body_idle_ms: 30_000,
            keep_alive_ms: 75_000,
            connect_ms: 5_000,
            first_byte_ms: 300_000,
            first_word_ms: 300_000,
            idle_ms: 120_000,
            retry_wait_ms: 5_000,
            total_ms: 1_800_000,
            drain_ms: 30_000,
        }
    }
}

/// Requests that go on when their callers have gone: those with `Prefer: respond-async`, and films.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Jobs {
    /// How long a job is kept after its end, in hours.
    pub kept_hours: u64,
    /// Jobs that are kept; one more is refused.
    pub max: usize,
    /// Sum of the bodies and answers that are kept, in bytes; a job beyond it is refused.
    pub bytes_max: u64,
    /// Jobs that are worked on at a time; the others wait.
    pub concurrent: usize,
    /// How long a job may take from its acceptance on, in seconds.
    pub deadline_s: u64,
    /// Where callers may have the end of a job reported to: beginnings of URLs, in whole path segments.
    pub webhooks: Vec<Spanned<String>>,
    /// What these reports are signed with, `"env:NAME"` or `"file:PATH"`; base64 after `whsec_`, or any bytes.
    pub webhook_secret: Option<Spanned<String>>,
    /// The proxy on the way to the webhooks, as that of a vendor.
    pub webhook_proxy: Option<Spanned<String>>,
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            kept_hours: 24,
            max: 10_000,
            bytes_max: 4 << 30,
            concurrent: 64,
            deadline_s: 7200,
            webhooks: Vec::new(),
            webhook_secret: None,
            webhook_proxy: None,
        }
    }
}

/// Ceilings of the plugins.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sandbox {
    /// Sum of the memories of one instance, in bytes.
    pub memory_bytes_max: usize,
    /// Sum of the memories of all instances of all plugins, in bytes.
    pub memory_sum_bytes_max: usize,
    /// Instances of one plugin.
    pub instances_max: u32,
    /// Live exchanges of one instance.
    pub exchanges_max: u32,
    /// An instance is replaced, once it is idle, after this many calls.
    pub calls_max: u64,
    /// One call into an adapter, in milliseconds.
    pub adapter_ms: u64,
    /// One call into a plugin of another kind, in milliseconds.
    pub policy_ms: u64,
    /// `configure` and the self-test, in milliseconds.
    pub configure_ms: u64,
    /// Largest component file, in bytes.
    pub component_bytes_max: usize,
    /// CPU time for compiling one component, in seconds. It is done in a child process.
    pub compile_s: u64,
    /// Memory for compiling one component, in bytes.
    pub compile_bytes_max: u64,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self {
            memory_bytes_max: 64 << 20,
            memory_sum_bytes_max: 2 << 30,
            instances_max: 64,
            exchanges_max: 256,
            calls_max: 1_000_000,
            adapter_ms: 50,
            policy_ms: 5,
            configure_ms: 2_000,
            component_bytes_max: 16 << 20,
            compile_s: 20,
            compile_bytes_max: 1 << 30,
        }
    }
}

/// Whether exchanges share instances of a plugin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Many exchanges share an instance.
    #[default]
    Shared,
    /// A fresh instance for each exchange, for a plugin that is not trusted.
    Request,
}

/// A configured policy plugin.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plugin {
    /// Name of the component: `"token-bucket"`.
    pub plugin: Spanned<String>,
    /// Names from `[secrets]` that the plugin may use.
    #[serde(default)]
    pub secrets: Vec<Spanned<String>>,
    /// Auth: places that the plugin may ask, by the names that its README gives.
    #[serde(default)]
    pub endpoints: BTreeMap<String, Spanned<String>>,
    /// Auth: PEM file with further roots of trust for these places.
    #[serde(default)]
    pub ca: Option<Spanned<String>>,
    /// Auth: the proxy on the way to these places: `"http://host:port"` (CONNECT), `"socks5://host:port"` or, to have names looked up there,
    /// `"socks5h://host:port"`. With user and password, `"env:NAME"` or `"file:PATH"`, where such a URL stands.
    #[serde(default)]
    pub proxy: Option<Spanned<String>>,
    /// Sharing of instances.
    #[serde(default)]
    pub isolation: Isolation,
    /// The plugin's own configuration; its README says what there is.
    #[serde(default)]
    pub config: Option<Spanned<toml::Table>>,
}

/// A company behind an API.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vendor {
    /// Name of the adapter component: `"echo"`.
    pub adapter: Spanned<String>,
    /// Where the API is; adapters give only paths below it. Not needed by an adapter that answers by itself. A Unix socket is
    /// `"unix:/path/to/socket:http://host/path"`.
    #[serde(default)]
    pub base_url: Option<Spanned<String>>,
    /// Further places that the adapter may ask, by the names that its README gives.
    #[serde(default)]
    pub endpoints: BTreeMap<String, Spanned<String>>,
    /// The vendor's key, `"env:NAME"` or `"file:PATH"`; granted to the adapter as the secret `key`.
    #[serde(default)]
    pub key: Option<Spanned<String>>,
    /// Another vendor, whose keys in the directory this one uses as long as it has none of its own there: two APIs of one company.
    #[serde(default)]
    pub keys_of: Option<Spanned<String>>,
    /// Leave the vendor out, instead of refusing the policy, when its key is not set or its adapter is not there; it comes
    /// alive when they are.
    #[serde(default)]
    pub optional: bool,
    /// Further grants: the adapter's name for a secret, and a name from `[secrets]`.
    #[serde(default)]
    pub secrets: BTreeMap<String, Spanned<String>>,
    /// Models by the vendor's own names; callers may use them as they are. A trailing `*` matches any rest.
    #[serde(default)]
    pub models: Vec<String>,
    /// Configured limits that each attempt at this vendor is charged to. An exhausted one means that another target is tried;
    /// a call is refused when none is left.
    #[serde(default)]
    pub limits: Vec<Spanned<String>>,
    /// Features that its adapter can carry and the vendor does not have: `"tools"`, `"image-input"`. They are left out of what
    /// `GET /v1/capabilities` says of it.
    #[serde(default)]
    pub without: Vec<Spanned<String>>,
    /// PEM file with further roots of trust for this vendor.
    #[serde(default)]
    pub ca: Option<Spanned<String>>,
    /// The proxy on the way to this vendor: `"http://host:port"` (CONNECT), `"socks5://host:port"` or, to have names looked up there,
    /// `"socks5h://host:port"`. With user and password, `"env:NAME"` or `"file:PATH"`, where such a URL stands.
    #[serde(default)]
    pub proxy: Option<Spanned<String>>,
    /// Speak HTTP/2 without negotiation (h2c) to a clear-text upstream.
    #[serde(default)]
    pub http2: bool,
    /// When a model of it that fails is asked after others, and for how long.
    #[serde(default)]
    pub breaker: Breaker,
    /// Sharing of instances.
    #[serde(default)]
    pub isolation: Isolation,
    /// The adapter's own configuration; its README says what there is.
    #[serde(default)]
    pub config: Option<Spanned<toml::Table>>,
}

/// When a target that fails is ejected: asked only after all that are well. A caller's mistakes, refused keys and rate limits are
/// no failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// Failures in a row that eject.
    pub failures_max: u32,
    /// Percentage of failing answers, of the last dozen or so, that ejects.
    pub failing_percent: u32,
    /// How long the first ejection lasts, in milliseconds; one that follows lasts twice as long.
    pub eject_ms: u32,
    /// How long any lasts, in milliseconds.
    pub eject_ms_max: u32,
    /// How long it takes until all requests are back after an ejection, in milliseconds.
    pub slow_start_ms: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failures_max: 5, failing_percent: 40, eject_ms: 5_000, eject_ms_max: 60_000, slow_start_ms: 10_000 }
    }
}

/// What is served at a path.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Name, for logs and metrics.
    pub name: Spanned<String>,
    /// Path prefix, in whole segments: `"/v1"` matches `/v1` and `/v1/models`, not `/v10`.
    pub path: Spanned<String>,
    /// Host name; none for any.
    #[serde(default)]
    pub host: Option<String>,
    /// Plain HTTP: the service that is asked. Without it the route is an AI route.
    #[serde(default)]
    pub service: Option<Spanned<String>>,
    /// Plain HTTP: whether the prefix is taken off the path before the service is asked.
    #[serde(default)]
    pub strip_prefix: bool,
    /// Configured filters, in order.
    #[serde(default)]
    pub filters: Vec<Spanned<String>>,
    /// Configured auth plugin; none leaves the route open.
    #[serde(default)]
    pub auth: Option<Spanned<String>>,
    /// Configured limits; all of them must admit a call.
    #[serde(default)]
    pub limits: Vec<Spanned<String>>,
    /// Configured routing plugin; none tries the targets in the order of the file.
    #[serde(default)]
    pub routing: Option<Spanned<String>>,
    /// AI routes: when a second target is asked beside a slow one, for models that do not say so themselves.
    #[serde(default)]
    pub hedge: Option<Spanned<Hedge>>,
    /// AI routes: dialects that are spoken here; all of them if it is left out.
    #[serde(default)]
    pub dialects: Vec<Spanned<String>>,
    /// Compress answers for callers that accept it: `["zstd", "br", "gzip"]`, the one that is preferred first. Texts from 1 KiB on; nothing that is
    /// compressed already, a part of something, `no-transform`, or gRPC.
    #[serde(default)]
    pub compress: Vec<Coding>,
    /// Compress streams of events, too. Each event goes out at once, as ever.
    #[serde(default)]
    pub compress_events: bool,
    /// Refuse a call when a translation cannot carry a part of it, instead of telling so in `penstock-dropped`.
    #[serde(default)]
    pub strict: bool,
}

/// A coding of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Coding {
    /// Brotli (RFC 7932).
    Br,
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
}

impl Coding {
    /// Its name in HTTP.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Br => "br",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}
