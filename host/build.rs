// SPDX-License-Identifier: Apache-2.0
//! Builds the policies of `../policies` into the program: a new vendor file is picked up by being there.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the policies are, from the folder of the crate: no absolute path is built in, so that a build can be moved.
const POLICIES: &str = "../policies";

fn main() -> io::Result<()> {
    let root = Path::new(POLICIES); // cargo runs this in the folder of the crate
    let mut files = Vec::new();
    find(root, &mut files)?;
    files.sort();
    let mut list = String::from("[\n");
    for path in &files {
        let name = path.strip_prefix(root).unwrap_or(path);
        let (name, path) = (name.display().to_string(), format!("/{}", path.display()));
        let _ = writeln!(list, "    ({name:?}, include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), {path:?}))),");
    }
    list.push(']');
    fs::write(PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("policies.rs"), list)
}

/// The same files that the host reads from a policy directory.
fn find(directory: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    println!("cargo::rerun-if-changed={}", directory.display());
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() && name != "examples" {
            find(&path, files)?;
        } else if path.is_file() && name.ends_with(".toml") {
            println!("cargo::rerun-if-changed={}", path.display());
            files.push(path);
        }
    }
    Ok(())
}
