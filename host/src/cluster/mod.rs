// SPDX-License-Identifier: Apache-2.0
//! Gateways that share the directory, policy files and plugins through a Redis, so that a change made on one is in force on
//! all.
//!
//! What is in Redis are [`entry`]s, each with a version, a digest and a tag under the master key. A change is one script upon
//! the change before it ([`wire`]); it is announced, and looked for now and then. [`follow`] takes over what has changed,
//! [`share`] gives what has changed in the folders and plugins of this node, [`store`] is the directory's store that asks the
//! cluster first. Each node keeps a [`copy`], so that it starts and serves when Redis is away; then nothing can be changed by
//! the admin API. One node leads ([`lead`]).

mod copy;
mod entry;
mod follow;
mod lead;
mod share;
mod status;
mod store;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore};

use crate::config::place::hex;
use crate::control::{Control, Places};
use crate::directory::audit::Line;
use crate::directory::beats::Beats;
use crate::directory::document::Document;
use crate::directory::seal;
use crate::directory::store::{Embedded, Store};
use crate::directory::{Directory, Peers};
use crate::keys::Secret;
use crate::library::Refused;
use crate::metrics::Metrics;
use crate::state::link::Server;
use copy::{Copy, Shelf};
use entry::{Entry, Name, Signer};
use wire::{Sent, Wire, Written};

pub use status::alone;

/// Things that a node cannot take which are told one by one.
const PROBLEMS_MAX: usize = 100;
/// How long a connection that broke is left alone.
const PAUSE: Duration = Duration::from_millis(250);

/// How a gateway is a node of a cluster.
pub struct Settings {
    /// The Redis.
    pub server: Server,
    /// Begin of every key.
    pub prefix: String,
    /// Name of the node, for people.
    pub name: Option<String>,
    /// How long Redis may take for an answer.
    pub timeout: Duration,
    /// How often it is looked for changes.
    pub poll: Duration,
    /// How long nothing has to be heard of a leader until another one leads.
    pub lease: Duration,
}

/// A node of a cluster. A clone is the same node.
#[derive(Clone)]
pub struct Cluster(Arc<Node>);

struct Node {
    settings: Settings,
    id: String,
    name: String,
    wire: Wire,
    signer: Signer,
    state: PathBuf,
    shelf: Shelf,
    copy: Mutex<Copy>,
    /// One look at the cluster at a time, and one look at what is here: whoever has the permit works.
    following: Semaphore,
    sharing: Semaphore,
    away: AtomicBool,
    /// The token with which this node leads; 0 if it does not.
    token: AtomicU64,
    /// What cannot be taken or given, by name.
    problems: Mutex<BTreeMap<String, String>>,
    /// Names of entries that are to be read again.
    again: Mutex<BTreeSet<String>>,
    looks: AtomicU64,
    /// When the cluster was seen last, in seconds since 1970.
    looked_s: AtomicU64,
    beats: Arc<Beats>,
    metrics: Arc<Metrics>,
    unsent_usage: Mutex<BTreeMap<(u64, String), String>>,
    /// Largest component, in bytes.
    component_bytes_max: OnceLock<usize>,
    directory: OnceLock<Directory>,
    control: OnceLock<(Control, Places)>,
    /// Something may have changed in Redis.
    announced: Notify,
    /// Something may have changed here, or was taken over.
    changed: Notify,
    shown: ArcSwap<share::Shown>,
}

/// Why something with the cluster did not succeed.
#[derive(Debug, Clone)]
enum Trouble {
    /// Redis does not answer.
    Away(String),
    /// It answers, and that is not good.
    Wrong(String),
}

impl Trouble {
    fn text(&self) -> &str {
        match self {
            Self::Away(text) | Self::Wrong(text) => text,
        }
    }

    fn refusal(&self) -> Refused {
        let message = format!("the cluster cannot be asked: {}", self.text());
        let help = "ask again when its Redis answers; requests of callers go on meanwhile";
        Refused::new("cluster-away", message, help)
    }
}

