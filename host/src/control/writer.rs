// SPDX-License-Identifier: Apache-2.0
//! The thread behind [`super::Control`]. It alone decides which version of each plugin is active and which policy is in force.
//!
//! Files can change in any combination. All changes at once are tried first, since a plugin and the policy that needs it
//! come together; if that is refused, each plugin on its own and then the policy, so that one broken file blocks nothing.
//! What was refused is set aside until it changes, or the policy does.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;

use super::stock::Stock;
use super::{Answer, Change, Command, Forge, Inputs, Places, Status};
use crate::config::load::{self, Policy};
use crate::config::place::Problem;
use crate::library::shelf::SETTLE;
use crate::library::trust::Trust;
use crate::library::{Facts, Library, Refused};
use crate::metrics::{Change as Counted, Metrics};

/// What is or was in force, and can be rolled back to.
pub(super) struct Generation<C> {
    pub(super) number: u64,
    pub(super) at: SystemTime,
    pub(super) cause: &'static str,
    pub(super) policy: Policy,
    pub(super) library: Library<C>,
}

pub(super) struct Writer<F: Forge> {
    forge: F,
    places: Places,
    stock: Stock<F::Component>,
    /// Versions of plugins (none: the absence) with which no snapshot could be built.
    aside: Vec<(String, Option<String>)>,
    /// Why the last try to change a plugin was refused, by name.
    refusals: BTreeMap<String, Refused>,
    /// Digest of the policy files when they were last looked at.
    seen: String,
    policy_refused: Option<Refused>,
    /// The policy on disk, if it is refused, and the generation that it was tried on: it is tried again when plugins have
    /// changed, since it may wait for one.
    waiting: Option<(Policy, u64)>,
    /// Earlier generations, the last one newest.
    earlier: VecDeque<Generation<F::Component>>,
    in_force: Generation<F::Component>,
    snapshot: Arc<ArcSwap<F::Snapshot>>,
    status: Arc<ArcSwap<Status>>,
    metrics: Arc<Metrics>,
    /// Something was not settled: look at the files then.
    again: Option<Instant>,
    /// A policy file may still be written.
    unsettled: bool,
}

impl<F: Forge> Writer<F> {
    /// Reads everything and builds the first generation. If not `keeps`, nothing is ever written.
    pub(super) fn start(forge: F, places: &Places, metrics: Arc<Metrics>, keeps: bool) -> Result<Self, Vec<Problem>> {
        let policy = load::parse(places.policy()?)?;
        let bytes_max = policy.config.sandbox.component_bytes_max;
        let mut stock = Stock::open(places, keeps);
        stock.demand(trust(&policy));
        stock.scan_until_settled(bytes_max, &forge);
        let (snapshot, library, refused) = first(&forge, &policy, &mut stock, bytes_max)?;
        let mut writer = Self {
            forge,
            places: places.clone(),
            stock,
            aside: Vec::new(),
            refusals: BTreeMap::new(),
            seen: policy.sources.digest(),
            policy_refused: None,
            waiting: None,
            earlier: VecDeque::new(),
            in_force: Generation { number: 1, at: SystemTime::now(), cause: "start", policy, library },
            snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
            status: Arc::default(),
            metrics,
            again: None,
            unsettled: false,
        };
        for (name, digest, refused) in refused {
            writer.set_aside(name, Some(digest), refused);
        }
        let names: Vec<String> = writer.in_force.library.origins.keys().cloned().collect();
        for trouble in writer.stock.remember(&names, &Library::default(), &writer.in_force.library, false) {
            tracing::warn!("{trouble}");
        }
        writer.publish();
        Ok(writer)
    }

    pub(super) fn snapshot(&self) -> Arc<ArcSwap<F::Snapshot>> {
        Arc::clone(&self.snapshot)
    }

    pub(super) fn status(&self) -> Arc<ArcSwap<Status>> {
        Arc::clone(&self.status)
    }

