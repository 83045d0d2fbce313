// SPDX-License-Identifier: Apache-2.0
//! Gives the cluster what was changed on this node (policy files in its folder, plugins by whatever way they have come into
//! force), and puts in force what the cluster has. Nothing is given that was only taken over.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use super::copy::{Active, Agreed, Copy};
use super::entry::{Name, is_path};
use super::wire::Written;
use super::{Node, Trouble};
use crate::config::load::{self, Files, NODE_FILE};
use crate::config::place::{Problem, Sources};
use crate::config::{Admin, Cluster};
use crate::control::{Change, Control, Places, Status};
use crate::library::store::digest_of;

/// How often a change is given anew when others come before it.
const CONFLICTS_MAX: u32 = 8;
/// How often it is looked whether another generation is in force: that is to read a number.
const GLANCE: Duration = Duration::from_millis(25);
/// What stands for all policy files among the problems.
const POLICIES: &str = "policies";
/// What stands for policy files that the control plane refuses.
const IN_FORCE: &str = "policies in force";
/// What stands for the node itself.
const NODE: &str = "node";

/// Plugins that are active here and did not come with the program: digests by name.
type Plugins = BTreeMap<String, String>;

/// An entry to be written: its name, its content unless it is no more, the digest of its component.
type Given = (Name, Option<Vec<u8>>, Option<String>);

/// What was tried last, so that what is refused is not tried again and again.
#[derive(Debug, Default, Clone)]
pub(super) struct Shown {
    /// The generation that plugins were compared with.
    generation: u64,
    /// Digest of the policy files that were refused, and the generation then.
    refused: (String, u64),
}

/// What is to be done with a plugin.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Give,
    Take,
    /// Both have the same.
    Note,
    Nothing,
}

impl Node {
    /// Gives and takes whenever something may have changed.
    pub(super) async fn keep_sharing(&self) {
        loop {
            let is_woken = tokio::time::timeout(GLANCE, self.changed.notified()).await.is_ok();
            let generation = self.control.get().map_or(0, |(control, _)| control.status().generation);
            if is_woken || generation != self.shown.load().generation {
                self.share(false).await;
            }
        }
    }

    /// Gives what has changed here, and puts in force what has changed there. `fresh`: the node has just started.
    pub(super) async fn share(&self, fresh: bool) {
        let _alone = self.sharing.acquire().await;
        let Some((control, places)) = self.control.get() else { return };
        let generation = control.status().generation;
        let plugins = self.plugins(control, places, fresh).await;
        let policies = self.policies(control, places, fresh).await;
        match plugins.and(policies) {
            Ok(()) => self.good(NODE),
            Err(Trouble::Wrong(why)) => self.refused(NODE, &why),
            Err(Trouble::Away(_)) => {}
        }
        self.shown.rcu(|shown| Shown { generation, ..Shown::clone(shown) });
    }

    // -- plugins

    async fn plugins(&self, control: &Control, places: &Places, fresh: bool) -> Result<(), Trouble> {
        let active = active(&control.status(), places);
        let names: BTreeSet<String> = {
            let copy = self.copy();
            active.keys().chain(copy.active.keys()).chain(copy.plugins.keys()).cloned().collect()
        };
        let mut first = None;
        for name in names {
            let (mine, agreed) = {
                let copy = self.copy();
                (copy.active.get(&name).cloned(), copy.plugins.get(&name).cloned())
            };
            let now = active.get(&name).map(String::as_str);
            let done = match step(now, mine.as_ref(), agreed.as_ref(), fresh) {
                Step::Give => self.give_plugin(&name, now).await,
                Step::Take => self.take_plugin(control, places, &name, agreed.unwrap_or_default()).await,
                Step::Note => self.note(&name, now, agreed.map_or(0, |agreed| agreed.version)),
                Step::Nothing => Ok(()),
            };
            if let Err(trouble) = done {
                first.get_or_insert(trouble);
            }
        }
        first.map_or(Ok(()), Err)
    }

    fn note(&self, name: &str, digest: Option<&str>, version: u64) -> Result<(), Trouble> {
        self.good(&Name::Plugin(name.to_owned()).to_string());
        let active = Active { digest: digest.map(str::to_owned), version };
        self.keep(|copy| drop(copy.active.insert(name.to_owned(), active)))
    }

