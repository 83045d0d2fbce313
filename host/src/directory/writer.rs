// SPDX-License-Identifier: Apache-2.0
//! The single writer of the directory: decides on a change, keeps it, and makes the view that is to be in force.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::audit::{Actor, Line, Note};
use super::broken;
use super::document::{Document, Hidden, ID_BYTES_MAX, Kind, is_id};
use super::seal::Sealer;
use super::secret::{SECRETS_MAX, mint};
use super::settings::{Settings, bad};
use super::store::{Commit, Followed, Loaded, Store, StoreError};
use super::view::View;
use crate::clock;
use crate::config::place::hex;
use crate::keys::Secret;
use crate::library::Refused;

/// Documents of one kind.
const DOCUMENTS_MAX: usize = 100_000;

/// What can be asked of the writer. `expected` is the version that must be there.
pub enum Change {
    /// A new document.
    Create {
        /// Its kind.
        kind: Kind,
        /// Its id; none for one that is made up.
        id: Option<String>,
        /// Its settings.
        settings: Value,
        /// The key of a vendor.
        secret: Option<Secret>,
    },
    /// A document with these settings, whether there was one or not.
    Put {
        /// Its kind.
        kind: Kind,
        /// Its id.
        id: String,
        /// Its settings.
        settings: Value,
        /// The version that must be there.
        expected: Option<u64>,
    },
    /// Other values for some members (RFC 7396: null takes a member back to its default).
    Patch {
        /// Its kind.
        kind: Kind,
        /// Its id.
        id: String,
        /// The members.
        patch: Map<String, Value>,
        /// The key of a vendor, if it is to be another one.
        secret: Option<Secret>,
        /// The version that must be there.
        expected: Option<u64>,
    },
    /// A new secret.
    Rotate {
        /// Its kind.
        kind: Kind,
        /// Its id.
        id: String,
        /// The key of a vendor; none for what is minted.
        secret: Option<Secret>,
        /// How long the old secret is still accepted.
        overlap_s: u64,
        /// The version that must be there.
        expected: Option<u64>,
    },
    /// No document any more.
    Delete {
        /// Its kind.
        kind: Kind,
        /// Its id.
        id: String,
        /// The version that must be there.
        expected: Option<u64>,
    },
}

/// What came of a change.
pub struct Changed {
    /// The document as it is, or as it was before it was deleted.
    pub document: Arc<Document>,
    /// Whether it is new.
    pub is_new: bool,
    /// The secret that was made; it is nowhere else.
    pub minted: Option<Secret>,
}

/// What other gateways have changed.
#[derive(Default)]
pub struct News {
    /// The revision that all of it leads to.
    pub revision: u64,
    /// Documents as they are now.
    pub put: Vec<Document>,
    /// Documents that are no more, with the revision that has removed them.
    pub removed: Vec<((Kind, String), u64)>,
    /// Every document that there is, if the news are about all of them; what is not among them is no more.
    pub listed: Option<BTreeSet<(Kind, String)>>,
    /// Lines of the audit log.
    pub lines: Vec<Line>,
}

/// A document of others that cannot be in force, and why.
pub type Left = ((Kind, String), String);

type Documents = BTreeMap<(Kind, String), Arc<Document>>;

/// What came of news.
pub(super) struct Taken {
    /// What is to be in force; none if nothing has changed.
    pub(super) view: Option<View>,
    /// Kinds of the documents that have changed.
    pub(super) kinds: BTreeSet<Kind>,
    pub(super) refused: Vec<Left>,
    pub(super) lines: Vec<Line>,
}

/// A change that is decided, and not kept yet.
struct Decided {
    action: &'static str,
    before: Option<Arc<Document>>,
    after: Option<Document>,
    minted: Option<Secret>,
}

pub(super) struct Writer {
    store: Arc<dyn Store>,
    sealer: Sealer,
    revision: u64,
    last_line: u64,
}

impl Writer {
    /// Reads everything, and makes the first view.
    ///
    /// # Errors
    /// What cannot be read, and what to do.
    pub(super) fn start(store: Arc<dyn Store>, sealer: Sealer) -> Result<(Self, View), String> {
        let Loaded { revision, last_line, documents } = store.load().map_err(|error| error.to_string())?;
        let documents =
            documents.into_iter().map(|document| ((document.kind, document.id.clone()), Arc::new(document)));
        let view = View::of(revision, documents.collect(), &sealer).map_err(|refused| refused.to_string())?;
        Ok((Self { store, sealer, revision, last_line }, view))
    }

