// SPDX-License-Identifier: Apache-2.0
//! Pictures: `/images/generations` and `/images/edits` (platform.openai.com/docs/api-reference/images).
//!
//! An edit arrives as a form or as JSON. The host makes a JSON object of a form: its fields are strings, its files lists of
//! `{"filename", "media_type", "base64"}`. To a vendor an edit goes out as JSON with `images: [{"image_url"}]`. A stream of
//! partial pictures exists on relays only.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use super::task::{self, Answer};
use super::{NAME, asking, content, task_embed, usage};
use crate::codec::Envelope;
use crate::ir::{Event, Fault, Response, Source, Usage};
use crate::members::Fields;
use crate::settle::picture_fault;
use crate::task::{IMAGE, IMAGE_FAULT, Image};

/// Name of the bucket for pictures that came.
const IMAGE_COUNT: &str = "image-count";

/// Members that ask for a stream, which an answer that is translated never is.
const STREAM_MEMBERS: &[&str] = &["stream", "partial_images"];

/// Reads a request; that of an edit must have a picture.
pub(super) fn decode(body: &[u8], edits: bool) -> Result<Image, Fault> {
    let mut fields = Fields::of_body(body)?;
    let mut task = Image {
        // OpenAI has a default here, a gateway has not.
        model: fields.required_text("model")?,
        prompt: fields.text("prompt")?.unwrap_or_default(),
        negative_prompt: fields.text("negative_prompt")?,
        count: fields.count_or_text("n")?,
        size: fields.text("size")?,
        quality: fields.text("quality")?,
        style: fields.text("style")?,
        file_format: fields.text("output_format")?,
        user: fields.text("user")?,
        ..Image::default()
    };
    task.delivery = fields.text("response_format")?.map(|word| if word == "b64_json" { "base64".into() } else { word });
    task.seed = fields.peek("seed").and_then(integer);
    if task.seed.is_some() {
        fields.take("seed");
    }
    for name in ["images", "image", "image[]", "image_url"] {
        if let Some(stated) = fields.take(name) {
            let found = sources(&stated).ok_or_else(|| fields.wrong(name, "must be a picture or a list of these"))?;
            task.images.extend(found);
        }
    }
    if let Some(stated) = fields.take("mask") {
        let found = sources(&stated).and_then(|found| found.into_iter().next());
        task.mask = Some(found.ok_or_else(|| fields.wrong("mask", "must be a picture"))?);
    }
    if edits && task.images.is_empty() {
        return Err(fields.wrong("image", "is required"));
    }
    if task.prompt.is_empty() && !edits {
        return Err(fields.wrong("prompt", "is required"));
    }
    let mut rest = fields.rest();
    rest.iter_mut().for_each(|(name, value)| unform(name, value));
    if !rest.is_empty() {
        task.extensions.insert(NAME.to_owned(), rest);
    }
    Ok(task)
}

fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// What a form states as text and JSON as a number or a truth.
fn unform(name: &str, value: &mut Value) {
    let Some(text) = value.as_str() else { return };
    match name {
        "output_compression" | "partial_images" => {
            if let Ok(number) = text.parse::<u64>() {
                *value = json!(number);
            }
        }
        "stream" => *value = json!(text == "true"),
        _ => {}
    }
}

/// Where pictures are: a URL, an object that has one, a file of a form, or a list of these.
pub(super) fn sources(stated: &Value) -> Option<Vec<Source>> {
    match stated {
        Value::Array(list) => Some(list.iter().map(sources).collect::<Option<Vec<_>>>()?.concat()),
        Value::String(url) => Some(vec![content::url_source(url)]),
        Value::Object(members) => {
            let text = |name: &str| members.get(name).and_then(Value::as_str);
            if let Some(data) = text("base64") {
                let media_type = text("media_type").filter(|kind| !kind.is_empty()).unwrap_or("image/png");
                return Some(vec![Source::Base64 { media_type: media_type.to_owned(), data: data.to_owned() }]);
            }
            if let Some(id) = text("file_id") {
                return Some(vec![Source::File { id: id.to_owned() }]);
            }
            sources(members.get("image_url").or(members.get("url"))?)
        }
        _ => None,
    }
}

