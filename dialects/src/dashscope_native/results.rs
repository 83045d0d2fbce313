// SPDX-License-Identifier: Apache-2.0
//! Reads the answers to requests that are no conversation, and those about a job: how far it is, what came of it.

use serde_json::{Map, Value, json};

use super::reading::unreadable;
use super::{fault, set, usage};
use crate::codec::Operation;
use crate::ir::{Event, Fault, FaultClass, Finish};
use crate::task::{EMBEDDING, IMAGE, IMAGE_FAULT, RANKING, VIDEO};

/// How far a job is.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// Not done.
    Waiting {
        /// The vendor's id of the job: letters, digits, `-` and `_`.
        id: String,
        /// When it was submitted, in milliseconds since 1970; none if the answer does not say.
        submitted_ms: Option<u64>,
    },
    /// Done: what came of it.
    Done(Vec<Event>),
}

/// Reads an answer about a job: that to its submission, or one that was asked for later.
///
/// # Errors
/// The fault that ended the job, or vendor-bug if the answer cannot be read.
pub fn decode_progress(operation: Operation, body: &[u8]) -> Result<Progress, Fault> {
    let object = read(body)?;
    let output = &object["output"];
    let id = output["task_id"].as_str().unwrap_or_default();
    match output["task_status"].as_str().unwrap_or_default() {
        "PENDING" | "RUNNING" | "SUSPENDED" => {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            if id.is_empty() || !id.bytes().all(plain) {
                return Err(bug("the vendor gave a job no usable id"));
            }
            let submitted_ms = output["submit_time"].as_str().and_then(milliseconds);
            Ok(Progress::Waiting { id: id.to_owned(), submitted_ms })
        }
        "SUCCEEDED" => {
            let mut events = vec![start(id)];
            let usage = &object["usage"];
            if operation == Operation::Videos {
                events.push(film(output, usage)?);
            } else {
                events.extend(pictures(output)?);
            }
            conclude(usage, &mut events);
            Ok(Progress::Done(events))
        }
        "FAILED" => Err(fault::in_band(output, true).unwrap_or_else(|| bug("the job failed"))),
        "CANCELED" | "CANCELLED" => Err(bug("the job was cancelled at the vendor")),
        "UNKNOWN" => Err(bug("the vendor does not know the job, or not any longer")),
        "" => Err(bug("the vendor's answer does not say how far the job is")),
        other => Err(bug(&format!("the vendor says of the job {other:?}, which is not known"))),
    }
}

/// Reads the answer to a request for vectors or a ranking.
///
/// # Errors
/// The error that the answer states, or vendor-bug if it cannot be read.
pub fn decode_result(operation: Operation, body: &[u8]) -> Result<Vec<Event>, Fault> {
    let object = read(body)?;
    let mut events = vec![start(object["request_id"].as_str().unwrap_or_default())];
    let (member, event): (_, fn(usize, &Value) -> Option<Event>) = match operation {
        Operation::Embeddings => ("embeddings", vector),
        _ => ("results", ranked),
    };
    let list = object["output"][member].as_array();
    let list = list.ok_or_else(|| bug(&format!("the vendor's answer has no output.{member}")))?;
    for (position, item) in list.iter().enumerate() {
        events.push(event(position, item).ok_or_else(|| bug(&format!("output.{member}[{position}] cannot be read")))?);
    }
    conclude(&object["usage"], &mut events);
    Ok(events)
}

fn read(body: &[u8]) -> Result<Value, Fault> {
    let object: Value = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
    match fault::in_band(&object, false) {
        Some(fault) => Err(fault),
        None => Ok(object),
    }
}

fn start(id: &str) -> Event {
    Event::Start { id: id.to_owned(), model: String::new() }
}

fn conclude(stated: &Value, events: &mut Vec<Event>) {
    events.extend(usage::read(stated).map(Event::Usage));
    events.push(Event::Finish(Finish { reason: "stop".to_owned(), sequence: None }));
}

fn other(name: &str, members: Map<String, Value>) -> Event {
    Event::Other { name: name.to_owned(), json: Value::Object(members).to_string() }
}

/// `{"text_index": 0, "embedding": […]}`; `index` where vectors are not of texts only.
fn vector(position: usize, item: &Value) -> Option<Event> {
    let index = item["text_index"].as_u64().or(item["index"].as_u64()).unwrap_or(position as u64);
    let mut members = Map::new();
    set(&mut members, "index", Some(index));
    set(&mut members, "values", Some(item["embedding"].as_array()?.clone()));
    Some(other(EMBEDDING, members))
}

fn ranked(_: usize, item: &Value) -> Option<Event> {
    let mut members = Map::new();
    set(&mut members, "index", Some(item["index"].as_u64()?));
    set(&mut members, "score", Some(item["relevance_score"].as_f64()?));
    if !item["document"].is_null() {
        set(&mut members, "document", Some(item["document"].clone()));
    }
    Some(other(RANKING, members))
}

