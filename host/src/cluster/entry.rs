// SPDX-License-Identifier: Apache-2.0
//! What a cluster keeps under one name: a document of the directory, a policy file, or which version of a plugin is active.
//!
//! An entry has a version (the number of the change that made it), the SHA-256 of its content, and a tag: HMAC-SHA-256 over
//! all of it, its name and its cluster, under a key that is derived from the master key. Whoever can write to Redis and does
//! not have the master key can take entries away; they can neither make one, nor change, rename or backdate it.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::config::load::{DEPTH_MAX, is_policy_name};
use crate::config::place::hex;
use crate::directory::document::{Kind, is_id};
use crate::keys::Secret;
use crate::library::store::{digest_of, is_name};

/// Largest entry, in bytes: the largest policy file, and its head.
pub(super) const ENTRY_BYTES_MAX: usize = (1 << 20) + 1024;
/// Longest name of a policy file, in bytes.
const NAME_BYTES_MAX: usize = 200;
/// Separates this use of the master key from all others.
pub(super) const INFO: &[u8] = b"penstock cluster 1";

/// What an entry is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    /// A document of the directory.
    Document(Kind, String),
    /// A policy file, by its path below the policy directory.
    Policy(String),
    /// The active version of a plugin.
    Plugin(String),
    /// A line of the audit log.
    Line(u64),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Document(kind, id) => write!(f, "document/{}/{id}", kind.name()),
            Self::Policy(path) => write!(f, "policy/{path}"),
            Self::Plugin(name) => write!(f, "plugin/{name}"),
            Self::Line(number) => write!(f, "line/{number}"),
        }
    }
}

impl Name {
    /// The name of an entry; none for one that this version does not know, or that is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (of, rest) = text.split_once('/')?;
        match of {
            "document" => {
                let (kind, id) = rest.split_once('/')?;
                Some(Self::Document(Kind::of_name(kind)?, id.to_owned())).filter(|_| is_id(id))
            }
            "policy" => is_path(rest).then(|| Self::Policy(rest.to_owned())),
            "plugin" => is_name(rest).then(|| Self::Plugin(rest.to_owned())),
            _ => None,
        }
    }
}

/// Whether this can be a policy file below a directory.
pub(super) fn is_path(path: &str) -> bool {
    let parts: Vec<_> = path.split('/').collect();
    let is_plain = |part: &&str| !part.is_empty() && !part.starts_with('.') && !part.contains(char::is_control);
    path.len() <= NAME_BYTES_MAX
        && parts.len() <= DEPTH_MAX + 1
        && parts.iter().all(is_plain)
        && parts.last().is_some_and(|name| is_policy_name(name))
}

/// What is kept under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The change that made it.
    pub(super) version: u64,
    /// Its content; none if it is no more.
    pub(super) body: Option<Vec<u8>>,
}

/// The first line of an entry. Scripts read the version, so that it stands first.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    v: u64,
    gone: bool,
    sha256: String,
    tag: String,
}

/// Tags entries of a cluster, and checks their tags.
pub(super) struct Signer {
    key: Secret,
    prefix: String,
}

impl Signer {
    /// With the key that is derived for this; `prefix` is where the cluster is.
    pub(super) fn new(key: Secret, prefix: &str) -> Self {
        Self { key, prefix: prefix.to_owned() }
    }

    /// What tells whether two nodes have the same master key.
    pub(super) fn check(&self, epoch: &str) -> String {
        self.mac(&[b"check", self.prefix.as_bytes(), epoch.as_bytes()])
            .map_or_else(String::new, |mac| hex(&mac.finalize().into_bytes()))
    }

