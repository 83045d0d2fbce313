// SPDX-License-Identifier: Apache-2.0
//! The rules of the house that neither rustc nor clippy knows (ARCHITECTURE.md, CONTRIBUTING.md). A rule is a function from
//! the files to findings; each has a test that shows it a bad sample.

mod crates;
mod documents;
mod files;
mod functions;
mod layers;
mod panics;
mod tokens;
mod walls;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Something that breaks a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// Path below the root of the repository.
    pub path: String,
    /// Line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// What is wrong and what to do.
    pub text: String,
}

impl Finding {
    /// A finding at a line of a file.
    fn at(file: &File, line: usize, text: impl Into<String>) -> Self {
        Self { path: file.path.clone(), line, text: text.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(out, "{}: {}", self.path, self.text),
            line => write!(out, "{}:{line}: {}", self.path, self.text),
        }
    }
}

/// A text file of the repository.
#[derive(Debug, Clone, Default)]
pub(crate) struct File {
    /// Path below the root, with `/`.
    pub path: String,
    /// Content.
    pub text: String,
}

impl File {
    /// Whether the path ends so.
    fn is(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|it| it == extension)
    }

    /// Whether the file lies in a folder.
    fn within(&self, folder: &str) -> bool {
        self.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
    }

    /// Rust that this repository compiles; what `plugin new` copies is a template and belongs to whoever uses it.
    fn is_our_rust(&self) -> bool {
        self.is("rs") && !self.path.contains("/template/")
    }
}

type Rule = fn(&[File]) -> Vec<Finding>;

const RULES: &[Rule] = &[
    files::headers,
    files::lengths,
    files::leftovers,
    functions::lengths,
    panics::none_outside_tests,
    layers::downwards,
    walls::only_the_plugin_folder_names_the_engine,
    walls::only_edges_open_sockets,
    walls::the_host_names_no_vendor,
    crates::no_plugin_depends_on_the_host,
    documents::links_lead_somewhere,
    documents::configuration_is_current,
    documents::capabilities_are_current,
    documents::frozen_contracts_are_untouched,
];

/// Checks every rule and prints the findings.
///
/// # Errors
/// When there is a finding, or a file cannot be read.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let files = read(root)?;
    let mut findings: Vec<_> = RULES.iter().flat_map(|rule| rule(&files)).collect();
    findings.sort();
    findings.dedup();
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        1 => bail!("1 finding"),
        count => bail!("{count} findings"),
    }
}

/// Every text file of the repository, without what is built, hidden by its name, or too large to be source.
fn read(root: &Path) -> anyhow::Result<Vec<File>> {
    const NOT_SOURCE: &[&str] = &[".git", ".venv", "__pycache__", "node_modules", "target", "var"];
    const BYTES_MAX: u64 = 4 << 20;
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::from(root)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            let name = entry.file_name();
            if kind.is_dir() && !NOT_SOURCE.iter().any(|it| name == *it) {
                folders.push(path);
            } else if kind.is_file()
                && entry.metadata()?.len() <= BYTES_MAX
                && let Ok(text) = fs::read_to_string(&path)
            {
                let below = path.strip_prefix(root).unwrap_or(&path);
                files.push(File { path: below.to_string_lossy().replace('\\', "/"), text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// The file at a path.
fn find<'a>(files: &'a [File], path: &str) -> Option<&'a File> {
    files.iter().find(|file| file.path == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file for the tests of the rules.
    pub(super) fn file(path: &str, text: &str) -> File {
        File { path: path.into(), text: text.into() }
    }

    /// Findings as they are printed.
    pub(super) fn shown(findings: &[Finding]) -> Vec<String> {
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn findings_can_be_clicked_on() {
        let file = file("host/src/lib.rs", "");
        assert_eq!(Finding::at(&file, 7, "no").to_string(), "host/src/lib.rs:7: no");
        assert_eq!(Finding::at(&file, 0, "no").to_string(), "host/src/lib.rs: no");
    }

    #[test]
    fn what_is_built_is_not_read() {
        let root = tempfile::tempdir().unwrap();
        for path in ["a/b.rs", "target/c.rs", "a/target/d.rs", ".git/e"] {
            fs::create_dir_all(root.path().join(path).parent().unwrap()).unwrap();
            fs::write(root.path().join(path), "x").unwrap();
        }
        fs::write(root.path().join("binary"), [0xff, 0xfe]).unwrap();
        let paths: Vec<_> = read(root.path()).unwrap().into_iter().map(|file| file.path).collect();
        assert_eq!(paths, ["a/b.rs"]);
    }
}