    async fn give_plugin(&self, name: &str, digest: Option<&str>) -> Result<(), Trouble> {
        if let Some(digest) = digest {
            let Some(bytes) = self.kept(name, digest) else {
                let why = "the state directory does not have the component, so that it cannot be given to the cluster";
                self.refused(&Name::Plugin(name.to_owned()).to_string(), why);
                return Ok(());
            };
            self.away(self.wire.put_component(digest, &bytes).await)?;
        }
        let based = self.copy().plugins.get(name).map_or(0, |agreed| agreed.version);
        let still = |copy: &Copy| copy.plugins.get(name).map_or(0, |agreed| agreed.version) == based;
        let body = digest.map(|digest| digest.as_bytes().to_vec());
        let entry = (Name::Plugin(name.to_owned()), body, digest.map(str::to_owned));
        let Some(version) = self.give(vec![entry], still).await? else { return Ok(()) };
        self.keep(|copy| {
            let agreed = Agreed { version, content: digest.map(str::to_owned) };
            copy.plugins.insert(name.to_owned(), agreed);
            copy.active.insert(name.to_owned(), Active { digest: digest.map(str::to_owned), version });
        })?;
        tracing::info!(plugin = name, digest, change = version, "given to the cluster");
        Ok(())
    }

    async fn take_plugin(&self, control: &Control, places: &Places, name: &str, agreed: Agreed) -> Result<(), Trouble> {
        let text = Name::Plugin(name.to_owned()).to_string();
        let name_of = || name.to_owned();
        let asked = match &agreed.content {
            Some(digest) => {
                let Some(bytes) = self.fetched(name, digest).await? else { return Ok(()) };
                control.ask(Change::Follow { name: name_of(), digest: digest.clone(), bytes: Some(bytes) }).await
            }
            None => control.ask(Change::Remove { name: name_of() }).await,
        };
        let now = active(&control.status(), places).remove(name);
        match asked {
            Ok(_) => self.note(name, now.as_deref(), agreed.version),
            // There is nothing to remove, or it is a file of this node, which stays.
            Err(refused) if matches!(refused.code, "no-such-plugin" | "not-uploaded") => {
                self.note(name, now.as_deref(), agreed.version)
            }
            // Tried again: a policy that needs it no more may be on its way.
            Err(refused) if matches!(refused.code, "in-use" | "busy" | "stopped") => {
                self.refused(&text, &refused.to_string());
                Ok(())
            }
            Err(refused) => {
                self.note(name, now.as_deref(), agreed.version)?;
                self.refused(&text, &refused.to_string());
                Ok(())
            }
        }
    }

    // -- policy files

    async fn policies(&self, control: &Control, places: &Places, fresh: bool) -> Result<(), Trouble> {
        let Some(directory) = places.policies.as_deref() else { return Ok(()) };
        let Some(mut files) = self.files(directory).await? else { return Ok(()) };
        let own = files.remove(NODE_FILE).unwrap_or_default();
        let (agreed, seen) = {
            let copy = self.copy();
            (copy.policies.clone(), copy.seen.clone())
        };
        let found: BTreeMap<String, String> =
            files.iter().map(|(name, text)| (name.clone(), digest_of(text.as_bytes()))).collect();
        let changed = changed(&files, &found, &seen, &agreed, fresh);
        if changed.is_empty() {
            self.good(POLICIES);
            self.keep(|copy| copy.seen = found)?;
        } else {
            let digest = digest_of(format!("{found:?}").as_bytes());
            let generation = control.status().generation;
            if self.shown.load().refused != (digest.clone(), generation) {
                match self.give_policies(control, &own, &changed).await {
                    Ok(()) => self.keep(|copy| copy.seen = found)?,
                    Err(Trouble::Wrong(why)) => {
                        self.refused(POLICIES, &why);
                        self.shown.rcu(|shown| Shown { refused: (digest.clone(), generation), ..Shown::clone(shown) });
                    }
                    Err(away) => return Err(away),
                }
            }
        }
        let refused = match control.ask(Change::Files).await {
            Ok(_) => control.status().policy_refused.clone(),
            Err(refused) => Some(refused),
        };
        match refused {
            Some(refused) => self.refused(IN_FORCE, &refused.to_string()),
            None => self.good(IN_FORCE),
        }
        Ok(())
    }

    /// The policy files of the folder; none, and a word about it, if they cannot be read.
    async fn files(&self, directory: &Path) -> Result<Option<Files>, Trouble> {
        let directory = directory.to_owned();
        let read = tokio::task::spawn_blocking(move || load::files(&directory)).await;
        match read.map_err(|error| Trouble::Wrong(error.to_string()))? {
            Ok(files) => Ok(Some(files)),
            Err(problems) => {
                self.refused(POLICIES, &all(&problems));
                Ok(None)
            }
        }
    }

