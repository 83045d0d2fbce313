// SPDX-License-Identifier: Apache-2.0
//! How a model is to sample and to think. A few parameters are the API's; thinking and top-k stand in
//! `additionalModelRequestFields`, where each family of models has names of its own. Sources: the user guide's pages
//! "Extended thinking" (Claude), "Using reasoning" (Nova 2), "Model parameters" (`OpenAI`, Mistral).

use serde_json::{Map, Value, json};

use super::NAME;
use super::model::Family;
use crate::anthropic_messages::{Generation, thinking};
use crate::ir::{Request, ToolChoice};

/// What a request says about sampling and thinking.
#[derive(Default)]
pub(super) struct Sampling {
    /// `inferenceConfig`
    pub(super) config: Map<String, Value>,
    /// `additionalModelRequestFields`
    pub(super) fields: Map<String, Value>,
    /// `outputConfig.effort`
    pub(super) effort: Option<&'static str>,
    /// What could not be asked for.
    pub(super) dropped: Vec<String>,
}

impl Sampling {
    pub(super) fn of(request: &Request, family: Family) -> Self {
        let mut sampling = Self::default();
        if let Some(ceiling) = request.output_tokens_max {
            sampling.set("maxTokens", json!(ceiling));
        }
        let thinks = match family {
            Family::Claude(_) => sampling.claude_thinking(request),
            _ => sampling.other_thinking(request, family),
        };
        match family {
            Family::Claude(generation) => sampling.claude_temperature(request, generation, thinks),
            _ => sampling.temperature(request),
        }
        sampling.top_k(request, family, thinks);
        sampling.stop(request);
        if request.seed.is_some() {
            sampling.drop("seed");
        }
        // Nova thinks its hardest only where nothing else steers it.
        if family == Family::Nova
            && sampling.fields.get("reasoningConfig").is_some_and(|it| it["maxReasoningEffort"] == "high")
        {
            for (name, path) in [("maxTokens", "output_tokens_max"), ("temperature", "temperature"), ("topP", "top_p")]
            {
                if sampling.config.shift_remove(name).is_some() {
                    sampling.drop(path);
                }
            }
        }
        sampling
    }

    fn set(&mut self, name: &str, value: Value) {
        self.config.insert(name.to_owned(), value);
    }

    fn field(&mut self, name: &str, value: Value) {
        self.fields.insert(name.to_owned(), value);
    }

    fn drop(&mut self, path: &str) {
        self.dropped.push(path.to_owned());
    }

    /// `thinking`, the effort, and a ceiling that leaves room for both; says whether the model will think.
    fn claude_thinking(&mut self, request: &Request) -> bool {
        let own = request.extensions.get(NAME);
        let stated_effort =
            own.and_then(|own| own.get("outputConfig")).is_some_and(|config| config["effort"].is_string());
        let thinking = thinking::of(request, stated_effort);
        let thinks = thinking.thinking.as_ref().is_some_and(|thinking| thinking["type"] != "disabled");
        self.dropped.extend(thinking.dropped.iter().map(|path| (*path).to_owned()));
        // The model refuses to think before a tool that it is forced to call: the call is the harder wish.
        let forced = matches!(request.tool_choice, Some(ToolChoice::Required | ToolChoice::Tool(_)));
        if thinks && forced && !request.tools.is_empty() {
            self.drop("reasoning");
            return false;
        }
        if thinks {
            self.set("maxTokens", json!(thinking.output_tokens_max));
        }
        if let Some(thinking) = thinking.thinking {
            self.field("thinking", thinking);
        }
        self.effort = thinking.effort;
        thinks
    }

