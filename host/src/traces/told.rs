// SPDX-License-Identifier: Apache-2.0
//! What an answer says of itself: its id, the model, why it ended. It is read out of the bytes that go to the caller, in
//! whatever dialect; nothing else of them is kept.

use serde::Deserialize;

/// Frames in which the id is looked for.
const FRAMES_MAX: u32 = 8;
/// Reasons that are kept.
const REASONS_MAX: usize = 8;
/// Longest id, model or reason, in bytes; what is longer is none.
const NAME_BYTES_MAX: usize = 200;
/// Largest answer that is looked into, in bytes.
const LOOKED_AT_MAX: usize = 1 << 20;
/// Longest line of a stream that is looked into when it comes in pieces, in bytes.
const LINE_BYTES_MAX: usize = 64 << 10;
/// A frame without any of these says nothing of the end.
const ENDS: [&[u8]; 4] = [b"finish_reason\":\"", b"finishReason", b"top_reason\":\"", b"\"response.completed\""];

/// What was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// The vendor's id of the answer, or ours where the answer was translated.
    pub(super) id: String,
    /// The model that answered.
    pub(super) model: String,
    /// Why it ended, a reason for each choice.
    pub(super) finish: Vec<String>,
    frames: u32,
    held: Vec<u8>,
}

/// The members by which dialects say it, in whole answers and in frames.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Said {
    #[serde(alias = "responseId")]
    id: Option<String>,
    #[serde(alias = "modelVersion")]
    model: Option<String>,
    #[serde(alias = "stop_reason", alias = "stopReason", alias = "finishReason", alias = "done_reason")]
    finish_reason: Option<String>,
    choices: Vec<Self>,
    candidates: Vec<Self>,
    message: Option<Box<Self>>,
    response: Option<Box<Self>>,
    delta: Option<Box<Self>>,
    object: Option<String>,
    status: Option<String>,
}

impl Told {
    /// Takes a whole answer.
    pub(super) fn whole(&mut self, bytes: &[u8]) {
        if bytes.len() > LOOKED_AT_MAX {
            return;
        }
        if let Ok(said) = serde_json::from_slice::<Said>(bytes) {
            self.take(said);
        }
    }

    /// Takes a piece of a stream of server-sent events or lines of JSON.
    pub(super) fn piece(&mut self, bytes: &[u8]) {
        let Some(end) = memchr::memrchr(b'\n', bytes) else { return self.hold(bytes) };
        let (lines, rest) = bytes.split_at(end);
        let held = std::mem::take(&mut self.held);
        if held.is_empty() {
            self.lines(lines);
        } else {
            self.lines(&[&held, lines].concat());
        }
        self.hold(rest);
    }

    /// Keeps a line whose end has not come; one that is too long is lost.
    fn hold(&mut self, bytes: &[u8]) {
        if self.held.len() + bytes.len() <= LINE_BYTES_MAX {
            self.held.extend_from_slice(bytes);
        }
    }

    fn lines(&mut self, lines: &[u8]) {
        for line in lines.split(|byte| *byte == b'\n') {
            let data = line.strip_prefix(b"data:").unwrap_or(line).trim_ascii();
            if data.starts_with(b"{") {
                self.object(data);
            }
        }
    }

    fn object(&mut self, json: &[u8]) {
        self.frames += 1;
        let says_the_beginning = (self.id.is_empty() || self.model.is_empty()) && self.frames <= FRAMES_MAX;
        if !says_the_beginning && !ENDS.iter().any(|end| memchr::memmem::find(json, end).is_some()) {
            return;
        }
        if let Ok(said) = serde_json::from_slice::<Said>(json) {
            self.take(said);
        }
    }

    fn take(&mut self, said: Said) {
        keep(&mut self.id, said.id);
        keep(&mut self.model, said.model);
        let is_response = said.object.as_deref() == Some("response");
        let status = said.status.filter(|status| is_response && status != "in_progress" && status != "queued");
        for reason in [said.finish_reason, status].into_iter().flatten() {
            if self.finish.len() < REASONS_MAX && !reason.is_empty() && reason.len() <= NAME_BYTES_MAX {
                self.finish.push(reason);
            }
        }
        let inner = [said.message, said.response, said.delta].into_iter().flatten().map(|inner| *inner);
        for inner in inner.chain(said.choices).chain(said.candidates) {
            self.take(Said { choices: Vec::new(), candidates: Vec::new(), ..inner });
        }
    }
}

/// The first one that was told stays.
fn keep(known: &mut String, told: Option<String>) {
    if let Some(told) = told.filter(|told| known.is_empty() && told.len() <= NAME_BYTES_MAX) {
        *known = told;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces of an answer, and the id, model and reason that are in it.
    type Case<'c> = (&'c [&'c str], (&'c str, &'c str, &'c str));

    fn told(pieces: &[&str]) -> (String, String, Vec<String>) {
        let mut told = Told::default();
        match pieces {
            [whole] => told.whole(whole.as_bytes()),
            // Where the network cuts makes no difference.
            pieces => pieces.concat().as_bytes().chunks(7).for_each(|piece| told.piece(piece)),
        }
        (told.id, told.model, told.finish)
    }

    #[test]
    fn ids_models_and_reasons_are_read_in_every_dialect_whole_and_streamed() {
        let cases: &[Case<'_>] = &[
            (
                &[
                    r#"{"id":"c1","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"secret"},"finish_reason":"stop"}]}"#,
                ],
                ("c1", "m", "stop"),
            ),
            (
                &[
                    "data: {\"id\":\"c2\",\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":null}]}\n\n",
                    "data: {\"id\":\"c2\",\"model\":\"m\",\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\n\ndata: [DONE]\n\n",
                ],
                ("c2", "m", "length"),
            ),
            (
                &[
                    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"a1\",\"model\":\"n\",\"stop_reason\":null}}\n\n",
                    "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}}\n\n",
                ],
                ("a1", "n", "end_turn"),
            ),
            (
                &[
                    "{\n \"responseId\": \"g1\",\n \"modelVersion\": \"g\",\n \"candidates\": [{\"finishReason\": \"STOP\", \"content\": {\"parts\": []}}]\n}",
                ],
                ("g1", "g", "STOP"),
            ),
            (
                &[
                    "data: {\"type\":\"response.created\",\"response\":{\"id\":\"r1\",\"model\":\"o\",\"object\":\"response\",\"status\":\"in_progress\"}}\n\n",
                    "data: {\"type\":\"response.output_text.delta\",\"delta\":\"secret\"}\n\n",
                    "data: {\"type\":\"response.completed\",\"response\":{\"id\":\"r1\",\"object\":\"response\",\"status\":\"completed\"}}\n\n",
                ],
                ("r1", "o", "completed"),
            ),
            (&["no json", "\n{\"id\": 7}\n", "data: {\"id\":"], ("", "", "")),
        ];
        for (pieces, (id, model, reason)) in cases {
            let reasons: Vec<_> =
                [*reason].into_iter().filter(|reason| !reason.is_empty()).map(str::to_owned).collect();
            assert_eq!(told(pieces), ((*id).to_owned(), (*model).to_owned(), reasons), "{pieces:?}");
        }
    }

    #[test]
    fn what_is_too_long_to_be_a_name_is_none() {
        let long = format!("{{\"id\":\"{}\",\"model\":\"m\"}}", "x".repeat(500));
        assert_eq!(told(&[&long]), (String::new(), "m".to_owned(), Vec::new()));
    }
}
