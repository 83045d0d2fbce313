// SPDX-License-Identifier: Apache-2.0
//! The conversation of a canonical request as this dialect has it: user and assistant in turn, the results of tools at the
//! head of the turn after the calls, nothing blank, marks of the cache as blocks of their own.

use serde_json::{Map, Value, json};

use super::model::Family;
use super::names::{Ids, tool_name};
use super::read_blocks::JSON;
use super::{NAME, blob, citation, media};
use crate::anthropic_messages::{data_url, input_object, is_blank};
use crate::ir::{Block, Content, Message, Request, Role, Source};

/// What stands where a conversation begins with the model: the API wants the user to begin.
const OPENING: &str = "(The conversation begins.)";
/// What stands where a tool has answered nothing: the API wants something that is not blank.
const NO_OUTPUT: &str = "(no output)";

/// Writes blocks; keeps the ids of tool calls, the names of documents, and the paths of what was dropped.
pub(super) struct Blocks {
    family: Family,
    ids: Ids,
    documents: Vec<String>,
    pub(super) dropped: Vec<String>,
}

/// A block, and the cache point behind it.
struct Wire {
    block: Value,
    point: Option<Value>,
}

impl Blocks {
    pub(super) fn new(family: Family) -> Self {
        Self { family, ids: Ids::default(), documents: Vec::new(), dropped: Vec::new() }
    }

    /// The instructions that stand before the conversation.
    pub(super) fn system(&mut self, request: &Request) -> Vec<Value> {
        let blocks = self.blocks(&request.system, "system");
        self.instructions(blocks, "system")
    }

    /// The conversation. Instructions within it go to the end of `system`.
    pub(super) fn messages(&mut self, request: &Request, system: &mut Vec<Value>) -> Vec<Value> {
        let mut turns: Vec<(Role, Vec<Wire>)> = Vec::new();
        for (index, message) in request.messages.iter().enumerate() {
            let path = format!("messages[{index}]");
            if message.name.is_some() {
                self.dropped.push(format!("{path}.name"));
            }
            let blocks = self.message(message, &path);
            if message.role == Role::System {
                // Above the conversation they stand before what they followed: that is worth telling.
                if !turns.is_empty() {
                    self.dropped.push(format!("{path}.role"));
                }
                system.extend(self.instructions(blocks, &path));
                continue;
            }
            match turns.last_mut() {
                _ if blocks.is_empty() => {}
                Some((role, turn)) if *role == message.role => turn.extend(blocks),
                _ => turns.push((message.role, blocks)),
            }
        }
        if turns.first().is_none_or(|(role, _)| *role != Role::User) {
            turns.insert(0, (Role::User, vec![Wire { block: json!({"text": OPENING}), point: None }]));
        }
        trim_end(&mut turns);
        turns.into_iter().map(|(role, blocks)| turn(role, blocks)).collect()
    }

    /// Instructions are text, or what a guardrail is to look at.
    fn instructions(&mut self, blocks: Vec<Wire>, path: &str) -> Vec<Value> {
        let (kept, others): (Vec<Wire>, Vec<Wire>) = blocks
            .into_iter()
            .partition(|wire| ["text", "guardContent", "cachePoint"].iter().any(|name| wire.block.get(name).is_some()));
        self.dropped.extend(others.iter().map(|_| format!("{path}.blocks")));
        flat(kept)
    }

    fn message(&mut self, message: &Message, path: &str) -> Vec<Wire> {
        let blocks = self.blocks(&message.blocks, &format!("{path}.blocks"));
        if message.role == Role::Assistant { thoughts_before_calls(blocks) } else { blocks }
    }