/// Writes a request, and the paths of what is left out.
pub(super) fn encode(task: &Image) -> (Vec<u8>, Vec<String>) {
    let mut dropped = Vec::new();
    let mut body = Map::new();
    let mut set = |name: &str, value: Value| {
        if !value.is_null() {
            body.insert(name.to_owned(), value);
        }
    };
    set("model", json!(task.model));
    set("prompt", json!(task.prompt));
    set("negative_prompt", json!(task.negative_prompt));
    set("n", json!(task.count));
    set("size", json!(task.size));
    set("quality", json!(task.quality));
    set("style", json!(task.style));
    set(
        "response_format",
        json!(task.delivery.as_deref().map(|word| if word == "base64" { "b64_json" } else { word })),
    );
    set("output_format", json!(task.file_format));
    set("seed", json!(task.seed));
    set("user", json!(task.user));
    let mut pictures = Vec::with_capacity(task.images.len());
    for (index, source) in task.images.iter().enumerate() {
        match wire_source(source) {
            Some(picture) => pictures.push(picture),
            None => dropped.push(format!("images[{index}]")),
        }
    }
    if !pictures.is_empty() {
        set("images", Value::from(pictures));
    }
    if let Some(mask) = &task.mask {
        match wire_source(mask) {
            Some(mask) => set("mask", mask),
            None => dropped.push("mask".to_owned()),
        }
    }
    task_embed::extend(&mut body, &task.extensions, &mut dropped);
    for name in STREAM_MEMBERS {
        if body.shift_remove(*name).is_some_and(|value| value != false) {
            dropped.push((*name).to_owned());
        }
    }
    (Value::Object(body).to_string().into_bytes(), dropped)
}

/// A picture as a vendor takes it; none for text.
pub(super) fn wire_source(source: &Source) -> Option<Value> {
    match source {
        Source::File { id } => Some(json!({ "file_id": id })),
        source => asking::url(source).map(|url| json!({ "image_url": url })),
    }
}

/// One picture of an answer.
#[derive(Deserialize)]
struct Item<'b> {
    #[serde(borrow)]
    url: Option<Cow<'b, str>>,
    #[serde(borrow)]
    b64_json: Option<Cow<'b, str>>,
    #[serde(borrow, alias = "media_type")]
    mime_type: Option<Cow<'b, str>>,
    #[serde(borrow)]
    revised_prompt: Option<Cow<'b, str>>,
    error: Option<Value>,
}

/// Reads an answer.
pub(super) fn decode_result(body: &[u8]) -> Result<Vec<Event>, Fault> {
    let mut answer = Answer::read(body, &["data", "images"])?;
    let mut events = vec![answer.start()];
    // SiliconFlow says it twice.
    let (data, images) = (answer.take("data"), answer.take("images"));
    let items: Vec<Item<'_>> = data.or(images).map(|raw| task::list(raw, "data")).transpose()?.unwrap_or_default();
    let mut count = 0;
    for item in items {
        let (name, json) = picture(&item);
        count += u64::from(name == IMAGE);
        events.push(Event::Other { name: name.to_owned(), json: json.to_string() });
    }
    for fault in answer.value("errors").as_array().into_iter().flatten() {
        events.push(Event::Other { name: IMAGE_FAULT.to_owned(), json: fault.to_string() });
    }
    let usage = counted(&answer.value("usage"), count);
    answer.conclude(usage, &mut events);
    Ok(events)
}

/// The event of one picture.
fn picture(item: &Item<'_>) -> (&'static str, Value) {
    let mut told = Map::new();
    let members = [
        ("url", &item.url),
        ("base64", &item.b64_json),
        ("media_type", &item.mime_type),
        ("revised_prompt", &item.revised_prompt),
    ];
    for (name, value) in members {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            told.insert(name.to_owned(), json!(value));
        }
    }
    if told.contains_key("url") || told.contains_key("base64") {
        return (IMAGE, Value::Object(told));
    }
    // Doubao states the failure of one picture in its place.
    let stated = item.error.as_ref().unwrap_or(&Value::Null);
    (IMAGE_FAULT, json!({ "code": stated["code"], "message": stated["message"] }))
}

