// SPDX-License-Identifier: Apache-2.0
//! Answers: those of Converse, and Claude's own in the frames of `InvokeModelWithResponseStream`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use penstock_sdk::dialect::DialectExchange;
use penstock_sdk::dialects::anthropic_messages::AnthropicMessages;
use penstock_sdk::dialects::bedrock_converse::{BedrockConverse, ToolNames};
use penstock_sdk::prelude::{Answer, Event, Exchange, Fault, FaultClass, Frame, Upstream};
use serde_json::Value;

/// One call.
#[derive(Debug)]
pub enum BedrockExchange {
    /// An answer of Converse, and the names of tools that it admits no other way.
    Converse(DialectExchange<BedrockConverse>, ToolNames),
    /// An answer of Claude.
    Claude(DialectExchange<AnthropicMessages>),
}

impl BedrockExchange {
    /// A call of the Converse API.
    #[must_use]
    pub fn converse(names: ToolNames) -> Self {
        Self::Converse(DialectExchange::new(BedrockConverse), names)
    }

    /// A call of Claude's own API.
    #[must_use]
    pub fn claude() -> Self {
        Self::Claude(DialectExchange::new(AnthropicMessages))
    }
}

impl Exchange for BedrockExchange {
    fn frame(&mut self, frame: &Frame<'_>, events: &mut Vec<Event>) -> Result<(), Fault> {
        match self {
            Self::Converse(exchange, names) => {
                let before = events.len();
                exchange.frame(frame, events)?;
                names.restore(&mut events[before..]);
                Ok(())
            }
            Self::Claude(exchange) if frame.name == "chunk" => {
                let data = &piece(frame.data).ok_or_else(|| {
                    Fault::new(FaultClass::VendorBug, "a frame of the vendor's stream has no `bytes` in base64")
                })?;
                exchange.frame(&Frame { name: "", data }, events)
            }
            // Exceptions are the API's, whoever speaks inside it.
            Self::Claude(_) => DialectExchange::new(BedrockConverse).frame(frame, events),
        }
    }

    fn finish(&mut self, answer: &Answer<'_>, events: &mut Vec<Event>) -> Result<Option<Upstream>, Fault> {
        match self {
            Self::Converse(exchange, names) => {
                let before = events.len();
                let next = exchange.finish(answer, events)?;
                names.restore(&mut events[before..]);
                Ok(next)
            }
            Self::Claude(exchange) => exchange.finish(answer, events),
        }
    }
}

/// `{"bytes": "eyJ0eXBlIjoi…"}`
fn piece(data: &[u8]) -> Option<Vec<u8>> {
    let frame: Value = serde_json::from_slice(data).ok()?;
    STANDARD.decode(frame["bytes"].as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use penstock_sdk::dialects::collect::Collector;
    use penstock_sdk::dialects::framing::EventStreamParser;
    use penstock_sdk::prelude::Pairs;

    use super::*;
    use crate::tests::recorded;

    /// Streams of Claude's own API that were recorded with Bedrock.
    fn streams() -> Vec<PathBuf> {
        let (mut folders, mut found) = (recorded("open/bedrock").into_iter().collect::<Vec<_>>(), Vec::new());
        while let Some(folder) = folders.pop() {
            for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    folders.push(path);
                } else if path.ends_with("stream.bin") && path.to_string_lossy().contains("/invoke-stream") {
                    found.push(path);
                }
            }
        }
        found
    }

    #[test]
    fn recorded_streams_of_claude_are_read_to_their_end() {
        let streams = streams();
        for stream in &streams {
            let (mut exchange, mut parser) = (BedrockExchange::claude(), EventStreamParser::new(16 << 20));
            let (mut events, mut frames) = (Vec::new(), Vec::new());
            let bytes = std::fs::read(stream).unwrap();
            parser.feed(&bytes, &mut |frame| frames.push((frame.name.to_owned(), frame.data.to_vec()))).unwrap();
            parser.end().unwrap();
            for (name, data) in &frames {
                exchange.frame(&Frame { name, data }, &mut events).unwrap();
            }
            let end = Answer { status: 200, headers: &Pairs::default(), body: b"" };
            assert_eq!(exchange.finish(&end, &mut events).unwrap(), None);
            let mut collector = Collector::new();
            events.iter().for_each(|event| collector.event(event));
            let response = collector.finish();
            let name = stream.display();
            assert!(response.fault.is_none() && response.finish.is_some() && !response.blocks.is_empty(), "{name}");
            assert!(response.id.starts_with("msg_bdrk_"), "{name}: {}", response.id);
            assert!(response.usage.is_some_and(|usage| usage.input > 0 && usage.output > 0), "{name}");
        }
        assert!(streams.len() >= 10 || streams.is_empty());
    }
}
