// SPDX-License-Identifier: Apache-2.0
//! The audit log: who has changed what, when, and how it was before and after. A line is written in the same transaction as
//! the change itself. What it shows of a document is what every reader may see of it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::settings::Role;

/// Lines that are kept; the oldest goes first.
pub const LINES_MAX: u64 = 1_000_000;
/// Lines on one page.
pub const PAGE_MAX: usize = 1000;

/// Who makes a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The name of the token.
    pub name: String,
    /// What it may do.
    pub role: Role,
}

/// A line of the audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Its number; they have no gaps.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// Name of the token that asked for it.
    pub actor: String,
    /// Role of the token.
    pub role: Role,
    /// What was done: `create`, `update`, `rotate`, `delete`, `upload` …
    pub action: String,
    /// Kind of what was changed.
    pub kind: String,
    /// Id of what was changed.
    pub id: String,
    /// How it was.
    pub before: Option<Value>,
    /// How it is.
    pub after: Option<Value>,
}

/// A change that is to be written down.
#[derive(Debug, Clone)]
pub struct Note {
    /// What was done.
    pub action: &'static str,
    /// Kind of what was changed.
    pub kind: &'static str,
    /// Id of what was changed.
    pub id: String,
    /// How it was.
    pub before: Option<Value>,
    /// How it is.
    pub after: Option<Value>,
}

/// Which lines are asked for; all conditions hold.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Only lines with smaller numbers.
    pub before: Option<u64>,
    /// At most so many.
    pub limit: usize,
    /// Of this actor.
    pub actor: Option<String>,
    /// With this action.
    pub action: Option<String>,
    /// About this kind.
    pub kind: Option<String>,
    /// About this id.
    pub id: Option<String>,
}

impl Query {
    /// Whether a line is asked for.
    pub(super) fn matches(&self, line: &Line) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        is(&self.actor, &line.actor)
            && is(&self.action, &line.action)
            && is(&self.kind, &line.kind)
            && is(&self.id, &line.id)
    }
}
