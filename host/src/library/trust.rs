// SPDX-License-Identifier: Apache-2.0
//! Whose plugins are taken: those whose digest the operator has listed, and those that are signed by a listed key. Asked before
//! anything of a file is compiled, and again of every plugin that a policy uses, so that a rule holds for what is there already.
//!
//! A signature is the last section of a file: `penstock:signature` with 64 bytes, Ed25519 (RFC 8032) over [`SIGNED_WORDS`] and
//! the SHA-256 of all that stands before the section, in hex. So a signed plugin is one file, wherever it is copied to.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;

use super::Refused;
use super::store::{digest_of, is_digest};
use crate::config;
use crate::config::place::{Problem, Sources};

/// Code of the refusal of a plugin that is not trusted.
pub const UNTRUSTED: &str = "untrusted";
/// What stands before the digest in what is signed: no signature for something else is one of a plugin.
pub const SIGNED_WORDS: &str = "penstock plugin 1\n";

/// The head of the section: custom, its length, the length of its name, its name.
const HEAD: &[u8] = b"\0\x53\x12penstock:signature";
const SIGNATURE_BYTES: usize = 64;
const KEY_BYTES: usize = 32;
/// What stands before an Ed25519 key in a `SubjectPublicKeyInfo` (RFC 8410 section 4).
const KEY_INFO: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The rules in force.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trust {
    digests: BTreeSet<String>,
    keys: Vec<[u8; KEY_BYTES]>,
    demanded: bool,
}

/// The signature of a file, and what it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    digest: String,
    signature: Vec<u8>,
}

impl Trust {
    /// Nothing is taken.
    #[must_use]
    pub fn nobody() -> Self {
        Self { demanded: true, ..Self::default() }
    }

    /// Reads what an operator has written.
    ///
    /// # Errors
    /// What is no digest or no key, and where it stands.
    pub fn read(written: &config::Trust, sources: &Sources) -> Result<Self, Vec<Problem>> {
        let mut trust = Self { demanded: written.required, ..Self::default() };
        let mut problems = Vec::new();
        for digest in &written.digests {
            let text = digest.get_ref().to_ascii_lowercase();
            if is_digest(&text) {
                trust.digests.insert(text);
            } else {
                let help = "write the 64 digits that `sha256sum` prints";
                problems.push(Problem::new(sources.place_of(digest), "this is no SHA-256 in hex", help));
            }
        }
        for key in &written.keys {
            match public_key(key.get_ref()) {
                Some(key) => trust.keys.push(key),
                None => {
                    let help = "write what `openssl pkey -pubout` prints between its first and last line";
                    problems.push(Problem::new(sources.place_of(key), "this is no Ed25519 key in base64", help));
                }
            }
        }
        trust.demanded |= !trust.digests.is_empty() || !trust.keys.is_empty();
        if problems.is_empty() { Ok(trust) } else { Err(problems) }
    }

    /// Whether a file may be looked at any further.
    ///
    /// # Errors
    /// That it is not trusted, and what to do.
    pub fn admit(&self, bytes: &[u8]) -> Result<(), Refused> {
        if self.demanded { self.check(&digest_of(bytes), Seal::of(bytes).as_ref()) } else { Ok(()) }
    }

    /// The same for a file with this digest and seal.
    ///
    /// # Errors
    /// As [`Self::admit`].
    pub fn check(&self, digest: &str, seal: Option<&Seal>) -> Result<(), Refused> {
        if !self.demanded || self.digests.contains(digest) {
            return Ok(());
        }
        let why = match seal {
            Some(seal) if self.keys.iter().any(|key| seal.is_by(key)) => return Ok(()),
            Some(_) => "its signature is by none of the keys in trust.keys",
            None => "it is not signed",
        };
        let message = format!("trust.digests has no {digest}, and {why}");
        let help = "sign it with `penstock plugin sign`, or list its digest in [trust] if you have looked at it";
        Err(Refused::new(UNTRUSTED, message, help))
    }
}

impl Seal {
    /// The seal of a file; none if it has none.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let (rest, signature) = bytes.split_at_checked(bytes.len().checked_sub(SIGNATURE_BYTES)?)?;
        let content = rest.strip_suffix(HEAD)?;
        Some(Self { digest: digest_of(content), signature: signature.to_owned() })
    }

    fn is_by(&self, key: &[u8; KEY_BYTES]) -> bool {
        UnparsedPublicKey::new(&ED25519, key).verify(&signed(&self.digest), &self.signature).is_ok()
    }
}

