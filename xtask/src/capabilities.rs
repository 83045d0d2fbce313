// SPDX-License-Identifier: Apache-2.0
//! What each vendor can do, as a page: the constants of the adapters, restricted by the vendors' policy files, and for each
//! feature what shows that it works. It is the same that `GET /v1/capabilities` says.
//!
//! The page can be made without recordings: what they have shown is kept in it. `cargo xtask conformance` holds it against
//! them, and with `--write` adds what they show.

mod adapters;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, anyhow};
use penstock_sdk::adapter::FEATURES;
use penstock_sdk::compatible::Options;
use penstock_sdk::config::Reader;
use serde_json::Value;

use adapters::Adapter;

/// The page.
pub(crate) const PAGE: &str = "docs/capabilities.md";
const ADAPTERS: &str = "plugins/adapters/";
const VENDORS: &str = "policies/vendors/";
/// The adapter whose policy files say which operations a vendor has.
const COMPATIBLE: &str = "openai-compatible";

const INTRODUCTION: &str = "<!-- Made by `cargo xtask docs` from plugins/adapters and policies/vendors; `cargo xtask conformance \
FOLDER --write` adds what recordings show. -->\n\
# What vendors can do\n\n\
By the adapters and the policy files that come with Penstock; a running gateway tells the same of the vendors in force at \
`GET /v1/capabilities`. A policy takes a feature back with `without = [\"image-input\"]`. A model may do less than its vendor.\n\n\
- **recorded**: answers of the vendor itself that were recorded show it, and are read as they should be;\n\
- **case**: a golden case of the adapter carries it;\n\
- **not verified**: the adapter can carry it, and nothing shows that the vendor does.\n";

/// Files by their path from the root of the repository.
pub(crate) type Files<'f> = BTreeMap<&'f str, &'f str>;

/// Vendor and feature.
pub(crate) type Shown = BTreeSet<(String, String)>;

/// What is known of all vendors.
pub(crate) struct Matrix {
    vendors: BTreeMap<String, Vendor>,
}

struct Vendor {
    adapter: String,
    dialects: Vec<String>,
    operations: Vec<String>,
    features: Vec<String>,
    /// Features that golden cases of its adapter carry.
    cases: BTreeSet<&'static str>,
}

/// The text of every file that the page is made of.
///
/// # Errors
/// When one of them cannot be read.
pub(crate) fn gather(root: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.join(ADAPTERS), root.join(VENDORS)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let path = entry?.path();
            let name = path.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
            if path.is_dir() {
                folders.push(path);
            } else if is_source(&name) {
                let text = fs::read_to_string(&path).with_context(|| format!("cannot read {name}"))?;
                files.insert(name, text);
            }
        }
    }
    Ok(files)
}

fn is_source(path: &str) -> bool {
    let adapter = path.strip_prefix(ADAPTERS).and_then(|rest| rest.split_once('/'));
    let is_adapter = adapter.is_some_and(|(_, rest)| rest == "src/lib.rs" || rest.starts_with("cases/"));
    is_adapter || (path.starts_with(VENDORS) && path.ends_with(".toml"))
}

/// Writes the page; what it says of recordings stays.
///
/// # Errors
/// When a source cannot be read or the page cannot be written.
pub(crate) fn write(root: &Path, shown: &Shown) -> anyhow::Result<()> {
    let page = root.join(PAGE);
    let before = fs::read_to_string(&page).unwrap_or_default();
    let files = gather(root)?;
    let matrix = Matrix::read(&files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect())?;
    let shown = recorded(&before).union(shown).cloned().collect();
    fs::write(&page, matrix.render(&shown)).with_context(|| format!("cannot write {PAGE}"))
}

/// What a page says that recordings have shown.
pub(crate) fn recorded(page: &str) -> Shown {
    let rows = page.lines().filter(|line| line.starts_with("| `") && line.contains("`](../plugins/adapters/"));
    let cells = rows.flat_map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let vendor = cells[0].trim_matches('`').to_owned();
        let marks = FEATURES.iter().zip(cells.into_iter().skip(3)).filter(|(_, mark)| *mark == "recorded");
        marks.map(|(feature, _)| (vendor.clone(), (*feature).to_owned())).collect::<Vec<_>>()
    });
    cells.collect()
}

