// SPDX-License-Identifier: Apache-2.0
//! The messages of a request as a vendor wants them: other names of roles, plain text for lists of text, ids of tool calls
//! in a narrow alphabet, thoughts that must come back, turns that alternate. Works on the wire form, so that it serves what
//! is relayed and what is translated alike.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// What is to be done to the messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turns {
    /// Roles that have another name at the vendor.
    pub roles: BTreeMap<String, String>,
    /// Members of a message that the vendor refuses.
    pub drop: Vec<String>,
    /// Whether a content that is a list of texts becomes one text.
    pub flat_text: bool,
    /// Whether turns of one role that follow one another become one.
    pub alternate: bool,
    /// Which ids of tool calls the vendor admits.
    pub tool_ids: ToolIds,
    /// On which turns of the model the vendor demands its thoughts back.
    pub must_return: MustReturn,
    /// The member for them.
    pub returned_in: &'static str,
}

/// Which ids of tool calls a vendor admits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ToolIds {
    /// Any.
    #[default]
    Any,
    /// Letters, digits, `_` and `-`.
    Plain,
    /// Exactly nine letters and digits (Mistral).
    Nine,
}

/// On which turns of the model a vendor demands its thoughts back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MustReturn {
    /// On none.
    #[default]
    Never,
    /// On those that call tools.
    ToolCalls,
    /// On all.
    Always,
}

/// Text that stands for thoughts which the caller has not kept: vendors that demand them refuse an empty one.
const UNKNOWN_THOUGHT: &str = " ";

impl Turns {
    /// Whether there is anything to do.
    pub(super) fn is_idle(&self) -> bool {
        let idle = Self { returned_in: self.returned_in, ..Self::default() };
        *self == idle
    }

    /// Does it to the messages of a request. Paths of what is lost go to `dropped`.
    pub fn shape(&self, messages: &mut Vec<Value>, dropped: &mut Vec<String>) {
        for (index, message) in messages.iter_mut().enumerate() {
            let Value::Object(message) = message else { continue };
            if let Some(Value::String(role)) = message.get_mut("role")
                && let Some(other) = self.roles.get(role.as_str())
            {
                role.clone_from(other);
            }
            if self.tool_ids != ToolIds::Any {
                self.rename_calls(message);
            }
            if self.flat_text {
                flatten(message, index, dropped);
            }
            self.return_thoughts(message);
            for name in &self.drop {
                if message.shift_remove(name).is_some_and(|value| !value.is_null()) {
                    dropped.push(format!("messages[{index}].{name}"));
                }
            }
        }
        if self.alternate {
            *messages = alternating(std::mem::take(messages));
        }
    }

    fn rename_calls(&self, message: &mut Map<String, Value>) {
        let rename = |id: Option<&mut Value>| {
            if let Some(Value::String(id)) = id
                && let Some(admitted) = self.tool_ids.admitted(id)
            {
                *id = admitted;
            }
        };
        rename(message.get_mut("tool_call_id"));
        for call in message.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten() {
            rename(call.get_mut("id"));
        }
    }

    fn return_thoughts(&self, message: &mut Map<String, Value>) {
        let calls = message.get("tool_calls").and_then(Value::as_array).is_some_and(|calls| !calls.is_empty());
        let demanded = match self.must_return {
            MustReturn::Never => false,
            MustReturn::ToolCalls => calls,
            MustReturn::Always => true,
        };
        if !demanded || message.get("role").is_none_or(|role| role != "assistant") {
            return;
        }
        let thought = |name: &str| message.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        if thought(self.returned_in).is_some() {
            return;
        }
        let kept = thought("reasoning_content").or_else(|| thought("reasoning"));
        let kept = kept.unwrap_or(UNKNOWN_THOUGHT).to_owned();
        message.insert(self.returned_in.to_owned(), Value::from(kept));
    }
}

impl ToolIds {
    /// The id that the vendor admits in place of this one; none if this one will do. The same for the call and its result.
    #[must_use]
    pub fn admitted(self, id: &str) -> Option<String> {
        match self {
            Self::Any => None,
            Self::Plain => {
                let admits = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
                if !id.is_empty() && id.chars().all(admits) {
                    return None;
                }
                let letter = |letter: char| match letter {
                    letter if admits(letter) => letter.to_string(),
                    other => format!("_x{:02x}", u32::from(other)),
                };
                Some(if id.is_empty() { "call".to_owned() } else { id.chars().map(letter).collect() })
            }
            Self::Nine => {
                let fits = id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
                (!fits).then(|| nine_of(id))
            }
        }
    }
}

/// Nine letters and digits that stand for a text: its 64-bit FNV-1a hash in base 62, so that two ids of one conversation
/// practically never meet.
fn nine_of(text: &str) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let mut hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, fnv);
    (0..9)
        .map(|_| {
            let digit = usize::try_from(hash % 62).map_or('0', |at| char::from(DIGITS[at]));
            hash /= 62;
            digit
        })
        .collect()
}

/// A content that is a list of texts becomes one text, each on a line of its own.
fn flatten(message: &mut Map<String, Value>, index: usize, dropped: &mut Vec<String>) {
    let Some(content @ Value::Array(_)) = message.get_mut("content") else { return };
    let Some(parts) = content.as_array() else { return };
    let texts: Option<Vec<&str>> =
        parts.iter().map(|part| part["text"].as_str().filter(|_| part["type"] == "text")).collect();
    let Some(texts) = texts else { return };
    let marked = parts.iter().enumerate().filter(|(_, part)| part.get("cache_control").is_some());
    dropped.extend(marked.map(|(part, _)| format!("messages[{index}].content[{part}].cache_control")));
    *content = Value::from(texts.join("\n"));
}