/// A file with a signature at its end, in place of one that it has; and the public key, in base64, as an operator lists it.
///
/// # Errors
/// The key is not an Ed25519 key in PKCS#8.
pub fn sign(bytes: &[u8], pem: &[u8]) -> Result<(Vec<u8>, String), String> {
    let help = "make one with `openssl genpkey -algorithm ed25519 -out plugins.pem`";
    let key =
        PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| format!("the key is no private key in PEM: {help}"))?;
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.secret_pkcs8_der());
    let pair = pair.map_err(|_| format!("the key is not an Ed25519 key: {help}"))?;
    let end = if Seal::of(bytes).is_some() { bytes.len() - SIGNATURE_BYTES - HEAD.len() } else { bytes.len() };
    let content = &bytes[..end];
    let signature = pair.sign(&signed(&digest_of(content)));
    let public = BASE64_STANDARD.encode([KEY_INFO, pair.public_key().as_ref()].concat());
    Ok(([content, HEAD, signature.as_ref()].concat(), public))
}

fn signed(digest: &str) -> Vec<u8> {
    format!("{SIGNED_WORDS}{digest}").into_bytes()
}

/// A key with or without what says that it is one.
fn public_key(text: &str) -> Option<[u8; KEY_BYTES]> {
    let bytes = BASE64_STANDARD.decode(text.trim()).ok()?;
    bytes.strip_prefix(KEY_INFO).unwrap_or(&bytes).try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use toml::Spanned;

    /// The key of RFC 8037 appendix A.1.
    const KEY: &[u8] =
        b"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
    const PUBLIC: &str = "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

    fn trust(digests: &[&str], keys: &[&str]) -> Result<Trust, Vec<Problem>> {
        let list = |texts: &[&str]| texts.iter().map(|text| Spanned::new(0..0, (*text).to_owned())).collect();
        let written = config::Trust { required: false, digests: list(digests), keys: list(keys) };
        Trust::read(&written, &Sources::default())
    }

    fn code(trust: &Trust, bytes: &[u8]) -> Option<&'static str> {
        trust.admit(bytes).err().map(|refused| refused.code)
    }

    #[test]
    fn without_a_rule_every_file_is_taken_and_with_one_only_what_is_listed_or_signed() {
        let (signed, public) = sign(b"a plugin", KEY).unwrap();
        assert_eq!(public, PUBLIC);
        assert_eq!(code(&trust(&[], &[]).unwrap(), b"anything"), None);
        let by_digest = trust(&[&digest_of(b"a plugin").to_uppercase()], &[]).unwrap();
        assert_eq!(code(&by_digest, b"a plugin"), None);
        assert_eq!(code(&by_digest, b"a plugim"), Some(UNTRUSTED));
        assert_eq!(code(&by_digest, &signed), Some(UNTRUSTED), "its digest is another one");
        let by_key = trust(&[], &[PUBLIC]).unwrap();
        assert_eq!(code(&by_key, &signed), None);
        assert_eq!(code(&by_key, b"a plugin"), Some(UNTRUSTED));
        assert_eq!(code(&Trust::nobody(), &signed), Some(UNTRUSTED));
    }

    #[test]
    fn no_byte_of_a_signed_file_can_be_changed() {
        let (signed, _) = sign(b"a plugin", KEY).unwrap();
        let by_key = trust(&[], &[PUBLIC]).unwrap();
        for at in 0..signed.len() {
            let mut changed = signed.clone();
            changed[at] ^= 1;
            assert_eq!(code(&by_key, &changed), Some(UNTRUSTED), "byte {at}");
        }
        assert_eq!(code(&by_key, &signed[..signed.len() - 1]), Some(UNTRUSTED));
        assert_eq!(sign(&signed, KEY).unwrap().0, signed, "a second signature takes the place of the first");
    }

    #[test]
    fn what_is_no_digest_and_no_key_is_refused() {
        for (digest, key) in [("abc", PUBLIC), ("", "AAAA")] {
            assert_eq!(trust(&[digest], &[key]).unwrap_err().len(), if key == PUBLIC { 1 } else { 2 });
        }
        assert!(sign(b"", b"no key").is_err());
    }
}