impl Matrix {
    /// Reads adapters and vendors.
    ///
    /// # Errors
    /// When one of them does not say what it should.
    pub(crate) fn read(files: &Files<'_>) -> anyhow::Result<Self> {
        let mut adapters = BTreeMap::new();
        for (path, text) in files.iter().filter(|(path, _)| path.starts_with(ADAPTERS) && path.ends_with("/src/lib.rs"))
        {
            let name = path[ADAPTERS.len()..].split('/').next().unwrap_or_default();
            let adapter =
                Adapter::read(text).with_context(|| format!("{path} does not say what the adapter can do"))?;
            adapters.insert(name, adapter);
        }
        let mut vendors = BTreeMap::new();
        for (path, text) in files.iter().filter(|(path, _)| path.starts_with(VENDORS)) {
            let policy: toml::Table = toml::from_str(text).with_context(|| format!("cannot read {path}"))?;
            for (name, vendor) in policy.get("vendors").and_then(toml::Value::as_table).into_iter().flatten() {
                let vendor = Vendor::read(vendor, &adapters, files).with_context(|| format!("{path}: {name}"))?;
                vendors.insert(name.clone(), vendor);
            }
        }
        Ok(Self { vendors })
    }

    /// The page.
    pub(crate) fn render(&self, shown: &Shown) -> String {
        let mut page = INTRODUCTION.to_owned();
        let _ = write!(page, "\n## Conversations\n\n| vendor | adapter | relayed in |");
        FEATURES.iter().for_each(|feature| page.push_str(&format!(" {feature} |")));
        page.push_str(&format!("\n|{}\n", "---|".repeat(3 + FEATURES.len())));
        for (name, vendor) in &self.vendors {
            let Vendor { adapter, dialects, .. } = vendor;
            let dialects = dialects.iter().map(|dialect| format!("`{dialect}`")).collect::<Vec<_>>().join(", ");
            let _ = write!(page, "| `{name}` | [`{adapter}`](../{ADAPTERS}{adapter}) | {dialects} |");
            for feature in FEATURES {
                page.push_str(&format!(" {} |", vendor.mark(name, feature, shown)));
            }
            page.push('\n');
        }
        page.push_str("\n## Operations\n\n| vendor | operations |\n|---|---|\n");
        for (name, vendor) in &self.vendors {
            let _ = writeln!(page, "| `{name}` | {} |", vendor.operations.join(", "));
        }
        page
    }

    /// The vendor of our policies whose API a recording is of, if it is recorded in a way in which we speak to it.
    pub(crate) fn vendor_of(&self, vendor: &str, protocol: &str) -> Option<&str> {
        let native = format!("{vendor}-native");
        let name = match vendor {
            "vllm-gpustack" => "vllm",
            _ if protocol == native => &native,
            name => name,
        };
        let (name, found) = self.vendors.get_key_value(name)?;
        let speaks = found.dialects.iter().any(|dialect| dialect == protocol) || *name == protocol;
        speaks.then_some(name.as_str())
    }

    /// What is not as recordings show it: features that they show and the vendor does not claim, or whose mark is stale.
    pub(crate) fn contradictions(&self, shown: &Shown, page: &str) -> Vec<String> {
        let marked = recorded(page);
        let mut found = Vec::new();
        for (name, feature) in shown {
            let claimed = self.vendors.get(name).is_some_and(|vendor| vendor.features.contains(feature));
            if !claimed {
                found.push(format!("{name}: recordings show {feature}, and its adapter or its policy file denies it"));
            } else if !marked.contains(&(name.clone(), feature.clone())) {
                found.push(format!("{name}: recordings show {feature}, and {PAGE} does not say so: run with --write"));
            }
        }
        if self.render(&marked) != page {
            found.push(format!("{PAGE} is not what adapters and policies say: run `cargo xtask docs`"));
        }
        found
    }
}

impl Vendor {
    fn read(policy: &toml::Value, adapters: &BTreeMap<&str, Adapter>, files: &Files<'_>) -> anyhow::Result<Self> {
        let name = policy.get("adapter").and_then(toml::Value::as_str).context("it has no adapter")?;
        let adapter = adapters.get(name).with_context(|| format!("there is no adapter {name}"))?;
        let without = policy.get("without").and_then(toml::Value::as_array).into_iter().flatten();
        let mut without: BTreeSet<String> = without.filter_map(toml::Value::as_str).map(str::to_owned).collect();
        if name == COMPATIBLE {
            let config =
                policy.get("config").map_or(Ok(Value::Object(serde_json::Map::new())), serde_json::to_value)?;
            let options: Options =
                Reader::read(&config).map_err(|issues| anyhow!("its config is wrong: {issues:?}"))?;
            without.extend(options.missing().into_iter().map(str::to_owned));
        }
        let done = |names: &[String]| -> Vec<String> {
            names.iter().filter(|name| !without.contains(*name)).cloned().collect()
        };
        let operations = done(&adapter.operations);
        let converses = operations.iter().any(|operation| operation == "chat");
        Ok(Self {
            adapter: name.to_owned(),
            dialects: done(&adapter.dialects),
            features: if converses { done(&adapter.features) } else { Vec::new() },
            operations,
            cases: carried(name, files),
        })
    }

