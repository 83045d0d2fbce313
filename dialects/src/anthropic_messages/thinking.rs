// SPDX-License-Identifier: Apache-2.0
//! How much a vendor of this dialect is asked to think. What can be asked for depends on the generation of the model:
//! up to 4.5 a budget of tokens, from 4.6 on the model decides by itself under an `effort`, from 4.7 on nothing else.
//! Source: <https://docs.anthropic.com/en/docs/build-with-claude/adaptive-thinking>.

use serde_json::{Value, json};

use crate::ir::{Reasoning, Request};

/// Visible output tokens where the caller names no ceiling; the API demands one, and refuses one that the model cannot reach.
fn output_tokens_default(generation: Generation) -> u64 {
    if generation.is_claude_from(3, 7) {
        16_384
    } else if generation.is_claude_before(3, 5) {
        4096
    } else {
        8192
    }
}

/// Smallest budget that the API takes.
const BUDGET_TOKENS_MIN: u64 = 1024;

/// What a request says about thinking.
#[derive(Default)]
pub(crate) struct Thinking {
    /// `thinking`
    pub(crate) thinking: Option<Value>,
    /// `output_config.effort`
    pub(crate) effort: Option<&'static str>,
    /// `max_tokens`
    pub(crate) output_tokens_max: u64,
    /// What could not be asked for.
    pub(crate) dropped: Vec<&'static str>,
}

/// Generation of a model by its name: (4, 5) for "claude-sonnet-4-5-20250929" and "eu.anthropic.claude-sonnet-4-5-v1:0".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Generation {
    /// Claude, of this version.
    Claude(u32, u32),
    /// Claude without a version in its name ("claude-opus-latest"): taken for the newest.
    Newest,
    /// Another vendor's model behind this dialect.
    Foreign,
}

impl Generation {
    pub(crate) fn of(model: &str) -> Self {
        let Some(at) = model.find("claude") else { return Self::Foreign };
        let words = model[at..].split(['-', '.', '@', ':', '_']);
        // Years and days are longer than versions.
        let mut numbers = words.filter(|word| word.len() <= 2).filter_map(|word| word.parse().ok());
        match numbers.next() {
            Some(major) => Self::Claude(major, numbers.next().unwrap_or_default()),
            None => Self::Newest,
        }
    }

    /// Whether this is Claude of this version or a later one.
    pub(crate) fn is_claude_from(self, major: u32, minor: u32) -> bool {
        self == Self::Newest || (self != Self::Foreign && self >= Self::Claude(major, minor))
    }

    /// Whether this is Claude of an earlier version.
    pub(crate) fn is_claude_before(self, major: u32, minor: u32) -> bool {
        self < Self::Claude(major, minor)
    }
}

/// `stated_effort`: the caller's own `output_config.effort` goes through, so the effort asks for no thinking.
pub(crate) fn of(request: &Request, stated_effort: bool) -> Thinking {
    let generation = Generation::of(&request.model);
    let ceiling = request.output_tokens_max;
    let plain = Thinking {
        output_tokens_max: ceiling.unwrap_or_else(|| output_tokens_default(generation)),
        ..Thinking::default()
    };
    let Some(reasoning) = &request.reasoning else { return plain };
    let effort = reasoning.effort.as_deref().filter(|_| !stated_effort);
    if reasoning.enabled == Some(false) || effort == Some("none") {
        let thinking = (!generation.is_claude_before(3, 7)).then(|| json!({"type": "disabled"}));
        return Thinking { thinking, ..plain };
    }
    if reasoning.enabled.is_none() && reasoning.budget_tokens.is_none() && effort.is_none() {
        return plain;
    }
    if generation.is_claude_before(3, 7) {
        return Thinking { dropped: vec!["reasoning"], ..plain };
    }
    let decides_itself =
        generation.is_claude_from(4, 7) || (generation.is_claude_from(4, 6) && reasoning.budget_tokens.is_none());
    if decides_itself {
        let dropped = if reasoning.budget_tokens.is_some() { vec!["reasoning.budget_tokens"] } else { Vec::new() };
        let thinking_tokens = if ceiling.is_none() { budget_tokens(effort) } else { 0 };
        let mut thinking = json!({"type": "adaptive"});
        // From 4.7 on thoughts come without text unless it is asked for. Who asks in this dialect says so itself.
        if reasoning.enabled.is_none() && generation.is_claude_from(4, 7) {
            thinking["display"] = json!("summarized");
        }
        return Thinking {
            thinking: Some(thinking),
            effort: effort.and_then(|effort| wire_effort(effort, generation)),
            output_tokens_max: plain.output_tokens_max + thinking_tokens,
            dropped,
        };
    }
    with_budget(reasoning, effort, ceiling, plain)
}

