// SPDX-License-Identifier: Apache-2.0
//! The directory as requests read it: one immutable value, made anew with each change. A virtual key in it has everything
//! that a request needs to know of it, its team included, so that a request looks up one thing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::audit::Actor;
use super::document::{Document, Kind};
use super::rules::{Rule, Rules};
use super::seal::Sealer;
use super::secret::{Sum, half, is_same, sum};
use super::settings::{Settings, Tier};
use crate::keys::Secret;
use crate::library::Refused;

/// Everything that is in the directory.
#[derive(Default)]
pub struct View {
    /// The change that made it.
    pub revision: u64,
    /// Unlike that of any other view in this process. (What follows other nodes may lead to a revision twice.)
    pub number: u64,
    documents: BTreeMap<(Kind, String), Arc<Document>>,
    keys: HashMap<String, Arc<VirtualKey>>,
    /// By the first half of the hash of a secret; see [`half`].
    by_secret: HashMap<[u8; 16], Vec<Entry>>,
    pools: HashMap<String, Arc<[PoolKey]>>,
}

/// A secret, and whose it is.
struct Entry {
    sum: Sum,
    kind: Kind,
    id: String,
    valid_until_unix_s: Option<u64>,
}

/// A virtual key as a request sees it.
#[derive(Debug)]
pub struct VirtualKey {
    /// Its id.
    pub id: String,
    /// For people.
    pub name: String,
    /// Who the caller is.
    pub subject: String,
    /// Id of its team.
    pub team: Option<String>,
    /// What is known of it and of its team, by name.
    pub attributes: Vec<(String, String)>,
    /// What it may use, and what its team may use.
    pub allowed: [Allowed; 2],
    /// From when on it is not accepted, in seconds since 1970.
    pub expires_unix_s: Option<u64>,
    /// Why it is not accepted at any time.
    disabled: Option<&'static str>,
    /// The limits and budgets that it is under.
    pub(super) rules: Vec<Arc<Rule>>,
}

/// Lists of what may be used; none allows everything.
#[derive(Debug, Clone, Default)]
pub struct Allowed {
    /// Models by the names that callers use; a trailing `*` matches any rest.
    pub models: Option<Vec<String>>,
    /// Operations.
    pub operations: Option<Vec<String>>,
}

impl VirtualKey {
    /// Why the key is not accepted: `disabled`, `team-disabled`, `expired`; none if it is.
    #[must_use]
    pub fn refusal(&self, now_unix_s: u64) -> Option<&'static str> {
        let expired = self.expires_unix_s.is_some_and(|expires| expires <= now_unix_s);
        self.disabled.or_else(|| expired.then_some("expired"))
    }

    /// Whether it may use an operation.
    #[must_use]
    pub fn may_ask_for(&self, operation: &str) -> bool {
        let lists = self.allowed.iter().filter_map(|allowed| allowed.operations.as_ref());
        lists.into_iter().all(|list| list.iter().any(|known| known == operation))
    }

    /// Whether it may use a model, by the name that the caller uses. A request without a model is one for any of a vendor's.
    #[must_use]
    pub fn may_use(&self, model: &str) -> bool {
        let mut lists = self.allowed.iter().filter_map(|allowed| allowed.models.as_ref());
        lists.all(|list| matches_any(list, model))
    }

    /// The limits and budgets that it is under, its own and those of its team.
    #[must_use]
    pub fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }
}

/// Whether a name is in a list; a trailing `*` matches any rest.
#[must_use]
pub fn matches_any(list: &[String], name: &str) -> bool {
    list.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => pattern == name,
    })
}

/// A credential at a vendor, ready to be used.
#[derive(Debug, Clone)]
pub struct PoolKey {
    /// Its id.
    pub id: Arc<str>,
    /// For people and for metrics.
    pub name: String,
    /// When it is used.
    pub tier: Tier,
    /// Its share of the calls of its tier.
    pub weight: u32,
    /// The key.
    pub secret: Arc<Secret>,
}

