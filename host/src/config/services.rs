// SPDX-License-Identifier: Apache-2.0
//! What an operator writes about plain HTTP upstreams: where they are, how that is found out, and which of them is asked.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::Breaker;
use super::models::one;

/// A plain HTTP upstream: the endpoints that are written here, or those that `discover` finds.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Base URLs of its endpoints: `"https://host:port/path"`, `"unix:/path/to/socket"`, or
    /// `"unix:/path/to/socket:http://host/path"`; or `{ url = "…", weight = 3, priority = 1 }`.
    #[serde(default)]
    pub endpoints: Vec<Spanned<Base>>,
    /// Where to ask which endpoints there are, instead of `endpoints`.
    #[serde(default)]
    pub discover: Option<Spanned<Discover>>,
    /// Which endpoint is asked. Ill ones are passed over as long as there is another one.
    #[serde(default)]
    pub balance: Balance,
    /// What `balance = "hash"` goes by: `"client"` (the caller's address), `"header:NAME"` or `"cookie:NAME"`. Requests that have no
    /// such header or cookie go anywhere.
    #[serde(default)]
    pub hash: Option<Spanned<String>>,
    /// Asks each endpoint now and then whether it is well.
    #[serde(default)]
    pub probe: Option<Spanned<Probe>>,
    /// When an endpoint that fails is asked after others, and for how long. Answers of 500 and above are failures, but for 501 and
    /// 505. A new endpoint gets its share of the requests within `slow_start_ms`, too.
    #[serde(default)]
    pub breaker: Breaker,
    /// PEM file with further roots of trust.
    #[serde(default)]
    pub ca: Option<Spanned<String>>,
    /// The proxy on the way to the endpoints: `"http://host:port"` (CONNECT), `"socks5://host:port"` or, to have names looked up there,
    /// `"socks5h://host:port"`. With user and password, `"env:NAME"` or `"file:PATH"`, where such a URL stands.
    #[serde(default)]
    pub proxy: Option<Spanned<String>>,
    /// Speak HTTP/2 without negotiation (h2c), as gRPC does in clear text.
    #[serde(default)]
    pub http2: bool,
}

/// Where an endpoint is, and how much it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// Base URL.
    pub url: String,
    /// Its share, for balances that weigh.
    pub weight: u32,
    /// Endpoints of a higher number are asked when none of a lower one is well.
    pub priority: u32,
}

impl<'de> Deserialize<'de> for Base {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            url: String,
            #[serde(default = "one")]
            weight: u32,
            #[serde(default)]
            priority: u32,
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Base;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a URL, or a table with `url`, `weight` and `priority`")
            }

            fn visit_str<E>(self, url: &str) -> Result<Base, E> {
                Ok(Base { url: url.to_owned(), weight: one(), priority: 0 })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Base, A::Error> {
                let Table { url, weight, priority } = Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Base { url, weight, priority })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Which endpoint of a service is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// One after another.
    #[default]
    RoundRobin,
    /// At random, by weight.
    Weighted,
    /// The one with the fewest requests under way for its weight.
    LeastBusy,
    /// Of two drawn at random, the one with the shorter answer times, of which a long one counts at once and is forgotten slowly, and
    /// requests under way.
    PeakEwma,
    /// The same one for what is alike in `hash`, as long as it is there; when one comes or goes, only its share moves.
    Hash,
}

