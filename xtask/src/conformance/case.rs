// SPDX-License-Identifier: Apache-2.0
//! A recorded exchange as it lies in its folder.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
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
    /// Whether the answer is a stream of server-sent events.
    pub(super) streamed: bool,
    /// Headers of the answer, in lower case.
    pub(super) headers: Vec<(String, String)>,
    /// Body of the request; none if only the answer was recorded.
    pub(super) request: Option<Value>,
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
    let request = if request.is_file() { json(&request)?.get("body").cloned() } else { None };
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
        status: u16::try_from(status)?,
        streamed: text("framing").starts_with("sse"),
        headers: headers(&meta["response_headers"]),
        request,
        body: fs::read(folder.join(file))?,
        expected: if expected.is_file() { json(&expected)? } else { Value::Null },
    }))
}

fn json(path: &Path) -> anyhow::Result<Value> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", path.display()))
}

fn headers(recorded: &Value) -> Vec<(String, String)> {
    let pairs = recorded.as_object().into_iter().flatten();
    pairs.filter_map(|(name, value)| Some((name.to_lowercase(), value.as_str()?.to_owned()))).collect()
}