    /// Works off what is asked until nobody can ask any more.
    pub(super) fn run(mut self, inbox: &Receiver<Command>) {
        while let Some((change, asking)) = self.next(inbox).and_then(|command| Some((command.change?, command.answer)))
        {
            let cause = change.cause();
            let is_dry = matches!(change, Change::Validate { .. });
            let answer = catch_unwind(AssertUnwindSafe(|| self.change(change)))
                .unwrap_or_else(|_| Err(Refused::new("internal", "a check panicked", "see the log, and report this")));
            let counted = match &answer {
                Ok(answer) if answer.result == "installed" => Counted::Installed,
                Ok(_) => Counted::Unchanged,
                Err(_) => Counted::Refused,
            };
            if let (Err(refused), false) = (&answer, is_dry) {
                tracing::warn!(
                    cause,
                    code = refused.code,
                    generation = self.in_force.number,
                    "change refused: {refused}"
                );
                for problem in &refused.problems {
                    tracing::warn!(cause, "{problem}");
                }
            }
            self.metrics.changed(cause, counted);
            self.publish();
            if let Some(waiting) = asking {
                let _ = waiting.send(answer); // whoever asked may have gone
            }
        }
    }

    fn next(&mut self, inbox: &Receiver<Command>) -> Option<Command> {
        let look = || Some(Command { change: Some(Change::Files), answer: None });
        let Some(at) = self.again else { return inbox.recv().ok() };
        match inbox.recv_timeout(at.saturating_duration_since(Instant::now())) {
            Ok(command) => Some(command),
            Err(RecvTimeoutError::Timeout) => look(),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    fn change(&mut self, change: Change) -> Result<Answer, Refused> {
        let cause = change.cause();
        self.stock.demand(trust(&self.in_force.policy));
        match change {
            Change::Files => self.files(cause, false),
            Change::Reload => self.files(cause, true),
            Change::Keys => self.keys(cause),
            Change::Upload { bytes, activate } => self.upload(cause, bytes, activate),
            Change::Activate { name, digest } => {
                let version = self.version(&name, &digest)?;
                self.take(cause, version, false)
            }
            Change::Follow { name, digest, bytes } => self.follow(cause, &name, &digest, bytes),
            Change::RollBack { name } => {
                let version = self.stock.version_before(&name, &self.forge, self.bytes_max())?;
                self.take(cause, version, true)
            }
            Change::Remove { name } => self.remove(cause, &name),
            Change::RollBackGeneration { number } => self.roll_back_generation(cause, number),
            Change::Validate { files } => self.validate(files),
        }
    }

    /// Takes what is new in the files and good.
    fn files(&mut self, cause: &'static str, force: bool) -> Result<Answer, Refused> {
        self.unsettled = false;
        let policy = self.policy_on_disk(force);
        if force || policy.is_some() {
            self.aside.clear();
        }
        if let Some(policy) = &policy {
            self.stock.demand(trust(policy)); // a plugin and the rule that admits it come together
        }
        let unsettled = self.stock.scan(self.bytes_max(), &self.forge) || self.unsettled;
        self.again = unsettled.then(|| Instant::now() + SETTLE);
        let wanted = self.stock.wanted(&self.in_force.library, &self.aside, &self.forge, self.bytes_max());
        let names = wanted.differs_from(&self.in_force.library);
        let policy = policy.or_else(|| self.waiting_policy(&names));
        let refused = |policy_refused: &Option<Refused>| policy_refused.clone().filter(|_| force);
        if names.is_empty() && policy.is_none() {
            return refused(&self.policy_refused).map_or_else(|| Ok(self.answer("unchanged", None, Vec::new())), Err);
        }
        let all = policy.clone().unwrap_or_else(|| self.in_force.policy.clone());
        match self.build(&all, &wanted) {
            Ok(snapshot) => {
                self.policy_refused.take_if(|_| policy.is_some());
                let answer = self.install(cause, all, wanted, snapshot, false);
                refused(&self.policy_refused).map_or(Ok(answer), Err)
            }
            Err(problems) => self.piece_by_piece(cause, policy, &wanted, names, problems),
        }
    }

    /// The policy files, if they have changed and can be parsed.
    fn policy_on_disk(&mut self, force: bool) -> Option<Policy> {
        let refuse = |problems| Some(Refused::of_problems("bad-policy", problems));
        let sources = match self.places.policy() {
            Ok(sources) => sources,
            Err(problems) => {
                let refused = refuse(problems);
                if refused != self.policy_refused {
                    tracing::warn!("the policy files cannot be read; what is in force stays");
                    self.warn_of(refused.as_ref());
                    self.seen.clear();
                }
                self.policy_refused = refused;
                return None;
            }
        };
        let digest = sources.digest();
        if digest == self.seen && !force {
            return None;
        }
        // Whoever writes a file in place empties it first, and half of a policy may be a policy, too.
        if !force && !self.places.policy_is_settled(SETTLE) {
            self.unsettled = true;
            return None;
        }
        self.seen = digest;
        self.waiting = None;
        match load::parse(sources) {
            Ok(policy) => Some(policy),
            Err(problems) => {
                self.policy_refused = refuse(problems);
                self.warn_of(self.policy_refused.as_ref());
                None
            }
        }
    }

    fn warn_of(&self, refused: Option<&Refused>) {
        for problem in refused.into_iter().flat_map(|refused| &refused.problems) {
            tracing::warn!(generation = self.in_force.number, "{problem}");
        }
    }

    /// All changes together were refused: finds out which ones are good by themselves.
    fn piece_by_piece(
        &mut self,
        cause: &'static str,
        policy: Option<Policy>,
        wanted: &Library<F::Component>,
        names: Vec<String>,
        problems: Vec<Problem>,
    ) -> Result<Answer, Refused> {
        let refused = Refused::of_problems(if policy.is_some() { "bad-policy" } else { "bad-plugin" }, problems);
        if let ([name], None) = (names.as_slice(), &policy) {
            self.set_aside(name.clone(), wanted.digest(name).map(str::to_owned), refused.clone());
            return Err(refused);
        }
        let mut library = self.in_force.library.clone();
        let mut good = None;
        for name in names {
            let mut more = library.clone();
            more.take(&name, wanted);
            match self.build(&self.in_force.policy, &more) {
                Ok(snapshot) => (library, good) = (more, Some(snapshot)),
                Err(problems) => {
                    let digest = wanted.digest(&name).map(str::to_owned);
                    self.set_aside(name, digest, Refused::of_problems("bad-plugin", problems));
                }
            }
        }
        let mut in_force = self.in_force.policy.clone();
        let mut waiting = None;
        match policy.map(|policy| (self.build(&policy, &library), policy)) {
            Some((Ok(snapshot), policy)) => {
                (in_force, good) = (policy, Some(snapshot));
                self.policy_refused = None;
            }
            Some((Err(problems), policy)) => {
                self.policy_refused = Some(Refused::of_problems("bad-policy", problems));
                waiting = Some(policy);
            }
            None => {}
        }
        if let Some(snapshot) = good {
            self.install(cause, in_force, library, snapshot, false);
        }
        self.waiting = waiting.map(|policy| (policy, self.in_force.number));
        Err(refused)
    }

    fn waiting_policy(&mut self, changed: &[String]) -> Option<Policy> {
        let is_due = |(_, tried_on): &mut (Policy, u64)| !changed.is_empty() || *tried_on != self.in_force.number;
        self.waiting.take_if(is_due).map(|(policy, _)| policy)
    }

    fn keys(&mut self, cause: &'static str) -> Result<Answer, Refused> {
        let (policy, library) = (self.in_force.policy.clone(), self.in_force.library.clone());
        match self.build(&policy, &library) {
            Ok(snapshot) => Ok(self.install(cause, policy, library, snapshot, false)),
            Err(problems) => Err(Refused::of_problems("bad-policy", problems)),
        }
    }

    fn upload(&mut self, cause: &'static str, bytes: Vec<u8>, activate: bool) -> Result<Answer, Refused> {
        let (facts, component) = self.stock.receive(bytes, &self.forge)?;
        if activate {
            return self.take(cause, (facts, component), false);
        }
        self.stock.keep(&facts)?;
        Ok(self.answer("stored", Some(facts), Vec::new()))
    }

    /// What a cluster has is checked as if somebody had sent it.
    fn follow(
        &mut self,
        cause: &'static str,
        name: &str,
        digest: &str,
        bytes: Option<Vec<u8>>,
    ) -> Result<Answer, Refused> {
        let Some(bytes) = bytes else {
            let version = self.version(name, digest)?;
            return self.take(cause, version, false);
        };
        let (facts, component) = self.stock.receive(bytes, &self.forge)?;
        if facts.name != name || facts.digest != digest {
            let message = format!("the component that the cluster has as {name} is another one ({})", facts.name);
            return Err(Refused::new("bad-plugin", message, "upload the plugin again"));
        }
        self.take(cause, (facts, component), false)
    }

    fn version(&mut self, name: &str, digest: &str) -> Result<(Facts, Arc<F::Component>), Refused> {
        self.stock.version(name, digest, &self.forge, self.in_force.policy.config.sandbox.component_bytes_max)
    }

    /// Puts one version of a plugin in force.
    fn take(
        &mut self,
        cause: &'static str,
        (facts, component): (Facts, Arc<F::Component>),
        back: bool,
    ) -> Result<Answer, Refused> {
        if self.in_force.library.digest(&facts.name) == Some(&facts.digest) {
            return Ok(self.answer("unchanged", Some(facts), Vec::new()));
        }
        let mut library = self.in_force.library.clone();
        library.put(self.stock.origin(facts.clone()), component);
        self.install_library(cause, library, back, &facts.name).map(|answer| Answer { plugin: Some(facts), ..answer })
    }

    fn remove(&mut self, cause: &'static str, name: &str) -> Result<Answer, Refused> {
        if !self.stock.has_record(name) {
            return Err(self.stock.not_uploaded(name));
        }
        let mut library = self.in_force.library.clone();
        library.take(name, &self.stock.supplied(name));
        let answer = if library.digest(name) == self.in_force.library.digest(name) {
            self.answer("unchanged", None, Vec::new())
        } else {
            self.install_library(cause, library, false, name)?
        };
        self.stock.forget(name)?;
        Ok(answer)
    }

    fn roll_back_generation(&mut self, cause: &'static str, number: u64) -> Result<Answer, Refused> {
        if number == self.in_force.number {
            return Ok(self.answer("unchanged", None, Vec::new()));
        }
        let found = self.earlier.iter().find(|generation| generation.number == number).ok_or_else(|| {
            let kept: Vec<String> = self.earlier.iter().map(|generation| generation.number.to_string()).collect();
            let message = format!("generation {number} is not kept");
            Refused::new("no-such-generation", message, format!("there are: {}", kept.join(", ")))
        })?;
        let (policy, library) = (found.policy.clone(), found.library.clone());
        match self.build(&policy, &library) {
            Ok(snapshot) => {
                self.waiting = None;
                Ok(self.install(cause, policy, library, snapshot, false))
            }
            Err(problems) => Err(Refused::of_problems("bad-generation", problems)),
        }
    }

    fn validate(&mut self, files: Vec<(String, String)>) -> Result<Answer, Refused> {
        load::parse(crate::config::place::Sources::new(files))
            .and_then(|policy| self.build(&policy, &self.in_force.library).map(drop))
            .map(|()| self.answer("valid", None, Vec::new()))
            .map_err(|problems| Refused::of_problems("bad-policy", problems))
    }

    /// Builds with the policy in force and another library, in which only `name` differs.
    fn install_library(
        &mut self,
        cause: &'static str,
        library: Library<F::Component>,
        back: bool,
        name: &str,
    ) -> Result<Answer, Refused> {
        let policy = self.in_force.policy.clone();
        match self.build(&policy, &library) {
            Ok(snapshot) => Ok(self.install(cause, policy, library, snapshot, back)),
            Err(problems) => {
                let code = if library.digest(name).is_none() { "in-use" } else { "bad-plugin" };
                let refused = Refused::of_problems(code, problems);
                self.refusals.insert(name.to_owned(), refused.clone());
                Err(refused)
            }
        }
    }

    fn build(&self, policy: &Policy, library: &Library<F::Component>) -> Result<F::Snapshot, Vec<Problem>> {
        let previous = self.snapshot.load();
        let generation = self.in_force.number + 1;
        build(&self.forge, Inputs { policy, library, previous: Some(&**previous), generation })
    }

    /// Puts a snapshot in force, and keeps what was.
    fn install(
        &mut self,
        cause: &'static str,
        policy: Policy,
        library: Library<F::Component>,
        snapshot: F::Snapshot,
        back: bool,
    ) -> Answer {
        let number = self.in_force.number + 1;
        let names = library.differs_from(&self.in_force.library);
        let mut notes = restart_notes(&self.in_force.policy, &policy);
        let next = Generation { number, at: SystemTime::now(), cause, policy, library };
        self.snapshot.store(Arc::new(snapshot));
        self.forge.installed();
        let before = std::mem::replace(&mut self.in_force, next);
        notes.extend(self.stock.remember(&names, &before.library, &self.in_force.library, back));
        self.earlier.push_back(before);
        while self.earlier.len() >= self.in_force.policy.config.limits.generations_max.max(1) {
            self.earlier.pop_front();
        }
        self.refusals.retain(|name, _| !names.contains(name));
        self.again = self.again.or_else(|| self.waiting.is_some().then(Instant::now));
        let libraries = self.earlier.iter().map(|generation| &generation.library).chain([&self.in_force.library]);
        self.stock.prune(libraries);
        tracing::info!(generation = number, cause, plugins = names.join(" "), "installed");
        for note in &notes {
            tracing::warn!(generation = number, "{note}");
        }
        self.answer("installed", None, notes)
    }

    fn set_aside(&mut self, name: String, digest: Option<String>, refused: Refused) {
        tracing::warn!(plugin = name, digest, "this version is set aside: {refused}");
        self.refusals.insert(name.clone(), refused);
        self.aside.push((name, digest));
    }

    fn answer(&self, result: &'static str, plugin: Option<Facts>, notes: Vec<String>) -> Answer {
        Answer { result, generation: self.in_force.number, plugin, notes }
    }

    fn bytes_max(&self) -> usize {
        self.in_force.policy.config.sandbox.component_bytes_max
    }

    fn publish(&self) {
        let generations = self.earlier.iter().chain([&self.in_force]).map(super::GenerationStatus::of).collect();
        let status = Status {
            generation: self.in_force.number,
            plugins: self.stock.plugins(&self.in_force.library, &self.refusals),
            refused: self.stock.refused(),
            policy_refused: self.policy_refused.clone(),
            generations,
        };
        self.metrics.in_force(status.generation, status.plugins.len(), status.refused.len());
        self.status.store(Arc::new(status));
    }
}

type First<F> = (<F as Forge>::Snapshot, Library<<F as Forge>::Component>, Vec<(String, String, Refused)>);

/// The first snapshot: of the files as they are, or of the versions that were last in force where those are refused.
fn first<F: Forge>(
    forge: &F,
    policy: &Policy,
    stock: &mut Stock<F::Component>,
    bytes_max: usize,
) -> Result<First<F>, Vec<Problem>> {
    let wanted = stock.wanted(&Library::default(), &[], forge, bytes_max);
    let inputs = |library| Inputs { policy, library, previous: None, generation: 1 };
    let mut problems = match build(forge, inputs(&wanted)) {
        Ok(snapshot) => return Ok((snapshot, wanted, Vec::new())),
        Err(problems) => problems,
    };
    let last_good = stock.last_good(&wanted, forge, bytes_max);
    let names = last_good.differs_from(&wanted);
    if !names.is_empty()
        && let Ok(snapshot) = build(forge, inputs(&last_good))
    {
        let refused = Refused::of_problems("bad-plugin", problems);
        let aside =
            |name: String| wanted.digest(&name).map(str::to_owned).map(|digest| (name, digest, refused.clone()));
        return Ok((snapshot, last_good, names.into_iter().filter_map(aside).collect()));
    }
    for file in stock.refused() {
        problems.push(Problem::new(file.path, file.refusal.message, file.refusal.help));
    }
    Err(problems)
}

/// Rules that cannot be read admit nothing; the policy that has them is refused.
fn trust(policy: &Policy) -> Trust {
    Trust::read(&policy.config.trust, &policy.sources).unwrap_or_else(|_| Trust::nobody())
}

/// A build that panics is a build that failed.
fn build<F: Forge>(forge: &F, inputs: Inputs<'_, F::Component, F::Snapshot>) -> Result<F::Snapshot, Vec<Problem>> {
    let panicked = |_| Err(vec![Problem::new("snapshot", "a check panicked", "see the log, and report this")]);
    catch_unwind(AssertUnwindSafe(|| forge.build(inputs))).unwrap_or_else(panicked)
}

/// Sections that are read only at the start.
fn restart_notes(before: &Policy, after: &Policy) -> Vec<String> {
    let (before, after) = (&before.config, &after.config);
    [
        ("listeners", before.listeners != after.listeners),
        ("admin", before.admin != after.admin),
        ("cluster", before.cluster != after.cluster),
        ("sandbox", before.sandbox != after.sandbox),
    ]
    .into_iter()
    .filter(|(_, changed)| *changed)
    .map(|(section, _)| format!("[{section}] has changed; this takes effect at the next start"))
    .collect()
}
