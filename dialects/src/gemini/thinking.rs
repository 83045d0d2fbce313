// SPDX-License-Identifier: Apache-2.0
//! How much to think, both ways. Models up to 2.5 take a budget of tokens (`thinkingBudget`; 0 is off, -1 lets the model
//! decide), models from 3 on a level. Source: <https://ai.google.dev/gemini-api/docs/thinking>.

use serde_json::{Map, Value, json};

use super::read::Taken;
use crate::ir::{Fault, Reasoning, Request};

/// Reads `thinkingConfig`. Returns what the caller wrote, if the canonical form would be written in other words.
pub(super) fn read(mut config: Taken, request: &mut Request) -> Result<Option<Value>, Fault> {
    let stated = Value::Object(config.members.clone());
    let mut reasoning = Reasoning::default();
    if config.boolean("includeThoughts")? == Some(true) {
        reasoning.enabled = Some(true);
    }
    match config.taken("thinkingBudget").as_ref().map(Value::as_i64) {
        None => {}
        Some(Some(0)) => reasoning.enabled = Some(false),
        Some(Some(-1)) => reasoning.enabled = Some(true),
        Some(Some(budget)) if budget > 0 => reasoning.budget_tokens = Some(budget.unsigned_abs()),
        Some(_) => return Err(config.wrong("thinkingBudget", "must be a whole number from -1 on")),
    }
    let level = config.text("thinkingLevel")?.map(|level| level.to_ascii_lowercase());
    reasoning.effort = level.filter(|level| level != "thinking_level_unspecified");
    request.reasoning = Some(reasoning).filter(|reasoning| *reasoning != Reasoning::default());
    let again = request.reasoning.as_ref().and_then(|reasoning| write(reasoning, Generation::Unknown).0);
    Ok(Some(stated).filter(|stated| again.as_ref() != Some(stated)))
}

/// Generation of a model by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Generation {
    /// Up to 2.5 Flash: takes a budget, can be told not to think.
    Budget,
    /// 2.5 Pro: takes a budget, always thinks.
    BudgetPro,
    /// From 3 on: takes a level, answers are checked for their signatures.
    Level,
    /// Up to 2.0: does not think.
    Plain,
    /// The name does not tell.
    Unknown,
}

impl Generation {
    pub(super) fn of(model: &str) -> Self {
        let Some((_, version)) = model.split_once("gemini-") else { return Self::Unknown };
        let number = version.split(['-', '@']).next().unwrap_or_default();
        let (major, minor) = number.split_once('.').unwrap_or((number, "0"));
        match (major.parse::<u32>(), minor.parse::<u32>()) {
            (Ok(3..), _) => Self::Level,
            (Ok(2), Ok(5..)) if version.contains("-pro") => Self::BudgetPro,
            (Ok(2), Ok(5..)) => Self::Budget,
            // The experiments that thought before 2.5 took no configuration for it.
            (Ok(_), _) => Self::Plain,
            _ => Self::Unknown,
        }
    }
}

/// `thinkingConfig` for what is asked for, and the paths of what cannot be asked for.
pub(super) fn write(reasoning: &Reasoning, generation: Generation) -> (Option<Value>, Vec<&'static str>) {
    let effort = reasoning.effort.as_deref();
    if generation == Generation::Plain {
        let off = reasoning.enabled == Some(false) || effort == Some("none");
        return (None, if off { Vec::new() } else { vec!["reasoning"] });
    }
    if reasoning.enabled == Some(false) || effort == Some("none") {
        return off(generation);
    }
    let mut config = Map::new();
    let mut dropped = Vec::new();
    config.insert("includeThoughts".to_owned(), json!(true));
    match (generation, effort, reasoning.budget_tokens) {
        (Generation::Level, effort, Some(budget)) => {
            dropped.push("reasoning.budget_tokens");
            let level = effort.map_or_else(|| level_of_budget(budget), level);
            config.insert("thinkingLevel".to_owned(), json!(level));
        }
        (Generation::Budget | Generation::BudgetPro, Some(effort), None) => {
            config.insert("thinkingBudget".to_owned(), json!(budget(effort, generation)));
        }
        (Generation::Budget | Generation::BudgetPro | Generation::Unknown, None, Some(budget)) => {
            config.insert("thinkingBudget".to_owned(), json!(budget.min(budget_max(generation))));
            if budget > budget_max(generation) {
                dropped.push("reasoning.budget_tokens");
            }
        }
        (Generation::Budget | Generation::BudgetPro, Some(_), Some(budget)) => {
            config.insert("thinkingBudget".to_owned(), json!(budget.min(budget_max(generation))));
        }
        (_, Some(effort), _) => {
            config.insert("thinkingLevel".to_owned(), json!(level(effort)));
        }
        (_, None, _) => {}
    }
    (Some(Value::Object(config)), dropped)
}