    /// Makes a change upon what is in force: what came of it, and what is to be in force.
    pub(super) fn change(
        &mut self,
        view: &View,
        actor: &Actor,
        change: &Change,
    ) -> Result<(Changed, View, Line), Refused> {
        let Decided { action, before, after, minted } = self.decide(view, change)?;
        let revision = self.revision + 1;
        let after = after.map(|document| Arc::new(Document { version: revision, ..document }));
        let about = after.as_ref().or(before.as_ref()).cloned();
        let Some(document) = about else { return Err(Refused::new("internal", "nothing was changed", "report this")) };
        let mut documents = view.documents().clone();
        let name = (document.kind, document.id.clone());
        match &after {
            Some(after) => documents.insert(name, Arc::clone(after)),
            None => documents.remove(&name),
        };
        let next = View::of(revision, documents, &self.sealer)?;
        let note = Note {
            action,
            kind: document.kind.name(),
            id: document.id.clone(),
            before: before.as_ref().map(|document| document.shown()),
            after: after.as_ref().map(|document| document.shown()),
        };
        let remove = after.is_none().then_some((document.kind, document.id.as_str()));
        let line = self.commit(actor, note, after.as_deref(), remove)?;
        Ok((Changed { is_new: before.is_none(), document, minted }, next, line))
    }

    /// Takes over what other gateways have changed: what is to be in force, unless that is what is in force; and documents
    /// that cannot be, with the reason. They stay as they were.
    ///
    /// # Errors
    /// Nothing has changed.
    pub(super) fn follow(&mut self, view: &View, news: News) -> Result<Taken, Refused> {
        let mut documents = view.documents().clone();
        let mut followed = Followed { revision: self.revision.max(news.revision), ..Followed::default() };
        let version = |documents: &Documents, name: &(Kind, String)| documents.get(name).map_or(0, |old| old.version);
        for document in news.put {
            let name = (document.kind, document.id.clone());
            if document.version > version(&documents, &name) {
                followed.put.push(Arc::new(document));
            }
        }
        let is_gone = |(name, at): &((Kind, String), u64)| {
            let known = version(&documents, name);
            known > 0 && known < *at
        };
        followed.remove = news.removed.into_iter().filter(is_gone).map(|(name, _)| name).collect();
        if let Some(listed) = &news.listed {
            followed.remove.extend(documents.keys().filter(|name| !listed.contains(*name)).cloned());
        }
        followed.lines = news.lines.into_iter().filter(|line| line.number > self.last_line).collect();
        let (next, refused) = if followed.put.is_empty() && followed.remove.is_empty() {
            (None, Vec::new())
        } else {
            let (next, refused) = self.with(&mut documents, &mut followed)?;
            (Some(next), refused)
        };
        self.store.follow(&followed).map_err(|error| broken(&error))?;
        self.revision = followed.revision;
        self.last_line = followed.lines.iter().map(|line| line.number).max().unwrap_or(0).max(self.last_line);
        let kinds = followed.put.iter().map(|document| document.kind);
        let kinds = kinds.chain(followed.remove.iter().map(|(kind, _)| *kind)).collect();
        Ok(Taken { view: next, kinds, refused, lines: followed.lines })
    }

    /// The view with all of it; if that cannot be, with what of it can be, and the rest is taken out of `followed`.
    fn with(&self, documents: &mut Documents, followed: &mut Followed) -> Result<(View, Vec<Left>), Refused> {
        let mut all = documents.clone();
        followed.put.iter().for_each(|document| put(&mut all, document));
        followed.remove.iter().for_each(|name| drop(all.remove(name)));
        if let Ok(view) = View::of(followed.revision, all, &self.sealer) {
            return Ok((view, Vec::new()));
        }
        let mut left = Vec::new();
        followed.put.sort_by_key(|document| document.version);
        followed.put.retain(|document| {
            let mut more = documents.clone();
            put(&mut more, document);
            let tried = View::of(followed.revision, more.clone(), &self.sealer);
            match tried {
                Ok(_) => *documents = more,
                Err(ref refused) => left.push(((document.kind, document.id.clone()), refused.to_string())),
            }
            tried.is_ok()
        });
        followed.remove.retain(|name| {
            let mut less = documents.clone();
            less.remove(name);
            let tried = View::of(followed.revision, less.clone(), &self.sealer);
            match tried {
                Ok(_) => *documents = less,
                Err(ref refused) => left.push((name.clone(), refused.to_string())),
            }
            tried.is_ok()
        });
        Ok((View::of(followed.revision, documents.clone(), &self.sealer)?, left))
    }