impl Cluster {
    /// A node that has asked nothing yet. `master` is the master key, the same on all nodes.
    ///
    /// # Errors
    /// What is wrong with the address or with the copy in the state directory.
    pub fn open(
        settings: Settings,
        state: &Path,
        master: &Secret,
        beats: Arc<Beats>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, String> {
        let signer = Signer::new(seal::derived(master, entry::INFO)?, &settings.prefix);
        let wire = Wire::new(&settings.server, &settings.prefix, settings.timeout)?;
        let (shelf, copy) = Shelf::open(state)?;
        let looked_s = AtomicU64::new(copy.looked_s);
        let id = copy.node.clone();
        let name = settings.name.clone().unwrap_or_else(|| id.chars().take(8).collect());
        Ok(Self(Arc::new(Node {
            settings,
            id,
            name,
            wire,
            signer,
            state: state.to_owned(),
            shelf,
            copy: Mutex::new(copy),
            following: Semaphore::new(1),
            sharing: Semaphore::new(1),
            away: AtomicBool::new(false),
            token: AtomicU64::new(0),
            problems: Mutex::default(),
            again: Mutex::default(),
            looks: AtomicU64::new(0),
            looked_s,
            beats,
            metrics,
            unsent_usage: Mutex::default(),
            component_bytes_max: OnceLock::new(),
            directory: OnceLock::new(),
            control: OnceLock::new(),
            announced: Notify::new(),
            changed: Notify::new(),
            shown: ArcSwap::default(),
        })))
    }

    /// The directory's store: what is changed there is told the cluster first.
    #[must_use]
    pub fn store(&self, own: Embedded) -> Arc<dyn Store> {
        Arc::new(store::Shared::new(own, Arc::clone(&self.0)))
    }

    /// Where the control plane finds the cluster's policy files.
    #[must_use]
    pub fn policies(&self) -> PathBuf {
        self.0.shelf.policies()
    }

    /// The same of a state directory, without asking anybody.
    #[must_use]
    pub fn policies_of(state: &Path) -> PathBuf {
        copy::policies_of(state)
    }

    /// Takes over what the cluster has, or begins it. When Redis is away, what the node knows holds.
    ///
    /// # Errors
    /// The node is none of this cluster, or Redis is away and nothing is known.
    pub async fn join(&self, directory: &Directory) -> Result<(), String> {
        let node = &self.0;
        let _ = node.directory.set(directory.clone());
        directory.share_with(Arc::new(self.clone()));
        match node.catch_up().await {
            Ok(()) => Ok(()),
            Err(Trouble::Away(why)) if !node.copy().epoch.is_empty() => {
                tracing::warn!("the cluster's Redis is away, what this node knows of it holds: {why}");
                Ok(())
            }
            Err(Trouble::Away(why)) => Err(format!(
                "the cluster's Redis is away, and this node knows nothing of the cluster yet ({why}); start Redis first"
            )),
            Err(Trouble::Wrong(why)) => Err(why),
        }
    }

    /// Before the first generation is built: sees that the cluster's plugins lie ready for it.
    ///
    /// # Errors
    /// The state directory cannot be written.
    pub async fn prepare(&self, component_bytes_max: usize) -> Result<(), String> {
        let _ = self.0.component_bytes_max.set(component_bytes_max);
        match self.0.place_plugins().await {
            Ok(()) | Err(Trouble::Away(_)) => Ok(()),
            Err(Trouble::Wrong(why)) => Err(why),
        }
    }

    /// Follows and gives what the control plane has to do with, once, before anything is served.
    pub async fn attach(&self, control: Control, places: Places) {
        let _ = self.0.control.set((control, places));
        self.0.share(true).await;
    }

    /// Follows, gives and leads as long as the process lives.
    pub async fn run(&self) {
        let node = &self.0;
        tokio::join!(node.listen(), node.follow(), node.keep_sharing(), node.keep_leading(), node.keep_beating());
    }

    /// Says that files of this node may have changed.
    pub fn files_changed(&self) {
        self.0.changed.notify_one();
    }

    /// Gives what was changed here by the admin API; what cannot be given now is given later.
    pub async fn share(&self) {
        self.0.share(false).await;
    }

    /// Refuses what could not be told the cluster.
    ///
    /// # Errors
    /// `cluster-away`
    pub async fn there(&self) -> Result<(), Refused> {
        self.0.catch_up().await.map_err(|trouble| trouble.refusal())
    }

    /// Lets another node lead: this one is about to end.
    pub async fn leave(&self) {
        self.0.leave().await;
    }
}

impl Peers for Cluster {
    fn catch_up(&self) -> Pin<Box<dyn Future<Output = Result<(), Refused>> + Send + '_>> {
        Box::pin(async { self.0.catch_up().await.map_err(|trouble| trouble.refusal()) })
    }
}

