// SPDX-License-Identifier: Apache-2.0
//! What the directory holds: documents, each of a kind, with a version that every change raises.
//!
//! A document has two parts. Its settings are for every reader: admin answers and the audit log are made of nothing else
//! ([`Document::shown`]). What is hidden (hashes of secrets, a sealed key) leaves this module only towards the store.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::seal::Sealed;
use super::secret::Hashed;
use super::settings::Settings;

/// Kinds with their names, and what the ids begin with that are made here.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal, $prefix:literal;)*) => {
        /// What a document is about.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind { $($(#[$doc])* $kind,)* }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// Its name, in the store and in the audit log.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// What its ids begin with.
            pub(super) fn prefix(self) -> &'static str {
                match self { $(Self::$kind => $prefix,)* }
            }
        }
    };
}

kinds! {
    /// A credential of the admin API.
    AdminToken = "admin-token", "token";
    /// Money that keys and teams may spend.
    Budget = "budget", "budget";
    /// A capability by a name of its own.
    Feature = "feature", "feature";
    /// Requests or tokens that keys and teams may use.
    Limit = "limit", "limit";
    /// A service that tells that it is there.
    Service = "service", "service";
    /// Keys that belong together.
    Team = "team", "team";
    /// A credential at a vendor.
    VendorKey = "vendor-key", "key";
    /// A credential that the gateway has given to a caller.
    VirtualKey = "virtual-key", "vk";
}

impl Kind {
    /// The kind of a name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

/// One document.
#[derive(Debug, Clone)]
pub struct Document {
    /// What it is about.
    pub kind: Kind,
    /// Its name among those of its kind.
    pub id: String,
    /// The revision of the directory that wrote it: never used twice, not even after it was deleted and made again.
    pub version: u64,
    /// When it was made, in seconds since 1970.
    pub created_unix_s: u64,
    /// When it was changed last, in seconds since 1970.
    pub changed_unix_s: u64,
    /// What everybody may see of it.
    pub settings: Settings,
    /// What nobody may see of it.
    pub(super) hidden: Hidden,
}

/// The part of a document that no answer and no log has.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Hidden {
    /// Secrets that are only compared, the one in use first.
    pub(super) secrets: Vec<Hashed>,
    /// A secret that is sent to a vendor.
    pub(super) sealed: Option<Sealed>,
}

impl Document {
    /// The document as admin answers and the audit log show it: without a secret, by construction.
    #[must_use]
    pub fn shown(&self) -> Value {
        let mut shown = Map::new();
        shown.insert("id".to_owned(), json!(self.id));
        if let Value::Object(settings) = self.settings.to_json() {
            shown.extend(settings);
        }
        if !self.hidden.secrets.is_empty() {
            let secrets = self.hidden.secrets.iter().map(|secret| {
                json!({ "created_unix_s": secret.created_unix_s, "valid_until_unix_s": secret.valid_until_unix_s })
            });
            shown.insert("secrets".to_owned(), secrets.collect());
        }
        shown.insert("version".to_owned(), json!(self.version));
        shown.insert("created_unix_s".to_owned(), json!(self.created_unix_s));
        shown.insert("changed_unix_s".to_owned(), json!(self.changed_unix_s));
        Value::Object(shown)
    }

    /// The document as the store keeps it: for stores only, since what is hidden is in it.
    ///
    /// # Errors
    /// None that is known.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&json!({
            "version": self.version,
            "created_unix_s": self.created_unix_s,
            "changed_unix_s": self.changed_unix_s,
            "settings": self.settings.to_json(),
            "hidden": serde_json::to_value(&self.hidden)?,
        }))
    }

    /// The document that the store has kept.
    ///
    /// # Errors
    /// What is wrong with it, without its content.
    pub fn of_bytes(kind: Kind, id: &str, bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Kept {
            version: u64,
            created_unix_s: u64,
            changed_unix_s: u64,
            settings: Value,
            hidden: Hidden,
        }
        let kept: Kept =
            serde_json::from_slice(bytes).map_err(|error| format!("it is no document ({})", error.line()))?;
        let settings = Settings::parse(kind, kept.settings).map_err(|refused| refused.message)?;
        let Kept { version, created_unix_s, changed_unix_s, hidden, .. } = kept;
        Ok(Self { kind, id: id.to_owned(), version, created_unix_s, changed_unix_s, settings, hidden })
    }
}

/// Whether a text can be an id: it stands in paths, counters and metrics as it is.
#[must_use]
pub fn is_id(text: &str) -> bool {
    let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    begins && text.len() <= ID_BYTES_MAX && text.bytes().all(is_plain)
}

/// Longest id.
pub const ID_BYTES_MAX: usize = 64;
