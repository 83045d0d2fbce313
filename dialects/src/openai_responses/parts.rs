// SPDX-License-Identifier: Apache-2.0
//! The parts of messages and of results, both ways. A part that only this dialect knows is an opaque block
//! `{"part": {…}}`, which tells it from an item.

use serde_json::{Value, json};

use super::NAME;
use crate::ir::{Block, Content, Fault, Source};
use crate::members::{Fields, wrong};

/// Reads a content or an output: a string or a list of parts.
pub(super) fn blocks(content: Option<Value>, path: &str) -> Result<Vec<Block>, Fault> {
    match content {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![Block::text(text)]),
        Some(Value::Array(parts)) => {
            let read = |(index, part)| self::part(part, &format!("{path}[{index}]"));
            parts.into_iter().enumerate().map(read).collect()
        }
        Some(_) => Err(wrong(path, "must be a string or a list of parts")),
    }
}

fn part(part: Value, path: &str) -> Result<Block, Fault> {
    let mut fields = Fields::of(part, path)?;
    let kind = fields.required_text("type")?;
    let content = match kind.as_str() {
        "input_text" | "output_text" | "text" => {
            let text = fields.required_text("text")?;
            let citations = fields.list("annotations")?.unwrap_or_default();
            let logprobs = fields.list("logprobs")?.unwrap_or_default();
            if !logprobs.is_empty() {
                fields.put("logprobs", logprobs);
            }
            Content::Text { text, citations }
        }
        "refusal" => Content::Refusal { text: fields.required_text("refusal")? },
        "input_image" => image(&mut fields)?,
        "input_file" => file(&mut fields)?,
        "input_audio" => audio(&mut fields)?,
        _ => {
            fields.put("type", kind);
            let json = json!({ "part": fields.into_map() });
            return Ok(Block::new(Content::Opaque { dialect: NAME.to_owned(), json }));
        }
    };
    let mut block = Block::new(content);
    let own = fields.rest();
    if own.contains_key("prompt_cache_breakpoint") {
        // The mark of dialects that have one; the caller's own goes to vendors of this dialect.
        block.cache = Some(json!({ "type": "ephemeral" }));
    }
    if !own.is_empty() {
        block.extensions.insert(NAME.to_owned(), own);
    }
    Ok(block)
}

fn image(fields: &mut Fields) -> Result<Content, Fault> {
    let source = match (fields.text("image_url")?, fields.text("file_id")?) {
        (Some(url), _) => url_source(&url),
        (None, Some(id)) => Source::File { id },
        (None, None) => return Err(fields.wrong("image_url", "is required, or file_id")),
    };
    Ok(Content::Media { kind: "image".to_owned(), source, title: None, detail: fields.text("detail")? })
}

fn file(fields: &mut Fields) -> Result<Content, Fault> {
    let (data, url, id) = (fields.text("file_data")?, fields.text("file_url")?, fields.text("file_id")?);
    let source = match (data, url, id) {
        (Some(data), _, _) => match url_source(&data) {
            Source::Url { url } => Source::Base64 { media_type: "application/pdf".to_owned(), data: url },
            source => source,
        },
        (None, Some(url), _) => Source::Url { url },
        (None, None, Some(id)) => Source::File { id },
        (None, None, None) => return Err(fields.wrong("file_data", "is required, or file_url or file_id")),
    };
    Ok(Content::Media { kind: "document".to_owned(), source, title: fields.text("filename")?, detail: None })
}

fn audio(fields: &mut Fields) -> Result<Content, Fault> {
    let Some(mut stated) = fields.object("input_audio")? else {
        return Err(fields.wrong("input_audio", "is required"));
    };
    let format = stated.required_text("format")?;
    let source = Source::Base64 { media_type: format!("audio/{format}"), data: stated.required_text("data")? };
    Ok(Content::Media { kind: "audio".to_owned(), source, title: None, detail: None })
}

/// Where a URL points: a `data:` URL with base64 lies in the request itself.
fn url_source(url: &str) -> Source {
    let inline = url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,"));
    match inline {
        Some((media_type, data)) => Source::Base64 { media_type: media_type.to_owned(), data: data.to_owned() },
        None => Source::Url { url: url.to_owned() },
    }
}

/// A block as a part of the model's input; none if this dialect has no place for it.
pub(super) fn input(content: &Content) -> Option<Value> {
    match content {
        Content::Text { text, .. } | Content::Refusal { text } => Some(json!({ "type": "input_text", "text": text })),
        Content::Media { kind, source, title, detail } => medium(kind, source, title.as_deref(), detail.as_deref()),
        Content::Opaque { dialect, json } if dialect == NAME && json["part"].is_object() => Some(json["part"].clone()),
        _ => None,
    }
}

/// A block as a part of what the model has said; none if this dialect has no place for it there.
pub(super) fn output(content: &Content) -> Option<Value> {
    match content {
        Content::Text { text, citations } => {
            let annotations: Vec<&Value> = citations.iter().filter(|cited| super::notes::is_own(cited)).collect();
            // Some vendors refuse what the model has said without this list.
            Some(json!({ "type": "output_text", "text": text, "annotations": annotations }))
        }
        Content::Refusal { text } => Some(json!({ "type": "refusal", "refusal": text })),
        Content::Opaque { dialect, json } if dialect == NAME && json["part"].is_object() => Some(json["part"].clone()),
        _ => None,
    }
}

fn medium(kind: &str, source: &Source, title: Option<&str>, detail: Option<&str>) -> Option<Value> {
    let mut part = match (kind, source) {
        ("image", Source::Url { .. } | Source::Base64 { .. }) => {
            json!({ "type": "input_image", "image_url": url(source)? })
        }
        ("image", Source::File { id }) => json!({ "type": "input_image", "file_id": id }),
        ("document", Source::Url { url }) => json!({ "type": "input_file", "file_url": url }),
        ("document", Source::File { id }) => json!({ "type": "input_file", "file_id": id }),
        ("document", Source::Base64 { .. }) => {
            // The API demands a name beside data.
            let name = title.unwrap_or("document.pdf");
            json!({ "type": "input_file", "filename": name, "file_data": url(source)? })
        }
        ("document", Source::Text { text }) => return Some(json!({ "type": "input_text", "text": text })),
        ("audio", Source::Base64 { media_type, data }) => {
            let format = match media_type.trim_start_matches("audio/") {
                "mpeg" => "mp3",
                "x-wav" | "wave" => "wav",
                format => format,
            };
            json!({ "type": "input_audio", "input_audio": { "data": data, "format": format } })
        }
        _ => return None,
    };
    if let Some(detail) = detail.filter(|_| kind == "image") {
        part["detail"] = Value::from(detail);
    }
    if let Some(title) = title.filter(|_| kind == "document") {
        part["filename"] = Value::from(title);
    }
    Some(part)
}

fn url(source: &Source) -> Option<String> {
    match source {
        Source::Url { url } => Some(url.clone()),
        Source::Base64 { media_type, data } => Some(format!("data:{media_type};base64,{data}")),
        Source::File { .. } | Source::Text { .. } => None,
    }
}
