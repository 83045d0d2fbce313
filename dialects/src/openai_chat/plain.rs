// SPDX-License-Identifier: Apache-2.0
//! Reads the plainest chunk of a stream, which is nearly every chunk: one choice with more text or more reasoning and
//! nothing else that matters. It builds no tree; whatever is not plain is left to [`super::reading`].

use serde::Deserialize;
use serde_json::value::RawValue;

/// What a plain chunk says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plain {
    pub(super) text: Option<String>,
    pub(super) reasoning: Option<String>,
}

/// Reads a chunk; none if it is not plain.
pub(super) fn read(data: &[u8]) -> Option<Plain> {
    let chunk: Chunk<'_> = serde_json::from_slice(data).ok()?;
    let [choice] = <[Choice<'_>; 1]>::try_from(chunk.choices).ok()?;
    let delta = choice.delta?;
    let absent = [
        chunk.error,
        chunk.usage,
        chunk.x_groq,
        chunk.base_resp,
        choice.finish_reason,
        choice.usage,
        choice.error,
        choice.logprobs,
        delta.refusal,
        delta.tool_calls,
        delta.function_call,
        delta.extra_content,
        delta.reasoning_details,
        delta.annotations,
        delta.audio,
        delta.images,
    ];
    let is_plain = choice.index.unwrap_or_default() == 0 && absent.into_iter().all(is_nothing);
    let reasoning = delta.reasoning_content.or(delta.reasoning).filter(|text| !text.is_empty());
    let text = delta.content.filter(|text| !text.is_empty());
    is_plain.then_some(Plain { text, reasoning })
}

fn is_nothing(raw: Option<&RawValue>) -> bool {
    raw.is_none_or(|raw| matches!(raw.get(), "\"\"" | "[]"))
}

#[derive(Deserialize)]
struct Chunk<'c> {
    #[serde(borrow)]
    choices: Vec<Choice<'c>>,
    #[serde(borrow)]
    error: Option<&'c RawValue>,
    #[serde(borrow)]
    usage: Option<&'c RawValue>,
    #[serde(borrow)]
    x_groq: Option<&'c RawValue>,
    #[serde(borrow)]
    base_resp: Option<&'c RawValue>,
}

#[derive(Deserialize)]
struct Choice<'c> {
    index: Option<u64>,
    #[serde(borrow)]
    delta: Option<Delta<'c>>,
    #[serde(borrow)]
    finish_reason: Option<&'c RawValue>,
    #[serde(borrow)]
    usage: Option<&'c RawValue>,
    #[serde(borrow)]
    error: Option<&'c RawValue>,
    #[serde(borrow)]
    logprobs: Option<&'c RawValue>,
}

#[derive(Deserialize)]
struct Delta<'c> {
    content: Option<String>,
    reasoning_content: Option<String>,
    reasoning: Option<String>,
    #[serde(borrow)]
    refusal: Option<&'c RawValue>,
    #[serde(borrow)]
    tool_calls: Option<&'c RawValue>,
    #[serde(borrow)]
    function_call: Option<&'c RawValue>,
    #[serde(borrow)]
    extra_content: Option<&'c RawValue>,
    #[serde(borrow)]
    reasoning_details: Option<&'c RawValue>,
    #[serde(borrow)]
    annotations: Option<&'c RawValue>,
    #[serde(borrow)]
    audio: Option<&'c RawValue>,
    #[serde(borrow)]
    images: Option<&'c RawValue>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_chunks_are_plain() {
        let plain = |text: Option<&str>, reasoning: Option<&str>| {
            Some(Plain { text: text.map(str::to_owned), reasoning: reasoning.map(str::to_owned) })
        };
        let cases = [
            (
                r#"{"choices":[{"index":0,"delta":{"content":"a\n"},"finish_reason":null}],"usage":null}"#,
                plain(Some("a\n"), None),
            ),
            (
                r#"{"choices":[{"delta":{"role":"assistant","content":"","reasoning":"r","tool_calls":[]}}]}"#,
                plain(None, Some("r")),
            ),
            (r#"{"choices":[{"index":1,"delta":{"content":"a"}}]}"#, None),
            (r#"{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}"#, None),
            (r#"{"choices":[{"index":0,"delta":{"content":[{"type":"text","text":"a"}]}}]}"#, None),
            (r#"{"choices":[{"index":0,"delta":{"content":"a"}}],"usage":{"prompt_tokens":1}}"#, None),
            (r#"{"choices":[{"index":0,"delta":{"content":"a"}}],"error":{"message":"x"}}"#, None),
            (r#"{"choices":[]}"#, None),
            (r#"{"choices":[{"delta":{"tool_calls":[{}]}}]}"#, None),
        ];
        for (chunk, expected) in cases {
            assert_eq!(read(chunk.as_bytes()), expected, "{chunk}");
        }
    }
}
