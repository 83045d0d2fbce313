// SPDX-License-Identifier: Apache-2.0
//! The event grammar of a streamed answer as OpenAI's API keeps it, which is stricter than what the SDKs demand: every item
//! and part is added before it is filled and done after it, under its indices and ids, and ends repeat what deltas said.

use std::collections::BTreeMap;

use penstock_dialects::framing::{Frame, SseParser};
use serde_json::{Value, json};

/// What is wrong with a stream; nothing if it is well-formed.
pub(crate) fn complaint(stream: &[u8]) -> Option<String> {
    let (mut parser, mut checker, mut found) = (SseParser::new(64 << 20), Checker::default(), None);
    let mut check = |frame: Frame<'_>| {
        if found.is_none() {
            let place = checker.sequence;
            found = checker.event(&frame).err().map(|what| format!("event {place} ({}): {what}", frame.name));
        }
    };
    parser.feed(stream, &mut check).expect("frames of a usual size");
    if !parser.at_boundary() {
        return Some("the last event has no end".to_owned());
    }
    found.or_else(|| (!checker.over).then(|| "there is no last event".to_owned()))
}

#[derive(Default)]
struct Checker {
    sequence: u64,
    id: Value,
    /// Items that have been added; the value is whether they are done.
    items: BTreeMap<u64, Item>,
    over: bool,
}

#[derive(Default)]
struct Item {
    id: Value,
    kind: String,
    /// Parts of content and of summary, in order.
    parts: BTreeMap<(&'static str, u64), Part>,
    input: String,
    done: Option<Value>,
}

#[derive(Default)]
struct Part {
    text: String,
    annotations: u64,
    text_done: bool,
    done: Option<Value>,
}

type Check = Result<(), String>;

fn demand(condition: bool, what: &str) -> Check {
    if condition { Ok(()) } else { Err(what.to_owned()) }
}

impl Checker {
    fn event(&mut self, frame: &Frame<'_>) -> Check {
        let event: Value = serde_json::from_slice(frame.data).map_err(|error| error.to_string())?;
        demand(event["type"] == frame.name, "the name is not the type")?;
        demand(event["sequence_number"] == self.sequence, "not the next number")?;
        demand(!self.over, "something stands behind the last event")?;
        self.sequence += 1;
        match (frame.name, self.sequence) {
            ("response.created", 1) => {
                self.id = event["response"]["id"].clone();
                self.answer(&event["response"], "in_progress")
            }
            (_, 1) => Err("not the first event".to_owned()),
            ("response.in_progress", 2) => self.answer(&event["response"], "in_progress"),
            ("response.completed" | "response.incomplete", _) => {
                self.over = true;
                let open = self.items.values().find(|item| item.done.is_none());
                demand(open.is_none(), "an item is not done")?;
                let done: Vec<Value> = self.items.values().filter_map(|item| item.done.clone()).collect();
                demand(event["response"]["output"] == json!(done), "the output is not that of the items")?;
                self.answer(&event["response"], frame.name.trim_start_matches("response."))
            }
            ("response.output_item.added", _) => {
                let item = &event["item"];
                demand(event["output_index"] == self.items.len(), "not the next place")?;
                demand(item["id"].as_str().is_some_and(|id| !id.is_empty()), "no id")?;
                let kind = item["type"].as_str().ok_or("no type")?.to_owned();
                let added = Item { id: item["id"].clone(), kind, ..Item::default() };
                self.items.insert(self.items.len() as u64, added);
                Ok(())
            }
            (name, _) => {
                let place = event["output_index"].as_u64().ok_or("no place")?;
                let item = self.items.get_mut(&place).ok_or("an item that was not added")?;
                demand(item.done.is_none(), "the item is done")?;
                item.event(name, &event)
            }
        }
    }

