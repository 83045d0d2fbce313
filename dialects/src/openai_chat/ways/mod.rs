// SPDX-License-Identifier: Apache-2.0
//! The ways in which vendors differ that call themselves compatible, as data: what they want to be asked otherwise
//! ([`Ways`]) and what of their answers has to be read otherwise ([`AnswerWays`]).
//!
//! Ways are changes to the wire form, so that one description serves a request that is relayed (its top-level members are
//! given as raw JSON, and only those that change are written again) and one that was translated. What of a vendor is
//! recognisable in its bytes needs no description: [`super::reading`] reads it.

mod answer;
mod members;
mod schema;
mod thinking;
mod turns;

use serde_json::{Value, json};

pub use answer::{Answer, AnswerWays, FaultWays, UsageWays};
pub use members::{Edits, MemberWays};
pub use thinking::{Back, Form, Thinking};
pub use turns::{MustReturn, ToolIds, Turns};

pub(super) use thinking::OWN_MEMBERS;

use members::{Changes, Lookup};

/// What a vendor wants to be asked otherwise in a chat request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ways {
    /// Top-level members.
    pub members: MemberWays,
    /// Messages.
    pub turns: Turns,
    /// How it is told how much to think.
    pub thinking: Thinking,
    /// Keywords of JSON Schema that it refuses; `strict` means the member of a tool, too.
    pub without_keywords: Vec<String>,
    /// How a shape of the answer is asked for.
    pub structured: Structured,
}

/// How a vendor is asked for an answer that satisfies a schema.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Structured {
    /// By the schema.
    #[default]
    Schema,
    /// By `json_object`, and the schema among the instructions.
    Object,
    /// Only by instructions.
    Instructions,
}

impl Ways {
    /// The members of a request that [`Self::edits`] looks at, each once.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<&str> = self.members.names().collect();
        if self.thinking.form != Form::Effort {
            names.extend(Thinking::NAMES);
        }
        if !self.without_keywords.is_empty() {
            names.push("tools");
        }
        if self.structured != Structured::Schema || !self.without_keywords.is_empty() {
            names.push("response_format");
        }
        if self.structured != Structured::Schema || !self.turns.is_idle() {
            names.push("messages");
        }
        names.sort_unstable();
        names.dedup();
        names.into_iter().map(str::to_owned).collect()
    }

    /// The changes to a request of which `member` gives the top-level members as raw JSON.
    #[must_use]
    pub fn edits(&self, member: Lookup<'_, '_>) -> Edits {
        let mut changes = Changes::new(member);
        self.members.first(&mut changes);
        let (thinking, lost) = self.thinking.translate(&|name| changes.now(name));
        for (name, json) in thinking {
            changes.set(&name, json);
        }
        changes.dropped.extend(lost);
        self.tools(&mut changes);
        let instruction = self.format(&mut changes);
        self.messages(instruction, &mut changes);
        self.members.last(&mut changes);
        changes.finish()
    }

    fn tools(&self, changes: &mut Changes<'_, '_>) {
        let Some(Value::Array(mut tools)) = self.strippable("tools", changes) else { return };
        let mut stripped = false;
        for function in tools.iter_mut().filter_map(|tool| tool.get_mut("function")?.as_object_mut()) {
            let strict = self.without_keywords.iter().any(|keyword| keyword == "strict");
            stripped |= strict && function.shift_remove("strict").is_some();
            stripped |= function.get_mut("parameters").is_some_and(|it| schema::strip(it, &self.without_keywords));
        }
        if stripped {
            changes.set("tools", Value::from(tools).to_string());
        }
    }

    fn strippable(&self, name: &str, changes: &Changes<'_, '_>) -> Option<Value> {
        changes.now(name).filter(|_| !self.without_keywords.is_empty()).and_then(|json| serde_json::from_str(json).ok())
    }

    /// What has to stand among the instructions, since the format cannot say it.
    fn format(&self, changes: &mut Changes<'_, '_>) -> Option<String> {
        if let Some(mut format) = self.strippable("response_format", changes)
            && format.pointer_mut("/json_schema/schema").is_some_and(|it| schema::strip(it, &self.without_keywords))
        {
            changes.set("response_format", format.to_string());
        }
        let format = changes.now("response_format").filter(|_| self.structured != Structured::Schema)?;
        let format: Value = serde_json::from_str(format).ok()?;
        let schema = &format["json_schema"]["schema"];
        let instruction = match format["type"].as_str()? {
            "json_schema" => {
                changes.dropped.push("response_format.json_schema".to_owned());
                format!("Answer with one JSON value that satisfies this JSON schema, and with nothing else:\n{schema}")
            }
            "json_object" if self.structured == Structured::Instructions => {
                changes.dropped.push("response_format".to_owned());
                "Answer with one JSON object, and with nothing else.".to_owned()
            }
            _ => return None,
        };
        match self.structured {
            Structured::Instructions => changes.remove("response_format"),
            _ => changes.set("response_format", json!({ "type": "json_object" }).to_string()),
        }
        Some(instruction)
    }

    fn messages(&self, instruction: Option<String>, changes: &mut Changes<'_, '_>) {
        if instruction.is_none() && self.turns.is_idle() {
            return;
        }
        let stated = changes.now("messages").and_then(|json| serde_json::from_str(json).ok());
        let Some(Value::Array(stated)) = stated else { return };
        let mut messages = stated.clone();
        if let Some(instruction) = instruction {
            instruct(&mut messages, instruction);
        }
        let mut dropped = Vec::new();
        self.turns.shape(&mut messages, &mut dropped);
        changes.dropped.extend(dropped);
        if messages != stated {
            changes.set("messages", Value::from(messages).to_string());
        }
    }
}