/// Tokens if the vendor counts them, and pictures in any case.
fn counted(stated: &Value, images: u64) -> Option<Usage> {
    let mut usage = usage::read(stated).unwrap_or_else(|| Usage {
        stated: if stated.is_object() { stated.to_string() } else { String::new() },
        ..Usage::default()
    });
    if images > 0 {
        usage.more.push((IMAGE_COUNT.to_owned(), images));
    }
    Some(usage).filter(|usage| *usage != Usage::default())
}

/// The usage of a whole answer that is relayed untouched, if it has pictures.
pub(super) fn whole_usage(body: &[u8]) -> Option<Usage> {
    #[derive(Deserialize)]
    struct Relayed {
        #[serde(default)]
        data: Vec<Shown>,
        usage: Option<Value>,
    }
    #[derive(Deserialize)]
    struct Shown {
        url: Option<IgnoredAny>,
        b64_json: Option<IgnoredAny>,
    }
    let relayed: Relayed = serde_json::from_slice(body).ok()?;
    let images = relayed.data.iter().filter(|shown| shown.url.is_some() || shown.b64_json.is_some()).count();
    if images == 0 {
        return None;
    }
    counted(&relayed.usage.unwrap_or_default(), images as u64)
}

/// Writes an answer. Pictures that could not be made stand in `errors` beside those that could; an answer without any is
/// written as the error that it is.
pub(super) fn encode_result(response: &Response, envelope: &Envelope) -> Vec<u8> {
    let read = |json: &str| serde_json::from_str::<Value>(json).ok();
    let data: Vec<Value> = task::events(response, IMAGE).filter_map(read).map(|event| wire_picture(&event)).collect();
    let faults: Vec<Value> = task::events(response, IMAGE_FAULT).filter_map(read).collect();
    if data.is_empty() && !faults.is_empty() {
        return task::error(picture_fault(response).as_ref());
    }
    let mut answer = Map::new();
    answer.insert("created".to_owned(), json!(envelope.created));
    answer.extend(task::begun(response));
    answer.insert("data".to_owned(), Value::from(data));
    if !faults.is_empty() {
        answer.insert("errors".to_owned(), Value::from(faults));
    }
    if let Some(usage) = response.usage.as_ref().and_then(wire_usage) {
        answer.insert("usage".to_owned(), usage);
    }
    Value::Object(answer).to_string().into_bytes()
}

fn wire_picture(event: &Value) -> Value {
    let names =
        [("url", "url"), ("b64_json", "base64"), ("mime_type", "media_type"), ("revised_prompt", "revised_prompt")];
    let members = names.into_iter().filter(|(_, told)| event[*told].is_string());
    Value::Object(members.map(|(name, told)| (name.to_owned(), event[told].clone())).collect())
}

/// The vendor's own usage object where it is one of this dialect; none if nothing but pictures was counted.
fn wire_usage(usage: &Usage) -> Option<Value> {
    if let Ok(stated @ Value::Object(_)) = serde_json::from_str::<Value>(&usage.stated) {
        let pictures = usage.more.iter().find(|(name, _)| name == IMAGE_COUNT).map_or(0, |(_, count)| *count);
        if counted(&stated, pictures).as_ref() == Some(usage) {
            return Some(stated);
        }
    }
    let shown = usage.more.iter().find(|(name, _)| name == usage::INPUT_IMAGE).map_or(0, |(_, count)| *count);
    let (input, output) = (usage.input_total(), usage.output_total());
    (input + output > 0).then(|| {
        json!({
            "input_tokens": input,
            "output_tokens": output,
            "total_tokens": input + output,
            "input_tokens_details": { "text_tokens": input.saturating_sub(shown), "image_tokens": shown },
        })
    })
}