    fn other_thinking(&mut self, request: &Request, family: Family) -> bool {
        let Some(reasoning) = &request.reasoning else { return false };
        let effort = reasoning.effort.as_deref();
        let off = reasoning.enabled == Some(false) || effort == Some("none");
        let asked = off || reasoning.enabled == Some(true) || effort.is_some() || reasoning.budget_tokens.is_some();
        if !asked {
            return false;
        }
        match family {
            Family::Nova if off => self.field("reasoningConfig", json!({"type": "disabled"})),
            Family::Nova => {
                let effort = level(effort, reasoning.budget_tokens);
                self.field("reasoningConfig", json!({"type": "enabled", "maxReasoningEffort": effort}));
            }
            // These think always; "low" is the least.
            Family::OpenAi if off => self.field("reasoning_effort", json!("low")),
            Family::OpenAi => self.field("reasoning_effort", json!(level(effort, reasoning.budget_tokens))),
            // A budget is Claude's way of asking, and a name that says nothing may hide Claude.
            Family::Unknown if let Some(tokens) = reasoning.budget_tokens => {
                self.field("thinking", json!({"type": "enabled", "budget_tokens": tokens}));
            }
            _ => self.drop("reasoning"),
        }
        if reasoning.budget_tokens.is_some() && matches!(family, Family::Nova | Family::OpenAi) {
            self.drop("reasoning.budget_tokens");
        }
        !off
    }

    fn temperature(&mut self, request: &Request) {
        if let Some(temperature) = request.temperature {
            self.clamped_temperature(temperature);
        }
        if let Some(top_p) = request.top_p {
            self.set("topP", json!(top_p));
        }
    }

    /// The API goes up to 1; other dialects go up to 2.
    fn clamped_temperature(&mut self, temperature: f64) {
        if !(0.0..=1.0).contains(&temperature) {
            self.drop("temperature");
        }
        self.set("temperature", json!(temperature.clamp(0.0, 1.0)));
    }

    /// What Claude admits depends on its generation: since 4.1 one of `temperature` and `topP`, since 4.7 none. A model that
    /// thinks samples in its own way.
    fn claude_temperature(&mut self, request: &Request, generation: Generation, thinks: bool) {
        let fixed = generation.is_claude_from(4, 7);
        if let Some(temperature) = request.temperature {
            #[allow(clippy::float_cmp, reason = "whether it is the default to the bit")]
            let is_default = temperature == 1.0;
            if is_default && !fixed {
                self.set("temperature", json!(temperature));
            } else if !is_default && (fixed || thinks) {
                self.drop("temperature");
            } else if !fixed {
                self.clamped_temperature(temperature);
            }
        }
        if let Some(top_p) = request.top_p {
            if fixed || (request.temperature.is_some() && generation.is_claude_from(4, 1)) {
                self.drop("top_p");
            } else {
                self.set("topP", json!(top_p));
            }
        }
    }

    fn top_k(&mut self, request: &Request, family: Family, thinks: bool) {
        let Some(top_k) = request.top_k else { return };
        match family {
            Family::Claude(generation) if !thinks && !generation.is_claude_from(4, 7) => {
                self.field("top_k", json!(top_k));
            }
            Family::Mistral | Family::Unknown => self.field("top_k", json!(top_k)),
            Family::Nova => self.field("inferenceConfig", json!({"topK": top_k})),
            _ => self.drop("top_k"),
        }
    }

    fn stop(&mut self, request: &Request) {
        let mut stop = Vec::with_capacity(request.stop.len());
        for (index, sequence) in request.stop.iter().enumerate() {
            // Empty ones are refused by the API, white space by the models.
            if sequence.trim().is_empty() {
                self.dropped.push(format!("stop[{index}]"));
            } else {
                stop.push(sequence);
            }
        }
        if !stop.is_empty() {
            self.set("stopSequences", json!(stop));
        }
    }
}

/// The nearest of the three levels that these models know.
fn level(effort: Option<&str>, budget_tokens: Option<u64>) -> &'static str {
    match (effort, budget_tokens) {
        (Some("minimal" | "low"), _) => "low",
        (Some("high" | "xhigh" | "max"), _) => "high",
        (Some(_), _) => "medium",
        (None, Some(0..=2048)) => "low",
        (None, Some(16_384..)) => "high",
        (None, _) => "medium",
    }
}
