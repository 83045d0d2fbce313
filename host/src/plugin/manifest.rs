// SPDX-License-Identifier: Apache-2.0
//! What a component says of itself, in its custom section `penstock:plugin` (JSON). It serves people and error texts,
//! and says what a type cannot; what a component imports and exports is read from its types.

use serde::Deserialize;
use serde_json::Value;

/// What a plugin is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Speaks a vendor's API.
    Adapter,
    /// Decides who asks.
    Auth,
    /// Limits.
    Limits,
    /// Orders targets.
    Routing,
    /// Edits the heads of requests, and of answers if it exports `response-filter`.
    Filter,
}

impl Kind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[Self::Adapter, Self::Auth, Self::Limits, Self::Routing, Self::Filter];

    /// The name in manifests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Adapter => "adapter",
            Self::Auth => "auth",
            Self::Limits => "limits",
            Self::Routing => "routing",
            Self::Filter => "filter",
        }
    }

    /// The kind of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// The interface that a plugin of this kind exports, beside `lifecycle`.
    #[must_use]
    pub fn export(self) -> &'static str {
        match self {
            Self::Adapter => "adapter",
            Self::Auth => "auth",
            Self::Limits => "limits",
            Self::Routing => "routing",
            Self::Filter => "head-filter",
        }
    }

    /// The interfaces of `penstock:plugin` that a plugin of this kind may import; the first two are names of types.
    #[must_use]
    pub fn imports(self) -> &'static [&'static str] {
        match self {
            Self::Adapter => &["types", "requests", "filter-types", "log", "metrics", "secrets"],
            Self::Auth => &[
                "types",
                "requests",
                "filter-types",
                "log",
                "metrics",
                "secrets",
                "state",
                "virtual-keys",
                "documents",
                "signatures",
            ],
            Self::Limits => &["types", "requests", "filter-types", "log", "metrics", "rules"],
            Self::Routing | Self::Filter => &["types", "requests", "filter-types", "log", "metrics"],
        }
    }
}

/// The manifest of a component. Unknown members are ignored: a newer SDK may say more.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Manifest {
    /// "adapter", "auth", "limits", "routing", "filter".
    pub kind: String,
    /// Version of the contract that it was built for.
    pub api: String,
    /// Name, in lower-case letters, digits and hyphens.
    pub name: String,
    /// Version of the plugin.
    #[serde(default)]
    pub version: String,
    /// One sentence.
    #[serde(default)]
    pub description: String,
    /// SPDX expression.
    #[serde(default)]
    pub licence: String,
    /// JSON schema of the configuration; `null` admits any object.
    #[serde(default)]
    pub schema: Value,
    /// Names under which it asks for secrets.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// Adapters: dialects that the vendor speaks, for calls that are relayed.
    #[serde(default)]
    pub dialects: Vec<String>,
    /// Adapters: operations that it serves.
    #[serde(default)]
    pub operations: Vec<String>,
    /// Adapters: what of a conversation it can carry.
    #[serde(default)]
    pub features: Vec<String>,
}

impl Manifest {
    /// Whether the name is one that files, metrics and policies can use.
    #[must_use]
    pub fn has_valid_name(&self) -> bool {
        let name = self.name.as_bytes();
        (1..=64).contains(&name.len())
            && name[0].is_ascii_lowercase()
            && name.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
    }
}
