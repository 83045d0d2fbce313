// SPDX-License-Identifier: Apache-2.0
//! The contents of a caller's request into the canonical form.

use serde_json::{Value, json};

use super::ids::Calls;
use super::read::{Taken, wrong};
use super::seal::{self, Foreign, Place};
use super::{NAME, files};
use crate::ir::{Block, Content, Fault, Message, Role, Source};

/// What is known of the conversation so far.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    calls: Calls,
}

/// How many parts of each kind a content has had, to say where a signature stands.
#[derive(Debug, Default)]
struct Counts {
    calls: usize,
    images: usize,
}

impl Conversation {
    /// The instructions before the conversation.
    pub(super) fn system(&mut self, content: &mut Taken) -> Result<Vec<Block>, Fault> {
        self.parts(content)
    }

    /// One turn.
    pub(super) fn content(&mut self, mut content: Taken) -> Result<Message, Fault> {
        let role = match content.text("role")?.as_deref() {
            Some("model") => Role::Assistant,
            // What the API called the role of results once.
            None | Some("user" | "function" | "tool") => Role::User,
            Some("system") => Role::System,
            Some(_) => return Err(content.wrong("role", "must be \"user\" or \"model\"")),
        };
        Ok(Message { role, name: None, blocks: self.parts(&mut content)? })
    }

    fn parts(&mut self, content: &mut Taken) -> Result<Vec<Block>, Fault> {
        let (mut blocks, mut counts) = (Vec::new(), Counts::default());
        for (index, part) in content.list("parts")?.unwrap_or_default().into_iter().enumerate() {
            let path = content.at(&format!("parts[{index}]"));
            self.part(Taken::of_value(part, path)?, &mut counts, &mut blocks)?;
        }
        Ok(blocks)
    }

    fn part(&mut self, mut part: Taken, counts: &mut Counts, blocks: &mut Vec<Block>) -> Result<(), Fault> {
        let known = ["text", "inlineData", "fileData", "functionCall", "functionResponse"];
        if !known.iter().any(|name| part.members.contains_key(*name)) {
            let json = Value::Object(part.members);
            blocks.push(Block::new(Content::Opaque { dialect: NAME.to_owned(), json }));
            return Ok(());
        }
        let signature = part.text("thoughtSignature")?.filter(|signature| !signature.is_empty());
        if part.members.get("thought") == Some(&Value::Bool(true)) {
            part.taken("thought");
            thought(part.text("text")?.unwrap_or_default(), signature.as_deref(), blocks);
            return Ok(());
        }
        let is_text = part.members.contains_key("text");
        let mut block = if is_text {
            Block::text(part.text("text")?.unwrap_or_default())
        } else if part.members.contains_key("inlineData") {
            inline(&mut part)?
        } else if part.members.contains_key("fileData") {
            file(&mut part)?
        } else if part.members.contains_key("functionCall") {
            self.call(&mut part)?
        } else {
            self.response(&mut part)?
        };
        let empty = matches!(&block.content, Content::Text { text, .. } if text.is_empty());
        if let Some(signature) = signature {
            let place = match &block.content {
                Content::ToolUse { .. } => Place::Call(counts.calls),
                Content::Text { .. } if empty => Place::Empty(counts.calls),
                Content::Media { .. } => Place::Image(counts.images),
                _ => Place::Text,
            };
            blocks.push(sealed(String::new(), seal::pack(&signature, &place)));
            if empty && part.members.is_empty() {
                return Ok(());
            }
        }
        counts.calls += usize::from(matches!(block.content, Content::ToolUse { .. }));
        counts.images += usize::from(matches!(block.content, Content::Media { .. }));
        if !part.members.is_empty() {
            block.extensions.insert(NAME.to_owned(), part.members.into_iter().collect());
        }
        blocks.push(block);
        Ok(())
    }

    fn call(&mut self, part: &mut Taken) -> Result<Block, Fault> {
        let Some(mut call) = part.object("functionCall")? else {
            return Err(part.wrong("functionCall", "is required"));
        };
        let name = call.text("name")?.unwrap_or_default();
        if name.is_empty() {
            return Err(call.wrong("name", "is required"));
        }
        let id = self.calls.call(call.text("id")?, &name);
        let input = match call.taken("args") {
            None => json!({}).to_string(),
            Some(args @ Value::Object(_)) => input_text(&args),
            Some(_) => return Err(call.wrong("args", "must be an object")),
        };
        part.give_back("functionCall", call);
        Ok(Block::new(Content::ToolUse { id, name, input }))
    }

