// SPDX-License-Identifier: Apache-2.0
//! Writes requests that are no conversation: vectors, rankings, pictures, films.

use serde_json::{Map, Value, json};

use super::messages::url;
use super::{
    Asked, IMAGE_TO_IMAGE, MULTIMODAL_EMBEDDING, TEXT_EMBEDDING, TEXT_RERANK, TEXT_TO_IMAGE, VIDEO_SYNTHESIS, extend,
    set,
};
use crate::codec::Operation;
use crate::ir::{Block, Content, Fault, FaultClass};
use crate::task::{Embed, EmbedInput, Image, Rerank, Task, Video};

/// Members that callers of picture and film models may say beside what other vendors know.
const SHARED: &[&str] = &["prompt_extend", "watermark", "ref_mode", "ref_strength", "strength", "resolution"];

/// Writes a request.
///
/// # Errors
/// `unsupported` for what the API does not have, `invalid-request` for what it cannot do without.
pub fn encode_task(operation: Operation, task: &Task) -> Result<Asked, Fault> {
    match (operation, task) {
        (Operation::Embeddings, Task::Embed(task)) => embed(task),
        (Operation::Rerank, Task::Rerank(task)) => Ok(rerank(task)),
        (Operation::Images, Task::Image(task)) => Ok(image(task)),
        (Operation::ImageEdits, Task::Image(task)) => edit(task),
        (Operation::Videos, Task::Video(task)) => Ok(video(task)),
        (other, _) => {
            Err(Fault::new(FaultClass::Unsupported, format!("DashScope's own API has no {} here", other.name())))
        }
    }
}

fn asked(
    path: &'static str,
    model: &str,
    input: &Map<String, Value>,
    parameters: &Map<String, Value>,
    dropped: Vec<String>,
) -> Asked {
    let body = json!({ "model": model, "input": input, "parameters": parameters });
    Asked { path, body: body.to_string().into_bytes(), dropped }
}

fn embed(task: &Embed) -> Result<Asked, Fault> {
    let mut dropped = Vec::new();
    for (index, encoding) in task.encodings.iter().enumerate() {
        if encoding != "float" {
            dropped.push(format!("encodings[{index}]"));
        }
    }
    let shows = task.input.iter().any(|input| matches!(input, EmbedInput::Blocks(_)));
    let multimodal = shows || task.model.contains("multimodal") || task.model.contains("-vl-");
    let mut parameters = Map::new();
    set(&mut parameters, "dimension", task.dimensions);
    match task.purpose.as_deref() {
        Some("search_query") if !multimodal => set(&mut parameters, "text_type", Some("query")),
        Some("search_document") if !multimodal => set(&mut parameters, "text_type", Some("document")),
        Some(_) => dropped.push("purpose".to_owned()),
        None => {}
    }
    for (stated, path) in [(task.truncate.is_some(), "truncate"), (task.user.is_some(), "user")] {
        if stated {
            dropped.push(path.to_owned());
        }
    }
    extend(&mut parameters, &task.extensions, &["output_type", "instruct"], &[], &mut dropped);
    let inputs = task.input.iter().enumerate();
    let contents = inputs.map(|(index, input)| content(input, &format!("input[{index}]"), &mut dropped));
    let contents = contents.collect::<Result<Vec<Value>, Fault>>()?;
    let mut input = Map::new();
    if multimodal {
        set(&mut input, "contents", Some(contents));
        return Ok(asked(MULTIMODAL_EMBEDDING, &task.model, &input, &parameters, dropped));
    }
    let texts: Vec<Value> = contents.into_iter().map(|mut content| content["text"].take()).collect();
    set(&mut input, "texts", Some(texts));
    Ok(asked(TEXT_EMBEDDING, &task.model, &input, &parameters, dropped))
}

/// One input: an object with a member for each kind of content.
fn content(input: &EmbedInput, path: &str, dropped: &mut Vec<String>) -> Result<Value, Fault> {
    let blocks = match input {
        EmbedInput::Text(text) => return Ok(json!({ "text": text })),
        EmbedInput::Blocks(blocks) => blocks,
        EmbedInput::Tokens(_) => {
            let message = format!("{path}: this vendor takes texts, not tokens");
            return Err(Fault::new(FaultClass::InvalidRequest, message));
        }
    };
    let mut content = Map::new();
    for (index, Block { content: said, .. }) in blocks.iter().enumerate() {
        let (kind, value) = match said {
            Content::Text { text, .. } => ("text", Some(text.clone())),
            Content::Media { kind, source, .. } if kind == "image" || kind == "video" => (kind.as_str(), url(source)),
            _ => ("", None),
        };
        match (value, content.get_mut(kind)) {
            (Some(text), Some(Value::String(written))) if kind == "text" => {
                written.push('\n');
                written.push_str(&text);
            }
            (Some(value), None) => set(&mut content, kind, Some(value)),
            _ => dropped.push(format!("{path}[{index}]")),
        }
    }
    Ok(Value::Object(content))
}

fn rerank(task: &Rerank) -> Asked {
    let mut dropped = Vec::new();
    let mut parameters = Map::new();
    set(&mut parameters, "top_n", task.top_n);
    set(&mut parameters, "return_documents", task.return_documents);
    extend(&mut parameters, &task.extensions, &["instruct"], &[], &mut dropped);
    let mut input = Map::new();
    set(&mut input, "query", Some(task.query.as_str()));
    set(&mut input, "documents", Some(documents(&task.documents)));
    asked(TEXT_RERANK, &task.model, &input, &parameters, dropped)
}