impl Node {
    fn copy(&self) -> MutexGuard<'_, Copy> {
        self.copy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the copy, and keeps it.
    fn keep(&self, change: impl FnOnce(&mut Copy)) -> Result<(), Trouble> {
        // Whoever looks at the copy while it is written waits; that is nobody whom a caller waits for.
        let (saved, number) = {
            let mut copy = self.copy();
            let before = copy.clone();
            change(&mut copy);
            if *copy == before {
                return Ok(());
            }
            copy.looked_s = self.looked_s.load(Ordering::Relaxed);
            (self.shelf.save(&copy), copy.number)
        };
        self.metrics.in_cluster(number, self.problems().len());
        saved.map_err(|error| Trouble::Wrong(format!("the state directory does not keep the cluster: {error}")))
    }

    fn problems(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something cannot be taken or given; told once.
    fn refused(&self, name: &str, why: &str) {
        let number = self.copy().number;
        let mut problems = self.problems();
        if problems.get(name).is_some_and(|known| known == why) || problems.len() >= PROBLEMS_MAX {
            return;
        }
        tracing::warn!(entry = name, "the cluster has something that is not in force here: {why}");
        if let Some(directory) = self.directory.get() {
            directory.feed().change("cluster", serde_json::json!({ "node": self.name, "entry": name, "refused": why }));
        }
        problems.insert(name.to_owned(), why.to_owned());
        self.metrics.in_cluster(number, problems.len());
    }

    /// Something is good now.
    fn good(&self, name: &str) {
        self.problems().remove(name);
    }

    fn away<T>(&self, answer: Result<T, String>) -> Result<T, Trouble> {
        let was_away = self.away.swap(answer.is_err(), Ordering::Relaxed);
        self.metrics.cluster_away(answer.is_err());
        match &answer {
            Err(why) if !was_away => tracing::warn!("the cluster's Redis is away: {why}"),
            Ok(_) if was_away => tracing::info!("the cluster's Redis is there"),
            _ => {}
        }
        answer.map_err(Trouble::Away)
    }

    /// An entry as it is sent.
    fn sealed(&self, epoch: &str, name: &Name, entry: &Entry, component: Option<String>) -> Result<Sent, Trouble> {
        let content = self.signer.seal(epoch, name, entry).map_err(Trouble::Wrong)?;
        Ok(Sent { name: name.to_string(), gone: entry.body.is_none(), component, content })
    }

    /// Makes a change upon the last one that is known: entries without their versions, which all get that of the change, and
    /// a line of the audit log. Answers with the change.
    async fn write(
        &self,
        before: u64,
        entries: Vec<(Name, Option<Vec<u8>>, Option<String>)>,
        line: Option<&Line>,
    ) -> Result<Result<wire::Position, Written>, Trouble> {
        if self.is_away() {
            return Err(Trouble::Away("it did not answer when it was asked last".to_owned())); // nobody waits for it now
        }
        let epoch = self.copy().epoch.clone();
        let version = before + 1;
        let mut sent = Vec::with_capacity(entries.len());
        for (name, body, component) in entries {
            sent.push(self.sealed(&epoch, &name, &Entry { version, body }, component)?);
        }
        let line = line.map(|line| self.line(&epoch, line)).transpose()?;
        let head = new_head()?;
        let written = self.wire.write(&epoch, before, &head, &sent, line.as_slice()).await;
        match self.away(written)? {
            Written::Done => Ok(Ok(wire::Position { number: version, head })),
            Written::Other => Err(Trouble::Wrong("another cluster is in this Redis".to_owned())),
            other => Ok(Err(other)),
        }
    }

    /// A line of the audit log as it is kept.
    fn line(&self, epoch: &str, line: &Line) -> Result<(u64, Vec<u8>), Trouble> {
        let body = serde_json::to_vec(line).map_err(|error| Trouble::Wrong(error.to_string()))?;
        let entry = Entry { version: line.number, body: Some(body) };
        let content = self.signer.seal(epoch, &Name::Line(line.number), &entry).map_err(Trouble::Wrong)?;
        Ok((line.number, content))
    }
}

/// A document as an entry.
fn of_document(document: &Document) -> Result<(Name, Option<Vec<u8>>), Trouble> {
    let body = document.to_bytes().map_err(|error| Trouble::Wrong(error.to_string()))?;
    Ok((Name::Document(document.kind, document.id.clone()), Some(body)))
}

/// What tells a change from another one of the same number.
fn new_head() -> Result<String, Trouble> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| Trouble::Wrong(error.to_string()))?;
    Ok(hex(&random))
}