/// Turns of the user, and of the model without calls, that follow one another become one.
fn alternating(messages: Vec<Value>) -> Vec<Value> {
    let mut merged: Vec<Value> = Vec::with_capacity(messages.len());
    for message in messages {
        match merged.last_mut() {
            Some(last) if is_plain_turn(last) && is_plain_turn(&message) && last["role"] == message["role"] => {
                let content = join(last["content"].take(), &message["content"]);
                last["content"] = content;
            }
            _ => merged.push(message),
        }
    }
    merged
}

/// Whether a message is a role and a content and nothing else.
fn is_plain_turn(message: &Value) -> bool {
    let known = |name: &String| name == "role" || name == "content";
    let is_turn = message["role"] == "user" || message["role"] == "assistant";
    is_turn && message.as_object().is_some_and(|members| members.keys().all(known))
}

/// Two contents as one: texts stay a text.
pub(super) fn join(first: Value, second: &Value) -> Value {
    if let (Some(first), Some(second)) = (first.as_str(), second.as_str()) {
        return Value::from(format!("{first}\n\n{second}"));
    }
    let parts = |content: Value| match content {
        Value::Array(parts) => parts,
        Value::String(text) => vec![json!({ "type": "text", "text": text })],
        _ => Vec::new(),
    };
    Value::from([parts(first), parts(second.clone())].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shaped(turns: &Turns, messages: &Value) -> (Value, Vec<String>) {
        let (mut messages, mut dropped) = (messages.as_array().unwrap().clone(), Vec::new());
        turns.shape(&mut messages, &mut dropped);
        (Value::from(messages), dropped)
    }

    #[test]
    fn a_call_and_its_result_keep_one_id() {
        let messages = json!([
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "functions.weather:0", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
                {"id": "abcDEF123", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
            ]},
            {"role": "tool", "tool_call_id": "functions.weather:0", "content": "a"},
            {"role": "tool", "tool_call_id": "abcDEF123", "content": "b"},
        ]);
        for (tool_ids, length) in [(ToolIds::Nine, 9), (ToolIds::Plain, 25)] {
            let (shaped, _) = shaped(&Turns { tool_ids, ..Turns::default() }, &messages);
            let id = shaped[0]["tool_calls"][0]["id"].as_str().unwrap();
            assert!(id.len() == length && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{id}");
            assert_eq!(shaped[1]["tool_call_id"], id);
            assert_eq!(
                (&shaped[0]["tool_calls"][1]["id"], &shaped[2]["tool_call_id"]),
                (&json!("abcDEF123"), &json!("abcDEF123"))
            );
        }
    }

    #[test]
    fn many_ids_in_nine_letters_stay_different() {
        let mut ids: Vec<String> =
            (0..20_000).map(|at| ToolIds::Nine.admitted(&format!("call_{at}")).unwrap()).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 20_000);
    }

    #[test]
    fn roles_texts_and_turns_become_the_vendors() {
        let roles = BTreeMap::from([("developer".to_owned(), "system".to_owned())]);
        let turns =
            Turns { roles, drop: vec!["audio".to_owned()], flat_text: true, alternate: true, ..Turns::default() };
        let messages = json!([
            {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": {}}]},
            {"role": "user", "content": "one"},
            {"role": "user", "content": [{"type": "text", "text": "two"}]},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]},
            {"role": "user", "content": "three", "name": "n"},
            {"role": "assistant", "content": "four", "audio": null},
            {"role": "assistant", "content": "five", "audio": {"id": "a"}},
        ]);
        let expected = json!([
            {"role": "system", "content": "a\nb"},
            {"role": "user", "content": [
                {"type": "text", "text": "one\n\ntwo"}, {"type": "image_url", "image_url": {"url": "u"}},
            ]},
            {"role": "user", "content": "three", "name": "n"},
            {"role": "assistant", "content": "four\n\nfive"},
        ]);
        let dropped = vec!["messages[0].content[1].cache_control".to_owned(), "messages[6].audio".to_owned()];
        assert_eq!(shaped(&turns, &messages), (expected, dropped));
    }

    #[test]
    fn thoughts_that_must_come_back_do() {
        let messages = json!([
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "a"},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "1"}], "reasoning": "kept"},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "2"}]},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "3"}], "reasoning_content": "own"},
        ]);
        let thoughts = |must_return| {
            let turns = Turns { must_return, returned_in: "reasoning_content", ..Turns::default() };
            let (shaped, _) = shaped(&turns, &messages);
            shaped.as_array().unwrap().iter().map(|message| message["reasoning_content"].clone()).collect::<Vec<_>>()
        };
        let null = Value::Null;
        assert_eq!(thoughts(MustReturn::Never), [null.clone(), null.clone(), null.clone(), null.clone(), json!("own")]);
        assert_eq!(
            thoughts(MustReturn::ToolCalls),
            [null.clone(), null.clone(), json!("kept"), json!(" "), json!("own")]
        );
        assert_eq!(thoughts(MustReturn::Always), [null, json!(" "), json!("kept"), json!(" "), json!("own")]);
    }
}
