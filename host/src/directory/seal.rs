// SPDX-License-Identifier: Apache-2.0
//! Vendor keys at rest: ChaCha20-Poly1305 under a key that is derived (HKDF-SHA256) from the master key. A sealed key is
//! bound to its document, so that it cannot be moved to another one.

use std::fmt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use serde::{Deserialize, Serialize};

use super::token;
use crate::keys::{Secret, Source};
use crate::library::Refused;

/// Name of the file in the state directory that holds the master key if the policy names none.
pub const FILE: &str = "master-key";
/// A master key has at least so many bytes.
const MASTER_BYTES_MIN: usize = 32;
/// Separates this use of the master key from any other.
const INFO: &[u8] = b"penstock vendor keys 1";

/// A sealed secret: base64 of the nonce and of the ciphertext with its tag.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Sealed(String);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed")
    }
}

/// The master key: the one that the policy names, or else that of the state directory, made if there is none.
///
/// # Errors
/// What is wrong with it, and what to do; nothing of the key.
pub fn master(state: &Path, source: Option<&Source>) -> Result<Secret, String> {
    let secret = match source {
        Some(source) => source.read().map_err(|error| format!("admin.master_key: {error}"))?,
        None => Secret::new(token::file(&state.join(FILE))?),
    };
    if secret.expose().len() < MASTER_BYTES_MIN {
        return Err(format!(
            "the master key has fewer than {MASTER_BYTES_MIN} bytes; make one with `openssl rand -hex 32`"
        ));
    }
    Ok(secret)
}

/// A key for another use of the master key; `info` separates it from all other uses.
///
/// # Errors
/// None that is known.
pub fn derived(master: &Secret, info: &[u8]) -> Result<Secret, String> {
    let mut key = [0; 32];
    let prk = Salt::new(HKDF_SHA256, &[]).extract(master.expose());
    let filled = prk.expand(&[info], HKDF_SHA256).and_then(|okm| okm.fill(&mut key));
    filled.map_err(|_| "a key cannot be derived from the master key".to_owned())?;
    Ok(Secret::new(key.to_vec()))
}

/// Seals and opens.
pub(super) struct Sealer(LessSafeKey);

impl Sealer {
    /// With a master key of these bytes.
    ///
    /// # Errors
    /// None that is known.
    pub(super) fn with(master: &Secret) -> Result<Self, String> {
        let prk = Salt::new(HKDF_SHA256, &[]).extract(master.expose());
        let wrong = |_| "the key for sealing cannot be derived".to_owned();
        let okm = prk.expand(&[INFO], &CHACHA20_POLY1305).map_err(wrong)?;
        Ok(Self(LessSafeKey::new(UnboundKey::from(okm))))
    }

    /// Seals a secret for the document of this id.
    ///
    /// # Errors
    /// The operating system has no random numbers.
    pub(super) fn seal(&self, id: &str, secret: &Secret) -> Result<Sealed, Refused> {
        let broken = |_| Refused::new("internal", "a key cannot be sealed", "try again");
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|error| Refused::new("internal", error.to_string(), "try again"))?;
        let mut sealed = secret.expose().to_vec();
        let aad = Aad::from(id.as_bytes());
        self.0.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed).map_err(broken)?;
        Ok(Sealed(STANDARD.encode([&nonce[..], &sealed].concat())))
    }

    /// Opens what was sealed for the document of this id; none if the master key is another one, or the text was changed.
    pub(super) fn unseal(&self, id: &str, sealed: &Sealed) -> Option<Secret> {
        let mut bytes = STANDARD.decode(&sealed.0).ok()?;
        let (nonce, text) = bytes.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let opened = self.0.open_in_place(nonce, Aad::from(id.as_bytes()), text).ok()?;
        let secret = Secret::new(opened.to_vec());
        zeroize::Zeroize::zeroize(&mut bytes);
        Some(secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(master: &str) -> Sealer {
        Sealer::with(&Secret::new(master.into())).unwrap()
    }

    #[test]
    fn what_was_sealed_is_opened_by_the_same_master_key_for_the_same_document_only() {
        let (one, secret) = (sealer("one"), Secret::new(b"sk-planted".to_vec()));
        let sealed = one.seal("key_1", &secret).unwrap();
        assert_eq!(sealer("one").unseal("key_1", &sealed).unwrap().expose(), b"sk-planted");
        assert!(one.unseal("key_2", &sealed).is_none() && sealer("two").unseal("key_1", &sealed).is_none());
        assert!(!sealed.0.contains("planted") && !format!("{sealed:?}").contains(&sealed.0));
        let again = one.seal("key_1", &secret).unwrap();
        assert_ne!(sealed.0, again.0, "no nonce is used twice");
        for broken in ["", "x", "AAAA", &sealed.0[4..], &format!("A{}", &sealed.0[1..])] {
            assert!(one.unseal("key_1", &Sealed(broken.to_owned())).is_none() || broken == sealed.0, "{broken}");
        }
    }

    #[test]
    fn the_master_key_is_made_once_and_a_short_one_is_refused() {
        let state = tempfile::tempdir().unwrap();
        let first = master(state.path(), None).unwrap();
        assert_eq!(first.expose(), master(state.path(), None).unwrap().expose());
        let [one, other] = [b"one", b"two"].map(|info| derived(&first, info).unwrap());
        assert!(one.expose() != other.expose() && one.expose() != first.expose());
        let short = state.path().join("short");
        std::fs::write(&short, "0123456789").unwrap();
        let error = master(state.path(), Some(&Source::File(short))).err().unwrap();
        assert!(error.contains("fewer than 32") && !error.contains("0123"), "{error}");
    }
}