/// Models of texts take a list of strings; models that also see take a list of objects.
fn documents(stated: &[Value]) -> Vec<Value> {
    let text = |document: &Value| match document {
        Value::Object(members) if members.len() == 1 => members.get("text").filter(|text| text.is_string()).cloned(),
        Value::String(_) => Some(document.clone()),
        _ => None,
    };
    let texts: Option<Vec<Value>> = stated.iter().map(text).collect();
    let object = |document: &Value| if document.is_string() { json!({ "text": document }) } else { document.clone() };
    texts.unwrap_or_else(|| stated.iter().map(object).collect())
}

fn image(task: &Image) -> Asked {
    let mut dropped = unwanted(task);
    let mut input = Map::new();
    set(&mut input, "prompt", Some(task.prompt.as_str()));
    set(&mut input, "negative_prompt", task.negative_prompt.as_deref());
    // wanx-v1 takes one picture as a model for style or content.
    set(&mut input, "ref_img", task.images.first().and_then(url));
    let taken = usize::from(input.contains_key("ref_img"));
    dropped.extend((taken..task.images.len()).map(|index| format!("images[{index}]")));
    if task.mask.is_some() {
        dropped.push("mask".to_owned());
    }
    let mut parameters = image_parameters(task, &mut dropped);
    extend(&mut parameters, &task.extensions, SHARED, &[], &mut dropped);
    asked(TEXT_TO_IMAGE, &task.model, &input, &parameters, dropped)
}

/// The models of the family `imageedit` take one picture and say what is to be done with it; the others take a list.
fn edit(task: &Image) -> Result<Asked, Fault> {
    let mut dropped = unwanted(task);
    let urls: Vec<String> = task.images.iter().filter_map(url).collect();
    let Some(first) = urls.first().filter(|_| urls.len() == task.images.len()) else {
        let message = "images: needs at least one, each as a URL or in the request itself";
        return Err(Fault::new(FaultClass::InvalidRequest, message));
    };
    let mask = task.mask.as_ref().and_then(url);
    let mut input = Map::new();
    set(&mut input, "prompt", Some(task.prompt.as_str()));
    set(&mut input, "negative_prompt", task.negative_prompt.as_deref());
    if task.model.contains("imageedit") {
        let function = if mask.is_some() { "description_edit_with_mask" } else { "description_edit" };
        set(&mut input, "function", Some(function));
        set(&mut input, "base_image_url", Some(first.as_str()));
        set(&mut input, "mask_image_url", mask);
        dropped.extend((1..urls.len()).map(|index| format!("images[{index}]")));
    } else {
        set(&mut input, "images", Some(urls));
        if mask.is_some() {
            dropped.push("mask".to_owned());
        }
    }
    let mut parameters = image_parameters(task, &mut dropped);
    extend(&mut parameters, &task.extensions, SHARED, &[], &mut dropped);
    Ok(asked(IMAGE_TO_IMAGE, &task.model, &input, &parameters, dropped))
}

/// What no picture model of this vendor knows. Answers hold URLs, and what they point to is the model's choice.
fn unwanted(task: &Image) -> Vec<String> {
    let told = [
        (task.quality.as_deref().is_some_and(|quality| quality != "auto"), "quality"),
        (task.delivery.as_deref() == Some("base64"), "delivery"),
        (task.file_format.is_some(), "file_format"),
        (task.user.is_some(), "user"),
    ];
    told.into_iter().filter(|(stated, _)| *stated).map(|(_, path)| path.to_owned()).collect()
}

fn image_parameters(task: &Image, dropped: &mut Vec<String>) -> Map<String, Value> {
    let mut parameters = Map::new();
    set(&mut parameters, "size", task.size.as_deref().and_then(size));
    set(&mut parameters, "n", task.count);
    set(&mut parameters, "seed", task.seed);
    match task.style.as_deref() {
        // OpenAI's words; the vendor's own stand in angle brackets.
        Some("vivid" | "natural") => dropped.push("style".to_owned()),
        style => set(&mut parameters, "style", style),
    }
    parameters
}

/// "1024x1024" as this vendor writes it; none for "auto", which it chooses by itself.
fn size(stated: &str) -> Option<String> {
    (stated != "auto").then(|| stated.replace(['x', 'X', '×'], "*"))
}

fn video(task: &Video) -> Asked {
    let mut dropped = Vec::new();
    let mut input = Map::new();
    set(&mut input, "prompt", Some(task.prompt.as_str()));
    set(&mut input, "negative_prompt", task.negative_prompt.as_deref());
    let first = task.image.as_ref().and_then(url);
    if task.image.is_some() && first.is_none() {
        dropped.push("image".to_owned());
    }
    let mut parameters = Map::new();
    match (&first, task.size.as_deref().and_then(size)) {
        // A film that begins with a picture has its proportions; only how fine it is can be chosen.
        (Some(_), Some(size)) => match resolution(&size) {
            Some(resolution) => set(&mut parameters, "resolution", Some(resolution)),
            None => dropped.push("size".to_owned()),
        },
        (_, size) => set(&mut parameters, "size", size),
    }
    set(&mut input, "img_url", first);
    set(&mut parameters, "duration", task.seconds);
    set(&mut parameters, "seed", task.seed);
    extend(&mut parameters, &task.extensions, SHARED, &[], &mut dropped);
    asked(VIDEO_SYNTHESIS, &task.model, &input, &parameters, dropped)
}

fn resolution(size: &str) -> Option<&'static str> {
    let (width, height) = size.split_once('*')?;
    let shorter = width.parse::<u32>().ok()?.min(height.parse().ok()?);
    Some(match shorter {
        0..=480 => "480P",
        481..=720 => "720P",
        _ => "1080P",
    })
}
