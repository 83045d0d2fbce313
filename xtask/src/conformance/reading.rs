// SPDX-License-Identifier: Apache-2.0
//! Compares what a codec reads in an answer with what is expected of it. The expectation speaks in its own words
//! (tools/refdec.py beside the recordings); this module translates ours into those, never the other way round.

use penstock_dialects::codec::Codec;
use penstock_dialects::collect::Collector;
use penstock_dialects::framing::Frame;
use penstock_dialects::ir::{Content, Event, Response, Usage};
use serde_json::{Value, json};

use super::case::Case;
use super::reader::Reader;
use super::{Failure, splits};

/// Decodes the answer and compares it; a stream through its tap, too.
pub(super) fn check(case: &Case, reader: Reader) -> Vec<Failure> {
    let mut failures = Vec::new();
    let response = match case.streamed {
        true => read_stream(case, reader, &mut failures),
        false => read_whole(case, reader, &mut failures),
    };
    match response {
        Ok(response) => {
            let compared = compare(&response, &case.expected).into_iter();
            failures.extend(compared.map(|failure| match failure.check {
                "finish" if response.finish.is_none() && is_unterminated(case) => {
                    Failure::meant("finish", "the recording ends before `[DONE]`: it counts as cut")
                }
                _ => failure,
            }));
        }
        Err(failure) => failures.push(failure),
    }
    failures
}

/// Whether a stream of Chat Completions lacks its last event.
pub(super) fn is_unterminated(case: &Case) -> bool {
    let has = |word: &[u8]| case.body.windows(word.len()).any(|window| window == word);
    case.streamed && has(b"chat.completion.chunk") && !has(b"[DONE]")
}

fn read_whole(case: &Case, reader: Reader, failures: &mut Vec<Failure>) -> Result<Response, Failure> {
    let events = match reader.decode_response(&case.body) {
        Ok(events) => events,
        Err(fault) if !case.expected["error"].is_null() => vec![Event::Fault(fault)],
        Err(fault) => return Err(Failure::new("decode", format!("{}: {}", fault.class.name(), fault.message))),
    };
    let response = fold(&events);
    if let Some(codec) = reader.codec() {
        same_usage(codec.whole_usage(&case.body).as_ref(), &response, failures);
    }
    Ok(response)
}

fn read_stream(case: &Case, reader: Reader, failures: &mut Vec<Failure>) -> Result<Response, Failure> {
    let kind = reader.kind(&case.body);
    let frames = splits::frames_of(kind, &[&case.body]).map_err(|reason| Failure::new("framing", reason))?;
    let mut read = Response::default();
    for answer in answers(&frames) {
        let response = fold(&splits::events(reader, answer));
        if let Some(codec) = reader.codec() {
            tap(codec, answer, &response, failures);
        }
        read = lay_over(read, response);
    }
    Ok(read)
}

fn fold(events: &[Event]) -> Response {
    let mut collector = Collector::default();
    for event in events {
        collector.event(event);
    }
    collector.finish()
}

/// The answers in a recording: one, unless the recorder has put the streams of several requests into one file.
fn answers(frames: &[(String, Vec<u8>)]) -> impl Iterator<Item = &[(String, Vec<u8>)]> {
    frames.chunk_by(|_, (name, _)| name != "message_start")
}

/// How the expectation reads several answers in one file: by index, the blocks of the later one replace those of the
/// earlier one, and everything else is the later one's.
fn lay_over(earlier: Response, mut later: Response) -> Response {
    later.blocks.extend(earlier.blocks.into_iter().skip(later.blocks.len()));
    later
}

/// Watches the stream as the relay does: usage, completeness and errors must be what decoding finds.
fn tap(codec: &'static dyn Codec, frames: &[(String, Vec<u8>)], response: &Response, failures: &mut Vec<Failure>) {
    let mut tap = codec.tap();
    for (name, data) in frames {
        tap.frame(&Frame { name, data });
    }
    let finished = response.finish.is_some();
    if tap.complete() != finished && response.fault.is_none() {
        failures.push(Failure::new("tap", format!("complete: {}, decoded: {finished}", tap.complete())));
    }
    let (tapped, decoded) = (tap.fault(), response.fault.as_ref());
    if tapped.as_ref().map(|it| it.class) != decoded.map(|it| it.class) {
        failures.push(Failure::new("tap", format!("fault {tapped:?}, decoded {decoded:?}")));
    }
    same_usage(tap.usage().as_ref(), response, failures);
}

fn same_usage(tapped: Option<&Usage>, response: &Response, failures: &mut Vec<Failure>) {
    if tapped.map(numbers) != response.usage.as_ref().map(numbers) {
        failures.push(Failure::new("tap", format!("usage {tapped:?}, decoded {:?}", response.usage)));
    }
}

fn numbers(usage: &Usage) -> [u64; 5] {
    [usage.input, usage.cache_read, usage.cache_write, usage.output, usage.reasoning]
}

