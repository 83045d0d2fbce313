// SPDX-License-Identifier: Apache-2.0
//! Folds the events of an answer into a whole [`Response`], and unfolds one again. Folding the events of a whole answer
//! and those of a stream that says the same gives the same response.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::ir::{Block, Content, Event, Response};

/// Name of the event that carries a whole block which only one dialect knows:
/// `{"dialect": "anthropic-messages", "json": {…}}`.
pub const OPAQUE: &str = "opaque";

/// Name of the event that carries a citation of the text before it.
pub const CITATION: &str = "citation";

/// Collects events.
#[derive(Debug, Clone, Default)]
pub struct Collector {
    response: Response,
    /// Whether the last block has ended, so that more of its kind is a new block.
    ended: bool,
    /// Where the tool calls stand in `response.blocks`.
    tools: BTreeMap<u32, usize>,
}

impl Collector {
    /// A collector that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one more event.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Start { id, model } => {
                id.clone_into(&mut self.response.id);
                model.clone_into(&mut self.response.model);
            }
            Event::Text(more) => self.text(more),
            Event::Reasoning(more) => self.reasoning(more),
            Event::Signature(seal) => self.signature(seal),
            Event::Redacted(data) => self.begin_ended(Content::Redacted { data: data.clone() }),
            Event::Tool { index, id, name } => self.tool(*index, id, name),
            Event::ToolInput { index, json } => self.tool_input(*index, json),
            Event::Refusal(more) => self.refusal(more),
            Event::BlockEnd => self.ended = true,
            Event::Usage(usage) => self.response.usage = Some(usage.clone()),
            Event::Finish(finish) => self.response.finish = Some(finish.clone()),
            Event::Fault(fault) => {
                self.response.fault.get_or_insert_with(|| fault.clone());
            }
            Event::Other { name, json } => self.other(name, json),
        }
    }

    /// What the events say.
    #[must_use]
    pub fn finish(self) -> Response {
        self.response
    }

    /// The last block, if it has not ended.
    fn current(&mut self) -> Option<&mut Content> {
        if self.ended { None } else { self.response.blocks.last_mut().map(|block| &mut block.content) }
    }

    fn begin(&mut self, content: Content) {
        self.response.blocks.push(Block::new(content));
        self.ended = false;
    }

    fn begin_ended(&mut self, content: Content) {
        self.begin(content);
        self.ended = true;
    }

    fn text(&mut self, more: &str) {
        match self.current() {
            Some(Content::Text { text, .. }) => text.push_str(more),
            _ => self.begin(Content::Text { text: more.to_owned(), citations: Vec::new() }),
        }
    }

    fn reasoning(&mut self, more: &str) {
        match self.current() {
            Some(Content::Reasoning { text, .. }) => text.push_str(more),
            _ => self.begin(Content::Reasoning { text: more.to_owned(), signature: None }),
        }
    }

    fn signature(&mut self, seal: &str) {
        match self.current() {
            Some(Content::Reasoning { signature, .. }) => *signature = Some(seal.to_owned()),
            _ => self.begin(Content::Reasoning { text: String::new(), signature: Some(seal.to_owned()) }),
        }
        self.ended = true;
    }

    fn refusal(&mut self, more: &str) {
        match self.current() {
            Some(Content::Refusal { text }) => text.push_str(more),
            _ => self.begin(Content::Refusal { text: more.to_owned() }),
        }
    }

    fn tool(&mut self, index: u32, id: &str, name: &str) {
        self.begin(Content::ToolUse { id: id.to_owned(), name: name.to_owned(), input: String::new() });
        self.tools.insert(index, self.response.blocks.len() - 1);
    }

    fn tool_input(&mut self, index: u32, json: &str) {
        if !self.tools.contains_key(&index) {
            self.tool(index, "", "");
        }
        let place = self.tools.get(&index).copied().unwrap_or_default();
        if let Some(Content::ToolUse { input, .. }) =
            self.response.blocks.get_mut(place).map(|block| &mut block.content)
        {
            input.push_str(json);
        }
    }

    fn other(&mut self, name: &str, json: &str) {
        match (name, serde_json::from_str::<Value>(json)) {
            (CITATION, Ok(citation)) => {
                if !matches!(self.current(), Some(Content::Text { .. })) {
                    self.text("");
                }
                if let Some(Content::Text { citations, .. }) = self.current() {
                    citations.push(citation);
                }
            }
            (OPAQUE, Ok(mut block)) if block["dialect"].is_string() => {
                let dialect = block["dialect"].as_str().unwrap_or_default().to_owned();
                self.begin_ended(Content::Opaque { dialect, json: block["json"].take() });
            }
            _ => self.response.other.push((name.to_owned(), json.to_owned())),
        }
    }
}

