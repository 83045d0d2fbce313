// SPDX-License-Identifier: Apache-2.0
//! How a vendor of this dialect lets itself be told how much to think, and where it wants its thoughts back.

use serde_json::{Map, Value, json};

use crate::ir::Reasoning;
use crate::openai_chat::request;

/// Members by which vendors let themselves be told how much to think, beside `reasoning_effort`.
pub(in crate::openai_chat) const OWN_MEMBERS: &[&str] =
    &["reasoning", "thinking", "enable_thinking", "thinking_budget"];

/// The member of OpenAI.
pub(super) const EFFORT: &str = "reasoning_effort";

/// How much to think, as a vendor wants it said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Thinking {
    /// The member.
    pub form: Form,
    /// Whether `reasoning_effort` is understood beside it.
    pub effort_beside: bool,
}

/// The member that says how much to think.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Form {
    /// `reasoning_effort`, as at OpenAI; what the caller writes in another form goes out as it came.
    #[default]
    Effort,
    /// `thinking: {"type": "enabled"}` (DeepSeek, Moonshot, Zhipu, Doubao).
    Switch,
    /// `enable_thinking` and `thinking_budget` (Qwen, `SiliconFlow`).
    Flag,
    /// `reasoning: {"effort" | "max_tokens" | "enabled"}` (`OpenRouter`).
    Object,
    /// `chat_template_kwargs: {"enable_thinking"}` (vLLM, `SGLang`).
    Template,
    /// Not at all.
    Unsaid,
}

/// The member of a message in which thoughts go back to the vendor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Back {
    /// `reasoning_content`; what is sealed in `reasoning_details`.
    #[default]
    Content,
    /// `reasoning`; what is sealed in `reasoning_details`.
    Reasoning,
    /// `reasoning_details` only (`OpenRouter`).
    Details,
    /// A part of the content: `{"type": "thinking", "thinking": [{"type": "text", "text"}]}` (Mistral).
    Part,
    /// They do not go back.
    Nowhere,
}

impl Back {
    /// The member that holds the text of a thought, if there is one.
    pub(in crate::openai_chat) fn member(self) -> Option<&'static str> {
        match self {
            Self::Content => Some("reasoning_content"),
            Self::Reasoning => Some("reasoning"),
            Self::Details | Self::Part | Self::Nowhere => None,
        }
    }
}

impl Thinking {
    /// The member in which the vendor is told.
    pub(in crate::openai_chat) fn member(self) -> &'static str {
        match self.form {
            Form::Effort | Form::Unsaid => EFFORT,
            Form::Switch => "thinking",
            Form::Flag => "enable_thinking",
            Form::Object => "reasoning",
            Form::Template => "chat_template_kwargs",
        }
    }

    /// Whether the vendor is told otherwise than in a member of this name.
    pub(in crate::openai_chat) fn replaces(self, name: &str) -> bool {
        let beside = name == "thinking_budget" && self.form == Form::Flag;
        self.form != Form::Effort && OWN_MEMBERS.contains(&name) && name != self.member() && !beside
    }

    /// Members of a request that say this, and the paths of what they cannot say.
    pub(in crate::openai_chat) fn write(self, stated: &Reasoning) -> (Vec<(&'static str, Value)>, Vec<&'static str>) {
        let (effort, budget) = (stated.effort.as_deref(), stated.budget_tokens);
        let asks = effort.is_some_and(|effort| effort != "none") || budget.is_some_and(|budget| budget > 0);
        let enabled = stated.enabled.unwrap_or(asks);
        let mut lost = Vec::new();
        let mut members = match self.form {
            Form::Effort | Form::Unsaid => return (Vec::new(), vec!["reasoning"]),
            Form::Switch => vec![("thinking", json!({ "type": if enabled { "enabled" } else { "disabled" } }))],
            Form::Template => vec![("chat_template_kwargs", json!({ "enable_thinking": enabled }))],
            Form::Flag => {
                let budget = budget.or_else(|| effort.and_then(budget_of)).filter(|_| enabled);
                let budget = budget.map(|budget| ("thinking_budget", Value::from(budget)));
                [("enable_thinking", Value::from(enabled))].into_iter().chain(budget).collect()
            }
            Form::Object => match (effort, budget) {
                (_, Some(budget)) if enabled => vec![("reasoning", json!({ "max_tokens": budget }))],
                (Some(effort), _) if enabled => vec![("reasoning", json!({ "effort": effort }))],
                _ => vec![("reasoning", json!({ "enabled": enabled }))],
            },
        };
        if matches!(self.form, Form::Switch | Form::Template) && enabled {
            match effort {
                Some(effort) if self.effort_beside => members.push((EFFORT, Value::from(effort))),
                Some(_) => lost.push(EFFORT),
                None => {}
            }
            lost.extend(budget.map(|_| "reasoning.budget_tokens"));
        }
        (members, lost)
    }

    /// The members of a relayed request to set (to nothing, to remove them), if they speak of thinking in another form than
    /// the vendor's; and the paths of what is lost.
    pub(super) fn translate<'m>(
        self,
        member: &dyn Fn(&str) -> Option<&'m str>,
    ) -> (Vec<(String, String)>, Vec<String>) {
        let none = (Vec::new(), Vec::new());
        if self.form == Form::Effort {
            return none;
        }
        let foreign = |name: &&str| *name == EFFORT || self.replaces(name);
        let stated: Vec<&str> = Self::NAMES.into_iter().filter(foreign).filter(|name| member(name).is_some()).collect();
        if stated.is_empty() {
            return none;
        }
        let read = |name: &str| member(name).and_then(|json| serde_json::from_str(json).ok());
        let members: Map<String, Value> =
            Self::NAMES.into_iter().filter_map(|name| Some((name.to_owned(), read(name)?))).collect();
        let is_told = self.form != Form::Unsaid && members.contains_key(self.member());
        if is_told && stated == [EFFORT] && self.effort_beside {
            return none;
        }
        let (set, lost) = match request::stated_reasoning(&members) {
            Some(stated) if !is_told => self.write(&stated),
            // The caller knows the vendor's own form, and says the same again in others.
            _ => (Vec::new(), stated.contains(&EFFORT).then_some(EFFORT).into_iter().collect()),
        };
        let removed = stated.into_iter().filter(|name| !set.iter().any(|(set, _)| set == name));
        let removed = removed.map(|name| (name.to_owned(), String::new()));
        let edits = removed.chain(set.iter().map(|(name, value)| ((*name).to_owned(), value.to_string()))).collect();
        (edits, lost.into_iter().map(str::to_owned).collect())
    }

    /// The members that [`Self::translate`] looks at.
    pub(super) const NAMES: [&'static str; 6] =
        [EFFORT, "reasoning", "thinking", "enable_thinking", "thinking_budget", "chat_template_kwargs"];
}