    /// The revision of what is in force.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// Number of the last line of the audit log.
    pub(super) fn last_line(&self) -> u64 {
        self.last_line
    }

    /// Writes a line of the audit log.
    pub(super) fn note(&mut self, actor: &Actor, note: Note) -> Result<Line, Refused> {
        self.commit(actor, note, None, None)
    }

    fn commit(
        &mut self,
        actor: &Actor,
        note: Note,
        put: Option<&Document>,
        remove: Option<(Kind, &str)>,
    ) -> Result<Line, Refused> {
        let line = Line {
            number: self.last_line + 1,
            at_unix_ms: clock::unix_ms(),
            actor: actor.name.clone(),
            role: actor.role,
            action: note.action.to_owned(),
            kind: note.kind.to_owned(),
            id: note.id,
            before: note.before,
            after: note.after,
        };
        let commit = Commit { expected: self.revision, revision: self.revision + 1, put, remove, line: &line };
        self.store.commit(&commit).map_err(|error| match error {
            StoreError::Conflict => Refused::new("conflict", error.to_string(), "ask again"),
            StoreError::Away(_) => {
                let help = "ask again when the cluster's Redis answers; requests of callers go on meanwhile";
                Refused::new("cluster-away", error.to_string(), help)
            }
            StoreError::Broken(_) => broken(&error),
        })?;
        self.revision += 1;
        self.last_line += 1;
        Ok(line)
    }

    fn decide(&self, view: &View, change: &Change) -> Result<Decided, Refused> {
        match change {
            Change::Create { kind, id, settings, secret } => {
                self.create(view, *kind, id.clone(), settings.clone(), secret.as_ref())
            }
            Change::Put { kind, id, settings, expected } => {
                check_id(id)?;
                let before = view.get(*kind, id).cloned();
                check_version(before.as_deref(), *expected)?;
                let settings = Settings::parse(*kind, settings.clone())?;
                let action = if before.is_some() { "update" } else { "create" };
                let after = match &before {
                    Some(before) => changed(before, settings),
                    None => {
                        check_room(view, *kind)?;
                        new(*kind, id.clone(), settings, Hidden::default())
                    }
                };
                Ok(Decided { action, before, after: Some(after), minted: None })
            }
            Change::Patch { kind, id, patch, secret, expected } => {
                let before = found(view, *kind, id, *expected)?;
                let settings = Settings::parse(*kind, merged(before.settings.to_json(), patch.clone()))?;
                let mut after = changed(&before, settings);
                if let Some(secret) = secret {
                    after.hidden.sealed = Some(self.sealer.seal(id, secret)?);
                }
                Ok(Decided { action: "update", before: Some(before), after: Some(after), minted: None })
            }
            Change::Rotate { kind, id, secret, overlap_s, expected } => {
                let before = found(view, *kind, id, *expected)?;
                let (after, minted) = self.rotated(&before, secret.as_ref(), *overlap_s)?;
                Ok(Decided { action: "rotate", before: Some(before), after: Some(after), minted })
            }
            Change::Delete { kind, id, expected } => {
                let before = found(view, *kind, id, *expected)?;
                Ok(Decided { action: "delete", before: Some(before), after: None, minted: None })
            }
        }
    }

    fn create(
        &self,
        view: &View,
        kind: Kind,
        id: Option<String>,
        settings: Value,
        secret: Option<&Secret>,
    ) -> Result<Decided, Refused> {
        check_room(view, kind)?;
        let id = match id {
            Some(id) => id,
            None => new_id(kind)?,
        };
        check_id(&id)?;
        if view.get(kind, &id).is_some() {
            let help = "choose another id, or change the one that is there";
            return Err(Refused::new("exists", format!("there is a {} {id} already", kind.name()), help));
        }
        let settings = Settings::parse(kind, settings)?;
        let mut hidden = Hidden::default();
        let mut minted = None;
        if let Some(secret) = secret {
            hidden.sealed = Some(self.sealer.seal(&id, secret)?);
        } else if matches!(kind, Kind::VirtualKey | Kind::AdminToken) {
            let (secret, hashed) = mint(kind, clock::unix_s())?;
            hidden.secrets.push(hashed);
            minted = Some(secret);
        }
        let after = new(kind, id, settings, hidden);
        Ok(Decided { action: "create", before: None, after: Some(after), minted })
    }

