// SPDX-License-Identifier: Apache-2.0
//! Secrets: where they come from ([`Source`]), what holds one ([`Secret`]) and who may use which ([`Grants`]).
//!
//! A secret is shown by nothing here: `Secret` has no `Display`, its `Debug` tells only that it is one, and no error
//! text holds a byte of it. Its content is asked for in two places, where a request is sent and where a plugin signs or
//! compares.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Largest secret file, in bytes: a service-account file fits, a mistaken path to a log does not.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// The bytes of a secret; overwritten when dropped.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes. For whoever writes them into a request or signs with them, and for nobody else.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// SHA-256 of the bytes, to see whether a secret has changed. Not for logs: a weak secret can be guessed from it.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Where a secret is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An environment variable.
    Env(String),
    /// A file; one line end after its content is not part of the secret.
    File(PathBuf),
}

impl Source {
    /// Reads `"env:NAME"` or `"file:PATH"`.
    ///
    /// # Errors
    /// What to write instead. The text is not repeated, since it may be a key that was put there by mistake.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("env", name)) if is_variable(name) => Ok(Self::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            _ => Err("a secret is named, not written here: use \"env:NAME\" or \"file:PATH\"".to_owned()),
        }
    }

    /// Reads the secret.
    ///
    /// # Errors
    /// Why there is none, naming the variable or file.
    pub fn read(&self) -> Result<Secret, String> {
        let bytes = match self {
            Self::Env(name) => std::env::var_os(name)
                .ok_or_else(|| format!("the environment variable {name} is not set"))?
                .into_encoded_bytes(),
            Self::File(path) => {
                let shown = path.display();
                let meta = std::fs::metadata(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
                if !meta.is_file() || meta.len() > SECRET_BYTES_MAX {
                    return Err(format!("{shown} is not a file of at most {SECRET_BYTES_MAX} bytes"));
                }
                let mut bytes = std::fs::read(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
                trim_line_end(&mut bytes);
                bytes
            }
        };
        if bytes.is_empty() { Err(format!("{self} is empty")) } else { Ok(Secret::new(bytes)) }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

/// The secrets that one configured plugin may use, by the names that it knows them under.
#[derive(Debug, Clone, Default)]
pub struct Grants(BTreeMap<String, Arc<Secret>>);

impl Grants {
    /// The secret of this name; none if it was not granted.
    #[must_use]
    pub fn secret(&self, name: &str) -> Option<&Secret> {
        self.0.get(name).map(Arc::as_ref)
    }

    /// The shared handle of the secret of this name.
    #[must_use]
    pub fn handle(&self, name: &str) -> Option<Arc<Secret>> {
        self.0.get(name).cloned()
    }

    /// Grants a secret under a name.
    pub fn insert(&mut self, name: String, secret: Arc<Secret>) {
        self.0.insert(name, secret);
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// SHA-256 over names and secrets: differs when a grant or a secret has changed.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for (name, secret) in &self.0 {
            hash.update(name.len().to_le_bytes());
            hash.update(name);
            hash.update(secret.fingerprint());
        }
        hash.finalize().into()
    }
}

impl FromIterator<(String, Arc<Secret>)> for Grants {
    fn from_iter<I: IntoIterator<Item = (String, Arc<Secret>)>>(secrets: I) -> Self {
        Self(secrets.into_iter().collect())
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn trim_line_end(bytes: &mut Vec<u8>) {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_names_a_variable_or_a_file_and_nothing_else() {
        assert_eq!(Source::parse("env:API_KEY"), Ok(Source::Env("API_KEY".into())));
        assert_eq!(Source::parse("file:/run/key"), Ok(Source::File("/run/key".into())));
        for wrong in ["", "sk-live-123", "env:", "env:A B", "file:", "vault:x", "ENV:X"] {
            assert_eq!(
                Source::parse(wrong),
                Source::parse("sk-other"),
                "{wrong}: the text may be a key, and is not repeated"
            );
            assert!(Source::parse(wrong).is_err());
        }
    }

    #[test]
    fn a_file_loses_one_line_end_and_an_error_names_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        for (text, secret) in [("k\n", "k"), ("k\r\n", "k"), ("k\n\n", "k\n"), (" k ", " k ")] {
            let path = dir.path().join("key");
            std::fs::write(&path, text).expect("written");
            assert_eq!(Source::File(path).read().expect("a secret").expose(), secret.as_bytes());
        }
        let missing = Source::File(dir.path().join("none")).read().expect_err("nothing there");
        assert!(missing.contains("none"), "{missing}");
        assert!(Source::File(dir.path().to_owned()).read().is_err(), "a directory is no secret");
    }

    #[test]
    fn nothing_prints_a_secret() {
        let secret = Arc::new(Secret::new(b"hunter2".to_vec()));
        let grants: Grants = [("key".to_owned(), Arc::clone(&secret))].into_iter().collect();
        assert!(!format!("{secret:?} {grants:?}").contains("hunter2"));
    }

    #[test]
    fn a_fingerprint_follows_names_and_contents() {
        let grants = |name: &str, key: &str| -> [u8; 32] {
            [(name.to_owned(), Arc::new(Secret::new(key.into())))].into_iter().collect::<Grants>().fingerprint()
        };
        assert_eq!(grants("key", "a"), grants("key", "a"));
        assert_ne!(grants("key", "a"), grants("key", "b"));
        assert_ne!(grants("key", "a"), grants("yek", "a"));
    }
}