/// `thinking` with a budget below the ceiling of the whole output.
fn with_budget(reasoning: &Reasoning, effort: Option<&str>, ceiling: Option<u64>, plain: Thinking) -> Thinking {
    let wanted = reasoning.budget_tokens.unwrap_or_else(|| budget_tokens(effort)).max(BUDGET_TOKENS_MIN);
    let Some(ceiling) = ceiling else {
        let output_tokens_max = wanted.saturating_add(plain.output_tokens_max);
        return Thinking { thinking: Some(enabled(wanted)), output_tokens_max, ..plain };
    };
    if wanted < ceiling {
        return Thinking { thinking: Some(enabled(wanted)), ..plain };
    }
    // The caller's ceiling stands; half of it is left for what the caller will see.
    let budget = ceiling / 2;
    let dropped = if reasoning.budget_tokens.is_some() { vec!["reasoning.budget_tokens"] } else { Vec::new() };
    if budget >= BUDGET_TOKENS_MIN {
        return Thinking { thinking: Some(enabled(budget)), dropped, ..plain };
    }
    Thinking { dropped: vec!["reasoning"], ..plain }
}

fn enabled(budget_tokens: u64) -> Value {
    json!({"type": "enabled", "budget_tokens": budget_tokens})
}

/// Thinking tokens for an effort.
fn budget_tokens(effort: Option<&str>) -> u64 {
    match effort.unwrap_or("medium") {
        "minimal" => 1024,
        "low" => 2048,
        "high" => 16_384,
        "xhigh" | "max" => 32_768,
        _ => 8192,
    }
}

/// The nearest effort that the model knows; none for a word that is not known.
fn wire_effort(effort: &str, generation: Generation) -> Option<&'static str> {
    Some(match effort {
        "minimal" | "low" => "low",
        "medium" => "medium",
        "high" => "high",
        "xhigh" if generation.is_claude_from(4, 7) => "xhigh",
        "xhigh" => "high",
        "max" => "max",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generation_is_read_from_every_way_of_naming_a_model() {
        let cases = [
            ("claude-3-haiku-20240307", Generation::Claude(3, 0)),
            ("claude-3-7-sonnet-latest", Generation::Claude(3, 7)),
            ("claude-sonnet-4-20250514", Generation::Claude(4, 0)),
            ("claude-sonnet-4@20250514", Generation::Claude(4, 0)),
            ("eu.anthropic.claude-sonnet-4-5-20250929-v1:0", Generation::Claude(4, 5)),
            ("anthropic/claude-opus-4.6", Generation::Claude(4, 6)),
            ("claude-opus-5", Generation::Claude(5, 0)),
            ("claude-latest", Generation::Newest),
            ("MiniMax-M2.7", Generation::Foreign),
        ];
        for (model, generation) in cases {
            assert_eq!(Generation::of(model), generation, "{model}");
        }
        assert!(!Generation::Foreign.is_claude_before(9, 9) && !Generation::Foreign.is_claude_from(0, 0));
    }

    #[test]
    fn the_budget_stays_below_the_ceiling() {
        let of_case = |model: &str, effort: Option<&str>, budget_tokens: Option<u64>, ceiling: Option<u64>| {
            let reasoning = Reasoning { enabled: None, effort: effort.map(str::to_owned), budget_tokens };
            let request = Request {
                model: model.to_owned(),
                reasoning: Some(reasoning),
                output_tokens_max: ceiling,
                ..Request::default()
            };
            let thinking = of(&request, false);
            (thinking.thinking.unwrap_or_default(), thinking.effort, thinking.output_tokens_max, thinking.dropped)
        };
        let old = "claude-sonnet-4-5";
        assert_eq!(of_case(old, Some("low"), None, None), (enabled(2048), None, 18_432, vec![]));
        assert_eq!(of_case(old, Some("high"), None, Some(8000)), (enabled(4000), None, 8000, vec![]));
        assert_eq!(of_case(old, Some("high"), None, Some(1000)), (Value::Null, None, 1000, vec!["reasoning"]));
        assert_eq!(of_case(old, None, Some(100), None), (enabled(1024), None, 17_408, vec![]));
        assert_eq!(
            of_case(old, None, Some(9000), Some(4000)),
            (enabled(2000), None, 4000, vec!["reasoning.budget_tokens"])
        );
        let told = json!({"type": "adaptive", "display": "summarized"});
        assert_eq!(of_case("claude-opus-5", Some("xhigh"), None, Some(9)), (told, Some("xhigh"), 9, vec![]));
        let new = "claude-opus-4-6";
        assert_eq!(
            of_case(new, Some("xhigh"), None, None),
            (json!({"type": "adaptive"}), Some("high"), 49_152, vec![])
        );
        assert_eq!(of_case(new, None, Some(2000), None), (enabled(2000), None, 18_384, vec![]));
        assert_eq!(of_case("claude-3-5-haiku", Some("low"), None, None), (Value::Null, None, 8192, vec!["reasoning"]));
        assert_eq!(of_case(new, Some("none"), None, None), (json!({"type": "disabled"}), None, 16_384, vec![]));
    }
}