    fn response(&mut self, part: &mut Taken) -> Result<Block, Fault> {
        let Some(mut response) = part.object("functionResponse")? else {
            return Err(part.wrong("functionResponse", "is required"));
        };
        let name = response.text("name")?.unwrap_or_default();
        let (id, is_answer) = self.calls.response(response.text("id")?, &name);
        let (text, is_error) = match response.taken("response") {
            None => (String::new(), false),
            Some(Value::Object(members)) => result_text(&Value::Object(members)),
            Some(_) => return Err(response.wrong("response", "must be an object")),
        };
        let mut blocks = if text.is_empty() { Vec::new() } else { vec![Block::text(text)] };
        for (index, media) in response.list("parts")?.unwrap_or_default().into_iter().enumerate() {
            let mut media = Taken::of_value(media, response.at(&format!("parts[{index}]")))?;
            let mut block =
                if media.members.contains_key("inlineData") { inline(&mut media)? } else { file(&mut media)? };
            if !media.members.is_empty() {
                block.extensions.insert(NAME.to_owned(), media.members.into_iter().collect());
            }
            blocks.push(block);
        }
        // The name of a response is that of its call; without a call it would be lost.
        if !is_answer {
            response.members.insert("name".to_owned(), json!(name));
        }
        part.give_back("functionResponse", response);
        Ok(Block::new(Content::ToolResult { id, blocks, is_error }))
    }
}

/// The JSON text of a call's arguments. `{"$raw": "…"}` is what a model's broken JSON is wrapped in (see
/// `write_parts::args`); it is unwrapped again.
fn input_text(args: &Value) -> String {
    match args.as_object().filter(|members| members.len() == 1).and_then(|members| members.get("$raw")) {
        Some(Value::String(raw)) if !matches!(serde_json::from_str(raw), Ok(Value::Object(_))) => raw.clone(),
        _ => args.to_string(),
    }
}

/// What a function has answered. The API wants an object, so plain texts are `{"output": "…"}` by its convention, and
/// failures `{"error": …}`.
fn result_text(response: &Value) -> (String, bool) {
    let only = response.as_object().filter(|members| members.len() == 1).and_then(|members| members.iter().next());
    let is_plain = |text: &str| !matches!(serde_json::from_str(text), Ok(Value::Object(_)));
    match only.map(|(name, value)| (name.as_str(), value)) {
        Some(("output", Value::String(text))) if is_plain(text) => (text.clone(), false),
        Some(("error", Value::String(text))) if is_plain(text) => (text.clone(), true),
        Some(("error", error @ Value::Object(_))) => (error.to_string(), true),
        _ => (response.to_string(), false),
    }
}

fn sealed(text: String, seal: String) -> Block {
    Block::new(Content::Reasoning { text, signature: Some(seal) })
}

/// A thought. SDKs send the pieces of a streamed one back as they came: they are one block until a signature ends it.
fn thought(text: String, signature: Option<&str>, blocks: &mut Vec<Block>) {
    let before = match blocks.last_mut().map(|block| &mut block.content) {
        Some(Content::Reasoning { text, signature: None }) => Some(text),
        _ => None,
    };
    let seal = match signature.map(|signature| (signature, seal::unwrap(signature))) {
        None => None,
        Some((_, Some(Foreign::Redacted(data)))) => {
            blocks.push(Block::new(Content::Redacted { data }));
            return;
        }
        Some((_, Some(Foreign::Seal(seal)))) => Some(seal),
        Some((signature, None)) => Some(seal::pack(signature, &Place::Thought)),
    };
    if let Some(before) = before {
        before.push_str(&text);
        if let (Some(seal), Some(Content::Reasoning { signature, .. })) =
            (seal, blocks.last_mut().map(|block| &mut block.content))
        {
            *signature = Some(seal);
        }
        return;
    }
    blocks.push(Block::new(Content::Reasoning { text, signature: seal }));
}

fn inline(part: &mut Taken) -> Result<Block, Fault> {
    let Some(mut data) = part.object("inlineData")? else { return Err(part.wrong("inlineData", "is required")) };
    let media_type = data.text("mimeType")?.ok_or_else(|| data.wrong("mimeType", "is required"))?;
    let bytes = data.text("data")?.ok_or_else(|| data.wrong("data", "is required"))?;
    // Only Vertex AI takes a title, and only the caller knows whether it is there.
    let title = data.members.get("displayName").and_then(Value::as_str).map(str::to_owned);
    let kind = files::kind(&media_type).to_owned();
    part.give_back("inlineData", data);
    let source = Source::Base64 { media_type, data: bytes };
    Ok(Block::new(Content::Media { kind, source, title, detail: None }))
}

fn file(part: &mut Taken) -> Result<Block, Fault> {
    let Some(mut data) = part.object("fileData")? else {
        return Err(wrong(&part.at("fileData"), "or inlineData is required"));
    };
    let uri = data.text("fileUri")?.ok_or_else(|| data.wrong("fileUri", "is required"))?;
    let title = data.members.get("displayName").and_then(Value::as_str).map(str::to_owned);
    let media_type = data.members.get("mimeType").and_then(Value::as_str);
    let kind = files::kind(media_type.unwrap_or_else(|| files::media_type(&uri).unwrap_or_default())).to_owned();
    part.give_back("fileData", data);
    let source = if files::is_stored(&uri) { Source::File { id: uri } } else { Source::Url { url: uri } };
    Ok(Block::new(Content::Media { kind, source, title, detail: None }))
}
