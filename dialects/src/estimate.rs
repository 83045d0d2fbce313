// SPDX-License-Identifier: Apache-2.0
//! Estimates the tokens of a request without a tokenizer: for vendors that cannot count, and for limits that must be
//! charged before the vendor has counted. It is an estimate: within a third for prose, wider for code and data; it does
//! not know the model.
//!
//! Text: four Latin characters a token (OpenAI's own rule of thumb), three characters of other alphabets for two
//! tokens, and the same for CJK (1.5 characters a token). A message, a tool and a call add a few tokens of framing. A
//! picture is flat, since its price depends on a size that is not decoded here; documents and sound go by their bytes.

use crate::ir::{Block, Content, Format, Request, Source, Tool};

/// Tokens of framing around a message.
const MESSAGE: u64 = 4;
/// Tokens of framing around a tool or a call.
const TOOL: u64 = 8;
/// Tokens of a picture.
const PICTURE: u64 = 1000;
/// Bytes of a base64 document or sound for one token.
const MEDIA_BYTES: u64 = 40;

/// Estimates the input tokens of a request.
#[must_use]
pub fn input_tokens(request: &Request) -> u64 {
    let messages = request.messages.iter().map(|message| {
        let name = message.name.as_deref().map_or(0, text_tokens);
        MESSAGE.saturating_add(name).saturating_add(blocks_tokens(&message.blocks))
    });
    let system = if request.system.is_empty() { 0 } else { MESSAGE + blocks_tokens(&request.system) };
    let tools: u64 = request.tools.iter().map(tool_tokens).sum();
    let format = match &request.format {
        Some(Format::Schema { schema, .. }) => TOOL + text_tokens(&schema.to_string()),
        Some(Format::Json) | None => 0,
    };
    messages.sum::<u64>().saturating_add(system).saturating_add(tools).saturating_add(format).max(1)
}

/// Estimates the tokens of a text.
#[must_use]
pub fn text_tokens(text: &str) -> u64 {
    // Twelfths of a token, so that every share is whole.
    let twelfths: u64 = text.chars().map(|c| if c.is_ascii() { 3 } else { 8 }).sum();
    twelfths.div_ceil(12)
}

fn blocks_tokens(blocks: &[Block]) -> u64 {
    blocks.iter().map(|block| content_tokens(&block.content)).fold(0, u64::saturating_add)
}

fn content_tokens(content: &Content) -> u64 {
    match content {
        Content::Text { text, .. } | Content::Reasoning { text, .. } | Content::Refusal { text } => text_tokens(text),
        Content::ToolUse { name, input, .. } => TOOL + text_tokens(name) + text_tokens(input),
        Content::ToolResult { blocks, .. } => TOOL.saturating_add(blocks_tokens(blocks)),
        Content::Redacted { data } => data.len() as u64 / 4,
        Content::Opaque { json, .. } => text_tokens(&json.to_string()),
        Content::Media { kind, source, .. } => match source {
            Source::Text { text } => text_tokens(text),
            Source::Base64 { data, .. } if kind != "image" => (data.len() as u64 / MEDIA_BYTES).max(1),
            Source::Base64 { .. } | Source::Url { .. } | Source::File { .. } => PICTURE,
        },
    }
}

fn tool_tokens(tool: &Tool) -> u64 {
    if let Some((_, json)) = &tool.opaque {
        return TOOL + text_tokens(&json.to_string());
    }
    let description = tool.description.as_deref().map_or(0, text_tokens);
    let parameters = if tool.parameters.is_null() { 0 } else { text_tokens(&tool.parameters.to_string()) };
    TOOL + text_tokens(&tool.name) + description + parameters
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Message, Role};

    #[test]
    fn text_is_estimated_by_its_script() {
        let cases = [("", 0), ("word", 1), ("hello there", 3), ("你好世界", 3), ("a", 1)];
        for (text, expected) in cases {
            assert_eq!(text_tokens(text), expected, "{text:?}");
        }
    }

    #[test]
    fn every_part_of_a_request_counts() {
        let said = |content: Content| Request {
            messages: vec![Message { role: Role::User, name: None, blocks: vec![Block::new(content)] }],
            ..Request::default()
        };
        let source = Source::Url { url: "https://a.example/b.png".into() };
        let picture = Content::Media { kind: "image".into(), source, title: None, detail: None };
        assert_eq!(input_tokens(&said(picture)), MESSAGE + PICTURE);
        let mut request = said(Content::Text { text: "x".repeat(400), citations: Vec::new() });
        assert_eq!(input_tokens(&request), MESSAGE + 100);
        request.tools.push(Tool { name: "tool".into(), parameters: serde_json::json!({}), ..Tool::default() });
        assert_eq!(input_tokens(&request), MESSAGE + 100 + TOOL + 1 + 1);
        assert_eq!(input_tokens(&Request::default()), 1);
    }
}
