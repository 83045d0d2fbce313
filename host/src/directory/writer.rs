// SPDX-License-Identifier: Apache-2.0
//! The single writer of the directory: decides on a change, keeps it, and makes the view that is to be in force.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::audit::{Actor, Line, Note};
use super::document::{Document, Hidden, ID_BYTES_MAX, Kind, is_id};
use super::seal::Sealer;
use super::secret::{SECRETS_MAX, mint};
use super::settings::{Settings, bad};
use super::store::{Commit, Loaded, Store, StoreError};
use super::view::View;
use super::{broken, now_unix_s};
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
        change: Change,
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
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = Line {
            number: self.last_line + 1,
            at_unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
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
            StoreError::Broken(_) => broken(&error),
        })?;
        self.revision += 1;
        self.last_line += 1;
        Ok(line)
    }

    fn decide(&self, view: &View, change: Change) -> Result<Decided, Refused> {
        match change {
            Change::Create { kind, id, settings, secret } => self.create(view, kind, id, settings, secret.as_ref()),
            Change::Put { kind, id, settings, expected } => {
                check_id(&id)?;
                let before = view.get(kind, &id).cloned();
                check_version(before.as_deref(), expected)?;
                let settings = Settings::parse(kind, settings)?;
                let action = if before.is_some() { "update" } else { "create" };
                let after = match &before {
                    Some(before) => changed(before, settings),
                    None => {
                        check_room(view, kind)?;
                        new(kind, id, settings, Hidden::default())
                    }
                };
                Ok(Decided { action, before, after: Some(after), minted: None })
            }
            Change::Patch { kind, id, patch, secret, expected } => {
                let before = found(view, kind, &id, expected)?;
                let settings = Settings::parse(kind, merged(before.settings.to_json(), patch))?;
                let mut after = changed(&before, settings);
                if let Some(secret) = secret {
                    after.hidden.sealed = Some(self.sealer.seal(&id, &secret)?);
                }
                Ok(Decided { action: "update", before: Some(before), after: Some(after), minted: None })
            }
            Change::Rotate { kind, id, secret, overlap_s, expected } => {
                let before = found(view, kind, &id, expected)?;
                let (after, minted) = self.rotated(&before, secret, overlap_s)?;
                Ok(Decided { action: "rotate", before: Some(before), after: Some(after), minted })
            }
            Change::Delete { kind, id, expected } => {
                let before = found(view, kind, &id, expected)?;
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
            let (secret, hashed) = mint(kind, now_unix_s())?;
            hidden.secrets.push(hashed);
            minted = Some(secret);
        }
        let after = new(kind, id, settings, hidden);
        Ok(Decided { action: "create", before: None, after: Some(after), minted })
    }

    fn rotated(
        &self,
        before: &Document,
        secret: Option<Secret>,
        overlap_s: u64,
    ) -> Result<(Document, Option<Secret>), Refused> {
        let mut after = changed(before, before.settings.clone());
        if let Some(secret) = secret {
            after.hidden.sealed = Some(self.sealer.seal(&before.id, &secret)?);
            return Ok((after, None));
        }
        let now = now_unix_s();
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

fn new(kind: Kind, id: String, settings: Settings, hidden: Hidden) -> Document {
    let now = now_unix_s();
    Document { kind, id, version: 0, created_unix_s: now, changed_unix_s: now, settings, hidden }
}

fn changed(before: &Document, settings: Settings) -> Document {
    Document { settings, changed_unix_s: now_unix_s(), ..before.clone() }
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
