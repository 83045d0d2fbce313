// SPDX-License-Identifier: Apache-2.0
//! The single writer of what is in force: each change builds a whole new snapshot, aside, and installs it or is refused with
//! everything as it was. Requests only ever read the [`ArcSwap`].
//!
//! The work is done by one thread of its own ([`writer`]); a [`Control`] is a handle to it. What is in force and what was
//! refused can be read at any time from [`Control::status`], which asks nobody.

pub mod live;
mod stock;
mod writer;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use serde::Serialize;
use tokio::sync::oneshot;

use crate::config::load::{self, Policy};
use crate::config::place::{Problem, Sources};
use crate::library::{Facts, Library, Refused};
use crate::metrics::Metrics;

/// Changes that wait for the writer; one more is refused.
const WAITING_MAX: usize = 64;
/// When too many are waiting, the end is asked for again after this time.
const BUSY: Duration = Duration::from_millis(20);

/// Makes plugins of bytes, and snapshots of everything. The gateway has one; the tests here have another that needs no
/// compiled plugins.
pub trait Forge: Send + 'static {
    /// A loaded plugin.
    type Component: Send + Sync + 'static;
    /// What is in force.
    type Snapshot: Send + Sync + 'static;

    /// Checks and compiles a plugin file. Blocks.
    fn load(&self, bytes: &[u8]) -> Result<(Facts, Arc<Self::Component>), Refused>;

    /// Builds a snapshot with all its checks. Blocks.
    fn build(&self, inputs: Inputs<'_, Self::Component, Self::Snapshot>) -> Result<Self::Snapshot, Vec<Problem>>;

    /// A snapshot is in force now.
    fn installed(&self) {}
}

/// What a snapshot is built from.
pub struct Inputs<'b, C, S> {
    /// The policy files.
    pub policy: &'b Policy,
    /// The plugins.
    pub library: &'b Library<C>,
    /// What is in force; what has not changed can be taken from it.
    pub previous: Option<&'b S>,
    /// Number of the generation to be.
    pub generation: u64,
}

/// Where things are.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// Policy file or directory; none for the built-in policies.
    pub policies: Option<PathBuf>,
    /// File with the cluster's policy files ([`load::read_shared`]); none for a gateway alone.
    pub shared: Option<PathBuf>,
    /// Directory with the plugins that came with the program.
    pub built_in: Option<PathBuf>,
    /// Further plugin directories; the last one wins.
    pub plugins: Vec<PathBuf>,
    /// State directory; none keeps nothing.
    pub state: Option<PathBuf>,
}

impl Places {
    /// The policy files as they are now.
    ///
    /// # Errors
    /// As [`load::read`].
    pub fn policy(&self) -> Result<Sources, Vec<Problem>> {
        match (&self.policies, &self.shared) {
            (Some(directory), Some(copy)) => load::read_shared(directory, copy),
            (policies, _) => load::read(policies.as_deref()),
        }
    }

    /// Whether no policy file was written within this time.
    fn policy_is_settled(&self, since: Duration) -> bool {
        let all = [&self.policies, &self.shared];
        all.into_iter().flatten().all(|path| load::is_settled(path, since))
    }

    /// All plugin directories, the one that wins last.
    pub fn plugin_directories(&self) -> Vec<PathBuf> {
        self.built_in.iter().chain(&self.plugins).cloned().collect()
    }
}

/// What can be asked of the writer.
#[derive(Debug)]
pub enum Change {
    /// Files may have changed: look, and take what is new and good.
    Files,
    /// Read everything anew, secrets too, whether it has changed or not.
    Reload,
    /// Keys of vendors have changed: build what is in force anew with them.
    Keys,
    /// A new version of a plugin.
    Upload {
        /// The component.
        bytes: Vec<u8>,
        /// Put it in force, or only keep it.
        activate: bool,
    },
    /// Put a known version of a plugin in force.
    Activate {
        /// The plugin.
        name: String,
        /// The version.
        digest: String,
    },
    /// Put the version of a plugin in force that a cluster has.
    Follow {
        /// The plugin.
        name: String,
        /// The version.
        digest: String,
        /// The component; none if it may be kept here.
        bytes: Option<Vec<u8>>,
    },
    /// Put the version that was in force before back in force.
    RollBack {
        /// The plugin.
        name: String,
    },
    /// Forget what was uploaded or activated for a plugin.
    Remove {
        /// The plugin.
        name: String,
    },
    /// Put policies and plugins of an earlier generation in force.
    RollBackGeneration {
        /// Its number.
        number: u64,
    },
    /// Check policy files, as name and text, with the plugins in force, and change nothing.
    Validate {
        /// The files.
        files: Vec<(String, String)>,
    },
}

impl Change {
    /// Name in logs and metrics.
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Reload => "reload",
            Self::Keys => "keys",
            Self::Upload { .. } => "upload",
            Self::Activate { .. } => "activate",
            Self::Follow { .. } => "cluster",
            Self::RollBack { .. } => "roll-back",
            Self::Remove { .. } => "remove",
            Self::RollBackGeneration { .. } => "generation-roll-back",
            Self::Validate { .. } => "validate",
        }
    }
}

