// SPDX-License-Identifier: Apache-2.0
//! Takes over what has changed in the cluster. Everything is checked as if it came from anybody: tag and digest, sizes, what
//! the directory and the control plane check of a change. What cannot be taken leaves what was in force, and is told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::copy::Agreed;
use super::entry::{Entry, Name};
use super::lead::REMOVED;
use super::wire::{Look, Part, Position, Sent};
use super::{Node, PAUSE, PROBLEMS_MAX, Trouble, new_head, of_document};
use crate::clock;
use crate::config::load::FILE_BYTES_MAX;
use crate::directory::audit::{Line, Query};
use crate::directory::document::{Document, Kind};
use crate::directory::{Directory, News};
use crate::library::store::{Store, digest_of, is_digest};

/// Entries of one step of a restoration.
const RESTORED: usize = 200;
/// Lines of the audit log that a cluster begins with.
const LINES_GIVEN: usize = 10_000;
/// Looks in vain after which the connection is made anew.
const LOOKS_MAX: u32 = 10;
/// Every so many looks what could not be taken is read again.
const AGAIN: u64 = 16;
/// What stands for the whole directory among the problems.
const DIRECTORY: &str = "directory";

/// Entries by what they are.
#[derive(Default)]
struct Sorted {
    news: News,
    /// Documents that there are.
    listed: BTreeSet<(Kind, String)>,
    policies: Vec<(String, Entry)>,
    plugins: Vec<(String, Entry)>,
}