    fn blocks(&mut self, blocks: &[Block], path: &str) -> Vec<Wire> {
        let mut written: Vec<Wire> = Vec::with_capacity(blocks.len());
        for (index, block) in blocks.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let point = self.cache_point(block, &path);
            if is_blank(&block.content) {
                // What stands before a blank block is still to be cached.
                if let Some(last) = written.last_mut() {
                    last.point = last.point.take().or(point);
                }
                continue;
            }
            match self.block(block, &path) {
                Some(block) => written.push(Wire { block, point }),
                None => self.dropped.push(path),
            }
        }
        written
    }

    /// The mark of a block; that of a block within a result stands behind the result.
    fn cache_point(&mut self, block: &Block, path: &str) -> Option<Value> {
        let inner = match &block.content {
            Content::ToolResult { blocks, .. } => blocks.iter().find_map(|block| block.cache.as_ref()),
            _ => None,
        };
        let mark = block.cache.as_ref().or(inner)?;
        if self.family.takes_cache_points() {
            return Some(cache_point(mark));
        }
        self.dropped.push(format!("{path}.cache"));
        None
    }

    /// None if this dialect has no place for the block.
    fn block(&mut self, block: &Block, path: &str) -> Option<Value> {
        let own = block.extensions.get(NAME);
        let (name, mut wire) = match &block.content {
            Content::Text { text, .. } if own.is_some_and(|own| own.contains_key(JSON)) => {
                return Some(json!({JSON: serde_json::from_str::<Value>(text).ok()?}));
            }
            Content::Text { text, citations } => return Some(self.text(text, citations, path)),
            Content::Refusal { text } => return Some(json!({"text": text})),
            Content::Media { kind, source, title, detail } => {
                if detail.as_deref().is_some_and(|detail| detail != "auto") {
                    self.dropped.push(format!("{path}.detail"));
                }
                let format = own.and_then(|own| own.get("format")).and_then(Value::as_str);
                (kind.as_str(), self.medium(kind, source, title.as_deref(), format)?)
            }
            Content::ToolUse { id, name, input } => {
                let id = self.ids.call(id);
                ("toolUse", json!({"toolUseId": id, "name": tool_name(name), "input": input_object(input)}))
            }
            Content::ToolResult { id, blocks, is_error } => {
                let id = self.ids.result(id).into_owned();
                ("toolResult", self.tool_result(&id, blocks, *is_error, path))
            }
            Content::Reasoning { text, signature } => return self.thought(text, signature.as_deref()),
            Content::Redacted { data } => {
                let takes = self.family.takes_thoughts() && blob::wrap(data) == *data;
                return takes.then(|| json!({"reasoningContent": {"redactedContent": data}}));
            }
            Content::Opaque { dialect, json } => return (dialect == NAME).then(|| json.clone()),
        };
        for (member, value) in own.into_iter().flatten() {
            match (member.as_str(), wire.pointer_mut("/source/s3Location")) {
                ("bucketOwner", None) => {}
                ("bucketOwner", Some(place)) => place["bucketOwner"] = value.clone(),
                (member, _) => wire[member] = value.clone(),
            }
        }
        Some(json!({name: wire}))
    }

    fn text(&mut self, text: &str, citations: &[Value], path: &str) -> Value {
        let wire: Vec<Value> = citations.iter().filter_map(citation::to_wire).collect();
        if wire.len() < citations.len() {
            self.dropped.push(format!("{path}.citations"));
        }
        match wire.is_empty() {
            true => json!({"text": text}),
            false => json!({"citationsContent": {"content": [{"text": text}], "citations": wire}}),
        }
    }

    /// Only the vendor's own thoughts are taken back, and the seal is how it knows them.
    fn thought(&self, text: &str, signature: Option<&str>) -> Option<Value> {
        match signature {
            _ if !self.family.takes_thoughts() => None,
            // The seals of other dialects may be JSON; here they are base64.
            Some(signature) if !signature.starts_with('{') => {
                Some(json!({"reasoningContent": {"reasoningText": {"text": text, "signature": signature}}}))
            }
            None if self.family.takes_unsealed_thoughts() && !text.trim().is_empty() => {
                Some(json!({"reasoningContent": {"reasoningText": {"text": text}}}))
            }
            _ => None,
        }
    }

    fn tool_result(&mut self, id: &str, blocks: &[Block], is_error: bool, path: &str) -> Value {
        let mut content: Vec<Value> = Vec::with_capacity(blocks.len());
        for wire in self.blocks(blocks, &format!("{path}.blocks")) {
            let known = [JSON, "text", "image", "document", "video", "searchResult"];
            if known.iter().any(|name| wire.block.get(name).is_some()) {
                content.push(wire.block);
            } else if let Some(text) = wire.block["citationsContent"]["content"][0].get("text") {
                content.push(json!({"text": text}));
            } else {
                self.dropped.push(format!("{path}.blocks"));
            }
        }
        if content.is_empty() {
            content.push(json!({"text": NO_OUTPUT}));
        }
        let mut wire = json!({"toolUseId": id, "content": content});
        if is_error {
            wire["status"] = json!("error");
        }
        wire
    }

    /// `format`: the word that a caller of this dialect said.
    fn medium(&mut self, kind: &str, source: &Source, title: Option<&str>, format: Option<&str>) -> Option<Value> {
        if !media::KINDS.contains(&kind) {
            return None;
        }
        let inline = |media_type: &str, data: &str| {
            let format = format.or_else(|| media::format(kind, media_type));
            Some((
                format.map(str::to_owned).or_else(|| Some(unknown_format(kind, media_type)?.to_owned()))?,
                json!({"bytes": data}),
            ))
        };
        let (format, source) = match source {
            Source::Base64 { media_type, data } => inline(media_type, data)?,
            Source::Url { url } => match data_url(url) {
                Some((media_type, data)) => inline(media_type, data)?,
                None if url.starts_with("s3://") => {
                    let format = format.or_else(|| media::format_of_name(kind, url))?;
                    (format.to_owned(), json!({"s3Location": {"uri": url}}))
                }
                // The vendor fetches from its own store only.
                None => return None,
            },
            Source::Text { text } if kind == "document" => (format.unwrap_or("txt").to_owned(), json!({"text": text})),
            Source::Text { .. } | Source::File { .. } => return None,
        };
        let mut wire = json!({"format": format, "source": source});
        if kind == "document" {
            wire["name"] = json!(self.document_name(title));
        }
        Some(wire)
    }

    /// A document needs a name, and one of its own.
    fn document_name(&mut self, title: Option<&str>) -> String {
        let name = title.map(media::document_name).filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| "document".to_owned());
        let mut unique = name.clone();
        let mut count = 1;
        while self.documents.contains(&unique) {
            count += 1;
            unique = format!("{name}-{count}");
        }
        self.documents.push(unique.clone());
        unique
    }
}