    /// An entry as it is kept.
    ///
    /// # Errors
    /// It is too large.
    pub(super) fn seal(&self, epoch: &str, name: &Name, entry: &Entry) -> Result<Vec<u8>, String> {
        let body = entry.body.as_deref().unwrap_or_default();
        let gone = entry.body.is_none();
        let sha256 = digest_of(body);
        let mac = self.tag(epoch, name, entry.version, gone, &sha256).ok_or("an entry cannot be tagged")?;
        let tag = hex(&mac.finalize().into_bytes());
        let mut bytes =
            serde_json::to_vec(&Head { v: entry.version, gone, sha256, tag }).map_err(|error| error.to_string())?;
        bytes.push(b'\n');
        bytes.extend_from_slice(body);
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(format!("{name} is larger than {ENTRY_BYTES_MAX} bytes"));
        }
        Ok(bytes)
    }

    /// The entry that was kept under a name, if it is what somebody with the master key has put there.
    ///
    /// # Errors
    /// What is wrong with it; nothing of its content.
    pub(super) fn open(&self, epoch: &str, name: &Name, bytes: &[u8]) -> Result<Entry, String> {
        let damaged = || "it is not an entry of a cluster".to_owned();
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(format!("it is larger than {ENTRY_BYTES_MAX} bytes"));
        }
        let end = memchr::memchr(b'\n', bytes).ok_or_else(damaged)?;
        let (head, body) = bytes.split_at(end);
        let body = body.get(1..).ok_or_else(damaged)?;
        let Head { v, gone, sha256, tag } = serde_json::from_slice(head).map_err(|_| damaged())?;
        if digest_of(body) != sha256 {
            return Err("its content is not what its digest says".to_owned());
        }
        let mac = self.tag(epoch, name, v, gone, &sha256).ok_or_else(damaged)?;
        let is_ours = unhex(&tag).is_some_and(|tag| mac.verify_slice(&tag).is_ok()); // in constant time
        if !is_ours {
            return Err("its tag was not made with the master key of this cluster".to_owned());
        }
        Ok(Entry { version: v, body: (!gone).then(|| body.to_vec()) })
    }

    fn tag(&self, epoch: &str, name: &Name, version: u64, gone: bool, sha256: &str) -> Option<Hmac<Sha256>> {
        let (name, version) = (name.to_string(), version.to_be_bytes());
        let parts: [&[u8]; 7] = [
            b"entry",
            self.prefix.as_bytes(),
            epoch.as_bytes(),
            name.as_bytes(),
            &version,
            &[u8::from(gone)],
            sha256.as_bytes(),
        ];
        self.mac(&parts)
    }

    /// Each part with its length, so that no two lists of parts are the same bytes.
    fn mac(&self, parts: &[&[u8]]) -> Option<Hmac<Sha256>> {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(self.key.expose()).ok()?;
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        Some(mac)
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let is_hex = text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let byte = |at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(byte).collect::<Option<_>>().filter(|_| is_hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(master: &str) -> Signer {
        Signer::new(Secret::new(master.into()), "penstock")
    }

    #[test]
    fn an_entry_is_opened_only_as_it_was_sealed_by_the_same_master_key() {
        let (ours, name) = (signer("one"), Name::Policy("a.toml".to_owned()));
        let entry = Entry { version: 7, body: Some(b"text\nof it".to_vec()) };
        let kept = ours.seal("e", &name, &entry).unwrap();
        assert!(kept.starts_with(b"{\"v\":7,"), "scripts read it");
        assert_eq!(ours.open("e", &name, &kept).unwrap(), entry);
        let gone = Entry { version: 8, body: None };
        assert_eq!(ours.open("e", &name, &ours.seal("e", &name, &gone).unwrap()).unwrap(), gone);

        let text = String::from_utf8(kept).unwrap();
        let refused = |signer: &Signer, epoch: &str, name: &Name, text: &str| {
            signer.open(epoch, name, text.as_bytes()).err().unwrap_or_else(|| panic!("{text}"))
        };
        for changed in [
            text.replace("of it", "of me"),
            text.replace("\"v\":7", "\"v\":9"),
            text.replace("false", "true"),
            text.replace("\"tag\":\"", "\"tag\":\"00"),
            text.replace('\n', ""),
            String::new(),
            "{}\n".to_owned(),
        ] {
            refused(&ours, "e", &name, &changed);
        }
        refused(&signer("two"), "e", &name, &text);
        refused(&ours, "other", &name, &text);
        refused(&ours, "e", &Name::Policy("b.toml".to_owned()), &text);
        assert_ne!(ours.check("e"), signer("two").check("e"));
        let large = Entry { version: 1, body: Some(vec![0; ENTRY_BYTES_MAX]) };
        assert!(ours.seal("e", &name, &large).is_err());
    }

    #[test]
    fn names_are_read_as_they_are_written_and_no_path_leads_out_of_the_directory() {
        for name in [
            Name::Document(Kind::Team, "red".to_owned()),
            Name::Policy("vendors/acme.toml".to_owned()),
            Name::Plugin("api-key".to_owned()),
        ] {
            assert_eq!(Name::parse(&name.to_string()), Some(name));
        }
        for wrong in [
            "",
            "document/team",
            "document/none/x",
            "document/team/../x",
            "policy/../x.toml",
            "policy//x.toml",
            "policy/.x.toml",
            "policy/x.txt",
            "policy/a\nb.toml",
            "plugin/A",
            "plugin/../a",
            "other/x",
        ] {
            assert_eq!(Name::parse(wrong), None, "{wrong}");
        }
    }
}
