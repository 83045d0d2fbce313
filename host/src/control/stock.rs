// SPDX-License-Identifier: Apache-2.0
//! Which versions of plugins there are, and which of them is wanted: the files of the directories, the versions that are
//! kept in the state directory, and the operator's word by the admin API. The rule is [`decide`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Forge, Places, PluginStatus, RefusedFile};
use crate::library::shelf::{SETTLE, Shelves};
use crate::library::store::{Record, Store, is_digest, is_name};
use crate::library::trust::{Trust, UNTRUSTED};
use crate::library::{Facts, Library, Origin, Refused};

/// How long a start waits for files that are being written.
const START_WAIT: Duration = Duration::from_secs(2);

pub(super) struct Stock<C> {
    built_in: Option<PathBuf>,
    shelves: Shelves,
    store: Store,
    /// Whose plugins are loaded.
    trust: Trust,
    records: BTreeMap<String, Record>,
    /// The file that supplies each name, and what is in it.
    supply: BTreeMap<String, (PathBuf, Facts)>,
    /// Loaded versions by digest.
    loaded: HashMap<String, (Facts, Arc<C>)>,
    /// Bytes of versions that were read and are not stored yet, by digest.
    fresh: HashMap<String, Vec<u8>>,
}

impl<C> Stock<C> {
    pub(super) fn open(places: &Places, keeps: bool) -> Self {
        let store = Store::new(places.state.as_ref().map(|state| state.join("plugins")), keeps);
        let (records, troubles) = store.records();
        for trouble in troubles {
            tracing::warn!("the record of a plugin is left out: {trouble}");
        }
        Self {
            built_in: places.built_in.clone(),
            shelves: Shelves::new(places.plugin_directories()),
            store,
            trust: Trust::default(),
            records,
            supply: BTreeMap::new(),
            loaded: HashMap::new(),
            fresh: HashMap::new(),
        }
    }

    /// From now on only what these rules admit is loaded. Files that others did not admit are looked at again.
    pub(super) fn demand(&mut self, trust: Trust) {
        if self.trust != trust {
            self.trust = trust;
            self.shelves.look_again_at(UNTRUSTED);
        }
    }

    /// Looks at the files; true if something is not settled.
    pub(super) fn scan<F: Forge<Component = C>>(&mut self, bytes_max: usize, forge: &F) -> bool {
        let Self { shelves, trust, loaded, fresh, .. } = self;
        shelves.scan(bytes_max, |path, bytes| {
            tracing::debug!(path = %path.display(), bytes = bytes.len(), "reading a plugin");
            let (facts, component) = load(forge, trust, bytes)?;
            fresh.insert(facts.digest.clone(), bytes.to_owned());
            loaded.insert(facts.digest.clone(), (facts.clone(), component));
            Ok(facts)
        })
    }

    pub(super) fn scan_until_settled<F: Forge<Component = C>>(&mut self, bytes_max: usize, forge: &F) {
        let begun = Instant::now();
        while self.scan(bytes_max, forge) && begun.elapsed() < START_WAIT {
            std::thread::sleep(SETTLE);
        }
    }

    /// The library that files and records ask for; of a version that is set aside, what `current` has.
    pub(super) fn wanted<F: Forge<Component = C>>(
        &mut self,
        current: &Library<C>,
        aside: &[(String, Option<String>)],
        forge: &F,
        bytes_max: usize,
    ) -> Library<C> {
        self.supply = self.shelves.supply(|facts| current.digest(&facts.name) == Some(&facts.digest));
        let names = self.supply.keys().chain(self.records.keys()).chain(current.origins.keys());
        let names: BTreeSet<String> = names.cloned().collect();
        let mut wanted = Library::default();
        for name in names {
            let record = self.records.get(&name);
            let broken = record.and_then(|record| record.file.as_ref()).is_some_and(|file| self.is_broken(file));
            let digest =
                decide(self.supply.get(&name).map(|(_, facts)| &*facts.digest), record, broken).map(str::to_owned);
            if aside.iter().any(|(other, version)| *other == name && *version == digest) {
                wanted.take(&name, current);
                continue;
            }
            let Some(digest) = digest else { continue };
            match self.version(&name, &digest, forge, bytes_max) {
                Ok((facts, component)) => wanted.put(self.origin(facts), component),
                Err(refused) => {
                    tracing::warn!(plugin = name, digest, "the version to be active is not there: {refused}");
                    let mut instead =
                        if current.digest(&name).is_some() { current.clone() } else { self.supplied(&name) };
                    if instead.digest(&name).is_none()
                        && let Ok((facts, component)) = self.version_before(&name, forge, bytes_max)
                    {
                        instead.put(self.origin(facts), component);
                    }
                    wanted.take(&name, &instead);
                }
            }
        }
        wanted
    }

    /// `wanted` with the versions that were last in force, where they are known.
    pub(super) fn last_good<F: Forge<Component = C>>(
        &mut self,
        wanted: &Library<C>,
        forge: &F,
        bytes_max: usize,
    ) -> Library<C> {
        let mut library = wanted.clone();
        let active: Vec<_> = self.records.iter().map(|(name, record)| (name.clone(), record.active.clone())).collect();
        for (name, digest) in active {
            if let Ok((facts, component)) = self.version(&name, &digest, forge, bytes_max) {
                library.put(self.origin(facts), component);
            }
        }
        library
    }