/// The `cachePoint` for a canonical mark.
pub(super) fn cache_point(mark: &Value) -> Value {
    match mark.get("ttl").and_then(Value::as_str) {
        Some(ttl @ ("5m" | "1h")) => json!({"cachePoint": {"type": "default", "ttl": ttl}}),
        _ => json!({"cachePoint": {"type": "default"}}),
    }
}

/// A format that is not listed is passed on: what the API takes grows. Not so for a media type that says nothing.
fn unknown_format<'t>(kind: &str, media_type: &'t str) -> Option<&'t str> {
    let (top, word) = media_type.split(';').next().unwrap_or_default().split_once('/')?;
    (top == kind && !word.is_empty()).then_some(word)
}

/// Blocks with their cache points between them.
fn flat(blocks: Vec<Wire>) -> Vec<Value> {
    blocks.into_iter().flat_map(|wire| std::iter::once(wire.block).chain(wire.point)).collect()
}

/// Dialects that keep thoughts and calls apart may put the thoughts last; here the turn must begin with them. Where the
/// first of both kinds is a thought the order is the model's own, and stays.
fn thoughts_before_calls(blocks: Vec<Wire>) -> Vec<Wire> {
    let is_thought = |wire: &Wire| wire.block.get("reasoningContent").is_some();
    let first = blocks.iter().find(|wire| is_thought(wire) || wire.block.get("toolUse").is_some());
    if first.is_none_or(is_thought) {
        return blocks;
    }
    let (mut thoughts, others): (Vec<Wire>, Vec<Wire>) = blocks.into_iter().partition(is_thought);
    thoughts.extend(others);
    thoughts
}

/// The API refuses white space at the end of a turn that the model is to continue.
fn trim_end(turns: &mut [(Role, Vec<Wire>)]) {
    if let Some((Role::Assistant, blocks)) = turns.last_mut()
        && let Some(Value::String(text)) = blocks.last_mut().and_then(|wire| wire.block.get_mut("text"))
    {
        text.truncate(text.trim_end().len());
    }
}

fn turn(role: Role, blocks: Vec<Wire>) -> Value {
    if role == Role::Assistant {
        return json!({"role": "assistant", "content": flat(blocks)});
    }
    let (mut results, others): (Vec<Wire>, Vec<Wire>) =
        blocks.into_iter().partition(|wire| wire.block.get("toolResult").is_some());
    results.extend(others);
    json!({"role": "user", "content": flat(results)})
}

/// The members of a tool's specification that the API demands: a schema, and one of an object.
pub(super) fn input_schema(parameters: &Value) -> Value {
    match parameters {
        Value::Object(schema) if schema.contains_key("type") => parameters.clone(),
        Value::Object(schema) => {
            let mut typed = Map::from_iter([("type".to_owned(), json!("object"))]);
            typed.extend(schema.clone());
            Value::Object(typed)
        }
        _ => json!({"type": "object", "properties": {}}),
    }
}