/// Each picture, or why it could not be made: a job succeeds if one of them could.
fn pictures(output: &Value) -> Result<Vec<Event>, Fault> {
    let mut events = Vec::new();
    for result in output["results"].as_array().into_iter().flatten() {
        let mut members = Map::new();
        if let Some(url) = result["url"].as_str() {
            let prompt = result["actual_prompt"].as_str().or(output["actual_prompt"].as_str());
            set(&mut members, "url", Some(url));
            set(&mut members, "revised_prompt", prompt);
            events.push(other(IMAGE, members));
        } else {
            set(&mut members, "code", result["code"].as_str());
            set(&mut members, "message", result["message"].as_str());
            events.push(other(IMAGE_FAULT, members));
        }
    }
    // Models that also talk answer in the shape of a conversation.
    for choice in output["choices"].as_array().into_iter().flatten() {
        let parts = choice["message"]["content"].as_array().into_iter().flatten();
        let urls = parts.filter_map(|part| part["image"].as_str());
        events.extend(urls.map(|url| Event::Other { name: IMAGE.into(), json: json!({ "url": url }).to_string() }));
    }
    let made = |event: &Event| matches!(event, Event::Other { name, .. } if name == IMAGE);
    if events.iter().any(made) {
        return Ok(events);
    }
    let first = output["results"].as_array().and_then(|results| results.first());
    Err(first.and_then(|result| fault::in_band(result, false)).unwrap_or_else(|| bug("the job made no picture")))
}

fn film(output: &Value, usage: &Value) -> Result<Event, Fault> {
    let url = output["video_url"].as_str().or(output["results"]["video_url"].as_str());
    let url = url.ok_or_else(|| bug("the job made no film"))?;
    let size = [&usage["video_ratio"], &usage["size"]].into_iter().find_map(|size| size.as_str());
    let mut members = Map::new();
    set(&mut members, "url", Some(url));
    set(&mut members, "seconds", usage["video_duration"].as_u64().or(usage["duration"].as_u64()));
    set(&mut members, "size", size.filter(|size| size.contains('*')).map(|size| size.replace('*', "x")));
    set(&mut members, "revised_prompt", output["actual_prompt"].as_str());
    Ok(other(VIDEO, members))
}

fn bug(message: &str) -> Fault {
    Fault::new(FaultClass::VendorBug, message)
}

/// "2025-12-07 19:29:27.629", which is China's time (UTC+8) in every region that was recorded, in milliseconds since 1970.
fn milliseconds(text: &str) -> Option<u64> {
    const HOURS_AHEAD: u64 = 8;
    let (date, time) = text.split_once(' ')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let numbers = |text: &str, between: char| -> Option<[u64; 3]> {
        let mut parts = text.split(between).map(str::parse);
        Some([parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?])
    };
    let ([year, month, day], [hour, minute, second]) = (numbers(date, '-')?, numbers(time, ':')?);
    let seconds = (days_to(year, month, day)? * 24 + hour) * 3600 + minute * 60 + second;
    let fraction: u64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    Some(seconds.checked_sub(HOURS_AHEAD * 3600)? * 1000 + fraction)
}

/// Days from 1970-01-01 to a date of this era (civil calendar, counted in years that begin in March).
fn days_to(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..10_000).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    days.checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_to_the_millisecond() {
        let cases = [
            ("1970-01-01 08:00:00.000", Some(0)),
            ("2025-12-07 19:29:27.629", Some(1_765_106_967_629)),
            ("2024-02-29 08:00:00", Some(1_709_164_800_000)),
            ("1970-01-01 00:00:00.000", None),
            ("2025-13-07 19:29:27.629", None),
            ("yesterday", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(milliseconds(text), expected, "{text}");
        }
    }

    #[test]
    fn a_job_without_a_picture_is_a_fault_with_its_code() {
        let body = json!({ "output": { "task_id": "t", "task_status": "SUCCEEDED",
            "results": [{ "code": "DataInspectionFailed", "message": "Output data may contain inappropriate content." }] } });
        let fault = decode_progress(Operation::Images, body.to_string().as_bytes()).unwrap_err();
        assert_eq!(fault.class, FaultClass::ContentFilter);
    }

    #[test]
    fn an_id_that_could_be_a_path_is_refused() {
        for id in ["", "../files", "a/b", "a?b"] {
            let body = json!({ "output": { "task_id": id, "task_status": "PENDING" } });
            let fault = decode_progress(Operation::Images, body.to_string().as_bytes()).unwrap_err();
            assert_eq!(fault.class, FaultClass::VendorBug, "{id}");
        }
    }
}