    /// A version of a plugin: one that is loaded, or one that is kept.
    pub(super) fn version<F: Forge<Component = C>>(
        &mut self,
        name: &str,
        digest: &str,
        forge: &F,
        bytes_max: usize,
    ) -> Result<(Facts, Arc<C>), Refused> {
        let absent = || {
            let help = "GET /v1/plugins lists the versions; upload it again if it is gone";
            Refused::new("no-such-version", format!("there is no version {digest} of a plugin {name}"), help)
        };
        if !is_digest(digest) || !is_name(name) {
            return Err(absent());
        }
        if let Some((facts, component)) = self.loaded.get(digest) {
            let found = (facts.clone(), Arc::clone(component));
            return if facts.name == name { Ok(found) } else { Err(absent()) };
        }
        let kept = self.store.read(name, digest, bytes_max);
        let bytes = kept.map_err(|error| Refused::new("state-dir", error.to_string(), "upload the version again"))?;
        let (facts, component) = load(forge, &self.trust, &bytes.ok_or_else(absent)?)?;
        self.loaded.insert(digest.to_owned(), (facts.clone(), Arc::clone(&component)));
        Ok((facts, component))
    }

    /// The version that was active before the one that is.
    pub(super) fn version_before<F: Forge<Component = C>>(
        &mut self,
        name: &str,
        forge: &F,
        bytes_max: usize,
    ) -> Result<(Facts, Arc<C>), Refused> {
        let previous = self.records.get(name).map(|record| record.previous.clone()).unwrap_or_default();
        let mut found = previous.iter().map(|digest| self.version(name, digest, forge, bytes_max));
        found.find(Result::is_ok).unwrap_or_else(|| {
            let message = format!("no earlier version of a plugin {name} is kept");
            Err(Refused::new("no-such-version", message, "upload the version that you want"))
        })
    }

    /// Takes in a version that somebody sent.
    pub(super) fn receive<F: Forge<Component = C>>(
        &mut self,
        bytes: Vec<u8>,
        forge: &F,
    ) -> Result<(Facts, Arc<C>), Refused> {
        let (facts, component) = load(forge, &self.trust, &bytes)?;
        self.loaded.insert(facts.digest.clone(), (facts.clone(), Arc::clone(&component)));
        self.fresh.insert(facts.digest.clone(), bytes);
        Ok((facts, component))
    }

    /// Stores a version that was received, without making it active.
    pub(super) fn keep(&mut self, facts: &Facts) -> Result<(), Refused> {
        let mut record = self.records.get(&facts.name).cloned().unwrap_or_default();
        let bytes = self.fresh.remove(&facts.digest).unwrap_or_default();
        let stored = self.store.put(&mut record, &facts.name, &facts.digest, &bytes);
        let saved = stored.and_then(|()| self.store.save(&facts.name, &record));
        saved.map_err(|error| Refused::of_io("plugins".as_ref(), &error))?;
        self.records.insert(facts.name.clone(), record);
        Ok(())
    }

    /// Writes down which versions are active now. What goes wrong is told; it does not keep the change from being in force.
    pub(super) fn remember(
        &mut self,
        names: &[String],
        before: &Library<C>,
        after: &Library<C>,
        back: bool,
    ) -> Vec<String> {
        let mut troubles = Vec::new();
        for name in names {
            let Some(mut record) = self.record_of(name, before.digest(name), after.digest(name), back) else {
                continue;
            };
            let active = record.active.clone();
            let stored = match self.fresh.get(&active) {
                Some(bytes) => self.store.put(&mut record, name, &active, bytes),
                None => Ok(()),
            };
            if self.records.get(name) != Some(&record)
                && let Err(error) = stored.and_then(|()| self.store.save(name, &record))
            {
                troubles.push(format!("the state directory does not keep the version of {name}: {error}"));
            }
            self.records.insert(name.clone(), record);
        }
        self.fresh.clear();
        troubles
    }

    /// The record of a plugin whose active version has changed; none for what simply came with the program.
    fn record_of(&self, name: &str, before: Option<&str>, after: Option<&str>, back: bool) -> Option<Record> {
        let file = self.supply.get(name);
        let follows = file.map(|(_, facts)| &*facts.digest) == after;
        let came_with = |path: &PathBuf| self.built_in.as_ref().is_some_and(|directory| path.starts_with(directory));
        let known = self.records.get(name);
        if known.is_none() && before.is_none() && follows && file.is_none_or(|(path, _)| came_with(path)) {
            return None;
        }
        let mut record = known
            .cloned()
            .unwrap_or_else(|| Record { active: before.unwrap_or_default().to_owned(), ..Record::default() });
        let after = after.unwrap_or_default();
        if record.active == after && file.is_none() {
            return Some(record); // the file is broken or gone, and the version stays
        }
        if back {
            record.roll_back(after);
        } else {
            record.activate(after);
        }
        record.pinned = !follows;
        record.over = file.map(|(_, facts)| facts.digest.clone());
        record.file = file.map(|(path, _)| path.clone());
        Some(record)
    }