    /// Gives changed files, if the whole of them would be in force here.
    async fn give_policies(
        &self,
        control: &Control,
        own: &str,
        changed: &BTreeMap<String, Option<String>>,
    ) -> Result<(), Trouble> {
        let based: BTreeMap<String, u64> = versions(&self.copy(), changed);
        let mut wanted = self.copy().files();
        for (name, text) in changed {
            match text {
                Some(text) => drop(wanted.insert(name.clone(), text.clone())),
                None => drop(wanted.remove(name)),
            }
        }
        check(&wanted).map_err(Trouble::Wrong)?;
        let shared = wanted.into_iter().map(|(name, text)| (format!("{}{name}", load::SHARED), text));
        let files = std::iter::once((NODE_FILE.to_owned(), own.to_owned())).chain(shared).collect();
        let valid = control.ask(Change::Validate { files }).await;
        valid.map_err(|refused| Trouble::Wrong(refused.to_string()))?;
        let entries: Vec<Given> = changed
            .iter()
            .map(|(name, text)| (Name::Policy(name.clone()), text.clone().map(String::into_bytes), None))
            .collect();
        let still = |copy: &Copy| versions(copy, changed) == based;
        let Some(version) = self.give(entries, still).await? else { return Ok(()) };
        self.keep(|copy| {
            for (name, text) in changed {
                copy.policies.insert(name.clone(), Agreed { version, content: text.clone() });
            }
        })?;
        tracing::info!(files = changed.len(), change = version, "policy files are given to the cluster");
        Ok(())
    }

    /// Makes a change upon the latest, as long as nobody has changed the same. Answers with its number; none if somebody has.
    async fn give(&self, entries: Vec<Given>, still: impl Fn(&Copy) -> bool) -> Result<Option<u64>, Trouble> {
        for _ in 0..CONFLICTS_MAX {
            self.catch_up().await?;
            let before = {
                let copy = self.copy();
                if !still(&copy) {
                    return Ok(None); // what the cluster has holds, and is taken next
                }
                copy.number
            };
            match self.write(before, entries.clone(), None).await? {
                Ok(position) => {
                    self.announced.notify_one();
                    return Ok(Some(position.number));
                }
                Err(Written::Behind) => {}
                Err(other) => return Err(Trouble::Wrong(format!("the cluster does not take a change: {other:?}"))),
            }
        }
        Err(Trouble::Away("others change the cluster all the time".to_owned()))
    }
}

/// Plugins in force, but for those that came with the program.
fn active(status: &Status, places: &Places) -> Plugins {
    let came_with =
        |source: &str| places.built_in.as_ref().is_some_and(|built_in| Path::new(source).starts_with(built_in));
    let own = status.plugins.iter().filter(|plugin| !came_with(&plugin.source));
    own.map(|plugin| (plugin.facts.name.clone(), plugin.facts.digest.clone())).collect()
}

/// What is to be done with a plugin that is `now` active, was `mine` when the cluster was followed last, and is `agreed` there.
fn step(now: Option<&str>, mine: Option<&Active>, agreed: Option<&Agreed>, fresh: bool) -> Step {
    let version = agreed.map_or(0, |agreed| agreed.version);
    let there = agreed.and_then(|agreed| agreed.content.as_deref());
    let same = now == there;
    if version != mine.map_or(0, |mine| mine.version) {
        return if same { Step::Note } else { Step::Take };
    }
    let was = mine.and_then(|mine| mine.digest.as_deref());
    if now != was {
        return if same { Step::Note } else { Step::Give };
    }
    // What could not be taken before may be taken by another version of the program.
    if fresh && !same && there.is_some() { Step::Take } else { Step::Nothing }
}

/// Files that differ from those that were seen before and from the cluster's, with their texts; without one if it is gone.
/// At the start of a node, files that it has never seen give way to the cluster's.
fn changed(
    files: &Files,
    found: &BTreeMap<String, String>,
    seen: &BTreeMap<String, String>,
    agreed: &BTreeMap<String, Agreed>,
    fresh: bool,
) -> BTreeMap<String, Option<String>> {
    let there = |name: &String| agreed.get(name).and_then(|agreed| agreed.content.as_ref());
    let mut changed = BTreeMap::new();
    for (name, text) in files {
        let is_known =
            seen.get(name) == found.get(name) || (fresh && !seen.contains_key(name) && agreed.contains_key(name));
        if !is_known && there(name) != Some(text) {
            changed.insert(name.clone(), Some(text.clone()));
        }
    }
    for name in seen.keys().filter(|name| !files.contains_key(*name)) {
        if there(name).is_some() {
            changed.insert(name.clone(), None);
        }
    }
    changed
}

fn versions(copy: &Copy, changed: &BTreeMap<String, Option<String>>) -> BTreeMap<String, u64> {
    changed.keys().map(|name| (name.clone(), copy.policies.get(name).map_or(0, |agreed| agreed.version))).collect()
}

