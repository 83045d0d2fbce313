// SPDX-License-Identifier: Apache-2.0
//! The ways in which compatible vendors differ, as an operator writes them, and what they change in a request.

use std::collections::BTreeMap;

use penstock_sdk::dialects::openai_chat::Style;
use penstock_sdk::prelude::{Config, Issue};
use serde_json::Value;

/// The vendor's ways. What is left out is as at OpenAI.
#[derive(Debug, Config)]
pub struct Options {
    /// Paths below the base URL.
    #[config(default)]
    paths: Paths,
    /// Where the key goes.
    #[config(default)]
    auth: Auth,
    /// Further headers, the same for each request.
    #[config(default)]
    headers: BTreeMap<String, String>,
    /// Query parameters, the same for each request.
    #[config(default)]
    query: BTreeMap<String, String>,
    /// Members of the request that this vendor calls otherwise: OpenAI's name = the vendor's name.
    #[config(default)]
    rename: BTreeMap<String, String>,
    /// Members of the request that this vendor refuses. They are removed, and the caller is told.
    #[config(default)]
    drop: Vec<String>,
    /// Members that are set if the caller leaves them out.
    #[config(default)]
    default: BTreeMap<String, Value>,
    /// Numbers that must lie between two bounds; the nearer bound takes the place of one that does not.
    #[config(default)]
    clamp: BTreeMap<String, [f64; 2]>,
    /// Whether the vendor tells the usage of a stream if `stream_options.include_usage` asks for it. Asked for in
    /// translated calls only: in a relayed one the caller would get a chunk that it did not ask for.
    #[config(default = true)]
    stream_usage: bool,
    /// Whether the vendor understands `cache_control` marks.
    #[config(default = false)]
    cache_marks: bool,
    /// Whether the vendor understands `top_k`.
    #[config(default = false)]
    top_k: bool,
    /// The member of a message in which reasoning goes back to the vendor.
    #[config(default)]
    reasoning: ReasoningMember,
}

/// Paths below the base URL; "" for an operation that the vendor does not have.
#[derive(Debug, Config)]
struct Paths {
    /// Chat completions.
    #[config(default = "/chat/completions")]
    chat: String,
    /// Embeddings.
    #[config(default = "/embeddings")]
    embeddings: String,
}

impl Default for Paths {
    fn default() -> Self {
        Self { chat: "/chat/completions".to_owned(), embeddings: "/embeddings".to_owned() }
    }
}

/// Where the key goes.
#[derive(Debug, Config)]
pub(crate) struct Auth {
    /// Header, in lower case.
    #[config(default = "authorization", min = 1)]
    pub(crate) header: String,
    /// What stands before the key in the header.
    #[config(default = "Bearer ")]
    pub(crate) prefix: String,
    /// Query parameter, instead of a header.
    #[config(min = 1)]
    pub(crate) query: Option<String>,
}

impl Default for Auth {
    fn default() -> Self {
        Self { header: "authorization".to_owned(), prefix: "Bearer ".to_owned(), query: None }
    }
}

/// The member of a message in which reasoning goes back to the vendor.
#[derive(Debug, Clone, Copy, Default, Config)]
enum ReasoningMember {
    /// `reasoning_content`.
    #[default]
    ReasoningContent,
    /// `reasoning`.
    Reasoning,
    /// It does not go back.
    None,
}

/// Changes to the top-level members of a request: raw JSON to set, "" to remove.
#[derive(Debug, Default)]
pub(crate) struct Edits {
    pub(crate) edits: Vec<(String, String)>,
    /// What the caller loses.
    pub(crate) dropped: Vec<String>,
}

impl Options {
    /// What is wrong beyond the types.
    pub(crate) fn issues(&self) -> Vec<Issue> {
        let mut issues = Vec::new();
        for (name, path) in [("chat", &self.paths.chat), ("embeddings", &self.paths.embeddings)] {
            if !path.is_empty() && !path.starts_with('/') {
                issues.push(Issue::new(format!("paths.{name}"), "a path begins with a slash; \"\" for none"));
            }
        }
        for (name, [low, high]) in &self.clamp {
            if low > high {
                issues.push(Issue::new(format!("clamp.{name}"), "the first bound is the lower one"));
            }
        }
        for name in self.headers.keys().filter(|name| **name != name.to_ascii_lowercase()) {
            issues.push(Issue::new(format!("headers.{name}"), "write the name in lower case"));
        }
        issues
    }

    /// The path of an operation, if the vendor has it.
    pub(crate) fn path(&self, operation: &str) -> Option<&str> {
        let path = match operation {
            "chat" => &self.paths.chat,
            "embeddings" => &self.paths.embeddings,
            _ => return None,
        };
        Some(path.as_str()).filter(|path| !path.is_empty())
    }

    pub(crate) fn auth(&self) -> &Auth {
        &self.auth
    }

    pub(crate) fn headers(&self) -> impl Iterator<Item = (&String, &String)> {
        self.headers.iter()
    }

    pub(crate) fn query(&self) -> impl Iterator<Item = (&String, &String)> {
        self.query.iter()
    }

    pub(crate) fn stream_usage(&self) -> bool {
        self.stream_usage
    }

    pub(crate) fn style(&self) -> Style {
        let reasoning = match self.reasoning {
            ReasoningMember::ReasoningContent => Some("reasoning_content"),
            ReasoningMember::Reasoning => Some("reasoning"),
            ReasoningMember::None => None,
        };
        Style { cache_marks: self.cache_marks, top_k: self.top_k, reasoning, ..Style::default() }
    }

    /// The members of a request that [`Self::edits`] has to see, each once.
    pub(crate) fn members(&self) -> Vec<String> {
        let renamed = self.rename.iter().flat_map(|(from, to)| [from, to]);
        let mut names: Vec<_> =
            renamed.chain(&self.drop).chain(self.default.keys()).chain(self.clamp.keys()).cloned().collect();
        names.sort();
        names.dedup();
        names
    }

    /// What to change in a request of which `member` gives the top-level members as raw JSON.
    ///
    /// Names are those of OpenAI until the last step: what is dropped, set or clamped is named as callers know it.
    pub(crate) fn edits<'m>(&self, member: &dyn Fn(&str) -> Option<&'m str>) -> Edits {
        let mut changed: BTreeMap<&str, String> = BTreeMap::new();
        let mut dropped = Vec::new();
        for name in self.drop.iter().filter(|name| member(name).is_some()) {
            changed.insert(name, String::new());
            dropped.push(name.clone());
        }
        for (name, value) in self.default.iter().filter(|(name, _)| member(name).is_none()) {
            changed.insert(name, value.to_string());
        }
        for (name, [low, high]) in &self.clamp {
            let number = member(name).and_then(|json| json.trim().parse::<f64>().ok());
            if let Some(number) = number.filter(|number| number < low || number > high) {
                changed.insert(name, number.clamp(*low, *high).to_string());
            }
        }
        for (from, to) in &self.rename {
            let now = changed.get(from.as_str()).map(String::as_str).or_else(|| member(from)).unwrap_or_default();
            if now.is_empty() {
                continue;
            }
            if member(to).is_none() {
                let now = now.to_owned();
                changed.insert(to, now);
            } else {
                // A caller that uses the vendor's own name knows what it wants.
                dropped.push(from.clone());
            }
            changed.insert(from, String::new());
        }
        // What was set only to be renamed needs no removal.
        changed.retain(|name, json| !json.is_empty() || member(name).is_some());
        let edits = changed.into_iter().map(|(name, json)| (name.to_owned(), json)).collect();
        Edits { edits, dropped }
    }
}
