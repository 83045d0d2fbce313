// SPDX-License-Identifier: Apache-2.0
//! The plugins that there are: an immutable value, made by [`crate::control`] from directories and uploads.
//!
//! A plugin is known by the name in its manifest, a version of it by the SHA-256 of its file. For each name one version is
//! active. It comes from the last directory that has the name, unless an operator has since activated another version by
//! the admin API: then that one stays until the file's content changes. A file that is refused takes nothing away.

pub mod shelf;
pub mod store;
pub mod trust;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use crate::config::place::Problem;

/// The active version of each plugin.
#[derive(Debug)]
pub struct Library<C> {
    /// By name.
    pub components: BTreeMap<String, Arc<C>>,
    /// What is known of each of them, by name.
    pub origins: BTreeMap<String, Origin>,
}

impl<C> Clone for Library<C> {
    fn clone(&self) -> Self {
        Self { components: self.components.clone(), origins: self.origins.clone() }
    }
}

impl<C> Default for Library<C> {
    fn default() -> Self {
        Self { components: BTreeMap::new(), origins: BTreeMap::new() }
    }
}

impl<C> Library<C> {
    /// Digest of the active version of a plugin.
    pub fn digest(&self, name: &str) -> Option<&str> {
        self.origins.get(name).map(|origin| origin.facts.digest.as_str())
    }

    /// Names whose active version differs, also those that only one of them has.
    pub fn differs_from(&self, other: &Self) -> Vec<String> {
        let names = self.origins.keys().chain(other.origins.keys().filter(|name| !self.origins.contains_key(*name)));
        names.filter(|name| self.digest(name) != other.digest(name)).cloned().collect()
    }

    /// Takes over what `from` has under this name, also that it has nothing.
    pub fn take(&mut self, name: &str, from: &Self) {
        match (from.components.get(name), from.origins.get(name)) {
            (Some(component), Some(origin)) => self.put(origin.clone(), Arc::clone(component)),
            _ => {
                self.components.remove(name);
                self.origins.remove(name);
            }
        }
    }

    /// Makes this the active version of its plugin.
    pub fn put(&mut self, origin: Origin, component: Arc<C>) {
        self.components.insert(origin.facts.name.clone(), component);
        self.origins.insert(origin.facts.name.clone(), origin);
    }
}

/// What a component says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// Name of the plugin.
    pub name: String,
    /// Kind: adapter, auth, limits, routing, filter.
    pub kind: String,
    /// The author's version.
    pub version: String,
    /// Version of the contract.
    pub api: String,
    /// SHA-256 of the file, in hex.
    pub digest: String,
    /// Its signature, whoever has made it.
    #[serde(skip)]
    pub seal: Option<trust::Seal>,
}

/// Where the active version of a plugin comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The version.
    pub facts: Facts,
    /// The file; none for one that was activated by the admin API.
    pub file: Option<PathBuf>,
}

/// Why something was not done; what was in force still is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Stable code.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do; may be empty.
    pub help: String,
    /// All that is wrong, when that is more than one thing or has a place.
    pub problems: Vec<Problem>,
}

impl Refused {
    /// A refusal without further problems.
    pub fn new(code: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: help.into(), problems: Vec::new() }
    }

    /// A policy, or a plugin with the policy, that is not good.
    pub fn of_problems(code: &'static str, problems: Vec<Problem>) -> Self {
        let message = match problems.as_slice() {
            [one] => one.to_string(),
            [first, ..] => format!("{first} (and {} more)", problems.len() - 1),
            [] => "refused without a reason".to_owned(),
        };
        Self { code, message, help: String::new(), problems }
    }

    /// A file of the state directory could not be read or written.
    pub fn of_io(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::new("state-dir", format!("{}: {error}", path.display()), "see that the state directory can be written")
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, message, help, .. } = self;
        if help.is_empty() { write!(f, "{message} [{code}]") } else { write!(f, "{message}: {help} [{code}]") }
    }
}

impl std::error::Error for Refused {}