impl View {
    /// The view of these documents.
    ///
    /// # Errors
    /// `dangling`: a document refers to one that is not there. `unsealed`: a vendor key cannot be opened.
    pub(super) fn of(
        revision: u64,
        documents: BTreeMap<(Kind, String), Arc<Document>>,
        sealer: &Sealer,
    ) -> Result<Self, Refused> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut view = Self { revision, number, documents, ..Self::default() };
        for document in view.documents.values() {
            view.check_references(document)?;
        }
        for document in view.documents.values() {
            for secret in &document.hidden.secrets {
                let Some(sum) = secret.sum() else { continue };
                let (kind, id) = (document.kind, document.id.clone());
                let entry = Entry { sum, kind, id, valid_until_unix_s: secret.valid_until_unix_s };
                view.by_secret.entry(half(&sum)).or_default().push(entry);
            }
        }
        let rules = Rules::of(&view);
        let keys = view.iter(Kind::VirtualKey).filter_map(|document| view.resolved(document, &rules));
        view.keys = keys.map(|key| (key.id.clone(), Arc::new(key))).collect();
        view.pools = view.pools_of(sealer)?;
        Ok(view)
    }

    /// A document.
    #[must_use]
    pub fn get(&self, kind: Kind, id: &str) -> Option<&Arc<Document>> {
        self.documents.get(&(kind, id.to_owned()))
    }

    /// The documents of a kind, by id.
    pub fn iter(&self, kind: Kind) -> impl Iterator<Item = &Arc<Document>> {
        let from = self.documents.range((kind, String::new())..);
        from.take_while(move |((of, _), _)| *of == kind).map(|(_, document)| document)
    }

    /// Every document.
    #[must_use]
    pub fn documents(&self) -> &BTreeMap<(Kind, String), Arc<Document>> {
        &self.documents
    }

    /// The virtual key of an id.
    #[must_use]
    pub fn key(&self, id: &str) -> Option<&Arc<VirtualKey>> {
        self.keys.get(id)
    }

    /// The virtual key that a caller presents, and until when it is accepted under this secret; one that is not accepted any more
    /// is found, too.
    #[must_use]
    pub fn find(&self, presented: &[u8], now_unix_s: u64) -> Option<(&Arc<VirtualKey>, Option<u64>)> {
        let entry = self.owner(Kind::VirtualKey, presented, now_unix_s)?;
        Some((self.keys.get(&entry.id)?, entry.valid_until_unix_s))
    }

    /// Who has an admin token.
    #[must_use]
    pub fn actor(&self, presented: &[u8], now_unix_s: u64) -> Option<Actor> {
        let document = self.get(Kind::AdminToken, &self.owner(Kind::AdminToken, presented, now_unix_s)?.id)?;
        let Settings::AdminToken(token) = &document.settings else { return None };
        let is_valid = token.enabled && token.expires_unix_s.is_none_or(|expires| now_unix_s < expires);
        is_valid.then(|| Actor { name: token.name.clone(), role: token.role })
    }

    /// The keys of a vendor, the first tier first; none if the directory has none.
    #[must_use]
    pub fn pool(&self, vendor: &str) -> Option<&Arc<[PoolKey]>> {
        self.pools.get(vendor)
    }

    fn owner(&self, kind: Kind, presented: &[u8], now_unix_s: u64) -> Option<&Entry> {
        let presented = sum(presented);
        let mut candidates = self.by_secret.get(&half(&presented))?.iter();
        let found = candidates.rfind(|entry| entry.kind == kind && is_same(&entry.sum, &presented))?;
        let is_valid = found.valid_until_unix_s.is_none_or(|until| now_unix_s < until);
        is_valid.then_some(found)
    }

    fn check_references(&self, document: &Document) -> Result<(), Refused> {
        for (kind, id) in document.settings.references() {
            if self.get(kind, id).is_none() {
                let message =
                    format!("the {} {} refers to the {} {id}", document.kind.name(), document.id, kind.name());
                let help = "make that first; one that is referred to cannot be deleted";
                return Err(Refused::new("dangling", format!("{message}, which is not there"), help));
            }
        }
        Ok(())
    }

    fn resolved(&self, document: &Document, rules: &Rules) -> Option<VirtualKey> {
        let Settings::VirtualKey(key) = &document.settings else { return None };
        let team = key.team.as_deref().and_then(|team| match &self.get(Kind::Team, team)?.settings {
            Settings::Team(team) => Some(team),
            _ => None,
        });
        let mut metadata = team.map(|team| team.metadata.clone()).unwrap_or_default();
        metadata.extend(key.metadata.clone());
        let allowed = Allowed { models: key.models.clone(), operations: key.operations.clone() };
        let allowed_to_team =
            team.map(|team| Allowed { models: team.models.clone(), operations: team.operations.clone() });
        let disabled = (!key.enabled).then_some("disabled");
        Some(VirtualKey {
            id: document.id.clone(),
            name: key.name.clone(),
            subject: key.subject.clone().unwrap_or_else(|| document.id.clone()),
            team: key.team.clone(),
            attributes: metadata.into_iter().collect(),
            allowed: [allowed, allowed_to_team.unwrap_or_default()],
            expires_unix_s: key.expires_unix_s,
            disabled: disabled.or_else(|| team.is_some_and(|team| !team.enabled).then_some("team-disabled")),
            rules: rules.of_key(&document.id, key, team),
        })
    }

    fn pools_of(&self, sealer: &Sealer) -> Result<HashMap<String, Arc<[PoolKey]>>, Refused> {
        let mut pools: HashMap<String, Vec<PoolKey>> = HashMap::new();
        for document in self.iter(Kind::VendorKey) {
            let (Settings::VendorKey(key), Some(sealed)) = (&document.settings, &document.hidden.sealed) else {
                continue;
            };
            let secret = sealer.unseal(&document.id, sealed).ok_or_else(|| {
                let message = format!("the vendor key {} cannot be opened with this master key", document.id);
                Refused::new("unsealed", message, "give the gateway the master key with which it was sealed")
            })?;
            if key.enabled {
                let (id, name, secret) = (document.id.as_str().into(), key.key_name.clone(), Arc::new(secret));
                let key_of_pool = PoolKey { id, name, tier: key.tier, weight: key.weight, secret };
                pools.entry(key.vendor.clone()).or_default().push(key_of_pool);
            }
        }
        for pool in pools.values_mut() {
            pool.sort_by_key(|key| key.tier);
        }
        Ok(pools.into_iter().map(|(vendor, pool)| (vendor, pool.into())).collect())
    }
}