    pub(super) fn has_record(&self, name: &str) -> bool {
        self.records.contains_key(name)
    }

    /// Why there is nothing to remove.
    pub(super) fn not_uploaded(&self, name: &str) -> Refused {
        match self.supply.get(name) {
            Some((path, _)) => {
                let message = format!("the plugin {name} comes from {}", path.display());
                Refused::new("not-uploaded", message, "remove the file")
            }
            None => Refused::new("no-such-plugin", format!("there is no plugin {name}"), "GET /v1/plugins lists them"),
        }
    }

    /// What the files alone supply under this name.
    pub(super) fn supplied(&self, name: &str) -> Library<C> {
        let mut library = Library::default();
        if let Some((path, facts)) = self.supply.get(name)
            && let Some((_, component)) = self.loaded.get(&facts.digest)
        {
            library.put(Origin { facts: facts.clone(), file: Some(path.clone()) }, Arc::clone(component));
        }
        library
    }

    /// Forgets versions and record of a plugin.
    pub(super) fn forget(&mut self, name: &str) -> Result<(), Refused> {
        self.records.remove(name);
        self.store.remove(name).map_err(|error| Refused::of_io(name.as_ref(), &error))
    }

    /// Where a version comes from: the file that supplies its name, if that has this version.
    pub(super) fn origin(&self, facts: Facts) -> Origin {
        let file = self.supply.get(&facts.name).filter(|(_, supplied)| supplied.digest == facts.digest);
        Origin { file: file.map(|(path, _)| path.clone()), facts }
    }

    /// Lets go of loaded versions that neither a file nor one of these libraries has.
    pub(super) fn prune<'l>(&mut self, libraries: impl Iterator<Item = &'l Library<C>>)
    where
        C: 'l,
    {
        let in_files =
            self.shelves.files().values().filter_map(|held| held.good.as_ref()).map(|facts| facts.digest.clone());
        let in_libraries =
            libraries.flat_map(|library| library.origins.values()).map(|origin| origin.facts.digest.clone());
        let kept: BTreeSet<String> = in_files.chain(in_libraries).collect();
        self.loaded.retain(|digest, _| kept.contains(digest));
    }

    /// The plugins as an operator sees them.
    pub(super) fn plugins(&self, library: &Library<C>, refusals: &BTreeMap<String, Refused>) -> Vec<PluginStatus> {
        let status = |(name, origin): (&String, &Origin)| {
            let record = self.records.get(name).cloned().unwrap_or_default();
            let from =
                |held: &&crate::library::shelf::Held| held.good.as_ref().is_some_and(|facts| facts.name == *name);
            let refused_file = self.shelves.files().values().filter(from).find_map(|held| held.refused.clone());
            PluginStatus {
                facts: origin.facts.clone(),
                source: origin.file.as_ref().map_or_else(|| "uploaded".to_owned(), |path| path.display().to_string()),
                previous: record.previous,
                stored: record.stored,
                last_refusal: refusals.get(name).cloned().or(refused_file),
            }
        };
        library.origins.iter().map(status).collect()
    }

    /// Files that are refused.
    pub(super) fn refused(&self) -> Vec<RefusedFile> {
        let refused = |(path, held): (&PathBuf, &crate::library::shelf::Held)| {
            let refusal = held.refused.clone()?;
            Some(RefusedFile { path: path.display().to_string(), digest: held.digest.clone(), refusal })
        };
        self.shelves.files().iter().filter_map(refused).collect()
    }

    fn is_broken(&self, file: &PathBuf) -> bool {
        self.shelves.files().get(file).is_some_and(|held| held.good.is_none() && held.refused.is_some())
    }
}

/// Which version of a plugin is to be active, by digest.
///
/// The file in the directories (`file`), unless the operator has activated another version since that file came; the last
/// active version if its file is there but broken; otherwise none.
fn decide<'d>(file: Option<&'d str>, record: Option<&'d Record>, broken: bool) -> Option<&'d str> {
    match (file, record) {
        (Some(file), Some(record)) if record.pinned && record.over.as_deref() == Some(file) => {
            Some(record.active.as_str())
        }
        (Some(file), _) => Some(file),
        (None, Some(record)) if record.pinned || broken => Some(record.active.as_str()),
        (None, _) => None,
    }
    .filter(|digest| !digest.is_empty())
}

fn load<F: Forge>(forge: &F, trust: &Trust, bytes: &[u8]) -> Result<(Facts, Arc<F::Component>), Refused> {
    trust.admit(bytes)?;
    let (facts, component) = forge.load(bytes)?;
    if is_name(&facts.name) {
        return Ok((facts, component));
    }
    let help = "use up to 64 lower-case letters, digits, `-` and `_`";
    Err(Refused::new("bad-name", format!("`{}` cannot be the name of a plugin", facts.name.escape_debug()), help))
}