/// Whether these files can be those of a cluster.
fn check(files: &Files) -> Result<(), String> {
    if let Some(name) = files.keys().find(|name| !is_path(name)) {
        return Err(format!("{}: this cannot be the name of a cluster's policy file", name.escape_debug()));
    }
    let sources = Sources::new(files.iter().map(|(name, text)| (name.clone(), text.clone())));
    let config = load::parse(sources).map_err(|problems| all(&problems))?.config;
    for (section, is_there) in [
        ("admin", config.admin != Admin::default()),
        ("cluster", config.cluster != Cluster::default()),
        ("listeners", !config.listeners.is_empty()),
    ] {
        if is_there {
            return Err(format!(
                "[{section}] is a node's own and stands in a file of the cluster: write it into {NODE_FILE}"
            ));
        }
    }
    Ok(())
}

fn all(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_is_given_when_it_has_changed_here_and_taken_when_it_has_changed_there() {
        let mine = |digest: Option<&str>, version| Active { digest: digest.map(str::to_owned), version };
        let agreed = |digest: Option<&str>, version| Agreed { version, content: digest.map(str::to_owned) };
        let (a, b) = (Some("a"), Some("b"));
        for (now, mine, agreed, expected) in [
            (a, None, None, Step::Give),
            (None, None, None, Step::Nothing),
            (a, None, Some(agreed(b, 3)), Step::Take),
            (a, None, Some(agreed(a, 3)), Step::Note),
            (a, Some(mine(a, 3)), Some(agreed(a, 3)), Step::Nothing),
            (b, Some(mine(a, 3)), Some(agreed(a, 3)), Step::Give),
            (None, Some(mine(a, 3)), Some(agreed(a, 3)), Step::Give),
            (b, Some(mine(a, 3)), Some(agreed(a, 4)), Step::Take),
            (a, Some(mine(a, 3)), Some(agreed(b, 4)), Step::Take),
            (a, Some(mine(a, 3)), Some(agreed(None, 4)), Step::Take),
            (b, Some(mine(a, 3)), Some(agreed(b, 4)), Step::Note),
            // refused before: it stays as it is until one side changes
            (a, Some(mine(a, 4)), Some(agreed(b, 4)), Step::Nothing),
            (Some("c"), Some(mine(a, 4)), Some(agreed(b, 4)), Step::Give),
        ] {
            assert_eq!(step(now, mine.as_ref(), agreed.as_ref(), false), expected, "{now:?} {mine:?} {agreed:?}");
        }
        assert_eq!(step(a, Some(&mine(a, 4)), Some(&agreed(b, 4)), true), Step::Take, "a new start tries again");
    }

    #[test]
    fn policy_files_are_given_when_they_change_and_give_way_at_the_first_start() {
        let files = |list: &[(&str, &str)]| -> Files {
            list.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
        };
        let digests =
            |files: &Files| files.iter().map(|(name, text)| (name.clone(), digest_of(text.as_bytes()))).collect();
        let there: BTreeMap<_, _> =
            [("a.toml".to_owned(), Agreed { version: 2, content: Some("cluster".to_owned()) })].into();
        let names = |now: &Files, seen: &Files, fresh: bool| -> Vec<String> {
            let changed = changed(now, &digests(now), &digests(seen), &there, fresh);
            changed.into_iter().map(|(name, text)| format!("{name}={}", text.unwrap_or_default())).collect()
        };
        let (old, new, none) = (files(&[("a.toml", "old")]), files(&[("a.toml", "new")]), Files::new());
        assert_eq!(names(&old, &none, true), [""; 0], "the cluster's holds at the first start");
        assert_eq!(names(&new, &old, true), ["a.toml=new"], "it was changed while the node was down");
        assert_eq!(names(&old, &old, false), [""; 0]);
        assert_eq!(names(&new, &none, false), ["a.toml=new"], "a new file in the folder");
        assert_eq!(names(&files(&[("a.toml", "cluster")]), &old, false), [""; 0], "it is what the cluster has");
        assert_eq!(names(&none, &old, false), ["a.toml="], "it was removed");
        assert_eq!(names(&none, &none, false), [""; 0], "what was never there was not removed");
        assert_eq!(names(&files(&[("b.toml", "x")]), &none, true), ["b.toml=x"], "the cluster does not have it");
    }

    #[test]
    fn what_names_a_node_is_no_file_of_a_cluster() {
        for (text, section) in [
            ("[admin]\nmetrics_open = true", "admin"),
            ("[cluster]\nname = \"a\"", "cluster"),
            ("[[listeners]]\naddress = \"127.0.0.1:1\"", "listeners"),
        ] {
            let error = check(&[("a.toml".to_owned(), text.to_owned())].into()).unwrap_err();
            assert!(error.contains(section) && error.contains("node.toml"), "{error}");
        }
        assert!(check(&[("../a.toml".to_owned(), String::new())].into()).is_err());
        assert_eq!(check(&[("v/a.toml".to_owned(), "[models]\n".to_owned())].into()), Ok(()));
    }
}
