// SPDX-License-Identifier: Apache-2.0
//! Finds the recorded exchanges. Where there are none the tests say so and pass: the recordings are not ours to copy.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// One recorded exchange.
pub(crate) struct Exchange {
    /// Path below the folder of recordings.
    pub(crate) name: String,
    pub(crate) meta: Value,
    pub(crate) expected: Value,
    /// Null where the exchange was captured without its request.
    pub(crate) request: Value,
    pub(crate) answer: Vec<u8>,
}

impl Exchange {
    /// Whether the answer is a stream of 2xx.
    pub(crate) fn streamed(&self) -> bool {
        self.ok() && self.meta["stream"] == true && self.meta["framing"] != "json"
    }

    /// Whether the status is 2xx.
    pub(crate) fn ok(&self) -> bool {
        self.meta["status"].as_u64().is_some_and(|status| (200..300).contains(&status))
    }
}

/// The folder of shared material beside the worktrees: `PENSTOCK_FIXTURES` or `../../shared/fixtures` from a worktree.
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let fixtures = std::env::var_os("PENSTOCK_FIXTURES").map(PathBuf::from);
    let near = Path::new(env!("CARGO_MANIFEST_DIR"));
    let candidates = near.ancestors().map(|folder| folder.join("shared/fixtures"));
    let found = fixtures.into_iter().chain(candidates).map(|folder| folder.join(path)).find(|found| found.exists());
    if found.is_none() {
        eprintln!(
            "SKIPPED: no {path} under $PENSTOCK_FIXTURES or shared/fixtures: nothing was compared with recordings"
        );
    }
    found
}

/// Every exchange of this protocol that has an expectation.
pub(crate) fn exchanges(protocol: &str) -> Vec<Exchange> {
    let mut found = matching(protocol, |meta| meta["protocol"] == protocol);
    found.retain(|exchange| !exchange.expected.is_null());
    found
}

/// Every exchange whose meta.json is wanted; the expectation is null where there is none. `what` names them where none is
/// found.
pub(crate) fn matching(what: &str, wanted: impl Fn(&Value) -> bool) -> Vec<Exchange> {
    let (mut found, mut folders) = (Vec::new(), shared("open").into_iter().collect::<Vec<_>>());
    let root = folders.first().cloned().unwrap_or_default();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            }
        }
        let read = |file: &str| -> Value {
            std::fs::read(folder.join(file)).map_or(Value::Null, |bytes| serde_json::from_slice(&bytes).unwrap())
        };
        let meta = read("meta.json");
        let answer = meta["response_file"].as_str().and_then(|file| std::fs::read(folder.join(file)).ok());
        let (Some(answer), true) = (answer, wanted(&meta)) else { continue };
        let name = folder.strip_prefix(&root).unwrap().display().to_string();
        found.push(Exchange { name, expected: read("expected.json"), request: read("request.json"), meta, answer });
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(root.as_os_str().is_empty() || !found.is_empty(), "no recordings of {what} under {}", root.display());
    found
}
