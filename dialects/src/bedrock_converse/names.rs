// SPDX-License-Identifier: Apache-2.0
//! Names and ids of tools. The API admits `[a-zA-Z0-9_-]` and 64 characters for names; ids may hold `.` and `:` as well, but
//! models behind it refuse those. Other dialects admit anything, or nothing at all.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use crate::ir::{Content, Event, Message, Request};

/// Longest name or id.
const BYTES_MAX: usize = 64;

/// The wire name of a tool: characters that are not admitted become `_`, and since that alone could make two names one, a
/// name that changes ends with a number of its own.
pub(super) fn tool_name(name: &str) -> Cow<'_, str> {
    if !name.is_empty() && name.len() <= BYTES_MAX && name.chars().all(is_admitted) {
        return Cow::Borrowed(name);
    }
    let mut wire: String = name.chars().map(|character| if is_admitted(character) { character } else { '_' }).collect();
    wire.truncate(BYTES_MAX - 9);
    let _ = write!(wire, "_{:08x}", fingerprint(name));
    Cow::Owned(wire)
}

/// Names that a request's tools have on the wire because the API does not admit their own: an answer names them so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolNames(BTreeMap<String, String>);

impl ToolNames {
    /// The names of a request's tools.
    #[must_use]
    pub fn of(request: &Request) -> Self {
        let mut changed = BTreeMap::new();
        for tool in &request.tools {
            if let Cow::Owned(wire) = tool_name(&tool.name) {
                changed.insert(wire, tool.name.clone());
            }
        }
        Self(changed)
    }

    /// Gives tools the names back that the caller knows.
    pub fn restore(&self, events: &mut [Event]) {
        for event in events {
            if let Event::Tool { name, .. } = event
                && let Some(own) = self.0.get(name)
            {
                name.clone_from(own);
            }
        }
    }
}

/// Names of the tools that a conversation has called, each once, in order.
pub(super) fn called(messages: &[Message]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for block in messages.iter().flat_map(|message| &message.blocks) {
        if let Content::ToolUse { name, .. } = &block.content
            && !names.contains(&name.as_str())
        {
            names.push(name);
        }
    }
    names
}

/// Ids within one request. The same id of a call and of its result gets the same name here; ids that are empty are paired
/// in order.
#[derive(Default)]
pub(super) struct Ids {
    unnamed_calls: u32,
    unnamed_results: u32,
}

impl Ids {
    /// The wire id of a call.
    pub(super) fn call<'a>(&mut self, id: &'a str) -> Cow<'a, str> {
        tool_id(id, &mut self.unnamed_calls)
    }

    /// The wire id of a result.
    pub(super) fn result<'a>(&mut self, id: &'a str) -> Cow<'a, str> {
        tool_id(id, &mut self.unnamed_results)
    }
}

fn tool_id<'a>(id: &'a str, unnamed: &mut u32) -> Cow<'a, str> {
    if id.is_empty() {
        *unnamed += 1;
        return Cow::Owned(format!("tooluse_unnamed_{unnamed}"));
    }
    tool_name(id)
}

fn is_admitted(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-')
}

/// FNV-1a: the same for the same name in every process.
fn fingerprint(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::Tool;

    #[test]
    fn names_are_admissible_stay_different_and_come_back() {
        let long = "a".repeat(65);
        let names = ["get_weather", "files.read", "files read", "files_read", "werkzeug für", &long];
        let tools = names.map(|name| Tool { name: name.to_owned(), ..Tool::default() }).to_vec();
        let restored = ToolNames::of(&Request { tools, ..Request::default() });
        let mut seen = Vec::new();
        for name in names {
            let wire = tool_name(name).into_owned();
            assert!(wire.len() <= 64 && wire.chars().all(is_admitted), "{wire}");
            let mut events = [Event::Tool { index: 0, id: String::new(), name: wire.clone() }];
            restored.restore(&mut events);
            assert_eq!(events, [Event::Tool { index: 0, id: String::new(), name: name.to_owned() }]);
            assert!(!seen.contains(&wire), "{wire}");
            seen.push(wire);
        }
        assert_eq!(tool_name("get_weather"), "get_weather");
        assert_eq!(tool_name("files.read"), format!("files_read_{:08x}", fingerprint("files.read")));
    }

    #[test]
    fn a_result_finds_its_call() {
        let (mut calls, mut results) = (Ids::default(), Ids::default());
        for id in ["tooluse_0l8f-x", "functions.weather:0", "", "call 1", "", &"x".repeat(300)] {
            let call = calls.call(id);
            assert_eq!(call, results.result(id));
            assert!((1..=64).contains(&call.len()) && call.chars().all(is_admitted), "{call}");
        }
    }
}