/// Thinking tokens that an effort stands for; none for the most.
fn budget_of(effort: &str) -> Option<u64> {
    match effort {
        "minimal" => Some(1024),
        "low" => Some(2048),
        "medium" => Some(12_288),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thinking(form: Form, effort_beside: bool) -> Thinking {
        Thinking { form, effort_beside }
    }

    #[test]
    fn an_effort_is_said_in_the_vendors_form() {
        let high = Reasoning { effort: Some("high".to_owned()), ..Reasoning::default() };
        let off = Reasoning { effort: Some("none".to_owned()), ..Reasoning::default() };
        let budget = Reasoning { budget_tokens: Some(4000), ..Reasoning::default() };
        let low = Reasoning { effort: Some("low".to_owned()), ..Reasoning::default() };
        let cases = [
            (Form::Switch, false, &high, json!({"thinking": {"type": "enabled"}}), vec![EFFORT]),
            (Form::Switch, true, &high, json!({"thinking": {"type": "enabled"}, "reasoning_effort": "high"}), vec![]),
            (Form::Switch, true, &off, json!({"thinking": {"type": "disabled"}}), vec![]),
            (Form::Switch, true, &budget, json!({"thinking": {"type": "enabled"}}), vec!["reasoning.budget_tokens"]),
            (Form::Flag, false, &high, json!({"enable_thinking": true}), vec![]),
            (Form::Flag, false, &low, json!({"enable_thinking": true, "thinking_budget": 2048}), vec![]),
            (Form::Flag, false, &budget, json!({"enable_thinking": true, "thinking_budget": 4000}), vec![]),
            (Form::Flag, false, &off, json!({"enable_thinking": false}), vec![]),
            (Form::Object, false, &high, json!({"reasoning": {"effort": "high"}}), vec![]),
            (Form::Object, false, &budget, json!({"reasoning": {"max_tokens": 4000}}), vec![]),
            (Form::Object, false, &off, json!({"reasoning": {"enabled": false}}), vec![]),
            (Form::Template, false, &off, json!({"chat_template_kwargs": {"enable_thinking": false}}), vec![]),
            (Form::Unsaid, false, &high, json!({}), vec!["reasoning"]),
        ];
        for (form, beside, stated, expected, expected_lost) in cases {
            let (members, lost) = thinking(form, beside).write(stated);
            let members: Map<String, Value> = members.into_iter().map(|(name, json)| (name.to_owned(), json)).collect();
            assert_eq!((Value::Object(members), lost), (expected, expected_lost), "{form:?} {stated:?}");
        }
    }

    #[test]
    fn a_relayed_request_is_changed_only_where_it_speaks_another_form() {
        type Members = &'static [(&'static str, &'static str)];
        let cases: [(Thinking, Members, Members, &[&str]); 7] = [
            (thinking(Form::Effort, false), &[(EFFORT, "\"low\""), ("thinking", "{}")], &[], &[]),
            (thinking(Form::Flag, false), &[("enable_thinking", "true"), ("thinking_budget", "5")], &[], &[]),
            (thinking(Form::Flag, false), &[(EFFORT, "\"none\"")], &[(EFFORT, ""), ("enable_thinking", "false")], &[]),
            (
                thinking(Form::Switch, false),
                &[("enable_thinking", "true"), ("thinking_budget", "99")],
                &[("enable_thinking", ""), ("thinking_budget", ""), ("thinking", r#"{"type":"enabled"}"#)],
                &["reasoning.budget_tokens"],
            ),
            (thinking(Form::Switch, true), &[("thinking", r#"{"type":"enabled"}"#), (EFFORT, "\"max\"")], &[], &[]),
            (
                thinking(Form::Switch, true),
                &[(EFFORT, "\"high\"")],
                &[("thinking", r#"{"type":"enabled"}"#), (EFFORT, "\"high\"")],
                &[],
            ),
            (thinking(Form::Unsaid, false), &[(EFFORT, "\"high\"")], &[(EFFORT, "")], &["reasoning"]),
        ];
        for (way, members, expected, expected_lost) in cases {
            let member = |name: &str| members.iter().find(|(known, _)| *known == name).map(|(_, json)| *json);
            let (edits, lost) = way.translate(&member);
            let edits: Vec<_> = edits.iter().map(|(name, json)| (name.as_str(), json.as_str())).collect();
            assert_eq!(
                (edits.as_slice(), lost),
                (expected, expected_lost.iter().map(|l| (*l).to_owned()).collect()),
                "{way:?}"
            );
        }
    }
}