fn compare(response: &Response, expected: &Value) -> Vec<Failure> {
    let (mut failures, mut meant) = (Vec::new(), Vec::new());
    let mut same = |check: &'static str, found: Value, expected: &Value| {
        if found != *expected {
            failures.push(Failure::new(check, format!("expected {}, found {}", short(expected), short(&found))));
        }
    };
    same("text", json!(text(response)), &expected["text"]);
    same("reasoning", json!(reasoning(response)), &expected["reasoning"]);
    let (found, wanted) = (calls(response), canonical_calls(&expected["tool_calls"]));
    let in_pieces = pieces_joined(&wanted);
    if in_pieces != wanted && names(&found) == names(&in_pieces) {
        let reason =
            "the oracle takes the pieces of streamed arguments for calls without a name; here they are one call";
        meant.push(Failure::meant("tool calls", reason));
    } else {
        same("tool calls", found, &wanted);
    }
    same("error", json!(response.fault.is_some()), &json!(!expected["error"].is_null()));
    if response.fault.is_none() {
        same("finish", finish(response), &expected["finish"]);
    }
    if let Some(model) = expected["model"].as_str().filter(|model| !model.is_empty()) {
        same("model", json!(response.model), &json!(model));
    }
    if !expected["thinking_blocks"].is_null() {
        same("thinking blocks", thinking_blocks(response), &expected["thinking_blocks"]);
    }
    failures.extend(meant);
    failures.extend(usage(response.usage.as_ref(), &expected["usage"], response.fault.is_some()));
    failures
}

/// The calls that have a name.
fn pieces_joined(calls: &Value) -> Value {
    calls.as_array().into_iter().flatten().filter(|call| !call["name"].is_null()).cloned().collect()
}

fn names(calls: &Value) -> Vec<&Value> {
    calls.as_array().into_iter().flatten().map(|call| &call["name"]).collect()
}

fn text(response: &Response) -> String {
    let blocks = response.blocks.iter().filter_map(|block| match &block.content {
        Content::Text { text, .. } => Some(text.as_str()),
        _ => None,
    });
    blocks.collect()
}

fn reasoning(response: &Response) -> String {
    let blocks = response.blocks.iter().filter_map(|block| match &block.content {
        Content::Reasoning { text, .. } => Some(text.as_str()),
        _ => None,
    });
    blocks.collect()
}

fn calls(response: &Response) -> Value {
    let calls = response.blocks.iter().filter_map(|block| match &block.content {
        Content::ToolUse { id, name, input } => {
            let id = if id.is_empty() { Value::Null } else { json!(id) };
            Some(json!({"id": id, "name": name, "arguments": arguments(input)}))
        }
        _ => None,
    });
    calls.collect()
}

/// The expectation leaves an absent id out or states it as null or as empty.
fn canonical_calls(expected: &Value) -> Value {
    let calls = expected.as_array().map(Vec::as_slice).unwrap_or_default().iter().map(|call| {
        let id = call["id"].as_str().filter(|id| !id.is_empty());
        json!({"id": id, "name": call["name"], "arguments": call["arguments"]})
    });
    calls.collect()
}

/// Arguments as JSON; text that is none is kept under `$raw`, as the expectation does.
fn arguments(input: &str) -> Value {
    match input {
        "" => json!({}),
        _ => serde_json::from_str(input).unwrap_or_else(|_| json!({"$raw": input})),
    }
}

fn finish(response: &Response) -> Value {
    let Some(finish) = &response.finish else { return Value::Null };
    match finish.reason.as_str() {
        "stop" | "stop_sequence" => json!("stop"),
        "content_filter" | "refusal" => json!("content_filter"),
        known @ ("length" | "tool_calls" | "pause" | "error") => json!(known),
        _ => json!("other"),
    }
}

fn thinking_blocks(response: &Response) -> Value {
    let blocks = response.blocks.iter().filter_map(|block| {
        let (kind, seal) = match &block.content {
            Content::Reasoning { signature, .. } => ("thinking", signature.as_deref().unwrap_or_default()),
            Content::Redacted { data } => ("redacted_thinking", data.as_str()),
            _ => return None,
        };
        let has_signature = kind == "thinking" && !seal.is_empty();
        Some(json!({"type": kind, "has_signature": has_signature, "signature_len": seal.len()}))
    });
    blocks.collect()
}

