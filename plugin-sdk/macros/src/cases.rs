// SPDX-License-Identifier: Apache-2.0
//! Collects the golden cases that travel inside the component, for the self-test at load time.

use std::path::{Path, PathBuf};

use proc_macro2::{Literal, Span, TokenStream};
use quote::quote;
use serde_json::Value;
use syn::{Error, Result};

/// The self-test has to be quick and the component small; a plugin keeps its other cases in the folder.
const EMBEDDED_BYTES_MAX: usize = 64 << 10;

/// A block expression of type `&[u8; N]`. Every file that was read is named with `include_bytes!`, so that cargo builds
/// again when one changes.
pub(crate) fn embed(input: &TokenStream) -> Result<TokenStream> {
    if !input.is_empty() {
        return Err(Error::new(Span::call_site(), "takes no arguments"));
    }
    let root = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    let mut cases = Vec::new();
    let mut watched = Vec::new();
    for path in case_files(&root.join("cases")) {
        if let Some(case) = self_test_case(&path)? {
            cases.push(case);
        }
        let path = path.to_string_lossy().into_owned();
        watched.push(quote! { const _: &[u8] = ::core::include_bytes!(#path); });
    }
    let bytes = Value::Array(cases).to_string().into_bytes();
    if bytes.len() > EMBEDDED_BYTES_MAX {
        let message = format!(
            "the self-test cases take {} bytes, {EMBEDDED_BYTES_MAX} are allowed: remove `self_test` from some of cases/*.json",
            bytes.len()
        );
        return Err(Error::new(Span::call_site(), message));
    }
    let bytes = Literal::byte_string(&bytes);
    Ok(quote! {{ #(#watched)* #bytes }})
}

/// The case files in order of their names; none if there is no folder.
fn case_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let is_json = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(is_json).collect();
    paths.sort();
    paths
}

fn self_test_case(path: &Path) -> Result<Option<Value>> {
    let refuse = |why: String| Error::new(Span::call_site(), format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    let mut case: Value = serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
    if case.get("self_test") != Some(&Value::Bool(true)) {
        return Ok(None);
    }
    if text.contains("\"stream_file\"") {
        return Err(refuse("a self-test case holds its stream in place (`stream`), not in a file".to_owned()));
    }
    if let Some(members) = case.as_object_mut()
        && !members.contains_key("name")
    {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        members.insert("name".to_owned(), Value::String(name));
    }
    Ok(Some(case))
}