    fn answer(&self, answer: &Value, status: &str) -> Check {
        demand(answer["object"] == "response" && answer["status"] == status, "not an answer of this status")?;
        demand(answer["id"] == self.id && self.id.as_str().is_some_and(|id| !id.is_empty()), "not the same id")?;
        demand(answer["created_at"].is_u64() && answer["model"].is_string(), "no date, or no model")?;
        demand(answer["output"].is_array() && answer["tools"].is_array(), "no lists")?;
        demand(answer["tool_choice"].is_string() || answer["tool_choice"].is_object(), "no choice of tools")?;
        demand(answer["parallel_tool_calls"].is_boolean(), "parallel_tool_calls")?;
        demand(status != "in_progress" || answer["output"] == json!([]), "output before there is any")?;
        demand(answer.get("error").is_some_and(Value::is_null), "an error, or none stated")
    }
}

impl Item {
    fn event(&mut self, name: &str, event: &Value) -> Check {
        if name == "response.output_item.done" {
            return self.done(&event["item"]);
        }
        demand(event["item_id"] == self.id, "not the id of the item")?;
        match (name, self.kind.as_str()) {
            ("response.function_call_arguments.delta", "function_call") => {
                self.input.push_str(event["delta"].as_str().ok_or("no delta")?);
                Ok(())
            }
            ("response.function_call_arguments.done", "function_call") => {
                demand(event["arguments"] == self.input, "arguments are not those of the deltas")
            }
            (name, "message") => self.part_event(name, "content_index", &["output_text", "refusal"], event),
            (name, "reasoning") if name.starts_with("response.reasoning_summary_") => self.part_event(
                &name.replace("reasoning_summary_part", "content_part"),
                "summary_index",
                &["reasoning_summary_text"],
                event,
            ),
            (name, "reasoning") => self.part_event(name, "content_index", &["reasoning_text"], event),
            (_, kind) => Err(format!("not for a {kind}")),
        }
    }

    fn part_event(&mut self, name: &str, index_name: &'static str, kinds: &[&str], event: &Value) -> Check {
        let index = event[index_name].as_u64().ok_or("no index of the part")?;
        let key = (index_name, index);
        if name == "response.content_part.added" {
            let open = self.parts.values().any(|part| part.done.is_none());
            demand(index == self.parts.len() as u64 && !open, "not the next part")?;
            let text = event["part"].get("text").or(event["part"].get("refusal"));
            demand(text == Some(&json!("")), "a part does not begin empty")?;
            self.parts.insert(key, Part::default());
            return Ok(());
        }
        let part = self.parts.get_mut(&key).ok_or("a part that was not added")?;
        demand(part.done.is_none(), "the part is done")?;
        if name == "response.content_part.done" {
            demand(part.text_done, "the text of the part is not done")?;
            let stated = event["part"].get("text").or(event["part"].get("refusal")).cloned();
            demand(stated == Some(json!(part.text)), "the part is not what its deltas said")?;
            part.done = Some(event["part"].clone());
            return Ok(());
        }
        if name == "response.output_text.annotation.added" {
            demand(event["annotation_index"] == part.annotations && event["annotation"].is_object(), "no annotation")?;
            part.annotations += 1;
            return Ok(());
        }
        let (kind, what) = name.trim_start_matches("response.").rsplit_once('.').ok_or("no kind")?;
        demand(kinds.contains(&kind) && !part.text_done, "not for this part")?;
        demand(kind != "output_text" || event["logprobs"].is_array(), "no logprobs")?;
        match what {
            "delta" => part.text.push_str(event["delta"].as_str().ok_or("no delta")?),
            "done" => {
                part.text_done = true;
                let stated = event.get("text").or(event.get("refusal")).cloned();
                demand(stated == Some(json!(part.text)), "the text is not that of the deltas")?;
            }
            _ => return Err("neither delta nor done".to_owned()),
        }
        Ok(())
    }

    fn done(&mut self, item: &Value) -> Check {
        demand(item["type"] == self.kind.as_str() && item["id"] == self.id, "not the item that was added")?;
        let parts: Option<Vec<Value>> = self.parts.values().map(|part| part.done.clone()).collect();
        let parts = parts.ok_or("a part is not done")?;
        match self.kind.as_str() {
            "message" => {
                demand(item["content"] == json!(parts), "the content is not that of the parts")?;
                demand(item["role"] == "assistant" && item["status"].is_string(), "no role, or no status")?;
            }
            "function_call" => {
                demand(item["arguments"] == self.input, "the arguments are not those of the deltas")?;
                demand(item["call_id"].as_str().is_some_and(|id| !id.is_empty()), "no call_id")?;
            }
            "reasoning" => {
                let lists = [&item["content"], &item["summary"]];
                let stated: Vec<Value> = lists.iter().filter_map(|list| list.as_array()).flatten().cloned().collect();
                demand(item["summary"].is_array() && stated == parts, "the thoughts are not those of the parts")?;
            }
            _ => {}
        }
        self.done = Some(item.clone());
        Ok(())
    }
}
