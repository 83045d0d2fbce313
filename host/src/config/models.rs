// SPDX-License-Identifier: Apache-2.0
//! Names for models, and where they are served.

use serde::Deserialize;
use toml::Spanned;

/// A name for a model, and where it is served.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Where it may be served.
    pub targets: Vec<Target>,
    /// Configured routing plugin; none for the route's own.
    #[serde(default)]
    pub routing: Option<Spanned<String>>,
    /// When a second target is asked beside a slow one; none for what the route says.
    #[serde(default)]
    pub hedge: Option<Spanned<Hedge>>,
}

/// One place where a model is served.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Vendor.
    pub vendor: Spanned<String>,
    /// The vendor's name of the model; none for the name that the caller used.
    #[serde(default)]
    pub model: Option<String>,
    /// Share of the calls, for routing plugins that weigh.
    #[serde(default = "one")]
    pub weight: u32,
    /// Order, for routing plugins that fall back; lower is tried first.
    #[serde(default)]
    pub priority: u32,
}

pub(super) fn one() -> u32 {
    1
}

/// A second target, asked beside one that is slow: who speaks first is passed on, and the other is cancelled. It is asked for
/// conversations, embeddings, rankings and pictures, once for a request, and never for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hedge {
    /// How long a target may take to begin its answer before another one is asked, in milliseconds: with the first word of a stream,
    /// or the head of a whole answer. What nineteen of twenty requests stay below is a good choice.
    pub after_ms: u32,
    /// The share of the requests, in percent, that may be sent a second time so, from 1 to 100; ten are saved up at most.
    #[serde(default = "ten")]
    pub percent_max: u32,
}

fn ten() -> u32 {
    10
}
