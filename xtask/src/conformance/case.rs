// SPDX-License-Identifier: Apache-2.0
//! A recorded exchange as it lies in its folder.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

/// A recorded exchange.
pub(super) struct Case {
    /// Path below the folder of all of them: `VENDOR/CASE` or `VENDOR/CASE/step-01`.
    pub(super) name: String,
    /// Vendor.
    pub(super) vendor: String,
    /// What was asked for, in the words of the recording: "chat", "messages", "embeddings" …
    pub(super) operation: String,
    /// Wire language, if it has a name.
    pub(super) protocol: Option<String>,
    /// Model that was asked for; empty if that is not known.
    pub(super) model: String,
    /// HTTP status of the answer.
    pub(super) status: u16,
    /// Method of the request.
    pub(super) method: String,
    /// Path and query of the request, as it was sent.
    pub(super) place: String,
    /// Whether the answer is a stream.
    pub(super) streamed: bool,
    /// Media type of the answer.
    pub(super) media_type: String,
    /// Headers of the answer, in lower case.
    pub(super) headers: Vec<(String, String)>,
    /// What the exchange shows: "toolcall", "thinking", "stream" …
    pub(super) features: Vec<String>,
    /// Body of the request, if it was recorded and is JSON.
    pub(super) request: Option<Value>,
    /// Body of the request as it went out, with its media type.
    pub(super) sent: Option<(Vec<u8>, String)>,
    /// Body of the answer, byte for byte.
    pub(super) body: Vec<u8>,
    /// What an independent decoder has read; null if nothing.
    pub(super) expected: Value,
}

impl Case {
    /// What it is, for the list of what is not covered.
    pub(super) fn kind(&self) -> String {
        match &self.protocol {
            Some(protocol) => format!("{protocol} ({})", self.operation),
            None => self.operation.clone(),
        }
    }

    /// A response header by its lower-case name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }
}

/// Every exchange below a folder, in the order of their names.
///
/// # Errors
/// When one of them cannot be read.
pub(super) fn read(root: &Path) -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    let mut folders = vec![PathBuf::from(root)];
    while let Some(folder) = folders.pop() {
        if folder.join("meta.json").is_file() {
            let case = read_one(root, &folder).with_context(|| format!("cannot read {}", folder.display()))?;
            cases.extend(case);
            continue;
        }
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(cases)
}

/// One exchange; none for a WebSocket transcript, which has no status and no body.
fn read_one(root: &Path, folder: &Path) -> anyhow::Result<Option<Case>> {
    let meta = json(&folder.join("meta.json"))?;
    let (Some(status), Some(file)) = (meta["status"].as_u64(), meta["response_file"].as_str()) else { return Ok(None) };
    let text = |name: &str| meta[name].as_str().unwrap_or_default().to_owned();
    let name = folder.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
    let request = folder.join("request.json");
    let recorded = if request.is_file() { json(&request)? } else { Value::Null };
    let framing = text("framing");
    let expected = folder.join("expected.json");
    let vendor = text("vendor");
    if vendor.is_empty() {
        bail!("meta.json names no vendor");
    }
    Ok(Some(Case {
        name,
        vendor,
        operation: text("operation"),
        protocol: meta["protocol"].as_str().map(str::to_owned),
        model: text("model"),
        features: shown(&meta),
        status: u16::try_from(status)?,
        method: recorded["method"].as_str().unwrap_or("POST").to_owned(),
        place: place(recorded["url"].as_str().unwrap_or_default()),
        streamed: !matches!(framing.as_str(), "json" | "text" | "binary"),
        media_type: media_type(&framing, meta["response_headers"]["content-type"].as_str()),
        headers: headers(&meta["response_headers"]),
        sent: sent(&recorded)?,
        request: recorded.get("body").cloned(),
        body: fs::read(folder.join(file))?,
        expected: if expected.is_file() { json(&expected)? } else { Value::Null },
    }))
}

/// The features in a recording, and that it is a stream.
fn shown(meta: &Value) -> Vec<String> {
    let features = meta["features"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let stream = meta["stream"].as_bool().unwrap_or_default().then_some("stream");
    features.chain(stream).map(str::to_owned).collect()
}

/// Path and query of a URL.
fn place(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    // Recorders have put names in angle brackets for what they would not show.
    rest.find('/').map_or_else(String::new, |at| rest[at..].replace('<', "%3C").replace('>', "%3E"))
}

/// The media type of an answer; recorders have left some out.
fn media_type(framing: &str, recorded: Option<&str>) -> String {
    let usual = match framing {
        "ndjson" => "application/x-ndjson",
        "aws-eventstream" => "application/vnd.amazon.eventstream",
        sse if sse.starts_with("sse") => "text/event-stream",
        _ => "application/json",
    };
    recorded.unwrap_or(usual).to_owned()
}

fn sent(recorded: &Value) -> anyhow::Result<Option<(Vec<u8>, String)>> {
    let headers = headers(&recorded["headers"]);
    let kind = headers.iter().find(|(name, _)| name == "content-type").map(|(_, value)| value.clone());
    let bytes = match (&recorded["body"], recorded["body_text"].as_str(), recorded["body_base64"].as_str()) {
        (Value::Null, None, None) => return Ok(None),
        (_, _, Some(base64)) => BASE64_STANDARD.decode(base64).context("body_base64")?,
        (_, Some(text), _) => text.as_bytes().to_vec(),
        (body, ..) => body.to_string().into_bytes(),
    };
    Ok(Some((bytes, kind.unwrap_or_else(|| "application/json".to_owned()))))
}

/// A recorded conversation over a WebSocket.
pub(super) struct Transcript {
    /// Path below the folder of all of them.
    pub(super) name: String,
    /// Vendor.
    pub(super) vendor: String,
    /// Who sent what, in order: whether it was the vendor, and the message.
    pub(super) messages: Vec<(bool, String)>,
}

/// Every transcript below a folder, in the order of their names.
///
/// # Errors
/// When one of them cannot be read.
pub(super) fn transcripts(root: &Path) -> anyhow::Result<Vec<Transcript>> {
    let mut found = Vec::new();
    for vendor in fs::read_dir(root).with_context(|| format!("cannot read {}", root.display()))? {
        let vendor = vendor?;
        if !vendor.path().is_dir() {
            continue;
        }
        for folder in fs::read_dir(vendor.path())? {
            let folder = folder?.path();
            let Ok(text) = fs::read_to_string(folder.join("ws.jsonl")) else { continue };
            let name = folder.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
            let line = |line: &str| -> anyhow::Result<Option<(bool, String)>> {
                let line: Value = serde_json::from_str(line)?;
                let message = (line["kind"] == "message").then(|| (line["dir"] == "server", line["data"].to_string()));
                Ok(message)
            };
            let messages = text.lines().filter_map(|text| line(text).transpose()).collect::<Result<_, _>>();
            let messages = messages.with_context(|| format!("cannot read {name}/ws.jsonl"))?;
            found.push(Transcript { name, vendor: vendor.file_name().to_string_lossy().into_owned(), messages });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn json(path: &Path) -> anyhow::Result<Value> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", path.display()))
}

fn headers(recorded: &Value) -> Vec<(String, String)> {
    let pairs = recorded.as_object().into_iter().flatten();
    pairs.filter_map(|(name, value)| Some((name.to_lowercase(), value.as_str()?.to_owned()))).collect()
}
