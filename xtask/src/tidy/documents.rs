// SPDX-License-Identifier: Apache-2.0
//! Rules about documents: links lead somewhere, generated pages are current, released contracts stay as they were.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::{File, Finding, find};
use crate::{capabilities, docs};

/// A relative link in a page leads to a file or folder of the repository.
pub(super) fn links_lead_somewhere(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for page in files.iter().filter(|file| file.is("md") && !file.path.contains("/template/")) {
        for (number, line) in page.text.lines().enumerate() {
            for target in links(line).filter(|target| !leads_somewhere(files, page, target)) {
                findings.push(Finding::at(page, number + 1, format!("the link to `{target}` leads nowhere")));
            }
        }
    }
    findings
}

/// docs/configuration.md says what host/src/config.rs says.
pub(super) fn configuration_is_current(files: &[File]) -> Vec<Finding> {
    let sources: Vec<_> =
        docs::SOURCES.iter().filter_map(|path| find(files, path)).map(|source| source.text.as_str()).collect();
    if sources.is_empty() {
        return Vec::new();
    }
    let stale = |text: String| vec![Finding { path: docs::PAGE.into(), line: 0, text }];
    match (docs::render(&sources), find(files, docs::PAGE)) {
        (Ok(page), Some(present)) if page == present.text => Vec::new(),
        (Ok(_), _) => stale(format!("is not what {} says: run `cargo xtask docs`", docs::SOURCES[0])),
        (Err(error), _) => stale(format!("cannot be made: {error:#}")),
    }
}

/// docs/capabilities.md says what adapters and policies say.
pub(super) fn capabilities_are_current(files: &[File]) -> Vec<Finding> {
    let Some(present) = find(files, capabilities::PAGE) else { return Vec::new() };
    let sources = files.iter().map(|file| (file.path.as_str(), file.text.as_str())).collect();
    let stale = |text: String| vec![Finding { path: capabilities::PAGE.into(), line: 0, text }];
    match capabilities::Matrix::read(&sources) {
        Ok(matrix) if matrix.render(&capabilities::recorded(&present.text)) == present.text => Vec::new(),
        Ok(_) => stale("is not what adapters and policies say: run `cargo xtask docs`".to_owned()),
        Err(error) => stale(format!("cannot be made: {error:#}")),
    }
}

/// The text of a released contract never changes: `wit/frozen/SHA256SUMS` says what it was.
pub(super) fn frozen_contracts_are_untouched(files: &[File]) -> Vec<Finding> {
    const FOLDER: &str = "wit/frozen";
    const SUMS: &str = "wit/frozen/SHA256SUMS";
    let sums = find(files, SUMS).map_or("", |file| file.text.as_str());
    let entries: Vec<(&str, &str)> = sums.lines().filter_map(|line| line.split_once("  ")).collect();
    let recorded = |path: &str| entries.iter().find(|(_, name)| *name == path).map(|(sum, _)| *sum);
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.within(FOLDER) && file.path != SUMS) {
        let below = file.path.trim_start_matches(FOLDER).trim_start_matches('/');
        match recorded(below) {
            Some(sum) if sum == sha256(&file.text) => {}
            Some(_) => findings.push(Finding::at(
                file,
                0,
                "a released contract is frozen: undo the change, release a new version",
            )),
            None => findings.push(Finding::at(
                file,
                0,
                format!("is not in {SUMS}: add its sum when the version is released"),
            )),
        }
    }
    for (number, (_, name)) in entries.iter().enumerate() {
        if find(files, &format!("{FOLDER}/{name}")).is_none() {
            let text = format!("`{name}` is gone; a released contract stays");
            findings.push(Finding { path: SUMS.into(), line: number + 1, text });
        }
    }
    findings
}

/// The targets of `[text](target)`, without those in code.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let prose = line.split('`').step_by(2);
    prose.flat_map(|text| text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next()))
}

fn leads_somewhere(files: &[File], page: &File, target: &str) -> bool {
    let path = target.split('#').next().unwrap_or_default();
    if path.is_empty() || target.contains("://") || target.starts_with("mailto:") {
        return true;
    }
    let mut segments: Vec<&str> = page.path.split('/').collect();
    segments.pop();
    for segment in path.split('/') {
        match segment {
            "." | "" => {}
            ".." => {
                if segments.pop().is_none() {
                    return false;
                }
            }
            name => segments.push(name),
        }
    }
    let path = segments.join("/");
    files.iter().any(|file| file.path == path || file.within(&path))
}

fn sha256(text: &str) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(text.as_bytes()) {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::super::tests::{file, shown};
    use super::*;

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        let files = |text: &str| [file("docs/a.md", text), file("docs/b.md", ""), file("wit/types.wit", "")];
        for fine in [
            "[b](b.md)",
            "[b](b.md#part)",
            "[w](../wit)",
            "[w](../wit/types.wit)",
            "[x](https://x.y)",
            "`[x](y)`",
            "[h](#h)",
        ] {
            assert_eq!(links_lead_somewhere(&files(fine)), [], "{fine}");
        }
        for bad in ["[c](c.md)", "see [c](../c.md).", "[x](../../../etc)"] {
            assert_eq!(links_lead_somewhere(&files(bad)).len(), 1, "{bad}");
        }
    }

    #[test]
    fn a_configuration_page_that_is_missing_or_old_is_found() {
        let source = "/// All.\npub struct Config {\n/// Ports.\npub ports: Vec<u16>,\n}";
        let source = file(docs::SOURCES[0], source);
        assert_eq!(configuration_is_current(std::slice::from_ref(&source)).len(), 1);
        assert_eq!(configuration_is_current(&[source.clone(), file(docs::PAGE, "old")]).len(), 1);
        let current = docs::render(&[&source.text]).unwrap();
        assert_eq!(configuration_is_current(&[source, file(docs::PAGE, &current)]), []);
    }

    #[test]
    fn a_change_to_a_released_contract_is_found() {
        let sums = file("wit/frozen/SHA256SUMS", &format!("{}  0.1.0/types.wit\n", sha256("one")));
        let frozen = |text: &str| file("wit/frozen/0.1.0/types.wit", text);
        assert_eq!(frozen_contracts_are_untouched(&[sums.clone(), frozen("one")]), []);
        assert_eq!(frozen_contracts_are_untouched(&[sums.clone(), frozen("two")]).len(), 1);
        assert_eq!(frozen_contracts_are_untouched(&[frozen("one")]).len(), 1);
        let gone = frozen_contracts_are_untouched(&[sums]);
        assert_eq!(shown(&gone), ["wit/frozen/SHA256SUMS:1: `0.1.0/types.wit` is gone; a released contract stays"]);
    }
}
