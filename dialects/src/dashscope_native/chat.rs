// SPDX-License-Identifier: Apache-2.0
//! Writes a conversation, and tells what of it the API has no place for.

use serde_json::{Map, Value, json};

use super::messages::Turns;
use super::{Asked, MULTIMODAL_GENERATION, TEXT_GENERATION, extend, set};
use crate::ir::{Block, Content, Format, Reasoning, Request, Tool, ToolChoice};

/// How a conversation is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Style {
    /// For the multimodal service, whose content is always a list of parts.
    pub multimodal: bool,
    /// The answer is to be streamed; the header `x-dashscope-sse: enable` says so, too.
    pub streaming: bool,
    /// Cache marks (`cache_control`) are understood.
    pub cache_marks: bool,
}

/// Members that the vendor's OpenAI-compatible API takes beside OpenAI's own, and this one under the same name.
const SHARED: &[&str] = &[
    "enable_code_interpreter",
    "enable_search",
    "logprobs",
    "max_input_tokens",
    "presence_penalty",
    "repetition_penalty",
    "search_options",
    "tool_stream",
    "top_logprobs",
    "vl_high_resolution_images",
];

/// Members that have become [`Request::reasoning`].
const UNDERSTOOD: &[&str] = &["enable_thinking", "thinking_budget", "thinking", "reasoning"];

/// Writes a request.
#[must_use]
pub fn encode_request(request: &Request, style: Style) -> Asked {
    let mut dropped = Vec::new();
    let messages = Turns { style, dropped: &mut dropped }.write(request);
    let mut parameters = Map::new();
    set(&mut parameters, "result_format", Some("message"));
    if style.streaming {
        set(&mut parameters, "incremental_output", Some(true));
    }
    sampling(request, &mut parameters, &mut dropped);
    tools(request, &mut parameters, &mut dropped);
    thinking(request, style, &mut parameters, &mut dropped);
    extend(&mut parameters, &request.extensions, SHARED, UNDERSTOOD, &mut dropped);
    let body = json!({ "model": request.model, "input": { "messages": messages }, "parameters": parameters });
    let path = if style.multimodal { MULTIMODAL_GENERATION } else { TEXT_GENERATION };
    Asked { path, body: body.to_string().into_bytes(), dropped }
}

/// Whether a request shows the model something, so that only the multimodal service can take it.
#[must_use]
pub fn holds_media(request: &Request) -> bool {
    fn shown(blocks: &[Block]) -> bool {
        blocks.iter().any(|block| match &block.content {
            Content::Media { kind, .. } => kind != "document",
            Content::ToolResult { blocks, .. } => shown(blocks),
            _ => false,
        })
    }
    shown(&request.system) || request.messages.iter().any(|message| shown(&message.blocks))
}

/// Whether a request asks for thoughts; none if it does not care. Models think in streams only (the API wants
/// `enable_thinking` to be false otherwise), so whoever asks for thoughts must be answered from a stream.
#[must_use]
pub fn wants_thoughts(request: &Request) -> Option<bool> {
    let Reasoning { enabled, effort, budget_tokens } = request.reasoning.as_ref()?;
    match (enabled, effort.as_deref()) {
        (Some(enabled), _) => Some(*enabled),
        (None, Some(effort)) => Some(effort != "none"),
        (None, None) => budget_tokens.map(|budget| budget > 0),
    }
}

fn sampling(request: &Request, parameters: &mut Map<String, Value>, dropped: &mut Vec<String>) {
    set(parameters, "max_tokens", request.output_tokens_max);
    set(parameters, "temperature", request.temperature);
    set(parameters, "top_p", request.top_p);
    set(parameters, "top_k", request.top_k);
    set(parameters, "seed", request.seed);
    if !request.stop.is_empty() {
        set(parameters, "stop", Some(request.stop.clone()));
    }
    set(parameters, "response_format", request.format.as_ref().map(response_format));
    if request.user.is_some() {
        dropped.push("user".to_owned());
    }
}

fn response_format(format: &Format) -> Value {
    match format {
        Format::Json => json!({ "type": "json_object" }),
        Format::Schema { name, description, schema, strict } => {
            let mut stated = Map::new();
            set(&mut stated, "name", Some(name.as_deref().unwrap_or("answer")));
            set(&mut stated, "description", description.as_deref());
            set(&mut stated, "schema", Some(schema.clone()));
            set(&mut stated, "strict", *strict);
            json!({ "type": "json_schema", "json_schema": stated })
        }
    }
}

fn tools(request: &Request, parameters: &mut Map<String, Value>, dropped: &mut Vec<String>) {
    let numbered = request.tools.iter().enumerate();
    let tools: Vec<Value> =
        numbered.filter_map(|(index, tool)| self::tool(tool, &format!("tools[{index}]"), dropped)).collect();
    let choice = match (&request.tool_choice, tools.as_slice()) {
        (None, _) | (_, []) => None,
        (Some(ToolChoice::Auto), _) => Some(json!("auto")),
        (Some(ToolChoice::None), _) => Some(json!("none")),
        (Some(ToolChoice::Tool(name)), _) => Some(named(name)),
        // The API cannot demand just any tool, but this one.
        (Some(ToolChoice::Required), [only]) => only["function"]["name"].as_str().map(named),
        (Some(ToolChoice::Required), _) => {
            dropped.push("tool_choice".to_owned());
            None
        }
    };
    if !tools.is_empty() {
        set(parameters, "tools", Some(tools));
        set(parameters, "parallel_tool_calls", request.parallel_tools);
    }
    set(parameters, "tool_choice", choice);
}

fn named(tool: &str) -> Value {
    json!({ "type": "function", "function": { "name": tool } })
}

fn tool(tool: &Tool, path: &str, dropped: &mut Vec<String>) -> Option<Value> {
    match &tool.opaque {
        Some((dialect, json)) if dialect == super::NAME => return Some(json.clone()),
        Some(_) => {
            dropped.push(path.to_owned());
            return None;
        }
        None => {}
    }
    for (said, member) in [(tool.strict == Some(true), "strict"), (tool.cache.is_some(), "cache")] {
        if said {
            dropped.push(format!("{path}.{member}"));
        }
    }
    let mut function = Map::new();
    set(&mut function, "name", Some(tool.name.as_str()));
    set(&mut function, "description", tool.description.as_deref());
    if !tool.parameters.is_null() {
        set(&mut function, "parameters", Some(tool.parameters.clone()));
    }
    Some(json!({ "type": "function", "function": function }))
}

/// `enable_thinking` is said where the caller says something, and to Qwen3 models in a whole answer: they think unless
/// they are told not to, and are refused if they do so outside a stream.
fn thinking(request: &Request, style: Style, parameters: &mut Map<String, Value>, dropped: &mut Vec<String>) {
    let wanted = wants_thoughts(request);
    let enabled = match wanted {
        // A whole answer that was to have thoughts: the caller has decided not to stream.
        Some(true) if !style.streaming => {
            dropped.push("reasoning".to_owned());
            Some(false)
        }
        None if !style.streaming && request.model.starts_with("qwen3") => Some(false),
        wanted => wanted,
    };
    set(parameters, "enable_thinking", enabled);
    if enabled == Some(true) {
        set(parameters, "thinking_budget", request.reasoning.as_ref().and_then(budget));
    }
}

/// The ceiling of thoughts that comes nearest to an effort; none for the model's own.
fn budget(stated: &Reasoning) -> Option<u64> {
    stated.budget_tokens.or(match stated.effort.as_deref()? {
        "minimal" => Some(512),
        "low" => Some(2048),
        "medium" => Some(8192),
        _ => None,
    })
}