/// What came of a change that was not refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// `installed`, `unchanged`, `stored` (an upload that was not to be activated) or `valid`.
    pub result: &'static str,
    /// The generation that is in force now.
    pub generation: u64,
    /// The plugin that it was about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin: Option<Facts>,
    /// What was installed but takes effect only after a restart, and the like.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What is in force, and what was refused last.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// Number of the generation in force.
    pub generation: u64,
    /// Plugins by name.
    pub plugins: Vec<PluginStatus>,
    /// Files that are refused.
    pub refused: Vec<RefusedFile>,
    /// Why the policy files, as they are on disk now, are not in force.
    pub policy_refused: Option<Refused>,
    /// Generations that can be rolled back to, and the one in force, which is last.
    pub generations: Vec<GenerationStatus>,
}

/// A plugin in the library.
#[derive(Debug, Clone, Serialize)]
pub struct PluginStatus {
    /// The active version; none when every version is refused.
    #[serde(flatten)]
    pub facts: Facts,
    /// The file that it comes from, or `uploaded`.
    pub source: String,
    /// Versions that were active before, the last one first.
    pub previous: Vec<String>,
    /// Versions that are kept in the state directory, the newest one first.
    pub stored: Vec<String>,
    /// Why a newer version is not in force.
    pub last_refusal: Option<Refused>,
}

/// A file in a plugin directory that is refused.
#[derive(Debug, Clone, Serialize)]
pub struct RefusedFile {
    /// The file.
    pub path: String,
    /// SHA-256 of its content; empty if it could not be read.
    pub digest: String,
    /// Why.
    pub refusal: Refused,
}

/// A generation.
#[derive(Debug, Clone, Serialize)]
pub struct GenerationStatus {
    /// Its number; they count from 1 at each start.
    pub number: u64,
    /// When it came into force, in seconds since 1970.
    pub at_unix_s: u64,
    /// What asked for it.
    pub cause: String,
    /// Digest of each plugin.
    pub plugins: BTreeMap<String, String>,
    /// Names of the policy files.
    pub policies: Vec<String>,
    /// Digest over the policy files.
    pub policies_digest: String,
}

impl GenerationStatus {
    fn of<C>(generation: &writer::Generation<C>) -> Self {
        let since = generation.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let origins = generation.library.origins.iter();
        Self {
            number: generation.number,
            at_unix_s: since.as_secs(),
            cause: generation.cause.to_owned(),
            plugins: origins.map(|(name, origin)| (name.clone(), origin.facts.digest.clone())).collect(),
            policies: generation.policy.sources.files().map(|(name, _)| name.to_owned()).collect(),
            policies_digest: generation.policy.sources.digest(),
        }
    }
}

/// Where requests find what is in force.
pub type InForce<F> = Arc<ArcSwap<<F as Forge>::Snapshot>>;

/// What a check has found, and the snapshot that would have been in force.
pub type Checked<F> = (Arc<Status>, Arc<<F as Forge>::Snapshot>);

/// A change with the place where its answer is awaited; none ends the writer.
struct Command {
    change: Option<Change>,
    answer: Option<oneshot::Sender<Result<Answer, Refused>>>,
}

/// The handle; cheap to clone. The writer ends when the last one is dropped.
#[derive(Clone)]
pub struct Control {
    commands: SyncSender<Command>,
    status: Arc<ArcSwap<Status>>,
}

impl Control {
    /// Builds the first generation, and starts the writer with it. Blocks.
    pub fn start<F: Forge>(
        forge: F,
        places: &Places,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, InForce<F>), Vec<Problem>> {
        let writer = writer::Writer::start(forge, places, metrics, true)?;
        let (snapshot, status) = (writer.snapshot(), writer.status());
        let (commands, inbox) = std::sync::mpsc::sync_channel(WAITING_MAX);
        std::thread::Builder::new().name("control".to_owned()).spawn(move || writer.run(&inbox)).map_err(|error| {
            vec![Problem::new("control", format!("no thread: {error}"), "raise the limit of threads")]
        })?;
        Ok((Self { commands, status }, snapshot))
    }

    /// Asks for a change and waits for what comes of it. Dropping the future does not take the change back.
    pub async fn ask(&self, change: Change) -> Result<Answer, Refused> {
        self.asked(Some(change)).await
    }

    async fn asked(&self, change: Option<Change>) -> Result<Answer, Refused> {
        let (answer, answered) = oneshot::channel();
        self.send(Command { change, answer: Some(answer) })?;
        answered.await.map_err(|_| stopped())?
    }

    /// Says that files may have changed; what comes of it is in the log and the status.
    pub fn files_changed(&self) {
        // a full queue has looks at the files in it, or will have the next one of the watcher
        let _ = self.send(Command { change: Some(Change::Files), answer: None });
    }

    /// Changes nothing any more: what is in force stays. Comes back when the last change is through.
    pub async fn end(&self) {
        while let Err(refused) = self.asked(None).await {
            if refused.code != "busy" {
                return;
            }
            tokio::time::sleep(BUSY).await;
        }
    }

    /// What is in force, and what was refused last.
    pub fn status(&self) -> Arc<Status> {
        self.status.load_full()
    }

    fn send(&self, command: Command) -> Result<(), Refused> {
        self.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => Refused::new("busy", "too many changes are waiting", "try again in a second"),
            TrySendError::Disconnected(_) => stopped(),
        })
    }
}

/// Runs the checks of a start and writes nothing: what there is, or everything that is wrong.
pub fn check<F: Forge>(forge: F, places: &Places, metrics: Arc<Metrics>) -> Result<Checked<F>, Vec<Problem>> {
    let writer = writer::Writer::start(forge, places, metrics, false)?;
    Ok((writer.status().load_full(), writer.snapshot().load_full()))
}

fn stopped() -> Refused {
    Refused::new("stopped", "the gateway is stopping", "ask again after its restart")
}

#[cfg(test)]
mod tests;
