// SPDX-License-Identifier: Apache-2.0
//! The forge of the gateway: components by the plugin runtime, snapshots for the request path.

use std::sync::Arc;

use super::{Forge, Inputs};
use crate::config::place::Problem;
use crate::directory::Directory;
use crate::library::trust::Seal;
use crate::library::{Facts, Refused};
use crate::listener::Certificates;
use crate::plugin::{Component, Refusal, Runtime};
use crate::snapshot::{Build, Snapshot};
use crate::state::Memory;

/// What plugins and snapshots are made with; all of it lives as long as the process.
pub struct Live {
    /// Loads components.
    pub runtime: Arc<Runtime>,
    /// Where plugins keep their values.
    pub state: Arc<Memory>,
    /// Where plugins find virtual keys.
    pub directory: Directory,
    /// Where plugins put their metrics.
    pub metrics: prometheus::Registry,
    /// Of the listeners; read again with each generation.
    pub certificates: Certificates,
}

impl Forge for Live {
    type Component = Component;
    type Snapshot = Snapshot;

    fn load(&self, bytes: &[u8]) -> Result<(Facts, Arc<Component>), Refused> {
        let component = self.runtime.load(bytes)?;
        let manifest = component.manifest();
        let facts = Facts {
            name: manifest.name.clone(),
            kind: component.kind().name().to_owned(),
            version: manifest.version.clone(),
            api: manifest.api.clone(),
            digest: component.digest().to_owned(),
            seal: Seal::of(bytes),
        };
        Ok((facts, component))
    }

    fn build(&self, inputs: Inputs<'_, Component, Snapshot>) -> Result<Snapshot, Vec<Problem>> {
        Snapshot::build(&Build {
            config: &inputs.policy.config,
            sources: &inputs.policy.sources,
            library: inputs.library,
            state: &self.state,
            directory: &self.directory,
            metrics: &self.metrics,
            previous: inputs.previous,
            generation: inputs.generation,
        })
    }

    fn installed(&self) {
        match self.certificates.reload() {
            Ok(0) => {}
            Ok(renewed) => tracing::info!(renewed, "certificates were read anew"),
            Err(error) => tracing::warn!("a certificate stays as it was: {error}"),
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code, refusal.message, refusal.help)
    }
}