/// The events that fold into this response.
#[must_use]
pub fn events(response: &Response) -> Vec<Event> {
    let mut events = vec![Event::Start { id: response.id.clone(), model: response.model.clone() }];
    // Names with a dot are a dialect's own, and may tell of the blocks.
    let is_own = |name: &str| name.contains('.');
    let other = |(name, json): &(String, String)| Event::Other { name: name.clone(), json: json.clone() };
    events.extend(response.other.iter().filter(|(name, _)| is_own(name)).map(other));
    let mut tool_count = 0;
    for block in &response.blocks {
        block_events(&block.content, &mut tool_count, &mut events);
    }
    events.extend(response.other.iter().filter(|(name, _)| !is_own(name)).map(other));
    events.extend(response.usage.clone().map(Event::Usage));
    events.extend(response.fault.clone().map(Event::Fault));
    events.extend(response.finish.clone().map(Event::Finish));
    events
}

fn block_events(content: &Content, tool_count: &mut u32, events: &mut Vec<Event>) {
    match content {
        Content::Text { text, citations } => {
            events.push(Event::Text(text.clone()));
            let cited = |citation: &Value| Event::Other { name: CITATION.to_owned(), json: citation.to_string() };
            events.extend(citations.iter().map(cited));
        }
        Content::Reasoning { text, signature } => {
            if !text.is_empty() || signature.is_none() {
                events.push(Event::Reasoning(text.clone()));
            }
            events.extend(signature.clone().map(Event::Signature));
        }
        Content::Redacted { data } => events.push(Event::Redacted(data.clone())),
        Content::Refusal { text } => events.push(Event::Refusal(text.clone())),
        Content::ToolUse { id, name, input } => {
            let index = *tool_count;
            *tool_count += 1;
            events.push(Event::Tool { index, id: id.clone(), name: name.clone() });
            events.push(Event::ToolInput { index, json: input.clone() });
        }
        Content::Opaque { dialect, json } => {
            let json = json!({ "dialect": dialect, "json": json }).to_string();
            events.push(Event::Other { name: OPAQUE.to_owned(), json });
        }
        Content::Media { kind, source, .. } => {
            let json = serde_json::to_string(source).unwrap_or_default();
            events.push(Event::Other { name: kind.clone(), json });
        }
        Content::ToolResult { .. } => return,
    }
    events.push(Event::BlockEnd);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Finish, Usage};

    fn folded(events: &[Event]) -> Response {
        let mut collector = Collector::new();
        events.iter().for_each(|event| collector.event(event));
        collector.finish()
    }

    fn sample() -> Vec<Event> {
        let tool = |index: u32, id: &str| Event::Tool { index, id: id.into(), name: format!("tool{index}") };
        let input = |index: u32, json: &str| Event::ToolInput { index, json: json.into() };
        vec![
            Event::Start { id: "a".into(), model: "m".into() },
            Event::Reasoning("th".into()),
            Event::Reasoning("ink".into()),
            Event::Signature("seal".into()),
            Event::Reasoning("more".into()),
            Event::Redacted("secret".into()),
            Event::Text("hel".into()),
            Event::Text("lo".into()),
            Event::Other { name: CITATION.into(), json: "{\"n\":1}".into() },
            Event::BlockEnd,
            Event::Text("again".into()),
            tool(0, "x"),
            tool(1, "y"),
            input(1, "{\"b\""),
            input(0, "{}"),
            input(1, ":1}"),
            Event::Other { name: OPAQUE.into(), json: "{\"dialect\":\"d\",\"json\":{\"q\":1}}".into() },
            Event::Other { name: "logprobs".into(), json: "{}".into() },
            Event::Refusal("no".into()),
            Event::Usage(Usage { input: 1, ..Usage::default() }),
            Event::Usage(Usage { input: 2, ..Usage::default() }),
            Event::Finish(Finish { reason: "tool_calls".into(), sequence: None }),
        ]
    }

    #[test]
    fn deltas_fold_into_blocks() {
        let response = folded(&sample());
        let text = |text: &str| Content::Text { text: text.into(), citations: Vec::new() };
        let tool = |id: &str, name: &str, input: &str| Content::ToolUse {
            id: id.into(),
            name: name.into(),
            input: input.into(),
        };
        let expected = [
            Content::Reasoning { text: "think".into(), signature: Some("seal".into()) },
            Content::Reasoning { text: "more".into(), signature: None },
            Content::Redacted { data: "secret".into() },
            Content::Text { text: "hello".into(), citations: vec![json!({"n": 1})] },
            text("again"),
            tool("x", "tool0", "{}"),
            tool("y", "tool1", "{\"b\":1}"),
            Content::Opaque { dialect: "d".into(), json: json!({"q": 1}) },
            Content::Refusal { text: "no".into() },
        ];
        let contents: Vec<Content> = response.blocks.iter().map(|block| block.content.clone()).collect();
        assert_eq!(contents, expected);
        assert_eq!(response.usage.map(|usage| usage.input), Some(2));
        assert_eq!(response.other, [("logprobs".to_owned(), "{}".to_owned())]);
    }

    #[test]
    fn unfolding_and_folding_again_changes_nothing() {
        let response = folded(&sample());
        assert_eq!(folded(&events(&response)), response);
        assert_eq!(folded(&events(&Response::default())), Response::default());
    }
}
