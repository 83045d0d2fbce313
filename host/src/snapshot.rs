// SPDX-License-Identifier: Apache-2.0
//! What is in force, as one immutable value. [`Snapshot::build`] checks everything that a policy says and answers with a
//! whole snapshot or with everything that is wrong; it never changes one that exists. Requests keep the snapshot that they
//! began with, so an old plugin goes when its last exchange lets go.

mod builder;
mod hedge;
mod jobs;
mod reach;
mod services;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::config::place::{Problem, Sources};
use crate::config::{Config, Limits, Timeouts};
use crate::directory::Directory;
use crate::documents::Documents;
use crate::library::Library;
use crate::plugin::{Component, Plugin};
use crate::routes::{Models, Routes, Service};
use crate::state::Memory;
use crate::upstream::Endpoint;

pub use jobs::{JobRules, Webhook};
pub use reach::{PROXY_HELP, read_proxy};

use builder::Builder;

/// What is in force.
pub struct Snapshot {
    /// Its number; each change that passes makes the next one.
    pub generation: u64,
    /// What is served where.
    pub routes: Routes,
    /// Plain HTTP upstreams by name.
    pub services: BTreeMap<String, Arc<Service>>,
    /// Where models are served.
    pub models: Models,
    /// Ceilings of the data path.
    pub limits: Limits,
    /// Time-outs.
    pub timeouts: Timeouts,
    /// What holds for jobs.
    pub jobs: JobRules,
    /// Optional vendors that are left out: name, and what they lack.
    pub dormant: Vec<(String, String)>,
    plugins: HashMap<String, Configured>,
    endpoints: HashMap<String, Arc<Endpoint>>,
}

/// A plugin with its configuration. The next snapshot takes it over if nothing that made it has changed, so that a change
/// elsewhere costs it neither its instances nor its state.
#[derive(Clone)]
struct Configured {
    /// SHA-256 over all that made it.
    fingerprint: [u8; 32],
    /// SHA-256 over what decides what is asked of others for it.
    sources: [u8; 32],
    /// Name of its component.
    component: Arc<str>,
    plugin: Plugin,
}

impl Configured {
    /// What an auth plugin was told by others.
    fn documents(&self) -> Option<Arc<Documents>> {
        match &self.plugin {
            Plugin::Auth(auth) => Some(Arc::clone(auth.documents())),
            _ => None,
        }
    }
}

/// What a snapshot is built from.
pub struct Build<'a> {
    /// What the operator wrote.
    pub config: &'a Config,
    /// The text of it, for places in errors.
    pub sources: &'a Sources,
    /// The plugins that are loaded.
    pub library: &'a Library<Component>,
    /// Where plugins keep their values.
    pub state: &'a Arc<Memory>,
    /// Where plugins find virtual keys.
    pub directory: &'a Directory,
    /// Where plugins put their metrics.
    pub metrics: &'a prometheus::Registry,
    /// What is in force now.
    pub previous: Option<&'a Snapshot>,
    /// Number of the new snapshot.
    pub generation: u64,
}

impl Snapshot {
    /// Builds a snapshot. Blocking: it reads secrets and runs plugins.
    ///
    /// # Errors
    /// Everything that is wrong, each with its place and the cure.
    pub fn build(build: &Build<'_>) -> Result<Self, Vec<Problem>> {
        Builder::new(build).run()
    }

    /// The configured plugins, by names such as `plugins.fair` and `vendors.echo`.
    pub fn plugins(&self) -> impl Iterator<Item = (&str, &Plugin)> {
        self.plugins.iter().map(|(name, configured)| (name.as_str(), &configured.plugin))
    }

    /// Those of them that are made of this component.
    pub fn made_of(&self, component: &str) -> impl Iterator<Item = (&str, &Plugin)> {
        let of_it = self.plugins.iter().filter(move |(_, configured)| *configured.component == *component);
        of_it.map(|(name, configured)| (name.as_str(), &configured.plugin))
    }
}