impl Node {
    /// Hears what is announced; without it, changes are found by looking for them.
    pub(super) async fn listen(&self) {
        loop {
            if let Err(error) = self.wire.listen(&self.announced).await {
                tracing::debug!("changes of the cluster are not announced: {error}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Follows the cluster as long as the process lives.
    pub(super) async fn follow(&self) {
        let mut misses = 0;
        loop {
            let _ = tokio::time::timeout(self.settings.poll, self.announced.notified()).await;
            match self.catch_up().await {
                Ok(()) => {
                    misses = 0;
                    self.good("cluster");
                }
                Err(trouble) => {
                    misses += 1;
                    if misses % LOOKS_MAX == 0 {
                        self.wire.renew();
                    }
                    if let Trouble::Wrong(why) = trouble {
                        self.refused("cluster", &why);
                    }
                }
            }
        }
    }

    /// Takes over everything that has changed until now.
    pub(super) async fn catch_up(&self) -> Result<(), Trouble> {
        let _alone = self.following.acquire().await;
        let Some(directory) = self.directory.get() else { return Ok(()) };
        let (position, epoch) = {
            let copy = self.copy();
            (copy.position(), copy.epoch.clone())
        };
        let Some(look) = self.away(self.wire.look(&position).await)? else { return self.restore(directory).await };
        self.check(&look, &epoch, directory)?;
        let again = self.again();
        let known = position.number.max(directory.revision().0);
        if look.last.number < known {
            tracing::warn!(
                known,
                there = look.last.number,
                "the cluster's Redis has lost changes; it is given them back"
            );
            return self.restore(directory).await;
        }
        let was_recent = self.looked();
        if look.changed.as_ref().is_some_and(Vec::is_empty) && look.last == position && again.is_empty() {
            return Ok(());
        }
        let whole = look.changed.is_none();
        let mut names = match look.changed {
            Some(names) => names,
            None => self.away(self.wire.names().await)?,
        };
        if whole && was_recent && self.lacks(directory, &names) {
            tracing::warn!("the cluster's Redis lacks what nobody has removed; it is given it back");
            return self.restore(directory).await;
        }
        names.extend(again);
        names.sort();
        names.dedup();
        self.take(directory, &look.epoch, look.last, names, whole).await
    }

    /// Notes that the cluster is seen now. Whether it was seen before what is removed from it is forgotten.
    fn looked(&self) -> bool {
        let now = clock::unix_s();
        let last = self.looked_s.swap(now, Ordering::Relaxed);
        now.saturating_sub(last) < REMOVED.as_secs() / 2
    }

    /// Whether something is not there that this node has: what was removed is there, as removed.
    fn lacks(&self, directory: &Directory, names: &[String]) -> bool {
        let there: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let view = directory.view();
        let documents = view.documents().keys().map(|(kind, id)| Name::Document(*kind, id.clone()));
        let copy = self.copy();
        let policies = of_cluster(&copy.policies).map(|name| Name::Policy(name.clone()));
        let plugins = of_cluster(&copy.plugins).map(|name| Name::Plugin(name.clone()));
        documents.chain(policies).chain(plugins).any(|name| !there.contains(name.to_string().as_str()))
    }

    /// Whether this is the cluster that the node is to be of.
    fn check(&self, look: &Look, epoch: &str, directory: &Directory) -> Result<(), Trouble> {
        if look.check != self.signer.check(&look.epoch) {
            let help = "give all nodes the same admin.master_key";
            return Err(Trouble::Wrong(format!("the cluster was made with another master key: {help}")));
        }
        if epoch.is_empty() && !directory.view().documents().is_empty() {
            let help = "start with an empty state directory (the master key may stay), or in another cluster.prefix";
            return Err(Trouble::Wrong(format!(
                "this node has keys, teams or the like of its own, and the cluster has others: {help}"
            )));
        }
        if !epoch.is_empty() && epoch != look.epoch {
            let help = "give it an empty state directory, or the cluster.prefix that it had";
            return Err(Trouble::Wrong(format!("the node is one of another cluster: {help}")));
        }
        Ok(())
    }

    /// Takes over these entries.
    async fn take(
        &self,
        directory: &Directory,
        epoch: &str,
        last: Position,
        names: Vec<String>,
        whole: bool,
    ) -> Result<(), Trouble> {
        let contents = self.away(self.wire.read(&names).await)?;
        let Sorted { mut news, listed, policies, plugins } = self.sorted(epoch, &names, contents);
        news.revision = last.number;
        news.listed = whole.then_some(listed);
        news.lines = self.lines(directory, epoch).await?;
        let gone: Vec<_> =
            news.removed.iter().map(|((kind, id), at)| (Name::Document(*kind, id.clone()), *at)).collect();
        let vendor_keys = self.take_documents(directory, news).await?;
        let there: BTreeSet<&String> = names.iter().collect();
        let changes_files = whole || !policies.is_empty() || !plugins.is_empty();
        self.keep(|copy| {
            epoch.clone_into(&mut copy.epoch);
            if whole {
                leave_out(&mut copy.policies, last.number, |name| there.contains(&Name::Policy(name).to_string()));
                leave_out(&mut copy.plugins, last.number, |name| there.contains(&Name::Plugin(name).to_string()));
            }
            (copy.number, copy.head) = (last.number, last.head);
            gone.into_iter().for_each(|(name, version)| copy.remove(name.to_string(), version));
            for (name, entry) in policies {
                agree(copy.policies.entry(name).or_default(), entry);
            }
            for (name, entry) in plugins {
                agree(copy.plugins.entry(name).or_default(), entry);
            }
        })?;
        if vendor_keys && let Some((control, _)) = self.control.get() {
            let control = control.clone();
            tokio::spawn(async move { control.ask(crate::control::Change::Keys).await }); // the log says what came of it
        }
        if changes_files {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Opens entries, and tells what cannot be opened.
    fn sorted(&self, epoch: &str, names: &[String], contents: Vec<Vec<u8>>) -> Sorted {
        let Sorted { mut news, mut listed, mut policies, mut plugins } = Sorted::default();
        let removed = self.copy().removed.clone();
        for (text, content) in names.iter().zip(contents) {
            if content.is_empty() {
                continue;
            }
            let opened = self.opened(epoch, text, &content);
            let is_removed = |entry: &Entry| removed.get(text).is_some_and(|version| entry.version <= *version);
            if let Some(Name::Document(kind, id)) = Name::parse(text) {
                listed.insert((kind, id));
            }
            match opened {
                // Redis was set back: this node knows better.
                Ok((Name::Document(kind, id), entry)) if entry.body.is_some() && is_removed(&entry) => {
                    listed.remove(&(kind, id));
                }
                Ok((Name::Document(kind, id), entry)) => match put(kind, &id, &entry) {
                    Ok(Some(document)) => news.put.push(document),
                    Ok(None) => {
                        listed.remove(&(kind, id.clone()));
                        news.removed.push(((kind, id), entry.version));
                    }
                    Err(why) => {
                        self.look_again(text, &why);
                        continue;
                    }
                },
                Ok((Name::Policy(name), entry)) => policies.push((name, entry)),
                Ok((Name::Plugin(name), entry)) => plugins.push((name, entry)),
                Ok((Name::Line(_), _)) => {}
                Err(why) => {
                    self.look_again(text, &why);
                    continue;
                }
            }
            self.good(text);
        }
        Sorted { news, listed, policies, plugins }
    }

    /// Whether keys of vendors have changed.
    async fn take_documents(&self, directory: &Directory, news: News) -> Result<bool, Trouble> {
        match directory.follow(news).await {
            Ok((kinds, left)) => {
                self.good(DIRECTORY);
                for ((kind, id), why) in left {
                    self.look_again(&Name::Document(kind, id).to_string(), &why);
                }
                Ok(kinds.contains(&Kind::VendorKey))
            }
            Err(refused) => {
                self.refused(DIRECTORY, &refused.to_string());
                Err(Trouble::Wrong(refused.to_string()))
            }
        }
    }

    /// An entry cannot be taken. It may be put right, and nobody would say so.
    fn look_again(&self, name: &str, why: &str) {
        self.refused(name, why);
        let mut again = self.again.lock().unwrap_or_else(PoisonError::into_inner);
        if again.len() < PROBLEMS_MAX {
            again.insert(name.to_owned());
        }
    }

    /// Names of entries that are to be read again: now and then, since each time costs a write to the disk.
    fn again(&self) -> BTreeSet<String> {
        let is_time = self.looks.fetch_add(1, Ordering::Relaxed).is_multiple_of(AGAIN);
        let mut again = self.again.lock().unwrap_or_else(PoisonError::into_inner);
        if is_time { std::mem::take(&mut *again) } else { BTreeSet::new() }
    }

    fn opened(&self, epoch: &str, text: &str, content: &[u8]) -> Result<(Name, Entry), String> {
        let name = Name::parse(text).ok_or("this version does not know what it is")?;
        let entry = self.signer.open(epoch, &name, content)?;
        if let (Name::Plugin(_), Some(digest)) = (&name, &entry.body)
            && !std::str::from_utf8(digest).is_ok_and(is_digest)
        {
            return Err("it is no version of a plugin".to_owned());
        }
        if let (Name::Policy(_), Some(text)) = (&name, &entry.body)
            && (text.len() as u64 > FILE_BYTES_MAX || std::str::from_utf8(text).is_err())
        {
            return Err("it is no policy file".to_owned());
        }
        Ok((name, entry))
    }

    /// The lines of the audit log that this node does not have.
    async fn lines(&self, directory: &Directory, epoch: &str) -> Result<Vec<Line>, Trouble> {
        let mut last = directory.revision().1;
        let mut lines = Vec::new();
        loop {
            let page = self.away(self.wire.lines(last).await)?;
            if page.is_empty() {
                return Ok(lines);
            }
            for (content, number) in page {
                last = last.max(number);
                let opened = self.signer.open(epoch, &Name::Line(number), &content);
                let line = opened.and_then(|entry| {
                    let line: Line = serde_json::from_slice(&entry.body.unwrap_or_default())
                        .map_err(|_| "it is no line of the audit log".to_owned())?;
                    if line.number == number { Ok(line) } else { Err("it has another number".to_owned()) }
                });
                match line {
                    Ok(line) => lines.push(line),
                    Err(why) => self.refused(&Name::Line(number).to_string(), &why),
                }
            }
        }
    }

    /// Gives Redis what this node knows and it does not: at the begin of a cluster, or when it has lost something.
    async fn restore(&self, directory: &Directory) -> Result<(), Trouble> {
        let (revision, _) = directory.revision();
        let (epoch, last) = {
            let copy = self.copy();
            let epoch =
                if copy.epoch.is_empty() { format!("{}{}", new_head()?, new_head()?) } else { copy.epoch.clone() };
            (epoch, Position { number: copy.number.max(revision).max(1), head: new_head()? })
        };
        let is_new = self.copy().epoch.is_empty();
        let check = self.signer.check(&epoch);
        let with = (epoch.as_str(), check.as_str());
        // Known before it is there: a node that is killed in between finds its own cluster again.
        self.keep(|copy| copy.epoch.clone_from(&epoch))?;
        if !self.away(self.wire.restore(with, &last, Part::Begin, &[], &[]).await)? {
            if is_new {
                self.keep(|copy| copy.epoch.clear())?; // another node was faster: the next look finds its cluster
            }
            return Err(Trouble::Wrong("another node begins the cluster".to_owned()));
        }
        let lines = self.given_lines(directory, &epoch).await?;
        for some in lines.chunks(RESTORED) {
            self.away(self.wire.restore(with, &last, Part::Middle, &[], some).await)?;
        }
        let entries = self.given(directory, &epoch).await?;
        for some in entries.chunks(RESTORED) {
            self.away(self.wire.restore(with, &last, Part::Middle, some, &[]).await)?;
        }
        self.away(self.wire.restore(with, &last, Part::End, &[], &[]).await)?;
        if is_new {
            tracing::info!(entries = entries.len(), "the cluster begins with this node");
        }
        // Others may have given something, too: everything is read with the next look.
        self.keep(|copy| (copy.number, copy.head) = (0, String::new()))?;
        self.announced.notify_one();
        Ok(())
    }

    /// Everything that this node knows, as entries.
    async fn given(&self, directory: &Directory, epoch: &str) -> Result<Vec<Sent>, Trouble> {
        let mut entries = Vec::new();
        let documents: Vec<_> = directory.view().documents().values().cloned().collect();
        for document in documents {
            let (name, body) = of_document(&document)?;
            entries.push(self.sealed(epoch, &name, &Entry { version: document.version, body }, None)?);
        }
        let (policies, plugins, removed) = {
            let copy = self.copy();
            (copy.policies.clone(), copy.plugins.clone(), copy.removed.clone())
        };
        for (name, version) in removed {
            let there = |kind, id: &str| directory.view().get(kind, id).is_some();
            if let Some(Name::Document(kind, id)) = Name::parse(&name)
                && !there(kind, &id)
            {
                entries.push(self.sealed(epoch, &Name::Document(kind, id), &Entry { version, body: None }, None)?);
            }
        }
        for (name, Agreed { version, content }) in policies {
            let entry = Entry { version, body: content.map(String::into_bytes) };
            entries.push(self.sealed(epoch, &Name::Policy(name), &entry, None)?);
        }
        for (name, Agreed { version, content }) in plugins {
            if let Some(digest) = &content
                && let Some(bytes) = self.kept(&name, digest)
            {
                self.away(self.wire.put_component(digest, &bytes).await)?;
            }
            let entry = Entry { version, body: content.clone().map(String::into_bytes) };
            entries.push(self.sealed(epoch, &Name::Plugin(name), &entry, content)?);
        }
        Ok(entries)
    }

    async fn given_lines(&self, directory: &Directory, epoch: &str) -> Result<Vec<(u64, Vec<u8>)>, Trouble> {
        let (mut lines, mut before) = (Vec::new(), None);
        while lines.len() < LINES_GIVEN {
            let query = Query { before, limit: 1000, ..Query::default() };
            let page = directory.audit(query).await.map_err(|refused| Trouble::Wrong(refused.to_string()))?;
            let Some(last) = page.last() else { break };
            before = Some(last.number);
            for line in &page {
                lines.push(self.line(epoch, line)?);
            }
        }
        Ok(lines)
    }

    /// The bytes of a version of a plugin, if they are kept here.
    pub(super) fn kept(&self, name: &str, digest: &str) -> Option<Vec<u8>> {
        self.library(false).read(name, digest, self.bytes_max()).ok().flatten()
    }

    fn library(&self, writes: bool) -> Store {
        Store::new(Some(self.state.join("plugins")), writes)
    }

    /// Before the first generation is built: plugins that this node does not have lie ready for it, as if they had been
    /// uploaded. The gate looks at them as at all others.
    pub(super) async fn place_plugins(&self) -> Result<(), Trouble> {
        let (plugins, active) = {
            let copy = self.copy();
            (copy.plugins.clone(), copy.active.clone())
        };
        let library = self.library(true);
        let (records, _) = library.records();
        for (name, agreed) in plugins {
            let is_known = active.get(&name).is_some_and(|active| active.version == agreed.version);
            let mut record = records.get(&name).cloned().unwrap_or_default();
            let Some(digest) = agreed.content.filter(|digest| !is_known && record.active != *digest) else { continue };
            let Some(bytes) = self.fetched(&name, &digest).await? else { continue };
            record.activate(&digest);
            record.pinned = true;
            let stored = library.put(&mut record, &name, &digest, &bytes).and_then(|()| library.save(&name, &record));
            stored.map_err(|error| Trouble::Wrong(format!("the state directory does not keep {name}: {error}")))?;
        }
        Ok(())
    }

    /// A component of the cluster whose digest is what it should be.
    pub(super) async fn fetched(&self, name: &str, digest: &str) -> Result<Option<Vec<u8>>, Trouble> {
        if let Some(bytes) = self.kept(name, digest) {
            return Ok(Some(bytes));
        }
        let found = self.away(self.wire.component(digest, self.bytes_max()).await)?;
        let text = Name::Plugin(name.to_owned()).to_string();
        match found {
            Some(bytes) if digest_of(&bytes) == digest => Ok(Some(bytes)),
            Some(_) => {
                self.refused(&text, "the component in Redis is not what its digest says");
                Ok(None)
            }
            None => {
                self.refused(&text, "its component is not in Redis, or is larger than sandbox.component_bytes_max");
                Ok(None)
            }
        }
    }

    fn bytes_max(&self) -> usize {
        self.component_bytes_max.get().copied().unwrap_or(usize::MAX)
    }

    /// Whether Redis was away when it was asked last.
    pub(super) fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }
}

/// A document of an entry; none if it is no more.
fn put(kind: Kind, id: &str, entry: &Entry) -> Result<Option<Document>, String> {
    let Some(body) = &entry.body else { return Ok(None) };
    let document = Document::of_bytes(kind, id, body)?;
    if document.version == entry.version { Ok(Some(document)) } else { Err("it has another version".to_owned()) }
}

/// Names under which the cluster has something.
fn of_cluster(all: &BTreeMap<String, Agreed>) -> impl Iterator<Item = &String> {
    all.iter().filter(|(_, agreed)| agreed.content.is_some()).map(|(name, _)| name)
}

/// What is not there any more was removed so long ago that nobody says so.
fn leave_out(all: &mut BTreeMap<String, Agreed>, version: u64, is_there: impl Fn(String) -> bool) {
    for (name, agreed) in all {
        if agreed.content.is_some() && !is_there(name.clone()) {
            *agreed = Agreed { version, content: None };
        }
    }
}

/// A later version takes the place of an earlier one.
fn agree(agreed: &mut Agreed, entry: Entry) {
    if entry.version > agreed.version {
        agreed.version = entry.version;
        agreed.content = entry.body.and_then(|body| String::from_utf8(body).ok());
    }
}