    fn rotated(
        &self,
        before: &Document,
        secret: Option<&Secret>,
        overlap_s: u64,
    ) -> Result<(Document, Option<Secret>), Refused> {
        let mut after = changed(before, before.settings.clone());
        if let Some(secret) = secret {
            after.hidden.sealed = Some(self.sealer.seal(&before.id, secret)?);
            return Ok((after, None));
        }
        let now = clock::unix_s();
        let (minted, hashed) = mint(before.kind, now)?;
        let ends = now.saturating_add(overlap_s);
        for old in &mut after.hidden.secrets {
            old.valid_until_unix_s = Some(old.valid_until_unix_s.map_or(ends, |until| until.min(ends)));
        }
        after.hidden.secrets.retain(|old| old.is_valid(now));
        after.hidden.secrets.insert(0, hashed);
        after.hidden.secrets.truncate(SECRETS_MAX);
        Ok((after, Some(minted)))
    }
}

fn put(documents: &mut Documents, document: &Arc<Document>) {
    documents.insert((document.kind, document.id.clone()), Arc::clone(document));
}

fn new(kind: Kind, id: String, settings: Settings, hidden: Hidden) -> Document {
    let now = clock::unix_s();
    Document { kind, id, version: 0, created_unix_s: now, changed_unix_s: now, settings, hidden }
}

fn changed(before: &Document, settings: Settings) -> Document {
    Document { settings, changed_unix_s: clock::unix_s(), ..before.clone() }
}

fn new_id(kind: Kind) -> Result<String, Refused> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| Refused::new("internal", error.to_string(), "try again"))?;
    Ok(format!("{}_{}", kind.prefix(), hex(&random)))
}

fn check_id(id: &str) -> Result<(), Refused> {
    let expected =
        format!("id: expected 1 to {ID_BYTES_MAX} letters, digits, `.`, `_` and `-`, a letter or digit first");
    if is_id(id) { Ok(()) } else { Err(bad(&expected)) }
}

fn check_room(view: &View, kind: Kind) -> Result<(), Refused> {
    if view.iter(kind).count() < DOCUMENTS_MAX {
        return Ok(());
    }
    let message = format!("there are {DOCUMENTS_MAX} documents of the kind {}", kind.name());
    Err(Refused::new("full", message, "delete some that are not needed"))
}

fn found(view: &View, kind: Kind, id: &str, expected: Option<u64>) -> Result<Arc<Document>, Refused> {
    let document = view.get(kind, id).ok_or_else(|| not_there(kind))?;
    check_version(Some(document), expected)?;
    Ok(Arc::clone(document))
}

/// There is no such document. The id is not repeated: it may be a key that was put in its place.
pub(super) fn not_there(kind: Kind) -> Refused {
    Refused::new("not-found", format!("there is no {} of this id", kind.name()), "GET the list of them")
}

fn check_version(document: Option<&Document>, expected: Option<u64>) -> Result<(), Refused> {
    let found = document.map_or(0, |document| document.version);
    match expected {
        Some(expected) if expected != found => {
            let message = format!("the version is {found}, and not {expected}");
            Err(Refused::new("version", message, "GET it, and make the change upon what it is now"))
        }
        _ => Ok(()),
    }
}

/// Members in the place of those of the same name (RFC 7396). Settings have maps of texts at most, one level deep.
fn merged(settings: Value, patch: Map<String, Value>) -> Value {
    let Value::Object(mut merged) = settings else { return json!({}) };
    for (name, value) in patch {
        match (merged.get_mut(&name), value) {
            (_, Value::Null) => {
                merged.remove(&name);
            }
            (Some(Value::Object(map)), Value::Object(further)) => {
                for (name, value) in further {
                    if value.is_null() {
                        map.remove(&name);
                    } else {
                        map.insert(name, value);
                    }
                }
            }
            (_, value) => {
                merged.insert(name, value);
            }
        }
    }
    Value::Object(merged)
}
