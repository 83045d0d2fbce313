// SPDX-License-Identifier: Apache-2.0
//! Blocks of a caller's request into the canonical form.

use serde_json::{Map, Value, json};

use super::NAME;
use crate::ir::{Block, Content, Fault, FaultClass, Source};

/// Where in the request something is, for error messages.
#[derive(Clone, Copy)]
pub(super) struct At<'a>(Option<&'a At<'a>>, Step<'a>);

/// One step of a path.
#[derive(Clone, Copy)]
enum Step<'a> {
    /// A member.
    Member(&'a str),
    /// A member's element.
    Element(&'a str, usize),
}

impl<'a> At<'a> {
    /// The request as a whole.
    pub(super) const ROOT: At<'static> = At(None, Step::Member(""));

    pub(super) fn member(&'a self, name: &'a str) -> Self {
        Self(Some(self), Step::Member(name))
    }

    pub(super) fn element(&'a self, name: &'a str, index: usize) -> Self {
        Self(Some(self), Step::Element(name, index))
    }

    /// The fault that something here is wrong.
    pub(super) fn wrong(&self, what: &str) -> Fault {
        Fault::new(FaultClass::InvalidRequest, format!("{}: {what}", self.path()))
    }

    fn path(&self) -> String {
        let mut before = self.0.map(At::path).unwrap_or_default();
        if !before.is_empty() {
            before.push('.');
        }
        match self.1 {
            Step::Member(name) => format!("{before}{name}"),
            Step::Element(name, index) => format!("{before}{name}[{index}]"),
        }
    }
}

/// A block's members, taken one by one; what is left over at the end is an extension.
struct Taken<'a> {
    at: At<'a>,
    members: Map<String, Value>,
}

impl Taken<'_> {
    fn text(&mut self, name: &str) -> Result<String, Fault> {
        self.optional_text(name)?.ok_or_else(|| self.at.member(name).wrong("is required"))
    }

    fn optional_text(&mut self, name: &str) -> Result<Option<String>, Fault> {
        match self.members.shift_remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.at.member(name).wrong("must be a string")),
        }
    }
}

/// `content` of a message or of a tool's result, or `system`: a string, or a list of blocks.
pub(super) fn content(value: Value, at: At<'_>, name: &str) -> Result<Vec<Block>, Fault> {
    match value {
        Value::String(text) => Ok(vec![Block::text(text)]),
        Value::Array(blocks) => {
            blocks.into_iter().enumerate().map(|(index, json)| block(json, at.element(name, index))).collect()
        }
        _ => Err(at.member(name).wrong("must be a string or a list of blocks")),
    }
}

fn block(json: Value, at: At<'_>) -> Result<Block, Fault> {
    let Value::Object(mut members) = json else { return Err(at.wrong("must be an object")) };
    let kind = match members.get("type") {
        Some(Value::String(kind)) => kind.clone(),
        Some(_) => return Err(at.member("type").wrong("must be a string")),
        None => return Err(at.member("type").wrong("is required")),
    };
    if !matches!(
        kind.as_str(),
        "text" | "image" | "document" | "tool_use" | "tool_result" | "thinking" | "redacted_thinking"
    ) {
        let content = Content::Opaque { dialect: NAME.to_owned(), json: Value::Object(members) };
        return Ok(Block::new(content));
    }
    members.shift_remove("type");
    let cache = members.shift_remove("cache_control").filter(|mark| !mark.is_null());
    let mut taken = Taken { at, members };
    let content = known_block(&kind, &mut taken)?;
    let mut block = Block { cache, ..Block::new(content) };
    taken.members.retain(|_, value| !value.is_null());
    if !taken.members.is_empty() {
        block.extensions.insert(NAME.to_owned(), taken.members.into_iter().collect());
    }
    Ok(block)
}

fn known_block(kind: &str, block: &mut Taken<'_>) -> Result<Content, Fault> {
    Ok(match kind {
        "text" => {
            let citations = match block.members.shift_remove("citations") {
                Some(Value::Array(citations)) => citations,
                _ => Vec::new(),
            };
            Content::Text { text: block.text("text")?, citations }
        }
        "tool_use" => {
            let input = input_text(block.members.shift_remove("input").as_ref());
            Content::ToolUse { id: block.text("id")?, name: block.text("name")?, input }
        }
        "tool_result" => tool_result(block)?,
        "thinking" => Content::Reasoning {
            text: block.text("thinking")?,
            signature: block.optional_text("signature")?.filter(|signature| !signature.is_empty()),
        },
        "redacted_thinking" => Content::Redacted { data: block.text("data")? },
        kind => Content::Media {
            kind: kind.to_owned(),
            source: source(block)?,
            title: block.optional_text("title")?,
            detail: None,
        },
    })
}

fn tool_result(block: &mut Taken<'_>) -> Result<Content, Fault> {
    let blocks = match block.members.shift_remove("content") {
        None | Some(Value::Null) => Vec::new(),
        Some(value) => content(value, block.at, "content")?,
    };
    let is_error = match block.members.shift_remove("is_error") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(is_error)) => is_error,
        Some(_) => return Err(block.at.member("is_error").wrong("must be true or false")),
    };
    Ok(Content::ToolResult { id: block.text("tool_use_id")?, blocks, is_error })
}

fn source(block: &mut Taken<'_>) -> Result<Source, Fault> {
    let at = block.at.member("source");
    let Some(Value::Object(members)) = block.members.shift_remove("source") else {
        return Err(at.wrong("is required, as an object"));
    };
    let whole = members.clone();
    let mut taken = Taken { at, members };
    let kind = taken.text("type")?;
    Ok(match kind.as_str() {
        "base64" => Source::Base64 { media_type: taken.text("media_type")?, data: taken.text("data")? },
        "url" => Source::Url { url: taken.text("url")? },
        "file" => Source::File { id: taken.text("file_id")? },
        "text" => Source::Text { text: taken.text("data")? },
        // A document in pieces that can be cited one by one: for other dialects it is text, for this one it stays as it is.
        "content" => {
            let text = taken.members.get("content").map(plain_text).unwrap_or_default();
            block.members.insert("source".to_owned(), Value::Object(whole));
            Source::Text { text }
        }
        other => return Err(taken.at.member("type").wrong(&format!("\"{other}\" is not known"))),
    })
}

fn plain_text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => {
            blocks.iter().filter_map(|block| block["text"].as_str()).collect::<Vec<_>>().join("\n\n")
        }
        _ => String::new(),
    }
}

/// The JSON text of a tool call's input. `{"$raw": "…"}` is what a model's broken JSON is wrapped in (see
/// `write_blocks::input_object`); it is unwrapped again.
pub(crate) fn input_text(input: Option<&Value>) -> String {
    match input {
        None | Some(Value::Null) => json!({}).to_string(),
        Some(Value::Object(members)) if members.len() == 1 => match members.get("$raw") {
            Some(Value::String(raw)) if serde_json::from_str::<Map<String, Value>>(raw).is_err() => raw.clone(),
            _ => Value::Object(members.clone()).to_string(),
        },
        Some(input) => input.to_string(),
    }
}