/// Where to ask which endpoints there are; exactly one of `dns`, `srv`, `consul`, `kubernetes` and `registry`. While the source is away
/// or names none, the last endpoints stay.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Discover {
    /// A name with a port, `"api.internal:8080"`: each of its addresses (A, AAAA) is an endpoint.
    pub dns: Option<String>,
    /// A name with SRV records, `"_http._tcp.api.internal"`: hosts, ports, weights and priorities.
    pub srv: Option<String>,
    /// A service in Consul: its instances that pass all checks.
    pub consul: Option<Consul>,
    /// A service in Kubernetes: its endpoints that are ready.
    pub kubernetes: Option<Kubernetes>,
    /// A service that registers itself with the admin API, by its name: its instances that send heartbeats.
    pub registry: Option<String>,
    /// `"http"` or `"https"`; a service that registers itself says so itself.
    pub scheme: Scheme,
    /// Name that is sent as `Host` and that certificates are for, for endpoints that are known by their address; the name in `dns`, the
    /// host in an SRV record, else the address.
    pub host: Option<String>,
    /// Path before every path.
    pub path: String,
    /// DNS servers, `"10.0.0.2:53"`; without them those of `/etc/resolv.conf`.
    pub servers: Vec<std::net::SocketAddr>,
    /// Shortest time between two looks, in milliseconds, however short the TTL; the pause after a look that failed begins with it.
    pub refresh_ms_min: u64,
    /// Longest time between two looks, in milliseconds, however long the TTL.
    pub refresh_ms_max: u64,
    /// Endpoints that are taken; further ones are left out.
    pub endpoints_max: usize,
}

impl Default for Discover {
    fn default() -> Self {
        Self {
            dns: None,
            srv: None,
            consul: None,
            kubernetes: None,
            registry: None,
            scheme: Scheme::Http,
            host: None,
            path: String::new(),
            servers: Vec::new(),
            refresh_ms_min: 1_000,
            refresh_ms_max: 60_000,
            endpoints_max: 256,
        }
    }
}

/// How discovered endpoints are spoken to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Clear text.
    #[default]
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// As it stands in a URL.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A service in Consul. Changes are told at once, by blocking queries.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consul {
    /// Where Consul is: `"http://127.0.0.1:8500"`.
    pub url: String,
    /// Name of the service.
    pub service: String,
    /// Only instances with this tag.
    #[serde(default)]
    pub tag: Option<String>,
    /// Only those of this datacenter; without it, that of the agent.
    #[serde(default)]
    pub datacenter: Option<String>,
    /// Token that may read the service, `"env:NAME"` or `"file:PATH"`.
    #[serde(default)]
    pub token: Option<String>,
    /// PEM file with further roots of trust for Consul.
    #[serde(default)]
    pub ca: Option<String>,
}

/// A service in Kubernetes, by its `EndpointSlices`, which are watched. The service account needs `list` and `watch` on `endpointslices` of
/// `discovery.k8s.io`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kubernetes {
    /// Namespace of the service.
    pub namespace: String,
    /// Name of the service.
    pub service: String,
    /// Name or number of the port; not needed if there is only one.
    #[serde(default)]
    pub port: Option<String>,
    /// Where the API server is; within a cluster this is known.
    #[serde(default)]
    pub url: Option<String>,
    /// Token, `"env:NAME"` or `"file:PATH"`; it is read again for each question.
    #[serde(default = "account_token")]
    pub token: String,
    /// PEM file with the roots of trust for the API server.
    #[serde(default = "account_ca")]
    pub ca: String,
}

fn account_token() -> String {
    "file:/var/run/secrets/kubernetes.io/serviceaccount/token".to_owned()
}

fn account_ca() -> String {
    "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt".to_owned()
}

/// Asks each endpoint now and then whether it is well: an answer below 400 says so.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// What is asked for, by GET: `"/healthz"`.
    pub path: String,
    /// Time between two questions to an endpoint, in milliseconds.
    #[serde(default = "five_seconds")]
    pub every_ms: u64,
    /// How long an answer may take, in milliseconds.
    #[serde(default = "a_second")]
    pub timeout_ms: u64,
    /// Good answers in a row after which an ill endpoint is well. A new one needs one.
    #[serde(default = "two")]
    pub healthy_after: u32,
    /// Bad ones in a row after which it is ill.
    #[serde(default = "three")]
    pub unhealthy_after: u32,
}

fn five_seconds() -> u64 {
    5_000
}

fn a_second() -> u64 {
    1_000
}

fn two() -> u32 {
    2
}

fn three() -> u32 {
    3
}