/// Tokens; what the expectation does not state must be zero or unstated here.
///
/// The canonical form counts in disjoint buckets, so the numbers of a vendor that contradict themselves are read in the one
/// way that keeps its totals: cached input tokens that are more than all input stand beside it, and reasoning tokens that
/// are more than all output are at most all of it.
fn usage(found: Option<&Usage>, expected: &Value, failed: bool) -> Vec<Failure> {
    if expected.is_null() && failed && found.is_some() {
        let reason = "the oracle reads no usage beside an error; here it is counted, since it is charged";
        return vec![Failure::meant("usage", reason)];
    }
    let stated = |name: &str| expected[name].as_u64().unwrap_or_default();
    let (cached, reasoning) = (stated("input_cached"), stated("reasoning"));
    let beside = cached > stated("input_total");
    let capped = reasoning > stated("output_total");
    let zero = Usage::default();
    let usage = found.unwrap_or(&zero);
    let rows = [
        ("input_total", usage.input_total(), stated("input_total") + if beside { cached } else { 0 }),
        ("input_cached", usage.cache_read, cached),
        ("cache_write", usage.cache_write + usage.more_of("cache-write-"), stated("cache_write")),
        ("output_total", usage.output_total(), stated("output_total")),
        ("reasoning", usage.reasoning, if capped { stated("output_total") } else { reasoning }),
    ];
    // A vendor that counts media beside its tokens: the oracle reads the tokens, and the media are charged.
    let apart = usage.more_of("input-");
    let is_apart =
        |name: &str, found: u64, expected: u64| name == "input_total" && apart > 0 && found == expected + apart;
    let wrong = rows.iter().filter(|(name, found, wanted)| found != wanted && !is_apart(name, *found, *wanted));
    let mut failures: Vec<_> = wrong
        .map(|(name, found, expected)| Failure::new("usage", format!("{name}: expected {expected}, found {found}")))
        .collect();
    if rows.iter().any(|(name, found, wanted)| is_apart(name, *found, *wanted)) {
        let reason =
            format!("the vendor states {apart} tokens of media beside its input tokens: they are counted, too");
        failures.push(Failure::meant("usage", reason));
    }
    if beside {
        let input = stated("input_total");
        let reason = format!("the vendor states {cached} cached of {input} input tokens: counted beside them");
        failures.push(Failure::meant("usage", reason));
    }
    if capped {
        let output = stated("output_total");
        let reason = format!("the vendor states {reasoning} reasoning of {output} output tokens: counted as {output}");
        failures.push(Failure::meant("usage", reason));
    }
    failures
}

/// A value cut to what fits on a line.
fn short(value: &Value) -> String {
    const CHARACTERS_MAX: usize = 160;
    let text = value.to_string();
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((at, _)) => format!("{}… ({} bytes)", &text[..at], text.len()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use penstock_dialects::ir::{Block, Finish};

    fn sample() -> Response {
        let block = |content| Block { content, ..Block::default() };
        Response {
            model: "m".into(),
            blocks: vec![
                block(Content::Reasoning { text: "r".into(), signature: Some("seal".into()) }),
                block(Content::Text { text: "a".into(), citations: Vec::new() }),
                block(Content::Text { text: "b".into(), citations: Vec::new() }),
                block(Content::ToolUse { id: "1".into(), name: "t".into(), input: "{\"x\":1}".into() }),
            ],
            finish: Some(Finish { reason: "stop_sequence".into(), sequence: None }),
            usage: Some(Usage { input: 5, cache_read: 2, output: 3, reasoning: 1, ..Usage::default() }),
            ..Response::default()
        }
    }

    fn expectation() -> Value {
        json!({
            "text": "ab", "reasoning": "r", "finish": "stop", "model": "m", "error": null,
            "tool_calls": [{"id": "1", "name": "t", "arguments": {"x": 1}}],
            "thinking_blocks": [{"type": "thinking", "has_signature": true, "signature_len": 4}],
            "usage": {"input_total": 7, "input_cached": 2, "cache_write": null, "output_total": 4, "reasoning": 1},
        })
    }

    #[test]
    fn what_is_as_expected_passes() {
        assert_eq!(compare(&sample(), &expectation()), []);
    }

    #[test]
    fn numbers_that_contradict_themselves_are_noted_and_compared_all_the_same() {
        let expected = json!({"input_total": 7, "input_cached": 161, "output_total": 2, "reasoning": 25});
        let read = Usage { input: 7, cache_read: 161, reasoning: 2, ..Usage::default() };
        let failures = usage(Some(&read), &expected, false);
        assert!(failures.len() == 2 && failures.iter().all(|failure| failure.meant), "{failures:?}");
        let wrong = usage(Some(&Usage { output: 1, ..read }), &expected, false);
        assert!(wrong.iter().any(|failure| !failure.meant));
    }

    #[test]
    fn every_difference_is_found() {
        let changes = [
            ("text", json!("abc"), "text"),
            ("reasoning", json!(""), "reasoning"),
            ("finish", json!("length"), "finish"),
            ("finish", Value::Null, "finish"),
            ("model", json!("n"), "model"),
            ("error", json!({"message": "x"}), "error"),
            ("tool_calls", json!([]), "tool calls"),
            ("tool_calls", json!([{"id": "2", "name": "t", "arguments": {"x": 1}}]), "tool calls"),
            ("thinking_blocks", json!([]), "thinking blocks"),
            ("usage", json!({"input_total": 8, "input_cached": 2, "output_total": 4, "reasoning": 1}), "usage"),
            ("usage", Value::Null, "usage"),
        ];
        for (name, value, check) in changes {
            let mut expected = expectation();
            expected[name] = value;
            let failures = compare(&sample(), &expected);
            assert!(failures.iter().any(|failure| failure.check == check), "{name}: {failures:?}");
        }
    }
}
