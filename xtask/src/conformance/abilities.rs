// SPDX-License-Identifier: Apache-2.0
//! Holds docs/capabilities.md against the recordings: what a vendor has been recorded doing, its adapter must not deny.

use std::fs;

use super::case::Case;
use crate::capabilities::{self, Matrix, Shown};
use crate::workspace::Workspace;

/// Words of the recordings, and the features that they show.
const WORDS: &[(&str, &str)] = &[
    ("stream", "streaming"),
    ("toolcall", "tools"),
    ("thinking", "reasoning"),
    ("image-in", "image-input"),
    ("json-mode", "json"),
    ("cache-hit", "caching"),
    ("cache-ctl", "caching"),
];

/// Prints what is not as recorded, and answers with how much that is; with `write`, notes what is shown first.
///
/// # Errors
/// When adapters, policies or the page cannot be read.
pub(super) fn check(workspace: &Workspace, cases: &[Case], write: bool) -> anyhow::Result<usize> {
    let files = capabilities::gather(&workspace.root)?;
    let matrix = Matrix::read(&files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect())?;
    let shown = shown(cases, &matrix);
    if write {
        capabilities::write(&workspace.root, &shown)?;
    }
    let page = fs::read_to_string(workspace.root.join(capabilities::PAGE)).unwrap_or_default();
    let found = matrix.contradictions(&shown, &page);
    println!("\ncapabilities: {} features of vendors are shown by the recordings", shown.len());
    found.iter().for_each(|line| println!("FAILED capabilities: {line}"));
    Ok(found.len())
}

/// What answers show that are none of an error.
fn shown(cases: &[Case], matrix: &Matrix) -> Shown {
    let mut shown = Shown::new();
    for case in cases.iter().filter(|case| (200..300).contains(&case.status)) {
        let vendor = case.protocol.as_deref().and_then(|protocol| matrix.vendor_of(&case.vendor, protocol));
        let Some(vendor) = vendor else { continue };
        for (_, feature) in WORDS.iter().filter(|(word, _)| case.features.iter().any(|found| found == word)) {
            shown.insert((vendor.to_owned(), (*feature).to_owned()));
        }
    }
    shown
}
