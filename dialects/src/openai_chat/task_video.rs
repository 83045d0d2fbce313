// SPDX-License-Identifier: Apache-2.0
//! Films: `POST /videos` (platform.openai.com/docs/api-reference/videos). A film is always a job; what is read and written
//! here is the request that begins it and the object that stands at its end.

use serde_json::{Map, Value, json};

use super::task::{self, Answer};
use super::{NAME, fault, task_embed, task_image};
use crate::codec::Envelope;
use crate::ir::{Event, Fault, FaultClass, Response, Usage};
use crate::members::Fields;
use crate::task::{VIDEO, Video};

/// Reads a request: JSON, or the JSON object that the host makes of a form.
pub(super) fn decode(body: &[u8]) -> Result<Video, Fault> {
    let mut fields = Fields::of_body(body)?;
    let mut task = Video {
        model: fields.required_text("model")?,
        prompt: fields.required_text("prompt")?,
        negative_prompt: fields.text("negative_prompt")?,
        size: fields.text("size")?,
        seconds: fields.count_or_text("seconds")?,
        ..Video::default()
    };
    if let Some(seed) = fields.peek("seed").and_then(Value::as_i64) {
        task.seed = Some(seed);
        fields.take("seed");
    }
    if let Some(stated) = fields.take("input_reference") {
        let found = task_image::sources(&stated).and_then(|found| found.into_iter().next());
        task.image = Some(found.ok_or_else(|| fields.wrong("input_reference", "must be a picture"))?);
    }
    let rest = fields.rest();
    if !rest.is_empty() {
        task.extensions.insert(NAME.to_owned(), rest);
    }
    Ok(task)
}

/// Writes a request, and the paths of what is left out.
pub(super) fn encode(task: &Video) -> (Vec<u8>, Vec<String>) {
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
    set("seconds", json!(task.seconds.map(|seconds| seconds.to_string())));
    set("size", json!(task.size));
    set("seed", json!(task.seed));
    if let Some(source) = &task.image {
        match task_image::wire_source(source) {
            Some(picture) => set("input_reference", picture),
            None => dropped.push("image".to_owned()),
        }
    }
    task_embed::extend(&mut body, &task.extensions, &mut dropped);
    (Value::Object(body).to_string().into_bytes(), dropped)
}

/// Reads a `video` object: a finished one has a film and a finish, one that has failed is a fault, and one that is still
/// being made has neither.
pub(super) fn decode_result(body: &[u8]) -> Result<Vec<Event>, Fault> {
    let mut answer = Answer::read(body, &["status", "url", "video"])?;
    let mut events = vec![answer.start()];
    let status = answer.text("status");
    match status.as_str() {
        "failed" | "cancelled" | "expired" => return Err(failed(&status, &answer.value("error"))),
        "completed" | "succeeded" | "done" | "" => {}
        _ => return Ok(events),
    }
    let nested = answer.value("video");
    let seconds = whole(&answer.value("seconds")).or_else(|| whole(&nested["duration"]));
    let url = Some(answer.text("url")).filter(|url| !url.is_empty()).map(Value::from).unwrap_or(nested["url"].clone());
    let members =
        [("url", url), ("media_type", json!("video/mp4")), ("seconds", json!(seconds)), ("size", answer.value("size"))];
    let members = members.into_iter().filter(|(_, value)| !value.is_null());
    let film: Map<String, Value> = members.map(|(name, value)| (name.to_owned(), value)).collect();
    events.push(Event::Other { name: VIDEO.to_owned(), json: Value::Object(film).to_string() });
    for told in ["progress", "error"] {
        answer.take(told);
    }
    let stated = answer.value("usage");
    let usage = seconds.map(|seconds| Usage {
        more: vec![("video-seconds".to_owned(), seconds)],
        stated: if stated.is_object() { stated.to_string() } else { String::new() },
        ..Usage::default()
    });
    answer.conclude(usage, &mut events);
    Ok(events)
}

fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

fn failed(status: &str, error: &Value) -> Fault {
    let stated = fault::in_band(&json!({ "error": error }), false);
    stated.unwrap_or_else(|| Fault::new(FaultClass::VendorBug, format!("the film was not made: {status}")))
}

/// Writes the `video` object of a job that has ended.
pub(super) fn encode_result(response: &Response, envelope: &Envelope) -> Vec<u8> {
    let film = task::events(response, VIDEO).find_map(|json| serde_json::from_str::<Value>(json).ok());
    let id = if response.id.is_empty() { format!("video_{}", envelope.request_id) } else { response.id.clone() };
    let mut video = Map::new();
    video.insert("created_at".to_owned(), json!(envelope.created));
    video.extend(task::begun(response));
    video.insert("id".to_owned(), json!(id));
    video.insert("object".to_owned(), json!("video"));
    video.insert("model".to_owned(), json!(task::model(response, envelope)));
    match (&film, &response.fault) {
        (Some(film), None) => {
            video.insert("status".to_owned(), json!("completed"));
            video.insert("progress".to_owned(), json!(100));
            video.insert("error".to_owned(), Value::Null);
            if let Some(seconds) = film["seconds"].as_u64() {
                video.insert("seconds".to_owned(), json!(seconds.to_string()));
            }
            for name in ["size", "url"].into_iter().filter(|name| film[*name].is_string()) {
                video.insert(name.to_owned(), film[name].clone());
            }
        }
        (_, fault) => {
            let unknown = Fault::new(FaultClass::VendorBug, "the vendor made no film");
            let error = fault::encode(fault.as_ref().unwrap_or(&unknown));
            video.insert("status".to_owned(), json!("failed"));
            video.insert("progress".to_owned(), json!(0));
            video.insert(
                "error".to_owned(),
                json!({ "code": error["error"]["code"], "message": error["error"]["message"] }),
            );
        }
    }
    Value::Object(video).to_string().into_bytes()
}
