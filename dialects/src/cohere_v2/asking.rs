// SPDX-License-Identifier: Apache-2.0
//! Writes a request to a vendor, and tells what of it this dialect has no place for.

use serde_json::{Map, Value, json};

use super::{NAME, turns};
use crate::ir::{Format, Reasoning, Request, Tool, ToolChoice};
use crate::openai_chat::number;

/// Most stop sequences that the API takes.
const STOP_SEQUENCES_MAX: usize = 5;

/// Range of `p`.
const P_MIN: f64 = 0.01;
const P_MAX: f64 = 0.99;

/// Whether a value is one that the API takes.
type Fits = fn(&Value) -> bool;

/// Members that other dialects call by the same name, and what of them this one takes.
const SHARED: &[(&str, Fits)] =
    &[("frequency_penalty", is_fraction), ("presence_penalty", is_fraction), ("logprobs", Value::is_boolean)];

/// Writes a request, and the paths of what it leaves out.
pub(super) fn encode(request: &Request) -> (Vec<u8>, Vec<String>) {
    let mut dropped = Vec::new();
    let mut body = Map::new();
    let turns::Turns { messages, documents } = turns::write(request, &mut dropped);
    body.insert("model".to_owned(), json!(request.model));
    body.insert("messages".to_owned(), Value::from(messages));
    if !documents.is_empty() {
        body.insert("documents".to_owned(), Value::from(documents));
    }
    tools(request, &mut body, &mut dropped);
    sampling(request, &mut body, &mut dropped);
    set(&mut body, "response_format", request.format.as_ref().map(format));
    set(&mut body, "thinking", request.reasoning.as_ref().and_then(thinking));
    if request.streaming {
        body.insert("stream".to_owned(), json!(true));
    }
    extensions(request, &mut body, &mut dropped);
    (Value::Object(body).to_string().into_bytes(), dropped)
}

fn set(body: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        body.insert(name.to_owned(), value.into());
    }
}

fn tools(request: &Request, body: &mut Map<String, Value>, dropped: &mut Vec<String>) {
    // There is no choice of one tool; offering it alone, and requiring a call, is the same.
    let only = match &request.tool_choice {
        Some(ToolChoice::Tool(name)) if request.tools.iter().any(|tool| tool.name == *name) => Some(name),
        _ => None,
    };
    let (mut written, mut strict) = (Vec::new(), Vec::new());
    for (index, tool) in request.tools.iter().enumerate() {
        if only.is_some_and(|only| *only != tool.name) {
            continue;
        }
        match wire_tool(tool) {
            Some(wire) => written.push(wire),
            None => dropped.push(format!("tools[{index}]")),
        }
        if tool.cache.is_some() {
            dropped.push(format!("tools[{index}].cache"));
        }
        strict.extend(tool.strict.map(|strict| (index, strict)));
    }
    if !written.is_empty() {
        // One switch for all tools: on if it is on for each, off if it is off for each that says something.
        match strict.first() {
            Some((_, true)) if strict.len() == written.len() && strict.iter().all(|(_, strict)| *strict) => {
                body.insert("strict_tools".to_owned(), json!(true));
            }
            Some(_) if strict.iter().all(|(_, strict)| !strict) => {
                body.insert("strict_tools".to_owned(), json!(false));
            }
            _ => dropped.extend(strict.iter().map(|(index, _)| format!("tools[{index}].strict"))),
        }
        body.insert("tools".to_owned(), Value::from(written));
    }
    match &request.tool_choice {
        None | Some(ToolChoice::Auto) => {}
        Some(ToolChoice::None) => set(body, "tool_choice", Some("NONE")),
        Some(ToolChoice::Required) => set(body, "tool_choice", Some("REQUIRED")),
        Some(ToolChoice::Tool(_)) if only.is_some() => set(body, "tool_choice", Some("REQUIRED")),
        Some(ToolChoice::Tool(_)) => dropped.push("tool_choice".to_owned()),
    }
    if request.parallel_tools == Some(false) {
        dropped.push("parallel_tools".to_owned());
    }
}

fn wire_tool(tool: &Tool) -> Option<Value> {
    if let Some((dialect, json)) = &tool.opaque {
        return (dialect == NAME).then(|| json.clone());
    }
    let mut function = Map::new();
    function.insert("name".to_owned(), json!(tool.name));
    set(&mut function, "description", tool.description.as_deref());
    // Required, also of a tool that takes nothing.
    let parameters =
        if tool.parameters.is_null() { json!({ "type": "object", "properties": {} }) } else { tool.parameters.clone() };
    function.insert("parameters".to_owned(), parameters);
    Some(json!({ "type": "function", "function": function }))
}

fn sampling(request: &Request, body: &mut Map<String, Value>, dropped: &mut Vec<String>) {
    set(body, "max_tokens", request.output_tokens_max);
    set(body, "temperature", request.temperature.map(number));
    set(body, "p", request.top_p.map(|p| number(p.clamp(P_MIN, P_MAX))));
    set(body, "k", request.top_k);
    set(body, "seed", request.seed);
    if !request.stop.is_empty() {
        let (stop, beyond) = request.stop.split_at(request.stop.len().min(STOP_SEQUENCES_MAX));
        body.insert("stop_sequences".to_owned(), json!(stop));
        dropped.extend((stop.len()..).zip(beyond).map(|(index, _)| format!("stop[{index}]")));
    }
    if request.user.is_some() {
        dropped.push("user".to_owned());
    }
}

fn format(format: &Format) -> Value {
    match format {
        Format::Json => json!({ "type": "json_object" }),
        Format::Schema { schema, .. } => json!({ "type": "json_object", "json_schema": schema }),
    }
}

fn thinking(stated: &Reasoning) -> Option<Value> {
    let effort = stated.effort.as_deref();
    if stated.enabled == Some(false) || effort == Some("none") {
        return Some(json!({ "type": "disabled" }));
    }
    let budget = stated.budget_tokens.filter(|budget| *budget > 0).or_else(|| effort.and_then(budget_tokens));
    match (budget, stated.enabled, effort) {
        (Some(budget), ..) => Some(json!({ "type": "enabled", "token_budget": budget })),
        (None, None, None) => None,
        (None, ..) => Some(json!({ "type": "enabled" })),
    }
}

/// Thinking tokens for an effort; none for as many as the model likes.
fn budget_tokens(effort: &str) -> Option<u64> {
    match effort {
        "minimal" => Some(1024),
        "low" => Some(2048),
        "medium" => Some(8192),
        _ => None,
    }
}

fn extensions(request: &Request, body: &mut Map<String, Value>, dropped: &mut Vec<String>) {
    for (dialect, members) in &request.extensions {
        for (name, value) in members {
            let shared = || SHARED.iter().any(|(known, fits)| known == name && fits(value));
            match (dialect == NAME, body.get_mut(name)) {
                (true, Some(Value::Array(own))) => own.extend(value.as_array().cloned().unwrap_or_default()),
                (true, _) => {
                    body.insert(name.clone(), value.clone());
                }
                (false, None) if shared() => {
                    body.insert(name.clone(), value.clone());
                }
                (false, _) => dropped.push(name.clone()),
            }
        }
    }
}

fn is_fraction(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| (0.0..=1.0).contains(&number))
}