/// Adds to the instructions at the head of a conversation.
fn instruct(messages: &mut Vec<Value>, instruction: String) {
    match messages.first_mut() {
        Some(first) if first["role"] == "system" || first["role"] == "developer" => {
            first["content"] = turns::join(first["content"].take(), &Value::from(instruction));
        }
        _ => messages.insert(0, json!({ "role": "system", "content": instruction })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::splice::Members;

    fn applied(ways: &Ways, body: &Value) -> (Value, Vec<String>) {
        let body = body.to_string();
        let members = Members::index(body.as_bytes()).unwrap();
        let names = ways.names();
        let Edits { edits, dropped } = ways.edits(&|name| {
            assert!(names.iter().any(|known| known == name) || members.get(name).is_none(), "{name} is not wanted");
            members.get(name)
        });
        let edits: Vec<_> = edits.iter().map(|(name, json)| (name.as_str(), json.as_str())).collect();
        (serde_json::from_slice(&members.splice(&edits)).unwrap(), dropped)
    }

    #[test]
    fn ways_that_say_nothing_want_and_change_nothing() {
        let ways = Ways::default();
        assert!(ways.names().is_empty());
        let body = json!({"messages": [{"role": "developer", "content": []}], "reasoning_effort": "low", "n": 3});
        assert_eq!(applied(&ways, &body), (body.clone(), vec![]));
    }

    #[test]
    fn a_schema_becomes_an_instruction_where_it_cannot_be_said() {
        let format =
            json!({"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object", "title": "T"}}});
        let body = json!({
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "q"}], "response_format": format,
        });
        let keywords = vec!["title".to_owned()];
        let ways = Ways { structured: Structured::Object, without_keywords: keywords.clone(), ..Ways::default() };
        let (object, dropped) = applied(&ways, &body);
        assert_eq!(object["response_format"], json!({"type": "json_object"}));
        let told = "Be brief.\n\nAnswer with one JSON value that satisfies this JSON schema, and with nothing else:\n{\"type\":\"object\"}";
        assert_eq!(
            (&object["messages"][0]["content"], dropped),
            (&json!(told), vec!["response_format.json_schema".to_owned()])
        );

        let ways = Ways { structured: Structured::Instructions, ..Ways::default() };
        let body = json!({"messages": [{"role": "user", "content": "q"}], "response_format": {"type": "json_object"}});
        let (told, dropped) = applied(&ways, &body);
        let expected = json!({"messages": [
            {"role": "system", "content": "Answer with one JSON object, and with nothing else."}, {"role": "user", "content": "q"},
        ]});
        assert_eq!((told, dropped), (expected, vec!["response_format".to_owned()]));

        let ways = Ways { without_keywords: keywords, ..Ways::default() };
        let tools =
            json!([{"type": "function", "function": {"name": "f", "strict": true, "parameters": {"title": "T"}}}]);
        let (stripped, dropped) = applied(&ways, &json!({"tools": tools}));
        let expected = json!([{"type": "function", "function": {"name": "f", "strict": true, "parameters": {}}}]);
        assert_eq!((&stripped["tools"], dropped), (&expected, vec![]));
    }

    #[test]
    fn a_message_is_written_again_only_where_it_changes() {
        let ways = Ways { turns: Turns { tool_ids: ToolIds::Nine, ..Turns::default() }, ..Ways::default() };
        assert_eq!(ways.names(), ["messages"]);
        let messages = r#"[ {"role":"user" , "content":"1e5"} ]"#;
        assert_eq!(ways.edits(&|_| Some(messages)), Edits::default());
    }
}