/// Not to think, as far as the model can.
fn off(generation: Generation) -> (Option<Value>, Vec<&'static str>) {
    match generation {
        // These always think; the least is what they can be told.
        Generation::BudgetPro => (Some(json!({"thinkingBudget": 128})), vec!["reasoning.enabled"]),
        Generation::Level => (Some(json!({"thinkingLevel": "low"})), vec!["reasoning.enabled"]),
        Generation::Budget | Generation::Unknown | Generation::Plain => {
            (Some(json!({"thinkingBudget": 0})), Vec::new())
        }
    }
}

/// The nearest level that every model from 3 on knows, in the words of the documentation.
fn level(effort: &str) -> &str {
    match effort {
        "minimal" => "low",
        "xhigh" | "max" => "high",
        effort => effort,
    }
}

fn level_of_budget(budget: u64) -> &'static str {
    match budget {
        0..=4096 => "low",
        4097..=12_288 => "medium",
        _ => "high",
    }
}

/// Thinking tokens for an effort, as the vendor's openai-chat endpoint maps them.
/// Source: <https://ai.google.dev/gemini-api/docs/openai#thinking>.
fn budget(effort: &str, generation: Generation) -> i64 {
    match effort {
        "minimal" | "low" => 1024,
        "high" => 24_576,
        "xhigh" | "max" => i64::try_from(budget_max(generation)).unwrap_or(24_576),
        _ => 8192,
    }
}

/// The API refuses more.
fn budget_max(generation: Generation) -> u64 {
    match generation {
        Generation::Budget => 24_576,
        Generation::BudgetPro => 32_768,
        Generation::Level | Generation::Plain | Generation::Unknown => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generation_is_read_from_the_name() {
        let cases = [
            ("gemini-2.5-flash", Generation::Budget),
            ("gemini-2.5-flash-lite-preview-06-17", Generation::Budget),
            ("gemini-2.5-pro", Generation::BudgetPro),
            ("gemini-3-flash-preview", Generation::Level),
            ("gemini-3.1-pro-preview", Generation::Level),
            ("models/gemini-2.0-flash", Generation::Plain),
            ("gemini-1.5-pro", Generation::Plain),
            ("gemini-flash-latest", Generation::Unknown),
            ("tunedModels/mine", Generation::Unknown),
        ];
        for (model, generation) in cases {
            assert_eq!(Generation::of(model), generation, "{model}");
        }
    }

    #[test]
    fn effort_and_budget_become_what_the_model_takes() {
        let asked = |enabled: Option<bool>, effort: Option<&str>, budget_tokens: Option<u64>| Reasoning {
            enabled,
            effort: effort.map(str::to_owned),
            budget_tokens,
        };
        let shown = |name: &str, value: Value| json!({"includeThoughts": true, name: value});
        let cases = [
            ("gemini-2.5-flash", asked(None, Some("low"), None), shown("thinkingBudget", json!(1024)), vec![]),
            (
                "gemini-2.5-flash",
                asked(None, None, Some(99_999)),
                shown("thinkingBudget", json!(24_576)),
                vec!["reasoning.budget_tokens"],
            ),
            ("gemini-2.5-flash", asked(None, Some("none"), None), json!({"thinkingBudget": 0}), vec![]),
            (
                "gemini-2.5-pro",
                asked(Some(false), None, None),
                json!({"thinkingBudget": 128}),
                vec!["reasoning.enabled"],
            ),
            ("gemini-3-flash", asked(None, Some("max"), None), shown("thinkingLevel", json!("high")), vec![]),
            (
                "gemini-3-flash",
                asked(None, None, Some(2000)),
                shown("thinkingLevel", json!("low")),
                vec!["reasoning.budget_tokens"],
            ),
            (
                "gemini-3-pro",
                asked(Some(false), None, None),
                json!({"thinkingLevel": "low"}),
                vec!["reasoning.enabled"],
            ),
            ("gemini-3-pro", asked(Some(true), None, None), json!({"includeThoughts": true}), vec![]),
            ("gemini-2.0-flash", asked(None, Some("high"), None), Value::Null, vec!["reasoning"]),
            ("gemini-2.0-flash", asked(Some(false), None, None), Value::Null, vec![]),
        ];
        for (model, reasoning, expected, dropped) in cases {
            let written = write(&reasoning, Generation::of(model));
            assert_eq!((written.0.unwrap_or_default(), written.1), (expected, dropped), "{model} {reasoning:?}");
        }
    }
}
