// SPDX-License-Identifier: Apache-2.0
//! What a node keeps of its cluster beside the directory: how far it has come, the policy files, which versions of plugins
//! are active, and what it has seen in its own folders. With it a node starts when Redis is away.
//!
//! It is the folder `cluster` of the state directory: `copy.json`, and `policies.json`, which the control plane reads.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::wire::Position;
use crate::config::load::Files;
use crate::config::place::hex;
use crate::library::store::write_whole;

/// Documents that are known to be removed.
const REMOVED_MAX: usize = 10_000;
/// Name of the folder in the state directory.
const FOLDER: &str = "cluster";

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Copy {
    /// Id of this node, made once.
    pub(super) node: String,
    /// The cluster; empty before the first one.
    pub(super) epoch: String,
    /// Number of the last change that is known.
    pub(super) number: u64,
    /// Its head.
    pub(super) head: String,
    /// When the cluster was seen last, in seconds since 1970, as far as that is kept.
    pub(super) looked_s: u64,
    /// The cluster's policy files by name.
    pub(super) policies: BTreeMap<String, Agreed>,
    /// The cluster's plugins by name: the digest of the active version.
    pub(super) plugins: BTreeMap<String, Agreed>,
    /// Documents that were removed, by the name of their entry, with the change that has: so that none comes back when Redis
    /// is set back.
    pub(super) removed: BTreeMap<String, u64>,
    /// Digests of the policy files that were seen in the folder.
    pub(super) seen: BTreeMap<String, String>,
    /// Plugins that were active here when the cluster was followed last.
    pub(super) active: BTreeMap<String, Active>,
}

/// What a cluster has under a name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Agreed {
    /// The change that made it.
    pub(super) version: u64,
    /// The text of a policy file, or the digest of a component; none if it is no more.
    pub(super) content: Option<String>,
}

/// A plugin as it was active here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Active {
    /// The digest; none for none.
    pub(super) digest: Option<String>,
    /// The version that the cluster had then.
    pub(super) version: u64,
}

/// Where it is kept.
pub(super) struct Shelf {
    folder: PathBuf,
}

impl Shelf {
    /// The copy of a state directory; a new one if there is none.
    ///
    /// # Errors
    /// It cannot be read or made.
    pub(super) fn open(state: &Path) -> Result<(Self, Copy), String> {
        let shelf = Self { folder: state.join(FOLDER) };
        let path = shelf.folder.join("copy.json");
        let problem = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        fs::create_dir_all(&shelf.folder).map_err(|error| problem(&error))?;
        match fs::read(&path) {
            Ok(bytes) => {
                let help = "remove the folder, and the node takes everything from the cluster anew";
                let copy = serde_json::from_slice(&bytes);
                Ok((shelf, copy.map_err(|error| format!("{}: {help}", problem(&error)))?))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut random = [0; 8];
                getrandom::fill(&mut random).map_err(|error| problem(&error))?;
                let copy = Copy { node: hex(&random), ..Copy::default() };
                shelf.save(&copy).map_err(|error| problem(&error))?;
                Ok((shelf, copy))
            }
            Err(error) => Err(problem(&error)),
        }
    }

    /// The file with the cluster's policy files.
    pub(super) fn policies(&self) -> PathBuf {
        policies(&self.folder)
    }

    /// Keeps the copy. The policy files come first: what is said to be known is there.
    pub(super) fn save(&self, copy: &Copy) -> io::Result<()> {
        let files = serde_json::to_vec(&copy.files())?;
        if fs::read(self.policies()).ok().as_deref() != Some(&files) {
            write_whole(&self.policies(), &files)?;
        }
        write_whole(&self.folder.join("copy.json"), &serde_json::to_vec(copy)?)
    }
}

/// The file with the cluster's policy files in a state directory.
pub(super) fn policies_of(state: &Path) -> PathBuf {
    policies(&state.join(FOLDER))
}

fn policies(folder: &Path) -> PathBuf {
    folder.join("policies.json")
}

impl Copy {
    /// How far the node has come.
    pub(super) fn position(&self) -> Position {
        Position { number: self.number, head: self.head.clone() }
    }

    /// Notes that a document is no more.
    pub(super) fn remove(&mut self, name: String, version: u64) {
        self.removed.insert(name, version);
        if self.removed.len() > REMOVED_MAX
            && let Some(oldest) = self.removed.iter().min_by_key(|(_, version)| **version).map(|(name, _)| name.clone())
        {
            self.removed.remove(&oldest);
        }
    }

    /// The cluster's policy files.
    pub(super) fn files(&self) -> Files {
        let there = |(name, agreed): (&String, &Agreed)| Some((name.clone(), agreed.content.clone()?));
        self.policies.iter().filter_map(there).collect()
    }
}
