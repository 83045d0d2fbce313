// SPDX-License-Identifier: Apache-2.0
//! Watches an answer that is relayed untouched: its usage, its end, its error. A frame is parsed only where a byte
//! search has found a member that says something.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memmem::{self, Finder};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{fault, reading, task_image, usage};
use crate::codec;
use crate::framing::Frame;
use crate::ir::{Fault, Usage};
use crate::scan;

static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"usage\""));
static FINISH: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"finish_reason\""));
static CHOICES: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"choices\""));
static URL: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"url\""));
static B64_JSON: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"b64_json\""));
static ERROR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"error\""));

/// Members of a delta that hold words of an answer.
static SAYING: LazyLock<Vec<Finder<'static>>> = LazyLock::new(|| {
    let members: [&[u8]; 7] = [
        b"\"content\"",
        b"\"reasoning_content\"",
        b"\"reasoning\"",
        b"\"reasoning_details\"",
        b"\"refusal\"",
        b"\"tool_calls\"",
        b"\"audio\"",
    ];
    members.into_iter().map(Finder::new).collect()
});

/// The usage of a whole answer.
pub(super) fn whole_usage(body: &[u8]) -> Option<Usage> {
    let has = |member: &Finder<'_>| member.find(body).is_some();
    let may_show = !has(&CHOICES) && (has(&URL) || has(&B64_JSON));
    let pictures = if may_show { task_image::whole_usage(body) } else { None };
    pictures.or_else(|| stated_usage(body).map(|(usage, _)| usage))
}

/// State of a stream that is watched.
#[derive(Debug, Default)]
pub(super) struct Tap {
    usage: Option<Usage>,
    usage_is_own: bool,
    complete: bool,
    fault: Option<Fault>,
}

impl codec::Tap for Tap {
    fn frame(&mut self, frame: &Frame<'_>) {
        let data = frame.data.trim_ascii();
        if data == reading::DONE {
            self.complete = true;
            return;
        }
        // A vendor that counts with every piece has said everything with the last one, and says no `[DONE]` (Perplexity). Of
        // all others that is the end, as it is in OpenAI's reference: without it nobody knows what is missing.
        self.complete |= self.usage.is_some() && says_something(&FINISH, data) && says_something(&USAGE, data);
        if says_something(&USAGE, data)
            && let Some((usage, own)) = stated_usage(data)
            && (own || !self.usage_is_own)
        {
            self.usage = Some(usage);
            self.usage_is_own = own;
        }
        let named = frame.name == "error";
        if self.fault.is_none() && (named || says_something(&ERROR, data)) {
            let object = serde_json::from_slice(data).unwrap_or(Value::Null);
            self.fault = fault::in_band(&object, named);
        }
    }

    fn usage(&self) -> Option<Usage> {
        self.usage.clone()
    }

    fn complete(&self) -> bool {
        self.complete
    }

    fn fault(&self) -> Option<Fault> {
        self.fault.clone()
    }

    fn is_prelude(&self, frame: &Frame<'_>) -> bool {
        // Vendors begin with a delta that has a role and an empty text.
        memmem::find(frame.data, b"\"delta\"").is_some()
            && !SAYING.iter().any(|member| says_something(member, frame.data))
            && !self.complete
            && self.fault.is_none()
    }
}

/// Whether the data has this member with a value other than null and the empty string. (In a JSON string the quotes of
/// a name would be escaped, so a hit is a name.)
fn says_something(member: &Finder<'_>, data: &[u8]) -> bool {
    member.find_iter(data).any(|at| {
        let rest = data[at + member.needle().len()..].trim_ascii_start();
        let value = rest.strip_prefix(b":").unwrap_or_default().trim_ascii_start();
        !(value.is_empty() || value.starts_with(b"null") || value.starts_with(b"\"\""))
    })
}

#[derive(Deserialize)]
struct Corner<'b> {
    #[serde(borrow)]
    usage: Option<&'b RawValue>,
}

/// The usage of one object, and whether it is the answer's own.
fn stated_usage(data: &[u8]) -> Option<(Usage, bool)> {
    fn parsed<'b, T: Deserialize<'b>>(raw: Option<&'b [u8]>) -> Option<T> {
        serde_json::from_slice(raw?).ok()
    }
    let [own, tier, groq, choices] = scan::members(data, ["usage", "service_tier", "x_groq", "choices"])?;
    if let Some(mut usage) = own.and_then(usage::read_text) {
        usage.served_as(parsed::<Cow<'_, str>>(tier).as_deref().unwrap_or_default());
        return Some((usage, true));
    }
    let groq: Option<Corner<'_>> = parsed(groq);
    let choices: Vec<Corner<'_>> = parsed(choices).unwrap_or_default();
    let read = |raw: Option<&RawValue>| usage::read_text(raw?.get().as_bytes());
    let corners = groq.iter().chain(&choices);
    corners.filter_map(|corner| read(corner.usage)).next().map(|usage| (usage, false))
}
