// SPDX-License-Identifier: Apache-2.0
//! The stores that gateways share: counters, and what operators manage; and which plugins they take.

use serde::Deserialize;
use toml::Spanned;

/// Where the counters of limits and budgets are: in memory with a journal in the state directory, or in a Redis that many
/// nodes share. Read at the start only.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct State {
    /// A Redis that many nodes share, `"redis://host:port/database"` or with TLS `"rediss://…"`; none for one node alone. A
    /// password has no place in here.
    pub redis: Option<Spanned<String>>,
    /// Name to log in with.
    pub user: Option<String>,
    /// Password to log in with, `"env:NAME"` or `"file:PATH"`.
    pub password: Option<Spanned<String>>,
    /// PEM file with the roots of trust for TLS; none for those of the system.
    pub ca: Option<Spanned<String>>,
    /// Begin of every key in Redis: nodes with the same one share their counters.
    pub prefix: String,
    /// How long a call waits for Redis, in milliseconds. Whatever takes longer is away.
    pub timeout_ms: u64,
    /// While Redis is away: `"local"` counts on each node by itself, `"closed"` refuses calls that have a limit, `"open"` looks
    /// at no limit. What is used meanwhile is told when it is back.
    pub away: Away,
    /// After how long the calls at a time of a node that is gone are given back, in milliseconds.
    pub lease_ms: u64,
    /// Counters of windows of an hour and more that there may be in memory; a call that needs one more is refused.
    pub budgets_max: usize,
    /// Bytes of the journal of what Redis has not been told; while it is away and there are more, calls that have a limit are
    /// refused.
    pub unsent_bytes_max: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            redis: None,
            user: None,
            password: None,
            ca: None,
            prefix: "penstock".to_owned(),
            timeout_ms: 50,
            away: Away::Local,
            lease_ms: 30_000,
            budgets_max: 1_000_000,
            unsent_bytes_max: 1 << 30,
        }
    }
}

/// What happens to calls that have a limit while Redis is away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Away {
    /// Each node counts by itself.
    #[default]
    Local,
    /// They are refused.
    Closed,
    /// They go on, and nothing is looked at.
    Open,
}

/// Gateways that share the directory, policy files and plugins through a Redis. What stands in here is a node's own: it is
/// read at the start, and only from the file `node.toml` at the top of the policy directory.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cluster {
    /// The Redis of the cluster, `"redis://host:port/database"` or with TLS `"rediss://…"`; none for a gateway alone. A password
    /// has no place in here.
    pub redis: Option<Spanned<String>>,
    /// Name to log in with.
    pub user: Option<String>,
    /// Password to log in with, `"env:NAME"` or `"file:PATH"`.
    pub password: Option<Spanned<String>>,
    /// PEM file with the roots of trust for TLS; none for those of the system.
    pub ca: Option<Spanned<String>>,
    /// Begin of every key in Redis: nodes with the same one are one cluster.
    pub prefix: String,
    /// Name of this node, for people; without it, the begin of an id that is made in the state directory.
    pub name: Option<String>,
    /// How long Redis may take for an answer, in milliseconds. Whatever takes longer is away.
    pub timeout_ms: u64,
    /// How often it is looked for changes that were not announced, in milliseconds.
    pub poll_ms: u64,
    /// After how long another node leads when nothing is heard of the leader, in milliseconds.
    pub lease_ms: u64,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            redis: None,
            user: None,
            password: None,
            ca: None,
            prefix: "penstock".to_owned(),
            name: None,
            timeout_ms: 2000,
            poll_ms: 300,
            lease_ms: 5000,
        }
    }
}

/// Whose plugins are taken. With a rule, a plugin is neither compiled nor used unless its digest is listed or its last section is
/// a signature by a listed key; without one, whoever can write into a plugin directory or has an admin token is trusted.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Trust {
    /// Take no plugin but those that the two lists name, even when both are empty. One that is not empty demands it anyway.
    pub required: bool,
    /// SHA-256 of plugin files, in hex, as `sha256sum` prints them.
    pub digests: Vec<Spanned<String>>,
    /// Ed25519 keys whose signatures are taken, in base64, as `penstock plugin sign` and `openssl pkey -pubout` print them.
    pub keys: Vec<Spanned<String>>,
}