    fn mark(&self, name: &str, feature: &str, shown: &Shown) -> &'static str {
        match feature {
            _ if !self.features.iter().any(|claimed| claimed == feature) => "",
            _ if shown.contains(&(name.to_owned(), feature.to_owned())) => "recorded",
            _ if self.cases.contains(feature) => "case",
            _ => "not verified",
        }
    }
}

/// The features that the golden cases of an adapter carry: what stands in the canonical requests and events of a
/// conversation.
fn carried(adapter: &str, files: &Files<'_>) -> BTreeSet<&'static str> {
    let folder = format!("{ADAPTERS}{adapter}/cases/");
    let mut carried = BTreeSet::new();
    for text in files.iter().filter(|(path, _)| path.starts_with(&folder)).map(|(_, text)| text) {
        let case: Value = serde_json::from_str(text).unwrap_or_default();
        carries(&case, &mut carried);
    }
    carried
}

fn carries(value: &Value, carried: &mut BTreeSet<&'static str>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let is_there = !value.is_null() && *value != Value::Bool(false) && *value != Value::Array(Vec::new());
                let feature = match name.as_str() {
                    "streaming" => "streaming",
                    "tools" | "tool" => "tools",
                    "reasoning" => "reasoning",
                    "format" => "json",
                    "cache" | "cache_control" | "cachePoint" => "caching",
                    "kind" => match value.as_str() {
                        Some("image") => "image-input",
                        Some("document") => "document-input",
                        Some("audio") => "audio-input",
                        _ => "",
                    },
                    _ => "",
                };
                if is_there && let Some(feature) = FEATURES.iter().find(|known| **known == feature) {
                    carried.insert(feature);
                }
                carries(value, carried);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| carries(item, carried)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADAPTER: &str = "use x::dialects::openai_chat::NAME;\nimpl Adapter for A {\n\
        const DIALECTS: &'static [&'static str] = &[NAME];\nconst OPERATIONS: &'static [&'static str] = &[\"chat\"];\n\
        const FEATURES: &'static [&'static str] = &[\"streaming\", \"tools\", \"image-input\"];\n}\n";

    fn matrix() -> Matrix {
        let files = Files::from([
            ("plugins/adapters/a/src/lib.rs", ADAPTER),
            ("plugins/adapters/a/cases/one.json", "{\"ask\": {\"tools\": [{\"name\": \"t\"}], \"format\": null}}"),
            ("policies/vendors/v.toml", "[vendors.v]\nadapter = \"a\"\nwithout = [\"image-input\"]\n"),
            ("policies/vendors/w.toml", "[vendors.w]\nadapter = \"a\"\n"),
        ]);
        Matrix::read(&files).unwrap()
    }

    fn shown(pairs: &[(&str, &str)]) -> Shown {
        pairs.iter().map(|(vendor, feature)| ((*vendor).to_owned(), (*feature).to_owned())).collect()
    }

    #[test]
    fn the_page_says_what_shows_each_feature_and_keeps_it() {
        let (matrix, recordings) = (matrix(), shown(&[("v", "streaming")]));
        let page = matrix.render(&recordings);
        assert!(
            page.contains("| `v` | [`a`](../plugins/adapters/a) | `openai-chat` | recorded | case |  |  |"),
            "{page}"
        );
        assert!(page.contains("| `openai-chat` | not verified | case |  | not verified |"), "{page}");
        assert!(page.contains("| `v` | chat |"), "{page}");
        assert_eq!(recorded(&page), recordings);
        assert_eq!(matrix.contradictions(&recordings, &page), Vec::<String>::new());
        assert_eq!(matrix.contradictions(&Shown::new(), &page), Vec::<String>::new(), "other recordings may show less");
    }

    #[test]
    fn what_recordings_contradict_is_found() {
        let matrix = matrix();
        let page = matrix.render(&Shown::new());
        let found = matrix.contradictions(&shown(&[("v", "image-input"), ("w", "image-input")]), &page);
        assert!(found[0].contains("denies it") && found[1].contains("--write"), "{found:?}");
        let stale = page.replace("| chat |", "| chat, speech |");
        assert_eq!(matrix.contradictions(&Shown::new(), &stale).len(), 1);
        assert_eq!(matrix.contradictions(&Shown::new(), "").len(), 1);
    }

    #[test]
    fn a_recording_is_of_a_vendor_that_is_spoken_to_in_that_way() {
        let matrix = matrix();
        assert_eq!(matrix.vendor_of("v", "openai-chat"), Some("v"));
        assert_eq!(matrix.vendor_of("v", "gemini"), None);
        assert_eq!(matrix.vendor_of("x", "openai-chat"), None);
    }
}
